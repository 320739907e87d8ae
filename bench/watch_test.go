package main

import (
	"context"
	"math/rand/v2"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestHex(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	digits := make([]byte, 16)
	for range 10_000 {
		n := rng.Uint64() >> rng.IntN(64)
		putHex(digits, n)
		if got := readHex(digits); got != n {
			t.Fatalf("%s is %x, not %x", digits, n, got)
		}
	}
}

// TestReceipts: what is lost, comes twice, or is another event shows.
func TestReceipts(t *testing.T) {
	event := func(r *receipts, revision, number uint64) error {
		value := make([]byte, valueSize)
		stamp(value, time.Unix(100, 0), number)
		if err := r.event(0, 0, value, time.Unix(101, 0)); err != nil {
			return err
		}
		return r.complete(0, revision, time.Unix(101, 0))
	}
	var put ledger
	put.add(1)
	put.add(2)
	got := newReceipts(1)
	if err := event(got, 10, 1); err != nil {
		t.Fatal(err)
	}
	if lost, err := got.missing(0, &put); lost != 1 || err != nil {
		t.Errorf("one of two: %d lost, %v", lost, err)
	}
	if err := event(got, 10, 2); err == nil {
		t.Error("a revision came twice")
	}
	if err := event(got, 11, 3); err != nil {
		t.Fatal(err)
	}
	if lost, err := got.missing(0, &put); err == nil {
		t.Errorf("other events than those that were put: %d lost", lost)
	}
	if d := got.delays(); d.Count() != 3 || d.Max() != time.Second {
		t.Errorf("%d delays, the longest %v", d.Count(), d.Max())
	}
	got.restart(time.Unix(100, 1))
	if err := event(got, 12, 4); err != nil || got.delays().Count() != 0 {
		t.Errorf("%v; a put from before counts", err)
	}
	// A part of a revision counts when it is complete, and not if it is cut.
	before := got.delivered()
	if err := got.event(0, 0, make([]byte, stampSize-1), time.Now()); err == nil {
		t.Error("a value without a stamp")
	}
	value := make([]byte, valueSize)
	stamp(value, time.Now(), 5)
	if err := got.event(0, 0, value, time.Now()); err != nil || got.delivered() != before {
		t.Errorf("%v; half a revision counts", err)
	}
	got.cut(0)
	if err := got.complete(0, 13, time.Now()); err != nil || got.delivered() != before {
		t.Errorf("%v; what was cut counts", err)
	}
}

// slowSession answers each put after a while.
type slowSession struct {
	session
	puts *atomic.Int64
	err  error
}

func (s slowSession) put(int, []byte) error {
	s.puts.Add(1)
	return s.err
}

func TestPaced(t *testing.T) {
	var puts, told atomic.Int64
	load := &paced{
		data: newDataset(), rate: 1000, numbers: new(atomic.Uint64),
		key: func(n int) int { return n }, put: func(int, uint64) { told.Add(1) },
	}
	got, err := load.drive(t.Context(), []session{slowSession{puts: &puts}, slowSession{puts: &puts}}, 50*time.Millisecond)
	if err != nil || puts.Load() != 50 || told.Load() != 50 || got.puts != 50 || got.elapsed < 49*time.Millisecond {
		t.Errorf("%d puts, %d told, %+v, %v", puts.Load(), told.Load(), got.puts, err)
	}
	if _, err := load.drive(t.Context(), []session{slowSession{puts: &puts, err: context.Canceled}}, time.Minute); err == nil {
		t.Error("an error of a put is not told")
	}
}

// TestWatchColumns: a report has the numbers under the names of their columns.
func TestWatchColumns(t *testing.T) {
	for _, p := range watchProfiles {
		seen := map[string]bool{}
		for _, c := range p.columns {
			if seen[c.name] {
				t.Errorf("%s has two columns %q", p.name, c.name)
			}
			seen[c.name] = true
		}
	}
}

// TestWatchProfiles runs all of them against both servers, on a small scale.
func TestWatchProfiles(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: it starts servers")
	}
	out, err := exec.Command(buildSelf(t), "-short", "-dir", t.TempDir(), "-duration", "200ms", "-targets", "cairn,etcd-grpc", profileWatch).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, p := range watchProfiles {
		if !strings.Contains(string(out), "\n"+p.name+": ") {
			t.Errorf("%s is not shown:\n%s", p.name, out)
		}
	}
}
