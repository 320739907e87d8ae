// Package node puts the parts of a Cairn node together: the data directory, the
// Raft host, the hub of watches, the shard with its store, the lease clock, the
// renewer of leases that connections hold, the HTTP face, and what runs in the
// background: the guard of quota and disk, auto-compaction, scheduled backups, a
// restore, and the leader's work on who belongs to the cluster.
//
// Open starts them in that order. Close begins where requests come in: the server,
// the background, then leases and watches, and the shard, the host and the
// directory last. Nothing else in the program starts or stops a part. A node is ready
// (/readyz) while linearizable rounds succeed, nothing is being restored, and its
// content is trusted.
//
// Shutdown is the polite end: leadership moves to another member, the listener
// closes, requests finish, and then Close. Whatever Close or a crash cuts off is
// either durable and answered, or was answered by an error that says so.
package node
