package client

import (
	"context"
	"iter"
	"net/http"
	"net/url"
	"time"

	"github.com/cairnkv/cairn/api"
)

// Leases are the leases of a cluster. A lease is named by its id, a ULID, or by
// its number.
type Leases struct{ c *Client }

// Leases returns the leases of the cluster.
func (c *Client) Leases() *Leases { return &Leases{c} }

// Grant makes a lease that ends when nobody has renewed it for ttl, which is at
// least a second. [WithLease] attaches keys to it.
func (l *Leases) Grant(ctx context.Context, ttl time.Duration, opts ...WriteOption) (*api.Granted, error) {
	return l.GrantAs(ctx, "", ttl, opts...)
}

// GrantAs is [Leases.Grant] with an id of the caller's: a ULID, or a number from
// 1 to 2^63-1. One that exists is [ErrLeaseExists].
func (l *Leases) GrantAs(ctx context.Context, id string, ttl time.Duration, opts ...WriteOption) (*api.Granted, error) {
	r := newRequest(http.MethodPost, "/v1/leases")
	if err := r.setJSON(api.Grant{ID: id, TTLSeconds: seconds(ttl)}); err != nil {
		return nil, err
	}
	for _, o := range opts {
		o.write(r)
	}
	return call[api.Granted](ctx, l.c, r)
}

// Renew lets the time to live of a lease begin anew, counted from this call. It is
// sent again when it is not known what became of it.
func (l *Leases) Renew(ctx context.Context, id string) (*api.Granted, error) {
	r := l.request(http.MethodPost, id, "/keepalive")
	r.harmless = true
	return call[api.Granted](ctx, l.c, r)
}

// RenewMany renews up to 10,000 leases in one step. The answer has a line for each
// in their order; a lease that does not exist is said there and is no error.
func (l *Leases) RenewMany(ctx context.Context, ids []string) (*api.Renewed, error) {
	r := newRequest(http.MethodPost, "/v1/leases/keepalive")
	r.harmless = true
	if ids == nil {
		ids = []string{}
	}
	if err := r.setJSON(api.Renew{IDs: ids}); err != nil {
		return nil, err
	}
	return call[api.Renewed](ctx, l.c, r)
}

// Revoke ends a lease now and deletes its keys, in one transaction.
func (l *Leases) Revoke(ctx context.Context, id string, opts ...WriteOption) (*api.Revoked, error) {
	r := l.request(http.MethodDelete, id, "")
	for _, o := range opts {
		o.write(r)
	}
	return call[api.Revoked](ctx, l.c, r)
}

// Lookup reads how long a lease lives at least, and how many keys it has.
func (l *Leases) Lookup(ctx context.Context, id string, opts ...ReadOption) (*api.Lease, error) {
	r := l.request(http.MethodGet, id, "")
	for _, o := range opts {
		o.get(r)
	}
	return call[api.Lease](ctx, l.c, r)
}

// Keys goes through the keys that are attached to a lease, in byte order, page
// after page. An error ends it.
func (l *Leases) Keys(ctx context.Context, id string, opts ...ReadOption) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		r := l.request(http.MethodGet, id, "")
		r.query.Set("keys", "true")
		for _, o := range opts {
			o.get(r)
		}
		for {
			page, err := call[api.Lease](ctx, l.c, r)
			if err != nil {
				yield(nil, err)
				return
			}
			for _, key := range page.Keys {
				if !yield(key, nil) {
					return
				}
			}
			if page.NextCursor == "" {
				return
			}
			r.query.Set("cursor", page.NextCursor)
		}
	}
}

// List goes through all leases in the order of their ids, page after page. It is
// no snapshot: leases have no history. An error ends it.
func (l *Leases) List(ctx context.Context, opts ...ReadOption) iter.Seq2[api.Lease, error] {
	return func(yield func(api.Lease, error) bool) {
		r := newRequest(http.MethodGet, "/v1/leases")
		r.query.Set("limit", "1000")
		for _, o := range opts {
			o.get(r)
		}
		for {
			page, err := call[api.Leases](ctx, l.c, r)
			if err != nil {
				yield(api.Lease{}, err)
				return
			}
			for _, lease := range page.Leases {
				if !yield(lease, nil) {
					return
				}
			}
			if page.NextCursor == "" {
				return
			}
			r.query.Set("cursor", page.NextCursor)
		}
	}
}

func (l *Leases) request(method, id, what string) *request {
	return newRequest(method, "/v1/leases/"+url.PathEscape(id)+what)
}
