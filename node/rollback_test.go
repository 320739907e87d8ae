package node

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestRolledBackMemberEnds: a member that is started from an older copy of its
// directory has forgotten what it acknowledged. The others remember, do not let it
// vote or acknowledge anything, and it ends and says why. From its own directory it
// starts as ever.
func TestRolledBackMemberEnds(t *testing.T) {
	t.Parallel()
	nodes := allReady(t, threeConfigs(t))
	rollBack(t, nodes[:2], nodes[2])
}

// TestRolledBackLearnerEnds: neither does a learner stay, which asks for no votes and
// which nobody has to ask for anything.
func TestRolledBackLearnerEnds(t *testing.T) {
	t.Parallel()
	first := ready(t, config(t))
	a := added(t, first, `{"learner":true}`)
	learner := ready(t, joining(t, first, a.JoinToken))
	learner.cfg.Join, learner.cfg.JoinToken, learner.cfg.Listen = "", "", "127.0.0.1:0"
	rollBack(t, []*Node{first}, learner)
}

// rollBack starts a member again from a copy of its directory that lacks what it
// acknowledged since, and wants it to end; then from the directory as it was.
func rollBack(t *testing.T, others []*Node, n *Node) {
	cfg := n.cfg
	put := func(n *Node, key string) {
		t.Helper()
		u := newUser(t, n)
		defer u.transport.CloseIdleConnections()
		if status := ask(u, "PUT", "/v1/kv/"+key, "v"); status != 200 && status != 201 {
			t.Fatalf("put: status %d", status)
		}
	}
	put(n, "before")
	must(t, n.Close())
	older, newer := t.TempDir(), cfg.DataDir+".newer"
	must(t, os.CopyFS(older, os.DirFS(cfg.DataDir)))

	n = open(t, cfg)
	eventually(t, "it is back", func() bool { return n.Ready() == nil })
	for i := range 20 {
		put(n, fmt.Sprint("k", i))
	}
	// The leader says in its heartbeats what was acknowledged. Several messages after
	// the last write, when nothing else is said, it has.
	for range 5 {
		before := n.host.PeerStats().ReceivedBytes
		eventually(t, "a heartbeat comes", func() bool { return n.host.PeerStats().ReceivedBytes > before })
	}
	must(t, n.Close())
	must(t, os.Rename(cfg.DataDir, newer))
	must(t, os.CopyFS(cfg.DataDir, os.DirFS(older)))
	must(t, os.Chmod(cfg.DataDir, 0o700))

	n = open(t, cfg)
	if err := n.Wait(); !Hopeless(err) || !strings.Contains(err.Error(), "its directory is an older copy") {
		t.Errorf("it ended with %v", err)
	}
	refused := uint64(0)
	for _, o := range others {
		refused += o.host.PeerStats().Refused["rolled-back"]
	}
	if refused == 0 {
		t.Error("nobody refused it")
	}
	must(t, n.Close())
	put(others[0], "after")

	must(t, os.RemoveAll(cfg.DataDir))
	must(t, os.Rename(newer, cfg.DataDir))
	n = open(t, cfg)
	eventually(t, "the right one is back", func() bool { return n.Ready() == nil })
}
