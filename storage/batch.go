package storage

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/cairnkv/cairn/kv"
	"github.com/cockroachdb/pebble/v2"
	"github.com/oklog/ulid/v2"
)

// Batch applies commands. They see each other's effects; readers see none of
// them before Commit. One goroutine uses a batch, and there is one batch at a
// time.
//
//	b, err := store.NewBatch()
//	for each Raft entry {
//		if b.BeginEntry(index, incarnation, seq) {
//			for each command { result, err := b.Apply(command) }
//		}
//		b.EndEntry()
//	}
//	applied, err := b.Commit()
//
// An error of any method means that the disk or the log is broken; the batch
// must be abandoned with Close and the process must not go on applying.
type Batch struct {
	h  *handle
	wb *pebble.Batch
	// newest, versions and changes are the records of keys, queue the places of
	// leases, each kind by itself until they are committed: inserted into a memtable
	// one behind the other, the log of changes, and what comes in the order of the
	// keys, costs next to no search.
	newest, versions, changes, queue *pebble.Batch
	st                               state

	// What the batch changed and has not committed, under its newest state.
	keys        map[string]*version
	pending     pendingKeys
	replaced    int                   // bytes of the values that keys hides
	leases      map[kv.LeaseID]*lease // nil: gone
	numbers     map[int64]kv.LeaseID  // zero: gone
	idempotency map[string][]byte     // by scope, encoded record; nil: forgotten

	index  uint64
	skip   uint64 // commands of the entry that an earlier batch applied
	window *window
	incarn ulid.ULID

	from   uint64 // revision before the first change
	events []kv.Event
	// WantEvents, when set before the first Apply, makes Commit return the
	// events, unless they are more than maxEventBytes, of which each takes eventRoom
	// beside its entry.
	WantEvents bool
	eventBytes int

	scrub  *Scrub // the newest step that began, not handed out yet
	alarms bool   // one was raised or cleared

	run   txnRun   // reused by each transaction
	ahead [][]byte // reused by Fetch
	order []int    // reused by applyRenew
	// These are the constants, but for tests.
	fetchAtOnce, manyPending int
	key, val                 []byte // scratch of emit and lookup
}

// maxEventBytes bounds the events of a batch. What is more has to be read from history
// anyway, since nobody keeps that much for those who follow it.
const (
	maxEventBytes = 16 << 20
	eventRoom     = 128
)

// NewBatch begins a batch on the current state.
func (s *Store) NewBatch() (*Batch, error) {
	h, err := s.acquire()
	if err != nil {
		return nil, err
	}
	b := &Batch{
		h: h, wb: h.db.NewBatch(),
		newest: h.db.NewBatch(), versions: h.db.NewBatch(), changes: h.db.NewBatch(), queue: h.db.NewBatch(),
		st:          *h.published.Load(),
		keys:        map[string]*version{},
		leases:      map[kv.LeaseID]*lease{},
		numbers:     map[int64]kv.LeaseID{},
		idempotency: map[string][]byte{},
		fetchAtOnce: fetchAtOnce, manyPending: manyPending,
	}
	b.from = b.st.revision
	return b, nil
}

// Close abandons what was not committed and releases the batch.
func (b *Batch) Close() {
	if b.h == nil {
		return
	}
	// Closing a batch that was not committed only frees memory.
	_ = b.wb.Close()
	for _, wb := range b.kinds() {
		_ = wb.Close()
	}
	b.dropScrub()
	b.h.release()
	b.h = nil
}

// kinds are the batches that flush adds to wb.
func (b *Batch) kinds() [4]*pebble.Batch {
	return [...]*pebble.Batch{b.newest, b.versions, b.changes, b.queue}
}

// BeginEntry starts a Raft entry. It returns false when the proposer's entry
// seq was applied before, at another index; its commands are then not applied
// again.
func (b *Batch) BeginEntry(index uint64, incarnation ulid.ULID, seq uint64) bool {
	b.index, b.skip, b.window, b.incarn = index, 0, nil, incarnation
	if b.st.partialIndex == index {
		// The rest of an entry that an earlier batch began. The entry is in the
		// window already.
		b.skip = b.st.partialDone
		return true
	}
	b.st.partialIndex, b.st.partialDone = index, 0
	w := b.h.windows[incarnation]
	if w == nil {
		b.forgetIncarnations(index)
		w = &window{}
		b.h.windows[incarnation] = w
	}
	fresh := w.admit(seq, index)
	b.window = w
	return fresh
}

// forgetIncarnations drops the windows of proposers that have been silent for
// a long stretch of the log.
func (b *Batch) forgetIncarnations(index uint64) {
	var old []kv.LeaseID
	for id, w := range b.h.windows { // lint:unordered the result does not depend on the order
		if w.lastIndex+windowKeepEntries < index {
			old = append(old, id)
		}
	}
	for _, id := range old {
		delete(b.h.windows, id)
		must(b.wb.Delete(entriesKey(id), nil))
	}
}

// EndEntry ends the entry that BeginEntry began.
func (b *Batch) EndEntry() {
	if b.window != nil {
		must(b.wb.Set(entriesKey(b.incarn), appendWindow(b.val[:0], b.window), nil))
		b.window = nil
	}
	b.st.applied = b.index
	b.st.partialIndex, b.st.partialDone = 0, 0
}

// SkipTo records that the log was applied up to index where an entry carries no
// command.
func (b *Batch) SkipTo(index uint64) { b.st.applied = index }

// Apply applies one command of the entry. The result shares no memory with the
// command. It is nil for a command that was applied before a restart.
func (b *Batch) Apply(c *kv.Command) (*kv.Result, error) {
	if b.skip > 0 {
		b.skip--
		return nil, nil
	}
	if b.size() > b.h.opts.BatchBytes || b.hidesMuch() && opensCursor(c) || b.needsCommitted(c) {
		if err := b.flush(); err != nil {
			return nil, err
		}
	}
	result, err := b.applyOnce(c)
	if err != nil {
		return nil, err
	}
	b.st.partialDone++
	return result, nil
}

// manyPending is beyond how many keys of a batch it is committed before a command that
// looks at a range: such a command has to find its way through all of them. And so it is
// beyond muchReplaced bytes of values that these have replaced, which it would read to find
// them hidden, uncounted.
const (
	manyPending  = 4 << 10
	muchReplaced = 1 << 20
)

func (b *Batch) hidesMuch() bool { return len(b.keys) > b.manyPending || b.replaced > muchReplaced }

// opensCursor reports whether applying c looks at a range of keys.
func opensCursor(c *kv.Command) bool { return c.Kind == kv.KindTxn && readsRange(c.Txn) }

func readsRange(t *kv.Txn) bool {
	for i := range t.If {
		if _, single := t.If[i].Range.Single(); !single {
			return true
		}
	}
	for _, branch := range [2][]kv.Op{t.Then, t.Else} {
		for i := range branch {
			op := &branch[i]
			switch op.Type {
			case kv.OpGet:
				return true
			case kv.OpDelete:
				if _, single := op.Range.Single(); !single {
					return true
				}
			case kv.OpTxn:
				if readsRange(op.Txn) {
					return true
				}
			}
		}
	}
	return false
}

// size is what the batch holds back, in bytes.
func (b *Batch) size() int {
	size := b.wb.Len()
	for _, wb := range b.kinds() {
		size += wb.Len()
	}
	return size
}

// needsCommitted reports whether applying c reads something that only the
// database shows, so that what the batch holds back must be committed first.
func (b *Batch) needsCommitted(c *kv.Command) bool {
	switch c.Kind {
	case kv.KindTxn:
		return readsPast(c.Txn)
	case kv.KindLeaseRevoke, kv.KindLeaseExpire:
		// Ending a lease walks its list of keys, which the database has right
		// unless the batch changed the lease: each change of the list is one. So
		// the ends of many leases share a commit.
		_, touched := b.leases[c.Lease.ID]
		return touched
	case kv.KindClock, kv.KindMember, kv.KindMembership, kv.KindAlarm, kv.KindScrub, kv.KindScrubbed, kv.KindRestore:
		return true
	}
	return false
}

func readsPast(t *kv.Txn) bool {
	for _, branch := range [2][]kv.Op{t.Then, t.Else} {
		for i := range branch {
			op := &branch[i]
			if op.Type == kv.OpGet && op.Query.Revision != 0 || op.Type == kv.OpTxn && readsPast(op.Txn) {
				return true
			}
		}
	}
	return false
}

// Applied is what a committed batch did.
type Applied struct {
	// From and To are the store's revisions before and after.
	From, To uint64
	// Index is the last Raft entry that is applied whole.
	Index uint64
	// Events are the changes of From+1 to To in order, when they were wanted and are
	// not too many.
	// They share no memory with the commands.
	Events []kv.Event
	// Scrub is this member's part in the newest step of a scrub that began, or
	// nil. Whoever takes it closes it.
	Scrub *Scrub
	// Alarms says that an alarm was raised or cleared.
	Alarms bool
}

// Commit makes the batch visible and releases it.
func (b *Batch) Commit() (Applied, error) {
	defer b.Close()
	if err := b.flush(); err != nil {
		return Applied{}, err
	}
	scrub := b.scrub
	b.scrub = nil
	return Applied{From: b.from, To: b.st.revision, Index: b.st.applied, Events: b.events, Scrub: scrub, Alarms: b.alarms}, nil
}

// flush commits what the batch holds. After a crash the state says at which
// command of which entry to go on.
func (b *Batch) flush() error {
	if b.window != nil {
		must(b.wb.Set(entriesKey(b.incarn), appendWindow(b.val[:0], b.window), nil))
		b.window = nil
	}
	must(b.wb.Set(keyState, appendState(b.val[:0], &b.st), nil))
	for _, wb := range b.kinds() {
		if !wb.Empty() {
			must(b.wb.Apply(wb, nil))
			wb.Reset()
		}
	}
	// Rows go before anything of the batch can be seen in the database: who has seen
	// some of it must not find older rows then.
	b.h.rows.forget(b.st.revision, b.keys)
	if err := b.wb.Commit(pebble.NoSync); err != nil {
		return fmt.Errorf("storage: commit: %w", err)
	}
	number, err := b.commitNumber()
	if err != nil {
		return err
	}
	compacted := b.h.published.Load().compact != b.st.compact
	st := b.st
	b.h.published.Store(&st)
	if compacted {
		b.h.sweeper.wake()
	}
	b.h.recent.commit(st.revision, b.keys)
	b.h.changed.commit(st.revision, number, b.keys)
	b.wb.Reset()
	for id, l := range b.leases { // lint:unordered what is remembered decides nothing
		if l == nil {
			b.h.recentLeases.forget(id)
		} else {
			b.h.recentLeases.put(id, l)
		}
	}
	clear(b.keys)
	b.replaced = 0
	b.pending = pendingKeys{added: b.pending.added[:0]}
	clear(b.leases)
	clear(b.numbers)
	clear(b.idempotency)
	return nil
}

// commitNumber returns a number, above zero, that Pebble gave to the first record of
// the batch that was just committed, or one above it. It gives them in order.
func (b *Batch) commitNumber() (uint64, error) {
	if n := b.wb.SeqNum(); n != 0 {
		return uint64(n), nil
	}
	// A batch of half a memtable became a table by itself, and its number is gone.
	// One that holds nothing for the database gets the next one.
	probe := b.h.db.NewBatch()
	defer probe.Close()
	must(probe.LogData(nil, nil))
	if err := probe.Commit(pebble.NoSync); err != nil {
		return 0, fmt.Errorf("storage: commit: %w", err)
	}
	return uint64(probe.SeqNum()), nil
}

// must is for operations on a batch in memory, which fail only when it is
// misused.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

// get reads a record from the database into fresh memory; nil if there is none.
func (b *Batch) get(key []byte) ([]byte, error) { return getCopy(b.h.db, key) }

func getCopy(r pebble.Reader, key []byte) ([]byte, error) {
	v, closer, err := r.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("storage: read: %w", err)
	}
	v = append(make([]byte, 0, len(v)), v...)
	return v, closer.Close()
}

// lookup returns the newest version of key without its payload, unless the
// batch wrote it.
func (b *Batch) lookup(key []byte) (version, error) {
	if v := b.keys[string(key)]; v != nil {
		return *v, nil
	}
	if v, ok := b.h.recent.get(key); ok {
		return v, nil
	}
	b.key = appendNewestKey(b.key[:0], key)
	value, closer, err := b.h.db.Get(b.key)
	var v version
	switch {
	case errors.Is(err, pebble.ErrNotFound):
	case err != nil:
		return version{}, fmt.Errorf("storage: read: %w", err)
	default:
		err = decodeNewest(b.key, value, &v)
		if err = errors.Join(err, closer.Close()); err != nil {
			return version{}, err
		}
	}
	b.h.recent.put(key, &v)
	return v, nil
}

// fetchAtOnce is how many keys that recent tables may have make reading ahead
// cheaper than looking each up. Of those that they have not, one is enough.
const fetchAtOnce = 8

// Fetch reads ahead the newest versions of the keys that commands are about to
// put, as far as they are not remembered. In the order of the keys, an iterator
// finds them with far less work than a lookup each. It is a matter of speed alone.
func (b *Batch) Fetch(commands []*kv.Command) error {
	keys := b.ahead[:0]
	unchanged := 0 // so many come first, of which recent tables have nothing
	for _, c := range commands {
		if c.Kind != kv.KindTxn {
			continue
		}
		for i := range c.Txn.Then {
			op := &c.Txn.Then[i]
			if op.Type != kv.OpPut && op.Type != kv.OpIncrement || op.Sequence {
				continue
			}
			if !b.h.changed.may(op.Key) {
				keys = append(keys, op.Key)
				last := len(keys) - 1
				keys[unchanged], keys[last] = keys[last], keys[unchanged]
				unchanged++
			} else if _, known := b.h.recent.get(op.Key); !known {
				keys = append(keys, op.Key)
			}
		}
	}
	b.ahead = keys[:0]
	defer clear(keys)
	if unchanged > 0 {
		known := &b.h.changed.old
		filters := append(make([]pebble.BlockPropertyFilter, 0, 2), unchangedOnly(known.first)) // Pebble adds one
		if err := b.fetch(keys[:unchanged], known.since, filters); err != nil {
			return err
		}
	}
	if maybe := keys[unchanged:]; len(maybe) >= b.fetchAtOnce {
		return b.fetch(maybe, b.h.recent.since(), nil)
	}
	return nil
}

// fetch reads ahead keys that were not changed behind a revision, from those tables
// that pass the filters. Before the first change there was nothing to read.
func (b *Batch) fetch(keys [][]byte, since uint64, filters []pebble.BlockPropertyFilter) (err error) {
	var ahead lookAhead
	if since > emptyState().revision {
		slices.SortFunc(keys, bytes.Compare)
		if ahead.it, err = b.newestOf(keys, since, filters); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, ahead.it.Error(), ahead.it.Close()) }()
	}
	if len(b.keys) == 0 {
		b.keys = make(map[string]*version, len(keys))
	}
	found := make([]version, len(keys))
	for i, key := range keys {
		if _, known := b.keys[string(key)]; known {
			continue
		}
		v := &found[i]
		v.fetched = true
		if ahead.it != nil {
			b.key = appendNewestKey(b.key[:0], key)
			if err := ahead.find(b.key, v); err != nil {
				return err
			}
		}
		b.keys[string(key)] = v
	}
	return nil
}

// newestOf returns an iterator over the newest versions of sorted keys that were not
// changed behind a revision. Memtables are in it only if they may have something
// older.
func (b *Batch) newestOf(keys [][]byte, since uint64, filters []pebble.BlockPropertyFilter) (*pebble.Iterator, error) {
	inTables, err := b.flushed(since)
	if err != nil {
		return nil, err
	}
	return b.h.db.NewIter(&pebble.IterOptions{
		LowerBound: appendNewestKey(nil, keys[0]), UpperBound: append(appendNewestKey(nil, keys[len(keys)-1]), 0),
		OnlyReadGuaranteedDurable: inTables,
		PointKeyFilters:           filters,
		// Many are asked for one after the other, and new keys are in no table.
		UseL6Filters: true,
	})
}

// flushed reports whether the database's tables have everything up to a revision.
// Tables have commits whole and in their order, so the state record in them says
// up to which. It is read again only where what it said before doesn't suffice.
func (b *Batch) flushed(revision uint64) (bool, error) {
	if revision <= b.h.flushed {
		return true, nil
	}
	st, err := b.flushedState()
	if err != nil {
		return false, err
	}
	b.h.flushed = st.revision
	return revision <= b.h.flushed, nil
}

// flushedState returns the state in the database's tables.
func (b *Batch) flushedState() (st state, err error) {
	it, err := b.h.db.NewIter(&pebble.IterOptions{
		LowerBound: keyState, UpperBound: append(bytes.Clone(keyState), 0), OnlyReadGuaranteedDurable: true,
	})
	if err != nil {
		return state{}, err
	}
	defer func() { err = errors.Join(err, it.Error(), it.Close()) }()
	if !it.First() {
		return state{}, nil
	}
	value, err := it.ValueAndErr()
	if err != nil {
		return state{}, err
	}
	return decodeState(value)
}

// lookAhead finds records whose keys come in order. A seek by prefix asks the
// filters, so it costs little where there is no record, but it says nothing of
// the keys behind. After two misses in a row, a seek to the next record that
// there is tells of a gap: all keys in it are missing too, and new keys often
// come in runs. Where gaps turn out to hold nothing that is looked for, it asks
// for them less and less.
type lookAhead struct {
	it     *pebble.Iterator
	gapEnd []byte // there is no record between the last key and this one
	inGap  bool   // gapEnd is known; empty, it is the end
	misses int    // in a row
	wanted int    // misses, beyond two, before the next look for a gap
	hits   int    // keys that the last gap answered
}

func (l *lookAhead) find(key []byte, v *version) error {
	if l.inGap && (len(l.gapEnd) == 0 || bytes.Compare(key, l.gapEnd) < 0) {
		l.hits++
		return nil
	}
	if l.inGap {
		l.inGap = false
		if l.hits > 1 {
			l.wanted = 0
		} else {
			l.wanted = 2*l.wanted + 2
		}
	}
	if l.it.SeekPrefixGE(key) {
		l.misses = 0
		value, err := l.it.ValueAndErr()
		if err != nil {
			return err
		}
		return decodeNewest(key, value, v)
	}
	if err := l.it.Error(); err != nil {
		return err
	}
	if l.misses++; l.misses >= 2+l.wanted {
		l.misses, l.hits, l.inGap, l.gapEnd = 0, 0, true, l.gapEnd[:0]
		if l.it.SeekGE(key) {
			l.gapEnd = append(l.gapEnd, l.it.Key()...)
		}
		return l.it.Error()
	}
	return nil
}

// withPayload completes a version of key that lookup returned.
func (b *Batch) withPayload(key []byte, v version) (version, error) {
	if !v.exists || v.payload != nil {
		return v, nil
	}
	k := appendVersionKey(nil, key, v.mod)
	value, err := b.get(k)
	if err != nil {
		return v, err
	}
	if value == nil {
		return v, corrupt(k, "version is missing")
	}
	_, err = decodeVersion(k, value, &v)
	return v, err
}

// pendingKeys are the keys that a batch changed.
type pendingKeys struct {
	sorted []string
	added  []string // since it was sorted
	undone bool     // some of them were taken back
}

// pendingIn returns the keys that the batch changed inside r, in byte order, until the
// next change.
func (b *Batch) pendingIn(r kv.Range) []string {
	p := &b.pending
	if p.undone {
		p.sorted, p.added, p.undone = nil, p.added[:0], false
		for k, v := range b.keys { // lint:unordered sorted below
			if !v.fetched {
				p.added = append(p.added, k)
			}
		}
	}
	if len(p.added) > 0 {
		slices.Sort(p.added)
		p.sorted = merge(p.sorted, p.added)
		p.added = p.added[:0]
	}
	place := func(key []byte) int {
		i, _ := slices.BinarySearch(p.sorted, string(key))
		return i
	}
	first, end := place(r.Start), len(p.sorted)
	if len(r.End) > 0 {
		end = max(first, place(r.End))
	}
	return p.sorted[first:end]
}

// merge returns what is in a or b, which are sorted, as a list of its own.
func merge(a, b []string) []string {
	if len(a) == 0 {
		return slices.Clone(b)
	}
	all := make([]string, 0, len(a)+len(b))
	for len(a) > 0 && len(b) > 0 {
		if a[0] < b[0] {
			all, a = append(all, a[0]), a[1:]
		} else {
			all, b = append(all, b[0]), b[1:]
		}
	}
	return append(append(all, a...), b...)
}

// leaseFinder returns what finds n leases in the order of their ids, as findLease
// does, and what ends that. Many that are not known are found by one iterator with
// far less work than by a lookup each.
func (b *Batch) leaseFinder(n int) (find func(kv.LeaseID) (*lease, error), done func() error) {
	if n < b.fetchAtOnce {
		return b.findLease, func() error { return nil }
	}
	var it *pebble.Iterator
	find = func(id kv.LeaseID) (_ *lease, err error) {
		if l, ok := b.knownLease(id); ok {
			return l, nil
		}
		if it == nil {
			if it, err = b.h.db.NewIter(spaceBounds(spaceLease)); err != nil {
				return nil, err
			}
		}
		b.key = append(append(b.key[:0], spaceLease), id[:]...)
		if !it.SeekPrefixGE(b.key) {
			return nil, it.Error()
		}
		value, err := it.ValueAndErr()
		if err != nil {
			return nil, err
		}
		return decodeLease(b.key, value)
	}
	done = func() error {
		if it == nil {
			return nil
		}
		return it.Close()
	}
	return find, done
}

// findLease returns the lease, or nil.
func (b *Batch) findLease(id kv.LeaseID) (*lease, error) {
	if l, ok := b.knownLease(id); ok {
		return l, nil
	}
	if b.h.recentLeases.isNew(id) {
		return nil, nil
	}
	k := leaseKey(id)
	value, err := b.get(k)
	if value == nil || err != nil {
		return nil, err
	}
	l, err := decodeLease(k, value)
	if err != nil {
		return nil, err
	}
	b.h.recentLeases.put(id, l)
	return l, nil
}

// knownLease returns what the batch or the memory knows of a lease: nil if the
// batch ended it.
func (b *Batch) knownLease(id kv.LeaseID) (*lease, bool) {
	if l, ok := b.leases[id]; ok {
		return l, true
	}
	if l, ok := b.h.recentLeases.get(id); ok {
		return &l, true
	}
	return nil, false
}

// numberTaken reports whether a lease has the number.
func (b *Batch) numberTaken(number int64) (bool, error) {
	if id, ok := b.numbers[number]; ok {
		return id != kv.LeaseID{}, nil
	}
	value, err := b.get(numberKey(number))
	return value != nil, err
}
