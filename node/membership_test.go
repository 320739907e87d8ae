package node

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/internal/authority"
)

// added adds a member by way of a node and returns it with its token.
func added(t testing.TB, n *Node, body string) api.AddedMember {
	t.Helper()
	var a api.AddedMember
	eventually(t, "a member is added", func() bool {
		status, answer, err := newUser(t, n).try("POST", "/v1/cluster/members", body)
		if err != nil || status != 201 {
			t.Logf("add: %d %s %v", status, answer, err)
			return false
		}
		must(t, json.Unmarshal([]byte(answer), &a))
		return true
	})
	return a
}

// joining is the configuration of a node that comes with a token.
func joining(t testing.TB, n *Node, token string) Config {
	cfg := config(t)
	cfg.Join, cfg.JoinToken = n.URL(), token
	return cfg
}

func memberOf(t testing.TB, n *Node, id string) (m api.ClusterMember) {
	t.Helper()
	status, answer, err := newUser(t, n).try("GET", "/v1/cluster/members/"+id, "")
	if err != nil || status != 200 {
		t.Logf("look at the member: %d %s %v", status, answer, err)
		return m
	}
	must(t, json.Unmarshal([]byte(answer), &m))
	return m
}

func wantState(t testing.TB, n *Node, id, state string) {
	t.Helper()
	eventually(t, "the member is a "+state, func() bool { return memberOf(t, n, id).State == state })
}

// grow makes three nodes of one.
func grow(t testing.TB) []*Node {
	nodes := []*Node{ready(t, config(t))}
	for i := range 2 {
		a := added(t, nodes[0], fmt.Sprintf(`{"name":"m%d"}`, i))
		nodes = append(nodes, ready(t, joining(t, nodes[0], a.JoinToken)))
		wantState(t, nodes[0], a.Member.ID, api.MemberVoter)
	}
	return nodes
}

func TestMembersComeAndGo(t *testing.T) {
	t.Parallel()
	nodes := grow(t)
	first := newUser(t, nodes[0])
	first.want(201, "", "PUT", "/v1/kv/k", "v")
	var cluster api.Cluster
	for _, n := range nodes {
		newUser(t, n).want(200, "v", "GET", "/v1/kv/k", "")
		eventually(t, "all voters are healthy", func() bool {
			_, answer, err := newUser(t, n).try("GET", "/v1/cluster", "")
			if err != nil || json.Unmarshal([]byte(answer), &cluster) != nil {
				return false
			}
			return cluster.Voters == 3 && cluster.HealthyVoters == 3 && cluster.Quorum == 2 && cluster.Leader != ""
		})
	}

	// The leadership goes where it is told to.
	for _, n := range nodes {
		id := n.dir.Identity.MemberID.String()
		eventually(t, "the leadership was handed over", func() bool {
			status, answer, err := first.try("POST", "/v1/cluster/leader", `{"member":"`+id+`"}`)
			t.Logf("transfer: %d %s %v", status, answer, err)
			return status == 200 && n.shard.IsLeader()
		})
	}

	// A member that is down can be removed, its address taken over, and it learns
	// of it when it comes back.
	gone := nodes[2]
	id := gone.dir.Identity.MemberID.String()
	cfg := gone.cfg
	must(t, gone.Close())
	eventually(t, "the others go on", func() bool { return nodes[0].Ready() == nil && nodes[1].Ready() == nil })
	status, answer, err := newUser(t, nodes[1]).try("DELETE", "/v1/cluster/members/"+nodes[0].dir.Identity.MemberID.String(), "")
	if err != nil || status != 409 || !strings.Contains(answer, string(api.CodeQuorumAtRisk)) {
		t.Errorf("removing one of two voters that answer: %d %s %v", status, answer, err)
	}
	eventually(t, "the member that is down is removed", func() bool {
		status, answer, _ := newUser(t, nodes[1]).try("DELETE", "/v1/cluster/members/"+id, "")
		t.Logf("remove: %d %s", status, answer)
		return status == 200 && strings.Contains(answer, `"removed"`)
	})
	cfg.Listen = "127.0.0.1:0"
	back, err := Open(context.Background(), cfg)
	must(t, err)
	t.Cleanup(func() { must(t, back.Close()) })
	if err := back.Wait(); err == nil || !strings.Contains(err.Error(), "was removed") {
		t.Errorf("the removed member ended with: %v", err)
	}
	must(t, back.Close())
	a := added(t, nodes[0], `{"name":"m1"}`)
	if a.Member.Replica != 4 {
		t.Errorf("the new member is replica %d, want 4", a.Member.Replica)
	}
	again := joining(t, nodes[1], a.JoinToken)
	again.PeerListen = cfg.PeerListen
	n := ready(t, again)
	newUser(t, n).want(200, "v", "GET", "/v1/kv/k", "")
	wantState(t, nodes[0], a.Member.ID, api.MemberVoter)

	// The leader itself.
	var lead, other *Node
	eventually(t, "one leads", func() bool {
		lead = nil
		for _, c := range []*Node{nodes[0], nodes[1], n} {
			if c.shard.IsLeader() {
				lead = c
			} else {
				other = c
			}
		}
		return lead != nil
	})
	id = lead.dir.Identity.MemberID.String()
	eventually(t, "the leader is removed", func() bool {
		status, answer, _ := newUser(t, lead).try("DELETE", "/v1/cluster/members/"+id, "")
		t.Logf("remove the leader: %d %s", status, answer)
		return status == 200
	})
	if err := lead.Wait(); err == nil || !strings.Contains(err.Error(), "removed") {
		t.Errorf("the leader that was removed ended with: %v", err)
	}
	wantState(t, other, id, api.MemberRemoved)
	newUser(t, other).want(200, "v", "GET", "/v1/kv/k", "")
}

// A learner that is to stay one reads, writes and watches, and does not count.
func TestLearnerStays(t *testing.T) {
	t.Parallel()
	first := ready(t, config(t))
	a := added(t, first, `{"learner":true}`)
	n := ready(t, joining(t, first, a.JoinToken))
	id := a.Member.ID
	wantState(t, first, id, api.MemberLearner)
	u := newUser(t, n)
	u.want(201, "", "PUT", "/v1/kv/k", "v")
	u.want(200, "v", "GET", "/v1/kv/k", "")
	u.want(200, "v", "GET", "/v1/kv/k?consistency=stale", "")
	u.want(200, "v", "GET", "/v1/kv/k?max_staleness=60s", "")
	u.want(200, "v", "GET", "/v1/kv/k?min_revision=2", "")
	u.want(200, `"value":"v"`, "GET", "/v1/watch?key=k&from_revision=1&wait=30s", "")
	if m := memberOf(t, first, id); m.State != api.MemberLearner || !m.KeepLearner || m.Replica != 2 || m.Name != "n2" {
		t.Errorf("the learner is %+v", m)
	}

	// While it does not answer, it is not made a voter; its absence stops nobody.
	must(t, n.Close())
	newUser(t, first).want(200, "", "PUT", "/v1/kv/k", "w")
	newUser(t, first).want(409, string(api.CodeLearnerBehind), "POST", "/v1/cluster/members/"+id+"/promote", "")
	newUser(t, first).want(409, string(api.CodeWrongMemberState), "POST", "/v1/cluster/leader", `{"member":"`+id+`"}`)
	newUser(t, first).want(409, string(api.CodeQuorumAtRisk), "POST", "/v1/cluster/leader", `{}`)
	newUser(t, first).want(409, string(api.CodeQuorumAtRisk), "DELETE", "/v1/cluster/members/"+first.dir.Identity.MemberID.String(), "")

	cfg := n.cfg
	cfg.Join, cfg.JoinToken, cfg.Listen = "", "", "127.0.0.1:0"
	n = ready(t, cfg)
	eventually(t, "the learner is promoted", func() bool {
		status, answer, _ := newUser(t, first).try("POST", "/v1/cluster/members/"+id+"/promote", "")
		t.Logf("promote: %d %s", status, answer)
		return status == 200 && strings.Contains(answer, `"voter"`)
	})
	newUser(t, n).want(200, "w", "GET", "/v1/kv/k", "")
}

// What a token is not good for.
func TestTokens(t *testing.T) {
	t.Parallel()
	first := ready(t, config(t))
	for _, token := range []string{"", "wrong"} {
		if n, err := Open(context.Background(), joining(t, first, token)); err == nil || !strings.Contains(err.Error(), "token") {
			t.Errorf("with the token %q: got %v", token, err)
			_ = n.Close()
		}
	}
	a := added(t, first, `{"name":"x"}`)
	named := joining(t, first, a.JoinToken)
	named.Name = "y"
	if _, err := Open(context.Background(), named); err == nil || !strings.Contains(err.Error(), string(api.CodeJoinRefused)) {
		t.Errorf("with the token of another name: got %v", err)
	}
	taken := joining(t, first, a.JoinToken)
	taken.PeerListen = first.dir.Identity.PeerAddress
	if _, err := Open(context.Background(), taken); err == nil || !strings.Contains(err.Error(), string(api.CodeMemberExists)) {
		t.Errorf("with the address of another: got %v", err)
	}
	open(t, joining(t, first, a.JoinToken))
	if _, err := Open(context.Background(), joining(t, first, a.JoinToken)); err == nil || !strings.Contains(err.Error(), string(api.CodeJoinRefused)) {
		t.Errorf("with a token that was used: got %v", err)
	}

	brief := added(t, first, `{"token_ttl_seconds":1}`)
	eventually(t, "the token has ended", func() bool { return time.Now().After(brief.ExpiresAt.Time) })
	if _, err := Open(context.Background(), joining(t, first, brief.JoinToken)); err == nil || !strings.Contains(err.Error(), "ended") {
		t.Errorf("with a token that has ended: got %v", err)
	}
	newUser(t, first).want(200, `"removed"`, "DELETE", "/v1/cluster/members/"+brief.Member.ID, "")
}

// TestJoinAddresses: an address that Raft would not take is refused before the token is
// used up, that of a first member that never started among them.
func TestJoinAddresses(t *testing.T) {
	t.Parallel()
	var cluster, addresses []string
	for i := range 3 {
		address := strings.Replace(freeAddress(t), "127.0.0.1", "localhost", 1)
		cluster, addresses = append(cluster, fmt.Sprintf("n%d=%s", i+1, address)), append(addresses, address)
	}
	var nodes []*Node
	for i := range 2 {
		cfg := config(t)
		cfg.Name, cfg.PeerListen, cfg.InitialCluster = fmt.Sprint("n", i+1), "", strings.Join(cluster, ",")
		nodes = append(nodes, open(t, cfg))
	}
	for _, n := range nodes {
		eventually(t, "the node is ready", func() bool { return n.Ready() == nil })
	}
	a := added(t, nodes[0], `{"name":"x"}`)
	join := func(address string) string {
		return fmt.Sprintf(`{"token":%q,"claim":"01KB0000000000000000000009","peer_address":%q}`, a.JoinToken, address)
	}
	u := newUser(t, nodes[1])
	for _, address := range []string{"localhost:http", "localhost:0", "localhost:99999", ":7481", "0.0.0.0:7481", "local host:7481", "localhost"} {
		u.want(403, string(api.CodeJoinRefused), "POST", "/v1/cluster/join", join(address))
	}
	for _, address := range addresses {
		u.want(409, string(api.CodeMemberExists), "POST", "/v1/cluster/join", join(address))
		u.want(409, string(api.CodeMemberExists), "POST", "/v1/cluster/join", join(strings.ToUpper(address)))
	}
	if m := memberOf(t, nodes[0], a.Member.ID); m.State != api.MemberPending {
		t.Errorf("the member is %s", m.State)
	}
	for range 2 { // the same claim from the same address is the same join
		u.want(200, a.Member.ID, "POST", "/v1/cluster/join", join("localhost:7481"))
	}
}

// TestJoinWithPeerTLS grows a cluster whose members speak by TLS. A node that has
// a token and no certificate of the cluster's authority joins and is spoken to by
// nobody, so it never votes; with the right one the same directory does.
func TestJoinWithPeerTLS(t *testing.T) {
	t.Parallel()
	ours, _, err := authority.Open(t.TempDir())
	must(t, err)
	theirs, _, err := authority.Open(t.TempDir())
	must(t, err)
	cfg := config(t)
	cfg.PeerTLS = issue(t, ours, "n1", time.Hour, "127.0.0.1")
	nodes := []*Node{ready(t, cfg)}
	for _, name := range []string{"m1", "m2"} {
		a := added(t, nodes[0], fmt.Sprintf(`{"name":%q}`, name))
		cfg := joining(t, nodes[0], a.JoinToken)
		cfg.PeerTLS = issue(t, ours, name, time.Hour, "127.0.0.1")
		nodes = append(nodes, ready(t, cfg))
		wantState(t, nodes[0], a.Member.ID, api.MemberVoter)
	}
	for i, n := range nodes {
		newUser(t, n).want(201, "", "PUT", fmt.Sprint("/v1/kv/by-", i), "v")
		for _, other := range nodes {
			newUser(t, other).want(200, "v", "GET", fmt.Sprint("/v1/kv/by-", i), "")
		}
	}
	refused := func() (total uint64) {
		for _, n := range nodes {
			s := n.host.PeerStats()
			for _, reasons := range []map[string]uint64{s.Refused, s.Failed} {
				total += reasons["certificate"] + reasons["handshake"]
			}
		}
		return total
	}
	if refused() != 0 {
		t.Errorf("members with the right certificates were refused: %+v", nodes[0].host.PeerStats())
	}

	a := added(t, nodes[1], `{"name":"m3"}`)
	cfg = joining(t, nodes[1], a.JoinToken)
	for _, c := range []struct {
		name string
		tls  PeerTLS
	}{
		{"another authority", issue(t, theirs, "m3", time.Hour, "127.0.0.1")},
		{"no TLS", PeerTLS{}},
	} {
		before := refused()
		cfg.PeerTLS = c.tls
		n := open(t, cfg)
		eventually(t, c.name+": it was refused", func() bool { return refused() > before+3 })
		if m := memberOf(t, nodes[0], a.Member.ID); n.Ready() == nil || m.Healthy || m.State == api.MemberVoter {
			t.Errorf("%s: it is %+v", c.name, m)
		}
		newUser(t, nodes[2]).want(200, "", "PUT", "/v1/kv/by-0", "v")
		must(t, n.Close())
	}
	cfg.PeerTLS = issue(t, ours, "m3", time.Hour, "127.0.0.1")
	n := ready(t, cfg)
	wantState(t, nodes[0], a.Member.ID, api.MemberVoter)
	newUser(t, n).want(200, "v", "GET", "/v1/kv/by-0", "")
}
