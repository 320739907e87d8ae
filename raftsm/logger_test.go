package raftsm

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"syscall"
	"testing"
)

// TestPanicOverDisk: where Dragonboat panics over its disk, the process is told to
// end with a reason of one line; where it panics over anything else, it panics.
func TestPanicOverDisk(t *testing.T) {
	var told error
	fatal := func(err error) { told = err }
	before := processFatal.Swap(&fatal)
	defer processFatal.Store(before)
	panics := func(args ...any) (what any) {
		defer func() { what = recover() }()
		raftLogger{"transport"}.Panicf("%+v", args...)
		return nil
	}

	panics(&traced{fmt.Errorf("failed to save chunk 3: %w", syscall.EIO)})
	if text := fmt.Sprintf("%+v", told); text != "transport: failed to save chunk 3: input/output error" || !errors.Is(told, syscall.EIO) {
		t.Errorf("told %q", text)
	}
	told = nil
	if what := panics(errors.New("invariant")); told != nil || !strings.Contains(fmt.Sprint(what), "invariant") {
		t.Errorf("told %v, panicked with %v", told, what)
	}
}

// TestLogLevels: what is a matter of course is not said above detail.
func TestLogLevels(t *testing.T) {
	var said bytes.Buffer
	before := processLogger.Swap(slog.New(slog.NewTextHandler(&said, &slog.HandlerOptions{Level: slog.LevelDebug})))
	defer processLogger.Store(before)
	for _, c := range []struct {
		pkg  string
		log  func(raftLogger, string, ...any)
		want string
	}{
		{"dragonboat", raftLogger.Errorf, "ERROR"},
		{"dragonboat", raftLogger.Warningf, "WARN"},
		{"dragonboat", raftLogger.Infof, "DEBUG"},
		{"dragonboat", raftLogger.Debugf, ""},
		{"raft", raftLogger.Warningf, "DEBUG"},
		{"transport", raftLogger.Errorf, "WARN"},
		{"transport", raftLogger.Warningf, "DEBUG"},
	} {
		said.Reset()
		c.log(raftLogger{c.pkg}, "%d words", 2)
		if got := said.String(); c.want == "" && got != "" || !strings.Contains(got, "level="+c.want) && c.want != "" || c.want != "" && !strings.Contains(got, "2 words") {
			t.Errorf("%s: %q, want %s", c.pkg, got, c.want)
		}
	}
}

// traced shows a stack where it is asked for all it has, as Dragonboat's errors do.
type traced struct{ error }

func (e *traced) Unwrap() error { return e.error }

func (e *traced) Format(s fmt.State, _ rune) {
	fmt.Fprint(s, e.Error())
	if s.Flag('+') {
		fmt.Fprint(s, "\nstack")
	}
}
