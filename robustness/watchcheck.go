package robustness

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// WatchCheckers are the guarantees of a watch, each held against what one
// watcher received.
var WatchCheckers = []struct {
	Name  string
	Check func(*WatchView) []string
}{
	{"filtered", CheckFiltered},
	{"ordered", CheckOrdered},
	{"unique", CheckUnique},
	{"reliable", CheckReliable},
	{"atomic", CheckAtomic},
	{"resumable", CheckResumable},
	{"bookmarkable", CheckBookmarkable},
	{"previous", CheckPrevious},
	{"initial", CheckInitial},
	{"ended", CheckEnded},
}

// CheckWatch holds what a watcher received against all guarantees. Each
// complaint begins with the name of the one that was broken.
func CheckWatch(t *Truth, w *WatchTrace) (wrong []string) {
	v := newWatchView(t, w)
	for _, c := range WatchCheckers {
		for _, complaint := range c.Check(v) {
			wrong = append(wrong, c.Name+": watcher "+strconv.Itoa(w.Watcher)+", "+complaint)
		}
	}
	return wrong
}

// A WatchView is a trace as the checkers look at it.
type WatchView struct {
	truth     *Truth
	trace     *WatchTrace
	spec      *WatchSpec
	stretches []*stretch
	// expected are the revisions that concern the watch, in their order.
	expected []expected
}

type expected struct {
	revision uint64
	events   []Item // in the order of their keys
}

// A stretch is a part of a connection within which nothing may be missing: all
// of it, or what follows each initial state.
type stretch struct {
	connection *WatchConnection
	number     int // of the connection
	// Nothing at or below floor may come; everything above certain must. In
	// between nobody knows where the watch began, but where it did, it went on.
	floor, certain uint64
	messages       []WatchMessage
	state          []WatchMessage // the initial state before it, if it has one
	last           bool           // the connection ended with it
}

// A receipt is a revision as it was received.
type receipt struct {
	revision uint64
	events   []Item
	first    int // the message it began with
	last     int // the message it ended with
	complete bool
}

func newWatchView(t *Truth, w *WatchTrace) *WatchView {
	v := &WatchView{truth: t, trace: w, spec: &w.Spec}
	for r := range t.revisions {
		var events []Item
		for i := range t.revisions[r] {
			if e := &t.revisions[r][i]; w.Spec.wants(e) {
				events = append(events, *e)
			}
		}
		if len(events) > 0 {
			v.expected = append(v.expected, expected{uint64(r), events})
		}
	}
	for i, c := range w.Connections {
		if c.Status == 200 {
			v.split(i, c)
		}
	}
	return v
}

// split cuts a connection into stretches.
func (v *WatchView) split(number int, c *WatchConnection) {
	s := &stretch{connection: c, number: number}
	placed := !v.spec.Initial || c.Resumed
	switch {
	case !placed:
	case c.From > 0:
		s.floor, s.certain = c.From-1, c.From-1
	case c.Begun > 0:
		s.floor, s.certain = c.Begun, c.Begun
	case c.By == earliest:
		s.certain = max(v.truth.compactedBy(c.Answered), 1) - 1
	default:
		s.floor, s.certain = v.truth.acknowledgedBy(c.Opened), c.Revision
	}
	for _, m := range c.Messages {
		switch {
		case m.Event == compacted:
			if placed {
				v.stretches = append(v.stretches, s)
			}
			s, placed = &stretch{connection: c, number: number}, false
		case m.Event == initial && !placed:
			s.state = append(s.state, m)
		case m.Event == synced && !placed:
			s.floor, s.certain, placed = m.Revision, m.Revision, true
			s.messages = append(s.messages, m)
		default:
			// What has no place before the state is complete is found by
			// CheckInitial.
			s.messages = append(s.messages, m)
		}
	}
	if placed {
		s.last = true
		v.stretches = append(v.stretches, s)
	}
}

// earliest is the word for the oldest revision that history holds.
const earliest = "earliest"

// receipts joins the parts of revisions.
func (s *stretch) receipts() (all []receipt) {
	for i, m := range s.messages {
		if m.Event != change {
			continue
		}
		if n := len(all) - 1; n >= 0 && !all[n].complete && all[n].last == i-1 && all[n].revision == m.Revision {
			all[n].events = append(all[n].events, m.Events...)
			all[n].last, all[n].complete = i, !m.More
		} else {
			all = append(all, receipt{m.Revision, slices.Clone(m.Events), i, i, !m.More})
		}
	}
	return all
}

// A position is a revision up to which a stretch says that everything was sent.
type position struct {
	revision uint64
	message  int // the one that says it; behind the last for the end
	what     string
}

func (s *stretch) positions() (all []position) {
	for i, m := range s.messages {
		switch m.Event {
		case change:
			if !m.More {
				all = append(all, position{m.Revision, i, "the change"})
			}
		case synced, bookmark, reached:
			all = append(all, position{m.Revision, i, "the " + m.Event})
		case draining:
			if m.ResumeFrom > 1 {
				all = append(all, position{m.ResumeFrom - 1, i, "the end for draining"})
			}
		}
		if m.ID != 0 {
			all = append(all, position{m.ID, i, "the id of a " + m.Event})
		}
	}
	if s.last && s.connection.Reached != 0 {
		all = append(all, position{s.connection.Reached, len(s.messages), "the last id"})
	}
	return all
}

// begun is from where on nothing is missing: the certain place, or the first
// thing that came, if that is before.
func (s *stretch) begun(receipts []receipt) uint64 {
	begun := s.certain
	for _, r := range receipts {
		begun = min(begun, r.revision-1)
	}
	return max(begun, s.floor)
}

func (s *stretch) String() string {
	return fmt.Sprintf("connection %d to node %d (from %d, by %s)", s.number+1, s.connection.Node+1, s.connection.From, s.connection.By)
}

// between are the expected revisions above one and up to another.
func (v *WatchView) between(after, upto uint64) []expected {
	find := func(revision uint64) int {
		i, _ := slices.BinarySearchFunc(v.expected, revision, func(e expected, r uint64) int {
			if e.revision <= r {
				return -1
			}
			return 1
		})
		return i
	}
	if upto <= after {
		return nil
	}
	return v.expected[find(after):find(upto)]
}

// complaints collects what a checker found; one mistake shows in many ways.
type complaints []string

func (c *complaints) add(s *stretch, format string, args ...any) {
	const enough = 3
	if len(*c) < enough {
		*c = append(*c, fmt.Sprintf("%v: ", s)+fmt.Sprintf(format, args...))
	}
}

// CheckFiltered: nothing comes that was not asked for, and each event has the
// names of what it matches.
func CheckFiltered(v *WatchView) []string {
	var c complaints
	for _, s := range v.stretches {
		for _, m := range s.messages {
			for i := range m.Events {
				e := &m.Events[i]
				if !v.spec.wants(e) {
					c.add(s, "a %s of %s came at revision %d, which was not asked for", e.Type, e.Key, m.Revision)
				} else if want := v.spec.names(e.Key); !slices.Equal(want, e.Names) {
					c.add(s, "the %s of %s at revision %d has the names %q, want %q", e.Type, e.Key, m.Revision, e.Names, want)
				}
				if v.spec.KeysOnly && (e.Value != "" || e.Prev != nil && e.Prev.Value != "") {
					c.add(s, "the %s of %s at revision %d has a value, which was not asked for", e.Type, e.Key, m.Revision)
				}
			}
		}
	}
	return c
}

// CheckOrdered: revisions come in their order, and so do the changes of one.
func CheckOrdered(v *WatchView) []string {
	var c complaints
	for _, s := range v.stretches {
		last := uint64(0)
		for _, r := range s.receipts() {
			if r.revision < last {
				c.add(s, "revision %d came after %d", r.revision, last)
			}
			last = r.revision
			// The values of one transaction end with their place in it.
			place := -1
			for _, e := range r.events {
				if at, ok := placeOf(e.Value); ok {
					if at < place {
						c.add(s, "revision %d has the operation %d of its transaction after %d", r.revision, at, place)
					}
					place = at
				}
			}
		}
	}
	return c
}

// CheckUnique: nothing comes twice, on whatever connection. What came of a
// revision whose last part did not is not received, and may come again.
func CheckUnique(v *WatchView) []string {
	var c complaints
	seen := map[uint64]*stretch{}
	for _, s := range v.stretches {
		for _, r := range s.receipts() {
			keys := map[string]bool{}
			for _, e := range r.events {
				if keys[e.Key] {
					c.add(s, "the change of %s at revision %d came twice", e.Key, r.revision)
				}
				keys[e.Key] = true
			}
			if before := seen[r.revision]; before != nil {
				c.add(s, "revision %d came again after %v", r.revision, before)
			}
			if r.complete {
				seen[r.revision] = s
			}
		}
	}
	return c
}

// CheckReliable: up to where a connection got, nothing that matches is left out,
// and what came is what happened.
func CheckReliable(v *WatchView) []string {
	var c complaints
	for _, s := range v.stretches {
		receipts := s.receipts()
		got := map[uint64]receipt{}
		upto := uint64(0)
		for _, r := range receipts {
			got[r.revision] = r
			if r.complete {
				upto = max(upto, r.revision)
			}
			v.compare(&c, s, r)
		}
		for _, p := range s.positions() {
			upto = max(upto, p.revision)
		}
		if upto > v.truth.Upto && upto > s.floor {
			c.add(s, "it says to have reached revision %d; there are %d", upto, v.truth.Upto)
		}
		for _, e := range v.between(s.begun(receipts), upto) {
			if _, ok := got[e.revision]; !ok {
				c.add(s, "revision %d is missing (%s); it reached %d", e.revision, described(e.events), upto)
			}
		}
	}
	return c
}

// compare holds the events that came against those that happened.
func (v *WatchView) compare(c *complaints, s *stretch, r receipt) {
	happened := v.truth.at(r.revision)
	for _, e := range r.events {
		i := slices.IndexFunc(happened, func(h Item) bool { return h.Key == e.Key })
		if i < 0 {
			c.add(s, "revision %d came with a %s of %s, which did not happen", r.revision, e.Type, e.Key)
			continue
		}
		h := happened[i]
		if v.spec.KeysOnly {
			h.Value = ""
		}
		if e.Type != h.Type || !e.same(h) {
			c.add(s, "revision %d came with %+v; what happened is %+v", r.revision, e, h)
		}
	}
}

// CheckAtomic: all changes of a revision come in one message, or in parts of
// which all but the last say that more follows, with nothing between them.
func CheckAtomic(v *WatchView) []string {
	var c complaints
	for _, s := range v.stretches {
		receipts := s.receipts()
		for i, r := range receipts {
			if i > 0 && receipts[i-1].revision == r.revision {
				c.add(s, "revision %d comes in parts of which not all but the last say so", r.revision)
			}
			if !r.complete {
				if r.last < len(s.messages)-1 && s.messages[r.last+1].Event != draining {
					c.add(s, "revision %d was left in its middle for a %s", r.revision, s.messages[r.last+1].Event)
				}
				continue
			}
			for _, e := range v.between(r.revision-1, r.revision) {
				if len(r.events) < len(e.events) {
					c.add(s, "revision %d came with %d of its %d changes (%s)", r.revision, len(r.events), len(e.events), described(e.events))
				}
			}
		}
	}
	return c
}

// CheckResumable: a connection begins right behind what was asked for: with the
// first thing that is left, and with nothing before it. So over all of its
// connections a watcher gets everything once.
func CheckResumable(v *WatchView) []string {
	var c complaints
	for _, s := range v.stretches {
		receipts := s.receipts()
		for _, r := range receipts {
			if r.revision <= s.floor {
				c.add(s, "revision %d came, which is not above %d", r.revision, s.floor)
			}
		}
		if len(receipts) > 0 && s.floor == s.certain {
			first := receipts[0].revision
			if left := v.between(s.floor, first); len(left) > 0 && left[0].revision < first {
				c.add(s, "it begins with revision %d, though %d is left", first, left[0].revision)
			}
		}
	}
	return c
}

// CheckBookmarkable: whatever says that a revision is reached (a bookmark, an
// id, the end of an initial state, the answer of a poll) comes after everything
// up to that revision and before everything else, and does not run ahead of the
// store.
func CheckBookmarkable(v *WatchView) []string {
	var c complaints
	for _, s := range v.stretches {
		receipts := s.receipts()
		begun := s.begun(receipts)
		complete := map[uint64]int{} // the message with which a revision was complete
		for _, r := range receipts {
			if at, ok := complete[r.revision]; r.complete && (!ok || at > r.last) {
				complete[r.revision] = r.last
			}
		}
		newest := position{}
		next := 0
		for _, p := range s.positions() {
			// Messages between the newest position and this one.
			for ; next < min(p.message+1, len(s.messages)); next++ {
				if m := s.messages[next]; m.Event == change && m.Revision <= newest.revision && newest.message < next {
					c.add(s, "%s said %d, and then revision %d came", newest.what, newest.revision, m.Revision)
				}
			}
			if p.revision < newest.revision {
				c.add(s, "%s says %d after %s had said %d", p.what, p.revision, newest.what, newest.revision)
				continue
			}
			for _, e := range v.between(max(begun, newest.revision), p.revision) {
				if at, ok := complete[e.revision]; !ok || at > p.message {
					c.add(s, "%s says %d, and revision %d (%s) had not come", p.what, p.revision, e.revision, described(e.events))
				}
			}
			at := s.connection.Ended
			if p.message < len(s.messages) {
				at = s.messages[p.message].At
			}
			if p.revision > max(v.truth.possibleAt(at), s.floor) {
				c.add(s, "%s says %d when there were at most %d", p.what, p.revision, v.truth.possibleAt(at))
			}
			newest = p
		}
		for ; next < len(s.messages); next++ {
			if m := s.messages[next]; m.Event == change && m.Revision <= newest.revision && newest.message < next {
				c.add(s, "%s said %d, and then revision %d came", newest.what, newest.revision, m.Revision)
			}
		}
		if begun := s.connection.Begun; begun != 0 && s.connection.From == 0 && s.connection.By == string(Now) {
			if acknowledged := v.truth.acknowledgedBy(s.connection.Opened); begun < acknowledged {
				c.add(s, "now was revision %d, though %d had been acknowledged", begun, acknowledged)
			}
		}
	}
	return c
}

// CheckPrevious: the version before a change is the one that stood right before
// it. It may be missing only if compaction may have taken it.
func CheckPrevious(v *WatchView) []string {
	var c complaints
	for _, s := range v.stretches {
		for _, m := range s.messages {
			for _, e := range m.Events {
				before, existed := v.truth.before(e.Key, m.Revision)
				if v.spec.KeysOnly {
					before.Value = ""
				}
				switch {
				case e.Prev == nil && (!v.spec.Prev || !existed):
				case e.Prev == nil:
					if v.truth.compactedBy(m.At) < m.Revision {
						c.add(s, "the %s of %s at revision %d lacks the version before it, of revision %d", e.Type, e.Key, m.Revision, before.Mod)
					}
				case !v.spec.Prev:
					c.add(s, "the %s of %s at revision %d has the version before it, which was not asked for", e.Type, e.Key, m.Revision)
				case !existed || !before.same(*e.Prev):
					c.add(s, "the %s of %s at revision %d comes after %+v; what stood before it is %+v", e.Type, e.Key, m.Revision, *e.Prev, before)
				}
			}
		}
	}
	return c
}

// CheckInitial: the initial state is the one of its revision, and with every
// change that follows, the two together are the state of that change's revision.
func CheckInitial(v *WatchView) []string {
	var c complaints
	for _, s := range v.stretches {
		if len(s.messages) == 0 || s.messages[0].Event != synced {
			for _, m := range s.messages {
				if m.Event == initial || m.Event == synced {
					c.add(s, "a %s came, which has no place there", m.Event)
				}
			}
			continue
		}
		revision := s.messages[0].Revision
		got := map[string]Item{}
		last := ""
		for _, m := range s.state {
			if m.Revision != revision {
				c.add(s, "a part of the state is of revision %d; %d is synced", m.Revision, revision)
			}
			for _, e := range m.Entries {
				if e.Key <= last {
					c.add(s, "the state has %s after %s", e.Key, last)
				}
				if want := v.spec.names(e.Key); !slices.Equal(want, e.Names) {
					c.add(s, "%s in the state has the names %q, want %q", e.Key, e.Names, want)
				}
				last = e.Key
				got[e.Key] = e
			}
		}
		want := v.truth.state(v.spec, revision)
		v.compareStates(&c, s, got, want, revision)
		if v.spec.Type != "" {
			continue // the changes are not all
		}
		for _, r := range s.receipts() {
			if !r.complete {
				continue
			}
			for _, e := range r.events {
				if e.Type == "delete" {
					delete(got, e.Key)
				} else {
					got[e.Key] = e
				}
			}
			if r.revision > revision {
				for _, e := range v.between(revision, r.revision) {
					for _, h := range e.events {
						if h.Type == "delete" {
							delete(want, h.Key)
						} else {
							want[h.Key] = h
						}
					}
				}
				revision = r.revision
			}
			v.compareStates(&c, s, got, want, revision)
		}
	}
	return c
}

func (v *WatchView) compareStates(c *complaints, s *stretch, got, want map[string]Item, revision uint64) {
	for key, w := range want {
		if v.spec.KeysOnly {
			w.Value = ""
		}
		if g, ok := got[key]; !ok {
			c.add(s, "at revision %d the state and its changes lack %s, of revision %d", revision, key, w.Mod)
		} else if !g.same(w) {
			c.add(s, "at revision %d the state and its changes have %+v; what was there is %+v", revision, g, w)
		}
	}
	for key := range got {
		if _, ok := want[key]; !ok {
			c.add(s, "at revision %d the state and its changes have %s, which did not exist", revision, key)
		}
	}
}

// CheckEnded: history that begins too late is said only where it does, and an
// end says where to go on.
func CheckEnded(v *WatchView) []string {
	var c complaints
	for i, conn := range v.trace.Connections {
		s := &stretch{connection: conn, number: i}
		mayBe := v.truth.compactedBy(conn.Ended)
		switch {
		case conn.Status == 410:
			if conn.Problem.Code != "compacted" || conn.From == 0 || conn.From >= mayBe {
				c.add(s, "it was refused as %s; history began at %d at the latest", conn.Problem.Code, mayBe)
			}
		case conn.Status >= 400 && conn.Status != 503:
			c.add(s, "it was refused with %d (%s)", conn.Status, conn.Problem.Code)
		}
		at := uint64(0) // up to where it got
		if conn.From > 0 {
			at = conn.From - 1
		}
		for j, m := range conn.Messages {
			if m.Event == change && !m.More || m.Event == synced || m.Event == bookmark {
				at = max(at, m.Revision)
			}
			switch m.Event {
			case compacted:
				mayBe := v.truth.compactedBy(m.At)
				if m.Compact > mayBe {
					c.add(s, "it says that history begins at %d; that is %d at the latest", m.Compact, mayBe)
				}
				if m.ResumeFrom != m.Compact || m.ResumeFrom == 0 {
					c.add(s, "it ends as compacted at %d and says to resume from %d", m.Compact, m.ResumeFrom)
				}
				if at != 0 && at+1 >= m.Compact {
					c.add(s, "it ends as compacted at %d, though it had got to %d", m.Compact, at)
				}
				if !v.spec.Initial && j < len(conn.Messages)-1 {
					c.add(s, "a %s came after the end", conn.Messages[j+1].Event)
				}
			case draining:
				if at != 0 && m.ResumeFrom < at+1 {
					c.add(s, "it got to %d and says to resume from %d", at, m.ResumeFrom)
				}
				if j < len(conn.Messages)-1 {
					c.add(s, "a %s came after the end", conn.Messages[j+1].Event)
				}
			}
		}
	}
	return c
}

// described names what happened in a revision.
func described(events []Item) string {
	var all []string
	for _, e := range events {
		what := e.Type + " " + e.Key
		if e.Reason != "" {
			what += ", " + e.Reason
		}
		all = append(all, what)
	}
	return strings.Join(all, "; ")
}

// placeOf reads the place of an operation in its transaction from its value.
func placeOf(value string) (place int, ok bool) {
	head, _, found := strings.Cut(value, "|")
	if !found {
		return 0, false
	}
	_, number, found := strings.Cut(head, ".")
	if !found {
		return 0, false
	}
	place, err := strconv.Atoi(number)
	return place, err == nil
}
