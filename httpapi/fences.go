package httpapi

import (
	"strings"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/coordination"
	"github.com/cairnkv/cairn/kv"
)

// fences bind a write to holders of locks and to leaders: compares that must all
// hold for it to be applied. They stand in a transaction around that of the
// request, so that what the request asks for, conditions included, stays as it is.
type fences []kv.Compare

// maxFences bounds the fences of a request.
const maxFences = 16

// readFences reads the Cairn-Fencing header: fences, separated by commas. A route
// that is no transaction can't be bound, and says so rather than ignore it.
func (x *exchange) readFences(given []string, fenced bool) {
	if !fenced {
		x.fail(api.CodeInvalidArgument, "this route can't be bound by Cairn-Fencing")
		return
	}
	for text := range strings.SplitSeq(strings.Join(given, ","), ",") {
		c, err := coordination.ParseFence(strings.Trim(text, " \t"))
		if err != nil {
			x.fail(api.CodeInvalidArgument, "Cairn-Fencing: %v", err)
			return
		}
		x.fences = append(x.fences, c)
	}
	if len(x.fences) > maxFences {
		x.failLimit(api.CodeInvalidArgument, maxFences, "Cairn-Fencing has at most %d fences, this one has %d", maxFences, len(x.fences))
	}
}

// around is the transaction behind the fences.
func (f fences) around(txn *kv.Txn) *kv.Txn {
	if len(f) == 0 {
		return txn
	}
	return &kv.Txn{If: f, Then: []kv.Op{{Type: kv.OpTxn, Txn: txn}}}
}

// held reports whether the fences held.
func (f fences) held(r *kv.Result) bool { return len(f) == 0 || r.Succeeded }

// inside is the result of the transaction that stood behind the fences, if they
// held.
func (f fences) inside(r *kv.Result) (*kv.Result, bool) {
	if len(f) == 0 || !r.Succeeded {
		return r, len(f) == 0
	}
	if len(r.Ops) != 1 || r.Ops[0].Txn == nil {
		return r, true // what is remembered of a large answer
	}
	inner := *r.Ops[0].Txn
	inner.Replayed, inner.Elided = r.Replayed, r.Elided
	return &inner, true
}

func staleFault() fault {
	return newFault(api.CodeFencingTokenStale, "nothing was applied: a fence of the request is not that of a holder")
}

// refuseStale answers a write whose fences did not hold.
func (x *exchange) refuseStale(revision uint64) {
	x.fault = staleFault()
	x.sendProblem(revision)
}
