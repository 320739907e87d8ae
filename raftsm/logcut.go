package raftsm

import (
	"errors"
	"sync"
	"time"

	"github.com/cairnkv/cairn/raftsm/raftlog"
	"github.com/lni/dragonboat/v4"
)

const (
	// maxLogBytes is where the log is cut before it has its number of entries,
	// because they are large.
	maxLogBytes = 256 << 20
	// maxHeldBytes is where it is cut although somebody needs it, and
	// maxHeldEntries, in multiples of the usual number, likewise.
	maxHeldBytes   = 1 << 30
	maxHeldEntries = 100
	// leastGrace is how long the log is held at least after a snapshot was sent,
	// mostGrace at most.
	leastGrace = 2 * time.Second
	mostGrace  = 10 * time.Minute
	// cutPeriod is how often it is looked whether the log is held no longer, cutLimit
	// how long a cut may take.
	cutPeriod = time.Second
	cutLimit  = 10 * time.Second
)

// logCut decides when a replica's log is cut: after so many entries, or bytes.
// The newer half stays, from which a member that was away for a moment catches up.
//
// While a snapshot is sent, and until its receiver has had time to install it and
// to get what came since, the log is held. If it were cut meanwhile, the receiver
// would find that the log begins after what it has, and need another snapshot; a
// large store under load would send one after the other, and nobody would ever
// join it.
type logCut struct {
	entriesLimit int64
	full         chan struct{} // has an item when it may be time to cut

	mu      sync.Mutex
	bytes   int64 // applied since the log was last cut
	entries int64
	sending int       // snapshots on their way
	until   time.Time // the log is held
}

// newLogCut counts from what the log has already: a replica that is started again and
// again would never cut it otherwise, and read more of it with each start.
func newLogCut(entries uint64, has raftlog.Length) *logCut {
	return &logCut{entriesLimit: int64(entries), full: make(chan struct{}, 1), entries: has.Entries, bytes: has.Bytes}
}

// add counts what was applied.
func (l *logCut) add(entries, bytes int64) {
	l.mu.Lock()
	l.entries += entries
	l.bytes += bytes
	full := l.entries >= l.entriesLimit || l.bytes >= maxLogBytes
	l.mu.Unlock()
	if full {
		select {
		case l.full <- struct{}{}:
		default:
		}
	}
}

// hold begins with the sending of a snapshot; what it returns ends it. The receiver
// installs in about the time that the sending took, and then catches up with what
// came in both; it gets three times as long.
func (l *logCut) hold() (sent func()) {
	began := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sending++
	return func() {
		grace := min(max(3*time.Since(began), leastGrace), mostGrace)
		l.mu.Lock()
		defer l.mu.Unlock()
		l.sending--
		if until := time.Now().Add(grace); until.After(l.until) {
			l.until = until
		}
	}
}

// busy reports whether a snapshot is on its way.
func (l *logCut) busy() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sending > 0
}

// A cut is one that is due: how many entries stay, and what it accounts for.
type cut struct{ keep, entries, bytes int64 }

// due reports whether to cut now. What was counted so far is then counted no more.
func (l *logCut) due(now time.Time) (c cut, due bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.entries < l.entriesLimit && l.bytes < maxLogBytes {
		return cut{}, false
	}
	held := l.sending > 0 || now.Before(l.until)
	if held && l.bytes < maxHeldBytes && l.entries < maxHeldEntries*l.entriesLimit {
		return cut{}, false
	}
	c = cut{keep: l.entriesLimit / 2, entries: l.entries, bytes: l.bytes}
	if l.bytes >= maxLogBytes {
		c.keep = min(c.keep, max(l.entries*(maxLogBytes/4)/l.bytes, 1))
	}
	l.entries, l.bytes = 0, 0
	return c, true
}

// failed makes a cut due again.
func (l *logCut) failed(c cut) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries += c.entries
	l.bytes += c.bytes
}

// cutLog cuts the log when that is due.
func (s *Shard) cutLog() {
	defer close(s.cutter)
	log := s.machine.log
	tick := time.NewTicker(cutPeriod)
	defer tick.Stop()
	for {
		select {
		case <-s.quit:
			return
		case <-tick.C: // it may be held no longer, or a cut has failed
		case <-log.full:
		}
		c, due := log.due(time.Now())
		if !due {
			continue
		}
		if log.busy() {
			// Dragonboat makes none while it sends one, and the log has come to its bound.
			s.cfg.Logger.Warn("The Raft log is at its bound; a snapshot that is on its way is broken off so that it can be cut.", "bytes", c.bytes, "entries", c.entries)
			s.host.transport.BreakSnapshots()
		}
		if err := s.cut(uint64(c.keep)); err != nil {
			log.failed(c)
			s.cfg.Logger.Warn("cutting the Raft log", "err", err)
		}
	}
}

// cut asks Dragonboat for a snapshot, which of a machine on disk is a sync and
// metadata, and lets go of all but the last entries before it.
func (s *Shard) cut(keep uint64) error {
	rs, err := s.host.nh.RequestSnapshot(s.cfg.Shard, dragonboat.SnapshotOption{
		OverrideCompactionOverhead: true, CompactionOverhead: keep,
	}, cutLimit)
	if err != nil {
		return err
	}
	select {
	case r := <-rs.ResultC():
		rs.Release()
		// Rejected: there is nothing new since the last one, or one is being made or sent.
		if !r.Completed() && (!r.Rejected() || s.machine.log.busy()) {
			return errors.New("the snapshot that lets it be cut was not made")
		}
		return nil
	case <-s.quit:
		return nil
	}
}
