package robustness

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// The wall clock of a process can't be moved from outside: CLOCK_REALTIME has no
// namespace, and a Go program asks the kernel for it without a library that could
// be put in between. So the server is built with a package time whose Now has
// another wall part: shifted by what a file says, which is read again every 20 ms.
// The monotonic part, timers and sleeps are as they are, as with a clock that is
// set while a program runs. Everything in the process sees it: Cairn, Dragonboat,
// Pebble and net/http.

// wallShiftDir is the variable with the directory where each process finds its
// shift in seconds, in a file with its process id as its name.
const wallShiftDir = "WALL_SHIFT_DIR"

// shiftedClock are the edits that make a server with such a clock.
func shiftedClock() ([]Edit, error) {
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return nil, fmt.Errorf("go env GOROOT: %w", err)
	}
	file := filepath.Join(strings.TrimSpace(string(root)), "src", "time", "time.go")
	return []Edit{
		{file, "\t\"math/bits\"\n", "\t\"math/bits\"\n\t\"sync/atomic\"\n\t\"syscall\"\n"},
		{file, "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n", `func Now() Time {
	sec, nsec, mono := runtimeNow()
	sec += wallShift.Load()
`},
		{file, "// Now returns the current local time.\n", `// wallShift is how many seconds the wall clock is off. Now only loads it: it is
// called in places where nothing may block.
var wallShift atomic.Int64

func init() {
	if dir, found := syscall.Getenv("` + wallShiftDir + `"); found {
		go followWallShift(dir)
	}
}

func followWallShift(dir string) {
	var digits []byte
	for pid := syscall.Getpid(); pid > 0; pid /= 10 {
		digits = append([]byte{byte('0' + pid%10)}, digits...)
	}
	name := dir + "/" + string(digits)
	for ; ; Sleep(20 * Millisecond) {
		fd, err := syscall.Open(name, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
		if err != nil {
			continue
		}
		var text [24]byte
		n, _ := syscall.Read(fd, text[:])
		syscall.Close(fd)
		shift, sign := int64(0), int64(1)
		for _, c := range text[:max(n, 0)] {
			if c == '-' {
				sign = -1
			} else {
				shift = 10*shift + int64(c-'0')
			}
		}
		wallShift.Store(sign * shift)
	}
}

// Now returns the current local time.
`},
	}, nil
}

// shiftWall sets how far the wall clock of a node's process is off.
func shiftWall(n *Node, shift time.Duration) error {
	name := filepath.Join(os.Getenv(wallShiftDir), strconv.FormatInt(n.pid.Load(), 10))
	// A name of its own, renamed: nobody reads half of a number.
	half := name + ".new"
	if err := os.WriteFile(half, strconv.AppendInt(nil, int64(shift/time.Second), 10), 0o600); err != nil {
		return err
	}
	return os.Rename(half, name)
}

// JumpClocks moves the wall clocks of all nodes by up to an hour, each its own way,
// some times, and leaves them as they are. Meant for servers with a clock that
// can be shifted.
func JumpClocks(c *Cluster, random *rand.Rand, _ int) error {
	for range 5 {
		for _, n := range c.Nodes {
			shift := time.Duration(random.IntN(3)-1) * time.Hour
			c.Note("the wall clock of %s is off by %v", n.Name, shift)
			if err := shiftWall(n, shift); err != nil {
				return err
			}
		}
		moment(random, 300*time.Millisecond, 1500*time.Millisecond)
	}
	return nil
}

var shifted struct {
	once sync.Once
	path string
	err  error
}

// ShiftedClockBinary builds the server of this checkout with a clock that can be
// shifted, once a run.
func ShiftedClockBinary(t testing.TB) string {
	t.Helper()
	shifted.once.Do(func() {
		dir := filepath.Join(scratch, "shifted-clock")
		if shifted.err = os.Mkdir(dir, 0o700); shifted.err != nil {
			return
		}
		var edits []Edit
		if edits, shifted.err = shiftedClock(); shifted.err == nil {
			shifted.path, shifted.err = BuildEdited(dir, edits...)
		}
	})
	if shifted.err != nil {
		t.Fatal(shifted.err)
	}
	return shifted.path
}
