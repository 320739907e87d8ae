package client

import (
	"context"
	"net/http"

	"github.com/cairnkv/cairn/api"
)

// Get reads a key. A key that does not exist is [ErrNotFound].
func (c *Client) Get(ctx context.Context, key string, opts ...GetOption) (*api.Entry, error) {
	r := newRequest(http.MethodGet, "")
	for _, o := range opts {
		o.get(r)
	}
	r.path = keyTarget("/v1/kv/", "/v1/key", key, r.query)
	e, err := call[api.Entry](ctx, c, r)
	if err != nil {
		return nil, err
	}
	if e.Value == nil {
		e.Value = []byte{}
	}
	return e, nil
}

// Put stores a value. The result says at which revision, and whether the key is
// new.
func (c *Client) Put(ctx context.Context, key string, value []byte, opts ...PutOption) (*api.PutResult, error) {
	r := newRequest(http.MethodPut, "")
	r.body = value
	for _, o := range opts {
		o.put(r)
	}
	r.path = keyTarget("/v1/kv/", "/v1/key", key, r.query)
	return call[api.PutResult](ctx, c, r)
}

// PutNext stores a value under the next key of a sequence: the prefix and a number
// of 20 digits. Keys of a sequence sort in the order in which they were put, by
// whomever, and a number is never given again.
func (c *Client) PutNext(ctx context.Context, prefix string, value []byte, opts ...NextOption) (*api.SequenceResult, error) {
	r := newRequest(http.MethodPost, "")
	r.body = value
	for _, o := range opts {
		o.next(r)
	}
	// Prefixes end in a slash, which not every proxy leaves there.
	r.path = "/v1/key"
	setBytes(r.query, "key", prefix)
	r.query.Set("sequence", "true")
	return call[api.SequenceResult](ctx, c, r)
}

// Delete deletes a key. A key that does not exist is no error: the result then
// says that 0 were deleted.
func (c *Client) Delete(ctx context.Context, key string, opts ...DeleteOption) (*api.DeleteResult, error) {
	r := newRequest(http.MethodDelete, "")
	for _, o := range opts {
		o.remove(r)
	}
	r.path = keyTarget("/v1/kv/", "/v1/key", key, r.query)
	return call[api.DeleteResult](ctx, c, r)
}

// DeleteRange deletes keys in one transaction. An empty prefix and a range without
// bounds are refused, so that a variable that was not set does not empty the store;
// [EveryKey] is how to say it.
func (c *Client) DeleteRange(ctx context.Context, keys Keys, opts ...DeleteOption) (*api.DeleteResult, error) {
	r := newRequest(http.MethodDelete, "/v1/kv")
	for _, o := range opts {
		o.remove(r)
	}
	switch {
	case keys.all:
		r.query.Set("all", "true")
	case keys.every():
		return nil, invalid("", "The range has neither a start nor an end; EveryKey says that all keys are meant", nil)
	default:
		keys.query(r.query)
	}
	return call[api.DeleteResult](ctx, c, r)
}
