package raftsm

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/cairnkv/cairn/internal/durable"
	"github.com/cairnkv/cairn/kv"
	"github.com/cairnkv/cairn/storage"
	sm "github.com/lni/dragonboat/v4/statemachine"
	"github.com/oklog/ulid/v2"
)

// Callbacks follow what is applied. They are called by the applying goroutine,
// in order, after the commit; they must not block and must not call back.
type Callbacks struct {
	// Applied is called for each batch that changed something: the changes of
	// the revisions from+1 to to. Events are nil, and to be read from the history,
	// if Wanted said before the batch began that nobody looks at them, if they are
	// more than is held in memory of one batch, if the batch ended a restore, or
	// while the content can't be trusted.
	Applied func(from, to uint64, events []kv.Event)
	// Wanted reports whether anybody looks at the events. If it is not set,
	// somebody does.
	Wanted func() bool
	// Jumped is called after a snapshot took the place of the state: whoever
	// follows reads what is between from the history, or learns that it is
	// compacted.
	Jumped func(to uint64)
}

// machine applies the log of one replica to its store. Dragonboat calls Update,
// Sync, PrepareSnapshot and RecoverFromSnapshot one at a time, SaveSnapshot
// beside them.
type machine struct {
	store     *storage.Store
	dir       string // of the node's data, on whose disk the store is; empty where that is in memory
	callbacks Callbacks
	// timed is told how long it took to apply what Update is called with.
	timed func(time.Duration)
	// deliver hands the results of an entry to whoever proposed it here, awaits reports
	// whether anybody waits for that of its i-th command.
	deliver func(seq uint64, results []*kv.Result)
	awaits  func(seq uint64, i int) bool
	// incarnation is this process's.
	incarnation ulid.ULID
	revisions   *revisionWaiters
	// alarms is called when an alarm was raised or cleared, scrub with this
	// member's part in a step of a scrub, which it closes.
	alarms func()
	scrub  func(*storage.Scrub)
	// trusted reports whether the content may be shown.
	trusted func() bool
	// fatal ends the process; see Config.Fatal.
	fatal func(error)
	// log decides when the log is cut.
	log *logCut
	// commands is reused by each entry.
	commands []*kv.Command
	// answers is what the answers of an Update take so far, answerRoom is
	// maxAnswerBytes, but for tests.
	answers, answerRoom int
	closed              chan struct{} // closed by Close
}

var _ sm.IOnDiskStateMachine = (*machine)(nil)

// Open returns how far the store has applied the log.
func (m *machine) Open(<-chan struct{}) (uint64, error) { return m.store.Applied() }

// delivery is the results of one entry of this process.
type delivery struct {
	seq     uint64
	results []*kv.Result
}

// Update applies entries and commits them together. Nothing is answered before
// the commit.
func (m *machine) Update(entries []sm.Entry) ([]sm.Entry, error) {
	began := time.Now()
	b, err := m.store.NewBatch()
	if err != nil {
		return nil, m.stop(err)
	}
	defer b.Close()
	b.WantEvents = m.callbacks.Applied != nil && (m.callbacks.Wanted == nil || m.callbacks.Wanted())
	var deliveries []delivery
	m.answers = 0
	size := int64(0)
	for i := range entries {
		d, err := m.applyEntry(b, &entries[i])
		if err != nil {
			return nil, m.stop(err)
		}
		if d.results != nil {
			deliveries = append(deliveries, d)
		}
		entries[i].Result = sm.Result{Value: 1}
		size += int64(len(entries[i].Cmd))
	}
	m.log.add(int64(len(entries)), size)
	applied, err := b.Commit()
	if err != nil {
		return nil, m.stop(err)
	}
	m.timed(time.Since(began))
	// Nothing is answered any more by a member that has just learned that its
	// content is wrong.
	if applied.Alarms {
		m.alarms()
	}
	if applied.Scrub != nil {
		m.scrub(applied.Scrub)
	}
	for _, d := range deliveries {
		m.deliver(d.seq, d.results)
	}
	if applied.To > applied.From {
		m.revisions.advance(applied.To)
		if m.callbacks.Applied != nil {
			events := applied.Events
			if !m.trusted() {
				events = nil
			}
			m.callbacks.Applied(applied.From, applied.To, events)
		}
	}
	return entries, nil
}

func (m *machine) applyEntry(b *storage.Batch, e *sm.Entry) (delivery, error) {
	if len(e.Cmd) == 0 {
		b.SkipTo(e.Index)
		return delivery{}, nil
	}
	r, err := openEntry(e.Index, e.Cmd)
	if err != nil {
		return delivery{}, err
	}
	own := r.incarnation == m.incarnation
	d := delivery{seq: r.seq}
	if b.BeginEntry(e.Index, r.incarnation, r.seq) {
		if own {
			d.results = make([]*kv.Result, 0, r.count)
		}
		commands := m.commands[:0]
		for range r.count {
			c, err := r.next()
			if err != nil {
				return d, fmt.Errorf("raftsm: entry %d: %w", e.Index, err)
			}
			commands = append(commands, c)
		}
		m.commands = commands
		defer clear(commands)
		if err := b.Fetch(commands); err != nil {
			return d, fmt.Errorf("raftsm: entry %d: %w", e.Index, err)
		}
		for i, c := range commands {
			result, err := b.Apply(c)
			if err != nil {
				return d, fmt.Errorf("raftsm: entry %d: %w", e.Index, err)
			}
			if own {
				d.results = append(d.results, m.kept(r.seq, i, result))
			}
		}
	}
	b.EndEntry()
	return d, nil
}

// maxAnswerBytes bounds what the answers of one Update take until it is committed. Those
// that nobody waits for any more are not kept at all. Whoever waits for a large one holds
// memory for it, since before it was proposed: package httpapi has half of this for all of
// them together. So it is enough for these, and bounds what is asked without any.
const maxAnswerBytes = 512 << 20

// kept returns the result of a command, or nil if nobody waits for it or there is no room
// for it any more.
func (m *machine) kept(seq uint64, i int, r *kv.Result) *kv.Result {
	if n := answerBytes(r); n > 0 {
		if !m.awaits(seq, i) {
			return nil
		}
		if m.answers += n; m.answers > m.answerRoom {
			return nil
		}
	}
	return r
}

// answerBytes is what the entries and the common prefixes of a result take.
func answerBytes(r *kv.Result) (n int) {
	if r == nil {
		return 0
	}
	of := func(entries []kv.Entry) {
		for i := range entries {
			n += kv.ResultEntryBytes + entries[i].Size()
		}
	}
	for i := range r.Ops {
		op := &r.Ops[i]
		of(op.Prev)
		if op.List != nil {
			of(op.List.Entries)
			for _, prefix := range op.List.CommonPrefixes {
				n += kv.ResultEntryBytes + len(prefix)
			}
		}
		n += answerBytes(op.Txn)
	}
	return n
}

// stop ends the process over an error after which applying can't go on.
func (m *machine) stop(err error) error {
	m.fatal(err)
	return err
}

// Lookup is not used; see the package comment.
func (m *machine) Lookup(any) (any, error) {
	return nil, errors.New("raftsm: reads go to the store")
}

// Sync makes what was applied durable.
func (m *machine) Sync() error {
	err := m.store.Sync()
	if err == nil && m.dir != "" {
		err = durable.ConfirmDir(m.dir) // before the log gives up what the store has now
	}
	if err != nil && !errors.Is(err, storage.ErrClosed) {
		return m.stop(err)
	}
	return nil
}

// PrepareSnapshot pins the state.
func (m *machine) PrepareSnapshot() (any, error) { return m.store.View() }

// SaveSnapshot streams a pinned state. That the other side went away is turned into
// the error that Dragonboat takes for a stream that failed: any other would end the
// process, as one of the disk does.
func (m *machine) SaveSnapshot(pinned any, w io.Writer, stop <-chan struct{}) error {
	v := pinned.(*storage.View)
	defer v.Close()
	defer m.log.hold()()
	to := &stream{w: w}
	switch err := v.Save(newBeside(nil, to, stop), stop); {
	case err == nil:
		return nil
	case errors.Is(err, storage.ErrStopped):
		return sm.ErrSnapshotStopped
	case to.err != nil:
		return fmt.Errorf("%w: %w", sm.ErrSnapshotStreaming, err)
	default:
		return m.stop(fmt.Errorf("read the store for a snapshot: %w", err))
	}
}

// stream remembers whether writing to it failed.
type stream struct {
	w   io.Writer
	err error
}

// Write implements io.Writer.
func (s *stream) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	if err != nil {
		s.err = err
	}
	return n, err
}

// RecoverFromSnapshot replaces the state by a snapshot.
func (m *machine) RecoverFromSnapshot(r io.Reader, stop <-chan struct{}) error {
	switch err := m.store.Load(newBeside(r, nil, stop), stop); {
	case err == nil:
	case errors.Is(err, storage.ErrStopped):
		return sm.ErrSnapshotStopped
	default:
		return m.stop(fmt.Errorf("raftsm: load a snapshot: %w", err))
	}
	m.alarms()
	revision, _ := m.store.Revisions()
	m.revisions.advance(revision)
	if m.callbacks.Jumped != nil {
		m.callbacks.Jumped(revision)
	}
	return nil
}

// Close is called once, when nothing will be applied any more. It leaves the
// store open: reads may still come, and the Shard closes it.
func (m *machine) Close() error {
	close(m.closed)
	return nil
}
