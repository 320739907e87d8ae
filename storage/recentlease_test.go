package storage

import (
	"testing"

	"github.com/cairnkv/cairn/kv"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// An id that was granted is never taken for a new one, whether it is the largest
// or not, and also after a restart, when none is remembered.
func TestGrantedIsNotNew(t *testing.T) {
	fs := vfs.NewMem()
	s := openStore(t, fs)
	grant := func(id byte) kv.Code {
		return applyTo(t, s, &kv.Command{Kind: kv.KindLeaseGrant, Lease: kv.Lease{ID: kv.LeaseID{id}, TTLMillis: 60_000}})[0].Code
	}
	defer func() { closeStore(t, s) }()
	for _, step := range []struct {
		id      byte
		restart bool
		want    kv.Code
	}{
		{id: 5}, {id: 5, want: kv.LeaseExists}, {id: 3}, {id: 3, want: kv.LeaseExists},
		{id: 5, restart: true, want: kv.LeaseExists}, {id: 3, want: kv.LeaseExists}, {id: 4}, {id: 6}, {id: 6, restart: true, want: kv.LeaseExists},
	} {
		if step.restart {
			closeStore(t, s)
			s = openStore(t, fs)
		}
		if got := grant(step.id); got != step.want {
			t.Errorf("lease %d, after a restart %v: %v, not %v", step.id, step.restart, got, step.want)
		}
	}
}
