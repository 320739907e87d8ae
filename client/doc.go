// Package client is the Go client of Cairn.
//
//	c, err := client.New(client.Config{Endpoints: []string{"http://127.0.0.1:7480"}})
//	…
//	put, err := c.Put(ctx, "config/limit", []byte("10"))
//	entry, err := c.Get(ctx, "config/limit")
//	_, err = c.Put(ctx, "config/limit", []byte("20"), client.IfRevision(entry.ModRevision))
//	if errors.Is(err, client.ErrConditionFailed) { … }
//
// It speaks plain HTTP and JSON and needs nothing of Cairn but package api. A
// [Client] is safe for concurrent use; make one and share it.
//
// # Keys
//
// A key is a Go string of any bytes. Where several keys are meant, a [Keys]
// says which: [Prefix], [Range], [Key] or [EveryKey].
//
// # What is repeated, and what never is
//
// A call goes to one node. If that node can't be reached or can't serve it, the
// client goes on to the next, with pauses of a random length that grow (and that
// are never shorter than what the node asked for), until the call is answered or
// its time is over.
//
//   - A refusal that says that nothing was applied (429, 503), and a connection
//     that was never made, are always followed by another attempt.
//   - After anything that leaves open what happened (a connection that broke
//     after the request was sent, a 500 or a 504, a 5xx that isn't Cairn's), a read is
//     repeated and a write is not. The call then returns [ErrOutcomeUnknown]: the write
//     was applied once or not at all. A success that makes no sense is the same for a
//     write, and the end of a read.
//   - A write is repeated in that case too if it has an Idempotency-Key, which is
//     what [Idempotent] gives it: the cluster applies it once, however often and on
//     whichever node it arrives.
//   - So are a few writes that have no key and do no harm if they are done twice, or
//     late: the renewal of a lease, what [Client.Lock] and [Client.Campaign] ask for
//     under a lease of their own, and that lease itself, the promotion and the removal
//     of a member, the transfer of the leadership to a member, and a registration, of which [Client.Register]
//     says what may remain.
//
// Idempotent is not the default because it is not free: the cluster keeps a record
// of each such write for ten minutes, on every member, and has room for a million
// of them. It is well spent on what is hard to look up afterwards (an increment, a
// queue's append, a bulk write) and wasted on a put that carries a condition or
// that would do no harm if it were done twice.
//
// # Reads
//
// A read is linearizable by default: it sees every write that was answered before
// it began. [Stale], [MinRevision] and [MaxStaleness] trade that for speed and
// availability. MinRevision(c.Revision()) reads what this client has written, on
// any node, without a round through the cluster.
//
// # Lists
//
// [Client.List] gets one page. [Client.Pages] and [Client.All] go through all of
// them, as one snapshot, even if the node that began it goes away. [Client.Scan]
// gets everything in one answer, which is fastest, and fails if its connection
// does.
//
// # Watches
//
// [Client.Watch] hands out each revision that changes what is watched, in order
// and once. It goes on by itself on another node, behind the last revision that
// was complete, for as long as it takes. With Initial it begins with the present
// state: what a program needs that keeps a copy of some keys.
package client
