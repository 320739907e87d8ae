package robustness

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// waiting is how many clients wait for one lock, releases how often it changes
// hands.
const waiting, releases = 1000, 200

// TestHerd lets a thousand clients wait for one lock and hands it through the
// first of them. A release wakes those alone whose turn it may be: what the watches
// deliver, and what goes into the log, follows the number of releases and not that
// of the waiters.
func TestHerd(t *testing.T) {
	var (
		wg     sync.WaitGroup
		mu     sync.Mutex
		tokens []uint64
		handed = make(chan error, waiting)
	)
	t.Cleanup(wg.Wait) // after the cluster's end, whatever went wrong
	c, h := startCluster(t, 1)
	n := c.Nodes[0]
	acquire := func(h *HTTP) (token uint64, err error) {
		a := h.Do(n, jsonRequest(http.MethodPost, "/v1/locks/herd", `{"ttl_seconds":600,"wait_seconds":600}`))
		if err := a.explain(); err != nil {
			return 0, err
		}
		var lock struct {
			Token uint64 `json:"token"`
		}
		return lock.Token, json.Unmarshal(a.Body, &lock)
	}
	release := func(h *HTTP, token uint64) error {
		a := h.Do(n, Request{Method: http.MethodDelete, Path: fmt.Sprintf("/v1/locks/herd?token=%d", token)})
		return a.explain()
	}
	first, err := acquire(h)
	must(t, err)
	for range waiting {
		wg.Go(func() {
			h := NewHTTP()
			defer h.Close()
			h.client.Timeout = 10 * time.Minute
			token, err := acquire(h)
			mu.Lock()
			n := len(tokens) + 1
			if err == nil && n <= releases {
				tokens = append(tokens, token)
			}
			mu.Unlock()
			if err == nil && n < releases {
				err = release(h, token)
			}
			if err != nil || n == releases {
				handed <- err // the first of them ends it; the others end with the cluster
			}
		})
	}
	_, err = retry(func() (struct{}, error) {
		a := h.Do(n, Request{Method: http.MethodGet, Path: "/v1/locks/herd"})
		var state struct {
			Waiting int `json:"waiting"`
		}
		err := json.Unmarshal(a.Body, &state)
		if err == nil && state.Waiting != waiting {
			err = fmt.Errorf("%d wait", state.Waiting)
		}
		return struct{}{}, err
	})
	must(t, err)

	before := measure(t, h, n)
	must(t, release(h, first))
	must(t, <-handed)
	after := measure(t, h, n)

	mu.Lock()
	defer mu.Unlock()
	if len(tokens) != releases || !slices.IsSorted(tokens) {
		t.Errorf("%d waiters got the lock, in order: %v", len(tokens), slices.IsSorted(tokens))
	}
	woken := (after.changes - before.changes) / releases
	took := after.at.Sub(before.at)
	// Beside it there are renewals, of each waiter every 4 s, and steps of the
	// clock.
	beside := waiting*(took.Seconds()/4+1) + 4*took.Seconds()
	entries := after.index - before.index
	t.Logf("a release: %.2f changes delivered, %.2f entries of the log with renewals; %d releases in %v",
		woken, entries/releases, releases, took.Round(time.Millisecond))
	if woken < 1 || woken > 5 {
		t.Errorf("a release delivers %.2f changes to waiters, want a few", woken)
	}
	if entries > 5*releases+beside {
		t.Errorf("%d releases made %.0f entries in the log, want a few each, and up to %.0f for renewals", releases, entries, beside)
	}
}

// A measurement is what a node counted so far.
type measurement struct {
	at             time.Time
	changes, index float64
}

func measure(t *testing.T, h *HTTP, n *Node) measurement {
	t.Helper()
	a := h.Do(n, Request{Method: http.MethodGet, Path: "/metrics", Header: map[string]string{"Accept": "text/plain"}})
	must(t, a.explain())
	m, found := measurement{at: time.Now()}, false
	for lines := bufio.NewScanner(bytes.NewReader(a.Body)); lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "cairn_watch_changes_total{") {
			value, err := strconv.ParseFloat(lines.Text()[strings.LastIndexByte(lines.Text(), ' ')+1:], 64)
			must(t, err)
			m.changes, found = m.changes+value, true
		}
	}
	if !found {
		t.Fatal("/metrics does not have cairn_watch_changes_total")
	}
	index, err := appliedIndex(h, n)
	must(t, err)
	m.index = float64(index)
	return m
}
