package api

// Headers of requests and answers, in canonical form.
const (
	// HeaderRevision is on every answer: the revision of the store as of that
	// answer. Sent back as min_revision it makes a client read its own writes
	// on any node.
	HeaderRevision = "Cairn-Revision"
	// HeaderMember is on every answer: the member that gave it.
	HeaderMember = "Cairn-Member"
	// HeaderRequestID is taken over from the request when it is well-formed.
	HeaderRequestID = "X-Request-Id"
	// HeaderDigest is the trailer of a backup: the SHA-256 of the file, as of RFC
	// 9530.
	HeaderDigest = "Repr-Digest"
	// HeaderConsistency says what a read was that was not linearizable.
	HeaderConsistency = "Cairn-Consistency"

	// Of a raw value.
	HeaderModRevision    = "Cairn-Mod-Revision"
	HeaderCreateRevision = "Cairn-Create-Revision"
	HeaderVersion        = "Cairn-Version"
	HeaderLease          = "Cairn-Lease"

	// HeaderIdempotencyKey makes a write that is sent again apply once.
	HeaderIdempotencyKey = "Idempotency-Key"
	// HeaderReplayed marks an answer that was remembered, HeaderElided one of
	// which the entries were too large to be remembered.
	HeaderReplayed = "Idempotency-Replayed"
	HeaderElided   = "Idempotency-Elided"

	// HeaderFencing binds a write to a holder of a lock or to a leader: it is
	// applied only as long as that one is. Of several fences all must hold.
	HeaderFencing = "Cairn-Fencing"
)

// Media types of bodies.
const (
	TypeJSON    = "application/json"
	TypeNDJSON  = "application/x-ndjson"
	TypeBackup  = "application/vnd.cairn.backup"
	TypeProblem = "application/problem+json"
	TypeOctets  = "application/octet-stream"
	TypeText    = "text/plain; charset=utf-8"
)
