package httpapi

import (
	"crypto/sha256"
	"io"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/kv"
)

// putKey answers PUT on a key.
func (x *exchange) putKey(key []byte) {
	f := form{base64: x.base64Param()}
	op := &x.ops[0]
	*op = kv.Op{
		Type: kv.OpPut, Key: key, Prev: x.boolParam(pPrev),
		IgnoreValue: x.boolParam(pIgnoreValue), IgnoreLease: x.boolParam(pIgnoreLease),
	}
	ifs := x.conditions(key)
	body := x.readPut(op)
	if x.refused() {
		return
	}

	r := x.proposeOps(key, ifs, 1, body)
	if r == nil {
		return
	}
	o := &r.Ops[0]
	status := 200
	if o.Created {
		status = 201
	}
	// The bytes are stored as they came, so the tag of the new version may be
	// given away.
	x.setTag(r.Revision, false)
	x.setLease(o.Lease)
	x.out = f.appendPut(x.out[:0], r.Revision, o)
	x.sendJSON(status, r.Revision)
}

// readPut reads what a request says of the lease and of the value of a put. It
// returns the body.
func (x *exchange) readPut(op *kv.Op) []byte {
	if x.q.present.has(pLease) {
		op.Lease = x.parseLease("lease", x.q.values[pLease])
	}
	op.OwnTTLMillis = x.durationParam(pTTL, kv.MinLeaseTTLMillis, kv.MaxLeaseTTLMillis)
	x.leaseOptions(op, x.q.present.has(pLease), x.q.present.has(pTTL))
	x.checkWritable(op.Key)
	if len(x.r.Header["Content-Range"]) > 0 {
		x.fail(api.CodeInvalidArgument, "Content-Range: a value is put as a whole, not in parts; send all of it without that header")
	}

	if given := x.r.Header["Content-Type"]; len(given) > 0 && !op.IgnoreValue && !isForm(given[0]) {
		op.ContentType = given[0]
		x.checkContentType(op.ContentType)
	}
	x.checkValue(op, x.r.ContentLength) // what is announced; -1 says nothing
	body := x.readWrite()
	x.checkValue(op, int64(len(body)))
	op.Value = body
	return body
}

// checkValue reports a value of a size that a put can't have.
func (x *exchange) checkValue(op *kv.Op, size int64) {
	if size > kv.MaxValueBytes {
		x.failLimit(api.CodeValueTooLarge, kv.MaxValueBytes, "a value has at most %d bytes, this one has %d", kv.MaxValueBytes, size)
	}
	if size > 0 && op.IgnoreValue {
		x.fail(api.CodeInvalidArgument, "ignore_value excludes a body")
	}
}

// deleteKey answers DELETE on a key.
func (x *exchange) deleteKey(key []byte) {
	f := form{base64: x.base64Param()}
	prev := x.boolParam(pPrev)
	ifs := x.conditions(key)
	x.checkWritable(key)
	if x.refused() {
		return
	}
	x.single = append(append(x.single[:0], key...), 0)
	x.ops[0] = kv.Op{
		Type: kv.OpDelete, Prev: prev,
		Range: kv.Range{Start: x.single[:len(key):len(key)], End: x.single},
	}
	r := x.proposeOps(key, ifs, 1, nil)
	if r == nil {
		return
	}
	x.out = f.appendDelete(x.out[:0], r.Revision, prev, r.Ops...)
	x.sendJSON(200, r.Revision)
}

// deleteRange answers DELETE /v1/kv.
func (x *exchange) deleteRange() {
	f := form{base64: x.base64Param()}
	prev, all := x.boolParam(pPrev), x.boolParam(pAll)
	keys := x.rangeParams(true)
	switch {
	case all && !keys.bare:
		x.fail(api.CodeInvalidArgument, "all excludes prefix, start and end")
	case !all && keys.bare:
		x.fail(api.CodeInvalidArgument, "a range delete needs prefix, start or end, or all=true, which deletes every key")
	}
	if !keys.bare && keys.Overlaps(reservedRange) {
		x.fail(api.CodeReserved, "the range overlaps %s, which Cairn's own recipes alone delete", kv.ReservedPrefix)
	}
	if x.refused() {
		return
	}
	parts := keys.parts()
	for i, part := range parts {
		x.ops[i] = kv.Op{Type: kv.OpDelete, Range: part, Prev: prev}
	}
	r := x.proposeOps(nil, nil, len(parts), nil)
	if r == nil {
		return
	}
	x.out = f.appendDelete(x.out[:0], r.Revision, prev, r.Ops...)
	x.sendJSON(200, r.Revision)
}

// proposeOps proposes the first n of x.ops, under conditions on key. It returns
// nil when it has answered: also for a condition that failed, with the version
// that the key has.
func (x *exchange) proposeOps(key []byte, ifs []kv.Compare, n int, body []byte) *kv.Result {
	x.txn = kv.Txn{If: ifs, Then: x.ops[:n]}
	if len(ifs) > 0 {
		x.query = kv.Query{Range: kv.SingleKey(key), KeysOnly: true, Limit: 1}
		x.txn.Else = []kv.Op{{Type: kv.OpGet, Query: &x.query}}
	}
	r := x.proposeTxn(body)
	switch {
	case r == nil:
		return nil
	case !r.Succeeded:
		x.conditionFailed(r)
		return nil
	case len(r.Ops) != n:
		x.s.cfg.Logger.Error("A result does not fit its command.", "request_id", x.id(), "route", x.route.pattern, "operations", n, "results", len(r.Ops))
		x.refuse(api.CodeInternal, "the write was applied, but its result is not what was expected")
		return nil
	}
	return r
}

// conditionFailed answers 412 with the version that the key has instead.
func (x *exchange) conditionFailed(r *kv.Result) {
	var current uint64
	if len(r.Ops) == 1 && r.Ops[0].List != nil && len(r.Ops[0].List.Entries) == 1 {
		current = r.Ops[0].List.Entries[0].ModRevision
		x.setTag(current, false)
		x.fault = newFault(api.CodeConditionFailed, "the key is at another revision than the condition says")
	} else {
		x.fault = newFault(api.CodeConditionFailed, "the key does not exist")
	}
	x.fault.current, x.fault.hasCurrent = current, true
	x.sendProblem(r.Revision)
}

// proposeTxn proposes x.txn, behind the fences of the request. It returns nil when
// it has answered why not.
func (x *exchange) proposeTxn(body []byte) *kv.Result {
	x.command.Kind, x.command.Txn = kv.KindTxn, x.fences.around(&x.txn)
	r := x.propose(body)
	if r == nil {
		return nil
	}
	inner, held := x.fences.inside(r)
	if !held {
		x.refuseStale(r.Revision)
		return nil
	}
	return inner
}

// propose proposes x.command and marks a remembered answer. It returns nil when
// it has answered why there is no result, or why it was refused.
func (x *exchange) propose(body []byte) *kv.Result {
	r := x.resultOf(body)
	if r != nil && r.Code != kv.OK {
		x.refuseResult(r)
		return nil
	}
	return r
}

// resultOf is propose for a caller that looks at a refusal itself.
func (x *exchange) resultOf(body []byte) *kv.Result {
	x.command.Time = x.began.UnixMilli()
	if x.command.IdempotencyKey = x.idempotency; x.idempotency != "" {
		x.command.Fingerprint = x.fingerprint(body)
	}
	if x.command.Kind == kv.KindTxn && !x.awaitAnswer(x.command.Txn) {
		return nil
	}
	r, err := x.s.cfg.Store.Propose(x.r.Context(), &x.command)
	if err != nil {
		x.refuseWrite(err)
		return nil
	}
	if r.Replayed {
		x.w.Header()[api.HeaderReplayed] = valueTrue
		if r.Elided {
			x.w.Header()[api.HeaderElided] = valueTrue
		}
	}
	return r
}

// refuseResult answers what applying a command refused.
func (x *exchange) refuseResult(r *kv.Result) {
	x.fault = resultFault(r)
	x.sendProblem(r.Revision)
}

func resultFault(r *kv.Result) fault {
	f := newFault(codeOf(r.Code), r.Detail)
	if r.Code == kv.Compacted || r.Code == kv.FutureRevision {
		f.current, f.hasCurrent, f.compact = r.Revision, true, r.CompactRevision
	}
	return f
}

// readIdempotencyKey reads the Idempotency-Key, which may stand in quotes.
func (x *exchange) readIdempotencyKey(maxBytes int) {
	given := x.r.Header[api.HeaderIdempotencyKey]
	if len(given) == 0 {
		return
	}
	key := given[0]
	if len(key) >= 2 && key[0] == '"' && key[len(key)-1] == '"' {
		key = key[1 : len(key)-1]
	}
	valid := len(given) == 1 && len(key) > 0 && len(key) <= maxBytes
	for i := 0; valid && i < len(key); i++ {
		valid = key[i] > 0x20 && key[i] < 0x7f && key[i] != '"' && key[i] != '\\'
	}
	if !valid {
		x.failLimit(api.CodeInvalidArgument, int64(maxBytes), "Idempotency-Key: want 1 to %d printable ASCII characters, without spaces, quotes and backslashes", maxBytes)
		return
	}
	x.idempotency = key
}

// fingerprint tells a repetition from another request under the same key: what
// was asked of what, on which condition, with which body.
func (x *exchange) fingerprint(body []byte) (f [16]byte) {
	h := sha256.New()
	for _, part := range []string{x.r.Method, x.r.URL.RequestURI()} {
		_, _ = io.WriteString(h, part)
		_, _ = h.Write([]byte{0})
	}
	for _, name := range [...]string{"If-Match", "If-None-Match", "Content-Type", api.HeaderFencing} {
		for _, value := range x.r.Header[name] {
			_, _ = io.WriteString(h, value)
			_, _ = h.Write([]byte{0})
		}
		_, _ = h.Write([]byte{1})
	}
	_, _ = h.Write(body)
	copy(f[:], h.Sum(nil))
	return f
}
