package robustness

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// A Network is what the nodes reach each other through: each node is announced
// to the others under the address of a relay here, which knows by the process at
// the other end of a connection who dials whom. So any direction between two
// nodes can be cut, without privileges and without anything of the nodes
// knowing.
type Network struct {
	nodes     []*Node
	listeners []net.Listener
	wg        sync.WaitGroup

	mu     sync.Mutex
	cut    map[direction]Cut
	healed chan struct{} // closed when the present cuts end
	links  map[*link]struct{}
	closed bool
	// passed and held count the connections that were let through, and those
	// that met a cut.
	passed, held int
}

// A direction is from the node that dials, and so speaks, to the one that
// listens. Raft answers on connections of its own.
type direction struct{ from, to int }

// A Cut is a way for a direction not to work.
type Cut int

const (
	// Silent: nothing arrives, as when packets are dropped. What was sent arrives
	// when the cut ends.
	Silent Cut = iota + 1
	// Refusing: connections break and can't be made.
	Refusing
)

// link is one connection through a relay.
type link struct {
	direction
	in, out net.Conn
	done    chan struct{}
	once    sync.Once
}

func (l *link) close() {
	l.once.Do(func() {
		close(l.done)
		l.in.Close()
		if l.out != nil {
			l.out.Close()
		}
	})
}

// newNetwork listens on the announced addresses of nodes, and relays to the real
// ones.
func newNetwork(t testing.TB, nodes []*Node, announced, real []string) *Network {
	t.Helper()
	n := &Network{nodes: nodes, cut: map[direction]Cut{}, healed: make(chan struct{}), links: map[*link]struct{}{}}
	t.Cleanup(n.close)
	for to := range nodes {
		l, err := net.Listen("tcp", announced[to])
		if err != nil {
			t.Fatal(err)
		}
		n.listeners = append(n.listeners, l)
		n.wg.Go(func() { n.accept(l, to, real[to]) })
	}
	return n
}

func (n *Network) close() {
	n.mu.Lock()
	n.closed = true
	for _, l := range n.listeners {
		l.Close()
	}
	for l := range n.links {
		l.close()
	}
	n.mu.Unlock()
	n.wg.Wait()
}

func (n *Network) accept(l net.Listener, to int, real string) {
	for {
		in, err := l.Accept()
		if err != nil {
			return // it is closed
		}
		n.wg.Go(func() { n.relay(in, to, real) })
	}
}

// relay serves one connection until one of its ends is gone.
func (n *Network) relay(in net.Conn, to int, real string) {
	from, err := n.dialler(in)
	if err != nil {
		in.Close() // it is gone already
		return
	}
	l := &link{direction: direction{from, to}, in: in, done: make(chan struct{})}
	defer l.close()
	if !n.enter(l) {
		return
	}
	defer n.leave(l)
	if !n.open(l) {
		return
	}
	out, err := net.DialTimeout("tcp", real, time.Second)
	if err != nil {
		return
	}
	n.mu.Lock()
	l.out = out
	n.passed++
	gone := n.closed
	n.mu.Unlock()
	if gone {
		out.Close()
		return
	}
	var both sync.WaitGroup
	both.Go(func() { n.pump(l, l.in, out) })
	both.Go(func() { n.pump(l, out, l.in) })
	both.Wait()
}

func (n *Network) enter(l *link) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return false
	}
	n.links[l] = struct{}{}
	return true
}

func (n *Network) leave(l *link) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.links, l)
}

// pump copies one way, and stands still while the direction is silent.
func (n *Network) pump(l *link, src, dst net.Conn) {
	defer l.close()
	buffer := make([]byte, 64<<10)
	for {
		count, err := src.Read(buffer)
		if count > 0 && !n.open(l) {
			return
		}
		if count > 0 {
			if _, err := dst.Write(buffer[:count]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// open waits until the direction of a link works. It returns false when the link
// never will.
func (n *Network) open(l *link) bool {
	for first := true; ; first = false {
		n.mu.Lock()
		cut, healed := n.cut[l.direction], n.healed
		if cut != 0 && first {
			n.held++
		}
		n.mu.Unlock()
		switch cut {
		case 0:
			return true
		case Refusing:
			return false
		}
		select {
		case <-healed:
		case <-l.done:
			return false
		}
	}
}

// dialler finds the node whose process is at the other end of a connection.
func (n *Network) dialler(c net.Conn) (int, error) {
	inode, err := inodeOf(c.RemoteAddr().(*net.TCPAddr).Port, c.LocalAddr().(*net.TCPAddr).Port)
	if err != nil {
		return 0, err
	}
	for i, node := range n.nodes {
		if owns(node.pid.Load(), inode) {
			return i, nil
		}
	}
	return 0, errors.New("the connection is no node's")
}

// inodeOf finds the socket of the loopback that is bound to one port and
// connected to another.
func inodeOf(local, remote int) (string, error) {
	f, err := os.Open("/proc/net/tcp")
	if err != nil {
		return "", err
	}
	defer f.Close()
	from, to := fmt.Sprintf(":%04X", local), fmt.Sprintf(":%04X", remote)
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) > 9 && strings.HasSuffix(fields[1], from) && strings.HasSuffix(fields[2], to) {
			return fields[9], nil
		}
	}
	return "", errors.New("the connection is gone")
}

func owns(pid int64, inode string) bool {
	if pid == 0 {
		return false
	}
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	open, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	for _, fd := range open {
		if to, err := os.Readlink(dir + "/" + fd.Name()); err == nil && to == "socket:["+inode+"]" {
			return true
		}
	}
	return false
}

// Isolate cuts a node off from all others, in both directions or only in that
// towards it.
func (n *Network) Isolate(node int, how Cut, both bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for other := range n.nodes {
		if other == node {
			continue
		}
		n.cut[direction{other, node}] = how
		if both {
			n.cut[direction{node, other}] = how
		}
	}
	for l := range n.links {
		if how == Refusing && n.cut[l.direction] == Refusing {
			l.close()
		}
	}
}

// Heal ends all cuts.
func (n *Network) Heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.cut)
	close(n.healed)
	n.healed = make(chan struct{})
}

// Met reports how many connections met a cut so far.
func (n *Network) Met() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.held
}
