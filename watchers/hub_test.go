package watchers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cairnkv/cairn/kv"
)

// small makes each bound one that a short test meets.
var small = limits{queueBytes: 64 << 10, pendingChanges: 8, pendingBytes: 8 << 10, pieceBytes: 2 << 10, pieceVisits: 40, partBytes: 4 << 10, shortGap: 4}

func TestLive(t *testing.T) {
	r := newReplica(t, defaultLimits)
	s := r.watch(Request{Ranges: []kv.Range{prefix("a"), key("b")}, From: r.revision() + 1})
	r.apply(put("a1", "x"), put("c", "x"), put("b", "y"))
	var got []string
	for len(strings.Fields(strings.Join(got, " "))) < 4 {
		got = append(got, r.next(s))
	}
	if want := "2:put a1=x 4:put b=y"; strings.Join(got, " ") != want {
		t.Errorf("got %q, want %q", got, want)
	}
	r.apply(del("a1"))
	if got, want := r.next(s), "5:delete a1 (deleted)"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// An event that several of a stream's ranges match comes once, and so does a
// revision of several events, whole.
func TestOverlappingRanges(t *testing.T) {
	for _, from := range []string{"live", "history"} {
		t.Run(from, func(t *testing.T) {
			r := newReplica(t, defaultLimits)
			change := txn(kv.Op{Type: kv.OpPut, Key: []byte("a/b"), Value: []byte("1")},
				kv.Op{Type: kv.OpPut, Key: []byte("z"), Value: []byte("2")},
				kv.Op{Type: kv.OpPut, Key: []byte("a/c"), Value: []byte("3")})
			if from == "history" {
				r.apply(change)
			}
			s := r.watch(Request{Ranges: []kv.Range{prefix("a/"), key("a/b"), prefix("a"), {Start: []byte("a/c")}}, From: 2})
			if from == "live" {
				goLive(t, s)
				r.apply(change)
			}
			if got, want := r.next(s), "2:put a/b=1,put z=2,put a/c=3"; got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

// goLive makes a stream follow what is applied.
func goLive(t testing.TB, s *Stream) {
	t.Helper()
	now := make(chan time.Time, 1)
	now <- time.Time{}
	for isLive := false; !isLive; {
		if got, err := s.Next(context.Background(), now); err != nil || len(got) > 0 {
			t.Fatalf("got %s, %v", text(got), err)
		}
		s.mu.Lock()
		isLive = s.live
		s.mu.Unlock()
	}
}

func TestTypes(t *testing.T) {
	for _, from := range []string{"live", "history"} {
		t.Run(from, func(t *testing.T) {
			r := newReplica(t, defaultLimits)
			changes := []*kv.Command{put("a", "1"), del("a"), put("a", "2"), del("a")}
			if from == "history" {
				r.apply(changes...)
			}
			puts := r.watch(Request{Ranges: []kv.Range{key("a")}, From: 2, Type: kv.EventPut})
			deletes := r.watch(Request{Ranges: []kv.Range{key("a")}, From: 2, Type: kv.EventDelete})
			if from == "live" {
				goLive(t, puts)
				goLive(t, deletes)
				r.apply(changes...)
			}
			if got, want := r.next(puts), "2:put a=1 4:put a=2"; got != want {
				t.Errorf("got %q, want %q", got, want)
			}
			if got, want := r.next(deletes), "3:delete a (deleted) 5:delete a (deleted)"; got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

// A delete at the compacted revision is the first that a watch from there sees.
func TestMissingDeleteAtTheCompactedRevision(t *testing.T) {
	r := newReplica(t, defaultLimits)
	r.apply(put("a", "1"), del("a"), put("b", "2"))
	r.apply(compact(3))
	s := r.watch(Request{Ranges: []kv.Range{{}}, From: 3})
	if got, want := r.next(s), "3:delete a (deleted) 4:put b=2"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	below := r.watch(Request{Ranges: []kv.Range{{}}, From: 2})
	if _, err := below.Next(context.Background(), nil); !isCompacted(err) {
		t.Errorf("below: %v", err)
	}
}

// A watch from a revision of the future sees nothing of what comes before it,
// and its position promises nothing about it.
func TestFutureRevision(t *testing.T) {
	r := newReplica(t, defaultLimits)
	s := r.watch(Request{Ranges: []kv.Range{{}}, From: 5})
	goLive(t, s)
	r.apply(put("a", "2"), put("a", "3"))
	r.apply(put("a", "4"))
	if p := s.Position(); p != 4 {
		t.Errorf("position %d", p)
	}
	r.apply(put("a", "5"), put("a", "6"))
	if got, want := r.next(s), "5:put a=5 6:put a=6"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// After a snapshot took the place of the state, history tells what the hub was
// not told, and nothing that was handed out comes again.
func TestGoingBackInTime(t *testing.T) {
	r := newReplica(t, defaultLimits)
	s := r.watch(Request{Ranges: []kv.Range{{}}, From: 2})
	goLive(t, s)
	r.apply(put("a", "2"))
	if got, want := r.next(s), "2:put a=2"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	// What a snapshot brings, the hub hears of by its revision only.
	r.commit([]*kv.Command{put("a", "3"), del("a")})
	r.hub.Jumped(r.revision())
	r.apply(put("a", "5"))
	var got string
	for !strings.Contains(got, "5:") {
		got += r.next(s) + " "
	}
	if want := "3:put a=3 4:delete a (deleted) 5:put a=5 "; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A jump beyond the compacted revision ends the stream with that reason.
func TestJumpOverCompaction(t *testing.T) {
	r := newReplica(t, defaultLimits)
	s := r.watch(Request{Ranges: []kv.Range{{}}, From: 2})
	goLive(t, s)
	r.commit([]*kv.Command{put("a", "2"), put("a", "3"), put("a", "4"), compact(4)})
	r.hub.Jumped(r.revision())
	if _, err := s.Next(context.Background(), nil); !isCompacted(err) {
		t.Errorf("got %v", err)
	}
}

// A stream that nobody reads holds a bounded queue and gets everything when it is
// read on; others don't notice.
func TestLostEventsOnAStarvingStream(t *testing.T) {
	r := newReplica(t, small)
	slow := r.watch(Request{Ranges: []kv.Range{{}}, From: 2})
	goLive(t, slow)
	quick := r.watch(Request{Ranges: []kv.Range{{}}, From: 2})
	goLive(t, quick)
	const n = 500
	var seen []string
	for i := range n {
		r.apply(put(fmt.Sprintf("k%d", i), "v"))
		seen = append(seen, strings.Split(r.next(quick), " p")[0])
	}
	if st := r.hub.Stats(); st.QueuedBytes > int64(small.pendingBytes) || st.Behind != 1 || st.Overflowed != 1 || st.Lag == 0 {
		t.Errorf("%+v", st)
	}
	var got []string
	for len(got) < n {
		deliveries, err := slow.Next(context.Background(), nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := range deliveries {
			got = append(got, strings.Split(text(deliveries[i:i+1]), " p")[0])
		}
	}
	if !slices.Equal(got, seen) {
		t.Errorf("got %q\nwant %q", got, seen)
	}
}

// A revision that is larger than a piece comes in parts, of which all but the
// last say that more follows, also when the last has none of the stream's keys.
func TestLargeRevision(t *testing.T) {
	r := newReplica(t, small)
	var ops []kv.Op
	for i := range 100 {
		ops = append(ops, kv.Op{Type: kv.OpPut, Key: fmt.Appendf(nil, "k%03d", i), Value: make([]byte, 200)})
	}
	r.apply(txn(ops...))
	for name, c := range map[string]struct {
		keys  kv.Range
		from  uint64
		count int
	}{
		"all": {kv.Range{}, 2, 100}, "the first ones": {prefix("k0"), 2, 100}, "few": {prefix("k00"), 2, 10},
		"behind a revision without a change": {kv.Range{}, 1, 100},
	} {
		t.Run(name, func(t *testing.T) {
			s := r.watch(Request{Ranges: []kv.Range{c.keys}, From: c.from})
			count, parts, ended := 0, 0, false
			for !ended {
				got, err := s.Next(context.Background(), nil)
				if err != nil {
					t.Fatal(err)
				}
				for i := range got {
					parts++
					count += got[i].Len()
					ended = !got[i].More
					if got[i].Revision != 2 {
						t.Fatalf("revision %d", got[i].Revision)
					}
				}
				if !ended && s.Position() >= 2 || count > c.count {
					t.Fatalf("position %d inside the revision, after %d events of %d", s.Position(), count, c.count)
				}
			}
			if c.count == 100 && parts < 2 || count != c.count || s.Position() != 2 {
				t.Errorf("%d events in %d parts, position %d", count, parts, s.Position())
			}
		})
	}
}

// A stream that has caught up through changes of others holds none of them.
func TestNothingIsHeldWithoutADelivery(t *testing.T) {
	r := newReplica(t, small)
	for i := range 4 * small.shortGap {
		r.apply(put("other", fmt.Sprint(i)))
	}
	paced, unused := 0, 0
	s := r.watch(Request{Ranges: []kv.Range{prefix("k")}, From: 1, Pace: func(context.Context) (func(), error) {
		paced++
		return func() { unused++ }, nil
	}})
	tick := make(chan time.Time)
	close(tick)
	for s.Position() < r.revision() {
		if got, err := s.Next(context.Background(), tick); err != nil || len(got) > 0 {
			t.Fatalf("got %s, %v", text(got), err)
		}
	}
	if s.piece != nil || paced == 0 || unused != paced {
		t.Errorf("it holds a piece: %v; it was paced %d times, and told %d times that it needs nothing", s.piece != nil, paced, unused)
	}
	failed := errors.New("not now")
	s = r.watch(Request{Ranges: []kv.Range{{}}, From: 1, Pace: func(context.Context) (func(), error) { return nil, failed }})
	if _, err := s.Next(context.Background(), nil); !errors.Is(err, failed) {
		t.Errorf("got %v", err)
	}
}

// A revision that history has given in part, before the hub heard of it, doesn't
// come again whole.
func TestPartBeforeTheHubKnows(t *testing.T) {
	l := small
	l.pendingBytes = 1 << 20
	r := newReplica(t, l)
	for i := range 2 * small.shortGap {
		r.apply(put("a", fmt.Sprint(i)))
	}
	// The hub has dispatched that when a live stream has seen it.
	witness := r.watch(Request{Ranges: []kv.Range{{}}, From: r.revision() + 1})
	goLive(t, witness)
	r.apply(put("a", "x"))
	r.next(witness)

	var ops []kv.Op
	for i := range 100 {
		ops = append(ops, kv.Op{Type: kv.OpPut, Key: fmt.Appendf(nil, "k%03d", i), Value: make([]byte, 200)})
	}
	s := r.watch(Request{Ranges: []kv.Range{prefix("k")}, From: 2})
	applied := r.commit([]*kv.Command{txn(ops...)})
	if got := r.next(s); !strings.HasSuffix(got, "+") {
		t.Fatalf("got %q", got)
	}
	r.hub.Applied(applied.To, applied.Events)
	r.apply(put("k", "end"))
	count := 0
	for s.Position() < r.revision() {
		got, err := s.Next(context.Background(), nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := range got {
			if got[i].Revision == applied.To {
				count += got[i].Len()
			}
		}
	}
	if count >= 100 {
		t.Errorf("%d events behind the first part", count)
	}
}

// An encoding is made once, whoever asks.
func TestEncodedOnce(t *testing.T) {
	c := &Change{}
	made := 0
	encode := func() (*Encoding, error) { made++; return &Encoding{}, nil }
	if _, err := c.Encoded(1, func() (*Encoding, error) { return nil, errors.New("no") }); err == nil {
		t.Error("the error is lost")
	}
	a, _ := c.Encoded(1, encode)
	b, _ := c.Encoded(1, encode)
	other, _ := c.Encoded(2, encode)
	if a != b || a == other || made != 2 {
		t.Errorf("made %d times", made)
	}
}

func TestClosedHub(t *testing.T) {
	r := newReplica(t, defaultLimits)
	s := r.watch(Request{Ranges: []kv.Range{{}}, From: 2})
	goLive(t, s)
	ended := make(chan error)
	go func() { _, err := s.Next(context.Background(), nil); ended <- err }()
	r.hub.Close()
	if err := <-ended; !errors.Is(err, ErrDraining) {
		t.Errorf("got %v", err)
	}
	if _, err := r.hub.Watch(Request{}); !errors.Is(err, ErrDraining) {
		t.Errorf("got %v", err)
	}
}

// TestTwin lets streams come, read, pause and go beside random transactions,
// compactions and jumps, and holds each against the whole log.
func TestTwin(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(seed, 7))
			l := small
			l.pendingChanges = 1 + rng.IntN(12)
			l.pieceVisits = 1 + rng.IntN(50)
			l.shortGap = uint64(rng.IntN(20))
			l.queueBytes = 1 << (9 + rng.IntN(6))
			twin(t, newReplica(t, l), rng)
		})
	}
}

func twin(t *testing.T, r *replica, rng *rand.Rand) {
	steps := 1000
	if testing.Short() {
		steps = 200
	}
	done := make(chan struct{})
	var readers sync.WaitGroup
	for i := range 8 {
		readers.Add(1)
		go func() {
			defer readers.Done()
			rng := rand.New(rand.NewPCG(uint64(i), 9))
			for last := false; !last; {
				select {
				case <-done:
					last = true // one more, that reads to the end
				default:
				}
				follow(t, r, rng, last)
			}
		}()
	}
	for range steps {
		var commands []*kv.Command
		for range 1 + rng.IntN(6) {
			commands = append(commands, randomCommand(rng, r.revision()))
		}
		if rng.IntN(40) == 0 {
			r.hub.Jumped(r.commit(commands).To)
			continue
		}
		r.apply(commands...)
	}
	close(done)
	readers.Wait()
}

func randomCommand(rng *rand.Rand, revision uint64) *kv.Command {
	switch n := rng.IntN(100); {
	case n < 2 && revision > 50:
		return compact(revision - uint64(rng.IntN(50)))
	case n < 60:
		return put(randomKey(rng), strings.Repeat("v", rng.IntN(50)))
	case n < 80:
		return del(randomKey(rng))
	}
	var ops []kv.Op
	used := map[string]bool{}
	for range rng.IntN(60) {
		k := randomKey(rng)
		if used[k] {
			continue
		}
		used[k] = true
		ops = append(ops, kv.Op{Type: kv.OpPut, Key: []byte(k), Value: make([]byte, rng.IntN(100))})
	}
	return txn(ops...)
}

func randomKey(rng *rand.Rand) string {
	return string("abcd"[rng.IntN(4)]) + string("abcdefgh"[rng.IntN(8)])
}

// follow opens a stream, reads some of it or all, and compares.
func follow(t *testing.T, r *replica, rng *rand.Rand, toTheEnd bool) {
	req := Request{From: 1 + uint64(rng.IntN(int(r.revision())+20))}
	for range 1 + rng.IntN(3) {
		switch rng.IntN(3) {
		case 0:
			req.Ranges = append(req.Ranges, key(randomKey(rng)))
		case 1:
			req.Ranges = append(req.Ranges, prefix(randomKey(rng)[:1]))
		default:
			if rg := (kv.Range{Start: []byte(randomKey(rng)), End: []byte(randomKey(rng))}); !rg.Empty() {
				req.Ranges = append(req.Ranges, rg)
			}
		}
	}
	if rng.IntN(4) == 0 {
		req.Type = kv.EventType(1 + rng.IntN(2))
	}
	s, err := r.hub.Watch(req)
	if err != nil {
		t.Error(err)
		return
	}
	defer s.Close()
	keys := newSelection(req.Ranges)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var got []string
	var open uint64 // the revision that more was said of
	position := s.Position()
	for turns := rng.IntN(40); turns > 0 || toTheEnd; turns-- {
		if toTheEnd && s.Position() >= r.revision() {
			break
		}
		tick := make(chan time.Time, 1)
		tick <- time.Time{}
		deliveries, err := s.Next(ctx, tick)
		if isCompacted(err) {
			var e *kv.Error
			if errors.As(err, &e); position+1 >= e.CompactRevision {
				t.Errorf("at %d: %v", position+1, err)
			}
			return
		}
		if err != nil {
			t.Error(err)
			return
		}
		for i := range deliveries {
			d := &deliveries[i]
			if d.Revision <= position || open != 0 && d.Revision != open {
				t.Errorf("revision %d after %d, open %d", d.Revision, position, open)
			}
			d.each(func(e *kv.Event) { got = append(got, fmt.Sprint(e.Entry.ModRevision, eventText(e))) })
			if d.More {
				open = d.Revision
			} else {
				open, position = 0, d.Revision
			}
		}
		if rng.IntN(2) == 0 {
			s.Release() // what was handed out is written down
		}
		if p := s.Position(); p < position && open == 0 || p > r.committed() && p >= req.From {
			t.Errorf("position %d behind %d, store at %d", p, position, r.committed())
		}
		position = max(position, s.Position())
	}
	if open != 0 {
		return // in the middle of a revision
	}
	var want []string
	r.mu.Lock()
	for i := range r.log {
		e := &r.log[i]
		if rev := e.Entry.ModRevision; rev >= req.From && rev <= position && keys.contains(e.Entry.Key) && (req.Type == 0 || req.Type == e.Type) {
			want = append(want, fmt.Sprint(rev, eventText(e)))
		}
	}
	r.mu.Unlock()
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) || got[i] != want[i] {
			t.Errorf("from %d to %d, %q: %d events, not %d; event %d:\ngot  %q\nwant %q", req.From, position, req.Ranges,
				len(got), len(want), i, got[min(i, len(got)):min(i+3, len(got))], want[min(i, len(want)):min(i+3, len(want))])
			break
		}
	}
}

// A stream whose reader waits for its client holds nothing of what was read.
func TestReleased(t *testing.T) {
	r := newReplica(t, small)
	for i := range 50 {
		r.apply(put("a", strings.Repeat("v", 100+i)))
	}
	s := r.watch(Request{Ranges: []kv.Range{key("a")}, From: 2})
	for s.Position() < r.revision() {
		before := s.Position()
		got, err := s.Next(context.Background(), nil)
		if err != nil || len(got) == 0 || got[0].Revision != before+1 {
			t.Fatalf("behind %d: got %s, %v", before, text(got), err)
		}
		s.Release()
		if s.piece != nil {
			t.Fatal("the stream holds a piece of history")
		}
	}
	goLive(t, s)
	r.apply(put("a", "last"))
	if got := r.next(s); got != "52:put a=last" {
		t.Errorf("got %s", got)
	}
	s.Release()
	for i := range s.taken[:cap(s.taken)] {
		if s.taken[:cap(s.taken)][i].Change != nil {
			t.Error("the stream holds a change that was taken")
		}
	}
}

// What a change of very many keys matched is not kept by the streams that it concerned.
func TestMatchedIsNotKept(t *testing.T) {
	r := newReplica(t, defaultLimits)
	s := r.watch(Request{Ranges: []kv.Range{prefix("k")}, From: 2})
	for _, c := range []struct{ keys, bytes int }{{1000, 1}, {1000, 1000}} {
		goLive(t, s)
		var ops []kv.Op
		for i := range c.keys {
			ops = append(ops, kv.Op{Type: kv.OpPut, Key: fmt.Appendf(nil, "k%d", i), Value: bytes.Repeat([]byte("v"), c.bytes)})
		}
		r.apply(txn(ops...), put("l", "of nobody"))
		for seen := 0; seen < c.keys; {
			got, err := s.Next(context.Background(), nil)
			if err != nil {
				t.Fatal(err)
			}
			for i := range got {
				seen += got[i].Len()
			}
		}
		r.hub.mu.Lock()
		kept := cap(s.matched)
		r.hub.mu.Unlock()
		if kept > keptMatched {
			t.Errorf("%d keys of %d bytes: %d places are kept", c.keys, c.bytes, kept)
		}
	}
}

// A change that waits in a queue keeps nothing of what else was applied with it: it is
// not counted there, and can be very much.
func TestQueuedChangeIsAlone(t *testing.T) {
	r := newReplica(t, defaultLimits)
	s := r.watch(Request{Ranges: []kv.Range{key("a")}, From: 2})
	goLive(t, s)
	applied := r.commit([]*kv.Command{put("a", "1"), put("b", strings.Repeat("v", 1<<20)), put("a", "2")})
	r.hub.Applied(applied.To, applied.Events)
	got, err := s.Next(context.Background(), nil)
	if err != nil || text(got) != "2:put a=1 4:put a=2" {
		t.Fatalf("got %s, %v", text(got), err)
	}
	for i := range got {
		for j := range applied.Events {
			if &got[i].Events[0] == &applied.Events[j] {
				t.Errorf("revision %d keeps all that was applied with it", got[i].Revision)
			}
		}
	}
}

// A change that is too large for every queue is not copied for one.
func TestChangeForNoQueueIsNotCopied(t *testing.T) {
	r := newReplica(t, defaultLimits)
	for _, c := range []struct {
		bytes  int
		copied bool
	}{{1, true}, {defaultLimits.pendingBytes, false}} {
		s := r.watch(Request{Ranges: []kv.Range{key("a")}, From: r.revision() + 1})
		goLive(t, s)
		events := []kv.Event{{Entry: kv.Entry{Key: []byte("a"), Value: make([]byte, c.bytes), ModRevision: r.revision() + 1}}}
		change := &Change{Revision: r.revision() + 1, Events: events}
		r.hub.mu.Lock()
		r.hub.spread(change, false)
		r.hub.mu.Unlock()
		if copied := &change.Events[0] != &events[0]; copied != c.copied {
			t.Errorf("%d bytes: copied is %v", c.bytes, copied)
		}
		s.Close()
	}
}

// A stream that waits takes note of what is none of its own.
func TestPositionOfAQuietStream(t *testing.T) {
	r := newReplica(t, defaultLimits)
	s := r.watch(Request{Ranges: []kv.Range{key("a")}, From: 2})
	goLive(t, s)
	r.apply(put("b", "2"), put("b", "3"))
	tick := make(chan time.Time, 1)
	for s.Position() < 3 {
		tick <- time.Time{}
		if got, err := s.Next(context.Background(), tick); err != nil || len(got) > 0 {
			t.Fatalf("got %s, %v", text(got), err)
		}
	}
}

func TestWaitChange(t *testing.T) {
	r := newReplica(t, defaultLimits)
	r.apply(put("a", "2"), put("b", "3"))
	for _, c := range []struct {
		key         string
		after, want uint64
	}{{"a", 1, 2}, {"b", 1, 3}, {"b", 2, 3}} {
		if got, err := r.hub.WaitChange(context.Background(), key(c.key), c.after); err != nil || got != c.want {
			t.Errorf("%v: got %d, %v", c, got, err)
		}
	}
	waited := make(chan uint64)
	go func() {
		got, err := r.hub.WaitChange(context.Background(), key("a"), 2)
		if err != nil {
			t.Error(err)
		}
		waited <- got
	}()
	r.apply(put("b", "4"))
	r.apply(put("a", "5"))
	if got := <-waited; got != 5 {
		t.Errorf("got %d", got)
	}
	r.apply(compact(5))
	if got, err := r.hub.WaitChange(context.Background(), key("a"), 2); err != nil || got != 5 {
		t.Errorf("over compacted history: got %d, %v", got, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := r.hub.WaitChange(ctx, key("a"), 5); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
