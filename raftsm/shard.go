package raftsm

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cairnkv/cairn/kv"
	"github.com/cairnkv/cairn/raftsm/raftlog"
	"github.com/cairnkv/cairn/raftsm/transport"
	"github.com/cairnkv/cairn/storage"
	"github.com/lni/dragonboat/v4"
	"github.com/lni/dragonboat/v4/client"
	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/raftio"
	sm "github.com/lni/dragonboat/v4/statemachine"
	"github.com/lni/vfs"
	"github.com/oklog/ulid/v2"
)

const (
	// tickMillis is Dragonboat's unit of time.
	tickMillis = 10
	// A leader of several members says every 100 ms that it lives; one that was
	// silent for 1 to 2 s is replaced.
	heartbeatTicks = 10
	electionTicks  = 100
	// A cluster of one has nobody to wait for.
	loneHeartbeatTicks = 1
	loneElectionTicks  = 10
	// answersWithin is how long a member that takes over the leadership has for a
	// handshake.
	answersWithin = 500 * time.Millisecond
	// defaultSnapshotEntries is the default of Config.SnapshotEntries.
	defaultSnapshotEntries = 10_000
	// maxInMemoryLogBytes bounds the entries that wait in memory to be applied
	// or sent; beyond, proposals are refused.
	maxInMemoryLogBytes = 128 << 20
	// storeRetryPause is the pace of the store's background work on a full disk.
	storeRetryPause = 250 * time.Millisecond
	// maxPeerQueueBytes bounds what waits for one peer.
	maxPeerQueueBytes = 64 << 20
)

// HostConfig configures the part of a node that all shards share.
type HostConfig struct {
	Dir *Dir
	// ListenAddress is where peers are listened for, if that differs from the
	// identity's peer address.
	ListenAddress string
	// PeerFiles, if set, make members speak by mutual TLS and refuse all else.
	PeerFiles *PeerFiles
	// Disowned, if set, is called when another member says that this replica was
	// removed, belongs to somebody else, or has lost what it had acknowledged. It
	// must not block.
	Disowned func(error)
	// Fatal is called, from any goroutine, when the Raft log can't be written any
	// more, and must end the process. Dragonboat panics if it is nil or returns.
	Fatal func(error)
	// Room, if set, says why there is no room on the disk for so many more bytes of a
	// snapshot that arrives, which is then refused.
	Room func(bytes uint64) error
	// Timings are told how long the steps of writes and reads take.
	Timings Timings
	Logger  *slog.Logger
}

// Host is a node's Dragonboat: its connections to the peers and its Raft log.
type Host struct {
	nh        *dragonboat.NodeHost
	log       *raftlog.Log
	dir       *Dir
	timings   Timings
	room      func(bytes uint64) error // may be nil
	leader    leaderEvents
	transport *transport.Transport
	breakers  breakers
	join      sync.Once // of the transport, with the first shard
	shards    sync.Map  // the stores of those that run, by number
	// stopping counts the replicas that we have asked to stop and of which Dragonboat has
	// not said so yet, which it does later, from a goroutine of its own.
	stopping atomic.Int64
}

// leaderEvents tells who waits when a leader was elected. Dragonboat calls
// LeaderUpdated.
type leaderEvents struct {
	mu      sync.Mutex
	elected chan struct{} // closed, and made anew, at each election
}

func (l *leaderEvents) LeaderUpdated(info raftio.LeaderInfo) {
	if info.LeaderID == raftio.NoLeader {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.elected)
	l.elected = make(chan struct{})
}

// next returns a channel that is closed at the next election.
func (l *leaderEvents) next() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.elected
}

// OpenHost starts Dragonboat in the data directory.
func OpenHost(cfg HostConfig) (*Host, error) {
	adoptLogger(cfg.Logger)
	h := &Host{dir: cfg.Dir, timings: cfg.Timings, room: cfg.Room, leader: leaderEvents{elected: make(chan struct{})}}
	h.timings.complete()
	h.breakers.pending = map[string]*time.Timer{}
	id := &cfg.Dir.Identity
	nhc := config.NodeHostConfig{
		DeploymentID:        deploymentID(id.ClusterID),
		NodeHostDir:         filepath.Join(cfg.Dir.Path, raftDir),
		RTTMillisecond:      tickMillis,
		RaftAddress:         id.PeerAddress,
		ListenAddress:       cfg.ListenAddress,
		RaftEventListener:   &h.leader,
		SystemEventListener: unloads{h, cfg.Disowned},
		MaxSendQueueSize:    maxPeerQueueBytes,
		MaxReceiveQueueSize: maxPeerQueueBytes,
		EnableMetrics:       true,
	}
	var err error
	if h.transport, err = openTransport(&cfg); err != nil {
		return nil, err
	}
	nhc.Expert.TransportFactory = h.transport.Factory()
	nhc.Expert.FS = arrivingFS{vfs.Default}
	h.log = raftlog.Apply(&nhc, cfg.Fatal, h.timings.LogSaved, h.transport.Logged)
	nh, err := newNodeHost(nhc)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start Raft in %s: %w", nhc.NodeHostDir, err), h.transport.Close())
	}
	h.nh = nh
	if err := h.breakers.find(nh); err != nil {
		h.Close()
		return nil, err
	}
	if cfg.Fatal != nil {
		processFatal.Store(&cfg.Fatal)
	}
	return h, nil
}

// newNodeHost makes an error of what Dragonboat panics at or swallows.
func newNodeHost(nhc config.NodeHostConfig) (nh *dragonboat.NodeHost, err error) {
	defer func() {
		if p := recover(); p != nil {
			first, _, _ := strings.Cut(fmt.Sprint(p), "\n")
			nh, err = nil, errors.New(first)
		}
	}()
	nh, err = dragonboat.NewNodeHost(nhc)
	switch {
	case errors.As(err, new(*net.OpError)):
		return nil, err // the peers' address
	case err != nil:
		return nil, fmt.Errorf("%w (the log in it must be this member's own, and the host's name what it was)", err)
	case nh == nil:
		// The checksum of one of its own small files is wrong. They hold nothing
		// that the identity and the log don't know better.
		return nil, marked(fmt.Errorf("%s in it is damaged; remove both, they are made again", strings.Join(hostFiles, " or ")))
	}
	return nh, nil
}

// deploymentID keeps the members of two clusters apart on the wire. Dragonboat
// drops what carries another one.
func deploymentID(cluster ulid.ULID) uint64 {
	return max(binary.BigEndian.Uint64(cluster[8:]), 1)
}

// Close ends Dragonboat. The shards are closed before.
func (h *Host) Close() {
	h.breakers.close()
	h.nh.Close()
}

// Config configures one replica of one shard.
type Config struct {
	// Shard is the shard's number, from 1.
	Shard uint64
	// Store configures the store. Its Fatal is set from Fatal.
	Store storage.Options
	// Timeout bounds how long a write or a linearizable round is tried.
	// Default 5 s.
	Timeout time.Duration
	// SnapshotEntries is after how many entries the log is cut. The newer half
	// stays, from which a member that was away for a moment catches up; one that
	// was away for longer gets a snapshot. Default 10,000.
	SnapshotEntries uint64
	// ScrubInterval is how long after a step of the comparison of the members'
	// contents the leader begins the next one. Default 10 s.
	ScrubInterval time.Duration
	Callbacks     Callbacks
	Logger        *slog.Logger
	// Fatal is called when the disk or the log is broken in a way after which
	// nothing may be answered. It must end the process. Default: panic.
	Fatal func(error)
}

// Shard is one running replica.
type Shard struct {
	cfg     Config
	host    *Host
	replica uint64
	// life guards the start and the end of the replica, and lone, which says that
	// it runs with the timing of a cluster of one.
	life     sync.Mutex
	lone     bool
	ended    bool
	store    *storage.Store
	machine  *machine
	proposer *proposer
	rounds   *rounds
	scrubber *scrubber
	// quarantine is a Quarantine. Its mutex is held while it, and what the transport does
	// about it, are changed.
	quarantine struct {
		sync.Mutex
		atomic.Int32
	}
	quit   chan struct{}
	cutter chan struct{} // closed when the log cutter has returned
}

// OpenShard starts the replica. It refuses where the identity, the log and the
// store don't belong together or the log has lost entries.
func (h *Host) OpenShard(cfg Config) (*Shard, error) {
	if cfg.Timeout == 0 {
		cfg.Timeout = 5 * time.Second
	}
	if cfg.SnapshotEntries == 0 {
		cfg.SnapshotEntries = defaultSnapshotEntries
	}
	if cfg.ScrubInterval == 0 {
		cfg.ScrubInterval = defaultScrubInterval
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Fatal == nil {
		cfg.Fatal = func(err error) { panic(err) }
	}
	cfg.Store.Fatal, cfg.Store.Logger = cfg.Fatal, cfg.Logger
	id := &h.dir.Identity
	hasLog, err := h.log.Has(cfg.Shard, id.Replica)
	if err != nil {
		return nil, err
	}
	if !hasLog {
		if _, err := h.log.Verify(cfg.Shard, id.Replica, 0); err != nil {
			return nil, err // the log's record knows what is missing
		}
		if err := h.dir.mayBegin(cfg.Shard); err != nil {
			return nil, err
		}
	}
	if err := h.dir.checkStore(cfg.Shard, hasLog); err != nil {
		return nil, marked(err)
	}
	quit := make(chan struct{})
	cfg.Store.RetryPause = func() {
		select {
		case <-time.After(storeRetryPause):
		case <-quit:
		}
	}
	store, err := storage.Open(h.dir.shardDir(cfg.Shard), cfg.Store)
	if err != nil {
		return nil, markedUnlessDisk(err)
	}
	s := &Shard{
		cfg: cfg, host: h, replica: id.Replica, store: store,
		quit: quit, cutter: make(chan struct{}),
	}
	if s.lone, err = s.isAlone(); err != nil {
		return nil, errors.Join(err, store.Close())
	}
	if err := s.start(hasLog); err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return s, nil
}

func (s *Shard) start(hasLog bool) error {
	h, shard := s.host, s.cfg.Shard
	applied, err := s.store.Applied()
	if err != nil {
		return err
	}
	extent, err := h.log.Verify(shard, s.replica, applied)
	if err != nil {
		return err
	}
	incarnation, err := newIncarnation()
	if err != nil {
		return err
	}
	s.proposer = newProposer(incarnation, s.cfg.Timeout)
	s.rounds = newRounds(s.cfg.Timeout)
	session := h.nh.GetNoOPSession(shard)
	s.proposer.propose = func(entry []byte, timeout time.Duration) (*dragonboat.RequestState, error) {
		return propose(h.nh, session, entry, timeout)
	}
	s.rounds.readIndex = func(timeout time.Duration) (*dragonboat.RequestState, error) {
		return h.nh.ReadIndex(shard, timeout)
	}
	s.proposer.elected, s.rounds.elected = h.leader.next, h.leader.next
	s.proposer.leads = s.IsLeader
	s.proposer.led = func() bool {
		leader, _ := s.Leader()
		return leader != 0
	}
	s.proposer.replicated, s.rounds.confirmed = h.timings.Replicated, h.timings.Confirmed
	s.scrubber = newScrubber(s)
	s.machine = &machine{
		alarms: s.lookAtAlarms, scrub: s.scrubber.take, trusted: func() bool { return s.Quarantine() == Sound },
		log:   newLogCut(s.cfg.SnapshotEntries, extent.Length),
		store: s.store, dir: h.dir.shardDir(shard), callbacks: s.cfg.Callbacks, timed: h.timings.Applied, deliver: s.proposer.deliver, awaits: s.proposer.awaits, incarnation: incarnation,
		revisions: newRevisionWaiters(), answerRoom: maxAnswerBytes, fatal: s.cfg.Fatal, closed: make(chan struct{}),
	}
	s.lookAtAlarms()
	// Before it starts, so that nobody speaks to it whom its state would refuse.
	h.join.Do(func() {
		h.transport.Join(roster{h, s.store}, transport.Start{Index: extent.LastIndex, Term: extent.Term})
	})
	h.shards.Store(shard, s.store)
	if err := s.run(hasLog); err != nil {
		return err
	}
	if err := h.dir.noteStarted(shard); err != nil {
		// It may be a full disk, on which the member can serve. The next start tries again.
		s.cfg.Logger.Warn("That this member has run could not be noted: it would begin again if its log and its store got lost.", "err", err)
	}
	s.proposer.start()
	go s.rounds.run()
	s.scrubber.start()
	go s.cutLog()
	return nil
}

// Propose replicates a command and waits for its result. When ctx ends it returns
// soon, within patrolEvery, and the command may be applied. It keeps nothing of the
// command. One that the members could not decode, or that is too large, is refused, as
// is one that would wait too long (kv.Busy). Of all errors only kv.OutcomeUnknown
// leaves open whether it is applied.
func (s *Shard) Propose(ctx context.Context, c *kv.Command) (*kv.Result, error) {
	return s.proposer.Propose(ctx, c)
}

// Room is nil, or why a transaction of so many bytes would be refused at this moment since
// too much waits already, before anybody makes the effort of reading it.
func (s *Shard) Room(bytes int) error { return s.proposer.room(bytes) }

// Waiting is how many commands wait here to be proposed.
func (s *Shard) Waiting() int { return s.proposer.waiting() }

// run starts the replica itself.
func (s *Shard) run(hasLog bool) error {
	id := &s.host.dir.Identity
	members := map[uint64]dragonboat.Target{}
	if !hasLog && !id.Joined {
		for replica, address := range id.Members {
			members[replica] = address
		}
	}
	create := func(uint64, uint64) sm.IOnDiskStateMachine { return s.machine }
	if err := s.host.nh.StartOnDiskReplica(members, !hasLog && id.Joined, create, s.replicaConfig()); err != nil {
		return fmt.Errorf("start the replica: %w", err)
	}
	return nil
}

// propose exists to name the one call that puts something into the log.
func propose(nh *dragonboat.NodeHost, session *client.Session, entry []byte, timeout time.Duration) (*dragonboat.RequestState, error) {
	return nh.Propose(session, entry, timeout)
}

func (s *Shard) replicaConfig() config.Config {
	c := config.Config{
		ShardID: s.cfg.Shard, ReplicaID: s.replica,
		// One that joined does so as a learner. After its promotion, its log makes a
		// voter of it.
		IsNonVoting: s.host.dir.Identity.Joined,
		CheckQuorum: true, PreVote: true, OrderedConfigChange: true,
		HeartbeatRTT: heartbeatTicks, ElectionRTT: electionTicks,
		// The log is cut by cutLog alone.
		SnapshotEntries: 0, CompactionOverhead: s.cfg.SnapshotEntries / 2,
		MaxInMemLogSize: maxInMemoryLogBytes,
	}
	if s.lone {
		c.HeartbeatRTT, c.ElectionRTT = loneHeartbeatTicks, loneElectionTicks
	}
	return c
}

// newIncarnation names this process's proposals. It is never used while
// applying.
func newIncarnation() (id ulid.ULID, err error) {
	_, err = rand.Read(id[:])
	return id, err
}

// Close stops the replica and closes its store. Writes under way end with
// kv.OutcomeUnknown, what waits with kv.ShuttingDown.
func (s *Shard) Close() error {
	close(s.quit)
	s.host.shards.Delete(s.cfg.Shard)
	s.host.transport.EndSnapshots()
	<-s.cutter
	s.scrubber.stop()
	s.life.Lock()
	defer s.life.Unlock()
	s.ended = true
	s.host.stopping.Add(1)
	err := s.host.nh.StopReplica(s.cfg.Shard, s.replica)
	if errors.Is(err, dragonboat.ErrShardNotFound) {
		err = nil // it has applied its own removal
		<-s.machine.closed
	} else if err == nil {
		// Stopping only asks for it: the machine may still be applying, and what
		// it applies is still delivered. Its Close is the end.
		<-s.machine.closed
	}
	s.scrubber.drop()
	s.proposer.close()
	s.rounds.close()
	s.flush()
	return errors.Join(err, s.store.Close())
}

// flushAtMost is how long the end of a node waits for the memtables of its store. They
// have some 100 MiB at the most.
const flushAtMost = 2 * time.Second

// flush spares the next start the work of replaying what is in memtables.
func (s *Shard) flush() {
	ctx, cancel := context.WithTimeout(context.Background(), flushAtMost)
	defer cancel()
	if err := s.store.Flush(ctx); err != nil {
		s.cfg.Logger.Info("The store is closed without a flush; the next start takes longer.", "err", err)
	}
}

// Wait returns once this replica's state is as new as c asks.
func (s *Shard) Wait(ctx context.Context, c kv.Consistency) error {
	switch {
	case c.MinRevision != 0:
		return s.machine.revisions.wait(ctx, s.quit, s.cfg.Timeout, c.MinRevision, func() uint64 {
			revision, _ := s.store.Revisions()
			return revision
		})
	case c.MaxStaleness != 0:
		if age := s.rounds.age(); age > c.MaxStaleness {
			return &kv.Error{Code: kv.TooStale, RetryAfterSeconds: 1,
				Detail: "this node's last linearizable round began longer ago than max_staleness allows"}
		}
		return nil
	case c.Stale:
		return nil
	}
	return s.rounds.wait(ctx)
}

// Ready is nil while linearizable rounds succeed.
func (s *Shard) Ready() error {
	if s.rounds.age() <= readyWithin {
		return nil
	}
	return &kv.Error{Code: kv.NoLeader, Detail: "no linearizable round succeeds on this node", RetryAfterSeconds: 1}
}

// LastRound is when the last completed linearizable round began; zero if none
// was completed.
func (s *Shard) LastRound() time.Time { return s.rounds.last() }

// Store is the replica's store, for reads. It must not be applied to.
func (s *Shard) Store() *storage.Store { return s.store }

// Leader returns the leader as this node believes, 0 if it knows none, and the
// term.
func (s *Shard) Leader() (replica, term uint64) {
	replica, term, known, err := s.host.nh.GetLeaderID(s.cfg.Shard)
	if err != nil || !known {
		return 0, term
	}
	return replica, term
}

// IsLeader reports whether this replica believes that it leads.
func (s *Shard) IsLeader() bool {
	leader, _ := s.Leader()
	return leader == s.replica
}

// Replica is this replica's id.
func (s *Shard) Replica() uint64 { return s.replica }

// handOverRounds is how often each member that answers is asked to lead. One that has just
// started may not have caught up; one in quarantine answers, and never takes it.
const handOverRounds = 3

// errNotTaken says that those who answer don't lead.
var errNotTaken = errors.New("no other member takes the leadership")

// HandOver moves the leadership to another member, if this one has it, and returns when
// that has happened, ctx is done, none of the others answers, or none of them takes it.
func (s *Shard) HandOver(ctx context.Context) error {
	for range handOverRounds {
		members, err := s.Members()
		if err != nil {
			return err
		}
		// Those behind this replica come first, then those before it: where the leadership
		// is handed on and on, as by members that look for one that has the backup, each
		// gets its turn.
		slices.SortFunc(members, func(a, b kv.Membership) int {
			return cmp.Compare(a.Replica-s.replica, b.Replica-s.replica)
		})
		var silent error
		answered := false
		for i := range members {
			m := &members[i]
			if m.Replica == s.replica || m.State != kv.MemberVoter {
				continue
			}
			if !s.IsLeader() {
				return nil
			}
			if err := s.answers(ctx, m); err != nil {
				silent = errors.Join(silent, fmt.Errorf("to %s: %w", m.Name, err))
				continue
			}
			answered = true
			if err := s.handOverTo(ctx, m.Replica); err != nil {
				return err
			}
		}
		switch {
		case !s.IsLeader():
			return nil
		case !answered:
			return silent
		}
	}
	return errNotTaken
}

// answers goes through a handshake with a member. One that does not answer is not asked to
// lead: Dragonboat would hold to it for an election timeout, in which it takes no writes and
// hands the leadership to nobody else.
func (s *Shard) answers(ctx context.Context, m *kv.Membership) error {
	ctx, cancel := context.WithTimeout(ctx, answersWithin)
	defer cancel()
	return s.host.transport.Call(ctx, m.PeerAddress)
}

// handOverTo asks a member, once, to lead, and returns when somebody else does, when this
// replica leads again, or when the member had its time. It is an error if ctx is done before.
func (s *Shard) handOverTo(ctx context.Context, replica uint64) error {
	_, before := s.Leader()
	poll := time.NewTicker(tickMillis * time.Millisecond)
	defer poll.Stop()
	// As long as Dragonboat holds to the member, and somewhat more: until then the next one
	// would be asked in vain.
	const heldFor = (electionTicks + heartbeatTicks) * tickMillis * time.Millisecond
	over := time.NewTimer(heldFor) // also for asking
	defer over.Stop()
	for asked := false; ; {
		if leader, term := s.Leader(); leader != s.replica || term != before {
			return nil
		}
		if !asked {
			switch err := s.host.nh.RequestLeaderTransfer(s.cfg.Shard, replica); {
			case err == nil:
				asked = true
				over.Reset(heldFor)
			case !errors.Is(err, dragonboat.ErrSystemBusy): // it is, while the log is synced
				return err
			}
		}
		select {
		case <-poll.C:
		case <-over.C:
			return nil
		case <-ctx.Done():
			if !s.IsLeader() {
				return nil
			}
			return ctx.Err()
		}
	}
}
