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
)

// A backlog is what a replica has received and not applied. Where that is too much, entries
// are dropped as if the network had lost them, and sent again later: the replica falls
// behind, and nobody waits for it but where a majority needs it.
//
// Dragonboat would have it tell the leader, which would refuse all writes for ten seconds
// and more. So a member that applies slowly, or catches up, would stop a cluster that does
// not need it; those words of Dragonboat's are not passed on.
type backlog struct {
	mu    sync.Mutex
	bytes int
	come  []arrival
}

// An arrival is entries that came together.
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
	n := arrival{last: entries[len(entries)-1].Index}
	for i := range entries {
		n.bytes += entryOverhead + len(entries[i].Cmd)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.forget(applied)
	if l.bytes > maxBacklogBytes {
		return false
	}
	l.come = append(l.come, n)
	l.bytes += n.bytes
	return true
}

func (l *backlog) forget(applied uint64) {
	done := 0
	for done < len(l.come) && l.come[done].last <= applied {
		l.bytes -= l.come[done].bytes
		done++
	}
	l.come = slices.Delete(l.come, 0, done)
	if l.bytes <= maxBacklogBytes {
		return
	}
	// What another leader has replaced may lie before what came later.
	l.come = slices.DeleteFunc(l.come, func(a arrival) bool {
		if a.last <= applied {
			l.bytes -= a.bytes
		}
		return a.last <= applied
	})
}

// takeEntries leaves out the messages whose entries are too many for the replica. It
// returns how many.
func (t *Transport) takeEntries(batch *pb.MessageBatch) (left int) {
	before := len(batch.Requests)
	batch.Requests = slices.DeleteFunc(batch.Requests, func(m pb.Message) bool {
		return m.Type == pb.Replicate && len(m.Entries) > 0 && !t.backlog.take(m.Entries, t.cluster.Applied(m.ShardID))
	})
	return before - len(batch.Requests)
}
