package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/oklog/ulid/v2"
	"pgregory.net/rapid"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/kv"
)

// The encoders write what the types of package api read, and those write the
// same again.

var anyBytes = rapid.OneOf(
	rapid.SliceOfN(rapid.Byte(), 0, 20),
	rapid.Map(rapid.String(), func(s string) []byte { return []byte(s) }),
	rapid.SampledFrom([][]byte{{}, []byte(`"\`), []byte("\x00\x1f\x7f\u2028<>&"), []byte("\xff"), []byte("\xed\xa0\x80"), []byte("\uFFFD")}),
)

var anyEntry = rapid.Custom(func(t *rapid.T) kv.Entry {
	e := kv.Entry{
		Key: anyBytes.Draw(t, "key"), Value: anyBytes.Draw(t, "value"),
		ContentType:    rapid.SampledFrom([]string{"", "text/plain", `a/b; c="d\e"`}).Draw(t, "content type"),
		CreateRevision: rapid.Uint64Range(1, kv.MaxRevision).Draw(t, "create"),
		ModRevision:    rapid.Uint64Range(1, kv.MaxRevision).Draw(t, "mod"),
		Version:        rapid.Uint64Range(1, kv.MaxRevision).Draw(t, "version"),
		ModifiedAt:     rapid.Int64Range(0, 253402300799999).Draw(t, "time"),
	}
	if rapid.Bool().Draw(t, "leased") {
		e.Lease = ulid.ULID(rapid.SliceOfN(rapid.ByteRange(1, 127), 16, 16).Draw(t, "lease"))
	}
	return e
})

var anyForm = rapid.Custom(func(t *rapid.T) form {
	return form{base64: rapid.Bool().Draw(t, "base64"), keysOnly: rapid.Bool().Draw(t, "keys only")}
})

// wireEntry is what a client gets of an entry.
func (f form) wireEntry(e *kv.Entry) api.Entry {
	w := api.Entry{
		Key: e.Key, Value: e.Value, ContentType: e.ContentType,
		CreateRevision: e.CreateRevision, ModRevision: e.ModRevision, Version: e.Version,
		ModifiedAt: time.UnixMilli(e.ModifiedAt).UTC(),
	}
	if f.keysOnly {
		w.Value = nil
	}
	if e.Lease != (kv.LeaseID{}) {
		w.Lease = e.Lease.String()
	}
	return w
}

func (f form) wireEntries(entries []kv.Entry) []api.Entry {
	var w []api.Entry
	for i := range entries {
		w = append(w, f.wireEntry(&entries[i]))
	}
	return w
}

// reads checks that encoded reads as want and that want, written and read again,
// is still want.
func reads[T any](t *rapid.T, encoded []byte, want T) {
	t.Helper()
	var got T
	if err := json.Unmarshal(encoded, &got); err != nil {
		t.Fatalf("reading %s: %v", encoded, err)
	}
	equal := []cmp.Option{cmpopts.EquateEmpty(), cmp.Transformer("nilValue", func(e api.Entry) []any {
		return []any{string(e.Key), e.Value == nil, string(e.Value), e.ContentType, e.CreateRevision, e.ModRevision, e.Version, e.Lease, e.ModifiedAt.UnixMilli()}
	})}
	if diff := cmp.Diff(want, got, equal...); diff != "" {
		t.Fatalf("%s reads as (-want +got)\n%s", encoded, diff)
	}
	again, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	var back T
	if err := json.Unmarshal(again, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, back, equal...); diff != "" {
		t.Fatalf("%s, written again, reads as (-want +got)\n%s", again, diff)
	}
}

func TestEncodersAgainstTypes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := anyForm.Draw(t, "form")
		entries := rapid.SliceOfN(anyEntry, 0, 4).Draw(t, "entries")
		prefixes := rapid.SliceOfN(anyBytes, 0, 3).Draw(t, "prefixes")
		revision := rapid.Uint64Range(1, kv.MaxRevision).Draw(t, "revision")
		created, more, counted := rapid.Bool().Draw(t, "created"), rapid.Bool().Draw(t, "more"), rapid.Bool().Draw(t, "counted")

		for i := range entries {
			reads(t, f.appendEntry(nil, &entries[i]), f.wireEntry(&entries[i]))
			put := api.PutResult{Revision: revision, Created: created}
			o := kv.OpResult{Type: kv.OpPut, Created: created, Prev: entries[i : i+1], Lease: entries[i].Lease}
			prev := f.wireEntry(&entries[i])
			put.Prev, put.Lease = &prev, prev.Lease
			reads(t, f.appendPut(nil, revision, &o), put)
			reads(t, f.appendChange(nil, &kv.Event{Type: kv.EventPut, Entry: entries[i]}), api.Change{Type: api.TypePut, Entry: prev})
		}
		gone := kv.Event{Type: kv.EventDelete, Reason: kv.ReasonExpired, Entry: kv.Entry{Key: []byte("k"), ModRevision: revision}}
		reads(t, f.appendChange(nil, &gone), api.Change{
			Type: api.TypeDelete, Reason: "expired", Entry: api.Entry{ModRevision: revision, ModifiedAt: time.UnixMilli(0)},
		})

		n := uint64(len(entries))
		reads(t, f.appendDelete(nil, revision, true, kv.OpResult{Deleted: n, Prev: entries}, kv.OpResult{Deleted: 1}),
			api.DeleteResult{Revision: revision, Deleted: n + 1, Prev: f.wireEntries(entries)})
		by := rapid.Int64().Draw(t, "value")
		reads(t, appendIncrement(nil, revision, &kv.OpResult{Value: by, Created: created}), api.IncrementResult{Revision: revision, Created: created, Value: by})

		p := page{revision: revision, entries: entries, prefixes: prefixes, folded: true, more: more, cursor: "c", counted: counted, count: n}
		l := api.List{Revision: revision, Entries: f.wireEntries(entries), CommonPrefixes: prefixes, More: more, NextCursor: "c"}
		if counted {
			l.Count = &n
		}
		reads(t, f.appendPage(nil, &p), l)
	})
}

// The twin of the hand-written string encoder is the library's.
func TestQuotingAgainstLibrary(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.String().Draw(t, "s")
		var back string
		quoted := appendQuoted(nil, s)
		if err := json.Unmarshal(quoted, &back); err != nil || back != s {
			t.Fatalf("%q quotes as %s, which reads as %q, %v", s, quoted, back, err)
		}
	})
}

// The requests that package api writes are the requests that this package reads.
func TestTransactionsThatTheClientWrites(t *testing.T) {
	lease := testCluster.String()
	key := []byte("k\xff")
	written := api.Txn{
		If: []api.Compare{
			{Range: api.Range{Key: key}, Target: api.TargetValue, Operator: api.Ne, Value: []byte("\xfe")},
			{Range: api.Range{Key: []byte("a")}, Target: api.TargetValue, Operator: api.Eq},
			{Range: api.Range{Prefix: []byte("p")}, Target: api.TargetVersion, Operator: api.Gt, Number: 1},
			{Range: api.Range{Start: []byte("s"), End: []byte("t\xff")}, Target: api.TargetCreateRevision, Operator: api.Ge, Number: 2},
			{Range: api.Range{Start: []byte("s")}, Target: api.TargetModRevision, Operator: api.Lt, Number: 3},
			{Range: api.Range{End: []byte("e")}, Target: api.TargetLease, Operator: api.Le, Lease: lease},
			{Range: api.Range{Key: key}, Target: api.TargetExists, Exists: true},
			{Range: api.Range{Key: key}, Target: api.TargetExists},
		},
		Then: []api.Op{
			{Put: &api.Put{Key: key, Value: []byte("v"), ContentType: "text/plain", Lease: lease, Prev: true}},
			{Put: &api.Put{Key: []byte("b"), IgnoreValue: true, IgnoreLease: true}},
			{Increment: &api.Increment{Key: []byte("n"), By: math.MinInt64}},
			{Delete: &api.Delete{Range: api.Range{Prefix: []byte("d")}, Prev: true}},
		},
		Else: []api.Op{
			{Get: &api.Get{
				Range: api.Range{Start: []byte("a")}, Revision: 4, Limit: 5, Order: "desc", Sort: "mod", KeysOnly: true, Count: true,
				MinModRevision: 1, MaxModRevision: 2, MinCreateRevision: 3, MaxCreateRevision: 4,
			}},
			{Txn: &api.Txn{Then: []api.Op{{Get: &api.Get{Range: api.Range{Prefix: []byte("x")}, CountOnly: true}}}}},
		},
	}
	body, err := json.Marshal(written)
	if err != nil {
		t.Fatal(err)
	}
	x := &exchange{}
	got := x.parseTxn(body)
	if x.fault.code != "" {
		t.Fatalf("%s: %s: %s", body, x.fault.code, x.fault.detail)
	}
	one := func(c kv.Compare, key []byte) kv.Compare { c.Range = kv.SingleKey(key); return c }
	want := &kv.Txn{
		If: []kv.Compare{
			one(kv.Compare{Target: kv.TargetValue, Operator: kv.NotEqual, Bytes: []byte("\xfe")}, key),
			one(kv.Compare{Target: kv.TargetValue, Operator: kv.Equal}, []byte("a")),
			{Range: kv.Prefix([]byte("p")), Target: kv.TargetVers, Operator: kv.Greater, Number: 1},
			{Range: kv.Range{Start: []byte("s"), End: []byte("t\xff")}, Target: kv.TargetCreate, Operator: kv.GreaterOrEqual, Number: 2},
			{Range: kv.Range{Start: []byte("s")}, Target: kv.TargetMod, Operator: kv.Less, Number: 3},
			{Range: kv.Range{End: []byte("e")}, Target: kv.TargetLease, Operator: kv.LessOrEqual, Lease: testCluster},
			one(kv.Compare{Target: kv.TargetVers, Operator: kv.Greater}, key),
			one(kv.Compare{Target: kv.TargetVers, Operator: kv.Equal}, key),
		},
		Then: []kv.Op{
			{Type: kv.OpPut, Key: key, Value: []byte("v"), ContentType: "text/plain", Lease: testCluster, Prev: true},
			{Type: kv.OpPut, Key: []byte("b"), IgnoreValue: true, IgnoreLease: true},
			{Type: kv.OpIncrement, Key: []byte("n"), By: math.MinInt64},
			{Type: kv.OpDelete, Range: kv.Prefix([]byte("d")), Prev: true},
		},
		Else: []kv.Op{
			{Type: kv.OpGet, Query: &kv.Query{
				Range: kv.Range{Start: []byte("a")}, Revision: 4, Limit: 5, Descending: true, Sort: kv.SortByMod, KeysOnly: true, Count: true,
				MinModRevision: 1, MaxModRevision: 2, MinCreateRevision: 3, MaxCreateRevision: 4,
			}},
			{Type: kv.OpTxn, Txn: &kv.Txn{Then: []kv.Op{{Type: kv.OpGet, Query: &kv.Query{
				Range: kv.Prefix([]byte("x")), Limit: defaultPage, CountOnly: true, PrefixLen: 1,
			}}}}},
		},
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("%s\nreads as (-want +got)\n%s", body, diff)
	}
	line, err := json.Marshal(api.Op{Put: &api.Put{Key: []byte("a"), TTLSeconds: 1.5}})
	if err != nil {
		t.Fatal(err)
	}
	b := &bulkWrite{x: &exchange{}}
	op, ok := b.parse(line)
	if !ok || op.OwnTTLMillis != 1500 || op.Lease == (kv.LeaseID{}) || !bytes.Equal(op.Value, []byte{}) {
		t.Errorf("%s reads as %+v, %v", line, op, b.x.fault)
	}
}

// appendTime writes what package time would.
func TestAppendTime(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	millis := []int64{0, -1, 1, 999, 1000, -62135596800000, -62135596800001, -62167219200000, -62167219200001, 253402300799999, 253402300800000}
	for range 10_000 {
		millis = append(millis, rng.Int64N(1<<49)-1<<48)
	}
	for _, ms := range millis {
		want := `"` + time.UnixMilli(ms).UTC().Format(api.TimeLayout) + `"`
		if got := string(appendTime(nil, ms)); got != want {
			t.Errorf("%d: %s, want %s", ms, got, want)
		}
	}
}

// A page takes about what room was made for.
func TestPageSize(t *testing.T) {
	p := &page{revision: 1 << 52, cursor: "cursor", more: true, counted: true, count: 1 << 52}
	for i := range 1000 {
		p.entries = append(p.entries, kv.Entry{
			Key: fmt.Appendf(nil, "key/%d", i), Value: bytes.Repeat([]byte("v"), 256), ContentType: "text/plain",
			CreateRevision: 1 << 52, ModRevision: 1 << 52, Version: 1 << 52, Lease: kv.LeaseID{1}, ModifiedAt: 1 << 40,
		})
	}
	took, room := len(form{}.appendPage(nil, p)), p.size()
	if took > room || took < room*3/4 {
		t.Errorf("it took %d bytes of %d", took, room)
	}
}

// What HTTP/2 did not take is not given to the next answer.
func TestUnsentBufferIsDropped(t *testing.T) {
	k := newKit(t)
	w := &failingWriter{ResponseWriter: httptest.NewRecorder()}
	x := k.server.begin(w, httptest.NewRequest(http.MethodGet, "/v1/kv/a", nil))
	x.out = append(x.out, "secret"...)
	if _, err := x.Write(x.out); err == nil {
		t.Fatal("the write succeeded")
	}
	if x.end(); cap(x.out) > 0 { // nobody else has it: there is no other request
		t.Error("the buffer is kept")
	}
}

type failingWriter struct{ http.ResponseWriter }

func (failingWriter) Write([]byte) (int, error) { return 0, errors.New("the stream is gone") }
