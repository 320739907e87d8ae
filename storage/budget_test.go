package storage

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cairnkv/cairn/kv"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/oklog/ulid/v2"
)

// The budgets of a command are the same on every member, and whoever passes one
// changes nothing.

// bulk puts n keys, in transactions of many.
func bulk(t testing.TB, s *Store, n int, key func(i int) string, value string, lease kv.LeaseID) {
	t.Helper()
	var commands []*kv.Command
	for i := 0; i < n; {
		var ops []kv.Op
		for ; i < n && len(ops) < 20_000; i++ {
			op := attached(key(i), lease)
			op.Value = []byte(value)
			ops = append(ops, op)
		}
		commands = append(commands, txn(ops...))
	}
	for i, r := range applyTo(t, s, commands...) {
		if r.Code != kv.OK {
			t.Fatalf("transaction %d: %v", i, r.Err())
		}
	}
}

// roomy options are for stores of many keys.
func roomy(o *Options) { o.MemTableBytes, o.CacheBytes = 16<<20, 128<<20 }

func plainKey(i int) string { return fmt.Sprintf("key-%07d", i) }

// refusedWhole applies a command that must be refused with a code, in a batch
// with others, and checks that it changed nothing.
func refusedWhole(t *testing.T, s *Store, c *kv.Command, code kv.Code, word string) {
	t.Helper()
	before, err := s.Stats()
	if err != nil {
		t.Fatal(err)
	}
	r := applyTo(t, s, c)[0]
	if r.Code != code || !strings.Contains(r.Detail, word) {
		t.Fatalf("%s %q, want %s and a word on %q", r.Code, r.Detail, code, word)
	}
	after, err := s.Stats()
	if err != nil {
		t.Fatal(err)
	}
	after.AppliedIndex, after.DiskBytes = before.AppliedIndex, before.DiskBytes
	if before != after {
		t.Fatalf("the refused command changed %+v to %+v", before, after)
	}
}

func TestBudgetKeysChanged(t *testing.T) {
	s := openStore(t, vfs.NewMem(), roomy)
	defer closeStore(t, s)
	bulk(t, s, 2*kv.BudgetKeysChanged, plainKey, "v", kv.LeaseID{})

	all := kv.Op{Type: kv.OpDelete, Range: kv.Range{}}
	refusedWhole(t, s, txn(all), kv.TransactionTooLarge, "changes more than 100000 keys")

	one := kv.Op{Type: kv.OpDelete, Range: kv.Range{End: []byte(plainKey(kv.BudgetKeysChanged + 1))}}
	refusedWhole(t, s, txn(one), kv.TransactionTooLarge, "changes more than 100000 keys")
	allowed := kv.Op{Type: kv.OpDelete, Range: kv.Range{End: []byte(plainKey(kv.BudgetKeysChanged))}}
	refusedWhole(t, s, txn(put("zebra", "1"), allowed), kv.TransactionTooLarge, "changes more than 100000 keys")

	r := applyTo(t, s, txn(allowed))[0]
	if r.Code != kv.OK || r.Ops[0].Deleted != kv.BudgetKeysChanged {
		t.Fatalf("%v, %d deleted", r.Err(), r.Ops[0].Deleted)
	}
	if err := CheckStore(s); err != nil {
		t.Fatal(err)
	}
}

// A lease holds as many keys as one transaction can delete, and then it can end.
func TestBudgetOfALease(t *testing.T) {
	s := openStore(t, vfs.NewMem(), roomy)
	defer closeStore(t, s)
	run(t, s, "grant L 5000; grant M 5000")
	id := leaseName("L")
	bulk(t, s, kv.BudgetKeysChanged, plainKey, "v", id)
	more := attached("one more", id)
	refusedWhole(t, s, txn(put("with it", "1"), more), kv.TransactionTooLarge, "a lease holds at most")

	// One that it has already can be put again; one that leaves makes room.
	again, move := attached(plainKey(7), id), attached(plainKey(8), leaseName("M"))
	for i, r := range applyTo(t, s, txn(again), txn(move), txn(more)) {
		if r.Code != kv.OK {
			t.Fatalf("put %d: %v", i, r.Err())
		}
	}
	run(t, s, "revoke L")
	mustView(t, s, func(v *View) {
		l, err := v.List(context.Background(), &kv.Query{CountOnly: true})
		if err != nil || l.Count != 1 {
			t.Fatalf("%d keys are left, %v", l.Count, err)
		}
	})
	if err := CheckStore(s); err != nil {
		t.Fatal(err)
	}
}

// The keys of a lease together are bounded in bytes, too: a transaction that
// deletes them writes them.
func TestBudgetOfALeaseInBytes(t *testing.T) {
	s := openStore(t, vfs.NewMem())
	defer closeStore(t, s)
	run(t, s, "grant L 5000")
	id := leaseName("L")
	b, err := s.NewBatch()
	if err != nil {
		t.Fatal(err)
	}
	nearlyFull, err := b.findLease(id)
	if err != nil {
		t.Fatal(err)
	}
	nearlyFull.bytes = kv.BudgetBytesWritten - 3
	b.setLease(id, nearlyFull, nearlyFull)
	if _, err := b.Commit(); err != nil {
		t.Fatal(err)
	}
	results := applyTo(t, s, txn(attached("four", id)), txn(attached("one", id)), txn(attached("o", id)), txn(attached("one", id)))
	for i, want := range []kv.Code{kv.TransactionTooLarge, kv.OK, kv.TransactionTooLarge, kv.OK} {
		if results[i].Code != want {
			t.Fatalf("put %d: %s, want %s", i, results[i].Code, want)
		}
	}
}

func attached(key string, id kv.LeaseID) kv.Op {
	op := put(key, "v")
	op.Lease = id
	return op
}

func TestBudgetBytesWritten(t *testing.T) {
	s := openStore(t, vfs.NewMem(), roomy)
	defer closeStore(t, s)
	value := strings.Repeat("x", kv.MaxValueBytes)
	var ops []kv.Op
	for i := range kv.BudgetBytesWritten / kv.MaxValueBytes {
		ops = append(ops, put(plainKey(i), value)) // the keys come on top
	}
	refusedWhole(t, s, txn(ops...), kv.TransactionTooLarge, "writes more than 67108864 bytes")
	if r := applyTo(t, s, txn(ops[1:]...))[0]; r.Code != kv.OK {
		t.Fatal(r.Err())
	}
}

func TestBudgetOfTheAnswer(t *testing.T) {
	s := openStore(t, vfs.NewMem(), roomy)
	defer closeStore(t, s)
	value := strings.Repeat("x", kv.MaxValueBytes-len(plainKey(0))-kv.ResultEntryBytes)
	for i := range 5 {
		applyTo(t, s, txn(put(plainKey(i), value)))
	}
	get := func(n int) kv.Op {
		return kv.Op{Type: kv.OpGet, Query: &kv.Query{Range: kv.Range{End: []byte(plainKey(n))}}}
	}
	if r := applyTo(t, s, txn(get(4)))[0]; r.Code != kv.OK {
		t.Fatalf("4 MiB: %v", r.Err())
	}
	refusedWhole(t, s, txn(put("a", "1"), get(4)), kv.TransactionTooLarge, "answer")
	refusedWhole(t, s, txn(get(5)), kv.TransactionTooLarge, "answer")
	refusedWhole(t, s, txn(kv.Op{Type: kv.OpDelete, Range: kv.Range{}, Prev: true}), kv.TransactionTooLarge, "answer")
	keys := get(5)
	keys.Query.KeysOnly = true
	if r := applyTo(t, s, txn(keys))[0]; r.Code != kv.OK || len(r.Ops[0].List.Entries) != 5 {
		t.Fatalf("keys only: %v", r.Err())
	}
}

// Looking costs, too: a transaction looks at a million keys at most.
func TestBudgetKeysVisited(t *testing.T) {
	s := openStore(t, vfs.NewMem(), roomy)
	defer closeStore(t, s)
	const n = 50_000
	bulk(t, s, n, plainKey, "v", kv.LeaseID{})
	count := kv.Op{Type: kv.OpGet, Query: &kv.Query{CountOnly: true}}
	var ops []kv.Op
	for range kv.BudgetKeysVisited / n {
		ops = append(ops, count)
	}
	if r := applyTo(t, s, txn(ops...))[0]; r.Code != kv.OK {
		t.Fatal(r.Err())
	}
	refusedWhole(t, s, txn(append(ops, put("a", "1"))...), kv.TransactionTooLarge, "looks at more than 1000000 keys")
	every := &kv.Command{Kind: kv.KindTxn, Txn: &kv.Txn{
		If: []kv.Compare{{Target: kv.TargetVers, Operator: kv.Equal, Number: 1}}, Then: ops,
	}}
	refusedWhole(t, s, every, kv.TransactionTooLarge, "looks at more than 1000000 keys")
}

// Values that are read count by their size, whether they are in the database or not.
func TestBudgetOfValuesRead(t *testing.T) {
	s := openStore(t, vfs.NewMem(), roomy)
	defer closeStore(t, s)
	const n = 32
	var puts []kv.Op
	for i := range n {
		puts = append(puts, put(plainKey(i), strings.Repeat("v", kv.MaxValueBytes)))
	}
	var all []*kv.Command
	for _, op := range puts {
		all = append(all, txn(op)) // in a batch with what looks at them
	}
	keys := n * (1 + kv.MaxValueBytes/kv.ReadBytesAKey)
	looks := func(times int, past uint64) *kv.Command {
		var ops []kv.Op
		for range times {
			ops = append(ops, kv.Op{Type: kv.OpGet, Query: &kv.Query{MinCreateRevision: 1 << 40, Revision: past}})
		}
		return txn(ops...)
	}
	most := kv.BudgetKeysVisited / keys
	all = append(all, looks(most, 0), looks(most+1, 0))
	results := applyTo(t, s, all...)
	for _, past := range []uint64{0, results[n-1].Revision} {
		results = append(results, applyTo(t, s, looks(most, past), looks(most+1, past))...)
	}
	for i := n; i < len(results); i += 2 {
		if in, beyond := results[i], results[i+1]; in.Code != kv.OK || beyond.Code != kv.TransactionTooLarge {
			t.Errorf("%d: %v, and one more: %v", i, in.Err(), beyond.Err())
		}
	}
	differs := kv.Compare{Target: kv.TargetValue, Operator: kv.NotEqual, Bytes: []byte("x")}
	refusedWhole(t, s, &kv.Command{Kind: kv.KindTxn, Txn: &kv.Txn{If: slices.Repeat([]kv.Compare{differs}, most+1), Then: puts[:1]}},
		kv.TransactionTooLarge, "looks at more")
}

// Large values cost the same where nothing is wanted of them but they must be read, or
// are in the way of what is: those of the past behind its keys and its counts, newer ones
// before them, and those that the transaction itself has deleted or replaced.
func TestBudgetOfValuesInTheWay(t *testing.T) {
	s := openStore(t, vfs.NewMem(), roomy)
	defer closeStore(t, s)
	const n = 32
	putAll := func(value string) (ops []kv.Op) {
		for i := range n {
			ops = append(ops, put(plainKey(i), value))
		}
		return ops
	}
	var results []*kv.Result
	for _, value := range []string{"small", strings.Repeat("v", kv.MaxValueBytes)} {
		for _, op := range putAll(value) {
			results = append(results, applyTo(t, s, txn(op))...)
		}
	}
	small, large := results[n-1].Revision, results[2*n-1].Revision
	all := kv.Range{Start: []byte("key"), End: []byte("kez")}
	none := func(q kv.Query) kv.Query { q.Range, q.MinCreateRevision = all, 1<<40; return q }
	most := kv.BudgetKeysVisited / (n * (1 + kv.MaxValueBytes/kv.ReadBytesAKey))
	for _, c := range []struct {
		name  string
		first []kv.Op
		query kv.Query
	}{
		{"keys of the past", nil, none(kv.Query{KeysOnly: true, Revision: large})},
		{"a count of the past", nil, kv.Query{Range: all, CountOnly: true, Revision: large}},
		{"newer than what is read", nil, none(kv.Query{Revision: small})},
		{"newer than the key", nil, none(kv.Query{KeysOnly: true, Revision: 1})},
		{"deleted by itself", []kv.Op{{Type: kv.OpDelete, Range: all}}, none(kv.Query{})},
		{"replaced by itself", putAll(""), none(kv.Query{})},
	} {
		looks := func(times int) *kv.Command {
			return txn(append(slices.Clone(c.first), slices.Repeat([]kv.Op{{Type: kv.OpGet, Query: &c.query}}, times)...)...)
		}
		t.Run(c.name, func(t *testing.T) {
			refusedWhole(t, s, looks(most+1), kv.TransactionTooLarge, "looks at more")
			if r := tryOn(t, s, looks(most)); r.Code != kv.OK {
				t.Error(r.Err())
			}
		})
	}
}

// tryOn applies a command in a batch that is abandoned.
func tryOn(t *testing.T, s *Store, c *kv.Command) *kv.Result {
	t.Helper()
	b, index := openBatch(t, s)
	defer b.Close()
	b.BeginEntry(index+1, ulid.Make(), 1) // of a proposer that nobody knows
	r, err := b.Apply(c)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Large values that a batch has deleted or replaced are out of the way of what reads a
// range in it: it is committed before.
func TestReplacedValuesAreCommitted(t *testing.T) {
	s := openStore(t, vfs.NewMem(), roomy)
	defer closeStore(t, s)
	applyTo(t, s, txn(put("a", strings.Repeat("v", kv.MaxValueBytes))), txn(put("b", strings.Repeat("v", kv.MaxValueBytes))))
	b, index := openBatch(t, s)
	defer b.Close()
	get := txn(kv.Op{Type: kv.OpGet, Query: &kv.Query{Range: kv.Range{Start: []byte("a")}}})
	for i, c := range []struct {
		command *kv.Command
		pending int // keys that are not committed when it was applied
	}{
		{txn(put("a", "small")), 1},
		{get, 1},
		{txn(kv.Op{Type: kv.OpDelete, Range: kv.SingleKey([]byte("b"))}), 2},
		{txn(put("c", "new")), 3},
		{get, 0},
	} {
		b.BeginEntry(index+1+uint64(i), ulid.ULID{1}, index+1+uint64(i))
		if r, err := b.Apply(c.command); err != nil || r.Code != kv.OK {
			t.Fatal(r, err)
		}
		b.EndEntry()
		if n := len(b.pendingIn(kv.Range{})); n != c.pending {
			t.Errorf("after %d: %d keys are not committed, want %d", i, n, c.pending)
		}
	}
}

// A list whose keys count as several each looks at its context as well.
func TestListOfLargeValuesIsCutOff(t *testing.T) {
	s := openStore(t, vfs.NewMem(), roomy)
	defer closeStore(t, s)
	applyTo(t, s, txn(put("a", "small")))
	bulk(t, s, visitsPerCheck, plainKey, strings.Repeat("v", kv.ReadBytesAKey), kv.LeaseID{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	mustView(t, s, func(v *View) {
		_, err := v.List(ctx, &kv.Query{MinCreateRevision: 1 << 40})
		if e := new(kv.Error); !errors.As(err, &e) || e.Code != kv.ReadTimeout {
			t.Errorf("the list is not cut off: %v", err)
		}
	})
}

// What a transaction has deleted is looked at by all that it does afterwards.
func TestBudgetBehindOwnDeletes(t *testing.T) {
	s := openStore(t, vfs.NewMem(), roomy)
	defer closeStore(t, s)
	const n = 50_000
	bulk(t, s, n, plainKey, "v", kv.LeaseID{})
	deletes := kv.Op{Type: kv.OpDelete, Range: kv.Range{Start: []byte("key"), End: []byte("kez")}}
	get := kv.Op{Type: kv.OpGet, Query: &kv.Query{Range: deletes.Range, KeysOnly: true}}
	ops := append([]kv.Op{deletes}, slices.Repeat([]kv.Op{get}, kv.BudgetKeysVisited/n)...)
	refusedWhole(t, s, txn(ops...), kv.TransactionTooLarge, "looks at more")
	if r := applyTo(t, s, txn(ops[:len(ops)-1]...))[0]; r.Code != kv.OK || r.Ops[0].Deleted != n {
		t.Fatal(r.Err())
	}
}

// Entries and common prefixes of an answer take room beside their bytes.
func TestBudgetOfSmallEntries(t *testing.T) {
	s := openStore(t, vfs.NewMem(), roomy)
	defer closeStore(t, s)
	const n = kv.BudgetResultBytes / (kv.ResultEntryBytes + len("key-0000000"))
	bulk(t, s, n+1, plainKey, "", kv.LeaseID{})
	for name, q := range map[string]kv.Query{
		"entries": {KeysOnly: true}, "sorted": {KeysOnly: true, Sort: kv.SortByMod},
		"prefixes": {Delimiter: []byte("-0")},
	} {
		if name == "prefixes" {
			bulk(t, s, n+1, func(i int) string { return fmt.Sprintf("%09d-0x", i) }, "", kv.LeaseID{})
			q.Range = kv.Range{End: []byte("a")}
		} else {
			q.Range = kv.Range{Start: []byte("key")}
		}
		q.Limit = n
		some := txn(kv.Op{Type: kv.OpGet, Query: &q})
		if r := applyTo(t, s, some)[0]; r.Code != kv.OK {
			t.Errorf("%s: %v", name, r.Err())
		}
		more := q
		more.Limit = 0
		refusedWhole(t, s, txn(kv.Op{Type: kv.OpGet, Query: &more}), kv.TransactionTooLarge, "answer")
	}
}

// More events than anybody keeps are not collected, as if nobody had wanted them.
func TestTooManyEvents(t *testing.T) {
	s := openStore(t, vfs.NewMem(), roomy)
	defer closeStore(t, s)
	for _, size := range []int{maxEventBytes / 4, maxEventBytes / 2} {
		b, err := s.NewBatch()
		if err != nil {
			t.Fatal(err)
		}
		b.WantEvents = true
		applied := b.st.applied + 1
		b.BeginEntry(applied, ulid.ULID{1}, applied)
		for i := range 3 {
			for part := range size / kv.MaxValueBytes {
				if r, err := b.Apply(txn(put(fmt.Sprint(i, part), strings.Repeat("v", kv.MaxValueBytes-1024)))); err != nil || r.Code != kv.OK {
					t.Fatal(r, err)
				}
			}
		}
		b.EndEntry()
		done, err := b.Commit()
		if err != nil {
			t.Fatal(err)
		}
		if changes := int(done.To - done.From); 3*size < maxEventBytes && len(done.Events) != changes || 3*size > maxEventBytes && done.Events != nil {
			t.Errorf("%d events of %d changes of %d bytes", len(done.Events), changes, 3*size)
		}
	}
}
