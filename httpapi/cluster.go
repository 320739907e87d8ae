package httpapi

import (
	"context"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/cairnkv/cairn/api"
)

// Cluster is what this package needs to show and to change who belongs to the
// cluster. Errors are *kv.Error. The changes return when the Raft configuration
// has followed, or after a while with the state that was reached.
type Cluster interface {
	// ClusterMembers returns all members as this node has applied them, those that
	// were removed included. Each is asked how it is.
	ClusterMembers(ctx context.Context) ([]api.ClusterMember, error)
	// AddMember reserves a place and makes the token for it.
	AddMember(ctx context.Context, name string, learner bool, ttl time.Duration) (api.AddedMember, error)
	Join(ctx context.Context, r api.JoinRequest, claim ulid.ULID) (api.Joined, error)
	PromoteMember(ctx context.Context, id ulid.ULID) (api.ClusterMember, error)
	RemoveMember(ctx context.Context, id ulid.ULID) (api.ClusterMember, error)
	// TransferLeader hands the leadership over, to any other voter if id is zero,
	// and returns who leads.
	TransferLeader(ctx context.Context, id ulid.ULID) (ulid.ULID, error)
}

const (
	membersPath = "/v1/cluster/members/"
	// Bounds on what is said of a member.
	maxMemberNameBytes = 64
	maxAddressBytes    = 255
	maxTokenBytes      = 64

	defaultTokenTTL = 24 * time.Hour
	maxTokenMillis  = 30 * 24 * 60 * 60 * 1000
)

// getCluster answers GET /v1/cluster.
func (x *exchange) getCluster() {
	members, ok := x.members()
	if !ok {
		return
	}
	status := x.s.cfg.Store.Status()
	c := api.Cluster{ClusterID: x.s.cfg.ClusterID, ClusterVersion: status.ClusterVersion, Members: present(members)}
	for i := range c.Members {
		m := &c.Members[i]
		if m.Leader {
			c.Leader = m.ID
		}
		if m.State == api.MemberVoter {
			c.Voters++
			if m.Healthy {
				c.HealthyVoters++
			}
		}
	}
	c.Quorum = c.Voters/2 + 1
	x.sendValue(200, x.revision(), c)
}

// listMembers answers GET /v1/cluster/members.
func (x *exchange) listMembers() {
	if members, ok := x.members(); ok {
		x.sendValue(200, x.revision(), api.ClusterMembers{Members: present(members)})
	}
}

// members reads all members in the mode that is asked for. It returns false when
// it has answered why not.
func (x *exchange) members() ([]api.ClusterMember, bool) {
	mode := x.readMode()
	if x.refused() || !x.await(&mode) {
		return nil, false
	}
	members, err := x.s.cfg.Cluster.ClusterMembers(x.r.Context())
	if err != nil {
		x.refuseRead(err)
	}
	return members, err == nil
}

// present leaves out those that were removed.
func present(members []api.ClusterMember) []api.ClusterMember {
	kept := []api.ClusterMember{}
	for i := range members {
		if members[i].State != api.MemberRemoved {
			kept = append(kept, members[i])
		}
	}
	return kept
}

// getMember answers GET /v1/cluster/members/{id}.
func (x *exchange) getMember() {
	id := x.memberInPath("")
	members, ok := x.members()
	if !ok {
		return
	}
	for i := range members {
		if members[i].ID == id.String() {
			x.sendValue(200, x.revision(), members[i])
			return
		}
	}
	x.refuse(api.CodeMemberNotFound, "there is no member %s", id)
}

// addMember answers POST /v1/cluster/members.
func (x *exchange) addMember() {
	body, _ := x.readBody(maxBodyBytes)
	name, learner, ttl := "", false, defaultTokenTTL
	if !x.bodyFailed {
		x.parseJSON(body, func(p *jsonParser) {
			p.object("a member", func(field string) bool {
				switch field {
				case "name":
					name = x.bounded(p, field, maxMemberNameBytes)
				case "learner":
					learner = p.bool()
				case "token_ttl_seconds":
					ttl = time.Duration(p.millis(field, 1000, maxTokenMillis)) * time.Millisecond
				default:
					return false
				}
				return true
			})
		})
	}
	if x.refused() {
		return
	}
	added, err := x.s.cfg.Cluster.AddMember(x.r.Context(), name, learner, ttl)
	if err != nil {
		x.refuseWrite(err)
		return
	}
	x.setHeader("Location", membersPath+added.Member.ID)
	x.sendValue(201, x.revision(), added)
}

// bounded reads a string of at most so many bytes.
func (x *exchange) bounded(p *jsonParser, field string, most int) string {
	s := string(p.string())
	if len(s) > most {
		x.failLimit(api.CodeInvalidArgument, int64(most), "%s has %d bytes, more than %d", field, len(s), most)
	}
	return s
}

// memberInPath is the member that the path names before suffix.
func (x *exchange) memberInPath(suffix string) ulid.ULID {
	s, _ := pathKey(x.r.URL, membersPath)
	s, _ = strings.CutSuffix(s, suffix)
	return x.parseMember("the member", s)
}

func (x *exchange) parseMember(what, s string) ulid.ULID {
	id, err := ulid.ParseStrict(s)
	if err != nil || id == (ulid.ULID{}) {
		x.fail(api.CodeInvalidArgument, "%s is %.40q: want a ULID, 26 letters and digits", what, s)
	}
	return id
}

// removeMember answers DELETE /v1/cluster/members/{id}.
func (x *exchange) removeMember() { x.changeMember("", x.s.cfg.Cluster.RemoveMember) }

// promoteMember answers POST /v1/cluster/members/{id}/promote.
func (x *exchange) promoteMember() { x.changeMember("/promote", x.s.cfg.Cluster.PromoteMember) }

func (x *exchange) changeMember(suffix string, change func(context.Context, ulid.ULID) (api.ClusterMember, error)) {
	id := x.memberInPath(suffix)
	if x.refused() {
		return
	}
	m, err := change(x.r.Context(), id)
	if err != nil {
		x.refuseWrite(err)
		return
	}
	x.sendValue(200, x.revision(), m)
}

// transferLeader answers POST /v1/cluster/leader.
func (x *exchange) transferLeader() {
	body, _ := x.readBody(maxBodyBytes)
	var to ulid.ULID
	if !x.bodyFailed {
		x.parseJSON(body, func(p *jsonParser) {
			p.object("a transfer", func(field string) bool {
				if field != "member" {
					return false
				}
				to = x.parseMember(field, string(p.string()))
				return true
			})
		})
	}
	if x.refused() {
		return
	}
	leader, err := x.s.cfg.Cluster.TransferLeader(x.r.Context(), to)
	if err != nil {
		// Nothing is proposed: of an error without a code nothing is in doubt. A hand-over
		// that may yet come says so itself.
		x.refuseRead(err)
		return
	}
	x.sendValue(200, x.revision(), api.ClusterLeader{Leader: leader.String()})
}

// joinCluster answers POST /v1/cluster/join.
func (x *exchange) joinCluster() {
	body, _ := x.readBody(maxBodyBytes)
	var r api.JoinRequest
	var claim ulid.ULID
	if !x.bodyFailed {
		x.parseJSON(body, func(p *jsonParser) {
			p.object("a join", func(field string) bool {
				switch field {
				case "token":
					r.Token = x.bounded(p, field, maxTokenBytes)
				case "claim":
					r.Claim = string(p.string())
				case "name":
					r.Name = x.bounded(p, field, maxMemberNameBytes)
				case "peer_address":
					r.PeerAddress = x.bounded(p, field, maxAddressBytes)
				default:
					return false
				}
				return true
			})
			if !p.broken {
				claim = x.parseMember("the claim", r.Claim)
				if r.Token == "" || r.PeerAddress == "" {
					x.fail(api.CodeInvalidArgument, "a join has a token and a peer_address")
				}
			}
		})
	}
	if x.refused() {
		return
	}
	joined, err := x.s.cfg.Cluster.Join(x.r.Context(), r, claim)
	if err != nil {
		x.refuseWrite(err)
		return
	}
	x.sendValue(200, x.revision(), joined)
}
