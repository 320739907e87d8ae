// Package raftsm replicates commands with Dragonboat and applies them to a
// store. It is the only package that knows Dragonboat.
//
// # What it promises
//
//   - Propose answers after the command is durable on a majority and applied
//     here, or with an error that says whether it was applied: of all errors
//     only kv.OutcomeUnknown leaves that open.
//   - Wait returns once this replica's state is as new as was asked: for a
//     linearizable read, as new as everything that was answered anywhere before
//     Wait began.
//   - A command is applied at most once, however often its entry had to be
//     proposed.
//
// # A write
//
// The proposer (proposer.go) encodes the command and queues it. A fixed number
// of flights take what waits, all of it up to a limit, as one Raft entry. Few
// commands leave at once; where there is a crowd, an entry waits for company for a
// few milliseconds (departures.go), and one entry, one fsync and one round trip
// serve hundreds. Each entry carries the incarnation of its proposer
// and a number; the state machine remembers which it has applied. That is what
// allows a flight to propose an entry again when Dragonboat does not know what
// became of it, and to say "unknown" only when the deadline is over.
//
// The machine (machine.go) applies entries in log order, commits them to the
// store, and then hands each result to the command that waits for it here, if
// one does. Results don't travel through Dragonboat.
//
// # A read
//
// Readers that wait at the same time share one ReadIndex round (rounds.go): a
// round serves those who came before it began. Every half second a round is
// made even if nobody waits, so that the node knows whether it is ready and how
// stale it may be.
//
// # A scrub
//
// While a replica leads, every ten seconds it proposes a command that begins a step
// of the comparison of what all replicas have stored (scrub.go). Applying it pins the
// state; a goroutine reads a part of it at a modest pace and proposes what it
// found. Applying the finds raises the alarm of who differs. A replica looks at
// the alarms before it answers anything else, and from then on its Quarantine
// says that its content may not be served.
//
// # The duties of an on-disk state machine, and where they are fulfilled
//
//   - Open returns the applied index, which the store keeps in one batch with
//     the data.
//   - Update is deterministic and serial; refusals are results; an error means
//     a broken disk or log and ends the process. It keeps no entry's memory.
//   - Sync makes what was applied durable, before Dragonboat cuts the log.
//   - PrepareSnapshot pins a view, which costs the same at any size;
//     SaveSnapshot streams it; RecoverFromSnapshot builds the new store beside
//     the old and switches atomically. Errors of a stream are wrapped into the
//     ones that Dragonboat tolerates, so that a peer that hangs up can't end
//     this process; a disk that can't be read does.
//   - Lookup isn't used: reads go to the store, which counts its users and
//     outlives them.
//
// # Ownership
//
// A Host owns the NodeHost and the Raft log of a node; a Shard owns one
// replica: its flights, its round worker, its log cutter, its scrubber and its
// store. Close stops the replica first, so that nothing is applied any more, then
// the others, and the store last. It fails what waits with kv.ShuttingDown or
// kv.OutcomeUnknown, and returns when every goroutine has.
//
// # What a crash leaves behind
//
// The Raft log has every entry that was acknowledged, the store a prefix of it
// with its length. Starting replays the rest through Update. The identity file
// (identity.go) says whose directory it is; where it, the log and the store
// don't belong together, or the log lost its end, starting is refused.
package raftsm
