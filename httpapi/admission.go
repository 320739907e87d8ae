package httpapi

import (
	"context"
	"sync/atomic"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/kv"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/semaphore"
)

// An admission bounds what a server has taken on at one moment. What is beyond is
// refused at once, with 429 and Retry-After: a node that is asked for more than it
// can do goes on to do as much as it can, and its memory is bounded whatever
// clients send.
//
// Writes and linearizable reads that wait for the cluster have bounds of their own,
// in raftsm, so that stale reads are served while there is no leader.
type admission struct {
	// requests are under way, streams are those of them that are open for long.
	requests, streams atomic.Int64
	maxRequests       int64
	maxStreams        int64
	// held is the bytes of answers, and of leases and watches that connections hold,
	// that are in memory, bodies those of bodies, lines those of bulk writes.
	held, bodies, lines atomic.Int64
	// answers is for those of writes, which come into being where commands are applied,
	// each in as much as it may take at the most: how much it is turns out too late.
	answers *semaphore.Weighted
	// scrapes are the metrics that are being read.
	scrapes atomic.Int64
	// hearing are the clients whose bodies are read although they are not wanted.
	hearing atomic.Int64
	// pages has a token for each page that is being read, sorts one for each of those
	// that are sorted, and hashes one for each hash.
	pages, sorts, hashes chan struct{}
	pagesWaiting         atomic.Int64
	shed                 map[shedReason]prometheus.Counter
}

// A shedReason says which bound made the server refuse a request.
type shedReason string

const (
	shedConnections shedReason = "connections"
	shedRequests    shedReason = "requests"
	shedStreams     shedReason = "streams"
	shedMemory      shedReason = "memory"
	shedPages       shedReason = "pages"
	shedBackups     shedReason = "backups"
	shedCluster     shedReason = "cluster" // what waits for the cluster
)

func newAdmission(maxConnections int, registerer prometheus.Registerer) *admission {
	a := &admission{
		maxRequests: int64(maxConnections),
		maxStreams:  int64(maxConnections) * streamsPercent / 100,
		pages:       make(chan struct{}, maxPagesRead),
		sorts:       make(chan struct{}, maxSortsRead),
		hashes:      make(chan struct{}, maxHashes),
		answers:     semaphore.NewWeighted(maxHeldBytes),
		shed:        map[shedReason]prometheus.Counter{},
	}
	shed := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "cairn_http_shed_total",
		Help: "Requests and connections that were refused because the node had too much to do, by what there was too much of.",
	}, []string{"reason"})
	for _, reason := range []shedReason{shedConnections, shedRequests, shedStreams, shedMemory, shedPages, shedBackups, shedCluster} {
		a.shed[reason] = shed.WithLabelValues(string(reason))
	}
	if registerer != nil {
		registerer.MustRegister(shed,
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{
				Name: "cairn_http_requests_open",
				Help: "Requests under way, streams included.",
			}, func() float64 { return float64(a.requests.Load()) }),
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{
				Name: "cairn_http_streams_open",
				Help: "Requests that are open for long: watches, holds, waits for a turn, bulk writes, streamed lists.",
			}, func() float64 { return float64(a.streams.Load()) }),
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{
				Name: "cairn_http_held_bytes",
				Help: "Bytes of large bodies and answers in memory, and of bulk writes.",
			}, func() float64 { return float64(a.held.Load() + a.bodies.Load() + a.lines.Load()) }))
	}
	return a
}

// admit takes the request on, or answers that it is one too many. Probes and what
// tells how the node is are never refused.
func (x *exchange) admit(rt *route) bool {
	if !rt.served {
		return true
	}
	a := x.s.admission
	x.share.admitted = true
	if a.requests.Add(1) > a.maxRequests {
		x.shed(shedRequests, a.maxRequests, "%d requests are under way on this node, which is the most", a.maxRequests)
		return false
	}
	return !rt.stream || x.admitStream()
}

// admitStream counts the request as one that is open for long, or answers that it
// is one too many.
func (x *exchange) admitStream() bool {
	a := x.s.admission
	x.share.streaming = true
	if a.streams.Add(1) > a.maxStreams {
		x.shed(shedStreams, a.maxStreams, "%d streams are open on this node, which is the most; another one may have room", a.maxStreams)
		return false
	}
	return true
}

// A share is what one request has of the admission.
type share struct {
	admitted, streaming bool
	// Bytes, as the admission counts them.
	held, body, lines, answer int64
}

// leave gives a share back.
func (a *admission) leave(s *share) {
	if s.admitted {
		a.requests.Add(-1)
	}
	if s.streaming {
		a.streams.Add(-1)
	}
	if s.held != 0 {
		a.held.Add(-s.held)
	}
	if s.body != 0 {
		a.bodies.Add(-s.body)
	}
	if s.lines != 0 {
		a.lines.Add(-s.lines)
	}
	if s.answer != 0 {
		a.answers.Release(s.answer)
	}
	*s = share{}
}

// awaitAnswer reserves memory for what a transaction may answer, until it is written, or
// answers that there is none.
func (x *exchange) awaitAnswer(t *kv.Txn) bool {
	n := mostAnswered(t)
	if n == 0 {
		return true
	}
	a := x.s.admission
	if !a.answers.TryAcquire(n) {
		ctx, cancel := context.WithTimeout(x.r.Context(), pageWait)
		defer cancel()
		if a.answers.Acquire(ctx, n) != nil {
			x.failMemory(maxHeldBytes, "too many writes wait on this node whose answers may be large: those with prev, and transactions that get values or ranges")
			x.refused()
			return false
		}
	}
	x.share.answer = n
	return true
}

// answered gives back what awaitAnswer reserved: what is left of the answer is its text,
// which reserve counts.
func (x *exchange) answered() {
	if x.share.answer != 0 {
		x.s.admission.leave(&share{answer: x.share.answer})
		x.share.answer = 0
	}
}

// mostAnswered is how much the entries of a transaction's answer may take.
func mostAnswered(t *kv.Txn) (n int64) {
	for _, branch := range [...][]kv.Op{t.Then, t.Else} {
		for i := range branch {
			switch op := &branch[i]; {
			case op.Type == kv.OpTxn:
				n += mostAnswered(op.Txn)
			case op.Type == kv.OpGet && !op.Query.CountOnly:
				n += mostRead(op.Query.Range, op.Query.Limit, !op.Query.KeysOnly)
			case op.Type == kv.OpDelete && op.Prev:
				n += mostRead(op.Range, 0, true)
			case op.Prev:
				n += kv.MaxValueBytes
			}
		}
	}
	return min(n, kv.BudgetResultBytes)
}

// mostRead is how much the entries of a range may take, of which there are no more than
// limit, if that is not 0. A single key is little without its value.
func mostRead(r kv.Range, limit int, values bool) int64 {
	one := int64(0)
	if values {
		one = kv.MaxValueBytes
	}
	if _, single := r.Single(); single {
		return one
	}
	if limit == 0 {
		return kv.BudgetResultBytes
	}
	return min(kv.BudgetResultBytes, int64(limit)*(kv.MaxKeyBytes+kv.ResultEntryBytes+one)) // a page at the most
}

// reserve counts n bytes that are kept until the request ends, and reports whether
// there is room for them. Little is not counted: there are bounds on how many
// requests hold it.
func (x *exchange) reserve(n int) bool {
	if n <= freeBytes {
		return true
	}
	x.share.held += int64(n)
	return x.s.admission.held.Add(int64(n)) <= maxHeldBytes
}

// giveBack is the end of what reserve counted, before the request's.
func (x *exchange) giveBack(n int) {
	if n > freeBytes {
		x.share.held -= int64(n)
		x.s.admission.held.Add(-int64(n))
	}
}

// reserveBody is reserve for the buffer of the request's body, which has n bytes now.
func (x *exchange) reserveBody(n int) bool {
	if n <= freeBytes {
		return true
	}
	more := int64(n) - x.share.body
	x.share.body = int64(n)
	return x.s.admission.bodies.Add(more) <= maxHeldBodyBytes
}

// dropBody gives back the buffer of a large body, of which nothing may be needed any
// more: the request goes on for long without it.
func (x *exchange) dropBody() {
	if x.share.body == 0 {
		return // the exchange keeps a small one
	}
	x.s.admission.leave(&share{body: x.share.body})
	x.share.body = 0
	x.s.keepPage(x.body)
	x.body = nil
}

// reserveLines is reserve for the lines of a bulk write, which takes n bytes now. Its
// share goes up and down by whole steps.
func (x *exchange) reserveLines(n int) bool {
	const step = 64 << 10
	now := int64(0)
	if n > freeBytes {
		now = int64(n+step-1) / step * step
	}
	more := now - x.share.lines
	if more == 0 {
		return true
	}
	x.share.lines = now
	return x.s.admission.lines.Add(more) <= maxHeldLineBytes || more < 0
}

// failAnswer reports that there is no room for an answer, failBodies for a body.
func (x *exchange) failAnswer() {
	x.failMemory(maxHeldBytes, "large answers take all the memory that there is for them on this node")
}

func (x *exchange) failBodies() {
	x.failMemory(maxHeldBodyBytes, "large requests take all the memory that there is for them on this node")
}

func (x *exchange) failMemory(limit int64, why string) {
	x.failLimit(api.CodeBusy, limit, "%s", why)
	if x.fault.code == api.CodeBusy {
		x.fault.shed = shedMemory
	}
}

// enterPage waits until a page may be read. It returns false when it has answered
// that this takes too long; else leavePage must be called, before the answer is
// written: that may take its client very long.
func (x *exchange) enterPage() bool { return x.enter(x.s.admission.pages) }

func (x *exchange) leavePage() { leave(x.s.admission.pages) }

// enter is enterPage for a kind of reads.
func (x *exchange) enter(reads chan struct{}) bool {
	a := x.s.admission
	select {
	case reads <- struct{}{}:
		return true
	default:
	}
	defer a.pagesWaiting.Add(-1)
	if a.pagesWaiting.Add(1) <= maxPagesWaiting {
		ctx, cancel := context.WithTimeout(x.r.Context(), pageWait)
		defer cancel()
		select {
		case reads <- struct{}{}:
			return true
		case <-ctx.Done():
		}
	}
	limit := int64(cap(reads))
	x.shed(shedPages, limit, "%d reads of this kind are under way on this node, and others wait", limit)
	return false
}

func leave(reads chan struct{}) { <-reads }

// shed answers 429.
func (x *exchange) shed(reason shedReason, limit int64, format string, args ...any) {
	x.fault = fault{}
	x.failLimit(api.CodeBusy, limit, format, args...)
	x.fault.shed = reason
	x.refused()
}
