package robustness

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oklog/ulid/v2"
)

const (
	// leaseHolders work at the same time, each with some leases in its hands, and
	// leaves what it has let go to its end.
	leaseHolders = 10
	// leasePrefix is where the keys with leases are, probePrefix where the probes
	// write.
	leasePrefix, probePrefix = "l/", "p/"
	// leaseTimeout is how long a holder waits for an answer.
	leaseTimeout = 2 * time.Second
	probeEvery   = 100 * time.Millisecond
	longTTL      = 7 * 24 * time.Hour
)

// leaseTTLs are the times to live of the leases. A fault that stops the leader
// outlasts the longest.
var leaseTTLs = [...]time.Duration{time.Second, 2 * time.Second, 3 * time.Second, 5 * time.Second}

// LeaseTraffic is clients that have leases, probes, and watchers of what ends.
type LeaseTraffic struct {
	cluster *Cluster
	random  *rand.Rand
	cancel  context.CancelFunc
	// holding ends before the rest does.
	holders, rest sync.WaitGroup
	quit          chan struct{}
	// ended counts the revisions at which somebody saw leases end.
	ended atomic.Int64

	mu    sync.Mutex
	trace LeaseTrace
	wrong []string
}

// NewLeaseTraffic prepares the clients; Start lets them work.
func NewLeaseTraffic(c *Cluster, random *rand.Rand) *LeaseTraffic {
	t := &LeaseTraffic{cluster: c, random: random, quit: make(chan struct{})}
	t.trace.Seen = map[uint64]int64{}
	t.trace.Wall = c.began.UnixNano()
	return t
}

// Start grants the long lease and lets the clients work.
func (t *LeaseTraffic) Start() error {
	h := newLeaseHTTP()
	defer h.Close()
	t.trace.Long = &LeaseLife{ID: ulid.Make().String(), TTL: int64(longTTL)}
	sent := t.now()
	a := h.Do(t.cluster.Nodes[0], grantOf(t.trace.Long.ID, longTTL))
	if err := a.explain(); err != nil {
		return fmt.Errorf("grant the long lease: %w", err)
	}
	t.trace.Long.Calls = []LeaseCall{{Sent: sent, Answered: t.now(), Outcome: Done}}
	ctx, cancel := context.WithCancel(context.Background())
	t.cancel = cancel
	for _, n := range t.cluster.Nodes {
		t.rest.Go(func() { t.watch(ctx, n) })
		t.rest.Go(func() { t.probe(ctx, n) })
	}
	random := rand.New(rand.NewPCG(t.random.Uint64(), 0))
	t.rest.Go(func() { t.read(ctx, random) })
	for id := range leaseHolders {
		h := &leaseHolder{
			t: t, name: fmt.Sprintf("%s%d", leasePrefix, id), http: newLeaseHTTP(),
			random: rand.New(rand.NewPCG(t.random.Uint64(), t.random.Uint64())),
		}
		t.holders.Go(h.work)
	}
	return nil
}

// LetGo lets the holders give up what they have; it goes on by itself.
func (t *LeaseTraffic) LetGo() {
	close(t.quit)
	t.holders.Wait()
}

// Stop ends what LetGo left, and returns the record.
func (t *LeaseTraffic) Stop() *LeaseTrace {
	t.cancel()
	t.rest.Wait()
	t.trace.End = t.now()
	return &t.trace
}

func (t *LeaseTraffic) now() int64 { return time.Since(t.cluster.began).Nanoseconds() }

// complain notes an answer that no request may get.
func (t *LeaseTraffic) complain(n *Node, q Request, a *Answer) {
	if wrong := forbidden(n, q, a); wrong != "" {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.wrong = append(t.wrong, wrong)
	}
}

func newLeaseHTTP() *HTTP {
	h := NewHTTP()
	h.client.Timeout = leaseTimeout
	return h
}

func grantOf(id string, ttl time.Duration) Request {
	return Request{
		Method: http.MethodPost, Path: "/v1/leases", Header: map[string]string{"Content-Type": "application/json"},
		Body: fmt.Appendf(nil, `{"id":%q,"ttl_seconds":%g}`, id, ttl.Seconds()),
	}
}

// AwaitEnds waits until leases have ended at so many more revisions.
func (t *LeaseTraffic) AwaitEnds(n int64) error {
	enough := t.ended.Load() + n
	_, err := retry(func() (struct{}, error) {
		if t.ended.Load() < enough {
			return struct{}{}, fmt.Errorf("too few leases end, though all nodes are ready")
		}
		return struct{}{}, nil
	})
	return err
}

// probe writes to a node at a steady pace, as long as it answers.
func (t *LeaseTraffic) probe(ctx context.Context, n *Node) {
	h := newLeaseHTTP()
	defer h.Close()
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	var probes []Probe
	for ctx.Err() == nil {
		p := Probe{Node: n.Index, Sent: t.now()}
		q := Request{Method: http.MethodPut, Path: "/v1/kv/" + probePrefix + n.Name, Body: []byte("x")}
		a := h.Do(n, q)
		p.Answered, p.Done = t.now(), a.outcome() == Done
		t.complain(n, q, &a)
		probes = append(probes, p)
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.trace.Probes = append(t.trace.Probes, probes...)
}

// read asks how long the long lease lives.
func (t *LeaseTraffic) read(ctx context.Context, random *rand.Rand) {
	h := newLeaseHTTP()
	defer h.Close()
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	var readings []Reading
	for ctx.Err() == nil {
		n := t.cluster.Nodes[random.IntN(len(t.cluster.Nodes))]
		r := Reading{Sent: t.now()}
		q := Request{Method: http.MethodGet, Path: "/v1/leases/" + t.trace.Long.ID}
		a := h.Do(n, q)
		r.Answered = t.now()
		t.complain(n, q, &a)
		if a.Status == http.StatusOK && a.Err == nil {
			var lease struct {
				Remaining float64 `json:"remaining_seconds"`
			}
			if err := json.Unmarshal(a.Body, &lease); err == nil {
				r.Remaining = int64(lease.Remaining * float64(time.Second))
				readings = append(readings, r)
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	t.trace.Readings = readings
}

// watch notes when it sees leases end, and begins again when its node does.
func (t *LeaseTraffic) watch(ctx context.Context, n *Node) {
	dialer := net.Dialer{Timeout: time.Second}
	client := &http.Client{Transport: &http.Transport{DialContext: dialer.DialContext}}
	defer client.CloseIdleConnections()
	pause := time.NewTicker(5 * pollEvery)
	defer pause.Stop()
	next := uint64(1)
	for ctx.Err() == nil {
		_ = watchLines(ctx, client, n, fmt.Sprintf("prefix=%s&type=delete&keys_only=true&from_revision=%d", leasePrefix, next), func(line *leaseLine) bool {
			if line.Event == "change" {
				t.saw(line)
				next = line.Revision + 1
			}
			return true
		})
		select {
		case <-pause.C:
		case <-ctx.Done():
		}
	}
}

func (t *LeaseTraffic) saw(line *leaseLine) {
	now := t.now()
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, before := t.trace.Seen[line.Revision]; !before {
		t.trace.Seen[line.Revision] = now
		t.ended.Add(1)
	}
}

// A leaseLine is a line of a watch.
type leaseLine struct {
	Event    string `json:"event"`
	Revision uint64 `json:"revision"`
	Events   []struct {
		Type   string    `json:"type"`
		Key    string    `json:"key"`
		Lease  string    `json:"lease"`
		Reason string    `json:"reason"`
		At     time.Time `json:"modified_at"`
	} `json:"events"`
}

// watchLines reads a watch of a node until it ends, or more says no.
func watchLines(ctx context.Context, client *http.Client, n *Node, query string, more func(*leaseLine) bool) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, n.URL()+"/v1/watch?"+query, nil)
	if err != nil {
		return err
	}
	r.Header.Set("Accept", "application/x-ndjson")
	answer, err := client.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("the watch was answered with %d", answer.StatusCode)
	}
	lines := bufio.NewReader(answer.Body)
	for {
		text, err := lines.ReadBytes('\n')
		if err != nil {
			return err
		}
		var line leaseLine
		if len(text) == 1 {
			continue
		}
		if err := json.Unmarshal(text, &line); err != nil {
			return fmt.Errorf("a line of the watch: %w: %.200q", err, text)
		}
		if !more(&line) {
			return nil
		}
	}
}

// readChanges reads what the store has done to some keys, up to a revision at
// which it did something to them.
func readChanges(n *Node, keys string, until uint64) (changes []LeaseChange, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), wholeWithin)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	err = watchLines(ctx, client, n, "from_revision=earliest&keys_only=true"+keys, func(line *leaseLine) bool {
		for _, e := range line.Events {
			changes = append(changes, LeaseChange{
				Revision: line.Revision, Key: e.Key, Lease: e.Lease, Delete: e.Type == "delete", Reason: e.Reason, Wall: e.At.UnixNano(),
			})
		}
		return line.Revision < until
	})
	return changes, err
}

// A leaseHolder is one sequential client. It takes some leases, keeps them alive
// for a while, and lets them go.
type leaseHolder struct {
	t      *LeaseTraffic
	name   string
	http   *HTTP
	random *rand.Rand
	count  int
}

func (h *leaseHolder) work() {
	defer h.http.Close()
	for {
		select {
		case <-h.t.quit:
			return
		default:
			h.live()
		}
	}
}

// do sends a request to some node.
func (h *leaseHolder) do(q Request) (LeaseCall, Answer) {
	n := h.t.cluster.Nodes[h.random.IntN(len(h.t.cluster.Nodes))]
	c := LeaseCall{Node: n.Index, Sent: h.t.now()}
	a := h.http.Do(n, q)
	c.Answered, c.Outcome = h.t.now(), a.outcome()
	h.t.complain(n, q, &a)
	return c, a
}

// insist sends a request until it was certainly applied, or refused, but not for
// long.
func (h *leaseHolder) insist(q Request, note func(LeaseCall, *Answer)) Answer {
	for range 20 {
		c, a := h.do(q)
		note(c, &a)
		if c.Outcome == Done || a.Status == http.StatusNotFound || !h.wait(20*time.Millisecond) {
			return a
		}
	}
	return Answer{}
}

// wait lets a time pass and reports whether to go on.
func (h *leaseHolder) wait(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-h.t.quit:
		return false
	}
}

// live takes leases, with keys, and keeps them for a while.
func (h *leaseHolder) live() {
	var lives []*LeaseLife
	for range 1 + h.random.IntN(3) {
		h.count++
		l := &LeaseLife{Key: fmt.Sprintf("%s/%d/0", h.name, h.count), TTL: int64(leaseTTLs[h.random.IntN(len(leaseTTLs))])}
		if h.random.IntN(4) == 0 {
			h.putOwn(l)
		} else {
			h.grant(l)
		}
		lives = append(lives, l)
	}
	defer func() {
		h.t.mu.Lock()
		defer h.t.mu.Unlock()
		h.t.trace.Lives = append(h.t.trace.Lives, lives...)
	}()
	known := slices.DeleteFunc(slices.Clone(lives), func(l *LeaseLife) bool { return l.ID == "" || len(l.Gone) > 0 })
	if len(known) == 0 {
		h.wait(50 * time.Millisecond)
		return
	}
	if l := known[h.random.IntN(len(known))]; h.random.IntN(3) == 0 {
		// Longer than it lives, so that it is seen to be kept.
		h.hold(l, time.Duration(l.TTL+h.random.Int64N(3*l.TTL)))
	}
	shortest := slices.MinFunc(known, func(a, b *LeaseLife) int { return int(a.TTL - b.TTL) }).TTL
	for range h.random.IntN(7) {
		if !h.wait(time.Duration(shortest / 3)) {
			return
		}
		if len(known) > 1 {
			h.renewMany(known)
		} else {
			h.renewOne(known[0])
		}
		// Now and then a key more, or one of another lease.
		if l := known[h.random.IntN(len(known))]; !l.Own && h.random.IntN(4) == 0 {
			h.attach(l, known[h.random.IntN(len(known))].key(1+h.random.IntN(5)))
		}
	}
	// One that renews too late may find the lease or not; if it does, its time
	// begins anew, whatever is on its way to end it.
	if l := known[0]; l.TTL <= int64(2*time.Second) && h.random.IntN(2) == 0 {
		if !h.wait(time.Duration(l.TTL) + time.Second + time.Duration(h.random.Int64N(int64(time.Second)))) {
			return
		}
		h.renewOne(l)
	}
	for _, l := range known {
		if h.random.IntN(5) == 0 {
			h.revoke(l)
		}
	}
}

// grant asks for a lease, by an id of the client's own, and attaches keys. Each
// try has an id of its own: one whose outcome is unknown may be granted at any
// time, and then is nobody's.
func (h *leaseHolder) grant(l *LeaseLife) {
	for range 20 {
		l.ID = ulid.MustNew(ulid.Now(), ulid.DefaultEntropy()).String()
		c, _ := h.do(grantOf(l.ID, time.Duration(l.TTL)))
		if c.Outcome == Done {
			l.Calls = append(l.Calls, c)
			break
		}
		if !h.wait(20 * time.Millisecond) {
			break
		}
	}
	if len(l.Calls) == 0 {
		l.ID = ""
		return
	}
	for i := range 1 + h.random.IntN(4) {
		h.attach(l, l.key(i))
	}
}

// putOwn puts a key with a time to live. The answer names its lease.
func (h *leaseHolder) putOwn(l *LeaseLife) {
	c, a := h.do(Request{Method: http.MethodPut, Path: fmt.Sprintf("/v1/kv/%s?ttl=%s", l.Key, time.Duration(l.TTL)), Body: []byte("x")})
	l.Own, l.Calls = true, append(l.Calls, c)
	if c.Outcome == Done {
		var put struct {
			Lease string `json:"lease"`
		}
		if err := json.Unmarshal(a.Body, &put); err == nil {
			l.ID = put.Lease
		}
	}
}

// key is a key for the lease; the first is Key.
func (l *LeaseLife) key(i int) string { return fmt.Sprintf("%s%d", l.Key[:len(l.Key)-1], i) }

// attach puts a key with the lease.
func (h *leaseHolder) attach(l *LeaseLife, key string) {
	h.insist(Request{Method: http.MethodPut, Path: fmt.Sprintf("/v1/kv/%s?lease=%s", key, l.ID), Body: []byte("x")}, func(c LeaseCall, a *Answer) {
		l.gone(c, a.Problem.Code)
	})
}

// gone notes the answer that there is no such lease.
func (l *LeaseLife) gone(c LeaseCall, code string) bool {
	if code == "lease-not-found" {
		l.Gone = append(l.Gone, c)
		return true
	}
	return false
}

func (h *leaseHolder) renewOne(l *LeaseLife) {
	h.insist(Request{Method: http.MethodPost, Path: "/v1/leases/" + l.ID + "/keepalive"}, func(c LeaseCall, a *Answer) {
		if !l.gone(c, a.Problem.Code) {
			l.Calls = append(l.Calls, c)
		}
	})
}

func (h *leaseHolder) renewMany(lives []*LeaseLife) {
	var ids []string
	for _, l := range lives {
		ids = append(ids, l.ID)
	}
	body, err := json.Marshal(map[string][]string{"ids": ids})
	if err != nil {
		panic(err) // strings
	}
	q := Request{
		Method: http.MethodPost, Path: "/v1/leases/keepalive", Body: body, Header: map[string]string{"Content-Type": "application/json"},
	}
	h.insist(q, func(c LeaseCall, a *Answer) {
		var renewed struct {
			Leases []struct {
				Error string `json:"error"`
			} `json:"leases"`
		}
		if c.Outcome == Done && (json.Unmarshal(a.Body, &renewed) != nil || len(renewed.Leases) != len(lives)) {
			h.t.complain(h.t.cluster.Nodes[c.Node], q, &Answer{Status: http.StatusInternalServerError, Err: fmt.Errorf("not the answer to %d leases: %s", len(lives), a.Body)})
			return
		}
		for i, l := range lives {
			if renewed.Leases == nil || !l.gone(c, renewed.Leases[i].Error) {
				l.Calls = append(l.Calls, c)
			}
		}
	})
}

func (h *leaseHolder) revoke(l *LeaseLife) {
	l.Revoked = h.t.now()
	h.do(Request{Method: http.MethodDelete, Path: "/v1/leases/" + l.ID})
}
