package raftlog_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cairnkv/cairn/raftsm/raftlog"

	"github.com/lni/dragonboat/v4"
	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/logger"
	"github.com/lni/dragonboat/v4/raftio"
	sm "github.com/lni/dragonboat/v4/statemachine"
	"github.com/lni/vfs"
)

func init() {
	for _, name := range []string{"dragonboat", "raft", "rsm", "transport", "grpc", "config", "logdb", "tan", "pebblekv", "order", "utils", "settings", "server", "registry", "LogDB"} {
		logger.GetLogger(name).SetLevel(logger.CRITICAL)
	}
}

const (
	shard   = 1
	replica = 1
)

// node is a NodeHost with one replica of one shard, on its own.
type node struct {
	host  *dragonboat.NodeHost
	log   *raftlog.Log // nil if the store isn't ours
	state *state

	refused atomic.Uint64 // proposals that had to be repeated
}

// state is the state machine: how far it has applied, in memory, as if it were
// durable. It outlives the node.
type state struct {
	applied atomic.Uint64
	sum     atomic.Uint64
}

func (s *state) Open(<-chan struct{}) (uint64, error) { return s.applied.Load(), nil }

func (s *state) Update(entries []sm.Entry) ([]sm.Entry, error) {
	for i := range entries {
		s.sum.Add(uint64(len(entries[i].Cmd)))
		entries[i].Result.Value = entries[i].Index
	}
	s.applied.Store(entries[len(entries)-1].Index)
	return entries, nil
}

func (s *state) Lookup(any) (any, error)       { return s.applied.Load(), nil }
func (s *state) Sync() error                   { return nil }
func (s *state) PrepareSnapshot() (any, error) { return s.applied.Load(), nil }
func (s *state) Close() error                  { return nil }

func (s *state) SaveSnapshot(at any, w io.Writer, _ <-chan struct{}) error {
	return binary.Write(w, binary.LittleEndian, at.(uint64))
}

func (s *state) RecoverFromSnapshot(r io.Reader, _ <-chan struct{}) error {
	var at uint64
	if err := binary.Read(r, binary.LittleEndian, &at); err != nil {
		return err
	}
	s.applied.Store(at)
	return nil
}

// options of a node under test.
type options struct {
	fs              vfs.FS // nil for the real one
	configure       func(*config.NodeHostConfig) *raftlog.Log
	snapshotEntries uint64
	rtt             uint64
}

func ours(nhc *config.NodeHostConfig) *raftlog.Log { return raftlog.Apply(nhc, nil, nil, nil) }

// startNode opens a node in dir and verifies its log before it starts the
// replica.
func startNode(dir string, st *state, o options) (*node, error) {
	if o.rtt == 0 {
		o.rtt = 2
	}
	nhc := config.NodeHostConfig{
		NodeHostDir:    dir,
		RTTMillisecond: o.rtt,
		RaftAddress:    "nobody:1",
		DeploymentID:   7,
	}
	nhc.Expert.TransportFactory = noTransport{}
	nhc.Expert.FS = o.fs
	if o.configure == nil {
		o.configure = ours
	}
	log := o.configure(&nhc)
	host, err := dragonboat.NewNodeHost(nhc)
	if err != nil {
		return nil, err
	}
	n := &node{host: host, log: log, state: st}
	if log != nil {
		if _, err := log.Verify(shard, replica, st.applied.Load()); err != nil {
			host.Close()
			return nil, err
		}
	}
	err = host.StartOnDiskReplica(map[uint64]dragonboat.Target{replica: "nobody:1"}, false,
		func(uint64, uint64) sm.IOnDiskStateMachine { return st },
		config.Config{
			ShardID: shard, ReplicaID: replica,
			ElectionRTT: 10, HeartbeatRTT: 1,
			CheckQuorum: true, PreVote: true, OrderedConfigChange: true,
			SnapshotEntries: o.snapshotEntries, CompactionOverhead: o.snapshotEntries / 2,
			WaitReady: true,
		})
	if err != nil {
		host.Close()
		return nil, err
	}
	return n, nil
}

// propose puts an entry of size bytes through the log and gives its index.
func (n *node) propose(size int) (uint64, error) {
	session := n.host.GetNoOPSession(shard)
	cmd := make([]byte, size)
	for {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		result, err := n.host.SyncPropose(ctx, session, cmd)
		cancel()
		if errors.Is(err, dragonboat.ErrShardNotReady) || errors.Is(err, dragonboat.ErrSystemBusy) {
			n.refused.Add(1)
			runtime.Gosched() // no leader yet, or the store asks for a pause: not applied
			continue
		}
		return result.Value, err
	}
}

func mustStart(t testing.TB, dir string, st *state, o options) *node {
	t.Helper()
	n, err := startNode(dir, st, o)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (n *node) mustPropose(t testing.TB, size int) uint64 {
	t.Helper()
	index, err := n.propose(size)
	if err != nil {
		t.Fatal(err)
	}
	return index
}

// noTransport reaches nobody.
type noTransport struct{}

func (noTransport) Create(config.NodeHostConfig, raftio.MessageHandler, raftio.ChunkHandler) raftio.ITransport {
	return noTransport{}
}
func (noTransport) Validate(string) bool { return true }
func (noTransport) Name() string         { return "none" }
func (noTransport) Start() error         { return nil }
func (noTransport) Close() error         { return nil }
func (noTransport) GetConnection(context.Context, string) (raftio.IConnection, error) {
	return nil, errors.New("nobody is there")
}
func (noTransport) GetSnapshotConnection(context.Context, string) (raftio.ISnapshotConnection, error) {
	return nil, errors.New("nobody is there")
}
