package kv

// Limits of the data model. Each has a unit, a reason, and a line in
// docs/limits.md. They are constants and not flags: replicas that disagree on
// a limit disagree on the data.
const (
	// MaxKeyBytes bounds a key. A key is stored up to four times and is part of
	// every index, and a path of more than 8 KiB doesn't pass most proxies.
	MaxKeyBytes = 8 << 10
	// SequenceDigits is how many digits a sequence key has behind its prefix. They
	// hold any number of 64 bits, so that byte order is the order of the numbers.
	SequenceDigits = 20
	// MaxValueBytes bounds a value. Larger objects belong in an object store:
	// each one travels through the log of every member.
	MaxValueBytes = 1 << 20
	// MaxContentTypeBytes bounds the stored Content-Type of a value.
	MaxContentTypeBytes = 255
	// MaxPrincipalBytes bounds the name of the caller that a command carries.
	MaxPrincipalBytes = 255
	// MaxIdempotencyKeyBytes bounds an Idempotency-Key.
	MaxIdempotencyKeyBytes = 255

	// MaxTxnOps bounds the operations of a transaction that a client sends,
	// counted through all levels of nesting.
	MaxTxnOps = 128
	// MaxTxnDepth bounds the nesting of transactions: how many levels are below
	// the first.
	MaxTxnDepth = 16
	// MaxBulkOps bounds the operations of one transaction of a bulk write,
	// which the server composes itself.
	MaxBulkOps = 4096

	// MaxRevision is the largest revision: numbers up to it are exact in JSON and in
	// JavaScript.
	MaxRevision = 1<<53 - 1

	// MaxCommandBytes bounds an encoded command: the largest request body and
	// room for what is added to it. The proposer refuses what is larger.
	MaxCommandBytes = 2 << 20
)

// Budget of one command, counted while it is applied and therefore the same on
// every member. Beyond it nothing of the command is applied.
const (
	// BudgetKeysChanged is also the number of keys that one lease may hold,
	// since the end of a lease deletes them all in one transaction.
	BudgetKeysChanged = 100_000
	// BudgetBytesWritten bounds the keys and values that a command writes.
	BudgetBytesWritten = 64 << 20
	// BudgetKeysVisited bounds the keys that a command looks at. Where it reads the values
	// of a range, or anything of the past, each ReadBytesAKey of one count as another key.
	BudgetKeysVisited = 1_000_000
	ReadBytesAKey     = 1 << 10
	// BudgetResultBytes bounds the answer of a command, in which an entry or a common
	// prefix takes ResultEntryBytes beside its own.
	BudgetResultBytes = 4 << 20
	ResultEntryBytes  = 128
)

// Leases and idempotency.
const (
	// MinLeaseTTLMillis is the shortest time to live of a lease: the lease
	// clock advances in steps of 250 ms.
	MinLeaseTTLMillis = 1_000
	// MaxLeaseTTLMillis is the longest, 9,000,000,000 s, the limit of etcd.
	MaxLeaseTTLMillis = 9_000_000_000 * 1_000
	// LeaseGraceMillis is added to the deadline of a lease: a renewal that was
	// answered counts from when it was sent, never from earlier.
	LeaseGraceMillis = 1_000
	// MaxRenewals bounds the leases that one command renews: beyond it, applying
	// the command would hold up the ones behind it.
	MaxRenewals = 10_000
	// MaxClockAdvanceMillis bounds one step of the replicated clock, so that a
	// proposer that slept can't end leases by waking up.
	MaxClockAdvanceMillis = 500
	// IdempotencyWindowMillis is how long an answer is remembered, by the
	// replicated clock.
	IdempotencyWindowMillis = 10 * 60 * 1_000
	// MaxIdempotencyRecords bounds the remembered answers. A full table refuses
	// new keys before anything is proposed; none is evicted early.
	MaxIdempotencyRecords = 1_000_000
	// MaxIdempotencyAnswerBytes bounds a remembered answer. A larger one is
	// remembered without the entries in it, and if that is still too large, the
	// outcome and the revision alone.
	MaxIdempotencyAnswerBytes = 16 << 10
)

// ReservedPrefix is where Cairn's own recipes keep their keys. Everyone may
// read them; only the recipes write them.
const ReservedPrefix = "_cairn/"
