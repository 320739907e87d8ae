package watchers

import (
	"context"
	"errors"

	"github.com/cairnkv/cairn/kv"
)

// WaitChange returns once a revision above after has changed something in r,
// with that revision. If history does not hold all of what follows, it returns
// at once with the newest revision: whoever waits has to look for itself.
func (h *Hub) WaitChange(ctx context.Context, r kv.Range, after uint64) (revision uint64, err error) {
	s, err := h.Watch(Request{Ranges: []kv.Range{r}, From: after + 1})
	if err != nil {
		return 0, err
	}
	defer s.Close()
	got, err := s.Next(ctx, nil)
	var e *kv.Error
	switch {
	case err == nil:
		return got[0].Revision, nil
	case errors.As(err, &e) && e.Code == kv.Compacted:
		return e.CurrentRevision, nil
	}
	return 0, err
}
