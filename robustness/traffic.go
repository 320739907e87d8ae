package robustness

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// clients work at the same time, each with one request under way.
	clients = 6
	// pace is the shortest time between two requests of a client. It keeps the
	// histories short enough to be checked and leaves the machine to the
	// servers.
	pace = 8 * time.Millisecond
	// keyPrefix is where the clients work.
	keyPrefix = "k/"
	// repeats bounds how often a request of unknown outcome is sent again.
	repeats = 3
)

// keys are few, so that the clients get into each other's way.
var keys = [...]string{"k/0", "k/1", "k/2", "k/3", "k/4", "k/5"}

// Traffic is the work of a scenario's clients and the record of it.
type Traffic struct {
	cluster  *Cluster
	workers  []*worker
	quit     chan struct{}
	wg       sync.WaitGroup
	progress progress
}

// progress is what a scenario may know of the traffic while it goes on.
type progress struct {
	writes atomic.Int64 // that were acknowledged
	newest atomic.Int64 // when the latest one of them was called
}

func (p *progress) add(o *Operation) {
	p.writes.Add(1)
	for called := p.newest.Load(); o.Call > called && !p.newest.CompareAndSwap(called, o.Call); {
		called = p.newest.Load()
	}
}

// A worker is one sequential client. Its record is its own until the traffic is
// stopped.
type worker struct {
	id       int
	random   *rand.Rand
	http     *HTTP
	cluster  *Cluster
	progress *progress // the traffic's
	count    int
	seen     map[string]uint64 // the newest revision of each key that it saw
	recorded []*Operation
}

// NewTraffic prepares the clients.
func NewTraffic(c *Cluster, random *rand.Rand) *Traffic {
	t := &Traffic{cluster: c}
	for id := range clients {
		t.workers = append(t.workers, &worker{
			id: id, cluster: c, progress: &t.progress, http: NewHTTP(), seen: map[string]uint64{},
			random: rand.New(rand.NewPCG(random.Uint64(), random.Uint64())),
		})
	}
	return t
}

// Start lets the clients work until Stop.
func (t *Traffic) Start() {
	t.quit = make(chan struct{})
	for _, w := range t.workers {
		t.wg.Go(func() { w.work(t.quit) })
	}
}

// Stop returns when every client has its last answer.
func (t *Traffic) Stop() {
	close(t.quit)
	t.wg.Wait()
}

// AwaitWrites waits until some more writes are acknowledged.
func (t *Traffic) AwaitWrites(n int64) error {
	enough := t.progress.writes.Load() + n
	return t.await(func() bool { return t.progress.writes.Load() >= enough })
}

// AwaitNewWrite waits until a write that is called from now on is acknowledged.
func (t *Traffic) AwaitNewWrite() error {
	now := time.Since(t.cluster.began).Nanoseconds()
	return t.await(func() bool { return t.progress.newest.Load() > now })
}

func (t *Traffic) await(enough func() bool) error {
	_, err := retry(func() (struct{}, error) {
		if !enough() {
			return struct{}{}, errors.New("too few writes are acknowledged, though all nodes are ready")
		}
		return struct{}{}, nil
	})
	return err
}

// Close gives the clients' connections back.
func (t *Traffic) Close() {
	for _, w := range t.workers {
		w.http.Close()
	}
}

// Operations is the record so far. The traffic must be stopped.
func (t *Traffic) Operations() []*Operation {
	var all []*Operation
	for _, w := range t.workers {
		all = append(all, w.recorded...)
	}
	return all
}

// ReadAll reads every key, linearizably, as one more operation of the record; where that
// is refused, since a disk stands still, again for a while. It is done between two times of
// traffic, when nothing else is under way.
func (t *Traffic) ReadAll(n *Node) *Operation {
	w := t.workers[0]
	var o *Operation
	_, _ = retry(func() (struct{}, error) { // what the last one was is for who looks at it
		o = &Operation{Client: w.id, Kind: List}
		w.perform(n, o, "")
		if o.Outcome != Done {
			return struct{}{}, errors.New(o.Error)
		}
		return struct{}{}, nil
	})
	return o
}

func (w *worker) work(quit <-chan struct{}) {
	tick := time.NewTicker(pace)
	defer tick.Stop()
	for {
		select {
		case <-quit:
			return
		case <-tick.C:
		}
		o := w.next()
		idempotencyKey := ""
		if o.Kind.writes() && w.random.IntN(4) == 0 {
			idempotencyKey = fmt.Sprintf("c%d-%d", w.id, w.count)
		}
		w.perform(w.anyNode(), o, idempotencyKey)
	}
}

func (w *worker) anyNode() *Node { return w.cluster.Nodes[w.random.IntN(len(w.cluster.Nodes))] }

// perform does an operation, again where that is safe and its outcome is
// unknown, and records it as one.
func (w *worker) perform(n *Node, o *Operation, idempotencyKey string) {
	before := n.incarnation.Load()
	o.Call = w.now()
	w.http.Perform(n, o, idempotencyKey)
	for idempotencyKey != "" && o.Outcome == Unknown && o.Repeated < repeats {
		n = w.anyNode()
		before = n.incarnation.Load()
		o.Repeated++
		w.http.Perform(n, o, idempotencyKey)
		if o.Outcome == NotApplied {
			o.Outcome = Unknown // this one was not; the first one may be
			break
		}
	}
	o.Return = w.now()
	if o.Outcome == Unknown {
		o.Return, o.Revision = never, 0
	}
	if before == n.incarnation.Load() && o.Status != 0 {
		o.Incarnation = int(before)
	}
	if o.Kind.writes() && o.Outcome == Done {
		w.progress.add(o)
	}
	w.recorded = append(w.recorded, o)
	w.learn(o)
}

func (w *worker) now() int64 { return time.Since(w.cluster.began).Nanoseconds() }

// learn remembers where the keys are, so that conditions often hold.
func (w *worker) learn(o *Operation) {
	switch {
	case o.Outcome == Refused && o.Kind == PutIf:
		w.seen[o.Key] = o.Current
	case o.Outcome == Done && o.Kind == Delete:
		w.seen[o.Key] = 0
	case o.Outcome == Done && o.Kind.writes():
		for _, key := range o.written() {
			w.seen[key] = o.Revision
		}
	case o.Outcome == Done || o.Outcome == Refused:
		for _, key := range o.read() {
			w.seen[key] = 0
		}
		for _, v := range o.Seen {
			w.seen[v.Key] = v.Mod
		}
	}
}

// mix is how often each kind comes, in parts of the sum.
var mix = []struct {
	kind  Kind
	parts int
}{
	{Put, 24}, {PutIf, 14}, {Delete, 8}, {Txn, 14}, {Get, 20}, {List, 8}, {GetStale, 8}, {ListStale, 4},
}

// next invents the next operation.
func (w *worker) next() *Operation {
	w.count++
	o := &Operation{Client: w.id, Kind: w.kind(), Key: keys[w.random.IntN(len(keys))]}
	switch o.Kind {
	case List, ListStale:
		o.Key = ""
		return o
	case PutIf, Txn:
		o.If = w.seen[o.Key]
	}
	if o.Kind == Txn {
		for o.Other = o.Key; o.Other == o.Key; {
			o.Other = keys[w.random.IntN(len(keys))]
		}
	}
	if o.Kind.writes() && o.Kind != Delete {
		o.Value = fmt.Sprintf("c%d-%d", w.id, w.count)
	}
	return o
}

func (w *worker) kind() Kind {
	sum := 0
	for _, m := range mix {
		sum += m.parts
	}
	n := w.random.IntN(sum)
	for _, m := range mix {
		if n -= m.parts; n < 0 {
			return m.kind
		}
	}
	panic("unreachable: n is below the sum")
}
