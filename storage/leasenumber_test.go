package storage

import (
	"encoding/binary"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/cairnkv/cairn/kv"
)

// TestLeaseNumbersOfOneMillisecond grants leases whose ids have the same time and end
// alike, as their clients may choose them. Each finds its number with the second look
// at the latest, however many there are.
func TestLeaseNumbersOfOneMillisecond(t *testing.T) {
	s := openStore(t, vfs.NewMem())
	defer closeStore(t, s)
	const many = 5_000
	var grants []*kv.Command
	for i := range uint64(many) {
		id := kv.LeaseID{5: 1}
		binary.BigEndian.PutUint64(id[6:], i)
		grants = append(grants, &kv.Command{Kind: kv.KindLeaseGrant, Lease: kv.Lease{ID: id, TTLMillis: 60_000}})
	}
	numbers := map[int64]bool{}
	for i, r := range applyTo(t, s, grants...) {
		got, id := r.Leases[0].Number, grants[i].Lease.ID
		if got != numberOf(id, 0) && got != numberOf(id, 1) {
			t.Fatalf("lease %d has the number %d, which was not among the first two", i, got)
		}
		if numbers[got] || got <= 0 {
			t.Fatalf("lease %d has the number %d, which is another's or none", i, got)
		}
		numbers[got] = true
	}
}
