package robustness

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cairnkv/cairn/internal/testkit"
)

// A Cluster is one, three or five nodes, on the loopback or in namespaces.
type Cluster struct {
	Nodes    []*Node
	Evidence *Evidence
	// Network is what is between the nodes, if the layout asks for it.
	Network *Network
	began   time.Time
	mayEnd  bool // as in its layout
	// standings are what the nodes held after Start.
	standings []standing
}

// A Layout says how the nodes of a cluster differ from the plain ones.
type Layout struct {
	Size int
	// Binary is the server; the one of this checkout if it is empty.
	Binary string
	// Dirs are where the nodes keep their data; below the evidence if it is nil.
	Dirs []string
	// Flags are further flags of each node.
	Flags [][]string
	// Relayed lets the nodes reach each other through a Network, which can be
	// cut.
	Relayed bool
	// Namespaces, if not nil, has one for each node.
	Namespaces *Namespaces
	// Evidence is made anew for the scenario if it is nil.
	Evidence *Evidence
	// MayEnd says that the fault breaks what a node can't do without, so that it may
	// end by itself, and say so in its log.
	MayEnd bool
}

// evidence is that of the layout, or new.
func (l *Layout) evidence(t testing.TB) *Evidence {
	t.Helper()
	if l.Evidence == nil {
		l.Evidence = NewEvidence(t)
	}
	return l.Evidence
}

// NewCluster prepares the nodes of a cluster and starts none. Whatever runs when
// the test ends is ended.
func NewCluster(t testing.TB, evidence *Evidence, random *rand.Rand, l Layout) *Cluster {
	t.Helper()
	if l.Binary == "" {
		l.Binary = Binary(t)
	}
	c := &Cluster{Evidence: evidence, began: time.Now(), mayEnd: l.MayEnd}
	c.Note("%s, of %s", l.Binary, revision())
	ports := testkit.FreePorts(t, 3*l.Size)
	var addresses, members, announced, peers []string
	for i := range l.Size {
		addresses = append(addresses, fmt.Sprintf("127.0.0.1:%d", ports[i]))
		announced = append(announced, fmt.Sprintf("127.0.0.1:%d", ports[l.Size+i]))
		peers = append(peers, fmt.Sprintf("127.0.0.1:%d", ports[2*l.Size+i]))
		members = append(members, fmt.Sprintf("n%d=%s", i+1, announced[i]))
	}
	if l.Namespaces != nil {
		for i := range l.Size {
			addresses[i], announced[i] = l.Namespaces.listen(i), l.Namespaces.peer(i)
			members[i] = fmt.Sprintf("n%d=%s", i+1, announced[i])
		}
	}
	for i := range l.Size {
		name := fmt.Sprintf("n%d", i+1)
		n := &Node{
			Index: i, Name: name, Address: addresses[i],
			Dir: evidence.Path(name), Log: evidence.Path(name + ".log"), binary: l.Binary,
			peer: announced[i],
		}
		if l.Dirs != nil {
			n.Dir = filepath.Join(l.Dirs[i], "data")
		}
		if l.Relayed {
			n.flags = append(n.flags, "--peer-listen", peers[i])
		}
		if l.Namespaces != nil {
			n.within = l.Namespaces.in(i)
			n.flags = append(n.flags, "--insecure")
		}
		if l.Flags != nil {
			n.flags = append(n.flags, l.Flags[i]...)
		}
		n.serve(name, "--initial-cluster", strings.Join(members, ","))
		c.Nodes = append(c.Nodes, n)
		c.Note("%s: %q", name, slices.Concat(n.within, n.args))
	}
	if l.Relayed {
		c.Network = newNetwork(t, c.Nodes, announced, peers)
	}
	t.Cleanup(func() {
		for _, n := range c.Nodes {
			if n.Running() {
				if err := n.Kill(); err != nil {
					t.Error(err)
				}
			}
		}
	})
	return c
}

// Start starts all nodes and waits until they are ready.
func (c *Cluster) Start() error {
	if err := c.each(c.Nodes, (*Node).Start); err != nil {
		return err
	}
	if err := c.AwaitReady(c.Nodes); err != nil {
		return err
	}
	h := NewHTTP()
	defer h.Close()
	for _, n := range c.Nodes {
		s, err := standingOf(h, n)
		if err != nil {
			return err
		}
		c.standings = append(c.standings, s)
	}
	return nil
}

// AwaitReady waits until the nodes are ready, each within the promised time of
// its start.
func (c *Cluster) AwaitReady(nodes []*Node) error {
	return c.each(nodes, func(n *Node) error {
		took, err := n.AwaitReady(readyWithin)
		if err == nil {
			c.Note("%s is ready after %v", n.Name, took.Round(time.Millisecond))
		}
		return err
	})
}

// each does something with several nodes at the same time.
func (c *Cluster) each(nodes []*Node, do func(*Node) error) error {
	errs := make([]error, len(nodes))
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() { errs[i] = do(n) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Note adds a line to the timeline of the scenario.
func (c *Cluster) Note(format string, args ...any) {
	f, err := os.OpenFile(c.Evidence.Path("timeline.txt"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return // the timeline explains, it proves nothing
	}
	defer f.Close()
	fmt.Fprintf(f, "%9.3f %s\n", time.Since(c.began).Seconds(), fmt.Sprintf(format, args...))
}

// revision says what the servers are built from, and by what.
var revision = sync.OnceValue(func() string {
	commit, err := exec.Command("git", "describe", "--always", "--dirty", "--abbrev=40").Output()
	if err != nil {
		commit = []byte("an unknown commit")
	}
	return fmt.Sprintf("%s with %s on %s/%s", bytes.TrimSpace(commit), runtime.Version(), runtime.GOOS, runtime.GOARCH)
})

var built struct {
	once sync.Once
	path string
	err  error
}

// Binary builds the server of this checkout, once a run, or takes the one that
// CAIRN_BINARY names.
func Binary(t testing.TB) string {
	t.Helper()
	built.once.Do(func() {
		if built.path = os.Getenv("CAIRN_BINARY"); built.path != "" {
			built.path, built.err = filepath.Abs(built.path)
			return
		}
		built.path = filepath.Join(scratch, "cairn")
		built.err = Build(built.path)
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.path
}

// scratch is a directory of the whole run; TestMain makes and deletes it.
var scratch string

// Build builds the server into a file.
func Build(path string, flags ...string) error {
	args := append([]string{"build", "-o", path}, flags...)
	if os.Getenv("CAIRN_RACE") != "" {
		args = append(args, "-race")
	}
	build := exec.Command("go", append(args, ".")...)
	build.Dir = ".."
	var out bytes.Buffer
	build.Stdout, build.Stderr = &out, &out
	if err := build.Run(); err != nil {
		return fmt.Errorf("build the server: %w\n%s", err, out.Bytes())
	}
	return nil
}
