package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/internal/sse"
	"github.com/cairnkv/cairn/internal/testkit"
	"github.com/cairnkv/cairn/kv"
)

var heldLease = kv.LeaseID{1, 'h'}

// A holding is the client's side of a hold.
type holding struct {
	t      testing.TB
	resp   *http.Response
	cancel context.CancelFunc
	events *sse.Reader
	raw    *bytes.Buffer // all that came
}

// holdKit is a kit with a lease of 1 s. Every renewal is told to the channel.
func holdKit(t *testing.T, change ...func(*Config)) (*kit, chan struct{}) {
	k := newKit(t, change...)
	k.member.apply(t, &kv.Command{Kind: kv.KindLeaseGrant, Lease: kv.Lease{ID: heldLease, Number: 5, TTLMillis: 1000}})
	renewals := make(chan struct{}, 1000)
	k.member.proposing = func(c *kv.Command) error {
		if c.Kind == kv.KindLeaseRenew {
			renewals <- struct{}{}
		}
		return nil
	}
	return k, renewals
}

// transports are the ways to a server without TLS.
func transports(t *testing.T) map[string]*http.Transport {
	one, two := &http.Transport{}, &http.Transport{Protocols: new(http.Protocols)}
	two.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(one.CloseIdleConnections)
	t.Cleanup(two.CloseIdleConnections)
	return map[string]*http.Transport{"HTTP/1.1": one, "HTTP/2.0": two}
}

// startHold sends the request for a stream.
func (k *kit) startHold(transport *http.Transport, path, body string) *holding {
	k.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	k.t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+k.addr+path, strings.NewReader(body))
	if err != nil {
		k.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", api.TypeJSON)
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		k.t.Fatal(err)
	}
	k.t.Cleanup(func() { _ = resp.Body.Close() })
	raw := &bytes.Buffer{}
	return &holding{k.t, resp, cancel, sse.NewReader(io.TeeReader(resp.Body, raw), 1<<20), raw}
}

// A body of a hold, which takes none, is dropped, as is one that says only by its end that
// it is empty.
func TestHoldOfABody(t *testing.T) {
	for name, transport := range transports(t) {
		for _, body := range []string{"{}", ""} {
			k := newKit(t)
			k.member.apply(t, &kv.Command{Kind: kv.KindLeaseGrant, Lease: kv.Lease{ID: heldLease, Number: 5, TTLMillis: 60_000}})
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+k.addr+"/v1/leases/5/hold", io.MultiReader(strings.NewReader(body)))
			must(t, err)
			resp, err := transport.RoundTrip(req)
			must(t, err)
			if resp.StatusCode != 200 {
				t.Errorf("%s, %q: %s", name, body, resp.Status)
			}
			must(t, resp.Body.Close())
		}
	}
}

// hold opens the stream and reads its first event.
func (k *kit) hold(transport *http.Transport) *holding {
	k.t.Helper()
	h := k.startHold(transport, "/v1/leases/5/hold", "")
	raw, resp := h.raw, h.resp
	var granted api.Granted
	if e := h.next(); e.Type != api.EventHeld || json.Unmarshal(e.Data, &granted) != nil ||
		granted != (api.Granted{ID: heldLease.String(), Number: "5", TTLSeconds: 1}) {
		k.t.Fatalf("the first event is %+v", e)
	}
	if !strings.HasPrefix(raw.String(), ": connected\n\n") || resp.StatusCode != 200 || resp.Header.Get("Content-Type") != sse.ContentType {
		k.t.Fatalf("the answer is %d %v %q", resp.StatusCode, resp.Header, raw)
	}
	return h
}

func (h *holding) next() sse.Event {
	h.t.Helper()
	e, err := h.events.Next()
	if err != nil {
		h.t.Fatalf("%v after %q", err, h.raw)
	}
	return e
}

// ends reads the last event.
func (h *holding) ends(event string) {
	h.t.Helper()
	var end api.LeaseEnd
	if e := h.next(); e.Type != event || json.Unmarshal(e.Data, &end) != nil || end.ID != heldLease.String() {
		h.t.Errorf("the stream ends with %+v, want %s", e, event)
	}
	if e, err := h.events.Next(); !errors.Is(err, io.EOF) {
		h.t.Errorf("after the end: %+v %v", e, err)
	}
}

func receive(t testing.TB, c <-chan struct{}, n int) {
	t.Helper()
	for range n {
		select {
		case <-c:
		case <-time.After(time.Minute):
			t.Fatal("nothing came")
		}
	}
}

// ended waits until n streams have ended on the server's side.
func (k *kit) ended(n int) {
	k.t.Helper()
	want := `cairn_http_request_seconds_count{method="POST",route="/v1/leases/{id}/hold"} ` + strconv.Itoa(n) + "\n"
	testkit.Eventually(k.t, "the server ends the stream of a client that is gone", func() bool {
		return strings.Contains(string(k.do("GET", "/metrics", nil).body), want)
	})
}

// While the connection is open the lease is renewed, one after the other, and
// when it is closed that ends.
func TestHold(t *testing.T) {
	for proto, transport := range transports(t) {
		t.Run(proto, func(t *testing.T) {
			k, renewals := holdKit(t)
			h := k.hold(transport)
			if h.resp.Proto != proto {
				t.Fatalf("speaks %s", h.resp.Proto)
			}
			receive(t, renewals, 4)
			h.cancel()
			k.ended(1)
			if strings.Contains(h.raw.String(), "event: "+api.EventDraining) {
				t.Errorf("the stream says %q", h.raw)
			}
			k.stillServes()
		})
	}
}

// A lease that ends is an end with a name, and so is a server that drains.
func TestHoldEnds(t *testing.T) {
	for proto, transport := range transports(t) {
		t.Run(proto, func(t *testing.T) {
			k, _ := holdKit(t)
			h := k.hold(transport)
			k.member.apply(t, &kv.Command{Kind: kv.KindLeaseRevoke, Lease: kv.Lease{ID: heldLease}})
			h.ends(api.EventLeaseNotFound)

			k, _ = holdKit(t)
			h = k.hold(transport)
			down := make(chan error, 1)
			go func() { down <- k.server.Shutdown(context.Background()) }()
			h.ends(api.EventDraining)
			if err := <-down; err != nil {
				t.Errorf("shutting down: %v", err)
			}
		})
	}
}

// Without a leader the stream goes on; the renewal is tried again. Once the lease
// may have ended the client is told, and once it is known not to have.
func TestHoldOverFailures(t *testing.T) {
	for proto, transport := range transports(t) {
		t.Run(proto, func(t *testing.T) {
			k, renewals := holdKit(t)
			h := k.hold(transport)
			receive(t, renewals, 2)
			k.member.mu.Lock()
			healthy := k.member.proposing
			k.member.proposing = func(*kv.Command) error { return kv.Errorf(kv.NoLeader, "made to fail") }
			k.member.mu.Unlock()
			var doubtful api.LeaseEnd
			if e := h.next(); e.Type != api.EventDoubtful || json.Unmarshal(e.Data, &doubtful) != nil || doubtful.ID != heldLease.String() {
				t.Fatalf("the client is told %+v", e)
			}
			k.member.mu.Lock()
			k.member.proposing = healthy
			k.member.mu.Unlock()
			var held api.Granted
			if e := h.next(); e.Type != api.EventHeld || json.Unmarshal(e.Data, &held) != nil || held.ID != heldLease.String() || held.TTLSeconds != 1 {
				t.Fatalf("the client is told %+v", e)
			}
			receive(t, renewals, 2)
			h.cancel()
			k.ended(1)
		})
	}
}

// A node that may not renew any more sends the client to another one.
func TestHoldOnANodeThatRefuses(t *testing.T) {
	k, renewals := holdKit(t)
	h := k.hold(transports(t)["HTTP/1.1"])
	receive(t, renewals, 2)
	k.member.mu.Lock()
	k.member.proposing = func(*kv.Command) error { return kv.Errorf(kv.CorruptContent, "made to fail") }
	k.member.mu.Unlock()
	h.ends(api.EventDraining)
}

// A client that vanished without a word is given up, and is not renewed any more.
func TestHoldOfAClientThatVanished(t *testing.T) {
	for proto, transport := range transports(t) {
		t.Run(proto, func(t *testing.T) {
			k, renewals := holdKit(t)
			var vanished atomic.Bool
			var looks atomic.Int64
			k.server.silence = func(net.Conn) (time.Duration, bool) {
				looks.Add(1)
				if vanished.Load() {
					return 1001 * time.Millisecond, true
				}
				return 1000 * time.Millisecond, true // a slow line
			}
			h := k.hold(transport)
			receive(t, renewals, 3)
			vanished.Store(true)
			k.ended(1)
			before := len(renewals)
			if _, err := h.events.Next(); err == nil || errors.Is(err, io.EOF) {
				t.Errorf("the stream ended as if it was meant: %v, %q", err, h.raw)
			}
			if len(renewals) != before || looks.Load() < 3 {
				t.Errorf("%d renewals after the end, %d looks", len(renewals)-before, looks.Load())
			}
			k.stillServes()
		})
	}
}

// told reads the next event of a stream that holds several leases.
func (h *holding) told() (event string, about []api.Renewal) {
	h.t.Helper()
	e := h.next()
	var data api.Renewed
	if err := json.Unmarshal(e.Data, &data); err != nil {
		h.t.Fatalf("%q: %v", e.Data, err)
	}
	return e.Type, data.Leases
}

// Many leases are held by one stream, which says what was found, goes on while one
// of them lives, and tells of each that has ended.
func TestHoldSeveral(t *testing.T) {
	for proto, transport := range transports(t) {
		t.Run(proto, func(t *testing.T) {
			k, _ := holdKit(t)
			other, none := kv.LeaseID{1, 'o'}, kv.LeaseID{9}
			k.member.apply(t, &kv.Command{Kind: kv.KindLeaseGrant, Lease: kv.Lease{ID: other, Number: 6, TTLMillis: 1500}})
			h := k.startHold(transport, "/v1/leases/hold", `{"ids":["`+other.String()+`","`+none.String()+`","5","77","`+heldLease.String()+`"]}`)
			one := api.Renewal{ID: heldLease.String(), Number: "5", TTLSeconds: 1}
			two := api.Renewal{ID: other.String(), Number: "6", TTLSeconds: 1.5}
			lost := func(name string) api.Renewal { return api.Renewal{ID: name, Error: api.CodeLeaseNotFound} }
			tell := func(event string, about ...api.Renewal) {
				t.Helper()
				got, leases := h.told()
				slices.SortFunc(leases, func(a, b api.Renewal) int { return strings.Compare(a.ID, b.ID) })
				slices.SortFunc(about, func(a, b api.Renewal) int { return strings.Compare(a.ID, b.ID) })
				if got != event || !slices.Equal(leases, about) {
					t.Fatalf("told %s %+v, want %s %+v", got, leases, event, about)
				}
			}
			tell(api.EventHeld, two, lost(none.String()), one, lost("77"), one)

			k.member.mu.Lock()
			healthy := k.member.proposing
			k.member.proposing = func(*kv.Command) error { return kv.Errorf(kv.NoLeader, "made to fail") }
			k.member.mu.Unlock()
			for doubtful := map[string]bool{}; len(doubtful) < 2; {
				event, leases := h.told()
				for _, l := range leases {
					if event != api.EventDoubtful || doubtful[l.ID] || l.ID != one.ID && l.ID != two.ID {
						t.Fatalf("told %s %+v", event, leases)
					}
					doubtful[l.ID] = true
				}
			}
			k.member.mu.Lock()
			k.member.proposing = healthy
			k.member.mu.Unlock()
			for held := map[string]api.Renewal{}; len(held) < 2; {
				event, leases := h.told()
				for _, l := range leases {
					if event != api.EventHeld || l != one && l != two {
						t.Fatalf("told %s %+v", event, leases)
					}
					held[l.ID] = l
				}
			}
			k.member.apply(t, &kv.Command{Kind: kv.KindLeaseRevoke, Lease: kv.Lease{ID: heldLease}})
			tell(api.EventLeaseNotFound, lost(heldLease.String()))
			k.member.apply(t, &kv.Command{Kind: kv.KindLeaseRevoke, Lease: kv.Lease{ID: other}})
			tell(api.EventLeaseNotFound, lost(other.String()))
			if e, err := h.events.Next(); !errors.Is(err, io.EOF) {
				t.Errorf("after the last: %+v %v", e, err)
			}

			k, renewals := holdKit(t)
			h = k.startHold(transport, "/v1/leases/hold", `{"ids":["5"]}`)
			tell(api.EventHeld, one)
			receive(t, renewals, 3)
			down := make(chan error, 1)
			go func() { down <- k.server.Shutdown(context.Background()) }()
			tell(api.EventDraining)
			if err := <-down; err != nil {
				t.Errorf("shutting down: %v", err)
			}
		})
	}
}

// The memory of the leases that connections hold is bounded, and given back.
func TestHoldManyIsCounted(t *testing.T) {
	for proto, transport := range transports(t) {
		t.Run(proto, func(t *testing.T) {
			k := newKit(t)
			ids := []string{}
			for i := range 500 {
				id := kv.LeaseID{2, byte(i >> 8), byte(i)}
				k.member.apply(t, &kv.Command{Kind: kv.KindLeaseGrant, Lease: kv.Lease{ID: id, Number: int64(100 + i), TTLMillis: 60_000}})
				ids = append(ids, id.String())
			}
			body, err := json.Marshal(api.Renew{IDs: ids})
			if err != nil {
				t.Fatal(err)
			}
			held := func(n int64) {
				t.Helper()
				testkit.Eventually(t, "so much memory is counted", func() bool { return k.server.admission.held.Load() == n })
			}
			h := k.startHold(transport, "/v1/leases/hold", string(body))
			if event, leases := h.told(); event != api.EventHeld || len(leases) != 500 {
				t.Fatalf("%s of %d leases", event, len(leases))
			}
			if proto == "HTTP/1.1" { // else the request is held, too
				held(500 * heldLeaseBytes)
			}
			h.cancel()
			held(0)

			k.server.admission.held.Store(maxHeldBytes - 100_000) // there is room for the body
			answer := k.do("POST", "/v1/leases/hold", body, "Content-Type: "+api.TypeJSON)
			if answer.StatusCode != 429 {
				t.Errorf("without room: %d %s", answer.StatusCode, answer.body)
			}
			held(maxHeldBytes - 100_000)
			k.server.admission.held.Store(0)
		})
	}
}

// What can't be held is refused before there is a stream.
func TestHoldSeveralRefuses(t *testing.T) {
	k, _ := holdKit(t)
	for body, want := range map[string]int{
		`{"ids":["` + (kv.LeaseID{9}).String() + `","77"]}`: 404,
		`{"ids":[]}`:              404,
		`{}`:                      400,
		`{"ids":["5"],"ttl":1}`:   400,
		`{"ids":["not a lease"]}`: 400,
		`["5"]`:                   400,
		`{"ids":["5"` + strings.Repeat(`,"5"`, kv.MaxRenewals) + `]}`: 400,
	} {
		if got := k.do("POST", "/v1/leases/hold", []byte(body), "Content-Type: "+api.TypeJSON); got.StatusCode != want {
			t.Errorf("%.60s: %d %s, want %d", body, got.StatusCode, got.body, want)
		}
	}
	for header, want := range map[string]int{"Content-Type: text/plain": 415, "Accept: application/json": 406} {
		if got := k.do("POST", "/v1/leases/hold", []byte(`{"ids":["5"]}`), "Content-Type: "+api.TypeJSON, header); got.StatusCode != want {
			t.Errorf("%s: %d %s, want %d", header, got.StatusCode, got.body, want)
		}
	}
	for code, want := range map[kv.Code]int{kv.NoLeader: 503, kv.OutcomeUnknown: 504} {
		k.member.mu.Lock()
		k.member.proposing = func(*kv.Command) error { return kv.Errorf(code, "made to fail") }
		k.member.mu.Unlock()
		if got := k.do("POST", "/v1/leases/hold", []byte(`{"ids":["5"]}`), "Content-Type: "+api.TypeJSON); got.StatusCode != want {
			t.Errorf("%v: %d %s, want %d", code, got.StatusCode, got.body, want)
		}
	}
	k.member.mu.Lock()
	k.member.proposing = nil
	k.member.mu.Unlock()
	k.stillServes()
}

// serverConn waits for the server's end of the one connection that there is.
func (k *kit) serverConn(t *testing.T) net.Conn {
	t.Helper()
	conns := make(chan net.Conn, 1)
	k.server.silence = func(conn net.Conn) (time.Duration, bool) {
		select {
		case conns <- conn:
		default:
		}
		return 0, false
	}
	k.hold(transports(t)["HTTP/1.1"])
	return <-conns
}

// What the operating system says of a peer: one whose kernel is asked acknowledges
// that, though nobody says anything, and one that has closed is gone at once.
func TestPeerSilence(t *testing.T) {
	if _, known := peerSilence(nil); known {
		t.Error("the silence of no connection is known")
	}
	if _, known := tcpSilence(&net.TCPConn{}); known {
		t.Error("the silence of a connection that never was is known")
	}
	if runtime.GOOS != "linux" {
		t.Skip("the silence of a peer is known on Linux alone")
	}
	k := newKit(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	counted := limitListener(l, 10, time.Minute, func(int64) {}, k.server.refuseConnection, k.server.instead)
	defer func() { _ = counted.Close() }()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn, err := counted.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if !probePeer(conn, 3*time.Second) {
		t.Fatal("the peer can't be probed")
	}
	// Nothing is written, and the peer's silence ends all the same.
	var before time.Duration
	k.await("the silent peer acknowledges a probe", func() bool {
		silent, known := peerSilence(conn)
		if !known {
			t.Fatal("the silence of the peer is not known")
		}
		again := silent < before
		before = silent
		return again
	})
	// So it does with something that is said, which acknowledges nothing.
	b := make([]byte, 1)
	for range 2 {
		k.await("what the peer says ends its silence", func() bool {
			before, _ := peerSilence(conn)
			if before < 20*time.Millisecond {
				return false
			}
			_, err := client.Write(b)
			must(t, err)
			_, err = conn.Read(b)
			must(t, err)
			now, _ := peerSilence(conn)
			return now < before
		})
	}
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	over := func() bool {
		silent, known := peerSilence(conn)
		return known && silent > time.Hour
	}
	k.await("the end of the peer is known", over)
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	if !over() {
		t.Error("the end of a connection that this side has closed is not known")
	}
}

// A connection is probed as its shortest lease wants; what TCP can't do is refused.
func TestProbes(t *testing.T) {
	here, there := net.Pipe()
	defer func() { _, _ = here.Close(), there.Close() }()
	if probePeer(here, time.Minute) || probePeer(nil, time.Minute) {
		t.Error("a pipe is probed")
	}
	k, _ := holdKit(t)
	conn := k.serverConn(t)
	limited, tcp := below(conn)
	if limited == nil || tcp == nil {
		t.Fatal("the connection is not what the server made")
	}
	for _, c := range []struct {
		silent time.Duration
		ok     bool
		now    time.Duration
	}{{2999 * time.Millisecond, false, 0}, {45 * time.Second, true, 45 * time.Second}, {5 * time.Second, true, 5 * time.Second}, {30 * time.Second, true, 5 * time.Second}} {
		if ok := probePeer(conn, c.silent); ok != c.ok || limited.probes.silent != c.now {
			t.Errorf("%v: %v, and the connection is given up after %v", c.silent, ok, limited.probes.silent)
		}
	}
}
