package kv

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
)

// ErrMalformed is what every decoder returns, wrapped, for bytes that the
// encoder of this version can't have written.
var ErrMalformed = errors.New("kv: malformed encoding")

// The codec writes numbers as varints, byte strings with their length before
// them, and sets of booleans as one byte of flags. There are no field tags: a
// change of layout is a new kind or a new format byte, never a silent addition.
//
// A value has one encoding: whatever a decoder accepts, the encoder writes again
// byte for byte. So a decoder refuses a number in more bytes than it needs, and
// a flag for a field that is empty.

// commandFormat is the first byte of an encoded command.
const commandFormat = 1

const (
	cmdIdempotent = 1 << iota
	cmdPrincipal
	cmdFlagsEnd
)

// AppendCommand appends the encoding of c to b.
func AppendCommand(b []byte, c *Command) []byte {
	var flags byte
	if c.IdempotencyKey != "" {
		flags |= cmdIdempotent
	}
	if c.Principal != "" || c.AuthRevision != 0 {
		flags |= cmdPrincipal
	}
	b = append(b, commandFormat, byte(c.Kind), flags)
	b = binary.AppendVarint(b, c.Time)
	if flags&cmdPrincipal != 0 {
		b = appendString(b, c.Principal)
		b = binary.AppendUvarint(b, c.AuthRevision)
	}
	if flags&cmdIdempotent != 0 {
		b = appendString(b, c.IdempotencyKey)
		b = append(b, c.Fingerprint[:]...)
	}
	switch c.Kind {
	case KindTxn:
		b = appendTxn(b, c.Txn)
	case KindCompact:
		b = binary.AppendUvarint(b, c.Compact)
	case KindClock:
		b = binary.AppendUvarint(b, c.Clock.Prev)
		b = binary.AppendVarint(b, c.Clock.AdvanceMillis)
	case KindLeaseGrant, KindLeaseRevoke, KindLeaseExpire:
		b = append(b, c.Lease.ID[:]...)
		b = binary.AppendVarint(b, c.Lease.Number)
		b = binary.AppendVarint(b, c.Lease.TTLMillis)
		b = binary.AppendUvarint(b, c.Lease.Generation)
	case KindLeaseRenew, KindLeaseRequeue:
		b = binary.AppendUvarint(b, uint64(len(c.Renew)))
		for i := range c.Renew {
			b = append(b, c.Renew[i][:]...)
		}
	case KindAlarm:
		b = binary.AppendUvarint(b, c.Alarm.Replica)
		b = append(b, byte(c.Alarm.Type), boolByte(c.Alarm.Active))
	case KindScrub:
		b = binary.AppendUvarint(b, uint64(len(c.Scrub.Members)))
		for _, replica := range c.Scrub.Members {
			b = binary.AppendUvarint(b, replica)
		}
		b = binary.AppendUvarint(b, c.Scrub.Bytes)
	case KindScrubbed:
		b = binary.AppendUvarint(b, c.Scrubbed.Step)
		b = binary.AppendUvarint(b, c.Scrubbed.Replica)
		b = append(b, c.Scrubbed.Sum[:]...)
		b = appendBytes(b, c.Scrubbed.Next)
	case KindMember:
		b = binary.AppendUvarint(b, c.Member.Replica)
		b = append(b, c.Member.ID[:]...)
		b = appendString(b, c.Member.Name)
		b = binary.AppendUvarint(b, uint64(c.Member.Version))
		b = appendString(b, c.Member.ClientURL)
		b = appendString(b, c.Member.PeerAddress)
	case KindMembership:
		b = appendMembership(b, &c.Membership)
	case KindRestore:
		b = appendRestore(b, c.Restore)
	}
	return b
}

// UnknownKindError says that a command is of a kind that this binary does not
// know: the cluster has moved on to a newer version. Skipping it would make
// this member differ from the others, so the only right thing is to stop.
type UnknownKindError struct{ Kind Kind }

func (e *UnknownKindError) Error() string {
	return fmt.Sprintf("kv: the log has a command of kind %d, which this version (%d) does not know; run a newer version of Cairn on this member", e.Kind, Version)
}

// DecodeCommand decodes one command that fills b exactly. The command aliases
// b.
func DecodeCommand(b []byte) (*Command, error) {
	d := decoder{b: b}
	c := d.command()
	if d.err == nil && len(d.b) != 0 {
		d.fail("%d bytes too many", len(d.b))
	}
	if d.err != nil {
		return nil, d.err
	}
	return c, nil
}

func (d *decoder) command() *Command {
	c := &Command{}
	if f := d.byte(); d.err == nil && f != commandFormat {
		d.fail("command format %d", f)
	}
	c.Kind = Kind(d.byte())
	flags := d.byte()
	if d.err == nil && (c.Kind == 0 || c.Kind >= kindEnd) {
		d.err = &UnknownKindError{Kind: c.Kind}
	}
	if d.err == nil && flags >= cmdFlagsEnd {
		d.fail("command flags %#x", flags)
	}
	c.Time = d.varint()
	if flags&cmdPrincipal != 0 {
		c.Principal = d.string()
		c.AuthRevision = d.uvarint()
		d.flagged(c.Principal != "" || c.AuthRevision != 0)
	}
	if flags&cmdIdempotent != 0 {
		c.IdempotencyKey = d.string()
		d.flagged(c.IdempotencyKey != "")
		copy(c.Fingerprint[:], d.take(16))
	}
	switch c.Kind {
	case KindTxn:
		c.Txn = d.txn(0)
	case KindCompact:
		c.Compact = d.uvarint()
	case KindClock:
		c.Clock.Prev = d.uvarint()
		c.Clock.AdvanceMillis = d.varint()
	case KindLeaseGrant, KindLeaseRevoke, KindLeaseExpire:
		c.Lease.ID = d.lease()
		c.Lease.Number = d.varint()
		c.Lease.TTLMillis = d.varint()
		c.Lease.Generation = d.uvarint()
	case KindLeaseRenew, KindLeaseRequeue:
		n := d.count(16)
		c.Renew = make([]LeaseID, n)
		for i := range c.Renew {
			c.Renew[i] = d.lease()
		}
	case KindAlarm:
		c.Alarm.Replica = d.uvarint()
		c.Alarm.Type = AlarmType(d.byte())
		c.Alarm.Active = d.bool()
		if d.err == nil && (c.Alarm.Type == 0 || c.Alarm.Type >= alarmEnd) {
			d.fail("alarm type %d", c.Alarm.Type)
		}
	case KindScrub:
		c.Scrub = d.scrub()
		if d.err == nil {
			d.err = c.checkScrub()
		}
	case KindScrubbed:
		c.Scrubbed.Step = d.uvarint()
		c.Scrubbed.Replica = d.uvarint()
		copy(c.Scrubbed.Sum[:], d.take(32))
		c.Scrubbed.Next = d.optional()
		if d.err == nil && len(c.Scrubbed.Next) > MaxScrubNextBytes {
			d.fail("next record of %d bytes", len(c.Scrubbed.Next))
		}
	case KindMember:
		c.Member.Replica = d.uvarint()
		c.Member.ID = d.lease()
		c.Member.Name = d.string()
		version := d.uvarint()
		if version > math.MaxUint32 {
			d.fail("version %d", version)
		}
		c.Member.Version = uint32(version)
		c.Member.ClientURL = d.string()
		c.Member.PeerAddress = d.string()
	case KindMembership:
		c.Membership = d.membership()
	case KindRestore:
		c.Restore = d.restore()
	}
	return c
}

// roughly is how many bytes operations take, so that there is room for them at once.
func roughly(ops []Op) (size int) {
	const around = 16
	for i := range ops {
		size += around + len(ops[i].Key) + len(ops[i].Value)
	}
	return size
}

func appendTxn(b []byte, t *Txn) []byte {
	b = binary.AppendUvarint(b, uint64(len(t.If)))
	for i := range t.If {
		c := &t.If[i]
		b = append(b, byte(c.Target), byte(c.Operator))
		b = appendRange(b, c.Range)
		switch c.Target {
		case TargetValue:
			b = appendBytes(b, c.Bytes)
		case TargetLease:
			b = append(b, c.Lease[:]...)
		default:
			b = binary.AppendUvarint(b, c.Number)
		}
	}
	for _, branch := range [2][]Op{t.Then, t.Else} {
		b = slices.Grow(b, roughly(branch))
		b = binary.AppendUvarint(b, uint64(len(branch)))
		for i := range branch {
			b = appendOp(b, &branch[i])
		}
	}
	return b
}

func (d *decoder) txn(depth int) *Txn {
	t := &Txn{}
	if depth > MaxTxnDepth {
		d.fail("transactions nested deeper than %d", MaxTxnDepth)
		return t
	}
	if n := d.count(5); n > 0 {
		t.If = make([]Compare, n)
	}
	for i := range t.If {
		c := &t.If[i]
		c.Target, c.Operator = Target(d.byte()), Operator(d.byte())
		c.Range = d.rng()
		switch c.Target {
		case TargetValue:
			c.Bytes = d.bytes()
		case TargetLease:
			c.Lease = d.lease()
		default:
			c.Number = d.uvarint()
		}
		if d.err == nil && (c.Target == 0 || c.Target >= targetEnd || c.Operator == 0 || c.Operator >= operatorEnd) {
			d.fail("compare %d %d", c.Target, c.Operator)
		}
	}
	for _, branch := range [2]*[]Op{&t.Then, &t.Else} {
		if n := d.count(4); n > 0 {
			*branch = make([]Op, n)
		}
		for i := range *branch {
			d.op(&(*branch)[i], depth)
		}
	}
	return t
}

const (
	opIgnoreValue = 1 << iota
	opIgnoreLease
	opPrev
	opLease
	opOwnTTL
	opContentType
	opSequence
	opFlagsEnd
)

// opFlags returns the flags that an operation of a type can have.
func opFlags(t OpType) byte {
	switch t {
	case OpPut:
		return opFlagsEnd - 1
	case OpDelete:
		return opPrev
	}
	return 0
}

func appendOp(b []byte, op *Op) []byte {
	var flags byte
	set := func(on bool, f byte) {
		if on {
			flags |= f
		}
	}
	set(op.IgnoreValue, opIgnoreValue)
	set(op.IgnoreLease, opIgnoreLease)
	set(op.Prev, opPrev)
	set(op.Lease != LeaseID{}, opLease)
	set(op.OwnTTLMillis != 0, opOwnTTL)
	set(op.ContentType != "", opContentType)
	set(op.Sequence, opSequence)
	flags &= opFlags(op.Type)
	b = append(b, byte(op.Type), flags)
	switch op.Type {
	case OpPut:
		b = appendBytes(b, op.Key)
		b = appendBytes(b, op.Value)
		if flags&opContentType != 0 {
			b = appendString(b, op.ContentType)
		}
		if flags&opLease != 0 {
			b = append(b, op.Lease[:]...)
		}
		if flags&opOwnTTL != 0 {
			b = binary.AppendVarint(b, op.OwnTTLMillis)
		}
	case OpIncrement:
		b = appendBytes(b, op.Key)
		b = binary.AppendVarint(b, op.By)
	case OpDelete:
		b = appendRange(b, op.Range)
	case OpGet:
		b = appendQuery(b, op.Query)
	case OpTxn:
		b = appendTxn(b, op.Txn)
	}
	return b
}

func (d *decoder) op(op *Op, depth int) {
	op.Type = OpType(d.byte())
	flags := d.byte()
	if flags&^opFlags(op.Type) != 0 {
		d.fail("operation type %d, flags %#x", op.Type, flags)
	}
	op.IgnoreValue = flags&opIgnoreValue != 0
	op.IgnoreLease = flags&opIgnoreLease != 0
	op.Prev = flags&opPrev != 0
	op.Sequence = flags&opSequence != 0
	switch op.Type {
	case OpPut:
		op.Key = d.bytes()
		op.Value = d.bytes()
		if flags&opContentType != 0 {
			op.ContentType = d.string()
			d.flagged(op.ContentType != "")
		}
		if flags&opLease != 0 {
			op.Lease = d.lease()
			d.flagged(op.Lease != LeaseID{})
		}
		if flags&opOwnTTL != 0 {
			op.OwnTTLMillis = d.varint()
			d.flagged(op.OwnTTLMillis != 0)
		}
	case OpIncrement:
		op.Key = d.bytes()
		op.By = d.varint()
	case OpDelete:
		op.Range = d.rng()
	case OpGet:
		op.Query = d.query()
	case OpTxn:
		op.Txn = d.txn(depth + 1)
	default:
		d.fail("operation type %d", op.Type)
	}
}

const (
	queryDescending = 1 << iota
	queryKeysOnly
	queryCountOnly
	queryCount
	queryFlagsEnd
)

func appendQuery(b []byte, q *Query) []byte {
	var flags byte
	for _, f := range []struct {
		on  bool
		bit byte
	}{
		{q.Descending, queryDescending}, {q.KeysOnly, queryKeysOnly},
		{q.CountOnly, queryCountOnly}, {q.Count, queryCount},
	} {
		if f.on {
			flags |= f.bit
		}
	}
	b = append(b, flags, byte(q.Sort))
	b = appendRange(b, q.Range)
	b = binary.AppendUvarint(b, q.Revision)
	b = binary.AppendUvarint(b, uint64(q.Limit))
	b = binary.AppendUvarint(b, uint64(q.MaxBytes))
	b = appendBytes(b, q.After)
	b = appendBytes(b, q.Delimiter)
	b = binary.AppendUvarint(b, uint64(q.PrefixLen))
	for _, n := range [4]uint64{q.MinModRevision, q.MaxModRevision, q.MinCreateRevision, q.MaxCreateRevision} {
		b = binary.AppendUvarint(b, n)
	}
	return b
}

func (d *decoder) query() *Query {
	q := &Query{}
	flags := d.byte()
	if d.err == nil && flags >= queryFlagsEnd {
		d.fail("query flags %#x", flags)
	}
	q.Descending = flags&queryDescending != 0
	q.KeysOnly = flags&queryKeysOnly != 0
	q.CountOnly = flags&queryCountOnly != 0
	q.Count = flags&queryCount != 0
	q.Sort = SortTarget(d.byte())
	if d.err == nil && q.Sort >= sortTargetEnd {
		d.fail("sort target %d", q.Sort)
	}
	q.Range = d.rng()
	q.Revision = d.uvarint()
	q.Limit = d.int()
	q.MaxBytes = d.int()
	q.After = d.optional()
	q.Delimiter = d.optional()
	q.PrefixLen = d.int()
	q.MinModRevision = d.uvarint()
	q.MaxModRevision = d.uvarint()
	q.MinCreateRevision = d.uvarint()
	q.MaxCreateRevision = d.uvarint()
	return q
}

const (
	resultSucceeded = 1 << iota
	resultChanged
	resultElided
	resultFlagsEnd
)

// resultFormat is the first byte of an encoded result.
const resultFormat = 1

// AppendResult appends the encoding of r, as an idempotency record keeps it.
// Replayed is not part of it.
func AppendResult(b []byte, r *Result) []byte {
	return appendResult(append(b, resultFormat), r)
}

func appendResult(b []byte, r *Result) []byte {
	var flags byte
	if r.Succeeded {
		flags |= resultSucceeded
	}
	if r.Changed {
		flags |= resultChanged
	}
	if r.Elided {
		flags |= resultElided
	}
	b = append(b, byte(r.Code), flags)
	b = appendString(b, r.Detail)
	b = binary.AppendUvarint(b, r.Revision)
	b = binary.AppendUvarint(b, r.CompactRevision)
	b = binary.AppendUvarint(b, uint64(len(r.Ops)))
	for i := range r.Ops {
		b = appendOpResult(b, &r.Ops[i])
	}
	b = binary.AppendUvarint(b, uint64(len(r.Leases)))
	for i := range r.Leases {
		l := &r.Leases[i]
		b = append(b, l.ID[:]...)
		b = binary.AppendVarint(b, l.Number)
		b = binary.AppendVarint(b, l.TTLMillis)
		b = append(b, byte(l.Code))
	}
	return b
}

// DecodeResult decodes a result that fills b exactly. The result aliases b.
func DecodeResult(b []byte) (*Result, error) {
	d := decoder{b: b}
	if f := d.byte(); d.err == nil && f != resultFormat {
		d.fail("result format %d", f)
	}
	r := d.result(0)
	if d.err == nil && len(d.b) != 0 {
		d.fail("%d bytes too many", len(d.b))
	}
	if d.err != nil {
		return nil, d.err
	}
	return r, nil
}

func (d *decoder) result(depth int) *Result {
	r := &Result{}
	if depth > MaxTxnDepth {
		d.fail("results nested deeper than %d", MaxTxnDepth)
		return r
	}
	r.Code = Code(d.byte())
	flags := d.byte()
	if d.err == nil && (flags >= resultFlagsEnd || r.Code >= codeEnd) {
		d.fail("result code %d flags %#x", r.Code, flags)
	}
	r.Succeeded = flags&resultSucceeded != 0
	r.Changed = flags&resultChanged != 0
	r.Elided = flags&resultElided != 0
	r.Detail = d.string()
	r.Revision = d.uvarint()
	r.CompactRevision = d.uvarint()
	if n := d.count(4); n > 0 {
		r.Ops = make([]OpResult, n)
	}
	for i := range r.Ops {
		d.opResult(&r.Ops[i], depth)
	}
	if n := d.count(19); n > 0 {
		r.Leases = make([]LeaseResult, n)
	}
	for i := range r.Leases {
		l := &r.Leases[i]
		l.ID = d.lease()
		l.Number = d.varint()
		l.TTLMillis = d.varint()
		l.Code = Code(d.byte())
		if d.err == nil && l.Code >= codeEnd {
			d.fail("lease result code %d", l.Code)
		}
	}
	return r
}

func appendOpResult(b []byte, o *OpResult) []byte {
	b = append(b, byte(o.Type), boolByte(o.Created))
	switch o.Type {
	case OpPut, OpIncrement:
		b = binary.AppendUvarint(b, o.Version)
		b = binary.AppendVarint(b, o.Value)
		b = append(b, o.Lease[:]...)
		b = appendEntries(b, o.Prev)
	case OpDelete:
		b = binary.AppendUvarint(b, o.Deleted)
		b = appendEntries(b, o.Prev)
	case OpGet:
		l := o.List
		if l == nil {
			l = &List{}
		}
		b = binary.AppendUvarint(b, l.Revision)
		b = appendEntries(b, l.Entries)
		b = binary.AppendUvarint(b, uint64(len(l.CommonPrefixes)))
		for _, p := range l.CommonPrefixes {
			b = appendBytes(b, p)
		}
		b = append(b, boolByte(l.More))
		b = appendBytes(b, l.Next)
		b = binary.AppendUvarint(b, l.Count)
	case OpTxn:
		b = appendResult(b, o.Txn)
	}
	return b
}

func (d *decoder) opResult(o *OpResult, depth int) {
	o.Type = OpType(d.byte())
	o.Created = d.bool()
	switch o.Type {
	case OpPut, OpIncrement:
		o.Version = d.uvarint()
		o.Value = d.varint()
		o.Lease = d.lease()
		o.Prev = d.entries()
	case OpDelete:
		o.Deleted = d.uvarint()
		o.Prev = d.entries()
	case OpGet:
		l := &List{Revision: d.uvarint(), Entries: d.entries()}
		if n := d.count(1); n > 0 {
			l.CommonPrefixes = make([][]byte, n)
		}
		for i := range l.CommonPrefixes {
			l.CommonPrefixes[i] = d.bytes()
		}
		l.More = d.bool()
		l.Next = d.optional()
		l.Count = d.uvarint()
		o.List = l
	case OpTxn:
		o.Txn = d.result(depth + 1)
	default:
		d.fail("operation result type %d", o.Type)
	}
}

func appendEntries(b []byte, entries []Entry) []byte {
	b = binary.AppendUvarint(b, uint64(len(entries)))
	for i := range entries {
		b = AppendEntry(b, &entries[i])
	}
	return b
}

func (d *decoder) entries() []Entry {
	n := d.count(8)
	if n == 0 {
		return nil
	}
	entries := make([]Entry, n)
	for i := range entries {
		d.entry(&entries[i])
	}
	return entries
}

// AppendEntry appends the encoding of e.
func AppendEntry(b []byte, e *Entry) []byte {
	b = appendBytes(b, e.Key)
	b = appendBytes(b, e.Value)
	b = appendString(b, e.ContentType)
	b = binary.AppendUvarint(b, e.CreateRevision)
	b = binary.AppendUvarint(b, e.ModRevision)
	b = binary.AppendUvarint(b, e.Version)
	b = binary.AppendVarint(b, e.ModifiedAt)
	if e.Lease == (LeaseID{}) {
		return append(b, 0)
	}
	return append(append(b, 1), e.Lease[:]...)
}

func (d *decoder) entry(e *Entry) {
	e.Key = d.bytes()
	e.Value = d.bytes()
	e.ContentType = d.string()
	e.CreateRevision = d.uvarint()
	e.ModRevision = d.uvarint()
	e.Version = d.uvarint()
	e.ModifiedAt = d.varint()
	if d.bool() {
		e.Lease = d.lease()
		d.flagged(e.Lease != LeaseID{})
	}
}

func appendRange(b []byte, r Range) []byte {
	return appendBytes(appendBytes(b, r.Start), r.End)
}

func (d *decoder) rng() Range { return Range{Start: d.bytes(), End: d.optional()} }

func appendBytes(b, s []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func boolByte(v bool) byte {
	if v {
		return 1
	}
	return 0
}

// decoder reads from b. After a failure every method returns zero and err says
// what was wrong first.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = malformed(format, args...)
	}
	d.b = nil
}

func (d *decoder) take(n int) []byte {
	if d.err != nil || n < 0 || n > len(d.b) {
		d.fail("cut short")
		return nil
	}
	s := d.b[:n:n]
	d.b = d.b[n:]
	return s
}

func (d *decoder) byte() byte {
	if d.err != nil || len(d.b) == 0 {
		d.fail("cut short")
		return 0
	}
	v := d.b[0]
	d.b = d.b[1:]
	return v
}

func (d *decoder) bool() bool {
	v := d.byte()
	if d.err == nil && v > 1 {
		d.fail("boolean %d", v)
	}
	return v == 1
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if d.err != nil || n <= 0 || tooLong(d.b[:n]) {
		d.fail("bad number")
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	if d.err != nil || n <= 0 || tooLong(d.b[:n]) {
		d.fail("bad number")
		return 0
	}
	d.b = d.b[n:]
	return v
}

// tooLong reports whether a varint ends in bytes that add nothing.
func tooLong(varint []byte) bool { return len(varint) > 1 && varint[len(varint)-1] == 0 }

// flagged fails when a field that is there by its flag is empty.
func (d *decoder) flagged(present bool) {
	if d.err == nil && !present {
		d.fail("a flag for nothing")
	}
}

// int reads a size that fits an int on every platform.
func (d *decoder) int() int {
	v := d.uvarint()
	if v > 1<<31-1 {
		d.fail("size %d", v)
		return 0
	}
	return int(v)
}

// count reads a number of elements of at least elementBytes each, so that a
// forged count can't make a decoder allocate more than its input justifies.
func (d *decoder) count(elementBytes int) int {
	v := d.uvarint()
	if v > uint64(len(d.b)/elementBytes) {
		d.fail("count %d", v)
		return 0
	}
	return int(v)
}

func (d *decoder) bytes() []byte {
	v := d.uvarint()
	if v > uint64(len(d.b)) {
		d.fail("length %d", v)
		return nil
	}
	return d.take(int(v))
}

// optional reads bytes of which empty means absent.
func (d *decoder) optional() []byte {
	if s := d.bytes(); len(s) > 0 {
		return s
	}
	return nil
}

func (d *decoder) string() string { return string(d.bytes()) }

func (d *decoder) lease() (id LeaseID) {
	copy(id[:], d.take(16))
	return id
}
