package node

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cairnkv/cairn/internal/authority"
)

// transcript is what a node logs.
type transcript struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *transcript) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *transcript) has(texts ...string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.b.String()) {
		all := true
		for _, text := range texts {
			all = all && strings.Contains(line, text)
		}
		if all {
			return true
		}
	}
	return false
}

func (l *transcript) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// threeConfigs are those of a cluster of three.
func threeConfigs(t testing.TB) []Config {
	var cluster []string
	var configs []Config
	for i := range 3 {
		cfg := config(t)
		cfg.Name = fmt.Sprint("n", i+1)
		configs = append(configs, cfg)
		cluster = append(cluster, cfg.Name+"="+cfg.PeerListen)
	}
	for i := range configs {
		configs[i].InitialCluster = strings.Join(cluster, ",")
	}
	return configs
}

// allReady opens nodes, which are members of one cluster, and waits for all of them.
func allReady(t testing.TB, configs []Config) (nodes []*Node) {
	t.Helper()
	for _, cfg := range configs {
		nodes = append(nodes, open(t, cfg))
	}
	for _, n := range nodes {
		eventually(t, "the node is ready", func() bool { return n.Ready() == nil })
	}
	return nodes
}

func issue(t testing.TB, a *authority.Authority, name string, life time.Duration, hosts ...string) PeerTLS {
	t.Helper()
	cert, key, err := a.Issue(name, hosts, life)
	must(t, err)
	return PeerTLS{CA: a.File(), Cert: cert, Key: key}
}

// ask is a request whose failure is an answer.
func ask(u *user, method, path, body string) int {
	status, _, _ := u.try(method, path, body)
	return status
}

// TestPeerTLS runs three nodes that speak by TLS, and replaces their certificates
// under load. Then a fourth process takes the place of one of them: with a
// certificate of another authority, with one for another host, and in the clear.
// It is not let in, and the others say why.
func TestPeerTLS(t *testing.T) {
	t.Parallel()
	ours, _, err := authority.Open(t.TempDir())
	must(t, err)
	configs := threeConfigs(t)
	var logs []*transcript
	var nodes []*Node
	for i := range configs {
		l := &transcript{}
		logs = append(logs, l)
		configs[i].Logger = l.logger()
		configs[i].PeerTLS = issue(t, ours, configs[i].Name, time.Hour, "127.0.0.1")
		nodes = append(nodes, open(t, configs[i]))
	}
	var users []*user
	for _, n := range nodes {
		eventually(t, "the node is ready", func() bool { return n.Ready() == nil })
		users = append(users, newUser(t, n))
	}

	// All certificates are replaced while the cluster is written to.
	stop := make(chan struct{})
	var written atomic.Int64
	var wg sync.WaitGroup
	for i, u := range users {
		wg.Go(func() {
			for k := 0; ; k++ {
				select {
				case <-stop:
					return
				default:
				}
				if status, body, err := u.try("PUT", fmt.Sprintf("/v1/kv/load-%d-%d", i, k), "v"); err != nil || status != 201 {
					t.Errorf("a write while certificates change: %d %s %v", status, body, err)
					return
				}
				written.Add(1)
			}
		})
	}
	eventually(t, "the load runs", func() bool { return written.Load() > 100 })
	before := nodes[0].host.PeerStats().CertificateExpires
	for _, cfg := range configs {
		issue(t, ours, cfg.Name, 2*time.Hour, "127.0.0.1")
	}
	for _, n := range nodes {
		eventually(t, "the new certificate is in force", func() bool {
			return n.host.PeerStats().CertificateExpires.After(before.Add(time.Minute))
		})
	}
	at := written.Load()
	eventually(t, "the load goes on", func() bool { return written.Load() > at+100 })
	close(stop)
	wg.Wait()
	_, metrics, err := users[0].try("GET", "/metrics", "")
	must(t, err)
	for _, line := range []string{
		`cairn_peer_connections{direction="in",kind="messages"}`, `cairn_peer_certificate_reloads_total{result="used"} 1`,
		`cairn_peer_refused_total{reason="certificate"} 0`, `cairn_peer_certificate_expiry_timestamp_seconds{certificate="own"}`,
	} {
		if !strings.Contains(metrics, line) {
			t.Errorf("the metrics lack %s", line)
		}
	}

	// The third one leaves, and others come in its place and with its data.
	users[2].transport.CloseIdleConnections()
	must(t, nodes[2].Close())
	saved := t.TempDir()
	must(t, os.CopyFS(saved, os.DirFS(configs[2].DataDir)))
	theirs, _, err := authority.Open(t.TempDir())
	must(t, err)
	foreign := issue(t, theirs, "n3", time.Hour, "127.0.0.1")
	elsewhere := issue(t, ours, "elsewhere", time.Hour, "127.0.0.2")
	for _, c := range []struct {
		name string
		tls  PeerTLS
	}{{"authority", foreign}, {"host", elsewhere}, {"clear", PeerTLS{}}} {
		t.Run(c.name, func(t *testing.T) {
			l := &transcript{}
			cfg := configs[2]
			cfg.DataDir = filepath.Join(t.TempDir(), "data")
			must(t, os.CopyFS(cfg.DataDir, os.DirFS(saved)))
			must(t, os.Chmod(cfg.DataDir, 0o700))
			cfg.PeerTLS, cfg.Logger = c.tls, l.logger()
			refused := func() (total uint64) {
				for _, n := range nodes[:2] {
					for _, m := range []map[string]uint64{n.host.PeerStats().Refused, n.host.PeerStats().Failed} {
						total += m["certificate"] + m["handshake"]
					}
				}
				return total
			}
			before := refused()
			n := open(t, cfg)
			eventually(t, "it was refused", func() bool { return refused() >= before+2 })
			if n.Ready() == nil {
				t.Error("it is ready")
			}
			eventually(t, "it says that it is refused", func() bool { return l.has("A peer can't be spoken to") })
			if s := n.host.PeerStats(); s.Inbound["messages"] != 0 || s.Outbound["messages"] != 0 {
				t.Errorf("it has connections: %+v", s)
			}
			if status := ask(users[0], "PUT", "/v1/kv/meanwhile", "v"); status != 200 && status != 201 {
				t.Errorf("the others do not go on: %d", status)
			}
			must(t, n.Close())
		})
	}
	if !logs[0].has("Refused a connection to the peer port", "reason=certificate") && !logs[1].has("Refused a connection to the peer port", "reason=certificate") {
		t.Error("the others do not say whom they refused")
	}
	third := open(t, configs[2])
	eventually(t, "the right one is back", func() bool { return third.Ready() == nil })
}

// TestForeignClusterAtTheAddress: a member of another cluster at a member's
// address is not listened to, and hears why.
func TestForeignClusterAtTheAddress(t *testing.T) {
	t.Parallel()
	configs := threeConfigs(t)
	nodes := allReady(t, configs[:2]) // two of three are a majority
	// The same text but for one port: another cluster, whose first member the
	// third of ours believes to be.
	l := &transcript{}
	other := configs[2]
	other.Logger = l.logger()
	other.InitialCluster = strings.ReplaceAll(other.InitialCluster, configs[0].PeerListen, freeAddress(t))
	n := open(t, other)
	eventually(t, "it is refused for its cluster", func() bool {
		return nodes[1].host.PeerStats().Refused["cluster"] > 0 && l.has("reason=cluster")
	})
	if n.Ready() == nil {
		t.Error("it is ready")
	}
}

// TestWipedMemberNeverSpeaks: a member that was wiped and started again under its
// old name ends, says why, and has not been listened to by then: no connection of
// it was let in.
func TestWipedMemberNeverSpeaks(t *testing.T) {
	t.Parallel()
	configs := threeConfigs(t)
	nodes := allReady(t, configs)
	for _, n := range nodes {
		eventually(t, "all have said who they are", func() bool { return len(n.Status().Members) == 3 })
	}
	must(t, nodes[2].Close())
	// A write that both have means that they speak to each other, which two followers
	// need not have done before. What is left then of the third is nothing.
	first := newUser(t, nodes[0])
	eventually(t, "the others go on", func() bool { return ask(first, "PUT", "/v1/kv/meanwhile", "v")/100 == 2 })
	for _, n := range nodes[:2] {
		eventually(t, "it is gone", func() bool { return n.host.PeerStats().Inbound["messages"] == 1 })
	}
	must(t, os.RemoveAll(configs[2].DataDir))
	wiped := open(t, configs[2])
	if err := wiped.Wait(); !Hopeless(err) || !strings.Contains(err.Error(), "can't stay") || !strings.Contains(err.Error(), "replica 3 is member") {
		t.Errorf("it ended with %v", err)
	}
	// Who refuses answers before it counts.
	eventually(t, "it was refused", func() bool {
		return nodes[0].host.PeerStats().Refused["member"]+nodes[1].host.PeerStats().Refused["member"] > 0
	})
	for _, n := range nodes[:2] {
		if s := n.host.PeerStats(); s.Inbound["messages"] != 1 {
			t.Errorf("it was let in: %+v", s)
		}
	}
	if s := wiped.host.PeerStats(); s.ReceivedBytes+s.SentBytes != 0 {
		t.Errorf("it spoke: %+v", s)
	}
}

// BenchmarkPeers compares three members that put, one at a time and many, by the
// transport with and without TLS.
func BenchmarkPeers(b *testing.B) {
	for _, secured := range []bool{false, true} {
		b.Run(fmt.Sprintf("tls=%v", secured), func(b *testing.B) {
			a, _, err := authority.Open(b.TempDir())
			must(b, err)
			var nodes []*Node
			for _, cfg := range threeConfigs(b) {
				cfg.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
				if secured {
					cfg.PeerTLS = issue(b, a, cfg.Name, time.Hour, "127.0.0.1")
				}
				nodes = append(nodes, open(b, cfg))
			}
			for _, n := range nodes {
				eventually(b, "the node is ready", func() bool { return n.Ready() == nil })
			}
			b.SetParallelism(32)
			b.ResetTimer()
			var i atomic.Int64
			b.RunParallel(func(p *testing.PB) {
				for p.Next() {
					n := i.Add(1)
					if _, err := nodes[n%3].shard.Propose(context.Background(), put(fmt.Sprint("k", n%1000), "value")); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}
