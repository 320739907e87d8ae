package raftlog

import (
	"time"

	"github.com/lni/dragonboat/v4/config"
	pb "github.com/lni/dragonboat/v4/raftpb"
)

// RecordInterval is the shortest time between two writes of the record of how
// far the log is durable.
const RecordInterval = 100 * time.Millisecond

// RecordFile is the name of that record, in the NodeHost's directory.
const RecordFile = "raftlog.highwater"

// storeName is what Dragonboat writes into its directory and compares at each
// start. It isn't the plain store's name, so that a build without this package
// can't open the directory and let the record fall behind.
const storeName = "cairn-tan"

// The settings that Dragonboat freezes at the first start of a directory.
// Changing one makes every existing data directory unusable.
const (
	execShards  = 1
	logDBShards = 1
)

// writeBuffer is the room for one encoded save of the log; a larger one gets a
// buffer for itself. The store makes sixteen of them whatever the number of
// workers, so that it counts sixteenfold.
const writeBuffer = 512 << 10

// recentBytes bounds the newest entries of a log that are held in memory: at 500
// small writes a second, which are an entry each, those of about 40 s.
const recentBytes = 8 << 20

// entriesPerRead is how many older entries of the log are read at once. A replica that
// catches up is sent entries by the step of its leader, in which nothing else is
// saved or sent. Each of them costs the store underneath the opening of a file and
// a block of it, some 20 µs: for the 64 MiB that Dragonboat would take, the whole
// cluster stands still for up to a second.
const entriesPerRead = 256

// Apply configures nhc for a small install and makes it keep its log in the
// Log that is returned. It sets Expert.LogDB, Expert.LogDBFactory and
// Expert.Engine, and nothing else. A Log serves one NodeHost, once.
//
// fatal, if not nil, is told of the first write or sync of the open log that
// fails, from any goroutine, and should end the process: nobody knows what the
// disk holds then, and Dragonboat, if fatal returns, panics.
//
// saved, if not nil, is told how long it took to make something durable, and logged, if not
// nil, what that was. Both are told from any goroutine, and must not block.
func Apply(nhc *config.NodeHostConfig, fatal func(error), saved func(time.Duration), logged func(*pb.Update)) *Log {
	l := newLog(fatal, saved, logged)
	nhc.Expert.LogDB = logDBConfig()
	nhc.Expert.Engine = engineConfig()
	nhc.Expert.LogDBFactory = factory{l}
	return l
}

func logDBConfig() config.LogDBConfig {
	c := config.GetTinyMemLogDBConfig()
	c.Shards = logDBShards
	c.KVWriteBufferSize = writeBuffer
	c.KVMaxWriteBufferNumber = 2
	return c
}

// engineConfig has as many workers as a node with few shards can use. All the
// shards of one step worker share its turn: what is queued for them is saved
// together, then applied by other workers while the next turn is saved.
func engineConfig() config.EngineConfig {
	return config.EngineConfig{
		ExecShards:     execShards,
		CommitShards:   1,
		ApplyShards:    2,
		SnapshotShards: 2,
		CloseShards:    1,
	}
}
