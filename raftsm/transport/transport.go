package transport

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/raftio"
	"github.com/oklog/ulid/v2"
)

const (
	// handshakeTimeout bounds the TLS handshake and the one behind it, on both
	// ends.
	handshakeTimeout = 5 * time.Second
	// dialTimeout bounds the connection before that.
	dialTimeout = 3 * time.Second
	// idleTimeout is how long nothing may come on a connection. Dragonboat closes
	// one that it has not used for a minute.
	idleTimeout = 2 * time.Minute
	// unackedTimeout is how long the other end's machine may leave unacknowledged what was
	// sent to it; then the connection is made anew. TCP by itself tries again after twice as
	// long each time, so that a network that was out for a minute would be missed for
	// another one when it is back. A process that stands still does not count, as long as
	// its machine has room for what comes; that of a snapshot, which waits for a disk, has
	// longer.
	unackedTimeout         = 5 * time.Second
	unackedSnapshotTimeout = ackTimeout
)

// keepAlive finds an end that has gone without a word where nothing is sent. On Linux the
// times above end it in place of the number of probes, so that several fit into them.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 2 * time.Second, Interval: time.Second, Count: 5}

// Config configures a Transport.
type Config struct {
	// Self is this node.
	Self Identity
	// Listen is the address that is listened on.
	Listen string
	// TLS is nil where peers speak in the clear.
	TLS *Credentials
	// Refused, if set, is told of each refusal by another member: the address
	// that was dialled, and why.
	Refused func(address string, r *Refusal)
	// Fatal, if set, is called when a snapshot that arrives can't be kept or taken away any
	// more, since the disk is broken, and must end the process.
	Fatal  func(error)
	Logger *slog.Logger
}

// Member is what this node knows of a member. The id and the address are zero
// where they are not known yet.
type Member struct {
	Replica uint64
	ID      ulid.ULID
	Address string
	// Removed says that the replica does not belong to the cluster any more.
	Removed bool
}

// Cluster is what a node knows of its cluster.
type Cluster interface {
	// Members returns all that is known by now. A replica that is not among them
	// may be one that joined a moment ago: it is let in if its handshake is right
	// otherwise.
	Members() ([]Member, error)
	// HasShard reports whether the node has a replica of the shard.
	HasShard(shard uint64) bool
	// Applied is the index of the last entry that the node's replica of the shard has
	// applied, 0 if that is not known.
	Applied(shard uint64) uint64
	// Room says why there is no room on the disk for so many more bytes of a snapshot.
	Room(bytes uint64) error
}

// Transport is one node's end of the connections between the members. It is made
// before Dragonboat, which receives it from the factory.
type Transport struct {
	cfg         Config
	incarnation ulid.ULID
	stats       counters
	log         *limitedLog
	quarantined atomic.Bool
	lastResort  atomic.Bool

	cluster Cluster
	began   Start
	joined  chan struct{} // closed when both are set

	handleBatch raftio.MessageHandler
	handleChunk raftio.ChunkHandler
	listener    net.Listener

	wg      sync.WaitGroup // of the goroutines
	closing chan struct{}
	once    sync.Once

	backlogs sync.Map // by shard, of type *backlogs
	waiting  *waitingRoom
	mu       sync.Mutex
	seen     map[uint64]Member        // by replica, as they said themselves
	logs     map[uint64]*remembered   // by replica
	open     map[*inbound]struct{}    // that have shown who they are
	dialled  map[*outbound]struct{}   // all
	tlsOpen  map[net.Conn]verifiedTLS // connections with certificates, both ways
	// noSnapshots says that none is sent any more.
	noSnapshots bool
}

// New makes a transport. It does nothing before Dragonboat starts it.
func New(cfg Config) *Transport {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	t := &Transport{
		cfg: cfg, incarnation: ulid.Make(), log: newLimitedLog(cfg.Logger), joined: make(chan struct{}),
		closing: make(chan struct{}), waiting: newWaitingRoom(),
		seen: map[uint64]Member{}, logs: map[uint64]*remembered{}, open: map[*inbound]struct{}{}, dialled: map[*outbound]struct{}{},
		tlsOpen: map[net.Conn]verifiedTLS{},
	}
	return t
}

// Factory gives the transport to Dragonboat, once.
func (t *Transport) Factory() config.TransportFactory { return factory{t} }

type factory struct{ t *Transport }

func (f factory) Create(_ config.NodeHostConfig, messages raftio.MessageHandler, chunks raftio.ChunkHandler) raftio.ITransport {
	f.t.handleBatch, f.t.handleChunk = messages, chunks
	return f.t
}

// Validate implements config.TransportFactory.
func (factory) Validate(address string) bool { return ValidAddress(address) }

// ValidAddress reports whether an address can be a member's: a host and the number of a
// port.
func ValidAddress(address string) bool {
	host, port, err := net.SplitHostPort(address)
	if err != nil || host == "" || len(address) > maxAddressBytes || strings.ContainsFunc(host, unicode.IsSpace) {
		return false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n > 0
}

// Name implements raftio.ITransport.
func (t *Transport) Name() string { return "cairn" }

// Join tells the transport what the node knows of its cluster, and where its log
// ended when it began. Until then other members wait at the door. It is called once,
// before the replica starts.
func (t *Transport) Join(c Cluster, began Start) {
	t.cluster, t.began = c, began
	close(t.joined)
}

// Quarantine makes this member one that votes and keeps the log but hands its
// state to nobody and is no candidate, or ends that. As a last resort it may be a
// candidate: it may be the only one left whose log has everything.
func (t *Transport) Quarantine(on, lastResort bool) {
	t.quarantined.Store(on)
	t.lastResort.Store(lastResort)
}

// EndSnapshots ends those that are being sent, and lets none begin. A replica that is
// stopped waits for what reads its state, and that for a receiver which may be paused:
// it would come to its end minutes later.
func (t *Transport) EndSnapshots() {
	t.mu.Lock()
	t.noSnapshots = true
	t.mu.Unlock()
	t.BreakSnapshots()
}

// BreakSnapshots ends those that are being sent. Others may follow.
func (t *Transport) BreakSnapshots() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for c := range t.dialled {
		if c.kind == kindSnapshot {
			_ = c.raw.Close() // who sends sees the error. Under TLS, a word of parting could wait
		}
	}
}

// mayDial reports whether connections of a kind are still made. The caller holds the
// lock.
func (t *Transport) mayDial(k kind) bool {
	return !t.closed() && (k != kindSnapshot || !t.noSnapshots)
}

// Start implements raftio.ITransport: it listens.
func (t *Transport) Start() error {
	l, err := net.Listen("tcp", t.cfg.Listen)
	if err != nil {
		return fmt.Errorf("listen for peers: %w", err)
	}
	t.listener = l
	t.wg.Add(1)
	go func() {
		defer t.wg.Done()
		t.accept()
	}()
	if t.cfg.TLS != nil {
		t.wg.Add(1)
		go func() {
			defer t.wg.Done()
			t.cfg.TLS.watch(t.closing, t.cfg.Logger, t.recheck)
		}()
	}
	return nil
}

// Close implements raftio.ITransport: it ends all connections and returns when
// all goroutines have.
func (t *Transport) Close() error {
	t.once.Do(func() {
		t.mu.Lock()
		close(t.closing)
		for c := range t.open {
			_ = c.conn.Close() // its goroutine sees the error
		}
		for c := range t.dialled {
			_ = c.conn.Close()
		}
		t.mu.Unlock()
		t.waiting.close()
		if t.listener != nil {
			_ = t.listener.Close() // accept sees the error
		}
	})
	t.wg.Wait()
	return nil
}

func (t *Transport) closed() bool {
	select {
	case <-t.closing:
		return true
	default:
		return false
	}
}

// self is this end's part of a handshake.
func (t *Transport) self(k kind, oldest, newest byte) *hello {
	h := &hello{oldest: oldest, newest: newest, kind: k, Identity: t.cfg.Self, incarnation: t.incarnation}
	select {
	case <-t.joined:
		h.began = &t.began
	default:
	}
	return h
}

// check compares who the other end says it is, which its certificate does not
// contradict, with what this node knows, and remembers it. It waits for the node to know its cluster, but not longer than
// ctx.
func (t *Transport) check(ctx context.Context, h *Identity) error {
	self := &t.cfg.Self
	switch {
	case h.Cluster != self.Cluster || h.Deployment != self.Deployment:
		return refuse(ReasonCluster, "it belongs to cluster %s, this member to %s", h.Cluster, self.Cluster)
	case h.Replica == self.Replica && h.Member == self.Member:
		return refuse(ReasonSelf, "the member speaks to itself; two members have the address %s", h.Address)
	case h.Replica == self.Replica:
		return refuse(ReasonMember, "replica %d is member %s, not %s", self.Replica, self.Member, h.Member)
	case h.Member == self.Member:
		return refuse(ReasonMember, "member %s is replica %d, not %d", h.Member, self.Replica, h.Replica)
	}
	select {
	case <-t.joined:
	case <-t.closing:
		return refuse(ReasonStarting, "the member is about to stop")
	case <-ctx.Done():
		return refuse(ReasonStarting, "the member is starting")
	}
	members, err := t.cluster.Members()
	if err != nil {
		return refuse(ReasonStarting, "the member can't read its own state")
	}
	for i := range members {
		if err := members[i].check(h, ReasonMember); err != nil {
			return err
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	// Of what members said of themselves, only that of the same replica counts:
	// an address may go to another one once its former owner was removed.
	if m, ok := t.seen[h.Replica]; ok {
		if err := m.check(h, ReasonChanged); err != nil {
			return err
		}
	}
	t.seen[h.Replica] = Member{Replica: h.Replica, ID: h.Member, Address: h.Address}
	return nil
}

// check returns why h can't be a member of the same cluster as m.
func (m *Member) check(h *Identity, other Reason) error {
	known := m.ID != ulid.ULID{}
	switch {
	case m.Replica == h.Replica && m.Removed:
		return refuse(ReasonRemoved, "replica %d was removed from the cluster", m.Replica)
	case m.Replica == h.Replica && known && m.ID != h.Member:
		return refuse(other, "replica %d is member %s, not %s", m.Replica, m.ID, h.Member)
	case m.Replica == h.Replica && m.Address != "" && m.Address != h.Address:
		return refuse(ReasonAddress, "replica %d is at %s, not at %s", m.Replica, m.Address, h.Address)
	case m.Replica != h.Replica && known && m.ID == h.Member:
		return refuse(other, "member %s is replica %d, not %d", m.ID, m.Replica, h.Replica)
	// An address goes to a new member once its former owner was removed, which this
	// node may not have heard of: it may be behind, and the new one the leader that has
	// to tell it. Replica ids only go up, so no earlier one takes the address of a later.
	case h.Replica < m.Replica && !m.Removed && m.Address == h.Address:
		return refuse(ReasonAddress, "replica %d is at %s already", m.Replica, m.Address)
	}
	return nil
}

// agree returns the newest version that both ends speak, or 0.
func agree(h *hello) byte {
	if v := min(h.newest, version); v >= max(h.oldest, oldestVersion) {
		return v
	}
	return 0
}

// reasonOf finds out why a handshake failed.
func reasonOf(err error) *Refusal {
	var r *Refusal
	switch {
	case errors.As(err, &r):
		return r
	case isCertificate(err):
		return &Refusal{ReasonCertificate, err.Error()}
	case errors.Is(err, errFrame):
		return &Refusal{ReasonFrame, err.Error()}
	}
	return &Refusal{ReasonHandshake, err.Error()}
}
