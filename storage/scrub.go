package storage

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"slices"

	"github.com/cairnkv/cairn/kv"
	"github.com/cockroachdb/pebble/v2"
)

// A scrub compares what the members have stored, a part of it a step. A step
// begins with a command, so all members look at the same state; each adds its
// part up beside everything else, and says by a command what it found. The
// majority is right. Which part comes next is what the majority says, too: all
// that decides is replicated.
//
// What is compared is what any read, at any revision, could see, and what
// applying looks at. What a sweep has removed here and not yet there is left
// out, and so are the numbers of the last entry and of the scrub itself.

// NoMember is the replica of a corrupt alarm that says: the members differ, and
// no majority is of one mind.
const NoMember = 0

// Scrub is this member's part in one step.
type Scrub struct {
	Step    uint64
	Members []uint64

	from  []byte
	bytes uint64
	view  *View
}

// Close releases what the step pins.
func (s *Scrub) Close() { s.view.Close() }

// scrubStep is the replicated record of the newest step.
type scrubStep struct {
	number  uint64
	from    []byte
	members []uint64
	finds   []kv.Scrubbed
}

func appendScrubStep(b []byte, s *scrubStep) []byte {
	b = binary.AppendUvarint(b, s.number)
	b = binary.AppendUvarint(b, uint64(len(s.from)))
	b = append(b, s.from...)
	b = binary.AppendUvarint(b, uint64(len(s.members)))
	for _, m := range s.members {
		b = binary.AppendUvarint(b, m)
	}
	b = binary.AppendUvarint(b, uint64(len(s.finds)))
	for i := range s.finds {
		f := &s.finds[i]
		b = binary.AppendUvarint(b, f.Replica)
		b = append(b, f.Sum[:]...)
		b = binary.AppendUvarint(b, uint64(len(f.Next)))
		b = append(b, f.Next...)
	}
	return b
}

func decodeScrubStep(b []byte) (*scrubStep, error) {
	r := reader{b: b}
	s := &scrubStep{number: r.uvarint()}
	s.from = r.take(r.uvarint())
	for n := r.uvarint(); n > 0 && !r.bad; n-- {
		s.members = append(s.members, r.uvarint())
	}
	for n := r.uvarint(); n > 0 && !r.bad; n-- {
		f := kv.Scrubbed{Step: s.number, Replica: r.uvarint()}
		copy(f.Sum[:], r.take(sha256.Size))
		f.Next = r.take(r.uvarint())
		s.finds = append(s.finds, f)
	}
	if r.bad || len(r.b) != 0 || s.number == 0 {
		return nil, corrupt(keyScrub, "scrub")
	}
	return s, nil
}

func (b *Batch) scrubStep() (*scrubStep, error) {
	value, err := b.get(keyScrub)
	if value == nil || err != nil {
		return &scrubStep{}, err
	}
	return decodeScrubStep(value)
}

// agreed returns the find of the majority, or nil.
func (s *scrubStep) agreed() *kv.Scrubbed {
	for i := range s.finds {
		n := 0
		for j := range s.finds {
			if sameFind(&s.finds[i], &s.finds[j]) {
				n++
			}
		}
		if n > len(s.members)/2 {
			return &s.finds[i]
		}
	}
	return nil
}

func sameFind(a, b *kv.Scrubbed) bool { return a.Sum == b.Sum && bytes.Equal(a.Next, b.Next) }

// applyScrub begins a step. The batch is committed up to here, so that what is
// pinned is the state before this command.
func (b *Batch) applyScrub(c *kv.Scrub) (*kv.Result, error) {
	last, err := b.scrubStep()
	if err != nil {
		return nil, err
	}
	next := scrubStep{number: last.number + 1, from: last.from, members: c.Members}
	if right := last.agreed(); right != nil {
		next.from = right.Next
	}
	must(b.wb.Set(keyScrub, appendScrubStep(nil, &next), nil))
	b.dropScrub()
	b.h.refs.Add(1) // the batch has the handle, so it can't be gone
	b.scrub = &Scrub{
		Step: next.number, Members: slices.Clone(c.Members), from: bytes.Clone(next.from), bytes: c.Bytes,
		view: &View{h: b.h, snap: b.h.db.NewSnapshot(), st: b.st},
	}
	return b.done(), nil
}

func (b *Batch) dropScrub() {
	if b.scrub != nil {
		b.scrub.Close()
		b.scrub = nil
	}
}

// applyScrubbed notes what a member found, and raises the alarm of each member
// that differs from the majority.
func (b *Batch) applyScrubbed(c *kv.Scrubbed) (*kv.Result, error) {
	s, err := b.scrubStep()
	if err != nil {
		return nil, err
	}
	said := func(f kv.Scrubbed) bool { return f.Replica == c.Replica }
	if s.number != c.Step || !slices.Contains(s.members, c.Replica) || slices.ContainsFunc(s.finds, said) {
		return b.done(), nil
	}
	s.finds = append(s.finds, *c)
	must(b.wb.Set(keyScrub, appendScrubStep(nil, s), nil))
	right := s.agreed()
	if right == nil {
		if len(s.finds) < len(s.members) {
			return b.done(), nil
		}
		return b.applyAlarm(kv.Alarm{Replica: NoMember, Type: kv.AlarmCorrupt, Active: true})
	}
	for i := range s.finds {
		if sameFind(right, &s.finds[i]) {
			continue
		}
		if _, err := b.applyAlarm(kv.Alarm{Replica: s.finds[i].Replica, Type: kv.AlarmCorrupt, Active: true}); err != nil {
			return nil, err
		}
	}
	return b.done(), nil
}

// ScrubVerdict returns what the majority found in a step, or nil as long as it has not
// said so. over says that another step has begun, so that it is not known any more.
func (s *Store) ScrubVerdict(step uint64) (right *kv.Scrubbed, over bool, err error) {
	h, err := s.acquire()
	if err != nil {
		return nil, false, err
	}
	defer h.release()
	value, err := getCopy(h.db, keyScrub)
	if value == nil || err != nil {
		return nil, true, err
	}
	last, err := decodeScrubStep(value)
	if err != nil || last.number != step {
		return nil, true, err
	}
	return last.agreed(), false, nil
}

// SameScrub reports whether two finds of a step are of the same content.
func SameScrub(a, b *kv.Scrubbed) bool { return sameFind(a, b) }

// scrubRest is how many bytes are read between two calls of rest.
const scrubRest = 256 << 10

// Sum adds the part up. It calls rest again and again, which may wait, and ends
// with its error. The find of a member lacks only whose it is.
func (s *Scrub) Sum(rest func(bytes int) error) (kv.Scrubbed, error) {
	it, err := s.view.snap.NewIter(&pebble.IterOptions{LowerBound: s.from})
	if err != nil {
		return kv.Scrubbed{}, err
	}
	defer it.Close()
	a := adder{h: sha256.New(), st: &s.view.st}
	a.scalars()
	if err := a.begin(it, s.from); err != nil {
		return kv.Scrubbed{}, err
	}
	total, sinceRest := uint64(0), 0
	found := kv.Scrubbed{Step: s.Step}
	for ok := it.SeekGE(s.from); ok; ok = it.Next() {
		value, err := it.ValueAndErr()
		if err != nil {
			return found, err
		}
		size := len(it.Key()) + len(value)
		if sinceRest += size; sinceRest >= scrubRest {
			if err := rest(sinceRest); err != nil {
				return found, err
			}
			sinceRest = 0
		}
		if !a.counts(it.Key(), value) {
			continue
		}
		if total >= s.bytes {
			found.Next = bytes.Clone(it.Key())
			break
		}
		total += uint64(size)
		a.add(it.Key(), value)
	}
	if err := it.Error(); err != nil {
		return found, fmt.Errorf("storage: scrub: %w", err)
	}
	a.h.Sum(found.Sum[:0])
	return found, nil
}

// adder adds up the records that all members have.
type adder struct {
	h  hash.Hash
	st *state
	// Of the key whose versions are passing: its prefix, and that the version
	// which stands for all up to the compacted revision was there.
	prefix []byte
	based  bool
	lens   []byte
}

// scalars adds the replicated numbers that are no record of their own.
func (a *adder) scalars() {
	st := *a.st
	st.applied, st.partialIndex, st.partialDone = 0, 0, 0
	a.h.Write(appendState(nil, &st))
}

// begin finds out about the newer versions of the key in whose midst a part
// begins: the compacted revision may have passed them since the last step.
func (a *adder) begin(it *pebble.Iterator, from []byte) error {
	_, revision, ok := splitVersionKey(from)
	if len(from) == 0 || from[0] != spaceVersion || !ok || revision > a.st.compact {
		return nil
	}
	prefix := from[:versionPrefixLen(from)]
	it.SetBounds(prefix, nil)
	if it.SeekGE(appendInverted(bytes.Clone(prefix), a.st.compact)) && bytes.Compare(it.Key(), from) < 0 {
		a.prefix, a.based = bytes.Clone(prefix), true
	}
	it.SetBounds(from, nil)
	return it.Error()
}

// counts reports whether a record is one that all members have.
func (a *adder) counts(key, value []byte) bool {
	switch key[0] {
	case spaceState, spaceScrub:
		return false
	case spaceChange:
		return len(key) < 1+8 || changeRevision(key) > a.st.compact
	case spaceVersion:
		_, revision, ok := splitVersionKey(key)
		if !ok {
			return true // it has no business here, and makes the sum another one
		}
		if prefix := key[:versionPrefixLen(key)]; !bytes.Equal(prefix, a.prefix) {
			a.prefix, a.based = append(a.prefix[:0], prefix...), false
		}
		if revision > a.st.compact {
			return true
		}
		// The newest version up to the compacted revision stands for the rest. If
		// it is a deletion, the sweep removes that as well.
		first := !a.based
		a.based = true
		return first && !(len(value) > 0 && value[0] == recordTombstone)
	}
	return true
}

func (a *adder) add(key, value []byte) {
	a.lens = binary.AppendUvarint(a.lens[:0], uint64(len(key)))
	a.lens = binary.AppendUvarint(a.lens, uint64(len(value)))
	a.h.Write(a.lens)
	a.h.Write(key)
	a.h.Write(value)
}

// Corrupt returns what the alarms say of a replica: that its content differs
// from the majority's, and that there is no majority.
func (s *Store) Corrupt(replica uint64) (it, all bool, err error) {
	h, err := s.acquire()
	if err != nil {
		return false, false, err
	}
	defer h.release()
	if h.published.Load().corrupt == 0 {
		return false, false, nil
	}
	alarms, err := readAlarms(h.db)
	for _, a := range alarms {
		if a.Type == kv.AlarmCorrupt {
			it = it || a.Replica == replica
			all = all || a.Replica == NoMember
		}
	}
	return it, all, err
}
