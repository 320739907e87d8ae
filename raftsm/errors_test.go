package raftsm

import (
	"errors"
	"fmt"
	"testing"

	"github.com/cairnkv/cairn/kv"
	"github.com/lni/dragonboat/v4"
)

func errIs(err error, code kv.Code) bool { return errors.Is(err, &kv.Error{Code: code}) }

// TestEveryDragonboatError says of each error that proposing can give, and of
// each that it had better not, whether the entry may be in the log.
func TestEveryDragonboatError(t *testing.T) {
	for _, c := range []struct {
		err     error
		refused bool
		code    kv.Code // of a refusal
	}{
		// Said before the entry is queued, or when the queue drops it.
		{dragonboat.ErrSystemBusy, true, kv.Busy},
		{dragonboat.ErrPayloadTooBig, true, kv.TransactionTooLarge},
		{dragonboat.ErrTimeoutTooSmall, true, kv.NoLeader},
		{dragonboat.ErrShardNotReady, true, kv.NoLeader},
		{dragonboat.ErrShardNotInitialized, true, kv.NoLeader},
		{dragonboat.ErrInvalidSession, true, kv.Unavailable},
		{dragonboat.ErrShardNotFound, true, kv.Unavailable},
		{dragonboat.ErrRejected, true, kv.Unavailable},

		// The entry is on its way.
		{dragonboat.ErrTimeout, false, 0},
		{dragonboat.ErrCanceled, false, 0},
		{dragonboat.ErrAborted, false, 0},
		{dragonboat.ErrShardClosed, false, 0},
		{dragonboat.ErrClosed, false, 0},

		// Not of proposing, so nothing is known.
		{dragonboat.ErrInvalidOperation, false, 0},
		{dragonboat.ErrInvalidTarget, false, 0},
		{dragonboat.ErrReplicaRemoved, false, 0},
		{errors.New("something new"), false, 0},
	} {
		for _, err := range []error{c.err, fmt.Errorf("wrapped: %w", c.err)} {
			if refused(err) != c.refused {
				t.Errorf("%v: refused is %v", err, !c.refused)
			}
			if c.refused {
				wantCode(t, notApplied(err), c.code)
			}
		}
	}
	// Why IsTempError is no guide: it holds for some of both kinds.
	if !dragonboat.IsTempError(dragonboat.ErrTimeout) || !dragonboat.IsTempError(dragonboat.ErrSystemBusy) {
		t.Error("IsTempError has changed its mind; read what it says now")
	}
}
