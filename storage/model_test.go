package storage

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strconv"

	"github.com/cairnkv/cairn/kv"
	"github.com/oklog/ulid/v2"
)

// model is the store as simple as it can be said: every key has the list of its
// versions, and every question is answered by walking all of them. It knows the
// semantics and nothing of batches, disks, caches or indexes.
type model struct {
	revision, compact uint64
	clock, clockIndex uint64
	lastTime          int64
	keys              map[string][]modelVersion // oldest first
	changes           []kv.Event
	leases            map[kv.LeaseID]modelLease
	answers           map[string]modelAnswer
	alarms            map[kv.Alarm]bool
	members           map[uint64]kv.Member
	proposers         map[kv.LeaseID]*modelProposer
}

// modelVersion is a version of a key; one without an entry is a deletion.
type modelVersion struct {
	revision uint64
	exists   bool
	reason   kv.Reason
	kv.Entry
}

type modelLease struct {
	number     int64
	ttl        int64
	deadline   uint64
	queued     uint64 // the deadline by which it is queued
	generation uint64
	own        bool
}

type modelAnswer struct {
	principal, key string
	print          [16]byte
	expires        uint64
	result         *kv.Result
}

type modelProposer struct {
	applied            map[uint64]bool
	highest, lastIndex uint64
}

func newModel() *model {
	return &model{
		revision: 1, keys: map[string][]modelVersion{}, leases: map[kv.LeaseID]modelLease{},
		answers: map[string]modelAnswer{}, alarms: map[kv.Alarm]bool{}, members: map[uint64]kv.Member{},
		proposers: map[kv.LeaseID]*modelProposer{},
	}
}

// admit decides whether an entry of a proposer is applied.
func (m *model) admit(index uint64, incarnation ulid.ULID, seq uint64) bool {
	p := m.proposers[incarnation]
	if p == nil {
		for id, other := range m.proposers {
			if index-other.lastIndex > 1_000_000 {
				delete(m.proposers, id)
			}
		}
		p = &modelProposer{applied: map[uint64]bool{}}
		m.proposers[incarnation] = p
	}
	p.lastIndex = index
	if p.applied[seq] || seq+1024 <= p.highest {
		return false
	}
	p.applied[seq] = true
	p.highest = max(p.highest, seq)
	return true
}

// apply applies a command.
func (m *model) apply(index uint64, c *kv.Command) *kv.Result {
	m.lastTime = max(m.lastTime, c.Time)
	if c.IdempotencyKey == "" {
		return m.dispatch(index, c)
	}
	scope := strconv.Quote(c.Principal) + strconv.Quote(c.IdempotencyKey)
	if have, ok := m.answers[scope]; ok && have.expires > m.clock {
		if have.print != c.Fingerprint {
			return m.refused(kv.IdempotencyMismatch)
		}
		again := *have.result
		again.Replayed = true
		return &again
	}
	r := m.dispatch(index, c)
	if r.Code == kv.NoSpace {
		return r
	}
	remembered := *r
	if len(kv.AppendResult(nil, r)) > kv.MaxIdempotencyAnswerBytes {
		withoutEntries(&remembered)
		if len(kv.AppendResult(nil, &remembered)) > kv.MaxIdempotencyAnswerBytes {
			remembered.Ops, remembered.Leases = nil, nil
		}
	}
	m.answers[scope] = modelAnswer{
		principal: c.Principal, key: c.IdempotencyKey, print: c.Fingerprint,
		expires: m.clock + kv.IdempotencyWindowMillis, result: &remembered,
	}
	return r
}

func withoutEntries(r *kv.Result) {
	r.Elided = true
	r.Ops = slices.Clone(r.Ops)
	for i := range r.Ops {
		o := &r.Ops[i]
		o.Prev = nil
		if o.List != nil {
			o.List = &kv.List{Revision: o.List.Revision, Count: o.List.Count, More: o.List.More}
		}
		if o.Txn != nil {
			nested := *o.Txn
			withoutEntries(&nested)
			o.Txn = &nested
		}
	}
}

func (m *model) dispatch(index uint64, c *kv.Command) *kv.Result {
	switch c.Kind {
	case kv.KindTxn:
		return m.transact(func(r *kv.Result) kv.Code { return m.txn(c.Txn, r) })
	case kv.KindCompact:
		switch {
		case c.Compact > m.revision:
			return m.refused(kv.FutureRevision)
		case c.Compact < m.compact:
			return m.refused(kv.Compacted)
		}
		moved := c.Compact > m.compact
		m.compact = c.Compact
		m.forget()
		r := m.done()
		r.Succeeded = moved
		return r
	case kv.KindClock:
		if c.Clock.Prev == m.clockIndex {
			m.clock += uint64(min(max(c.Clock.AdvanceMillis, 0), 500))
			m.clockIndex = index
			maps.DeleteFunc(m.answers, func(_ string, a modelAnswer) bool { return a.expires <= m.clock })
			r := m.done()
			r.Succeeded = true
			return r
		}
	case kv.KindLeaseGrant:
		return m.grant(c.Lease)
	case kv.KindLeaseRenew:
		return m.renew(c.Renew)
	case kv.KindLeaseRequeue:
		for _, id := range c.Renew {
			if l, exists := m.leases[id]; exists {
				l.queued = l.deadline
				m.leases[id] = l
			}
		}
	case kv.KindLeaseRevoke, kv.KindLeaseExpire:
		return m.end(c)
	case kv.KindAlarm:
		a := kv.Alarm{Replica: c.Alarm.Replica, Type: c.Alarm.Type, Active: true}
		delete(m.alarms, a)
		if c.Alarm.Active {
			m.alarms[a] = true
		}
	case kv.KindMember:
		if have, ok := m.members[c.Member.Replica]; ok && have.ID != c.Member.ID {
			return m.refused(kv.MemberExists)
		}
		m.members[c.Member.Replica] = c.Member
	}
	return m.done()
}

// forget drops what no read at or after the compacted revision can see.
func (m *model) forget() {
	for key, versions := range m.keys {
		now := m.at(key, m.compact)
		keep := slices.IndexFunc(versions, func(v modelVersion) bool { return v.revision >= now.revision })
		if versions = versions[keep:]; !now.exists && now.revision != 0 {
			versions = versions[1:]
		}
		m.keys[key] = slices.Clone(versions)
		if len(versions) == 0 {
			delete(m.keys, key)
		}
	}
	m.changes = slices.Clone(m.changesFrom(m.compact))
}

func (m *model) done() *kv.Result {
	return &kv.Result{Revision: m.revision, CompactRevision: m.compact}
}

func (m *model) refused(code kv.Code) *kv.Result {
	r := m.done()
	r.Code = code
	return r
}

// transact makes fn's changes one revision, or none of them.
func (m *model) transact(fn func(*kv.Result) kv.Code) *kv.Result {
	before := *m
	before.keys, before.leases = maps.Clone(m.keys), maps.Clone(m.leases)
	r := &kv.Result{}
	if code := fn(r); code != kv.OK {
		*m = before
		return m.refused(code)
	}
	changed := len(m.changes) > len(before.changes)
	if changed {
		m.revision++
	}
	var stamp func(*kv.Result)
	stamp = func(r *kv.Result) {
		r.Revision, r.CompactRevision, r.Changed = m.revision, m.compact, changed
		for i := range r.Ops {
			if l := r.Ops[i].List; l != nil && l.Revision == 0 {
				l.Revision = m.revision
			}
			if r.Ops[i].Txn != nil {
				stamp(r.Ops[i].Txn)
			}
		}
	}
	stamp(r)
	return r
}

func (m *model) txn(t *kv.Txn, r *kv.Result) kv.Code {
	r.Succeeded = true
	branch := t.Then
	for i := range t.If {
		if !m.holds(&t.If[i]) {
			r.Succeeded, branch = false, t.Else
			break
		}
	}
	for i := range branch {
		r.Ops = append(r.Ops, kv.OpResult{Type: branch[i].Type})
		if code := m.op(&branch[i], &r.Ops[i]); code != kv.OK {
			return code
		}
	}
	return kv.OK
}

func (m *model) op(op *kv.Op, r *kv.OpResult) kv.Code {
	switch op.Type {
	case kv.OpPut:
		return m.put(op, r)
	case kv.OpIncrement:
		return m.increment(op, r)
	case kv.OpDelete:
		for _, e := range m.entries(op.Range, m.revision+1) {
			if op.Prev {
				r.Prev = append(r.Prev, e)
			}
			r.Deleted++
			if code := m.remove(e, kv.ReasonDeleted); code != kv.OK {
				return code
			}
		}
	case kv.OpGet:
		q := op.Query
		revision := q.Revision
		switch {
		case revision == 0:
			revision = m.revision + 1
		case revision > m.revision:
			return kv.FutureRevision
		case revision < m.compact:
			return kv.Compacted
		}
		r.List = m.list(q, revision)
		r.List.Revision = q.Revision
	case kv.OpTxn:
		r.Txn = &kv.Result{}
		return m.txn(op.Txn, r.Txn)
	}
	return kv.OK
}

// at returns the version of key at a revision.
func (m *model) at(key string, revision uint64) (v modelVersion) {
	for _, candidate := range m.keys[key] {
		if candidate.revision <= revision {
			v = candidate
		}
	}
	return v
}

// entries returns the entries of a range at a revision, in order.
func (m *model) entries(r kv.Range, revision uint64) (entries []kv.Entry) {
	for key := range m.keys {
		if v := m.at(key, revision); v.exists && r.Contains([]byte(key)) {
			entries = append(entries, v.Entry)
		}
	}
	sort.Slice(entries, func(i, j int) bool { return bytes.Compare(entries[i].Key, entries[j].Key) < 0 })
	return entries
}

func (m *model) holds(c *kv.Compare) bool {
	entries := m.entries(c.Range, m.revision+1)
	if len(entries) == 0 {
		if c.Target == kv.TargetValue {
			return false
		}
		entries = []kv.Entry{{}}
	}
	for _, e := range entries {
		var order int
		switch c.Target {
		case kv.TargetValue:
			order = bytes.Compare(e.Value, c.Bytes)
		case kv.TargetLease:
			order = bytes.Compare(e.Lease[:], c.Lease[:])
		default:
			have := map[kv.Target]uint64{kv.TargetVers: e.Version, kv.TargetCreate: e.CreateRevision, kv.TargetMod: e.ModRevision}[c.Target]
			order = cmp.Compare(have, c.Number)
		}
		if !map[kv.Operator]bool{
			kv.Equal: order == 0, kv.NotEqual: order != 0, kv.Greater: order > 0,
			kv.Less: order < 0, kv.GreaterOrEqual: order >= 0, kv.LessOrEqual: order <= 0,
		}[c.Operator] {
			return false
		}
	}
	return true
}

func (m *model) put(op *kv.Op, r *kv.OpResult) kv.Code {
	key := op.Key
	if op.Sequence {
		key = fmt.Appendf(bytes.Clone(key), "%020d", m.revision+1)
	}
	old := m.at(string(key), m.revision+1)
	if op.Sequence && old.exists {
		return kv.KeyExists
	}
	if !old.exists && (op.IgnoreValue || op.IgnoreLease) {
		return kv.KeyNotFound
	}
	if op.Prev && old.exists {
		r.Prev = []kv.Entry{old.Entry}
	}
	e := kv.Entry{Key: key, Value: op.Value, ContentType: op.ContentType, Lease: op.Lease}
	if op.IgnoreValue {
		e.Value, e.ContentType = old.Value, old.ContentType
	}
	own := op.OwnTTLMillis
	if op.IgnoreLease {
		e.Lease, own = old.Lease, 0
	}
	return m.set(old, e, own, r)
}

func (m *model) increment(op *kv.Op, r *kv.OpResult) kv.Code {
	old := m.at(string(op.Key), m.revision+1)
	n, contentType := int64(0), "text/plain"
	if old.exists {
		var err error
		if n, err = strconv.ParseInt(string(old.Value), 10, 64); err != nil || strconv.FormatInt(n, 10) != string(old.Value) {
			return kv.NotANumber
		}
		contentType = old.ContentType
	}
	sum := n + op.By
	if op.By > 0 && sum < n || op.By < 0 && sum > n {
		return kv.NotANumber
	}
	r.Value = sum
	return m.set(old, kv.Entry{Key: op.Key, Value: strconv.AppendInt(nil, sum, 10), ContentType: contentType, Lease: old.Lease}, 0, r)
}

// set makes e the version after old.
func (m *model) set(old modelVersion, e kv.Entry, own int64, r *kv.OpResult) kv.Code {
	if m.full() {
		return kv.NoSpace
	}
	if old.revision == m.revision+1 {
		return kv.DuplicateKey
	}
	if code := m.moveLease(old.Entry, e, own); code != kv.OK {
		return code
	}
	e.CreateRevision, e.ModRevision, e.Version, e.ModifiedAt = m.revision+1, m.revision+1, 1, m.lastTime
	if old.exists {
		e.CreateRevision, e.Version = old.CreateRevision, old.Version+1
	}
	r.Created, r.Version, r.Lease = !old.exists, e.Version, e.Lease
	m.record(e, old.ModRevision, kv.EventPut, 0)
	return kv.OK
}

func (m *model) remove(e kv.Entry, reason kv.Reason) kv.Code {
	if e.ModRevision == m.revision+1 {
		return kv.DuplicateKey
	}
	m.moveLease(e, kv.Entry{}, 0)
	gone := kv.Entry{Key: e.Key, ModRevision: m.revision + 1, ModifiedAt: m.lastTime}
	m.record(gone, e.ModRevision, kv.EventDelete, reason)
	return kv.OK
}

func (m *model) record(e kv.Entry, prev uint64, t kv.EventType, reason kv.Reason) {
	v := modelVersion{revision: m.revision + 1, exists: t == kv.EventPut, reason: reason, Entry: e}
	if !v.exists {
		v.Entry = kv.Entry{ModifiedAt: e.ModifiedAt} // a deletion has no revision of a value
	}
	key := string(e.Key)
	m.keys[key] = append(m.keys[key], v)
	m.changes = append(m.changes, kv.Event{Type: t, Reason: reason, Entry: e, PrevRevision: prev})
}

// moveLease ends the own lease of what is replaced and checks or grants the one
// that comes.
func (m *model) moveLease(old, now kv.Entry, own int64) kv.Code {
	if old.Lease == now.Lease && own == 0 {
		return kv.OK
	}
	if old.Lease != now.Lease && m.leases[old.Lease].own {
		delete(m.leases, old.Lease)
	}
	if now.Lease == (kv.LeaseID{}) {
		return kv.OK
	}
	have, exists := m.leases[now.Lease]
	switch {
	case own > 0 && exists:
		return kv.LeaseExists
	case own > 0:
		m.leases[now.Lease] = modelLease{number: m.numberFor(now.Lease), ttl: own, deadline: m.deadline(own), queued: m.deadline(own), own: true}
	case !exists || have.own:
		return kv.LeaseNotFound
	}
	return kv.OK
}

// due returns, of the first leases in the queue whose place the clock has reached,
// those whose time is over and those that were renewed.
func (m *model) due(limit int) (due []kv.Lease, renewed []kv.LeaseID) {
	var reached []kv.LeaseID
	for id, l := range m.leases {
		if l.queued <= m.clock {
			reached = append(reached, id)
		}
	}
	slices.SortFunc(reached, func(a, b kv.LeaseID) int {
		return cmp.Or(cmp.Compare(m.leases[a].queued, m.leases[b].queued), a.Compare(b))
	})
	for _, id := range reached[:min(limit, len(reached))] {
		if l := m.leases[id]; l.deadline <= m.clock {
			due = append(due, kv.Lease{ID: id, Generation: l.generation})
		} else {
			renewed = append(renewed, id)
		}
	}
	return due, renewed
}

func (m *model) full() bool {
	for a := range m.alarms {
		if a.Type == kv.AlarmNoSpace {
			return true
		}
	}
	return false
}

func (m *model) deadline(ttl int64) uint64 { return m.clock + uint64(ttl) + 1000 }

func (m *model) numberTaken(n int64) bool {
	for _, l := range m.leases {
		if l.number == n {
			return true
		}
	}
	return false
}

func (m *model) numberFor(id kv.LeaseID) int64 {
	try := uint32(0)
	for m.numberTaken(numberOf(id, try)) {
		try++
	}
	return numberOf(id, try)
}

func (m *model) grant(g kv.Lease) *kv.Result {
	if m.full() {
		return m.refused(kv.NoSpace)
	}
	if _, exists := m.leases[g.ID]; exists || g.Number != 0 && m.numberTaken(g.Number) {
		return m.refused(kv.LeaseExists)
	}
	if g.Number == 0 {
		g.Number = m.numberFor(g.ID)
	}
	m.leases[g.ID] = modelLease{number: g.Number, ttl: g.TTLMillis, deadline: m.deadline(g.TTLMillis), queued: m.deadline(g.TTLMillis)}
	r := m.done()
	r.Leases = []kv.LeaseResult{{ID: g.ID, Number: g.Number, TTLMillis: g.TTLMillis}}
	return r
}

func (m *model) renew(ids []kv.LeaseID) *kv.Result {
	r := m.done()
	for _, id := range ids {
		l, exists := m.leases[id]
		if !exists {
			r.Leases = append(r.Leases, kv.LeaseResult{ID: id, Code: kv.LeaseNotFound})
			continue
		}
		l.deadline = m.deadline(l.ttl)
		l.generation++
		if 2*(l.deadline-l.queued) > uint64(l.ttl) {
			l.queued = l.deadline
		}
		m.leases[id] = l
		r.Leases = append(r.Leases, kv.LeaseResult{ID: id, Number: l.number, TTLMillis: l.ttl})
	}
	return r
}

func (m *model) end(c *kv.Command) *kv.Result {
	id := c.Lease.ID
	l, exists := m.leases[id]
	if !exists {
		return m.refused(kv.LeaseNotFound)
	}
	reason := kv.ReasonRevoked
	if c.Kind == kv.KindLeaseExpire {
		reason = kv.ReasonExpired
		if m.clock < l.deadline || l.generation != c.Lease.Generation {
			return m.done()
		}
	}
	return m.transact(func(r *kv.Result) kv.Code {
		ended := kv.OpResult{Type: kv.OpDelete}
		for _, e := range m.entries(kv.Range{}, m.revision) {
			if e.Lease == id {
				m.remove(e, reason)
				ended.Deleted++
			}
		}
		delete(m.leases, id)
		r.Ops = []kv.OpResult{ended}
		r.Leases = []kv.LeaseResult{{ID: id, Number: l.number, TTLMillis: l.ttl}}
		return kv.OK
	})
}

// leaseStates are all leases, in the order of their ids, and their keys.
func (m *model) leaseStates() (states []kv.LeaseState, keys map[kv.LeaseID][]string) {
	keys = map[kv.LeaseID][]string{}
	for _, e := range m.entries(kv.Range{}, m.revision) {
		keys[e.Lease] = append(keys[e.Lease], string(e.Key))
	}
	for id, l := range m.leases {
		left := int64(0)
		if before := m.clock + 1000; l.deadline > before {
			left = int64(l.deadline - before)
		}
		states = append(states, kv.LeaseState{
			ID: id, Number: l.number, TTLMillis: l.ttl, RemainingMillis: left, Keys: uint64(len(keys[id])),
		})
	}
	slices.SortFunc(states, func(a, b kv.LeaseState) int { return a.ID.Compare(b.ID) })
	return states, keys
}

// list answers a query at a revision that exists.
func (m *model) list(q *kv.Query, revision uint64) *kv.List {
	l := &kv.List{}
	all := m.entries(q.Range, revision)
	if q.Count || q.CountOnly {
		l.Count = uint64(len(all))
	}
	if q.CountOnly {
		return l
	}
	sort.SliceStable(all, func(i, j int) bool {
		a, b := &all[i], &all[j]
		if q.Descending {
			a, b = b, a
		}
		switch q.Sort {
		case kv.SortByVersion:
			return a.Version < b.Version
		case kv.SortByCreate:
			return a.CreateRevision < b.CreateRevision
		case kv.SortByMod:
			return a.ModRevision < b.ModRevision
		case kv.SortByValue:
			return bytes.Compare(a.Value, b.Value) < 0
		}
		return bytes.Compare(a.Key, b.Key) < 0
	})
	size := 0
	take := func(n int) bool {
		got := len(l.Entries) + len(l.CommonPrefixes)
		if q.Limit > 0 && got == q.Limit || q.MaxBytes > 0 && got > 0 && size+n > q.MaxBytes {
			l.More = true
			return false
		}
		size += n
		return true
	}
	for _, e := range all {
		if q.KeysOnly {
			e.Value, e.ContentType = nil, ""
		}
		var prefix []byte
		if q.Sort == kv.SortByKey {
			if !beyond(q, e.Key) {
				continue
			}
			if prefix = folded(q, e.Key); prefix != nil && bytes.Equal(prefix, l.Next) {
				continue
			}
		}
		switch {
		case prefix != nil:
			if !take(len(prefix)) {
				return l
			}
			l.CommonPrefixes = append(l.CommonPrefixes, prefix)
			l.Next = prefix
		case q.Passes(&e):
			if !take(e.Size()) {
				if q.Sort != kv.SortByKey {
					l.Next = nil
				}
				return l
			}
			l.Entries = append(l.Entries, e)
			l.Next = e.Key
		}
	}
	l.Next = nil
	return l
}

// folded returns the common prefix that stands for key, or nil.
func folded(q *kv.Query, key []byte) []byte {
	if len(q.Delimiter) == 0 {
		return nil
	}
	for end := q.PrefixLen + len(q.Delimiter); end <= len(key); end++ {
		if bytes.HasSuffix(key[:end], q.Delimiter) {
			return key[:end]
		}
	}
	return nil
}

// beyond reports whether key comes after the place where the list goes on.
func beyond(q *kv.Query, key []byte) bool {
	if q.After == nil {
		return true
	}
	if q.Descending {
		return bytes.Compare(key, q.After) < 0
	}
	if prefix := folded(q, q.After); prefix != nil && bytes.Equal(prefix, q.After) && bytes.HasPrefix(key, prefix) {
		return false
	}
	return bytes.Compare(key, q.After) > 0
}

// history returns the events of a key that history still holds, newest first.
func (m *model) history(key string, before uint64, limit int) (events []kv.Event, more bool) {
	for _, v := range slices.Backward(m.keys[key]) {
		if m.at(key, m.compact).revision > v.revision || v.revision <= m.compact && !v.exists {
			break // compacted
		}
		if before != 0 && v.revision >= before {
			continue
		}
		if limit > 0 && len(events) == limit {
			return events, true
		}
		e := kv.Event{Type: kv.EventPut, Entry: v.Entry}
		if !v.exists {
			e = kv.Event{Type: kv.EventDelete, Reason: v.reason}
			e.Entry = kv.Entry{Key: []byte(key), ModRevision: v.revision, ModifiedAt: v.ModifiedAt}
		}
		events = append(events, e)
	}
	return events, false
}

// changesFrom returns the changes from a revision on.
func (m *model) changesFrom(from uint64) []kv.Event {
	i := slices.IndexFunc(m.changes, func(e kv.Event) bool { return e.Entry.ModRevision >= from })
	if i < 0 {
		return nil
	}
	return m.changes[i:]
}

// revisionAt returns the newest revision made at or before a time.
func (m *model) revisionAt(millis int64) uint64 {
	at := max(m.compact, 1)
	for _, e := range m.changes {
		if e.Entry.ModifiedAt <= millis {
			at = max(at, e.Entry.ModRevision)
		}
	}
	return at
}
