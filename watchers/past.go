package watchers

import (
	"context"

	"github.com/cairnkv/cairn/kv"
)

// part is how far a revision was handed out that is too large for one piece.
type part struct {
	revision uint64 // 0: there is none
	next     uint32 // the first change that was not looked at
	handed   bool   // some of it was handed out, so its end must be
}

// piece is the memory of what was read from history last. It is used again for
// each piece, of any stream.
type piece struct {
	text       []byte
	events     []kv.Event
	changes    []*Change
	deliveries []Delivery
}

// read hands out what follows the position in history, at most up to a revision
// and at most one piece, and moves the position behind it.
func (s *Stream) read(ctx context.Context, until uint64) (got []Delivery, err error) {
	h := s.hub
	unused := func() {}
	if s.pace != nil {
		if unused, err = s.pace(ctx); err != nil {
			return nil, err
		}
	}
	defer func() {
		if len(got) == 0 { // it may wait for long now
			s.Release()
			unused()
		}
	}()
	select {
	case h.scans <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-h.quit:
		return nil, ErrDraining
	}
	defer func() { <-h.scans }()
	v, err := h.history.View()
	if err != nil {
		return nil, err
	}
	defer v.Close()
	until = min(until, v.Revision())
	if until <= s.Position() {
		return nil, nil
	}
	if s.piece == nil {
		s.piece = h.pieces.Get().(*piece)
	}
	r := reading{s: s, until: until, at: s.part, passed: s.Position()}
	s.piece.reset(h.limits.pieceBytes)
	from := kv.Place{Revision: s.Position() + 1}
	if s.part.revision != 0 {
		from = kv.Place{Revision: s.part.revision, Sub: s.part.next}
	}
	if err := v.Changes(ctx, from, r.want, r.take); err != nil {
		return nil, err
	}
	r.finish()
	s.part = r.at
	s.position.Store(r.passed)
	h.counted.past.Add(uint64(len(s.piece.deliveries)))
	return s.piece.deliveries, nil
}

// reading is one read of history.
type reading struct {
	s      *Stream
	until  uint64
	visits int
	// at is where in a revision the reading is; passed is the last revision that
	// is behind it whole. What lies between has no change: the revision of the empty store
	// that a cluster begins with, and that of a restored one.
	at     part
	passed uint64
	full   bool
	first  int // the first event of the revision in the piece
}

func (r *reading) want(at kv.Place, key []byte) (wanted, more bool) {
	p, l := r.s.piece, &r.s.hub.limits
	if at.Revision != r.at.revision {
		r.endRevision()
		// A revision is begun only where there is room, and parted only when it
		// is larger than a piece alone.
		if at.Revision > r.until {
			return false, false
		}
		if p.bytes() >= l.pieceBytes || r.visits >= l.pieceVisits {
			r.full = true
			return false, false
		}
		r.at = part{revision: at.Revision}
	} else if p.bytes() >= l.partBytes || r.visits >= 2*l.pieceVisits {
		r.full = true
		return false, false
	}
	r.at.next = at.Sub + 1
	r.visits++
	return r.s.keys.contains(key), true
}

func (r *reading) take(_ uint32, e *kv.Event) (more bool, err error) {
	if r.s.wants(e.Type) {
		r.s.piece.add(e)
	}
	return true, nil
}

// endRevision hands out what the piece has of the revision that has ended.
func (r *reading) endRevision() {
	p := r.s.piece
	if r.at.handed || len(p.events) > r.first {
		p.deliver(r.at.revision, r.first, false)
	}
	if r.at.revision != 0 {
		r.passed = r.at.revision
	}
	r.first = len(p.events)
	r.at = part{}
}

// finish settles what the end of the piece is in the middle of.
func (r *reading) finish() {
	p := r.s.piece
	switch {
	case !r.full:
		r.endRevision()
		r.passed = max(r.passed, r.until)
	case r.at.revision != 0 && len(p.events) > r.first:
		p.deliver(r.at.revision, r.first, true)
		r.at.handed = true
	}
}

// reset empties the piece. What a large revision needed is not kept.
func (p *piece) reset(bytes int) {
	if cap(p.text) > 4*bytes {
		*p = piece{}
	}
	p.text, p.deliveries = p.text[:0], p.deliveries[:0]
	clear(p.events)
	p.events = p.events[:0]
}

// bytes is what the events in the piece take.
func (p *piece) bytes() int { return len(p.text) + len(p.events)*perEventBytes }

// add copies an event into the piece.
func (p *piece) add(e *kv.Event) {
	c := *e
	c.Entry.Key = p.keep(e.Entry.Key)
	c.Entry.Value = p.keep(e.Entry.Value)
	p.events = append(p.events, c)
}

func (p *piece) keep(b []byte) []byte {
	n := len(p.text)
	p.text = append(p.text, b...)
	return p.text[n:len(p.text):len(p.text)]
}

// deliver makes a delivery of the events from the first on.
func (p *piece) deliver(revision uint64, first int, more bool) {
	n := len(p.deliveries)
	if n == len(p.changes) {
		p.changes = append(p.changes, &Change{})
	}
	c := p.changes[n]
	c.Revision, c.Events = revision, p.events[first:len(p.events):len(p.events)]
	p.deliveries = append(p.deliveries, Delivery{Change: c, More: more})
}
