package node

import (
	"context"
	"time"

	"github.com/cairnkv/cairn/kv"
)

// compactionParts is into how many steps the kept history is cut: with an hour
// to keep, history is between 60 and 66 minutes long.
const compactionParts = 10

// clockAhead is how far ahead of this member's clock the time of the newest change may
// be before it says so.
const clockAhead = time.Minute

// autoCompact lets the leader propose, as a revision, that history older than
// the configured time be forgotten. All members note which revision they had when, so
// that each can lead.
func (n *Node) autoCompact(ctx context.Context) {
	keep := n.cfg.AutoCompactionKeep
	if keep == 0 {
		return
	}
	every := max(keep/compactionParts, time.Second)
	var marks revisionMarks
	ahead := false
	for {
		pause(ctx, every)
		if ctx.Err() != nil {
			return
		}
		stats, err := n.shard.Store().Stats()
		if err != nil {
			continue // the store is about to close
		}
		now := time.Now()
		if was := ahead; was != (time.UnixMilli(stats.LastTime).Sub(now) > clockAhead) {
			ahead = !was
			if ahead {
				n.cfg.Logger.Warn("the newest change is dated ahead of this member's clock: that of some member is or was wrong", "newest_change", time.UnixMilli(stats.LastTime))
			}
		}
		marks.note(now, stats.Revision, keep)
		if !n.shard.IsLeader() || n.serving() != nil {
			continue
		}
		if err := n.compactBefore(ctx, now.Add(-keep), marks); err != nil && ctx.Err() == nil {
			n.cfg.Logger.Warn("auto-compaction", "err", err)
		}
	}
}

// compactBefore forgets what is older than t: what was there at t, as this process has
// noted. Of what was there before it began, the dates of the changes decide.
func (n *Node) compactBefore(ctx context.Context, t time.Time, marks revisionMarks) error {
	v, err := n.shard.Store().View()
	if err != nil {
		return err
	}
	revision, err := v.RevisionAt(t.UnixMilli())
	compacted := v.Compacted()
	v.Close()
	if noted, known := marks.before(t); known {
		revision = noted
	} else {
		revision = min(revision, noted)
	}
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

// revisionMarks are the revisions that this process had at some times, by its own
// monotonic clock. The dates of changes never go back: after a clock that was months
// ahead, were it for a second, they say for as long that everything is new.
type revisionMarks []revisionMark

type revisionMark struct {
	at       time.Time
	revision uint64
}

// note adds a mark, and forgets those before the last one that is as old as keep.
func (m *revisionMarks) note(now time.Time, revision uint64, keep time.Duration) {
	*m = append(*m, revisionMark{now, revision})
	for len(*m) > 1 && now.Sub((*m)[1].at) >= keep {
		*m = (*m)[1:]
	}
}

// before is the newest revision that is known to have been there at t. If that is before
// the first mark, nothing is known, and it is that of the first: what came later is newer.
func (m revisionMarks) before(t time.Time) (revision uint64, known bool) {
	for i := range m {
		if i == 0 || !m[i].at.After(t) {
			revision, known = m[i].revision, !m[i].at.After(t)
		}
	}
	return revision, known
}
