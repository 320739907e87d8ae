package node

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/cairnkv/cairn/backup"
	"github.com/cairnkv/cairn/raftsm"
	"github.com/cairnkv/cairn/storage"
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
	// Insecure allows listening on other addresses than the loopback without
	// TLS and without authentication.
	Insecure bool

	// QuotaBytes is what the store may take on disk before the cluster refuses
	// what grows it. Default 16 GiB; at least 256 MiB.
	QuotaBytes uint64
	// AutoCompactionKeep is how much history is kept. 0 turns auto-compaction
	// off.
	AutoCompactionKeep time.Duration
	// CacheBytes is for the caches of the store, as storage.Options has it. Default DefaultCacheBytes.
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
	DefaultCacheBytes = storage.DefaultCacheBytes
	// MinQuotaBytes is the least quota that is accepted. The store's own logs,
	// kept to be used again, take up to 80 MiB of it, and an alarm could never
	// end under a quota that they fill.
	MinQuotaBytes = 256 << 20
	// shardID is the one shard that a node has so far.
	shardID = 1
)

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
			if err := checkPeerPort(m.Address); err != nil {
				return err
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
	if err := checkPeerPort(cmp.Or(c.peerAddress(), c.peerListen())); err != nil {
		return err
	}
	if err := raftsm.CheckPeerAddress(c.peerListen()); err != nil {
		return err
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

// checkPeerPort returns why the other members could not find one at an address.
func checkPeerPort(address string) error {
	if _, port, _ := net.SplitHostPort(address); port == "0" {
		return errors.New("the peer address needs a port of its own, not 0: the other members must find it, and it can't change later")
	}
	return raftsm.CheckPeerAddress(address)
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
