package httpapi

import (
	"crypto/tls"
	"io"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/cairnkv/cairn/leases"
	"github.com/cairnkv/cairn/watchers"
)

// Config is what a [Server] is made of. Store, Watchers, Holds, MemberID and
// OpenAPI must be set; everything else has a default.
type Config struct {
	Store Store
	// Cluster shows and changes who belongs to the cluster.
	Cluster Cluster
	// Watchers is told of what is applied to the store. Shutdown closes it.
	Watchers *watchers.Hub
	// Holds renews the leases that connections hold. It outlives the server.
	Holds *leases.Renewer
	// MemberID and ClusterID are ULIDs; the first is on every answer.
	MemberID, ClusterID string
	// Version is the version of the binary.
	Version string
	// OpenAPI is the contract, as YAML.
	OpenAPI []byte
	// CursorKey authenticates cursors. It must be the same on every node of a
	// cluster, since a list may be continued on any of them, and another one in
	// every other cluster.
	CursorKey [32]byte
	// AllowedHosts are the names and addresses, with or without a port, that a
	// request may name as its Host, besides those of the loopback and the
	// address at which its connection arrived. Give the names that clients use
	// (the listen and advertise addresses, the name of a load balancer): an
	// attacker's page can make a browser send any other name here.
	AllowedHosts []string
	// TLS, when set, makes Serve speak TLS.
	TLS *tls.Config

	// Now is the wall clock that goes into commands; time.Now by default.
	Now func() time.Time
	// Logger takes what operators should see; discarded by default. Keys and
	// values are never logged.
	Logger *slog.Logger
	// Registerer takes the metrics of this package; nil keeps them out of sight.
	// Gatherer is what /metrics shows, and ExtraMetrics adds to it what another
	// library keeps, in the same text format.
	Registerer   prometheus.Registerer
	Gatherer     prometheus.Gatherer
	ExtraMetrics func(io.Writer)

	// HeaderTimeout is the time in which the headers of a request must arrive; 5
	// s by default.
	HeaderTimeout time.Duration
	// BodyTimeout is the time in which a body must arrive, and each line of a
	// bulk write; 30 s by default.
	BodyTimeout time.Duration
	// ReadTimeout bounds the work on one page of a list; 30 s by default. A stream
	// has no bound, but must be read.
	ReadTimeout time.Duration
	// WriteTimeout closes a connection whose peer takes nothing for so long; 30
	// s by default.
	WriteTimeout time.Duration
	// IdleTimeout closes a connection without a request; 2 min by default.
	IdleTimeout time.Duration
	// MaxConnections bounds the open connections; 20,000 by default. One beyond
	// it is told so and closed.
	MaxConnections int
}

func (c Config) withDefaults() Config {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.HeaderTimeout == 0 {
		c.HeaderTimeout = 5 * time.Second
	}
	if c.BodyTimeout == 0 {
		c.BodyTimeout = 30 * time.Second
	}
	if c.ReadTimeout == 0 {
		c.ReadTimeout = 30 * time.Second
	}
	if c.WriteTimeout == 0 {
		c.WriteTimeout = 30 * time.Second
	}
	if c.IdleTimeout == 0 {
		c.IdleTimeout = 2 * time.Minute
	}
	if c.MaxConnections == 0 {
		c.MaxConnections = 20_000
	}
	return c
}
