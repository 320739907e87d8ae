package leases

import (
	"math/rand/v2"
	"testing"
	"time"
)

// TestDueWheel: the wheel beside a plain set, through random coming, going and taking,
// with pauses that are longer than the ring. What is taken has been due the longest,
// to the length of a slot, and only what came while others were late by the whole ring
// is taken early; nothing is left that is due, and nothing is lost.
func TestDueWheel(t *testing.T) {
	const gatherings = 4000
	random := rand.New(rand.NewPCG(1, 2))
	began := time.Now()
	now, w, set := began, &dueWheel{began: began}, map[*Hold]struct{}{}
	for step := range gatherings {
		for range random.IntN(20) {
			sent := now.Add(-time.Duration(random.Int64N(int64(2 * time.Second))))
			h := &Hold{sent: sent, due: sent.Add(time.Duration(random.Int64N(int64(longestRest))))}
			w.add(h)
			set[h] = struct{}{}
		}
		for h := range set {
			if random.IntN(50) == 0 {
				w.remove(h)
				delete(set, h)
			}
			if random.IntN(10) == 0 {
				break
			}
		}
		switch random.IntN(200) {
		case 0:
			now = now.Add(3 * longestRest)
		default:
			now = now.Add(time.Duration(random.Int64N(int64(4 * gather))))
		}
		limit := 1 + random.IntN(100)
		batch := w.take(now, limit)
		latest := int64(0)
		for _, h := range batch {
			if _, ok := set[h]; !ok || h.place != -1 {
				t.Fatalf("step %d: a hold was taken that is not in it, or twice", step)
			}
			if h.due.After(now.Add(gather)) && w.slotAt(h.due) == h.slot {
				t.Fatalf("step %d: taken %v before it is due", step, h.due.Sub(now))
			}
			latest = max(latest, h.slot)
			delete(set, h)
		}
		if w.count != len(set) {
			t.Fatalf("step %d: it has %d holds, not %d", step, w.count, len(set))
		}
		due := map[*Hold]bool{}
		w.due(now, func(h *Hold) { due[h] = true })
		first, any := w.first()
		if any != (len(set) > 0) {
			t.Fatalf("step %d: of %d holds, the first is there: %v", step, len(set), any)
		}
		for h := range set {
			switch {
			case !h.due.After(now) && len(batch) < limit:
				t.Fatalf("step %d: one that is due since %v was left", step, now.Sub(h.due))
			case !h.due.After(now) && !due[h]:
				t.Fatalf("step %d: one that is due is not among those that are", step)
			case h.due.Before(first) && first.After(now):
				t.Fatalf("step %d: the first is due at %v, not %v", step, first, h.due)
			case h.slot < latest:
				t.Fatalf("step %d: one was left of slot %d, when those of %d were taken", step, h.slot, latest)
			}
		}
	}
}
