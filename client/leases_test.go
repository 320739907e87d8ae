package client_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/client"
)

// A lease with keys, from its grant to its end.
func TestLeases(t *testing.T) {
	ctx := context.Background()
	c := newClient(t, newNode(t))
	leases := c.Leases()
	g, err := leases.Grant(ctx, time.Hour+time.Nanosecond)
	if err != nil || g.TTLSeconds != 3600.001 {
		t.Fatal(g, err)
	}
	own := ulid.Make().String()
	if g, err := leases.GrantAs(ctx, own, time.Minute); err != nil || g.ID != own {
		t.Fatal(g, err)
	}
	if _, err := leases.GrantAs(ctx, own, time.Minute); !errors.Is(err, client.ErrLeaseExists) {
		t.Errorf("granted twice: %v", err)
	}
	if g, err := leases.GrantAs(ctx, "4711", time.Minute, client.Idempotent()); err != nil || g.Number != "4711" {
		t.Fatal(g, err)
	}
	var want []string
	for i := range 150 { // more than a page
		key := fmt.Sprintf("k%03d", i)
		want = append(want, key)
		if _, err := c.Put(ctx, key, []byte("v"), client.WithLease(g.ID)); err != nil {
			t.Fatal(err)
		}
	}
	var keys []string
	for key, err := range leases.Keys(ctx, g.Number) {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, string(key))
	}
	if !slices.Equal(keys, want) {
		t.Errorf("keys %q", keys)
	}
	if l, err := leases.Lookup(ctx, g.ID, client.MinRevision(c.Revision())); err != nil || l.KeyCount != 150 || l.Number != g.Number ||
		l.RemainingSeconds <= 0 || l.RemainingSeconds > l.TTLSeconds {
		t.Errorf("%+v %v", l, err)
	}

	// Detached, and attached to another one, with the value that it has.
	if _, err := c.Put(ctx, "k000", nil, client.KeepValue()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Put(ctx, "k001", nil, client.KeepValue(), client.WithLease(own)); err != nil {
		t.Fatal(err)
	}
	var ids []string
	for l, err := range leases.List(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, l.ID)
	}
	if len(ids) != 3 || !slices.Contains(ids, own) || !slices.Contains(ids, g.ID) {
		t.Errorf("leases %q", ids)
	}

	if r, err := leases.Renew(ctx, g.ID); err != nil || *r != *g {
		t.Error(r, err)
	}
	many, err := leases.RenewMany(ctx, []string{"4711", "4712", own})
	if err != nil || len(many.Leases) != 3 || many.Leases[0].TTLSeconds != 60 || many.Leases[1].Error != api.CodeLeaseNotFound || many.Leases[2].ID != own {
		t.Errorf("%+v %v", many, err)
	}
	if many, err := leases.RenewMany(ctx, nil); err != nil || len(many.Leases) != 0 {
		t.Errorf("%+v %v", many, err)
	}

	if r, err := leases.Revoke(ctx, g.ID, client.Idempotent()); err != nil || r.Deleted != 148 {
		t.Error(r, err)
	}
	for key, err := range c.All(ctx, client.Prefix("k")) {
		if err != nil || string(key.Key) != "k000" && string(key.Key) != "k001" || string(key.Value) != "v" {
			t.Errorf("%+v is left, %v", key, err)
		}
	}
	_, lookup := leases.Lookup(ctx, g.ID)
	_, renew := leases.Renew(ctx, g.ID)
	_, revoke := leases.Revoke(ctx, "4713")
	for i, err := range []error{lookup, renew, revoke} {
		if !errors.Is(err, client.ErrLeaseNotFound) {
			t.Errorf("%d: %v", i, err)
		}
	}
	for _, err := range leases.Keys(ctx, g.ID) {
		if !errors.Is(err, client.ErrLeaseNotFound) {
			t.Errorf("keys: %v", err)
		}
	}
}

// A renewal is sent again whatever became of it; a grant is not.
func TestRenewalIsRepeated(t *testing.T) {
	s := newScript(t, breaks, refuses(api.CodeOutcomeUnknown), answers(`{"id":"01KB0000000000000000000000","number":"7","ttl_seconds":10}`), breaks)
	leases := newClient(t, s.url).Leases()
	if g, err := leases.Renew(context.Background(), "a/b"); err != nil || g.Number != "7" {
		t.Fatal(g, err)
	}
	if _, err := leases.Grant(context.Background(), time.Second); !errors.Is(err, client.ErrOutcomeUnknown) {
		t.Error(err)
	}
	got := s.requests()
	if len(got) != 4 || got[2].target != "/v1/leases/a%2Fb/keepalive" || got[2].idempotencyKey != "" || got[3].body != `{"ttl_seconds":1}` {
		t.Errorf("%+v", got)
	}
}

func await(t *testing.T, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(time.Minute):
		t.Fatalf("this did not happen: %s", what)
	}
}

// shortTTL is short enough to be waited for, and longer than a disk of a machine that
// is used by others stands still at times: a lease ends when no renewal is answered.
const shortTTL = 6 * time.Second

// A lease is kept for longer than its time to live, and a loss is told.
func TestKeepAlive(t *testing.T) {
	t.Parallel()
	c := newClient(t, newNode(t))
	leases := c.Leases()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	g, err := leases.Grant(ctx, shortTTL)
	if err != nil {
		t.Fatal(err)
	}
	k, err := leases.KeepAlive(ctx, g.ID)
	if err != nil {
		t.Fatal(err)
	}
	// Another lease, of a longer time to live, that nobody keeps ends meanwhile.
	if _, err := c.Put(ctx, "clock", nil, client.WithTTL(shortTTL+2*time.Second)); err != nil {
		t.Fatal(err)
	}
	awaitTrue(patient(t), t, "the lease that nobody keeps ends", func() bool {
		_, err := c.Get(ctx, "clock")
		return errors.Is(err, client.ErrNotFound)
	})
	if k.Err() != nil {
		t.Fatal(k.Err())
	}
	if _, err := leases.Revoke(ctx, g.ID); err != nil {
		t.Fatal(err)
	}
	await(t, "the loss is told", k.Lost())
	await(t, "nothing is renewed any more", k.Done())
	if !errors.Is(k.Err(), client.ErrLeaseNotFound) {
		t.Error(k.Err())
	}
	if _, err := leases.KeepAlive(ctx, g.ID); !errors.Is(err, client.ErrLeaseNotFound) {
		t.Error(err)
	}
	// The end of the context is no loss.
	if g, err = leases.Grant(ctx, shortTTL); err != nil {
		t.Fatal(err)
	}
	if k, err = leases.KeepAlive(ctx, g.ID); err != nil {
		t.Fatal(err)
	}
	cancel()
	await(t, "nothing is renewed any more", k.Done())
	if k.Err() != nil {
		t.Error(k.Err())
	}
}

// A lease whose renewals are not answered for its time to live counts as lost, and
// not before.
func TestKeepAliveWithoutAnswers(t *testing.T) {
	first := answers(`{"id":"01KB0000000000000000000000","number":"7","ttl_seconds":1}`)
	steps := []step{first, refuses(api.CodeNoLeader), first}
	for range 100 {
		steps = append(steps, refuses(api.CodeNoLeader))
	}
	var granted time.Time // a third of the time to live before the last renewal that is answered
	steps[0] = func(w http.ResponseWriter, r *http.Request) {
		granted = time.Now()
		first(w, r)
	}
	s := newScript(t, steps...)
	k, err := newClient(t, s.url).Leases().KeepAlive(context.Background(), "7")
	if err != nil {
		t.Fatal(err)
	}
	await(t, "the loss is told", k.Lost())
	if err := k.Err(); err == nil || errors.Is(err, client.ErrLeaseNotFound) {
		t.Error(err)
	}
	if held := time.Since(granted); held < time.Second+time.Second/3 {
		t.Errorf("lost %v after the first answer", held)
	}
}

// The next key of a sequence.
func TestPutNext(t *testing.T) {
	ctx := context.Background()
	c := newClient(t, newNode(t))
	var before string
	for i, opts := range [][]client.NextOption{
		nil, {client.Idempotent()}, {client.WithTTL(time.Hour)}, {client.ContentType("text/plain"), client.IdempotencyKey("k")},
	} {
		r, err := c.PutNext(ctx, "queue/", []byte("v"), opts...)
		if err != nil || string(r.Key) <= before || string(r.Key) != fmt.Sprintf("queue/%020d", r.Revision) || (r.Lease != "") != (i == 2) {
			t.Fatalf("%d: %+v %v", i, r, err)
		}
		before = string(r.Key)
		if e, err := c.Get(ctx, before); err != nil || e.CreateRevision != r.Revision || (e.ContentType == "text/plain") != (i == 3) {
			t.Errorf("%d: %+v %v", i, e, err)
		}
	}
	if _, err := c.PutNext(ctx, "_cairn/", nil); !errors.Is(err, client.ErrReserved) {
		t.Error(err)
	}
}
