package node

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"github.com/cairnkv/cairn/kv"
	"golang.org/x/sys/unix"
)

const (
	// reserveBytes is the free disk below which this member refuses everything
	// that writes: the log, the store's background work and what is under way
	// still need room, and a full disk would end the process.
	reserveBytes = 512 << 20
	// A quota alarm ends when the store is this much below the quota, so that
	// it does not come and go with every write.
	quotaClearPercent = 90
	// quotaWarnPercent is where the operator is told.
	quotaWarnPercent = 80
	guardInterval    = time.Second
)

// guard watches the quota and the disk of this member. Passing the quota, or
// the reserve, raises an alarm through the log, so that all members refuse alike
// what grows the store; below the reserve this member also refuses, by itself,
// everything that writes.
type guard struct {
	n *Node
	// free is what the file systems of the member have left, the least of each, full
	// whether that is below the reserve, or too little for the store's background work all
	// the same.
	free   atomic.Uint64
	full   atomic.Bool
	warned bool
	// mostAnswers is kv.MaxIdempotencyRecords, but for tests.
	mostAnswers uint64
}

func newGuard(n *Node) *guard { return &guard{n: n, mostAnswers: kv.MaxIdempotencyRecords} }

// look measures the disk.
func (g *guard) look() error {
	free, err := g.n.freeBytes()
	if err != nil {
		return fmt.Errorf("measure the disk: %w", err)
	}
	g.free.Store(free)
	full := free < reserveBytes || g.n.shard.Store().WantsRoom()
	if was := g.full.Swap(full); was != full {
		if was {
			g.n.cfg.Logger.Info("the disk has room again", "free_bytes", free)
		} else {
			g.n.cfg.Logger.Error("the disk is almost full; this member refuses what grows the store", "free_bytes", free, "reserve_bytes", reserveBytes)
		}
	}
	return nil
}

// freeBytes is the least that one of the node's file systems has left: the log and the
// store may have one each.
func (n *Node) freeBytes() (uint64, error) {
	least := uint64(math.MaxUint64)
	for _, dir := range n.dir.Volumes(shardID) {
		var fs unix.Statfs_t
		switch err := unix.Statfs(dir, &fs); {
		case err == nil:
			least = min(least, fs.Bavail*uint64(fs.Bsize))
		case !errors.Is(err, unix.ENOENT) || dir == n.dir.Path:
			return 0, err
		}
	}
	return least, nil
}

// snapshotRoom says why a snapshot that arrives can't have so many more bytes of the disk:
// it would take the reserve, and what the logs need while it comes.
func (n *Node) snapshotRoom(bytes uint64) error {
	free, err := n.freeBytes()
	if err == nil && free < reserveBytes+logReserve+bytes {
		err = fmt.Errorf("the disk has %d bytes left, of which %d are kept, and %d more are needed", free, reserveBytes+logReserve, bytes)
	}
	return err
}

func (g *guard) run(ctx context.Context) {
	for ; ctx.Err() == nil; pause(ctx, guardInterval) {
		if err := g.look(); err != nil {
			g.n.cfg.Logger.Error("the guard of the disk", "err", err)
			continue
		}
		if err := g.alarm(ctx); err != nil && ctx.Err() == nil {
			g.n.cfg.Logger.Warn("the quota alarm was not set", "err", err)
		}
	}
}

// alarm raises or clears this member's alarm where that is due.
func (g *guard) alarm(ctx context.Context) error {
	stats, err := g.n.shard.Store().Stats()
	if err != nil {
		return err
	}
	used, quota := stats.DiskBytes, g.n.cfg.QuotaBytes
	if warn := used > quota/100*quotaWarnPercent; warn != g.warned {
		g.warned = warn
		if warn {
			g.n.cfg.Logger.Warn("the store nears its quota", "disk_bytes", used, "quota_bytes", quota)
		}
	}
	active, err := g.isRaised()
	if err != nil {
		return err
	}
	over := used > quota || g.full.Load()
	under := used < quota/100*quotaClearPercent && g.free.Load() > 2*reserveBytes && !g.full.Load()
	switch {
	case over && !active && g.n.shard.Ready() == nil:
		// One that is not in touch, or can't catch up for want of room, would stop all others
		// and not see how its alarm ends.
		return g.set(ctx, true)
	case under && active:
		return g.set(ctx, false)
	}
	return nil
}

const (
	// logReserve is what of the reserve giving space back leaves to the logs. One of
	// them that finds no room ends the process.
	logReserve = reserveBytes / 4
	// reclaimRetry is the pause after not all of the space could be given back.
	reclaimRetry = 30 * time.Second
)

// reclaim gives disk space back while this member's alarm is on: what was
// deleted and compacted still lies on the disk, and without writes nothing would
// make Pebble look at it. Once for each compaction that was swept. It needs room
// itself, of which it takes no more than the logs can spare.
func (g *guard) reclaim(ctx context.Context) {
	done := uint64(0) // the compacted revision whose space was given back
	for ; ctx.Err() == nil; pause(ctx, guardInterval) {
		store := g.n.shard.Store()
		raised, err := g.isRaised()
		if err != nil || !raised {
			continue
		}
		if swept, err := store.Swept(); err != nil || !swept || store.WantsRoom() {
			continue
		}
		if _, compacted := store.Revisions(); compacted != done {
			if err := store.Reclaim(ctx, g.spare); err != nil {
				if ctx.Err() == nil {
					g.n.cfg.Logger.Warn("giving disk space back", "err", err)
				}
				pause(ctx, reclaimRetry)
				continue
			}
			done = compacted
		}
	}
}

// spare is how much of the disk may be taken for a while.
func (g *guard) spare() uint64 {
	if g.n.shard.Store().WantsRoom() {
		return 0
	}
	free, err := g.n.freeBytes()
	if err != nil || free < logReserve {
		return 0
	}
	return free - logReserve
}

func (g *guard) isRaised() (bool, error) {
	v, err := g.n.shard.Store().View()
	if err != nil {
		return false, err
	}
	defer v.Close()
	alarms, err := v.Alarms()
	for _, a := range alarms {
		if a.Replica == g.n.shard.Replica() && a.Type == kv.AlarmNoSpace {
			return true, err
		}
	}
	return false, err
}

// set goes around admit: an alarm is small, and it is what ends the growth.
func (g *guard) set(ctx context.Context, active bool) error {
	result, err := g.n.shard.Propose(ctx, &kv.Command{
		Kind: kv.KindAlarm, Time: time.Now().UnixMilli(),
		Alarm: kv.Alarm{Replica: g.n.shard.Replica(), Type: kv.AlarmNoSpace, Active: active},
	})
	if err != nil {
		return err
	}
	if active {
		g.n.cfg.Logger.Error("storage quota or disk reserve is used up; the cluster refuses what grows the store")
	} else {
		g.n.cfg.Logger.Info("storage has room again")
	}
	return result.Err()
}

// admit refuses a command before it is proposed, where this member's disk or
// the table of remembered answers has no room. Deletes and compactions are let
// through below the reserve, too: they are what makes room. So are repetitions, which
// get their first answer and change nothing.
func (g *guard) admit(c *kv.Command) error {
	if err := g.room(c); err != nil && !g.repeats(c) {
		return err
	}
	return nil
}

func (g *guard) room(c *kv.Command) error {
	if g.full.Load() && grows(c) {
		return &kv.Error{Code: kv.NoSpace, RetryAfterSeconds: 5,
			Detail: fmt.Sprintf("this member's disk has less than %d bytes left, or no more files or quota; delete or compact, or make room on the disk", reserveBytes)}
	}
	if n := g.n.shard.Store().IdempotencyRecords(); c.IdempotencyKey != "" && n >= g.mostAnswers {
		return &kv.Error{Code: kv.IdempotencyFull, RetryAfterSeconds: 30,
			Detail: fmt.Sprintf("%d answers are remembered already, which is the most; try again later, with the same key", n)}
	}
	return nil
}

// repeats reports whether a command is a repetition of one that was applied, as far as
// this member has it.
func (g *guard) repeats(c *kv.Command) bool {
	if c.IdempotencyKey == "" {
		return false
	}
	remembered, err := g.n.shard.Store().Remembers(c.Principal, c.IdempotencyKey)
	return err == nil && remembered
}

// grows reports whether a command can make the store larger.
func grows(c *kv.Command) bool {
	switch c.Kind {
	case kv.KindTxn:
		return txnGrows(c.Txn)
	case kv.KindLeaseGrant:
		return true
	}
	return false
}

func txnGrows(t *kv.Txn) bool {
	for _, branch := range [][]kv.Op{t.Then, t.Else} {
		for i := range branch {
			switch op := &branch[i]; op.Type {
			case kv.OpPut, kv.OpIncrement:
				return true
			case kv.OpTxn:
				if txnGrows(op.Txn) {
					return true
				}
			}
		}
	}
	return false
}
