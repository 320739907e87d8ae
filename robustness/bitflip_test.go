package robustness

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

const (
	flipKeys = 80
	// flipWithin is how long a node with a damaged file may take to serve, or to
	// end.
	flipWithin = 20 * time.Second
)

// flipValue is what a key of the sweep has.
func flipValue(i int) []byte {
	return bytes.Repeat(fmt.Appendf(nil, "value %d;", i), (8<<10)/len(fmt.Sprintf("value %d;", i)))
}

// kindOfFile is a file's path without its numbers.
func kindOfFile(path string) string { return regexp.MustCompile(`[0-9]+`).ReplaceAllString(path, "#") }

// rollBack gives a node the directory that it had, and makes the others forget what
// it has promised since: a member whose directory goes back in time while a leader
// counts on it is another fault than this one.
func rollBack(t *testing.T, c *Cluster, n *Node, image string) {
	t.Helper()
	must(t, os.RemoveAll(n.Dir))
	must(t, os.CopyFS(n.Dir, os.DirFS(image)))
	must(t, os.Chmod(n.Dir, 0o700))
	var others []*Node
	for _, other := range c.Nodes {
		if other != n {
			others = append(others, other)
		}
	}
	must(t, c.each(others, (*Node).Kill))
	must(t, c.each(others, (*Node).Start))
	must(t, c.AwaitReady(others))
}

// TestBitFlips flips one bit in one file of one of three nodes, for each kind of
// file that a node has, again and again, and starts it. It ends and says why, or
// it serves nothing but what was written. The others serve what was written all
// the time, and in the end all three hold the same.
func TestBitFlips(t *testing.T) {
	beside(t)
	e := NewEvidence(t)
	random := rand.New(rand.NewPCG(Seed(t), 0))
	c := NewCluster(t, e, random, Layout{Size: 3})
	must(t, c.Start())
	h := NewHTTP()
	defer h.Close()
	victim := c.Nodes[random.IntN(3)]
	for i := range flipKeys {
		if i == flipKeys/2 {
			// What its store had in its log is in a table afterwards.
			must(t, victim.Kill())
			must(t, victim.Start())
			must(t, c.AwaitReady([]*Node{victim}))
		}
		a := h.Do(c.Nodes[i%3], Request{Method: http.MethodPut, Path: fmt.Sprint("/v1/kv/flip-", i), Body: flipValue(i)})
		must(t, a.explain())
	}
	must(t, victim.Kill())
	image := e.Path("image")
	must(t, os.CopyFS(image, os.DirFS(victim.Dir)))
	files := map[string][]string{}
	var kinds []string
	must(t, filepath.WalkDir(image, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil || info.Size() == 0 {
			return err
		}
		path, err = filepath.Rel(image, path)
		kind := kindOfFile(path)
		if files[kind] == nil {
			kinds = append(kinds, kind)
		}
		files[kind] = append(files[kind], path)
		return err
	}))
	for _, want := range []string{".sst", ".log", "MANIFEST", "IDENTITY", "raftlog.highwater", "tandb"} {
		if !strings.Contains(strings.Join(kinds, " "), want) {
			t.Errorf("the node has no %s among %q", want, kinds)
		}
	}
	found, harmless := 0, 0
	for _, kind := range kinds {
		for range rounds(1, 40) {
			file := files[kind][random.IntN(len(files[kind]))]
			rollBack(t, c, victim, image)
			b, err := os.ReadFile(filepath.Join(victim.Dir, file))
			must(t, err)
			at, bit := random.IntN(len(b)), byte(1)<<random.IntN(8)
			b[at] ^= bit
			must(t, os.WriteFile(filepath.Join(victim.Dir, file), b, 0o600))
			what := fmt.Sprintf("%s, bit %#02x of byte %d", file, bit, at)
			if wasFound := runDamaged(t, h, c, victim, what); wasFound {
				found++
			} else {
				harmless++
			}
			if t.Failed() {
				return // with the directory as it is
			}
		}
	}
	c.Note("%d flips were found, %d were harmless", found, harmless)
	t.Logf("%d kinds of files; %d flips were found, %d were harmless", len(kinds), found, harmless)
	if found == 0 {
		t.Error("no flip was found, so the sweep is not what it should be")
	}
	rollBack(t, c, victim, image)
	must(t, victim.Start())
	must(t, c.AwaitReady([]*Node{victim}))
	for _, n := range c.Nodes {
		readFlipped(t, h, n, false, "at the end")
	}
}

// runDamaged starts a node whose directory is damaged and reads all from it, and
// reports whether the damage was found.
func runDamaged(t *testing.T, h *HTTP, c *Cluster, n *Node, what string) (found bool) {
	t.Helper()
	before, err := os.Stat(n.Log)
	must(t, err)
	must(t, n.Start())
	p := n.process
	_, err = n.AwaitReady(flipWithin)
	if err == nil {
		readFlipped(t, h, n, true, what)
	}
	ended := false
	select {
	case <-p.ended:
		ended = true
		n.forget()
	default:
		if err != nil {
			t.Errorf("%s: the node neither serves nor ends: %v", what, err)
		}
		must(t, n.Kill())
	}
	log, err := os.ReadFile(n.Log)
	must(t, err)
	log = log[before.Size():]
	if bytes.Contains(log, []byte("\ngoroutine ")) {
		t.Errorf("%s: the node panicked:\n%.2000s", what, log)
	}
	if ended && len(bytes.TrimSpace(log)) == 0 {
		t.Errorf("%s: the node ended without a word: %v", what, p.err)
	}
	// The others have everything, whatever that node did.
	for _, other := range c.Nodes {
		if other != n {
			readFlipped(t, h, other, false, what)
		}
	}
	c.Note("%s: found: %v", what, ended)
	return ended
}

// valueIn is the value of an entry.
func valueIn(body []byte) string {
	var entry struct {
		Value string `json:"value"`
	}
	if json.Unmarshal(body, &entry) != nil {
		return ""
	}
	return entry.Value
}

// readFlipped reads all keys from a node. One whose files are damaged may refuse,
// or end, but never give another value.
func readFlipped(t *testing.T, h *HTTP, n *Node, damaged bool, what string) {
	t.Helper()
	for i := range flipKeys {
		for _, mode := range []string{"stale", "linearizable"} {
			a := h.Do(n, Request{Method: http.MethodGet, Path: fmt.Sprintf("/v1/kv/flip-%d?consistency=%s", i, mode)})
			switch {
			case a.Status == http.StatusOK && valueIn(a.Body) == string(flipValue(i)):
			case damaged && (a.Status == 0 || a.Status == http.StatusServiceUnavailable):
				return // it says that it can't, or is no more
			case mode == "stale" && a.Status == http.StatusNotFound && damaged:
				// It has started and not caught up; the other read comes next.
			default:
				t.Errorf("%s: %s read of key %d on %s: %d %.100q", what, mode, i, n.Name, a.Status, a.Body)
				return
			}
		}
	}
}
