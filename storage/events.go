package storage

import (
	"context"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
)

// pebbleLogger passes on what Pebble says. Pebble calls Fatalf when a write to
// its log failed: what is on disk is unknown from then on, so nothing may be
// answered any more.
type pebbleLogger struct{ opts *Options }

func (l pebbleLogger) Infof(format string, args ...any) {
	l.opts.Logger.Debug(fmt.Sprintf(format, args...), "from", "pebble")
}

func (l pebbleLogger) Errorf(format string, args ...any) {
	l.opts.Logger.Error(fmt.Sprintf(format, args...), "from", "pebble")
}

func (l pebbleLogger) Fatalf(format string, args ...any) {
	err := &fatalError{text: fmt.Sprintf("storage: "+format, args...)}
	for _, arg := range args {
		if cause, ok := arg.(error); ok {
			err.cause = cause
		}
	}
	l.opts.Fatal(err)
}

// fatalError is what Pebble gave up with, and the error that it named.
type fatalError struct {
	text  string
	cause error
}

func (e *fatalError) Error() string { return e.text }
func (e *fatalError) Unwrap() error { return e.cause }

func eventListener(opts *Options, room *room) *pebble.EventListener {
	l := &pebble.EventListener{
		BackgroundError: func(err error) { backgroundError(opts, err) },
		FlushEnd:        func(info pebble.FlushInfo) { room.ended(opts, flushNeedsRoom, info.Err) },
		CompactionEnd:   func(info pebble.CompactionInfo) { room.ended(opts, compactionNeedsRoom, info.Err) },
		DataCorruption: func(info pebble.DataCorruptionInfo) {
			opts.Fatal(fmt.Errorf("storage: corrupt file %s: %w", info.Path, info.Details))
		},
		WriteStallBegin: func(info pebble.WriteStallBeginInfo) {
			opts.Logger.Warn("writes wait for the store's background work", "reason", info.Reason)
		},
		WriteStallEnd: func() { opts.Logger.Info("writes go on") },
	}
	// Without a complete listener Pebble fills the rest with loggers of its own.
	l.EnsureDefaults(quietLogger{})
	return l
}

// backgroundError decides over a flush or a compaction that failed. Pebble
// would try it again for ever, and only log. Want of room passes, and nothing
// is lost meanwhile: what was answered is in the logs. Everything else is a
// broken disk.
func backgroundError(opts *Options, err error) {
	switch {
	case outOfRoom(err):
	case errors.Is(err, pebble.ErrCancelledCompaction), errors.Is(err, pebble.ErrClosed), errors.Is(err, context.Canceled):
		opts.Logger.Debug("background work of the store was given up", "err", err)
	default:
		opts.Fatal(fmt.Errorf("storage: background work: %w", err))
	}
}

// quietLogger drops the events that are not listed in eventListener.
type quietLogger struct{}

func (quietLogger) Infof(string, ...any)  {}
func (quietLogger) Errorf(string, ...any) {}
func (quietLogger) Fatalf(string, ...any) {}
