package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// DefaultDiscoveryMembers is how many first members are looked for.
	DefaultDiscoveryMembers = 3
	// maxDiscoveryMembers bounds what is believed of a name.
	maxDiscoveryMembers = 100
	// discoveryService names the records: _cairn-peer._tcp and the domain.
	discoveryService = "cairn-peer"
	// discoveryLimit bounds the search at a first start, discoveryLookup one of its
	// lookups. Between them it waits, from discoveryPause up to discoveryMaxPause.
	discoveryLimit    = 2 * time.Minute
	discoveryLookup   = 5 * time.Second
	discoveryPause    = 500 * time.Millisecond
	discoveryMaxPause = 8 * time.Second
)

// srvResolver is the part of net.Resolver that finds members.
type srvResolver interface {
	LookupSRV(ctx context.Context, service, proto, name string) (string, []*net.SRV, error)
}

// errDiscovery marks what looking again can't change.
var errDiscovery = errors.New("the first members can't be these")

// discover returns the peer addresses of all first members, of which own is one, as
// the SRV records of _cairn-peer._tcp and a domain have them. Members that saw
// different ones would be different clusters, so their number is said beforehand,
// and fewer are waited for: records that are made one after the other must not
// make a cluster of the first alone.
func (c *Config) discover(ctx context.Context, own string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, c.discoveryLimit)
	defer cancel()
	name := fmt.Sprintf("_%s._tcp.%s", discoveryService, c.DiscoverySRV)
	for wait := c.discoveryPause; ; wait = min(2*wait, discoveryMaxPause) {
		members, err := c.lookupMembers(ctx)
		if err == nil && len(members) == c.DiscoveryMembers && !slices.Contains(members, own) {
			err = fmt.Errorf("%w: this node's peer address is %s, and the records have %s", errDiscovery, own, strings.Join(members, ", "))
		}
		if err == nil && len(members) > c.DiscoveryMembers {
			err = fmt.Errorf("%w: there are %d records, %s, where %d members are to begin (--discovery-members)",
				errDiscovery, len(members), strings.Join(members, ", "), c.DiscoveryMembers)
		}
		if err == nil && len(members) == c.DiscoveryMembers {
			return members, nil
		}
		if err == nil {
			err = fmt.Errorf("there are %d of %d records: %s", len(members), c.DiscoveryMembers, strings.Join(members, ", "))
		}
		err = fmt.Errorf("find the first members by %s: %w", name, err)
		if errors.Is(err, errDiscovery) {
			return nil, err
		}
		c.Logger.Warn("the first members are not found yet", "err", err)
		if pause(ctx, wait); ctx.Err() != nil {
			return nil, fmt.Errorf("%w (tried for %v)", err, c.discoveryLimit)
		}
	}
}

// lookupMembers looks once.
func (c *Config) lookupMembers(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, discoveryLookup)
	defer cancel()
	_, records, err := c.resolver.LookupSRV(ctx, discoveryService, "tcp", c.DiscoverySRV)
	var failed *net.DNSError
	if errors.As(err, &failed) && failed.IsNotFound {
		return nil, errors.New("there are no such records")
	}
	if err != nil {
		return nil, err
	}
	var members []string
	for _, r := range records {
		if r.Target == "." || r.Port == 0 {
			return nil, fmt.Errorf("%w: a record has the target %q and the port %d, where nobody can be", errDiscovery, r.Target, r.Port)
		}
		members = append(members, peerName(net.JoinHostPort(r.Target, strconv.Itoa(int(r.Port)))))
	}
	slices.Sort(members)
	return slices.Compact(members), nil // priorities and weights mean nothing here
}

// peerName writes an address as all members must: names have no case, and no dot
// at their end.
func peerName(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return address // it is refused elsewhere
	}
	return net.JoinHostPort(strings.ToLower(strings.TrimSuffix(host, ".")), port)
}

// checkDiscovery completes the settings of the search, and refuses what can't work.
func (c *Config) checkDiscovery() error {
	if c.resolver == nil {
		c.resolver = net.DefaultResolver
	}
	c.discoveryLimit = cmp.Or(c.discoveryLimit, discoveryLimit)
	c.discoveryPause = cmp.Or(c.discoveryPause, discoveryPause)
	if c.DiscoverySRV == "" {
		if c.DiscoveryMembers != 0 {
			return errors.New("a number of members to discover says nothing without the name to discover them by")
		}
		return nil
	}
	if c.DiscoveryMembers == 0 {
		c.DiscoveryMembers = DefaultDiscoveryMembers
	}
	switch {
	case c.InitialCluster != "" || c.Join != "":
		return errors.New("a node finds its cluster by DNS, by a list of first members, or by joining one: give one of them")
	case c.DiscoveryMembers < 1 || c.DiscoveryMembers > maxDiscoveryMembers:
		return fmt.Errorf("the members to discover must be from 1 to %d", maxDiscoveryMembers)
	case c.PeerAdvertise == "" && c.PeerListen == "":
		return errors.New("a node that finds its cluster by DNS must know which of the records it is: give its peer address, --peer-advertise")
	}
	return nil
}
