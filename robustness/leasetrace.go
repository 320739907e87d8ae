package robustness

import (
	"cmp"
	"slices"
	"time"
)

// A LeaseTrace is everything that is known of the leases of a scenario: what
// clients asked for and got, what they saw, and the store's own account. All
// times are nanoseconds since the scenario began, by the clock of the test, which
// no fault touches.
type LeaseTrace struct {
	Lives []*LeaseLife
	// Changes are those of all keys that had a lease, in the order of the store.
	Changes []LeaseChange
	// Seen is when the first of several watchers saw the deletes of a revision.
	Seen   map[uint64]int64
	Probes []Probe
	// Long is a lease that nobody renews and that outlives the scenario.
	Long     *LeaseLife
	Readings []Reading
	// Wall is what the wall clock showed when the scenario began, in nanoseconds;
	// 0 where the clocks of the nodes are not to be trusted.
	Wall int64
	End  int64
	// Lingers is lingers, where that is another time.
	Lingers int64
}

// A LeaseLife is a lease as its client knows it.
type LeaseLife struct {
	// ID is the lease. Of a put with a time to live whose answer was lost it is
	// what the store says of Key.
	ID  string
	Key string
	TTL int64
	// Own says that the lease is that of a put with a time to live: it has that
	// key and takes no other.
	Own bool
	// Calls are the grant, or the put with a time to live, and the renewals.
	Calls []LeaseCall
	// Holds are the connections that have held it.
	Holds []*LeaseHold
	// Revoked is when the revocation was sent, 0 if none was.
	Revoked int64
	// Gone are the answers that there is no such lease.
	Gone []LeaseCall
}

// A LeaseCall is a request that gives a lease its time, and what came of it.
type LeaseCall struct {
	Node           int
	Sent, Answered int64
	Outcome        Outcome
}

// A LeaseChange is a put or a delete of a key.
type LeaseChange struct {
	Revision uint64
	Key      string
	Lease    string // of a put
	Delete   bool
	Reason   string // of a delete
	// Wall is modified_at in nanoseconds.
	Wall int64
}

// A Probe is a small write that shows how long commits take.
type Probe struct {
	Node           int
	Sent, Answered int64
	Done           bool
}

// A Reading is what a linearizable read says of how long a lease lives.
type Reading struct {
	Sent, Answered, Remaining int64
}

// A span is a time from and until.
type span struct{ from, until int64 }

// counted are the spans of time in which it is proven that commits took no longer
// than commit: between the probes of a node that were answered in time and
// followed each other closely. What is not proven is not held against anybody.
func counted(probes []Probe, commit time.Duration) []span {
	byNode := map[int][]Probe{}
	for _, p := range probes {
		byNode[p.Node] = append(byNode[p.Node], p)
	}
	var all []span
	for _, own := range byNode {
		slices.SortFunc(own, func(a, b Probe) int { return cmp.Compare(a.Sent, b.Sent) })
		var last *Probe
		for i := range own {
			p := &own[i]
			if !p.Done || p.Answered-p.Sent > int64(commit) {
				last = nil
				continue
			}
			from := p.Sent
			if last != nil && p.Sent-last.Answered <= int64(probesApart) {
				from = last.Answered
			}
			all = append(all, span{from, p.Answered})
			last = p
		}
	}
	return joined(all)
}

// joined merges spans that overlap, in order.
func joined(spans []span) []span {
	slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.from, b.from) })
	var out []span
	for _, s := range spans {
		if n := len(out); n > 0 && s.from <= out[n-1].until {
			out[n-1].until = max(out[n-1].until, s.until)
			continue
		}
		out = append(out, s)
	}
	return out
}

// within is how much of a time is in the spans.
func within(spans []span, from, until int64) (sum int64) {
	for _, s := range spans {
		if low, high := max(s.from, from), min(s.until, until); low < high {
			sum += high - low
		}
	}
	return sum
}

// latest is the newest call that was answered, by when it was sent.
func (l *LeaseLife) latest() (sent int64, ok bool) {
	for _, c := range l.Calls {
		if c.Outcome == Done {
			sent, ok = max(sent, c.Sent), true
		}
	}
	return sent, ok
}

// newest is the last moment from which the lease's time may count. The time of a
// call that took longer than commits are to take is not counted. What was not
// answered may take effect later: as long as its node was stopped, or tried. So may
// a renewal for a connection, unless its node was well when that was closed.
func (l *LeaseLife) newest(well map[int][]span, lingers int64) (from int64, strict bool) {
	strict = true
	for _, c := range l.Calls {
		if c.Outcome == Done && c.Answered-c.Sent > int64(commitWithin) {
			from = max(from, c.Answered)
		} else if c.Outcome == Done {
			from = max(from, c.Sent)
		}
	}
	for _, c := range l.Calls {
		if c.Outcome == Unknown && c.Answered+lingers > from {
			from, strict = c.Answered+lingers, false
		}
	}
	for _, h := range l.Holds {
		if covers(well[h.Node], h.Closed-int64(closedWell), h.Closed+int64(closedWell)) {
			from = max(from, h.Closed)
		} else if h.Closed+lingers > from {
			from, strict = h.Closed+lingers, false
		}
	}
	return from, strict
}
