package raftlog

import (
	"sync"
	"unsafe"

	"github.com/lni/dragonboat/v4/raftio"
	pb "github.com/lni/dragonboat/v4/raftpb"
)

// recent holds the newest entries of each replica's log, as they were saved. Who
// catches up after a short time away, or while a snapshot was on its way, needs
// these: reading one from the files costs the step of the leader 20 µs and 40 KiB
// of garbage.
//
// Of each index that the log holds it has the same entry or none: save is called after
// each save and before the next one, and a snapshot that replaces a log makes it forget.
// Entries that the log has cut off at its beginning may still be here; nobody asks for
// them, since Dragonboat looks at where the log begins before it reads.
type recent struct {
	mu   sync.Mutex
	logs map[raftio.NodeInfo]*tail
}

// tail is the end of a log: entries whose indexes follow each other.
type tail struct {
	entries []pb.Entry
	bytes   uint64
}

func newRecent() *recent { return &recent{logs: map[raftio.NodeInfo]*tail{}} }

// save notes what was saved. The commands of the entries are not changed by anyone
// any more, and are shared.
func (r *recent) save(u *pb.Update) {
	id := raftio.NodeInfo{ShardID: u.ShardID, ReplicaID: u.ReplicaID}
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.logs[id]
	if t == nil {
		t = &tail{}
		r.logs[id] = t
	}
	if !pb.IsEmptySnapshot(u.Snapshot) {
		t.cut(0)
	}
	if len(u.EntriesToSave) > 0 {
		t.append(u.EntriesToSave)
	}
}

func (r *recent) forget(shardID, replicaID uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.logs, raftio.NodeInfo{ShardID: shardID, ReplicaID: replicaID})
}

// read appends entries from low up to before high, as raftio.ILogDB says of
// IterateEntries. It appends nothing if it doesn't hold the one at low.
func (r *recent) read(entries []pb.Entry, size, shardID, replicaID, low, high, maxSize uint64) ([]pb.Entry, uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.logs[raftio.NodeInfo{ShardID: shardID, ReplicaID: replicaID}]
	if t == nil || len(t.entries) == 0 || low < t.first() || low >= t.end() || high > t.end() {
		return entries, size
	}
	for _, e := range t.entries[low-t.first() : high-t.first()] {
		entries = append(entries, e)
		if size += uint64(e.SizeUpperLimit()); size > maxSize {
			break
		}
	}
	return entries, size
}

func (t *tail) first() uint64 { return t.entries[0].Index }
func (t *tail) end() uint64   { return t.first() + uint64(len(t.entries)) }

// append takes entries over, which replace those from their first on.
func (t *tail) append(entries []pb.Entry) {
	from := entries[0].Index
	if len(t.entries) > 0 && from > t.first() && from <= t.end() {
		t.cut(int(from - t.first()))
	} else {
		t.cut(0)
	}
	for i := range entries {
		t.bytes += held(&entries[i])
	}
	t.entries = append(t.entries, entries...)
	old := 0
	for t.bytes > recentBytes {
		t.bytes -= held(&t.entries[old])
		old++
	}
	clear(t.entries[:old]) // the room is used until append makes a new one
	if t.entries = t.entries[old:]; len(t.entries) == 0 {
		t.entries = nil
	}
}

// cut leaves the first n entries.
func (t *tail) cut(n int) {
	for i := n; i < len(t.entries); i++ {
		t.bytes -= held(&t.entries[i])
	}
	clear(t.entries[n:])
	t.entries = t.entries[:n]
}

// held is what an entry takes of the memory.
func held(e *pb.Entry) uint64 {
	return uint64(unsafe.Sizeof(*e)) + uint64(cap(e.Cmd))
}
