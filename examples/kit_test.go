package examples

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cairnkv/cairn/client"
	"github.com/cairnkv/cairn/internal/testkit"
)

// patience is how long a test waits for what must happen.
const patience = testkit.Patience

// binaries is where TestMain puts the server and the programs.
var binaries string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	var err error
	if binaries, err = os.MkdirTemp("", "cairn-examples-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(binaries)
	build := exec.Command("go", "build", "-o", binaries, "..", "./...")
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build:", err)
		return 1
	}
	return m.Run()
}

// A cluster is three nodes, each a process.
type cluster struct {
	t     *testing.T
	nodes []*node
	env   []string // what a script is told besides
	*client.Client
}

type node struct {
	url  string
	args []string
	cmd  *exec.Cmd
	log  string
}

// newCluster starts three nodes with empty stores.
func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{t: t}
	var listen, members []string
	free := freeAddresses(t, 6)
	for i := range 3 {
		listen = append(listen, free[i])
		members = append(members, fmt.Sprintf("n%d=%s", i+1, free[3+i]))
	}
	dir := t.TempDir()
	for i := range 3 {
		name := fmt.Sprintf("n%d", i+1)
		n := &node{url: "http://" + listen[i], log: filepath.Join(dir, name+".log"), args: []string{
			"serve", "--name", name, "--listen", listen[i], "--data-dir", filepath.Join(dir, name), "--initial-cluster", strings.Join(members, ","),
		}}
		c.nodes = append(c.nodes, n)
		c.start(n)
	}
	t.Cleanup(func() {
		for _, n := range c.nodes {
			c.kill(n)
			if t.Failed() {
				if text, err := os.ReadFile(n.log); err == nil {
					t.Logf("%s:\n%s", n.log, text)
				}
			}
		}
	})
	var err error
	c.Client, err = client.New(client.Config{Endpoints: c.urls(), Timeout: patience, Attempts: 1000})
	must(t, err)
	t.Cleanup(c.Close)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, url := range c.urls() {
		one, err := client.New(client.Config{Endpoints: []string{url}})
		must(t, err)
		for one.Ready(ctx) != nil {
			if ctx.Err() != nil {
				t.Fatal("the cluster never became ready")
			}
		}
		one.Close()
	}
	return c
}

func (c *cluster) urls() (urls []string) {
	for _, n := range c.nodes {
		urls = append(urls, n.url)
	}
	return urls
}

func (c *cluster) start(n *node) {
	c.t.Helper()
	log, err := os.OpenFile(n.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	must(c.t, err)
	defer log.Close()
	n.cmd = exec.Command(filepath.Join(binaries, "cairn"), n.args...)
	n.cmd.Stdout, n.cmd.Stderr = log, log
	must(c.t, n.cmd.Start())
}

// kill kills a node, if it runs.
func (c *cluster) kill(n *node) {
	if n.cmd == nil {
		return
	}
	_ = n.cmd.Process.Kill() // it fails only if there is none any more
	_ = n.cmd.Wait()
	n.cmd = nil
}

// killLeader kills the node that leads: what hurts most.
func (c *cluster) killLeader() {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	s, err := c.Status(ctx)
	must(c.t, err)
	for _, m := range s.Members {
		for _, n := range c.nodes {
			if m.ID == s.Leader && m.ClientURL == n.url {
				c.kill(n)
				return
			}
		}
	}
	c.t.Fatalf("no node leads: %+v", s)
}

// A form is how an example is run: the program, or the script.
type form struct {
	name    string
	command func(c *cluster, example string, args ...string) *exec.Cmd
}

var forms = []form{
	{"go", func(c *cluster, example string, args ...string) *exec.Cmd {
		return exec.Command(filepath.Join(binaries, example), append([]string{"-endpoints", strings.Join(c.urls(), ",")}, args...)...)
	}},
	{"curl", func(c *cluster, example string, args ...string) *exec.Cmd {
		cmd := exec.Command("sh", append([]string{example + ".sh"}, args...)...)
		cmd.Env = append(append(os.Environ(), "ENDPOINTS="+strings.Join(c.urls(), " ")), c.env...)
		return cmd
	}},
}

// inBothForms runs a scenario with the programs and with the scripts, each on a
// cluster of its own.
func inBothForms(t *testing.T, scenario func(t *testing.T, c *cluster, start func(example string, args ...string) *program)) {
	for _, f := range forms {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel() // each has a cluster of its own
			c := newCluster(t)
			scenario(t, c, func(example string, args ...string) *program {
				t.Helper()
				return launch(t, f.command(c, example, args...))
			})
		})
	}
}

// A program is an example that runs. It is a process group of its own.
type program struct {
	t   *testing.T
	cmd *exec.Cmd

	mu    sync.Mutex
	lines []string
	done  chan struct{} // closed when it has ended and all was read
}

func launch(t *testing.T, cmd *exec.Cmd) *program {
	t.Helper()
	p := &program{t: t, cmd: cmd, done: make(chan struct{})}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, in, err := os.Pipe()
	must(t, err)
	cmd.Stdout, cmd.Stderr = in, in
	must(t, cmd.Start())
	must(t, in.Close())
	read := make(chan struct{})
	go func() {
		defer close(read)
		defer out.Close()
		for s := bufio.NewReader(out); ; {
			line, err := s.ReadString('\n')
			if line != "" {
				p.mu.Lock()
				p.lines = append(p.lines, strings.TrimSuffix(line, "\n"))
				p.mu.Unlock()
			}
			if err != nil {
				if !errors.Is(err, io.EOF) {
					t.Error(err)
				}
				return
			}
		}
	}()
	go func() {
		defer close(p.done)
		_ = cmd.Wait() // its state is looked at where it matters
		<-read
	}()
	t.Cleanup(func() {
		p.signal(syscall.SIGKILL)
		<-p.done
		if t.Failed() {
			t.Logf("%v:\n%s", cmd.Args, strings.Join(p.printed(), "\n"))
		}
	})
	return p
}

// signal sends a signal to the program and whatever it has started.
func (p *program) signal(s syscall.Signal) { _ = syscall.Kill(-p.cmd.Process.Pid, s) }

func (p *program) printed() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.lines...)
}

// count is how many lines begin with a text.
func (p *program) count(prefix string) (n int) {
	for _, line := range p.printed() {
		if strings.HasPrefix(line, prefix) {
			n++
		}
	}
	return n
}

// awaitLast waits until the last line is this one.
func (p *program) awaitLast(line string) {
	p.t.Helper()
	await(p.t, fmt.Sprintf("%v ends with %q", p.cmd.Args, line), func() bool {
		lines := p.printed()
		return len(lines) > 0 && lines[len(lines)-1] == line
	})
}

// awaitLine waits until some line begins with a text.
func (p *program) awaitLine(prefix string) {
	p.t.Helper()
	await(p.t, fmt.Sprintf("%v prints %q", p.cmd.Args, prefix), func() bool { return p.count(prefix) > 0 })
}

// awaitEnd waits until the program has ended well.
func (p *program) awaitEnd() {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		p.t.Fatalf("%v never ended", p.cmd.Args)
	}
	if !p.cmd.ProcessState.Success() {
		p.t.Fatalf("%v: %v\n%s", p.cmd.Args, p.cmd.ProcessState, strings.Join(p.printed(), "\n"))
	}
}

// await waits until something holds.
var await = testkit.Eventually

// freeAddresses finds addresses at which nothing listens.
var freeAddresses = testkit.FreeAddresses

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
