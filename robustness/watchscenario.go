package robustness

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A WatchScenario is traffic and watchers on a cluster, and a fault in each
// round.
type WatchScenario struct {
	// Layout is three nodes, whose log is short if it names no server, and who are
	// relayed if they are in no namespaces.
	Layout Layout
	Rounds int
	// Faults are taken in turn.
	Faults   []Fault
	Watchers int
	// Spec invents what a watcher watches; randomSpec if it is nil.
	Spec func(random *rand.Rand, id int) WatchSpec
	// Slow says that all watchers read slowly, and not only some.
	Slow bool
	Seed uint64
}

// A WatchTally counts what a run was worth.
type WatchTally struct {
	Connections int // that were answered with a stream, or a poll
	Resumes     int // those that went on where one before ended
	Elsewhere   int // those of them that did so on another node
	Changes     int // revisions
	Events      int
	Parts       int // of revisions that came in several messages
	States      int // that were sent first
	Bookmarks   int
	Compacted   int // ends because history begins later
	Draining    int // ends because a node was about to stop
	Slow        int // times that a watcher stopped reading
	Snapshots   int // that took the place of a node's state
	Overflows   int // times that a watch was sent to history
}

func (t *WatchTally) add(w *WatchTrace) {
	for i, c := range w.Connections {
		if c.Status != 200 {
			continue
		}
		t.Connections++
		t.Slow += c.Slow
		if c.Resumed {
			t.Resumes++
			if c.Node != w.Connections[i-1].Node {
				t.Elsewhere++
			}
		}
		for _, m := range c.Messages {
			t.Events += len(m.Events)
			switch {
			case m.Event == change && m.More:
				t.Parts++
			case m.Event == change:
				t.Changes++
			case m.Event == synced:
				t.States++
			case m.Event == bookmark:
				t.Bookmarks++
			case m.Event == compacted:
				t.Compacted++
			case m.Event == draining:
				t.Draining++
			}
		}
	}
}

// Run plays the scenario and returns what was wrong.
func (s WatchScenario) Run(t testing.TB) (*Verdict, WatchTally) {
	t.Helper()
	random := rand.New(rand.NewPCG(s.Seed, 1))
	v := &Verdict{}
	var tally WatchTally
	s.Layout.Size, s.Layout.Relayed = 3, s.Layout.Namespaces == nil
	if s.Layout.Binary == "" {
		s.Layout.Binary = ShortLogBinary(t)
	}
	if s.Spec == nil {
		s.Spec = randomSpec
	}
	c := NewCluster(t, s.Layout.evidence(t), random, s.Layout)
	c.Note("seed %d", s.Seed)
	if err := c.Start(); err != nil {
		v.Add("the first start: %v", err)
		return v, tally
	}
	traffic := NewWatchTraffic(c, random)
	traffic.Start()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var watchers []*Watcher
	var wg sync.WaitGroup
	var end atomic.Uint64
	for id := range s.Watchers {
		w := NewWatcher(c, random, id, s.Spec(random, id))
		w.Slow = s.Slow || id%5 == 3
		if id%3 == 2 {
			w.Starts = Earliest
		}
		watchers = append(watchers, w)
		wg.Go(func() { w.Run(ctx, &end) })
	}
	for round := range s.Rounds {
		if err := s.round(c, traffic, random, round); err != nil {
			v.Add("round %d: %v", round+1, err)
			break
		}
	}
	last, err := traffic.Stop()
	if err != nil {
		v.Add("%v", err)
		cancel()
		wg.Wait()
		return v, tally
	}
	c.Note("the end is revision %d", last)
	end.Store(last)
	s.await(v, watchers, last)
	cancel()
	wg.Wait()
	if err := traffic.Settle(); err != nil {
		v.Add("the history can't be read: %v", err)
		return v, tally
	}
	s.judge(v, c, traffic, watchers)
	for _, w := range watchers {
		tally.add(&w.Trace)
	}
	h := NewHTTP()
	defer h.Close()
	for _, n := range c.Nodes {
		tally.Snapshots += installed(n)
		meters, err := ReadMeters(h, n)
		v.AddError(err)
		tally.Overflows += int(meters["cairn_watch_overflows_total"])
	}
	c.Note("%+v", tally)
	return v, tally
}

func (s WatchScenario) round(c *Cluster, traffic *WatchTraffic, random *rand.Rand, round int) error {
	c.Note("round %d", round+1)
	if err := traffic.Await(minWrites); err != nil {
		return err
	}
	moment(random, 0, time.Second)
	if err := s.Faults[round%len(s.Faults)](c, random, round); err != nil {
		return err
	}
	if err := c.AwaitReady(c.Nodes); err != nil {
		return err
	}
	return traffic.Await(minWrites)
}

// await waits until every watcher has reached the end: that nothing wrong came
// proves little if nothing comes.
func (s WatchScenario) await(v *Verdict, watchers []*Watcher, last uint64) {
	_, err := retry(func() (struct{}, error) {
		for _, w := range watchers {
			if at := w.Reached(); at < last {
				return struct{}{}, fmt.Errorf("reliable: watcher %d has reached revision %d of %d", w.Trace.Watcher, at, last)
			}
		}
		return struct{}{}, nil
	})
	v.AddError(err)
}

func (s WatchScenario) judge(v *Verdict, c *Cluster, traffic *WatchTraffic, watchers []*Watcher) {
	v.CheckLogs(c)
	for _, w := range traffic.writers {
		for _, wrong := range w.wrong {
			v.Add("%s", wrong)
		}
	}
	for _, wrong := range traffic.Truth.Check(traffic.Lists) {
		v.Add("%s", wrong)
	}
	// A few of each kind: one broken guarantee must not hide another.
	const enough = 3
	kinds := map[string]int{}
	for _, w := range watchers {
		for _, wrong := range CheckWatch(traffic.Truth, &w.Trace) {
			kind, _, _ := strings.Cut(wrong, ":")
			if kinds[kind]++; kinds[kind] <= enough {
				v.Add("%s", wrong)
			}
		}
	}
	if len(v.Violations()) > 0 {
		v.AddError(writeLines(c.Evidence.Path("watches.jsonl"), len(watchers), func(i int) any { return &watchers[i].Trace }))
		v.AddError(writeLines(c.Evidence.Path("truth.jsonl"), len(traffic.Truth.revisions), func(i int) any { return traffic.Truth.revisions[i] }))
	}
	h := NewHTTP()
	defer h.Close()
	if _, err := c.AwaitEqual(h, traffic.Truth.Upto); err != nil {
		v.Add("the nodes are not equal at the end: %v", err)
	}
	v.CheckLeaks(c)
}

// writeLines writes things as a line of JSON each.
func writeLines(path string, n int, at func(int) any) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	lines := json.NewEncoder(w)
	for i := range n {
		if err := lines.Encode(at(i)); err != nil {
			break // of the disk; Flush says it again
		}
	}
	if err := w.Flush(); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// installed counts the snapshots that took the place of a node's state.
func installed(n *Node) int {
	log, err := os.ReadFile(n.Log)
	if err != nil {
		return 0
	}
	return strings.Count(string(log), "A snapshot took the place of the state.")
}

// Meters are what a node measures of itself, by name and labels.
type Meters map[string]float64

// ReadMeters asks a node for them.
func ReadMeters(h *HTTP, n *Node) (Meters, error) {
	a := h.Do(n, Request{Method: http.MethodGet, Path: "/metrics"})
	if err := a.explain(); err != nil {
		return nil, fmt.Errorf("metrics of %s: %w", n.Name, err)
	}
	m := Meters{}
	for line := range strings.Lines(string(a.Body)) {
		name, text, found := strings.Cut(strings.TrimSpace(line), " ")
		if value, err := strconv.ParseFloat(text, 64); found && err == nil {
			m[name] = value
		}
	}
	return m, nil
}

// randomSpec invents what a watcher watches. All of them watch the end.
func randomSpec(random *rand.Rand, id int) WatchSpec {
	end := Watched{Key: watchEnd}
	s := WatchSpec{Delivery: []Delivery{Events, Events, Lines, Polls}[id%4]}
	switch random.IntN(8) {
	case 0: // everything
	case 1:
		s.Watched = []Watched{{Prefix: watchPrefix}}
	case 2:
		s.Watched = []Watched{{Prefix: "w/a/"}, {Prefix: "w/lease/"}, {Key: "w/a/1"}, end}
	case 3:
		s.Watched = []Watched{{Start: "w/a/3", End: "w/c/2"}, {Prefix: "w/b/"}, end}
	case 4:
		s.Post = true
		s.Watched = []Watched{
			{Prefix: "w/a/", Name: "a"},
			{Start: "w/a/4", End: "w/b/3", Name: "middle"},
			{Start: "w/c/", End: "w/c/4"},
			{Prefix: "w/la", Name: "large"},
			{Key: watchEnd, Name: "end"},
		}
	case 5:
		s.Watched = []Watched{{Key: "w/b/2"}, {Prefix: "w/large/"}, {Key: "w/lease/0"}, end}
	case 6:
		s.Watched = []Watched{{Key: watchRare}, end}
	case 7:
		s.Post = true
		s.Watched = []Watched{{Prefix: "w/lease/", Name: "leases"}, end}
	}
	s.Prev = random.IntN(3) == 0
	s.Initial = s.Delivery != Polls && random.IntN(3) == 0
	s.KeysOnly = random.IntN(10) == 0
	switch random.IntN(6) {
	case 0:
		s.Type = "put"
	case 1:
		s.Type = "delete"
	}
	if s.Delivery != Polls && random.IntN(2) == 0 {
		s.Bookmark = time.Second
	}
	return s
}
