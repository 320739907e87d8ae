package httpapi

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/cairnkv/cairn/watchers"
)

// loans bounds how many watches hold a piece of history, or a page of the present state,
// while their clients take it. Live changes are shared by all that see them; these belong
// to one watch, with their text twice to three times as much, and a single write of a large
// value can send every watch to history.
//
// A watch that has none to get waits, and holds nothing. One whose client has not taken
// for long what is written to it is broken off while others wait, which the client can go
// on from: else a few that take nothing would keep all others from what they have missed.
type loans struct {
	// patience is loanPatience, but for tests.
	patience time.Duration
	broken   prometheus.Counter

	free chan struct{} // has an item for each loan; those that wait get one in their order
	mu   sync.Mutex
	lent []*loan
}

// A loan is one of them, of a watch or a long poll.
type loan struct {
	from *loans
	// since is when the write began that is under way, or zero: what its holder waits for
	// at other times is not its client.
	since time.Time
	// end breaks the stream off. It is called once at the most, and not after the loan was
	// given back.
	end   func()
	ended bool
}

func newLoans(broken prometheus.Counter) *loans {
	return &loans{patience: loanPatience, broken: broken, free: make(chan struct{}, maxLoans)}
}

// take waits for a loan. It returns none when pulse fires first; a nil one never does. Its
// error is the context's, or ErrDraining.
func (l *loans) take(ctx context.Context, draining <-chan struct{}, pulse <-chan time.Time, end func()) (*loan, error) {
	select {
	case l.free <- struct{}{}:
		return l.lend(end), nil
	default:
	}
	tick := time.NewTicker(l.patience / 10)
	defer tick.Stop()
	for {
		l.call(time.Now())
		select {
		case l.free <- struct{}{}:
			return l.lend(end), nil
		case <-tick.C:
		case <-pulse:
			return nil, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-draining:
			return nil, watchers.ErrDraining
		}
	}
}

func (l *loans) lend(end func()) *loan {
	n := &loan{from: l, end: end}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lent = append(l.lent, n)
	return n
}

// call breaks the stream off that has written the longest, if that is long enough.
func (l *loans) call(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var oldest *loan
	for _, n := range l.lent {
		if !n.ended && !n.since.IsZero() && (oldest == nil || n.since.Before(oldest.since)) {
			oldest = n
		}
	}
	if oldest != nil && now.Sub(oldest.since) >= l.patience {
		oldest.ended = true
		l.broken.Inc()
		oldest.end()
	}
}

// during writes something. Of no loan, it writes.
func (n *loan) during(write func([]byte) error, b []byte) error {
	if n == nil {
		return write(b)
	}
	n.writes(time.Now())
	defer n.writes(time.Time{})
	return write(b)
}

func (n *loan) writes(since time.Time) {
	n.from.mu.Lock()
	n.since = since
	n.from.mu.Unlock()
}

// giveBack ends a loan. Of none it does nothing.
func (n *loan) giveBack() {
	if n == nil {
		return
	}
	l := n.from
	l.mu.Lock()
	for i, other := range l.lent {
		if other == n {
			l.lent = append(l.lent[:i], l.lent[i+1:]...)
			break
		}
	}
	l.mu.Unlock()
	<-l.free
}
