package raftlog

import (
	"errors"
	"maps"
	"math"
	"sync"
	"time"

	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/raftio"
	pb "github.com/lni/dragonboat/v4/raftpb"
	"github.com/lni/vfs"
)

// store is the log store that a NodeHost uses: the one underneath, and the
// record of how far it is durable.
type store struct {
	raftio.ILogDB // what isn't overridden here is passed on as it is

	fsys     vfs.FS
	dir      string
	bad      map[raftio.NodeInfo]error // replicas that inspect found damaged
	recorder *recorder
	failure  *failure
	recent   *recent
	again    again
	closed   func() // called first by Close

	// saving is held for reading by SaveRaftState, which runs on one worker a
	// replica, and for writing by everything else that writes to the log. The
	// store underneath syncs "its current file" after a write, without a lock,
	// and each of the others may begin a new file in between.
	saving sync.RWMutex

	saved  func(time.Duration) // see Log, as logged
	logged func(*pb.Update)
	// scratch has one slice a worker: the updates of its SaveRaftState.
	scratch [][]pb.Update
}

var _ raftio.ILogDB = (*store)(nil)

// create makes the log store underneath.
type create func(config.NodeHostConfig, config.LogDBCallback, []string, []string) (raftio.ILogDB, error)

func openStore(nhc config.NodeHostConfig, busy config.LogDBCallback, dirs, wals []string, create create, log *Log) (_ *store, err error) {
	fsys := nhc.Expert.FS
	dir := dirs[0]
	file, ms, found, err := openRecord(fsys, dir)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, file.close())
		}
	}()
	bad, err := inspect(fsys, dir)
	if err != nil {
		return nil, err
	}
	nhc.Expert.FS = newDurableFS(fsys, log.failure)
	under, err := create(nhc, busy, dirs, wals)
	if err != nil {
		return nil, err
	}
	if !found {
		// The record is made before the first replica is, and so a log without
		// one has lost it.
		if known, err := under.ListNodeInfo(); err != nil || len(known) > 0 {
			if err == nil {
				err = &RecordError{File: file.name, Reason: "it is missing, but there is a log"}
			}
			return nil, errors.Join(err, under.Close())
		}
	}
	log.failure.armed.Store(true)
	return &store{
		ILogDB:   under,
		failure:  log.failure,
		saved:    log.saved,
		logged:   log.logged,
		recent:   newRecent(),
		fsys:     fsys,
		dir:      dir,
		bad:      bad,
		recorder: newRecorder(file, ms, RecordInterval),
		closed:   func() { log.open.Store(nil) },
		scratch:  make([][]pb.Update, nhc.Expert.Engine.ExecShards),
	}, nil
}

// Name implements raftio.ILogDB.
func (s *store) Name() string { return storeName }

// Close implements raftio.ILogDB. The last record is written after the log was
// closed: it claims only what was synced before.
func (s *store) Close() error {
	s.closed()
	return errors.Join(s.ILogDB.Close(), s.recorder.close())
}

// SaveRaftState implements raftio.ILogDB. What it was given is durable when it
// returns, but for commit indexes.
//
// A step of a replica that only sends messages, answers reads or applies what
// is committed has nothing to save, and its State is empty. The store
// underneath takes an empty State for a new one, saves it and syncs it: twice
// the syncs for a lone proposal. So such updates don't get there.
func (s *store) SaveRaftState(updates []pb.Update, worker uint64) error {
	return s.failure.of(s.saveRaftState(updates, worker))
}

func (s *store) saveRaftState(updates []pb.Update, worker uint64) error {
	s.saving.RLock()
	defer s.saving.RUnlock()
	save := s.scratch[worker-1][:0]
	for i := range updates {
		if nothingToSave(&updates[i]) {
			continue
		}
		u := updates[i]
		if err := s.before(&u); err != nil {
			return err
		}
		save = append(save, u)
	}
	if len(save) == 0 {
		return nil
	}
	began := time.Now()
	if err := s.ILogDB.SaveRaftState(save, worker); err != nil {
		return err
	}
	s.saved(time.Since(began))
	for i := range save {
		s.recent.save(&save[i])
		s.logged(&save[i])
		if err := s.after(&save[i]); err != nil {
			return err
		}
	}
	clear(save) // the entries belong to the caller
	s.scratch[worker-1] = save
	return nil
}

// IterateEntries implements raftio.ILogDB. Of what recent does not hold it appends
// at most entriesPerRead entries. Where there are more, the size that it returns is
// above maxSize, which says to the caller that its own limit was the reason: it goes
// on behind them.
func (s *store) IterateEntries(entries []pb.Entry, size, shardID, replicaID, low, high, maxSize uint64) ([]pb.Entry, uint64, error) {
	before := len(entries)
	if maxSize == 0 {
		maxSize = math.MaxUint64
	}
	most := high
	bounded := maxSize != math.MaxUint64
	if bounded && s.again.repeats(shardID, replicaID, low, time.Now()) {
		most = min(high, low+1)
	}
	entries, size = s.recent.read(entries, size, shardID, replicaID, low, most, maxSize)
	var err error
	if len(entries) == before {
		if bounded {
			most = min(most, low+entriesPerRead)
		}
		entries, size, err = s.ILogDB.IterateEntries(entries, size, shardID, replicaID, low, most, maxSize)
	}
	if err == nil && most < high && uint64(len(entries)-before) == most-low {
		size = max(size, maxSize+1)
	}
	return entries, size, err
}

const (
	// againWithin is how soon after a read of the log another one from the same place is a
	// repetition, and the next one after that. A heartbeat is answered each 100 ms; where
	// the disk of the leader is slow, the answers wait for it.
	againWithin = time.Second
	// maxPlaces bounds the places that are remembered. One replica that catches up reads
	// from hundreds of them in that time, and must not make a leader forget another one's.
	maxPlaces = 1024
)

// again knows repeated reads of a log. A replica that does not take entries, since it
// applies more slowly than they come, is sent the same ones after each of its answers, of
// which there can be hundreds a second; and each time the leader would read, and the network
// carry, all that it may in one message. So a repetition gets one entry, which does as well
// to find out whether it takes them again. That goes on for as long as it is repeated: who
// takes the entry, also one to whom the first piece did not get, goes on behind it, which
// is another place, and gets all that it may from there.
type again struct {
	mu   sync.Mutex
	read map[place]time.Time // when, the last time
}

// place is one in the log of a replica.
type place struct{ shardID, replicaID, index uint64 }

// repeats reports whether a read from low is one more of a moment ago.
func (a *again) repeats(shardID, replicaID, low uint64, now time.Time) bool {
	p := place{shardID, replicaID, low}
	a.mu.Lock()
	defer a.mu.Unlock()
	last, known := a.read[p]
	if !known {
		a.makeRoom(now)
	}
	a.read[p] = now
	return known && now.Sub(last) < againWithin
}

// makeRoom sees to it that there is room for one more place. The mutex is held.
func (a *again) makeRoom(now time.Time) {
	if len(a.read) >= maxPlaces {
		maps.DeleteFunc(a.read, func(_ place, at time.Time) bool { return now.Sub(at) >= againWithin })
	}
	if a.read == nil || len(a.read) >= maxPlaces {
		a.read = map[place]time.Time{}
	}
}

func nothingToSave(u *pb.Update) bool {
	return len(u.EntriesToSave) == 0 && pb.IsEmptyState(u.State) && pb.IsEmptySnapshot(u.Snapshot)
}

// before prepares the save of u: it lowers the record where u takes entries
// back, and makes sure that a snapshot does take them back.
//
// A snapshot from the leader replaces a log that contradicts it. The store
// underneath keeps the entries beyond it, and gives them again at the next
// start, as if they followed the snapshot; with the term of such an entry, the
// replica would vote for a candidate that lacks what the snapshot holds. An
// entry at the snapshot's own place, which nobody reads, cuts them off in the
// same record.
func (s *store) before(u *pb.Update) error {
	if len(u.EntriesToSave) == 0 && pb.IsEmptySnapshot(u.Snapshot) {
		return nil
	}
	id := raftio.NodeInfo{ShardID: u.ShardID, ReplicaID: u.ReplicaID}
	m, _ := s.recorder.get(id)
	if err := s.recorder.lower(id, m.after(u)); err != nil {
		return err
	}
	if len(u.EntriesToSave) == 0 && m.lastIndex > u.Snapshot.Index {
		u.EntriesToSave = []pb.Entry{{Index: u.Snapshot.Index, Term: u.Snapshot.Term}}
	}
	return nil
}

// after notes that u is durable.
func (s *store) after(u *pb.Update) error {
	id := raftio.NodeInfo{ShardID: u.ShardID, ReplicaID: u.ReplicaID}
	m, _ := s.recorder.get(id)
	return s.recorder.note(id, m.after(u))
}

// SaveSnapshots implements raftio.ILogDB. These are the replica's own
// snapshots, which stand for a part of the log that it has; they don't move
// its end.
func (s *store) SaveSnapshots(updates []pb.Update) error {
	s.saving.Lock()
	defer s.saving.Unlock()
	return s.failure.of(s.ILogDB.SaveSnapshots(updates))
}

// RemoveEntriesTo implements raftio.ILogDB. It removes the log's beginning.
func (s *store) RemoveEntriesTo(shardID, replicaID, index uint64) error {
	s.saving.Lock()
	defer s.saving.Unlock()
	return s.failure.of(s.ILogDB.RemoveEntriesTo(shardID, replicaID, index))
}

// RemoveNodeData implements raftio.ILogDB.
func (s *store) RemoveNodeData(shardID, replicaID uint64) error {
	s.saving.Lock()
	defer s.saving.Unlock()
	if err := s.recorder.forget(raftio.NodeInfo{ShardID: shardID, ReplicaID: replicaID}); err != nil {
		return err
	}
	s.recent.forget(shardID, replicaID)
	return s.ILogDB.RemoveNodeData(shardID, replicaID)
}

// ImportSnapshot implements raftio.ILogDB.
func (s *store) ImportSnapshot(snapshot pb.Snapshot, replicaID uint64) error {
	s.saving.Lock()
	defer s.saving.Unlock()
	id := raftio.NodeInfo{ShardID: snapshot.ShardID, ReplicaID: replicaID}
	if err := s.recorder.forget(id); err != nil {
		return err
	}
	s.recent.forget(snapshot.ShardID, replicaID)
	if err := s.ILogDB.ImportSnapshot(snapshot, replicaID); err != nil {
		return err
	}
	return s.recorder.note(id, mark{lastIndex: snapshot.Index, term: snapshot.Term})
}

// ReadRaftState implements raftio.ILogDB. Dragonboat calls it when it starts a
// replica, before the replica speaks to others, and panics on an error: the
// last line behind Verify, for a caller that has forgotten it.
func (s *store) ReadRaftState(shardID, replicaID, snapshotIndex uint64) (raftio.RaftState, error) {
	have, _, err := s.check(shardID, replicaID, 0, numbers)
	if err != nil {
		return raftio.RaftState{}, err
	}
	// The record may be older than the log.
	if err := s.recorder.note(raftio.NodeInfo{ShardID: shardID, ReplicaID: replicaID}, have); err != nil {
		return raftio.RaftState{}, err
	}
	return s.ILogDB.ReadRaftState(shardID, replicaID, snapshotIndex)
}
