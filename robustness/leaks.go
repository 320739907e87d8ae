package robustness

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

const (
	// moreGoroutines and moreDescriptors are how much more a node may hold at the end of a
	// scenario than at its beginning: for connections to peers that were not there yet, and
	// files of its logs. What is left behind by each request or fault is more.
	moreGoroutines  = 30
	moreDescriptors = 30
)

// A standing is what a node holds while nobody asks anything of it.
type standing struct{ goroutines, descriptors float64 }

func standingOf(h *HTTP, n *Node) (standing, error) {
	m, err := ReadMeters(h, n)
	return standing{m["go_goroutines"], m["process_open_fds"] - openTables(n)}, err
}

// openTables is how many tables of its store a node has open, where the system tells:
// the history that the traffic writes is in more and more of them.
func openTables(n *Node) (tables float64) {
	links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", n.pid.Load()))
	for _, link := range links {
		if file, err := os.Readlink(link); err == nil && strings.Contains(filepath.Base(file), ".sst") {
			tables++
		}
	}
	return tables
}

// CheckLeaks wants that the nodes hold no more than at the start, and that nothing lies in
// their directories that was to be there for a while only. All clients must have gone.
func (v *Verdict) CheckLeaks(c *Cluster) {
	v.AddError(c.each(c.Nodes, func(n *Node) error {
		h := NewHTTP()
		defer h.Close()
		_, err := retry(func() (struct{}, error) {
			now, err := standingOf(h, n)
			if err != nil {
				return struct{}{}, err
			}
			if then := c.standings[n.Index]; now.goroutines > then.goroutines+moreGoroutines || now.descriptors > then.descriptors+moreDescriptors {
				return struct{}{}, fmt.Errorf("LEAK: %s has %.0f goroutines and %.0f descriptors but for tables, and had %.0f and %.0f",
					n.Name, now.goroutines, now.descriptors, then.goroutines, then.descriptors)
			}
			return struct{}{}, leftovers(n.Dir)
		})
		return err
	}))
}

// leftovers finds what is in a data directory only while something is made: snapshots that
// are written or received, files that are about to take the place of others, a second
// database.
func leftovers(dir string) error {
	var found []string
	databases := 0
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil // it is gone meanwhile
		}
		for _, suffix := range []string{".generating", ".receiving", ".streaming", ".new", ".tmp", ".partial"} {
			if strings.HasSuffix(e.Name(), suffix) {
				found = append(found, path)
			}
		}
		if e.IsDir() && strings.HasPrefix(e.Name(), "db-") {
			if databases++; databases > 1 {
				found = append(found, path)
			}
		}
		return nil
	})
	if err == nil && len(found) > 0 {
		err = fmt.Errorf("LEAK: %q lie about", found)
	}
	return err
}
