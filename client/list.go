package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"iter"
	"net/http"

	"github.com/cairnkv/cairn/api"
)

// List reads one page of keys. If its More is set, [Cursor] with its NextCursor
// gets the next one.
func (c *Client) List(ctx context.Context, keys Keys, opts ...ListOption) (*api.List, error) {
	return call[api.List](ctx, c, listRequest(keys, opts))
}

func listRequest(keys Keys, opts []ListOption) *request {
	r := newRequest(http.MethodGet, "/v1/kv")
	keys.query(r.query)
	for _, o := range opts {
		o.list(r)
	}
	return r
}

// Count counts keys, and says at which revision.
func (c *Client) Count(ctx context.Context, keys Keys, opts ...ListOption) (count, revision uint64, err error) {
	r := listRequest(keys, opts)
	r.query.Set("count_only", "true")
	l, err := call[api.List](ctx, c, r)
	if err != nil {
		return 0, 0, err
	}
	if l.Count != nil {
		count = *l.Count
	}
	return count, l.Revision, nil
}

// Pages goes through a list page by page. All pages show the same revision. An
// error ends it. A list with [SortBy] has one page: where that is not all,
// [ErrInvalid] follows it.
func (c *Client) Pages(ctx context.Context, keys Keys, opts ...ListOption) iter.Seq2[*api.List, error] {
	return func(yield func(*api.List, error) bool) {
		r := listRequest(keys, opts)
		for {
			page, err := call[api.List](ctx, c, r)
			if err != nil {
				yield(nil, err)
				return
			}
			if !yield(page, nil) || !page.More {
				return
			}
			if page.NextCursor == "" {
				yield(nil, invalid("", "A sorted list has one page, and there is more than fits it; sort here, or ask for fewer keys", nil))
				return
			}
			r.query.Set("cursor", page.NextCursor)
		}
	}
}

// All goes through the entries of a list of any length, as one snapshot. Unless
// [Limit] says otherwise it asks for 1,000 at a time.
func (c *Client) All(ctx context.Context, keys Keys, opts ...ListOption) iter.Seq2[api.Entry, error] {
	opts = append([]ListOption{Limit(1000)}, opts...)
	return func(yield func(api.Entry, error) bool) {
		for page, err := range c.Pages(ctx, keys, opts...) {
			if err != nil {
				yield(api.Entry{}, err)
				return
			}
			for _, e := range page.Entries {
				if !yield(e, nil) {
					return
				}
			}
		}
	}
}

// Scan goes through the entries of a list of any length, as one snapshot, which
// arrives as one stream while it is read. It is faster than [Client.All], but a
// connection that breaks ends it with an error. It can't be combined with
// [Delimiter], [SortBy] and [WithCount].
func (c *Client) Scan(ctx context.Context, keys Keys, opts ...ListOption) iter.Seq2[api.Entry, error] {
	return func(yield func(api.Entry, error) bool) {
		r := listRequest(keys, opts)
		r.stream = true
		r.header.Set("Accept", api.TypeNDJSON)
		var resp *http.Response
		err := c.do(ctx, r, func(answer *http.Response) error {
			if !isType(answer, api.TypeNDJSON) {
				defer drain(answer)
				return foreign(endpointOf(answer), answer.StatusCode, "")
			}
			resp = answer
			return nil
		})
		if err != nil {
			yield(api.Entry{}, err)
			return
		}
		defer resp.Body.Close()
		broken := func(err error) {
			yield(api.Entry{}, unavailable(endpointOf(resp), err))
		}
		lines := bufio.NewReaderSize(resp.Body, 64<<10)
		for {
			line, err := readLine(lines)
			if err == io.EOF {
				return
			}
			if err != nil {
				broken(err)
				return
			}
			var e api.Entry
			if err := json.Unmarshal(line, &e); err != nil {
				broken(err)
				return
			}
			if !yield(e, nil) {
				return
			}
		}
	}
}

// readLine reads a line of any length, without its end. What has no line end at
// the end of the stream is a line that broke off.
func readLine(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	if err == bufio.ErrBufferFull {
		line = bytes.Clone(line)
		var rest []byte
		rest, err = r.ReadBytes('\n')
		line = append(line, rest...)
	}
	switch {
	case err == io.EOF && len(line) > 0:
		return nil, io.ErrUnexpectedEOF
	case err != nil:
		return nil, err
	}
	return line[:len(line)-1], nil
}
