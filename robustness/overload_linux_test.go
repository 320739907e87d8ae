package robustness

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// resident is the memory of a process, now and at the most, in MiB.
func resident(t *testing.T, n *Node) (now, most int) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.pid.Load()))
	must(t, err)
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) == 3 && (fields[0] == "VmRSS:" || fields[0] == "VmHWM:") {
			kib, err := strconv.Atoi(fields[1])
			must(t, err)
			if fields[0] == "VmRSS:" {
				now = kib >> 10
			} else {
				most = kib >> 10
			}
		}
	}
	return now, most
}

// An overload is a kind of load, far above what the cluster can do.
type overload struct {
	name string
	next func(b []byte, random *rand.Rand) []byte
	// connections is how many clients there are; with few of them it is not the
	// number of requests that is too much.
	connections int
	// body, if set, is sent behind what next gives.
	body []byte
}

var large = bytes.Repeat([]byte("v"), 1<<20)

var overloads = []overload{
	{"puts", putOf(256), 6000, nil},
	{"gets", getOne, 6000, nil},
	{"lists", listSome, 2000, nil},
	{"mixed", mixed, 4000, nil},
	{"large", putLarge(large, ""), 500, large},
	{"large-asking", putLarge(large, asksFirst), 500, large},
}

// overloadMemory is what a node may take at the most, in MiB: 256 for what is held,
// as much again for the garbage that comes with it, 64 for what waits for the log
// and its copies, 32 pages that are being read, and some 60 KiB a connection.
const overloadMemory = 1536

// TestOverload asks for ten times as much as a cluster can do, of each kind, and
// wants the rest refused in the promised way, the memory bounded, nothing broken,
// nobody left in the dark, and everything as before at once afterwards. How much is
// done under it, beside the generator on the same processors, is held against the
// processor time that the nodes had for it.
func TestOverload(t *testing.T) {
	random := rand.New(rand.NewPCG(Seed(t), 0))
	for _, size := range []int{1, 3} {
		if size == 3 && !Long() {
			break
		}
		t.Run(fmt.Sprintf("%d-nodes", size), func(t *testing.T) {
			c := NewCluster(t, NewEvidence(t), random, Layout{Size: size})
			must(t, c.Start())
			fill := OpenLoop{Nodes: c.Nodes, Connections: 64, Next: putOf(256)}
			fill.Run(random, time.Second)
			for _, o := range overloads {
				if Long() || o.name == "puts" || o.name == "lists" {
					t.Run(o.name, func(t *testing.T) { o.run(t, c, random) })
				}
			}
			var v Verdict
			v.CheckAlive(c)
			v.CheckLogs(c)
			Judge(t, &v)
		})
	}
}

func (o *overload) run(t *testing.T, c *Cluster, random *rand.Rand) {
	seconds := time.Duration(rounds(2, 8)) * time.Second
	l := OpenLoop{Nodes: c.Nodes, Next: o.next, Body: o.body, Patience: time.Second}
	// phase runs the load and tells how much was done in a second of the nodes'
	// processor time.
	phase := func(name string, connections int, rate float64, duration time.Duration) (tally *Tally, did float64) {
		l.Connections, l.Rate = connections, rate
		var before, after time.Duration
		l.Began = func() {
			for _, n := range c.Nodes {
				used, err := processorTime(n)
				must(t, err)
				before += used
			}
		}
		tally = l.Run(random, duration)
		for _, n := range c.Nodes {
			used, err := processorTime(n)
			must(t, err)
			after += used
		}
		did = float64(tally.Done) / max(after-before, 10*time.Millisecond).Seconds()
		t.Logf("%-8s %v; %.0f done in a second of processor time", name, tally, did)
		if tally.Hinted != tally.Shed || tally.Other != 0 {
			t.Errorf("%s: %d of %d refusals say when to come again; %d answers are none of the promised", name, tally.Hinted, tally.Shed, tally.Other)
		}
		return tally, did
	}
	peak, could := phase("peak", 64, 0, seconds/2)
	over, did := phase("overload", o.connections, 10*peak.Goodput(), seconds)
	after, does := phase("after", 64, 0, seconds/2)
	t.Logf("of the peak: %.2f and afterwards %.2f, by processor time %.2f and %.2f",
		over.Goodput()/peak.Goodput(), after.Goodput()/peak.Goodput(), did/could, does/could)
	switch {
	case over.Done == 0:
		t.Error("nothing is done under overload")
	case over.Broken != 0 || over.Unknown != 0:
		t.Errorf("%d requests were broken off or not answered (%s), and of %d nobody knows", over.Broken, over.BrokenBy, over.Unknown)
	case after.Shed != 0 && o.body == nil:
		t.Errorf("%d requests are refused after the overload", after.Shed)
	case Long() && o.name != "large" && did < .7*could:
		t.Errorf("under overload %.0f%% is done of what the processor time could do", 100*did/could)
	}
	for _, n := range c.Nodes {
		now, most := resident(t, n)
		t.Logf("%s: %d MiB, %d at the most", n.Name, now, most)
		if most > overloadMemory {
			t.Errorf("%s took %d MiB, want %d at the most", n.Name, most, overloadMemory)
		}
	}
}

// TestWatchOpens opens watches on a node without end. As many as there is room for
// are served, the others are told to go elsewhere; requests are answered beside
// them, the memory is that of the watches, and it is free when they are gone.
func TestWatchOpens(t *testing.T) {
	if !Long() {
		t.Skip("SKIPPED: opens 16,000 connections; CAIRN_LONG=1 runs it")
	}
	c, h := startCluster(t, 1)
	n := c.Nodes[0]
	before, _ := resident(t, n)
	open, tally, err := openStreams(n, "GET /v1/watch?prefix=w/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 18_000)
	defer func() {
		for _, conn := range open {
			_ = conn.Close()
		}
	}()
	must(t, err)
	now, _ := resident(t, n)
	t.Logf("%d watches in %v take %d MiB, %d KiB each; %v", tally.Done, tally.Elapsed.Round(time.Millisecond), now-before, (now-before)<<10/max(tally.Done, 1), tally)
	if tally.Done != 16_000 || tally.Shed == 0 || tally.Hinted != tally.Shed {
		t.Errorf("%d watches were served and %d refused, of which %d were told when to come again", tally.Done, tally.Shed, tally.Hinted)
	}
	if now > overloadMemory {
		t.Errorf("%d MiB are resident, want %d at the most", now, overloadMemory)
	}
	_, err = AwaitWrite(h, n, "beside", "watches")
	must(t, err)
	read := h.Do(n, Request{Method: http.MethodGet, Path: "/v1/kv/beside"})
	must(t, read.explain())
	for _, conn := range open {
		must(t, conn.Close())
	}
	open = nil
	_, err = retry(func() (struct{}, error) {
		again, tally, err := openStreams(n, "GET /v1/watch?prefix=w/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 1)
		for _, conn := range again {
			_ = conn.Close()
		}
		if err == nil && tally.Done != 1 {
			err = fmt.Errorf("there is no room for a watch after all have gone")
		}
		return struct{}{}, err
	})
	must(t, err)
}
