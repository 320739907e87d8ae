package storage

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"sort"

	"github.com/cairnkv/cairn/kv"
	"github.com/cockroachdb/pebble/v2"
)

// History returns what history still holds of key, newest first: at most limit
// events with a revision below before, or from the newest on when before is 0.
func (v *View) History(key []byte, before uint64, limit int) (events []kv.Event, more bool, err error) {
	prefix := appendVersionPrefix(nil, key)
	start := prefix
	if before != 0 {
		// The newest version at the compacted revision is the oldest that history
		// holds, so nothing before it needs a look.
		start = appendInverted(bytes.Clone(prefix), max(before-1, v.st.compact))
	}
	it, err := v.snap.NewIter(&pebble.IterOptions{LowerBound: start, UpperBound: kv.PrefixEnd(prefix)})
	if err != nil {
		return nil, false, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for it.First(); it.Valid(); it.Next() {
		_, revision, ok := splitVersionKey(it.Key())
		if !ok {
			return nil, false, corrupt(it.Key(), "version key")
		}
		// The sweep may not have been here yet; what it will remove is gone
		// already for whoever asks.
		superfluous := len(events) > 0 && events[len(events)-1].Entry.ModRevision <= v.st.compact
		if superfluous || before != 0 && revision >= before {
			break
		}
		var ver version
		value, err := it.ValueAndErr()
		if err != nil {
			return nil, false, err
		}
		t, err := decodeVersion(it.Key(), value, &ver)
		if err != nil {
			return nil, false, err
		}
		if !ver.exists && revision <= v.st.compact {
			break
		}
		if limit > 0 && len(events) == limit {
			return events, true, nil
		}
		e := kv.Event{Type: kv.EventDelete, Reason: t.reason}
		if ver.exists {
			e = kv.Event{Type: kv.EventPut}
			entry := ver.entry(key)
			e.Entry = entry.Clone()
		} else {
			e.Entry = kv.Entry{Key: key, ModRevision: revision, ModifiedAt: t.modifiedAt}
		}
		events = append(events, e)
	}
	return events, false, it.Error()
}

// Changes calls fn for the changes from revision from on, in order, with their
// place in their revision, until fn returns false or there are no more. The
// event is valid during the call only. History must hold from.
func (v *View) Changes(ctx context.Context, from uint64, fn func(sub uint32, e *kv.Event) (more bool, err error)) (err error) {
	if from < v.st.compact {
		return compactedError(from, &v.st)
	}
	it, err := v.snap.NewIter(&pebble.IterOptions{
		LowerBound: appendChangeKey(nil, from, 0), UpperBound: []byte{spaceChange + 1},
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	visit := visitor(ctx)
	var c change
	var e kv.Event
	for it.First(); it.Valid(); it.Next() {
		if err := visit(1); err != nil {
			return err
		}
		sub, err := v.event(it, &c, &e)
		if err != nil {
			return err
		}
		if more, err := fn(sub, &e); err != nil || !more {
			return err
		}
	}
	return it.Error()
}

// event decodes the change under the iterator into e.
func (v *View) event(it *pebble.Iterator, c *change, e *kv.Event) (sub uint32, err error) {
	k := it.Key()
	if len(k) != 1+8+4 {
		return 0, corrupt(k, "change key")
	}
	value, err := it.ValueAndErr()
	if err != nil {
		return 0, err
	}
	if err := decodeChange(k, value, c); err != nil {
		return 0, err
	}
	revision, sub := changeRevision(k), binary.BigEndian.Uint32(k[1+8:])
	*e = kv.Event{Type: kv.EventPut, PrevRevision: c.prevRevision}
	if c.kind == recordTombstone {
		e.Type, e.Reason = kv.EventDelete, c.tombstone.reason
		e.Entry = kv.Entry{Key: c.key, ModRevision: revision, ModifiedAt: c.tombstone.modifiedAt}
		return sub, nil
	}
	if c.kind == recordElsewhere {
		vk := appendVersionKey(nil, c.key, revision)
		value, err := getCopy(v.snap, vk)
		if err != nil {
			return 0, err
		}
		if value == nil {
			return 0, corrupt(vk, "version is missing")
		}
		if _, err := decodeVersion(vk, value, &c.version); err != nil {
			return 0, err
		}
	}
	e.Entry = c.version.entry(c.key)
	return sub, nil
}

// RevisionAt returns the newest revision that was made at or before a time, in
// milliseconds since the epoch, as far as history tells: never less than the
// compacted revision.
func (v *View) RevisionAt(unixMillis int64) (revision uint64, err error) {
	it, err := v.snap.NewIter(spaceBounds(spaceChange))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	// Times never go backwards along the revisions, so they can be searched.
	lo := max(v.st.compact, 1)
	n := int(v.st.revision - lo)
	i := sort.Search(n, func(i int) bool {
		if err != nil || !it.SeekGE(appendChangeKey(nil, lo+1+uint64(i), 0)) {
			return true
		}
		var c change
		var value []byte
		if value, err = it.ValueAndErr(); err == nil {
			err = decodeChange(it.Key(), value, &c)
		}
		if err != nil {
			return true
		}
		at := c.version.modifiedAt
		if c.kind == recordTombstone {
			at = c.tombstone.modifiedAt
		}
		return at > unixMillis
	})
	return lo + uint64(i), errors.Join(err, it.Error())
}
