package robustness

import "testing"

func TestPause(t *testing.T) {
	beside(t)
	Judge(t, Scenario{Layout: Layout{Size: 3}, Rounds: rounds(4, 40), Fault: Pause, Seed: Seed(t)}.Run(t))
}

func TestTerminate(t *testing.T) {
	beside(t)
	Judge(t, Scenario{Layout: Layout{Size: 3}, Rounds: rounds(2, 20), Fault: Terminate, Seed: Seed(t)}.Run(t))
}
