package storage

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// countedFile counts the writes to a file, and fails those that go beyond room.
type countedFile struct {
	vfs.File
	writes, room int
}

func (f *countedFile) Write(p []byte) (int, error) {
	if f.writes++; f.room < len(p) {
		return 0, syscall.ENOSPC
	}
	f.room -= len(p)
	return f.File.Write(p)
}

// TestTableFile writes a table in small pieces and one that is larger than what is
// gathered: what was synced is there after a crash, and few writes were made of it.
func TestTableFile(t *testing.T) {
	fs := vfs.NewCrashableMem()
	under, err := fs.Create("t.sst", vfs.WriteCategoryUnspecified)
	noError(t, err)
	root, err := fs.OpenDir("")
	noError(t, err)
	noError(t, root.Sync())
	counted := &countedFile{File: under, room: 64 << 20}
	f := newTableFile(counted)
	rng := rand.New(rand.NewPCG(1, 1))
	var want []byte
	pieces := 0
	write := func(size int) {
		piece := make([]byte, size)
		for i := range piece {
			piece[i] = byte(rng.Uint32())
		}
		n, err := f.Write(bytes.Clone(piece))
		if err != nil || n != size {
			t.Fatalf("%d of %d bytes written: %v", n, size, err)
		}
		want = append(want, piece...)
		pieces++
	}
	for len(want) < 4<<20 {
		write(rng.IntN(9_000))
		if _, err := f.SyncTo(int64(len(want) / 2)); err != nil {
			t.Fatal(err)
		}
	}
	write(3 * tableBuffer)
	noError(t, f.SyncData())
	if most := len(want)/tableBuffer + 2; counted.writes > most {
		t.Errorf("%d writes of %d pieces, %d at the most", counted.writes, pieces, most)
	}
	write(100)
	noError(t, f.Sync())
	crashed := fs.CrashClone(vfs.CrashCloneCfg{})
	write(100) // is not synced
	noError(t, f.Close())
	check := func(fs vfs.FS, want []byte) {
		t.Helper()
		file, err := fs.Open("t.sst")
		noError(t, err)
		defer file.Close()
		have := make([]byte, len(want))
		if _, err := file.ReadAt(have, 0); err != nil || !bytes.Equal(have, want) {
			t.Errorf("the file is not what was written: %v", err)
		}
		if info, err := file.Stat(); err != nil || info.Size() != int64(len(want)) {
			t.Errorf("the file has %d bytes, not %d: %v", info.Size(), len(want), err)
		}
	}
	check(crashed, want[:len(want)-100])
	check(fs, want)
}

// TestTableFileFull fills the disk: the error comes, as it is, with a write, a sync
// or the close, whichever is first.
func TestTableFileFull(t *testing.T) {
	for _, end := range []func(*tableFile) error{(*tableFile).Sync, (*tableFile).SyncData, (*tableFile).Close} {
		under, err := vfs.NewMem().Create("t.sst", vfs.WriteCategoryUnspecified)
		noError(t, err)
		f := newTableFile(&countedFile{File: under, room: 1_000})
		if _, err := f.Write(make([]byte, 2_000)); err != nil {
			t.Fatal(err)
		}
		if err := end(f); !vfs.IsNoSpaceError(err) {
			t.Errorf("the end: %v", err)
		}
		f = newTableFile(&countedFile{File: under, room: 1_000})
		_, err = f.Write(make([]byte, tableBuffer))
		if _, again := f.Write(make([]byte, 1)); !errors.Is(errors.Join(err, again), syscall.ENOSPC) {
			t.Errorf("a write: %v, then %v", err, again)
		}
	}
}

func noError(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
