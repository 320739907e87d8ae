package robustness

import "testing"

// rounds is the number of rounds of a scenario: few in each run of the tests,
// many in the long suite.
func rounds(few, many int) int {
	if Long() {
		return many
	}
	return few
}

// beside lets a test run beside another one. A scenario waits for most of its time,
// so that two of them have processors enough; and the figures of none are looked at.
// The long suite has one after the other.
func beside(t *testing.T) {
	t.Helper()
	if !Long() {
		t.Parallel()
	}
}

func TestKill9(t *testing.T) {
	beside(t)
	Judge(t, Scenario{Layout: Layout{Size: 3}, Rounds: rounds(9, 200), Fault: KillNine, Seed: Seed(t)}.Run(t))
}

func TestKill9Lone(t *testing.T) {
	beside(t)
	Judge(t, Scenario{Layout: Layout{Size: 1}, Rounds: rounds(3, 50), Fault: KillNine, Seed: Seed(t)}.Run(t))
}
