package storage

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cairnkv/cairn/kv"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestManifestFlips flips bits all over the manifest of a store as a kill leaves it,
// in each byte if CAIRN_LONG is set, and cuts it there as a torn write does. The store opens with all that
// it had, or not at all. Where only the last record was torn, and the logs that it
// stands for are still there, it opens.
//
// Few writes are one flush, whose logs are partly deleted: there Pebble alone opens
// with less than there was. Many are compactions, whose tables it misses itself.
func TestManifestFlips(t *testing.T) {
	gaps := 0
	for _, writes := range []int{400, 800, 2000} {
		t.Run(fmt.Sprint(writes, " writes"), func(t *testing.T) { gaps += flipManifest(t, writes) })
	}
	if gaps == 0 {
		t.Error("none of the damages left a gap in the logs")
	}
}

// flipManifest returns how often it was refused for a gap in the logs.
func flipManifest(t *testing.T, writes int) (gaps int) {
	small := Options{MemTableBytes: 256 << 10, CacheBytes: 1 << 20}
	dir, image := filepath.Join(t.TempDir(), "live"), filepath.Join(t.TempDir(), "image")
	s, err := Open(dir, small)
	if err != nil {
		t.Fatal(err)
	}
	manifest := ""
	for i := 0; ; i++ {
		applyTo(t, s, &kv.Command{Kind: kv.KindTxn, Txn: &kv.Txn{Then: []kv.Op{
			{Type: kv.OpPut, Key: fmt.Append(nil, "k", i%500), Value: bytes.Repeat([]byte{byte(i)}, 1000)},
		}}})
		if i == writes {
			break
		}
	}
	want := mustHash(t, s)
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	copyLive(t, dir, image)
	closeStore(t, s)
	found, err := filepath.Glob(filepath.Join(image, "db-000001", "MANIFEST-*"))
	if err != nil || len(found) != 1 {
		t.Fatal(found, err)
	}
	manifest = filepath.Base(found[0])
	good, err := os.ReadFile(found[0])
	if err != nil {
		t.Fatal(err)
	}
	opened, refused := 0, 0
	try := func(what string, b []byte) {
		t.Helper()
		copied := filepath.Join(t.TempDir(), "copy")
		if err := os.CopyFS(copied, os.DirFS(image)); err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(copied)
		if err := os.WriteFile(filepath.Join(copied, "db-000001", manifest), b, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Open(copied, small)
		if err != nil {
			refused++
			if strings.Contains(err.Error(), "has lost its end") {
				gaps++
			}
			return
		}
		defer closeStore(t, s)
		opened++
		if got := mustHash(t, s); got != want {
			t.Errorf("%s: it opens, and is not what it was", what)
		}
	}
	stride := 1 + len(good)/40
	if os.Getenv("CAIRN_LONG") != "" {
		stride = 1
	}
	for i := 0; i < len(good); i += stride {
		bent := bytes.Clone(good)
		bent[i] ^= 1 << (i % 8)
		try(fmt.Sprint("byte ", i), bent)
		if i%(4*stride) == 0 && !betweenRecords(t, good[:i]) {
			try(fmt.Sprint("cut to ", i), good[:i])
		}
	}
	try("undamaged", good)
	t.Logf("%d bytes: %d opened, %d were refused, %d of them for a gap in the logs", len(good), opened, refused, gaps)
	if opened == 0 {
		t.Error("no damage was harmless, not even none")
	}
	return gaps
}

// betweenRecords reports whether a manifest ends there well. Such a cut is no torn
// write, and nothing tells it from a manifest that never had more.
func betweenRecords(t *testing.T, manifest []byte) bool {
	t.Helper()
	name := filepath.Join(t.TempDir(), "manifest")
	if err := os.WriteFile(name, manifest, 0o600); err != nil {
		t.Fatal(err)
	}
	_, clean, err := readManifest(vfs.Default, name)
	if err != nil {
		t.Fatal(err)
	}
	return clean
}

// copyLive copies the directory of an open store that is not written to, once its
// background work has come to rest: no file came or went meanwhile.
func copyLive(t *testing.T, dir, to string) {
	t.Helper()
	names := func() string {
		found, err := filepath.Glob(filepath.Join(dir, "*", "*"))
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(found, " ")
	}
	for deadline := time.Now().Add(time.Minute); ; {
		before := names()
		err := os.CopyFS(to, os.DirFS(dir))
		if err == nil && names() == before {
			return
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) || time.Now().After(deadline) {
			t.Fatal("the store does not come to rest", err)
		}
		if err := os.RemoveAll(to); err != nil {
			t.Fatal(err)
		}
	}
}
