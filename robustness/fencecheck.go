package robustness

import (
	"fmt"
	"slices"
)

// A FenceTrace is what holders of locks did, and the store's own account. Times
// are nanoseconds since the scenario began.
type FenceTrace struct {
	Held   []Holding
	Writes []FencedWrite
	// Holders are the changes of the holders' keys, Changes those of the keys that
	// were written under a fence, both in the order of the store.
	Holders, Changes []LeaseChange
}

// A Holding is a lock that somebody got.
type Holding struct {
	Lock           string
	Token          uint64
	Sent, Answered int64
}

// A FencedWrite is a write that carried the fence of a holder. Its key is written
// by nothing else, unless it deletes: then one write before it put the key.
type FencedWrite struct {
	Lock           string
	Token          uint64
	Route          string
	Key            string
	Deletes        bool
	Sent, Answered int64
	Status         int
	Code           string
	Outcome        Outcome
	Revision       uint64 // of the answer
}

// describe says which write it was.
func (w *FencedWrite) describe() string {
	return fmt.Sprintf("the write of %s by %s with token %d of lock %s (answered %d %s)", w.Key, w.Route, w.Token, w.Lock, w.Status, w.Code)
}

// Tokens checks that each token is the revision at which its holder came to be,
// and that they grow from holder to holder.
func (t *FenceTrace) Tokens() (wrong []string) {
	created := map[string]map[uint64]bool{}
	newest := map[string]uint64{}
	for _, c := range t.Holders {
		if c.Delete {
			continue
		}
		if c.Revision <= newest[c.Key] {
			wrong = append(wrong, fmt.Sprintf("%s came to be at revision %d after %d", c.Key, c.Revision, newest[c.Key]))
		}
		newest[c.Key] = c.Revision
		if created[c.Key] == nil {
			created[c.Key] = map[uint64]bool{}
		}
		created[c.Key][c.Revision] = true
	}
	for i, h := range t.Held {
		if !created[holderKey(h.Lock)][h.Token] {
			wrong = append(wrong, fmt.Sprintf("token %d of lock %s is not the revision of a holder", h.Token, h.Lock))
		}
		for _, o := range t.Held[:i] {
			a, b := o, h
			if b.Answered < a.Sent {
				a, b = b, a
			}
			if a.Lock == b.Lock && (a.Token == b.Token || a.Answered < b.Sent && a.Token >= b.Token) {
				wrong = append(wrong, fmt.Sprintf("lock %s gave token %d and then token %d", a.Lock, a.Token, b.Token))
			}
		}
	}
	return wrong
}

// Fences checks that a write took effect only while its own holder had the lock,
// by the store's account, and that the answers say so: one that was sent after
// somebody else got the lock is 412, or was not answered and changed nothing.
func (t *FenceTrace) Fences() (stale int, wrong []string) {
	for i := range t.Writes {
		w := &t.Writes[i]
		revision := t.applied(w)
		if revision != 0 {
			if holder := t.holder(w.Lock, revision); holder != w.Token {
				wrong = append(wrong, fmt.Sprintf("PASSED: %s took effect at revision %d, when the holder was %d", w.describe(), revision, holder))
			}
		}
		switch {
		case w.Outcome == Done && revision != w.Revision:
			wrong = append(wrong, fmt.Sprintf("%s took effect at revision %d, and the answer says %d", w.describe(), revision, w.Revision))
		case (w.Outcome == NotApplied || w.Outcome == Refused) && revision != 0:
			wrong = append(wrong, fmt.Sprintf("%s took effect at revision %d", w.describe(), revision))
		}
		later := slices.ContainsFunc(t.Held, func(h Holding) bool {
			return h.Lock == w.Lock && h.Token > w.Token && h.Answered < w.Sent
		})
		if !later {
			continue
		}
		switch {
		case w.Status == 412 && w.Code == fenceStale:
			stale++
		case w.Status == 0, w.Status == 503, w.Status == 504: // nobody could say
		default:
			wrong = append(wrong, fmt.Sprintf("%s was not refused as stale, though it was sent after somebody else got the lock", w.describe()))
		}
	}
	return stale, wrong
}

// applied is the revision at which a write took effect, 0 if it did not.
func (t *FenceTrace) applied(w *FencedWrite) uint64 {
	for _, c := range t.Changes {
		if c.Key == w.Key && c.Delete == w.Deletes {
			return c.Revision
		}
	}
	return 0
}

// holder is the token of who had a lock at a revision, 0 for nobody.
func (t *FenceTrace) holder(lock string, revision uint64) (token uint64) {
	for _, c := range t.Holders {
		if c.Revision > revision {
			break
		}
		if c.Key != holderKey(lock) {
			continue
		}
		if token = c.Revision; c.Delete {
			token = 0
		}
	}
	return token
}

const (
	fenceStale  = "fencing-token-stale"
	locksPrefix = "_cairn/locks/"
)

func holderKey(lock string) string { return locksPrefix + lock + "/holder" }
