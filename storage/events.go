package storage

import (
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
	l.opts.Fatal(fmt.Errorf("storage: "+format, args...))
}

func eventListener(opts *Options) *pebble.EventListener {
	l := &pebble.EventListener{
		BackgroundError: func(err error) {
			opts.Logger.Error("background work of the store failed", "err", err)
		},
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

// quietLogger drops the events that are not listed in eventListener.
type quietLogger struct{}

func (quietLogger) Infof(string, ...any)  {}
func (quietLogger) Errorf(string, ...any) {}
func (quietLogger) Fatalf(string, ...any) {}
