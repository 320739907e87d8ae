package raftsm

import (
	"container/heap"
	"context"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cairnkv/cairn/kv"
)

// revisionWaiters wakes those who wait for a revision to be applied here: readers of
// their own writes on a node that is behind, as a rule few.
type revisionWaiters struct {
	// lowest is the lowest revision that somebody waits for, or the largest
	// number; applying looks at it alone when nobody waits for what it reached.
	lowest atomic.Uint64
	mu     sync.Mutex
	queue  revisionQueue
}

// revisionWaiter is one who waits. Once reached is closed it is in no queue.
type revisionWaiter struct {
	revision uint64
	reached  chan struct{}
	at       int // in the queue
}

const nobody = math.MaxUint64

func newRevisionWaiters() *revisionWaiters {
	w := &revisionWaiters{}
	w.lowest.Store(nobody)
	return w
}

// advance tells that revision is applied.
func (w *revisionWaiters) advance(revision uint64) {
	if revision < w.lowest.Load() {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.queue) > 0 && w.queue[0].revision <= revision {
		x := heap.Pop(&w.queue).(*revisionWaiter)
		close(x.reached)
	}
	w.setLowest()
}

// setLowest follows the queue. The mutex is held.
func (w *revisionWaiters) setLowest() {
	lowest := uint64(nobody)
	if len(w.queue) > 0 {
		lowest = w.queue[0].revision
	}
	w.lowest.Store(lowest)
}

// wait returns once revision is applied; current tells the applied one. The
// store is asked again after the waiter is registered, so that no step between
// the two is missed.
func (w *revisionWaiters) wait(ctx context.Context, quit <-chan struct{}, timeout time.Duration, revision uint64, current func() uint64) error {
	if current() >= revision {
		return nil
	}
	x := &revisionWaiter{revision: revision, reached: make(chan struct{})}
	w.mu.Lock()
	heap.Push(&w.queue, x)
	w.setLowest()
	w.mu.Unlock()
	defer w.leave(x)
	if current() >= revision {
		return nil
	}
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-x.reached:
		return nil
	case <-timer.C:
	case <-ctx.Done():
	case <-quit:
		return kv.Errorf(kv.ShuttingDown, "this node is shutting down")
	}
	return &kv.Error{
		Code: kv.NotCaughtUp, CurrentRevision: current(), RetryAfterSeconds: 1,
		Detail: "this node has not applied the asked revision in time",
	}
}

// leave takes x out of the queue, if it is still in it.
func (w *revisionWaiters) leave(x *revisionWaiter) {
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case <-x.reached:
	default:
		heap.Remove(&w.queue, x.at)
		w.setLowest()
	}
}

// revisionQueue is a heap, the lowest revision first.
type revisionQueue []*revisionWaiter

func (q revisionQueue) Len() int           { return len(q) }
func (q revisionQueue) Less(i, j int) bool { return q[i].revision < q[j].revision }

func (q revisionQueue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].at, q[j].at = i, j
}

func (q *revisionQueue) Push(x any) {
	w := x.(*revisionWaiter)
	w.at = len(*q)
	*q = append(*q, w)
}

func (q *revisionQueue) Pop() any {
	last := len(*q) - 1
	w := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	return w
}
