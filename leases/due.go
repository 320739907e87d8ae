package leases

import "time"

// dueWheel has holds by the moment at which they are due: a ring of slots, each for
// a stretch of [gather], so that coming and going costs the same however many there
// are. One that is due in the past waits in the slot that is taken from next.
type dueWheel struct {
	began time.Time
	// next is the number of the first slot that may have holds, counted from began.
	// The ring has place for the slots from there on.
	next  int64
	slots [wheelSlots][]*Hold
	count int
}

// wheelSlots are enough for the longest rest, and the time until somebody looks.
const wheelSlots = int64(longestRest/gather) + 16

// slotAt is the number of the slot of a moment.
func (w *dueWheel) slotAt(t time.Time) int64 { return int64(t.Sub(w.began) / gather) }

// startOf is when a slot begins.
func (w *dueWheel) startOf(slot int64) time.Time { return w.began.Add(time.Duration(slot) * gather) }

func (w *dueWheel) slot(number int64) *[]*Hold { return &w.slots[number%wheelSlots] }

// add takes a hold in. Where others are late by the length of the ring, it is given
// back before it is due, which does no harm.
func (w *dueWheel) add(h *Hold) {
	w.seek(w.slotAt(h.sent))
	h.slot = min(max(w.slotAt(h.due), w.next), w.next+wheelSlots-1)
	s := w.slot(h.slot)
	h.place = len(*s)
	*s = append(*s, h)
	w.count++
}

// remove takes a hold out that is in it.
func (w *dueWheel) remove(h *Hold) {
	s := w.slot(h.slot)
	last := len(*s) - 1
	moved := (*s)[last]
	(*s)[h.place], moved.place = moved, h.place
	w.cut(s, last)
	h.place = -1
}

// cut shortens a slot. An empty one keeps no memory: in the next round others may be
// full.
func (w *dueWheel) cut(s *[]*Hold, n int) {
	w.count -= len(*s) - n
	clear((*s)[n:])
	if *s = (*s)[:n]; n == 0 {
		*s = nil
	}
}

// take takes out up to limit holds of slots that have begun, the oldest slots first.
func (w *dueWheel) take(now time.Time, limit int) (batch []*Hold) {
	for end := w.slotAt(now); len(batch) < limit && w.seek(end); {
		s := w.slot(w.next)
		rest := max(0, len(*s)-(limit-len(batch)))
		for _, h := range (*s)[rest:] {
			h.place = -1
			batch = append(batch, h)
		}
		w.cut(s, rest)
	}
	return batch
}

// seek moves on to the first slot that has holds, if there is one up to end, else to
// end.
func (w *dueWheel) seek(end int64) bool {
	if w.count == 0 {
		w.next = max(w.next, end)
		return false
	}
	for ; w.next < end; w.next++ {
		if len(*w.slot(w.next)) > 0 {
			return true
		}
	}
	return w.next == end && len(*w.slot(end)) > 0
}

// first is when the first slot begins that has holds; false if none has.
func (w *dueWheel) first() (time.Time, bool) {
	if w.count == 0 {
		return time.Time{}, false
	}
	number := w.next
	for len(*w.slot(number)) == 0 {
		number++
	}
	return w.startOf(number), true
}

// due calls f with all holds of slots that have begun.
func (w *dueWheel) due(now time.Time, f func(*Hold)) {
	for number := w.next; number <= w.slotAt(now) && number < w.next+wheelSlots; number++ {
		for _, h := range *w.slot(number) {
			f(h)
		}
	}
}
