package robustness

import (
	"fmt"
	"slices"
	"testing"
)

// TestWatch lets watchers of all kinds watch while nodes are killed, paused, cut
// off and left behind, and history is compacted under them.
func TestWatch(t *testing.T) {
	beside(t)
	faults := []Fault{KillNine, Partition, Pause, LeaveBehind, Terminate}
	each := rounds(1, 2)
	for run := range rounds(2, 100) {
		t.Run(fmt.Sprint(run), func(t *testing.T) {
			first := each * run % len(faults)
			s := WatchScenario{Rounds: each, Faults: slices.Concat(faults[first:], faults[:first]), Watchers: 36, Seed: Seed(t)}
			v, tally := s.Run(t)
			Judge(t, v)
			t.Logf("%+v", tally)
			if tally.Events < 1000 || tally.Elsewhere < 20 || tally.States == 0 || tally.Bookmarks == 0 || tally.Slow == 0 {
				t.Errorf("the run was worth little: %+v", tally)
			}
		})
	}
}
