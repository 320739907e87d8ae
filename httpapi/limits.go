package httpapi

import "time"

// Limits of this face. Each has a line in docs/limits.md.
const (
	// maxBodyBytes bounds a request body, and a line of a bulk write: the
	// largest value as base64 and room for what stands around it.
	maxBodyBytes = 3 << 19 // 1.5 MiB
	// maxHeaderBytes bounds the request line and the headers together. A cursor
	// in a URL takes up to 11 KiB.
	maxHeaderBytes = 32 << 10
	// maxJSONDepth bounds the nesting of JSON. A transaction inside another takes
	// three levels, so that nine of them fit, less than kv.MaxTxnDepth.
	maxJSONDepth = 32

	// defaultPage and maxPage bound the entries of a page, maxPageBytes their
	// size: what one answer may take of a node's memory.
	defaultPage  = 100
	maxPage      = 10_000
	maxPageBytes = 4 << 20

	// bulkChunkBytes is where a transaction of a bulk write is closed. A line
	// may carry it beyond that, so twice as much must fit a command.
	bulkChunkBytes = 768 << 10

	// maxSnapshots bounds the backups that are streamed at a time: each holds on to
	// what compaction would remove.
	maxSnapshots = 2

	// maxWatched bounds the keys, prefixes and ranges of a watch, maxWatchName the
	// name of one.
	maxWatched   = 1000
	maxWatchName = 255
	// maxMessageBytes is where a revision is parted into several messages: clients
	// hold a message in memory, and some bound it.
	maxMessageBytes = 1 << 20
	// initialEntries and initialBytes bound a message of the present state.
	initialEntries = 1000
	initialBytes   = 256 << 10
	// A bookmark that comes more often than once a second tells nothing new; one
	// an hour is no sign of life. A long poll ends before proxies give up.
	minBookmarkMillis = 1000
	maxBookmarkMillis = 3600_000
	maxPollMillis     = 300_000
	// maxHoldSilence bounds for how long the machine of a client that holds a lease
	// may be silent, where the time to live does not; holdProbes is how often it is
	// asked within that, so that a lost packet or two end no hold.
	maxHoldSilence = 45 * time.Second
	holdProbes     = 3
	// heldLeaseBytes is the memory of one lease in a hold of several. It counts
	// towards maxHeldBytes.
	heldLeaseBytes = 256
	// maxWaiterSilence is the same for a client that waits for its turn: as long as
	// its place in the queue would outlive a node that was killed.
	maxWaiterSilence = 10 * time.Second
	// minRetry and maxRetry bound the pause that a client is told to make before it
	// connects again.
	minRetry = time.Second
	maxRetry = 4 * time.Second

	// unsentBytes bounds what the kernel buffers of what was not sent yet, for each
	// connection, where the kernel can be told. Left to itself it takes up to 4 MiB,
	// which a watch fills before it is seen to be slow.
	unsentBytes = 128 << 10

	// maxUnread bounds what a request of HTTP/2 sends of a body that nobody reads at the
	// moment. net/http keeps it, where that of HTTP/1.1 waits in the kernel.
	maxUnread = 256 << 10

	// maxStreams bounds the concurrent requests of an HTTP/2 connection.
	maxStreams = 250

	// streamsPercent is how many of the connections that there may be can be streams:
	// the others are left for requests when watches take all that they can get.
	// Requests under way are bounded by the number of connections, so that HTTP/2
	// gets no more of a node than HTTP/1.1.
	streamsPercent = 80
	// maxConditionTags bounds the entity tags of a condition: each is a compare where the write is
	// applied, and carries the key.
	maxConditionTags = 16
	// maxPagesRead bounds the pages of lists that are being read at a time, each of
	// which takes up to maxPageBytes twice. More would not be faster.
	maxPagesRead = 32
	// maxSortsRead bounds those of them that are sorted by something else than the key,
	// each of which holds up to 64 MiB of entries until it knows the first ones, and
	// maxHashes the hashes of everything.
	maxSortsRead = 2
	maxHashes    = 2
	// maxPagesWaiting bounds the lists that wait, for up to pageWait, for others to be
	// read.
	maxPagesWaiting = 256
	pageWait        = time.Second
	// maxHeldBytes bounds the answers that are in memory, at large those above
	// freeBytes: clients that are slow hold them for long. maxHeldBodyBytes is the same
	// for bodies; all of them fit into the queue of what waits for the cluster, so
	// that none is received in vain.
	maxHeldBytes     = 256 << 20
	maxHeldBodyBytes = 96 << 20
	freeBytes        = 16 << 10
	// maxHeldLineBytes is the same for what bulk writes have read and not applied: up
	// to some 2.5 MiB each, of small lines more than of large ones.
	maxHeldLineBytes = 128 << 20
	// maxLoans bounds the watches that hold a piece of history or a page of the present
	// state, of up to some 2 MiB with its text. loanPatience is for how long one may be in
	// a write of it while others wait.
	maxLoans     = 64
	loanPatience = 10 * time.Second
	// maxScrapes bounds the metrics that are being read at a time.
	maxScrapes = 8
	// heardAtOnce is how much is read at a time of a body that is not wanted, from as
	// many clients as maxHearing; from others in pieces of 8 KiB, as they can be very
	// many.
	heardAtOnce = 256 << 10
	maxHearing  = 64
)
