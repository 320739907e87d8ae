package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/client"
)

// Whoever waits is told their place as they move up.
func TestLockTellsThePlace(t *testing.T) {
	ctx := patient(t)
	c := newClient(t, newNode(t))
	first, err := c.Lock(ctx, "l", client.LockOptions{})
	noError(t, err)
	waits := func(ctx context.Context, o client.LockOptions) <-chan error {
		done := make(chan error, 1)
		go func() {
			_, err := c.Lock(ctx, "l", o)
			done <- err
		}()
		return done
	}
	queued := func(n int) {
		awaitTrue(ctx, t, fmt.Sprint(n, " wait"), func() bool {
			s, err := c.LockState(ctx, "l")
			return err == nil && s.Waiting == n
		})
	}
	leaving, leave := context.WithCancel(ctx)
	second := waits(leaving, client.LockOptions{})
	queued(1)
	places := make(chan int, 10)
	third := waits(ctx, client.LockOptions{Waiting: func(before int) { places <- before }})
	queued(2)
	place := func(want int) {
		t.Helper()
		select {
		case got := <-places:
			if got != want {
				t.Errorf("%d are before it, want %d", got, want)
			}
		case <-ctx.Done():
			t.Fatalf("never told that %d are before it", want)
		}
	}
	place(1)
	leave()
	if err := <-second; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	place(0)
	noError(t, first.Release(ctx))
	noError(t, <-third)
	if len(places) > 0 {
		t.Errorf("told %d more", len(places))
	}
}

// A turnNode answers claims as it is told, one step each, and takes all else that a
// session needs.
type turnNode struct {
	url string

	mu     sync.Mutex
	steps  []step
	claims []received
	others int
}

func newTurnNode(t *testing.T, steps ...step) *turnNode {
	t.Helper()
	n := &turnNode{steps: steps}
	server := httptest.NewServer(n)
	t.Cleanup(server.Close)
	t.Cleanup(server.CloseClientConnections)
	n.url = server.URL
	return n
}

func (n *turnNode) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	next := answers(`{"id":"01KB0000000000000000000000","number":"1","ttl_seconds":10,"deleted":0,"revision":2}`)
	if strings.HasPrefix(r.URL.Path, "/v1/locks/") || strings.HasPrefix(r.URL.Path, "/v1/elections/") {
		n.mu.Lock()
		n.claims = append(n.claims, received{method: r.Method, target: r.Header.Get("Accept"), body: string(body)})
		if next = breaks; len(n.steps) > 0 {
			next, n.steps = n.steps[0], n.steps[1:]
		}
		n.mu.Unlock()
	} else {
		n.mu.Lock()
		n.others++
		n.mu.Unlock()
	}
	next(w, r)
}

func (n *turnNode) asked() []received {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.claims)
}

// besides is how many requests came that are no claims.
func (n *turnNode) besides() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.others
}

const granted = `{"name":"l","token":7,"fence":"l:7","lease":"01KB0000000000000000000000"}`

// events is a stream that breaks off, or stays silent until the client leaves.
func events(text string, silent bool) step {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, text)
		_ = http.NewResponseController(w).Flush()
		if silent {
			<-r.Context().Done()
		}
		panic(http.ErrAbortHandler)
	}
}

// mute says nothing at all, as a process does that is stopped.
func mute(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

// A wait goes on, with its lease, wherever it breaks off.
func TestLockWaitGoesOn(t *testing.T) {
	waiting, acquired := "event: waiting\ndata: {\"before\":3}\n\n", "event: acquired\nid: 7\ndata: "+granted+"\n\n"
	draining := "event: error\ndata: {\"type\":\"urn:cairn:problem:shutting-down\",\"title\":\"x\",\"status\":503,\"code\":\"shutting-down\"}\n\n"
	for _, c := range []struct {
		name  string
		first step
		told  []int
	}{
		{"the connection breaks", events(waiting, false), []int{3, 1}},
		{"the node stops", events(waiting+draining, false), []int{3, 1}},
		{"the stream falls silent", events(waiting, true), []int{3, 1}},
		{"the process is stopped", mute, []int{1}},
		{"the node is not there", breaks, []int{1}},
		{"the node has no leader", refuses(api.CodeNoLeader), []int{1}},
		{"the wait is over", refuses(api.CodeLockHeld), []int{1}}, // by a node that serves, which is asked again
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			grants := events("event: waiting\ndata: {\"before\":1}\n\n: still here\n\nevent: later\ndata: {}\n\n"+acquired, false)
			a, b, want := newTurnNode(t, c.first), newTurnNode(t, grants), [2]int{1, 1}
			if c.name == "the wait is over" {
				a, b, want = newTurnNode(t, c.first, grants), newTurnNode(t), [2]int{2, 0}
			}
			cl := newClient(t, a.url, b.url)
			cl.SetSilence(200 * time.Millisecond)
			var told []int
			l, err := cl.Lock(patient(t), "l", client.LockOptions{Waiting: func(before int) { told = append(told, before) }})
			noError(t, err)
			if l.Token != 7 || l.Fence != "l:7" || !slices.Equal(told, c.told) {
				t.Errorf("got %+v, told %v, want %v", l.Lock, told, c.told)
			}
			claims := append(a.asked(), b.asked()...)
			for _, claim := range claims {
				if claim.body != claims[0].body || !strings.HasPrefix(claim.target, "text/event-stream") {
					t.Errorf("claimed %+v, first %+v", claim, claims[0])
				}
			}
			if got := [2]int{len(a.asked()), len(b.asked())}; got != want {
				t.Errorf("%d claims, want %d", got, want)
			}
			noError(t, l.Release(patient(t)))
		})
	}
}

// A node is lost on which a lock is waited for, and the next one is stopped: it takes
// the claim and never answers.
func TestLockWaitOverAStoppedNode(t *testing.T) {
	a := newTurnNode(t, events("event: waiting\ndata: {\"before\":3}\n\n", false))
	b := newTurnNode(t, mute, mute, mute, mute)
	c := newTurnNode(t, events("event: acquired\nid: 7\ndata: "+granted+"\n\n", false))
	cl := newClient(t, a.url, b.url, c.url)
	cl.SetSilence(200 * time.Millisecond)
	l, err := cl.Lock(patient(t), "l", client.LockOptions{})
	noError(t, err)
	if l.Token != 7 || len(b.asked()) != 1 {
		t.Errorf("got %+v, after %d claims that were not answered", l.Lock, len(b.asked()))
	}
	noError(t, l.Release(patient(t)))
}

// That a caller has lost interest in a wait says nothing of the node that serves it: it
// is asked for all that comes.
func TestLockWaitThatIsCanceled(t *testing.T) {
	ctx, cancel := context.WithCancel(patient(t))
	a := newTurnNode(t, func(_ http.ResponseWriter, r *http.Request) { cancel(); <-r.Context().Done() })
	b := newScript(t) // has no answers
	c := newClient(t, a.url, b.url)
	if _, err := c.Lock(ctx, "l", client.LockOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	_, err := c.Leases().Renew(patient(t), "1")
	noError(t, err)
}

// expiring is a context whose deadline passes when over is closed.
type expiring struct {
	context.Context
	over chan struct{}
}

func (e expiring) Done() <-chan struct{} { return e.over }

func (e expiring) Err() error {
	select {
	case <-e.over:
		return context.DeadlineExceeded
	default:
		return nil
	}
}

// Neither does a deadline that passes while the node says that others are before. Of a
// node that has not said so it does, whatever the one before it had said.
func TestLockWaitThatTakesTooLong(t *testing.T) {
	const waiting = "event: waiting\ndata: {\"before\":3}\n\n"
	for _, test := range []struct {
		name  string
		over  int // the node that is asked when the deadline passes
		nodes []step
		next  int // the one that is asked for what comes
	}{
		{"in the queue", 0, []step{events(waiting, true), breaks}, 0},
		{"without a word", 0, []step{mute, breaks}, 1},
		{"without a word, behind a node that is lost", 1, []step{events(waiting, false), mute, breaks}, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			ctx := expiring{patient(t), make(chan struct{})}
			var nodes []*turnNode
			var endpoints []string
			for i, next := range test.nodes {
				if i == test.over && test.next != i {
					answer := next
					next = func(w http.ResponseWriter, r *http.Request) { close(ctx.over); answer(w, r) }
				}
				nodes = append(nodes, newTurnNode(t, next))
				endpoints = append(endpoints, nodes[i].url)
			}
			c := newClient(t, endpoints...)
			o := client.LockOptions{Waiting: func(int) {
				if test.over == 0 {
					close(ctx.over)
				}
			}}
			if _, err := c.Lock(ctx, "l", o); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
			before := nodes[test.next].besides()
			_, err := c.Leases().Renew(patient(t), "1")
			noError(t, err)
			if nodes[test.next].besides() != before+1 {
				t.Errorf("node %d is not asked for what comes", test.next)
			}
		})
	}
}

// A node that has answered and then says that another one is to be asked is left, also
// where it was not the first.
func TestLockWaitOverANodeThatStopsBehindOneThatIsGone(t *testing.T) {
	draining := "event: error\ndata: {\"type\":\"urn:cairn:problem:shutting-down\",\"title\":\"x\",\"status\":503,\"code\":\"shutting-down\"}\n\n"
	a, b := newTurnNode(t, breaks), newTurnNode(t, events(draining, false))
	c := newTurnNode(t, events("event: acquired\nid: 7\ndata: "+granted+"\n\n", false))
	l, err := newClient(t, a.url, b.url, c.url).Lock(patient(t), "l", client.LockOptions{})
	noError(t, err)
	if got := len(b.asked()); got != 1 {
		t.Errorf("%d claims on the node that stops", got)
	}
	noError(t, l.Release(patient(t)))
}

// A node that refuses a claim serves, and is asked for what comes.
func TestRefusedClaimStaysWithItsNode(t *testing.T) {
	a, b := newTurnNode(t, refuses(api.CodeLockHeld), refuses(api.CodeLockHeld)), newTurnNode(t)
	c := newClient(t, a.url, b.url)
	for range 2 {
		if _, err := c.TryLock(patient(t), "l", client.LockOptions{}); err == nil {
			t.Fatal("the lock was granted")
		}
	}
	if len(a.asked()) != 2 || len(b.asked())+b.besides() != 0 {
		t.Errorf("%d claims on the node that refuses, %d requests on the other one", len(a.asked()), len(b.asked())+b.besides())
	}
}

// A lease under which nothing was granted is revoked by another node where the one that
// was asked first is stopped. There is little time for that, more than once if the
// machine of the test needs it.
func TestLeaseIsGivenUpOverAStoppedNode(t *testing.T) {
	awaitTrue(patient(t), t, "it is revoked", func() bool {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		lease := answers(`{"id":"01KB0000000000000000000000","number":"1","ttl_seconds":60}`)
		a := newScript(t, lease, lease, func(_ http.ResponseWriter, r *http.Request) { cancel(); <-r.Context().Done() }, mute, mute)
		b := newScript(t, answers(`{"revision":2,"deleted":0}`))
		c := newClient(t, a.url, b.url)
		if _, err := c.Lock(ctx, "l", client.LockOptions{TTL: time.Minute}); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		got := b.requests()
		return len(got) == 1 && got[0].method == http.MethodDelete
	})
}

// A node that has no events for claims answers once; a refusal ends the wait.
func TestLockWaitWithoutEvents(t *testing.T) {
	n := newTurnNode(t, answers(granted), refuses(api.CodeInvalidArgument),
		events("event: error\ndata: {\"status\":404,\"code\":\"lease-not-found\"}\n\n", false), events("event: acquired\ndata: {\n\n", false), answers(granted))
	c := newClient(t, n.url)
	l, err := c.Lock(patient(t), "l", client.LockOptions{})
	noError(t, err)
	if l.Token != 7 {
		t.Errorf("got %+v", l.Lock)
	}
	noError(t, l.Release(patient(t)))
	for _, want := range []error{client.ErrInvalid, client.ErrLeaseNotFound} {
		if _, err := c.Lock(patient(t), "l", client.LockOptions{}); !errors.Is(err, want) {
			t.Errorf("got %v, want %v", err, want)
		}
	}
	// What can't be read is no answer; it is asked again.
	l, err = c.Lock(patient(t), "l", client.LockOptions{})
	noError(t, err)
	if got := len(n.asked()); l.Token != 7 || got != 5 {
		t.Errorf("got %+v after %d claims", l.Lock, got)
	}
	noError(t, l.Release(patient(t)))
}

// The node that serves a wait stops; the place in the queue stays.
func TestLockWaitOverANodeThatStops(t *testing.T) {
	nodes := newCluster(t)
	ctx := patient(t)
	holder := newClient(t, nodes[1].URL())
	held, err := holder.Lock(ctx, "l", client.LockOptions{})
	noError(t, err)
	queued := func(c *client.Client, n int) {
		awaitTrue(ctx, t, fmt.Sprint(n, " wait"), func() bool {
			s, err := c.LockState(ctx, "l")
			return err == nil && s.Waiting == n
		})
	}
	got := make(chan string, 2)
	var ended sync.WaitGroup
	defer ended.Wait()
	wait := func(name string, c *client.Client) {
		l, err := c.Lock(ctx, "l", client.LockOptions{Owner: name})
		if err != nil {
			got <- err.Error()
			return
		}
		got <- name
		if err := l.Release(ctx); err != nil {
			t.Error(err)
		}
	}
	first, second := newClient(t, nodes[0].URL(), nodes[1].URL(), nodes[2].URL()), newClient(t, nodes[1].URL())
	ended.Go(func() { wait("first", first) })
	queued(holder, 1)
	ended.Go(func() { wait("second", second) })
	queued(holder, 2)
	noError(t, nodes[0].Shutdown(ctx))
	queued(holder, 2)
	noError(t, held.Release(ctx))
	for _, want := range []string{"first", "second"} {
		if name := <-got; name != want {
			t.Errorf("got %s, want %s", name, want)
		}
	}
}
