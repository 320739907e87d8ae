package client

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"hash"
	"io"
	"net/http"
	"strconv"

	"github.com/cairnkv/cairn/api"
)

// A Snapshot is a backup on its way. Read it to its end, and close it: only
// io.EOF says that all of it came, and that it is what the node sent.
type Snapshot struct {
	// Revision is the one whose state it has.
	Revision uint64
	resp     *http.Response
	sum      hash.Hash
}

// ErrSnapshotDamaged is returned by [Snapshot.Read] when what came is
// not what the node sent.
var ErrSnapshotDamaged = errors.New("client: the backup was damaged on its way")

// Snapshot takes a backup of the node that answers. It is bounded by ctx alone,
// which must live until it is read.
func (c *Client) Snapshot(ctx context.Context, opts ...ReadOption) (*Snapshot, error) {
	r := newRequest(http.MethodGet, "/v1/snapshot")
	r.stream = true
	r.header.Set("Accept", api.TypeBackup)
	for _, o := range opts {
		o.get(r)
	}
	var s *Snapshot
	err := c.do(ctx, r, func(resp *http.Response) error {
		revision, err := strconv.ParseUint(resp.Header.Get(api.HeaderRevision), 10, 64)
		if err != nil || !isType(resp, api.TypeBackup) {
			defer drain(resp)
			return foreign(endpointOf(resp), resp.StatusCode, "")
		}
		s = &Snapshot{Revision: revision, resp: resp, sum: sha256.New()}
		return nil
	})
	return s, err
}

// Read implements io.Reader.
func (s *Snapshot) Read(p []byte) (int, error) {
	n, err := s.resp.Body.Read(p)
	s.sum.Write(p[:n])
	if err == io.EOF {
		// A proxy may have dropped the trailer; the file ends in a checksum of its
		// own.
		want := s.resp.Trailer.Get(api.HeaderDigest)
		if want != "" && want != "sha-256=:"+base64.StdEncoding.EncodeToString(s.sum.Sum(nil))+":" {
			err = ErrSnapshotDamaged
		}
	}
	return n, err
}

// Close gives the connection back, or up if the backup was not read to its end.
func (s *Snapshot) Close() error { return s.resp.Body.Close() }
