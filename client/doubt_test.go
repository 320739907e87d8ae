package client_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/client"
)

// What was never sent was not applied, and is not called unknown.
func TestNothingSentIsNoDoubt(t *testing.T) {
	ended, end := context.WithCancel(context.Background())
	end()
	late, end := context.WithTimeout(context.Background(), -1)
	defer end()
	for _, test := range []struct {
		name string
		ctx  context.Context
		opt  client.PutOption
		want []error
	}{
		{"given up", ended, client.Idempotent(), []error{client.ErrUnavailable, context.Canceled}},
		{"too late", late, client.Idempotent(), []error{client.ErrUnavailable, context.DeadlineExceeded}},
		{"a fence of two lines", context.Background(), client.Fenced("backup:7\n"), []error{client.ErrInvalid}},
		{"a key of two lines", context.Background(), client.IdempotencyKey("a\nb"), []error{client.ErrInvalid}},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := newClient(t, newScript(t).url) // which wants no request
			_, put := c.Put(test.ctx, "a", []byte("1"), test.opt)
			errs := []error{put}
			if write, ok := test.opt.(client.WriteOption); ok {
				_, bulk := c.BulkLines(test.ctx, strings.NewReader("\n"), nil, write)
				errs = append(errs, bulk)
			}
			for _, err := range errs {
				for _, want := range test.want {
					if !errors.Is(err, want) || errors.Is(err, client.ErrOutcomeUnknown) {
						t.Errorf("got %v, want %v", err, want)
					}
				}
			}
		})
	}
}

// A hand-over to anybody, asked for again, might be one back.
func TestHandOverToAnybodyIsAskedOnce(t *testing.T) {
	s := newScript(t, breaks)
	if _, err := newClient(t, s.url).TransferLeader(context.Background(), ""); !errors.Is(err, client.ErrOutcomeUnknown) {
		t.Errorf("got %v, want outcome-unknown", err)
	}
	s = newScript(t, breaks, answers(`{"leader":"m"}`))
	if leader, err := newClient(t, s.url).TransferLeader(context.Background(), "m"); err != nil || leader != "m" {
		t.Errorf("got %q, %v", leader, err)
	}
}

// The lease of a lock needs no Idempotency-Key, of which a cluster may have no more: its
// id is new, so that what is there is its own, and what is gone was ended by it.
func TestLockNeedsNoIdempotencyKey(t *testing.T) {
	doubtful := []step{breaks, refuses(api.CodeLeaseExists)}
	n := newRoutes(t, map[string][]step{
		"POST /v1/leases":    doubtful,
		"POST /v1/locks/l":   {answers(granted)},
		"DELETE /v1/leases/": {breaks, refuses(api.CodeLeaseNotFound)},
	})
	l, err := newClient(t, n.url).Lock(patient(t), "l", client.LockOptions{})
	noError(t, err)
	noError(t, l.Release(patient(t)))
	for _, r := range n.requests() {
		if r.idempotencyKey != "" {
			t.Errorf("%s %s has the Idempotency-Key %s", r.method, r.target, r.idempotencyKey)
		}
	}
}

// A lock whose lease is gone, without any doubt, was lost.
func TestReleaseOfALostLock(t *testing.T) {
	n := newRoutes(t, map[string][]step{
		"POST /v1/locks/l":   {answers(granted)},
		"DELETE /v1/leases/": {refuses(api.CodeNoLeader), refuses(api.CodeLeaseNotFound)},
	})
	l, err := newClient(t, n.url).Lock(patient(t), "l", client.LockOptions{})
	noError(t, err)
	if err := l.Release(patient(t)); !errors.Is(err, client.ErrLeaseNotFound) {
		t.Errorf("got %v, want lease-not-found", err)
	}
}

// newRoutes is a script for each of some routes, and takes all else that a lease needs.
func newRoutes(t *testing.T, steps map[string][]step) *script {
	t.Helper()
	s := newScript(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next := answers(`{"id":"01KB0000000000000000000000","number":"1","ttl_seconds":10,"deleted":0,"revision":2}`)
		s.mu.Lock()
		for route, left := range steps {
			named := r.Method+" "+r.URL.Path == route || strings.HasSuffix(route, "/") && strings.HasPrefix(r.Method+" "+r.URL.Path, route)
			if named && len(left) > 0 {
				next, steps[route] = left[0], left[1:]
			}
		}
		s.steps = []step{next}
		s.mu.Unlock()
		s.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	t.Cleanup(server.CloseClientConnections)
	s.url = server.URL
	return s
}

// What follows an election goes on through an answer of something that stands between.
func TestObserveGoesOn(t *testing.T) {
	leader := func(mod string) string {
		return "event: leader\nid: " + mod + "\ndata: {\"value\":\"v\",\"mod_revision\":" + mod + "}\n\n"
	}
	s := newScript(t, events(leader("5"), false), says(404, "<html>"), refuses(api.CodeInternal), events(leader("6"), true))
	var seen []uint64
	for l, err := range newClientOf(t, client.Config{Endpoints: []string{s.url}, Attempts: 1}).Observe(patient(t), "e") {
		noError(t, err)
		if seen = append(seen, l.ModRevision); len(seen) == 2 {
			break
		}
	}
	if !slices.Equal(seen, []uint64{5, 6}) {
		t.Errorf("saw %d", seen)
	}
	// What Cairn refuses, and what was never served, ends it.
	for _, end := range []step{refuses(api.CodeInvalidArgument), says(404, "<html>")} {
		s := newScript(t, end)
		for _, err := range newClient(t, s.url).Observe(patient(t), "e") {
			if err == nil {
				t.Error("a refusal is a leader")
			}
		}
	}
}

// A bulk write, which has no limit, is not given to a node that stands still where there is
// another one.
func TestBulkPassesOverASilentNode(t *testing.T) {
	t.Parallel()
	first := newScript(t, mute)
	second := newScript(t, says(200, "ok\n"), says(200, `{"applied":1,"revision":12,"done":true}`+"\n"))
	c := newClientOf(t, client.Config{Endpoints: []string{first.url, second.url}, Timeout: silentTimeout})
	report, err := c.BulkLines(patient(t), strings.NewReader(`{"delete":{"key":"a"}}`+"\n"), nil)
	if err != nil || report.Applied != 1 {
		t.Errorf("got %+v, %v", report, err)
	}
}
