package node

import (
	"context"
	"errors"
	"io"

	"github.com/cairnkv/cairn/backup"
	"github.com/cairnkv/cairn/httpapi"
	"github.com/cairnkv/cairn/kv"
	"github.com/cairnkv/cairn/storage"
	"github.com/cairnkv/cairn/watchers"
)

// face shows a node to the HTTP face.
type face struct{ n *Node }

var _ httpapi.Store = face{}

// Propose refuses what the disk of this member, or the table of remembered
// answers, has no room for, before anything is proposed.
func (f face) Propose(ctx context.Context, c *kv.Command) (*kv.Result, error) {
	if err := f.n.mayPropose(c); err != nil {
		return nil, err
	}
	if err := f.n.guard.admit(c); err != nil {
		return nil, err
	}
	r, err := f.n.shard.Propose(ctx, c)
	if err == nil && c.Kind == kv.KindLeaseRenew {
		f.n.countRenewals(r)
	}
	return r, err
}

func (f face) Room(bytes int) error { return f.n.shard.Room(bytes) }

func (f face) Wait(ctx context.Context, c kv.Consistency) error { return f.n.shard.Wait(ctx, c) }

// past shows the store's history to the hub of watchers.
type past struct{ n *Node }

func (p past) View() (watchers.View, error) {
	v, err := p.n.view()
	var refused *kv.Error
	switch {
	case errors.As(err, &refused):
		return nil, watchers.ErrDraining // clients go on elsewhere
	case err != nil:
		return nil, err
	}
	return v, nil
}

// view pins the state for a reader. Whether it can be trusted is asked after that:
// what was pinned before the alarm came isn't shown. Nor is a part of a restore, which
// a member that has just come to the cluster may get to while it serves a request.
func (n *Node) view() (*storage.View, error) {
	v, err := n.shard.Store().View()
	if err != nil {
		return nil, err
	}
	if err := n.quarantined(); err != nil {
		v.Close()
		return nil, err
	}
	if v.Restoring() {
		v.Close()
		return nil, errRestoring()
	}
	return v, nil
}

func (f face) Get(key []byte) (e kv.Entry, found bool, revision uint64, err error) {
	e, found, revision, err = f.n.shard.Store().Get(key)
	// Asked after the read: what was read before the alarm came isn't answered.
	if err := f.n.quarantined(); err != nil {
		return kv.Entry{}, false, 0, err
	}
	if restoring, _ := f.n.shard.Store().Restoring(); restoring {
		return kv.Entry{}, false, 0, errRestoring()
	}
	return e, found, revision, err
}

func (f face) View() (httpapi.View, error) {
	v, err := f.n.view()
	if err != nil {
		return nil, err
	}
	return v, nil
}

func (f face) WaitChange(ctx context.Context, keys kv.Range, after uint64) (uint64, error) {
	revision, err := f.n.watchers.WaitChange(ctx, keys, after)
	if errors.Is(err, watchers.ErrDraining) {
		err = kv.Errorf(kv.ShuttingDown, "this member is about to stop; ask another one")
	}
	return revision, err
}

func (f face) Revisions() (current, compacted uint64) { return f.n.shard.Store().Revisions() }

func (f face) RevisionAt(unixMillis int64) (uint64, error) {
	v, err := f.n.view()
	if err != nil {
		return 0, err
	}
	defer v.Close()
	return v.RevisionAt(unixMillis)
}

func (f face) Ready() error { return f.n.Ready() }

func (f face) Serving() error { return f.n.serving() }

func (f face) Behind() bool { return f.n.shard.Store().Behind() }

func (f face) Backup() (httpapi.Backup, error) {
	v, err := f.n.view()
	if err != nil {
		return nil, err
	}
	return pinned{v, f.n, f.n.backupHeader()}, nil
}

// pinned is the state of a node for a backup.
type pinned struct {
	*storage.View
	n      *Node
	header backup.Header
}

// Save writes a backup for somebody who waits for it, and leaves most of the
// time to the writers. It ends with an error when the content turns out not to be
// trusted.
func (p pinned) Save(ctx context.Context, w io.Writer) error {
	_, err := backup.Save(ctx, trusted{w, p.n}, p.View, p.header, backup.Background)
	return err
}

func (f face) Status() kv.Status { return f.n.Status() }
