package node

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestLeave: where none of the others takes the leadership, half of the time is left for
// the requests; where one does, all that is left.
func TestLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(context.Background(), 8*time.Second)
		defer cancel()
		left := time.Duration(0)
		drain := func(ctx context.Context) error {
			deadline, _ := ctx.Deadline()
			left = time.Until(deadline)
			return ctx.Err()
		}
		never := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		if kept, cutOff := leave(ctx, never, drain); !errors.Is(kept, context.DeadlineExceeded) || cutOff != nil || left != 4*time.Second {
			t.Errorf("the leadership: %v; requests: %v, with %v left", kept, cutOff, left)
		}
		at := func(context.Context) error { return nil }
		if kept, cutOff := leave(ctx, at, drain); kept != nil || cutOff != nil || left != 4*time.Second {
			t.Errorf("the leadership: %v; requests: %v, with %v left", kept, cutOff, left)
		}
		// One that may take any time.
		if kept, cutOff := leave(context.Background(), at, func(ctx context.Context) error { return ctx.Err() }); kept != nil || cutOff != nil {
			t.Errorf("the leadership: %v; requests: %v", kept, cutOff)
		}
	})
}
