package client

import (
	"context"
	"iter"
	"net/http"

	"github.com/cairnkv/cairn/api"
)

// History reads one page of the versions of a key that history still holds,
// newest first. A key of which it holds none is [ErrNotFound].
func (c *Client) History(ctx context.Context, key string, opts ...HistoryOption) (*api.History, error) {
	r := historyRequest(key, opts)
	return call[api.History](ctx, c, r)
}

func historyRequest(key string, opts []HistoryOption) *request {
	r := newRequest(http.MethodGet, "")
	for _, o := range opts {
		o.history(r)
	}
	r.path = keyTarget("/v1/history/", "/v1/history", key, r.query)
	return r
}

// Versions goes through all versions of a key that history still holds, newest
// first. An error ends it.
func (c *Client) Versions(ctx context.Context, key string, opts ...HistoryOption) iter.Seq2[api.Change, error] {
	return func(yield func(api.Change, error) bool) {
		r := historyRequest(key, opts)
		for {
			page, err := call[api.History](ctx, c, r)
			if err != nil {
				yield(api.Change{}, err)
				return
			}
			for _, v := range page.Versions {
				if !yield(v, nil) {
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
