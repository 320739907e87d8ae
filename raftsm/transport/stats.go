package transport

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// counters are what Stats shows.
type counters struct {
	in, out        [3]atomic.Int64 // by kind
	refusals       [reasonEnd]atomic.Uint64
	failures       [reasonEnd]atomic.Uint64
	sent, received atomic.Uint64
	dropped        atomic.Uint64
	postponed      atomic.Uint64
}

func known(r Reason) Reason {
	if r < reasonEnd {
		return r
	}
	return 0
}

func (c *counters) refused(r Reason, n int)  { c.refusals[known(r)].Add(uint64(n)) }
func (c *counters) failed(r Reason)          { c.failures[known(r)].Add(1) }
func (c *counters) inbound(k kind, n int64)  { c.in[k].Add(n) }
func (c *counters) outbound(k kind, n int64) { c.out[k].Add(n) }

// Stats is what the transport has done, and has.
type Stats struct {
	// Inbound and Outbound count open connections, by what they are for:
	// "messages" or "snapshot". Waiting are those that have not shown who they
	// are.
	Inbound, Outbound map[string]int
	Waiting           int
	// Refused counts connections that this member refused or ended, Failed those
	// that it made and that the other end, or this one, then refused, both by
	// reason.
	Refused, Failed map[string]uint64
	// SentBytes and ReceivedBytes count the payloads of frames.
	SentBytes, ReceivedBytes uint64
	// DroppedMessages counts messages that this member must not receive.
	DroppedMessages uint64
	// PostponedMessages counts messages with entries, or with proposals, that were not
	// taken, since too much that came before them is not applied.
	PostponedMessages uint64
	// CertificateExpires and AuthorityExpires are zero without TLS.
	CertificateExpires, AuthorityExpires time.Time
	// Reloads counts how often other credentials came into force,
	// ReloadFailures how often the files could not be read.
	Reloads, ReloadFailures uint64
}

// Stats returns the figures as they are now.
func (t *Transport) Stats() Stats {
	s := Stats{
		Inbound: map[string]int{}, Outbound: map[string]int{}, Waiting: t.waiting.len(),
		Refused: map[string]uint64{}, Failed: map[string]uint64{},
		SentBytes: t.stats.sent.Load(), ReceivedBytes: t.stats.received.Load(), DroppedMessages: t.stats.dropped.Load(),
		PostponedMessages: t.stats.postponed.Load(),
	}
	for _, k := range []kind{kindMessages, kindSnapshot} {
		s.Inbound[k.String()], s.Outbound[k.String()] = int(t.stats.in[k].Load()), int(t.stats.out[k].Load())
	}
	for r := range reasonEnd {
		s.Refused[r.String()], s.Failed[r.String()] = t.stats.refusals[r].Load(), t.stats.failures[r].Load()
	}
	if c := t.cfg.TLS; c != nil {
		now := c.current.Load()
		s.CertificateExpires, s.AuthorityExpires = now.expires, now.authorities
		s.Reloads, s.ReloadFailures = c.reloads.Load(), c.failures.Load()
	}
	return s
}

const (
	// logPause is how long the same thing about the same peer is not said again.
	logPause = time.Minute
	// maxLogged bounds what is remembered for that. Beyond, it is forgotten.
	maxLogged = 1024
)

// limitedLog keeps an enemy from filling the log.
type limitedLog struct {
	logger *slog.Logger
	mu     sync.Mutex
	said   map[[2]string]time.Time
}

func newLimitedLog(l *slog.Logger) *limitedLog {
	return &limitedLog{logger: l, said: map[[2]string]time.Time{}}
}

func (l *limitedLog) warn(what, about, message string, args ...any) {
	now, key := time.Now(), [2]string{what, about}
	l.mu.Lock()
	last, ok := l.said[key]
	if ok && now.Sub(last) < logPause {
		l.mu.Unlock()
		return
	}
	if len(l.said) >= maxLogged {
		clear(l.said)
	}
	l.said[key] = now
	l.mu.Unlock()
	l.logger.Warn(message, args...)
}
