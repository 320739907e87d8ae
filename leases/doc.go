// Package leases drives the replicated clock by which leases and remembered
// answers age, ends the leases whose time is over, and renews those that open
// connections hold.
//
// # What it promises
//
// The clock is part of the replicated state and moves only by commands, so
// every member has the same, and nothing that hangs on it depends on a wall
// clock, restarts with a leader or ends while there is none. It never runs
// ahead of real time: the leader advances it by what its own monotonic clock
// measured since the last step that counted, a step counts only if it names the
// one before it, and no step is longer than kv.MaxClockAdvanceMillis, so that
// the time in which a leader slept or lost its office is never added.
//
// A lease ends by a command, too, which counts only if the clock has reached
// its deadline and nobody has renewed it since the proposer looked. The store
// keeps leases in a queue by deadline; there is no list of them in memory. A
// renewal that comes soon after another leaves its lease where it is in the queue,
// so that it costs one record and not three. When the clock gets to such a place
// the lease isn't over, and a command of the leader queues it by its deadline.
//
// # Who owns what
//
// A Keeper owns two goroutines, which propose only on the leader. One steps the
// clock, only while something ages, and one step at a time. The other looks
// after each step for leases that are over and ends them, at a pace that leaves
// room for other writes, however many end together. Two looks may be under way,
// each with what the other has not taken up, so that nobody waits for ends that a
// slow disk holds up; each waits for the expiries that it starts. Close ends all.
//
// A Renewer, on every member, owns the leases that connections to it hold, each by
// itself (Hold) or many together (Group). One
// goroutine looks for those that are due and starts a goroutine for each of a few
// renewals of many; the connection is asked before each whether it is still there.
// What becomes of the connection, and what its client is told, is its owner's.
//
// # What a crash leaves
//
// Nothing is kept here. Every member looks where the clock stands, so the next
// leader measures from the moment at which it saw the newest step, and what
// passed since then counts: up to the longest step, for most of it was without a
// leader. A change of leader that takes no time costs no more than a look.
//
// The connections of a member that crashed are gone with it. Nobody renews for
// them, and what they held lives for the rest of its time, in which the client may
// hold it on another member.
package leases
