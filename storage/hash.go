package storage

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"hash"

	"github.com/cairnkv/cairn/kv"
	"github.com/cockroachdb/pebble/v2"
)

// Hash returns a hash of the content at a revision (0: the newest) and of the
// history from the compacted revision to it. It follows from the log alone:
// members that agree on revision and compacted revision agree on it.
func (v *View) Hash(ctx context.Context, revision uint64) (sum [32]byte, err error) {
	if revision, err = v.check(revision); err != nil {
		return sum, err
	}
	h := sha256.New()
	var buf []byte
	buf = binary.AppendUvarint(buf[:0], v.st.compact)
	buf = binary.AppendUvarint(buf, revision)
	h.Write(buf)
	visit := visitor(ctx)
	cur, err := newPastCursor(v.snap, kv.Range{}, revision, passing(visit))
	if err != nil {
		return sum, err
	}
	defer cur.close()
	for ok := cur.first(); ok; ok = cur.next() {
		if err := visit(1); err != nil {
			return sum, err
		}
		e := cur.version().entry(cur.key())
		buf = kv.AppendEntry(append(buf[:0], 'e'), &e)
		h.Write(buf)
	}
	if err := cur.err(); err != nil {
		return sum, err
	}
	err = v.Changes(ctx, kv.Place{Revision: v.st.compact}, nil, func(_ uint32, e *kv.Event) (bool, error) {
		if e.Entry.ModRevision > revision {
			return false, nil
		}
		// At the compact revision itself a member that swept less may still
		// know a predecessor that is superfluous; only its number is hashed.
		buf = append(buf[:0], 'c', byte(e.Type), byte(e.Reason))
		buf = binary.AppendUvarint(buf, e.PrevRevision)
		buf = kv.AppendEntry(buf, &e.Entry)
		h.Write(buf)
		return true, nil
	})
	return [32]byte(h.Sum(nil)), err
}

// StateHash returns a hash of everything replicated at this moment: the
// content and all that is not content. Members at the same applied index agree
// on it, whatever their compactions have physically removed.
func (v *View) StateHash(ctx context.Context) (sum [32]byte, err error) {
	content, err := v.Hash(ctx, 0)
	if err != nil {
		return sum, err
	}
	h := sha256.New()
	h.Write(content[:])
	h.Write(appendState(nil, &v.st))
	for _, space := range []byte{
		spaceAlarm, spaceExpiry, spaceMember, spaceMembership, spaceRestore, spaceScrub, spaceAttached, spaceIdempotency, spaceLease, spaceNewest,
		spaceNumber, spaceEntries, spaceDeadline,
	} {
		if err := hashSpace(h, v.snap, space); err != nil {
			return sum, err
		}
	}
	return [32]byte(h.Sum(nil)), nil
}

func hashSpace(h hash.Hash, r pebble.Reader, space byte) error {
	it, err := r.NewIter(spaceBounds(space))
	if err != nil {
		return err
	}
	defer it.Close()
	var n []byte
	for it.First(); it.Valid(); it.Next() {
		value, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		n = binary.AppendUvarint(n[:0], uint64(len(it.Key())))
		n = binary.AppendUvarint(n, uint64(len(value)))
		h.Write(n)
		h.Write(it.Key())
		h.Write(value)
	}
	return it.Error()
}
