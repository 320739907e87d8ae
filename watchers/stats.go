package watchers

// Stats is what a hub knows of itself.
type Stats struct {
	// Streams are open, of which Live follow what is applied and Behind read
	// history. Ranges are the different ones of the live streams.
	Streams, Live, Behind, Ranges int
	// Lag is how many revisions the stream that is furthest behind has before
	// it.
	Lag uint64
	// QueuedChanges and QueuedBytes wait in the queues of streams. Streams share
	// what they wait for; it is counted for each.
	QueuedChanges int
	QueuedBytes   int64
	// Opened, Delivered and CaughtUp count streams, the changes handed out to
	// them live and from history, since the start. Overflowed counts streams that
	// were sent to history because their queue was full, Forgotten how often all
	// were because the hub's was.
	Opened, Delivered, CaughtUp, Overflowed, Forgotten uint64
}

// Stats looks at all streams.
func (h *Hub) Stats() Stats {
	c := &h.counted
	st := Stats{
		Opened: c.opened.Load(), Delivered: c.live.Load(), CaughtUp: c.past.Load(),
		Overflowed: c.overflowed.Load(), Forgotten: c.forgotten.Load(),
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	st.Streams, st.Ranges = len(h.streams), h.index.nodes
	revision := h.revision.Load()
	for s := range h.streams {
		st.add(s, revision)
	}
	return st
}

func (st *Stats) add(s *Stream, revision uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st.QueuedChanges += len(s.pending)
	st.QueuedBytes += int64(s.pendingBytes)
	if s.live {
		st.Live++
		if len(s.pending) == 0 {
			return
		}
	} else {
		st.Behind++
	}
	if p := s.Position(); p < revision {
		st.Lag = max(st.Lag, revision-p)
	}
}
