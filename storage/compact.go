package storage

import (
	"errors"

	"github.com/cockroachdb/pebble/v2"
)

// sweeper removes what compaction made superfluous. It belongs to one handle,
// whose last user stops it. It reads and writes the database beside the
// applying goroutine without a lock: it touches only versions that are not the
// newest at the compact revision, and applying never writes those again.
type sweeper struct {
	h    *handle
	kick chan struct{} // level trigger, capacity 1
	quit chan struct{} // closed by stop
	done chan struct{} // closed when run has returned
}

func startSweeper(h *handle) *sweeper {
	s := &sweeper{h: h, kick: make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{})}
	go s.run()
	return s
}

// wake tells the sweeper that the compact revision may have moved.
func (s *sweeper) wake() {
	select {
	case s.kick <- struct{}{}:
	default: // it is to look anyway
	}
}

func (s *sweeper) stop() {
	close(s.quit)
	<-s.done
}

func (s *sweeper) run() {
	defer close(s.done)
	for {
		select {
		case <-s.quit:
			return
		case <-s.kick:
		}
		for {
			more, err := s.step()
			if err != nil {
				// Nothing is lost: the versions stay until the next compaction
				// or the next start.
				s.h.opts.Logger.Error("removing compacted versions", "err", err)
				break
			}
			if !more {
				break
			}
			select {
			case <-s.quit:
				return
			default:
			}
		}
	}
}

// step sweeps the oldest part of the change log below the compact revision and
// reports whether there is more. Its batch is committed as a whole and a second
// sweep of the same part changes nothing, so a crash at any point is harmless.
//
// The changes of the compact revision itself stay in the log: reads and watches
// may start at it.
func (s *sweeper) step() (more bool, err error) {
	compact := s.h.published.Load().compact
	it, err := s.h.db.NewIter(&pebble.IterOptions{
		LowerBound: []byte{spaceChange}, UpperBound: appendChangeKey(nil, compact+1, 0),
	})
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	if !it.First() || changeRevision(it.Key()) >= compact {
		return false, it.Error()
	}
	b := s.h.db.NewBatch()
	defer b.Close()
	start := append([]byte(nil), it.Key()...)
	end := appendChangeKey(nil, compact, 0)
	var c change
	var key []byte
	for n := 0; it.Valid(); it.Next() {
		k := it.Key()
		revision := changeRevision(k)
		// The batch ends between two revisions' worth of changes or inside one;
		// either is right.
		if n >= s.h.opts.SweepBatch && revision < compact {
			end = append(end[:0], k...)
			more = true
			break
		}
		value, err := it.ValueAndErr()
		if err != nil {
			return false, err
		}
		if err := decodeChange(k, value, &c); err != nil {
			return false, err
		}
		if c.prevRevision != 0 {
			key = appendVersionKey(key[:0], c.key, c.prevRevision)
			must(b.Delete(key, nil))
		}
		if c.kind == recordTombstone {
			key = appendVersionKey(key[:0], c.key, revision)
			must(b.Delete(key, nil))
		}
		n++
	}
	if err := it.Error(); err != nil {
		return false, err
	}
	must(b.DeleteRange(start, end, nil))
	return more, b.Commit(pebble.NoSync)
}

// Swept reports whether everything that is compacted is removed.
func (s *Store) Swept() (swept bool, err error) {
	h, err := s.acquire()
	if err != nil {
		return false, err
	}
	defer h.release()
	it, err := h.db.NewIter(&pebble.IterOptions{
		LowerBound: []byte{spaceChange}, UpperBound: appendChangeKey(nil, h.published.Load().compact, 0),
	})
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	return !it.First(), it.Error()
}
