// Package raftlog holds Dragonboat's Raft log for a Cairn node: which of its
// log stores is used and with which settings, and what Cairn adds so that a
// log that has lost its end is noticed before the replica takes part again.
//
// # What it promises
//
// A log store that finds a damaged record near the end of its newest file
// takes it for the place where the power went, and starts with the records
// before it. For a store on its own that is right. For a replica it is not: an
// entry that it had acknowledged counts towards a majority, and a replica that
// forgets it can help to elect a leader that never had it. So this package
// remembers, outside of the log, how far the log was durable:
//
//   - After a clean stop, any loss at the end of the log is found.
//   - After a crash, a loss is found if it reaches below what was durable
//     [RecordInterval] before the crash, below what the state machine had
//     applied, or below two later records that are still whole; and if it is
//     a bit that is flipped, in a record that has no sector of zeros.
//   - A lost term or vote counts as a loss, too.
//   - A log that is whole is never refused, whenever the power went.
//
// The log store is Dragonboat's tan. Several things that it does wrong, or
// slowly, are put right around it, each with a test that shows the plain store
// failing: docs/decisions.md has the list and the figures.
//
// What is found is an error that says which file, which numbers and what to do
// ([TruncatedError]); nothing is repaired here. A replica that lost part of its
// log comes back as a new replica.
//
// [SealEntry] and [OpenEntry] carry a checksum with the payload of a proposal,
// from the proposer to the state machine of every replica, through memory,
// network and disk.
//
// # Who owns what
//
// [Apply] puts a [Log] into a NodeHost's configuration. The NodeHost opens it
// and closes it; between the two, the Log owns the log store, the record file
// beside it and one goroutine that writes that file. The goroutine is the only
// writer, apart from the rare moment when a part of the log is about to be
// taken back (a new leader overwrites entries that were never committed, a
// replica is removed): then the record is lowered first, by the caller.
//
// [Log.Verify] is to be called after the NodeHost was made and before the
// replica is started. Nothing on the path of a write waits for the record.
//
// # What a crash leaves behind
//
// The log itself, in the directory of the log store, with everything that was
// acknowledged; and [RecordFile] next to it, with two slots that are written in
// turn, each with its own checksum and sequence number. A write that was cut
// short spoils one slot and leaves the other, which is older. Older is fine:
// the record never claims more than the log holds.
//
// The log file that was in use ends in zeros, and perhaps in a torn record. The
// next start looks at it before the log store does, cuts both off and makes the
// rest durable; or, if what follows the damage shows that no crash can have
// caused it, leaves everything as it is and refuses the replica.
package raftlog
