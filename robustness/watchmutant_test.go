package robustness

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// A watchMutant is a server with a mistake that breaks one guarantee of a watch.
type watchMutant struct {
	name  string
	edits []Edit
	// checker is the one that must find it.
	checker string
	faults  []Fault
	// short says that it is run without CAIRN_LONG, too.
	short bool
	// runs is in how many it must be noticed, if not in the first: it shows only where
	// two things happen within a moment.
	runs int
}

// quiet lets the traffic go on for a while, without any harm.
func quiet(_ *Cluster, random *rand.Rand, _ int) error {
	moment(random, 2*time.Second, 3*time.Second)
	return nil
}

var watchMutants = []watchMutant{
	{
		name: "events of the other type come from history", checker: "filtered",
		edits: []Edit{{"watchers/past.go", "if r.s.wants(e.Type) {", "if r.s.wants(e.Type) || true {"}},
	},
	{
		name: "what is sent together is sent backwards", checker: "ordered",
		edits: []Edit{{"httpapi/watch_stream.go", "s.enc.change(s.out, &got[i])", "s.enc.change(s.out, &got[len(got)-1-i])"}},
	},
	{
		name: "history is read beyond where the queue begins", checker: "unique",
		edits: []Edit{{"watchers/past.go", "until = min(until, v.Revision())", "until = v.Revision()"}},
	},
	{
		name: "a change is dropped when a queue is full", checker: "reliable", short: true,
		edits: []Edit{
			{"watchers/hub.go", "h.detach(s, c.Revision-1)", "h.detach(s, c.Revision)"},
			{"watchers/limits.go", "pendingChanges: 1024", "pendingChanges: 4"},
		},
	},
	{
		name: "nobody is told of a snapshot", checker: "reliable", faults: []Fault{LeaveBehind},
		edits: []Edit{{"node/node.go", "\t\t\t\tn.watchers.Jumped(to)\n", ""}},
	},
	{
		name: "parts of a revision don't say that more follows", checker: "atomic",
		edits: []Edit{{"httpapi/watch_encode.go", "if !last && c.w.delivery != asPoll {", "if !last && c.w.delivery > asPoll {"}},
	},
	{
		name: "a resume begins with what was received", checker: "resumable", short: true,
		edits: []Edit{{"httpapi/watch.go", "w.resume, w.from, w.earliest = true, seen+1, false", "w.resume, w.from, w.earliest = true, max(seen, 1), false"}},
	},
	{
		name: "a bookmark is sent before its events", checker: "bookmarkable",
		edits: []Edit{{
			"httpapi/watch_stream.go", "\tdefer s.enc.release()\n",
			"\tdefer s.enc.release()\n\tif s.w.bookmark > 0 {\n\t\ts.out = s.enc.mark(s.out, api.EventBookmark, got[len(got)-1].Revision)\n\t}\n",
		}},
	},
	{
		name: "the version before a change is the change", checker: "previous",
		edits: []Edit{{"httpapi/watch_encode.go", "c.version(e.Entry.Key, e.PrevRevision)", "c.version(e.Entry.Key, e.Entry.ModRevision)"}},
	},
	{
		name: "the changes behind a state begin one too late", checker: "initial", runs: 3,
		edits: []Edit{{
			"httpapi/watch_stream.go", "s.out = s.enc.mark(s.out, api.EventSynced, revision)\n",
			"s.out = s.enc.mark(s.out, api.EventSynced, revision)\n\t\ts.position++\n",
		}},
	},
	{
		name: "the compacted revision is refused", checker: "ended",
		edits: []Edit{{"httpapi/watch.go", "case w.from < compact && !", "case w.from <= compact && !"}},
	},
	{
		name: "a watch from the compacted revision begins behind it", checker: "reliable",
		edits: []Edit{{
			"watchers/past.go", "\tif err := v.Changes(", "\tif from.Revision == v.Compacted() {\n\t\tfrom = kv.Place{Revision: from.Revision + 1}\n\t}\n\tif err := v.Changes(",
		}},
	},
	{
		name: "an index keeps the bytes of a request", checker: "reliable", runs: 5,
		edits: []Edit{
			{"watchers/index.go", "r.Start, r.End = bytes.Clone(r.Start), bytes.Clone(r.End)", ""},
			{"httpapi/watch.go", "kv.Range{Start: bytes.Clone(r.Start), End: bytes.Clone(r.End)}", "kv.Range{Start: r.Start, End: bytes.Clone(r.End)}"},
		},
	},
}

// TestWatchMutants wants each of them found by its checker. The short suite builds one
// server with all the mistakes that are marked for it.
func TestWatchMutants(t *testing.T) {
	beside(t)
	if Long() {
		for _, m := range watchMutants {
			t.Run(strings.ReplaceAll(m.name, " ", "-"), func(t *testing.T) { findMutants(t, m) })
		}
		return
	}
	var short []watchMutant
	for _, m := range watchMutants {
		if m.short {
			short = append(short, m)
		}
	}
	t.Logf("SKIPPED: %d of %d mutants, for each of which a server is built; CAIRN_LONG=1 runs them", len(watchMutants)-len(short), len(watchMutants))
	findMutants(t, short...)
}

// findMutants builds one server with some mistakes and wants each noticed.
func findMutants(t *testing.T, mutants ...watchMutant) {
	edits := []Edit{shortLog}
	s := WatchScenario{Rounds: 1, Watchers: 36, Seed: Seed(t)}
	for _, m := range mutants {
		edits = append(edits, m.edits...)
		s.Faults = append(s.Faults, m.faults...)
	}
	if s.Faults == nil {
		s.Faults = []Fault{quiet}
	}
	var err error
	s.Layout.Binary, err = BuildEdited(t.TempDir(), edits...)
	must(t, err)
	for run := 1; len(mutants) > 0; run++ {
		v, _ := s.Run(t)
		mutants = slices.DeleteFunc(slices.Clone(mutants), func(m watchMutant) bool {
			found := slices.IndexFunc(v.Violations(), func(found string) bool { return strings.HasPrefix(found, m.checker+": ") })
			last := run >= m.runs
			switch {
			case found >= 0:
				t.Logf("found in run %d: %.300s", run, v.Violations()[found])
			case last:
				t.Errorf("the checker %q did not notice that %s, in %d runs; the others did: %.2000q", m.checker, m.name, run, v.Violations())
			}
			return found >= 0 || last
		})
		s.Seed++
	}
}
