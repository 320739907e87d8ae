package api

import "fmt"

// Code is the stable word for what went wrong. Codes are never renamed.
type Code string

// Decided before there is a request: what came can't be read as one, and the
// connection ends.
const (
	CodeMalformedRequest          Code = "malformed-request"
	CodeHeaderTooLarge            Code = "header-too-large"
	CodeExpectationFailed         Code = "expectation-failed"
	CodeUnsupportedTransferCoding Code = "unsupported-transfer-coding"
	CodeUnsupportedHTTPVersion    Code = "unsupported-http-version"
)

// Decided from the first line and the headers of a request.
const (
	CodeHostNotAllowed       Code = "host-not-allowed"
	CodeOriginNotAllowed     Code = "origin-not-allowed"
	CodeNotFound             Code = "not-found"
	CodeMethodNotAllowed     Code = "method-not-allowed"
	CodeUnsupportedMediaType Code = "unsupported-media-type"
	CodeNotAcceptable        Code = "not-acceptable"
)

// Decided from what a request asks for.
const (
	CodeRequestTimeout  Code = "request-timeout"
	CodeRequestTooLarge Code = "request-too-large"
	CodeTooDeep         Code = "too-deep"
	CodeBadJSON         Code = "bad-json"
	CodeTooManyOps      Code = "too-many-ops"
	CodeDuplicateField  Code = "duplicate-field"
	CodeUnknownField    Code = "unknown-field"
	CodeBadKeyEncoding  Code = "bad-key-encoding"
	CodeKeyEmpty        Code = "key-empty"
	CodeKeyTooLarge     Code = "key-too-large"
	CodeValueTooLarge   Code = "value-too-large"
	CodeInvalidArgument Code = "invalid-argument"
	CodeRangeInvalid    Code = "range-invalid"
	CodeBadCursor       Code = "bad-cursor"
	CodeDuplicateKey    Code = "duplicate-key"
	CodeReserved        Code = "reserved"
)

// Decided by the node that serves the request.
const (
	CodeShuttingDown    Code = "shutting-down"
	CodeRestoring       Code = "restoring"
	CodeCorrupt         Code = "corrupt"
	CodeNoLeader        Code = "no-leader"
	CodeNotCaughtUp     Code = "not-caught-up"
	CodeTooStale        Code = "too-stale"
	CodeReadTimeout     Code = "read-timeout"
	CodeBusy            Code = "busy"
	CodeIdempotencyFull Code = "idempotency-full"
	CodeUnavailable     Code = "unavailable"
)

// Decided by the replicated state.
const (
	CodeIdempotencyMismatch Code = "idempotency-mismatch"
	CodeAuthChanged         Code = "auth-changed"
	CodeFutureRevision      Code = "future-revision"
	CodeCompacted           Code = "compacted"
	CodeNoSpace             Code = "no-space"
	CodeConditionFailed     Code = "condition-failed"
	CodeKeyNotFound         Code = "key-not-found"
	CodeLeaseNotFound       Code = "lease-not-found"
	CodeLeaseExists         Code = "lease-exists"
	CodeKeyExists           Code = "key-exists"
	CodeMemberExists        Code = "member-exists"
	CodeMemberNotFound      Code = "member-not-found"
	CodeJoinRefused         Code = "join-refused"
	CodeWrongMemberState    Code = "wrong-member-state"
	CodeQuorumAtRisk        Code = "quorum-at-risk"
	CodeLearnerBehind       Code = "learner-behind"
	CodeNotANumber          Code = "not-a-number"
	CodeTransactionTooLarge Code = "transaction-too-large"
	CodeFencingTokenStale   Code = "fencing-token-stale"
	CodeLockHeld            Code = "lock-held"
	CodeNotElected          Code = "not-elected"
	CodeNotHolder           Code = "not-holder"
)

// What is left.
const (
	CodeOutcomeUnknown Code = "outcome-unknown"
	CodeInternal       Code = "internal"
)

// Class says what a caller does about an error. The command line makes its exit
// status of it.
type Class uint8

const (
	// ClassInternal: a bug, or an answer that makes no sense.
	ClassInternal Class = 1
	// ClassUsage: the request is wrong; sending it again can't help.
	ClassUsage Class = 2
	// ClassNotFound: the key or the lease is not there.
	ClassNotFound Class = 3
	// ClassConflict: the state is not what the request needs.
	ClassConflict Class = 4
	// ClassForbidden: the caller may not.
	ClassForbidden Class = 5
	// ClassUnavailable: nothing was applied; the same request may succeed later
	// or on another node.
	ClassUnavailable Class = 6
	// ClassUnknown: the write may or may not have been applied.
	ClassUnknown Class = 7
)

// CodeInfo is a line of the table of errors.
type CodeInfo struct {
	Code   Code
	Status int    // of the HTTP answer
	Class  Class  // what a caller does about it
	Title  string // the same for every occurrence
}

// Table is every code in order of precedence.
var Table = []CodeInfo{
	{CodeMalformedRequest, 400, ClassUsage, "The request is not well-formed HTTP"},
	{CodeHeaderTooLarge, 431, ClassUsage, "The headers are too large"},
	{CodeExpectationFailed, 417, ClassUsage, "The expectation of the request can't be met"},
	{CodeUnsupportedTransferCoding, 501, ClassUsage, "The body has a transfer coding that is not supported"},
	{CodeUnsupportedHTTPVersion, 505, ClassUsage, "The version of HTTP is not supported"},

	{CodeHostNotAllowed, 421, ClassUsage, "This server does not answer for that host"},
	{CodeOriginNotAllowed, 403, ClassForbidden, "A page of another origin may not change anything"},
	{CodeNotFound, 404, ClassUsage, "There is no such route"},
	{CodeMethodNotAllowed, 405, ClassUsage, "The route does not have this method"},
	{CodeUnsupportedMediaType, 415, ClassUsage, "The body is of a type that the route does not take"},
	{CodeNotAcceptable, 406, ClassUsage, "The answer has no form that the request accepts"},

	{CodeRequestTimeout, 408, ClassUnavailable, "The body took too long to arrive"},
	{CodeRequestTooLarge, 413, ClassUsage, "The body is too large"},
	{CodeTooDeep, 400, ClassUsage, "The JSON is nested too deep"},
	{CodeBadJSON, 400, ClassUsage, "The body is not the JSON that the route takes"},
	{CodeTooManyOps, 400, ClassUsage, "The transaction has too many operations"},
	{CodeDuplicateField, 400, ClassUsage, "A field of the JSON is given twice"},
	{CodeUnknownField, 400, ClassUsage, "The JSON has a field that the route does not know"},
	{CodeBadKeyEncoding, 400, ClassUsage, "The key is not properly encoded"},
	{CodeKeyEmpty, 400, ClassUsage, "A key can't be empty"},
	{CodeKeyTooLarge, 400, ClassUsage, "The key is too large"},
	{CodeValueTooLarge, 413, ClassUsage, "The value is too large"},
	{CodeInvalidArgument, 400, ClassUsage, "An argument is not valid"},
	{CodeRangeInvalid, 400, ClassUsage, "The range ends before it begins"},
	{CodeBadCursor, 400, ClassUsage, "The cursor does not belong to this request"},
	{CodeDuplicateKey, 400, ClassUsage, "The transaction writes a key twice"},
	{CodeReserved, 403, ClassForbidden, "Keys under _cairn/ are written by Cairn alone"},

	{CodeShuttingDown, 503, ClassUnavailable, "The node is shutting down"},
	{CodeRestoring, 503, ClassUnavailable, "The store is being filled from a backup"},
	{CodeCorrupt, 503, ClassUnavailable, "The node's content can't be trusted"},
	{CodeNoLeader, 503, ClassUnavailable, "The cluster has no leader"},
	{CodeNotCaughtUp, 503, ClassUnavailable, "The node has not applied that revision yet"},
	{CodeTooStale, 503, ClassUnavailable, "The node's state is older than the request allows"},
	{CodeReadTimeout, 503, ClassUnavailable, "The read took too long"},
	{CodeBusy, 429, ClassUnavailable, "The node has too much to do"},
	{CodeIdempotencyFull, 429, ClassUnavailable, "Too many idempotency keys are remembered"},
	{CodeUnavailable, 503, ClassUnavailable, "The node can't serve this now"},

	{CodeIdempotencyMismatch, 422, ClassConflict, "The idempotency key was used for another request"},
	{CodeAuthChanged, 409, ClassUnavailable, "Permissions changed while the request was on its way"},
	{CodeFutureRevision, 400, ClassUsage, "The revision does not exist yet"},
	{CodeCompacted, 410, ClassNotFound, "History before that revision is gone"},
	{CodeNoSpace, 507, ClassConflict, "The storage quota is used up"},
	{CodeConditionFailed, 412, ClassConflict, "The condition of the request does not hold"},
	{CodeKeyNotFound, 404, ClassNotFound, "The key does not exist"},
	{CodeLeaseNotFound, 404, ClassNotFound, "The lease does not exist"},
	{CodeLeaseExists, 409, ClassConflict, "A lease with this name exists"},
	{CodeKeyExists, 409, ClassConflict, "The next key of the sequence exists already"},
	{CodeMemberExists, 409, ClassConflict, "Another member has this replica id, name or address"},
	{CodeMemberNotFound, 404, ClassNotFound, "There is no such member"},
	{CodeJoinRefused, 403, ClassForbidden, "The join token is not good for this"},
	{CodeWrongMemberState, 409, ClassConflict, "The member is not in a state for this"},
	{CodeQuorumAtRisk, 409, ClassConflict, "Too few voters would be left that answer"},
	{CodeLearnerBehind, 409, ClassConflict, "The learner has not caught up"},
	{CodeNotANumber, 409, ClassConflict, "The value can't be incremented"},
	{CodeTransactionTooLarge, 413, ClassConflict, "The transaction does more than one may"},
	{CodeFencingTokenStale, 412, ClassConflict, "The holder that the write was made for has lost its lock"},
	{CodeLockHeld, 409, ClassConflict, "The lock is held by another"},
	{CodeNotElected, 409, ClassConflict, "Another candidate leads"},
	{CodeNotHolder, 403, ClassForbidden, "The token is not that of a holder"},

	{CodeOutcomeUnknown, 504, ClassUnknown, "The write may or may not have been applied"},
	{CodeInternal, 500, ClassInternal, "Something went wrong inside the server"},
}

var rankOf = func() map[Code]int {
	ranks := make(map[Code]int, len(Table))
	for i := range Table {
		ranks[Table[i].Code] = i
	}
	return ranks
}()

// Info returns the line of the table for a code, and whether it has one.
func (c Code) Info() (CodeInfo, bool) {
	i, ok := rankOf[c]
	if !ok {
		return CodeInfo{}, false
	}
	return Table[i], true
}

// Rank is the place of a code in the table. A code that is not in it comes
// last.
func (c Code) Rank() int {
	if i, ok := rankOf[c]; ok {
		return i
	}
	return len(Table)
}

// ProblemType begins the type of every problem; the code follows.
const ProblemType = "urn:cairn:problem:"

// Problem is the body of an answer that is not a success, as
// application/problem+json.
type Problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Code   Code   `json:"code"`
	// Detail says for people what was wrong in this case.
	Detail    string `json:"detail,omitempty"`
	RequestID string `json:"request_id,omitempty"`

	// CurrentRevision is, with condition-failed, the mod_revision of the key (0
	// when it does not exist), otherwise the revision of the store.
	CurrentRevision *uint64 `json:"current_revision,omitempty"`
	// CompactRevision is the oldest revision that can still be read.
	CompactRevision uint64 `json:"compact_revision,omitempty"`
	// RetryAfterSeconds suggests when to try again.
	RetryAfterSeconds int `json:"retry_after_seconds,omitempty"`
	// Limit is the limit that was passed.
	Limit int64 `json:"limit,omitempty"`
	// Leader is the member that leads, when another node had better be asked.
	Leader string `json:"leader,omitempty"`
	// Holder is who holds what was asked for, and Waiting how many wait for it.
	Holder  *Holder `json:"holder,omitempty"`
	Waiting int     `json:"waiting,omitempty"`
}

// Error makes a problem an error.
func (p *Problem) Error() string {
	if p.Detail == "" {
		return fmt.Sprintf("%s (%s)", p.Title, p.Code)
	}
	return fmt.Sprintf("%s: %s (%s)", p.Title, p.Detail, p.Code)
}

// Is makes errors.Is compare by code, so that errors.Is(err, &Problem{Code:
// CodeKeyNotFound}) asks what happened.
func (p *Problem) Is(target error) bool {
	t, ok := target.(*Problem)
	return ok && t.Code == p.Code
}

// Class is the class of the problem's code. A code that this version does not
// know is classed by its status.
func (p *Problem) Class() Class {
	if info, ok := p.Code.Info(); ok {
		return info.Class
	}
	switch s := p.Status; {
	case s == 504:
		return ClassUnknown
	case s == 404 || s == 410:
		return ClassNotFound
	case s == 401 || s == 403:
		return ClassForbidden
	case s == 409 || s == 412 || s == 422:
		return ClassConflict
	case s == 429 || s == 503:
		return ClassUnavailable
	case s >= 400 && s < 500:
		return ClassUsage
	}
	return ClassInternal
}
