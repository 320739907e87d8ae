package httpapi

import (
	"time"

	"github.com/cairnkv/cairn/api"
)

// doubtAfter is for how long a node must have been out of touch with its cluster
// before a stream says so: elections are over by then, and a client that moves to
// another node then moves for a reason.
const doubtAfter = 10 * time.Second

// A touch is what a quiet stream knows of whether its node is in touch with the
// cluster. A stream on which changes come has no need to ask; one that is quiet
// can't tell a cluster in which nothing happens from one it hears nothing of.
type touch struct {
	// alone is since when no look found the node in touch, looked when the last
	// look was. told says that the client knows.
	alone, looked time.Time
	told          bool
}

// look returns the event that the client is to be told: that the node has lost
// touch for long, or that it has it again. Most often there is none.
func (t *touch) look(ready bool, after time.Duration) (event string) {
	t.looked = time.Now()
	switch {
	case ready && t.told:
		*t = touch{}
		return api.EventCertain
	case ready:
		t.alone = time.Time{}
	case t.alone.IsZero():
		t.alone = t.looked
	case !t.told && t.looked.Sub(t.alone) >= after:
		t.told = true
		return api.EventDoubtful
	}
	return ""
}

// next is when to look again, if there is a reason to.
func (t *touch) next(after time.Duration) (at time.Time, soon bool) {
	return t.looked.Add(after / 4), !t.alone.IsZero()
}
