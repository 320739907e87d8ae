package storage

import (
	"errors"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// room knows whether the store's background work lacks room on the disk.
// The reserve of the node is there to keep it from that; but a user's quota, or
// a file system that is out of inodes, is not seen in its free bytes.
type room struct{ wanted atomic.Uint32 }

// What lacks room.
const (
	flushNeedsRoom = 1 << iota
	compactionNeedsRoom
)

// ended notes how a piece of background work ended.
func (r *room) ended(opts *Options, what uint32, err error) {
	switch {
	case outOfRoom(err):
		if r.wanted.Or(what) == 0 {
			opts.Logger.Error("the disk has no room for the store's background work, which is tried until it has", "err", err)
		}
	case err == nil:
		if r.wanted.And(^what) == what {
			opts.Logger.Info("the store's background work goes on")
		}
	}
}

// WantsRoom reports whether the store's background work fails because the disk
// is full. What was applied is safe in the logs, but soon no more can be. It
// ends by itself, some time after there is room again.
func (s *Store) WantsRoom() bool {
	h := s.current.Load()
	return h != nil && h.room.wanted.Load() != 0
}

func outOfRoom(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}
