package robustness

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// content digests all keys and values of a node, whose order is that of the keys.
func content(n *Node) (digest [32]byte, keys int, err error) { return contentOf(n, "") }

// contentOf is content as a query asks for it.
func contentOf(n *Node, query string) (digest [32]byte, keys int, err error) {
	r, err := http.NewRequest(http.MethodGet, n.URL()+"/v1/kv"+query, nil)
	if err != nil {
		return digest, 0, err
	}
	r.Header.Set("Accept", "application/x-ndjson")
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return digest, 0, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(answer.Body) // what there is of it
		return digest, 0, fmt.Errorf("%s: %s", answer.Status, b)
	}
	sum := sha256.New()
	err = eachLine(answer, func(line []byte) error {
		var p Pair
		if err := json.Unmarshal(line, &p); err != nil {
			return err
		}
		keys++
		fmt.Fprintf(sum, "%q %q\n", p.Key, p.Value)
		return nil
	})
	return [32]byte(sum.Sum(nil)), keys, err
}

// killedRestore is a backup, what is in it, and how long a restore of it takes.
type killedRestore struct {
	file   string
	digest [32]byte
	keys   int
	took   time.Duration
}

// takeBackup fills a node, takes a backup of it as a user does, and restores it
// once without any harm, to know how long that takes.
func takeBackup(t *testing.T) *killedRestore {
	c, _ := startCluster(t, 1)
	n := c.Nodes[0]
	keys := rounds(20_000, 100_000)
	report, err := Load(n, func(yield func(Pair) bool) {
		for i := 0; i < keys && yield(Pair{fmt.Sprintf("k/%06d", i), fmt.Sprintf("value %d of some length, so that there are many parts", i*i)}); i++ {
		}
	})
	must(t, err)
	if report.Applied != keys {
		t.Fatalf("loaded %+v", report)
	}
	k := &killedRestore{file: c.Evidence.Path("b.cairn-backup")}
	k.digest, k.keys, err = content(n)
	must(t, err)
	out, err := n.command("snapshot", "save", k.file).CombinedOutput()
	if err != nil {
		t.Fatalf("snapshot save: %v\n%s", err, out)
	}
	must(t, n.Stop())
	began := time.Now()
	must(t, n.restore(k.file, filepath.Join(t.TempDir(), "whole")).Run())
	k.took = time.Since(began)
	t.Logf("%d keys; a restore takes %v", k.keys, k.took.Round(time.Millisecond))
	return k
}

// whole reports whether a node that is ready has all that is in the backup.
func (k *killedRestore) whole(n *Node) error {
	digest, keys, err := content(n)
	if err == nil && (digest != k.digest || keys != k.keys) {
		err = fmt.Errorf("%s serves %d keys of %d, or others", n.Name, keys, k.keys)
	}
	return err
}

// TestKilledRestore kills cairn snapshot restore at any moment. The directory that
// it leaves is refused by a server, or is whole; and the same command given again
// makes it so.
func TestKilledRestore(t *testing.T) {
	beside(t)
	k := takeBackup(t)
	random := rand.New(rand.NewPCG(Seed(t), 0))
	hit, refused, whole := 0, 0, 0
	for round := range rounds(2, 20) {
		c := NewCluster(t, NewEvidence(t), random, Layout{Size: 1})
		n := c.Nodes[0]
		for kills := 1 + random.IntN(2); kills > 0; kills-- {
			cmd := n.restore(k.file, n.Dir)
			must(t, cmd.Start())
			moment(random, 0, k.took)
			must(t, cmd.Process.Kill())
			if cmd.Wait() != nil {
				hit++
			}
		}
		if round%2 == 0 {
			must(t, n.Start())
			switch _, err := n.AwaitReady(readyWithin); {
			case err == nil:
				must(t, k.whole(n))
				whole++
				must(t, n.Stop())
			case n.Running():
				must(t, n.Kill())
				t.Errorf("round %d: after a restore that was killed, a server neither serves nor ends: %v", round+1, err)
			default:
				n.forget()
				refused++
				log, err := os.ReadFile(n.Log)
				must(t, err)
				if !bytes.Contains(log, []byte("was interrupted: start it again")) {
					t.Errorf("round %d: the server does not say what to do: %s", round+1, log)
				}
				must(t, os.Remove(n.Log)) // what it says is no crash
			}
		}
		c.Note("the restore again, after %d kills that met one, %d refusals", hit, refused)
		var out bytes.Buffer
		cmd := n.restore(k.file, n.Dir)
		cmd.Stderr = &out
		// It may have been complete before the kill, or the server have finished
		// what it found.
		if err := cmd.Run(); err != nil && !bytes.Contains(out.Bytes(), []byte("restored from this backup already")) {
			t.Errorf("round %d: the same command given again: %v\n%s", round+1, err, out.Bytes())
			continue
		}
		must(t, c.Start())
		must(t, k.whole(n))
		must(t, n.Stop())
		var v Verdict
		v.CheckLogs(c)
		Judge(t, &v)
	}
	t.Logf("%d kills met a restore; %d servers refused what it left, %d found it whole", hit, refused, whole)
	if hit == 0 {
		t.Error("no kill met a restore: nothing is proven")
	}
}

// TestKilledRestoreFrom kills the nodes of a new cluster while it is filled by
// --restore-from, all at once, and starts them again. In the end each has all of it;
// until then, none serves a part.
func TestKilledRestoreFrom(t *testing.T) {
	beside(t)
	k := takeBackup(t)
	random := rand.New(rand.NewPCG(Seed(t), 0))
	part, hit := 0, 0
	// In a short run the one kill may come too late; another one follows then.
	for round := 0; round < rounds(1, 20) || hit == 0 && round < 20; round++ {
		flags := []string{"--restore-from", k.file}
		c := NewCluster(t, NewEvidence(t), random, Layout{Size: 3, Flags: [][]string{flags, flags, flags}})
		for kills := 1 + random.IntN(3); kills > 0; kills-- {
			must(t, c.each(c.Nodes, (*Node).Start))
			moment(random, 0, 2*k.took)
			for _, n := range c.Nodes {
				// A node that answers before the kill answers with all of it.
				if _, keys, err := content(n); err == nil {
					if keys != k.keys {
						t.Errorf("%s serves %d keys of %d while it is filled", n.Name, keys, k.keys)
					}
					part++
				} else {
					hit++
				}
			}
			must(t, c.each(c.Nodes, (*Node).Kill))
		}
		must(t, c.each(c.Nodes, (*Node).Start))
		for _, n := range c.Nodes {
			_, err := n.AwaitReady(readyWithin + 10*k.took)
			must(t, err)
			_, err = retry(func() (struct{}, error) { return struct{}{}, k.whole(n) })
			must(t, err)
		}
		h := NewHTTP()
		_, err := c.AwaitEqual(h, 2)
		h.Close()
		must(t, err)
		must(t, c.each(c.Nodes, (*Node).Stop))
		var v Verdict
		v.CheckLogs(c)
		Judge(t, &v)
	}
	t.Logf("nodes were killed %d times before they served and %d times after", hit, part)
	if hit == 0 {
		t.Error("no kill met a restore: nothing is proven")
	}
}
