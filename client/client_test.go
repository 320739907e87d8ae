package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/client"
)

// must is for what has to succeed for the test to go on.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func wantError(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
}

func keysIn(entries []api.Entry) []string {
	var keys []string
	for _, e := range entries {
		keys = append(keys, string(e.Key))
	}
	return keys
}

// What is put comes back, whatever the bytes of key and value are.
func TestAnyBytes(t *testing.T) {
	c := newClient(t, newNode(t))
	ctx := context.Background()
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	for _, key := range []string{
		"a", "a/b", "/", "//", "a/", "/a", "a//b", ".", "..", "a/../b", "a b", "a+b", "a%2Fb", "a?b#c", "a;b&c=d", "ключ", "\x00", "\xff/\xfe",
		"\\", string(every), strings.Repeat("k", 8192), strings.Repeat("\xff", 8192),
	} {
		for _, value := range [][]byte{{}, []byte("text"), every} {
			if _, err := c.Put(ctx, key, value); err != nil {
				t.Fatalf("put of %.40q: %v", key, err)
			}
			e, err := c.Get(ctx, key)
			if err != nil {
				t.Fatalf("get of %.40q: %v", key, err)
			}
			if string(e.Key) != key || string(e.Value) != string(value) {
				t.Errorf("%.40q: got key %.40q and value %q", key, e.Key, e.Value)
			}
		}
		if r, err := c.Delete(ctx, key); err != nil || r.Deleted != 1 {
			t.Errorf("delete of %.40q: %v, %v", key, r, err)
		}
	}
	_, err := c.Put(ctx, "", nil)
	wantError(t, err, client.ErrInvalid)
	_, err = c.Put(ctx, "_cairn/x", nil)
	wantError(t, err, client.ErrReserved)
	_, err = c.Put(ctx, "a", make([]byte, 1<<20+1))
	wantError(t, err, client.ErrInvalid)
}

// The largest values fit into a line and into a body, whatever JSON makes of their
// bytes.
func TestLargestValues(t *testing.T) {
	c := newClient(t, newNode(t))
	ctx := patient(t)
	leader, err := c.Campaign(ctx, "e", nil, client.CampaignOptions{})
	noError(t, err)
	defer leader.Resign(ctx)
	for _, text := range []string{"<", "\x01", `"`, "\u2028", "\xff"} {
		value := []byte(strings.Repeat(text, 1<<20/len(text)))
		stored := func(what, key string) {
			t.Helper()
			if e, err := c.Get(ctx, key); err != nil || !bytes.Equal(e.Value, value) {
				t.Errorf("%s of %q: %v", what, text, err)
			}
		}
		_, err := c.Bulk(ctx, func(yield func(api.Op, error) bool) { yield(client.OpPut("bulk", value), nil) }, nil)
		noError(t, err)
		stored("bulk", "bulk")
		_, err = c.Txn(ctx, client.If().Then(client.OpTxn(client.If().Then(client.OpPut("txn", value)))).Txn)
		noError(t, err)
		stored("txn", "txn")
		if r, err := c.Txn(ctx, client.If(client.Key("txn").Value().Eq(value)).Txn); err != nil || !r.Succeeded {
			t.Errorf("compare of %q: %+v, %v", text, r, err)
		}
		noError(t, leader.Proclaim(ctx, value))
		if s, err := c.Election(ctx, "e"); err != nil || !bytes.Equal(s.Leader.Value, value) {
			t.Errorf("proclaim of %q: %v", text, err)
		}
	}
	value := bytes.Repeat([]byte{1}, 1<<20)
	other, err := c.Campaign(ctx, "other", value, client.CampaignOptions{})
	noError(t, err)
	if !bytes.Equal(other.Value, value) {
		t.Errorf("elected with %d bytes", len(other.Value))
	}
	noError(t, other.Resign(ctx))
}

func TestConditions(t *testing.T) {
	c := newClient(t, newNode(t))
	ctx := context.Background()
	created := must(c.Put(ctx, "a", []byte("1"), client.IfMissing()))
	if !created.Created {
		t.Error("the key was not created")
	}
	_, err := c.Put(ctx, "a", []byte("2"), client.IfMissing())
	wantError(t, err, client.ErrConditionFailed)
	var e *client.Error
	if !errors.As(err, &e) || e.Problem.CurrentRevision == nil || *e.Problem.CurrentRevision != created.Revision {
		t.Errorf("got %+v, want the current revision %d", e, created.Revision)
	}
	_, err = c.Put(ctx, "b", nil, client.IfExists())
	wantError(t, err, client.ErrConditionFailed)
	_, err = c.Put(ctx, "a", []byte("2"), client.IfRevision(created.Revision+1))
	wantError(t, err, client.ErrConditionFailed)
	second := must(c.Put(ctx, "a", []byte("2"), client.IfRevision(created.Revision), client.Prev()))
	if second.Prev == nil || string(second.Prev.Value) != "1" {
		t.Errorf("got %+v, want what was replaced", second.Prev)
	}
	must(c.Put(ctx, "a", []byte("3"), client.IfMatch(fmt.Sprintf(`"%d"`, second.Revision))))
	_, err = c.Delete(ctx, "a", client.IfRevision(1))
	wantError(t, err, client.ErrConditionFailed)
	gone := must(c.Delete(ctx, "a", client.IfExists(), client.Prev()))
	if len(gone.Prev) != 1 || string(gone.Prev[0].Value) != "3" {
		t.Errorf("got %+v, want what was deleted", gone.Prev)
	}
	_, err = c.Get(ctx, "a")
	wantError(t, err, client.ErrNotFound)
}

func TestReads(t *testing.T) {
	c := newClient(t, newNode(t))
	ctx := context.Background()
	first := must(c.Put(ctx, "a", []byte("1"), client.ContentType("text/plain")))
	second := must(c.Put(ctx, "a", []byte("2")))
	if c.Revision() != second.Revision {
		t.Errorf("Revision is %d, want %d", c.Revision(), second.Revision)
	}
	get := func(want string, opts ...client.GetOption) {
		t.Helper()
		e, err := c.Get(ctx, "a", opts...)
		if err != nil || string(e.Value) != want {
			t.Errorf("got %+v, %v, want %s", e, err, want)
		}
	}
	get("1", client.AtRevision(first.Revision))
	get("2", client.Stale())
	get("2", client.MinRevision(c.Revision()))
	get("2", client.MinRevision(0))
	get("2", client.MaxStaleness(time.Hour))
	_, err := c.Get(ctx, "a", client.AtRevision(second.Revision+1))
	wantError(t, err, client.ErrFutureRevision)

	var versions []string
	for v, err := range c.Versions(ctx, "a", client.Limit(1)) {
		if err != nil {
			t.Fatal(err)
		}
		versions = append(versions, string(v.Value))
	}
	if diff := cmp.Diff([]string{"2", "1"}, versions); diff != "" {
		t.Errorf("versions (-want +got):\n%s", diff)
	}
	_, err = c.History(ctx, "never")
	wantError(t, err, client.ErrNotFound)

	compacted := must(c.Compact(ctx, client.KeepRevisions(0)))
	if compacted.CompactRevision != second.Revision {
		t.Errorf("got %+v, want %d", compacted, second.Revision)
	}
	_, err = c.Get(ctx, "a", client.AtRevision(first.Revision))
	wantError(t, err, client.ErrCompacted)
	must(c.Compact(ctx, client.KeepFor(time.Hour)))

	if h := must(c.Hash(ctx)); h.Revision != second.Revision || h.Hash == "" {
		t.Errorf("got %+v", h)
	}
	if s := must(c.Status(ctx)); !s.IsLeader || s.Revision != second.Revision {
		t.Errorf("got %+v", s)
	}
	if v := must(c.Version(ctx)); v.Version != "0.0.0-test" {
		t.Errorf("got %+v", v)
	}
}

// All three ways through a list show the same: one revision, in order.
func TestLists(t *testing.T) {
	c := newClient(t, newNode(t))
	ctx := context.Background()
	var want []string
	for i := range 250 {
		want = append(want, fmt.Sprintf("d/%03d", i))
		must(c.Put(ctx, want[i], []byte{byte(i)}))
	}
	must(c.Put(ctx, "e", nil))

	collect := func(seq func(func(api.Entry, error) bool)) (got []string) {
		t.Helper()
		for e, err := range seq {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, string(e.Key))
		}
		return got
	}
	check := func(what string, got []string) {
		t.Helper()
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %d keys, want %d", what, len(got), len(want))
		}
	}
	check("All", collect(c.All(ctx, client.Prefix("d/"), client.Limit(99))))
	check("Scan", collect(c.Scan(ctx, client.Prefix("d/"))))
	check("Range", collect(c.All(ctx, client.Range("d/", "d0"))))
	if got := collect(c.Scan(ctx, client.Prefix("d/"), client.Descending(), client.Limit(2))); !slices.Equal(got, []string{"d/249", "d/248"}) {
		t.Errorf("got %v", got)
	}
	if n, _, err := c.Count(ctx, client.EveryKey()); err != nil || n != 251 {
		t.Errorf("count is %d, %v", n, err)
	}
	if l := must(c.List(ctx, client.Key("e"))); !slices.Equal(keysIn(l.Entries), []string{"e"}) {
		t.Errorf("got %+v", l)
	}
	level := must(c.List(ctx, client.EveryKey(), client.Delimiter("/"), client.KeysOnly()))
	if len(level.CommonPrefixes) != 1 || string(level.CommonPrefixes[0]) != "d/" || !slices.Equal(keysIn(level.Entries), []string{"e"}) {
		t.Errorf("got %+v", level)
	}

	// Pages are a snapshot: what is put meanwhile is not in it.
	pages := 0
	for page, err := range c.Pages(ctx, client.Prefix("d/"), client.Limit(200)) {
		if err != nil {
			t.Fatal(err)
		}
		if pages++; pages == 1 {
			must(c.Put(ctx, "d/2995", nil))
		} else if len(page.Entries) != 50 {
			t.Errorf("the second page has %d entries, want 50", len(page.Entries))
		}
	}

	// A sorted list has one page, and does not pretend to be all.
	seen := 0
	for _, err := range c.All(ctx, client.Prefix("d/"), client.SortBy("mod"), client.Limit(100)) {
		if err == nil {
			seen++
			continue
		}
		wantError(t, err, client.ErrInvalid)
		seen = -seen
	}
	if seen != -100 {
		t.Errorf("%d entries of a sorted list (below 0: and then an error)", seen)
	}
	if got := collect(c.All(ctx, client.Prefix("d/"), client.SortBy("mod"))); len(got) != 251 {
		t.Errorf("%d entries of a sorted list", len(got))
	}

	// A scan may be left early.
	for range c.Scan(ctx, client.EveryKey()) {
		break
	}
	for _, err := range c.Scan(ctx, client.EveryKey(), client.WithCount()) {
		wantError(t, err, client.ErrInvalid)
	}
}

func TestDeleteRange(t *testing.T) {
	c := newClient(t, newNode(t))
	ctx := context.Background()
	for _, key := range []string{"a", "b/1", "b/2", "c"} {
		must(c.Put(ctx, key, nil))
	}
	for _, unset := range []client.Keys{client.Prefix(""), client.Range("", ""), {}} {
		_, err := c.DeleteRange(ctx, unset)
		wantError(t, err, client.ErrInvalid)
	}
	if r := must(c.DeleteRange(ctx, client.Prefix("b/"), client.Prev())); !slices.Equal(keysIn(r.Prev), []string{"b/1", "b/2"}) {
		t.Errorf("got %+v", r)
	}
	if r := must(c.DeleteRange(ctx, client.Range("c", ""))); r.Deleted != 1 {
		t.Errorf("got %+v", r)
	}
	if r := must(c.DeleteRange(ctx, client.EveryKey())); r.Deleted != 1 {
		t.Errorf("got %+v", r)
	}
}

func TestTransactions(t *testing.T) {
	c := newClient(t, newNode(t))
	ctx := context.Background()
	put := must(c.Put(ctx, "a", []byte("x")))
	move := client.If(
		client.Key("a").ModRevision().Eq(put.Revision),
		client.Key("a").CreateRevision().Le(put.Revision),
		client.Key("a").Version().Ne(2),
		client.Key("a").Value().Eq([]byte("x")),
		client.Key("a").Lease().Eq(""),
		client.Key("a").Exists(),
		client.Prefix("b/").Missing(),
	).Then(
		client.OpPut("b/1", []byte{0xff}),
		client.OpIncrement("n", 40),
		client.Key("a").Delete(),
		client.OpTxn(client.If(client.Key("n").Exists()).Then(client.OpIncrement("m", -2))),
	).Else(client.Prefix("b/").Get())

	first := must(c.Txn(ctx, move.Txn))
	if !first.Succeeded || len(first.Results) != 4 || first.Results[1].Increment.Value != 40 || first.Results[2].Delete.Deleted != 1 {
		t.Errorf("got %+v", first)
	}
	if nested := first.Results[3].Txn; nested == nil || !nested.Succeeded || nested.Results[0].Increment.Value != -2 {
		t.Errorf("got %+v", nested)
	}
	again := must(c.Txn(ctx, move.Txn))
	if again.Succeeded || len(again.Results) != 1 || string(again.Results[0].Get.Entries[0].Value) != "\xff" {
		t.Errorf("got %+v", again)
	}
	must(c.Put(ctx, "text", []byte("x")))
	_, err := c.Txn(ctx, client.If().Then(client.OpIncrement("text", 1)).Txn)
	wantError(t, err, client.ErrNotANumber)
}

// A write that is repeated under its key is applied once and answered twice.
func TestIdempotencyKey(t *testing.T) {
	c := newClient(t, newNode(t))
	ctx := context.Background()
	increment := client.If().Then(client.OpIncrement("n", 1)).Txn
	for range 2 {
		r := must(c.Txn(ctx, increment, client.IdempotencyKey("once")))
		if r.Results[0].Increment.Value != 1 {
			t.Errorf("got %d, want 1", r.Results[0].Increment.Value)
		}
	}
	_, err := c.Txn(ctx, client.If().Then(client.OpIncrement("n", 2)).Txn, client.IdempotencyKey("once"))
	var e *client.Error
	if !errors.As(err, &e) || e.Problem.Code != api.CodeIdempotencyMismatch {
		t.Errorf("got %v, want a mismatch", err)
	}
}

func TestLeaseOfItsOwn(t *testing.T) {
	c := newClient(t, newNode(t))
	ctx := context.Background()
	r := must(c.Put(ctx, "a", nil, client.WithTTL(time.Hour)))
	if r.Lease == "" {
		t.Error("the key has no lease")
	}
	_, err := c.Put(ctx, "b", nil, client.WithLease("01KB0000000000000000000000"))
	wantError(t, err, client.ErrLeaseNotFound)
}

func TestBulk(t *testing.T) {
	c := newClient(t, newNode(t))
	ctx := context.Background()
	const lines = 10_000
	ops := func(yield func(api.Op, error) bool) {
		for i := range lines {
			if !yield(client.OpPut(fmt.Sprintf("k%05d", i), []byte("v")), nil) {
				return
			}
		}
	}
	reports := 0
	report := must(c.Bulk(ctx, ops, func(api.BulkReport) { reports++ }))
	if report.Applied != lines || report.Done == nil || !*report.Done || reports == 0 {
		t.Errorf("got %+v after %d reports", report, reports)
	}
	if n, _, err := c.Count(ctx, client.Prefix("k")); err != nil || n != lines {
		t.Errorf("%d keys, %v", n, err)
	}
	if c.Revision() != report.Revision {
		t.Errorf("Revision is %d, want %d", c.Revision(), report.Revision)
	}
}

// A line that can't be applied ends a bulk write, and what stood before it stays.
func TestBulkRefused(t *testing.T) {
	c := newClient(t, newNode(t))
	ctx := context.Background()
	report, err := c.BulkLines(ctx, strings.NewReader("{\"put\":{\"key\":\"a\",\"value\":\"1\"}}\n{\"put\":{\"key\":\"\",\"value\":\"\"}}\n"), nil)
	wantError(t, err, client.ErrInvalid)
	if report.Applied != 1 {
		t.Errorf("got %+v, want one line applied", report)
	}

	// Also when more lines would come, for which the refused one does not wait.
	endless := func(yield func(api.Op, error) bool) {
		for yield(client.OpPut("", nil), nil) {
		}
	}
	_, err = c.Bulk(ctx, endless, nil)
	wantError(t, err, client.ErrInvalid)

	// Nor do they wait for more that would fill a packet.
	sent := 0
	slow := func(yield func(api.Op, error) bool) {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for more := true; more && sent < 1000; sent++ {
			more = yield(client.OpPut("", nil), nil)
			<-tick.C
		}
	}
	_, err = c.Bulk(ctx, slow, nil)
	wantError(t, err, client.ErrInvalid)
	if sent == 1000 {
		t.Error("the refusal came behind the last line")
	}

	// An error of the caller's own is found in what comes back.
	mine := errors.New("out of lines")
	_, err = c.Bulk(ctx, func(yield func(api.Op, error) bool) { yield(api.Op{}, mine) }, nil)
	wantError(t, err, mine)
}

// A bulk write of a file under a key goes through again without harm.
func TestBulkAgain(t *testing.T) {
	c := newClient(t, newNode(t))
	ctx := context.Background()
	name := filepath.Join(t.TempDir(), "lines")
	if err := os.WriteFile(name, []byte("{\"put\":{\"key\":\"a\",\"value\":\"1\"}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var revisions []uint64
	for range 2 {
		f := must(os.Open(name))
		report, err := c.BulkLines(ctx, f, nil, client.IdempotencyKey("import"))
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		revisions = append(revisions, report.Revision)
	}
	if revisions[0] != revisions[1] {
		t.Errorf("applied at revisions %v, want once", revisions)
	}
}
