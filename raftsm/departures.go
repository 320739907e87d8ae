package raftsm

import "time"

const (
	// crowd is how many commands there are, in the air or waiting, when entries begin
	// to wait for company. What an entry costs all members (a sync and some messages
	// for each of them) is then worth more than the time of those that wait.
	crowd = 12
	// longestGather is how long a command waits for company at the most. It bounds what
	// a slow replication could otherwise add to itself, and is below what anybody notices.
	longestGather = 5 * time.Millisecond
)

// departures decide when the next entry leaves.
//
// Few commands wait for nobody: each leaves at once while a flight is free. Where there is
// a crowd, one entry is in the air at a time, and after its landing the next one waits for
// those that were answered just now to come back, for as long as the entry had taken. Their
// clients then go together from now on, in few and large entries; if each left as soon as
// it could, they would stay scattered over many small ones.
type departures struct {
	flying   int // entries in the air
	aboard   int // commands in them
	expected int // commands that the next entry gathers
	until    time.Time
}

// wait is how long the next entry has to wait if nothing else happens; none, if it is zero.
// The first of the queue waits since oldest.
func (d *departures) wait(now, oldest time.Time, queued, bytes int) time.Duration {
	switch {
	case queued >= maxEntryCommands || bytes >= maxEntryBytes: // a full entry
		return 0
	case d.aboard+queued < crowd && d.expected == 0:
		return 0
	case d.flying == 0 && queued >= d.expected:
		return 0
	}
	wait := longestGather - now.Sub(oldest)
	if d.flying == 0 {
		wait = min(wait, d.until.Sub(now))
	}
	return max(wait, 0)
}

// leave notes that an entry has left.
func (d *departures) leave(commands int) {
	d.flying++
	d.aboard += commands
	d.expected = 0
}

// land notes that an entry, which left at a time, is not in the air any more.
func (d *departures) land(now, left time.Time, commands, queued int) {
	d.flying--
	d.aboard -= commands
	if all := commands + queued; d.flying == 0 && all >= crowd {
		d.expected, d.until = all, now.Add(now.Sub(left))
	}
}
