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
	configs := threeConfigs(t)
	var nodes []*Node
	var users []*user
	for _, cfg := range configs {
		nodes = append(nodes, open(t, cfg))
	}
	for _, n := range nodes {
		users = append(users, newUser(t, n))
		eventually(t, "the node is ready", func() bool { return n.Ready() == nil })
	}
	put := func(u *user, key string) {
		t.Helper()
		if status := ask(u, "PUT", "/v1/kv/"+key, "v"); status != 200 && status != 201 {
			t.Fatalf("put: status %d", status)
		}
	}
	put(users[2], "before")
	users[2].transport.CloseIdleConnections()
	must(t, nodes[2].Close())
	older := t.TempDir()
	must(t, os.CopyFS(older, os.DirFS(configs[2].DataDir)))

	third := open(t, configs[2])
	eventually(t, "it is back", func() bool { return third.Ready() == nil })
	u := newUser(t, third)
	for i := range 20 {
		put(u, fmt.Sprint("k", i))
	}
	// With its first read it has acknowledged all of that, and the leader says so in
	// the heartbeats of the second one.
	for range 2 {
		if status := ask(u, "GET", "/v1/kv/k19", ""); status != 200 {
			t.Fatalf("get: status %d", status)
		}
	}
	u.transport.CloseIdleConnections()
	must(t, third.Close())
	newer := configs[2].DataDir + ".newer"
	must(t, os.Rename(configs[2].DataDir, newer))
	must(t, os.CopyFS(configs[2].DataDir, os.DirFS(older)))
	must(t, os.Chmod(configs[2].DataDir, 0o700))

	back := open(t, configs[2])
	if err := back.Wait(); !Hopeless(err) || !strings.Contains(err.Error(), "its directory is an older copy") {
		t.Errorf("it ended with %v", err)
	}
	refused := uint64(0)
	for _, n := range nodes[:2] {
		refused += n.host.PeerStats().Refused["rolled-back"]
	}
	if refused == 0 {
		t.Error("nobody refused it")
	}
	must(t, back.Close())
	put(users[0], "after")

	must(t, os.RemoveAll(configs[2].DataDir))
	must(t, os.Rename(newer, configs[2].DataDir))
	third = open(t, configs[2])
	eventually(t, "the right one is back", func() bool { return third.Ready() == nil })
}
