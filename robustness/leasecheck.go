package robustness

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

const (
	// lateAtMost is the promise: a lease ends at most so long after its time to
	// live, of the time in which commits take no longer than promptWithin. Three of them
	// are in it: of the last renewal, of the step of the clock, and of the end. Where they
	// take up to commitWithin it is slowLateAtMost.
	lateAtMost     = 2 * time.Second
	promptWithin   = 250 * time.Millisecond
	slowLateAtMost = 3 * time.Second
	commitWithin   = 500 * time.Millisecond
	// clockGrace is the second that the store adds to a deadline, and does not
	// tell of.
	clockGrace = time.Second
	// probesApart is how far two probes of a node may be from each other to say
	// something of the time between them.
	probesApart = 300 * time.Millisecond
	// lingers is longer than any time after which a request without an answer can
	// still take effect: its node may have been stopped, and then tries for some
	// seconds.
	lingers = 25 * time.Second
	// lingersOnWires is that where wires are broken for long: TCP then brings what its
	// client has given up long ago.
	lingersOnWires = time.Minute
	// closedWell is how long before and after the end of a connection its node must
	// have been well, for nothing to linger.
	closedWell = time.Second
	// wallSlack is how exactly a wall clock is compared with the test's: the store
	// has milliseconds, and clocks are adjusted while they run.
	wallSlack = 5 * time.Millisecond
)

// A leaseEnds is what the store's account has of the leases that had keys.
type leaseEnds struct {
	of map[string]leaseEnd
	// holding are the leases that have keys at the end of the account.
	holding map[string]bool
}

// A leaseEnd is the end of a lease.
type leaseEnd struct {
	Revision uint64
	Reason   string
	Wall     int64
}

// Ends replays the changes and returns what became of each lease. It gives the
// lives that don't know their lease its name.
//
// All keys of a lease go together: at one revision, for one reason, with none
// left and none added later, and with nothing else.
func (t *LeaseTrace) Ends() (all leaseEnds, wrong []string) {
	complain := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	ends := map[string]leaseEnd{}
	byKey := map[string]*LeaseLife{}
	for _, l := range t.Lives {
		if l.ID == "" {
			byKey[l.Key] = l
		}
	}
	of := map[string]string{}              // the lease of a key
	keysOf := map[string]map[string]bool{} // the keys of a lease
	detach := func(key string) {
		delete(keysOf[of[key]], key)
		delete(of, key)
	}
	for i := 0; i < len(t.Changes); {
		revision := t.Changes[i].Revision
		var ended string
		for ; i < len(t.Changes) && t.Changes[i].Revision == revision; i++ {
			c := &t.Changes[i]
			lease := of[c.Key]
			detach(c.Key)
			switch {
			case !c.Delete:
				if c.Lease == "" {
					break
				}
				if end, over := ends[c.Lease]; over {
					complain("revision %d attaches %s to lease %s, which %s at revision %d", revision, c.Key, c.Lease, end.Reason, end.Revision)
				}
				if l := byKey[c.Key]; l != nil && l.ID == "" {
					l.ID = c.Lease
				}
				of[c.Key] = c.Lease
				if keysOf[c.Lease] == nil {
					keysOf[c.Lease] = map[string]bool{}
				}
				keysOf[c.Lease][c.Key] = true
			case c.Reason == "expired" || c.Reason == "revoked":
				if lease == "" {
					complain("%s was deleted at revision %d because its lease %s, and it had none", c.Key, revision, c.Reason)
					break
				}
				if ended != "" && ended != lease {
					complain("revision %d ends two leases, %s and %s", revision, ended, lease)
				}
				ended = lease
				if end, over := ends[lease]; over && end != (leaseEnd{revision, c.Reason, c.Wall}) {
					complain("lease %s %s at revision %d and %s at revision %d", lease, end.Reason, end.Revision, c.Reason, revision)
				}
				ends[lease] = leaseEnd{revision, c.Reason, c.Wall}
			}
		}
		if ended != "" && len(keysOf[ended]) > 0 {
			complain("lease %s %s at revision %d, and %d of its keys stayed", ended, ends[ended].Reason, revision, len(keysOf[ended]))
		}
	}
	holding := map[string]bool{}
	for lease, keys := range keysOf {
		if len(keys) > 0 {
			holding[lease] = true
		}
	}
	return leaseEnds{ends, holding}, wrong
}

// Early finds leases that ended before their time: a client that was answered
// relies on the time to live since it sent that request.
func (t *LeaseTrace) Early(ends leaseEnds) (wrong []string) {
	for _, l := range t.Lives {
		sent, answered := l.latest()
		if !answered {
			continue
		}
		lives := sent + l.TTL
		end, over := ends.of[l.ID]
		if seen, ok := t.Seen[end.Revision]; over && end.Reason == "expired" {
			if ok && seen < lives {
				wrong = append(wrong, fmt.Sprintf("EARLY: lease %s of %v expired at revision %d, which was seen %v after its last answered renewal was sent",
					l.ID, time.Duration(l.TTL), end.Revision, time.Duration(seen-sent)))
			}
			// The proposer's clock is read before the expiry is proposed, so this
			// is strict: nobody proposes the end of what lives.
			if t.Wall != 0 && end.Wall-t.Wall < lives-int64(wallSlack) {
				wrong = append(wrong, fmt.Sprintf("EARLY: the end of lease %s of %v was proposed %v after its last answered renewal was sent",
					l.ID, time.Duration(l.TTL), time.Duration(end.Wall-t.Wall-sent)))
			}
		}
		for _, g := range l.Gone {
			if l.Revoked != 0 && l.Revoked < g.Answered {
				continue
			}
			// Only what had been answered before counts: two requests of a client
			// are never under way together.
			for _, c := range l.Calls {
				if c.Outcome == Done && c.Answered <= g.Sent && g.Answered < c.Sent+l.TTL {
					wrong = append(wrong, fmt.Sprintf("EARLY: node %d said that lease %s of %v is gone, %v after a renewal that it answered was sent",
						g.Node+1, l.ID, time.Duration(l.TTL), time.Duration(g.Answered-c.Sent)))
				}
			}
		}
	}
	return wrong
}

// Late finds leases that ended too late, or not at all. It reports how many were
// held to the bound itself, which those are not of which a request is unknown.
func (t *LeaseTrace) Late(ends leaseEnds) (strict int, wrong []string) {
	prompt, good, well := counted(t.Probes, promptWithin), counted(t.Probes, commitWithin), wellNodes(t.Probes)
	for _, l := range t.Lives {
		end, over := ends.of[l.ID]
		if !over && !ends.holding[l.ID] || over && end.Reason == "revoked" {
			continue // nobody saw it end, or it was ended
		}
		from, exact := l.newest(well, cmp.Or(t.Lingers, int64(lingers)))
		at, how := t.End, "had not ended"
		if over {
			seen, ok := t.Seen[end.Revision]
			if !ok {
				wrong = append(wrong, fmt.Sprintf("no watcher saw the end of lease %s at revision %d", l.ID, end.Revision))
				continue
			}
			at, how = seen, "ended"
		} else if at < from {
			continue
		}
		for _, bound := range []struct {
			good           []span
			within, atMost time.Duration
		}{{prompt, promptWithin, lateAtMost}, {good, commitWithin, slowLateAtMost}} {
			if lasted := within(bound.good, from, at); lasted > l.TTL+int64(bound.atMost) {
				wrong = append(wrong, fmt.Sprintf("LATE: lease %s of %v %s after %v in which commits took no longer than %v (%v in all); its last answered renewal was sent at %v",
					l.ID, time.Duration(l.TTL), how, time.Duration(lasted), bound.within, time.Duration(at-from), time.Duration(from)))
			}
		}
		if over && exact {
			strict++
		}
	}
	return strict, wrong
}

// Lost finds leases that the nodes denied and whose end is not in the store's
// account.
func (t *LeaseTrace) Lost(ends leaseEnds) (wrong []string) {
	for _, l := range t.Lives {
		if ends.holding[l.ID] && len(l.Gone) > 0 {
			wrong = append(wrong, fmt.Sprintf("LOST: node %d said that lease %s is gone, and its keys have not gone", l.Gone[0].Node+1, l.ID))
		}
	}
	return wrong
}

// Clock follows what the nodes said of the long lease. Its time goes on through
// everything, never begins anew, and is never ahead of the time itself.
func (t *LeaseTrace) Clock() (wrong []string) {
	if t.Long == nil || len(t.Long.Calls) == 0 {
		return nil
	}
	granted, ttl, good := t.Long.Calls[0], t.Long.TTL, counted(t.Probes, commitWithin)
	var least *Reading // of those that were answered, the one with the least time
	answered := slices.Clone(t.Readings)
	slices.SortFunc(answered, func(a, b Reading) int { return int(a.Answered - b.Answered) })
	asked := slices.Clone(t.Readings)
	slices.SortFunc(asked, func(a, b Reading) int { return int(a.Sent - b.Sent) })
	next := 0
	for i := range asked {
		r := &asked[i]
		for ; answered[next].Answered < r.Sent; next++ {
			if least == nil || answered[next].Remaining < least.Remaining {
				least = &answered[next]
			}
		}
		if least != nil && r.Remaining > least.Remaining {
			wrong = append(wrong, fmt.Sprintf("BACK: a lease had %v left at %v, and %v at %v",
				time.Duration(least.Remaining), time.Duration(least.Answered), time.Duration(r.Remaining), time.Duration(r.Answered)))
		}
		gone := ttl - r.Remaining // by the store's clock
		if gone > r.Answered-granted.Sent+int64(clockGrace) {
			wrong = append(wrong, fmt.Sprintf("AHEAD: by the store's clock %v have passed, and it can't be more than %v",
				time.Duration(gone), time.Duration(r.Answered-granted.Sent)))
		}
		if passed := within(good, granted.Answered, r.Sent); passed > gone+int64(lateAtMost) {
			wrong = append(wrong, fmt.Sprintf("BEHIND: by the store's clock %v have passed at %v, and commits were fast for %v since",
				time.Duration(gone), time.Duration(r.Sent), time.Duration(passed)))
		}
	}
	return wrong
}

// WallOrder finds a modified_at that is before an earlier one.
func (t *LeaseTrace) WallOrder() (wrong []string) {
	for i := 1; i < len(t.Changes); i++ {
		if a, b := &t.Changes[i-1], &t.Changes[i]; b.Wall < a.Wall || b.Revision < a.Revision {
			wrong = append(wrong, fmt.Sprintf("revision %d was modified at %v, and revision %d before it at %v",
				b.Revision, time.Unix(0, b.Wall).UTC(), a.Revision, time.Unix(0, a.Wall).UTC()))
		}
	}
	return wrong
}
