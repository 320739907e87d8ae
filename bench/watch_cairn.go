package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"time"

	"github.com/cairnkv/cairn/bench/internal/rawsse"
)

// cairnWatching reads Cairn's streams of events with a poller a processor.
type cairnWatching struct {
	addr    string
	subs    []subscription
	got     *receipts
	readers []*cairnReader
	stalled []*rawsse.Conn // by watcher, until it reads on
	running sync.WaitGroup
	failed  []error // one a reader
}

// cairnReader is one poller with what it needs to look at messages.
type cairnReader struct {
	w      *cairnWatching
	shard  int
	poller *rawsse.Poller
	now    time.Time // of the read that the messages are of
}

func dialCairnWatch(ctx context.Context, addr string, subs []subscription, got *receipts) (watching, error) {
	w := &cairnWatching{addr: addr, subs: subs, got: got, stalled: make([]*rawsse.Conn, len(subs))}
	for i := range runtime.GOMAXPROCS(0) {
		poller, err := rawsse.NewPoller()
		if err != nil {
			return nil, errors.Join(err, w.close())
		}
		w.readers = append(w.readers, &cairnReader{w: w, shard: i, poller: poller})
	}
	w.failed = make([]error, len(w.readers))
	for i, r := range w.readers {
		w.running.Go(func() { w.failed[i] = r.poller.Run(r.ready, r.message, r.ended) })
	}
	if err := eachAtOnce(ctx, len(subs), w.begin); err != nil {
		return nil, errors.Join(err, w.close())
	}
	return w, nil
}

func (w *cairnWatching) reader(watcher int) *cairnReader { return w.readers[watcher%len(w.readers)] }

// begin opens the watch of one watcher.
func (w *cairnWatching) begin(watcher int) error {
	c, err := w.open(watcher, "")
	if err != nil {
		return err
	}
	if w.subs[watcher].stalled {
		w.stalled[watcher] = c
		return nil
	}
	return w.reader(watcher).poller.Add(c)
}

func (w *cairnWatching) open(watcher int, headers string) (*rawsse.Conn, error) {
	s := w.subs[watcher]
	what := "key=" + keyName(s.key)
	if s.prefix != "" {
		what = "prefix=" + s.prefix
	}
	if s.from > 0 {
		what += "&from_revision=" + strconv.FormatUint(s.from, 10)
	}
	request := fmt.Appendf(nil, "GET /v1/watch?%s HTTP/1.1\r\nHost: %s\r\nAccept: text/event-stream\r\n%s\r\n", what, w.addr, headers)
	opening := &cairnReader{w: w, shard: watcher, now: time.Now()}
	return rawsse.Open(w.addr, request, watcher, opening.message)
}

func (w *cairnWatching) readOn(watcher int) error {
	c := w.stalled[watcher]
	w.stalled[watcher] = nil
	return w.reader(watcher).poller.Add(c)
}

func (w *cairnWatching) close() error {
	for _, r := range w.readers {
		r.poller.Stop()
	}
	w.running.Wait()
	for _, c := range w.stalled {
		if c != nil {
			c.Close()
		}
	}
	return errors.Join(w.failed...)
}

func (r *cairnReader) ready() { r.now = time.Now() }

// message takes a message in. Values have a size and no character that JSON
// would escape, so that they are found by what stands before them.
func (r *cairnReader) message(c *rawsse.Conn, message []byte) {
	const before = `"value":"`
	got := r.w.got
	for rest := message; ; {
		i := bytes.Index(rest, []byte(before))
		if i < 0 {
			break
		}
		if rest = rest[i+len(before):]; len(rest) < valueSize {
			got.fail(c.Tag, fmt.Errorf("a value is cut off: %.100q", rest))
			return
		}
		if err := got.event(c.Tag, r.shard, rest[:valueSize], r.now); err != nil {
			got.fail(c.Tag, err)
		}
		rest = rest[valueSize:]
	}
	switch id, ok := rawsse.ID(message); {
	case ok && bytes.Contains(message[:min(len(message), 64)], []byte("\nevent: change\n")):
		got.fail(c.Tag, got.complete(c.Tag, id, r.now))
	case !ok && bytes.HasPrefix(message, []byte("event: ")) && !bytes.HasPrefix(message, []byte("event: change\n")):
		got.fail(c.Tag, fmt.Errorf("unexpected message %.200q", message))
	}
}

// ended resumes a watch that was stalled: the server closes a connection that
// takes nothing. Any other end is a failure.
func (r *cairnReader) ended(c *rawsse.Conn, err error) {
	w, watcher := r.w, c.Tag
	w.got.cut(watcher)
	if !w.subs[watcher].stalled {
		w.got.fail(watcher, fmt.Errorf("%w: %w", errStreamEnded, err))
		return
	}
	w.got.resumed.Add(1)
	seen := w.got.each[watcher].revision
	if seen == 0 {
		w.got.fail(watcher, errors.New("a stream ended before its first change"))
		return
	}
	again, err := w.open(watcher, fmt.Sprintf("Last-Event-ID: %d\r\n", seen))
	if err == nil {
		err = r.poller.Add(again)
	}
	w.got.fail(watcher, err)
}
