package storage

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/cairnkv/cairn/kv"
	"github.com/cockroachdb/pebble/v2"
)

// refusal ends a command whose effects are taken back.
type refusal struct {
	code   kv.Code
	detail string
}

func (r *refusal) Error() string { return r.detail }

func refuse(code kv.Code, format string, args ...any) error {
	return &refusal{code: code, detail: fmt.Sprintf(format, args...)}
}

// applyOnce applies c unless its idempotency key was used before.
func (b *Batch) applyOnce(c *kv.Command) (*kv.Result, error) {
	if c.Time > b.st.lastTime {
		b.st.lastTime = c.Time
	}
	if c.IdempotencyKey == "" {
		return b.dispatch(c)
	}
	scope := idempotencyScope(c.Principal, c.IdempotencyKey)
	record, err := b.remembered(scope)
	if err != nil {
		return nil, err
	}
	if record != nil && record.expires > b.st.clock {
		if record.fingerprint != c.Fingerprint {
			return b.refused(&refusal{kv.IdempotencyMismatch, "this idempotency key was used with another request"}), nil
		}
		result, err := kv.DecodeResult(record.answer)
		if err != nil {
			return nil, corrupt(idempotencyKey(scope), err.Error())
		}
		result.Replayed = true
		return result, nil
	}
	result, err := b.dispatch(c)
	if err != nil {
		return nil, err
	}
	switch result.Code {
	case kv.NoSpace, kv.AuthChanged, kv.Restoring:
		// Not an answer to the request but to the moment: it may succeed later.
	default:
		b.remember(scope, record, c.Fingerprint, result)
	}
	return result, nil
}

func (b *Batch) dispatch(c *kv.Command) (*kv.Result, error) {
	if b.st.restoring != 0 && !duringRestore(c.Kind) {
		return b.refused(&refusal{kv.Restoring, "the store is being filled from a backup"}), nil
	}
	switch c.Kind {
	case kv.KindRestore:
		return b.applyRestore(c.Restore)
	case kv.KindTxn:
		return b.applyTxn(c.Txn)
	case kv.KindCompact:
		return b.applyCompact(c.Compact), nil
	case kv.KindClock:
		return b.applyClock(c.Clock)
	case kv.KindLeaseGrant:
		return b.applyGrant(c.Lease)
	case kv.KindLeaseRenew:
		return b.applyRenew(c.Renew)
	case kv.KindLeaseRequeue:
		return b.applyRequeue(c.Renew)
	case kv.KindLeaseRevoke:
		return b.applyEnd(c.Lease, kv.ReasonRevoked)
	case kv.KindLeaseExpire:
		return b.applyEnd(c.Lease, kv.ReasonExpired)
	case kv.KindAlarm:
		return b.applyAlarm(c.Alarm)
	case kv.KindMember:
		return b.applyMember(c.Member)
	case kv.KindScrub:
		return b.applyScrub(&c.Scrub)
	case kv.KindScrubbed:
		return b.applyScrubbed(&c.Scrubbed)
	case kv.KindMembership:
		return b.applyMembership(&c.Membership, c.Time)
	}
	return nil, &kv.UnknownKindError{Kind: c.Kind}
}

func (b *Batch) done() *kv.Result {
	return &kv.Result{Revision: b.st.revision, CompactRevision: b.st.compact}
}

func (b *Batch) refused(r *refusal) *kv.Result {
	result := b.done()
	result.Code, result.Detail = r.code, r.detail
	return result
}

func (b *Batch) applyCompact(revision uint64) *kv.Result {
	switch {
	case revision > b.st.revision:
		return b.refused(&refusal{kv.FutureRevision, fmt.Sprintf("revision %d does not exist yet", revision)})
	case revision < b.st.compact:
		return b.refused(&refusal{kv.Compacted, fmt.Sprintf("history up to %d is compacted already", b.st.compact)})
	}
	result := b.done()
	result.Succeeded = revision > b.st.compact
	b.st.compact, result.CompactRevision = revision, revision
	return result
}

// applyClock advances the replicated clock, if the step follows the last one
// that counted, and forgets answers whose window is over.
func (b *Batch) applyClock(c kv.Clock) (*kv.Result, error) {
	if c.Prev != b.st.clockIndex || b.st.restoring != 0 {
		return b.done(), nil
	}
	b.st.clock += uint64(min(max(c.AdvanceMillis, 0), kv.MaxClockAdvanceMillis))
	b.st.clockIndex = b.index
	result := b.done()
	result.Succeeded, result.ClockIndex = true, b.index
	return result, b.forgetAnswers()
}

// maxForgottenPerStep bounds the answers that one step of the clock forgets, so
// that a step stays short; the next one goes on.
const maxForgottenPerStep = 5_000

// forgetAnswers begins where the last step ended: before that is nothing, for what is
// remembered from now on is forgotten later than the clock, but what was forgotten lies
// in the database for a while, and would be passed again by each step.
func (b *Batch) forgetAnswers() error {
	from, to := b.h.forgetFrom, expiryKey(b.st.clock+1, nil)
	if from == nil {
		from = []byte{spaceExpiry}
	}
	it, err := b.h.db.NewIter(&pebble.IterOptions{LowerBound: from, UpperBound: to})
	if err != nil {
		return err
	}
	defer it.Close()
	n := 0
	for it.First(); it.Valid() && n < maxForgottenPerStep; it.Next() {
		scope := it.Key()[1+8:]
		must(b.wb.Delete(it.Key(), nil))
		must(b.wb.Delete(idempotencyKey(scope), nil))
		b.idempotency[string(scope)] = nil
		b.st.idempotent--
		n++
	}
	b.h.forgetFrom = to
	if it.Valid() {
		b.h.forgetFrom = bytes.Clone(it.Key())
	}
	return it.Error()
}

func (b *Batch) applyAlarm(a kv.Alarm) (*kv.Result, error) {
	k := alarmKey(a.Replica, a.Type)
	have, err := b.get(k)
	if err != nil {
		return nil, err
	}
	count := &b.st.noSpace
	if a.Type == kv.AlarmCorrupt {
		count = &b.st.corrupt
	}
	if a.Active && have == nil && a.Replica != NoMember {
		// What a member that was removed meanwhile has said, or was found of it, would
		// stay for ever: there is nobody to end it.
		m, err := readMembership(b.h.db, a.Replica)
		if err != nil {
			return nil, err
		}
		if m != nil && m.State == kv.MemberRemoved {
			return b.done(), nil
		}
	}
	switch {
	case a.Active && have == nil:
		must(b.wb.Set(k, nil, nil))
		*count++
		b.alarms = true
	case !a.Active && have != nil:
		must(b.wb.Delete(k, nil))
		*count--
		b.alarms = true
	}
	return b.done(), nil
}

// applyMember records what a member says of itself, unless another member has
// its replica id. The cluster's version is the lowest of its members'.
func (b *Batch) applyMember(m kv.Member) (*kv.Result, error) {
	lowest := m.Version
	place, err := readMembership(b.h.db, m.Replica)
	if err != nil {
		return nil, err
	}
	if place != nil && (place.State == kv.MemberRemoved || place.ID != m.ID) {
		return b.refused(&refusal{kv.MemberExists, fmt.Sprintf("replica %d is member %s, which is %s", m.Replica, place.ID, place.State)}), nil
	}
	members, err := readMembers(b.h.db)
	if err != nil {
		return nil, err
	}
	for i := range members {
		if members[i].Replica == m.Replica && members[i].ID != m.ID {
			// Its directory was wiped, or cloned: it has forgotten, or does twice,
			// what the member promised under this replica id.
			return b.refused(&refusal{kv.MemberExists, fmt.Sprintf("replica %d is member %s", m.Replica, members[i].ID)}), nil
		}
		if members[i].Replica != m.Replica {
			lowest = min(lowest, members[i].Version)
		}
	}
	must(b.wb.Set(memberKey(m.Replica), appendMember(nil, &m), nil))
	b.st.clusterVersion = uint64(lowest)
	return b.done(), nil
}

func readMembers(r pebble.Reader) ([]kv.Member, error) {
	it, err := r.NewIter(spaceBounds(spaceMember))
	if err != nil {
		return nil, err
	}
	defer it.Close()
	var members []kv.Member
	for it.First(); it.Valid(); it.Next() {
		value, err := it.ValueAndErr()
		if err != nil {
			return nil, err
		}
		m, err := decodeMember(it.Key(), value)
		if err != nil {
			return nil, err
		}
		members = append(members, m)
	}
	return members, it.Error()
}

func readAlarms(r pebble.Reader) ([]kv.Alarm, error) {
	it, err := r.NewIter(spaceBounds(spaceAlarm))
	if err != nil {
		return nil, err
	}
	defer it.Close()
	var alarms []kv.Alarm
	for it.First(); it.Valid(); it.Next() {
		k := it.Key()
		if len(k) != 1+8+1 {
			return nil, corrupt(k, "alarm")
		}
		alarms = append(alarms, kv.Alarm{
			Replica: binary.BigEndian.Uint64(k[1:]), Type: kv.AlarmType(k[9]), Active: true,
		})
	}
	return alarms, it.Error()
}

// answerRecord is what an idempotency key remembers.
type answerRecord struct {
	expires     uint64
	fingerprint [16]byte
	answer      []byte
}

func (b *Batch) remembered(scope []byte) (*answerRecord, error) {
	value, ok := b.idempotency[string(scope)]
	if !ok {
		var err error
		if value, err = b.get(idempotencyKey(scope)); err != nil {
			return nil, err
		}
	}
	if value == nil {
		return nil, nil
	}
	r := reader{b: value}
	record := &answerRecord{expires: r.uvarint()}
	copy(record.fingerprint[:], r.take(16))
	record.answer = r.b
	if r.bad {
		return nil, corrupt(idempotencyKey(scope), "remembered answer")
	}
	return record, nil
}

// remember stores the answer in place of the one that is over, if there is one.
func (b *Batch) remember(scope []byte, old *answerRecord, fingerprint [16]byte, result *kv.Result) {
	if value, ok := b.idempotency[string(scope)]; ok && value == nil {
		old = nil // the command itself was the step of the clock that forgot it
	}
	if old != nil {
		must(b.wb.Delete(expiryKey(old.expires, scope), nil))
		b.st.idempotent--
	}
	expires := b.st.clock + kv.IdempotencyWindowMillis
	record := binary.AppendUvarint(nil, expires)
	record = append(record, fingerprint[:]...)
	record = append(record, rememberedAnswer(result)...)
	must(b.wb.Set(idempotencyKey(scope), record, nil))
	must(b.wb.Set(expiryKey(expires, scope), nil, nil))
	b.idempotency[string(scope)] = record
	b.st.idempotent++
}

// rememberedAnswer encodes what is remembered of an answer: all of it, or
// without its entries, or, for the many operations of a bulk write, the outcome
// and the revision alone.
func rememberedAnswer(result *kv.Result) []byte {
	answer := kv.AppendResult(nil, result)
	if len(answer) <= kv.MaxIdempotencyAnswerBytes {
		return answer
	}
	short := elide(result)
	if answer = kv.AppendResult(answer[:0], short); len(answer) <= kv.MaxIdempotencyAnswerBytes {
		return answer
	}
	short.Ops, short.Leases = nil, nil
	return kv.AppendResult(answer[:0], short)
}

// elide returns an answer without the entries in it, through all levels.
func elide(r *kv.Result) *kv.Result {
	short := *r
	short.Elided = true
	short.Ops = make([]kv.OpResult, len(r.Ops))
	for i := range r.Ops {
		o := r.Ops[i]
		o.Prev = nil
		if o.List != nil {
			o.List = &kv.List{Revision: o.List.Revision, More: o.List.More, Count: o.List.Count}
		}
		if o.Txn != nil {
			o.Txn = elide(o.Txn)
		}
		short.Ops[i] = o
	}
	return &short
}

// numberOf derives a lease's number from its id: 63 bits, not 0. The first try is the
// millisecond of its making and 15 bits of its randomness: new numbers then follow
// each other and lie side by side in the store, as new ids do, and looking one up is
// cheap. Ids are their clients' to choose, though, and may all have one millisecond,
// so the tries behind it are anywhere.
func numberOf(id kv.LeaseID, try uint32) int64 {
	if try > 0 {
		sum := sha256.Sum256(binary.BigEndian.AppendUint32(id[:], try))
		return max(int64(binary.BigEndian.Uint64(sum[:])>>1), 1)
	}
	const low = 15
	millis := binary.BigEndian.Uint64(id[:8]) >> 16
	return max(int64(millis<<low|uint64(binary.BigEndian.Uint16(id[14:]))&(1<<low-1)), 1)
}
