package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/cairnkv/cairn/internal/testkit"
)

// programs are those that scripts run besides others: they are this test binary.
var programs = map[string]func(){"cairn": main, "detached": detached}

// In scripts, cairn is this test binary, which then runs main.
func TestMain(m *testing.M) {
	if _, program := programs[filepath.Base(os.Args[0])]; !program {
		for _, s := range []os.Signal{syscall.SIGHUP, os.Interrupt} {
			if signal.Ignored(s) {
				// As under nohup, or by a script that runs the tests with &, which all that
				// the scripts start would have from here, and could not be told by it. What
				// is noticed is not ignored, and begins anew in a child.
				signal.Notify(make(chan os.Signal, 1), s)
			}
		}
	}
	testscript.Main(m, programs)
}

// detached COMMAND… runs a command without a terminal, whether the tests have one or not.
func detached() {
	runProgram(exec.Command(os.Args[1], os.Args[2:]...), &syscall.SysProcAttr{Setsid: true})
}

// runProgram runs a command in place of this process, and ends with its status.
func runProgram(cmd *exec.Cmd, attr *syscall.SysProcAttr) {
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = attr
	err := cmd.Run()
	var exited *exec.ExitError
	if err != nil && !errors.As(err, &exited) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(cmd.ProcessState.ExitCode())
}

// The scripts of testdata run the command line as its users do. Each has
//
//   - $LISTEN and $PEER, free addresses for a node, and CAIRN_ENDPOINT, its URL;
//   - $LISTEN2, $PEER2, $LISTEN3 and $PEER3, the same for two more;
//   - $BASE, a free port for cairn dev;
//   - $DEAD, a URL at which nothing listens;
//   - $DROPS, the URL of a server that hangs up on every request that it has read;
//   - the file openapi.yaml, the contract that this binary embeds;
//
// and, besides the commands of testscript, exits N COMMAND…, which wants the exit
// status N, -1 where a signal ends it, and terminate, which sends SIGTERM to what runs in the
// background; and the programs detached, which runs a command without a terminal, and, on Linux, terminal,
// background, adopter, unprivileged and privileged, the last two under the condition root.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":     exits,
			"terminate": terminate,
		},
		Condition: func(name string) (bool, error) {
			if name != "root" {
				return false, fmt.Errorf("there is no condition %q", name)
			}
			return os.Getuid() == 0, nil
		},
		Setup: func(env *testscript.Env) error {
			base := freeBase(t)
			listen := freeAddress(t)
			env.Setenv("LISTEN", listen)
			env.Setenv("PEER", freeAddress(t))
			env.Setenv("PEER2", freeAddress(t))
			env.Setenv("PEER3", freeAddress(t))
			env.Setenv("LISTEN2", freeAddress(t))
			env.Setenv("LISTEN3", freeAddress(t))
			env.Setenv("CAIRN_ENDPOINT", "http://"+listen)
			env.Setenv("CAIRN_TIMEOUT", testkit.Patience.String()) // a shared disk may stand still
			env.Setenv("BASE", strconv.Itoa(base))
			env.Setenv("BASE2", strconv.Itoa(base+10))
			env.Setenv("BASE3", strconv.Itoa(base+20))
			env.Setenv("DEAD", "http://"+freeAddress(t))
			env.Setenv("DROPS", dropper(env))
			return os.WriteFile(filepath.Join(env.WorkDir, "openapi.yaml"), openAPI, 0o600)
		},
	})
}

// exits runs a command and wants an exit status.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits status command [args...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	var exited *exec.ExitError
	if errors.As(err, &exited) {
		got = exited.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
}

// terminate asks what runs in the background to end.
func terminate(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 0 {
		ts.Fatalf("usage: terminate")
	}
	for _, command := range ts.BackgroundCmds() {
		ts.Check(command.Process.Signal(syscall.SIGTERM))
	}
}

var freeAddress = testkit.FreeAddress

// freeBase is a port from which on cairn dev finds the ports free that it takes.
func freeBase(t testing.TB) int {
	t.Helper()
	for range 100 {
		_, port, _ := net.SplitHostPort(freeAddress(t))
		base, err := strconv.Atoi(port)
		if err != nil {
			t.Fatal(err)
		}
		free := true
		for _, port := range []int{base, base + 1, base + 10, base + 11, base + 20, base + 21} {
			free = free && testkit.IsFree(port)
		}
		if free {
			return base
		}
	}
	t.Fatal("no free ports")
	return 0
}

// dropper is the URL of a server that reads each request and then hangs up, as a
// node does that loses its power.
func dropper(env *testscript.Env) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		env.T().Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(l) // until it is closed
	}()
	env.Defer(func() {
		_ = server.Close()
		<-served
	})
	return "http://" + l.Addr().String()
}

// The tour of the README says the truth: its commands are run one after the other
// against a new node, and print what it says that they print.
func TestReadmeTour(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	steps, err := parseTour(string(readme))
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	host := strings.TrimPrefix(startNode(ctx, t), "http://")
	for _, step := range steps {
		command := exec.CommandContext(ctx, "sh", "-c", strings.ReplaceAll(step.command, "localhost:7480", host))
		var stderr strings.Builder
		command.Stderr = &stderr
		stdout, err := command.Output()
		if err != nil {
			t.Fatalf("line %d: %s\n%v: %s", step.line, step.command, err, stderr.String())
		}
		if step.want != "" && !matches(step.want, string(stdout)) {
			t.Fatalf("line %d: %s\nprints\n%s\nand not\n%s", step.line, step.command, stdout, step.want)
		}
	}
}

// startNode starts a node with a new store and returns its URL once it is ready.
func startNode(ctx context.Context, t *testing.T) string {
	t.Helper()
	listen := freeAddress(t)
	url := "http://" + listen
	serve := cairn(ctx, t, "serve", "--listen", listen, "--peer-advertise", freeAddress(t), "--data-dir", filepath.Join(t.TempDir(), "data"), "--log-level", "error")
	var stderr strings.Builder
	serve.Stderr = &stderr
	if err := serve.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = serve.Process.Signal(syscall.SIGTERM) // if it is gone, Wait says why
		if err := serve.Wait(); err != nil {
			t.Errorf("cairn serve: %v: %s", err, stderr.String())
		}
	})
	if out, err := cairn(ctx, t, "status", "--wait", "30s", "--endpoint", url).CombinedOutput(); err != nil {
		t.Fatalf("the node did not become ready: %v: %s", err, out)
	}
	return url
}

// cairn is a command line of this test binary, which TestMain knows by its name.
func cairn(ctx context.Context, t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	command := exec.CommandContext(ctx, self)
	command.Args = append([]string{"cairn"}, args...)
	// Settings of whoever runs the tests are none of theirs.
	command.Env = slices.DeleteFunc(os.Environ(), func(pair string) bool { return strings.HasPrefix(pair, "CAIRN_") })
	return command
}

// A tourStep is a command of the tour with what it prints; empty if the tour does
// not say.
type tourStep struct {
	line          int
	command, want string
}

// parseTour takes the commands out of the section between the two marks. It is
// one block of sh: lines that begin with curl, each followed by what it prints as
// comments.
func parseTour(readme string) ([]tourStep, error) {
	const begin, end = "<!-- tour -->", "<!-- /tour -->"
	before, rest, ok := strings.Cut(readme, begin)
	section, _, ended := strings.Cut(rest, end)
	if !ok || !ended {
		return nil, fmt.Errorf("README.md has no section between %s and %s", begin, end)
	}
	var steps []tourStep
	inside, blocks := false, 0
	first := strings.Count(before, "\n") + 1
	for i, line := range strings.Split(section, "\n") {
		at := first + i
		switch {
		case !inside && line == "```sh":
			inside = true
			blocks++
		case inside && line == "```":
			inside = false
		case !inside || line == "":
		case strings.HasPrefix(line, "curl "):
			steps = append(steps, tourStep{line: at, command: line})
		case strings.HasPrefix(line, "# ") && len(steps) > 0:
			last := &steps[len(steps)-1]
			last.want += strings.TrimPrefix(line, "# ") + "\n"
		default:
			return nil, fmt.Errorf("README.md:%d: in the tour, a line begins with curl or, if it is what one prints, with #: %s", at, line)
		}
	}
	switch {
	case inside || blocks != 1:
		return nil, fmt.Errorf("the tour of README.md has %d blocks of sh, want one that ends", blocks)
	case len(steps) == 0:
		return nil, errors.New("the tour of README.md has no commands")
	}
	return steps, nil
}

// matches reports whether a command printed what is wanted, in which … stands for
// anything. Line ends at the end don't matter: a value has none of its own.
func matches(want, got string) bool {
	parts := strings.Split(strings.TrimRight(want, "\n"), "…")
	for i := range parts {
		parts[i] = regexp.QuoteMeta(parts[i])
	}
	return regexp.MustCompile(`(?s)\A` + strings.Join(parts, ".*") + `\z`).MatchString(strings.TrimRight(got, "\n"))
}
