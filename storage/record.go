package storage

import (
	"encoding/binary"
	"fmt"

	"github.com/cairnkv/cairn/kv"
)

// meta is what a version is besides its key and its value.
type meta struct {
	create, mod, version uint64
	modifiedAt           int64
	lease                kv.LeaseID
	contentTypeLen       int
	valueLen             int
}

// version is a version of a key, or its absence. The payload is the content
// type and behind it the value; it is nil where only the rest was read.
type version struct {
	exists bool
	// deletedAt is the revision that deleted the key, while that revision is
	// not committed; it makes a second change in one transaction visible.
	deletedAt uint64
	// fetched says that this is what the database has, read ahead: it is no
	// change.
	fetched bool
	// replaced is how many bytes the value had, with its content type, in whose place
	// this change has come. It is 0 for what was committed.
	replaced uint32
	meta
	payload []byte
}

// size is how many bytes the content type and the value have.
func (m *meta) size() int { return int(m.contentTypeLen) + int(m.valueLen) }

func (m *meta) hasLease() bool { return m.lease != (kv.LeaseID{}) }

// entry makes the entry that a version stands for. It aliases key and payload;
// a nil payload leaves the value nil.
func (v *version) entry(key []byte) kv.Entry {
	e := kv.Entry{
		Key: key, CreateRevision: v.create, ModRevision: v.mod, Version: v.version,
		Lease: v.lease, ModifiedAt: v.modifiedAt,
	}
	if v.payload != nil {
		e.ContentType = string(v.payload[:v.contentTypeLen])
		e.Value = v.payload[v.contentTypeLen:]
	}
	return e
}

// The first byte of a record says what it is.
const (
	recordPut       = 1
	recordTombstone = 2
	// recordElsewhere, in the change log alone, is a put whose payload is in the
	// version record, because it is large.
	recordElsewhere = 3
)

// maxInlineChangeBytes bounds the payloads that the change log holds itself.
// Up to here a watcher that catches up reads sequentially; beyond, one lookup a
// change is cheap beside the value, and writing it twice is not.
const maxInlineChangeBytes = 4 << 10

const metaHasLease = 1

func appendMeta(b []byte, m *meta) []byte {
	var flags byte
	if m.hasLease() {
		flags |= metaHasLease
	}
	b = append(b, flags)
	b = binary.AppendUvarint(b, m.create)
	b = binary.AppendUvarint(b, m.mod)
	b = binary.AppendUvarint(b, m.version)
	b = binary.AppendVarint(b, m.modifiedAt)
	b = binary.AppendUvarint(b, uint64(m.contentTypeLen))
	b = binary.AppendUvarint(b, uint64(m.valueLen))
	if m.hasLease() {
		b = append(b, m.lease[:]...)
	}
	return b
}

// reader decodes records. After a failure it returns zeros and bad is set.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.bad = true
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

func (r *reader) uvarint() uint64 {
	// Most numbers of a record are small; spare them the call.
	if len(r.b) > 0 && r.b[0] < 0x80 {
		v := r.b[0]
		r.b = r.b[1:]
		return uint64(v)
	}
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) take(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return nil
	}
	s := r.b[:n:n]
	r.b = r.b[n:]
	return s
}

func (r *reader) lease() (id kv.LeaseID) {
	copy(id[:], r.take(16))
	return id
}

func (r *reader) meta(m *meta) {
	flags := r.byte()
	if flags > metaHasLease {
		r.bad = true
	}
	m.create = r.uvarint()
	m.mod = r.uvarint()
	m.version = r.uvarint()
	m.modifiedAt = r.varint()
	m.contentTypeLen = int(r.uvarint())
	m.valueLen = int(r.uvarint())
	m.lease = kv.LeaseID{}
	if flags&metaHasLease != 0 {
		m.lease = r.lease()
	}
	if m.contentTypeLen < 0 || m.contentTypeLen > kv.MaxContentTypeBytes || m.valueLen < 0 {
		r.bad = true
	}
}

func (r *reader) payload(m *meta) []byte {
	if r.bad || len(r.b) != m.contentTypeLen+m.valueLen {
		r.bad = true
		return nil
	}
	return r.b
}

// CorruptError says that a record on disk can't have been written by this
// version. The store doesn't guess; the member must be replaced.
type CorruptError struct {
	Key    []byte // empty if it is not about one record
	Reason string
}

func (e *CorruptError) Error() string {
	if len(e.Key) == 0 {
		return "storage: " + e.Reason
	}
	return fmt.Sprintf("storage: record %x is corrupt: %s", e.Key, e.Reason)
}

func corrupt(key []byte, reason string) error {
	return &CorruptError{Key: append([]byte(nil), key...), Reason: reason}
}

// decodeNewest decodes an m record.
func decodeNewest(key, value []byte, v *version) error {
	r := reader{b: value}
	r.meta(&v.meta)
	if r.bad || len(r.b) != 0 {
		return corrupt(key, "newest version")
	}
	v.exists = true
	v.payload = nil
	return nil
}

// tombstone is the record of a deletion.
type tombstone struct {
	reason     kv.Reason
	modifiedAt int64
}

func appendTombstone(b []byte, t tombstone) []byte {
	return binary.AppendVarint(append(b, byte(t.reason)), t.modifiedAt)
}

func (r *reader) tombstone() tombstone {
	return tombstone{reason: kv.Reason(r.byte()), modifiedAt: r.varint()}
}

// decodeVersion decodes a v record. Of a tombstone, v.exists is false. The
// payload aliases value.
func decodeVersion(key, value []byte, v *version) (t tombstone, err error) {
	r := reader{b: value}
	switch r.byte() {
	case recordPut:
		r.meta(&v.meta)
		v.payload = r.payload(&v.meta)
		v.exists = true
	case recordTombstone:
		t = r.tombstone()
		v.exists = false
		if len(r.b) != 0 {
			r.bad = true
		}
	default:
		r.bad = true
	}
	if r.bad {
		return t, corrupt(key, "version")
	}
	return t, nil
}

// change is a decoded r record.
type change struct {
	kind         byte
	key          []byte
	prevRevision uint64
	version      version
	tombstone    tombstone
}

// decodeChangedKey returns the key of an r record without looking at the rest.
func decodeChangedKey(key, value []byte) ([]byte, error) {
	r := reader{b: value}
	r.byte()
	r.uvarint()
	changed := r.take(r.uvarint())
	if r.bad {
		return nil, corrupt(key, "change")
	}
	return changed, nil
}

func decodeChange(key, value []byte, c *change) error {
	r := reader{b: value}
	c.kind = r.byte()
	c.prevRevision = r.uvarint()
	c.key = r.take(r.uvarint())
	c.version = version{}
	switch c.kind {
	case recordPut:
		r.meta(&c.version.meta)
		c.version.payload = r.payload(&c.version.meta)
		c.version.exists = true
	case recordElsewhere:
		r.meta(&c.version.meta)
		c.version.exists = true
		if len(r.b) != 0 {
			r.bad = true
		}
	case recordTombstone:
		c.tombstone = r.tombstone()
		if len(r.b) != 0 {
			r.bad = true
		}
	default:
		r.bad = true
	}
	if r.bad {
		return corrupt(key, "change")
	}
	return nil
}
