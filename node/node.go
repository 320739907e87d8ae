package node

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
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
	if cfg.Join != "" || cfg.JoinToken != "" { // one without the other is refused, where it is needed
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
		Fatal: cfg.Fatal, Room: n.snapshotRoom, Timings: n.timings.told(), Logger: cfg.Logger,
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
		n.wg.Go(func() { run(ctx) })
	}
	n.wg.Go(func() {
		if err := n.server.Serve(n.listener); err != nil && !errors.Is(err, http.ErrServerClosed) {
			n.fail(fmt.Errorf("serve clients: %w", err))
		}
	})
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
	kept, err := leave(ctx, n.shard.HandOver, n.server.Shutdown)
	if kept != nil {
		n.cfg.Logger.Warn("the leadership was not handed over", "err", kept)
	}
	return errors.Join(err, n.Close())
}

// leave hands over and then drains, and returns the errors of both. Handing over has half
// of the time of ctx: where nobody takes the leadership it would have all of it, and streams
// would be cut off without a word. Another member leads soon after in any case.
func leave(ctx context.Context, handOver, drain func(context.Context) error) (kept, cutOff error) {
	half, cancel := halfOf(ctx)
	kept = handOver(half)
	cancel()
	return kept, drain(ctx)
}

// halfOf has half of the time that is left to ctx, if that ends.
func halfOf(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, ends := ctx.Deadline()
	if !ends {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, time.Until(deadline)/2)
}

// Close ends the node and waits for all of it. Requests under way are cut off.
func (n *Node) Close() error {
	n.closeOnce.Do(func() {
		defer close(n.closed)
		// From where requests come in; what was not started is nil.
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
