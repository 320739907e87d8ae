package storage

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/cairnkv/cairn/kv"
	"github.com/cockroachdb/pebble/v2"
)

// CheckStore verifies everything that must hold between the records of a store
// at any moment, and returns the first thing that does not.
func CheckStore(s *Store) error {
	// Look before the view is taken: what is swept now is swept there.
	swept, err := s.Swept()
	if err != nil {
		return err
	}
	v, err := s.View()
	if err != nil {
		return err
	}
	defer v.Close()
	c := &storeCheck{st: v.st, r: v.snap, swept: swept && v.st == *v.h.published.Load(), newest: map[string]version{}, leases: map[kv.LeaseID]*leaseCheck{}}
	for _, step := range []func() error{
		c.checkNewest, c.checkLeases, c.checkVersions, c.checkChanges, c.checkAnswers, c.checkMembers, c.checkAlarms, c.checkWindows,
		c.checkSpaces,
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

type storeCheck struct {
	st     state
	r      pebble.Reader
	swept  bool
	newest map[string]version
	leases map[kv.LeaseID]*leaseCheck
}

type leaseCheck struct {
	lease
	attachedKeys, attachedBytes uint64
	named, queued               bool
}

// each calls fn for the records of a space.
func (c *storeCheck) each(space byte, fn func(key, value []byte) error) error {
	it, err := c.r.NewIter(spaceBounds(space))
	if err != nil {
		return err
	}
	defer it.Close()
	for it.First(); it.Valid(); it.Next() {
		value, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		if err := fn(bytes.Clone(it.Key()), bytes.Clone(value)); err != nil {
			return fmt.Errorf("record %q: %w", it.Key(), err)
		}
	}
	return it.Error()
}

// checkNewest: there are as many newest versions as the state counts.
func (c *storeCheck) checkNewest() error {
	err := c.each(spaceNewest, func(key, value []byte) error {
		var v version
		if err := decodeNewest(key, value, &v); err != nil {
			return err
		}
		if v.create > v.mod || v.mod > c.st.revision || v.version == 0 || v.create < 2 {
			return fmt.Errorf("revisions %d, %d, version %d", v.create, v.mod, v.version)
		}
		if (v.version == 1) != (v.create == v.mod) {
			return fmt.Errorf("version %d of a key created at %d and put at %d", v.version, v.create, v.mod)
		}
		c.newest[string(key[1:])] = v
		return nil
	})
	if err == nil && uint64(len(c.newest)) != c.st.keys {
		err = fmt.Errorf("%d keys, the state counts %d", len(c.newest), c.st.keys)
	}
	return err
}

// checkLeases: a lease has its number, one place in the queue, which is no later
// than its deadline, and the keys that it
// counts; and a key names the lease that it is attached to.
func (c *storeCheck) checkLeases() error {
	err := c.each(spaceLease, func(key, value []byte) error {
		l, err := decodeLease(key, value)
		if err != nil {
			return err
		}
		c.leases[kv.LeaseID(key[1:])] = &leaseCheck{lease: *l}
		return nil
	})
	if err != nil {
		return err
	}
	if uint64(len(c.leases)) != c.st.leases {
		return fmt.Errorf("%d leases, the state counts %d", len(c.leases), c.st.leases)
	}
	if err := c.each(spaceNumber, func(key, value []byte) error {
		l := c.leases[kv.LeaseID(value)]
		if l == nil || uint64(l.number) != binary.BigEndian.Uint64(key[1:]) || l.number <= 0 {
			return fmt.Errorf("a number of no lease")
		}
		l.named = true
		return nil
	}); err != nil {
		return err
	}
	if err := c.each(spaceDeadline, func(key, _ []byte) error {
		l := c.leases[kv.LeaseID(key[9:])]
		if l == nil || l.lease.queued != binary.BigEndian.Uint64(key[1:]) || l.lease.queued > l.deadline {
			return fmt.Errorf("a deadline of no lease")
		}
		l.queued = true
		return nil
	}); err != nil {
		return err
	}
	attached := map[string]bool{}
	if err := c.each(spaceAttached, func(key, _ []byte) error {
		id, user := kv.LeaseID(key[1:17]), key[17:]
		l := c.leases[id]
		if l == nil {
			return fmt.Errorf("a key of no lease")
		}
		l.attachedKeys++
		l.attachedBytes += uint64(len(user))
		attached[string(user)] = true
		if c.newest[string(user)].lease != id {
			return fmt.Errorf("the key has lease %v", c.newest[string(user)].lease)
		}
		return nil
	}); err != nil {
		return err
	}
	for key, v := range c.newest {
		if v.hasLease() && !attached[key] {
			return fmt.Errorf("key %q is missing among those of its lease", key)
		}
	}
	for id, l := range c.leases {
		switch {
		case !l.named || !l.queued:
			return fmt.Errorf("lease %v without number or deadline", id)
		case l.attachedKeys != l.keys || l.attachedBytes != l.bytes:
			return fmt.Errorf("lease %v: %d keys of %d bytes, it counts %d of %d", id, l.attachedKeys, l.attachedBytes, l.keys, l.bytes)
		case l.own && l.keys != 1:
			return fmt.Errorf("lease %v belongs to one key and has %d", id, l.keys)
		}
	}
	return nil
}

// checkVersions: the first version of a key is its newest; each version follows
// the one before it; and of what is compacted nothing is left once it is swept.
func (c *storeCheck) checkVersions() error {
	var key string
	var younger version // the version after the one at hand, if there is one
	var youngerRevision uint64
	first := 0 // keys whose newest version exists
	err := c.each(spaceVersion, func(k, value []byte) error {
		escaped, revision, ok := splitVersionKey(k)
		if !ok {
			return fmt.Errorf("no version key")
		}
		var v version
		if _, err := decodeVersion(k, value, &v); err != nil {
			return err
		}
		user := string(unescape(nil, escaped))
		isFirst := user != key || youngerRevision == 0
		switch {
		case v.exists && v.mod != revision:
			return fmt.Errorf("says that it is of revision %d", v.mod)
		case revision > c.st.revision:
			return fmt.Errorf("is of the future")
		}
		if isFirst {
			newest, exists := c.newest[user]
			if exists != v.exists || exists && newest.meta != v.meta {
				return fmt.Errorf("newest version %+v, first version %+v", newest, v.meta)
			}
			if exists {
				first++
			}
		} else {
			if err := follows(&v, &younger); err != nil {
				return err
			}
			if c.swept && youngerRevision <= c.st.compact {
				return fmt.Errorf("should have been removed: the next one is of %d", youngerRevision)
			}
		}
		if c.swept && !v.exists && revision <= c.st.compact {
			return fmt.Errorf("a deletion that should have been removed")
		}
		key, younger, youngerRevision = user, v, revision
		return nil
	})
	if err == nil && first != len(c.newest) {
		err = fmt.Errorf("%d keys with versions, %d newest versions", first, len(c.newest))
	}
	return err
}

func follows(older, younger *version) error {
	switch {
	case !younger.exists && !older.exists:
		return fmt.Errorf("deleted twice")
	case !younger.exists:
	case older.exists && (younger.version != older.version+1 || younger.create != older.create):
		return fmt.Errorf("version %d created at %d, after it version %d created at %d", older.version, older.create, younger.version, younger.create)
	case !older.exists && younger.version != 1:
		return fmt.Errorf("version %d after a deletion", younger.version)
	}
	return nil
}

// checkChanges: from the compacted revision on, each revision has changes,
// numbered from 0, and each change the version that it made.
func (c *storeCheck) checkChanges() error {
	next, sub := max(c.st.compact, 2), uint32(0)
	err := c.each(spaceChange, func(k, value []byte) error {
		var ch change
		if err := decodeChange(k, value, &ch); err != nil {
			return err
		}
		revision := changeRevision(k)
		if revision < c.st.compact {
			if c.swept {
				return fmt.Errorf("should have been removed")
			}
			return nil
		}
		switch got := binary.BigEndian.Uint32(k[9:]); {
		case revision == next && got == 0:
			next, sub = revision+1, 1
		case revision == next-1 && got == sub:
			sub++
		default:
			return fmt.Errorf("revision %d, change %d, where %d or %d, %d follows", revision, got, next, next-1, sub)
		}
		vk := appendVersionKey(nil, ch.key, revision)
		stored, err := getCopy(c.r, vk)
		if err != nil {
			return err
		}
		var v version
		if stored == nil {
			if ch.kind == recordTombstone && revision == c.st.compact {
				return nil
			}
			return fmt.Errorf("there is no such version")
		}
		t, err := decodeVersion(vk, stored, &v)
		switch {
		case err != nil:
			return err
		case v.exists != ch.version.exists || t != ch.tombstone:
			return fmt.Errorf("change and version differ")
		case v.exists && v.meta != ch.version.meta:
			return fmt.Errorf("change %+v, version %+v", ch.version.meta, v.meta)
		case ch.kind == recordPut && !bytes.Equal(v.payload, ch.version.payload):
			return fmt.Errorf("change and version have different values")
		case (ch.kind == recordElsewhere) != (len(v.payload) > maxInlineChangeBytes):
			return fmt.Errorf("a value of %d bytes in change kind %d", len(v.payload), ch.kind)
		}
		if ch.prevRevision > c.st.compact {
			before, err := getCopy(c.r, appendVersionKey(nil, ch.key, ch.prevRevision))
			if err != nil {
				return err
			}
			if before == nil {
				return fmt.Errorf("the version before, of %d, is missing", ch.prevRevision)
			}
		}
		return nil
	})
	if err == nil && next != max(c.st.revision, 1)+1 {
		err = fmt.Errorf("changes end before %d, the revision is %d", next, c.st.revision)
	}
	return err
}

// checkAnswers: every remembered answer has its place in the order of age.
func (c *storeCheck) checkAnswers() error {
	expiries := map[string]uint64{}
	if err := c.each(spaceExpiry, func(k, _ []byte) error {
		scope := string(k[9:])
		if _, twice := expiries[scope]; twice {
			return fmt.Errorf("its answer expires twice")
		}
		expiries[scope] = binary.BigEndian.Uint64(k[1:])
		return nil
	}); err != nil {
		return err
	}
	n := uint64(0)
	if err := c.each(spaceIdempotency, func(k, value []byte) error {
		n++
		r := reader{b: value}
		expires := r.uvarint()
		r.take(16)
		if at, ok := expiries[string(k[1:])]; !ok || at != expires {
			return fmt.Errorf("expires at %d, queued for %d", expires, at)
		}
		_, err := kv.DecodeResult(r.b)
		return err
	}); err != nil {
		return err
	}
	if n != c.st.idempotent || int(n) != len(expiries) {
		return fmt.Errorf("%d answers, %d expiries, the state counts %d", n, len(expiries), c.st.idempotent)
	}
	return nil
}

// checkMembers: the cluster's version is the lowest of its members'.
func (c *storeCheck) checkMembers() error {
	members, err := readMembers(c.r)
	if err != nil {
		return err
	}
	lowest := uint64(0)
	for i, m := range members {
		if i == 0 || uint64(m.Version) < lowest {
			lowest = uint64(m.Version)
		}
	}
	if lowest != c.st.clusterVersion {
		return fmt.Errorf("lowest version %d, the state has %d", lowest, c.st.clusterVersion)
	}
	return nil
}

func (c *storeCheck) checkAlarms() error {
	alarms, err := readAlarms(c.r)
	if err != nil {
		return err
	}
	counts := map[kv.AlarmType]uint64{}
	for _, a := range alarms {
		counts[a.Type]++
	}
	if counts[kv.AlarmNoSpace] != c.st.noSpace || counts[kv.AlarmCorrupt] != c.st.corrupt {
		return fmt.Errorf("alarms %v, the state counts %d and %d", counts, c.st.noSpace, c.st.corrupt)
	}
	return nil
}

func (c *storeCheck) checkWindows() error {
	return c.each(spaceEntries, func(k, value []byte) error {
		w, err := decodeWindow(k, value)
		if err == nil && w.lastIndex > max(c.st.applied, c.st.partialIndex) {
			err = fmt.Errorf("an entry at %d, applied are %d", w.lastIndex, c.st.applied)
		}
		return err
	})
}

// checkSpaces: there is no record of an unknown space.
func (c *storeCheck) checkSpaces() error {
	it, err := c.r.NewIter(nil)
	if err != nil {
		return err
	}
	defer it.Close()
	known := []byte{
		spaceAlarm, spaceExpiry, spaceMember, spaceMembership, spaceRestore, spaceScrub, spaceAttached, spaceFormat, spaceIdempotency, spaceLease,
		spaceNewest, spaceNumber, spaceEntries, spaceChange, spaceState, spaceVersion, spaceDeadline,
	}
	for ok := it.First(); ok; ok = it.SeekGE([]byte{it.Key()[0] + 1}) {
		if bytes.IndexByte(known, it.Key()[0]) < 0 {
			return fmt.Errorf("record %q belongs to no space", it.Key())
		}
	}
	return it.Error()
}
