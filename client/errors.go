package client

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/cairnkv/cairn/api"
)

// Error is how a call ends that was refused, that reached no node, or whose
// outcome is unknown. Ask what it was with errors.Is and the Err variables, or
// look at Problem.Code.
type Error struct {
	// Problem is what the node said. If no node said anything, the client made
	// it: its Status is 0, and its Code is unavailable or outcome-unknown.
	Problem api.Problem
	// Endpoint is the node that was asked last.
	Endpoint string
	// Attempts is how many times the client has tried to send the request.
	Attempts int
	// Cause is what went wrong on this side, such as a connection that broke or
	// a context that ended, or nil.
	Cause error
	// doubted says of a refusal that an attempt before it may have been applied.
	doubted bool
}

// Error says what happened, in one line.
func (e *Error) Error() string {
	s := e.Problem.Error()
	if e.Problem.Code == "" { // an answer that is not Cairn's
		s = strings.TrimSuffix(s, " ()")
	}
	if e.Cause != nil {
		s += ": " + oneLine(e.Cause.Error())
	}
	return s
}

// Unwrap returns the cause, so that errors.Is finds context.DeadlineExceeded.
func (e *Error) Unwrap() error { return e.Cause }

// Is makes errors.Is compare with the Err variables.
func (e *Error) Is(target error) bool {
	s, ok := target.(*sentinel)
	return ok && s.matches(&e.Problem)
}

// Class says what a caller does about the error.
func (e *Error) Class() api.Class { return e.Problem.Class() }

// A sentinel stands for all errors of one code, or of one class.
type sentinel struct {
	text  string
	code  api.Code
	class api.Class
}

func (s *sentinel) Error() string { return "cairn: " + s.text }

func (s *sentinel) matches(p *api.Problem) bool {
	if s.code != "" {
		return p.Code == s.code
	}
	return p.Class() == s.class
}

// What a call can end with, to be asked with errors.Is.
var (
	// ErrNotFound: the key does not exist (at the revision that was read).
	ErrNotFound error = &sentinel{text: "the key does not exist", code: api.CodeKeyNotFound}
	// ErrLeaseNotFound: the lease does not exist or has ended.
	ErrLeaseNotFound error = &sentinel{text: "the lease does not exist", code: api.CodeLeaseNotFound}
	// ErrLeaseExists: a lease with that id or number exists.
	ErrLeaseExists error = &sentinel{text: "a lease with this name exists", code: api.CodeLeaseExists}
	// ErrConditionFailed: the key is not as the condition of the write says.
	// Problem.CurrentRevision is its mod_revision, 0 if it does not exist.
	ErrConditionFailed error = &sentinel{text: "the condition does not hold", code: api.CodeConditionFailed}
	// ErrCompacted: the revision is older than what history holds.
	ErrCompacted error = &sentinel{text: "the revision is compacted", code: api.CodeCompacted}
	// ErrFutureRevision: the revision does not exist yet.
	ErrFutureRevision error = &sentinel{text: "the revision does not exist yet", code: api.CodeFutureRevision}
	// ErrNotANumber: the value can't be incremented.
	ErrNotANumber error = &sentinel{text: "the value is not a number", code: api.CodeNotANumber}
	// ErrNoSpace: the storage quota is used up; deletes and reads go on.
	ErrNoSpace error = &sentinel{text: "the storage quota is used up", code: api.CodeNoSpace}
	// ErrReserved: keys under _cairn/ are written by Cairn alone.
	ErrReserved error = &sentinel{text: "the key is reserved", code: api.CodeReserved}
	// ErrLockHeld: another holds the lock. Problem.Holder says who.
	ErrLockHeld error = &sentinel{text: "the lock is held", code: api.CodeLockHeld}
	// ErrNotElected: another candidate leads.
	ErrNotElected error = &sentinel{text: "another candidate leads", code: api.CodeNotElected}
	// ErrNotHolder: the lock or the lead was lost, or never held.
	ErrNotHolder error = &sentinel{text: "the token is not that of a holder", code: api.CodeNotHolder}
	// ErrFenced: the holder for whom the write was made has lost its lock.
	ErrFenced error = &sentinel{text: "the holder has lost its lock", code: api.CodeFencingTokenStale}

	// ErrInvalid: the request is wrong, and sending it again can't help.
	ErrInvalid error = &sentinel{text: "the request is not valid", class: api.ClassUsage}
	// ErrForbidden: the caller may not do this.
	ErrForbidden error = &sentinel{text: "forbidden", class: api.ClassForbidden}
	// ErrUnavailable: no node could serve the request now. Nothing was applied.
	ErrUnavailable error = &sentinel{text: "unavailable", class: api.ClassUnavailable}
	// ErrOutcomeUnknown: the write was applied once or not at all, and the
	// client can't tell which.
	ErrOutcomeUnknown error = &sentinel{text: "the outcome is unknown", class: api.ClassUnknown}
)

// invalid is the error of a request that can't be made of what the caller gave.
func invalid(endpoint, title string, cause error) *Error {
	info, _ := api.CodeInvalidArgument.Info()
	return &Error{
		Problem:  api.Problem{Status: info.Status, Code: info.Code, Title: title},
		Endpoint: endpoint, Cause: cause,
	}
}

// unavailable is the error of a request that no node served. Nothing was
// applied.
func unavailable(endpoint string, cause error) *Error {
	info, _ := api.CodeUnavailable.Info()
	return &Error{
		Problem: api.Problem{
			Type: api.ProblemType + string(info.Code), Code: info.Code,
			Title: "No answer from " + endpoint,
		},
		Endpoint: endpoint, Cause: cause,
	}
}

// unknown is the error of a write that may have been applied.
func unknown(endpoint string, cause error) *Error {
	info, _ := api.CodeOutcomeUnknown.Info()
	return &Error{
		Problem: api.Problem{
			Type: api.ProblemType + string(info.Code), Code: info.Code,
			Title: info.Title, Detail: "no answer from " + endpoint,
		},
		Endpoint: endpoint, Cause: cause,
	}
}

// foreign is the error of an answer that is not Cairn's.
func foreign(endpoint string, status int, body string) *Error {
	detail := oneLine(body)
	if len(detail) > 200 {
		detail = detail[:200] + "…"
	}
	return &Error{
		Problem: api.Problem{
			Status: status, Title: fmt.Sprintf("%s answered with status %d, and not as Cairn does", endpoint, status),
			Detail: detail,
		},
		Endpoint: endpoint,
	}
}

// endpointOf is where an answer came from.
func endpointOf(resp *http.Response) string {
	return resp.Request.URL.Scheme + "://" + resp.Request.URL.Host
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
