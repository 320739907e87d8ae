package storage

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cairnkv/cairn/kv"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// While commands are applied, history is compacted and swept, and snapshots are
// loaded, every reader gets answers that were true at the revision that they
// name. Every even revision puts the key, every odd one deletes it.
func TestReadersMeanwhile(t *testing.T) {
	s := openStore(t, vfs.NewMem(), func(o *Options) { o.SweepBatch = 2 })
	defer func() { closeStore(t, s) }()
	key := []byte("k")
	var stop atomic.Bool
	var readers sync.WaitGroup
	read := func(name string, fn func() error) {
		readers.Go(func() {
			for !stop.Load() {
				if err := fn(); err != nil {
					t.Errorf("%s: %v", name, err)
					return
				}
			}
		})
	}
	truth := func(e *kv.Entry, found bool, revision uint64) error {
		if found != (revision%2 == 0) || found && e.ModRevision != revision {
			return fmt.Errorf("at %d: found %v, of %d", revision, found, e.ModRevision)
		}
		return nil
	}
	for range 2 {
		read("get", func() error {
			e, found, revision, err := s.Get(key)
			if err != nil {
				return err
			}
			return truth(&e, found, revision)
		})
	}
	read("view", func() error {
		v, err := s.View()
		if err != nil {
			return err
		}
		defer v.Close()
		e, found, err := v.Get(key, 0)
		if err != nil {
			return err
		}
		if err := truth(&e, found, v.Revision()); err != nil {
			return err
		}
		if e, found, err = v.Get(key, v.Compacted()); err != nil {
			return err
		} else if err := truth(&e, found, v.Compacted()); err != nil && v.Compacted() > 1 {
			return err
		}
		next := v.Compacted()
		return v.Changes(context.Background(), kv.Place{Revision: next}, nil, func(_ uint32, e *kv.Event) (bool, error) {
			if next = max(next, 2); e.Entry.ModRevision != next {
				return false, fmt.Errorf("change of %d, want %d", e.Entry.ModRevision, next)
			}
			next++
			return true, nil
		})
	})

	steps := 1_500
	if long {
		steps = 100_000
	}
	var snapshot []byte
	for i := range steps {
		current, _ := s.Revisions()
		command := "put k 1"
		if current%2 == 0 {
			command = "delete k"
		}
		run(t, s, command)
		switch {
		case i%7 == 0:
			current, _ := s.Revisions()
			run(t, s, fmt.Sprintf("compact %d", current))
		case i%300 == 10:
			snapshot = saved(t, s)
		case i%300 == 200:
			if err := s.Load(bytes.NewReader(snapshot), nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	stop.Store(true)
	readers.Wait()
	if err := CheckStore(s); err != nil {
		t.Fatal(err)
	}
}

// Who has seen a revision, in a view or by a read of one key, sees nothing older
// afterwards, whether it comes from the database or from the cache of rows.
func TestReadersSeeNothingOlder(t *testing.T) {
	s := openStore(t, vfs.NewMem(), func(o *Options) { o.CacheBytes, o.MemTableBytes = 3<<20, 1<<20 })
	defer func() { closeStore(t, s) }()
	ops := make([]kv.Op, 100)
	for i := range ops {
		ops[i] = put(fmt.Sprint("k", i), "x")
	}
	applyTo(t, s, txn(ops...))
	seen := func(v *View, key []byte) (mod uint64, err error) {
		var e kv.Entry
		if v != nil {
			e, _, err = v.Get(key, 0)
		} else {
			e, _, _, err = s.Get(key)
		}
		return e.ModRevision, err
	}
	var stop atomic.Bool
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for i := 0; !stop.Load(); i++ {
				// All of them have the same revision, so what is seen of one holds for
				// another.
				v, err := s.View()
				if err != nil {
					t.Error(err)
					return
				}
				before, err := seen(v, ops[i%len(ops)].Key)
				v.Close()
				for j := range 3 {
					mod, err2 := seen(nil, ops[(i+j)%len(ops)].Key)
					if err != nil || err2 != nil || mod < before {
						t.Errorf("revision %d is seen after %d, %v, %v", mod, before, err, err2)
						return
					}
					before = mod
				}
			}
		})
	}
	steps := 3_000
	if long {
		steps = 100_000
	}
	for range steps {
		applyTo(t, s, txn(ops...))
	}
	stop.Store(true)
	readers.Wait()
}
