package leases

import (
	"time"

	"github.com/cairnkv/cairn/kv"
)

// A Group is leases that one holder holds together. They are renewed as any, each at
// its time.
type Group struct {
	r    *Renewer
	open func() bool
	news chan struct{} // has a token while something has changed

	// Guarded by the mutex of r.
	holds   []*Hold
	changed map[*Hold]Standing
}

// A Change is what became of one lease of a group.
type Change struct {
	Lease    kv.LeaseID
	Standing Standing
}

// HoldAll keeps leases alive that were all renewed, or granted, by what was sent at a
// moment and answered. Release ends that; for open see [Renewer.Hold].
func (r *Renewer) HoldAll(all []kv.LeaseResult, sent time.Time, open func() bool) *Group {
	g := &Group{r: r, open: open, news: make(chan struct{}, 1), holds: make([]*Hold, len(all)), changed: map[*Hold]Standing{}}
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range all {
		g.holds[i] = &Hold{r: r, group: g, id: all[i].ID, ttl: time.Duration(all[i].TTLMillis) * time.Millisecond, place: -1}
		r.begin(g.holds[i], sent)
	}
	return g
}

// News has a token whenever Changes has something to tell.
func (g *Group) News() <-chan struct{} { return g.news }

// Changes says of which leases it stands differently than when they were told of
// last, in no order.
func (g *Group) Changes() []Change {
	g.r.mu.Lock()
	defer g.r.mu.Unlock()
	changes := make([]Change, 0, len(g.changed))
	for h, s := range g.changed {
		changes = append(changes, Change{h.id, s})
	}
	clear(g.changed)
	return changes
}

// Release lets all of the leases go, as that of a Hold does.
func (g *Group) Release() {
	g.r.mu.Lock()
	defer g.r.mu.Unlock()
	for _, h := range g.holds {
		h.release()
	}
	g.holds = nil
}

// note takes down what Changes will tell. The mutex is held.
func (g *Group) note(h *Hold, s Standing) {
	g.changed[h] = s
	select {
	case g.news <- struct{}{}:
	default:
	}
}
