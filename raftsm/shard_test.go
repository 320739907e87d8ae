package raftsm

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cairnkv/cairn/kv"
	"go.uber.org/goleak"
)

// TestReopen opens a cluster of one, writes, closes it, and finds everything
// again, three times. A closed member leaves no goroutine.
func TestReopen(t *testing.T) {
	m := lone(t)
	var before string
	for i := range 3 {
		m.open(t)
		if i > 0 {
			m.wantValue(t, "k", fmt.Sprint("v", i-1))
			if m.dir.Fresh {
				t.Error("an old directory is called fresh")
			}
		}
		result := m.mustPut(t, "k", fmt.Sprint("v", i))
		if want := uint64(i + 2); result.Revision != want {
			t.Errorf("revision %d, want %d", result.Revision, want)
		}
		if v := result.Ops[0].Version; v != uint64(i+1) {
			t.Errorf("version %d, want %d", v, i+1)
		}
		m.wantValue(t, "k", fmt.Sprint("v", i))
		if after := m.state(t); after == before {
			t.Error("a write left the state as it was")
		} else {
			before = after
		}
		m.close(t)
		if err := goleak.Find(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestManyWriters writes from many goroutines at once. Every write has its own
// result, in the order of each writer, and there are fewer entries than writes.
func TestManyWriters(t *testing.T) {
	m := lone(t)
	m.open(t)
	m.mustPut(t, "first", "")
	began := m.shard.machine.log.applied()
	const writers, each = 64, 50
	var wg sync.WaitGroup
	var taken sync.Map // revision → writer
	for w := range writers {
		wg.Go(func() {
			key, last := fmt.Sprint("k", w), uint64(0)
			for i := range each {
				result, err := m.shard.Propose(context.Background(), put(key, fmt.Sprint(i)))
				if err != nil {
					t.Errorf("%s: %v", key, err)
					return
				}
				if result.Ops[0].Version != uint64(i+1) || result.Revision <= last {
					t.Errorf("%s: put %d is version %d at r%d, after r%d", key, i, result.Ops[0].Version, result.Revision, last)
				}
				last = result.Revision
				if other, twice := taken.LoadOrStore(last, key); twice {
					t.Errorf("r%d is %s's and %s's", last, key, other)
				}
			}
		})
	}
	wg.Wait()
	entries := m.shard.machine.log.applied() - began
	if entries >= writers*each {
		t.Errorf("%d entries for %d writes", entries, writers*each)
	}
	t.Logf("%d writes in %d entries", writers*each, entries)
	for w := range writers {
		m.wantValue(t, fmt.Sprint("k", w), fmt.Sprint(each-1))
	}
}

// TestRefusalIsAResult: what apply refuses is no error of the log, and the next
// command goes on.
func TestRefusalIsAResult(t *testing.T) {
	m := lone(t)
	m.open(t)
	m.mustPut(t, "n", "no number")
	result, err := m.shard.Propose(context.Background(), &kv.Command{Kind: kv.KindTxn, Txn: &kv.Txn{
		Then: []kv.Op{{Type: kv.OpIncrement, Key: []byte("n"), By: 1}},
	}})
	must(t, err)
	wantCode(t, result.Err(), kv.NotANumber)
	m.mustPut(t, "n", "1")
}

// TestCloseUnderLoad closes a shard while many write and read. Each request is
// answered; what was answered well is there after a restart, what was refused
// is not.
func TestCloseUnderLoad(t *testing.T) {
	m := lone(t)
	m.cfg.Fatal = func(err error) { t.Errorf("closing broke something: %v", err) }
	m.open(t)
	m.mustPut(t, "first", "")
	var answered sync.Map // key → what is known: true, false; missing: nothing
	var wg sync.WaitGroup
	var writes atomic.Int64
	shard := m.shard
	for w := range 64 {
		wg.Go(func() {
			for i := 0; ; i++ {
				key := fmt.Sprintf("w%d-%d", w, i)
				_, err := shard.Propose(context.Background(), put(key, "v"))
				writes.Add(1)
				switch codeOf(err) {
				case kv.OK:
					answered.Store(key, true)
				case kv.OutcomeUnknown:
				case kv.ShuttingDown, kv.Unavailable:
					answered.Store(key, false)
					if errIs(err, kv.ShuttingDown) {
						return
					}
				default:
					t.Errorf("%s: %v", key, err)
				}
			}
		})
		wg.Go(func() {
			for {
				err := shard.Wait(context.Background(), kv.Consistency{})
				if errIs(err, kv.ShuttingDown) {
					return
				}
				if err != nil && !errIs(err, kv.NoLeader) {
					t.Errorf("read: %v", err)
				}
			}
		})
	}
	eventually(t, "the load runs", func() bool { return writes.Load() > 2000 })
	m.close(t)
	wg.Wait()

	m.open(t)
	m.mustPut(t, "again", "")
	answered.Range(func(key, applied any) bool {
		_, found, _, err := m.shard.Store().Get([]byte(key.(string)))
		must(t, err)
		if found != applied {
			t.Errorf("%s was answered as applied=%v and is there: %v", key, applied, found)
		}
		return true
	})
}

// TestCloseEndsSnapshots: the end of a replica does not wait for who receives its state.
func TestCloseEndsSnapshots(t *testing.T) {
	m := lone(t)
	m.open(t)
	must(t, m.shard.Close())
	m.shard = nil
	_, err := m.host.transport.GetSnapshotConnection(context.Background(), freeAddress(t))
	wantError(t, "another snapshot", err, "about to stop")
}

// TestCloseWaitsForApply closes a shard that is applying. What is applied is
// still answered, and the store is there until that is done.
func TestCloseWaitsForApply(t *testing.T) {
	m := lone(t)
	m.cfg.Fatal = func(err error) { t.Errorf("closing broke something: %v", err) }
	applying, goOn := make(chan struct{}, 1), make(chan struct{})
	m.cfg.Callbacks.Applied = func(uint64, uint64, []kv.Event) {
		select {
		case applying <- struct{}{}:
		default:
		}
		<-goOn
	}
	m.open(t)
	answer := make(chan error, 1)
	go func() {
		_, err := m.shard.Propose(context.Background(), put("k", "v"))
		answer <- err
	}()
	<-applying
	must(t, <-answer)
	closed := make(chan error, 1)
	go func() { closed <- m.shard.Close() }()
	// Dragonboat has let go of the replica when it no longer knows a leader.
	eventually(t, "the replica is stopped", func() bool { leader, _ := m.shard.Leader(); return leader == 0 })
	eventually(t, "writes are refused", func() bool {
		_, err := m.host.nh.ReadIndex(1, time.Second)
		return err != nil
	})
	if _, _, _, err := m.shard.Store().Get([]byte("k")); err != nil {
		t.Errorf("the store is gone while the shard still applies: %v", err)
	}
	select {
	case err := <-closed:
		t.Errorf("closed while the shard still applies: %v", err)
		closed <- err
	default:
	}
	close(goOn)
	must(t, <-closed)
	m.shard = nil
}

// TestConsistency reads in all the ways.
func TestConsistency(t *testing.T) {
	m := lone(t)
	m.cfg.Timeout = 3 * time.Second
	m.open(t)
	revision := m.mustPut(t, "k", "v").Revision
	ctx := context.Background()
	must(t, m.shard.Wait(ctx, kv.Consistency{}))
	must(t, m.shard.Wait(ctx, kv.Consistency{Stale: true}))
	must(t, m.shard.Wait(ctx, kv.Consistency{MinRevision: revision}))
	must(t, m.shard.Wait(ctx, kv.Consistency{MaxStaleness: time.Hour}))
	wantCode(t, m.shard.Wait(ctx, kv.Consistency{MaxStaleness: 1}), kv.TooStale)
	must(t, m.shard.Ready())
	if m.shard.LastRound().IsZero() {
		t.Error("a round was made, and isn't known")
	}

	// A revision to come: the write wakes the reader.
	woken := make(chan error, 1)
	go func() { woken <- m.shard.Wait(ctx, kv.Consistency{MinRevision: revision + 1}) }()
	eventually(t, "the reader waits", func() bool { return m.shard.machine.revisions.lowest.Load() == revision+1 })
	m.mustPut(t, "k", "w")
	must(t, <-woken)

	// One that doesn't come.
	wantCode(t, m.shard.Wait(ctx, kv.Consistency{MinRevision: revision + 1000}), kv.NotCaughtUp)

	// The caller leaves.
	gone, cancel := context.WithCancel(ctx)
	cancel()
	wantCode(t, m.shard.Wait(gone, kv.Consistency{MinRevision: revision + 1000}), kv.NotCaughtUp)
}

// TestCallbacks follows a shard by its callbacks: each begins where the one
// before it ended, and has all changes between.
func TestCallbacks(t *testing.T) {
	m := lone(t)
	var mu sync.Mutex
	last, changes := uint64(0), 0
	var faults []error
	m.cfg.Callbacks = Callbacks{
		Applied: func(from, to uint64, events []kv.Event) {
			mu.Lock()
			defer mu.Unlock()
			if last != 0 && from != last {
				faults = append(faults, fmt.Errorf("r%d to r%d came after r%d", from, to, last))
			}
			for _, e := range events {
				if r := e.Entry.ModRevision; r <= from || r > to {
					faults = append(faults, fmt.Errorf("r%d is among r%d to r%d", r, from, to))
				}
			}
			last, changes = to, changes+len(events)
		},
		Jumped: func(to uint64) { faults = append(faults, fmt.Errorf("jumped to r%d", to)) },
	}
	m.open(t)
	m.mustPut(t, "k", "v")
	var wg sync.WaitGroup
	for w := range 20 {
		wg.Go(func() {
			for i := range 10 {
				if _, err := m.shard.Propose(context.Background(), put(fmt.Sprint(w), fmt.Sprint(i))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	revision, _ := m.shard.Store().Revisions()
	m.close(t) // no callback comes after it
	if last != revision || changes != 201 {
		t.Errorf("told of %d changes up to r%d, there were 201 up to r%d", changes, last, revision)
	}
	must(t, errors.Join(faults...))
}

// TestNoQuorum starts one of three members. Nothing is applied, and that is
// said as such: the deadline leaves nothing open.
func TestNoQuorum(t *testing.T) {
	a, b, c := freeAddress(t), freeAddress(t), freeAddress(t)
	m := &member{path: t.TempDir() + "/data", spec: Spec{Name: "n1", InitialCluster: "n1=" + a + ",n2=" + b + ",n3=" + c}}
	m.cfg.Timeout = 500 * time.Millisecond
	m.open(t)
	ctx := context.Background()
	_, err := m.shard.Propose(ctx, put("k", "v"))
	wantCode(t, err, kv.NoLeader)
	wantCode(t, m.shard.Wait(ctx, kv.Consistency{}), kv.NoLeader)
	wantCode(t, m.shard.Ready(), kv.NoLeader)
	wantCode(t, m.shard.Wait(ctx, kv.Consistency{MaxStaleness: time.Hour}), kv.TooStale)
	must(t, m.shard.Wait(ctx, kv.Consistency{Stale: true}))
	if leader, _ := m.shard.Leader(); leader != 0 || m.shard.IsLeader() {
		t.Errorf("believes that %d leads", leader)
	}
	applied, err := m.shard.Store().Applied()
	must(t, err)
	if revision, _ := m.shard.Store().Revisions(); revision != 1 {
		t.Errorf("revision %d, entry %d were applied", revision, applied)
	}
}

// TestLogIsCut cuts the log every 20 entries while the shard is in use, and
// starts from what is left of it.
func TestLogIsCut(t *testing.T) {
	m := lone(t)
	m.cfg.SnapshotEntries = 20
	m.open(t)
	for i := range 200 {
		m.mustPut(t, fmt.Sprint("k", i%7), fmt.Sprint(i))
	}
	before := m.state(t)
	m.close(t)
	m.open(t)
	m.wantValue(t, "k3", "199")
	if after := m.state(t); after != before {
		t.Errorf("the state was %s and is %s", before, after)
	}
}

// TestPoisonIsRefused proposes what no member could decode, or what is beyond a
// limit. It is refused before it is in the log: the shard goes on, and starts
// again.
func TestPoisonIsRefused(t *testing.T) {
	m := lone(t)
	m.open(t)
	m.mustPut(t, "k", "v")
	nested := &kv.Txn{}
	for range kv.MaxTxnDepth + 1 {
		nested = &kv.Txn{Then: []kv.Op{{Type: kv.OpTxn, Txn: nested}}}
	}
	_, err := m.shard.Propose(context.Background(), &kv.Command{Kind: kv.KindTxn, Txn: nested})
	wantCode(t, err, kv.TransactionTooLarge)

	large := &kv.Txn{}
	for i := range 3 {
		large.Then = append(large.Then, kv.Op{Type: kv.OpPut, Key: []byte{'k', byte(i)}, Value: make([]byte, kv.MaxValueBytes)})
	}
	_, err = m.shard.Propose(context.Background(), &kv.Command{Kind: kv.KindTxn, Txn: large})
	wantCode(t, err, kv.TransactionTooLarge)

	for _, c := range []*kv.Command{{}, {Kind: kv.KindTxn}, {Kind: kv.KindTxn, Txn: &kv.Txn{Then: []kv.Op{{Type: 99}}}}} {
		if _, err := m.shard.Propose(context.Background(), c); !errors.Is(err, kv.ErrMalformed) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	m.mustPut(t, "k", "w")
	m.close(t)
	m.open(t)
	m.mustPut(t, "l", "v")
	m.wantValue(t, "k", "w")
}

// TestConfirmedDisk: what a sync of the store is confirmed by lies where the store does,
// which may be on another file system than the data directory.
func TestConfirmedDisk(t *testing.T) {
	m := lone(t)
	m.open(t)
	m.mustPut(t, "k", "v")
	if found, err := filepath.Glob(filepath.Join(m.shard.machine.dir, "db-*")); err != nil || len(found) == 0 {
		t.Errorf("no database lies in %s, %v", m.shard.machine.dir, err)
	}
	if !slices.Contains(m.dir.Volumes(1), m.shard.machine.dir) {
		t.Errorf("%s is none of %q", m.shard.machine.dir, m.dir.Volumes(1))
	}
	must(t, m.shard.machine.Sync())
}
