package robustness

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// readyWithin is the promise: a node serves again within ten seconds of its
	// start, after whatever ended it.
	readyWithin = 10 * time.Second
	// stopWithin is how long an orderly end may take.
	stopWithin = 10 * time.Second
	pollEvery  = 10 * time.Millisecond
)

// leaderLossWithin is the promise: with default settings, writes go on within three
// seconds of the loss of the leader.
const leaderLossWithin = 3 * time.Second

// A Node is one member: a command line, a data directory, and at most one
// running process.
type Node struct {
	Index   int
	Name    string
	Address string // of the HTTP API
	Dir     string // the data directory
	Log     string // the log file, of all its processes
	peer    string // the address under which the others know it
	flags   []string
	args    []string
	binary  string
	within  []string // a command that runs the node's in a namespace

	process *process
	// incarnation counts the processes; it is odd while one runs. Clients look
	// at it to know whether two answers are of one process.
	incarnation atomic.Int64
	// pid is the running process, 0 if there is none.
	pid atomic.Int64
}

// A process is what this package has started, and the only thing that it sends
// a signal to.
type process struct {
	cmd     *exec.Cmd
	started time.Time
	// wasReady is written by AwaitReady, of which there is one at a time.
	wasReady bool
	ended    chan struct{} // closed when it has ended; err is set before
	err      error
}

// serve sets the command line of the next process: the member's name, and how it
// comes to its cluster.
func (n *Node) serve(name string, how ...string) {
	n.args = slices.Concat([]string{"serve", "--listen", n.Address, "--data-dir", n.Dir, "--name", name}, how, n.flags)
}

// clone returns a node with the same command line, but for where it is.
func (n *Node) clone(address, peer, dir, log string) *Node {
	return &Node{
		Index: n.Index, Name: "the copy of " + n.Name, Address: address, Dir: dir, Log: log, binary: n.binary, within: n.within,
		args: slices.Concat(n.args, []string{"--listen", address, "--peer-listen", peer, "--data-dir", dir}),
	}
}

// Start starts the node's process. It does not wait for it to be ready.
func (n *Node) Start() error {
	if n.process != nil {
		return fmt.Errorf("%s runs already", n.Name)
	}
	log, err := os.OpenFile(n.Log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	line := slices.Concat(n.within, []string{n.binary}, n.args)
	cmd := exec.Command(line[0], line[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = environment()
	cmd.SysProcAttr = processAttributes()
	p := &process{cmd: cmd, started: time.Now(), ended: make(chan struct{})}
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() { // ends with the process
		p.err = cmd.Wait()
		close(p.ended)
	}()
	n.process = p
	n.pid.Store(int64(cmd.Process.Pid))
	n.incarnation.Add(1)
	return nil
}

// environment is that of the tests without their settings, which are not the
// server's.
func environment() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "CAIRN_") })
}

// URL is the root of the node's API.
func (n *Node) URL() string { return "http://" + n.Address }

// Running reports whether the node has a process that it did not lose.
func (n *Node) Running() bool {
	if n.process == nil {
		return false
	}
	select {
	case <-n.process.ended:
		return false
	default:
		return true
	}
}

// AwaitReady waits until the node says that it is ready, but not longer than
// within, counted from the start of the process; of one that was ready before, and
// lost its peers meanwhile, from now. Time in which the disk of the machine stands still
// does not count, up to wholeWithin in all. It returns how long that took.
func (n *Node) AwaitReady(within time.Duration) (took time.Duration, err error) {
	p := n.process
	if p == nil {
		return 0, fmt.Errorf("%s was not started", n.Name)
	}
	client := &http.Client{Timeout: time.Second}
	defer client.CloseIdleConnections()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	from := p.started
	if p.wasReady {
		from = time.Now()
	}
	disk := WatchDisk(n.Log + ".sync")
	defer func() { err = errors.Join(err, disk.End()) }()
	for {
		if answer, err := client.Get(n.URL() + "/readyz"); err == nil {
			answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				p.wasReady = true
				return time.Since(from), nil
			}
		}
		select {
		case <-tick.C:
		case <-p.ended:
			return 0, fmt.Errorf("%s ended by itself: %v", n.Name, p.err)
		}
		if over := time.Since(from) - within; over > min(disk.Stood(), wholeWithin) {
			return 0, fmt.Errorf("%s was not ready within %v, in which the disk stood still for %v", n.Name, within+over, disk.Stood())
		}
	}
}

// Kill ends the process as kill -9 does and returns when it is gone. That it
// was alive until then is part of the result: a fault that hit nobody proves
// nothing.
func (n *Node) Kill() error {
	p := n.process
	if p == nil {
		return fmt.Errorf("%s does not run", n.Name)
	}
	alive := n.Running()
	if err := p.cmd.Process.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-p.ended
	n.forget()
	if !alive {
		return fmt.Errorf("%s had ended by itself before it was killed: %w", n.Name, cmp.Or(p.err, errEnded))
	}
	return nil
}

// errEnded is the end of a process with status 0.
var errEnded = errors.New("exit status 0")

// forget is for a process that has ended by itself, so that another can start.
func (n *Node) forget() {
	n.pid.Store(0)
	n.process = nil
	n.incarnation.Add(1)
}

// Stop ends the process as an operator does, and insists when that takes too
// long.
func (n *Node) Stop() (err error) {
	p := n.process
	if p == nil {
		return nil
	}
	disk := WatchDisk(n.Log + ".sync")
	defer func() { err = errors.Join(err, disk.End()) }()
	began := time.Now()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		select {
		case <-p.ended:
			n.forget()
			if p.err != nil {
				return fmt.Errorf("%s ended with %w after SIGTERM", n.Name, p.err)
			}
			return nil
		case <-tick.C:
		}
		if over := time.Since(began) - stopWithin; over > min(disk.Stood(), wholeWithin) {
			return errors.Join(fmt.Errorf("%s did not end within %v of SIGTERM, in which the disk stood still for %v", n.Name, stopWithin+over, disk.Stood()), n.Kill())
		}
	}
}

// Pause stops the process where it stands; Resume lets it go on.
func (n *Node) Pause() error { return n.process.cmd.Process.Signal(syscall.SIGSTOP) }

// Resume ends a Pause.
func (n *Node) Resume() error { return n.process.cmd.Process.Signal(syscall.SIGCONT) }
