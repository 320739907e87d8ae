package watchers

import (
	"context"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cairnkv/cairn/kv"
)

// A Request says what a stream hands out.
type Request struct {
	// Ranges are the keys. They may overlap; an event comes once.
	Ranges []kv.Range
	// From is the first revision of interest. It may be one of the future: then
	// nothing comes before it exists.
	From uint64
	// Type, when not 0, leaves out the events of other types, and the revisions
	// that have no others.
	Type kv.EventType
	// Pace, if set, is called by Next before it reads a piece of history, which is the
	// stream's alone, and may wait. What it returns is called at once if the piece has
	// nothing for the stream; else the reader says by itself when it is done with it.
	Pace func(ctx context.Context) (unused func(), err error)
}

// A Stream is one watcher. One goroutine reads it and closes it.
type Stream struct {
	hub  *Hub
	keys selection
	only kv.EventType
	pace func(context.Context) (func(), error) // may be nil
	wake chan struct{}                         // level trigger, capacity 1

	// position is written by the reader alone.
	position atomic.Uint64
	// gapTo, when beyond position, is up to where history comes before the queue.
	gapTo uint64
	part  part
	piece *piece // lent by the hub while what was read from history is in use

	// Under the hub's lock.
	members  []*member // nil while the stream is not in the index
	floor    uint64    // what is at or below it is none of the stream's
	matching *Change   // the change that matched is about
	matched  []int32
	touched  bool

	mu           sync.Mutex
	pending      []Delivery
	pendingBytes int
	taken        []Delivery // what the reader got last, for its memory
	live         bool       // the queue goes on
	upTo         uint64     // else: up to where the queue is whole
	waiting      bool
}

// Watch opens a stream. Whoever got it closes it.
func (h *Hub) Watch(r Request) (*Stream, error) {
	from := max(r.From, 1)
	s := &Stream{hub: h, keys: newSelection(r.Ranges), only: r.Type, pace: r.Pace, wake: make(chan struct{}, 1), upTo: from - 1}
	s.position.Store(from - 1)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, ErrDraining
	}
	h.streams[s] = struct{}{}
	h.counted.opened.Add(1)
	return s, nil
}

// Close ends the stream.
func (s *Stream) Close() {
	h := s.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, open := h.streams[s]; !open {
		return
	}
	delete(h.streams, s)
	if s.members != nil {
		h.detach(s, s.Position())
	}
}

// Position is the revision up to which everything was handed out. It lies in
// the future while the first revision of interest does.
func (s *Stream) Position() uint64 { return s.position.Load() }

// Next waits for changes and hands them out, in order. They are valid until the
// next call, or until Release. It returns none when tick fires first; a nil tick never does.
//
// Errors: ErrDraining when the hub is closed; a *kv.Error with code Compacted
// when the stream was overtaken by compaction and can't go on; the context's;
// and those of the store.
func (s *Stream) Next(ctx context.Context, tick <-chan time.Time) ([]Delivery, error) {
	for {
		var got []Delivery
		var err error
		live := true
		if s.gapTo > s.Position() {
			got, err = s.read(ctx, s.gapTo)
		} else if got, live = s.take(); len(got) == 0 && !live {
			got, err = s.catchUp(ctx)
		} else if len(got) == 0 {
			select {
			case <-s.wake:
			case <-tick:
				// The position has moved over what is none of the stream's.
				got, _ = s.take()
				return got, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-s.hub.quit:
				return nil, ErrDraining
			}
		}
		if len(got) > 0 || err != nil {
			return got, err
		}
		select {
		case <-tick: // a long way through changes of others
			return nil, nil
		default:
		}
	}
}

// Release says that what Next handed out last is not used any more, so that a
// reader who now waits for a slow client does not hold it.
func (s *Stream) Release() {
	clear(s.taken)
	if s.piece != nil {
		s.hub.pieces.Put(s.piece)
		s.piece = nil
	}
}

// take empties the queue and moves the position to where it reached.
func (s *Stream) take() (got []Delivery, live bool) {
	// Before the queue is looked at: what was dispatched up to here is in it.
	reached := s.hub.revision.Load()
	s.mu.Lock()
	got = s.pending
	clear(s.taken)
	s.pending, s.taken = s.taken[:0], got
	s.pendingBytes = 0
	if live = s.live; !live {
		reached = s.upTo
	}
	s.waiting = live && len(got) == 0
	if s.waiting && cap(s.pending)+cap(s.taken) > idleChanges {
		s.pending, s.taken = nil, nil
	}
	s.mu.Unlock()
	if n := len(got); n > 0 {
		reached = max(reached, got[n-1].Revision)
		s.hub.counted.live.Add(uint64(n))
	}
	if reached > s.Position() {
		s.position.Store(reached)
	}
	return got, live
}

// rouse wakes the reader if it waits.
func (s *Stream) rouse() {
	s.mu.Lock()
	waiting := s.waiting
	s.waiting = false
	s.mu.Unlock()
	if waiting {
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}

func (s *Stream) wants(t kv.EventType) bool { return s.only == 0 || s.only == t }

// catchUp reads a piece of history, or goes live when what is left of it is
// short: that much is then read while the queue fills.
func (s *Stream) catchUp(ctx context.Context) ([]Delivery, error) {
	if s.hub.revision.Load() > s.Position()+s.hub.limits.shortGap || s.part.revision != 0 {
		return s.read(ctx, math.MaxUint64)
	}
	s.gapTo = s.hub.attach(s)
	return nil, nil
}
