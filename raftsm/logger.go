package raftsm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync/atomic"
	"syscall"

	"github.com/lni/dragonboat/v4"
	"github.com/lni/dragonboat/v4/logger"
)

// Dragonboat's logging is global to the process, so the newest host's logger
// receives what all hosts of a process say.
var processLogger atomic.Pointer[slog.Logger]

func adoptLogger(l *slog.Logger) {
	if l == nil {
		l = slog.New(slog.DiscardHandler)
	}
	first := processLogger.Swap(l) == nil
	if first {
		logger.SetLoggerFactory(func(pkg string) logger.ILogger { return raftLogger{pkg} })
	}
}

// raftLogger passes on what Dragonboat says. What it calls info is detail to an
// operator, and so is what its core calls a warning: each step of an election,
// each proposal that came before its end, and each piece of the log that it reads.
// That a member can't be reached is a warning, not an error of this one, and one
// line for each try is enough.
type raftLogger struct{ pkg string }

func (l raftLogger) log(level slog.Level, format string, args []any) {
	to := processLogger.Load()
	if to == nil || !to.Enabled(context.Background(), level) {
		return
	}
	to.Log(context.Background(), level, fmt.Sprintf(format, args...), "from", l.pkg)
}

func (l raftLogger) SetLevel(logger.LogLevel)          {}
func (l raftLogger) Debugf(format string, args ...any) { l.log(slog.LevelDebug-4, format, args) }
func (l raftLogger) Infof(format string, args ...any)  { l.log(slog.LevelDebug, format, args) }

func (l raftLogger) Errorf(format string, args ...any) {
	level := slog.LevelError
	if l.pkg == "transport" {
		level = slog.LevelWarn
	}
	l.log(level, format, args)
}

func (l raftLogger) Warningf(format string, args ...any) {
	level := slog.LevelWarn
	switch l.pkg {
	case "raft", "config", "logdb", "transport":
		level = slog.LevelDebug
	}
	l.log(level, format, args)
}

// processFatal is how the newest host ends the process over its disk, once it is
// open; see HostConfig.Fatal.
var processFatal atomic.Pointer[func(error)]

// Panicf is called where Dragonboat can't go on: a broken disk, a broken
// invariant. The first ends the process with a reason, the second with a panic,
// whose stack says more.
func (l raftLogger) Panicf(format string, args ...any) {
	if fatal := processFatal.Load(); fatal != nil {
		for _, arg := range args {
			var errno syscall.Errno
			if err, ok := arg.(error); ok && errors.As(err, &errno) {
				(*fatal)(fmt.Errorf("%s: %w", l.pkg, err)) // the message alone: these errors show their stack
			}
		}
	}
	l.log(slog.LevelError, format, args)
	panic(fmt.Errorf(l.pkg+": "+format, args...)) // an error, or NewNodeHost swallows it
}

// WriteMetrics writes Dragonboat's own metrics in Prometheus text form.
func WriteMetrics(w io.Writer) { dragonboat.WriteHealthMetrics(w) }

// Quiet gives what Dragonboat says to a logger where no host does, as for a look
// at a directory.
func Quiet(l *slog.Logger) {
	if processLogger.Load() == nil {
		adoptLogger(l)
	}
}
