package robustness

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const (
	// churnRate is how many watches are opened a second, and closed again.
	churnRate = 1000
	// churnHold is how long one stays open at most.
	churnHold = time.Second
	// churnOpening is how many wait for their answer at the same time. Where the
	// machine has too little time for the rate, the rate falls, and not the nodes.
	churnOpening = 300
	// wholeStay stands for a day in which seven watches are opened a second.
	wholeStay = 10 * time.Minute
)

// TestWatchChurn simulates a day by minutes in which a thousand watches are
// opened and closed a second, in an orderly way, abruptly, or before the answer:
// each is answered, and in the end the nodes have as many goroutines, descriptors
// and bytes as before.
func TestWatchChurn(t *testing.T) {
	s := newWatchStage(t)
	s.traffic.Start()
	must(t, s.traffic.Await(minWrites))
	warm, stay := 3*time.Second, 6*time.Second
	if Long() {
		warm, stay = time.Minute, wholeStay
	}
	// What a node allocates once, for the first of its clients, is no leak.
	churn(t, s, warm)
	before := settled(t, s)
	opened, took := churn(t, s, stay)
	after := settled(t, s)
	t.Logf("%d watches were opened in %v, %.0f a second", opened, took.Round(time.Second), float64(opened)/took.Seconds())
	for i, b := range before {
		a := after[i]
		t.Logf("%s before: %v", s.c.Nodes[i].Name, b)
		t.Logf("%s after:  %v", s.c.Nodes[i].Name, a)
		if a.watches != 0 {
			t.Errorf("%s still has %v watches", s.c.Nodes[i].Name, a.watches)
		}
		if a.goroutines > b.goroutines+20 {
			t.Errorf("%s has %v goroutines; it had %v", s.c.Nodes[i].Name, a.goroutines, b.goroutines)
		}
		if a.descriptors > b.descriptors+20 {
			t.Errorf("%s has %v descriptors; it had %v", s.c.Nodes[i].Name, a.descriptors, b.descriptors)
		}
		if a.heap > b.heap+(32<<20) {
			t.Errorf("%s has %.1f MiB on its heap; it had %.1f", s.c.Nodes[i].Name, a.heap/(1<<20), b.heap/(1<<20))
		}
	}
	_, err := s.traffic.Stop()
	must(t, err)
	s.judge(nil)
}

// A footprint is what a node takes.
type footprint struct{ watches, goroutines, descriptors, heap, resident float64 }

func (f footprint) String() string {
	return fmt.Sprintf("%.0f watches, %.0f goroutines, %.0f descriptors, %.1f MiB heap, %.1f MiB resident",
		f.watches, f.goroutines, f.descriptors, f.heap/(1<<20), f.resident/(1<<20))
}

// settled waits until no node has a watch any more, and then measures them over
// two collections of garbage, which the traffic brings about.
func settled(t *testing.T, s *watchStage) (all []footprint) {
	t.Helper()
	h := NewHTTP()
	defer h.Close()
	for _, n := range s.c.Nodes {
		var least footprint
		collected := -1.0
		_, err := retry(func() (struct{}, error) {
			m, err := ReadMeters(h, n)
			if err != nil {
				return struct{}{}, err
			}
			f := footprint{
				m[`cairn_watches{state="live"}`] + m[`cairn_watches{state="behind"}`], m["go_goroutines"],
				m["process_open_fds"] - openTables(n), m["go_memstats_heap_alloc_bytes"], m["process_resident_memory_bytes"],
			}
			if f.watches > 0 {
				return struct{}{}, fmt.Errorf("%s has %v watches", n.Name, f.watches)
			}
			if collected < 0 {
				least, collected = f, m["go_gc_duration_seconds_count"]
			}
			least.goroutines, least.descriptors = min(least.goroutines, f.goroutines), min(least.descriptors, f.descriptors)
			least.heap, least.resident = min(least.heap, f.heap), f.resident
			if m["go_gc_duration_seconds_count"] < collected+2 {
				return struct{}{}, errors.New("too few collections of garbage")
			}
			return struct{}{}, nil
		})
		must(t, err)
		all = append(all, least)
	}
	return all
}

// churn opens and closes watches for a while, and fails the test for each that
// is not answered.
func churn(t *testing.T, s *watchStage, stay time.Duration) (opened int, took time.Duration) {
	t.Helper()
	var wg sync.WaitGroup
	var failed, open, refused atomic.Int64
	opening := make(chan struct{}, churnOpening)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	began, noted := time.Now(), time.Now()
	for time.Since(began) < stay {
		<-tick.C
		if time.Since(noted) > 5*time.Second {
			noted = time.Now()
			s.c.Note("%d watches were opened, %d are open, %d refused, %d failed; %d writes",
				opened, open.Load(), refused.Load(), failed.Load(), s.traffic.writes.Load())
		}
		// As many as are due by now, so that a late tick loses nothing.
		for due := int(time.Since(began).Seconds() * churnRate); opened < due && time.Since(began) < stay; opened++ {
			opening <- struct{}{}
			n, seed := s.c.Nodes[opened%len(s.c.Nodes)], s.random.Uint64()
			wg.Go(func() {
				open.Add(1)
				defer open.Add(-1)
				err := openAndClose(n, rand.New(rand.NewPCG(seed, 0)), func() { <-opening })
				if errors.Is(err, errRefused) {
					refused.Add(1)
				}
				if err == nil || errors.Is(err, errRefused) {
					return
				}
				s.c.Note("a watch on %s: %v", n.Name, err)
				if failed.Add(1) <= 3 {
					t.Errorf("a watch on %s: %v", n.Name, err)
				}
			})
		}
	}
	wg.Wait()
	took = time.Since(began)
	if n := failed.Load(); n > 0 {
		t.Errorf("%d of %d watches were not answered", n, opened)
	}
	// A node that can't find out what is now says so. That may happen, to few.
	if n := refused.Load(); n > int64(opened/100) {
		t.Errorf("%d of %d watches were refused", n, opened)
	} else {
		t.Logf("%d of %d watches were refused with 503", n, opened)
	}
	return opened, took
}

// errRefused says that a node answered that it can't serve a watch now.
var errRefused = errors.New("refused")

// openAndClose opens a watch, waits for the answer or, now and then, does not,
// calls answered, and closes the watch after a while.
func openAndClose(n *Node, random *rand.Rand, answered func()) error {
	answered = sync.OnceFunc(answered)
	defer answered()
	conn, err := net.DialTimeout("tcp", n.Address, wholeWithin)
	if err != nil {
		return err
	}
	defer conn.Close()
	// Most are gone without a word: a connection that is reset leaves no port
	// that waits, of which there would soon be no more.
	if random.IntN(8) > 0 {
		if err := conn.(*net.TCPConn).SetLinger(0); err != nil {
			return err
		}
	}
	query := []string{"prefix=w/a/", "key=w/b/1&prefix=w/c/", "start=w/a/2&end=w/b/3&prev=true", "initial=true", "key=none&bookmark=1s"}[random.IntN(5)]
	if _, err := fmt.Fprintf(conn, "GET /v1/watch?%s HTTP/1.1\r\nHost: %s\r\n\r\n", query, n.Address); err != nil {
		return err
	}
	if random.IntN(16) == 0 {
		return nil
	}
	if err := conn.SetReadDeadline(time.Now().Add(wholeWithin)); err != nil {
		return err
	}
	r := bufio.NewReader(conn)
	line, err := r.ReadString('\n')
	if err != nil {
		return err
	}
	answered()
	if strings.Contains(line, " 503 ") {
		return errRefused
	}
	if !strings.Contains(line, " 200 ") {
		return fmt.Errorf("answered with %q", line)
	}
	if err := conn.SetReadDeadline(time.Now().Add(time.Duration(random.Int64N(int64(churnHold))))); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, r); !isTimeout(err) {
		return fmt.Errorf("the stream ended by itself: %v", err)
	}
	return nil
}

func isTimeout(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}
