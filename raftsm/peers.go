package raftsm

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/cairnkv/cairn/kv"
	"github.com/cairnkv/cairn/raftsm/transport"
	"github.com/cairnkv/cairn/storage"
)

// PeerFiles name the certificates with which members show each other who they
// are.
type PeerFiles = transport.Files

// CheckPeerAddress returns why an address can't be a member's. Dragonboat takes no other
// one, also into its configuration.
func CheckPeerAddress(address string) error {
	if !transport.ValidAddress(address) {
		return fmt.Errorf("the peer address %q is not a host and the number of a port, from 1 to 65535", address)
	}
	return nil
}

// PeerStats is what the connections between the members have done.
type PeerStats = transport.Stats

// openTransport makes this node's end of the connections between the members.
func openTransport(cfg *HostConfig) (*transport.Transport, error) {
	id := &cfg.Dir.Identity
	c := transport.Config{
		Self: transport.Identity{
			Cluster: id.ClusterID, Deployment: deploymentID(id.ClusterID), Replica: id.Replica, Member: id.MemberID,
			Address: id.PeerAddress,
		},
		Listen: cfg.ListenAddress, Fatal: cfg.Fatal, Logger: cfg.Logger,
	}
	if c.Listen == "" {
		c.Listen = id.PeerAddress
	}
	if cfg.PeerFiles != nil {
		credentials, err := transport.LoadCredentials(*cfg.PeerFiles)
		if err != nil {
			return nil, err
		}
		c.TLS = credentials
	}
	if cfg.Disowned != nil {
		c.Refused = func(address string, r *transport.Refusal) {
			switch r.Reason {
			case transport.ReasonMember, transport.ReasonRemoved, transport.ReasonRolledBack:
				cfg.Disowned(errors.New("the member at " + address + " says: " + r.Detail))
			}
		}
	}
	return transport.New(c), nil
}

// roster shows the transport what this node knows of its cluster: the first
// members' addresses, and what members have said of themselves in the replicated
// state.
type roster struct {
	h     *Host
	store *storage.Store // of the shard that has the members
}

func (r roster) HasShard(shard uint64) bool {
	_, open := r.h.shards.Load(shard)
	return open
}

func (r roster) Applied(shard uint64) uint64 {
	store, open := r.h.shards.Load(shard)
	if !open {
		return 0
	}
	applied, err := store.(*storage.Store).Applied()
	if err != nil {
		return 0 // it is closing
	}
	return applied
}

func (r roster) Room(bytes uint64) error {
	if r.h.room == nil {
		return nil
	}
	return r.h.room(bytes)
}

func (r roster) Members() ([]transport.Member, error) {
	v, err := r.store.View()
	if err != nil {
		return nil, err
	}
	defer v.Close()
	records, err := v.Memberships()
	if err != nil {
		return nil, err
	}
	var members []transport.Member
	said := map[uint64]bool{}
	for _, m := range records {
		said[m.Replica] = true
		members = append(members, transport.Member{
			Replica: m.Replica, ID: m.ID, Address: m.PeerAddress, Removed: m.State == kv.MemberRemoved,
		})
	}
	for replica, address := range r.h.dir.Identity.Members {
		if !said[replica] {
			members = append(members, transport.Member{Replica: replica, Address: address})
		}
	}
	return members, nil
}

// CallPeers goes through a handshake with each of the other members, as far as they can
// be reached. A member that they refuse is told by HostConfig.Disowned.
func (s *Shard) CallPeers(ctx context.Context) error {
	members, err := roster{s.host, s.store}.Members()
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	for _, m := range members {
		if m.Replica != s.replica && !m.Removed && m.Address != "" {
			wg.Go(func() { _ = s.host.transport.Call(ctx, m.Address) }) // who can't be reached refuses nobody
		}
	}
	wg.Wait()
	return nil
}

// PeerStats returns the figures of the connections between the members.
func (h *Host) PeerStats() PeerStats { return h.transport.Stats() }
