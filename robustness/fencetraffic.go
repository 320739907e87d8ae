package robustness

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// fenceLocks are contended for at the same time, fencePrefix is where their
// holders write.
const (
	fenceLocks  = 3
	fencePrefix = "f/"
	// turnWithin is longer than any time for which a lock waits: for the lease of
	// its last holder, a new leader, and the turn.
	turnWithin = 25 * time.Second
)

// FenceTraffic is holders of locks that lose them without knowing, and act as if
// they had them.
type FenceTraffic struct {
	cluster *Cluster
	wg      sync.WaitGroup
	quit    chan struct{}
	// turns counts the times that somebody lost a lock and tried all routes.
	turns atomic.Int64

	mu    sync.Mutex
	trace FenceTrace
	wrong []string
}

// NewFenceTraffic lets pairs of clients contend until Stop.
func NewFenceTraffic(c *Cluster, random *rand.Rand) *FenceTraffic {
	t := &FenceTraffic{cluster: c, quit: make(chan struct{})}
	for i := range fenceLocks {
		p := &fencePair{t: t, lock: fmt.Sprintf("lock-%d", i), http: NewHTTP(), random: rand.New(rand.NewPCG(random.Uint64(), 0))}
		p.http.client.Timeout = turnWithin + requestTimeout
		t.wg.Go(p.work)
	}
	return t
}

// Stop returns when every client has its last answer.
func (t *FenceTraffic) Stop() {
	close(t.quit)
	t.wg.Wait()
}

func (t *FenceTraffic) now() int64 { return time.Since(t.cluster.began).Nanoseconds() }

// AwaitTurns waits until so many more locks were lost and tried.
func (t *FenceTraffic) AwaitTurns(n int64) error {
	enough := t.turns.Load() + n
	_, err := retry(func() (struct{}, error) {
		if t.turns.Load() < enough {
			return struct{}{}, fmt.Errorf("locks don't go from holder to holder, though all nodes are ready")
		}
		return struct{}{}, nil
	})
	return err
}

// A fencePair is two clients of one lock, of which the second gets it when the
// first no longer renews it, as one that is stopped doesn't.
type fencePair struct {
	t      *FenceTraffic
	lock   string
	http   *HTTP
	random *rand.Rand
	count  int
}

func (p *fencePair) work() {
	defer p.http.Close()
	for {
		select {
		case <-p.t.quit:
			return
		default:
		}
		first, ok := p.acquire()
		if !ok {
			continue
		}
		p.write(&first, 2)
		second, ok := p.acquire()
		if !ok {
			continue
		}
		// The first wakes up.
		p.write(&first, len(fencedRoutes))
		p.write(&second, 2)
		p.t.turns.Add(1)
	}
}

func (p *fencePair) node() *Node { return p.t.cluster.Nodes[p.random.IntN(len(p.t.cluster.Nodes))] }

// acquire waits for the lock. One of unknown outcome is nobody's and goes with its
// lease.
func (p *fencePair) acquire() (h Holding, ok bool) {
	q := Request{
		Method: http.MethodPost, Path: "/v1/locks/" + p.lock, Header: map[string]string{"Content-Type": "application/json"},
		Body: fmt.Appendf(nil, `{"ttl_seconds":1,"wait_seconds":%g}`, turnWithin.Seconds()),
	}
	h = Holding{Lock: p.lock, Sent: p.t.now()}
	n := p.node()
	a := p.http.Do(n, q)
	h.Answered = p.t.now()
	p.t.complain(n, q, &a)
	var lock struct {
		Token uint64 `json:"token"`
	}
	if a.Status != http.StatusOK || a.Err != nil || json.Unmarshal(a.Body, &lock) != nil {
		moment(p.random, pollEvery, 5*pollEvery) // as clients do: not at once again
		return h, false
	}
	h.Token = lock.Token
	p.t.mu.Lock()
	defer p.t.mu.Unlock()
	p.t.trace.Held = append(p.t.trace.Held, h)
	return h, true
}

// complain notes an answer that no request may get.
func (t *FenceTraffic) complain(n *Node, q Request, a *Answer) {
	if wrong := forbidden(n, q, a); wrong != "" {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.wrong = append(t.wrong, wrong)
	}
}

// A fencedRoute is a way to write that can carry a fence.
type fencedRoute struct {
	name    string
	deletes bool
	request func(key string) Request
}

// jsonRequest and bulkRequest are requests with a body of one of the two types.
func jsonRequest(method, path, body string, args ...any) Request {
	return Request{Method: method, Path: path, Body: fmt.Appendf(nil, body, args...), Header: map[string]string{"Content-Type": "application/json"}}
}

func bulkRequest(lines string, args ...any) Request {
	return Request{
		Method: http.MethodPost, Path: "/v1/kv", Body: fmt.Appendf(nil, lines+"\n", args...),
		Header: map[string]string{"Content-Type": "application/x-ndjson", "Accept": "application/x-ndjson"},
	}
}

// fencedRoutes are all of them but sequences, whose keys their clients don't
// choose.
var fencedRoutes = []fencedRoute{
	{"put", false, func(k string) Request { return Request{Method: http.MethodPut, Path: "/v1/kv/" + k, Body: []byte("x")} }},
	{"put by query", false, func(k string) Request {
		return Request{Method: http.MethodPut, Path: "/v1/key?key=" + k, Body: []byte("x")}
	}},
	{"put with a time to live", false, func(k string) Request {
		return Request{Method: http.MethodPut, Path: "/v1/kv/" + k + "?ttl=1h", Body: []byte("x")}
	}},
	{"txn", false, func(k string) Request {
		return jsonRequest(http.MethodPost, "/v1/txn", `{"then":[{"put":{"key":%q,"value":"x"}}]}`, k)
	}},
	{"nested txn, else", false, func(k string) Request {
		return jsonRequest(http.MethodPost, "/v1/txn", `{"then":[{"txn":{"if":[{"key":%q,"exists":true}],"else":[{"increment":{"key":%q}}]}}]}`, k, k)
	}},
	{"bulk", false, func(k string) Request {
		return bulkRequest(`{"put":{"key":%q,"value":"x"}}`, k)
	}},
	{"delete", true, func(k string) Request { return Request{Method: http.MethodDelete, Path: "/v1/kv/" + k} }},
	{"delete by query", true, func(k string) Request { return Request{Method: http.MethodDelete, Path: "/v1/key?key=" + k} }},
	{"range delete", true, func(k string) Request { return Request{Method: http.MethodDelete, Path: "/v1/kv?prefix=" + k} }},
	{"txn delete", true, func(k string) Request {
		return jsonRequest(http.MethodPost, "/v1/txn", `{"then":[{"delete":{"prefix":%q}}]}`, k)
	}},
	{"bulk delete", true, func(k string) Request {
		return bulkRequest(`{"delete":{"key":%q}}`, k)
	}},
}

// write sends writes under a holder's fence, each by another route.
func (p *fencePair) write(h *Holding, n int) {
	for _, i := range p.random.Perm(len(fencedRoutes))[:n] {
		p.count++
		r := &fencedRoutes[i]
		w := FencedWrite{Lock: h.Lock, Token: h.Token, Route: r.name, Key: fmt.Sprintf("%s%s/%d.", fencePrefix, p.lock, p.count), Deletes: r.deletes}
		if r.deletes {
			if _, err := AwaitWrite(p.http, p.node(), w.Key, "to be deleted"); err != nil {
				continue
			}
		}
		q := r.request(w.Key)
		if q.Header == nil {
			q.Header = map[string]string{}
		}
		q.Header["Cairn-Fencing"] = fmt.Sprintf("%s:%d", h.Lock, h.Token)
		node := p.node()
		w.Sent = p.t.now()
		a := p.http.Do(node, q)
		w.Answered = p.t.now()
		p.t.complain(node, q, &a)
		w.Status, w.Code, w.Outcome, w.Revision = a.Status, a.Problem.Code, a.outcome(), a.Revision
		if strings.HasPrefix(r.name, "bulk") && a.Status == http.StatusOK {
			w.bulk(a.Body)
		}
		p.t.mu.Lock()
		p.t.trace.Writes = append(p.t.trace.Writes, w)
		p.t.mu.Unlock()
	}
}

// bulk takes over what the last line of a bulk write says.
func (w *FencedWrite) bulk(body []byte) {
	lines := bytes.Split(bytes.TrimSpace(body), []byte("\n"))
	var last struct {
		Done     bool   `json:"done"`
		Revision uint64 `json:"revision"`
		Unknown  int    `json:"outcome_unknown_lines"`
		Error    struct {
			Status int    `json:"status"`
			Code   string `json:"code"`
		} `json:"error"`
	}
	err := json.Unmarshal(lines[len(lines)-1], &last)
	switch {
	case err == nil && last.Done:
		w.Outcome, w.Revision = Done, last.Revision
	case err != nil || last.Unknown > 0 || last.Error.Status == http.StatusGatewayTimeout:
		w.Outcome, w.Status = Unknown, http.StatusGatewayTimeout
	default:
		w.Outcome, w.Status, w.Code = NotApplied, last.Error.Status, last.Error.Code
	}
}

// A FenceScenario is locks that are lost, and a fault in each round.
type FenceScenario struct {
	Layout Layout
	Rounds int
	Faults []Fault
	Seed   uint64
}

// turnsAround is how many locks are lost before each fault and after it.
const turnsAround = 2

// Run plays the scenario and returns what was wrong.
func (s FenceScenario) Run(t testing.TB) *Verdict {
	t.Helper()
	random := rand.New(rand.NewPCG(s.Seed, 0))
	v := &Verdict{}
	c := NewCluster(t, s.Layout.evidence(t), random, s.Layout)
	if err := c.Start(); err != nil {
		v.Add("the first start: %v", err)
		return v
	}
	traffic := NewFenceTraffic(c, random)
	for round := range s.Rounds {
		c.Note("round %d", round+1)
		err := traffic.AwaitTurns(turnsAround)
		if err == nil {
			err = s.Faults[round%len(s.Faults)](c, random, round/len(s.Faults))
		}
		if err == nil {
			err = c.AwaitReady(c.Nodes)
		}
		if err == nil {
			err = traffic.AwaitTurns(turnsAround)
		}
		if err != nil {
			v.Add("round %d: %v", round+1, err)
			break
		}
	}
	traffic.Stop()
	s.judge(c, traffic, v)
	return v
}

func (s FenceScenario) judge(c *Cluster, traffic *FenceTraffic, v *Verdict) {
	trace := &traffic.trace
	defer func() { v.AddError(c.Evidence.WriteJSON("fences.json", trace)) }()
	for _, wrong := range traffic.wrong {
		v.Add("%s", wrong)
	}
	v.CheckLogs(c)
	h := NewHTTP()
	defer h.Close()
	// The last lock of the account is the mark at which it ends.
	a, err := AwaitWrite(h, c.Nodes[0], fencePrefix+"last", "whole")
	if err == nil {
		trace.Changes, err = readChanges(c.Nodes[0], "&prefix="+fencePrefix, a.Revision)
	}
	if err == nil {
		a, err = retry(func() (Answer, error) {
			q := jsonRequest(http.MethodPost, "/v1/locks/last", `{"ttl_seconds":60}`)
			a := h.Do(c.Nodes[0], q)
			return a, a.explain()
		})
	}
	if err == nil {
		trace.Holders, err = readChanges(c.Nodes[0], "&prefix="+locksPrefix, a.Revision)
	}
	if err != nil {
		v.Add("what the store has done can't be read: %v", err)
		return
	}
	stale, wrong := trace.Fences()
	for _, w := range append(trace.Tokens(), wrong...) {
		v.Add("%s", w)
	}
	c.Note("locks were taken %d times, %d writes carried a fence, %d of them came too late and were refused", len(trace.Held), len(trace.Writes), stale)
	if turns := int(traffic.turns.Load()); stale < turns*len(fencedRoutes)/2 {
		v.Add("too little was proven: %d turns, and %d writes that were refused as stale", turns, stale)
	}
	v.CheckLeaks(c)
	if hash, err := c.AwaitEqual(h, a.Revision); err != nil {
		v.Add("the nodes are not equal at the end: %v", err)
	} else {
		c.Note("all nodes are at revision %d with hash %.16s", hash.Revision, hash.Hash)
	}
}
