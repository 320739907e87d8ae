package httpapi

import (
	"strconv"

	"github.com/oklog/ulid/v2"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/kv"
)

// postTxn answers POST /v1/txn.
func (x *exchange) postTxn() {
	f := form{base64: x.base64Param()}
	body := x.readWrite()
	t := x.parseTxn(body)
	if x.refused() {
		return
	}
	x.txn = *t
	r := x.proposeTxn(body)
	if r == nil {
		return
	}
	x.unchanged = !r.Changed
	x.out = f.appendTxn(x.out[:0], r.Revision, &x.txn, r)
	x.sendJSON(200, r.Revision)
}

// parseTxn reads the body of a transaction.
func (x *exchange) parseTxn(body []byte) *kv.Txn {
	t := &kv.Txn{}
	if x.bodyFailed {
		return t
	}
	r := txnReader{x: x}
	x.parseJSON(body, func(p *jsonParser) { r.p = p; r.txn(t) })
	if r.ops > kv.MaxTxnOps || r.compares > kv.MaxTxnOps {
		x.failLimit(api.CodeTooManyOps, kv.MaxTxnOps, "a transaction has at most %d compares and %d operations, counted through all levels; this one has %d and %d",
			kv.MaxTxnOps, kv.MaxTxnOps, r.compares, r.ops)
		return t
	}
	if err := t.CheckDuplicates(); err != nil {
		x.fail(api.CodeDuplicateKey, "%v", err)
	}
	return t
}

// txnReader reads the JSON of transactions and of bulk lines. It counts what it
// reads and keeps no more than may be.
type txnReader struct {
	x             *exchange
	p             *jsonParser
	ops, compares int
}

func (r *txnReader) txn(t *kv.Txn) {
	r.p.object("a transaction", func(name string) bool {
		switch name {
		case "if":
			r.p.array("the compares", func() { r.compare(t) })
		case "then":
			r.p.array("the operations", func() { r.op(&t.Then) })
		case "else":
			r.p.array("the operations", func() { r.op(&t.Else) })
		default:
			return false
		}
		return true
	})
}

// An operation beyond the limit is read for its syntax alone.
func (r *txnReader) op(branch *[]kv.Op) {
	r.ops++
	if r.ops > kv.MaxTxnOps {
		r.p.skip()
		return
	}
	op, ok := r.operation("an operation", true)
	if ok {
		*branch = append(*branch, op)
	}
}

// operation reads an object with one member that says what to do.
func (r *txnReader) operation(what string, all bool) (op kv.Op, ok bool) {
	members := 0
	r.p.object(what, func(name string) bool {
		switch {
		case name == "put":
			op = r.put(all)
		case name == "delete":
			op = r.delete(all)
		case name == "increment" && all:
			op = r.increment()
		case name == "get" && all:
			op = r.get()
		case name == "txn" && all:
			op = kv.Op{Type: kv.OpTxn, Txn: &kv.Txn{}}
			r.txn(op.Txn)
		default:
			return false
		}
		members++
		return true
	})
	if !r.p.broken && members != 1 {
		if all {
			r.x.fail(api.CodeInvalidArgument, "an operation is exactly one of put, delete, increment, get and txn")
		} else {
			r.x.fail(api.CodeInvalidArgument, "a line is exactly one of put and delete")
		}
	}
	return op, members == 1
}

func (r *txnReader) put(all bool) kv.Op {
	op := kv.Op{Type: kv.OpPut}
	var key, value jsonBytes
	var ttl, lease bool
	r.p.object("a put", func(name string) bool {
		switch {
		case name == "content_type":
			op.ContentType = string(r.p.string())
			r.x.checkContentType(op.ContentType)
		case name == "lease":
			op.Lease, lease = r.lease("lease", false), true
		case name == "ttl_seconds":
			op.OwnTTLMillis, ttl = r.p.millis("ttl_seconds", kv.MinLeaseTTLMillis, kv.MaxLeaseTTLMillis), true
		case name == "ignore_value":
			op.IgnoreValue = r.p.bool()
		case name == "ignore_lease":
			op.IgnoreLease = r.p.bool()
		case name == "prev" && all:
			op.Prev = r.p.bool()
		default:
			return key.member(r.p, name, "key") || value.member(r.p, name, "value")
		}
		return true
	})
	if r.p.broken {
		return op
	}
	op.Key, op.Value = r.writtenKey("a put", key), value.value
	if len(op.Value) > kv.MaxValueBytes {
		r.x.failLimit(api.CodeValueTooLarge, kv.MaxValueBytes, "a value has at most %d bytes, this one has %d", kv.MaxValueBytes, len(op.Value))
	}
	switch {
	case op.IgnoreValue && (value.given || op.ContentType != ""):
		r.x.fail(api.CodeInvalidArgument, "ignore_value excludes value and content_type")
	case !op.IgnoreValue && !value.given:
		r.x.fail(api.CodeInvalidArgument, "a put needs value, value_base64 or ignore_value")
	}
	r.x.leaseOptions(&op, lease, ttl)
	return op
}

// leaseOptions checks what a put says of its lease, and names the lease that it
// brings along.
func (x *exchange) leaseOptions(op *kv.Op, lease, ttl bool) {
	if lease && ttl || op.IgnoreLease && (lease || ttl) {
		x.fail(api.CodeInvalidArgument, "only one of lease, a time to live and ignore_lease can be given")
		return
	}
	if ttl {
		op.Lease = newULID(x.began)
	}
}

// writtenKey checks the key of a put or an increment.
func (r *txnReader) writtenKey(what string, key jsonBytes) []byte {
	if !key.given {
		r.x.fail(api.CodeInvalidArgument, "%s needs key or key_base64", what)
		return nil
	}
	r.x.checkKey(key.value)
	r.x.checkWritable(key.value)
	return key.value
}

func (r *txnReader) increment() kv.Op {
	op := kv.Op{Type: kv.OpIncrement, By: 1}
	var key jsonBytes
	r.p.object("an increment", func(name string) bool {
		switch name {
		case "by":
			op.By = r.p.int("by")
		default:
			return key.member(r.p, name, "key")
		}
		return true
	})
	if !r.p.broken {
		op.Key = r.writtenKey("an increment", key)
	}
	return op
}

func (r *txnReader) delete(all bool) kv.Op {
	op := kv.Op{Type: kv.OpDelete}
	var keys jsonRange
	r.p.object("a delete", func(name string) bool {
		switch {
		case name == "prev" && all:
			op.Prev = r.p.bool()
		case all:
			return keys.member(r.p, name)
		default:
			return keys.key.member(r.p, name, "key")
		}
		return true
	})
	if r.p.broken {
		return op
	}
	op.Range, _ = keys.resolve(r.x, "a delete")
	if op.Range.Overlaps(reservedRange) {
		r.x.fail(api.CodeReserved, "keys under %s are deleted by Cairn's own recipes alone", kv.ReservedPrefix)
	}
	return op
}

func (r *txnReader) get() kv.Op {
	q := &kv.Query{Limit: defaultPage}
	op := kv.Op{Type: kv.OpGet, Query: q}
	var keys jsonRange
	r.p.object("a get", func(name string) bool {
		switch name {
		case "revision":
			q.Revision = r.p.uint("revision", 1, kv.MaxRevision)
		case "limit":
			q.Limit = int(r.p.uint("limit", 1, maxPage))
		case "order":
			q.Descending = r.p.oneOf("order", "asc", "desc") == "desc"
		case "sort":
			q.Sort = sortTargets[r.p.oneOf("sort", sortWords...)]
		case "keys_only":
			q.KeysOnly = r.p.bool()
		case "count":
			q.Count = r.p.bool()
		case "count_only":
			q.CountOnly = r.p.bool()
		case "min_mod_revision":
			q.MinModRevision = r.p.uint(name, 1, kv.MaxRevision)
		case "max_mod_revision":
			q.MaxModRevision = r.p.uint(name, 1, kv.MaxRevision)
		case "min_create_revision":
			q.MinCreateRevision = r.p.uint(name, 1, kv.MaxRevision)
		case "max_create_revision":
			q.MaxCreateRevision = r.p.uint(name, 1, kv.MaxRevision)
		default:
			return keys.member(r.p, name)
		}
		return true
	})
	if !r.p.broken {
		q.Range, q.PrefixLen = keys.resolve(r.x, "a get")
	}
	return op
}

// sortTargets is what a list can be sorted by; sortWords the same in the order of
// the contract.
var (
	sortTargets = map[string]kv.SortTarget{
		"key": kv.SortByKey, "version": kv.SortByVersion, "create": kv.SortByCreate,
		"mod": kv.SortByMod, "value": kv.SortByValue,
	}
	sortWords = []string{"key", "version", "create", "mod", "value"}
)

// lease reads the name of a lease; empty stands for no lease where that is
// allowed.
func (r *txnReader) lease(what string, orNone bool) (id kv.LeaseID) {
	s := string(r.p.string())
	if r.p.broken || orNone && s == "" {
		return id
	}
	return r.x.parseLease(what, s)
}

func (x *exchange) parseLease(what, s string) kv.LeaseID {
	id, err := ulid.ParseStrict(s)
	if err != nil || id == (kv.LeaseID{}) {
		x.fail(api.CodeInvalidArgument, "%s is %.40q: want the ULID of a lease, 26 letters and digits", what, s)
	}
	return id
}

// compare reads a compare. One beyond the limit is read for its syntax alone.
func (r *txnReader) compare(t *kv.Txn) {
	r.compares++
	if r.compares > kv.MaxTxnOps {
		r.p.skip()
		return
	}
	var c kv.Compare
	var keys jsonRange
	targets := 0
	r.p.object("a compare", func(name string) bool {
		switch name {
		case "value", "value_base64":
			c.Target = kv.TargetValue
			r.operand(&c, func() {
				var v jsonBytes
				v.member(r.p, name, "value")
				c.Bytes = v.value
			})
		case "version":
			c.Target = kv.TargetVers
			r.operand(&c, func() { c.Number = r.p.uint("version", 0, kv.MaxRevision) })
		case "create_revision":
			c.Target = kv.TargetCreate
			r.operand(&c, func() { c.Number = r.p.uint("create_revision", 0, kv.MaxRevision) })
		case "mod_revision":
			c.Target = kv.TargetMod
			r.operand(&c, func() { c.Number = r.p.uint("mod_revision", 0, kv.MaxRevision) })
		case "lease":
			c.Target = kv.TargetLease
			r.operand(&c, func() { c.Lease = r.lease("lease", true) })
		case "exists":
			c.Target, c.Number, c.Operator = kv.TargetVers, 0, kv.Equal
			if r.p.bool() {
				c.Operator = kv.Greater
			}
		default:
			return keys.member(r.p, name)
		}
		targets++
		return true
	})
	if r.p.broken {
		return
	}
	if targets != 1 {
		r.x.fail(api.CodeInvalidArgument, "a compare has exactly one of value, version, create_revision, mod_revision, lease and exists")
	}
	c.Range, _ = keys.resolve(r.x, "a compare")
	t.If = append(t.If, c)
}

var operators = map[string]kv.Operator{
	"eq": kv.Equal, "ne": kv.NotEqual, "gt": kv.Greater, "ge": kv.GreaterOrEqual, "lt": kv.Less, "le": kv.LessOrEqual,
}

// operand reads {"eq":…}.
func (r *txnReader) operand(c *kv.Compare, value func()) {
	members := 0
	r.p.object("a comparison", func(name string) bool {
		op, ok := operators[name]
		if ok {
			c.Operator = op
			value()
			members++
		}
		return ok
	})
	if !r.p.broken && members != 1 {
		r.x.fail(api.CodeInvalidArgument, "a comparison has exactly one of eq, ne, gt, ge, lt and le")
	}
}

// jsonRange is the members of an object that say which keys.
type jsonRange struct{ key, prefix, start, end jsonBytes }

func (k *jsonRange) member(p *jsonParser, name string) bool {
	return k.key.member(p, name, "key") || k.prefix.member(p, name, "prefix") ||
		k.start.member(p, name, "start") || k.end.member(p, name, "end")
}

// resolve returns the range, and the length of its prefix.
func (k *jsonRange) resolve(x *exchange, what string) (kv.Range, int) {
	forms := 0
	for _, given := range []bool{k.key.given, k.prefix.given, k.start.given || k.end.given} {
		if given {
			forms++
		}
	}
	if forms != 1 {
		x.fail(api.CodeInvalidArgument, "%s needs key, or prefix, or start and end", what)
		return kv.Range{}, 0
	}
	if k.key.given {
		x.checkKey(k.key.value)
		return kv.SingleKey(k.key.value), 0
	}
	for _, b := range []jsonBytes{k.prefix, k.start, k.end} {
		if b.given && len(b.value) == 0 {
			x.fail(api.CodeInvalidArgument, "%s has an empty prefix, start or end; leave out what is open", what)
		}
		if len(b.value) > kv.MaxKeyBytes+1 {
			x.failLimit(api.CodeKeyTooLarge, kv.MaxKeyBytes, "a prefix or a bound has at most %d bytes, this one has %s", kv.MaxKeyBytes, strconv.Itoa(len(b.value)))
		}
	}
	if k.prefix.given {
		return kv.Prefix(k.prefix.value), len(k.prefix.value)
	}
	r := kv.Range{Start: k.start.value, End: k.end.value}
	if r.Empty() {
		x.fail(api.CodeRangeInvalid, "start must be before end")
	}
	return r, 0
}
