package storage

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/cairnkv/cairn/kv"
	"github.com/cockroachdb/datadriven"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestScripts runs the scenarios in testdata. Each shows one thing, in prose
// first and then step by step. After every step the power is lost in a copy of
// the disk: what is left must be a prefix of the log, sound in itself, and equal
// to the store once the rest of the log went through it.
//
//	apply                  commands in the language of language_test.go, an entry each, one batch
//	entry [by=P seq=N]     all commands as one entry of a proposer
//	advance ms=N           lets the replicated clock run
//	read                   questions: get … (as in a transaction), key K [rev=N], history K [before= limit=],
//	                       changes FROM, at MILLIS, members, alarms, figures
//	versions               the versions that the disk holds, superfluous ones included
//	leases                 the leases with their keys
//	sweep                  waits until what is compacted is removed
//	sync                   makes durable what was applied
//	save                   takes a snapshot
//	load                   loads the snapshot, then applies the log from there
//	crash unsynced=PERCENT loses the power, then applies the log from there
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		if strings.Contains(path, "golden") || strings.Contains(path, "fuzz") {
			return
		}
		seed := rand.Uint64()
		t.Cleanup(func() {
			if t.Failed() {
				t.Logf("the crashes were those of seed %d", seed)
			}
		})
		s := newScript(t, seed)
		defer func() { closeStore(t, s.store) }()
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			out := s.step(t, d)
			s.loseAndRecover(t)
			return out
		})
	})
}

// script is a store with the log that made it.
type script struct {
	rng      *rand.Rand
	fs       *vfs.MemFS
	store    *Store
	log      []logEntry
	seqs     map[kv.LeaseID]uint64
	synced   uint64
	snapshot []byte
}

func newScript(t *testing.T, seed uint64) *script {
	s := &script{rng: rand.New(rand.NewPCG(seed, 0)), fs: vfs.NewCrashableMem(), seqs: map[kv.LeaseID]uint64{}}
	s.store = openStore(t, s.fs)
	return s
}

func (s *script) step(t *testing.T, d *datadriven.TestData) string {
	switch d.Cmd {
	case "apply":
		return s.append(t, d, func(commands [][]byte) (entries []logEntry) {
			for _, c := range commands {
				entries = append(entries, s.entry("p1", 0, c))
			}
			return entries
		})
	case "entry":
		by, seq := "p1", uint64(0)
		d.MaybeScanArgs(t, "by", &by)
		d.MaybeScanArgs(t, "seq", &seq)
		return s.append(t, d, func(commands [][]byte) []logEntry { return []logEntry{s.entry(by, seq, commands...)} })
	case "advance":
		var ms int64
		d.ScanArgs(t, "ms", &ms)
		return s.advance(t, ms)
	case "read":
		return s.read(t, d)
	case "versions":
		return s.versions(t)
	case "leases":
		return s.leases(t)
	case "sweep":
		awaitSwept(t, s.store)
	case "sync":
		if err := s.store.Sync(); err != nil {
			d.Fatalf(t, "%v", err)
		}
		s.synced = s.applied(t)
	case "save":
		mustView(t, s.store, func(v *View) {
			var b bytes.Buffer
			if err := v.Save(&b, nil); err != nil {
				d.Fatalf(t, "%v", err)
			}
			s.snapshot = b.Bytes()
		})
	case "load":
		if err := s.store.Load(bytes.NewReader(s.snapshot), nil); err != nil {
			d.Fatalf(t, "%v", err)
		}
		from := s.applied(t)
		s.replay(t, s.store)
		return fmt.Sprintf("back to entry %d, then on to %d", from, s.applied(t))
	case "crash":
		var percent int
		d.ScanArgs(t, "unsynced", &percent)
		fs := s.powerLoss(percent)
		closeStore(t, s.store)
		s.fs, s.store = fs, openStore(t, fs)
		// How much was left depends on what Pebble had written by then.
		s.replay(t, s.store)
		return "recovered"
	default:
		d.Fatalf(t, "unknown step %q", d.Cmd)
	}
	return "ok"
}

func (s *script) applied(t *testing.T) uint64 {
	applied, err := s.store.Applied()
	if err != nil {
		t.Fatal(err)
	}
	return applied
}

// entry makes the next entry of the log. With seq 0 it gets the proposer's next
// number.
func (s *script) entry(by string, seq uint64, commands ...[]byte) logEntry {
	incarnation := leaseName(by)
	if seq == 0 {
		seq = s.seqs[incarnation] + 1
	}
	s.seqs[incarnation] = max(seq, s.seqs[incarnation])
	e := logEntry{index: uint64(len(s.log)) + 1, incarnation: incarnation, seq: seq, commands: commands}
	s.log = append(s.log, e)
	return e
}

// append puts commands into the log and applies them.
func (s *script) append(t *testing.T, d *datadriven.TestData, entries func([][]byte) []logEntry) string {
	commands, err := parseCommands(d.Input, func() uint64 {
		_, index := s.store.NeedsClock()
		return index
	})
	if err != nil {
		d.Fatalf(t, "%v", err)
	}
	var raw [][]byte
	for _, c := range commands {
		raw = append(raw, kv.AppendCommand(nil, c))
	}
	fresh := entries(raw)
	a := &applier{store: s.store, results: map[uint64][]*kv.Result{}, cut: func() bool { return false }}
	if err := a.apply(s.log); err != nil {
		d.Fatalf(t, "%v", err)
	}
	var out strings.Builder
	for _, e := range fresh {
		if len(a.results[e.index]) == 0 {
			out.WriteString("a repetition: not applied\n")
		}
		for _, r := range a.results[e.index] {
			out.WriteString(sayResult(r) + "\n")
		}
	}
	return out.String()
}

func (s *script) advance(t *testing.T, ms int64) string {
	_, prev := s.store.NeedsClock()
	var steps [][]byte
	index := uint64(len(s.log)) + 1
	for ; ms > 0; ms -= kv.MaxClockAdvanceMillis {
		c := &kv.Command{Kind: kv.KindClock, Clock: kv.Clock{Prev: prev, AdvanceMillis: min(ms, kv.MaxClockAdvanceMillis)}}
		steps = append(steps, kv.AppendCommand(nil, c))
		prev = index
	}
	s.entry("p1", 0, steps...)
	s.replay(t, s.store)
	st, err := s.store.Stats()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("clock %d", st.Clock)
}

// replay applies to a store what it lacks of the log.
func (s *script) replay(t *testing.T, store *Store) {
	if err := (&applier{store: store, cut: func() bool { return s.rng.IntN(3) == 0 }}).apply(s.log); err != nil {
		t.Fatal(err)
	}
}

func (s *script) powerLoss(percent int) *vfs.MemFS {
	return s.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: s.rng})
}

// loseAndRecover loses the power in a copy of the disk and compares what comes
// back with the store.
func (s *script) loseAndRecover(t *testing.T) {
	if err := CheckStore(s.store); err != nil {
		t.Fatal(err)
	}
	survivor := openStore(t, s.powerLoss([]int{0, 50, 100}[s.rng.IntN(3)]))
	defer closeStore(t, survivor)
	if err := CheckStore(survivor); err != nil {
		t.Fatalf("after a crash: %v", err)
	}
	left, err := survivor.Applied()
	if err != nil {
		t.Fatal(err)
	}
	if left < s.synced || left > uint64(len(s.log)) {
		t.Fatalf("after a crash entry %d is left, %d was durable, the log has %d", left, s.synced, len(s.log))
	}
	s.replay(t, survivor)
	if err := CheckStore(survivor); err != nil {
		t.Fatalf("after a crash and the rest of the log: %v", err)
	}
	if mustHash(t, survivor) != mustHash(t, s.store) {
		t.Fatalf("entry %d was left after a crash; the rest of the log leads to another state", left)
	}
}

// read answers questions, a line each.
func (s *script) read(t *testing.T, d *datadriven.TestData) string {
	var out strings.Builder
	mustView(t, s.store, func(v *View) {
		for _, line := range strings.Split(d.Input, "\n") {
			answer, err := question(s.store, v, line)
			if err != nil {
				answer = err.Error()
			}
			out.WriteString(strings.TrimRight(answer, "\n") + "\n")
		}
	})
	return out.String()
}

func question(s *Store, v *View, line string) (answer string, err error) {
	defer func() {
		if bad, ok := recover().(parseError); ok {
			err = bad
		}
	}()
	p := &parser{words: splitWords(line)}
	ctx := context.Background()
	var b strings.Builder
	switch word := p.next(); word {
	case "get":
		list, err := v.List(ctx, p.query())
		if err != nil {
			return "", err
		}
		return sayList(list, ""), nil
	case "key":
		key := text(p.next())
		if !p.more() {
			e, found, at, err := s.Get(key)
			return fmt.Sprintf("at r%d: %s", at, sayFound(&e, found)), err
		}
		revision := uint64(0)
		p.options(func(name, value string) bool {
			revision = number(value)
			return name == "rev"
		})
		e, found, err := v.Get(key, revision)
		return sayFound(&e, found), err
	case "history":
		key, before, limit := text(p.next()), uint64(0), 0
		p.options(func(name, value string) bool {
			switch name {
			case "before":
				before = number(value)
			case "limit":
				limit = int(number(value))
			default:
				return false
			}
			return true
		})
		events, more, err := v.History(key, before, limit)
		b.WriteString(sayEvents(events))
		if more {
			b.WriteString("more")
		}
		if b.Len() == 0 && err == nil {
			b.WriteString("no history")
		}
		return b.String(), err
	case "changes":
		err := v.Changes(ctx, kv.Place{Revision: number(p.next())}, nil, func(sub uint32, e *kv.Event) (bool, error) {
			fmt.Fprintf(&b, "%d.%d %s\n", e.Entry.ModRevision, sub, sayEvent(e))
			return true, nil
		})
		if b.Len() == 0 && err == nil {
			b.WriteString("no changes")
		}
		return b.String(), err
	case "at":
		revision, err := v.RevisionAt(signed(p.next()))
		return fmt.Sprintf("r%d", revision), err
	case "members":
		members, err := v.Members()
		for i := range members {
			m := &members[i]
			fmt.Fprintf(&b, "%d %s %s version=%d %s %s\n", m.Replica, sayLease(m.ID), m.Name, m.Version, m.ClientURL, m.PeerAddress)
		}
		return b.String(), err
	case "alarms":
		alarms, err := v.Alarms()
		for _, a := range alarms {
			fmt.Fprintf(&b, "%d %s\n", a.Replica, a.Type)
		}
		return b.String() + fmt.Sprintf("%d in all", len(alarms)), err
	case "figures":
		st, err := s.Stats()
		return fmt.Sprintf("applied=%d revision=%d compact=%d keys=%d leases=%d answers=%d clock=%d no-space=%d corrupt=%d version=%d",
			st.AppliedIndex, st.Revision, st.Compact, st.Keys, st.Leases, st.Idempotency, st.Clock, st.NoSpaceAlarms, st.CorruptAlarms, st.ClusterVersion), err
	default:
		return "", parseError("unknown question " + word)
	}
}

func sayFound(e *kv.Entry, found bool) string {
	if !found {
		return "not found"
	}
	return sayEntry(e)
}

// versions lists space v as it is on disk.
func (s *script) versions(t *testing.T) string {
	var b strings.Builder
	mustView(t, s.store, func(v *View) {
		it, err := v.snap.NewIter(spaceBounds(spaceVersion))
		if err != nil {
			t.Fatal(err)
		}
		defer it.Close()
		for it.First(); it.Valid(); it.Next() {
			escaped, revision, ok := splitVersionKey(it.Key())
			if !ok {
				t.Fatalf("%x is no version key", it.Key())
			}
			var ver version
			if _, err := decodeVersion(it.Key(), it.Value(), &ver); err != nil {
				t.Fatal(err)
			}
			what := "deleted"
			if ver.exists {
				what = sayBytes(ver.payload[ver.contentTypeLen:])
			}
			fmt.Fprintf(&b, "%s at r%d: %s\n", sayBytes(unescape(nil, escaped)), revision, what)
		}
	})
	return b.String()
}

func (s *script) leases(t *testing.T) string {
	var b strings.Builder
	mustView(t, s.store, func(v *View) {
		it, err := v.snap.NewIter(spaceBounds(spaceDeadline))
		if err != nil {
			t.Fatal(err)
		}
		defer it.Close()
		for it.First(); it.Valid(); it.Next() {
			id := kv.LeaseID(it.Key()[9:])
			raw, err := getCopy(v.snap, leaseKey(id))
			if err != nil {
				t.Fatal(err)
			}
			l, err := decodeLease(leaseKey(id), raw)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&b, "%s ends at %d, ttl=%d generation=%d", sayLease(id), l.deadline, l.ttl, l.generation)
			if queued := binary.BigEndian.Uint64(it.Key()[1:]); queued != l.deadline {
				fmt.Fprintf(&b, " queued=%d", queued)
			}
			if l.own {
				b.WriteString(" own")
			}
			keys, err := attachedKeys(v.snap, id)
			if err != nil {
				t.Fatal(err)
			}
			for _, k := range keys {
				b.WriteString(" " + sayBytes(k))
			}
			b.WriteString("\n")
		}
	})
	if b.Len() == 0 {
		return "none"
	}
	return b.String()
}
