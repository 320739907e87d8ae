package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cairnkv/cairn/bench/internal/histogram"
)

// A stamp is what the value of a watched put begins with: when it was to be sent,
// in Unix nanoseconds, and its number, both in 16 hexadecimal digits.
const stampSize = 32

// stamp writes a stamp over the beginning of a value.
func stamp(value []byte, sent time.Time, number uint64) {
	putHex(value[:16], uint64(sent.UnixNano()))
	putHex(value[16:stampSize], number)
}

func putHex(to []byte, n uint64) {
	for i := len(to) - 1; i >= 0; i-- {
		to[i] = "0123456789abcdef"[n&15]
		n >>= 4
	}
}

// readHex reads 16 digits that putHex wrote, eight at a time: the letters have a
// bit that digits don't have, and are nine short of their value.
func readHex(digits []byte) uint64 {
	half := func(d []byte) uint64 {
		n := binary.BigEndian.Uint64(d)
		n = n&0x0f0f0f0f0f0f0f0f + n>>6&0x0101010101010101*9
		n = n&0x000f000f000f000f | n>>4&0x00f000f000f000f0
		n = n&0x000000ff000000ff | n>>8&0x0000ff000000ff00
		return n&0xffff | n>>16&0xffff0000
	}
	return half(digits[:8])<<32 | half(digits[8:16])
}

// receipts are what watchers got. A watcher has got everything when the number of
// its events and the sum over their numbers are those of the puts; it has got
// nothing twice, and nothing too early, when its revisions never went back.
type receipts struct {
	each []receipt
	// since is the time, in Unix nanoseconds, before which a put's delay is of no
	// interest.
	since  atomic.Int64
	shards [64]struct {
		mu     sync.Mutex
		delays histogram.Histogram
	}
	last    atomic.Int64 // when something came, in Unix nanoseconds
	resumed atomic.Int64

	mu     sync.Mutex
	errors int
	first  error
}

// receipt is one watcher's. One goroutine at a time writes it.
type receipt struct {
	events, sum atomic.Uint64
	revision    uint64 // the last one that was complete
	// What has come of a revision in parts counts with its last part: a watcher
	// that resumes gets them all again.
	partEvents, partSum uint64
	_                   [24]byte // watchers share no cache line
}

func newReceipts(watchers int) *receipts { return &receipts{each: make([]receipt, watchers)} }

// event takes one event of a watcher in.
func (r *receipts) event(watcher, shard int, value []byte, now time.Time) error {
	if len(value) < stampSize {
		return fmt.Errorf("an event has a value of %d bytes", len(value))
	}
	sent := int64(readHex(value))
	w := &r.each[watcher]
	w.partEvents++
	w.partSum += mix(readHex(value[16:]))
	if sent >= r.since.Load() {
		s := &r.shards[shard%len(r.shards)]
		s.mu.Lock()
		s.delays.Record(time.Duration(now.UnixNano() - sent))
		s.mu.Unlock()
	}
	return nil
}

// complete ends a revision of a watcher.
func (r *receipts) complete(watcher int, revision uint64, now time.Time) error {
	w := &r.each[watcher]
	if revision <= w.revision {
		return fmt.Errorf("revision %d came after %d", revision, w.revision)
	}
	w.revision = revision
	w.events.Add(w.partEvents)
	w.sum.Add(w.partSum)
	w.partEvents, w.partSum = 0, 0
	r.last.Store(now.UnixNano())
	return nil
}

// cut forgets what has come of a revision that is not complete.
func (r *receipts) cut(watcher int) {
	r.each[watcher].partEvents, r.each[watcher].partSum = 0, 0
}

func (r *receipts) fail(watcher int, err error) {
	if err == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.errors++
	if r.first == nil {
		r.first = fmt.Errorf("watcher %d: %w", watcher, err)
	}
}

// failure is the first error of any watcher.
func (r *receipts) failure() (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.errors, r.first
}

// delivered is how many events all watchers got.
func (r *receipts) delivered() (n uint64) {
	for i := range r.each {
		n += r.each[i].events.Load()
	}
	return n
}

// restart forgets the delays, and takes only those of puts from a time on.
func (r *receipts) restart(since time.Time) {
	r.since.Store(since.UnixNano())
	for i := range r.shards {
		r.shards[i].mu.Lock()
		r.shards[i].delays = histogram.Histogram{}
		r.shards[i].mu.Unlock()
	}
}

func (r *receipts) delays() *histogram.Histogram {
	all := &histogram.Histogram{}
	for i := range r.shards {
		r.shards[i].mu.Lock()
		all.Merge(&r.shards[i].delays)
		r.shards[i].mu.Unlock()
	}
	return all
}

// A ledger is what was put: how often, and the sum over the numbers of the puts.
type ledger struct{ events, sum atomic.Uint64 }

func (l *ledger) add(number uint64) {
	l.sum.Add(mix(number))
	l.events.Add(1)
}

// missing compares what a watcher got with what it should have got.
func (r *receipts) missing(watcher int, want *ledger) (lost uint64, err error) {
	got := &r.each[watcher]
	events, expected := got.events.Load(), want.events.Load()
	switch {
	case events < expected:
		return expected - events, nil
	case events > expected || got.sum.Load() != want.sum.Load():
		return 0, fmt.Errorf("watcher %d got %d events for %d puts, or others than those", watcher, events, expected)
	}
	return 0, nil
}

var errStreamEnded = errors.New("the stream ended")
