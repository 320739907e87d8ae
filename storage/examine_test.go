package storage

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/cairnkv/cairn/kv"
)

// onDisk opens a store in the system's files, where Examine looks.
func onDisk(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(dir, Options{CacheBytes: 1 << 20, Fatal: func(err error) { t.Error(err) }})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestExamineLeftovers has a process be killed while it wrote tables: what it left of
// them is in the directory, the database has none of it, and the next start removes it.
func TestExamineLeftovers(t *testing.T) {
	dir := t.TempDir()
	s := onDisk(t, dir)
	a := applier{store: s}
	put := &kv.Command{Kind: kv.KindTxn, Txn: &kv.Txn{Then: []kv.Op{{Type: kv.OpPut, Key: []byte("k"), Value: []byte("v")}}}}
	if err := a.apply([]logEntry{{index: 1, incarnation: kv.LeaseID{1}, seq: 1, commands: [][]byte{kv.AppendCommand(nil, put)}}}); err != nil {
		t.Fatal(err)
	}
	if err := s.Flush(context.Background()); err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
	found, err := filepath.Glob(filepath.Join(dir, "db-*", "*.sst"))
	if err != nil || len(found) == 0 {
		t.Fatalf("tables: %q, %v", found, err)
	}
	whole, err := os.ReadFile(found[0])
	if err != nil {
		t.Fatal(err)
	}
	before, err := Examine(context.Background(), dir)
	if err != nil || before.Tables != len(found) || before.Leftovers != 0 {
		t.Fatalf("found %+v, %v", before, err)
	}
	left := map[string][]byte{"000901.sst": nil, "000902.sst": whole[:len(whole)/2], "000903.sst": whole}
	for name, content := range left {
		if err := os.WriteFile(filepath.Join(filepath.Dir(found[0]), name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	after, err := Examine(context.Background(), dir)
	if err != nil || after.Leftovers != len(left) || after.Tables != before.Tables || after.Bytes != before.Bytes || after.Hash != before.Hash {
		t.Errorf("with what a kill left: %+v, %v; without: %+v", after, err, before)
	}
	closeStore(t, onDisk(t, dir))
	again, err := Examine(context.Background(), dir)
	if err != nil || again.Leftovers != 0 || again.Hash != before.Hash {
		t.Errorf("after a start: %+v, %v", again, err)
	}
	// A table that the database has is another matter.
	if found, err = filepath.Glob(filepath.Join(dir, "db-*", "*.sst")); err != nil || len(found) == 0 {
		t.Fatalf("tables: %q, %v", found, err)
	}
	if err := os.Truncate(found[0], 10); err != nil {
		t.Fatal(err)
	}
	if x, err := Examine(context.Background(), dir); err == nil {
		t.Errorf("a table is cut: %+v", x)
	}
}

// TestExamineFirstStart ends the very first start before each of its operations on the
// disk, by a kill and by a loss of power. Nothing is wrong with what that leaves: the
// next start completes it.
func TestExamineFirstStart(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	crashable := vfs.NewCrashableMem()
	var left []*vfs.MemFS
	var one sync.Mutex // Pebble has operations under way at the same time
	s := openStore(t, errorfs.Wrap(crashable, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsRead {
			return nil
		}
		one.Lock()
		defer one.Unlock()
		for _, kept := range []int{100, 0} {
			left = append(left, crashable.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: kept, RNG: rng}))
		}
		return nil
	})))
	closeStore(t, s)
	for i, fs := range left {
		if _, err := fs.Stat(storeDir); err != nil {
			continue // the directory was not even made
		}
		x, err := examine(context.Background(), fs, storeDir)
		if err != nil || x.Stats.Revision > 1 {
			t.Errorf("end %d: %+v, %v", i, x, err)
		}
		closeStore(t, openStore(t, fs))
		if x, err := examine(context.Background(), fs, storeDir); err != nil || x.Database == "" || x.Stats.Revision != 1 {
			t.Errorf("end %d, and started again: %+v, %v", i, x, err)
		}
	}
}
