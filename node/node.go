package node

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cairnkv/cairn/backup"
	"github.com/cairnkv/cairn/httpapi"
	"github.com/cairnkv/cairn/kv"
	"github.com/cairnkv/cairn/leases"
	"github.com/cairnkv/cairn/raftsm"
	"github.com/cairnkv/cairn/storage"
	"github.com/cairnkv/cairn/watchers"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sys/unix"
)

// Config says what a node is. The zero value, but for DataDir, is a cluster of
// one on the loopback.
type Config struct {
	// Name is what the operator calls the node. Default "n1". It can't change
	// after the first start.
	Name string
	// DataDir is where everything is kept. Made with mode 0700 if missing;
	// refused if others may write it, or if it is another node's.
	DataDir string

	// Listen is the address of the HTTP API, host:port. Default
	// 127.0.0.1:7480. Port 0 takes a free one.
	Listen string
	// Advertise is the address that clients use, if that is another one.
	Advertise string
	// PeerListen is the address for the other members. Default: the peer
	// address.
	PeerListen string
	// PeerAdvertise is the address at which the other members reach this one.
	// Default: PeerListen, or 127.0.0.1:7481. It can't change after the first
	// start.
	PeerAdvertise string
	// InitialCluster names all first members, "n1=host:7481,n2=host:7481", the
	// same on each. Empty: a cluster of one. Looked at only at the first start.
	InitialCluster string
	// DiscoverySRV is a domain whose SRV records _cairn-peer._tcp are the peer
	// addresses of all first members, in place of InitialCluster. PeerAdvertise, or
	// PeerListen, says which of them this node is. Looked at only at the first start.
	DiscoverySRV string
	// DiscoveryMembers is how many records there must be. Default 3. The node waits
	// for them, 2 minutes at most, and doesn't start if there are more.
	DiscoveryMembers int
	// Join has the URLs, separated by commas, of members of a running cluster that
	// this node is to come to, and JoinToken the token that adding a member gave.
	// Looked at only at the first start.
	Join, JoinToken string
	// Backup schedules backups of the cluster.
	Backup Backup
	// PeerTLS makes the members speak by mutual TLS and refuse all else.
	PeerTLS PeerTLS
	// RestoreFrom is a backup, or a directory of which the newest one is taken: an
	// empty node is filled from it before it serves. All first members must be
	// given the same. Looked at only at the first start, and until that is done.
	RestoreFrom string
	// Insecure allows to listen on other addresses than the loopback without
	// TLS and without authentication.
	Insecure bool

	// QuotaBytes is what the store may take on disk before the cluster refuses
	// what grows it. Default 16 GiB; at least 256 MiB.
	QuotaBytes uint64
	// AutoCompactionKeep is how much history is kept. 0 turns auto-compaction
	// off.
	AutoCompactionKeep time.Duration
	// CacheBytes is for the caches of the store, as storage.Options has it. Default 96 MiB.
	CacheBytes int64

	// ScrubInterval is the pace of the comparison of the members' contents: a part
	// of 64 MiB each interval, and three of them between two passes. Default 10 s.
	ScrubInterval time.Duration

	// AllowedHosts are further names by which clients may call this node.
	AllowedHosts []string
	// OpenAPI is the contract that the node serves, Version the binary's.
	OpenAPI []byte
	Version string
	Logger  *slog.Logger
	// Fatal ends the process when the disk or the log is broken. Default: log
	// and exit with status 1, or StatusHopeless.
	Fatal func(error)

	chosen *backup.Chosen // what RestoreFrom means, if that is known already
	// beforePart, in tests, may keep a part of a restore back.
	beforePart func(part uint64) error
	// These are others in tests.
	resolver       srvResolver
	discoveryLimit time.Duration
	discoveryPause time.Duration
}

// Defaults of Config.
const (
	DefaultListen     = "127.0.0.1:7480"
	DefaultPeer       = "127.0.0.1:7481"
	DefaultQuotaBytes = 16 << 30
	// MinQuotaBytes is the least quota that is accepted. The store's own logs,
	// kept to be used again, take up to 80 MiB of it, and an alarm could never
	// end under a quota that they fill.
	MinQuotaBytes = 256 << 20
	// shardID is the one shard that a node has so far.
	shardID = 1
)

// Node is a running node.
type Node struct {
	cfg      Config
	dir      *raftsm.Dir
	host     *raftsm.Host
	shard    *raftsm.Shard
	watchers *watchers.Hub
	clock    *leases.Keeper
	holds    *leases.Renewer
	guard    *guard
	peers    *http.Client // asks other members how they are
	timings  *timings
	schedule *schedule      // of backups, or nil
	backup   *backup.Chosen // what the node is filled from, or nil
	server   *httpapi.Server
	listener net.Listener
	started  time.Time
	renewals atomic.Uint64 // leases that were renewed through this member

	background context.CancelFunc // ends the node's own goroutines
	wg         sync.WaitGroup     // of them
	failed     chan error         // why the node can't stay; the first ones
	closeOnce  sync.Once
	closeErr   error
	closed     chan struct{} // closed when Close is done
}

// Open starts a node. ctx bounds the start alone.
func Open(ctx context.Context, cfg Config) (n *Node, err error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	n = &Node{cfg: cfg, peers: newPeersClient(), timings: newTimings(), started: time.Now(), failed: make(chan error, 5), closed: make(chan struct{})}
	// Whatever was started when a later step fails is ended again.
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close())
			n = nil
		}
	}()
	if n.backup, err = cfg.chooseBackup(ctx); err != nil {
		return n, err
	}
	spec := raftsm.Spec{Name: cfg.Name, PeerAddress: cfg.peerAddress(), InitialCluster: cfg.InitialCluster}
	if n.backup != nil {
		spec.Backup = n.backup.Info.SHA256
	}
	if cfg.Join != "" {
		spec.Join = n.joiner(ctx)
	}
	if cfg.DiscoverySRV != "" {
		spec.PeerAddress = peerName(spec.PeerAddress)
		spec.Discover = func() ([]string, error) { return cfg.discover(ctx, spec.PeerAddress) }
	}
	if n.dir, err = raftsm.OpenDir(cfg.DataDir, spec); err != nil {
		return n, err
	}
	n.host, err = raftsm.OpenHost(raftsm.HostConfig{
		Dir: n.dir, ListenAddress: cfg.PeerListen, PeerFiles: cfg.PeerTLS.files(), Disowned: n.disowned,
		Fatal: cfg.Fatal, Timings: n.timings.told(), Logger: cfg.Logger,
	})
	if err != nil {
		return n, err
	}
	// The hub hears of what is applied from the first command on; what the store
	// had before is told when that is known.
	n.watchers = watchers.NewHub(past{n}, 0)
	n.shard, err = n.host.OpenShard(raftsm.Config{
		Shard: shardID, Logger: cfg.Logger, Fatal: cfg.Fatal, ScrubInterval: cfg.ScrubInterval,
		Callbacks: raftsm.Callbacks{
			Applied: func(_, to uint64, events []kv.Event) { n.watchers.Applied(to, events) },
			Jumped: func(to uint64) {
				cfg.Logger.Info("A snapshot took the place of the state.", "revision", to)
				n.watchers.Jumped(to)
			},
			Wanted: n.watchers.Wanted,
		},
		Store: storage.Options{CacheBytes: cfg.CacheBytes},
	})
	if err != nil {
		return n, err
	}
	revision, _ := n.shard.Store().Revisions()
	n.watchers.Jumped(revision)
	n.clock = leases.Start(clockLog{n.shard}, cfg.Logger)
	n.guard = newGuard(n)
	n.holds = leases.StartRenewer(face{n}, cfg.Logger)
	n.schedule = newSchedule(n)
	if err := n.guard.look(); err != nil {
		return n, err
	}
	n.listener, err = httpapi.Listen(ctx, cfg.Listen)
	if err != nil {
		return n, fmt.Errorf("listen for clients: %w", err)
	}
	n.server = n.newServer()
	n.startBackground()
	return n, ctx.Err()
}

// clockLog shows the shard to the lease clock.
type clockLog struct{ *raftsm.Shard }

func (l clockLog) NeedsClock() (bool, uint64) { return l.Store().NeedsClock() }
func (l clockLog) DueLeases(limit int) ([]kv.Lease, []kv.LeaseID, error) {
	return l.Store().DueLeases(limit)
}

func (n *Node) newServer() *httpapi.Server {
	id := &n.dir.Identity
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	n.timings.register(registry)
	n.schedule.registerMetrics(registry)
	registry.MustRegister(newStatusMetrics(n), watchMetrics{n.watchers}, peerMetrics{n.host}, storageMetrics{n.shard.Store()})
	return httpapi.New(httpapi.Config{
		Store:        face{n},
		Cluster:      membership{n},
		Watchers:     n.watchers,
		Holds:        n.holds,
		MemberID:     id.MemberID.String(),
		ClusterID:    id.ClusterID.String(),
		Version:      n.cfg.Version,
		OpenAPI:      n.cfg.OpenAPI,
		CursorKey:    sha256.Sum256(append([]byte("cairn cursor "), id.ClusterID[:]...)),
		AllowedHosts: n.allowedHosts(),
		Logger:       n.cfg.Logger,
		Registerer:   registry,
		Gatherer:     registry,
		ExtraMetrics: func(w io.Writer) { raftsm.WriteMetrics(w) },
	})
}

func (n *Node) allowedHosts() []string {
	hosts := append([]string{}, n.cfg.AllowedHosts...)
	for _, address := range []string{n.cfg.Listen, n.address()} {
		if host, _, err := net.SplitHostPort(address); err == nil && host != "" {
			hosts = append(hosts, host)
		}
	}
	return hosts
}

// startBackground starts the node's own goroutines; Close ends them.
func (n *Node) startBackground() {
	ctx, cancel := context.WithCancel(context.Background())
	n.background = cancel
	for _, run := range []func(context.Context){n.guard.run, n.guard.reclaim, n.announce, n.autoCompact, n.restore, n.schedule.run, n.settle, n.follow} {
		n.wg.Add(1)
		go func() {
			defer n.wg.Done()
			run(ctx)
		}()
	}
	n.wg.Add(1)
	go func() {
		defer n.wg.Done()
		if err := n.server.Serve(n.listener); err != nil && !errors.Is(err, http.ErrServerClosed) {
			n.fail(fmt.Errorf("serve clients: %w", err))
		}
	}()
}

// URL is where clients, and the other members, reach the node.
func (n *Node) URL() string { return "http://" + n.address() }

// address is host and port of URL. A node that listens on all addresses of its
// machine is reached at the host of its peer address.
func (n *Node) address() string {
	listens := n.listener.Addr().String()
	switch {
	case n.cfg.Advertise != "":
		return n.cfg.Advertise
	case unspecified(listens):
		host, _, _ := net.SplitHostPort(n.dir.Identity.PeerAddress)
		_, port, _ := net.SplitHostPort(listens)
		return net.JoinHostPort(host, port)
	}
	return listens
}

// Wait returns when the node has failed, with the reason, or is closed, with
// nil.
func (n *Node) Wait() error {
	select {
	case err := <-n.failed:
		return err
	case <-n.closed:
		return nil
	}
}

// Ready is nil while linearizable rounds succeed, the store is not being filled
// from a backup, and the content can be trusted.
func (n *Node) Ready() error {
	if err := n.serving(); err != nil {
		return err
	}
	return n.shard.Ready()
}

// Shutdown hands the leadership over, lets requests finish and closes the node.
// When ctx is done it closes it at once.
func (n *Node) Shutdown(ctx context.Context) error {
	if err := n.shard.HandOver(ctx); err != nil {
		n.cfg.Logger.Warn("the leadership was not handed over", "err", err)
	}
	err := n.server.Shutdown(ctx)
	return errors.Join(err, n.Close())
}

// Close ends the node and waits for all of it. Requests under way are cut off.
func (n *Node) Close() error {
	n.closeOnce.Do(func() {
		defer close(n.closed)
		// In the reverse order of Open; what was not started is nil.
		if n.server != nil {
			done, cancel := context.WithCancel(context.Background())
			cancel()
			_ = n.server.Shutdown(done) // it only says that requests were cut off
		}
		if n.background != nil {
			n.background()
			n.wg.Wait()
		}
		n.peers.CloseIdleConnections()
		if n.listener != nil {
			_ = n.listener.Close() // the server closed it already, if there was one
		}
		if n.holds != nil {
			n.holds.Close()
		}
		if n.clock != nil {
			n.clock.Close()
		}
		if n.watchers != nil {
			n.watchers.Close()
		}
		if n.shard != nil {
			n.closeErr = n.shard.Close()
		}
		if n.host != nil {
			n.host.Close()
		}
		if n.dir != nil {
			n.dir.Close()
		}
	})
	<-n.closed
	return n.closeErr
}

// complete fills in the defaults and refuses what can't work.
func (c *Config) complete() error {
	if c.DataDir == "" {
		return errors.New("a data directory is needed")
	}
	if c.Listen == "" {
		c.Listen = DefaultListen
	}
	if c.QuotaBytes == 0 {
		c.QuotaBytes = DefaultQuotaBytes
	}
	if c.QuotaBytes < MinQuotaBytes {
		return fmt.Errorf("the quota is %d bytes; it must be at least %d", c.QuotaBytes, MinQuotaBytes)
	}
	if c.AutoCompactionKeep < 0 {
		return errors.New("the history that auto-compaction keeps can't be negative")
	}
	if err := c.Backup.complete(); err != nil {
		return err
	}
	if c.ScrubInterval < 0 {
		return errors.New("the interval of the comparison of contents can't be negative")
	}
	if c.CacheBytes < 0 {
		return errors.New("the cache can't be negative")
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Fatal == nil {
		logger := c.Logger
		c.Fatal = func(err error) {
			what, status := "its disk or its log is broken", 1
			if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
				what = "its disk is full; make room and start it again"
			}
			if Hopeless(err) {
				what, status = "what is on its disk is damaged; look at it with cairn doctor", StatusHopeless
			}
			logger.Error("this node can't go on; "+what, "err", err)
			os.Exit(status)
		}
	}
	if c.InitialCluster != "" {
		members, err := raftsm.ParseInitialCluster(c.InitialCluster)
		if err != nil {
			return err
		}
		for _, m := range members {
			if unspecified(m.Address) {
				return fmt.Errorf("the other members can't reach %s at %q: its peer address needs a host", m.Name, m.Address)
			}
		}
	}
	if err := c.checkDiscovery(); err != nil {
		return err
	}
	if c.Join != "" && (c.InitialCluster != "" || c.RestoreFrom != "") {
		return errors.New("a node that joins a cluster has neither an initial cluster nor a backup to begin with")
	}
	for _, a := range []struct{ what, address string }{
		{"client", c.Listen}, {"peer", c.PeerListen}, {"peer advertise", c.PeerAdvertise}, {"advertise", c.Advertise},
	} {
		if err := checkAddress(a.what, a.address); err != nil {
			return err
		}
	}
	if unspecified(c.Advertise) {
		return fmt.Errorf("nobody can reach the advertised address %q: it needs a host", c.Advertise)
	}
	if address := c.peerAddress(); unspecified(address) {
		return fmt.Errorf("the other members can't reach %q, and the peer address can't change later: give --peer-advertise", address)
	}
	if _, port, _ := net.SplitHostPort(cmp.Or(c.peerAddress(), c.peerListen())); port == "0" {
		return errors.New("the peer address needs a port of its own, not 0: the other members must find it, and it can't change later")
	}
	if err := c.PeerTLS.check(); err != nil {
		return err
	}
	if c.Insecure {
		return nil
	}
	if !loopback(c.Listen) {
		return fmt.Errorf("%s is not a loopback address, and clients would need neither TLS nor a password: say --insecure if that is meant", c.Listen)
	}
	if address := c.peerListen(); !loopback(address) && !c.PeerTLS.on() {
		return fmt.Errorf("%s is not a loopback address, and peers would speak without TLS: give --peer-ca, --peer-cert and --peer-key, or say --insecure if that is meant", address)
	}
	return nil
}

// peerAddress is what the identity gets, or is checked against.
func (c *Config) peerAddress() string {
	switch {
	case c.PeerAdvertise != "":
		return c.PeerAdvertise
	case c.InitialCluster != "":
		return "" // the initial cluster says it
	case c.PeerListen != "":
		return c.PeerListen
	}
	return DefaultPeer
}

// peerListen is where this node will listen for peers, as far as the
// configuration tells.
func (c *Config) peerListen() string {
	if c.PeerListen != "" {
		return c.PeerListen
	}
	if address := c.peerAddress(); address != "" {
		return address
	}
	members, _ := raftsm.ParseInitialCluster(c.InitialCluster)
	for _, m := range members {
		if m.Name == cmp.Or(c.Name, raftsm.DefaultName) {
			return m.Address
		}
	}
	return DefaultPeer
}

func checkAddress(what, address string) error {
	if address == "" {
		return nil
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("the %s address %q is not host:port", what, address)
	}
	if _, err := net.LookupPort("tcp", port); err != nil {
		return fmt.Errorf("the %s address %q has no valid port", what, address)
	}
	return nil
}

// unspecified reports whether an address is all of a machine, so none to go to.
func unspecified(address string) bool {
	host, _, err := net.SplitHostPort(address)
	ip := net.ParseIP(host)
	return err == nil && (host == "" || ip != nil && ip.IsUnspecified())
}

func loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// announce records in the replicated state who this member is, as soon as there
// is a leader, and again until that has worked.
func (n *Node) announce(ctx context.Context) {
	id := &n.dir.Identity
	c := &kv.Command{Kind: kv.KindMember, Time: time.Now().UnixMilli(), Member: kv.Member{
		Replica: id.Replica, ID: id.MemberID, Name: id.Name, Version: kv.Version,
		ClientURL: n.URL(), PeerAddress: id.PeerAddress,
	}}
	for ctx.Err() == nil {
		if result, err := n.shard.Propose(ctx, c); err == nil {
			if err := result.Err(); err != nil {
				n.disowned(err)
			}
			return
		}
		pause(ctx, time.Second)
	}
}

// pause waits, but not longer than ctx.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
