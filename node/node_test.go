package node

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cairnkv/cairn/kv"
	"github.com/cairnkv/cairn/raftsm"
	"go.uber.org/goleak"
)

// TestReopen starts a node three times. It finds what it was told, is the same
// member, and leaves no goroutine.
func TestReopen(t *testing.T) {
	cfg := config(t)
	var first kv.Status
	for i := range 3 {
		n := ready(t, cfg)
		u := newUser(t, n)
		if i > 0 {
			u.want(200, fmt.Sprint("v", i-1), "GET", "/v1/kv/k", "")
		}
		u.want([]int{201, 200, 200}[i], "", "PUT", "/v1/kv/k", fmt.Sprint("v", i))
		u.want(200, fmt.Sprint("v", i), "GET", "/v1/kv/k", "")
		u.want(200, "ok", "GET", "/readyz", "")
		eventually(t, "the node has said who it is", func() bool { return len(n.Status().Members) == 1 })
		s := n.Status()
		if i == 0 {
			first = s
		}
		if s.MemberID != first.MemberID || s.ClusterID != first.ClusterID || s.Replica != 1 || s.Leader != 1 || s.Revision != uint64(i+2) {
			t.Errorf("status %+v, at first %+v", s, first)
		}
		if m := s.Members[0]; m.ID != first.MemberID || m.Name != "n1" || m.PeerAddress != cfg.PeerListen {
			t.Errorf("member %+v", m)
		}
		u.transport.CloseIdleConnections()
		must(t, n.Close())
		must(t, n.Close()) // again is nothing
		must(t, n.Wait())
		if err := goleak.Find(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestFailedOpen fails at each step of a start. What was started is ended: the
// same directory starts well afterwards.
func TestFailedOpen(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer taken.Close()
	for _, c := range []struct {
		name   string
		change func(*Config)
		err    string
	}{
		{"directory", func(c *Config) { c.DataDir += "/\x00" }, "create the data directory"},
		{"identity", func(c *Config) { c.Name = "another" }, `belongs to the node "n1"`},
		{"host", func(c *Config) {
			c.PeerListen, c.PeerAdvertise = taken.Addr().String(), c.PeerListen
		}, "start Raft"},
		{"shard", func(c *Config) { must(t, os.RemoveAll(filepath.Join(c.DataDir, "store"))) }, "this replica has a log"},
		{"listener", func(c *Config) { c.Listen = taken.Addr().String() }, "listen for clients"},
	} {
		t.Run(c.name, func(t *testing.T) {
			good := config(t)
			n := ready(t, good)
			must(t, n.Close())
			saved := t.TempDir()
			must(t, os.CopyFS(saved, os.DirFS(good.DataDir)))

			bad := good
			c.change(&bad)
			n, err := Open(context.Background(), bad)
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("got %v, want %q", err, c.err)
			}
			if n != nil {
				t.Error("there is a node, too")
			}
			if err := goleak.Find(); err != nil {
				t.Error(err)
			}
			must(t, os.RemoveAll(good.DataDir))
			must(t, os.CopyFS(good.DataDir, os.DirFS(saved)))
			must(t, os.Chmod(good.DataDir, 0o700))
			must(t, ready(t, good).Close())
		})
	}
}

// TestRefusedConfigs says what a node doesn't start with, and that nothing was
// made by then.
// boundTo is a listener at an address.
type boundTo struct {
	net.Listener
	address net.TCPAddr
}

func (l boundTo) Addr() net.Addr { return &l.address }

// TestURL: others are told where they can reach a node, also where it listens on all
// addresses.
func TestURL(t *testing.T) {
	for _, c := range []struct{ advertise, listens, peer, want string }{
		{"", "127.0.0.1", "10.0.0.1:7481", "http://127.0.0.1:7480"},
		{"kv.example.com:80", "0.0.0.0", "10.0.0.1:7481", "http://kv.example.com:80"},
		{"", "0.0.0.0", "10.0.0.1:7481", "http://10.0.0.1:7480"},
		{"", "::", "n1.example.com:7481", "http://n1.example.com:7480"},
		{"", "::", "[fd00::1]:7481", "http://[fd00::1]:7480"},
	} {
		n := &Node{
			cfg: Config{Advertise: c.advertise}, listener: boundTo{address: net.TCPAddr{IP: net.ParseIP(c.listens), Port: 7480}},
			dir: &raftsm.Dir{Identity: raftsm.Identity{PeerAddress: c.peer}},
		}
		if got := n.URL(); got != c.want {
			t.Errorf("at %s, advertised as %q, with the peer address %s: %s, want %s", c.listens, c.advertise, c.peer, got, c.want)
		}
	}
}

func TestRefusedConfigs(t *testing.T) {
	for _, c := range []struct {
		name string
		cfg  Config
		err  string // "": accepted
	}{
		{"defaults", Config{}, ""},
		{"small quota", Config{QuotaBytes: MinQuotaBytes - 1}, "must be at least 268435456"},
		{"negative history", Config{AutoCompactionKeep: -1}, "can't be negative"},
		{"negative cache", Config{CacheBytes: -1}, "can't be negative"},
		{"no port", Config{Listen: "127.0.0.1"}, `the client address "127.0.0.1" is not host:port`},
		{"bad port", Config{Listen: "127.0.0.1:http2://"}, "host:port"},
		{"port too large", Config{PeerListen: "127.0.0.1:99999"}, "no valid port"},
		{"any port for peers", Config{PeerListen: "127.0.0.1:0"}, "a port of its own"},
		{"any port for peers, advertised", Config{PeerListen: "127.0.0.1:7481", PeerAdvertise: "127.0.0.1:0"}, "a port of its own"},
		{"any port for peers, by the cluster", Config{Name: "n1", InitialCluster: "n1=127.0.0.1:0"}, "a port of its own"},
		{"a port for peers by name", Config{PeerAdvertise: "127.0.0.1:http"}, "the number of a port"},
		{"a port for peers by name, by the cluster", Config{Name: "n1", InitialCluster: "n1=127.0.0.1:7481,n2=127.0.0.1:http"}, "the number of a port"},
		{"a port for peers by name, listened on", Config{PeerListen: "127.0.0.1:http", PeerAdvertise: "127.0.0.1:7481"}, "the number of a port"},
		{"no host to listen on for peers", Config{PeerListen: ":7481", PeerAdvertise: "127.0.0.1:7481"}, "not a host and"},
		{"two at one place", Config{Name: "n1", InitialCluster: "n1=localhost:7481,n2=LocalHost:7481"}, "twice"},
		{"bad advertise", Config{Advertise: "cairn"}, "the advertise address"},
		{"bad peer advertise", Config{PeerAdvertise: "cairn"}, "the peer advertise address"},
		{"bad cluster", Config{InitialCluster: "n1"}, "name=host:port"},
		{"everywhere", Config{Listen: "0.0.0.0:7480"}, "say --insecure"},
		{"everywhere, without a host", Config{Listen: ":7480"}, "say --insecure"},
		{"a name that may be anywhere", Config{Listen: "example.com:7480"}, "say --insecure"},
		{"reached nowhere", Config{Advertise: "0.0.0.0:7480"}, "it needs a host"},
		{"reached nowhere by peers", Config{PeerListen: "[::]:7481", Insecure: true}, "give --peer-advertise"},
		{"advertised nowhere to peers", Config{PeerAdvertise: ":7481", Insecure: true}, "give --peer-advertise"},
		{"nowhere by the cluster", Config{Name: "n1", InitialCluster: "n1=127.0.0.1:7481,n2=0.0.0.0:7481", Insecure: true}, `can't reach n2 at "0.0.0.0:7481"`},
		{"everywhere, and that is meant", Config{Listen: "0.0.0.0:7480", Insecure: true}, ""},
		{"peers everywhere", Config{PeerListen: "0.0.0.0:7481", PeerAdvertise: "127.0.0.1:7481"}, "peers would speak without TLS"},
		{"peers elsewhere", Config{PeerAdvertise: "10.0.0.1:7481"}, "peers would speak without TLS"},
		{"peers elsewhere by the cluster", Config{Name: "n1", InitialCluster: "n1=10.0.0.1:7481,n2=10.0.0.2:7481"}, "peers would speak without TLS"},
		{"peers elsewhere by the cluster, without a name", Config{InitialCluster: "n1=10.0.0.1:7481,n2=10.0.0.2:7481"}, "peers would speak without TLS"},
		{"by DNS", Config{DiscoverySRV: "kv.example", PeerAdvertise: "localhost:7481"}, ""},
		{"by DNS and a list", Config{DiscoverySRV: "kv.example", PeerAdvertise: "localhost:7481", InitialCluster: "n1=localhost:7481"}, "give one of them"},
		{"by DNS and joining", Config{DiscoverySRV: "kv.example", PeerAdvertise: "localhost:7481", Join: "http://localhost:7480"}, "give one of them"},
		{"by DNS, without an address", Config{DiscoverySRV: "kv.example"}, "--peer-advertise"},
		{"by DNS, elsewhere", Config{DiscoverySRV: "kv.example", PeerAdvertise: "n1.kv.example:7481"}, "peers would speak without TLS"},
		{"by DNS, far too many", Config{DiscoverySRV: "kv.example", PeerAdvertise: "localhost:7481", DiscoveryMembers: 101}, "from 1 to 100"},
		{"a number to discover, without a name", Config{DiscoveryMembers: 3}, "without the name"},
		{"loopback by name", Config{Listen: "localhost:7480", PeerListen: "[::1]:7481"}, ""},
	} {
		c.cfg.DataDir = filepath.Join(t.TempDir(), "data")
		err := c.cfg.complete()
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.err)
		}
		if c.err == "" {
			continue
		}
		if _, err := Open(context.Background(), c.cfg); err == nil {
			t.Errorf("%s: the node started", c.name)
		}
		if _, err := os.Stat(c.cfg.DataDir); err == nil {
			t.Errorf("%s: the directory was made", c.name)
		}
	}
	if err := (&Config{}).complete(); err == nil {
		t.Error("no directory was accepted")
	}
}

// TestNoQuorum starts one of three. It lives, but isn't ready, and says of a
// write that nothing was applied.
func TestNoQuorum(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	cfg.Name, cfg.InitialCluster = "n2", fmt.Sprintf("n1=%s,n2=%s,n3=%s", freeAddress(t), cfg.PeerListen, freeAddress(t))
	n := open(t, cfg)
	u := newUser(t, n)
	u.want(200, "ok", "GET", "/livez", "")
	u.want(503, "not ready", "GET", "/readyz", "")
	u.want(503, "no-leader", "PUT", "/v1/kv/k", "v")
	u.want(503, "no-leader", "GET", "/v1/kv/k", "")
	u.want(404, "key-not-found", "GET", "/v1/kv/k?consistency=stale", "")
	u.want(200, "cairn_ready 0", "GET", "/metrics", "")
	if s := n.Status(); s.Leader != 0 || s.Revision != 1 {
		t.Errorf("status %+v", s)
	}
}

// TestTimings: each step of a write and of a linearizable read is timed.
func TestTimings(t *testing.T) {
	t.Parallel()
	n := open(t, config(t))
	u := newUser(t, n)
	eventually(t, "the node is ready", func() bool { return n.Ready() == nil })
	seen := func(name string) (value float64) {
		_, text, err := u.try("GET", "/metrics", "")
		must(t, err)
		for _, line := range strings.Split(text, "\n") {
			if after, found := strings.CutPrefix(line, name+" "); found {
				value, err = strconv.ParseFloat(after, 64)
				must(t, err)
				return value
			}
		}
		t.Fatalf("there is no %s", name)
		return 0
	}
	counts := []string{"cairn_raft_log_save_seconds_count", "cairn_proposal_seconds_count", "cairn_proposal_commands_total", "cairn_apply_seconds_count"}
	var before []float64
	for _, name := range counts {
		before = append(before, seen(name))
	}
	u.want(201, "", "PUT", "/v1/kv/k", "v")
	for i, name := range counts {
		if got := seen(name); got <= before[i] {
			t.Errorf("%s is %v after a put, as before it", name, got)
		}
	}
	rounds := seen("cairn_read_round_seconds_count")
	u.want(200, "v", "GET", "/v1/kv/k", "")
	if got := seen("cairn_read_round_seconds_count"); got <= rounds {
		t.Errorf("%v rounds after a read, as before it", got)
	}
	if seen("cairn_proposal_seconds_sum") <= 0 || seen("cairn_proposals_waiting") != 0 {
		t.Error("a put took no time, or still waits")
	}
}

// TestThreeNodes writes through each node and reads through each other.
func TestThreeNodes(t *testing.T) {
	var cluster []string
	var configs []Config
	for i := range 3 {
		cfg := config(t)
		cfg.Name = fmt.Sprint("n", i+1)
		configs = append(configs, cfg)
		cluster = append(cluster, cfg.Name+"="+cfg.PeerListen)
	}
	var users []*user
	for _, cfg := range configs {
		cfg.InitialCluster = strings.Join(cluster, ",")
		users = append(users, newUser(t, open(t, cfg)))
	}
	for _, u := range users {
		eventually(t, "the node is ready", func() bool { return u.n.Ready() == nil })
	}
	for i := range 9 {
		key := fmt.Sprint("/v1/kv/k", i)
		users[i%3].want(201, "", "PUT", key, "v")
		users[(i+1)%3].want(200, "v", "GET", key, "")
	}
	for _, u := range users {
		eventually(t, "all have said who they are", func() bool { return len(u.n.Status().Members) == 3 })
	}

	// The polite end of the leader: the others don't wait for it to be missed.
	for i, u := range users {
		if s := u.n.Status(); s.Leader == s.Replica {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			must(t, u.n.Shutdown(ctx))
			next := users[(i+1)%3]
			eventually(t, "another leads", func() bool { l := next.n.Status().Leader; return l != 0 && l != s.Replica })
			next.want(201, "", "PUT", "/v1/kv/after", "v")
			break
		}
	}
}

// TestShutdownUnderLoad shuts a node down while it is written to. Requests that
// it had begun are answered; who came too late to be answered has left no
// trace; what was answered is there.
func TestShutdownUnderLoad(t *testing.T) {
	cfg := config(t)
	n := ready(t, cfg)
	u := newUser(t, n)
	const (
		applied = "applied"
		refused = "refused"
		gone    = "never answered"
	)
	var outcomes sync.Map
	var count atomic.Int64
	var wg sync.WaitGroup
	for w := range 32 {
		wg.Go(func() {
			for i := 0; ; i++ {
				key := fmt.Sprintf("w%d-%d", w, i)
				status, body, err := u.try("PUT", "/v1/kv/"+key, "v")
				switch {
				case err != nil:
					outcomes.Store(key, gone)
					return
				case status == 201:
					outcomes.Store(key, applied)
				case status == 503 || status == 429:
					outcomes.Store(key, refused)
				default:
					t.Errorf("%s: %d %s", key, status, body)
				}
				count.Add(1)
			}
		})
	}
	eventually(t, "the load runs", func() bool { return count.Load() > 1000 })
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	must(t, n.Shutdown(ctx))
	wg.Wait()

	n = ready(t, cfg)
	tally := map[any]int{}
	outcomes.Range(func(key, outcome any) bool {
		tally[outcome]++
		_, found, _, err := n.shard.Store().Get([]byte(key.(string)))
		must(t, err)
		if found != (outcome == applied) {
			t.Errorf("%s was %s and is there: %v", key, outcome, found)
		}
		return true
	})
	t.Log(tally)
}

// TestCloseUnderLoad cuts requests off. Whoever was answered well finds it
// again.
func TestCloseUnderLoad(t *testing.T) {
	cfg := config(t)
	n := ready(t, cfg)
	u := newUser(t, n)
	var answered sync.Map
	var count atomic.Int64
	var wg sync.WaitGroup
	for w := range 32 {
		wg.Go(func() {
			for i := 0; ; i++ {
				key := fmt.Sprintf("w%d-%d", w, i)
				status, _, err := u.try("PUT", "/v1/kv/"+key, "v")
				if err != nil {
					return
				}
				if status == 201 {
					answered.Store(key, true)
				}
				count.Add(1)
			}
		})
	}
	eventually(t, "the load runs", func() bool { return count.Load() > 1000 })
	must(t, n.Close())
	wg.Wait()
	n = ready(t, cfg)
	answered.Range(func(key, _ any) bool {
		_, found, _, err := n.shard.Store().Get([]byte(key.(string)))
		must(t, err)
		if !found {
			t.Errorf("%s was answered and is lost", key)
		}
		return true
	})
}

// TestClearTextHTTP2 speaks HTTP/2 without TLS.
func TestClearTextHTTP2(t *testing.T) {
	n := ready(t, config(t))
	u := newUser(t, n)
	u.transport.Protocols = new(http.Protocols)
	u.transport.Protocols.SetUnencryptedHTTP2(true)
	u.want(201, "", "PUT", "/v1/kv/k", "v")
	answer, err := (&http.Client{Transport: u.transport}).Get(n.URL() + "/v1/kv/k")
	must(t, err)
	must(t, answer.Body.Close())
	if answer.ProtoMajor != 2 || answer.StatusCode != 200 {
		t.Errorf("%s %s", answer.Proto, answer.Status)
	}
}

// TestLeaseClockRuns grants a lease through the face: from then on the leader
// lets the replicated clock run.
func TestLeaseClockRuns(t *testing.T) {
	n := ready(t, config(t))
	u := newUser(t, n)
	u.want(201, "", "PUT", "/v1/kv/k?ttl=1s", "v")
	before := n.Status().ClockMillis
	eventually(t, "the clock runs while there is a lease", func() bool { return n.Status().ClockMillis > before+1000 })
	if s := n.Status(); s.Revision != 2 && s.Revision != 3 {
		t.Errorf("the clock used up revisions: %+v", s)
	}
}

// TestAutoCompactionAfterAWrongClock: a command of a member whose clock was ahead for a
// moment dates all later changes ahead, too. History does not last until then.
func TestAutoCompactionAfterAWrongClock(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	cfg.AutoCompactionKeep = time.Second
	n := ready(t, cfg)
	ahead := put("k", "v")
	ahead.Time = time.Now().Add(24 * time.Hour).UnixMilli()
	if _, err := n.shard.Propose(context.Background(), ahead); err != nil {
		t.Fatal(err)
	}
	u := newUser(t, n)
	for i := range 10 {
		u.want(200, "", "PUT", "/v1/kv/k", fmt.Sprint(i))
	}
	eventually(t, "the history is forgotten", func() bool { return n.Status().CompactRevision == 12 })
}

// TestRevisionMarks: of the revisions that were noted, the newest counts that is as old
// as is asked for.
func TestRevisionMarks(t *testing.T) {
	now := time.Now()
	var marks revisionMarks
	for i := range 100 {
		at := now.Add(time.Duration(i) * time.Second)
		marks.note(at, uint64(i+1), 10*time.Second)
		want := uint64(max(i-9, 1))
		if got, known := marks.before(at.Add(-10 * time.Second)); got != want || known != (i >= 10) || len(marks) > 12 {
			t.Fatalf("after %d s: revision %d (known: %v) of %d marks, want %d", i, got, known, len(marks), want)
		}
	}
}

// TestAutoCompaction keeps a second of history.
func TestAutoCompaction(t *testing.T) {
	cfg := config(t)
	cfg.AutoCompactionKeep = time.Second
	n := ready(t, cfg)
	u := newUser(t, n)
	for i := range 10 {
		u.want([]int{201, 200}[min(i, 1)], "", "PUT", "/v1/kv/k", fmt.Sprint(i))
	}
	eventually(t, "the history is forgotten", func() bool { return n.Status().CompactRevision == 11 })
	u.want(410, "compacted", "GET", "/v1/kv/k?revision=5", "")
	u.want(200, "9", "GET", "/v1/kv/k", "")
	if r := n.Status().Revision; r != 11 {
		t.Errorf("compaction used up revisions: %d", r)
	}
}
