package robustness

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// wild are the keys that random commands work on, and many those of bulk writes.
const (
	wild = 500
	many = 30_000
)

// randomCommand invents a request that changes something, in one of all the ways
// that there are.
func randomCommand(random *rand.Rand, id int) Request {
	key := func() string { return fmt.Sprintf("w/%03d", random.IntN(wild)) }
	q := Request{Method: http.MethodPut, Path: "/v1/kv/" + key(), Header: map[string]string{}}
	if random.IntN(8) == 0 {
		q.Header["Idempotency-Key"] = fmt.Sprintf("%d", id)
	}
	switch random.IntN(11) {
	case 10:
		if random.IntN(4) > 0 {
			break
		}
		q.Method, q.Path = http.MethodPost, "/v1/kv"
		q.Header = map[string]string{"Content-Type": "application/x-ndjson", "Accept": "application/x-ndjson"}
		for range 1 + random.IntN(300) {
			q.Body = fmt.Appendf(q.Body, `{"put":{"key":"many/%05d","value":"%d of %s"}}`+"\n", random.IntN(many), id, strings.Repeat("x", random.IntN(1000)))
		}
	case 0, 1, 2:
		q.Body = bytes.Repeat([]byte{byte('a' + id%26)}, random.IntN(300))
	case 3:
		q.Path += "?ttl=" + []string{"1s", "2s", "30s"}[random.IntN(3)]
		q.Body = fmt.Append(nil, id)
	case 4:
		q.Method = http.MethodDelete
	case 5:
		q.Method, q.Path = http.MethodDelete, fmt.Sprintf("/v1/kv?prefix=w/%02d", random.IntN(wild/10))
		if random.IntN(4) == 0 {
			q.Path = fmt.Sprintf("/v1/kv?prefix=many/%03d", random.IntN(many/100))
		}
	default:
		var ops []string
		for range 1 + random.IntN(5) {
			switch random.IntN(5) {
			case 0:
				ops = append(ops, fmt.Sprintf(`{"delete":{"key":%q}}`, key()))
			case 1:
				ops = append(ops, fmt.Sprintf(`{"increment":{"key":"n/%d","by":%d}}`, random.IntN(5), random.IntN(9)-4))
			case 2:
				ops = append(ops, fmt.Sprintf(`{"txn":{"if":[{"key":%q,"version":{"gt":1}}],"then":[{"delete":{"prefix":"w/%02d"}}]}}`, key(), random.IntN(wild/10)))
			default:
				ops = append(ops, fmt.Sprintf(`{"put":{"key":%q,"value":"%d"}}`, key(), id))
			}
		}
		q.Method, q.Path = http.MethodPost, "/v1/txn"
		q.Header["Content-Type"] = "application/json"
		q.Body = fmt.Appendf(nil, `{"if":[{"key":%q,"exists":true}],"then":[%s],"else":[{"put":{"key":%q,"value":"else"}}]}`,
			key(), strings.Join(ops, ","), key())
	}
	return q
}

// work sends random commands from several clients until enough were decided.
func work(t *testing.T, c *Cluster, random *rand.Rand, enough int64) (decided *atomic.Int64, wait func()) {
	var wg sync.WaitGroup
	decided = new(atomic.Int64)
	for worker := range 4 {
		random := rand.New(rand.NewPCG(random.Uint64(), random.Uint64()))
		wg.Go(func() {
			h := NewHTTP()
			defer h.Close()
			for id := worker; decided.Load() < enough; id += 4 {
				n := c.Nodes[random.IntN(len(c.Nodes))]
				q := randomCommand(random, id)
				switch a := h.Do(n, q); {
				case a.Status == 500 || a.Status >= 400 && a.Problem.Code == "",
					slices.Contains([]int{405, 406, 415}, a.Status), a.Status == 400 && a.Problem.Code != "duplicate-key": // not understood
					t.Errorf("%s answers %d %q to %s %s", n.Name, a.Status, a.Problem.Code, q.Method, q.Path)
					decided.Store(enough)
				case a.Status >= 200 && a.Status < 500 && a.Status != 429 && a.Err == nil:
					decided.Add(1)
				case a.NeverSent:
					moment(random, 0, 20*time.Millisecond) // the node is down
				}
			}
		})
	}
	return decided, wg.Wait
}

// TestDifferentFlags runs random commands on three nodes that have nothing in
// common but the log: caches, the pace of compaction, the moments of their
// deaths. All that is replicated must come out the same. Then it sends commands
// that are beyond the budget of one, which must be refused whole.
func TestDifferentFlags(t *testing.T) {
	beside(t)
	random := rand.New(rand.NewPCG(Seed(t), 0))
	c := NewCluster(t, NewEvidence(t), random, Layout{Size: 3, Flags: [][]string{
		{"--cache", "1MiB", "--auto-compaction-keep", "2s", "--log-level", "warn"},
		{"--cache", "256MiB", "--auto-compaction-keep", "1h", "--quota", "1GiB"},
		{"--auto-compaction-keep", "10s", "--log-level", "debug", "--log-format", "json"},
	}})
	must(t, c.Start())
	h := NewHTTP()
	defer h.Close()

	enough := int64(6_000)
	if Long() {
		enough = 1_000_000
	}
	decided, wait := work(t, c, random, enough)
	for decided.Load() < enough {
		n := c.Nodes[random.IntN(len(c.Nodes))]
		moment(random, 500*time.Millisecond, 3*time.Second)
		c.Note("kill -9 %s after %d commands", n.Name, decided.Load())
		must(t, n.Kill())
		moment(random, 0, time.Second)
		must(t, n.Start())
		// How soon it is ready is looked at elsewhere: hundreds of kills meet each bad
		// moment of the machine.
		took, err := n.AwaitReady(wholeWithin)
		must(t, err)
		c.Note("%s is ready after %v", n.Name, took.Round(time.Millisecond))
	}
	wait()
	awaitSame(t, c, h)

	overBudget(t, c, h)
	awaitSame(t, c, h)
	var v Verdict
	v.CheckLogs(c)
	Judge(t, &v)
}

// awaitSame waits until the nodes agree on the hash of their content and
// history, and on the figures of all that is replicated besides.
func awaitSame(t *testing.T, c *Cluster, h *HTTP) {
	t.Helper()
	type figures struct {
		Revision    uint64 `json:"revision"`
		Compact     uint64 `json:"compact_revision"`
		Keys        uint64 `json:"keys"`
		Leases      uint64 `json:"leases"`
		Idempotency uint64 `json:"idempotency_records"`
	}
	_, err := retry(func() (struct{}, error) {
		if _, err := c.AwaitEqual(h, 1); err != nil {
			return struct{}{}, err
		}
		var all []figures
		for _, n := range c.Nodes {
			var f figures
			a := h.Do(n, Request{Method: http.MethodGet, Path: "/v1/status"})
			if err := a.explain(); err != nil {
				return struct{}{}, err
			}
			if err := json.Unmarshal(a.Body, &f); err != nil {
				return struct{}{}, err
			}
			all = append(all, f)
		}
		if all[0] != all[1] || all[1] != all[2] {
			return struct{}{}, fmt.Errorf("the nodes differ: %+v", all)
		}
		return struct{}{}, nil
	})
	must(t, err)
}

// overBudget sends commands that pass the budget of a command, and wants each
// refused as a whole, by every node, with no harm to any.
func overBudget(t *testing.T, c *Cluster, h *HTTP) {
	t.Helper()
	const beyond, large, values = 101_000, 1 << 20, 5 // of 100,000 keys and 4 MiB
	report, err := Load(c.Nodes[0], func(yield func(Pair) bool) {
		for i := 0; i < beyond && yield(Pair{fmt.Sprintf("beyond/%06d", i), "x"}); i++ {
		}
	})
	must(t, err)
	if report.Applied != beyond {
		t.Fatalf("loaded %+v", report)
	}
	report, err = Load(c.Nodes[0], func(yield func(Pair) bool) {
		value := strings.Repeat("x", large)
		for i := 0; i < values && yield(Pair{fmt.Sprintf("large/%02d", i), value}); i++ {
		}
	})
	must(t, err)
	if report.Applied != values {
		t.Fatalf("loaded %+v", report)
	}

	var gets []string
	for i := range values {
		gets = append(gets, fmt.Sprintf(`{"get":{"key":"large/%02d"}}`, i))
	}
	reads := fmt.Appendf(nil, `{"then":[{"put":{"key":"marker","value":"x"}},%s]}`, strings.Join(gets, ","))
	for _, n := range slices.Concat(c.Nodes, c.Nodes) {
		a := h.Do(n, Request{Method: http.MethodDelete, Path: "/v1/kv?prefix=beyond/"})
		if a.Status != 413 || a.Problem.Code != "transaction-too-large" {
			t.Errorf("%s: deleting %d keys at once answers %d %q", n.Name, beyond, a.Status, a.Problem.Code)
		}
		a = h.Do(n, Request{Method: http.MethodPost, Path: "/v1/txn", Body: reads, Header: map[string]string{"Content-Type": "application/json"}})
		if a.Status != 413 || a.Problem.Code != "transaction-too-large" {
			t.Errorf("%s: a result of %d bytes answers %d %q", n.Name, values*large, a.Status, a.Problem.Code)
		}
	}
	for _, n := range c.Nodes {
		if !n.Running() {
			t.Errorf("%s did not survive commands beyond the budget", n.Name)
		}
		if got, _ := status(h, n, http.MethodGet, "/v1/kv/marker", ""); got != 404 {
			t.Errorf("%s: a part of a refused transaction was applied (%d)", n.Name, got)
		}
		a := h.Do(n, Request{Method: http.MethodGet, Path: "/v1/kv?prefix=beyond/&count_only=true&limit=1"})
		var list struct {
			Count int `json:"count"`
		}
		if err := json.Unmarshal(a.Body, &list); err != nil || list.Count != beyond {
			t.Errorf("%s: %d of %d keys are left after a refused delete (%d %s)", n.Name, list.Count, beyond, a.Status, a.Body)
		}
	}
}
