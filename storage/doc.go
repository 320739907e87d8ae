// Package storage is Cairn's multi-version store on Pebble: it applies the
// commands of the Raft log in order and answers reads at any revision that
// history still holds.
//
// # What it promises
//
//   - Determinism. Applying looks at the command and at replicated state, and
//     at nothing else: no clock, no random source, no flag, no progress of a
//     local compaction. Members that applied the same log hold the same
//     content, however their batches, caches, compactions and crashes differed.
//   - Atomicity. The data, the revision, the leases, the remembered answers and
//     the applied index of a batch travel in one Pebble batch. After a crash
//     the store is a prefix of the log, and says how long a prefix.
//   - A command is applied whole or refused whole.
//
// # Layout
//
// Every key begins with one byte, its space. E(key) is the key with each 0x00
// written as 0x00 0xff and 0x00 0x01 at the end, so that versions of one key
// are neighbours and no key's versions are between another's.
//
//	m key                  newest version: revisions, lease, sizes, no value
//	v E(key) ^revision     every version, newest first, with its value; a tombstone where the key was deleted
//	r revision sub         change log: what each revision did, in order, with values up to 4 KiB
//	l id · n number        lease · the lease's other name
//	a id key               the keys of a lease
//	x deadline id          leases by deadline, or by one that they had before renewals
//	i scope · I expiry     remembered answers · the same by age
//	q incarnation          which Raft entries of a proposer were applied
//	M replica · P replica · A replica type   what members say of themselves · their places in the cluster · alarms
//	R                      the backup that the store was filled from, if it was
//	S                      the newest step of the comparison with other members
//	s                      the replicated scalars (type state)
//	f                      the format of all this
//
// Reading the newest version is one seek to v E(key); reading at revision R one
// seek to v E(key) ^R. The newest versions that were read recently are in a
// cache of rows, and need no seek (type rowCache). Counting and applying look at m
// alone and touch no value. A watcher that catches up scans r. There is no index in
// memory, so opening costs the same for ten keys and for ten million.
//
// # Compaction
//
// A compaction command moves the replicated compact revision; from that moment
// no member reads below it. What it makes superfluous is removed later, by one
// background goroutine for each store, by walking the part of r below the
// compact revision: a change at or below it makes the version before it
// superfluous (and a tombstone itself). So compaction costs what was changed,
// not what is stored. The walked part of r is then dropped as one range.
//
// # Concurrency and ownership
//
// One goroutine applies (Dragonboat's update call). Any number read; they hold
// a counted handle on the open database, so that a snapshot can be switched in,
// or the store closed, under them. The sweep goroutine belongs to the handle
// and ends with it.
//
// # What a crash leaves
//
// Pebble's log is written but not synced for each batch, since the Raft log is
// the durable one. A crash loses a suffix of the batches; Open reports the
// applied index that is left and the Raft log replays the rest through the same
// code. Sync makes everything applied so far durable and is called before the
// Raft log is cut. A snapshot is loaded into a directory of its own, checked,
// and becomes the store by the rename of one pointer file; until then the old
// directory stands, and what a crash left half done is removed at Open.
package storage
