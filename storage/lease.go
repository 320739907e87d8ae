package storage

import (
	"bytes"
	"errors"
	"slices"

	"github.com/cairnkv/cairn/kv"
	"github.com/cockroachdb/pebble/v2"
)

// setLease changes a lease in the batch; nil ends it. It writes at once, which
// is right even inside a transaction: undo writes the former state again.
func (b *Batch) setLease(id kv.LeaseID, old, now *lease) {
	if old != nil && (now == nil || now.queued != old.queued) {
		// A place in the queue is set once before it is deleted, always. So the two
		// may annihilate each other as soon as they meet, and no tombstone travels
		// to the bottom of the store for each lease that moved.
		must(b.queue.SingleDelete(queueKey(old.queued, id), nil))
	}
	switch {
	case now == nil:
		must(b.wb.Delete(leaseKey(id), nil))
		must(b.wb.Delete(numberKey(old.number), nil))
		b.numbers[old.number] = kv.LeaseID{}
		b.st.leases--
	default:
		if old == nil {
			must(b.wb.Set(numberKey(now.number), id[:], nil))
			b.numbers[now.number] = id
			b.h.recentLeases.granted(id)
			b.st.leases++
		}
		if old == nil || now.queued != old.queued {
			must(b.queue.Set(queueKey(now.queued, id), nil, nil))
		}
		must(b.wb.Set(leaseKey(id), appendLease(b.val[:0], now), nil))
	}
	b.leases[id] = now
}

// deadlineAfter is when a lease of that time to live ends that was granted or
// renewed now.
func (b *Batch) deadlineAfter(ttl int64) uint64 {
	return b.st.clock + uint64(ttl) + kv.LeaseGraceMillis
}

// freeNumber returns the number that a lease without one gets.
func (b *Batch) freeNumber(id kv.LeaseID) (int64, error) {
	for try := uint32(0); ; try++ {
		n := numberOf(id, try)
		taken, err := b.numberTaken(n)
		if err != nil || !taken {
			return n, err
		}
	}
}

func (b *Batch) applyGrant(g kv.Lease) (*kv.Result, error) {
	if b.st.noSpace > 0 {
		return b.refused(&refusal{kv.NoSpace, noSpaceDetail}), nil
	}
	have, err := b.findLease(g.ID)
	if err != nil {
		return nil, err
	}
	taken := have != nil
	if !taken && g.Number != 0 {
		if taken, err = b.numberTaken(g.Number); err != nil {
			return nil, err
		}
	}
	if taken {
		return b.refused(&refusal{kv.LeaseExists, "a lease with this id or number exists"}), nil
	}
	if g.Number == 0 {
		if g.Number, err = b.freeNumber(g.ID); err != nil {
			return nil, err
		}
	}
	deadline := b.deadlineAfter(g.TTLMillis)
	b.setLease(g.ID, nil, &lease{number: g.Number, ttl: g.TTLMillis, deadline: deadline, queued: deadline})
	result := b.done()
	result.Leases = []kv.LeaseResult{{ID: g.ID, Number: g.Number, TTLMillis: g.TTLMillis}}
	return result, nil
}

// applyRenew renews leases in the order of their ids: records that are looked up
// and written one after the other then lie side by side. The results are in the
// order of the command.
//
// A renewal leaves the lease where it is in the queue of deadlines, unless that
// place is half a time to live too early. So a lease that is renewed often moves
// seldom; and one that is never without a renewal for more than half its time to
// live moves before the clock reaches its place. Others the leader finds there,
// and has them requeued.
func (b *Batch) applyRenew(ids []kv.LeaseID) (_ *kv.Result, err error) {
	result := b.done()
	result.Leases = make([]kv.LeaseResult, len(ids))
	order := b.order[:0]
	for i := range ids {
		order = append(order, i)
	}
	b.order = order
	byID := func(i, j int) int { return bytes.Compare(ids[i][:], ids[j][:]) }
	if !slices.IsSortedFunc(order, byID) {
		slices.SortStableFunc(order, byID)
	}
	find, done := b.leaseFinder(len(ids))
	defer func() { err = errors.Join(err, done()) }()
	for _, i := range order {
		r := &result.Leases[i]
		r.ID = ids[i]
		old, err := find(r.ID)
		if err != nil {
			return nil, err
		}
		if old == nil {
			r.Code = kv.LeaseNotFound
			continue
		}
		now := *old
		now.deadline = b.deadlineAfter(old.ttl)
		now.generation++
		if now.deadline-now.queued > uint64(now.ttl)/2 {
			now.queued = now.deadline
		}
		b.setLease(r.ID, old, &now)
		r.Number, r.TTLMillis = old.number, old.ttl
	}
	return result, nil
}

// applyRequeue puts leases that were renewed into the queue by their deadlines.
func (b *Batch) applyRequeue(ids []kv.LeaseID) (*kv.Result, error) {
	for _, id := range ids {
		old, err := b.findLease(id)
		if err != nil {
			return nil, err
		}
		if old != nil && old.queued != old.deadline {
			now := *old
			now.queued = now.deadline
			b.setLease(id, old, &now)
		}
	}
	return b.done(), nil
}

// applyEnd revokes a lease or expires it. An expiry counts only if the clock
// has reached the deadline and nobody has renewed the lease since the proposer
// looked, so that a leader that slept can't end what another has kept alive.
func (b *Batch) applyEnd(e kv.Lease, reason kv.Reason) (*kv.Result, error) {
	l, err := b.findLease(e.ID)
	if err != nil {
		return nil, err
	}
	if l == nil {
		return b.refused(&refusal{kv.LeaseNotFound, "there is no such lease"}), nil
	}
	if reason == kv.ReasonExpired && (l.generation != e.Generation || b.st.clock < l.deadline) {
		return b.done(), nil
	}
	keys, err := attachedKeys(b.h.db, e.ID)
	if err != nil {
		return nil, err
	}
	t := b.newTxnRun()
	for _, key := range keys {
		v, err := b.lookup(key)
		if err != nil {
			return nil, err
		}
		if !v.exists || v.lease != e.ID {
			return nil, corrupt(attachedKey(e.ID, key), "the key has another lease")
		}
		if err := t.remove(key, v, reason); err != nil {
			// The number of keys of a lease is bounded by what a transaction may
			// delete, so no budget can refuse this.
			return nil, err
		}
	}
	// A lease of a put with a time to live has ended with its key just now.
	if rest, err := b.findLease(e.ID); err != nil {
		return nil, err
	} else if rest != nil {
		b.setLease(e.ID, rest, nil)
	}
	t.commit()
	result := b.done()
	result.Changed = len(keys) > 0
	result.Ops = []kv.OpResult{{Type: kv.OpDelete, Deleted: uint64(len(keys))}}
	result.Leases = []kv.LeaseResult{{ID: e.ID, Number: l.number, TTLMillis: l.ttl}}
	return result, nil
}

func attachedKeys(r pebble.Reader, id kv.LeaseID) ([][]byte, error) {
	prefix := attachedPrefix(id)
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: kv.PrefixEnd(prefix)})
	if err != nil {
		return nil, err
	}
	var keys [][]byte
	for it.First(); it.Valid(); it.Next() {
		keys = append(keys, bytes.Clone(it.Key()[len(prefix):]))
	}
	return keys, errors.Join(it.Error(), it.Close())
}
