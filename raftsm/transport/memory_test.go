package transport

import (
	"context"
	"errors"
	"testing"
	"time"

	pb "github.com/lni/dragonboat/v4/raftpb"
	"github.com/oklog/ulid/v2"
)

// restarted is another process of a member, whose log ended at a place when it began.
func restarted(t testing.TB, of *end, began Start) *end {
	t.Helper()
	again := newEnd(t, of.cfg.Self.Replica, func(cfg *Config) {
		cfg.Self, cfg.Listen, cfg.TLS = of.cfg.Self, of.cfg.Self.Address, of.cfg.TLS
	})
	again.Join(again, began)
	return again
}

// TestRolledBack: a member that begins before what it has shown is refused, whoever
// dials, and one that begins there is let in.
func TestRolledBack(t *testing.T) {
	both(t, func(t *testing.T, change func(*Config)) {
		a, b := pair(t, change)
		out, in := connect(t, a, b), connect(t, b, a)
		heard := func(e *end, n int) { eventually(t, "it was heard", func() bool { return e.received() == n }) }
		m := heartbeat(1, 2)
		m.Commit = 40
		must(t, out.SendMessageBatch(batch(m,
			pb.Message{Type: pb.Replicate, From: 1, To: 2, ShardID: 1, Term: 7, Commit: 100}, // of which the member may have nothing yet
			heartbeat(1, 2))))
		heard(b, 3)
		must(t, in.SendMessageBatch(batch(
			pb.Message{Type: pb.HeartbeatResp, From: 2, To: 1, ShardID: 1, Term: 7},
			pb.Message{Type: pb.RequestPreVote, From: 2, To: 1, ShardID: 1, Term: 9}, // a term that it has not entered
			pb.Message{Type: pb.ReplicateResp, From: 2, To: 1, ShardID: 1, Term: 6})))
		heard(a, 3)
		must(t, b.Close())

		for _, began := range []Start{{}, {39, 7}, {39, 8}, {40, 6}, {100, 6}} {
			again := restarted(t, b, began)
			var refusal *Refusal
			if _, err := again.GetConnection(context.Background(), a.cfg.Self.Address); !errors.As(err, &refusal) || refusal.Reason != ReasonRolledBack {
				t.Errorf("one that begins at %+v dials: %v", began, err)
			}
			if _, err := a.GetConnection(context.Background(), again.cfg.Self.Address); !errors.As(err, &refusal) || refusal.Reason != ReasonRolledBack {
				t.Errorf("one that begins at %+v is dialled: %v", began, err)
			}
			must(t, again.Close())
		}

		again := restarted(t, b, Start{40, 7})
		out = connect(t, a, again)
		in = connect(t, again, a)
		// What it shows now is its own: it is held to what was shown before it began.
		m.Commit = 50
		must(t, out.SendMessageBatch(batch(m)))
		must(t, in.SendMessageBatch(batch(pb.Message{Type: pb.RequestVote, From: 2, To: 1, ShardID: 1, Term: 8})))
		heard(again, 1)
		heard(a, 4)
		connect(t, again, a)
		connect(t, a, again)
		must(t, again.Close())
		_, err := restarted(t, b, Start{49, 8}).GetConnection(context.Background(), a.cfg.Self.Address)
		if err == nil {
			t.Error("what the second process has shown is not remembered")
		}
	})
}

// TestLateHello: the hello of a process that is gone, which comes behind that of its
// successor, changes nothing for the latter.
func TestLateHello(t *testing.T) {
	r := &remembered{}
	of := func(incarnation byte, began Start) *hello {
		return &hello{incarnation: ulid.ULID{5: incarnation}, began: &began}
	}
	must(t, r.compare(of(1, Start{10, 1})))
	raise(&r.index, 20)
	must(t, r.compare(of(3, Start{20, 1})))
	raise(&r.index, 30)
	for range 2 * keptIncarnations {
		if r.compare(of(2, Start{15, 1})) == nil {
			t.Error("the hello of a process that began before the newest one is let in")
		}
	}
	must(t, r.compare(of(1, Start{10, 1})))
	must(t, r.compare(of(3, Start{20, 1})))
	must(t, r.compare(of(4, Start{30, 1})))
	// One that did not say where it began is held to nothing, and what it showed is
	// not held against it once it does.
	must(t, r.compare(&hello{incarnation: ulid.ULID{5: 5}}))
	raise(&r.index, 40)
	must(t, r.compare(of(5, Start{30, 1})))
	// Of many, the first is not known any more, and so not refused. One that is younger
	// than all of them is.
	for i := range byte(keptIncarnations) {
		must(t, r.compare(of(10+i, Start{40, 1})))
	}
	must(t, r.compare(of(1, Start{10, 1})))
	if r.compare(of(100, Start{39, 1})) == nil {
		t.Error("after many, a process that was rolled back is let in")
	}
}

// TestForgottenProcess: a process that was let in since it may have been forgotten is one
// of those that are known, also when the clock of this member turns out to have been ahead.
func TestForgottenProcess(t *testing.T) {
	r := &remembered{}
	raise(&r.index, 20)
	r.forgotten = ulid.Make()
	p := &hello{incarnation: ulid.ULID{1}, began: &Start{10, 1}}
	must(t, r.compare(p))
	raise(&r.index, 30) // shown by itself
	must(t, r.forgotten.SetTime(ulid.Timestamp(time.Now().Add(time.Hour))))
	must(t, r.compare(p))
	if r.compare(&hello{incarnation: ulid.ULID{2}, began: &Start{20, 1}}) == nil {
		t.Error("a clock that is far ahead lets in who was rolled back")
	}
}

// TestMessagesOfTheFormerReplica: what is queued for a replica that was at an address
// before says nothing of the one that is there now.
func TestMessagesOfTheFormerReplica(t *testing.T) {
	r := &remembered{}
	m := heartbeat(1, 3)
	m.Commit = 40
	r.sent([]pb.Message{m}, 4)
	if n := r.index.Load(); n != 0 {
		t.Errorf("entry %d counts for another replica", n)
	}
}
