package httpapi

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/internal/sse"
	"github.com/cairnkv/cairn/kv"
	"github.com/cairnkv/cairn/watchers"
)

// A watchStream sends what a watch sees until one of the ends that have names,
// or until its client is gone. With HTTP/1.1 it has a
// goroutine of its own, else that of its request.
//
// Whatever it waits for, it holds little: between two batches no buffer, and the
// queue of its watchers.Stream. A client that takes nothing holds up
// Write, and the connection's deadline ends that; one that takes little falls
// behind into history.
type watchStream struct {
	s   *Server
	ctx context.Context // done when the client is gone
	w   *watch
	enc watchEncoder
	// to is where whole messages go, at once. Its error means that the client is
	// gone, or takes nothing.
	to interface {
		write(b []byte) error
		// abort ends it, and the write that is under way. Another goroutine may call it.
		abort()
	}
	loan      *loan // for what it has of history or of the present state
	requestID string

	// out is what was not written yet. While there is much to say, it and the
	// encoder's are lent.
	out  []byte
	lent *streamBuffers

	// position is up to where everything was sent, as far as the client may say
	// so when it comes again; not known before an initial state is complete.
	position uint64
	placed   bool
	// spoke is when something was last written. told is when a message last was,
	// or a bookmark was due: a comment between two bookmarks puts neither off.
	spoke, told time.Time
	touch       touch
}

// streamWatch serves a watch as a stream.
func (x *exchange) streamWatch(w *watch) {
	current, _ := x.s.cfg.Store.Revisions()
	s := &watchStream{s: x.s, w: w, enc: watchEncoder{w: w, store: x.s.cfg.Store}}
	s.enc.spill, s.enc.pass = s.spill, s.pass
	contentType := valueEventStream
	if w.delivery == asLines {
		contentType = valueNDJSON
	}
	if c, ok := x.takeOver(contentType, current); ok {
		s.ctx, s.to, s.requestID = c.ctx, c, c.requestID
		c.serve(s.run)
		return
	}
	s.ctx, s.to, s.requestID = x.r.Context(), x.startStream(contentType, current), x.id()
	if s.run() != nil {
		// Something is wrong with this node. The client must not take it for an
		// end that was meant, and comes again.
		panic(http.ErrAbortHandler)
	}
}

// run sends everything. Its error is nil when there is nobody to send to any
// more, or when the end was told.
func (s *watchStream) run() error {
	initial := s.w.initial && !s.w.resume
	if !initial {
		s.position, s.placed = s.w.from-1, true
	}
	defer s.rest()
	s.told = time.Now()
	if err := s.greet(); err != nil {
		return nil
	}
	for {
		err := s.follow(initial)
		var e *kv.Error
		switch {
		case errors.Is(err, watchers.ErrDraining):
			_ = s.end(api.EventDraining, s.resumeFrom(), nil)
			return nil
		case errors.As(err, &e) && e.Code == kv.Compacted:
			if s.end(api.EventCompacted, e.CompactRevision, e) != nil || !s.w.initial {
				return nil
			}
			initial = true
		case errors.Is(err, errPeerGone), s.ctx.Err() != nil:
			return nil
		default:
			s.s.cfg.Logger.Error("A watch failed.", "request_id", s.requestID, "error", err)
			return err
		}
	}
}

// errPeerGone says that nothing can be written any more.
var errPeerGone = errors.New("the client is gone")

// greet writes what opens a stream: a proxy passes on the headers with it, and a
// client that loses the connection at once knows where it was.
func (s *watchStream) greet() error {
	if s.w.delivery == asLines {
		return s.flush()
	}
	s.out = sse.AppendComment(s.out, "connected")
	s.out = sse.AppendRetry(s.out, jitter(minRetry, maxRetry))
	s.prime()
	return s.flush()
}

// prime moves the client's last event id without an event.
func (s *watchStream) prime() {
	if s.placed {
		s.out = append(s.out, "id: "...)
		s.out = strconv.AppendUint(s.out, s.position, 10)
		s.out = append(s.out, '\n', '\n')
	}
}

// jitter is a time between two, so that clients that lost a node don't come to
// the next one at the same moment.
func jitter(lo, hi time.Duration) time.Duration { return lo + rand.N(hi-lo) }

// follow sends the present state, if it is wanted, and then changes. It returns
// why it can't go on, never nil.
func (s *watchStream) follow(initial bool) error {
	if initial {
		s.placed = false
		revision, err := s.sendInitial()
		if err != nil {
			return err
		}
		s.position, s.placed = revision, true
		s.out = s.enc.mark(s.out, api.EventSynced, revision)
		if err := s.flush(); err != nil {
			return err
		}
	}
	from, err := s.w.open(s.s.cfg.Watchers, s.position+1, s.pace)
	if err != nil {
		return err
	}
	defer from.Close()
	defer s.repay()
	due := time.Now().Add(s.pause())
	timer := time.NewTimer(time.Until(due))
	defer timer.Stop()
	for {
		s.rest()
		got, err := from.Next(s.ctx, timer.C)
		if err != nil {
			return err
		}
		if len(got) > 0 {
			err = s.send(from, got)
		}
		s.repay()
		// Between the parts of a large revision the position is before it.
		s.position = max(s.position, from.Position())
		if err == nil && len(got) == 0 {
			err = s.tick()
		}
		if err != nil {
			return err
		}
		// The tick may have come together with a change, which Next returns then.
		if now := time.Now(); len(got) == 0 || !now.Before(due) {
			due = now.Add(s.pause())
			timer.Reset(due.Sub(now))
		}
	}
}

// send writes changes. While the last of them wait for the client, nothing is held
// but their bytes.
func (s *watchStream) send(from *watchers.Stream, got []watchers.Delivery) (err error) {
	defer s.enc.release()
	s.borrow()
	for i := range got {
		// A view is not held while a client is waited for. What comes from history is a
		// piece of a bounded size, and is written at once, unless it has become much.
		if len(s.out) >= streamBytes && got[i].Shared || len(s.out) >= maxMessageBytes {
			s.enc.release()
			if err := s.flush(); err != nil {
				return err
			}
		}
		if s.out, err = s.enc.change(s.out, &got[i]); err != nil {
			return err
		}
	}
	s.enc.release()
	from.Release()
	s.told = time.Now()
	return s.flush()
}

// pace waits until the stream may hold something large, and shows signs of life meanwhile.
func (s *watchStream) pace(ctx context.Context) (repay func(), err error) {
	s.repay()
	for s.loan == nil && err == nil {
		timer := time.NewTimer(s.pause())
		s.loan, err = s.s.loans.take(ctx, s.s.draining, timer.C, s.to.abort)
		timer.Stop()
		if s.loan == nil && err == nil {
			err = s.tick()
		}
	}
	return s.repay, err
}

func (s *watchStream) repay() {
	s.loan.giveBack()
	s.loan = nil
}

// pass writes a message that is not the stream's.
func (s *watchStream) pass(message []byte) error {
	s.spoke = time.Now()
	if s.loan.during(s.to.write, message) != nil {
		s.lent = nil // as in flush
		return errPeerGone
	}
	return nil
}

// spill is that of its encoder.
func (s *watchStream) spill(b []byte) ([]byte, error) {
	s.out = b
	err := s.flush()
	return s.out, err
}

// flush writes what was collected, if anything was.
func (s *watchStream) flush() error {
	s.spoke = time.Now()
	if err := s.loan.during(s.to.write, s.out); err != nil {
		s.lent = nil // HTTP/2 may still read from what it did not take
		return errPeerGone
	}
	s.out = s.out[:0]
	return nil
}

// borrow gets buffers for much, rest gives them back before the stream waits.
func (s *watchStream) borrow() {
	if s.lent == nil {
		s.lent = s.s.lend()
		s.out, s.enc.scratch = append(s.lent.out[:0], s.out...), s.lent.scratch[:0]
	}
}

func (s *watchStream) rest() {
	if s.lent != nil {
		s.lent.out, s.lent.scratch = s.out, s.enc.scratch
		s.s.giveBack(s.lent)
		s.lent = nil
	}
	s.out, s.enc.scratch = nil, nil
}

// pause is how long the stream may still be silent.
func (s *watchStream) pause() time.Duration {
	left := time.Until(s.spoke.Add(pulse))
	if s.w.bookmark > 0 {
		left = min(left, time.Until(s.told.Add(s.w.bookmark)))
	}
	if at, soon := s.touch.next(s.s.doubtAfter); soon {
		left = min(left, time.Until(at))
	}
	return max(left, 0)
}

// look tells the client when this node has lost touch with the cluster, and when
// it has it again.
func (s *watchStream) look() error {
	event := s.touch.look(s.s.cfg.Store.Ready() == nil, s.s.doubtAfter)
	if event == "" {
		return nil
	}
	s.out = s.enc.note(s.out, "", event, appendUint(nil, `"resume_from":`, max(s.resumeFrom(), 1)))
	return s.flush()
}

// tick says that the stream is there, if it has been silent for so long.
func (s *watchStream) tick() error {
	if err := s.look(); err != nil {
		return err
	}
	if s.pause() > 0 {
		return nil
	}
	// A position that this node has not reached is the client's word, not ours.
	current, _ := s.s.cfg.Store.Revisions()
	reached := s.position <= current
	bookmark := s.w.bookmark > 0 && time.Since(s.told) >= s.w.bookmark || s.w.delivery == asLines
	switch {
	case s.placed && reached && bookmark:
		s.out = s.enc.mark(s.out, api.EventBookmark, s.position)
	case s.w.delivery == asLines:
		s.out = append(s.out, '\n')
	default:
		s.out = sse.AppendComment(s.out, "")
		s.prime()
	}
	if bookmark {
		s.told = time.Now()
	}
	return s.flush()
}

// resumeFrom is the revision from which a client is to go on, or 0 if it has to
// begin anew.
func (s *watchStream) resumeFrom() uint64 {
	if !s.placed {
		return 0
	}
	return s.position + 1
}

// end names the end of the stream. A stream with an initial state is not at its
// end when it is compacted: the state follows, and until that is complete the
// client must not come back with an id.
func (s *watchStream) end(name string, resumeFrom uint64, compacted *kv.Error) error {
	members := appendUint(nil, `"resume_from":`, max(resumeFrom, 1))
	if compacted != nil {
		members = appendUint(members, `,"compact_revision":`, compacted.CompactRevision)
		members = appendUint(members, `,"current_revision":`, compacted.CurrentRevision)
	}
	id := ""
	if s.w.delivery == asEvents {
		switch {
		case s.w.initial && (compacted != nil || resumeFrom == 0):
			s.out = append(s.out, "id:\n"...)
		case resumeFrom > 0:
			id = strconv.FormatUint(resumeFrom-1, 10)
		}
		if compacted == nil {
			s.out = sse.AppendRetry(s.out, jitter(minRetry, maxRetry))
		}
	}
	s.out = s.enc.note(s.out, id, name, members)
	s.told = time.Now()
	return s.flush()
}

// sendInitial sends the present state and returns its revision. It holds a view
// only for a moment: a client that reads slowly must not hold on to what
// compaction would remove. If that overtakes it, the state is begun anew.
func (s *watchStream) sendInitial() (revision uint64, err error) {
	defer s.repay()
	for _, r := range watchers.Merge(s.w.ranges()) {
		for !r.Empty() {
			s.rest() // who waits holds nothing
			if _, err := s.pace(s.ctx); err != nil {
				return 0, err
			}
			s.borrow()
			list, err := s.initialPage(r, revision)
			if err != nil {
				return 0, err
			}
			revision = list.Revision
			if n := len(list.Entries); n > 0 {
				if s.out, err = s.enc.initial(s.out, revision, list.Entries); err != nil {
					return 0, err
				}
				r.Start = kv.SingleKey(list.Entries[n-1].Key).End
				s.told = time.Now()
				if err := s.flush(); err != nil {
					return 0, err
				}
			}
			if !list.More {
				break
			}
		}
	}
	return revision, nil
}

// initialPage reads some entries at a revision; 0 is the newest.
func (s *watchStream) initialPage(r kv.Range, revision uint64) (*kv.List, error) {
	v, err := s.s.cfg.Store.View()
	if err != nil {
		return nil, err
	}
	defer v.Close()
	if revision == 0 {
		revision = v.Revision()
	}
	return v.List(s.ctx, &kv.Query{
		Range: r, Revision: revision, Limit: initialEntries, MaxBytes: initialBytes, KeysOnly: s.w.keysOnly,
	})
}

// pollWatch serves a watch as a long poll: one answer with what has happened, or
// with nothing when the wait is over.
func (x *exchange) pollWatch(w *watch) {
	x.unchanged = true // whatever its method
	p := &poll{x: x, enc: watchEncoder{w: w, store: x.s.cfg.Store}, out: append(x.out[:0], `{"changes":[`...)}
	p.enc.spill = p.spill
	from, err := w.open(x.s.cfg.Watchers, w.from, p.pace)
	if err != nil {
		x.refuse(api.CodeShuttingDown, "this member is about to stop; ask another one")
		return
	}
	defer from.Close()
	defer p.repay()
	err = p.fill(from)
	var e *kv.Error
	switch {
	case err == nil, errors.Is(err, watchers.ErrDraining) && !p.open:
		p.out = appendUint(append(p.out, ']'), `,"revision":`, from.Position())
		p.out = append(p.out, '}')
		p.finish()
	case p.started:
		// The answer is cut off in its middle, so it must not look complete.
		panic(http.ErrAbortHandler)
	case errors.Is(err, watchers.ErrDraining):
		x.refuse(api.CodeShuttingDown, "this member is about to stop; ask another one")
	case errors.As(err, &e):
		x.refuseRead(e)
	default:
		x.refuseRead(err)
	}
}

// poll is the answer of a long poll. A revision of any size fits: what is large
// is written as it comes.
type poll struct {
	x       *exchange
	enc     watchEncoder
	out     []byte
	started bool
	open    bool // in the middle of a revision
	count   int
	loan    *loan
	ended   atomic.Bool // since its client took too little
}

// pace waits until the poll may hold something large; it does so until it is answered.
func (p *poll) pace(ctx context.Context) (unused func(), err error) {
	if p.loan == nil {
		p.loan, err = p.x.s.loans.take(ctx, p.x.s.draining, nil, func() {
			p.ended.Store(true)
			_ = http.NewResponseController(p.x.w).SetWriteDeadline(time.Now())
		})
	}
	return func() {
		if p.count == 0 {
			p.repay()
		}
	}, err
}

func (p *poll) repay() {
	p.loan.giveBack()
	p.loan = nil
}

// fill waits for changes and collects the first ones.
func (p *poll) fill(from *watchers.Stream) error {
	ctx := p.x.r.Context()
	timer := time.NewTimer(p.enc.w.wait)
	defer timer.Stop()
	// What has happened already comes whatever the wait.
	current, _ := p.x.s.cfg.Store.Revisions()
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	for from.Position() < current && p.count == 0 || p.open {
		got, err := from.Next(ctx, ticker.C)
		if err == nil {
			err = p.add(got)
		}
		if err != nil {
			return err
		}
	}
	if p.count > 0 {
		return nil
	}
	for {
		got, err := from.Next(ctx, timer.C)
		if err != nil {
			return err
		}
		if err := p.add(got); err != nil {
			return err
		}
		if !p.open {
			return nil
		}
	}
}

func (p *poll) add(got []watchers.Delivery) (err error) {
	defer p.enc.release()
	for i := range got {
		d := &got[i]
		if p.count > 0 {
			p.out = append(p.out, ',')
		}
		if p.out, err = p.enc.change(p.out, d); err != nil {
			return err
		}
		p.count++
		p.open = d.More
		if len(p.out) < maxMessageBytes {
			continue
		}
		p.enc.release()
		if p.out, err = p.spill(p.out); err != nil {
			return err
		}
	}
	return nil
}

// spill writes a part of the answer.
func (p *poll) spill(b []byte) ([]byte, error) {
	if p.ended.Load() {
		return b, errPeerGone
	}
	p.start()
	err := p.loan.during(p.x.writeBody, b)
	return b[:0], err
}

// start sends the headers of an answer whose length is not known.
func (p *poll) start() {
	if p.started {
		return
	}
	p.started = true
	h := p.x.w.Header()
	h["Content-Type"] = valueJSON
	h["Cache-Control"] = valueNoStore
	h["X-Content-Type-Options"] = valueNosniff
	current, _ := p.x.s.cfg.Store.Revisions()
	p.x.writeHeader(200, current)
}

// finish sends what is left: all of it, as a rule.
func (p *poll) finish() {
	if p.started {
		_ = p.loan.during(p.x.writeBody, append(p.out, '\n')) // who is gone needs no answer
		return
	}
	p.x.out = p.out
	current, _ := p.x.s.cfg.Store.Revisions()
	_ = p.loan.during(func([]byte) error {
		p.x.sendJSON(200, current)
		return nil
	}, nil)
}
