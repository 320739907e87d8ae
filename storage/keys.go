package storage

import (
	"bytes"
	"encoding/binary"

	"github.com/cairnkv/cairn/kv"
	"github.com/cockroachdb/pebble/v2"
	"github.com/oklog/ulid/v2"
)

// Only this file knows how keys are laid out.

const (
	spaceAlarm       = 'A' // alarms of members
	spaceExpiry      = 'I' // remembered answers, by when they are forgotten
	spaceMember      = 'M' // what members say of themselves
	spaceMembership  = 'P' // their places in the cluster
	spaceRestore     = 'R' // the backup that the store is filled from
	spaceScrub       = 'S' // the newest step of the comparison of contents
	spaceAttached    = 'a' // keys of leases
	spaceFormat      = 'f' // the format of all this
	spaceIdempotency = 'i' // remembered answers
	spaceLease       = 'l' // leases
	spaceNewest      = 'm' // newest versions, without values
	spaceNumber      = 'n' // leases, by number
	spaceEntries     = 'q' // which entries of a proposer were applied
	spaceChange      = 'r' // what each revision changed
	spaceState       = 's' // the replicated scalars
	spaceVersion     = 'v' // all versions
	spaceDeadline    = 'x' // leases, by deadline
)

var (
	keyFormat  = []byte{spaceFormat}
	keyRestore = []byte{spaceRestore}
	keyScrub   = []byte{spaceScrub}
	keyState   = []byte{spaceState}
)

// revisionBytes is the length of the inverted revision at the end of a version
// key.
const revisionBytes = 8

// Inside an escaped key, 0x00 is followed by escapedZero; at its end by
// terminator, which sorts before any continuation.
const (
	escapedZero = 0xff
	terminator  = 0x01
)

func appendNewestKey(b, key []byte) []byte {
	return append(append(b, spaceNewest), key...)
}

// appendVersionStart appends where the versions of keys >= key begin. It is a
// bound, not the prefix of one key.
func appendVersionStart(b, key []byte) []byte {
	return appendEscaped(append(b, spaceVersion), key)
}

// appendVersionPrefix appends the prefix that all versions of key share.
func appendVersionPrefix(b, key []byte) []byte {
	return append(appendVersionStart(b, key), 0, terminator)
}

func appendVersionKey(b, key []byte, revision uint64) []byte {
	return appendInverted(appendVersionPrefix(b, key), revision)
}

func appendInverted(b []byte, revision uint64) []byte {
	return binary.BigEndian.AppendUint64(b, ^revision)
}

func appendEscaped(b, key []byte) []byte {
	for {
		i := bytes.IndexByte(key, 0)
		if i < 0 {
			return append(b, key...)
		}
		b = append(b, key[:i+1]...)
		b = append(b, escapedZero)
		key = key[i+1:]
	}
}

// versionPrefixLen returns the length of the part of a version key that its
// versions share, and of any other key its whole length. It accepts arbitrary
// bytes, since Pebble asks it about shortened separators, too.
func versionPrefixLen(k []byte) int {
	if len(k) == 0 || k[0] != spaceVersion {
		return len(k)
	}
	for i := 1; ; {
		j := bytes.IndexByte(k[i:], 0)
		if j < 0 || i+j+1 >= len(k) {
			return len(k)
		}
		i += j + 2
		if k[i-1] == terminator {
			return i
		}
	}
}

// splitVersionKey returns the escaped key, without its end, and the revision.
func splitVersionKey(k []byte) (escaped []byte, revision uint64, ok bool) {
	n := versionPrefixLen(k)
	if n < 3 || len(k) != n+revisionBytes {
		return nil, 0, false
	}
	return k[1 : n-2], ^binary.BigEndian.Uint64(k[n:]), true
}

// unescape returns the key that was escaped. It returns its argument where
// nothing was, and else appends to scratch.
func unescape(scratch, escaped []byte) []byte {
	if bytes.IndexByte(escaped, 0) < 0 {
		return escaped
	}
	for {
		i := bytes.IndexByte(escaped, 0)
		if i < 0 {
			return append(scratch, escaped...)
		}
		scratch = append(scratch, escaped[:i+1]...)
		escaped = escaped[i+2:]
	}
}

func appendChangeKey(b []byte, revision uint64, sub uint32) []byte {
	b = binary.BigEndian.AppendUint64(append(b, spaceChange), revision)
	return binary.BigEndian.AppendUint32(b, sub)
}

func changeRevision(k []byte) uint64 { return binary.BigEndian.Uint64(k[1:]) }

func leaseKey(id kv.LeaseID) []byte { return append([]byte{spaceLease}, id[:]...) }

func numberKey(number int64) []byte {
	return binary.BigEndian.AppendUint64([]byte{spaceNumber}, uint64(number))
}

func attachedPrefix(id kv.LeaseID) []byte { return append([]byte{spaceAttached}, id[:]...) }

func attachedKey(id kv.LeaseID, key []byte) []byte { return append(attachedPrefix(id), key...) }

// queueKey is the place of a lease in the queue of deadlines.
func queueKey(deadline uint64, id kv.LeaseID) []byte {
	return append(binary.BigEndian.AppendUint64([]byte{spaceDeadline}, deadline), id[:]...)
}

// idempotencyScope is principal and key without a separator that either could
// contain.
func idempotencyScope(principal, key string) []byte {
	return append(append([]byte{byte(len(principal))}, principal...), key...)
}

func idempotencyKey(scope []byte) []byte { return append([]byte{spaceIdempotency}, scope...) }

func expiryKey(expires uint64, scope []byte) []byte {
	return append(binary.BigEndian.AppendUint64([]byte{spaceExpiry}, expires), scope...)
}

func entriesKey(incarnation ulid.ULID) []byte {
	return append([]byte{spaceEntries}, incarnation[:]...)
}

func memberKey(replica uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{spaceMember}, replica)
}

func membershipKey(replica uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{spaceMembership}, replica)
}

func alarmKey(replica uint64, t kv.AlarmType) []byte {
	return append(binary.BigEndian.AppendUint64([]byte{spaceAlarm}, replica), byte(t))
}

// spaceBounds are the bounds of a whole space.
func spaceBounds(space byte) *pebble.IterOptions {
	return &pebble.IterOptions{LowerBound: []byte{space}, UpperBound: []byte{space + 1}}
}

// comparer orders keys as bytes and tells Pebble which part of a version key is
// the same for all versions, so that filters and NextPrefix work by key. Its
// name is part of the format.
var comparer = func() *pebble.Comparer {
	c := *pebble.DefaultComparer
	c.Name = "cairn.versions.1"
	c.Split = versionPrefixLen
	// After a terminated prefix comes the key that ends in a higher byte: what
	// begins with the prefix and goes on belongs to the prefix.
	c.ImmediateSuccessor = func(dst, prefix []byte) []byte {
		dst = append(dst, prefix...)
		n := len(prefix)
		if n >= 3 && prefix[0] == spaceVersion && prefix[n-2] == 0 && prefix[n-1] == terminator {
			dst[len(dst)-1]++
			return dst
		}
		return append(dst, 0)
	}
	return &c
}()
