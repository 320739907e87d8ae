package httpapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"testing"

	"github.com/oklog/ulid/v2"
	"pgregory.net/rapid"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/kv"
)

// As many leases as one request may renew are renewed by it, and by one command;
// with one more the whole request is refused.
func TestRenewAsManyAsAllowed(t *testing.T) {
	k := newKit(t)
	var ids []string
	for i := range kv.MaxRenewals {
		ids = append(ids, fmt.Sprint(i+1))
		k.member.apply(t, &kv.Command{Kind: kv.KindLeaseGrant, Lease: kv.Lease{
			ID: kv.LeaseID{1, byte(i >> 8), byte(i)}, Number: int64(i + 1), TTLMillis: 10_000,
		}})
	}
	before := k.member.index
	body, _ := json.Marshal(api.Renew{IDs: ids})
	a := k.do("POST", "/v1/leases/keepalive", body, "Content-Type: application/json")
	a.want(t, 200, "")
	var r api.Renewed
	a.read(t, &r)
	for i, l := range r.Leases {
		if l.Number != ids[i] || l.Error != "" || l.TTLSeconds != 10 {
			t.Fatalf("lease %d: %+v", i, l)
		}
	}
	if len(r.Leases) != len(ids) || k.member.index != before+1 {
		t.Errorf("%d leases were renewed by %d entries", len(r.Leases), k.member.index-before)
	}
	body, _ = json.Marshal(api.Renew{IDs: append(ids, "1")})
	a = k.do("POST", "/v1/leases/keepalive", body, "Content-Type: application/json")
	a.want(t, 400, api.CodeInvalidArgument)
	if p := a.problem(t); p.Limit != kv.MaxRenewals {
		t.Errorf("the limit is said to be %d", p.Limit)
	}
}

// Pages of leases and of keys give each once, in order, whatever their size.
func TestPagesOfLeases(t *testing.T) {
	k := newKit(t)
	const n = 25
	lease := ulid.MustParse("01KB0000000000000000000AAA")
	for i := range n {
		id := lease
		id[0] = byte(i + 1)
		k.member.apply(t, &kv.Command{Kind: kv.KindLeaseGrant, Lease: kv.Lease{ID: id, TTLMillis: 60_000}})
		if i == 3 {
			lease = id
		}
	}
	for i := range n {
		key := url.QueryEscape(fmt.Sprintf("k%02d", i))
		k.do("PUT", "/v1/key?key="+key+"&lease="+lease.String(), []byte("v")).want(t, 201, "")
	}
	for _, limit := range []int{1, 7, 25, 100} {
		var ids, keys []string
		for target := fmt.Sprint("/v1/leases?limit=", limit); target != ""; {
			var page api.Leases
			a := k.do("GET", target, nil)
			a.want(t, 200, "")
			a.read(t, &page)
			for _, l := range page.Leases {
				ids = append(ids, l.ID)
			}
			target = next(t, target, page.More, page.NextCursor)
		}
		// The second page is asked for in another spelling, which is the same lease.
		for target := fmt.Sprint("/v1/leases/", lease, "?keys=true&limit=", limit); target != ""; {
			var page api.Lease
			a := k.do("GET", target, nil)
			a.want(t, 200, "")
			a.read(t, &page)
			for _, key := range page.Keys {
				keys = append(keys, string(key))
			}
			target = string(bytes.ToLower([]byte(fmt.Sprint("/v1/leases/", lease)))) + "?keys=true"
			target = next(t, target, page.More, page.NextCursor)
		}
		for i := range n {
			if len(ids) != n || len(keys) != n || i > 0 && ids[i] <= ids[i-1] || keys[i] != fmt.Sprintf("k%02d", i) {
				t.Fatalf("limit %d: leases %q, keys %q", limit, ids, keys)
			}
		}
	}
}

// next is the target of the page behind one, or empty.
func next(t *testing.T, target string, more bool, cursor string) string {
	t.Helper()
	if more != (cursor != "") {
		t.Fatalf("more is %v, the cursor %q", more, cursor)
	}
	if !more {
		return ""
	}
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	q.Set("cursor", cursor)
	return u.Path + "?" + q.Encode()
}

// What is written of a lease is what the types read.
func TestLeaseEncoders(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		millis := rapid.Int64Range(0, kv.MaxLeaseTTLMillis)
		l := kv.LeaseState{
			ID:     ulid.ULID(rapid.SliceOfN(rapid.ByteRange(1, 127), 16, 16).Draw(t, "id")),
			Number: rapid.Int64Range(1, 1<<63-1).Draw(t, "number"), TTLMillis: millis.Draw(t, "ttl"),
			RemainingMillis: millis.Draw(t, "remaining"), Keys: rapid.Uint64Range(0, 100_000).Draw(t, "keys"),
		}
		keys := rapid.SliceOfN(anyBytes, 0, 3).Draw(t, "attached")
		f := form{base64: rapid.Bool().Draw(t, "base64")}
		want := api.Lease{
			ID: l.ID.String(), Number: fmt.Sprint(l.Number), TTLSeconds: float64(l.TTLMillis) / 1000,
			RemainingSeconds: float64(l.RemainingMillis) / 1000, KeyCount: l.Keys, Keys: keys,
		}
		reads(t, append(f.appendKeys(appendLeaseState(nil, &l), "keys", keys), '}'), want)
		r := kv.LeaseResult{ID: l.ID, Number: l.Number, TTLMillis: l.TTLMillis}
		reads(t, appendGranted(nil, &r), api.Granted{ID: want.ID, Number: want.Number, TTLSeconds: want.TTLSeconds})
		reads(t, appendGranted(nil, &r), api.Renewal{ID: want.ID, Number: want.Number, TTLSeconds: want.TTLSeconds})
	})
}

// A path belongs to a pattern or it doesn't.
func TestMatches(t *testing.T) {
	for _, c := range []struct {
		pattern, path string
		want          bool
	}{
		{"/v1/kv", "/v1/kv", true}, {"/v1/kv", "/v1/kv/", false}, {"/v1/kv/*", "/v1/kv/a/b", true}, {"/v1/kv/*", "/v1/kv/", true},
		{"/v1/kv/*", "/v1/kv", false}, {"/", "/", true}, {"/", "/x", false}, {"/v1/leases/{id}", "/v1/leases/a", true},
		{"/v1/leases/{id}", "/v1/leases/", false}, {"/v1/leases/{id}", "/v1/leases/a/hold", false},
		{"/v1/leases/{id}/hold", "/v1/leases/a/hold", true}, {"/v1/leases/{id}/hold", "/v1/leases/a", false},
	} {
		if got := matches(c.pattern, c.path); got != c.want {
			t.Errorf("%s and %s: %v", c.pattern, c.path, got)
		}
	}
}
