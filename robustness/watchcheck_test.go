package robustness

import (
	"slices"
	"strings"
	"testing"
)

// soundTruth is a small history: a transaction, an overwrite, a delete, and a
// compaction at its end.
func soundTruth() *Truth {
	t := NewTruth()
	for _, e := range []Item{
		{Type: "put", Key: "w/a", Value: "w0-1.0|", Create: 2, Mod: 2, Version: 1},
		{Type: "put", Key: "w/a", Value: "w0-2.0|", Create: 2, Mod: 3, Version: 2},
		{Type: "put", Key: "w/b", Value: "w0-2.1|", Create: 3, Mod: 3, Version: 1},
		{Type: "delete", Key: "w/a", Mod: 4, Reason: "deleted"},
		{Type: "put", Key: "x", Value: "w0-3.0|", Create: 5, Mod: 5, Version: 1},
		{Type: "put", Key: "w/b", Value: "w0-4.0|", Create: 3, Mod: 6, Version: 2},
	} {
		t.add(e)
	}
	t.Upto = 6
	for r, puts := range []map[string]string{2: {"w/a": "w0-1.0|"}, 3: {"w/a": "w0-2.0|", "w/b": "w0-2.1|"}, 5: {"x": "w0-3.0|"}, 6: {"w/b": "w0-4.0|"}} {
		if puts != nil {
			at := int64(r)
			t.writes = append(t.writes, &WatchWrite{Call: 10 * at, Return: 10*at + 1, Outcome: Done, Revision: uint64(r), Puts: puts, What: "a write"})
		}
	}
	t.compactions = []compaction{{revision: 6, called: 90}}
	t.Seal()
	return t
}

// told is the message of a revision as a watch of w/ tells of it at its time.
func told(t *Truth, revision uint64, prev bool) WatchMessage {
	m := WatchMessage{Event: change, At: 10*int64(revision) + 5, ID: revision, Revision: revision}
	for _, e := range t.at(revision) {
		if !strings.HasPrefix(e.Key, "w/") {
			continue
		}
		if before, ok := t.before(e.Key, revision); ok && prev {
			e.Prev = &before
		}
		m.Events = append(m.Events, e)
	}
	return m
}

// soundWatch is what a watcher of w/ receives that begins at revision 2, is cut
// off at 3, and resumes on another node.
func soundWatch(t *Truth) *WatchTrace {
	return &WatchTrace{
		Spec: WatchSpec{Watched: []Watched{{Prefix: "w/"}}, Delivery: Events, Prev: true},
		Connections: []*WatchConnection{
			{
				Status: 200, From: 2, By: "from_revision", Opened: 1, Answered: 2, Ended: 37, Reached: 3,
				Messages: []WatchMessage{told(t, 2, true), told(t, 3, true)},
			},
			{
				Node: 1, Status: 200, From: 4, Resumed: true, By: "Last-Event-ID", Opened: 40, Answered: 41, Ended: 80, Reached: 6,
				Messages: []WatchMessage{told(t, 4, true), {Event: bookmark, At: 56, ID: 5, Revision: 5}, told(t, 6, true)},
			},
		},
	}
}

// soundState is what a watcher of w/ receives that wants the state first, which
// is then of revision 3.
func soundState(t *Truth) *WatchTrace {
	var entries []Item
	for _, e := range t.at(3) {
		e.Type = ""
		entries = append(entries, e)
	}
	return &WatchTrace{
		Spec: WatchSpec{Watched: []Watched{{Prefix: "w/"}}, Delivery: Events, Initial: true},
		Connections: []*WatchConnection{{
			Status: 200, By: "now", Opened: 33, Answered: 34, Ended: 80, Revision: 3, Reached: 6,
			Messages: []WatchMessage{
				{Event: initial, At: 35, Revision: 3, Entries: entries},
				{Event: synced, At: 35, ID: 3, Revision: 3},
				told(t, 4, false), told(t, 6, false),
			},
		}},
	}
}

// TestWatchChecks takes traces that are right, makes them wrong in one way after
// the other, and wants each noticed by the checker that it is for.
func TestWatchChecks(t *testing.T) {
	for name, trace := range map[string]*WatchTrace{"a watch": soundWatch(soundTruth()), "a state": soundState(soundTruth())} {
		if wrong := CheckWatch(soundTruth(), trace); len(wrong) > 0 {
			t.Fatalf("%s that is right: %q", name, wrong)
		}
	}
	type trace = WatchTrace
	messages := func(w *trace, connection int) *[]WatchMessage { return &w.Connections[connection].Messages }
	tests := []struct {
		name, checker string
		state         bool
		spoil         func(h *Truth, w *trace)
	}{
		{"a key that was not asked for", "filtered", false, func(h *Truth, w *trace) { w.Spec.Watched[0].Prefix = "w/a" }},
		{"a type that was not asked for", "filtered", false, func(h *Truth, w *trace) { w.Spec.Type = "put" }},
		{"a name that is missing", "filtered", false, func(h *Truth, w *trace) { w.Spec.Watched[0].Name = "all" }},
		{"an older revision later", "ordered", false, func(h *Truth, w *trace) {
			m := *messages(w, 0)
			m[0], m[1] = m[1], m[0]
		}},
		{"a transaction backwards", "ordered", false, func(h *Truth, w *trace) { slices.Reverse((*messages(w, 0))[1].Events) }},
		{"a revision twice", "unique", false, func(h *Truth, w *trace) {
			m := messages(w, 0)
			*m = append(*m, told(h, 3, true))
		}},
		{"a revision again after a resume", "unique", false, func(h *Truth, w *trace) {
			m := messages(w, 1)
			*m = slices.Insert(*m, 0, told(h, 3, true))
		}},
		{"a change twice in a revision", "unique", false, func(h *Truth, w *trace) {
			m := &(*messages(w, 0))[1]
			m.Events = append(m.Events, m.Events[1])
		}},
		{"a gap", "reliable", false, func(h *Truth, w *trace) {
			m := messages(w, 1)
			*m = (*m)[1:]
		}},
		{"a gap before the last id", "reliable", false, func(h *Truth, w *trace) {
			m := messages(w, 1)
			*m = (*m)[:2]
		}},
		{"another value", "reliable", false, func(h *Truth, w *trace) { (*messages(w, 0))[0].Events[0].Value = "z" }},
		{"another reason", "reliable", false, func(h *Truth, w *trace) { (*messages(w, 1))[0].Events[0].Reason = "expired" }},
		{"what did not happen", "reliable", false, func(h *Truth, w *trace) { (*messages(w, 0))[0].Events[0].Key = "w/z" }},
		{"half of a transaction", "atomic", false, func(h *Truth, w *trace) {
			m := &(*messages(w, 0))[1]
			m.Events = m.Events[:1]
		}},
		{"parts that don't say so", "atomic", false, func(h *Truth, w *trace) {
			m := messages(w, 0)
			last := (*m)[1]
			(*m)[1].Events, last.Events = last.Events[:1], last.Events[1:]
			*m = append(*m, last)
		}},
		{"something between the parts", "atomic", false, func(h *Truth, w *trace) {
			m := messages(w, 0)
			last := (*m)[1]
			(*m)[1].Events, last.Events, (*m)[1].More = last.Events[:1], last.Events[1:], true
			*m = append(*m, WatchMessage{Event: bookmark, At: 35, ID: 2, Revision: 2}, last)
		}},
		{"a resume too early", "resumable", false, func(h *Truth, w *trace) {
			m := messages(w, 1)
			*m = slices.Insert(*m, 0, told(h, 3, true))
		}},
		{"a resume too late", "resumable", false, func(h *Truth, w *trace) {
			m := messages(w, 1)
			*m = (*m)[2:]
		}},
		{"a bookmark ahead of its events", "bookmarkable", false, func(h *Truth, w *trace) {
			m := *messages(w, 1)
			m[1].ID, m[1].Revision = 6, 6
		}},
		{"an id ahead of its events", "bookmarkable", false, func(h *Truth, w *trace) {
			w.Connections[0].Messages = w.Connections[0].Messages[:1]
		}},
		{"a bookmark of the future", "bookmarkable", false, func(h *Truth, w *trace) { (*messages(w, 1))[1].At = 49 }},
		{"a bookmark that goes back", "bookmarkable", false, func(h *Truth, w *trace) {
			m := messages(w, 1)
			*m = append(*m, WatchMessage{Event: bookmark, At: 70, ID: 5, Revision: 5})
		}},
		{"a now of the past", "bookmarkable", false, func(h *Truth, w *trace) {
			w.Connections[0].From, w.Connections[0].By, w.Connections[0].Begun, w.Connections[0].Opened = 0, "now", 1, 25
		}},
		{"another previous version", "previous", false, func(h *Truth, w *trace) {
			before, _ := h.before("w/a", 3)
			(*messages(w, 1))[0].Events[0].Prev = &before
		}},
		{"no previous version", "previous", false, func(h *Truth, w *trace) { (*messages(w, 1))[0].Events[0].Prev = nil }},
		{"a previous version of a new key", "previous", false, func(h *Truth, w *trace) {
			(*messages(w, 0))[0].Events[0].Prev = &Item{Key: "w/a", Mod: 1}
		}},
		{"a previous version that nobody wants", "previous", false, func(h *Truth, w *trace) { w.Spec.Prev = false }},
		{"a state that lacks a key", "initial", true, func(h *Truth, w *trace) {
			m := &(*messages(w, 0))[0]
			m.Entries = m.Entries[1:]
		}},
		{"a state of another revision", "initial", true, func(h *Truth, w *trace) {
			m := *messages(w, 0)
			m[1].Revision, m[1].ID = 2, 2
		}},
		{"a state with a gap behind it", "initial", true, func(h *Truth, w *trace) {
			m := messages(w, 0)
			*m = slices.Delete(*m, 2, 3)
		}},
		{"a state out of order", "initial", true, func(h *Truth, w *trace) { slices.Reverse((*messages(w, 0))[0].Entries) }},
		{"compacted without need", "ended", false, func(h *Truth, w *trace) {
			m := messages(w, 1)
			*m = append(*m, WatchMessage{Event: compacted, At: 95, Compact: 6, ResumeFrom: 6})
		}},
		{"compacted before it was", "ended", false, func(h *Truth, w *trace) {
			*messages(w, 1) = []WatchMessage{{Event: compacted, At: 45, Compact: 6, ResumeFrom: 6}}
		}},
		{"refused without need", "ended", false, func(h *Truth, w *trace) {
			w.Connections[1] = &WatchConnection{Status: 410, From: 6, Ended: 95, Problem: Problem{Code: "compacted"}}
		}},
		{"an end that loses something", "ended", false, func(h *Truth, w *trace) {
			m := messages(w, 1)
			*m = append(*m, WatchMessage{Event: draining, At: 75, ResumeFrom: 6})
		}},
		{"something after the end", "ended", false, func(h *Truth, w *trace) {
			m := messages(w, 1)
			*m = slices.Insert(*m, 1, WatchMessage{Event: draining, At: 55, ResumeFrom: 5})
		}},
	}
	for _, test := range tests {
		t.Run(strings.ReplaceAll(test.name, " ", "-"), func(t *testing.T) {
			h := soundTruth()
			w := soundWatch(h)
			if test.state {
				w = soundState(h)
			}
			test.spoil(h, w)
			wrong := CheckWatch(h, w)
			if !slices.ContainsFunc(wrong, func(s string) bool { return strings.HasPrefix(s, test.checker+": ") }) {
				t.Errorf("want a complaint of the checker %q, got %q", test.checker, wrong)
			}
		})
	}
}

// TestTruthChecks does the same with what watches are measured by.
func TestTruthChecks(t *testing.T) {
	sound := WatchList{Prefix: "w/", Revision: 4, Entries: []Item{{Key: "w/b", Value: "w0-2.1|", Create: 3, Mod: 3, Version: 1}}}
	if wrong := soundTruth().Check([]WatchList{sound}); len(wrong) > 0 {
		t.Fatalf("a truth that is right: %q", wrong)
	}
	for name, test := range map[string]struct {
		spoil func(h *Truth, l *WatchList)
		want  string
	}{
		"a revision that nothing explains": {func(h *Truth, _ *WatchList) { h.revisions[5] = nil }, "no change explains"},
		"a write that was lost":            {func(h *Truth, _ *WatchList) { h.writes[0].Puts["w/a"] = "other" }, "LOST"},
		"a list that lacks a key":          {func(_ *Truth, l *WatchList) { l.Entries = nil }, "lacks w/b"},
		"a list with another version":      {func(_ *Truth, l *WatchList) { l.Entries[0].Mod = 2 }, "a list at revision 4 has"},
	} {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			h, l := soundTruth(), sound
			l.Entries = slices.Clone(sound.Entries)
			test.spoil(h, &l)
			if wrong := h.Check([]WatchList{l}); !slices.ContainsFunc(wrong, func(s string) bool { return strings.Contains(s, test.want) }) {
				t.Errorf("want a complaint with %q, got %q", test.want, wrong)
			}
		})
	}
}
