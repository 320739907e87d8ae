package raftsm

import (
	"context"
	"strings"
	"testing"
	"time"
)

// gives reports whether a member may give its state to others, as it may not in
// quarantine.
func (m *member) gives(t testing.TB) bool {
	_, err := m.host.transport.GetSnapshotConnection(context.Background(), freeAddress(t))
	return err != nil && !strings.Contains(err.Error(), "in quarantine")
}

// TestEndOfQuarantine: an alarm that is cleared while the member looks who leads leaves
// it out of quarantine, whichever comes first.
func TestEndOfQuarantine(t *testing.T) {
	_, follow := leader(t, cluster(t, nil))
	m := follow[0]
	look := func() { m.shard.scrubber.abstain(context.Background(), time.Time{}) }
	for _, c := range []struct {
		is    Quarantine
		gives bool
	}{{Sound, true}, {Corrupt, false}, {Doubtful, true}, {Corrupt, false}, {Sound, true}} {
		m.shard.setQuarantine(c.is)
		if m.gives(t) != c.gives {
			t.Errorf("after an alarm, in quarantine %d, it gives its state: %v", c.is, !c.gives)
		}
		look()
		m.shard.mayLead(true)
		if m.gives(t) != c.gives {
			t.Errorf("after a look at who leads, in quarantine %d, it gives its state: %v", c.is, !c.gives)
		}
	}
}
