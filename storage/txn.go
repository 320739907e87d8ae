package storage

import (
	"bytes"
	"encoding/binary"
	"math"
	"slices"
	"strconv"

	"github.com/cairnkv/cairn/kv"
)

const noSpaceDetail = "a member's storage quota is used up; delete or compact, then try again"

// txnRun is one transaction while it is applied. Its effects are in the batch's
// memory from the moment they happen, so that later operations see them, and
// are written when all of it has succeeded; undo takes them back.
type txnRun struct {
	b        *Batch
	revision uint64 // the one that it uses if it changes something
	changes  []pendingChange
	undos    []undo

	keysVisited, bytesWritten, resultBytes int
}

// undo takes back one step: it gives a key, or a lease, the state before it.
type undo struct {
	key       []byte
	before    *version // nil: the batch had not changed the key
	lease     kv.LeaseID
	now, then *lease
}

// pendingChange is a change of one key that is not written yet.
type pendingChange struct {
	key      []byte
	old, now version
	reason   kv.Reason
}

// newTxnRun returns the batch's one run, emptied.
func (b *Batch) newTxnRun() *txnRun {
	b.run = txnRun{b: b, revision: b.st.revision + 1, changes: b.run.changes[:0], undos: b.run.undos[:0]}
	return &b.run
}

func (b *Batch) applyTxn(txn *kv.Txn) (*kv.Result, error) {
	t := b.newTxnRun()
	result := &kv.Result{}
	err := t.run(txn, result)
	if err != nil {
		t.undo()
		if r, ok := err.(*refusal); ok {
			return b.refused(r), nil
		}
		return nil, err
	}
	t.commit()
	result.Changed = len(t.changes) > 0
	t.stamp(result)
	return result, nil
}

// stamp gives the results of all levels the revisions after the transaction.
func (t *txnRun) stamp(r *kv.Result) {
	r.Revision, r.CompactRevision = t.b.st.revision, t.b.st.compact
	r.Changed = len(t.changes) > 0
	for i := range r.Ops {
		if l := r.Ops[i].List; l != nil && l.Revision == 0 {
			l.Revision = t.b.st.revision
		}
		if nested := r.Ops[i].Txn; nested != nil {
			t.stamp(nested)
		}
	}
}

func (t *txnRun) run(txn *kv.Txn, result *kv.Result) error {
	result.Succeeded = true
	for i := range txn.If {
		holds, err := t.compare(&txn.If[i])
		if err != nil {
			return err
		}
		if !holds {
			result.Succeeded = false
			break
		}
	}
	branch := txn.Then
	if !result.Succeeded {
		branch = txn.Else
	}
	if len(branch) == 0 {
		return nil
	}
	result.Ops = make([]kv.OpResult, len(branch))
	t.changes, t.undos = slices.Grow(t.changes, len(branch)), slices.Grow(t.undos, len(branch))
	for i := range branch {
		op, r := &branch[i], &result.Ops[i]
		r.Type = op.Type
		var err error
		switch op.Type {
		case kv.OpPut:
			err = t.put(op, r)
		case kv.OpIncrement:
			err = t.increment(op, r)
		case kv.OpDelete:
			err = t.delete(op, r)
		case kv.OpGet:
			err = t.get(op, r)
		case kv.OpTxn:
			r.Txn = &kv.Result{}
			err = t.run(op.Txn, r.Txn)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// visit counts keys that were looked at, spend bytes of the answer.
func (t *txnRun) visit(n int) error {
	if t.keysVisited += n; t.keysVisited > kv.BudgetKeysVisited {
		return refuse(kv.TransactionTooLarge, "the transaction looks at more than %d keys", kv.BudgetKeysVisited)
	}
	return nil
}

// pass counts a key that a read of the past passes, if all members have what keeps it
// from being shown. What was deleted before history begins is on some of them still.
func (t *txnRun) pass(revision uint64, keys int) error {
	if revision <= t.b.st.compact {
		return nil
	}
	return t.visit(keys)
}

func (t *txnRun) spend(n int) error {
	if t.resultBytes += n; t.resultBytes > kv.BudgetResultBytes {
		return refuse(kv.TransactionTooLarge, "the answer of the transaction is larger than %d bytes", kv.BudgetResultBytes)
	}
	return nil
}

func (t *txnRun) write(n int) error {
	if len(t.changes) >= kv.BudgetKeysChanged {
		return tooManyChanges()
	}
	if t.bytesWritten += n; t.bytesWritten > kv.BudgetBytesWritten {
		return refuse(kv.TransactionTooLarge, "the transaction writes more than %d bytes", kv.BudgetBytesWritten)
	}
	return nil
}

func tooManyChanges() error {
	return refuse(kv.TransactionTooLarge, "the transaction changes more than %d keys", kv.BudgetKeysChanged)
}

// compare evaluates a condition over all keys of its range.
func (t *txnRun) compare(c *kv.Compare) (bool, error) {
	if key, single := c.Range.Single(); single {
		if err := t.visit(1); err != nil {
			return false, err
		}
		v, err := t.b.lookup(key)
		if err != nil {
			return false, err
		}
		if c.Target == kv.TargetValue {
			if v, err = t.b.withPayload(key, v); err != nil {
				return false, err
			}
		}
		return holds(c, &v), nil
	}
	values := c.Target == kv.TargetValue
	cur, err := t.cursor(c.Range, values)
	if err != nil {
		return false, err
	}
	defer cur.close()
	seen := false
	for ok := cur.first(); ok; ok = cur.next() {
		n := 1
		if values {
			n = keysRead(cur.version())
		}
		if err := t.visit(n); err != nil {
			return false, err
		}
		seen = true
		if !holds(c, cur.version()) {
			return false, nil
		}
	}
	if err := cur.err(); err != nil {
		return false, err
	}
	if !seen {
		return holds(c, &version{}), nil
	}
	return true, nil
}

// holds evaluates a condition on one version. A key that does not exist
// compares as zero, and its value as false whatever the operator.
func holds(c *kv.Compare, v *version) bool {
	var order int
	number := func(n uint64) {
		switch {
		case n < c.Number:
			order = -1
		case n > c.Number:
			order = 1
		}
	}
	var zero meta
	m := &v.meta
	if !v.exists {
		m = &zero
	}
	switch c.Target {
	case kv.TargetValue:
		if !v.exists {
			return false
		}
		order = bytes.Compare(v.payload[v.contentTypeLen:], c.Bytes)
	case kv.TargetVers:
		number(m.version)
	case kv.TargetCreate:
		number(m.create)
	case kv.TargetMod:
		number(m.mod)
	case kv.TargetLease:
		order = bytes.Compare(m.lease[:], c.Lease[:])
	}
	switch c.Operator {
	case kv.Equal:
		return order == 0
	case kv.NotEqual:
		return order != 0
	case kv.Greater:
		return order > 0
	case kv.Less:
		return order < 0
	case kv.GreaterOrEqual:
		return order >= 0
	case kv.LessOrEqual:
		return order <= 0
	}
	return false
}

func (t *txnRun) put(op *kv.Op, r *kv.OpResult) error {
	b := t.b
	if err := t.visit(1); err != nil {
		return err
	}
	key := op.Key
	if op.Sequence {
		key = kv.SequenceKey(key, t.revision)
	}
	old, err := b.lookup(key)
	if err != nil {
		return err
	}
	if op.Sequence && old.exists {
		return refuse(kv.KeyExists, "key %.100q exists already: somebody put it by name", key)
	}
	if (op.IgnoreValue || op.IgnoreLease) && !old.exists {
		return refuse(kv.KeyNotFound, "key %.100q does not exist, so its value or lease can't be kept", key)
	}
	if op.Prev || op.IgnoreValue {
		if old, err = b.withPayload(key, old); err != nil {
			return err
		}
	}
	if op.Prev && old.exists {
		if r.Prev, err = t.prev(key, &old); err != nil {
			return err
		}
	}
	now := t.next(&old)
	if op.IgnoreValue {
		now.payload, now.contentTypeLen, now.valueLen = old.payload, old.contentTypeLen, old.valueLen
	} else {
		now.setPayload(op.ContentType, op.Value)
	}
	ownTTL := op.OwnTTLMillis
	now.lease = op.Lease
	if op.IgnoreLease {
		now.lease, ownTTL = old.lease, 0
	}
	if err := t.set(key, old, now, ownTTL); err != nil {
		return err
	}
	r.Created, r.Version, r.Lease = !old.exists, now.version, now.lease
	return nil
}

// increment adds to a decimal number. The key keeps its lease and its content
// type; a missing key counts as 0.
func (t *txnRun) increment(op *kv.Op, r *kv.OpResult) error {
	if err := t.visit(1); err != nil {
		return err
	}
	old, err := t.b.lookup(op.Key)
	if err != nil {
		return err
	}
	if old, err = t.b.withPayload(op.Key, old); err != nil {
		return err
	}
	var n int64
	contentType := "text/plain"
	if old.exists {
		value := old.payload[old.contentTypeLen:]
		contentType = string(old.payload[:old.contentTypeLen])
		if n, err = parseNumber(value); err != nil {
			return refuse(kv.NotANumber, "the value of %.100q is not a decimal 64-bit integer", op.Key)
		}
	}
	sum := n + op.By
	if (op.By > 0) != (sum > n) && op.By != 0 {
		return refuse(kv.NotANumber, "adding %d to %d leaves the range of a 64-bit integer", op.By, n)
	}
	now := t.next(&old)
	now.setPayload(contentType, strconv.AppendInt(nil, sum, 10))
	now.lease = old.lease
	if err := t.set(op.Key, old, now, 0); err != nil {
		return err
	}
	r.Created, r.Version, r.Lease, r.Value = !old.exists, now.version, now.lease, sum
	return nil
}

// parseNumber accepts what AppendInt writes, and no other spelling of it.
func parseNumber(value []byte) (int64, error) {
	if len(value) > len(strconv.Itoa(math.MinInt64)) {
		return 0, strconv.ErrSyntax
	}
	n, err := strconv.ParseInt(string(value), 10, 64)
	if err == nil && strconv.FormatInt(n, 10) != string(value) {
		err = strconv.ErrSyntax
	}
	return n, err
}

// next is the version that follows old, without its payload and its lease.
func (t *txnRun) next(old *version) version {
	now := version{exists: true, meta: meta{
		create: t.revision, mod: t.revision, version: 1, modifiedAt: t.b.st.lastTime,
	}}
	if old.exists {
		now.create, now.version = old.create, old.version+1
	}
	return now
}

// setPayload aliases value where it can: a version that is not committed lives
// no longer than the command that it came with.
func (v *version) setPayload(contentType string, value []byte) {
	v.contentTypeLen, v.valueLen = len(contentType), len(value)
	if contentType == "" && value != nil {
		v.payload = value
		return
	}
	v.payload = make([]byte, 0, len(contentType)+len(value))
	v.payload = append(append(v.payload, contentType...), value...)
}

// set puts now in the place of old.
func (t *txnRun) set(key []byte, old, now version, ownTTL int64) error {
	b := t.b
	if b.st.noSpace > 0 {
		return refuse(kv.NoSpace, noSpaceDetail)
	}
	if t.changedAlready(&old) {
		return refuse(kv.DuplicateKey, "key %.100q is written twice by this transaction", key)
	}
	if err := t.write(len(key) + len(now.payload)); err != nil {
		return err
	}
	if err := t.moveLease(key, &old, &now, ownTTL); err != nil {
		return err
	}
	t.record(key, old, now, 0)
	return nil
}

// remove deletes a key that exists.
func (t *txnRun) remove(key []byte, old version, reason kv.Reason) error {
	if t.changedAlready(&old) {
		return refuse(kv.DuplicateKey, "key %.100q is put and deleted by this transaction", key)
	}
	if err := t.write(len(key)); err != nil {
		return err
	}
	gone := version{deletedAt: t.revision}
	if err := t.moveLease(key, &old, &gone, 0); err != nil {
		return err
	}
	t.record(key, old, gone, reason)
	return nil
}

func (t *txnRun) changedAlready(v *version) bool {
	return v.mod == t.revision || v.deletedAt == t.revision
}

// moveLease detaches key from the lease that it had and attaches it to the one
// that it gets. The lease of a put with a time to live ends with its key.
func (t *txnRun) moveLease(key []byte, old, now *version, ownTTL int64) error {
	b := t.b
	if old.exists && old.hasLease() && old.lease != now.lease {
		from, err := b.findLease(old.lease)
		if err != nil {
			return err
		}
		if from == nil {
			return corrupt(leaseKey(old.lease), "a key's lease is missing")
		}
		if from.own {
			t.setLease(old.lease, from, nil)
		} else {
			rest := *from
			rest.keys--
			rest.bytes -= uint64(len(key))
			t.setLease(old.lease, from, &rest)
		}
	}
	if !now.exists || !now.hasLease() || old.exists && old.lease == now.lease && ownTTL <= 0 {
		return nil
	}
	to, err := b.findLease(now.lease)
	if err != nil {
		return err
	}
	if ownTTL > 0 {
		if to != nil {
			return refuse(kv.LeaseExists, "a lease with this id exists")
		}
		number, err := b.freeNumber(now.lease)
		if err != nil {
			return err
		}
		deadline := b.deadlineAfter(ownTTL)
		t.setLease(now.lease, nil, &lease{
			number: number, ttl: ownTTL, deadline: deadline, queued: deadline, own: true, keys: 1, bytes: uint64(len(key)),
		})
		return nil
	}
	if to == nil || to.own {
		return refuse(kv.LeaseNotFound, "there is no lease %s that a key can be attached to", now.lease)
	}
	more := *to
	more.keys++
	more.bytes += uint64(len(key))
	if more.keys > kv.BudgetKeysChanged || more.bytes > kv.BudgetBytesWritten {
		return refuse(kv.TransactionTooLarge, "a lease holds at most %d keys of %d bytes together, which one transaction can delete",
			kv.BudgetKeysChanged, kv.BudgetBytesWritten)
	}
	t.setLease(now.lease, to, &more)
	return nil
}

func (t *txnRun) setLease(id kv.LeaseID, old, now *lease) {
	t.b.setLease(id, old, now)
	t.undos = append(t.undos, undo{lease: id, now: now, then: old})
}

// record makes a change visible to what follows.
func (t *txnRun) record(key []byte, old, now version, reason kv.Reason) {
	keys := t.b.keys
	before := keys[string(key)]
	t.undos = append(t.undos, undo{key: key, before: before})
	v := now
	if old.exists {
		v.replaced = uint32(old.size())
		t.b.replaced += old.size()
	}
	k := string(key)
	keys[k] = &v
	if before == nil || before.fetched {
		t.b.pending.added = append(t.b.pending.added, k)
	}
	t.changes = append(t.changes, pendingChange{key: key, old: old, now: now, reason: reason})
}

func (t *txnRun) undo() {
	t.b.pending.undone = t.b.pending.undone || len(t.undos) > 0
	for i := len(t.undos) - 1; i >= 0; i-- {
		switch u := &t.undos[i]; {
		case u.key == nil:
			t.b.setLease(u.lease, u.now, u.then)
		case u.before == nil:
			delete(t.b.keys, string(u.key))
		default:
			t.b.keys[string(u.key)] = u.before
		}
	}
}

// delete deletes the keys of a range.
func (t *txnRun) delete(op *kv.Op, r *kv.OpResult) error {
	if key, single := op.Range.Single(); single {
		if err := t.visit(1); err != nil {
			return err
		}
		v, err := t.b.lookup(key)
		if err != nil || !v.exists {
			return err
		}
		return t.deleteOne(key, v, op.Prev, r)
	}
	// First the keys, then the deletes: the cursor reads what record changes.
	type found struct {
		key []byte
		v   version
	}
	var doomed []found
	cur, err := t.cursor(op.Range, false)
	if err != nil {
		return err
	}
	for ok := cur.first(); ok && err == nil; ok = cur.next() {
		if len(doomed) >= kv.BudgetKeysChanged {
			err = tooManyChanges()
			break
		}
		doomed = append(doomed, found{bytes.Clone(cur.key()), *cur.version()})
		err = t.visit(1)
	}
	if err == nil {
		err = cur.err()
	}
	cur.close()
	for i := 0; i < len(doomed) && err == nil; i++ {
		err = t.deleteOne(doomed[i].key, doomed[i].v, op.Prev, r)
	}
	return err
}

func (t *txnRun) deleteOne(key []byte, v version, prev bool, r *kv.OpResult) error {
	if prev {
		full, err := t.b.withPayload(key, v)
		if err != nil {
			return err
		}
		entries, err := t.prev(key, &full)
		if err != nil {
			return err
		}
		r.Prev = append(r.Prev, entries...)
	}
	r.Deleted++
	return t.remove(key, v, kv.ReasonDeleted)
}

// prev returns what a put or a delete replaces, in memory of its own.
func (t *txnRun) prev(key []byte, v *version) ([]kv.Entry, error) {
	e := v.entry(key)
	if err := t.spend(kv.ResultEntryBytes + e.Size()); err != nil {
		return nil, err
	}
	return []kv.Entry{e.Clone()}, nil
}

// get reads inside the transaction and sees what the transaction did so far. A
// read of the past sees the database, which holds all of it: see
// needsCommitted.
func (t *txnRun) get(op *kv.Op, r *kv.OpResult) error {
	q := op.Query
	past := q.Revision != 0
	if past {
		if q.Revision > t.b.st.revision {
			return refuse(kv.FutureRevision, "revision %d does not exist yet", q.Revision)
		}
		if q.Revision < t.b.st.compact {
			return refuse(kv.Compacted, "revision %d is compacted", q.Revision)
		}
	}
	open := func(values bool) (cursor, error) {
		if past {
			return newPastCursor(t.b.h.db, q.Range, q.Revision, t.pass)
		}
		return t.cursor(q.Range, values)
	}
	list, err := runQuery(q, open, t.visit, t.spend)
	if err != nil {
		return err
	}
	list.Revision = q.Revision // 0: stamped when the transaction is done
	r.List = list
	return nil
}

// cursor reads the newest versions as this transaction sees them.
func (t *txnRun) cursor(r kv.Range, values bool) (cursor, error) {
	base, err := newNewestCursor(t.b.h.db, r, values)
	if err != nil {
		return nil, err
	}
	if pending := t.b.pendingIn(r); len(pending) > 0 {
		return newOverlayCursor(base, pending, t.b.keys, t.lookAtOwn(values)), nil
	}
	return base, nil
}

// lookAtOwn counts what a cursor comes across of this transaction's own changes beside the
// keys that are there: a key that was deleted, and, where values are read, the value that
// the change hides. What earlier ones have changed may be in this batch, or committed.
func (t *txnRun) lookAtOwn(values bool) func(*version) error {
	return func(v *version) error {
		if !t.changedAlready(v) {
			return nil
		}
		looked := 0
		if !v.exists {
			looked = 1
		}
		if values {
			looked += int(v.replaced) / kv.ReadBytesAKey
		}
		return t.visit(looked)
	}
}

// commit writes the changes to the batch, under the next revision.
func (t *txnRun) commit() {
	if len(t.changes) == 0 {
		return
	}
	t.b.st.revision = t.revision
	for i := range t.changes {
		t.b.emit(uint32(i), &t.changes[i])
	}
}

// emit writes one change: the newest version, the version, the change log and
// the lease's list of keys.
func (b *Batch) emit(sub uint32, c *pendingChange) {
	revision := b.st.revision
	if c.old.exists && c.old.hasLease() && c.old.lease != c.now.lease {
		must(b.wb.Delete(attachedKey(c.old.lease, c.key), nil))
	}
	prev := uint64(0)
	if c.old.exists {
		prev = c.old.mod
	}
	log := func(kind byte) []byte {
		v := append(b.val[:0], kind)
		v = binary.AppendUvarint(v, prev)
		v = binary.AppendUvarint(v, uint64(len(c.key)))
		return append(v, c.key...)
	}
	if !c.now.exists {
		t := tombstone{reason: c.reason, modifiedAt: b.st.lastTime}
		b.key = appendNewestKey(b.key[:0], c.key)
		must(b.newest.Delete(b.key, nil))
		b.key = appendVersionKey(b.key[:0], c.key, revision)
		must(b.versions.Set(b.key, appendTombstone(append(b.val[:0], recordTombstone), t), nil))
		b.key = appendChangeKey(b.key[:0], revision, sub)
		b.val = appendTombstone(log(recordTombstone), t)
		must(b.changes.Set(b.key, b.val, nil))
		b.st.keys--
		b.event(kv.EventDelete, c, prev)
		return
	}
	if c.now.hasLease() && !(c.old.exists && c.old.lease == c.now.lease) {
		must(b.wb.Set(attachedKey(c.now.lease, c.key), nil, nil))
	}
	b.key = appendNewestKey(b.key[:0], c.key)
	b.val = appendMeta(b.val[:0], &c.now.meta)
	must(b.newest.Set(b.key, b.val, nil))

	b.key = appendVersionKey(b.key[:0], c.key, revision)
	b.val = append(appendMeta(append(b.val[:0], recordPut), &c.now.meta), c.now.payload...)
	must(b.versions.Set(b.key, b.val, nil))

	b.key = appendChangeKey(b.key[:0], revision, sub)
	if len(c.now.payload) <= maxInlineChangeBytes {
		b.val = append(appendMeta(log(recordPut), &c.now.meta), c.now.payload...)
	} else {
		b.val = appendMeta(log(recordElsewhere), &c.now.meta)
	}
	must(b.changes.Set(b.key, b.val, nil))
	if !c.old.exists {
		b.st.keys++
	}
	b.event(kv.EventPut, c, prev)
}

// event remembers a change for whoever follows them.
func (b *Batch) event(t kv.EventType, c *pendingChange, prev uint64) {
	if !b.WantEvents {
		return
	}
	e := kv.Event{Type: t, Reason: c.reason, PrevRevision: prev}
	if c.now.exists {
		entry := c.now.entry(c.key)
		e.Entry = entry.Clone()
	} else {
		e.Entry = kv.Entry{Key: bytes.Clone(c.key), ModRevision: b.st.revision, ModifiedAt: b.st.lastTime}
	}
	if b.eventBytes += eventRoom + e.Entry.Size(); b.eventBytes > maxEventBytes {
		b.events, b.WantEvents = nil, false
		return
	}
	b.events = append(b.events, e)
}
