package robustness

import "testing"

// TestCrashPoints ends nodes at chosen lines of their work, which a kill at any moment
// meets seldom.
func TestCrashPoints(t *testing.T) {
	beside(t)
	dir := t.TempDir()
	binary, err := BuildEdited(t.TempDir(), crashEdits(dir)...)
	must(t, err)
	Judge(t, Scenario{
		Layout: Layout{Size: 3, Relayed: true, Binary: binary}, Rounds: rounds(3, 5*len(crashPoints)), Fault: Crash(dir), Seed: Seed(t), Alive: true,
	}.Run(t))
}
