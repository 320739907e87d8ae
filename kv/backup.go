package kv

import (
	"bytes"
	"encoding/binary"
)

// BackupLease is a lease as a backup has it.
type BackupLease struct {
	ID     LeaseID
	Number int64
	// TTLMillis is the time to live, RemainingMillis what was left of it, and of
	// the grace, by the replicated clock.
	TTLMillis, RemainingMillis int64
	// Keys and Bytes are the number and the length of the keys that it holds.
	Keys, Bytes uint64
	// Own says that a put with a time to live made it and that it ends with its
	// one key.
	Own bool
}

// The content of a backup is leases by id and behind them entries by key, in
// pieces. A piece is records, each with its kind before it. It is what a block
// of the file has, and what a command of a restore carries.
const (
	contentLease = 1
	contentEntry = 2
)

// AppendBackupLease and AppendBackupEntry append one record of a piece.
func AppendBackupLease(b []byte, l *BackupLease) []byte {
	b = append(append(b, contentLease), l.ID[:]...)
	b = binary.AppendVarint(b, l.Number)
	b = binary.AppendVarint(b, l.TTLMillis)
	b = binary.AppendVarint(b, l.RemainingMillis)
	b = binary.AppendUvarint(b, l.Keys)
	b = binary.AppendUvarint(b, l.Bytes)
	return append(b, boolByte(l.Own))
}

// AppendBackupEntry is described with AppendBackupLease.
func AppendBackupEntry(b []byte, e *Entry) []byte { return AppendEntry(append(b, contentEntry), e) }

// WalkBackup calls lease or entry for each record of a piece, in order. What it
// gives is valid during the call only, and an entry aliases b. A piece that is
// out of order, or has what no store can have, is refused with ErrMalformed; an
// error of a function is returned as it is.
func WalkBackup(b []byte, lease func(*BackupLease) error, entry func(*Entry) error) error {
	d := decoder{b: b}
	var lastLease LeaseID
	var lastKey []byte
	var l BackupLease
	var e Entry
	for len(d.b) > 0 {
		switch kind := d.byte(); kind {
		case contentLease:
			l = BackupLease{
				ID: d.lease(), Number: d.varint(), TTLMillis: d.varint(), RemainingMillis: d.varint(),
				Keys: d.uvarint(), Bytes: d.uvarint(), Own: d.bool(),
			}
			if d.err == nil && (lastKey != nil || bytes.Compare(l.ID[:], lastLease[:]) <= 0) {
				d.fail("leases are out of order")
			}
			l.check(&d)
			if d.err != nil {
				return d.err
			}
			lastLease = l.ID
			if err := lease(&l); err != nil {
				return err
			}
		case contentEntry:
			e = Entry{}
			d.entry(&e)
			if d.err == nil && lastKey != nil && bytes.Compare(e.Key, lastKey) <= 0 {
				d.fail("keys are out of order")
			}
			e.check(&d)
			if d.err != nil {
				return d.err
			}
			lastKey = e.Key
			if err := entry(&e); err != nil {
				return err
			}
		default:
			d.fail("record of kind %d", kind)
			return d.err
		}
	}
	return d.err
}

func (l *BackupLease) check(d *decoder) {
	switch {
	case d.err != nil:
	case l.Number <= 0, l.TTLMillis <= 0, l.TTLMillis > MaxLeaseTTLMillis,
		l.RemainingMillis < 0, l.RemainingMillis > l.TTLMillis+LeaseGraceMillis:
		d.fail("a lease that can't be")
	case l.Keys > BudgetKeysChanged, l.Bytes > BudgetBytesWritten, (l.Keys == 0) != (l.Bytes == 0), l.Own && l.Keys != 1:
		d.fail("a lease with %d keys of %d bytes", l.Keys, l.Bytes)
	}
}

func (e *Entry) check(d *decoder) {
	switch {
	case d.err != nil:
	case len(e.Key) == 0, len(e.Key) > MaxKeyBytes, len(e.Value) > MaxValueBytes, len(e.ContentType) > MaxContentTypeBytes:
		d.fail("an entry of %d, %d and %d bytes", len(e.Key), len(e.Value), len(e.ContentType))
	case e.CreateRevision == 0, e.CreateRevision > e.ModRevision, e.Version == 0:
		d.fail("an entry of revisions that can't be")
	}
}

// RestoreStep says where in a restore a command stands.
type RestoreStep uint8

const (
	// RestoreBegin begins: from then on only the restore changes the store.
	RestoreBegin RestoreStep = 1
	// RestorePart carries a piece of the backup.
	RestorePart RestoreStep = 2
	// RestoreEnd ends it: the store serves.
	RestoreEnd RestoreStep = 3
	restoreEnd RestoreStep = 4
)

// Restore is one step of filling an empty store from a backup. Steps are applied
// in order, each once, whoever proposes them and however often.
type Restore struct {
	Step RestoreStep
	// Backup is the SHA-256 of the backup. A step of another backup than the one
	// that began is refused.
	Backup [32]byte
	// Part numbers the pieces, from 1. Of RestoreEnd it is their number plus 1.
	Part uint64
	// Revision is what the store's revision becomes, and its compacted one.
	// RestoreEnd only.
	Revision uint64
	// Content is a piece for WalkBackup. RestorePart only.
	Content []byte
}

func appendRestore(b []byte, r *Restore) []byte {
	b = append(append(b, byte(r.Step)), r.Backup[:]...)
	switch r.Step {
	case RestorePart:
		b = binary.AppendUvarint(b, r.Part)
		b = appendBytes(b, r.Content)
	case RestoreEnd:
		b = binary.AppendUvarint(b, r.Part)
		b = binary.AppendUvarint(b, r.Revision)
	}
	return b
}

func (d *decoder) restore() *Restore {
	r := &Restore{Step: RestoreStep(d.byte())}
	copy(r.Backup[:], d.take(32))
	switch r.Step {
	case RestorePart:
		r.Part = d.uvarint()
		r.Content = d.bytes()
	case RestoreEnd:
		r.Part = d.uvarint()
		r.Revision = d.uvarint()
	}
	if d.err == nil {
		d.err = r.check()
	}
	return r
}

// check refuses what applying could not do.
func (r *Restore) check() error {
	switch {
	case r.Step == 0 || r.Step >= restoreEnd:
		return malformed("restore step %d", r.Step)
	case (r.Step == RestoreBegin) != (r.Part == 0), r.Step != RestoreEnd && r.Revision != 0, r.Step != RestorePart && len(r.Content) > 0:
		return malformed("restore step %d with part %d, revision %d and %d bytes", r.Step, r.Part, r.Revision, len(r.Content))
	case r.Step == RestoreEnd && (r.Revision < 2 || r.Revision > MaxRevision):
		return malformed("restore to revision %d", r.Revision)
	}
	return WalkBackup(r.Content, func(*BackupLease) error { return nil }, func(*Entry) error { return nil })
}
