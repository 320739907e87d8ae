package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/client"
	"github.com/cairnkv/cairn/node"
)

// A network is the connections of a client, which a test can cut.
type network struct {
	mu   sync.Mutex
	open map[net.Conn]struct{}
}

// client makes a client over the network.
func (n *network) client(t testing.TB, endpoints []string) *client.Client {
	t.Helper()
	n.open = map[net.Conn]struct{}{}
	return newClientOf(t, client.Config{Endpoints: endpoints, HTTPClient: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
			if err == nil {
				n.mu.Lock()
				n.open[conn] = struct{}{}
				n.mu.Unlock()
			}
			return conn, err
		},
	}}})
}

// cut closes every connection.
func (n *network) cut() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for conn := range n.open {
		_ = conn.Close() // perhaps the client has
	}
	clear(n.open)
}

// TestWatchAcrossLossOfANode: while connections are cut and the node that serves
// the watch goes away, it hands out every revision, once, whole and in order.
func TestWatchAcrossLossOfANode(t *testing.T) {
	nodes := newCluster(t)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	var endpoints []string
	for _, n := range nodes {
		endpoints = append(endpoints, n.URL())
	}
	// What is written, by revision: one key after the other, two in a transaction.
	const writes = 400
	want := map[uint64]string{}
	writer := newClientOf(t, client.Config{Endpoints: endpoints[1:], Timeout: time.Minute, Attempts: 100})
	began := must(writer.Put(ctx, "other", nil)).Revision
	// at is how far the watch has come: the writer stays a little ahead.
	at := make(chan struct{}, 20)
	var written sync.WaitGroup
	written.Go(func() {
		for i := range writes {
			select {
			case at <- struct{}{}:
			case <-ctx.Done():
				return
			}
			a, b := fmt.Sprintf("w/%d/a", i), fmt.Sprintf("w/%d/b", i)
			txn := client.If().Then(client.OpPut(b, nil), client.OpPut("other", nil), client.OpPut(a, nil)).Txn
			result, err := writer.Txn(ctx, txn, client.Idempotent())
			if err != nil {
				t.Errorf("a write failed: %v", err)
				cancel()
				return
			}
			want[result.Revision] = fmt.Sprintf("%d:%s,%s", result.Revision, b, a)
		}
	})

	var wires network
	got := map[uint64]string{}
	last := began
	for m, err := range wires.client(t, endpoints).Watch(ctx, client.WatchOptions{Keys: []client.Keys{client.Prefix("w/")}, From: began}) {
		if err != nil {
			t.Fatal(err)
		}
		if m.Revision <= last {
			t.Fatalf("revision %d comes after %d", m.Revision, last)
		}
		last = m.Revision
		got[m.Revision] = show(m)
		switch n := len(got); {
		case n == writes/2:
			go func(n *node.Node) { _ = n.Close() }(nodes[0]) // which the test closes, too
		case n%(writes/8) == 0:
			wires.cut()
		}
		<-at
		if len(got) == writes {
			break
		}
	}
	written.Wait()
	if !maps.Equal(got, want) {
		for revision, events := range want {
			if got[revision] != events {
				t.Errorf("handed out %q, want %q", got[revision], events)
			}
		}
	}
}

// TestWatchCopy: a copy of some keys, kept by a watch with the present state, is
// right after a compaction has overtaken the watch on its way back.
func TestWatchCopy(t *testing.T) {
	url := newNode(t)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	writer := newClient(t, url)
	for _, key := range []string{"c/stays", "c/goes", "c/changes", "d"} {
		must(writer.Put(ctx, key, []byte("1")))
	}
	var wires network
	kept := map[string]string{}
	resets, away := 0, false
	o := client.WatchOptions{Keys: []client.Keys{client.Prefix("c/")}, Initial: true, OnRetry: func(error, time.Duration) {
		if away {
			return
		}
		away = true
		must(writer.Delete(ctx, "c/goes"))
		must(writer.Put(ctx, "c/changes", []byte("2")))
		must(writer.Put(ctx, "c/new", []byte("1")))
		must(writer.Compact(ctx, api.Compact{KeepRevisions: new(uint64)}))
	}}
	for m, err := range wires.client(t, []string{url}).Watch(ctx, o) {
		if err != nil {
			t.Fatal(err)
		}
		if m.Kind == client.WatchReset {
			resets++
			clear(kept)
		}
		for _, e := range m.Entries {
			kept[string(e.Key)] = string(e.Value)
		}
		for _, e := range m.Events {
			if e.Type == api.TypePut {
				kept[string(e.Key)] = string(e.Value)
			} else {
				delete(kept, string(e.Key))
			}
		}
		if m.Kind == client.WatchSynced {
			if resets == 2 {
				break
			}
			wires.cut()
		}
	}
	want := map[string]string{}
	for e, err := range writer.All(ctx, client.Prefix("c/")) {
		if err != nil {
			t.Fatal(err)
		}
		want[string(e.Key)] = string(e.Value)
	}
	if !maps.Equal(kept, want) || len(want) != 3 {
		t.Errorf("kept %v, want %v", kept, want)
	}

	// Without the present state it is told from where it could go on.
	for _, err := range writer.Watch(ctx, client.WatchOptions{From: 2}) {
		var e *client.Error
		if !errors.Is(err, client.ErrCompacted) || !errors.As(err, &e) || e.Problem.CompactRevision != writer.Revision() {
			t.Errorf("got %v, want that it is compacted at %d", err, writer.Revision())
		}
	}
}

// TestWatchLargeRevision: a revision that a node sends in parts comes whole, or in
// parts that are handed out once, although the connection is cut between them.
func TestWatchLargeRevision(t *testing.T) {
	const keys = 2500
	url := newNode(t)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	writer := newClient(t, url)
	value := bytes.Repeat([]byte("x"), 1000)
	must(writer.Bulk(ctx, func(yield func(api.Op, error) bool) {
		for i := 0; i < keys && yield(client.OpPut(fmt.Sprintf("l/%04d", i), value), nil); i++ {
		}
	}, nil))
	gone := must(writer.DeleteRange(ctx, client.Prefix("l/")))
	if gone.Deleted != keys {
		t.Fatalf("deleted %d keys in one transaction, want %d", gone.Deleted, keys)
	}

	for _, parts := range []bool{false, true} {
		var wires network
		messages, next := 0, 0
		for m, err := range wires.client(t, []string{url}).Watch(ctx, client.WatchOptions{From: gone.Revision, Prev: true, Parts: parts}) {
			if err != nil {
				t.Fatal(err)
			}
			messages++
			for _, e := range m.Events {
				if want := fmt.Sprintf("l/%04d", next); string(e.Key) != want || e.Prev == nil || !bytes.Equal(e.Prev.Value, value) {
					t.Fatalf("event %d of the revision is of %s, want %s with what was there before", next, e.Key, want)
				}
				next++
			}
			if !m.More {
				break
			}
			wires.cut()
		}
		if next != keys || (messages > 1) != parts {
			t.Errorf("parts %t: %d events in %d messages", parts, next, messages)
		}
	}
}
