// Package node puts the parts of a Cairn node together: the data directory, the
// Raft host, the shard with its store, the lease clock, the guards of quota and
// disk, auto-compaction, and the HTTP face.
//
// Open starts them in that order and Close ends them in the reverse one;
// nothing else in the program starts or stops a part. A node is ready
// (/readyz) once a linearizable round has succeeded.
//
// Shutdown is the polite end: leadership moves to another member, the listener
// closes, requests finish, and then Close. Whatever Close or a crash cuts off is
// either durable and answered, or was answered by an error that says so.
package node
