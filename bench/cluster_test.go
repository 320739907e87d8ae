package main

import (
	"context"
	"os/exec"
	"strings"
	"testing"
)

// TestClusterProfiles runs one of writes and one of reads against real clusters of
// both kinds, and has a node join one.
func TestClusterProfiles(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: it starts clusters")
	}
	out, err := exec.Command(buildSelf(t), "-short", "-dir", t.TempDir(), "-duration", "200ms", "cluster-put-64", "cluster-get-64", profileJoin).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, name := range []string{"cluster-put-64", "cluster-get-64", profileJoin} {
		if !strings.Contains(string(out), "\n"+name+": ") {
			t.Errorf("no table of %s:\n%s", name, out)
		}
	}
}

// TestInitialCluster compares with what both servers read.
func TestInitialCluster(t *testing.T) {
	all := []member{{"n1", "127.0.0.1:1", "127.0.0.1:2"}, {"n2", "127.0.0.1:3", "127.0.0.1:4"}}
	if got, want := initialCluster(all, "http://"), "n1=http://127.0.0.1:2,n2=http://127.0.0.1:4"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestClusterDial looks at how the clients are spread.
func TestClusterDial(t *testing.T) {
	for n, want := range map[int][members]int{64: {22, 21, 21}, 256: {86, 85, 85}, 2: {1, 1, 0}} {
		c := cluster{{addr: "a"}, {addr: "b"}, {addr: "c"}}
		var got [members]int
		closed := 0
		all, err := c.dial(t.Context(), func(_ context.Context, addr string, n int) (*clients, error) {
			got[addr[0]-'a'] = n
			return &clients{sessions: make([]session, n), close: func() { closed++ }}, nil
		}, n)
		if err != nil {
			t.Fatal(err)
		}
		if all.close(); got != want || len(all.sessions) != n || closed != members {
			t.Errorf("%d clients: %v, %d sessions, %d closed", n, got, len(all.sessions), closed)
		}
	}
}
