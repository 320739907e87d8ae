package node

import (
	"context"
	"errors"

	"github.com/cairnkv/cairn/httpapi"
	"github.com/cairnkv/cairn/kv"
)

// face shows a node to the HTTP face.
type face struct{ n *Node }

var _ httpapi.Store = face{}

// Propose refuses what the disk of this member, or the table of remembered
// answers, has no room for, before anything is proposed.
func (f face) Propose(ctx context.Context, c *kv.Command) (*kv.Result, error) {
	if err := f.n.guard.admit(c); err != nil {
		return nil, err
	}
	r, err := f.n.shard.Propose(ctx, c)
	if err == nil && c.Kind == kv.KindLeaseRenew {
		f.n.countRenewals(r)
	}
	return r, err
}

func (f face) Wait(ctx context.Context, c kv.Consistency) error { return f.n.shard.Wait(ctx, c) }

func (f face) Get(key []byte) (kv.Entry, bool, uint64, error) { return f.n.shard.Store().Get(key) }

func (f face) View() (httpapi.View, error) {
	v, err := f.n.shard.Store().View()
	if err != nil {
		return nil, err
	}
	return v, nil
}

// WaitChange returns after any change: those who wait look for themselves.
func (f face) WaitChange(ctx context.Context, _ kv.Range, after uint64) (uint64, error) {
	for {
		err := f.n.shard.Wait(ctx, kv.Consistency{MinRevision: after + 1})
		switch {
		case err == nil:
			revision, _ := f.n.shard.Store().Revisions()
			return revision, nil
		case ctx.Err() != nil:
			return 0, ctx.Err()
		case !errors.Is(err, &kv.Error{Code: kv.NotCaughtUp}):
			return 0, err
		}
	}
}

func (f face) Revisions() (current, compacted uint64) { return f.n.shard.Store().Revisions() }

func (f face) RevisionAt(unixMillis int64) (uint64, error) {
	v, err := f.n.shard.Store().View()
	if err != nil {
		return 0, err
	}
	defer v.Close()
	return v.RevisionAt(unixMillis)
}

func (f face) Ready() error { return f.n.shard.Ready() }

func (f face) Status() kv.Status { return f.n.Status() }
