package watchers

// limits bounds what a hub and its streams hold. The values are those of
// defaultLimits, but for tests. Each has a line in docs/limits.md.
type limits struct {
	// queueBytes bounds what is applied and not dispatched. Beyond it the hub
	// forgets, and every stream reads history: memory must not follow how far
	// the dispatcher is behind.
	queueBytes int
	// pendingChanges and pendingBytes bound the queue of a stream.
	pendingChanges, pendingBytes int
	// pieceBytes and pieceVisits bound what one read of history returns, and how
	// many changes it looks at: between two pieces the reader writes, sees that
	// its client is gone, and lets go of the store. A revision is parted only when
	// it alone is larger than partBytes or twice the visits.
	pieceBytes, pieceVisits, partBytes int
	// shortGap is how many revisions a stream reads from history while it is live
	// already.
	shortGap uint64
}

var defaultLimits = limits{
	queueBytes:     16 << 20,
	pendingChanges: 1024,
	pendingBytes:   256 << 10,
	pieceBytes:     64 << 10,
	pieceVisits:    64 << 10,
	partBytes:      512 << 10,
	shortGap:       256,
}

const (
	// idleChanges is the room for changes that the queue of a waiting stream
	// keeps.
	idleChanges = 8
	// perEventBytes is what an event takes besides its key and value.
	perEventBytes = 160
)
