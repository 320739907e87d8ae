package kv

import "fmt"

// Code says why something was refused. Codes are part of stored answers and of
// the API: their numbers and their words never change.
type Code uint8

const (
	OK Code = iota
	// Decided while applying.
	LeaseNotFound
	LeaseExists
	NotANumber
	Compacted
	FutureRevision
	TransactionTooLarge
	NoSpace
	KeyNotFound
	DuplicateKey
	IdempotencyMismatch
	AuthChanged
	MemberExists
	// Decided before or around the log; nothing was applied.
	NoLeader
	Busy
	NotCaughtUp
	TooStale
	Unavailable
	ShuttingDown
	IdempotencyFull
	ReadTimeout
	// The only one after which a command may or may not have been applied.
	OutcomeUnknown
	// Decided while applying.
	KeyExists

	// Decided by the recipes of coordination, from what a transaction gave.
	LockHeld
	NotElected
	NotHolder

	// Decided while applying, and by a node that waits for it: the store is being
	// filled from a backup.
	Restoring

	// Decided by a node whose content differs from the others', or might.
	CorruptContent
	// Decided while applying.
	MemberNotFound
	// JoinRefused: the token is none, is used up or has ended.
	JoinRefused
	// WrongMemberState: the member is not in the state that the change needs.
	WrongMemberState

	// Decided before a change of members is proposed: too few voters would be
	// left that answer, or the learner is behind.
	QuorumAtRisk
	LearnerBehind
	codeEnd
)

var codeWords = [codeEnd]string{
	OK:                  "ok",
	LeaseNotFound:       "lease-not-found",
	LeaseExists:         "lease-exists",
	NotANumber:          "not-a-number",
	Compacted:           "compacted",
	FutureRevision:      "future-revision",
	TransactionTooLarge: "transaction-too-large",
	NoSpace:             "no-space",
	KeyNotFound:         "key-not-found",
	DuplicateKey:        "duplicate-key",
	IdempotencyMismatch: "idempotency-mismatch",
	AuthChanged:         "auth-changed",
	MemberExists:        "member-exists",
	NoLeader:            "no-leader",
	Busy:                "busy",
	NotCaughtUp:         "not-caught-up",
	TooStale:            "too-stale",
	Unavailable:         "unavailable",
	ShuttingDown:        "shutting-down",
	IdempotencyFull:     "idempotency-full",
	ReadTimeout:         "read-timeout",
	OutcomeUnknown:      "outcome-unknown",
	KeyExists:           "key-exists",
	LockHeld:            "lock-held",
	NotElected:          "not-elected",
	NotHolder:           "not-holder",
	Restoring:           "restoring",
	CorruptContent:      "corrupt",
	MemberNotFound:      "member-not-found",
	JoinRefused:         "join-refused",
	WrongMemberState:    "wrong-member-state",
	QuorumAtRisk:        "quorum-at-risk",
	LearnerBehind:       "learner-behind",
}

// String returns the stable word of the code.
func (c Code) String() string {
	if c < codeEnd {
		return codeWords[c]
	}
	return fmt.Sprintf("code-%d", uint8(c))
}

// Codes lists every code but OK.
func Codes() []Code {
	all := make([]Code, 0, codeEnd-1)
	for c := OK + 1; c < codeEnd; c++ {
		all = append(all, c)
	}
	return all
}

// Error is a refusal with what helps to act on it.
type Error struct {
	Code   Code
	Detail string
	// CurrentRevision and CompactRevision are set where they help, else 0.
	CurrentRevision, CompactRevision uint64
	// RetryAfterSeconds suggests when to try again; 0 means no suggestion.
	RetryAfterSeconds int
}

func (e *Error) Error() string { return e.Code.String() + ": " + e.Detail }

// Is makes errors.Is compare by code.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code
}

// Errorf makes an Error.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Detail: fmt.Sprintf(format, args...)}
}
