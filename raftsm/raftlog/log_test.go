package raftlog_test

import (
	"testing"

	"github.com/cairnkv/cairn/raftsm/raftlog"
)

// TestRestart runs a node, stops it and starts it again: nothing that was
// acknowledged is missing, and the log is accepted.
func TestRestart(t *testing.T) {
	dir := t.TempDir()
	st := &state{}
	var last uint64
	for range 3 {
		n := mustStart(t, dir, st, options{})
		for range 20 {
			last = n.mustPropose(t, 300)
		}
		n.host.Close()
		if _, err := n.log.Verify(shard, replica, 0); err != raftlog.ErrNotOpen {
			t.Fatalf("a closed log answers %v", err)
		}
	}
	if st.applied.Load() != last {
		t.Fatalf("applied %d, the last proposal was %d", st.applied.Load(), last)
	}
	n := mustStart(t, dir, &state{}, options{}) // applies everything again
	n.mustPropose(t, 300)
	n.host.Close()
}
