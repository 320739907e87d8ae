package storage

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/cairnkv/cairn/kv"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// forge makes a snapshot of records whose checksums are right.
func forge(records []recordSample) []byte {
	var payload []byte
	for _, r := range records {
		payload = binary.AppendUvarint(payload, uint64(len(r.name)))
		payload = binary.AppendUvarint(payload, uint64(len(r.encoded)))
		payload = append(append(payload, r.name...), r.encoded...)
	}
	b := []byte(snapshotMagic)
	if len(payload) > 0 {
		b = binary.BigEndian.AppendUint32(b, uint32(len(payload)))
		b = binary.BigEndian.AppendUint32(b, crc32.Checksum(payload, castagnoli))
		b = append(b, payload...)
	}
	b = binary.BigEndian.AppendUint64(append(b, 0, 0, 0, 0), uint64(len(records)))
	sum := sha256.Sum256(payload)
	return append(b, sum[:]...)
}

// twoContents returns a store with one content and a snapshot of another.
func twoContents(t *testing.T, fs vfs.FS) (s *Store, snapshot []byte) {
	other := openStore(t, vfs.NewMem())
	defer closeStore(t, other)
	run(t, other, `put new 1; grant N 5000; put large fill:300000:x lease=N; put zero "\x00"`)
	s = openStore(t, fs)
	run(t, s, `put old 1; grant O 5000; put with-lease 1 lease=O; delete old; put old 2`)
	return s, saved(t, other)
}

// A stream that is not a whole snapshot of this format changes nothing and
// leaves nothing behind.
func TestLoadRefuses(t *testing.T) {
	fs := vfs.NewMem()
	s, snapshot := twoContents(t, fs)
	defer func() { closeStore(t, s) }()
	records, err := snapshotRecords(snapshot)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(forge([]recordSample{{"f", []byte("x")}}), forge([]recordSample{{"f", []byte("x")}})) || len(records) < 8 {
		t.Fatal("the forger doesn't work")
	}
	without := func(key string) []byte {
		return forge(slices.DeleteFunc(slices.Clone(records), func(r recordSample) bool { return r.name == key }))
	}
	with := func(key string, value []byte) []byte {
		changed := slices.Clone(records)
		for i := range changed {
			if changed[i].name == key {
				changed[i].encoded = value
			}
		}
		return forge(changed)
	}
	flip := func(at int) []byte {
		b := bytes.Clone(snapshot)
		b[(at+len(b))%len(b)] ^= 1
		return b
	}
	swapped := slices.Clone(records)
	swapped[2], swapped[3] = swapped[3], swapped[2]
	magic := len(snapshotMagic)
	stop := make(chan struct{})
	close(stop)
	errBroken := errors.New("the stream broke")
	var unknown *UnknownFormatError
	var corrupt *CorruptError

	for _, c := range []struct {
		name   string
		stream io.Reader
		stop   chan struct{}
		is     error
		as     any
	}{
		{name: "nothing", stream: bytes.NewReader(nil), is: ErrSnapshotCorrupt},
		{name: "another file", stream: strings.NewReader("cairn-snapshot 2\n and more"), is: ErrSnapshotCorrupt},
		{name: "cut in the magic", stream: bytes.NewReader(snapshot[:magic-1]), is: ErrSnapshotCorrupt},
		{name: "cut after the magic", stream: bytes.NewReader(snapshot[:magic]), is: ErrSnapshotCorrupt},
		{name: "cut in a length", stream: bytes.NewReader(snapshot[:magic+3]), is: ErrSnapshotCorrupt},
		{name: "cut in a checksum", stream: bytes.NewReader(snapshot[:magic+7]), is: ErrSnapshotCorrupt},
		{name: "cut in a block", stream: bytes.NewReader(snapshot[:len(snapshot)/2]), is: ErrSnapshotCorrupt},
		{name: "cut before the end", stream: bytes.NewReader(snapshot[:len(snapshot)-44]), is: ErrSnapshotCorrupt},
		{name: "cut in the count", stream: bytes.NewReader(snapshot[:len(snapshot)-36]), is: ErrSnapshotCorrupt},
		{name: "cut in the sum", stream: bytes.NewReader(snapshot[:len(snapshot)-1]), is: ErrSnapshotCorrupt},
		{name: "magic changed", stream: bytes.NewReader(flip(3)), is: ErrSnapshotCorrupt},
		{name: "length changed", stream: bytes.NewReader(flip(magic + 3)), is: ErrSnapshotCorrupt},
		{name: "block too long", stream: bytes.NewReader(slices.Concat(snapshot[:magic], []byte{0x7f}, snapshot[magic+1:])), is: ErrSnapshotCorrupt},
		{name: "checksum changed", stream: bytes.NewReader(flip(magic + 4)), is: ErrSnapshotCorrupt},
		{name: "record changed", stream: bytes.NewReader(flip(magic + 40)), is: ErrSnapshotCorrupt},
		{name: "count changed", stream: bytes.NewReader(flip(-33)), is: ErrSnapshotCorrupt},
		{name: "sum changed", stream: bytes.NewReader(flip(-1)), is: ErrSnapshotCorrupt},
		{name: "no records", stream: bytes.NewReader(forge(nil)), is: ErrSnapshotCorrupt},
		{name: "no state", stream: bytes.NewReader(without("s")), is: ErrSnapshotCorrupt},
		{name: "no format", stream: bytes.NewReader(without("f")), is: ErrSnapshotCorrupt},
		{name: "records out of order", stream: bytes.NewReader(forge(swapped)), is: ErrSnapshotCorrupt},
		{name: "a record twice", stream: bytes.NewReader(forge(slices.Insert(slices.Clone(records), 2, records[2]))), is: ErrSnapshotCorrupt},
		{name: "an empty key", stream: bytes.NewReader(forge(slices.Insert(slices.Clone(records), 0, recordSample{}))), is: ErrSnapshotCorrupt},
		{name: "unknown format", stream: bytes.NewReader(with("f", []byte("cairn-store 2"))), as: &unknown},
		{name: "state is garbage", stream: bytes.NewReader(with("s", []byte{0xff})), as: &corrupt},
		{name: "stopped", stream: bytes.NewReader(snapshot), stop: stop, is: ErrStopped},
		{name: "broken", stream: io.MultiReader(bytes.NewReader(snapshot[:len(snapshot)/2]), iotest.ErrReader(errBroken)), is: errBroken},
	} {
		before := mustHash(t, s)
		err := s.Load(c.stream, c.stop)
		switch {
		case err == nil:
			t.Fatalf("%s: accepted", c.name)
		case c.is != nil && !errors.Is(err, c.is):
			t.Errorf("%s: %v", c.name, err)
		case c.as != nil && !errors.As(err, c.as):
			t.Errorf("%s: %v", c.name, err)
		}
		if mustHash(t, s) != before {
			t.Fatalf("%s: the content has changed", c.name)
		}
		if names := databases(t, fs); len(names) != 1 {
			t.Errorf("%s: databases %s are left", c.name, names)
		}
		run(t, s, "put old 3")
	}
	if err := s.Load(bytes.NewReader(snapshot), nil); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(saved(t, s), snapshot) {
		t.Fatal("what was loaded is saved as something else")
	}
}

func databases(t *testing.T, fs vfs.FS) (names []string) {
	all, err := fs.List(storeDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range all {
		if strings.HasPrefix(name, "db-") {
			names = append(names, name)
		}
	}
	return names
}

// The power is lost before each operation on the disk while a snapshot is
// loaded. What is left is the old content or the new one, whole; and once Load
// has returned it is the new one.
func TestPowerLossDuringLoad(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	mem := vfs.NewCrashableMem()
	var mu sync.Mutex // of what follows: Pebble works in the background
	var disks []*vfs.MemFS
	lose := func(percent int) {
		disks = append(disks, mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rng}))
	}
	watching := false
	watch := func(on bool) {
		mu.Lock()
		defer mu.Unlock()
		watching = on
	}
	fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		mu.Lock()
		defer mu.Unlock()
		if watching && op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
			lose([]int{0, 50, 100}[rng.IntN(3)])
		}
		return nil
	}))
	s, snapshot := twoContents(t, fs)
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	before := mustHash(t, s)
	watch(true)
	if err := s.Load(bytes.NewReader(snapshot), nil); err != nil {
		t.Fatal(err)
	}
	watch(false)
	after := mustHash(t, s)
	lose(0)
	closeStore(t, s)
	found := map[[32]byte]int{}
	for i, disk := range disks {
		s := openStore(t, disk)
		sum := mustHash(t, s)
		switch {
		case sum != before && sum != after:
			t.Errorf("power lost at operation %d of %d: neither the old content nor the new", i, len(disks))
		case sum == before && i == len(disks)-1:
			t.Errorf("power lost after Load: the old content is back")
		}
		if err := CheckStore(s); err != nil {
			t.Errorf("power lost at operation %d of %d: %v", i, len(disks), err)
		}
		if names := databases(t, disk); len(names) != 1 {
			t.Errorf("databases %s are left", names)
		}
		found[sum]++
		closeStore(t, s)
	}
	if found[before] < 10 || found[after] < 2 {
		t.Errorf("%d times the old content, %d times the new: the test did not see the switch", found[before], found[after])
	}
}

// A view reads what it was opened on, whatever is loaded or closed meanwhile.
func TestViewsOutliveLoad(t *testing.T) {
	fs := vfs.NewMem()
	s, snapshot := twoContents(t, fs)
	v, err := s.View()
	if err != nil {
		t.Fatal(err)
	}
	sum, err := v.StateHash(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Load(bytes.NewReader(snapshot), nil); err != nil {
		t.Fatal(err)
	}
	run(t, s, "put newer 1; compact 5")
	if again, err := v.StateHash(context.Background()); err != nil || again != sum {
		t.Fatalf("the view has changed, %v", err)
	}
	if e, found, err := v.Get([]byte("old"), 0); err != nil || !found || string(e.Value) != "2" {
		t.Fatalf("%v %v %v", e, found, err)
	}
	if _, found, _, err := s.Get([]byte("old")); err != nil || found {
		t.Fatalf("the store still has the old content, %v", err)
	}
	if names := databases(t, fs); len(names) != 2 {
		t.Fatalf("databases %s, where one is read and one is the store", names)
	}
	v.Close()
	v.Close() // twice is once
	if names := databases(t, fs); len(names) != 1 {
		t.Fatalf("databases %s, the old one should be gone", names)
	}
	closeStore(t, s)
}

// Close waits for whoever still reads, and nobody can begin to.
func TestCloseWaits(t *testing.T) {
	s := openStore(t, vfs.NewMem())
	run(t, s, "put a 1")
	v, err := s.View()
	if err != nil {
		t.Fatal(err)
	}
	closed := make(chan error)
	go func() { closed <- s.Close() }()
	for err == nil { // until Close has begun
		var late *View
		if late, err = s.View(); err == nil {
			late.Close()
		}
	}
	if !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
	for range 1000 {
		if _, found, err := v.Get([]byte("a"), 0); !found || err != nil {
			t.Fatalf("the view lost its store: %v", err)
		}
		select {
		case <-closed:
			t.Fatal("closed under a view")
		default:
		}
	}
	v.Close()
	if err := <-closed; err != nil {
		t.Fatal(err)
	}
}

func TestClosed(t *testing.T) {
	s := openStore(t, vfs.NewMem())
	closeStore(t, s)
	closeStore(t, s)
	for name, op := range map[string]func() error{
		"view":    func() error { _, err := s.View(); return err },
		"batch":   func() error { _, err := s.NewBatch(); return err },
		"get":     func() error { _, _, _, err := s.Get([]byte("a")); return err },
		"applied": func() error { _, err := s.Applied(); return err },
		"sync":    s.Sync,
		"stats":   func() error { _, err := s.Stats(); return err },
		"metrics": func() error { _, err := s.Metrics(); return err },
		"swept":   func() error { _, err := s.Swept(); return err },
		"due":     func() error { _, _, err := s.DueLeases(1); return err },
		"load":    func() error { return s.Load(bytes.NewReader(nil), nil) },
	} {
		if err := op(); !errors.Is(err, ErrClosed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if a, b := s.Revisions(); a != 0 || b != 0 {
		t.Errorf("revisions %d, %d", a, b)
	}
}

// Open takes a directory for what its pointer says, and where that can't be it
// refuses rather than begin anew.
func TestOpenRefuses(t *testing.T) {
	pointer := func(fs vfs.FS) string { return fs.PathJoin(storeDir, pointerFile) }
	write := func(t *testing.T, fs vfs.FS, path, content string) {
		f, err := fs.Create(path, vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name   string
		damage func(t *testing.T, fs vfs.FS)
		word   string
	}{
		{"pointer is empty", func(t *testing.T, fs vfs.FS) { write(t, fs, pointer(fs), "") }, "no database"},
		{"pointer is garbage", func(t *testing.T, fs vfs.FS) { write(t, fs, pointer(fs), "\x00\x00\x00\x00") }, "no database"},
		{"pointer leads away", func(t *testing.T, fs vfs.FS) { write(t, fs, pointer(fs), "../db-000001\n") }, "no database"},
		{"pointer has more", func(t *testing.T, fs vfs.FS) { write(t, fs, pointer(fs), "db-000002\ndb-000001\n") }, "no database"},
		{"pointer to nothing", func(t *testing.T, fs vfs.FS) { write(t, fs, pointer(fs), "db-000009\n") }, "does not exist"},
		{"pointer is missing", func(t *testing.T, fs vfs.FS) {
			if err := fs.Remove(pointer(fs)); err != nil {
				t.Fatal(err)
			}
		}, "CURRENT"},
	} {
		t.Run(c.name, func(t *testing.T) {
			fs := vfs.NewMem()
			s, snapshot := twoContents(t, fs)
			if err := s.Load(bytes.NewReader(snapshot), nil); err != nil {
				t.Fatal(err)
			}
			closeStore(t, s)
			c.damage(t, fs)
			if s, err := tryOpen(fs); err == nil {
				closeStore(t, s)
				t.Fatal("opened")
			} else if !strings.Contains(err.Error(), c.word) {
				t.Fatal(err)
			}
			// Nothing was lost: with the pointer back, all is there.
			write(t, fs, pointer(fs), "db-000002\n")
			s = openStore(t, fs)
			defer closeStore(t, s)
			if !bytes.Equal(saved(t, s), snapshot) {
				t.Fatal("the content is another")
			}
		})
	}
}

// Data of a version that this one doesn't know is left alone.
func TestUnknownFormat(t *testing.T) {
	fs := vfs.NewMem()
	s := openStore(t, fs)
	run(t, s, "put a 1")
	h := s.current.Load()
	if err := h.db.Set(keyFormat, []byte("cairn-store 2"), nil); err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
	_, err := tryOpen(fs)
	var unknown *UnknownFormatError
	if !errors.As(err, &unknown) || unknown.Found != "cairn-store 2" || !strings.Contains(err.Error(), "run the version that wrote it") {
		t.Fatal(err)
	}
}

// What an interrupted Load left is removed when the store is opened.
func TestLeftoversAreRemoved(t *testing.T) {
	fs := vfs.NewMem()
	s, _ := twoContents(t, fs)
	sum := mustHash(t, s)
	closeStore(t, s)
	for _, name := range []string{"db-000002", "db-000017"} {
		dir := fs.PathJoin(storeDir, name)
		if err := fs.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if _, err := fs.Create(fs.PathJoin(dir, "load-000000.sst"), vfs.WriteCategoryUnspecified); err != nil {
			t.Fatal(err)
		}
	}
	s = openStore(t, fs)
	defer closeStore(t, s)
	if names := databases(t, fs); !slices.Equal(names, []string{"db-000001"}) || mustHash(t, s) != sum {
		t.Fatalf("databases %s", names)
	}
}

// A snapshot of many blocks and several tables is the store that it was made of.
func TestLargeSnapshot(t *testing.T) {
	s := openStore(t, vfs.NewMem(), roomy)
	defer closeStore(t, s)
	value := strings.Repeat("value ", 1000)
	for i := range 60 {
		var ops []kv.Op
		for j := range 100 {
			ops = append(ops, put(plainKey(i*100+j), value))
		}
		applyTo(t, s, txn(ops...))
	}
	snapshot := saved(t, s)
	other := openStore(t, vfs.NewMem(), roomy)
	defer closeStore(t, other)
	if err := other.Load(bytes.NewReader(snapshot), nil); err != nil {
		t.Fatal(err)
	}
	if mustHash(t, s) != mustHash(t, other) || !bytes.Equal(saved(t, other), snapshot) {
		t.Fatal("the loaded store differs")
	}
	if err := CheckStore(other); err != nil {
		t.Fatal(err)
	}
	// A saver that is stopped, or whose stream breaks, says so.
	mustView(t, s, func(v *View) {
		stop := make(chan struct{})
		close(stop)
		if err := v.Save(io.Discard, stop); !errors.Is(err, ErrStopped) {
			t.Errorf("stopped: %v", err)
		}
		errBroken := errors.New("the stream broke")
		if err := v.Save(brokenWriter{errBroken}, nil); !errors.Is(err, errBroken) {
			t.Errorf("broken: %v", err)
		}
	})
}

type brokenWriter struct{ err error }

func (w brokenWriter) Write([]byte) (int, error) { return 0, w.err }
