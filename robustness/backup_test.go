package robustness

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// A savedBackup is what cairn snapshot status says of one.
type savedBackup struct {
	ClusterID string `json:"cluster_id"`
	Revision  uint64 `json:"revision"`
	Keys      int    `json:"keys"`
}

// TestBackupUnderKills takes backups from a node while nodes are killed, maybe that one,
// and others write. One that was saved has exactly what was there at its revision, and
// makes a new cluster in which nothing that was handed out before is valid; one that was
// not is no file. A backup with one wrong byte is refused.
func TestBackupUnderKills(t *testing.T) {
	beside(t)
	random := rand.New(rand.NewPCG(Seed(t), 0))
	evidence := NewEvidence(t)
	c := NewCluster(t, evidence, random, Layout{Size: 3})
	must(t, c.Start())
	keys := rounds(20_000, 100_000)
	report, err := Load(c.Nodes[0], func(yield func(Pair) bool) {
		value := make([]byte, 512)
		for i := 0; i < keys && yield(Pair{fmt.Sprintf("k/%06d", i), fmt.Sprintf("%x", value)}); i++ {
			for j := range value {
				value[j] = byte(random.Uint32()) // so that it takes a while
			}
		}
	})
	must(t, err)
	if report.Applied != keys {
		t.Fatalf("loaded %+v", report)
	}

	began := time.Now()
	must(t, c.Nodes[0].command("snapshot", "save", evidence.Path("quiet.cairn-backup")).Run())
	took := time.Since(began)
	t.Logf("%d keys; a backup takes %v", keys, took.Round(time.Millisecond))

	stop := make(chan struct{})
	var writers sync.WaitGroup
	halt := sync.OnceFunc(func() { close(stop); writers.Wait() })
	defer halt()
	for i, n := range c.Nodes {
		writers.Go(func() {
			h := NewHTTP()
			defer h.Close()
			pace := time.NewTicker(time.Millisecond)
			defer pace.Stop()
			for k := i; ; k += len(c.Nodes) {
				select {
				case <-stop:
					return
				case <-pace.C: // whether it is taken is of no matter
					h.Do(n, Request{Method: http.MethodPut, Path: fmt.Sprintf("/v1/kv/k/%06d", k*7919%(2*keys)), Body: fmt.Appendf(nil, "again %d", k)})
				}
			}
		})
	}
	broken, wrong := 0, 0
	for round := range rounds(1, 20) {
		file := evidence.Path(fmt.Sprintf("%d.cairn-backup", round))
		from := c.Nodes[random.IntN(len(c.Nodes))]
		c.Note("save from %s", from.Name)
		save := from.command("snapshot", "save", file)
		must(t, save.Start())
		moment(random, 0, took)
		if err := KillNine(c, random, round); err != nil {
			t.Fatal(errors.Join(err, save.Process.Kill(), save.Wait()))
		}
		if err := save.Wait(); err != nil {
			broken++
			if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("round %d: a backup that was not saved is there: %v", round+1, err)
			}
			must(t, c.AwaitReady(c.Nodes))
			if out, err := from.command("snapshot", "save", file).CombinedOutput(); err != nil {
				t.Fatalf("round %d: a backup of a cluster that is well again: %v\n%s", round+1, err, out)
			}
		}
		must(t, c.AwaitReady(c.Nodes))
		if random.IntN(3) == 0 {
			wrong++
			refusesWrong(t, c, random, file)
		}
		restoresWhole(t, c, random, file)
	}
	halt()
	h := NewHTTP()
	defer h.Close()
	_, err = c.AwaitEqual(h, 1)
	must(t, err)
	t.Logf("%d backups were cut off by a kill; of %d one bit was flipped", broken, wrong)
	if Long() && (broken == 0 || wrong == 0) {
		t.Error("no kill met a backup, or none was spoiled: not everything is proven")
	}
	var v Verdict
	v.CheckLogs(c)
	Judge(t, &v)
}

// command is the binary of a node as a client of that node, or beside it.
func (n *Node) command(args ...string) *exec.Cmd {
	cmd := exec.Command(n.binary, append([]string{"--endpoint", n.URL(), "--timeout", "0"}, args...)...)
	cmd.Env = environment()
	return cmd
}

// restore makes the node's directory from a backup. It is given the address at which the
// others would reach it, for all that don't say so have the same.
func (n *Node) restore(file, dir string) *exec.Cmd {
	return n.command("snapshot", "restore", file, "--data-dir", dir, "--peer-advertise", n.peer)
}

// restoresWhole makes a cluster of one from a backup, and holds it against the one that
// the backup is of.
func restoresWhole(t *testing.T, c *Cluster, random *rand.Rand, file string) {
	t.Helper()
	out, err := c.Nodes[0].command("snapshot", "status", file, "--output", "json").Output()
	must(t, err)
	var saved savedBackup
	must(t, json.Unmarshal(out, &saved))

	restored := NewCluster(t, NewEvidence(t), random, Layout{Size: 1})
	n := restored.Nodes[0]
	if out, err := n.restore(file, n.Dir).CombinedOutput(); err != nil {
		t.Fatalf("restore: %v\n%s", err, out)
	}
	must(t, restored.Start())
	want, keys, err := contentOf(c.Nodes[random.IntN(len(c.Nodes))], fmt.Sprintf("?revision=%d", saved.Revision))
	must(t, err)
	got, have, err := content(n)
	must(t, err)
	if got != want || have != keys || have != saved.Keys {
		t.Errorf("at revision %d there were %d keys, the backup says %d, and the restored cluster has %d, or others", saved.Revision, keys, saved.Keys, have)
	}

	h := NewHTTP()
	defer h.Close()
	// A watch that would go on behind the last event before the backup hears that it can't.
	for _, path := range []string{
		fmt.Sprintf("/v1/kv?revision=%d", saved.Revision),
		fmt.Sprintf("/v1/watch?prefix=k/&wait=1s&from_revision=%d", saved.Revision+1),
	} {
		if a := h.Do(n, Request{Method: http.MethodGet, Path: path}); a.Status != http.StatusGone {
			t.Errorf("%s on the restored cluster: %d %s", path, a.Status, a.Body)
		}
	}
	old, err := AwaitWrite(h, c.Nodes[random.IntN(len(c.Nodes))], "old", "value")
	must(t, err)
	a, err := AwaitWrite(h, n, "new", "value")
	must(t, err)
	if a.Revision <= old.Revision {
		t.Errorf("the first write of the restored cluster has revision %d, the old one is at %d", a.Revision, old.Revision)
	}
	var status struct {
		ClusterID string `json:"cluster_id"`
	}
	must(t, json.Unmarshal(h.Do(n, Request{Method: http.MethodGet, Path: "/v1/status"}).Body, &status))
	if status.ClusterID == saved.ClusterID || status.ClusterID == "" {
		t.Errorf("the restored cluster is %q, the old one %q", status.ClusterID, saved.ClusterID)
	}
	must(t, n.Stop())
	var v Verdict
	v.CheckLogs(restored)
	Judge(t, &v)
}

// refusesWrong flips one bit of a copy of a backup.
func refusesWrong(t *testing.T, c *Cluster, random *rand.Rand, file string) {
	t.Helper()
	b, err := os.ReadFile(file)
	must(t, err)
	at := random.IntN(len(b))
	b[at] ^= 1 << random.IntN(8)
	spoiled := filepath.Join(t.TempDir(), "spoiled.cairn-backup")
	must(t, os.WriteFile(spoiled, b, 0o600))
	n := c.Nodes[0]
	for _, args := range [][]string{{"status", spoiled}, {"restore", spoiled, "--data-dir", filepath.Join(t.TempDir(), "data")}} {
		if out, err := n.command(append([]string{"snapshot"}, args...)...).CombinedOutput(); err == nil {
			t.Errorf("snapshot %s of a backup whose byte %d is wrong: %s", args[0], at, out)
		}
	}
}
