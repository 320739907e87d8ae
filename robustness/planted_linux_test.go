package robustness

import (
	"strings"
	"testing"
)

// A planted bug is a server with one mistake of those that stores of this kind have
// really had, and how soon it must be found.
type planted struct {
	name  string
	edits []Edit
	// Within so many rounds a violation that has one of these words in it must be
	// reported: those are what the checker says that the bug is meant for.
	within int
	words  []string
	// round plays one round on a fresh cluster.
	round func(t *testing.T, binary string, seed uint64) *Verdict
}

// plain is traffic on three nodes and one fault.
func plain(fault Fault) func(*testing.T, string, uint64) *Verdict {
	return func(t *testing.T, binary string, seed uint64) *Verdict {
		return Scenario{Layout: Layout{Size: 3, Binary: binary}, Rounds: 1, Fault: fault, Seed: seed}.Run(t)
	}
}

// watchedBy is watches on three nodes and one fault.
func watchedBy(fault Fault) func(*testing.T, string, uint64) *Verdict {
	return func(t *testing.T, binary string, seed uint64) *Verdict {
		v, _ := WatchScenario{Layout: Layout{Binary: binary}, Rounds: 1, Faults: []Fault{fault}, Watchers: 24, Seed: seed}.Run(t)
		return v
	}
}

// editOf is the edit of a mutant that has it already.
func editOf(name string) []Edit {
	for _, m := range mutants {
		if m.name == name {
			return []Edit{{m.file, m.old, m.new}}
		}
	}
	panic("there is no mutant of which " + name)
}

var plantedBugs = []planted{
	{
		// Each node finds at its start that its log has lost what it had promised.
		name: "writes are acknowledged before the log is synced", within: 4, words: []string{"ended by itself: exit status 7"},
		edits: editOf("the log is not synced"),
		round: func(t *testing.T, binary string, seed uint64) *Verdict {
			l, disks := withDisks(t, Layout{Size: 3, Binary: binary, MayEnd: true}, diskBytes)
			return Scenario{Layout: l, Rounds: 1, Fault: powerLoss(disks, everyNode), Seed: seed}.Run(t)
		},
	},
	{
		name: "a linearizable read is what the node happens to have", within: 3, words: []string{"not linearizable"},
		edits: editOf("a linearizable read asks nobody"),
		round: plain(KillNine),
	},
	{
		name: "a request that is proposed again by another leader is applied again", within: 8, words: []string{"not linearizable", "twice", "nobody's", "explain"},
		edits: editOf("an entry that was proposed again is applied again"),
		round: plain(Pause),
	},
	{
		name: "a renewal is answered and lost", within: 3, words: []string{"EARLY"},
		edits: []Edit{{
			"storage/lease.go", "\t\tnow.deadline = b.deadlineAfter(old.ttl)\n\t\tnow.generation++\n",
			"\t\tif soon := b.deadlineAfter(old.ttl); soon-old.deadline > uint64(old.ttl)*3/4 {\n\t\t\tnow.deadline = soon\n\t\t}\n\t\tnow.generation++\n",
		}},
		round: func(t *testing.T, binary string, seed uint64) *Verdict {
			return LeaseScenario{Layout: Layout{Size: 3, Binary: binary}, Rounds: 1, Faults: []Fault{PauseLeader}, Seed: seed}.Run(t)
		},
	},
	{
		name: "a fencing token is not compared", within: 2, words: []string{"PASSED"},
		edits: []Edit{{"httpapi/fences.go", "return &kv.Txn{If: f, Then:", "return &kv.Txn{Then:"}},
		round: func(t *testing.T, binary string, seed uint64) *Verdict {
			return FenceScenario{Layout: Layout{Size: 3, Binary: binary}, Rounds: 1, Faults: []Fault{KillNine}, Seed: seed}.Run(t)
		},
	},
	{
		name: "a watch that resumes leaves out a change", within: 3, words: []string{"resumable", "reliable"},
		edits: []Edit{{"httpapi/watch.go", "w.resume, w.from, w.earliest = true, seen+1, false", "w.resume, w.from, w.earliest = true, seen+2, false"}, shortLog},
		round: watchedBy(quiet),
	},
	{
		name: "compaction removes a version that is in force", within: 4, words: []string{"initial", "previous", "w/", "equal"},
		edits: []Edit{{"storage/compact.go", "if c.kind == recordTombstone {", "if c.kind == recordTombstone || c.prevRevision == 0 {"}, shortLog},
		round: watchedBy(quiet),
	},
	{
		name: "members apply the same command differently", within: 3, words: []string{"not equal", "LOST", "not linearizable"},
		edits: editOf("a replica leaves out what another one proposed, now and then"),
		round: plain(KillNine),
	},
	{
		name: "a snapshot that is installed lacks a record", within: 4, words: []string{"not equal", "corrupt", "reliable", "previous", "initial"},
		edits: []Edit{{
			"storage/snapshot.go", "\t\treturn b.add(key, value)\n",
			"\t\tif key[0] == spaceVersion && key[len(key)-1]%8 == 5 {\n\t\t\treturn nil\n\t\t}\n\t\treturn b.add(key, value)\n",
		}, shortLog},
		round: watchedBy(LeaveBehind),
	},
}

// TestPlanted builds a server with each of these bugs and plays rounds, each on a
// fresh cluster, until the checker that it is meant for reports it; in which round
// that was is printed. A change of the harness after which one is not found any more
// has made it blind.
func TestPlanted(t *testing.T) {
	if !Long() {
		t.Skip("SKIPPED: builds a server for each bug; CAIRN_LONG=1 runs it")
	}
	for _, p := range plantedBugs {
		t.Run(strings.ReplaceAll(p.name, " ", "-"), func(t *testing.T) {
			binary, err := BuildEdited(t.TempDir(), p.edits...)
			must(t, err)
			seed := Seed(t)
			var other []string
			for round := range p.within {
				violations := p.round(t, binary, seed+uint64(round)).Violations()
				for _, v := range violations {
					for _, word := range p.words {
						if strings.Contains(v, word) {
							t.Logf("FOUND in round %d of at most %d: %.200s", round+1, p.within, v)
							return
						}
					}
				}
				other = append(other, violations...)
			}
			t.Fatalf("nobody noticed in %d rounds that %s; what else was found: %.2000q", p.within, p.name, other)
		})
	}
}
