package robustness

import (
	"strings"
	"testing"
)

// TestClockJumps lets the wall clocks of the nodes jump by up to an hour, to and
// fro, while leases live and end, the leader is stopped and nodes are killed.
// Nothing of it may show in leases or in the order of revisions.
func TestClockJumps(t *testing.T) {
	if !Long() {
		t.Skip("SKIPPED: builds everything with another package time; CAIRN_LONG=1 runs it")
	}
	t.Setenv(wallShiftDir, t.TempDir())
	Judge(t, LeaseScenario{
		Layout: Layout{Size: 3, Binary: ShiftedClockBinary(t)}, Rounds: 12, Seed: Seed(t), Jumping: true,
		Faults: []Fault{JumpClocks, PauseLeader, JumpClocks, KillNine},
	}.Run(t))
}

// A leaseMutant is the server with one mistake about leases or fences.
type leaseMutant struct {
	name  string
	edits []Edit
	// clock builds it with a wall clock that can jump.
	clock bool
	// want is how the checker that it is meant for begins what it says.
	want string
	run  func(t *testing.T, binary string) *Verdict
}

// slowLeader is no mistake: the leader is slow between its look for leases that
// are over and their end, as one is that was stopped there.
var slowLeader = Edit{
	File: "leases/keeper.go", Old: "\t\tgroup.Go(func() error {\n", New: "\t\tgroup.Go(func() error {\n\t\t\ttime.Sleep(500 * time.Millisecond)\n",
}

func leases(rounds int, jumping bool, faults ...Fault) func(t *testing.T, binary string) *Verdict {
	return func(t *testing.T, binary string) *Verdict {
		return LeaseScenario{Layout: Layout{Size: 3, Binary: binary}, Rounds: rounds, Faults: faults, Seed: Seed(t), Jumping: jumping}.Run(t)
	}
}

// leaseMutants are mistakes that somebody could make.
var leaseMutants = []leaseMutant{
	{
		name: "leases end by the wall clock", want: "EARLY", clock: true,
		edits: []Edit{
			{"leases/keeper.go", "advance := min(now.Sub(k.since), kv.MaxClockAdvanceMillis*time.Millisecond)", "advance := now.Round(0).Sub(k.since.Round(0))"},
			{"storage/apply.go", "min(max(c.AdvanceMillis, 0), kv.MaxClockAdvanceMillis)", "max(c.AdvanceMillis, 0)"},
		},
		run: leases(2, true, JumpClocks),
	},
	{
		name: "the pace of the clock is the wall clock's", want: "LATE", clock: true,
		edits: []Edit{{"leases/keeper.go", "newKeeper(log, logger, time.Now)", "newKeeper(log, logger, func() time.Time { return time.Now().Round(0) })"}},
		run:   leases(2, true, JumpClocks),
	},
	{
		name: "a leader that slept adds all of that time", want: "EARLY",
		edits: []Edit{
			{"leases/keeper.go", "advance := min(now.Sub(k.since), kv.MaxClockAdvanceMillis*time.Millisecond)", "advance := now.Sub(k.since)"},
			{"storage/apply.go", "min(max(c.AdvanceMillis, 0), kv.MaxClockAdvanceMillis)", "max(c.AdvanceMillis, 0)"},
			{"storage/apply.go", "if c.Prev != b.st.clockIndex ||", "if c.Prev > b.st.clockIndex ||"},
		},
		run: leases(3, false, PauseLeader),
	},
	{
		name: "an expiry is not checked when it is applied", want: "EARLY",
		edits: []Edit{
			slowLeader,
			{"storage/lease.go", "reason == kv.ReasonExpired && (l.generation != e.Generation || b.st.clock < l.deadline)", "reason == kv.ReasonExpired && l.generation < e.Generation"},
		},
		run: leases(3, false, Terminate),
	},
	{
		name: "one key of a lease stays", want: "lease ",
		edits: []Edit{{"storage/lease.go", "\tfor _, key := range keys {\n\t\tv, err := b.lookup(key)", "\tfor i, key := range keys {\n\t\tif i == 2 {\n\t\t\tbreak\n\t\t}\n\t\tv, err := b.lookup(key)"}},
		run:   leases(1, false, Terminate),
	},
	{
		name: "a lease is renewed for a connection that has closed", want: "LATE",
		edits: []Edit{
			{"httpapi/hold.go", "\tdefer held.Release()\n\tname", "\tname"},
			{"httpapi/hold.go", "\tdefer held.Release()\n\tleft", "\tleft"},
			{"httpapi/hold.go", "\tif h.ctx.Err() != nil {", "\tif h.ctx == nil {"},
			{"httpapi/hold.go", "known && silence > h.silent()", "known && silence < 0"},
		},
		run: leases(1, false, Terminate),
	},
	{
		name: "a lease that is held is renewed when it is over", want: "UNKEPT",
		edits: []Edit{{"leases/renewer.go", "rest := min(h.ttl/3, longestRest)", "rest := 20 * h.ttl"}},
		run:   leases(1, false, Terminate),
	},
	{
		name: "a fence is not compared", want: "PASSED",
		edits: []Edit{{"httpapi/fences.go", "return &kv.Txn{If: f, Then:", "return &kv.Txn{Then:"}},
		run: func(t *testing.T, binary string) *Verdict {
			return FenceScenario{Layout: Layout{Size: 3, Binary: binary}, Rounds: 1, Faults: []Fault{KillNine}, Seed: Seed(t)}.Run(t)
		},
	},
}

// TestLeaseMutants wants each of them found by its checker.
func TestLeaseMutants(t *testing.T) {
	if !Long() {
		t.Skip("SKIPPED: builds a server for each mutant; CAIRN_LONG=1 runs it")
	}
	for _, m := range leaseMutants {
		t.Run(strings.ReplaceAll(m.name, " ", "-"), func(t *testing.T) {
			edits := m.edits
			if m.clock {
				t.Setenv(wallShiftDir, t.TempDir())
				clock, err := shiftedClock()
				must(t, err)
				edits = append(clock, edits...)
			}
			binary, err := BuildEdited(t.TempDir(), edits...)
			must(t, err)
			violations := m.run(t, binary).Violations()
			for _, found := range violations {
				if strings.HasPrefix(found, m.want) {
					t.Logf("found: %.300s", found)
					return
				}
			}
			t.Fatalf("nobody noticed that %s; what was found: %.2000q", m.name, violations)
		})
	}
}
