package storage

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cairnkv/cairn/kv"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"
)

var seedFlag = flag.Uint64("seed", 0, "run the random history of this seed alone")

// history is a log that was made from a seed.
type history struct {
	seed uint64
	log  []logEntry
}

// expectation is what the model says of a log.
type expectation struct {
	m       *model
	results map[uint64][]*kv.Result
	events  []kv.Event
}

// logMaker makes a log, piece by piece, and asks the model as it goes.
type logMaker struct {
	g     *generator
	index uint64
	next  map[kv.LeaseID]uint64 // the number of the last entry of each proposer
}

func newLogMaker(seed uint64, keys int) *logMaker {
	return &logMaker{g: newGenerator(seed, keys), next: map[kv.LeaseID]uint64{}}
}

// make makes about n commands more.
func (l *logMaker) make(n int) (log []logEntry, x *expectation) {
	g := l.g
	x = &expectation{m: g.m, results: map[uint64][]*kv.Result{}}
	for n > 0 {
		l.index += 1 + g.Uint64N(3) // Raft has entries of its own
		if g.chance(200) {
			l.index += 1_000_000 // a proposer is forgotten
		}
		e := logEntry{index: l.index, incarnation: kv.LeaseID{'p', byte('0' + g.IntN(3))}}
		l.next[e.incarnation]++
		e.seq = l.next[e.incarnation]
		switch {
		case g.chance(12):
			e.seq = 1 + g.Uint64N(e.seq) // perhaps a repetition
		case g.chance(40):
			e.seq += g.Uint64N(3_000) // perhaps beyond the window
			l.next[e.incarnation] = e.seq
		}
		var commands []*kv.Command
		if g.chance(400) {
			commands = g.clockEntry(e.index)
		}
		for range 1 + g.IntN(4) {
			commands = append(commands, g.command())
		}
		for _, c := range commands {
			e.commands = append(e.commands, kv.AppendCommand(nil, c))
		}
		x.add(&e)
		n -= len(commands)
		log = append(log, e)
	}
	return log, x
}

// makeHistory makes a log of about n commands.
func makeHistory(seed uint64, n, keys int) history {
	log, _ := newLogMaker(seed, keys).make(n)
	return history{seed: seed, log: log}
}

// expect asks the model.
func (h *history) expect() *expectation {
	x := &expectation{m: newModel(), results: map[uint64][]*kv.Result{}}
	for i := range h.log {
		x.add(&h.log[i])
	}
	return x
}

// add lets the model apply an entry.
func (x *expectation) add(e *logEntry) {
	if !x.m.admit(e.index, e.incarnation, e.seq) {
		return
	}
	for _, raw := range e.commands {
		c, err := kv.DecodeCommand(bytes.Clone(raw))
		if err != nil {
			panic(err)
		}
		before := x.m.revision
		x.results[e.index] = append(x.results[e.index], x.m.apply(e.index, c))
		if x.m.revision > before {
			x.events = append(x.events, x.m.changesFrom(x.m.revision)...)
		}
	}
}

// setting is a way to run a log: everything in it is forbidden to matter.
type setting struct {
	name    string
	options func(*Options)
	// cut ends the batch before one of so many entries.
	cut int
	// disturbances is how often the power is lost, or a snapshot is taken or
	// loaded, or the store synced.
	disturbances int
}

var settings = []setting{
	{name: "plain, an entry a batch", options: func(o *Options) {}, cut: 1},
	{name: "cut after each command", cut: 3, disturbances: 3, options: func(o *Options) {
		o.BatchBytes, o.SweepBatch, o.CacheBytes = 1, 1, 64<<10
	}},
	{name: "large batches", cut: 12, disturbances: 5, options: func(o *Options) {
		o.SweepBatch, o.MemTableBytes = 3, 128<<10
	}},
	{name: "batches that are tables by themselves", cut: 12, disturbances: 3, options: func(o *Options) {
		o.MemTableBytes = 8 << 10
	}},
}

// verify runs the log in every setting and compares all with the model and with
// each other.
func (h *history) verify() error {
	x := h.expect()
	var first [32]byte
	for i := range settings {
		sum, err := h.verifyIn(&settings[i], x)
		if err != nil {
			return fmt.Errorf("%s: %w", settings[i].name, err)
		}
		if i == 0 {
			first = sum
		} else if sum != first {
			return fmt.Errorf("%s: the state differs from that in the first setting", settings[i].name)
		}
	}
	return nil
}

// verifyIn runs the log in one setting and returns the hash of the state.
func (h *history) verifyIn(set *setting, x *expectation) (sum [32]byte, err error) {
	m, err := newMachine(set, h.seed, x.m)
	if err != nil {
		return sum, err
	}
	defer func() { err = errors.Join(err, m.store.Close()) }()
	return m.verify(h.log, x)
}

// machine is a store that runs a log through crashes and snapshots.
type machine struct {
	*setting
	g     *generator
	fs    *vfs.MemFS
	store *Store

	snapshot []byte
	synced   uint64 // what was applied when the store was last made durable
}

func newMachine(set *setting, seed uint64, model *model) (m *machine, err error) {
	m = &machine{setting: set, g: newGenerator(seed^uint64(len(set.name)), 4), fs: vfs.NewCrashableMem()}
	m.g.m = model
	m.store, err = tryOpen(m.fs, set.options)
	return m, err
}

// verify runs the log, compares all that can be seen with the model, and
// returns the hash of the state.
func (m *machine) verify(log []logEntry, x *expectation) (sum [32]byte, err error) {
	events, err := m.run(log, x)
	if err != nil {
		return sum, err
	}
	if err := CheckStore(m.store); err != nil {
		return sum, err
	}
	if m.disturbances == 0 {
		if len(events) != len(x.events) {
			return sum, fmt.Errorf("%d events, the model has %d", len(events), len(x.events))
		}
		for i := range events {
			if a, b := sayEvent(&events[i]), sayEvent(&x.events[i]); a != b {
				return sum, fmt.Errorf("event %s, the model has %s", a, b)
			}
		}
	}
	if err := compareReads(m.store, m.g); err != nil {
		return sum, err
	}
	return stateHash(m.store)
}

// run applies the log, disturbed on the way.
func (m *machine) run(log []logEntry, x *expectation) (events []kv.Event, err error) {
	for range m.disturbances {
		if err := m.disturb(log[:m.g.IntN(len(log)+1)], x); err != nil {
			return nil, err
		}
	}
	return m.apply(log, x, nil)
}

func (m *machine) apply(log []logEntry, x *expectation, after func()) ([]kv.Event, error) {
	a := &applier{store: m.store, results: map[uint64][]*kv.Result{}, cut: func() bool { return m.g.chance(m.cut) }, after: after}
	if err := a.apply(log); err != nil {
		return nil, err
	}
	return a.events, compareResults(log, a.results, x.results)
}

// disturb applies a part of the log, and something happens then or meanwhile.
func (m *machine) disturb(log []logEntry, x *expectation) (err error) {
	var crashed *vfs.MemFS
	var after func()
	what := m.g.IntN(5)
	if what == 0 {
		// Power is lost after one of the commands, while a batch is open.
		at := m.g.IntN(2*len(log) + 1)
		after = func() {
			if at--; at == 0 {
				crashed = m.powerLoss()
			}
		}
	}
	if _, err := m.apply(log, x, after); err != nil {
		return err
	}
	switch what {
	case 1:
		crashed = m.powerLoss()
	case 2:
		if err := m.store.Sync(); err != nil {
			return err
		}
		m.synced, err = m.store.Applied()
		return err
	case 3:
		return m.save()
	case 4:
		return m.load()
	}
	if crashed != nil {
		return m.restart(crashed)
	}
	return nil
}

// powerLoss returns what the disk holds if the power is lost now.
func (m *machine) powerLoss() *vfs.MemFS {
	return m.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: pick(m.g, []int{0, 50, 100}), RNG: m.g.Rand})
}

// restart opens the store that a loss of power left.
func (m *machine) restart(fs *vfs.MemFS) (err error) {
	if err := m.store.Close(); err != nil {
		return err
	}
	m.fs = fs
	if m.store, err = tryOpen(fs, m.options); err != nil {
		return err
	}
	applied, err := m.store.Applied()
	if err != nil {
		return err
	}
	if applied < m.synced {
		return fmt.Errorf("entry %d was durable, after the crash %d is applied", m.synced, applied)
	}
	return CheckStore(m.store)
}

func (m *machine) save() error {
	v, err := m.store.View()
	if err != nil {
		return err
	}
	defer v.Close()
	var b bytes.Buffer
	err = v.Save(&b, nil)
	m.snapshot = b.Bytes()
	return err
}

// load goes back to a snapshot, if there is one. Load makes it durable.
func (m *machine) load() (err error) {
	if m.snapshot == nil {
		return nil
	}
	if err := m.store.Load(bytes.NewReader(m.snapshot), nil); err != nil {
		return err
	}
	if m.synced, err = m.store.Applied(); err != nil {
		return err
	}
	return CheckStore(m.store)
}

// compareResults compares what a store answered with what the model did.
func compareResults(log []logEntry, got, want map[uint64][]*kv.Result) error {
	for i := range log {
		e := &log[i]
		results, ok := got[e.index]
		if !ok {
			continue // applied before
		}
		if len(results) != len(want[e.index]) {
			return fmt.Errorf("%v\ngave %d results, the model %d", e, len(results), len(want[e.index]))
		}
		for i, r := range results {
			if r == nil {
				continue // applied before, as a part of its entry
			}
			w := *want[e.index][i]
			if (r.Code == kv.OK) != (r.Detail == "") {
				return fmt.Errorf("%v\ncommand %d: code %s, detail %q", e, i+1, r.Code, r.Detail)
			}
			w.Detail = r.Detail // words are for people; the scenarios show them
			if !sameResult(r, &w) {
				return fmt.Errorf("%v\ncommand %d gave, against the model:\n%s\n%s\n%s", e, i+1, sayResult(r), sayResult(&w), cmp.Diff(&w, r))
			}
		}
	}
	return nil
}

// compareReads asks the store and the model the same random questions.
func compareReads(s *Store, g *generator) error {
	m := g.m
	v, err := s.View()
	if err != nil {
		return err
	}
	defer v.Close()
	ctx := context.Background()
	if v.Revision() != m.revision || v.Compacted() != m.compact {
		return fmt.Errorf("revisions %d, %d, the model has %d, %d", v.Revision(), v.Compacted(), m.revision, m.compact)
	}
	code := func(revision uint64) kv.Code {
		switch {
		case revision > m.revision:
			return kv.FutureRevision
		case revision != 0 && revision < m.compact:
			return kv.Compacted
		}
		return kv.OK
	}
	for range 25 {
		q := g.query()
		list, err := v.List(ctx, q)
		if want := code(q.Revision); want != kv.OK {
			if !errors.Is(err, &kv.Error{Code: want}) {
				return fmt.Errorf("%s: %v, want %s", sayQuery(q), err, want)
			}
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", sayQuery(q), err)
		}
		revision := q.Revision
		if revision == 0 {
			revision = m.revision
		}
		want := m.list(q, revision)
		want.Revision = revision
		if a, b := sayList(list, ""), sayList(want, ""); a != b {
			return fmt.Errorf("%s:\n%s\nthe model says\n%s", sayQuery(q), a, b)
		}
		var scanned []string
		err = v.Scan(ctx, &kv.Query{Range: q.Range, Revision: q.Revision, Descending: q.Descending}, func(e *kv.Entry) error {
			scanned = append(scanned, sayEntry(e))
			return nil
		})
		var all []string
		for _, e := range m.list(&kv.Query{Range: q.Range, Descending: q.Descending}, revision).Entries {
			all = append(all, sayEntry(&e))
		}
		if err != nil || !slices.Equal(scanned, all) {
			return fmt.Errorf("scan of %s: %v\n%s\nthe model says\n%s", sayRange(q.Range), err, scanned, all)
		}
	}
	for range 15 {
		key, revision := g.key(), g.revision()
		e, found, err := v.Get(key, revision)
		if want := code(revision); want != kv.OK {
			if !errors.Is(err, &kv.Error{Code: want}) {
				return fmt.Errorf("get at %d: %v, want %s", revision, err, want)
			}
		} else if revision != 0 {
			w := m.at(string(key), revision)
			if err != nil || found != w.exists || found && sayEntry(&e) != sayEntry(&w.Entry) {
				return fmt.Errorf("get %q at %d: %s %v, the model says %s", key, revision, sayEntry(&e), err, sayEntry(&w.Entry))
			}
		}
		e, found, at, err := s.Get(key)
		w := m.at(string(key), m.revision)
		if err != nil || found != w.exists || at != m.revision || found && sayEntry(&e) != sayEntry(&w.Entry) {
			return fmt.Errorf("get %q: %s at %d %v, the model says %s", key, sayEntry(&e), at, err, sayEntry(&w.Entry))
		}
		before, limit := uint64(0), g.IntN(4)
		if g.chance(2) {
			before = g.revision()
		}
		events, more, err := v.History(key, before, limit)
		wantEvents, wantMore := m.history(string(key), before, limit)
		if a, b := sayEvents(events), sayEvents(wantEvents); err != nil || a != b || more != wantMore {
			return fmt.Errorf("history of %q before %d, %d of it: %v %v\n%s\nthe model says %v\n%s", key, before, limit, err, more, a, wantMore, b)
		}
		from := g.revision()
		var changes []kv.Event
		err = v.Changes(ctx, kv.Place{Revision: from}, nil, func(sub uint32, e *kv.Event) (bool, error) {
			clone := *e
			clone.Entry = e.Entry.Clone()
			if wantSub := countOf(changes, e.Entry.ModRevision); int(sub) != wantSub {
				return false, fmt.Errorf("change %d of revision %d, want %d", sub, e.Entry.ModRevision, wantSub)
			}
			changes = append(changes, clone)
			return true, nil
		})
		if from < m.compact {
			if !errors.Is(err, &kv.Error{Code: kv.Compacted}) {
				return fmt.Errorf("changes from %d: %v", from, err)
			}
		} else if a, b := sayEvents(changes), sayEvents(m.changesFrom(from)); err != nil || a != b {
			return fmt.Errorf("changes from %d: %v\n%s\nthe model says\n%s", from, err, a, b)
		}
		millis := int64(g.IntN(1_100))
		if at, err := v.RevisionAt(millis); err != nil || at != m.revisionAt(millis) {
			return fmt.Errorf("revision at %d ms: %d %v, the model says %d", millis, at, err, m.revisionAt(millis))
		}
	}
	due, renewed, err := s.DueLeases(3)
	if wantDue, wantRenewed := m.due(3); err != nil || !slices.Equal(due, wantDue) || !slices.Equal(renewed, wantRenewed) {
		return fmt.Errorf("leases %v are due and %v renewed, %v; the model says %v and %v", due, renewed, err, wantDue, wantRenewed)
	}
	if err := compareLeases(ctx, v, m, 1+g.IntN(3)); err != nil {
		return err
	}
	return compareFigures(s, m)
}

// compareLeases reads all leases and all their keys, in pages of a size.
func compareLeases(ctx context.Context, v *View, m *model, page int) error {
	want, wantKeys := m.leaseStates()
	var got []kv.LeaseState
	var after kv.LeaseID
	for more := true; more; {
		var part []kv.LeaseState
		var err error
		if part, more, err = v.Leases(ctx, after, page); err != nil {
			return err
		}
		if more != (len(got)+len(part) < len(want)) || len(part) > page {
			return fmt.Errorf("a page of %d leases, of which %d were given before, says more: %v; there are %d", len(part), len(got), more, len(want))
		}
		if got = append(got, part...); len(part) > 0 {
			after = part[len(part)-1].ID
		}
	}
	if !slices.Equal(got, want) {
		return fmt.Errorf("leases %v, the model says %v", got, want)
	}
	for _, l := range want {
		if one, ok, err := v.Lease(l.ID); err != nil || !ok || one != l {
			return fmt.Errorf("lease %v is read as %v %v %v", l, one, ok, err)
		}
		if id, ok, err := v.LeaseByNumber(l.Number); err != nil || !ok || id != l.ID {
			return fmt.Errorf("number of %v is of %v %v %v", l, id, ok, err)
		}
		var keys []string
		var after []byte
		for more := true; more; {
			var part [][]byte
			var err error
			if part, more, err = v.LeaseKeys(ctx, l.ID, after, page, 20); err != nil {
				return err
			}
			for _, key := range part {
				keys, after = append(keys, string(key)), key
			}
			if len(part) > page || more != (len(keys) < int(l.Keys)) {
				return fmt.Errorf("%d keys of %v at %d say more: %v", len(part), l, len(keys), more)
			}
		}
		if !slices.Equal(keys, wantKeys[l.ID]) {
			return fmt.Errorf("keys of %v: %q, the model says %q", l, keys, wantKeys[l.ID])
		}
	}
	absent := kv.LeaseID{0xee, byte(page)}
	if l, ok, err := v.Lease(absent); ok || err != nil {
		return fmt.Errorf("a lease that does not exist is read as %v %v", l, err)
	}
	if id, ok, err := v.LeaseByNumber(1<<62 + 12345); ok || err != nil {
		return fmt.Errorf("a number that no lease has is of %v %v", id, err)
	}
	return nil
}

func sayQuery(q *kv.Query) string { return sayOp(&kv.Op{Type: kv.OpGet, Query: q}) }

func sayEvents(events []kv.Event) string {
	var b strings.Builder
	for i := range events {
		b.WriteString(sayEvent(&events[i]) + "\n")
	}
	return b.String()
}

func countOf(events []kv.Event, revision uint64) (n int) {
	for i := range events {
		if events[i].Entry.ModRevision == revision {
			n++
		}
	}
	return n
}

func compareFigures(s *Store, m *model) error {
	st, err := s.Stats()
	if err != nil {
		return err
	}
	var noSpace, corrupt uint64
	for a := range m.alarms {
		if a.Type == kv.AlarmNoSpace {
			noSpace++
		} else {
			corrupt++
		}
	}
	got := []uint64{st.Revision, st.Compact, st.Keys, st.Leases, st.Idempotency, st.Clock, st.ClockIndex, uint64(st.LastTime), st.NoSpaceAlarms, st.CorruptAlarms}
	want := []uint64{
		m.revision, m.compact, uint64(len(m.entries(kv.Range{}, m.revision))), uint64(len(m.leases)), uint64(len(m.answers)),
		m.clock, m.clockIndex, uint64(m.lastTime), noSpace, corrupt,
	}
	if !slices.Equal(got, want) {
		return fmt.Errorf("figures %d, the model has %d", got, want)
	}
	return nil
}

// shrink looks for a shorter log that fails, too.
func (h *history) shrink(failure error) (history, error) {
	small := *h
	for size := len(small.log) / 2; size > 0; size /= 2 {
		for from := 0; from+size <= len(small.log); {
			try := history{seed: h.seed, log: slices.Delete(slices.Clone(small.log), from, from+size)}
			if err := try.verify(); err != nil {
				small, failure = try, err
			} else {
				from += size
			}
		}
	}
	return small, failure
}

func (h *history) String() string {
	var b strings.Builder
	for i := range h.log {
		fmt.Fprintln(&b, &h.log[i])
	}
	return b.String()
}

// check fails the test with the shortest history that it finds.
func (h *history) check(t *testing.T) {
	if err := h.verify(); err != nil {
		small, err := h.shrink(err)
		t.Fatalf("seed %d:\n%v\n%v", h.seed, &small, err)
	}
}

// Short histories of a few keys, in three settings each, agree with the model
// in every answer, every read, and with each other in the hash of everything.
func TestRandomHistories(t *testing.T) {
	n := 2_000
	if long {
		n = 200_000
	}
	if *seedFlag != 0 {
		h := makeHistory(*seedFlag, 60, 4)
		h.check(t)
		return
	}
	var next atomic.Uint64
	var workers sync.WaitGroup
	for range 2 {
		workers.Go(func() {
			for seed := next.Add(1); seed <= uint64(n) && !t.Failed(); seed = next.Add(1) {
				h := makeHistory(seed, 60, 4)
				if err := h.verify(); err != nil {
					small, err := h.shrink(err)
					t.Errorf("seed %d:\n%v\n%v", seed, &small, err)
				}
			}
		})
	}
	workers.Wait()
}

// Three stores that are configured differently, one of them losing power and one
// of them going back to snapshots, hold the same after a million commands. The
// model goes along, in stretches.
func TestManyCommands(t *testing.T) {
	commands, stretch := 50_000, 2_500
	if long {
		commands = 1_000_000
	}
	l := newLogMaker(7, 9)
	var machines []*machine
	for i := range settings {
		m, err := newMachine(&settings[i], uint64(i), l.g.m)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { closeStore(t, m.store) }()
		machines = append(machines, m)
	}
	for done := 0; done < commands; done += stretch {
		log, x := l.make(stretch)
		sums := make([][32]byte, len(machines))
		var running sync.WaitGroup
		for i, m := range machines {
			running.Go(func() {
				var err error
				if sums[i], err = m.verify(log, x); err != nil {
					t.Errorf("after %d commands: %s: %v", done, m.name, err)
				}
				// The log of the stretch is forgotten: a crash must not lose more.
				if err := m.store.Sync(); err != nil {
					t.Error(err)
				}
				m.snapshot, m.synced = nil, log[len(log)-1].index
			})
		}
		running.Wait()
		if t.Failed() {
			return
		}
		if sums[1] != sums[0] || sums[2] != sums[0] {
			t.Fatalf("after %d commands the states differ: %x", done, sums)
		}
	}
}
