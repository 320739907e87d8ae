package storage

import (
	"bytes"
	"context"
	"errors"

	"github.com/cairnkv/cairn/kv"
	"github.com/cockroachdb/pebble/v2"
)

// Lease returns the lease of that id, and whether there is one.
func (v *View) Lease(id kv.LeaseID) (kv.LeaseState, bool, error) {
	k := leaseKey(id)
	value, err := getCopy(v.snap, k)
	if value == nil || err != nil {
		return kv.LeaseState{}, false, err
	}
	s, err := v.leaseState(k, value)
	return s, err == nil, err
}

// LeaseByNumber returns the id of the lease of that number, and whether there is
// one.
func (v *View) LeaseByNumber(number int64) (kv.LeaseID, bool, error) {
	k := numberKey(number)
	value, err := getCopy(v.snap, k)
	if value == nil || err != nil {
		return kv.LeaseID{}, false, err
	}
	if len(value) != len(kv.LeaseID{}) {
		return kv.LeaseID{}, false, corrupt(k, "number of a lease")
	}
	return kv.LeaseID(value), true, nil
}

// Leases returns up to limit leases in the order of their ids, beyond after, and
// whether there are more. The cost follows the answer.
func (v *View) Leases(ctx context.Context, after kv.LeaseID, limit int) (leases []kv.LeaseState, more bool, err error) {
	opts := &pebble.IterOptions{LowerBound: append(leaseKey(after), 0), UpperBound: []byte{spaceLease + 1}}
	it, err := v.snap.NewIter(opts)
	if err != nil {
		return nil, false, err
	}
	defer func() { err = errors.Join(err, it.Error(), it.Close()) }()
	visit := visitor(ctx)
	for it.First(); it.Valid(); it.Next() {
		if len(leases) == limit {
			return leases, true, nil
		}
		if err := visit(1); err != nil {
			return nil, false, err
		}
		value, err := it.ValueAndErr()
		if err != nil {
			return nil, false, err
		}
		s, err := v.leaseState(it.Key(), value)
		if err != nil {
			return nil, false, err
		}
		leases = append(leases, s)
	}
	return leases, false, nil
}

// LeaseKeys returns keys that are attached to a lease, in byte order beyond
// after (nil: from the first), and whether there are more. At least one is
// given; beyond that, at most limit keys of maxBytes together. A lease that does
// not exist has none.
func (v *View) LeaseKeys(ctx context.Context, id kv.LeaseID, after []byte, limit, maxBytes int) (keys [][]byte, more bool, err error) {
	prefix := attachedPrefix(id)
	opts := &pebble.IterOptions{LowerBound: prefix, UpperBound: kv.PrefixEnd(prefix)}
	if after != nil {
		opts.LowerBound = append(attachedKey(id, after), 0)
	}
	it, err := v.snap.NewIter(opts)
	if err != nil {
		return nil, false, err
	}
	defer func() { err = errors.Join(err, it.Error(), it.Close()) }()
	visit := visitor(ctx)
	size := 0
	for it.First(); it.Valid(); it.Next() {
		key := it.Key()[len(prefix):]
		if size += len(key); len(keys) > 0 && (len(keys) >= limit || size > maxBytes) {
			return keys, true, nil
		}
		if err := visit(1); err != nil {
			return nil, false, err
		}
		keys = append(keys, bytes.Clone(key))
	}
	return keys, false, nil
}

func (v *View) leaseState(key, value []byte) (kv.LeaseState, error) {
	l, err := decodeLease(key, value)
	if err != nil {
		return kv.LeaseState{}, err
	}
	return kv.LeaseState{
		ID: kv.LeaseID(key[1:]), Number: l.number, TTLMillis: l.ttl, Keys: l.keys,
		RemainingMillis: remaining(l, v.st.clock),
	}, nil
}

// remaining is what is left of a lease for certain. A step of the clock that is
// on its way may add kv.MaxClockAdvanceMillis at once for time that has passed
// already; the grace, which is left out here, is longer than that.
func remaining(l *lease, clock uint64) int64 {
	left := int64(l.deadline) - int64(clock) - kv.LeaseGraceMillis
	return min(max(left, 0), l.ttl)
}

var _ [kv.LeaseGraceMillis - kv.MaxClockAdvanceMillis]struct{}

// DueLeases looks at up to limit leases whose place in the queue of deadlines the
// replicated clock has reached, in the order of the queue. It returns those whose
// deadline the clock has reached as well, with what an expiry must name: the id
// and the generation. The others are renewed ones, which are to be requeued.
//
// It begins where the last call found the first one. Nothing comes into being
// before that: a new place is always later than the clock. So what leases that
// moved or ended left behind, which lies there until Pebble compacts it, is
// stepped over once and not at each call.
func (s *Store) DueLeases(limit int) (due []kv.Lease, renewed []kv.LeaseID, err error) {
	h, err := s.acquire()
	if err != nil {
		return nil, nil, err
	}
	defer h.release()
	from := h.due.Load()
	if from == nil {
		from = &dueKey{spaceDeadline}
	}
	snap := h.db.NewSnapshot()
	defer func() { err = errors.Join(err, snap.Close()) }()
	st, err := readState(snap)
	if err != nil {
		return nil, nil, err
	}
	end := queueKey(st.clock+1, kv.LeaseID{})
	if bytes.Compare(from[:], end) >= 0 {
		return nil, nil, nil
	}
	it, err := snap.NewIter(&pebble.IterOptions{LowerBound: from[:], UpperBound: end})
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	first := dueKey(end)
	for n, ok := 0, it.First(); ok && n < limit; n, ok = n+1, it.Next() {
		if n == 0 {
			first = dueKey(it.Key())
		}
		id := kv.LeaseID(it.Key()[1+8:])
		k := leaseKey(id)
		value, err := getCopy(snap, k)
		if err != nil {
			return nil, nil, err
		}
		if value == nil {
			return nil, nil, corrupt(k, "a deadline has no lease")
		}
		l, err := decodeLease(k, value)
		if err != nil {
			return nil, nil, err
		}
		if st.clock < l.deadline {
			renewed = append(renewed, id)
		} else {
			due = append(due, kv.Lease{ID: id, Generation: l.generation})
		}
	}
	if err := it.Error(); err != nil {
		return nil, nil, err
	}
	h.raiseDue(from, &first)
	return due, renewed, nil
}

// A dueKey is a place in the queue of deadlines.
type dueKey [1 + 8 + 16]byte

// raiseDue notes that no lease is queued before first, unless somebody who
// looked further has noted that already.
func (h *handle) raiseDue(from, first *dueKey) {
	for bytes.Compare(from[:], first[:]) < 0 {
		old := h.due.Load()
		if old != nil && bytes.Compare(old[:], first[:]) >= 0 || h.due.CompareAndSwap(old, first) {
			return
		}
	}
}
