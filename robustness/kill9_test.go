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

func TestKill9(t *testing.T) {
	Judge(t, Scenario{Layout: Layout{Size: 3}, Rounds: rounds(20, 200), Fault: KillNine, Seed: Seed(t)}.Run(t))
}

func TestKill9Lone(t *testing.T) {
	Judge(t, Scenario{Layout: Layout{Size: 1}, Rounds: rounds(5, 50), Fault: KillNine, Seed: Seed(t)}.Run(t))
}
