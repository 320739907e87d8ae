package raftlog_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// Dragonboat answers damage that it notices with a panic on a goroutine of its
// own. Nodes that may meet it run in a process of their own: the test binary
// again, told by the environment to be a child.
const childVar = "RAFTLOG_CHILD"

// children are the programs that a child process can be.
var children = map[string]func(args []string) error{}

func TestMain(m *testing.M) {
	if name, args, ok := strings.Cut(os.Getenv(childVar), " "); ok {
		if err := children[name](strings.Fields(args)); err != nil {
			fmt.Println("error:", err)
			os.Exit(3)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// runChild runs a child to its end and gives what it printed and whether it
// ended well.
func runChild(t *testing.T, name string, args ...string) (out string, ok bool) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childVar+"="+name+" "+strings.Join(args, " "))
	b, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(b), err == nil
}
