package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/internal/sse"
	"github.com/cairnkv/cairn/internal/testkit"
	"github.com/cairnkv/cairn/kv"
)

const sendsJSON = "Content-Type: application/json"

// await waits until what a test wants to see is there.
func (k *kit) await(what string, holds func() bool) {
	k.t.Helper()
	testkit.Eventually(k.t, what, holds)
}

// awaitFollowers waits until so many wait for a change, and have seen all before.
func (k *kit) awaitFollowers(n int) {
	k.t.Helper()
	k.await(fmt.Sprintf("%d wait", n), func() bool {
		current, _ := k.member.store.Revisions()
		return k.member.following(0) == n && k.member.following(current) == n
	})
}

// background sends a request whose answer arrives later.
func (k *kit) background(method, target, body string, headers ...string) <-chan *answer {
	answers := make(chan *answer, 1)
	var sent []byte
	if body != "" {
		sent = []byte(body)
	}
	go func() { answers <- k.do(method, target, sent, headers...) }()
	return answers
}

// A lock goes from hand to hand: who waits sees its place, and gets the lock when
// its turn has come.
func TestLockQueue(t *testing.T) {
	k := newKit(t)
	var first, second api.Lock
	k.do("POST", "/v1/locks/l", []byte(`{"ttl_seconds":60,"owner":"a"}`), sendsJSON).read(t, &first)
	b := k.background("POST", "/v1/locks/l", `{"ttl_seconds":60,"wait_seconds":60,"owner":"b"}`, sendsJSON)
	k.awaitFollowers(1)
	c := k.background("POST", "/v1/locks/l", `{"ttl_seconds":60,"wait_seconds":60,"owner":"c","mode":"read"}`, sendsJSON)
	k.awaitFollowers(2)
	var s api.LockState
	k.do("GET", "/v1/locks/l", nil).read(t, &s)
	if len(s.Holders) != 1 || s.Holders[0].Owner != "a" || s.Waiting != 2 || len(s.Queue) != 2 ||
		s.Queue[0].Owner != "b" || s.Queue[0].Place != 1 || s.Queue[1].Owner != "c" || s.Queue[1].Mode != api.ModeRead || s.Queue[1].Place != 2 {
		t.Errorf("state %+v", s)
	}
	p := k.do("POST", "/v1/locks/l", []byte(`{"ttl_seconds":60}`), sendsJSON).problem(t)
	if p.Code != api.CodeLockHeld || p.Waiting != 2 || p.Holder == nil || p.Holder.Owner != "a" || p.Holder.Token != first.Token {
		t.Errorf("problem %+v", p)
	}
	k.do("DELETE", fmt.Sprint("/v1/locks/l?token=", first.Token), nil).want(t, 200, "")
	(<-b).read(t, &second)
	if second.Owner != "b" || second.Token <= first.Token {
		t.Errorf("got %+v", second)
	}
	k.do("PUT", "/v1/kv/k", []byte("late"), "Cairn-Fencing: "+first.Fence).want(t, 412, api.CodeFencingTokenStale)
	k.do("PUT", "/v1/kv/k", []byte("in time"), "Cairn-Fencing: "+second.Fence).want(t, 201, "")
	k.do("DELETE", fmt.Sprint("/v1/locks/l?token=", second.Token), nil).want(t, 200, "")
	(<-c).want(t, 200, "")
}

// Who waits for a lock in events is told its place, whenever that changes, and then
// that it has the lock, or why not.
func TestLockInEvents(t *testing.T) {
	k := newKit(t)
	var first, second api.Lock
	k.do("POST", "/v1/locks/l", []byte(`{"ttl_seconds":60}`), sendsJSON).read(t, &first)
	// Without wait_seconds it waits for an hour.
	b := k.background("POST", "/v1/locks/l", `{"ttl_seconds":60,"owner":"b"}`, sendsJSON, "Accept: text/event-stream")
	k.awaitFollowers(1)
	c := k.background("POST", "/v1/locks/l", `{"ttl_seconds":60,"wait_seconds":60,"owner":"c"}`, sendsJSON, "Accept: text/event-stream")
	k.awaitFollowers(2)
	k.do("DELETE", fmt.Sprint("/v1/locks/l?token=", first.Token), nil).want(t, 200, "")
	events := func(a *answer) (got []string, last []byte) {
		t.Helper()
		a.want(t, 200, "")
		for r := sse.NewReader(bytes.NewReader(a.body), 1<<20); ; {
			e, err := r.Next()
			if errors.Is(err, io.EOF) {
				return got, last
			}
			if err != nil {
				t.Fatal(err)
			}
			last = e.Data
			text := e.Type
			if e.Type == api.EventWaiting {
				text += " " + string(e.Data)
			}
			got = append(got, text)
		}
	}
	got, last := events(<-b)
	if want := []string{`waiting {"before":0}`, "acquired"}; !slices.Equal(got, want) {
		t.Errorf("b is told %q, want %q", got, want)
	}
	if err := json.Unmarshal(last, &second); err != nil || second.Owner != "b" || second.Token <= first.Token || second.Fence == "" {
		t.Errorf("acquired %s, %v", last, err)
	}
	k.awaitFollowers(1)
	if err := k.server.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	got, last = events(<-c)
	if want := []string{`waiting {"before":1}`, `waiting {"before":0}`, "error"}; !slices.Equal(got, want) {
		t.Errorf("c is told %q, want %q", got, want)
	}
	var p api.Problem
	if err := json.Unmarshal(last, &p); err != nil || p.Code != api.CodeShuttingDown || p.RetryAfterSeconds != 1 {
		t.Errorf("the stream ends with %s, %v", last, err)
	}
}

// A client that goes away while it waits leaves nothing, and one that is told of
// the end of its server has nothing either.
func TestWaitCutOff(t *testing.T) {
	k := newKit(t)
	k.do("POST", "/v1/locks/l", []byte(`{"ttl_seconds":60}`), sendsJSON).want(t, 200, "")
	ctx, cancel := context.WithCancel(context.Background())
	r, err := http.NewRequestWithContext(ctx, "POST", "http://"+k.addr+"/v1/locks/l", strings.NewReader(`{"ttl_seconds":60,"wait_seconds":60}`))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", api.TypeJSON)
	done := make(chan error, 1)
	go func() {
		resp, err := k.contract.next.RoundTrip(r)
		if err == nil {
			_ = resp.Body.Close()
		}
		done <- err
	}()
	k.awaitFollowers(1)
	waiting := func() int {
		var s api.LockState
		k.do("GET", "/v1/locks/l", nil).read(t, &s)
		return s.Waiting
	}
	if n := waiting(); n != 1 {
		t.Errorf("%d wait", n)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	k.await("the queue is empty", func() bool { return waiting() == 0 })

	b := k.background("POST", "/v1/locks/l", `{"ttl_seconds":60,"wait_seconds":60}`, sendsJSON)
	k.awaitFollowers(1)
	events := k.background("POST", "/v1/elections/e", `{"ttl_seconds":60}`, sendsJSON)
	(<-events).want(t, 200, "")
	events = k.background("POST", "/v1/elections/e", `{"ttl_seconds":60}`, sendsJSON, "Accept: text/event-stream")
	k.awaitFollowers(2)
	if err := k.server.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	(<-b).want(t, 503, api.CodeShuttingDown)
	stream := (<-events).body
	if !strings.Contains(string(stream), "event: waiting\ndata: {\"before\":0}\n\nevent: error\ndata: {") || !strings.Contains(string(stream), `"code":"shutting-down"`) {
		t.Errorf("the stream ends with %s", stream)
	}
	v, err := k.member.View()
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	if s, err := k.server.recipes.Lock(context.Background(), v, "l"); err != nil || s.Waiting > 0 {
		t.Errorf("%d are left in the queue, %v", s.Waiting, err)
	}
}

// A client that vanished without a word while it waits loses its place, and its lease is
// not renewed any more, however it waits.
func TestWaitOfAClientThatVanished(t *testing.T) {
	for proto, transport := range transports(t) {
		for _, accept := range []string{api.TypeJSON, sse.ContentType} {
			t.Run(proto+" "+accept, func(t *testing.T) {
				k, renewals := holdKit(t)
				var vanished atomic.Bool
				k.server.silence = func(net.Conn) (time.Duration, bool) {
					if vanished.Load() {
						return maxWaiterSilence + time.Millisecond, true
					}
					return maxWaiterSilence, true // a slow line
				}
				k.do("POST", "/v1/locks/l", []byte(`{"ttl_seconds":60}`), sendsJSON).want(t, 200, "")
				r, err := http.NewRequest("POST", "http://"+k.addr+"/v1/locks/l", strings.NewReader(`{"lease":"`+heldLease.String()+`","wait_seconds":3600}`))
				must(t, err)
				r.Header.Set("Content-Type", api.TypeJSON)
				r.Header.Set("Accept", accept)
				ended := make(chan error, 1)
				go func() {
					resp, err := transport.RoundTrip(r)
					if err == nil {
						_, err = io.Copy(io.Discard, resp.Body)
						_ = resp.Body.Close()
					}
					ended <- err
				}()
				k.awaitFollowers(1)
				receive(t, renewals, 3)
				vanished.Store(true)
				if err := <-ended; err == nil {
					t.Error("it ended as if that was meant")
				}
				k.await("the queue is empty", func() bool {
					var s api.LockState
					k.do("GET", "/v1/locks/l", nil).read(t, &s)
					return s.Waiting == 0
				})
				k.stillServes()
			})
		}
	}
}

// lateWriter is an answer over HTTP/2 that notes the deadlines of its writes.
type lateWriter struct {
	httptest.ResponseRecorder
	deadlines []time.Time
}

func (w *lateWriter) SetWriteDeadline(t time.Time) error {
	w.deadlines = append(w.deadlines, t)
	return nil
}

// A stream that has nothing to say for longer than a write may take goes on: over
// HTTP/2 a deadline that is left behind would reset it.
func TestStreamLeavesNoDeadline(t *testing.T) {
	k := newKit(t)
	w := &lateWriter{}
	s := &stream{x: &exchange{s: k.server, w: w, r: &http.Request{ProtoMajor: 2}}}
	for _, size := range []int{1, 100, 100_000} {
		w.deadlines = nil
		must(t, s.event("", "e", make([]byte, size)))
		if n := len(w.deadlines); n < 2 || w.deadlines[0].IsZero() || !w.deadlines[n-1].IsZero() {
			t.Errorf("an event of %d bytes has the deadlines %v", size, w.deadlines)
		}
	}
}

// What a stream has said is not kept for as long as it is open, if it was much.
func TestStreamKeepsLittle(t *testing.T) {
	k := newKit(t)
	s := &stream{x: &exchange{s: k.server, w: &lateWriter{}, r: &http.Request{ProtoMajor: 1}}}
	h := &hold{to: s}
	for _, size := range []int{1, 1 << 20} {
		must(t, s.event("", "e", make([]byte, size)))
		must(t, h.tell("e", make([]byte, size)))
		if cap(s.out) > freeBytes || cap(h.out) > freeBytes {
			t.Errorf("%d and %d bytes are kept of an event of %d", cap(s.out), cap(h.out), size)
		}
	}
}

// What a leader proclaims counts for as long as an observer takes it, and where there is
// no room for it the stream breaks off.
func TestObserversAreCounted(t *testing.T) {
	k := newKit(t)
	value := strings.Repeat("v<", 1<<19)
	var leader api.Leader
	k.do("POST", "/v1/elections/e", fmt.Appendf(nil, `{"ttl_seconds":60,"value":%q}`, value), sendsJSON).read(t, &leader)
	r, err := http.NewRequest("GET", "http://"+k.addr+"/v1/elections/e/observe", nil)
	must(t, err)
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(r)
	must(t, err)
	defer func() { _ = resp.Body.Close() }()
	held := &k.server.admission.held
	k.await("what is being written is counted", func() bool { return held.Load() == 1<<20+2*(1<<20+5<<19) })
	events := sse.NewReader(resp.Body, 4<<20)
	if e, err := events.Next(); err != nil || e.Type != api.EventLeader || len(e.Data) < len(value) {
		t.Fatalf("told %s of %d bytes, %v", e.Type, len(e.Data), err)
	}
	k.await("what was written is not", func() bool { return held.Load() == 0 })

	held.Store(maxHeldBytes)
	k.member.apply(t, &kv.Command{Kind: kv.KindTxn, Txn: &kv.Txn{Then: []kv.Op{
		{Type: kv.OpPut, Key: []byte("_cairn/elections/e/leader"), Value: []byte(value), IgnoreLease: true},
	}}})
	if e, err := events.Next(); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("without room the stream goes on with %s, %v", e.Type, err)
	}
	k.await("the stream has ended", func() bool { return k.server.admission.streams.Load() == 0 })
	if n := held.Load(); n != maxHeldBytes {
		t.Errorf("%d bytes are counted for nothing", n-maxHeldBytes)
	}
	held.Store(0)
}

// A client that vanished before its turn came does not get the lock.
func TestTurnOfAClientThatVanished(t *testing.T) {
	k := newKit(t)
	var vanished atomic.Bool
	k.server.silence = func(net.Conn) (time.Duration, bool) { return time.Hour, vanished.Load() }
	var first api.Lock
	k.do("POST", "/v1/locks/l", []byte(`{"ttl_seconds":60}`), sendsJSON).read(t, &first)
	r, err := http.NewRequest("POST", "http://"+k.addr+"/v1/locks/l", strings.NewReader(`{"ttl_seconds":60,"wait_seconds":3600}`))
	must(t, err)
	r.Header.Set("Content-Type", api.TypeJSON)
	ended := make(chan error, 1)
	go func() {
		resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(r)
		if err == nil {
			_ = resp.Body.Close()
		}
		ended <- err
	}()
	k.awaitFollowers(1)
	vanished.Store(true)
	k.do("DELETE", fmt.Sprint("/v1/locks/l?token=", first.Token), nil).want(t, 200, "")
	if err := <-ended; err == nil {
		t.Error("a client that is gone had an answer")
	}
	var s api.LockState
	k.do("GET", "/v1/locks/l", nil).read(t, &s)
	if len(s.Holders) > 0 || s.Waiting > 0 {
		t.Errorf("a client that is gone has left %+v", s)
	}
}

// An observer that vanished is let go as well.
func TestObserverThatVanished(t *testing.T) {
	k := newKit(t)
	k.server.doubtAfter = 20 * time.Millisecond // it looks twice in that time
	k.server.silence = func(net.Conn) (time.Duration, bool) { return time.Hour, true }
	r, err := http.NewRequest("GET", "http://"+k.addr+"/v1/elections/e/observe", nil)
	must(t, err)
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(r)
	must(t, err)
	defer func() { _ = resp.Body.Close() }()
	if _, err := io.Copy(io.Discard, resp.Body); err == nil {
		t.Error("the stream ended as if that was meant")
	}
}

// An observer is told who leads, at first and after each change, and not again
// after a reconnect.
// Who observes an election on a node that is out of touch is told so.
func TestObserveDoubtful(t *testing.T) {
	m := newMember(t)
	k := newKitOn(t, m)
	k.server.doubtAfter = 20 * time.Millisecond
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+k.addr+"/v1/elections/e/observe", nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	events := sse.NewReader(resp.Body, 1<<20)
	want := func(event string) {
		t.Helper()
		if e, err := events.Next(); err != nil || e.Type != event {
			t.Fatalf("got %+v, %v; want %s", e, err, event)
		}
	}
	want("vacant")
	m.notReady.Store(true)
	want("doubtful")
	m.notReady.Store(false)
	want("certain")
}

func TestObserve(t *testing.T) {
	k := newKit(t)
	first := k.background("GET", "/v1/elections/e/observe", "")
	k.awaitFollowers(1)
	step := func(observers int, method, target, body string) *answer {
		t.Helper()
		var sent []byte
		if body != "" {
			sent = []byte(body)
		}
		a := k.do(method, target, sent, sendsJSON)
		a.want(t, 200, "")
		k.awaitFollowers(observers)
		return a
	}
	var a api.Leader
	step(1, "POST", "/v1/elections/e", `{"ttl_seconds":60,"value":"a"}`).read(t, &a)
	step(1, "PUT", "/v1/elections/e", fmt.Sprintf(`{"token":%d,"value":"a2"}`, a.Token))
	known := a.Token + 1
	again := k.background("GET", "/v1/elections/e/observe", "", fmt.Sprint("Last-Event-ID: ", known))
	k.awaitFollowers(2)
	step(2, "DELETE", fmt.Sprint("/v1/elections/e?token=", a.Token), "")
	if err := k.server.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		answer *answer
		want   string
	}{
		{<-first, fmt.Sprintf("1 vacant \n%d leader a\n%d leader a2\n%d vacant \n%d draining \n", a.Token, known, known+1, known+1)},
		{<-again, fmt.Sprintf("%d vacant \n%d draining \n", known+1, known+1)},
	} {
		var got strings.Builder
		for r := sse.NewReader(bytes.NewReader(c.answer.body), 1<<20); ; {
			e, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			var l api.Leader
			if err := json.Unmarshal(e.Data, &l); err != nil || l.Name != "e" {
				t.Errorf("data %s: %v", e.Data, err)
			}
			fmt.Fprintf(&got, "%s %s %s\n", e.ID, e.Type, l.Value)
		}
		if got.String() != c.want {
			t.Errorf("got\n%swant\n%s", &got, c.want)
		}
	}
}

// What is too large is refused before anything is asked of the store.
func TestRecipesBound(t *testing.T) {
	k := newKit(t)
	value := strings.Repeat("v", 1<<20+1)
	k.do("POST", "/v1/elections/e", fmt.Appendf(nil, `{"ttl_seconds":60,"value":"%s"}`, value), sendsJSON).want(t, 413, api.CodeValueTooLarge)
	k.do("PUT", "/v1/elections/e", fmt.Appendf(nil, `{"token":5,"value":"%s"}`, value), sendsJSON).want(t, 413, api.CodeValueTooLarge)
	k.do("PUT", "/v1/services/s/i", fmt.Appendf(nil, `{"ttl_seconds":60,"metadata":{"a":"%s"}}`, value[:1<<16]), sendsJSON).want(t, 413, api.CodeRequestTooLarge)
	many := strings.Repeat(`"t",`, 64) + `"t"`
	k.do("PUT", "/v1/services/s/i", fmt.Appendf(nil, `{"ttl_seconds":60,"tags":[%s]}`, many), sendsJSON).want(t, 400, api.CodeInvalidArgument)
	if current, _ := k.member.store.Revisions(); current != 1 {
		t.Errorf("something was written: revision %d", current)
	}
}
