package robustness

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// TestLeases keeps leases alive, and lets them go, while the leader is stopped for
// longer than they live, nodes are killed or cut off, and all are restarted.
func TestLeases(t *testing.T) {
	beside(t)
	Judge(t, LeaseScenario{
		Layout: Layout{Size: 3, Relayed: true}, Rounds: rounds(4, 24), Faults: []Fault{PauseLeader, KillNine, Terminate, Partition}, Seed: Seed(t),
	}.Run(t))
}

// soundLeases is a small record that is right. Lease a is granted at 0 s for 3 s,
// renewed at 1 s, and expires at 5.5 s; b is revoked; c is a key's own; d is held
// from 1 s to 6 s, and expires at 8 s.
func soundLeases() *LeaseTrace {
	const s = int64(time.Second)
	t := &LeaseTrace{
		Lives: []*LeaseLife{
			{ID: "a", Key: "l/a/0", TTL: 3 * s, Calls: []LeaseCall{
				{Sent: 0, Answered: s / 100, Outcome: Done}, {Sent: s, Answered: s + s/100, Outcome: Done}, {Sent: 2 * s, Answered: 2*s + s/100, Outcome: NotApplied},
			}},
			{ID: "b", Key: "l/b/0", TTL: 3 * s, Calls: []LeaseCall{{Sent: 0, Answered: s / 100, Outcome: Done}}, Revoked: s},
			{Key: "l/c/0", TTL: s, Calls: []LeaseCall{{Sent: 0, Answered: s / 100, Outcome: Done}}},
			{ID: "d", Key: "l/d/0", TTL: s, Calls: []LeaseCall{{Sent: 0, Answered: s / 100, Outcome: Done}},
				Holds: []*LeaseHold{{Asked: s, Held: s + s/100, Closed: 6 * s}}},
		},
		Changes: []LeaseChange{
			{Revision: 2, Key: "l/a/0", Lease: "a"},
			{Revision: 3, Key: "l/a/1", Lease: "a"},
			{Revision: 4, Key: "l/b/0", Lease: "b"},
			{Revision: 5, Key: "l/c/0", Lease: "c"},
			{Revision: 5, Key: "l/d/0", Lease: "d"},
			{Revision: 6, Key: "l/b/0", Delete: true, Reason: "revoked", Wall: s},
			{Revision: 7, Key: "l/c/0", Delete: true, Reason: "expired", Wall: 2 * s},
			{Revision: 8, Key: "l/a/0", Delete: true, Reason: "expired", Wall: 5*s + s/2},
			{Revision: 8, Key: "l/a/1", Delete: true, Reason: "expired", Wall: 5*s + s/2},
			{Revision: 9, Key: "l/d/0", Delete: true, Reason: "expired", Wall: 8 * s},
		},
		Seen: map[uint64]int64{6: s, 7: 2*s + s/10, 8: 5*s + s/2, 9: 8 * s},
		Long: &LeaseLife{ID: "long", TTL: 100 * s, Calls: []LeaseCall{{Sent: 0, Answered: s / 100, Outcome: Done}}},
		Readings: []Reading{
			{Sent: s, Answered: s + s/100, Remaining: 99 * s}, {Sent: 5 * s, Answered: 5*s + s/100, Remaining: 95 * s},
		},
		Wall: 1, End: 10 * s,
	}
	for at := int64(0); at < 10*s; at += s / 10 {
		t.Probes = append(t.Probes, Probe{Sent: at, Answered: at + s/200, Done: true})
	}
	return t
}

func judgedLeases(t *LeaseTrace) []string {
	ends, wrong := t.Ends()
	_, late := t.Late(ends)
	return slices.Concat(wrong, t.Early(ends), late, t.Lost(ends), t.Unheld(ends), t.Clock(), t.WallOrder())
}

// TestLeaseChecks makes a record wrong in one way after the other, and wants each
// noticed.
func TestLeaseChecks(t *testing.T) {
	const s = int64(time.Second)
	if wrong := judgedLeases(soundLeases()); len(wrong) > 0 {
		t.Fatalf("a record that is right: %v", wrong)
	}
	if strict, _ := soundLeases().Late(first(soundLeases().Ends())); strict != 2 {
		t.Errorf("%d leases were held to the bound, want the two that have their name from the start", strict)
	}
	withoutProbes := func(l *LeaseTrace, from, until int64) {
		l.Probes = slices.DeleteFunc(l.Probes, func(p Probe) bool { return p.Sent >= from && p.Sent < until })
	}
	tests := map[string]struct {
		spoil func(l *LeaseTrace)
		want  string // nothing: the record is still right
	}{
		"seen too early":              {func(l *LeaseTrace) { l.Seen[8] = 3*s + s*99/100 }, "EARLY: lease a of 3s expired"},
		"proposed too early":          {func(l *LeaseTrace) { l.Changes[7].Wall, l.Changes[8].Wall = 3*s, 3*s }, "EARLY: the end of lease a"},
		"too early by a wrong clock":  {func(l *LeaseTrace) { l.Wall = 0; l.Changes[7].Wall, l.Changes[8].Wall = 3*s, 3*s }, ""},
		"a put's own ended too early": {func(l *LeaseTrace) { l.Seen[7] = s / 2 }, "EARLY: lease c"},
		"renewed after its end":       {func(l *LeaseTrace) { l.Lives[0].Calls[2] = LeaseCall{Sent: 6 * s, Answered: 6 * s, Outcome: Done} }, "EARLY: lease a"},
		"denied too early":            {func(l *LeaseTrace) { l.Lives[0].Gone = []LeaseCall{{Sent: 2 * s, Answered: 2 * s}} }, "is gone, 1s after"},
		"denied when it was over":     {func(l *LeaseTrace) { l.Lives[0].Gone = []LeaseCall{{Sent: 7 * s, Answered: 7 * s}} }, ""},
		"denied after it was revoked": {func(l *LeaseTrace) { l.Lives[1].Gone = []LeaseCall{{Sent: 2 * s, Answered: 2 * s}} }, ""},
		"denied, and its keys are here": {func(l *LeaseTrace) {
			l.Changes, l.End = l.Changes[:7], 3*s
			l.Lives[0].Gone = []LeaseCall{{Sent: 4 * s, Answered: 4 * s}}
		}, "LOST: node 1"},
		"too late":                   {func(l *LeaseTrace) { l.Seen[8] = 6*s + s/10 }, "LATE: lease a of 3s ended after 5.1s"},
		"late while nothing commits": {func(l *LeaseTrace) { l.Seen[8] = 6*s + s/10; withoutProbes(l, 2*s, 3*s) }, ""},
		"late after a short gap":     {func(l *LeaseTrace) { l.Seen[8] = 6*s + s/10; withoutProbes(l, 2*s, 2*s+s/5) }, "LATE: lease a"},
		"late while commits are slow": {func(l *LeaseTrace) {
			l.Seen[8] = 6*s + s/10
			for i := range l.Probes {
				l.Probes[i].Answered += s
			}
		}, ""},
		"late after a renewal of unknown outcome": {func(l *LeaseTrace) { l.Seen[8] = 6*s + s/10; l.Lives[0].Calls[2].Outcome = Unknown }, ""},
		"late after a slow renewal":               {func(l *LeaseTrace) { l.Seen[8] = 6*s + s/10; l.Lives[0].Calls[1].Answered += s }, ""},
		"never":                                   {func(l *LeaseTrace) { l.Changes = l.Changes[:7] }, "LATE: lease a of 3s had not ended"},
		"ends though it is held":                  {func(l *LeaseTrace) { l.Seen[9] = 5*s + s/2 }, "UNKEPT: lease d"},
		"ends though it is held, by a node that is ill": {func(l *LeaseTrace) {
			l.Seen[9] = 5*s + s/2
			withoutProbes(l, 2*s, 3*s)
		}, ""},
		"ends soon after it was held":  {func(l *LeaseTrace) { l.Seen[9], l.Lives[3].Holds[0].Closed = 2*s, 2*s+s/2 }, "UNKEPT: lease d"},
		"ends just before it was held": {func(l *LeaseTrace) { l.Seen[9], l.Lives[3].Holds[0].Closed = s, s+s/2 }, ""},
		"held when it is over": {func(l *LeaseTrace) {
			l.Seen[9] = 3 * s
			withoutProbes(l, 3*s/2, 3*s-s/5)
		}, "UNTRUE: lease d"},
		"held in doubt when it is over": {func(l *LeaseTrace) {
			l.Seen[9], l.Lives[3].Holds[0].Doubtful = 3*s, 3*s
			withoutProbes(l, 3*s/2, 3*s-s/5)
		}, ""},
		"late after it was held": {func(l *LeaseTrace) { l.Seen[9] = 9*s + s/10 }, "LATE: lease d of 1s ended after 3.1s"},
		"late after a hold on a node that was ill": {func(l *LeaseTrace) {
			l.Seen[9] = 9*s + s/10
			withoutProbes(l, 6*s, 6*s+4*s/10)
		}, ""},
		"not yet":                    {func(l *LeaseTrace) { l.Changes, l.End = l.Changes[:7], 4*s }, ""},
		"half of its keys":           {func(l *LeaseTrace) { l.Changes = l.Changes[:8] }, "1 of its keys stayed"},
		"its keys at two revisions":  {func(l *LeaseTrace) { l.Changes[8].Revision = 9 }, "1 of its keys stayed"},
		"for two reasons":            {func(l *LeaseTrace) { l.Changes[8].Reason = "revoked" }, "lease a expired at revision 8 and revoked"},
		"two leases at one revision": {func(l *LeaseTrace) { l.Changes[6].Revision = 6 }, "ends two leases"},
		"a key of none":              {func(l *LeaseTrace) { l.Changes[1].Lease = "" }, "it had none"},
		"a key after the end": {func(l *LeaseTrace) {
			l.Changes = append(l.Changes, LeaseChange{Revision: 9, Key: "l/a/3", Lease: "a", Wall: 9 * s})
		}, "revision 9 attaches"},
		"an end that nobody saw":      {func(l *LeaseTrace) { delete(l.Seen, 8) }, "no watcher saw"},
		"a lease that begins anew":    {func(l *LeaseTrace) { l.Readings[1].Remaining = 100 * s }, "BACK"},
		"a clock that runs ahead":     {func(l *LeaseTrace) { l.Readings[1].Remaining = 93 * s }, "AHEAD"},
		"a clock that stands still":   {func(l *LeaseTrace) { l.Readings[1].Remaining = 98 * s }, "BEHIND"},
		"a wall clock that goes back": {func(l *LeaseTrace) { l.Changes[8].Wall-- }, "before it"},
	}
	for name, test := range tests {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			trace := soundLeases()
			test.spoil(trace)
			wrong := judgedLeases(trace)
			if test.want == "" && len(wrong) > 0 || test.want != "" && !slices.ContainsFunc(wrong, func(w string) bool { return strings.Contains(w, test.want) }) {
				t.Errorf("want a complaint with %q, got %q", test.want, wrong)
			}
		})
	}
}

func first[A, B any](a A, _ B) A { return a }
