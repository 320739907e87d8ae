package robustness

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// The bugs of this file are known from other stores. The numbers are etcd's.

// TestProgressAheadOfEvents (#15220): what says that a revision is reached comes
// after the events up to it, also where a watcher reads slowly, and little of
// what happens concerns it.
func TestProgressAheadOfEvents(t *testing.T) {
	beside(t)
	few := [][]Watched{{{Key: watchRare}}, {{Key: watchRare}, {Key: "w/large/0"}}}
	v, tally := WatchScenario{
		Rounds: rounds(2, 12), Faults: []Fault{quiet}, Watchers: 24, Slow: true, Seed: Seed(t),
		Spec: func(_ *rand.Rand, id int) WatchSpec {
			return WatchSpec{
				Watched:  append([]Watched{{Key: watchEnd}}, few[id%len(few)]...),
				Delivery: []Delivery{Events, Lines}[id%2], Bookmark: time.Second, Prev: id%4 == 0,
			}
		},
	}.Run(t)
	Judge(t, v)
	if tally.Bookmarks < 10 || tally.Slow == 0 {
		t.Errorf("the run was worth little: %+v", tally)
	}
}

// TestGoingBackInTimeAfterAPartition (#15271): a node that was cut off until it
// needs a snapshot goes on with its watchers, and takes those of others, without
// telling anything twice or leaving out what the snapshot jumped over.
func TestGoingBackInTimeAfterAPartition(t *testing.T) {
	beside(t)
	v, tally := WatchScenario{Rounds: rounds(1, 6), Faults: []Fault{LeaveBehind}, Watchers: 30, Seed: Seed(t)}.Run(t)
	Judge(t, v)
	if tally.Snapshots == 0 || tally.Elsewhere == 0 {
		t.Errorf("the run was worth little: %+v", tally)
	}
}

// TestLostEventsOnAStarvingStream (#17529): watchers that don't keep up are sent
// to history, again and again, and miss nothing.
func TestLostEventsOnAStarvingStream(t *testing.T) {
	beside(t)
	v, tally := WatchScenario{
		Rounds: rounds(1, 6), Faults: []Fault{quiet}, Watchers: 24, Slow: true, Seed: Seed(t),
		Spec: func(_ *rand.Rand, id int) WatchSpec {
			return WatchSpec{Delivery: []Delivery{Events, Lines}[id%2], Prev: id%3 == 0}
		},
	}.Run(t)
	Judge(t, v)
	if tally.Overflows == 0 {
		t.Errorf("no watch was sent to history: %+v", tally)
	}
}

// A watchStage is a cluster on which a test writes and watches by itself.
type watchStage struct {
	t       *testing.T
	c       *Cluster
	traffic *WatchTraffic
	writer  *watchWriter
	random  *rand.Rand
	count   int
}

func newWatchStage(t *testing.T) *watchStage {
	t.Helper()
	random := rand.New(rand.NewPCG(Seed(t), 2))
	c := NewCluster(t, NewEvidence(t), random, Layout{Size: 3, Binary: ShortLogBinary(t), Relayed: true})
	must(t, c.Start())
	traffic := NewWatchTraffic(c, random)
	return &watchStage{t: t, c: c, traffic: traffic, writer: traffic.writers[0], random: random}
}

// do performs a write until it is acknowledged, and returns its revision.
func (s *watchStage) do(o *WatchWrite, q Request) uint64 {
	s.t.Helper()
	_, err := retry(func() (struct{}, error) {
		a := s.writer.perform(o, q)
		return struct{}{}, a.explain()
	})
	must(s.t, err)
	return o.Revision
}

func (s *watchStage) put(key string) uint64 {
	s.t.Helper()
	s.writer.count++
	o := &WatchWrite{Puts: map[string]string{}}
	return s.do(o.put(key, s.writer.value(0, 64), ""))
}

func (s *watchStage) delete(key string) uint64 {
	s.t.Helper()
	return s.do(&WatchWrite{What: "delete " + key, Deletes: []string{key}}, Request{Method: http.MethodDelete, Path: "/v1/kv/" + key})
}

// compact gives up the past before a revision on all nodes.
func (s *watchStage) compact(revision uint64) {
	s.t.Helper()
	must(s.t, s.traffic.Truth.Collect(s.writer.http, s.c.Nodes[0], watchKeys))
	s.traffic.Truth.compactions = append(s.traffic.Truth.compactions, compaction{revision, s.traffic.now()})
	a := s.writer.http.Do(s.c.Nodes[0], Request{
		Method: http.MethodPost, Path: "/v1/compact", Body: fmt.Appendf(nil, `{"revision":%d}`, revision),
		Header: map[string]string{"Content-Type": "application/json"},
	})
	must(s.t, a.explain())
	// No entry is before the one of the compaction on any node that has equal
	// revisions.
	_, err := s.c.AwaitEqual(s.writer.http, a.Revision)
	must(s.t, err)
}

// watcher makes one that asks for a revision first, 0 for now.
func (s *watchStage) watcher(from uint64, resumed bool, spec WatchSpec) *Watcher {
	w := NewWatcher(s.c, s.random, s.count, spec)
	s.count++
	w.from, w.known = from, resumed
	return w
}

// judge settles the truth and holds the traces against it.
func (s *watchStage) judge(watchers []*Watcher) {
	s.t.Helper()
	t := s.traffic.Truth
	must(s.t, s.traffic.Settle())
	for _, wrong := range t.Check(s.traffic.Lists) {
		s.t.Error(wrong)
	}
	wrong := 0
	for _, w := range watchers {
		for _, complaint := range CheckWatch(t, &w.Trace) {
			if wrong++; wrong <= maxViolations {
				s.t.Error(complaint)
			}
		}
	}
}

// toldOf lists the changes of one key that a watcher received, as revision and
// type.
func toldOf(w *Watcher, key string) (all []string) {
	for _, c := range w.Trace.Connections {
		for _, m := range c.Messages {
			for _, e := range m.Events {
				if e.Key == key {
					all = append(all, fmt.Sprintf("%d %s", m.Revision, e.Type))
				}
			}
		}
	}
	return all
}

// TestMissingDeleteAtTheCompactedRevision (#18089, #19179): a watch from the
// compacted revision begins with what happened at it, a delete as well, on every
// node and in every form.
func TestMissingDeleteAtTheCompactedRevision(t *testing.T) {
	beside(t)
	s := newWatchStage(t)
	s.put("w/a/0")
	s.put("w/b/0")
	at := s.delete("w/a/0")
	last := s.put("w/b/1")
	s.compact(at)
	var end atomic.Uint64
	end.Store(last)
	var watchers []*Watcher
	for _, n := range s.c.Nodes {
		for _, delivery := range []Delivery{Events, Lines, Polls} {
			for _, resumed := range []bool{false, true} {
				w := s.watcher(at, resumed, WatchSpec{Watched: []Watched{{Prefix: "w/"}}, Delivery: delivery, Prev: true})
				ctx, cancel := context.WithTimeout(context.Background(), wholeWithin)
				c := w.Connect(ctx, n, &end)
				cancel()
				want := []string{fmt.Sprintf("%d delete", at)}
				if got := toldOf(w, "w/a/0"); !slices.Equal(got, want) {
					t.Errorf("%s, resumed %v, on %s: told %q, want %q (%d %s)", delivery, resumed, n.Name, got, want, c.Status, c.Why)
				}
				watchers = append(watchers, w)
			}
		}
		// The one below is refused, or told so.
		w := s.watcher(at-1, false, WatchSpec{Watched: []Watched{{Prefix: "w/"}}, Delivery: Events})
		if c := w.Connect(context.Background(), n, &end); c.Status != http.StatusGone {
			t.Errorf("on %s a watch from below was answered with %d", n.Name, c.Status)
		}
		watchers = append(watchers, w)
	}
	s.judge(watchers)
}

// TestFutureRevision (#20221): a watch from a revision of the future is told of
// nothing before it, by no event and no bookmark, on a node that is behind as
// well, and of everything from it on.
func TestFutureRevision(t *testing.T) {
	beside(t)
	s := newWatchStage(t)
	begun := s.put("w/a/0")
	future := begun + 20
	behind := s.c.Nodes[s.random.IntN(3)]
	s.c.Network.Isolate(behind.Index, Silent, true)
	s.writer.avoid[behind.Index] = time.Now().Add(time.Hour)

	ctx, cancel := context.WithTimeout(context.Background(), 2*wholeWithin)
	defer cancel()
	var end atomic.Uint64
	end.Store(future + 5)
	var watchers []*Watcher
	var wg sync.WaitGroup
	for _, n := range s.c.Nodes {
		for _, delivery := range []Delivery{Events, Lines, Polls} {
			for _, resumed := range []bool{false, true} {
				spec := WatchSpec{Watched: []Watched{{Prefix: "w/"}}, Delivery: delivery}
				if delivery != Polls {
					spec.Bookmark = time.Second
				}
				w := s.watcher(future, resumed, spec)
				watchers = append(watchers, w)
				wg.Go(func() {
					for ctx.Err() == nil && w.Reached() < end.Load() {
						w.Connect(ctx, n, &end)
					}
				})
			}
		}
	}
	open := func(n *Node) float64 {
		m, err := ReadMeters(s.writer.http, n)
		must(t, err)
		return m[`cairn_watches{state="behind"}`] + m[`cairn_watches{state="live"}`]
	}
	_, err := retry(func() (struct{}, error) {
		for _, n := range s.c.Nodes {
			if open(n) < 6 {
				return struct{}{}, fmt.Errorf("%s has %v watches", n.Name, open(n))
			}
		}
		return struct{}{}, nil
	})
	must(t, err)
	for last := begun; last < future+2; {
		last = s.put("w/a/" + strconv.Itoa(s.random.IntN(6)))
	}
	s.c.Network.Heal()
	for last := future; last < future+5; {
		last = s.put("w/b/0")
	}
	wg.Wait()
	for _, w := range watchers {
		if at := w.Reached(); at < future+5 {
			t.Errorf("watcher %d has reached %d of %d", w.Trace.Watcher, at, future+5)
		}
	}
	s.judge(watchers)
}

// TestRapidWatchCreation (#20655): a thousand watches are opened a second, under
// writes, each of which gets all that is its own from its first revision on.
func TestRapidWatchCreation(t *testing.T) {
	s := newWatchStage(t)
	s.traffic.Start()
	must(t, s.traffic.Await(minWrites))
	total := rounds(3000, 30_000)
	var watchers []*Watcher
	var wg sync.WaitGroup
	var never atomic.Uint64
	specs := [][]Watched{{{Prefix: "w/a/"}}, {{Prefix: "w/b/"}, {Key: "w/a/1"}}, {{Key: "w/c/3"}}, {{Start: "w/a/2", End: "w/b/4"}}, {{Prefix: "w/"}}}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	// What a busy machine can't open in time is not piled up.
	atOnce := make(chan struct{}, 800)
	began := time.Now()
	for i := range total {
		for i >= int(time.Since(began).Seconds()*churnRate) {
			<-tick.C
		}
		atOnce <- struct{}{}
		from := uint64(0)
		if newest := uint64(s.traffic.newest.Load()); i%2 == 0 && newest > 40 {
			from = newest - uint64(s.random.IntN(30)) + 5 // some of the past, some of the future
		}
		w := s.watcher(from, false, WatchSpec{Watched: specs[i%len(specs)], Delivery: []Delivery{Events, Lines}[i%2]})
		n, watching := s.c.Nodes[i%3], 200*time.Millisecond+time.Duration(s.random.Int64N(int64(400*time.Millisecond)))
		watchers = append(watchers, w)
		wg.Go(func() {
			defer func() { <-atOnce }()
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			// From its answer on: how soon that comes is the machine's affair.
			w.answered = func() { time.AfterFunc(watching, cancel) }
			w.Connect(ctx, n, &never)
			w.client.CloseIdleConnections()
		})
	}
	took := time.Since(began)
	wg.Wait()
	_, err := s.traffic.Stop()
	must(t, err)
	s.judge(watchers)
	var tally WatchTally
	for _, w := range watchers {
		tally.add(&w.Trace)
	}
	t.Logf("%.0f watches a second; %+v", float64(total)/took.Seconds(), tally)
	if tally.Connections < total*9/10 || tally.Events < total {
		t.Errorf("the run was worth little: %d of %d were answered, with %d events", tally.Connections, total, tally.Events)
	}
}
