package storage

import (
	"bytes"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"

	"github.com/cairnkv/cairn/kv"
)

// generator makes random commands from a seed: few keys, whose bytes are chosen
// to be mistaken for each other and for the bytes of the layout, and few
// leases, so that everything meets everything.
type generator struct {
	*rand.Rand
	keys [][]byte
	// m is what the commands were applied to so far: they ask for revisions,
	// generations and steps of the clock that nearly exist.
	m *model
}

var hostileKeys = []string{
	"a", "a\x00", "a\x00\x00", "a\x00\x01", "a\x00\x01\xff\xff\xff\xff\xff\xff\xff\xfe", "a\x00\xff", "a\x01", "a/", "a/b", "a/b/c",
	"a/\xff", "a0", "b", "\x00", "\x00\x01", "\x01", "\xff", "\xff\xff", "b/\x00/c", "m", "v", "/",
}

func newGenerator(seed uint64, keys int) *generator {
	g := &generator{Rand: rand.New(rand.NewPCG(seed, 0x9e3779b97f4a7c15)), m: newModel()}
	for _, i := range g.Perm(len(hostileKeys))[:keys] {
		g.keys = append(g.keys, []byte(hostileKeys[i]))
	}
	return g
}

// chance is true in one of n cases.
func (g *generator) chance(n int) bool { return g.IntN(n) == 0 }

func pick[T any](g *generator, from []T) T { return from[g.IntN(len(from))] }

func (g *generator) key() []byte { return pick(g, g.keys) }

func (g *generator) lease() kv.LeaseID { return kv.LeaseID{'L', byte('1' + g.IntN(4))} }

// ownLease is the id of a lease that a put brings with it. Now and then it is
// one that exists.
func (g *generator) ownLease() kv.LeaseID {
	if g.chance(10) {
		return g.lease()
	}
	return kv.LeaseID{'O', byte('a' + g.IntN(20))}
}

func (g *generator) anyLease() kv.LeaseID {
	if g.chance(3) {
		return g.ownLease()
	}
	return g.lease()
}

// revision is near one that exists.
func (g *generator) revision() uint64 {
	low := max(g.m.compact, 1) - 1
	return low + g.Uint64N(g.m.revision-low+2)
}

func (g *generator) value() []byte {
	switch g.IntN(12) {
	case 0:
		return []byte{}
	case 1:
		return []byte(strconv.FormatInt(pick(g, []int64{math.MaxInt64, math.MinInt64, -1, 0}), 10))
	case 2:
		return []byte(pick(g, []string{"007", "+1", "-0", "1.5", "x", "\x00", "\xff\xff", " 1"}))
	case 3:
		if !g.chance(4) {
			break
		}
		v := make([]byte, 4_000+g.IntN(400)) // on both sides of what the change log takes
		for i := range v {
			v[i] = 'x'
		}
		return v
	}
	return strconv.AppendInt(nil, int64(g.IntN(100)), 10)
}

func (g *generator) rng() kv.Range {
	switch g.IntN(8) {
	case 0:
		return kv.Range{}
	case 1:
		return kv.Range{Start: g.key()}
	case 2:
		return kv.Range{End: g.key()}
	case 3:
		return kv.Prefix(g.key())
	case 4, 5:
		return kv.Range{Start: g.key(), End: g.key()} // may be empty
	}
	return kv.SingleKey(g.key())
}

func (g *generator) query() *kv.Query {
	q := &kv.Query{Range: g.rng(), Descending: g.chance(2), KeysOnly: g.chance(3), Count: g.chance(4), CountOnly: g.chance(8)}
	if g.chance(3) {
		q.Revision = g.revision()
	}
	if g.chance(2) {
		q.Limit = 1 + g.IntN(4)
	}
	if g.chance(4) {
		q.MaxBytes = 1 + g.IntN(20)
	}
	if g.chance(3) {
		q.Sort = kv.SortTarget(g.IntN(len(sortWords)))
	}
	if g.chance(3) {
		q.After = g.key()
	}
	if g.chance(3) {
		q.Delimiter = []byte(pick(g, []string{"/", "\x00", "\xff", "/b"}))
		q.PrefixLen = g.IntN(3)
	}
	if g.chance(4) {
		q.MinModRevision, q.MaxModRevision = g.revision(), g.revision()
	}
	if g.chance(4) {
		q.MinCreateRevision, q.MaxCreateRevision = g.revision(), g.revision()
	}
	return q
}

func (g *generator) compare() kv.Compare {
	c := kv.Compare{Range: g.rng(), Target: kv.Target(1 + g.IntN(5)), Operator: kv.Operator(1 + g.IntN(6))}
	switch c.Target {
	case kv.TargetValue:
		c.Bytes = g.value()
	case kv.TargetLease:
		if !g.chance(3) {
			c.Lease = g.anyLease()
		}
	case kv.TargetVers:
		c.Number = g.Uint64N(4)
	default:
		if !g.chance(4) {
			c.Number = g.revision()
		}
	}
	return c
}

func (g *generator) op(depth int) kv.Op {
	switch n := g.IntN(20); {
	case n < 9:
		op := kv.Op{Type: kv.OpPut, Key: g.key(), Value: g.value(), Prev: g.chance(4)}
		switch g.IntN(12) {
		case 0:
			op.Sequence = true
		case 1: // a key that a sequence is about to come to
			op.Key = fmt.Appendf(bytes.Clone(op.Key), "%020d", g.m.revision+1+g.Uint64N(3))
		}
		if g.chance(8) {
			op.ContentType = pick(g, []string{"text/plain", "application/json", "x"})
		}
		switch g.IntN(8) {
		case 0, 1:
			op.Lease = g.anyLease()
		case 2:
			op.Lease, op.OwnTTLMillis = g.ownLease(), int64(1+g.IntN(3))*1000
		case 3:
			op.IgnoreLease = true
		case 4:
			op.IgnoreValue = true
		}
		return op
	case n < 12:
		return kv.Op{Type: kv.OpDelete, Range: g.rng(), Prev: g.chance(3)}
	case n < 15:
		return kv.Op{Type: kv.OpIncrement, Key: g.key(), By: pick(g, []int64{0, 1, -1, 5, math.MaxInt64, math.MinInt64})}
	case n < 18 || depth == 0:
		return kv.Op{Type: kv.OpGet, Query: g.query()}
	default:
		return kv.Op{Type: kv.OpTxn, Txn: g.txn(depth - 1)}
	}
}

func (g *generator) txn(depth int) *kv.Txn {
	t := &kv.Txn{}
	if g.chance(2) {
		return &kv.Txn{Then: []kv.Op{g.op(depth)}}
	}
	for range g.IntN(3) {
		t.If = append(t.If, g.compare())
	}
	for range g.IntN(4) {
		t.Then = append(t.Then, g.op(depth))
	}
	for range g.IntN(3) {
		t.Else = append(t.Else, g.op(depth))
	}
	return t
}

func (g *generator) command() *kv.Command {
	c := g.bareCommand()
	if g.chance(2) {
		c.Time = int64(g.IntN(1_000))
	}
	if g.chance(6) {
		c.IdempotencyKey = pick(g, []string{"k", "k2", "\x00"})
		c.Principal = pick(g, []string{"", "bob"})
		copy(c.Fingerprint[:], pick(g, []string{"f", "f", "f", "other"}))
	}
	return c
}

func (g *generator) bareCommand() *kv.Command {
	switch n := g.IntN(100); {
	case n < 5:
		return &kv.Command{Kind: kv.KindCompact, Compact: g.revision()}
	case n < 17:
		prev := g.m.clockIndex
		if g.chance(10) {
			prev++
		}
		return &kv.Command{Kind: kv.KindClock, Clock: kv.Clock{Prev: prev, AdvanceMillis: pick(g, []int64{500, 500, 500, 250, 900, 0, -5})}}
	case n < 25:
		l := kv.Lease{ID: g.lease(), TTLMillis: int64(1+g.IntN(3)) * 1000}
		if g.chance(3) {
			l.Number = 1 + g.Int64N(3)
		}
		return &kv.Command{Kind: kv.KindLeaseGrant, Lease: l}
	case n < 31:
		c := &kv.Command{Kind: kv.KindLeaseRenew, Renew: []kv.LeaseID{}}
		if n == 30 {
			c.Kind = kv.KindLeaseRequeue
		}
		for range pick(g, []int{0, 1, 2, 3, fetchAtOnce + 2}) {
			c.Renew = append(c.Renew, g.anyLease())
		}
		return c
	case n < 33:
		return &kv.Command{Kind: kv.KindLeaseRevoke, Lease: kv.Lease{ID: g.anyLease()}}
	case n < 39:
		id := g.anyLease()
		if g.chance(2) {
			if ids := slices.SortedFunc(maps.Keys(g.m.leases), kv.LeaseID.Compare); len(ids) > 0 {
				id = pick(g, ids)
			}
		}
		generation := g.m.leases[id].generation
		if g.chance(8) {
			generation++
		}
		return &kv.Command{Kind: kv.KindLeaseExpire, Lease: kv.Lease{ID: id, Generation: generation}}
	case n < 41:
		// Mostly off: a full store refuses most of what is to be tested.
		return &kv.Command{Kind: kv.KindAlarm, Alarm: kv.Alarm{
			Replica: 1 + g.Uint64N(2), Type: kv.AlarmType(1 + g.IntN(2)), Active: g.chance(3),
		}}
	case n < 42:
		return &kv.Command{Kind: kv.KindMember, Member: kv.Member{
			Replica: 1 + g.Uint64N(3), ID: kv.LeaseID{'M', byte('1' + g.IntN(2))}, Name: fmt.Sprintf("n%d", g.IntN(3)), Version: 1 + g.Uint32N(3),
			ClientURL: "http://n", PeerAddress: "n:1",
		}}
	default:
		return &kv.Command{Kind: kv.KindTxn, Txn: g.txn(2)}
	}
}

// clockEntry is so much time that a remembered answer is forgotten by its last
// step, or just not, and then the command that asks for it again.
func (g *generator) clockEntry(index uint64) (commands []*kv.Command) {
	again := g.command()
	target := g.m.clock + kv.IdempotencyWindowMillis
	for _, scope := range slices.Sorted(maps.Keys(g.m.answers)) {
		a := g.m.answers[scope]
		target, again.Principal, again.IdempotencyKey, again.Fingerprint = a.expires, a.principal, a.key, a.print
	}
	target -= pick(g, []uint64{0, 0, 0, 1, 500})
	prev := g.m.clockIndex
	for clock := g.m.clock; clock < target; prev = index {
		step := min(target-clock, kv.MaxClockAdvanceMillis)
		commands = append(commands, &kv.Command{Kind: kv.KindClock, Clock: kv.Clock{Prev: prev, AdvanceMillis: int64(step)}})
		clock += step
	}
	return append(commands, again)
}
