package robustness

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// needs skips a test, and says why, where the machine lacks something.
func needs(t *testing.T, tools, files []string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: this fault needs root")
	}
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("SKIPPED: this fault needs %s: %v", tool, err)
		}
	}
	for _, file := range files {
		if _, err := os.Stat(file); err != nil {
			t.Skipf("SKIPPED: this fault needs %s: %v", file, err)
		}
	}
}

// errNotInjected says that a fault hit nobody, and so proves nothing.
var errNotInjected = errors.New("nothing was injected")

// Inject tampers with system calls of a node until end is called, or, if it is to
// hit one call, until that happened. What strace says of them is returned.
func Inject(c *Cluster, n *Node, how string) (end func() (string, error), err error) {
	calls, _, _ := strings.Cut(how, ":")
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "strace", "-f", "-q", "-p", strconv.FormatInt(n.pid.Load(), 10),
		"-e", "trace="+calls, "-e", "inject="+how)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) } // it lets go of the node
	cmd.WaitDelay = stopWithin                                              // or has no node any more, and waits for it
	cmd.SysProcAttr = processAttributes()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		cancel()
		return nil, err
	}
	c.Note("%s: %s", n.Name, how)
	return func() (string, error) {
		cancel()
		err := cmd.Wait()
		if !strings.Contains(out.String(), "(INJECTED)") && !strings.Contains(out.String(), "(DELAYED)") {
			return out.String(), fmt.Errorf("%s: %w: %w", how, errNotInjected, err)
		}
		return out.String(), nil // an end by the signal is none of its own
	}, nil
}

// awaitEnd waits until a node has ended by itself.
func awaitEnd(n *Node, within time.Duration) error {
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case <-n.process.ended:
		return nil
	case <-timer.C:
		return fmt.Errorf("%s still runs after %v", n.Name, within)
	}
}

// gaveUp holds the end of a node that was not told to end against what is promised: it has
// status 1, and says why.
func gaveUp(c *Cluster, n *Node, end error) error {
	var exit *exec.ExitError
	if !errors.As(end, &exit) || exit.ExitCode() != 1 {
		return fmt.Errorf("%s ended with %w, and not with status 1", n.Name, cmp.Or(end, errEnded))
	}
	c.Note("%s ended by itself with %v", n.Name, end)
	log, err := os.ReadFile(n.Log)
	if err == nil && !bytes.Contains(log, []byte("can't go on")) {
		err = fmt.Errorf("%s ended and did not say why", n.Name)
	}
	return err
}

// restartEnded starts a node that has ended by itself, and must have said why.
func restartEnded(c *Cluster, n *Node) error {
	if err := gaveUp(c, n, n.process.err); err != nil {
		return err
	}
	n.forget()
	return n.Start()
}

// SyncFails has one sync of a node fail, once (F-13). What the kernel has of the
// file then nobody knows, so the node must end and not sync again.
func SyncFails(c *Cluster, random *rand.Rand, _ int) error {
	n := c.Nodes[random.IntN(len(c.Nodes))]
	end, err := Inject(c, n, fmt.Sprintf("fsync,fdatasync:error=EIO:when=%d", 1+random.IntN(20)))
	if err != nil {
		return err
	}
	ended := awaitEnd(n, stopWithin)
	if _, err := end(); err != nil || ended != nil {
		return errors.Join(err, ended)
	}
	return restartEnded(c, n)
}

// WriteFails has the writes of a node's files fail for a moment, with no room on the
// disk or a broken one (F-13). It may live or end; what it can't keep it can't answer.
func WriteFails(c *Cluster, random *rand.Rand, _ int) error {
	n := c.Nodes[random.IntN(len(c.Nodes))]
	end, err := Inject(c, n, fmt.Sprintf("pwrite64,pwritev:error=EIO:when=%d", 1+random.IntN(20)))
	if err != nil {
		return err
	}
	ended := awaitEnd(n, 5*time.Second)
	_, err = end()
	if ended != nil && err == nil {
		ended = awaitEnd(n, 2*time.Second) // by what failed at the last moment
	}
	switch {
	case ended != nil:
		return nil
	case err != nil:
		return err
	}
	return restartEnded(c, n)
}

// snapshotCalls are what a node asks of its file system while a snapshot arrives,
// and what it can't go on without at other times either.
var snapshotCalls = []string{"mkdirat", "renameat", "fsync"}

// SnapshotFails leaves a node behind, as LeaveBehind does, and has its file system
// fail once while the snapshot arrives that it needs then (F-13).
func SnapshotFails(c *Cluster, random *rand.Rand, round int) error {
	var n *Node
	var end func() (string, error)
	err := leaveBehind(c, random, func(left *Node) (err error) {
		n = left
		end, err = Inject(c, n, snapshotCalls[round%len(snapshotCalls)]+":error=EIO:when=1")
		return err
	})
	if end == nil {
		return err
	}
	ended := awaitEnd(n, stopWithin)
	if _, missed := end(); err != nil || missed != nil || ended != nil {
		return errors.Join(err, missed, ended)
	}
	return restartEnded(c, n)
}

// SlowSync has each sync of a node take a while longer (F-22).
func SlowSync(c *Cluster, random *rand.Rand, _ int) error {
	n := c.Nodes[random.IntN(len(c.Nodes))]
	delay := time.Duration(50+random.IntN(200)) * time.Millisecond
	end, err := Inject(c, n, fmt.Sprintf("fsync,fdatasync:delay_enter=%d", delay.Microseconds()))
	if err != nil {
		return err
	}
	moment(random, 3*time.Second, 6*time.Second)
	_, err = end()
	return err
}

// SlowSyncIdle is SlowSync for a node that may have nothing to sync meanwhile, since
// another fault keeps it from its leader.
func SlowSyncIdle(c *Cluster, random *rand.Rand, round int) error {
	err := SlowSync(c, random, round)
	if errors.Is(err, errNotInjected) {
		c.Note("%v", err)
		return nil
	}
	return err
}

// ReadOnly has the file system of a node's disk find itself broken and refuse to be
// written (F-12). The node must end. The disk is mended before it starts again.
func ReadOnly(disks []*Disk) Fault {
	return func(c *Cluster, random *rand.Rand, _ int) error {
		n := c.Nodes[random.IntN(len(c.Nodes))]
		disk := disks[n.Index]
		device, err := disk.device()
		if err != nil {
			return err
		}
		c.Note("the disk of %s is read-only", n.Name)
		if err := os.WriteFile(filepath.Join("/sys/fs/ext4", device, "trigger_fs_error"), []byte("1"), 0o200); err != nil {
			return err
		}
		if err := awaitEnd(n, 2*stopWithin); err != nil {
			return err
		}
		if err := disk.Remount(true); err != nil {
			return err
		}
		return restartEnded(c, n)
	}
}

// A limit is a control group with one process in it.
type limit struct{ dir string }

// newLimit makes a control group with one setting for a node.
func newLimit(c *Cluster, n *Node, controller, setting, value string) (*limit, error) {
	l := &limit{filepath.Join("/sys/fs/cgroup", controller, fmt.Sprintf("cairn%d-%s", os.Getpid(), n.Name))}
	if err := os.Mkdir(l.dir, 0o700); err != nil {
		return nil, err
	}
	c.Note("%s: %s=%s", n.Name, setting, value)
	if err := l.write(setting, value); err != nil {
		return nil, errors.Join(err, l.Release())
	}
	return l, nil
}

// errNotRunning says that another fault has ended the node.
var errNotRunning = errors.New("the node does not run")

// Confine puts a node that runs into a control group with one setting.
func Confine(c *Cluster, n *Node, controller, setting, value string) (*limit, error) {
	pid := n.pid.Load()
	if pid == 0 { // which would stand for this process
		return nil, errNotRunning
	}
	l, err := newLimit(c, n, controller, setting, value)
	if err != nil {
		return nil, err
	}
	if err := l.write("cgroup.procs", strconv.FormatInt(pid, 10)); err != nil {
		return nil, errors.Join(err, l.Release())
	}
	return l, nil
}

func (l *limit) write(file, value string) error {
	return os.WriteFile(filepath.Join(l.dir, file), []byte(value), 0o600)
}

func (l *limit) read(file string) (int, error) {
	text, err := os.ReadFile(filepath.Join(l.dir, file))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(string(bytes.TrimSpace(text)))
}

// Release lets the process go, back to where its siblings are.
func (l *limit) Release() error {
	pids, err := os.ReadFile(filepath.Join(l.dir, "cgroup.procs"))
	errs := []error{err}
	for pid := range strings.FieldsSeq(string(pids)) {
		errs = append(errs, os.WriteFile(filepath.Join(filepath.Dir(l.dir), "cgroup.procs"), []byte(pid), 0o600))
	}
	return errors.Join(append(errs, os.Remove(l.dir))...)
}

// Starve leaves a node a tenth of a processor (F-25), of which it must feel
// something.
func Starve(c *Cluster, random *rand.Rand, _ int) error {
	felt, err := starve(c, random)
	if err == nil && !felt {
		err = errors.New("the node was never out of processor time")
	}
	return err
}

// StarveIdle is Starve for a node that may have little to do meanwhile, or be down, since
// another fault keeps it from its peers or its clients.
func StarveIdle(c *Cluster, random *rand.Rand, _ int) error {
	_, err := starve(c, random)
	if errors.Is(err, errNotRunning) || errors.Is(err, unix.ESRCH) {
		c.Note("nobody was starved: %v", err)
		return nil
	}
	return err
}

// calm is a fault that moves the leadership once at the most.
func calm(fault Fault) Fault {
	return func(c *Cluster, random *rand.Rand, round int) error {
		h := NewHTTP()
		defer h.Close()
		_, before, err := leaderAndTerm(c, h)
		if err != nil {
			return err
		}
		if err := fault(c, random, round); err != nil {
			return err
		}
		_, after, err := leaderAndTerm(c, h)
		if err == nil && after > before+1 {
			err = fmt.Errorf("the term went from %d to %d: the leader may lose its place, and that is all", before, after)
		}
		return err
	}
}

func starve(c *Cluster, random *rand.Rand) (felt bool, err error) {
	l, err := Confine(c, c.Nodes[random.IntN(len(c.Nodes))], "cpu", "cpu.cfs_quota_us", "10000")
	if err != nil {
		return false, err
	}
	moment(random, 3*time.Second, 8*time.Second)
	stat, err := os.ReadFile(filepath.Join(l.dir, "cpu.stat"))
	return !strings.Contains(string(stat), "nr_throttled 0\n"), errors.Join(err, l.Release())
}

const (
	// memoryLimit is what a node must do with that is told so: with memoryCache, and with
	// memoryGoal for what Go's runtime keeps. The pages of its files are in it, too.
	memoryLimit = 192 << 20
	memoryCache = "32MiB"
	memoryGoal  = "GOMEMLIMIT=128MiB"
	// memoryWriters send values of memoryValue all the time, for which no revision is right.
	memoryWriters = 24
	memoryValue   = 512 << 10
)

// LittleMemory starts a node with little memory, and sends it large values (F-23). It must
// not be killed for it.
func LittleMemory(c *Cluster, random *rand.Rand, _ int) error {
	n := c.Nodes[random.IntN(len(c.Nodes))]
	l, err := newLimit(c, n, "memory", "memory.limit_in_bytes", strconv.Itoa(memoryLimit))
	if err != nil {
		return err
	}
	within, args := n.within, n.args
	n.within = []string{"env", memoryGoal, "sh", "-c", `echo $$ >"$0/cgroup.procs" && exec "$@"`, l.dir}
	n.args = slices.Concat(args, []string{"--cache", memoryCache})
	restart := func() error { return errors.Join(n.Kill(), n.Start(), c.AwaitReady([]*Node{n})) }
	err = restart()
	if err == nil {
		err = sendLarge(c, n, random)
	}
	most, unread := l.read("memory.max_usage_in_bytes")
	met, unreadToo := l.read("memory.failcnt")
	c.Note("%s took up to %d MiB of memory, and met its limit %d times", n.Name, most>>20, met)
	switch {
	case err != nil || unread != nil || unreadToo != nil:
		err = errors.Join(err, unread, unreadToo)
	case !n.Running():
		err = fmt.Errorf("%s ended with %d MiB of memory: %w", n.Name, memoryLimit>>20, cmp.Or(n.process.err, errEnded))
	case most < memoryLimit*9/10:
		err = fmt.Errorf("%s took %d MiB of memory at the most, and may have %d", n.Name, most>>20, memoryLimit>>20)
	}
	n.within, n.args = within, args
	if n.Running() {
		err = errors.Join(err, restart())
	}
	return errors.Join(err, l.Release())
}

// sendLarge sends large values to a node for a while, of which it stores none. Some may be
// too much for it.
func sendLarge(c *Cluster, n *Node, random *rand.Rand) error {
	value := bytes.Repeat([]byte("large"), memoryValue/5)
	var wg sync.WaitGroup
	quit, wrong := make(chan struct{}), make([]error, memoryWriters)
	counts := make([]int, memoryWriters)
	for i := range memoryWriters {
		wg.Go(func() {
			h := NewHTTP()
			defer h.Close()
			for {
				select {
				case <-quit:
					return
				default:
				}
				a := h.Do(n, Request{Method: http.MethodPut, Path: "/v1/kv/large?if_revision=1", Body: value})
				switch a.Status {
				case 412, 429, 503, 504:
					counts[i]++
				default:
					wrong[i] = fmt.Errorf("%s with little memory answers %d to a large value: %w", n.Name, a.Status, cmp.Or(a.Err, a.explain()))
					return
				}
			}
		})
	}
	moment(random, 3*time.Second, 6*time.Second)
	close(quit)
	wg.Wait()
	sum := 0
	for _, n := range counts {
		sum += n
	}
	c.Note("%s was sent %d large values", n.Name, sum)
	return errors.Join(wrong...)
}

// FewFiles takes all but a few file descriptors from a node, while connections are
// made that need more (F-24), as do its files, if it is one that makes them all the time.
// It may end, and then says why.
func FewFiles(c *Cluster, random *rand.Rand, _ int) error {
	n := c.Nodes[random.IntN(len(c.Nodes))]
	before, err := useOf(n)
	if err != nil {
		return err
	}
	if err := fewFiles(c, n, random); err != nil {
		return err
	}
	log, err := os.ReadFile(n.Log)
	if err != nil {
		return err
	}
	met := 0
	for line := range bytes.Lines(bytes.Join(slices.Collect(bytes.Lines(log))[before.lines:], nil)) {
		if bytes.Contains(line, []byte("too many open files")) {
			met++
		}
	}
	c.Note("%d lines of %s tell of too few files", met, n.Name)
	if met == 0 {
		return fmt.Errorf("%s had too few files, and never met that", n.Name)
	}
	return nil
}

func fewFiles(c *Cluster, n *Node, random *rand.Rand) error {
	pid := int(n.pid.Load())
	var before unix.Rlimit
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return err
	}
	few := uint64(len(open) + 2)
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &before); err != nil {
		return err
	}
	c.Note("%s may open %d files and has %d", n.Name, few, len(open))
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: few, Max: before.Max}, nil); err != nil {
		return err
	}
	var crowd []*HTTP
	for range 20 {
		h := NewHTTP()
		crowd = append(crowd, h)
		go h.Do(n, Request{Method: "GET", Path: "/livez"}) // ends with its time limit at the latest
	}
	moment(random, 2*time.Second, 4*time.Second)
	for _, h := range crowd {
		h.Close()
	}
	if !n.Running() {
		return restartEnded(c, n)
	}
	return unix.Prlimit(pid, unix.RLIMIT_NOFILE, &before, nil)
}

// processorTime is what the process of a node has used so far.
func processorTime(n *Node) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", n.pid.Load()))
	if err != nil {
		return 0, err
	}
	// Behind the name, in parentheses, the fields begin with the third; times are in
	// hundredths of a second.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	var ticks int
	for _, f := range fields[11:13] {
		k, err := strconv.Atoi(f)
		if err != nil {
			return 0, err
		}
		ticks += k
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}
