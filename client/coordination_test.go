package client_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/client"
)

func patient(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// awaitTrue waits until what a test wants to see is there.
func awaitTrue(ctx context.Context, t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("never: %s", what)
		}
	}
}

func noError(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A lock goes from hand to hand, and its fence with it.
func TestLock(t *testing.T) {
	ctx := patient(t)
	url := newNode(t)
	a, b := newClient(t, url), newClient(t, url)
	const name = "a lock: ü"
	first, err := a.Lock(ctx, name, client.LockOptions{Owner: "a"})
	noError(t, err)
	if _, err := b.TryLock(ctx, name, client.LockOptions{}); !errors.Is(err, client.ErrLockHeld) {
		t.Errorf("a second holder: %v", err)
	} else if e := new(client.Error); !errors.As(err, &e) || e.Problem.Holder == nil || e.Problem.Holder.Owner != "a" {
		t.Errorf("got %+v", e)
	}
	_, err = a.Put(ctx, "k", []byte("1"), client.Fenced(first.Fence))
	noError(t, err)
	got := make(chan *client.Lock, 1)
	go func() {
		l, err := b.Lock(ctx, name, client.LockOptions{Owner: "b"})
		if err != nil {
			t.Error(err)
		}
		got <- l
	}()
	awaitTrue(ctx, t, "b waits", func() bool {
		s, err := a.LockState(ctx, name)
		return err == nil && s.Waiting == 1 && s.Queue[0].Owner == "b" && s.Holders[0].Token == first.Token
	})
	noError(t, first.Release(ctx))
	second := <-got
	if second.Token <= first.Token || second.Name != name {
		t.Errorf("got %+v after %+v", second.Lock, first.Lock)
	}
	if _, err := a.Put(ctx, "k", []byte("2"), client.Fenced(first.Fence)); !errors.Is(err, client.ErrFenced) {
		t.Errorf("a late write: %v", err)
	}
	_, err = b.Put(ctx, "k", []byte("2"), client.Fenced(second.Fence))
	noError(t, err)

	// Behind its back.
	_, err = a.Leases().Revoke(ctx, second.Lease)
	noError(t, err)
	select {
	case <-second.Lost():
	case <-ctx.Done():
		t.Fatal("the loss was never noticed")
	}
	if !errors.Is(second.Err(), client.ErrLeaseNotFound) || !errors.Is(second.Release(ctx), client.ErrLeaseNotFound) {
		t.Errorf("lost: %v", second.Err())
	}

	// Shared.
	for range 2 {
		r, err := a.TryLock(ctx, name, client.LockOptions{Read: true})
		noError(t, err)
		defer func() { noError(t, r.Release(ctx)) }()
	}
	if _, err := a.TryLock(ctx, name, client.LockOptions{Limit: 3}); !errors.Is(err, client.ErrLockHeld) {
		t.Errorf("got %v", err)
	}
}

// Whoever gives up waiting leaves nothing behind.
func TestLockGivenUp(t *testing.T) {
	ctx := patient(t)
	url := newNode(t)
	a, b := newClient(t, url), newClient(t, url)
	held, err := a.Lock(ctx, "l", client.LockOptions{})
	noError(t, err)
	short, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() {
		_, err := b.Lock(short, "l", client.LockOptions{})
		done <- err
	}()
	waiting := func() int {
		s, err := a.LockState(ctx, "l")
		noError(t, err)
		return s.Waiting
	}
	awaitTrue(ctx, t, "b waits", func() bool { return waiting() == 1 })
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	awaitTrue(ctx, t, "nobody waits", func() bool { return waiting() == 0 })
	awaitTrue(ctx, t, "the only lease is the holder's", func() bool {
		leases := 0
		for _, err := range a.Leases().List(ctx) {
			noError(t, err)
			leases++
		}
		return leases == 1
	})
	noError(t, held.Release(ctx))
}

// Lock ends with its context, whatever the node does at that moment.
func TestLockEndsWithItsContext(t *testing.T) {
	granted := answers(`{"id":"01KB0000000000000000000000","number":"7","ttl_seconds":60}`)
	for _, before := range [][]step{{granted}, {granted, granted}} {
		ctx, cancel := context.WithCancel(context.Background())
		silent := func(_ http.ResponseWriter, r *http.Request) {
			cancel()
			<-r.Context().Done()
		}
		s := newScript(t, append(before, silent, silent)...)
		c := newClientOf(t, client.Config{Endpoints: []string{s.url}, Timeout: -1})
		if _, err := c.Lock(ctx, "l", client.LockOptions{TTL: time.Minute}); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	}
}

// A registration under a lease is renewed at the pace of the lease.
func TestRegistrationUnderALease(t *testing.T) {
	granted := answers(`{"id":"01KB0000000000000000000000","number":"7","ttl_seconds":0.03}`)
	steps := []step{granted}
	const enough = 30 // at the pace of what has no lease, that is more than a minute
	arrived := make(chan struct{}, 10*enough)
	for range 10 * enough {
		steps = append(steps, func(w http.ResponseWriter, r *http.Request) {
			answers(`{"service":"web","instance":"1","lease":"7"}`)(w, r)
			arrived <- struct{}{}
		})
	}
	s := newScript(t, steps...)
	ctx, cancel := context.WithCancel(context.Background())
	g, err := newClient(t, s.url).Register(ctx, "web", "1", api.Registration{Address: "10.0.0.1", Lease: "7"})
	noError(t, err)
	for range enough {
		await(t, "it is renewed", arrived)
	}
	cancel()
	await(t, "nothing is renewed any more", g.Done())
	if got := s.requests()[0].target; got != "/v1/leases/7/keepalive" {
		t.Errorf("the first request is of %s", got)
	}
}

// A lock that can't be taken as it was asked for is refused, and its lease goes.
func TestLockRefused(t *testing.T) {
	ctx := patient(t)
	c := newClient(t, newNode(t))
	if _, err := c.Lock(ctx, "l", client.LockOptions{Read: true, Limit: 2}); !errors.Is(err, client.ErrInvalid) {
		t.Errorf("got %v", err)
	}
	for l, err := range c.Leases().List(ctx) {
		t.Errorf("left behind: %+v, %v", l, err)
	}
}

// A leader is followed, proclaims, and is taken over from.
func TestElection(t *testing.T) {
	ctx := patient(t)
	url := newNode(t)
	c := newClient(t, url)
	following, stop := context.WithCancel(ctx)
	values := make(chan string, 100)
	followed := make(chan error, 1)
	go func() {
		for l, err := range newClient(t, url).Observe(following, "e") {
			switch {
			case err != nil:
				followed <- err
			case l == nil:
				values <- "nobody"
			default:
				values <- string(l.Value)
			}
		}
		close(followed)
	}()
	next := func(want string) {
		t.Helper()
		select {
		case got := <-values:
			if got != want {
				t.Fatalf("the observer sees %q, want %q", got, want)
			}
		case <-ctx.Done():
			t.Fatalf("the observer never sees %q", want)
		}
	}
	next("nobody")
	a, err := c.Campaign(ctx, "e", []byte("a"), client.CampaignOptions{TTL: time.Minute})
	noError(t, err)
	next("a")
	noError(t, a.Proclaim(ctx, []byte("a2")))
	next("a2")
	elected, places := make(chan *client.Leadership, 1), make(chan int, 10)
	go func() {
		b, err := newClient(t, url).Campaign(ctx, "e", []byte("b"), client.CampaignOptions{Waiting: func(before int) { places <- before }})
		if err != nil {
			t.Error(err)
		}
		elected <- b
	}()
	awaitTrue(ctx, t, "b waits", func() bool {
		s, err := c.Election(ctx, "e")
		return err == nil && s.Waiting == 1 && s.Leader != nil && s.Leader.Token == a.Token
	})
	if before := <-places; before != 0 {
		t.Errorf("%d candidates are before the only one", before)
	}
	noError(t, a.Resign(ctx))
	b := <-elected
	if b.Token <= a.Token || string(b.Value) != "b" {
		t.Errorf("got %+v", b.Leader)
	}
	if err := a.Proclaim(ctx, []byte("a3")); !errors.Is(err, client.ErrNotHolder) {
		t.Errorf("who has resigned proclaims: %v", err)
	}
	if _, err := c.Delete(ctx, "k", client.Fenced(b.Fence), client.Fenced(a.Fence)); !errors.Is(err, client.ErrFenced) {
		t.Errorf("one fence of two: %v", err)
	}
	noError(t, b.Resign(ctx))
	stop()
	if err := <-followed; !errors.Is(err, context.Canceled) {
		t.Errorf("the observer ends with %v", err)
	}
}

// An instance is renewed, made anew when it was lost, and deregistered.
func TestRegistration(t *testing.T) {
	ctx := patient(t)
	c := newClient(t, newNode(t))
	want := api.Registration{Address: "10.0.0.1", Port: 80, Tags: []string{"blue"}, TTLSeconds: shortTTL.Seconds()}
	g, err := c.Register(ctx, "web", "1", want)
	noError(t, err)
	i, err := c.Instance(ctx, "web", "1")
	noError(t, err)
	if i.Address != want.Address || i.Port != want.Port || len(i.Tags) != 1 || i.Service != "web" || i.Instance != "1" {
		t.Errorf("got %+v", i)
	}
	other, err := c.Register(ctx, "web", "2", api.Registration{})
	noError(t, err)
	var names []string
	for i, err := range c.Instances(ctx, "web", "blue") {
		noError(t, err)
		names = append(names, i.Instance)
	}
	for name, err := range c.Services(ctx) {
		noError(t, err)
		names = append(names, name)
	}
	if len(names) != 2 || names[0] != "1" || names[1] != "web" {
		t.Errorf("got %q", names)
	}
	_, err = c.Leases().Revoke(ctx, i.Lease)
	noError(t, err)
	awaitTrue(ctx, t, "it is registered again", func() bool {
		again, err := c.Instance(ctx, "web", "1")
		return err == nil && again.Lease != i.Lease
	})
	noError(t, g.Deregister(ctx))
	if _, err := c.Instance(ctx, "web", "1"); !errors.Is(err, client.ErrNotFound) {
		t.Errorf("got %v", err)
	}
	noError(t, g.Err())
	noError(t, other.Deregister(ctx))
	if deleted, err := c.Deregister(ctx, "web", "2"); err != nil || deleted {
		t.Errorf("deleted %v, %v", deleted, err)
	}
}

// A node that is stopped takes every request and answers none, or goes silent in the
// middle. Who observes an election goes on to the next one.
func TestObserveOverAStoppedNode(t *testing.T) {
	leads := func(token int) string {
		return fmt.Sprintf("event: leader\ndata: {\"name\":\"e\",\"token\":%d,\"fence\":\"e:%d\",\"lease\":\"1\",\"value\":\"\",\"mod_revision\":%d}\n\n", token, token, token)
	}
	for _, test := range []struct {
		name  string
		nodes [][]step // of all but the last one, what answers
	}{
		{"no answer", [][]step{{stays}}},
		{"silence", [][]step{{streams(leads(6), stays)}}},
		{"out of touch", [][]step{{streams("event: doubtful\ndata: {}\n\n", stays)}}},
		{"no answer behind a node that is gone", [][]step{{breaks}, {stays}}},
		{"out of touch behind a node that is gone", [][]step{{breaks}, {streams("event: doubtful\ndata: {}\n\n", stays)}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var endpoints []string
			for _, steps := range test.nodes {
				endpoints = append(endpoints, newScript(t, steps...).url)
			}
			c := newClient(t, append(endpoints, newScript(t, streams(leads(7), stays)).url)...)
			c.SetSilence(200 * time.Millisecond)
			for l, err := range c.Observe(patient(t), "e") {
				noError(t, err)
				if l != nil && l.Token == 7 {
					break
				}
			}
		})
	}
}

// An end of the context that is near is an error, and not that nobody leads.
func TestObserveEndsWithItsContext(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(refuses(api.CodeNoLeader)))
	defer server.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	var last error
	for l, err := range newClient(t, server.URL).Observe(ctx, "e") {
		if err == nil {
			t.Errorf("got the leader %v of a node that knows none", l)
		}
		last = err
	}
	if !errors.Is(last, context.DeadlineExceeded) {
		t.Errorf("ended with %v", last)
	}
}

// What a leader proclaims, and the end of a registration, are not sent again when
// they may have been applied: the first sending may arrive late.
func TestNoRepetitionThatMayComeLate(t *testing.T) {
	ctx := patient(t)
	n := newTurnNode(t, answers(`{"name":"e","token":7,"fence":"e:7","lease":"01KB0000000000000000000000"}`), breaks, answers(`{"revision":13}`))
	l, err := newClient(t, n.url).Campaign(ctx, "e", []byte("a"), client.CampaignOptions{})
	noError(t, err)
	wantError(t, l.Proclaim(ctx, []byte("b")), client.ErrOutcomeUnknown)
	if got := len(n.asked()); got != 2 {
		t.Errorf("%d requests, want the campaign and one more", got)
	}
	noError(t, l.Resign(ctx))

	deleted := answers(`{"revision":13,"deleted":1}`)
	s := newScript(t, breaks)
	_, err = newClient(t, s.url, newScript(t, deleted).url).Deregister(ctx, "web", "1")
	wantError(t, err, client.ErrOutcomeUnknown)

	instance := answers(`{"service":"web","instance":"1","lease":"01KB0000000000000000000000","ttl_seconds":3600}`)
	s = newScript(t, breaks, instance, breaks)
	g, err := newClient(t, s.url).Register(ctx, "web", "1", api.Registration{TTLSeconds: 3600})
	noError(t, err)
	wantError(t, g.Deregister(ctx), client.ErrOutcomeUnknown)
	if got := len(s.requests()); got != 3 {
		t.Errorf("%d requests, want the registration, again, and its end", got)
	}
}
