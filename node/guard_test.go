package node

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/cairnkv/cairn/kv"
)

// TestQuota gives a node with 100 MiB of real data a smaller quota. The alarm is
// raised for the cluster and outlives a restart; deletes and reads go on. With
// room again, by a larger quota, it ends by itself.
func TestQuota(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	n := ready(t, cfg)
	u := newUser(t, n)
	value := make([]byte, 1<<20)
	random := rand.NewChaCha8([32]byte{})
	for i := range 300 {
		_, _ = random.Read(value) // it can't fail; what compresses would take no room
		u.want(201, "", "PUT", fmt.Sprint("/v1/kv/k", i), string(value))
	}
	for range 2 { // the alarm stands over a restart
		must(t, n.Close())
		cfg.QuotaBytes = MinQuotaBytes
		n = ready(t, cfg)
		u = newUser(t, n)
		eventually(t, "the alarm is raised", func() bool { return len(n.Status().Alarms) == 1 })
		if a := n.Status().Alarms[0]; a.Type != kv.AlarmNoSpace || a.Replica != 1 {
			t.Errorf("alarm %v", a)
		}
		u.want(507, "no-space", "PUT", "/v1/kv/small", "v")
		u.want(200, "", "GET", "/v1/kv/k0", "")
		u.want(200, "", "DELETE", "/v1/kv/k1", "")
	}
	must(t, n.Close())
	cfg.QuotaBytes = 2 << 30
	n = ready(t, cfg)
	u = newUser(t, n)
	eventually(t, "the alarm ends", func() bool { return len(n.Status().Alarms) == 0 })
	u.want(201, "", "PUT", "/v1/kv/small", "v")

	// Or by deleting and compacting: the space comes back although nothing is
	// written any more.
	must(t, n.Close())
	cfg.QuotaBytes = MinQuotaBytes
	n = ready(t, cfg)
	u = newUser(t, n)
	eventually(t, "the alarm is raised again", func() bool { return len(n.Status().Alarms) == 1 })
	u.want(200, "", "DELETE", "/v1/kv?prefix=k", "")
	revision := n.Status().Revision
	result, err := n.shard.Propose(context.Background(), &kv.Command{Kind: kv.KindCompact, Compact: revision})
	must(t, err)
	must(t, result.Err())
	eventually(t, "the alarm ends by itself", func() bool { return len(n.Status().Alarms) == 0 })
	u.want(200, "", "PUT", "/v1/kv/small", "v")
}

// TestRepetitionsAreAdmitted: where nothing more can be remembered, or written, who
// repeats what was applied gets its answer.
func TestRepetitionsAreAdmitted(t *testing.T) {
	t.Parallel()
	n := ready(t, config(t))
	keyed := func(key, value string) *kv.Command {
		c := put("k", value)
		c.IdempotencyKey = key
		return c
	}
	propose := func(c *kv.Command) (*kv.Result, error) { return face{n}.Propose(t.Context(), c) }
	first, err := propose(keyed("a", "1"))
	must(t, err)
	n.guard.mostAnswers = 1
	for _, full := range []bool{false, true} {
		n.guard.full.Store(full)
		again, err := propose(keyed("a", "1"))
		must(t, err)
		if !again.Replayed || again.Revision != first.Revision {
			t.Errorf("full %v: a repetition got %+v", full, again)
		}
		if _, err := propose(keyed("b", "2")); !errors.Is(err, &kv.Error{Code: kv.IdempotencyFull}) && !errors.Is(err, &kv.Error{Code: kv.NoSpace}) {
			t.Errorf("full %v: another one got %v", full, err)
		}
	}
}

// TestAdmit says what a member with a full disk still takes.
func TestAdmit(t *testing.T) {
	n := ready(t, config(t))
	g := newGuard(n)
	del := kv.Op{Type: kv.OpDelete, Range: kv.SingleKey([]byte("k"))}
	get := kv.Op{Type: kv.OpGet, Query: &kv.Query{Range: kv.SingleKey([]byte("k"))}}
	write := put("k", "v").Txn.Then[0]
	txn := func(then, or []kv.Op) *kv.Command {
		return &kv.Command{Kind: kv.KindTxn, Txn: &kv.Txn{Then: then, Else: or}}
	}
	nested := func(ops ...kv.Op) kv.Op { return kv.Op{Type: kv.OpTxn, Txn: &kv.Txn{Else: ops}} }
	for _, c := range []struct {
		name  string
		c     *kv.Command
		grows bool
	}{
		{"put", put("k", "v"), true},
		{"increment", txn([]kv.Op{{Type: kv.OpIncrement, Key: []byte("k"), By: 1}}, nil), true},
		{"put in the other branch", txn([]kv.Op{del}, []kv.Op{get, write}), true},
		{"put further down", txn([]kv.Op{del, nested(get, nested(write))}, nil), true},
		{"delete", txn([]kv.Op{del}, nil), false},
		{"get and delete further down", txn([]kv.Op{get, nested(del)}, []kv.Op{nested(get)}), false},
		{"grant", &kv.Command{Kind: kv.KindLeaseGrant}, true},
		{"renew", &kv.Command{Kind: kv.KindLeaseRenew}, false},
		{"revoke", &kv.Command{Kind: kv.KindLeaseRevoke}, false},
		{"compact", &kv.Command{Kind: kv.KindCompact}, false},
		{"clock", &kv.Command{Kind: kv.KindClock}, false},
		{"alarm", &kv.Command{Kind: kv.KindAlarm}, false},
	} {
		g.full.Store(false)
		must(t, g.admit(c.c))
		g.full.Store(true)
		if err := g.admit(c.c); errors.Is(err, &kv.Error{Code: kv.NoSpace}) != c.grows {
			t.Errorf("%s, on a full disk: %v", c.name, err)
		}
	}
	// The face asks, and nothing is proposed.
	n.guard, g = g, n.guard
	defer func() { n.guard = g }()
	n.guard.full.Store(true)
	_, err := face{n}.Propose(context.Background(), put("k", "v"))
	if !errors.Is(err, &kv.Error{Code: kv.NoSpace}) {
		t.Errorf("got %v", err)
	}
}
