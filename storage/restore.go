package storage

import (
	"context"
	"errors"

	"github.com/cairnkv/cairn/kv"
)

// Restoring reports whether the store is being filled from a backup, and with
// which part that goes on; 0 is the beginning's turn. A store that never was
// filled and one that is complete both say false; Backup tells them apart.
func (s *Store) Restoring() (restoring bool, part uint64) {
	h := s.current.Load()
	if h == nil {
		return false, 0
	}
	part = h.published.Load().restoring
	return part != 0, part
}

// Restoring reports whether the view has a part of a backup that the store is being
// filled from. Nobody must be shown that.
func (v *View) Restoring() bool { return v.st.restoring != 0 }

// Backup returns the SHA-256 of the backup that the store was filled from, or is
// being filled from, and whether there is one.
func (s *Store) Backup() (sum [32]byte, found bool, err error) {
	h, err := s.acquire()
	if err != nil {
		return sum, false, err
	}
	defer h.release()
	value, err := getCopy(h.db, keyRestore)
	if err != nil || value == nil {
		return sum, false, err
	}
	if len(value) != len(sum) {
		return sum, false, corrupt(keyRestore, "restore")
	}
	return [32]byte(value), true, nil
}

// LastTime is the newest time that a command carried, in milliseconds since the
// epoch.
func (v *View) LastTime() int64 { return v.st.lastTime }

// BackupLeases calls fn for each lease by id, as a backup has it.
func (v *View) BackupLeases(ctx context.Context, fn func(*kv.BackupLease) error) (err error) {
	it, err := v.snap.NewIter(spaceBounds(spaceLease))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Error(), it.Close()) }()
	visit := visitor(ctx)
	for it.First(); it.Valid(); it.Next() {
		if err := visit(1); err != nil {
			return err
		}
		value, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		l, err := decodeLease(it.Key(), value)
		if err != nil {
			return err
		}
		err = fn(&kv.BackupLease{
			ID: kv.LeaseID(it.Key()[1:]), Number: l.number, TTLMillis: l.ttl, Keys: l.keys, Bytes: l.bytes, Own: l.own,
			RemainingMillis: max(int64(l.deadline)-int64(v.st.clock), 0),
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// duringRestore reports whether a command of that kind may change a store that
// is being filled. The clock stands still meanwhile; see applyClock.
func duringRestore(k kv.Kind) bool {
	switch k {
	case kv.KindRestore, kv.KindClock, kv.KindMember, kv.KindMembership, kv.KindAlarm:
		return true
	}
	return false
}

// applyRestore applies a step of a restore. A step that was applied before, or
// whose turn has not come, changes nothing; the result says so by its code, and
// whoever restores looks at Restoring and goes on from there.
func (b *Batch) applyRestore(r *kv.Restore) (*kv.Result, error) {
	begun, err := b.get(keyRestore)
	if err != nil {
		return nil, err
	}
	if r.Step == kv.RestoreBegin {
		switch {
		case begun != nil && string(begun) == string(r.Backup[:]):
			return b.done(), nil
		case begun != nil:
			return b.refused(&refusal{kv.Unavailable, "the store is filled from another backup"}), nil
		case b.st.revision != emptyState().revision || b.st.leases > 0 || b.st.idempotent > 0:
			return b.refused(&refusal{kv.Unavailable, "the store is not empty: somebody wrote to it before the restore began"}), nil
		}
		must(b.wb.Set(keyRestore, r.Backup[:], nil))
		b.st.restoring = 1
		return b.done(), nil
	}
	if begun == nil || string(begun) != string(r.Backup[:]) || b.st.restoring != r.Part {
		return b.refused(&refusal{kv.Unavailable, "it is not this part's turn"}), nil
	}
	b.st.restoring++
	if r.Step == kv.RestorePart {
		return b.done(), kv.WalkBackup(r.Content, b.restoreLease, b.restoreEntry)
	}
	b.st.restoring = 0 // the end
	b.st.revision, b.st.compact = r.Revision, r.Revision
	// What the parts wrote is not remembered, and keys may be remembered as missing
	// that they wrote. So the store's memory begins anew, behind the restore; all
	// parts are committed by now, since each step is preceded by a commit.
	b.h.rows.reset(b.st.revision)
	b.h.recent, b.h.changed = newRecent(b.st.revision), newChanged(b.st.revision)
	// No events lead over the jump, so those of commands behind it in this batch must not
	// be taken for all there were: who watches looks at history, and is told.
	b.events, b.WantEvents = nil, false
	return b.done(), nil
}

func (b *Batch) restoreLease(l *kv.BackupLease) error {
	deadline := b.st.clock + uint64(l.RemainingMillis)
	b.setLease(l.ID, nil, &lease{
		number: l.Number, ttl: l.TTLMillis, deadline: deadline, queued: deadline, keys: l.Keys, bytes: l.Bytes, own: l.Own,
	})
	return nil
}

// restoreEntry writes a version, and no change: history begins behind the
// restore.
func (b *Batch) restoreEntry(e *kv.Entry) error {
	m := meta{
		create: e.CreateRevision, mod: e.ModRevision, version: e.Version, modifiedAt: e.ModifiedAt, lease: e.Lease,
		contentTypeLen: len(e.ContentType), valueLen: len(e.Value),
	}
	if m.hasLease() {
		must(b.wb.Set(attachedKey(e.Lease, e.Key), nil, nil))
	}
	b.key = appendNewestKey(b.key[:0], e.Key)
	b.val = appendMeta(b.val[:0], &m)
	must(b.wb.Set(b.key, b.val, nil))
	b.key = appendVersionKey(b.key[:0], e.Key, e.ModRevision)
	b.val = append(append(appendMeta(append(b.val[:0], recordPut), &m), e.ContentType...), e.Value...)
	must(b.wb.Set(b.key, b.val, nil))
	b.st.keys++
	return nil
}
