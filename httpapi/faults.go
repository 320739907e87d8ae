package httpapi

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/kv"
)

// A fault is why a request is refused, with what helps to act on it. The zero
// value is no fault.
type fault struct {
	code   api.Code
	detail string
	rank   int

	current    uint64
	hasCurrent bool
	compact    uint64
	retryAfter int
	limit      int64
	leader     string
	allow      string
	// holder is who holds what was asked for, waiting how many wait for it.
	holder  *api.Holder
	waiting int
	// shed says what there was too much of, when that is known here.
	shed shedReason
}

// fail reports a fault. Of several the one that stands first in api.Table is
// kept, and of two with the same code the one that was reported first.
func (x *exchange) fail(code api.Code, format string, args ...any) {
	rank := code.Rank()
	if x.fault.code != "" && x.fault.rank <= rank {
		return
	}
	x.fault = fault{code: code, rank: rank, detail: printable(fmt.Sprintf(format, args...))}
}

// failLimit is fail for a limit that was passed.
func (x *exchange) failLimit(code api.Code, limit int64, format string, args ...any) {
	before := x.fault
	x.fail(code, format, args...)
	if x.fault != before {
		x.fault.limit = limit
	}
}

// refused answers the fault that was reported, if one was.
func (x *exchange) refused() bool {
	if x.fault.code == "" {
		return false
	}
	current, _ := x.s.cfg.Store.Revisions()
	x.sendProblem(current)
	return true
}

// refuse answers with one fault, whatever was reported.
func (x *exchange) refuse(code api.Code, format string, args ...any) {
	x.fault = fault{}
	x.fail(code, format, args...)
	x.refused()
}

// refuseRead answers an error of a read.
func (x *exchange) refuseRead(err error) {
	x.fault = readFault(err)
	var known *kv.Error
	if x.fault.code == api.CodeInternal || x.fault.code == api.CodeUnavailable && !errors.As(err, &known) {
		x.s.cfg.Logger.Error("A read failed.", "request_id", x.id(), "route", x.route.pattern, "error", err)
	}
	x.refuseFault()
}

// refuseWrite answers an error of a proposal.
func (x *exchange) refuseWrite(err error) {
	x.fault = writeFault(err)
	x.refuseFault()
}

func (x *exchange) refuseFault() {
	switch x.fault.code {
	case api.CodeNotCaughtUp, api.CodeTooStale:
		x.fault.leader = x.leader()
	}
	current, compact := x.s.cfg.Store.Revisions()
	switch x.fault.code {
	case api.CodeFutureRevision, api.CodeCompacted, api.CodeNotCaughtUp:
		if x.fault.current == 0 {
			x.fault.current = current
		}
		if x.fault.compact == 0 && x.fault.code == api.CodeCompacted {
			x.fault.compact = compact
		}
		x.fault.hasCurrent = true
	}
	x.sendProblem(current)
}

// readFault turns an error of a read into a fault. An error without a code is a
// bug, except for the end of the request itself, and what the operating system refuses
// this node: another one may have it.
func readFault(err error) fault {
	var e *kv.Error
	var system syscall.Errno
	switch {
	case errors.As(err, &e):
		return kvFault(e)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return newFault(api.CodeReadTimeout, "the request ended before the read did")
	case errors.As(err, &system):
		f := newFault(api.CodeUnavailable, "this node can't read what it has stored ("+system.Error()+"); ask another node")
		f.retryAfter = 1
		return f
	}
	return newFault(api.CodeInternal, "the read failed; the server's log says why")
}

// writeFault turns an error of a proposal into a fault. An error without a code
// says nothing of what became of the command, so neither do we.
func writeFault(err error) fault {
	var e *kv.Error
	if errors.As(err, &e) {
		return kvFault(e)
	}
	return newFault(api.CodeOutcomeUnknown, "the request ended before its outcome was known")
}

func newFault(code api.Code, detail string) fault {
	return fault{code: code, rank: code.Rank(), detail: printable(detail)}
}

func kvFault(e *kv.Error) fault {
	f := newFault(codeOf(e.Code), e.Detail)
	f.current, f.hasCurrent = e.CurrentRevision, e.CurrentRevision != 0
	f.compact, f.retryAfter = e.CompactRevision, e.RetryAfterSeconds
	return f
}

// codeOf is the API's code for a refusal of the store: the same word.
func codeOf(c kv.Code) api.Code {
	code := api.Code(c.String())
	if _, ok := code.Info(); !ok {
		return api.CodeInternal
	}
	return code
}

// leader is the id of the member that leads, or empty.
func (x *exchange) leader() string {
	status := x.s.cfg.Store.Status()
	return memberOf(&status, status.Leader)
}

// countShed counts a fault that is one of too much to do.
func (x *exchange) countShed() {
	if x.fault.code == api.CodeBusy {
		x.s.admission.shed[cmp.Or(x.fault.shed, shedCluster)].Inc()
	}
}

// sendProblem answers with the fault.
func (x *exchange) sendProblem(revision uint64) {
	f := &x.fault
	info, ok := f.code.Info()
	if !ok {
		info, _ = api.CodeInternal.Info()
	}
	x.countShed()
	h := x.w.Header()
	delete(h, api.HeaderConsistency) // nothing was read
	h["Cache-Control"] = valueNoStore
	h["X-Content-Type-Options"] = valueNosniff
	if f.allow != "" {
		x.setHeader("Allow", f.allow)
	}
	if after := f.pause(info); after > 0 {
		x.setNumber("Retry-After", uint64(after))
	}
	x.out = appendProblem(x.out[:0], f, info, x.id())
	x.out = append(x.out, '\n')
	atOnce := x.leaveBody()
	x.send(info.Status, valueProblem, x.out, revision)
	if atOnce {
		x.hearOut()
	}
}

// pause is after how many seconds it makes sense to try again, or 0.
func (f *fault) pause(info api.CodeInfo) int {
	if f.retryAfter == 0 && (info.Status == 429 || info.Status == 503) {
		return 1
	}
	return f.retryAfter
}

func appendProblem(b []byte, f *fault, info api.CodeInfo, requestID string) []byte {
	b = append(b, `{"type":"`+api.ProblemType...)
	b = append(b, info.Code...)
	b = append(b, `","title":`...)
	b = appendQuoted(b, info.Title)
	b = append(b, `,"status":`...)
	b = strconv.AppendInt(b, int64(info.Status), 10)
	b = append(b, `,"code":"`...)
	b = append(b, info.Code...)
	b = append(b, '"')
	if f.detail != "" {
		b = append(b, `,"detail":`...)
		b = appendQuoted(b, f.detail)
	}
	if f.hasCurrent {
		b = append(b, `,"current_revision":`...)
		b = strconv.AppendUint(b, f.current, 10)
	}
	if f.compact != 0 {
		b = append(b, `,"compact_revision":`...)
		b = strconv.AppendUint(b, f.compact, 10)
	}
	if after := f.pause(info); after != 0 {
		b = append(b, `,"retry_after_seconds":`...)
		b = strconv.AppendInt(b, int64(after), 10)
	}
	if f.limit != 0 {
		b = append(b, `,"limit":`...)
		b = strconv.AppendInt(b, f.limit, 10)
	}
	if f.leader != "" {
		b = append(b, `,"leader":`...)
		b = appendQuoted(b, f.leader)
	}
	if f.holder != nil {
		if holder, err := json.Marshal(f.holder); err == nil {
			b = append(append(b, `,"holder":`...), holder...)
		}
	}
	if f.waiting != 0 {
		b = append(b, `,"waiting":`...)
		b = strconv.AppendInt(b, int64(f.waiting), 10)
	}
	b = append(b, `,"request_id":`...)
	b = appendQuoted(b, requestID)
	return append(b, '}')
}

// printable makes a detail safe to show: what a client sent may be quoted in
// it, cut anywhere.
func printable(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
