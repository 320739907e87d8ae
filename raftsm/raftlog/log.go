package raftlog

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/plugin/tan"
	"github.com/lni/dragonboat/v4/raftio"
	pb "github.com/lni/dragonboat/v4/raftpb"
)

// Log is the Raft log of one NodeHost. Its methods may be called from several
// goroutines.
type Log struct {
	mu      sync.Mutex // makes opening happen once
	created bool

	failure *failure
	// saved is told how long each save took that was made durable, logged what it was.
	saved  func(time.Duration)
	logged func(*pb.Update)

	open atomic.Pointer[store] // nil before the NodeHost opened it and after it closed it
}

func newLog(fatal func(error), saved func(time.Duration), logged func(*pb.Update)) *Log {
	if saved == nil {
		saved = func(time.Duration) {}
	}
	if logged == nil {
		logged = func(*pb.Update) {}
	}
	return &Log{failure: &failure{tell: fatal}, saved: saved, logged: logged}
}

// Has reports whether there is a log of a replica, as far as its bootstrap
// record says, which is the first thing that is saved of a replica. It is to be
// called after the NodeHost was made. A record that can't be read is an error
// that matches ErrLogCorrupt.
func (l *Log) Has(shardID, replicaID uint64) (bool, error) {
	s := l.open.Load()
	if s == nil {
		return false, ErrNotOpen
	}
	return s.has(shardID, replicaID)
}

// Verify reports whether the log of a replica reaches as far as it must: the
// record's high-water mark, and applied, which is the index up to which the
// replica's state machine has applied the log (0 for a new one). It gives what there
// is of the log. It is to be called after the NodeHost was made and before the replica
// is started; any error means that it must not be started. The error matches
// ErrLogTruncated, ErrLogCorrupt, ErrRecordUnusable or ErrStateBehind, or is one of
// the file system.
func (l *Log) Verify(shardID, replicaID, applied uint64) (Extent, error) {
	s := l.open.Load()
	if s == nil {
		return Extent{}, ErrNotOpen
	}
	have, length, err := s.check(shardID, replicaID, applied, entries)
	if err != nil || have == (mark{}) {
		return Extent{}, err // a new replica has no log yet, and isn't to be asked for one
	}
	return Extent{have.lastIndex, have.term, length}, s.reaches(shardID, replicaID, applied)
}

// factory is what a NodeHost opens its log with.
type factory struct{ log *Log }

var _ config.LogDBFactory = factory{}

// Name implements config.LogDBFactory.
func (factory) Name() string { return storeName }

// Create implements config.LogDBFactory. dirs has one directory, the
// NodeHost's own.
func (f factory) Create(nhc config.NodeHostConfig, busy config.LogDBCallback, dirs, wals []string) (raftio.ILogDB, error) {
	f.log.mu.Lock()
	defer f.log.mu.Unlock()
	if f.log.created {
		return nil, errors.New("raftlog: a Log serves one NodeHost, once")
	}
	s, err := openStore(nhc, busy, dirs, wals, tan.Factory.Create, f.log)
	if err != nil {
		return nil, err
	}
	f.log.created = true
	f.log.open.Store(s)
	return s, nil
}
