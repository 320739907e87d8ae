package client_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cairnkv/cairn/client"
	"github.com/cairnkv/cairn/internal/testkit"
	"github.com/cairnkv/cairn/node"
)

// newCluster starts three real nodes of one cluster.
func newCluster(t testing.TB) []*node.Node {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var members []string
	peers := testkit.FreeAddresses(t, 3)
	for i, peer := range peers {
		members = append(members, fmt.Sprintf("n%d=%s", i+1, peer))
	}
	var nodes []*node.Node
	for i := range 3 {
		n, err := node.Open(ctx, node.Config{
			Name: fmt.Sprintf("n%d", i+1), DataDir: t.TempDir() + "/data", Listen: "127.0.0.1:0",
			PeerAdvertise: peers[i], InitialCluster: strings.Join(members, ","),
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = n.Close() })
		nodes = append(nodes, n)
	}
	for _, n := range nodes {
		awaitReady(ctx, t, newClient(t, n.URL()))
	}
	return nodes
}

func awaitReady(ctx context.Context, t testing.TB, c *client.Client) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := c.Ready(ctx)
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("the node does not become ready: %v", err)
		}
	}
}

// While the leader goes away, increments under idempotency keys all succeed, and
// each of them counts once. The requests that were on their way are cut off.
func TestOnceAcrossLossOfTheLeader(t *testing.T) {
	nodes := newCluster(t)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var endpoints []string
	leader := -1
	for i, n := range nodes {
		endpoints = append(endpoints, n.URL())
		if must(newClient(t, n.URL()).Status(ctx)).IsLeader {
			leader = i
		}
	}
	if leader < 0 {
		t.Fatal("no node leads")
	}
	// Everybody begins at the node that will be lost.
	endpoints[0], endpoints[leader] = endpoints[leader], endpoints[0]
	c := newClientOf(t, client.Config{Endpoints: endpoints, Timeout: time.Minute, Attempts: 100})

	const writers, each, before = 8, 40, 80
	increment := client.If().Then(client.OpIncrement("n", 1)).Txn
	var done atomic.Int64
	enough := make(chan struct{})
	var all sync.WaitGroup
	for range writers {
		all.Go(func() {
			for range each {
				if _, err := c.Txn(ctx, increment, client.Idempotent()); err != nil {
					t.Errorf("an increment failed: %v", err)
				}
				if done.Add(1) == before {
					close(enough)
				}
			}
		})
	}
	<-enough
	if err := nodes[leader].Close(); err != nil {
		t.Error(err)
	}
	all.Wait()
	if e := must(c.Get(ctx, "n")); string(e.Value) != fmt.Sprint(writers*each) {
		t.Errorf("counted %s, want %d", e.Value, writers*each)
	}
}
