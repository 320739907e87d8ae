package robustness

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"slices"
)

// A Truth is what really happened, as it was learned without any watch: from the
// history of each key, read before a compaction could take it away.
type Truth struct {
	// Upto is the revision up to which everything is known.
	Upto uint64
	// revisions are the changes of each revision, by key; the index is the
	// revision.
	revisions [][]Item
	byKey     map[string][]Item // in the order of the revisions

	compactions []compaction
	writes      []*WatchWrite

	// Made by Seal. later has the revisions of writes from the last call to the
	// first, both turned around, so that the smallest of them is the largest.
	acknowledged, mayBeCompacted, later timeline
}

// A compaction was asked for; whether it took effect is not known.
type compaction struct {
	revision uint64
	called   int64
}

// A WatchWrite is one write of the traffic.
type WatchWrite struct {
	Call     int64             `json:"call"`
	Return   int64             `json:"return"`
	Outcome  Outcome           `json:"outcome"`
	Revision uint64            `json:"revision,omitempty"`
	Puts     map[string]string `json:"puts,omitempty"` // the values as Item.shorten leaves them
	Deletes  []string          `json:"deletes,omitempty"`
	What     string            `json:"what"`
}

// NewTruth knows of an empty store.
func NewTruth() *Truth { return &Truth{Upto: 1, byKey: map[string][]Item{}} }

// add takes over a change that is newer than all that is known of its key.
func (t *Truth) add(c Item) {
	for uint64(len(t.revisions)) <= c.Mod {
		t.revisions = append(t.revisions, nil)
	}
	at := t.revisions[c.Mod]
	i, _ := slices.BinarySearchFunc(at, c.Key, func(e Item, key string) int { return cmp.Compare(e.Key, key) })
	t.revisions[c.Mod] = slices.Insert(at, i, c)
	t.byKey[c.Key] = append(t.byKey[c.Key], c)
}

// at are the changes of a revision, in the order of their keys.
func (t *Truth) at(revision uint64) []Item {
	if revision >= uint64(len(t.revisions)) {
		return nil
	}
	return t.revisions[revision]
}

// before is the version of a key that stood right before a revision.
func (t *Truth) before(key string, revision uint64) (Item, bool) {
	versions := t.byKey[key]
	i, _ := slices.BinarySearchFunc(versions, revision, func(e Item, r uint64) int { return cmp.Compare(e.Mod, r) })
	if i == 0 || versions[i-1].Type == "delete" {
		return Item{}, false
	}
	return versions[i-1], true
}

// state is what a watch contains at a revision.
func (t *Truth) state(s *WatchSpec, revision uint64) map[string]Item {
	state := map[string]Item{}
	for key := range t.byKey {
		if !s.contains(key) {
			continue
		}
		if e, ok := t.before(key, revision+1); ok {
			state[key] = e
		}
	}
	return state
}

// A timeline is what was known from which moment on, in the order of both.
type timeline []known

type known struct {
	moment   int64
	revision uint64
}

func (l *timeline) add(moment int64, revision uint64) { *l = append(*l, known{moment, revision}) }

// settle orders the timeline and keeps what is the largest so far.
func (l timeline) settle() {
	slices.SortFunc(l, func(a, b known) int { return cmp.Compare(a.moment, b.moment) })
	for i := 1; i < len(l); i++ {
		l[i].revision = max(l[i].revision, l[i-1].revision)
	}
}

// by is what was known at a moment.
func (l timeline) by(moment int64) uint64 {
	i, _ := slices.BinarySearchFunc(l, moment+1, func(e known, m int64) int { return cmp.Compare(e.moment, m) })
	if i == 0 {
		return 0
	}
	return l[i-1].revision
}

// Seal prepares the truth for questions about moments. Nothing may be added
// afterwards.
func (t *Truth) Seal() {
	t.acknowledged, t.mayBeCompacted, t.later = nil, nil, nil
	for _, w := range t.writes {
		if w.Outcome == Done {
			t.acknowledged.add(w.Return, w.Revision)
			if len(w.Puts) > 0 { // its revision is its own
				t.later.add(-w.Call, math.MaxUint64-w.Revision)
			}
		}
	}
	for _, c := range t.compactions {
		t.mayBeCompacted.add(c.called, c.revision)
	}
	t.acknowledged.settle()
	t.mayBeCompacted.settle()
	t.later.settle()
}

// compactedBy is the largest revision to which history may have been compacted
// by a moment.
func (t *Truth) compactedBy(moment int64) uint64 { return t.mayBeCompacted.by(moment) }

// acknowledgedBy is the newest revision that some client knew of by a moment.
func (t *Truth) acknowledgedBy(moment int64) uint64 { return t.acknowledged.by(moment) }

// possibleAt is the newest revision that can have existed at a moment: the one
// before the first that was asked for only later.
func (t *Truth) possibleAt(moment int64) uint64 {
	if first := t.later.by(-moment - 1); first != 0 {
		return min(t.Upto, math.MaxUint64-first-1)
	}
	return t.Upto
}

// Collect reads from a node what happened since the last time.
func (t *Truth) Collect(h *HTTP, n *Node, keys []string) error {
	var found []Item
	upto := uint64(0)
	for i, key := range keys {
		known := uint64(0)
		if versions := t.byKey[key]; len(versions) > 0 {
			known = versions[len(versions)-1].Mod
		}
		versions, revision, err := versionsSince(h, n, key, known)
		if err != nil {
			return err
		}
		if i == 0 {
			upto = revision // what the others are read at is not older
		}
		found = append(found, versions...)
	}
	slices.SortFunc(found, func(a, b Item) int { return cmp.Compare(a.Mod, b.Mod) })
	for _, e := range found {
		t.add(e)
	}
	t.Upto = max(t.Upto, upto)
	return nil
}

// versionsSince reads the versions of a key that are newer than a revision,
// linearizably, and the revision as of which they were read.
func versionsSince(h *HTTP, n *Node, key string, since uint64) (versions []Item, revision uint64, err error) {
	cursor := ""
	for {
		a := h.Do(n, Request{Method: http.MethodGet, Path: "/v1/history/" + key + "?limit=100" + cursor})
		if revision == 0 {
			revision = a.Revision
		}
		if a.Status == http.StatusNotFound && a.Problem.Code == "key-not-found" {
			return nil, revision, nil
		}
		if err := a.explain(); err != nil {
			return nil, 0, fmt.Errorf("read the history of %s: %w", key, err)
		}
		var page struct {
			Versions []Item `json:"versions"`
			Cursor   string `json:"next_cursor"`
		}
		if err := json.Unmarshal(a.Body, &page); err != nil {
			return nil, 0, err
		}
		for _, v := range page.Versions {
			if v.Mod <= since {
				return versions, revision, nil
			}
			v.Key = key
			v.shorten()
			versions = append(versions, v)
		}
		if page.Cursor == "" {
			return versions, revision, nil
		}
		cursor = "&cursor=" + url.QueryEscape(page.Cursor)
	}
}

// A WatchList is what a list showed at a revision.
type WatchList struct {
	Prefix   string
	Revision uint64
	Entries  []Item
}

// Check holds the truth against what the writers were answered and what lists of
// the past showed: what watches are measured by must itself be right.
func (t *Truth) Check(lists []WatchList) (wrong []string) {
	complain := func(format string, args ...any) {
		wrong = append(wrong, "truth: "+fmt.Sprintf(format, args...))
	}
	for r := uint64(2); r <= t.Upto; r++ {
		if len(t.at(r)) == 0 {
			complain("no change explains revision %d", r)
		}
	}
	for _, w := range t.writes {
		if w.Outcome != Done || w.Revision > t.Upto {
			continue
		}
		for key, value := range w.Puts {
			if !slices.ContainsFunc(t.at(w.Revision), func(e Item) bool { return e.Key == key && e.Type == "put" && e.Value == value }) {
				complain("LOST: %s was acknowledged at revision %d, which does not have its put of %s", w.What, w.Revision, key)
			}
		}
		for _, key := range w.Deletes {
			if _, existed := t.before(key, w.Revision+1); existed {
				complain("LOST: %s was acknowledged at revision %d, at which %s exists", w.What, w.Revision, key)
			}
		}
	}
	for _, l := range lists {
		want := t.state(&WatchSpec{Watched: []Watched{{Prefix: l.Prefix}}}, l.Revision)
		for _, e := range l.Entries {
			if !e.same(want[e.Key]) {
				complain("a list at revision %d has %+v; the history has %+v", l.Revision, e, want[e.Key])
			}
			delete(want, e.Key)
		}
		for key := range want {
			complain("a list at revision %d lacks %s", l.Revision, key)
		}
	}
	return wrong
}
