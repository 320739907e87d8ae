package transport

import (
	"slices"
	"sync"

	pb "github.com/lni/dragonboat/v4/raftpb"
)

const (
	// maxBacklogBytes bounds the entries that a replica has received and not applied:
	// Raft holds them in memory until then, and a leader sends as fast as they are saved.
	maxBacklogBytes = 128 << 20
	// entryOverhead is what an entry takes besides its command.
	entryOverhead = 80
	// arrivalBytes is up to where entries that come one after the other are counted as one
	// arrival.
	arrivalBytes = 1 << 20
)

// A backlog is what a replica has received, or has in its log, and has not applied. Where
// that is too much, entries are left out of what it is told, and sent again later: the
// replica falls behind, and nobody waits for it but where a majority needs it. What others
// have it propose, since it leads, comes again as well: under the same number, until its
// time is over. What it proposes itself Dragonboat refuses at the same bound.
//
// Dragonboat would have it tell the leader, which would refuse all writes for ten seconds
// and more. So a member that applies slowly, or catches up, would stop a cluster that does
// not need it; those words of Dragonboat's are not passed on.
type backlog struct {
	mu    sync.Mutex
	bytes int
	come  []arrival
}

// backlogs are those of the replica of one shard. Those of another one have indexes of
// their own.
type backlogs struct {
	come   backlog // from the leader
	logged backlog // in the log
}

// An arrival is entries that came together, or one after the other if they are small. It
// counts as long as the last one does: what is counted may be wrong by one of them.
type arrival struct {
	last  uint64 // the index of the last one
	bytes int
}

// take counts entries, or reports that they are too many. Whatever is not beyond applied is
// counted no more.
func (l *backlog) take(entries []pb.Entry, applied uint64) bool {
	if len(entries) == 0 {
		return true
	}
	n := arrivalOf(entries)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.forget(func(a arrival) bool { return a.last <= applied })
	if l.bytes > maxBacklogBytes {
		// What comes once more, or replaces what came, was counted, and may never have been
		// taken over: it may have come behind a gap, or been dropped further inside.
		l.forget(func(a arrival) bool { return a.last >= entries[0].Index })
	}
	if l.bytes > maxBacklogBytes {
		return false
	}
	l.add(n)
	return true
}

// put counts entries in any case, in the place of those from the first of them on.
func (l *backlog) put(entries []pb.Entry, applied uint64) {
	if len(entries) == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.forget(func(a arrival) bool { return a.last <= applied || a.last >= entries[0].Index })
	l.add(arrivalOf(entries))
}

// waiting is how many bytes are counted that are not applied.
func (l *backlog) waiting(applied uint64) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.forget(func(a arrival) bool { return a.last <= applied })
	return l.bytes
}

func arrivalOf(entries []pb.Entry) arrival {
	n := arrival{last: entries[len(entries)-1].Index}
	for i := range entries {
		n.bytes += entryOverhead + len(entries[i].Cmd)
	}
	return n
}

// add counts an arrival, as a part of the one before where both are small and it does not
// lie before that: a log of small entries comes in messages of a few.
func (l *backlog) add(n arrival) {
	l.bytes += n.bytes
	if len(l.come) > 0 {
		if before := &l.come[len(l.come)-1]; n.last >= before.last && n.bytes+before.bytes < arrivalBytes {
			before.last = n.last
			before.bytes += n.bytes
			return
		}
	}
	l.come = append(l.come, n)
}

// forget counts some arrivals no more. They are some hundreds at the most, where much
// waits, since two that follow each other have arrivalBytes together.
func (l *backlog) forget(which func(arrival) bool) {
	l.come = slices.DeleteFunc(l.come, func(a arrival) bool {
		gone := which(a)
		if gone {
			l.bytes -= a.bytes
		}
		return gone
	})
}

// Logged is told what was saved of one of this node's replicas: entries in the place of
// those that its log had from the first of them on, and how far it has applied them.
func (t *Transport) Logged(u *pb.Update) {
	t.backlogsOf(u.ShardID).logged.put(u.EntriesToSave, u.LastApplied)
}

// counts reports whether there is a backlog of a shard, or is to be one: this node has a
// replica of it, or had one, which may be ending. Of all others no messages are taken,
// and another member must not have this one remember whatever number it comes up with.
func (t *Transport) counts(shard uint64) bool {
	_, known := t.backlogs.Load(shard)
	return known || t.cluster.HasShard(shard)
}

// backlogsOf are those of the replica of a shard that counts.
func (t *Transport) backlogsOf(shard uint64) *backlogs {
	of, known := t.backlogs.Load(shard)
	if !known {
		of, _ = t.backlogs.LoadOrStore(shard, new(backlogs))
	}
	return of.(*backlogs)
}

// takeEntries takes the entries out of messages that have too many for the replica, and
// returns of how many. Without them they still tell what is committed, and the replica
// answers how far it has come, from where its leader goes on. Messages that are to be
// proposed are left out where too much of the log is not applied.
func (t *Transport) takeEntries(batch *pb.MessageBatch) (without int) {
	kept := batch.Requests[:0]
	for i := range batch.Requests {
		m := &batch.Requests[i]
		switch takes := m.Type == pb.Replicate || m.Type == pb.Propose; {
		case !takes || !t.counts(m.ShardID):
		case m.Type == pb.Replicate && !t.backlogsOf(m.ShardID).come.take(m.Entries, t.cluster.Applied(m.ShardID)):
			m.Entries = nil
			without++
		case m.Type == pb.Propose && t.backlogsOf(m.ShardID).logged.waiting(t.cluster.Applied(m.ShardID)) > maxBacklogBytes:
			without++
			continue
		}
		kept = append(kept, *m)
	}
	batch.Requests = kept
	return without
}
