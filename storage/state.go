package storage

import (
	"encoding/binary"

	"github.com/cairnkv/cairn/kv"
)

// state is the replicated scalars. It is written with every batch and is the
// only record that says how far the log was applied.
type state struct {
	// applied is the index of the last Raft entry that was applied whole.
	applied uint64
	// partialIndex, when not 0, is an entry of which the first partialDone
	// commands were applied: a batch may be cut inside an entry.
	partialIndex, partialDone uint64

	// revision is 1 in an empty store. compact is where history begins.
	revision, compact uint64
	// clock is the replicated clock in milliseconds, clockIndex the entry of
	// the last step that counted.
	clock, clockIndex uint64
	// lastTime is the newest wall time that a command carried.
	lastTime int64

	keys, leases, idempotent uint64
	// noSpace and corrupt count the members that have the alarm.
	noSpace, corrupt uint64
	clusterVersion   uint64

	// restoring is the number of the part of a backup that is applied next, 0
	// while the store is not being restored.
	restoring uint64
}

func emptyState() state { return state{revision: 1} }

func (s *state) fields() []*uint64 {
	return []*uint64{
		&s.applied, &s.partialIndex, &s.partialDone, &s.revision, &s.compact, &s.clock, &s.clockIndex,
		&s.keys, &s.leases, &s.idempotent, &s.noSpace, &s.corrupt, &s.clusterVersion,
		&s.restoring,
	}
}

func appendState(b []byte, s *state) []byte {
	for _, f := range s.fields() {
		b = binary.AppendUvarint(b, *f)
	}
	return binary.AppendVarint(b, s.lastTime)
}

func decodeState(b []byte) (state, error) {
	var s state
	r := reader{b: b}
	for _, f := range s.fields() {
		*f = r.uvarint()
	}
	s.lastTime = r.varint()
	if r.bad || len(r.b) != 0 || s.revision == 0 {
		return state{}, corrupt(keyState, "state")
	}
	return s, nil
}

// window remembers which Raft entries of one incarnation of a proposer were
// applied, so that an entry proposed again is not applied again. A proposer
// numbers its entries from 1 and proposes again only what is within the window.
type window struct {
	highest   uint64
	lastIndex uint64
	seen      [WindowEntries / 64]uint64 // bit i%WindowEntries for entry i
}

const (
	// WindowEntries is how many of the newest numbers of a proposer are told apart:
	// an entry that is so far behind the newest one is taken for a repetition.
	WindowEntries = 1024
	// windowKeepEntries is for how many log entries an incarnation that
	// proposes nothing more is remembered.
	windowKeepEntries = 1_000_000
)

// admit reports whether entry seq is new, and remembers it.
func (w *window) admit(seq, index uint64) bool {
	w.lastIndex = index
	bit := func(n uint64) (*uint64, uint64) {
		n %= WindowEntries
		return &w.seen[n/64], 1 << (n % 64)
	}
	if seq > w.highest {
		if seq-w.highest >= WindowEntries {
			clear(w.seen[:])
		} else {
			for n := w.highest + 1; n < seq; n++ {
				word, mask := bit(n)
				*word &^= mask
			}
		}
		w.highest = seq
	} else {
		if w.highest-seq >= WindowEntries {
			return false // too old to know: never apply what may be a repetition
		}
		if word, mask := bit(seq); *word&mask != 0 {
			return false
		}
	}
	word, mask := bit(seq)
	*word |= mask
	return true
}

func appendWindow(b []byte, w *window) []byte {
	b = binary.AppendUvarint(b, w.highest)
	b = binary.AppendUvarint(b, w.lastIndex)
	for _, word := range w.seen {
		b = binary.LittleEndian.AppendUint64(b, word)
	}
	return b
}

func decodeWindow(key, b []byte) (*window, error) {
	w := &window{}
	r := reader{b: b}
	w.highest = r.uvarint()
	w.lastIndex = r.uvarint()
	for i := range w.seen {
		if s := r.take(8); s != nil {
			w.seen[i] = binary.LittleEndian.Uint64(s)
		}
	}
	if r.bad || len(r.b) != 0 {
		return nil, corrupt(key, "entry window")
	}
	return w, nil
}

// lease is the record of a lease.
type lease struct {
	number   int64
	ttl      int64 // milliseconds
	deadline uint64
	// queued is the deadline under which the lease is found when the clock has
	// reached it: the lease's own, or one that it had before renewals.
	queued     uint64
	generation uint64
	// keys and bytes are the number and the length of the attached keys.
	keys, bytes uint64
	// own says that the lease was made by a put with a time to live and ends
	// with its one key.
	own bool
}

func appendLease(b []byte, l *lease) []byte {
	b = binary.AppendVarint(b, l.number)
	b = binary.AppendVarint(b, l.ttl)
	b = binary.AppendUvarint(b, l.deadline)
	b = binary.AppendUvarint(b, l.generation)
	b = binary.AppendUvarint(b, l.keys)
	b = binary.AppendUvarint(b, l.bytes)
	var flags byte
	if l.own {
		flags |= leaseOwn
	}
	if l.queued == l.deadline {
		return append(b, flags)
	}
	return binary.AppendUvarint(append(b, flags|leaseQueuedBefore), l.deadline-l.queued)
}

const (
	leaseOwn = 1 << iota
	leaseQueuedBefore
	leaseFlagsEnd
)

func decodeLease(key, b []byte) (*lease, error) {
	r := reader{b: b}
	l := &lease{number: r.varint(), ttl: r.varint(), deadline: r.uvarint(), generation: r.uvarint(), keys: r.uvarint(), bytes: r.uvarint()}
	flags := r.byte()
	l.own = flags&leaseOwn != 0
	l.queued = l.deadline
	if flags&leaseQueuedBefore != 0 {
		l.queued -= r.uvarint()
	}
	if flags >= leaseFlagsEnd || l.queued > l.deadline || (flags&leaseQueuedBefore != 0) != (l.queued != l.deadline) {
		r.bad = true
	}
	if r.bad || len(r.b) != 0 {
		return nil, corrupt(key, "lease")
	}
	return l, nil
}

func appendMember(b []byte, m *kv.Member) []byte {
	return kv.AppendCommand(b, &kv.Command{Kind: kv.KindMember, Member: *m})
}

func decodeMember(key, b []byte) (kv.Member, error) {
	c, err := kv.DecodeCommand(b)
	if err != nil || c.Kind != kv.KindMember {
		return kv.Member{}, corrupt(key, "member")
	}
	return c.Member, nil
}
