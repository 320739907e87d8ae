package node

import (
	"bufio"
	"bytes"
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cairnkv/cairn/kv"
	"github.com/cockroachdb/pebble/v2"
)

// scrubbedCluster is three nodes that compare their contents all the time.
func scrubbedCluster(t *testing.T, interval time.Duration) (configs []Config, nodes []*Node, users []*user) {
	configs = threeConfigs(t)
	for i := range configs {
		configs[i].ScrubInterval = interval
	}
	nodes = allReady(t, configs)
	for _, n := range nodes {
		users = append(users, newUser(t, n))
	}
	return configs, nodes, users
}

// tamper changes a value in a stopped member's store, by writing to the database,
// so that all checksums are right.
func tamper(t testing.TB, cfg Config, key, value, wrong string) {
	t.Helper()
	dir := filepath.Join(cfg.DataDir, "store", "shard-1")
	name, err := os.ReadFile(filepath.Join(dir, "CURRENT"))
	must(t, err)
	comparer := *pebble.DefaultComparer // the order is that of bytes
	comparer.Name = "cairn.versions.1"
	db, err := pebble.Open(filepath.Join(dir, strings.TrimSpace(string(name))), &pebble.Options{Comparer: &comparer})
	must(t, err)
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: []byte("v" + key), UpperBound: []byte("v" + key + "\x01")})
	must(t, err)
	done := 0
	for it.First(); it.Valid(); it.Next() {
		damaged := bytes.Replace(it.Value(), []byte(value), []byte(wrong), 1)
		if !bytes.Equal(damaged, it.Value()) {
			must(t, db.Set(bytes.Clone(it.Key()), damaged, pebble.Sync))
			done++
		}
	}
	must(t, it.Close())
	must(t, db.Close())
	if done == 0 {
		t.Fatalf("%q has no version with %q", key, value)
	}
}

// TestCorruptLearner: a learner has no say in what is right, and is in quarantine where it
// differs from those that vote, be it one alone.
func TestCorruptLearner(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	cfg.ScrubInterval = 20 * time.Millisecond
	first := ready(t, cfg)
	newUser(t, first).want(201, "", "PUT", "/v1/kv/k", "right")
	a := added(t, first, `{"learner":true}`)
	learner := ready(t, joining(t, first, a.JoinToken))
	u := newUser(t, learner)
	u.want(200, "right", "GET", "/v1/kv/k", "")
	u.transport.CloseIdleConnections()
	must(t, learner.Close())
	learner.cfg.Join, learner.cfg.JoinToken, learner.cfg.Listen = "", "", "127.0.0.1:0"

	// As long as it is right it is served.
	again := ready(t, learner.cfg)
	began := first.Status().AppliedIndex
	eventually(t, "several steps were compared", func() bool { return first.Status().AppliedIndex > began+20 })
	if err := again.quarantined(); err != nil {
		t.Errorf("a learner that is right: %v", err)
	}
	must(t, again.Close())

	tamper(t, learner.cfg, "k", "right", "WRONG")
	again = open(t, learner.cfg)
	eventually(t, "the learner is in quarantine", func() bool { return again.quarantined() != nil })
	newUser(t, again).want(503, "corrupt", "GET", "/v1/kv/k?consistency=stale", "")
	newUser(t, first).want(200, "right", "GET", "/v1/kv/k", "")
}

// scrub begins a step of the comparison, through whoever takes it.
func scrub(t testing.TB, n *Node) {
	t.Helper()
	c := &kv.Command{Kind: kv.KindScrub, Scrub: kv.Scrub{Members: []uint64{1, 2, 3}, Bytes: 64 << 20}}
	eventually(t, "a step has begun", func() bool {
		_, err := n.shard.Propose(context.Background(), c)
		return err == nil
	})
}

// TestCorruptMember flips bits in one node's store while it is stopped, below all
// checksums. Once it runs again, the comparison finds it: it serves nothing but
// what tells of it, its watches end, it neither leads nor counts as ready, and
// that outlasts a restart. The others go on. A write that it is sent does not
// fail with anything but a refusal.
func TestCorruptMember(t *testing.T) {
	t.Parallel()
	configs, nodes, users := scrubbedCluster(t, 20*time.Millisecond)
	for _, key := range []string{"a", "k", "z"} {
		users[0].want(201, "", "PUT", "/v1/kv/"+key, "right")
	}
	bad := 0
	for i, n := range nodes {
		if n.shard.IsLeader() {
			bad = i // a leader is the worst one
		}
	}
	users[bad].transport.CloseIdleConnections()
	must(t, nodes[bad].Close())
	tamper(t, configs[bad], "k", "right", "WRONG")

	l := &transcript{}
	cfg := configs[bad]
	cfg.Logger = l.logger()
	n := open(t, cfg)
	u := newUser(t, n)
	good := users[(bad+1)%3]
	eventually(t, "the member is in quarantine", func() bool { return n.quarantined() != nil })
	if !l.has("level=ERROR", "content differs from the majority") {
		t.Error("it does not say so")
	}
	check := func(n *Node, u *user) {
		t.Helper()
		for _, c := range [][2]string{
			{"GET", "/v1/kv/k"}, {"GET", "/v1/kv/k?consistency=stale"}, {"GET", "/v1/kv?consistency=stale"}, {"PUT", "/v1/kv/x"},
			{"GET", "/v1/watch?key=k"}, {"GET", "/v1/history/k"}, {"POST", "/v1/leases"}, {"GET", "/v1/snapshot"}, {"GET", "/v1/hash"},
		} {
			body := ""
			if c[0] == "POST" {
				body = `{"ttl_seconds":10}`
			}
			u.want(503, `"code":"corrupt"`, c[0], c[1], body)
		}
		u.want(503, "not ready", "GET", "/readyz", "")
		u.want(200, "ok", "GET", "/livez", "")
		u.want(200, `"type":"corrupt"`, "GET", "/v1/status", "")
		// The alert about members that aren't ready looks at both.
		u.want(200, "cairn_ready 0", "GET", "/metrics", "")
		u.want(200, "cairn_restoring 0", "GET", "/metrics", "")
		u.want(200, n.dir.Identity.MemberID.String(), "GET", "/v1/alarms", "")
		eventually(t, "it does not lead", func() bool { return !n.shard.IsLeader() })
	}
	check(n, u)
	good.want(200, "right", "GET", "/v1/kv/k", "")
	good.want(201, "", "PUT", "/v1/kv/more", "v")
	good.want(200, `"type":"corrupt"`, "GET", "/v1/alarms", "")

	// It does not stay the leader even when the one that leads goes, and is still
	// part of the majority that keeps the log.
	for i, other := range nodes {
		if i != bad && other.shard.IsLeader() {
			dead := other.dir.Identity.MemberID.String()
			must(t, other.Close())
			left := users[3-i-bad]
			eventually(t, "the last sound member leads", func() bool { return left.n.shard.IsLeader() })
			left.want(201, "", "PUT", "/v1/kv/with-two", "v")
			// The one in quarantine counts for a majority, so the dead one can be
			// replaced; but it is not asked to change anything itself.
			u.want(503, `"code":"corrupt"`, "DELETE", "/v1/cluster/members/"+dead, "")
			eventually(t, "the dead member is removed", func() bool {
				status, _, err := left.try("DELETE", "/v1/cluster/members/"+dead, "")
				return err == nil && status == 200
			})
			break
		}
	}
	check(n, u)
	u.transport.CloseIdleConnections()
	must(t, n.Close())
	n = open(t, cfg)
	if n.quarantined() == nil {
		t.Error("a restart makes it forget")
	}
	check(n, newUser(t, n))
}

// TestCorruptionEndsWatches: a watch on a member that turns out to be corrupt
// ends, with where to go on, as soon as there is something to tell.
func TestCorruptionEndsWatches(t *testing.T) {
	t.Parallel()
	configs, nodes, users := scrubbedCluster(t, time.Hour)
	users[0].want(201, "", "PUT", "/v1/kv/k", "right")
	eventually(t, "it has the key", func() bool {
		_, found, _, err := nodes[1].shard.Store().Get([]byte("k"))
		return found && err == nil
	})
	users[1].transport.CloseIdleConnections()
	must(t, nodes[1].Close())
	tamper(t, configs[1], "k", "right", "WRONG")
	n := ready(t, configs[1])
	users[1] = newUser(t, n)
	users[1].want(200, "WRONG", "GET", "/v1/kv/k", "") // nobody has looked yet
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, "GET", n.URL()+"/v1/watch?key=w", nil)
	must(t, err)
	answer, err := (&http.Client{Transport: users[1].transport}).Do(r)
	must(t, err)
	defer answer.Body.Close()
	scrub(t, nodes[0])
	eventually(t, "the member is in quarantine", func() bool { return n.quarantined() != nil })
	users[0].want(201, "", "PUT", "/v1/kv/w", "v")
	lines := bufio.NewScanner(answer.Body)
	draining := false
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "event: change") {
			t.Error("it goes on telling")
		}
		draining = draining || lines.Text() == "event: draining"
	}
	must(t, lines.Err())
	if !draining {
		t.Error("the watch ended without a word")
	}
	users[1].want(503, "corrupt", "GET", "/v1/kv/k?consistency=stale", "")
}

// TestNoMajorityIsOfOneMind: all three differ. Nobody serves, all say why, leases
// can be kept, and an operator can end it.
func TestNoMajorityIsOfOneMind(t *testing.T) {
	t.Parallel()
	configs, nodes, users := scrubbedCluster(t, time.Hour)
	users[0].want(201, "", "PUT", "/v1/kv/k", "right")
	_, lease, err := users[0].try("POST", "/v1/leases", `{"ttl_seconds":600}`)
	must(t, err)
	id := strings.Split(strings.SplitN(lease, `"id":"`, 2)[1], `"`)[0]
	for i, n := range nodes {
		users[i].transport.CloseIdleConnections()
		must(t, n.Close())
	}
	tamper(t, configs[0], "k", "right", "WRONG")
	tamper(t, configs[1], "k", "right", "wrong")
	users = nil
	for i := range configs {
		nodes[i] = open(t, configs[i])
		users = append(users, newUser(t, nodes[i]))
	}
	for _, n := range nodes {
		eventually(t, "the node is ready", func() bool { return n.Ready() == nil })
	}
	scrub(t, nodes[0])
	for _, n := range nodes {
		eventually(t, "nobody is sure", func() bool { return n.quarantined() != nil })
	}
	for i, u := range users {
		u.want(503, "no majority is of one mind", "GET", "/v1/kv/k?consistency=stale", "")
		u.want(503, `"code":"corrupt"`, "PUT", "/v1/kv/k", "v")
		u.want(200, `{"member":"","type":"corrupt"}`, "GET", "/v1/alarms?consistency=stale", "")
		if nodes[i].Ready() == nil {
			t.Error("it is ready")
		}
	}
	eventually(t, "there is a leader all the same", func() bool {
		for _, n := range nodes {
			if n.shard.IsLeader() {
				return true
			}
		}
		return false
	})
	for _, u := range users {
		u.want(200, `{"id":"`+id+`","number":"`, "POST", "/v1/leases/"+id+"/keepalive", "")
		u.want(200, `{"leases":[{"id":"`+id+`","number":"`, "POST", "/v1/leases/keepalive", `{"ids":["`+id+`"]}`)
		u.want(503, `"code":"corrupt"`, "DELETE", "/v1/leases/"+id, "")
	}
	// The operator has decided: the third one is right. It leads, the others are
	// removed, and the alarm ends.
	right := users[2]
	id2 := nodes[2].dir.Identity.MemberID.String()
	eventually(t, "the right one leads", func() bool {
		status, _, err := users[0].try("POST", "/v1/cluster/leader", `{"member":"`+id2+`"}`)
		return err == nil && status == 200 && nodes[2].shard.IsLeader()
	})
	for _, n := range nodes[:2] {
		id := n.dir.Identity.MemberID.String()
		eventually(t, "a wrong one is removed", func() bool {
			status, _, err := right.try("DELETE", "/v1/cluster/members/"+id, "")
			return err == nil && status == 200
		})
	}
	right.want(200, `"cleared":1`, "DELETE", "/v1/alarms?type=corrupt", "")
	eventually(t, "it serves again", func() bool { return nodes[2].quarantined() == nil })
	right.want(200, "right", "GET", "/v1/kv/k", "")
}
