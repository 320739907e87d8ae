package robustness

import (
	"strings"
	"testing"
)

// A mutant is the server with one mistake. The source of the checkout stays as
// it is: the compiler is told to take another text for one file.
type mutant struct {
	name string
	// In file, the text old, which must occur once, becomes new.
	file, old, new string
	scenario       func(t *testing.T) Scenario
}

// mutants are mistakes that somebody could make, each of which breaks a promise.
var mutants = []mutant{
	{
		name: "a linearizable read asks nobody",
		file: "raftsm/rounds.go",
		old:  "func (r *rounds) wait(ctx context.Context) error {\n",
		new:  "func (r *rounds) wait(ctx context.Context) error {\n\tif r.lastBegan.Load() != 0 {\n\t\treturn nil\n\t}\n",
		scenario: func(*testing.T) Scenario {
			return Scenario{Layout: Layout{Size: 3}, Rounds: 3, Fault: KillNine}
		},
	},
	{
		name: "a write of unknown outcome is called refused",
		file: "raftsm/proposer.go",
		old:  "\tcase unknown:\n",
		new:  "\tcase false:\n",
		scenario: func(*testing.T) Scenario {
			return Scenario{Layout: Layout{Size: 3}, Rounds: 4, Fault: Pause}
		},
	},
	{
		name: "an entry that was proposed again is applied again",
		file: "raftsm/machine.go",
		old:  "if b.BeginEntry(e.Index, r.incarnation, r.seq) {",
		new:  "if b.BeginEntry(e.Index, r.incarnation, r.seq) || true {",
		scenario: func(*testing.T) Scenario {
			return Scenario{Layout: Layout{Size: 3}, Rounds: 18, Fault: Pause}
		},
	},
	{
		name: "a replica leaves out what another one proposed, now and then",
		file: "raftsm/machine.go",
		old:  "if b.BeginEntry(e.Index, r.incarnation, r.seq) {",
		new:  "if b.BeginEntry(e.Index, r.incarnation, r.seq) && (own || r.seq%64 != 0) {",
		scenario: func(*testing.T) Scenario {
			return Scenario{Layout: Layout{Size: 3}, Rounds: 1, Fault: KillNine}
		},
	},
	{
		name: "a condition on a write is not looked at",
		file: "httpapi/write.go",
		old:  "x.txn = kv.Txn{If: ifs, Then: x.ops[:n]}",
		new:  "x.txn = kv.Txn{Then: x.ops[:n]}",
		scenario: func(*testing.T) Scenario {
			return Scenario{Layout: Layout{Size: 1}, Rounds: 1, Fault: KillNine}
		},
	},
	{
		name: "the log is not synced",
		file: "raftsm/raftlog/sync_linux.go",
		old:  "unix.Fdatasync(int(d.Fd())); err != unix.EINTR",
		new:  "error(nil); d == nil || err != unix.EINTR",
		scenario: func(t *testing.T) Scenario {
			l, disks := withDisks(t, Layout{Size: 3, MayEnd: true}, diskBytes)
			s := Scenario{Layout: l, Rounds: 4, Fault: powerLoss(disks, everyNode)}
			return s
		},
	},
}

// TestMutants wants every mutant found. It builds each server, and so takes
// minutes; it belongs to the long suite.
func TestMutants(t *testing.T) {
	if !Long() {
		t.Skip("SKIPPED: builds a server for each mutant; CAIRN_LONG=1 runs it")
	}
	for _, m := range mutants {
		t.Run(strings.ReplaceAll(m.name, " ", "-"), func(t *testing.T) {
			s := m.scenario(t)
			s.Layout.Binary = m.build(t)
			s.Seed = Seed(t)
			found := s.Run(t).Violations()
			if len(found) == 0 {
				t.Fatalf("nobody noticed that %s", m.name)
			}
			t.Logf("found, in %d ways; the first: %.300s", len(found), found[0])
		})
	}
}

// build builds the server with the mistake in it.
func (m mutant) build(t *testing.T) string {
	t.Helper()
	binary, err := BuildEdited(t.TempDir(), Edit{m.file, m.old, m.new})
	must(t, err)
	return binary
}
