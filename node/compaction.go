package node

import (
	"context"
	"time"

	"github.com/cairnkv/cairn/kv"
)

// compactionParts is into how many steps the kept history is cut: with an hour
// to keep, history is between 60 and 66 minutes long.
const compactionParts = 10

// autoCompact lets the leader propose, as a revision, that history older than
// the configured time be forgotten.
func (n *Node) autoCompact(ctx context.Context) {
	keep := n.cfg.AutoCompactionKeep
	if keep == 0 {
		return
	}
	every := max(keep/compactionParts, time.Second)
	for {
		pause(ctx, every)
		if ctx.Err() != nil {
			return
		}
		if !n.shard.IsLeader() || n.serving() != nil {
			continue
		}
		if err := n.compactBefore(ctx, time.Now().Add(-keep)); err != nil && ctx.Err() == nil {
			n.cfg.Logger.Warn("auto-compaction", "err", err)
		}
	}
}

func (n *Node) compactBefore(ctx context.Context, t time.Time) error {
	v, err := n.shard.Store().View()
	if err != nil {
		return err
	}
	revision, err := v.RevisionAt(t.UnixMilli())
	compacted := v.Compacted()
	v.Close()
	if err != nil || revision <= max(compacted, 1) {
		return err
	}
	result, err := n.shard.Propose(ctx, &kv.Command{Kind: kv.KindCompact, Time: time.Now().UnixMilli(), Compact: revision})
	if err != nil {
		return err
	}
	if result.Code == kv.Compacted {
		return nil // somebody compacted further meanwhile
	}
	return result.Err()
}
