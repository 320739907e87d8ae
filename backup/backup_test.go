package backup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cairnkv/cairn/kv"
)

var sampleHeader = Header{
	ClusterID: "01KB0000000000000000000000", MemberID: "01KB0000000000000000000001", Member: "n1",
	TakenAt: time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC), Version: "0.1.0",
}

// filled is a shard with keys of all sorts: overwritten, deleted, large, with a
// type, on leases.
func filled(t testing.TB, keys int) *shard {
	s := newShard(t)
	for l := range 5 {
		s.do(&kv.Command{Kind: kv.KindLeaseGrant, Lease: kv.Lease{ID: leaseName(l), TTLMillis: 10_000 * int64(l+1)}})
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range keys {
		op := putOf(fmt.Sprintf("k/%06d", rng.IntN(keys)), strings.Repeat("v", rng.IntN(300)), kv.LeaseID{})
		switch i % 7 {
		case 0:
			op.ContentType = "text/plain"
		case 1:
			op.Lease = leaseName(rng.IntN(4)) // the last one stays empty
		case 2:
			op.Lease, op.OwnTTLMillis = leaseName(1000+i), 60_000
		case 3:
			s.do(txn(kv.Op{Type: kv.OpDelete, Range: kv.SingleKey(op.Key)}))
		}
		s.apply(&kv.Command{Kind: kv.KindTxn, Time: int64(1_000_000 + i), Txn: txn(op).Txn})
	}
	for _, key := range []string{"huge1", "huge2", "i"} {
		s.do(txn(putOf(key, strings.Repeat(key, 200_000), kv.LeaseID{})))
	}
	s.do(txn(putOf("large", strings.Repeat("x", kv.MaxValueBytes), kv.LeaseID{})))
	s.do(txn(putOf("a\x00\xff", "", kv.LeaseID{})))
	s.do(txn(putOf("_cairn/locks/l/holder", "{}", kv.LeaseID{})))
	s.tick(4_000)
	return s
}

func saved(t testing.TB, s *shard) ([]byte, Info) {
	t.Helper()
	var file bytes.Buffer
	info, err := Save(background, &file, s.view(), sampleHeader, 1)
	must(t, err)
	return file.Bytes(), info
}

// restored is a new shard that was filled from a file.
func restored(t testing.TB, file []byte, revision uint64) *shard {
	s := newShard(t)
	for _, c := range steps(t, bytes.NewReader(file), revision) {
		s.do(c)
	}
	return s
}

// TestRoundTrip saves a store, verifies the file, fills another one from it and
// saves that: keys and leases are the same, and the revision is the one that was
// asked for.
func TestRoundTrip(t *testing.T) {
	for _, keys := range []int{0, 3_000} {
		s := filled(t, keys)
		file, info := saved(t, s)
		revision, _ := s.store.Revisions()
		stats, err := s.store.Stats()
		must(t, err)
		verified, err := Verify(bytes.NewReader(file))
		must(t, err)
		if d := cmp.Diff(info, verified); d != "" {
			t.Errorf("written and read differ:\n%s", d)
		}
		if info.Size != int64(len(file)) || info.Revision != revision || info.Keys != stats.Keys || info.Leases != stats.Leases ||
			info.LastTime != stats.LastTime || info.Blocks < 3 {
			t.Errorf("%+v does not fit %d bytes of %+v", info, len(file), stats)
		}

		target := revision + 1<<20
		again := restored(t, file, target)
		_, infoAgain := saved(t, again)
		if infoAgain.ContentHash != info.ContentHash || infoAgain.Keys != info.Keys || infoAgain.Bytes != info.Bytes {
			t.Errorf("restored: %+v, want %+v", infoAgain.Trailer, info.Trailer)
		}
		if d := cmp.Diff(leasesOf(t, s), leasesOf(t, again)); d != "" {
			t.Errorf("the leases differ:\n%s", d)
		}
		current, compacted := again.store.Revisions()
		if restoring, _ := again.store.Restoring(); restoring || current != target || compacted != target {
			t.Errorf("restored: revision %d, compacted %d, restoring %v", current, compacted, restoring)
		}
		if _, found, err := again.store.Backup(); !found || err != nil {
			t.Error("the store does not know its backup", err)
		}
		// The two must go on alike: the same commands give the same, leases end at
		// the same time, and what is deleted leaves nothing behind.
		for i, c := range []*kv.Command{
			txn(putOf("k/000001", "new", leaseName(2)), putOf("large", "small", kv.LeaseID{})),
			{Kind: kv.KindLeaseRenew, Renew: []kv.LeaseID{leaseName(0), leaseName(1002)}},
			{Kind: kv.KindLeaseRevoke, Lease: kv.Lease{ID: leaseName(1)}},
			txn(kv.Op{Type: kv.OpIncrement, Key: []byte("n"), By: 3}),
		} {
			a, b := s.apply(c)[0], again.apply(c)[0]
			if d := cmp.Diff(a, b, ignoreRevisions); d != "" {
				t.Errorf("command %d: %s", i, d)
			}
		}
		s.tick(100_000)
		again.tick(100_000)
		for _, x := range []*shard{s, again} {
			due, _, err := x.store.DueLeases(1 << 20)
			must(t, err)
			for _, l := range due {
				x.do(&kv.Command{Kind: kv.KindLeaseExpire, Lease: l})
			}
		}
		if a, b := keysOf(t, s), keysOf(t, again); !cmp.Equal(a, b) {
			t.Errorf("after the same end: %s", cmp.Diff(a, b))
		}
		s.do(txn(kv.Op{Type: kv.OpDelete}))
		again.do(txn(kv.Op{Type: kv.OpDelete}))
		if a, b := leasesOf(t, s), leasesOf(t, again); !cmp.Equal(a, b) {
			t.Errorf("after all keys were deleted: %s", cmp.Diff(a, b))
		}
	}
}

// ignoreRevisions compares results of stores whose revisions differ.
var ignoreRevisions = cmp.FilterPath(func(p cmp.Path) bool {
	switch p.Last().String() {
	case ".Revision", ".CompactRevision":
		return true
	}
	return false
}, cmp.Ignore())

func leasesOf(t testing.TB, s *shard) (all []kv.BackupLease) {
	t.Helper()
	must(t, s.view().BackupLeases(background, func(l *kv.BackupLease) error {
		all = append(all, *l)
		return nil
	}))
	return all
}

func keysOf(t testing.TB, s *shard) (all []string) {
	t.Helper()
	must(t, s.view().Scan(background, &kv.Query{}, func(e *kv.Entry) error {
		all = append(all, fmt.Sprintf("%s=%.20s (%d)", e.Key, e.Value, e.Version))
		return nil
	}))
	return all
}

// TestOldPositions reads a restored store at what was handed out before.
func TestOldPositions(t *testing.T) {
	s := filled(t, 100)
	file, info := saved(t, s)
	again := restored(t, file, info.Revision+1<<20)
	v := again.view()
	for _, revision := range []uint64{1, info.Revision, info.Revision + 1, info.Revision + 1<<20 - 1} {
		if _, _, err := v.Get([]byte("large"), revision); !errors.Is(err, &kv.Error{Code: kv.Compacted}) {
			t.Errorf("a read at %d: %v", revision, err)
		}
		err := v.Changes(background, kv.Place{Revision: revision}, nil, func(uint32, *kv.Event) (bool, error) { return true, nil })
		if !errors.Is(err, &kv.Error{Code: kv.Compacted}) {
			t.Errorf("changes from %d: %v", revision, err)
		}
	}
	e, found, err := v.Get([]byte("large"), 0)
	must(t, err)
	if before, _, _ := s.view().Get([]byte("large"), 0); !found || !cmp.Equal(e, before) {
		t.Errorf("got %v", cmp.Diff(before, e))
	}
	events, more, err := v.History([]byte("large"), 0, 10)
	if err != nil || more || len(events) != 1 {
		t.Errorf("history: %v %v %v", events, more, err)
	}
	if r, err := v.RevisionAt(time.Now().UnixMilli()); err != nil || r != info.Revision+1<<20 {
		t.Errorf("the newest revision is %d, %v", r, err)
	}
}

// TestStepsAreAppliedOnce repeats, leaves out, and mixes the steps of a restore.
// It comes out as if they had been given in order.
func TestStepsAreAppliedOnce(t *testing.T) {
	file, info := saved(t, filled(t, 2_000))
	all := steps(t, bytes.NewReader(file), info.Revision+5)
	s := newShard(t)
	s.apply(all[1], all[len(all)-1]) // nothing has begun
	s.do(all[0])
	other := *all[1].Restore
	other.Backup[0] ^= 1
	for _, c := range []*kv.Command{
		{Kind: kv.KindRestore, Restore: &other},
		{Kind: kv.KindRestore, Restore: &kv.Restore{Step: kv.RestoreBegin, Backup: [32]byte{9}}},
		all[2], all[len(all)-1],
	} {
		if r := s.apply(c)[0]; r.Code != kv.Unavailable {
			t.Errorf("%+v: %v", c.Restore.Step, r)
		}
	}
	for _, c := range []*kv.Command{
		txn(putOf("early", "v", kv.LeaseID{})), {Kind: kv.KindCompact, Compact: 1},
		{Kind: kv.KindLeaseGrant, Lease: kv.Lease{ID: leaseName(7), TTLMillis: 5000}},
		{Kind: kv.KindTxn, IdempotencyKey: "k", Txn: txn(putOf("early", "v", kv.LeaseID{})).Txn},
	} {
		if r := s.apply(c)[0]; r.Code != kv.Restoring {
			t.Errorf("while it is restored: %v", r)
		}
	}
	for i, c := range all[1:] {
		if needs, _ := s.store.NeedsClock(); needs {
			t.Fatal("the clock would run while leases come in")
		}
		// A put of a key that comes later is looked up, found missing, and refused.
		s.apply(txn(putOf("large", "v", kv.LeaseID{})))
		if i%2 == 0 {
			s.apply(c, c, all[0])
		} else {
			s.do(c)
			s.apply(all[1])
		}
	}
	s.apply(all[len(all)-1])
	if _, again := saved(t, s); again.ContentHash != info.ContentHash {
		t.Errorf("got %+v, want %+v", again.Trailer, info.Trailer)
	}
	if r := s.apply(&kv.Command{Kind: kv.KindRestore, Restore: &kv.Restore{Step: kv.RestoreBegin, Backup: [32]byte{9}}})[0]; r.Code != kv.Unavailable {
		t.Errorf("a second restore: %v", r)
	}
	used := newShard(t)
	used.do(txn(putOf("k", "v", kv.LeaseID{})))
	if r := used.apply(all[0])[0]; r.Code != kv.Unavailable || !strings.Contains(r.Detail, "not empty") {
		t.Errorf("onto a store that is in use: %v", r)
	}
}

// TestKeysAfterTheEnd overwrites restored keys in the entry that ends the
// restore, in numbers that are read ahead: none is taken for new.
func TestKeysAfterTheEnd(t *testing.T) {
	file, info := saved(t, filled(t, 2_000))
	all := steps(t, bytes.NewReader(file), info.Revision+5)
	s := newShard(t)
	var puts []*kv.Command
	for _, key := range keysOf(t, restored(t, file, info.Revision+5)) {
		if name, _, ok := strings.Cut(key, "="); ok {
			puts = append(puts, txn(putOf(name, "again", kv.LeaseID{})))
		}
	}
	s.apply(all[:2]...)
	s.apply(puts...) // refused, but looked up
	s.apply(all[2 : len(all)-1]...)
	for i, r := range s.apply(append([]*kv.Command{all[len(all)-1]}, puts...)...)[1:] {
		if r.Code != kv.OK || r.Ops[0].Created {
			t.Fatalf("%s: %+v", puts[i].Txn.Then[0].Key, r)
		}
	}
	for i, r := range s.apply(puts...) {
		if r.Code != kv.OK || r.Ops[0].Created {
			t.Fatalf("%s: %+v", puts[i].Txn.Then[0].Key, r)
		}
	}
	stats, err := s.store.Stats()
	must(t, err)
	if stats.Keys != info.Keys {
		t.Errorf("%d keys, want %d", stats.Keys, info.Keys)
	}
}

// TestDamage cuts a file at every byte and flips a bit of every byte: each is
// refused, and by a DamagedError.
func TestDamage(t *testing.T) {
	s := newShard(t)
	s.do(&kv.Command{Kind: kv.KindLeaseGrant, Lease: kv.Lease{ID: leaseName(1), TTLMillis: 10_000}})
	for i := range 20 {
		s.do(txn(putOf(fmt.Sprint("k", i), "value", leaseName(1))))
	}
	file, _ := saved(t, s)
	refused := func(what string, damaged []byte) {
		t.Helper()
		_, err := Verify(bytes.NewReader(damaged))
		var d *DamagedError
		if !errors.As(err, &d) {
			t.Fatalf("%s: %v", what, err)
		}
	}
	for i := range file {
		refused(fmt.Sprintf("cut at %d", i), file[:i])
		for bit := range 8 {
			damaged := bytes.Clone(file)
			damaged[i] ^= 1 << bit
			refused(fmt.Sprintf("bit %d of byte %d", bit, i), damaged)
		}
	}
	refused("with more behind it", append(bytes.Clone(file), 0))
	refused("twice", append(bytes.Clone(file), file...))
	for text, damaged := range map[string][]byte{
		"does not begin as a backup":    []byte("SQLite format 3\x00 and more"),
		"form is one that this version": []byte("cairn-backup 2\nwhatever"),
		"too early":                     file[:len(file)-5],
		"checksum is wrong":             flipped(file, len(magic)+40),
		"checksum of the file is wrong": flipped(file, len(file)-1),
	} {
		if _, err := Verify(bytes.NewReader(damaged)); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func flipped(b []byte, at int) []byte {
	b = bytes.Clone(b)
	b[at] ^= 4
	return b
}

// TestForged writes files that are whole and say what no store can have.
func TestForged(t *testing.T) {
	type forge func(b *writer) error
	entry := func(key string, mod uint64, lease kv.LeaseID) forge {
		return func(b *writer) error {
			return b.entry(&kv.Entry{Key: []byte(key), Value: []byte{}, CreateRevision: mod, ModRevision: mod, Version: 1, Lease: lease})
		}
	}
	lease := func(n int, keys, size uint64) forge {
		return func(b *writer) error {
			return b.lease(&kv.BackupLease{ID: leaseName(n), Number: 1, TTLMillis: 1000, Keys: keys, Bytes: size})
		}
	}
	block := func(b *writer) error { return b.flush() }
	for _, c := range []struct {
		name  string
		parts []forge
		err   string // "": it is right
	}{
		{"nothing", nil, ""},
		{"right", []forge{lease(1, 1, 1), entry("a", 2, leaseName(1)), block, entry("b", 9, kv.LeaseID{})}, ""},
		{"keys out of order", []forge{entry("b", 2, kv.LeaseID{}), entry("a", 2, kv.LeaseID{})}, "out of order"},
		{"a key twice, in two blocks", []forge{entry("b", 2, kv.LeaseID{}), block, entry("b", 2, kv.LeaseID{})}, "out of order"},
		{"leases out of order", []forge{lease(2, 0, 0), lease(1, 0, 0)}, "out of order"},
		{"a lease twice, in two blocks", []forge{lease(2, 0, 0), block, lease(2, 0, 0)}, "out of order"},
		{"a lease behind a key", []forge{entry("b", 2, kv.LeaseID{}), block, lease(1, 0, 0)}, "out of order"},
		{"a key of the future", []forge{entry("b", 11, kv.LeaseID{})}, "revision 11"},
		{"a key of no revision", []forge{entry("b", 0, kv.LeaseID{})}, "can't be"},
		{"a key of no lease", []forge{entry("b", 2, leaseName(1))}, "does not have it"},
		{"a key too many", []forge{lease(1, 1, 1), entry("b", 2, leaseName(1)), entry("c", 2, leaseName(1))}, "does not have it"},
		{"a key too few", []forge{lease(1, 2, 2), entry("b", 2, leaseName(1))}, "fewer keys"},
		{"keys too short", []forge{lease(1, 1, 2), entry("b", 2, leaseName(1))}, "not those"},
		{"keys too long", []forge{lease(1, 1, 1), entry("bb", 2, leaseName(1))}, "does not have it"},
		{"no key", []forge{entry("", 2, kv.LeaseID{})}, "can't be read|an entry of 0"},
	} {
		var file bytes.Buffer
		h := sampleHeader
		h.Revision = 10
		b, err := newWriter(&file, h)
		must(t, err)
		for _, part := range c.parts {
			must(t, part(b))
		}
		_, err = b.finish()
		must(t, err)
		b.close()
		_, err = Verify(&file)
		if c.err == "" {
			must(t, err)
			continue
		}
		var d *DamagedError
		if !errors.As(err, &d) || !anyOf(err.Error(), c.err) {
			t.Errorf("%s: %v, want %q", c.name, err, c.err)
		}
	}
}

func anyOf(text, wants string) bool {
	for want := range strings.SplitSeq(wants, "|") {
		if strings.Contains(text, want) {
			return true
		}
	}
	return false
}

// FuzzReader gives the reader anything: it says what is wrong, or that nothing
// is, and never takes more memory than a block needs.
func FuzzReader(f *testing.F) {
	file, _ := saved(f, filled(f, 20))
	small, _ := saved(f, newShard(f))
	f.Add(file)
	f.Add(small)
	f.Add(small[:len(small)-sumBytes])
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, b []byte) {
		info, err := Verify(bytes.NewReader(b))
		var d *DamagedError
		switch {
		case err != nil && !errors.As(err, &d):
			t.Fatalf("an error that is none of ours: %v", err)
		case err == nil && info.Size != int64(len(b)):
			t.Fatalf("%d bytes of %d were looked at", info.Size, len(b))
		}
	})
}

// TestReaderErrors hands on what the source of a file fails with.
func TestReaderErrors(t *testing.T) {
	file, _ := saved(t, filled(t, 100))
	broken := errors.New("the disk is broken")
	for i := 0; i < len(file); i += 97 {
		_, err := Verify(io.MultiReader(bytes.NewReader(file[:i]), failing{broken}))
		if !errors.Is(err, broken) {
			t.Fatalf("at %d: %v", i, err)
		}
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error)  { return 0, f.err }
func (f failing) Write([]byte) (int, error) { return 0, f.err }

// TestSaveEnds ends a backup by its context and by its receiver.
func TestSaveEnds(t *testing.T) {
	s := filled(t, 2_000)
	ctx, cancel := context.WithCancel(background)
	if _, err := Save(ctx, writerFunc(func(p []byte) (int, error) {
		cancel()
		return len(p), nil
	}), s.view(), sampleHeader, Background); !errors.Is(err, context.Canceled) && !errors.Is(err, &kv.Error{Code: kv.ReadTimeout}) {
		t.Errorf("canceled: %v", err)
	}
	broken := errors.New("the peer is gone")
	if _, err := Save(background, failing{broken}, s.view(), sampleHeader, Background); !errors.Is(err, broken) {
		t.Errorf("broken: %v", err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
