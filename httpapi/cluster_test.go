package httpapi

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/kv"
)

// fixedCluster is a cluster that answers the same whatever it is asked, or
// fails. What real ones do is tested with nodes, in package node.
type fixedCluster struct {
	err   error
	asked []any // what the last call was given
}

var shownMember = api.ClusterMember{
	ID: testMember.String(), Name: "n1", Replica: 1, State: api.MemberVoter, PeerAddress: "127.0.0.1:7481",
	ClientURL: "http://127.0.0.1:7480", Version: 1, Leader: true, Healthy: true, AppliedIndex: new(uint64), Lag: new(uint64),
}

func (c *fixedCluster) ClusterMembers(context.Context) ([]api.ClusterMember, error) {
	removed := api.ClusterMember{ID: testCluster.String(), Replica: 2, State: api.MemberRemoved}
	return []api.ClusterMember{shownMember, removed}, c.err
}

func (c *fixedCluster) AddMember(_ context.Context, name string, learner bool, ttl time.Duration) (api.AddedMember, error) {
	c.asked = []any{name, learner, ttl}
	pending := api.ClusterMember{ID: testMember.String(), Name: name, Replica: 4, State: api.MemberPending, KeepLearner: learner}
	return api.AddedMember{Member: pending, JoinToken: "token", ExpiresAt: api.Time{Time: testStart.Add(ttl)}}, c.err
}

func (c *fixedCluster) Join(_ context.Context, r api.JoinRequest, claim kv.LeaseID) (api.Joined, error) {
	c.asked = []any{r, claim}
	return api.Joined{
		ClusterID: testCluster.String(), MemberID: testMember.String(), Replica: 4, Name: "n4", PeerAddress: r.PeerAddress,
		Peers: []api.Peer{{Replica: 1, PeerAddress: "127.0.0.1:7481"}},
	}, c.err
}

func (c *fixedCluster) PromoteMember(_ context.Context, id kv.LeaseID) (api.ClusterMember, error) {
	c.asked = []any{"promote", id}
	return shownMember, c.err
}

func (c *fixedCluster) RemoveMember(_ context.Context, id kv.LeaseID) (api.ClusterMember, error) {
	c.asked = []any{"remove", id}
	return shownMember, c.err
}

func (c *fixedCluster) TransferLeader(_ context.Context, id kv.LeaseID) (kv.LeaseID, error) {
	c.asked = []any{"transfer", id}
	return testMember, c.err
}

func TestClusterRoutes(t *testing.T) {
	cluster := &fixedCluster{}
	k := newKit(t, func(cfg *Config) { cfg.Cluster = cluster })
	do := func(method, path, body string) *answer {
		headers := []string{"X-Request-Id: r1"}
		var b []byte
		if body != "" {
			b, headers = []byte(body), append(headers, "Content-Type: application/json")
		}
		return k.do(method, path, b, headers...)
	}
	member := "/v1/cluster/members/" + testMember.String()
	join := `{"token":"t","claim":"01KB0000000000000000000009","name":"n4","peer_address":"127.0.0.1:7484"}`
	calls := []struct {
		method, path, body string
		status             int
		codes              []kv.Code // with which it may fail
	}{
		{"GET", "/v1/cluster", "", 200, []kv.Code{kv.NoLeader}},
		{"GET", "/v1/cluster/members", "", 200, []kv.Code{kv.NoLeader}},
		{"POST", "/v1/cluster/members", `{"name":"n4","learner":true,"token_ttl_seconds":60}`, 201, []kv.Code{kv.MemberExists, kv.NoLeader, kv.OutcomeUnknown}},
		{"GET", member, "", 200, []kv.Code{kv.NoLeader}},
		{"DELETE", member, "", 200, []kv.Code{kv.MemberNotFound, kv.QuorumAtRisk, kv.NoLeader, kv.OutcomeUnknown}},
		{"POST", member + "/promote", "", 200, []kv.Code{kv.MemberNotFound, kv.LearnerBehind, kv.WrongMemberState, kv.NoLeader, kv.OutcomeUnknown}},
		{"POST", "/v1/cluster/leader", `{"member":"` + testMember.String() + `"}`, 200, []kv.Code{kv.MemberNotFound, kv.WrongMemberState, kv.NoLeader}},
		{"POST", "/v1/cluster/leader", `{}`, 200, []kv.Code{kv.QuorumAtRisk, kv.OutcomeUnknown}},
		{"POST", "/v1/cluster/join", join, 200, []kv.Code{kv.JoinRefused, kv.MemberExists, kv.NoLeader, kv.OutcomeUnknown}},
	}
	for _, c := range calls {
		if a := do(c.method, c.path, c.body); a.StatusCode != c.status {
			t.Errorf("%s %s: %d %s", c.method, c.path, a.StatusCode, a.body)
		}
		for _, code := range c.codes {
			cluster.err = kv.Errorf(code, "why")
			a := do(c.method, c.path, c.body)
			if got := a.problem(t).Code; string(got) != code.String() {
				t.Errorf("%s %s with %s: got %d %s", c.method, c.path, code, a.StatusCode, got)
			}
		}
		cluster.err = nil
	}

	// What is shown and what is passed on.
	var shown api.Cluster
	if err := json.Unmarshal(do("GET", "/v1/cluster", "").body, &shown); err != nil {
		t.Fatal(err)
	}
	if len(shown.Members) != 1 || shown.Voters != 1 || shown.HealthyVoters != 1 || shown.Quorum != 1 || shown.Leader != testMember.String() {
		t.Errorf("the cluster is %+v", shown)
	}
	if a := do("GET", "/v1/cluster/members/"+testCluster.String(), ""); !strings.Contains(string(a.body), `"removed"`) {
		t.Errorf("a removed member is %s", a.body)
	}
	do("POST", "/v1/cluster/members", `{}`)
	if cluster.asked[0] != "" || cluster.asked[1] != false || cluster.asked[2] != 24*time.Hour {
		t.Errorf("by default a member is added as %v", cluster.asked)
	}

	// Without a leader there is still what this node knows.
	k.member.waiting = func(c kv.Consistency) error {
		if c.Stale || c.MinRevision != 0 {
			return nil
		}
		return kv.Errorf(kv.NoLeader, "no leader")
	}
	for _, path := range []string{"/v1/cluster", "/v1/cluster/members", member} {
		for query, status := range map[string]int{
			"": 503, "?consistency=stale": 200, "?min_revision=1": 200, "?max_staleness=10s": 200, "?consistency=eventual": 400,
		} {
			if a := do("GET", path+query, ""); a.StatusCode != status {
				t.Errorf("GET %s%s: %d %s", path, query, a.StatusCode, a.body)
			}
		}
	}
	k.member.waiting = nil

	// What is wrong before the cluster is asked.
	cluster.asked = nil
	for _, c := range []struct {
		method, path, body string
		status             int
	}{
		{"POST", "/v1/cluster/members", `{"name":"` + strings.Repeat("x", 65) + `"}`, 400},
		{"POST", "/v1/cluster/members", `{"token_ttl_seconds":0.5}`, 400},
		{"POST", "/v1/cluster/members", `{"voter":true}`, 400},
		{"GET", "/v1/cluster/members/x", "", 400},
		{"GET", "/v1/cluster/members/01KB0000000000000000000007", "", 404},
		{"DELETE", "/v1/cluster/members/1", "", 400},
		{"POST", "/v1/cluster/members/1/promote", "", 400},
		{"POST", "/v1/cluster/leader", `{"member":"n1"}`, 400},
		{"POST", "/v1/cluster/leader", `{"to":"n1"}`, 400},
		{"POST", "/v1/cluster/join", `{}`, 400},
		{"POST", "/v1/cluster/join", `{"token":"t","claim":"c","peer_address":"a:1"}`, 400},
		{"POST", "/v1/cluster/join", `{"token":"","claim":"01KB0000000000000000000009","peer_address":"a:1"}`, 400},
		{"POST", "/v1/cluster/join", `{"token":"t","claim":"01KB0000000000000000000009","peer_address":"a:1","voter":true}`, 400},
		{"PATCH", member, `{}`, 405},
	} {
		if a := do(c.method, c.path, c.body); a.StatusCode != c.status {
			t.Errorf("%s %s %s: %d %s", c.method, c.path, c.body, a.StatusCode, a.body)
		}
	}
	if cluster.asked != nil {
		t.Errorf("the cluster was asked %v", cluster.asked)
	}
}
