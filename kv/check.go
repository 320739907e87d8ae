package kv

import (
	"fmt"
	"math"
)

// Check reports why a command must not get into the log. A member that meets
// an entry which it can't decode has to stop, and so do all others, at every
// start: so whoever proposes asks first. What Check accepts, DecodeCommand
// decodes again to the same.
//
// A limit that is exceeded is an *Error with TransactionTooLarge; everything
// else wraps ErrMalformed and can only come from a mistake in the code that
// made the command, which has checked what its client said.
func (c *Command) Check() error {
	for _, s := range []struct {
		what       string
		size, most int
	}{
		{"the principal", len(c.Principal), MaxPrincipalBytes},
		{"the idempotency key", len(c.IdempotencyKey), MaxIdempotencyKeyBytes},
	} {
		if err := checkSize(s.what, s.size, s.most); err != nil {
			return err
		}
	}
	switch c.Kind {
	case KindTxn:
		if c.Txn == nil {
			return malformed("a transaction without one")
		}
		return c.Txn.check(0)
	case KindAlarm:
		if c.Alarm.Type == 0 || c.Alarm.Type >= alarmEnd {
			return malformed("alarm type %d", c.Alarm.Type)
		}
	case KindScrub:
		return c.checkScrub()
	case KindScrubbed:
		return checkSize("the next record of a scrub", len(c.Scrubbed.Next), MaxScrubNextBytes)
	case KindMembership:
		if m := &c.Membership; m.Step >= membershipStepEnd || m.State >= memberStateEnd {
			return malformed("step %d to member state %d", m.Step, m.State)
		}
	case KindRestore:
		if c.Restore == nil {
			return malformed("a restore without one")
		}
		return c.Restore.check()
	case KindCompact, KindClock, KindLeaseGrant, KindLeaseRenew, KindLeaseRevoke, KindLeaseExpire, KindLeaseRequeue, KindMember:
	default:
		return malformed("command kind %d", c.Kind)
	}
	return nil
}

// CheckEncoded reports whether the encoding of a command is too large for the
// log.
func CheckEncoded(b []byte) error { return checkSize("the encoded command", len(b), MaxCommandBytes) }

func (t *Txn) check(depth int) error {
	if depth > MaxTxnDepth {
		return Errorf(TransactionTooLarge, "transactions are nested deeper than %d", MaxTxnDepth)
	}
	for i := range t.If {
		if c := &t.If[i]; c.Target == 0 || c.Target >= targetEnd || c.Operator == 0 || c.Operator >= operatorEnd {
			return malformed("compare %d %d", c.Target, c.Operator)
		}
	}
	for _, branch := range [2][]Op{t.Then, t.Else} {
		for i := range branch {
			if err := branch[i].check(depth); err != nil {
				return err
			}
		}
	}
	return nil
}

func (op *Op) check(depth int) error {
	switch op.Type {
	case OpPut:
		if err := checkSize("a value", len(op.Value), MaxValueBytes); err != nil {
			return err
		}
		if err := checkSize("a content type", len(op.ContentType), MaxContentTypeBytes); err != nil {
			return err
		}
		return checkWritten(op.Key)
	case OpIncrement:
		return checkWritten(op.Key)
	case OpDelete:
	case OpGet:
		if op.Query == nil {
			return malformed("a get without a query")
		}
		return op.Query.check()
	case OpTxn:
		if op.Txn == nil {
			return malformed("a nested transaction without one")
		}
		return op.Txn.check(depth + 1)
	default:
		return malformed("operation type %d", op.Type)
	}
	return nil
}

func (q *Query) check() error {
	if q.Sort >= sortTargetEnd {
		return malformed("sort target %d", q.Sort)
	}
	for _, n := range [...]int{q.Limit, q.MaxBytes, q.PrefixLen} {
		if n < 0 || n > math.MaxInt32 {
			return malformed("size %d", n)
		}
	}
	return nil
}

// checkWritten checks the key of a put or an increment. The keys of ranges may
// be longer than any key.
func checkWritten(key []byte) error {
	if len(key) == 0 {
		return malformed("an empty key")
	}
	return checkSize("a key", len(key), MaxKeyBytes)
}

func checkSize(what string, size, most int) error {
	if size > most {
		return Errorf(TransactionTooLarge, "%s has %d bytes, at most %d are allowed", what, size, most)
	}
	return nil
}

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}
