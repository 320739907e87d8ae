package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// members is the size of the clusters that are measured: the smallest that goes on
// when one is lost.
const members = 3

const profileCluster = "cluster"

// clusterProfiles are loads whose clients are spread evenly over the members of a
// cluster. All of its processes share the machine with the load.
var clusterProfiles = []profile{
	{name: "cluster-put-64", about: "put one of the keys at random, 64 clients over three nodes", clients: 64, step: putStep},
	{name: "cluster-put-256", about: "put one of the keys at random, 256 clients over three nodes", clients: 256, step: putStep},
	{name: "cluster-get-64", about: "linearizable get of one of the keys at random, 64 clients over three nodes", clients: 64, reads: true, step: getStep(false)},
	{name: "cluster-get-256", about: "linearizable get of one of the keys at random, 256 clients over three nodes", clients: 256, reads: true, step: getStep(false)},
}

func clusterNames() (names []string) {
	for _, p := range clusterProfiles {
		names = append(names, p.name)
	}
	return names
}

// cluster measures one profile of clusters, if name is one.
func (b *bench) cluster(ctx context.Context, name string) (*result, bool) {
	for _, p := range clusterProfiles {
		if p.name != name {
			continue
		}
		r := &result{profile: p.name, about: p.about, columns: loadColumns}
		b.alternate(ctx, r, b.targets, func(t target) (sample, error) {
			return measureCluster(ctx, b.set, b.data, t, p)
		})
		return r, true
	}
	return nil, false
}

// A cluster is servers of one target that are members of each other's cluster.
type cluster []*server

// startCluster starts a cluster in an empty directory under parent and waits until
// every member serves.
func (t target) startCluster(ctx context.Context, parent string) (c cluster, err error) {
	defer func() {
		if err != nil {
			_ = c.discard() // the first error says more
		}
	}()
	var all []member
	for i := range members {
		m := member{name: fmt.Sprintf("n%d", i+1)}
		if m.addr, err = freeAddr(); err != nil {
			return c, err
		}
		if m.peer, err = freeAddr(); err != nil {
			return c, err
		}
		all = append(all, m)
	}
	for _, m := range all {
		dir, err := os.MkdirTemp(parent, t.name+"-"+m.name+"-")
		if err != nil {
			return c, err
		}
		process, err := startProcess(dir, t.memberCommand(filepath.Join(dir, "data"), m, all))
		if err != nil {
			return c, errors.Join(err, os.RemoveAll(dir))
		}
		c = append(c, &server{process: process, target: t, dir: dir, addr: m.addr, peer: m.peer})
	}
	for _, s := range c {
		if err := s.waitFor(ctx, s.addr, t.ready(s.addr)); err != nil {
			return c, fmt.Errorf("%s: %w", t.name, err)
		}
	}
	return c, nil
}

// discard stops all members and deletes their data.
func (c cluster) discard() (err error) {
	for _, s := range c {
		err = errors.Join(err, s.discard())
	}
	return err
}

// dial opens n sessions, as many with each member as with the others.
func (c cluster) dial(ctx context.Context, dial dialer, n int) (*clients, error) {
	all := &clients{}
	var closers []func()
	all.close = func() {
		for _, closer := range closers {
			closer()
		}
	}
	for i, s := range c {
		one, err := dial(ctx, s.addr, (n+len(c)-1-i)/len(c))
		if err != nil {
			all.close()
			return nil, err
		}
		all.sessions = append(all.sessions, one.sessions...)
		closers = append(closers, one.close)
	}
	return all, nil
}

// take reads what all members used so far, with read, which reads it of one.
func (c cluster) take(read func(pid int) (usage, error)) (sum usage, err error) {
	for _, s := range c {
		if err := s.alive(); err != nil {
			return sum, err
		}
		u, err := read(s.pid())
		if err != nil {
			return sum, err
		}
		sum.server += u.server
		sum.client = u.client
		sum.memory.Resident += u.memory.Resident
		sum.memory.Peak += u.memory.Peak
	}
	return sum, nil
}

// measureCluster is measure for a cluster. Processor time and memory are those of
// its members together.
func measureCluster(ctx context.Context, set settings, data *dataset, t target, p profile) (_ sample, err error) {
	ctx, cancel := context.WithTimeout(ctx, set.Duration+grace)
	defer cancel()
	servers, err := t.startCluster(ctx, set.Dir)
	if err != nil {
		return sample{}, err
	}
	defer func() { err = errors.Join(err, servers.discard()) }()
	if p.reads {
		if err := servers[0].load(ctx, set.Keys); err != nil {
			return sample{}, err
		}
	}
	c, err := servers.dial(ctx, t.dialFor(p.reads), p.clients)
	if err != nil {
		return sample{}, err
	}
	defer c.close()

	return underLoad(ctx, set, c, p.step(data, set), servers)
}
