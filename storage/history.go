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

// maxHistoryBytes is about how much of a key's history is read at once: each version
// may be as large as the largest value, and this much as one.
const maxHistoryBytes = 256 << 10

// History returns what history still holds of key, newest first: at most limit
// events with a revision below before, or from the newest on when before is 0, and no
// more of them once they have maxHistoryBytes. more says that there are older ones.
func (v *View) History(key []byte, before uint64, limit int) (events []kv.Event, more bool, err error) {
	size := 0
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
		if limit > 0 && len(events) == limit || size >= maxHistoryBytes {
			return events, true, nil
		}
		e := kv.Event{Type: kv.EventDelete, Reason: t.reason}
		if ver.exists {
			e = kv.Event{Type: kv.EventPut}
			entry := ver.entry(key)
			e.Entry = entry.Clone()
			size += e.Entry.Size()
		} else {
			e.Entry = kv.Entry{Key: key, ModRevision: revision, ModifiedAt: t.modifiedAt}
		}
		events = append(events, e)
	}
	return events, false, it.Error()
}

// Changes calls fn for the changes from a place in the change log on, in order,
// with their number in their revision, until fn says that it wants no more or
// there are none. want, if not nil, sees each change first: what it doesn't want
// costs little, and it may end the call too. Keys and events are valid during
// the call only. History must hold the revision of from.
func (v *View) Changes(ctx context.Context, from kv.Place, want func(at kv.Place, key []byte) (wanted, more bool),
	fn func(sub uint32, e *kv.Event) (more bool, err error),
) (err error) {
	if from.Revision < v.st.compact {
		return compactedError(from.Revision, &v.st)
	}
	it, err := v.snap.NewIter(&pebble.IterOptions{
		LowerBound: appendChangeKey(nil, from.Revision, from.Sub), UpperBound: []byte{spaceChange + 1},
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
		at, value, err := changeRecord(it)
		if err != nil {
			return err
		}
		if want != nil {
			key, err := decodeChangedKey(it.Key(), value)
			if err != nil {
				return err
			}
			wanted, more := want(at, key)
			if !more {
				return nil
			}
			if !wanted {
				continue
			}
		}
		if err := v.event(it.Key(), value, at.Revision, &c, &e); err != nil {
			return err
		}
		if more, err := fn(at.Sub, &e); err != nil || !more {
			return err
		}
	}
	return it.Error()
}

// changeRecord returns the record under the iterator and its place.
func changeRecord(it *pebble.Iterator) (at kv.Place, value []byte, err error) {
	k := it.Key()
	if len(k) != 1+8+4 {
		return at, nil, corrupt(k, "change key")
	}
	at = kv.Place{Revision: changeRevision(k), Sub: binary.BigEndian.Uint32(k[1+8:])}
	value, err = it.ValueAndErr()
	return at, value, err
}

// event decodes the record of a change into e.
func (v *View) event(key, record []byte, revision uint64, c *change, e *kv.Event) error {
	if err := decodeChange(key, record, c); err != nil {
		return err
	}
	*e = kv.Event{Type: kv.EventPut, PrevRevision: c.prevRevision}
	if c.kind == recordTombstone {
		e.Type, e.Reason = kv.EventDelete, c.tombstone.reason
		e.Entry = kv.Entry{Key: c.key, ModRevision: revision, ModifiedAt: c.tombstone.modifiedAt}
		return nil
	}
	if c.kind == recordElsewhere {
		vk := appendVersionKey(nil, c.key, revision)
		value, err := getCopy(v.snap, vk)
		if err != nil {
			return err
		}
		if value == nil {
			return corrupt(vk, "version is missing")
		}
		if _, err := decodeVersion(vk, value, &c.version); err != nil {
			return err
		}
	}
	e.Entry = c.version.entry(c.key)
	return nil
}

// Version returns the version of a key that a change at a revision put there, if
// history still holds it. The entry is the caller's.
func (v *View) Version(key []byte, revision uint64) (e kv.Entry, found bool, err error) {
	vk := appendVersionKey(nil, key, revision)
	value, err := getCopy(v.snap, vk)
	if value == nil || err != nil {
		return kv.Entry{}, false, err
	}
	var ver version
	if _, err := decodeVersion(vk, value, &ver); err != nil || !ver.exists {
		return kv.Entry{}, false, err
	}
	return ver.entry(key), true, nil
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
