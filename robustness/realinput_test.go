package robustness

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// realKeys is how many lines of the Go distribution are loaded: real paths as
// keys, real text as values, and there wherever these tests can run.
const realKeys = 200_000

// sourceLines reads the lines of the source files of the Go distribution, in the
// order of their paths, keyed by path and line number.
func sourceLines(t *testing.T) []Pair {
	t.Helper()
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(strings.TrimSpace(string(out)), "src")
	var pairs []Pair
	errEnough := errors.New("enough")
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		lines := bufio.NewScanner(f)
		lines.Buffer(nil, 1<<20)
		for n := 1; lines.Scan(); n++ {
			if utf8.Valid(lines.Bytes()) { // JSON strings carry nothing else
				pairs = append(pairs, Pair{fmt.Sprintf("src/%s/%06d", filepath.ToSlash(name), n), lines.Text()})
			}
		}
		if len(pairs) >= realKeys {
			return errEnough
		}
		return lines.Err()
	})
	if err != nil && !errors.Is(err, errEnough) {
		t.Fatal(err)
	}
	if len(pairs) < realKeys {
		t.Fatalf("the Go distribution has only %d lines here", len(pairs))
	}
	slices.SortFunc(pairs, func(a, b Pair) int { return strings.Compare(a.Key, b.Key) })
	return pairs
}

// TestRealInput loads a source tree into three nodes, line by line, and wants it
// back byte for byte after all of them were killed.
func TestRealInput(t *testing.T) {
	beside(t)
	pairs := sourceLines(t)
	c := NewCluster(t, NewEvidence(t), rand.New(rand.NewPCG(Seed(t), 0)), Layout{Size: 3})
	must(t, c.Start())
	h := NewHTTP()
	defer h.Close()

	began := time.Now()
	report, err := Load(c.Nodes[0], slices.Values(pairs))
	must(t, err)
	if !report.Done || report.Applied != len(pairs) {
		t.Fatalf("of %d lines: %+v", len(pairs), report)
	}
	t.Logf("loaded %d keys in %v", len(pairs), time.Since(began).Round(time.Millisecond))
	listed := directories(pairs, "src/")
	compareDirectories(t, h, c.Nodes[1], "src/", listed)

	for _, n := range c.Nodes {
		must(t, n.Kill())
	}
	must(t, c.Start())
	compareDirectories(t, h, c.Nodes[2], "src/", listed)
	for _, n := range c.Nodes {
		compareAll(t, n, pairs)
	}

	a := h.Do(c.Nodes[1], Request{
		Method: http.MethodPost, Path: "/v1/compact", Body: fmt.Appendf(nil, `{"revision":%d}`, report.Revision),
		Header: map[string]string{"Content-Type": "application/json"},
	})
	must(t, a.explain())
	hash, err := c.AwaitEqual(h, report.Revision)
	must(t, err)
	if hash.Compact != report.Revision {
		t.Errorf("compacted at %d, want %d", hash.Compact, report.Revision)
	}
	compareAll(t, c.Nodes[0], pairs)
}

// directories are the first path elements below a prefix, as a list by
// delimiter gives them.
func directories(pairs []Pair, prefix string) []string {
	var found []string
	for _, p := range pairs {
		name, _, _ := strings.Cut(strings.TrimPrefix(p.Key, prefix), "/")
		if name = prefix + name + "/"; len(found) == 0 || found[len(found)-1] != name {
			found = append(found, name)
		}
	}
	return found
}

func compareDirectories(t *testing.T, h *HTTP, n *Node, prefix string, want []string) {
	t.Helper()
	a := h.Do(n, Request{Method: http.MethodGet, Path: "/v1/kv?limit=10000&delimiter=/&prefix=" + url.QueryEscape(prefix)})
	must(t, a.explain())
	var list struct {
		Entries  []Version `json:"entries"`
		Prefixes []string  `json:"common_prefixes"`
		More     bool      `json:"more"`
	}
	must(t, json.Unmarshal(a.Body, &list))
	if !slices.Equal(list.Prefixes, want) || len(list.Entries) != 0 || list.More {
		t.Errorf("%s lists %d directories and %d keys, want %d directories", n.Name, len(list.Prefixes), len(list.Entries), len(want))
	}
}

// compareAll streams everything from a node and compares it.
func compareAll(t *testing.T, n *Node, want []Pair) {
	t.Helper()
	i := 0
	err := Stream(n, "prefix=src/", func(v Version) error {
		if i >= len(want) || (Pair{v.Key, v.Value}) != want[i] {
			return fmt.Errorf("entry %d is %s = %q", i, v.Key, v.Value)
		}
		i++
		return nil
	})
	if err != nil || i != len(want) {
		t.Errorf("%s streams %d of %d entries as they were written: %v", n.Name, i, len(want), err)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
