package kv

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// Each thing that a command can have wrong is refused, and each limit is
// refused one beyond it and not at it.
func TestCheck(t *testing.T) {
	for _, s := range commandSamples() {
		if err := s.command.Check(); err != nil {
			t.Errorf("%s: %v", s.name, err)
		}
	}
	txn := func(then ...Op) *Command { return &Command{Kind: KindTxn, Txn: &Txn{Then: then}} }
	query := func(q Query) *Command { return txn(Op{Type: OpGet, Query: &q}) }
	nested := func(depth int) *Command {
		t := &Txn{}
		for range depth {
			t = &Txn{Else: []Op{{Type: OpTxn, Txn: t}}}
		}
		return &Command{Kind: KindTxn, Txn: t}
	}
	long := func(n int) []byte { return bytes.Repeat([]byte("k"), n) }
	for _, c := range []struct {
		name    string
		command *Command
	}{
		{"no kind", &Command{}},
		{"a kind to come", &Command{Kind: kindEnd}},
		{"no transaction", &Command{Kind: KindTxn}},
		{"no nested transaction", txn(Op{Type: OpTxn})},
		{"no query", txn(Op{Type: OpGet})},
		{"no operation", txn(Op{})},
		{"an operation to come", txn(Op{Type: OpIncrement + 1})},
		{"no target", &Command{Kind: KindTxn, Txn: &Txn{If: []Compare{{Operator: Equal}}}}},
		{"no operator", &Command{Kind: KindTxn, Txn: &Txn{If: []Compare{{Target: TargetMod}}}}},
		{"an operator to come", &Command{Kind: KindTxn, Txn: &Txn{If: []Compare{{Target: TargetMod, Operator: operatorEnd}}}}},
		{"a sort target to come", query(Query{Sort: sortTargetEnd})},
		{"a negative limit", query(Query{Limit: -1})},
		{"a large limit", query(Query{MaxBytes: math.MaxInt32 + 1})},
		{"an alarm to come", &Command{Kind: KindAlarm, Alarm: Alarm{Type: alarmEnd}}},
		{"no alarm", &Command{Kind: KindAlarm}},
		{"an empty key", txn(Op{Type: OpPut})},
		{"no restore", &Command{Kind: KindRestore}},
		{"a step of a restore to come", &Command{Kind: KindRestore, Restore: &Restore{Step: restoreEnd, Part: 1}}},
		{"a part without a number", &Command{Kind: KindRestore, Restore: &Restore{Step: RestorePart}}},
		{"a part that is no content", &Command{Kind: KindRestore, Restore: &Restore{Step: RestorePart, Part: 1, Content: []byte{contentEntry}}}},
		{"a beginning with content", &Command{Kind: KindRestore, Restore: &Restore{Step: RestoreBegin, Content: contentSample()}}},
		{"an end without a revision", &Command{Kind: KindRestore, Restore: &Restore{Step: RestoreEnd, Part: 1}}},
		{"an end beyond all revisions", &Command{Kind: KindRestore, Restore: &Restore{Step: RestoreEnd, Part: 1, Revision: MaxRevision + 1}}},
	} {
		if err := c.command.Check(); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	tooLarge := &Error{Code: TransactionTooLarge}
	for _, c := range []struct {
		name   string
		within *Command
		beyond *Command
	}{
		{"depth", nested(MaxTxnDepth), nested(MaxTxnDepth + 1)},
		{"key", txn(Op{Type: OpPut, Key: long(MaxKeyBytes)}), txn(Op{Type: OpPut, Key: long(MaxKeyBytes + 1)})},
		{"key of an increment", txn(Op{Type: OpIncrement, Key: long(MaxKeyBytes)}), txn(Op{Type: OpIncrement, Key: long(MaxKeyBytes + 1)})},
		{"value", txn(Op{Type: OpPut, Key: long(1), Value: long(MaxValueBytes)}), txn(Op{Type: OpPut, Key: long(1), Value: long(MaxValueBytes + 1)})},
		{
			"content type", txn(Op{Type: OpPut, Key: long(1), ContentType: string(long(MaxContentTypeBytes))}),
			txn(Op{Type: OpPut, Key: long(1), ContentType: string(long(MaxContentTypeBytes + 1))}),
		},
		{
			"principal", &Command{Kind: KindCompact, Principal: strings.Repeat("p", MaxPrincipalBytes)},
			&Command{Kind: KindCompact, Principal: strings.Repeat("p", MaxPrincipalBytes+1)},
		},
		{
			"idempotency key", &Command{Kind: KindCompact, IdempotencyKey: strings.Repeat("p", MaxIdempotencyKeyBytes)},
			&Command{Kind: KindCompact, IdempotencyKey: strings.Repeat("p", MaxIdempotencyKeyBytes+1)},
		},
	} {
		if err := c.within.Check(); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if err := c.beyond.Check(); !errors.Is(err, tooLarge) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if err := CheckEncoded(make([]byte, MaxCommandBytes)); err != nil {
		t.Error(err)
	}
	if err := CheckEncoded(make([]byte, MaxCommandBytes+1)); !errors.Is(err, tooLarge) {
		t.Error(err)
	}
}

// TestAcceptedIsDecoded makes random commands, of fields that exist for the most
// part. What Check accepts is decoded again to the same; what it refuses is
// there as well.
func TestAcceptedIsDecoded(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	accepted, refused := 0, 0
	for range 20_000 {
		b := make([]byte, 100+rng.IntN(400))
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		if checkAccepted(t, b) {
			accepted++
		} else {
			refused++
		}
	}
	t.Logf("%d accepted, %d refused", accepted, refused)
	if accepted < 2000 || refused < 2000 {
		t.Error("the commands are too much alike")
	}
}

func FuzzAcceptedIsDecoded(f *testing.F) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 50 {
		seed := make([]byte, 400)
		for i := range seed {
			seed[i] = byte(rng.Uint32())
		}
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, b []byte) { checkAccepted(t, b) })
}

func checkAccepted(t *testing.T, b []byte) bool {
	m := maker{b}
	c := m.command()
	if c.Check() != nil {
		return false
	}
	encoded := AppendCommand(nil, c)
	got, err := DecodeCommand(encoded)
	if err != nil {
		t.Fatalf("accepted, and not decoded: %v\n%+v", err, c)
	}
	if !bytes.Equal(AppendCommand(nil, got), encoded) {
		t.Fatalf("decoded to something else:\n%s", cmp.Diff(c, got, cmpopts.EquateEmpty()))
	}
	return true
}

// A maker draws fields from bytes, and zeros once they are used up. One in fifty
// has a value that it must not have.
type maker struct{ b []byte }

func (m *maker) byte() byte {
	if len(m.b) == 0 {
		return 0
	}
	v := m.b[0]
	m.b = m.b[1:]
	return v
}

func (m *maker) bool() bool { return m.byte()%2 == 1 }

func (m *maker) wrong() bool { return m.byte() > 250 }

// enum is at least 1 and below end.
func (m *maker) enum(end byte) byte {
	if m.wrong() {
		return m.byte() % 2 * end
	}
	return 1 + m.byte()%(end-1)
}

func (m *maker) number() int64 {
	if n := int64(m.byte()); n < 200 {
		return n
	}
	var wide [8]byte
	for i := range wide {
		wide[i] = m.byte()
	}
	return int64(binary.LittleEndian.Uint64(wide[:]))
}

func (m *maker) size() int {
	if m.wrong() {
		return int(m.number())
	}
	return int(m.byte())
}

func (m *maker) bytes() []byte {
	n := min(int(m.byte()%5), len(m.b))
	v := m.b[:n]
	m.b = m.b[n:]
	return v
}

func (m *maker) key() []byte {
	if m.wrong() {
		return m.bytes()
	}
	return append([]byte("k"), m.bytes()...)
}

func (m *maker) id() (id LeaseID) {
	copy(id[:], m.bytes())
	return id
}

func (m *maker) rng() Range { return Range{Start: m.bytes(), End: m.bytes()} }

func (m *maker) command() *Command {
	c := &Command{Kind: Kind(m.enum(byte(kindEnd)))}
	if m.bool() {
		c.Kind = KindTxn
	}
	if m.bool() {
		c.Principal, c.AuthRevision = string(m.bytes()), uint64(m.number())
		c.IdempotencyKey = string(m.bytes())
		copy(c.Fingerprint[:], m.bytes())
	}
	c.Time = m.number()
	switch c.Kind {
	case KindCompact:
		c.Compact = uint64(m.number())
	case KindClock:
		c.Clock = Clock{Prev: uint64(m.number()), AdvanceMillis: m.number()}
	case KindLeaseRenew:
		for range m.byte() % 4 {
			c.Renew = append(c.Renew, m.id())
		}
	case KindAlarm:
		c.Alarm = Alarm{Replica: uint64(m.number()), Type: AlarmType(m.enum(byte(alarmEnd))), Active: m.bool()}
	case KindMember:
		c.Member = Member{
			Replica: uint64(m.number()), ID: m.id(), Name: string(m.bytes()), Version: uint32(m.number()),
			ClientURL: string(m.bytes()), PeerAddress: string(m.bytes()),
		}
	case KindMembership:
		c.Membership = Membership{
			Step: MembershipStep(m.enum(byte(membershipStepEnd))), State: MemberState(m.enum(byte(memberStateEnd))),
			Replica: uint64(m.number()), Floor: uint64(m.number()), ID: m.id(), Name: string(m.bytes()),
			PeerAddress: string(m.bytes()), Claim: m.id(), ExpiresMillis: m.number(), Learner: m.bool(), Voted: m.bool(),
		}
		copy(c.Membership.Token[:], m.bytes())
	case KindRestore:
		if m.wrong() {
			break
		}
		c.Restore = &Restore{Step: RestoreStep(m.enum(byte(restoreEnd)))}
		copy(c.Restore.Backup[:], m.bytes())
		if c.Restore.Step != RestoreBegin || m.wrong() {
			c.Restore.Part = uint64(m.number())
		}
		if c.Restore.Step == RestoreEnd || m.wrong() {
			c.Restore.Revision = uint64(m.number())
		}
		if c.Restore.Step == RestorePart || m.wrong() {
			c.Restore.Content = contentSample()
			if m.wrong() {
				c.Restore.Content = m.bytes()
			}
		}
	case KindTxn:
		c.Txn = m.txn(0)
		if m.bool() {
			for range m.byte() % (MaxTxnDepth + 3) {
				c.Txn = &Txn{Then: []Op{{Type: OpTxn, Txn: c.Txn}}}
			}
		}
	default:
		c.Lease = Lease{ID: m.id(), Number: m.number(), TTLMillis: m.number(), Generation: uint64(m.number())}
	}
	return c
}

func (m *maker) txn(depth int) *Txn {
	if depth > 3 || m.wrong() {
		return nil
	}
	t := &Txn{}
	for range m.byte() % 3 {
		t.If = append(t.If, Compare{
			Range: m.rng(), Target: Target(m.enum(byte(targetEnd))), Operator: Operator(m.enum(byte(operatorEnd))),
			Number: uint64(m.number()), Bytes: m.bytes(), Lease: m.id(),
		})
	}
	for _, branch := range [2]*[]Op{&t.Then, &t.Else} {
		for range m.byte() % 3 {
			*branch = append(*branch, m.op(depth))
		}
	}
	return t
}

// op has fields of other types of operations as well.
func (m *maker) op(depth int) Op {
	op := Op{
		Type: OpType(m.enum(byte(OpIncrement + 1))), Key: m.key(), Value: m.bytes(), ContentType: string(m.bytes()), Lease: m.id(),
		OwnTTLMillis: m.number(), IgnoreValue: m.bool(), IgnoreLease: m.bool(), Prev: m.bool(), By: m.number(), Range: m.rng(),
	}
	switch op.Type {
	case OpTxn:
		op.Txn = m.txn(depth + 1)
	case OpGet:
		if m.wrong() {
			break
		}
		op.Query = &Query{
			Range: m.rng(), Revision: uint64(m.number()), Limit: m.size(), MaxBytes: m.size(), After: m.bytes(),
			Descending: m.bool(), Sort: SortTarget(m.byte() % byte(sortTargetEnd)), KeysOnly: m.bool(), CountOnly: m.bool(),
			Count: m.bool(), Delimiter: m.bytes(), PrefixLen: m.size(),
			MinModRevision: uint64(m.number()), MaxModRevision: uint64(m.number()),
			MinCreateRevision: uint64(m.number()), MaxCreateRevision: uint64(m.number()),
		}
		if m.wrong() {
			op.Query.Sort = sortTargetEnd
		}
	}
	return op
}
