package raftsm

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/lni/vfs"
	"golang.org/x/sys/unix"
)

// TestArrivingFS appends to a file as Dragonboat does with the chunks of a
// snapshot. After each of them, none of it waits in memory to be written.
func TestArrivingFS(t *testing.T) {
	name := filepath.Join(t.TempDir(), "snapshot")
	must(t, os.WriteFile(name, nil, 0o600))
	fs := arrivingFS{vfs.Default}
	chunk := bytes.Repeat([]byte("chunk"), 400_000)
	for n := 1; n <= 4; n++ {
		f, err := fs.OpenForAppend(name)
		must(t, err)
		if _, err := f.Write(chunk); err != nil {
			t.Fatal(err)
		}
		must(t, f.Close())
		if dirty, cached := inMemory(t, name); dirty != 0 || cached == 0 {
			t.Errorf("after chunk %d, %d of %d pages in memory are not written", n, dirty, cached)
		}
	}
	got, err := os.ReadFile(name)
	must(t, err)
	if !bytes.Equal(got, bytes.Repeat(chunk, 4)) {
		t.Errorf("the file has %d bytes, or others", len(got))
	}
}

// inMemory returns how many pages of a file the kernel has in memory, and how many
// of them it has yet to write.
func inMemory(t *testing.T, name string) (dirty, cached uint64) {
	t.Helper()
	f, err := os.Open(name)
	must(t, err)
	defer f.Close()
	var stat unix.Cachestat_t
	err = unix.Cachestat(uint(f.Fd()), &unix.CachestatRange{}, &stat, 0)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EOPNOTSUPP) {
		t.Skipf("SKIPPED: the kernel does not tell what it has in memory: %v", err)
	}
	must(t, err)
	return stat.Dirty + stat.Writeback, stat.Cache
}
