package storage

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/cairnkv/cairn/kv"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// restoreLog is a log that fills a store from a backup, with what others propose
// in between: it is refused, or harmless.
func restoreLog(rng *rand.Rand) (log []logEntry) {
	sum := [32]byte{7}
	add := func(commands ...*kv.Command) {
		index := uint64(len(log)) + 1
		e := logEntry{index: index, incarnation: kv.LeaseID{1}, seq: index}
		for _, c := range commands {
			e.commands = append(e.commands, kv.AppendCommand(nil, c))
		}
		log = append(log, e)
	}
	step := func(r kv.Restore) *kv.Command {
		r.Backup = sum
		return &kv.Command{Kind: kv.KindRestore, Time: 1_700_000_000_000, Restore: &r}
	}
	meanwhile := func() *kv.Command {
		return []*kv.Command{
			{Kind: kv.KindTxn, Txn: &kv.Txn{Then: []kv.Op{{Type: kv.OpPut, Key: []byte("k00100"), Value: []byte("v")}}}},
			{Kind: kv.KindClock, Clock: kv.Clock{AdvanceMillis: 250}},
			{Kind: kv.KindLeaseRenew, Renew: []kv.LeaseID{{1}}},
			{Kind: kv.KindMember, Member: kv.Member{Replica: 1, Version: 1}},
			step(kv.Restore{Step: kv.RestorePart, Part: 99}),
		}[rng.IntN(5)]
	}
	add(step(kv.Restore{Step: kv.RestoreBegin}))
	key := 0
	for part := uint64(1); part <= 8; part++ {
		var content []byte
		if part == 1 {
			for l := range 4 {
				content = kv.AppendBackupLease(content, &kv.BackupLease{
					ID: kv.LeaseID{byte(l + 1)}, Number: int64(l + 1), TTLMillis: 10_000, RemainingMillis: 5_000, Keys: 2, Bytes: 12,
				})
			}
		}
		for range 30 {
			e := kv.Entry{
				Key: fmt.Appendf(nil, "k%05d", key), Value: bytes.Repeat([]byte{'v'}, rng.IntN(2000)),
				CreateRevision: 2, ModRevision: uint64(2 + key), Version: uint64(1 + key),
			}
			if key < 8 {
				e.Lease = kv.LeaseID{byte(key/2 + 1)}
			}
			content = kv.AppendBackupEntry(content, &e)
			key++
		}
		c := step(kv.Restore{Step: kv.RestorePart, Part: part, Content: content})
		switch rng.IntN(3) {
		case 0:
			add(meanwhile(), c, meanwhile())
		case 1:
			add(c)
			add(c, meanwhile())
		default:
			add(c)
		}
	}
	end := step(kv.Restore{Step: kv.RestoreEnd, Part: 9, Revision: 1 << 30})
	add(end, &kv.Command{Kind: kv.KindTxn, Txn: &kv.Txn{Then: []kv.Op{
		{Type: kv.OpPut, Key: []byte("k00003"), Value: []byte("new")}, {Type: kv.OpDelete, Range: kv.SingleKey([]byte("k00004"))},
	}}})
	add(end, &kv.Command{Kind: kv.KindLeaseRevoke, Lease: kv.Lease{ID: kv.LeaseID{1}}})
	add(&kv.Command{Kind: kv.KindClock, Clock: kv.Clock{AdvanceMillis: 250}})
	return log
}

// TestRestoreSurvives fills a store while it loses its power again and again, and
// is replaced by a snapshot of another member that is as far. It comes out as one
// that lost nothing.
func TestRestoreSurvives(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	for round := range 30 {
		rng := rand.New(rand.NewPCG(seed, uint64(round)))
		log := restoreLog(rng)
		calm := openStore(t, vfs.NewMem())
		a := applier{store: calm}
		if err := a.apply(log); err != nil {
			t.Fatal(err)
		}
		fs := vfs.NewCrashableMem()
		s := openStore(t, fs)
		for upTo := 0; upTo < len(log); {
			upTo = min(upTo+1+rng.IntN(4), len(log))
			a := applier{store: s}
			if err := a.apply(log[:upTo]); err != nil {
				t.Fatal(err)
			}
			switch rng.IntN(3) {
			case 0: // a loss of power takes some of it back
				clone := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
				closeStore(t, s)
				fs = clone
				s = openStore(t, fs)
				applied, err := s.Applied()
				if err != nil {
					t.Fatal(err)
				}
				upTo = int(applied)
			case 1: // another member takes over what this one has
				snapshot := saved(t, s)
				closeStore(t, s)
				fs = vfs.NewCrashableMem()
				s = openStore(t, fs)
				if err := s.Load(bytes.NewReader(snapshot), nil); err != nil {
					t.Fatal(err)
				}
			}
		}
		if mustHash(t, s) != mustHash(t, calm) {
			t.Fatalf("round %d: the two differ", round)
		}
		stats, err := s.Stats()
		if err != nil {
			t.Fatal(err)
		}
		// Of 240 keys, one was deleted and two ended with their lease.
		if restoring, _ := s.Restoring(); restoring || stats.Keys != 237 || stats.Revision != 1<<30+2 || stats.Leases != 3 {
			t.Errorf("round %d: restoring %v, %+v", round, restoring, stats)
		}
		mustView(t, s, func(v *View) {
			n := 0
			err := v.Scan(context.Background(), &kv.Query{}, func(*kv.Entry) error { n++; return nil })
			if err != nil || n != 237 {
				t.Errorf("round %d: %d keys are found, %v", round, n, err)
			}
		})
		closeStore(t, calm)
		closeStore(t, s)
	}
}

// TestRestoreEndsEvents: a batch that has the end of a restore gives no events, also
// where a change comes behind it. Who follows events would not see the jump.
func TestRestoreEndsEvents(t *testing.T) {
	s := openStore(t, vfs.NewMem())
	defer closeStore(t, s)
	batch := func(commands ...*kv.Command) Applied {
		t.Helper()
		b, err := s.NewBatch()
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		b.WantEvents = true
		applied, err := s.Applied()
		if err != nil {
			t.Fatal(err)
		}
		for i, c := range commands {
			index := applied + uint64(i) + 1
			b.BeginEntry(index, kv.LeaseID{1}, index)
			if r, err := b.Apply(c); err != nil || r.Err() != nil {
				t.Fatal(r, err)
			}
			b.EndEntry()
		}
		done, err := b.Commit()
		if err != nil {
			t.Fatal(err)
		}
		return done
	}
	put := &kv.Command{Kind: kv.KindTxn, Txn: &kv.Txn{Then: []kv.Op{{Type: kv.OpPut, Key: []byte("k"), Value: []byte("v")}}}}
	step := func(r kv.Restore) *kv.Command { return &kv.Command{Kind: kv.KindRestore, Restore: &r} }
	batch(step(kv.Restore{Step: kv.RestoreBegin}))
	mustView(t, s, func(v *View) {
		if !v.Restoring() {
			t.Error("a view in the midst of a restore does not say so")
		}
	})
	over := batch(step(kv.Restore{Step: kv.RestoreEnd, Part: 1, Revision: 1 << 30}), put, put)
	if over.To != 1<<30+2 || over.Events != nil {
		t.Errorf("the end of a restore, and two changes: %+v", over)
	}
	mustView(t, s, func(v *View) {
		if v.Restoring() {
			t.Error("a view behind a restore says that it is under way")
		}
	})
	if next := batch(put); len(next.Events) != 1 {
		t.Errorf("a change later on: %+v", next)
	}
}
