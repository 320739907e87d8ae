package client

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/cairnkv/cairn/api"
)

// Compact gives up history. Exactly one field of what is set; [KeepRevisions] and
// [KeepFor] make the two that are relative.
func (c *Client) Compact(ctx context.Context, what api.Compact, opts ...WriteOption) (*api.CompactResult, error) {
	r := newRequest(http.MethodPost, "/v1/compact")
	if err := r.setJSON(what); err != nil {
		return nil, err
	}
	for _, o := range opts {
		o.write(r)
	}
	return call[api.CompactResult](ctx, c, r)
}

// KeepRevisions compacts all but the newest revision and the n below it.
func KeepRevisions(n uint64) api.Compact { return api.Compact{KeepRevisions: &n} }

// KeepFor compacts what was not readable within the last d.
func KeepFor(d time.Duration) api.Compact {
	keep := seconds(d)
	return api.Compact{KeepSeconds: &keep}
}

// Hash hashes everything that can be read at a revision, the newest by default.
func (c *Client) Hash(ctx context.Context, opts ...GetOption) (*api.Hash, error) {
	r := newRequest(http.MethodGet, "/v1/hash")
	for _, o := range opts {
		o.get(r)
	}
	return call[api.Hash](ctx, c, r)
}

// Alarms are the conditions of members that an operator has to look at.
func (c *Client) Alarms(ctx context.Context, opts ...ReadOption) (*api.Alarms, error) {
	return call[api.Alarms](ctx, c, newRead("/v1/alarms", opts))
}

// ClearAlarms clears the alarms of a member and of a type; a field of which that is
// empty fits all, so that the zero value clears every alarm. One whose cause is
// still there is raised again.
func (c *Client) ClearAlarms(ctx context.Context, which api.Alarm, opts ...WriteOption) (*api.ClearedAlarms, error) {
	r := newRequest(http.MethodDelete, "/v1/alarms")
	if which.Member != "" {
		r.query.Set("member", which.Member)
	}
	if which.Type != "" {
		r.query.Set("type", which.Type)
	}
	for _, o := range opts {
		o.write(r)
	}
	return call[api.ClearedAlarms](ctx, c, r)
}

// Status is what the node that answers knows of itself and of its cluster.
func (c *Client) Status(ctx context.Context) (*api.Status, error) {
	return call[api.Status](ctx, c, newRequest(http.MethodGet, "/v1/status"))
}

// Version is the version of the node that answers.
func (c *Client) Version(ctx context.Context) (*api.Version, error) {
	return call[api.Version](ctx, c, newRequest(http.MethodGet, "/version"))
}

// Ready is nil if some node can serve linearizable requests now. It asks each
// once.
func (c *Client) Ready(ctx context.Context) error {
	r := newRequest(http.MethodGet, "/readyz")
	r.header.Del("Accept")
	err := c.withoutRetries().do(ctx, r, func(resp *http.Response) error {
		_, err := io.Copy(io.Discard, resp.Body)
		return err
	})
	// A node that is not ready says so in plain text, for probes.
	var e *Error
	if errors.As(err, &e) && e.Problem.Status == http.StatusServiceUnavailable {
		e.Problem.Title, e.Problem.Detail = e.Endpoint+" is not ready", ""
	}
	return err
}

// withoutRetries is the client with one attempt for each node.
func (c *Client) withoutRetries() *Client {
	return &Client{
		endpoints: c.endpoints, token: c.token, http: c.http,
		timeout: c.timeout, attempts: len(c.endpoints), userAgent: c.userAgent,
	}
}
