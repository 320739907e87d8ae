package client

import (
	"context"
	"net/http"
	"net/url"

	"github.com/cairnkv/cairn/api"
)

const membersPath = "/v1/cluster/members"

// Cluster is who belongs to the cluster, who leads it, and how many voters answer.
// Without a majority it fails, but with Stale, which asks what one node knows.
func (c *Client) Cluster(ctx context.Context, opts ...ReadOption) (*api.Cluster, error) {
	return call[api.Cluster](ctx, c, newRead("/v1/cluster", opts))
}

// Member is one member, also one that was removed.
func (c *Client) Member(ctx context.Context, id string, opts ...ReadOption) (*api.ClusterMember, error) {
	return call[api.ClusterMember](ctx, c, newRead(membersPath+"/"+url.PathEscape(id), opts))
}

// AddMember reserves a place for a node and returns the token with which one can
// take it. The token is told this once.
func (c *Client) AddMember(ctx context.Context, m api.AddMember) (*api.AddedMember, error) {
	r := newRequest(http.MethodPost, membersPath)
	if err := r.setJSON(m); err != nil {
		return nil, err
	}
	return call[api.AddedMember](ctx, c, r)
}

// PromoteMember makes a learner a voter. The answer may show it on its way: look
// at State.
func (c *Client) PromoteMember(ctx context.Context, id string) (*api.ClusterMember, error) {
	r := newRequest(http.MethodPost, membersPath+"/"+url.PathEscape(id)+"/promote")
	r.harmless = true
	return call[api.ClusterMember](ctx, c, r)
}

// RemoveMember removes a member for good. The answer may show it on its way: look
// at State.
func (c *Client) RemoveMember(ctx context.Context, id string) (*api.ClusterMember, error) {
	r := newRequest(http.MethodDelete, membersPath+"/"+url.PathEscape(id))
	r.harmless = true
	return call[api.ClusterMember](ctx, c, r)
}

// TransferLeader hands the leadership to a voter, to any other one if id is
// empty, and returns the id of the member that leads. Where it is not known whether any
// other one took it over, that is [ErrOutcomeUnknown]: asked again, that one could give it back.
func (c *Client) TransferLeader(ctx context.Context, id string) (string, error) {
	r := newRequest(http.MethodPost, "/v1/cluster/leader")
	r.harmless = id != ""
	if err := r.setJSON(api.TransferLeader{Member: id}); err != nil {
		return "", err
	}
	l, err := call[api.ClusterLeader](ctx, c, r)
	if err != nil {
		return "", err
	}
	return l.Leader, nil
}
