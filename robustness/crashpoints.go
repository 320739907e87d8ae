package robustness

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A crashPoint is a line of the server at which its process can end as kill -9 ends it.
type crashPoint struct {
	name string
	// In file, the point is before the line that begins with at, or behind it.
	file, at string
	behind   bool
	seldom   bool // it is reached once for each cut of the log
	// who reaches it, if it has to do with a snapshot for a member that lags.
	who snapshotSide
}

type snapshotSide int

const (
	anybody   snapshotSide = iota // whoever does its work
	giving                        // a member that streams a snapshot to another
	receiving                     // a member that gets one
)

// crashPoints are the steps of a write, of the store and of snapshots between which a
// crash leaves something half done.
var crashPoints = []crashPoint{
	{name: "before a message is sent", file: "raftsm/transport/line.go", at: "\terr := net.ErrClosed\n"},
	{name: "before the log is saved", file: "raftsm/raftlog/store.go", at: "\tif err := s.ILogDB.SaveRaftState(save, worker); err != nil {\n"},
	{name: "behind the save of the log", file: "raftsm/raftlog/store.go", at: "\ts.saved(time.Since(began))\n"},
	{name: "between entries of a batch", file: "raftsm/machine.go", at: "\tif b.BeginEntry(e.Index, r.incarnation, r.seq) {\n", behind: true},
	{name: "before the commit of a batch", file: "storage/batch.go", at: "\tif err := b.wb.Commit(pebble.NoSync); err != nil {\n"},
	{name: "behind the commit of a batch", file: "storage/batch.go", at: "\tnumber, err := b.commitNumber()\n"},
	{name: "before results are delivered", file: "raftsm/machine.go", at: "\tfor _, d := range deliveries {\n"},
	{name: "before events are sent", file: "raftsm/machine.go", at: "\t\t\tm.callbacks.Applied(applied.From, applied.To, events)\n"},
	{name: "before the store is synced", file: "raftsm/machine.go", at: "\terr := m.store.Sync()\n", seldom: true},
	{name: "before a snapshot is recorded", file: "raftsm/raftlog/store.go", at: "\treturn s.failure.of(s.ILogDB.SaveSnapshots(updates))\n", seldom: true},
	{name: "before the log is cut", file: "raftsm/raftlog/store.go", at: "\treturn s.failure.of(s.ILogDB.RemoveEntriesTo(shardID, replicaID, index))\n", seldom: true},
	{name: "when a snapshot begins", file: "raftsm/machine.go", at: "\tv := pinned.(*storage.View)\n", who: giving},
	{name: "while a snapshot is sent", file: "storage/snapshot.go", at: "\t\tif len(block) < snapshotBlockBytes {\n", who: giving},
	{name: "while a snapshot is read", file: "storage/snapshot.go", at: "\t\treturn b.add(key, value)\n", who: receiving},
	{name: "before the tables of a snapshot are taken over", file: "storage/snapshot.go", at: "\tif len(b.tables) > 0 {\n", who: receiving},
	{name: "before the switch to a snapshot", file: "storage/store.go", at: "\tif err := fs.Rename(tmp, fs.PathJoin(dir, pointerFile)); err != nil {\n", who: receiving},
	{name: "behind the switch to a snapshot", file: "storage/snapshot.go", at: "\ts.current.Store(h)\n", who: receiving},
}

// crashCode is what the server's packages get: a process ends at the point, and at the
// time that it is reached, that the file with its number says.
const crashCode = `package %s

import (
	"fmt"
	"os"
	"sync"
	"syscall"
)

var crashes struct {
	sync.Mutex
	reached map[string]int
}

func crashAt(point string) {
	file := fmt.Sprintf("%%s/%%d", %q, os.Getpid())
	order, err := os.ReadFile(file)
	if err != nil {
		return
	}
	var times int
	var at string
	if n, _ := fmt.Sscanf(string(order), "%%d %%q\n", &times, &at); n != 2 || at != point {
		return
	}
	crashes.Lock()
	defer crashes.Unlock()
	if crashes.reached == nil {
		crashes.reached = map[string]int{}
	}
	if crashes.reached[point]++; crashes.reached[point] < times {
		return
	}
	if os.Remove(file) != nil {
		return // it was taken back
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}
`

// crashEdits are the edits of a server that has the points, and is told by files in dir
// where to end.
func crashEdits(dir string) []Edit {
	edits := []Edit{shortLog}
	packages := map[string]bool{}
	for _, p := range crashPoints {
		call := fmt.Sprintf("crashAt(%q)\n", p.name)
		text := call + p.at
		if p.behind {
			text = p.at + call
		}
		edits = append(edits, Edit{p.file, p.at, text})
		if in := filepath.Dir(p.file); !packages[in] {
			packages[in] = true
			edits = append(edits, Edit{filepath.Join(in, "crash.go"), "", fmt.Sprintf(crashCode, filepath.Base(in), dir)})
		}
	}
	return edits
}

// crashWithin is how long a node may take to reach a point.
const crashWithin = 20 * time.Second

// Crash ends a node at each of the points in turn, and starts it again. The servers are
// those of crashEdits, with the same directory.
func Crash(dir string) Fault {
	var turns []int
	return func(c *Cluster, random *rand.Rand, round int) error {
		if round%len(crashPoints) == 0 {
			turns = random.Perm(len(crashPoints))
		}
		p := crashPoints[turns[round%len(crashPoints)]]
		times := 1 + random.IntN(10)
		if p.seldom {
			times = 1 + times%3
		}
		armed := map[*Node]string{}
		arm := func(nodes ...*Node) error {
			for _, n := range nodes {
				armed[n] = filepath.Join(dir, strconv.FormatInt(n.pid.Load(), 10))
				c.Note("%s is to end %s, the %d. time", n.Name, p.name, times)
				if err := os.WriteFile(armed[n], fmt.Appendf(nil, "%d %q\n", times, p.name), 0o600); err != nil {
					return err
				}
			}
			return nil
		}
		var err error
		switch p.who {
		case anybody:
			err = arm(c.Nodes[random.IntN(len(c.Nodes))])
		case giving, receiving:
			if !strings.HasPrefix(p.name, "while") {
				times = 1
			}
			err = leaveBehind(c, random, func(lags *Node) error {
				if p.who == receiving {
					return arm(lags)
				}
				return arm(others(c, lags)...)
			})
		}
		if err != nil {
			return err
		}
		ended, err := awaitCrash(c, armed)
		if err != nil {
			return fmt.Errorf("%w %s", err, p.name)
		}
		moment(random, 0, 1500*time.Millisecond)
		for _, n := range ended {
			c.Note("start %s", n.Name)
			if err := n.Start(); err != nil {
				return err
			}
		}
		return nil
	}
}

// others are the nodes but one.
func others(c *Cluster, one *Node) []*Node {
	var nodes []*Node
	for _, n := range c.Nodes {
		if n != one {
			nodes = append(nodes, n)
		}
	}
	return nodes
}

// awaitCrash waits until one of the nodes has ended, takes their orders from the others,
// and returns those that have ended.
func awaitCrash(c *Cluster, armed map[*Node]string) (ended []*Node, err error) {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	running := func() (n int) {
		for node := range armed {
			if node.Running() {
				n++
			}
		}
		return n
	}
	for began := time.Now(); running() == len(armed); <-tick.C {
		if time.Since(began) > crashWithin {
			return nil, fmt.Errorf("no node has ended within %v", crashWithin)
		}
	}
	for n, order := range armed {
		if err := os.Remove(order); err == nil {
			continue // and its process reads it no more
		} else if !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		<-n.process.ended
		var exit *exec.ExitError
		if !errors.As(n.process.err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			return nil, fmt.Errorf("%s ended by itself: %v", n.Name, n.process.err)
		}
		c.Note("%s has ended", n.Name)
		n.forget()
		ended = append(ended, n)
	}
	return ended, nil
}
