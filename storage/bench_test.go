package storage

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"github.com/cairnkv/cairn/kv"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// The benchmarks run in memory: they show what the code costs, not the disk.

func benchStore(b *testing.B, keys int) *Store {
	s := openStore(b, vfs.NewMem(), func(o *Options) { o.MemTableBytes, o.CacheBytes = 64<<20, 256<<20 })
	b.Cleanup(func() { closeStore(b, s) })
	bulk(b, s, keys, plainKey, "a value of about thirty bytes.", kv.LeaseID{})
	return s
}

// An operation is one command: a put of a new version, as it comes from the log.
func BenchmarkApplyPut(b *testing.B) {
	const keys = 10_000
	for _, size := range []int{1, 64, 512} {
		b.Run(fmt.Sprintf("batch=%d", size), func(b *testing.B) {
			s := benchStore(b, keys)
			raw := make([][]byte, keys)
			for i := range raw {
				raw[i] = kv.AppendCommand(nil, txn(put(plainKey(i), "another value, as long as it was")))
			}
			index, err := s.Applied()
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			b.ResetTimer()
			for i := 0; i < b.N; {
				batch, err := s.NewBatch()
				if err != nil {
					b.Fatal(err)
				}
				index++
				batch.BeginEntry(index, kv.LeaseID{1}, index)
				for n := 0; n < size && i < b.N; n++ {
					c, err := kv.DecodeCommand(raw[i*7919%keys])
					if err != nil {
						b.Fatal(err)
					}
					if r, err := batch.Apply(c); err != nil || r.Code != kv.OK {
						b.Fatal(r, err)
					}
					i++
				}
				batch.EndEntry()
				if _, err := batch.Commit(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkGet(b *testing.B) {
	const keys = 100_000
	s := benchStore(b, keys)
	if err := s.current.Load().db.Flush(); err != nil {
		b.Fatal(err)
	}
	names := make([][]byte, keys)
	for i := range names {
		names[i] = []byte(plainKey(i))
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		if _, found, _, err := s.Get(names[i*7919%keys]); !found || err != nil {
			b.Fatal(err)
		}
	}
}

func benchView(b *testing.B, fn func(v *View) error) {
	s := benchStore(b, 10_000)
	v, err := s.View()
	if err != nil {
		b.Fatal(err)
	}
	defer v.Close()
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		if err := fn(v); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkList1000(b *testing.B) {
	for _, keysOnly := range []bool{false, true} {
		b.Run(fmt.Sprintf("keysOnly=%v", keysOnly), func(b *testing.B) {
			benchView(b, func(v *View) error {
				_, err := v.List(context.Background(), &kv.Query{Limit: 1000, KeysOnly: keysOnly})
				return err
			})
		})
	}
}

// An operation is all 10,000 keys.
func BenchmarkCount(b *testing.B) {
	benchView(b, func(v *View) error {
		_, err := v.List(context.Background(), &kv.Query{CountOnly: true})
		return err
	})
}

func BenchmarkHash(b *testing.B) {
	benchView(b, func(v *View) error { _, err := v.Hash(context.Background(), 0); return err })
}

func BenchmarkChanges(b *testing.B) {
	benchView(b, func(v *View) error {
		return v.Changes(context.Background(), kv.Place{Revision: 2}, nil, func(uint32, *kv.Event) (bool, error) { return true, nil })
	})
}

// An operation is the renewal of one lease. Leases are granted in the order of
// their ids and renewed out of order, all of them before one again.
func BenchmarkApplyRenew(b *testing.B) {
	const leases = 100_000
	for _, c := range []struct{ entry, command int }{{1, 1}, {512, 1}, {1, 512}, {1, 10_000}} {
		b.Run(fmt.Sprintf("commands=%d/leases=%d", c.entry, c.command), func(b *testing.B) {
			s := openStore(b, vfs.NewMem(), func(o *Options) { o.MemTableBytes, o.CacheBytes = 0, 0 }) // as a node has it
			b.Cleanup(func() { closeStore(b, s) })
			var grants []*kv.Command
			for i := range leases {
				grants = append(grants, &kv.Command{Kind: kv.KindLeaseGrant, Lease: kv.Lease{ID: benchLease(i), TTLMillis: 10_000}})
			}
			index, err := s.Applied()
			if err != nil {
				b.Fatal(err)
			}
			apply := func(commands []*kv.Command) {
				batch, err := s.NewBatch()
				if err != nil {
					b.Fatal(err)
				}
				index++
				batch.BeginEntry(index, kv.LeaseID{1}, index)
				for _, c := range commands {
					if r, err := batch.Apply(c); err != nil || r.Code != kv.OK {
						b.Fatal(r, err)
					}
				}
				batch.EndEntry()
				if _, err := batch.Commit(); err != nil {
					b.Fatal(err)
				}
			}
			for part := range slices.Chunk(grants, 1000) {
				apply(part)
			}
			b.ReportAllocs()
			b.ResetTimer()
			for i := 0; i < b.N; {
				var entry []*kv.Command
				if i%50_000 < c.entry*c.command {
					entry = append(entry, &kv.Command{Kind: kv.KindClock, Clock: kv.Clock{Prev: lastClock(s), AdvanceMillis: 250}})
				}
				for range c.entry {
					renew := &kv.Command{Kind: kv.KindLeaseRenew}
					for range c.command {
						renew.Renew = append(renew.Renew, benchLease(i*7919%leases))
						i++
					}
					entry = append(entry, renew)
				}
				apply(entry)
			}
		})
	}
}

// An operation is the grant of one lease, among as many others in an entry as
// clients have under way. Ids are as a server makes them.
func BenchmarkApplyGrant(b *testing.B) {
	s := openStore(b, vfs.NewMem(), func(o *Options) { o.MemTableBytes, o.CacheBytes = 0, 0 }) // as a node has it
	b.Cleanup(func() { closeStore(b, s) })
	index, err := s.Applied()
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i := 0; i < b.N; {
		batch, err := s.NewBatch()
		if err != nil {
			b.Fatal(err)
		}
		index++
		batch.BeginEntry(index, kv.LeaseID{1}, index)
		for n := 0; n < 128 && i < b.N; n++ {
			c := &kv.Command{Kind: kv.KindLeaseGrant, Lease: kv.Lease{ID: benchLease(i), TTLMillis: 60_000}}
			if r, err := batch.Apply(c); err != nil || r.Code != kv.OK {
				b.Fatal(r, err)
			}
			i++
		}
		batch.EndEntry()
		if _, err := batch.Commit(); err != nil {
			b.Fatal(err)
		}
	}
}

func benchLease(i int) (id kv.LeaseID) {
	id[0] = 1
	binary.BigEndian.PutUint64(id[8:], uint64(i))
	return id
}

func lastClock(s *Store) uint64 {
	_, index := s.NeedsClock()
	return index
}

// An operation is the end of a lease of one key, among as many others in an entry
// as a leader has under way.
func BenchmarkApplyExpire(b *testing.B) {
	s := benchStore(b, 1)
	index, err := s.Applied()
	if err != nil {
		b.Fatal(err)
	}
	apply := func(commands ...*kv.Command) {
		batch, err := s.NewBatch()
		if err != nil {
			b.Fatal(err)
		}
		index++
		batch.BeginEntry(index, kv.LeaseID{1}, index)
		for _, c := range commands {
			if r, err := batch.Apply(c); err != nil || r.Code != kv.OK {
				b.Fatal(r, err)
			}
		}
		batch.EndEntry()
		if _, err := batch.Commit(); err != nil {
			b.Fatal(err)
		}
	}
	for i := range b.N {
		id := benchLease(i)
		apply(&kv.Command{Kind: kv.KindLeaseGrant, Lease: kv.Lease{ID: id, TTLMillis: 1000}},
			txn(kv.Op{Type: kv.OpPut, Key: []byte(plainKey(i)), Value: []byte("v"), Lease: id}))
	}
	for range 10 {
		apply(&kv.Command{Kind: kv.KindClock, Clock: kv.Clock{Prev: lastClock(s), AdvanceMillis: 500}})
	}
	b.ReportAllocs()
	b.ResetTimer()
	for ended := 0; ended < b.N; {
		due, _, err := s.DueLeases(64)
		if err != nil || len(due) == 0 {
			b.Fatal(due, err)
		}
		var entry []*kv.Command
		for _, l := range due {
			entry = append(entry, &kv.Command{Kind: kv.KindLeaseExpire, Lease: l})
		}
		apply(entry...)
		ended += len(due)
	}
}

// An operation is one command that puts a new key, read ahead with its entry: in
// the order of the keys, and in none.
func BenchmarkApplyNew(b *testing.B) {
	const size = 512
	for _, order := range []string{"sorted", "random"} {
		b.Run(order, func(b *testing.B) {
			s := benchStore(b, 100_000)
			index, err := s.Applied()
			if err != nil {
				b.Fatal(err)
			}
			names := make([]uint64, b.N)
			for i := range names {
				names[i] = uint64(i) << 20
				if order == "random" {
					names[i] = uint64(i) * 0x9e3779b97f4a7c15
				}
			}
			b.ReportAllocs()
			b.ResetTimer()
			for i := 0; i < b.N; {
				batch, err := s.NewBatch()
				if err != nil {
					b.Fatal(err)
				}
				index++
				batch.BeginEntry(index, kv.LeaseID{1}, index)
				var commands []*kv.Command
				for ; len(commands) < size && i < b.N; i++ {
					commands = append(commands, txn(put(fmt.Sprintf("new/%016x", names[i]), "a value of about thirty bytes.")))
				}
				if err := batch.Fetch(commands); err != nil {
					b.Fatal(err)
				}
				for _, c := range commands {
					if r, err := batch.Apply(c); err != nil || r.Code != kv.OK {
						b.Fatal(r, err)
					}
				}
				batch.EndEntry()
				if _, err := batch.Commit(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
