package raftsm

import (
	"errors"

	"github.com/cairnkv/cairn/kv"
	"github.com/lni/dragonboat/v4"
)

// refused reports whether an error of proposing says that the entry did not
// enter the log. Dragonboat's own IsTempError answers another question: it
// counts errors after which the entry may be in the log.
func refused(err error) bool {
	for _, no := range []error{
		dragonboat.ErrSystemBusy, dragonboat.ErrShardNotReady, dragonboat.ErrShardNotInitialized,
		dragonboat.ErrPayloadTooBig, dragonboat.ErrTimeoutTooSmall, dragonboat.ErrInvalidSession,
		dragonboat.ErrRejected, dragonboat.ErrShardNotFound,
	} {
		if errors.Is(err, no) {
			return true
		}
	}
	return false
}

// notApplied names an error of a kind that refused knows.
func notApplied(err error) error {
	switch {
	case errors.Is(err, dragonboat.ErrSystemBusy):
		return &kv.Error{Code: kv.Busy, Detail: "the log can't take more at the moment", RetryAfterSeconds: 1}
	case errors.Is(err, dragonboat.ErrPayloadTooBig):
		return kv.Errorf(kv.TransactionTooLarge, "the write is too large for the log")
	case errors.Is(err, dragonboat.ErrShardNotReady), errors.Is(err, dragonboat.ErrShardNotInitialized), errors.Is(err, dragonboat.ErrTimeoutTooSmall):
		return &kv.Error{Code: kv.NoLeader, Detail: "no leader is known; nothing was applied", RetryAfterSeconds: 1}
	}
	return &kv.Error{Code: kv.Unavailable, Detail: "the log refused the write: " + err.Error(), RetryAfterSeconds: 1}
}
