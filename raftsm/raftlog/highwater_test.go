package raftlog

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/lni/dragonboat/v4/raftio"
	"github.com/lni/vfs"
)

var (
	first  = raftio.NodeInfo{ShardID: 1, ReplicaID: 1}
	second = raftio.NodeInfo{ShardID: 2, ReplicaID: 7}
)

// reopen reads the record in dir as a start does.
func reopen(t *testing.T, dir string) (marks, error) {
	t.Helper()
	f, ms, found, err := openRecord(vfs.Default, dir)
	if err != nil {
		return nil, err
	}
	if !found {
		t.Fatal("the record is missing")
	}
	return ms, f.close()
}

func newRecord(t *testing.T, dir string) *recordFile {
	t.Helper()
	f, ms, found, err := openRecord(vfs.Default, dir)
	if err != nil || found || len(ms) != 0 {
		t.Fatalf("a new record: %v, found %v, error %v", ms, found, err)
	}
	return f
}

func TestRecordIsReadBack(t *testing.T) {
	dir := t.TempDir()
	f := newRecord(t, dir)
	var want marks
	for i := uint64(0); i < 5; i++ {
		want = marks{
			first:  {lastIndex: 10 * i, term: i + 1, vote: 3},
			second: {lastIndex: 1<<63 + i, term: 9},
		}
		if err := f.write(want); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.close(); err != nil {
		t.Fatal(err)
	}
	if got, err := reopen(t, dir); err != nil || !maps.Equal(got, want) {
		t.Fatalf("got %v, error %v, want %v", got, err, want)
	}
}

// TestTornRecord cuts the newest write short at every byte: the one before it
// counts then. Damage to both is an error, and so is a file of another size.
func TestTornRecord(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, RecordFile)
	f := newRecord(t, dir)
	older := marks{first: {lastIndex: 10, term: 1, vote: 1}}
	newer := marks{first: {lastIndex: 99, term: 2, vote: 3}, second: {lastIndex: 4, term: 1}}
	for _, ms := range []marks{older, newer} {
		if err := f.write(ms); err != nil {
			t.Fatal(err)
		}
	}
	slot, length := int(f.seq%2)*slotSize, len(f.buf)
	if err := f.close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	restore := func(damage func([]byte) []byte) (marks, error) {
		t.Helper()
		if err := os.WriteFile(name, damage(append([]byte{}, whole...)), 0o600); err != nil {
			t.Fatal(err)
		}
		return reopen(t, dir)
	}
	for n := range length {
		got, err := restore(func(b []byte) []byte { clear(b[slot+n : slot+length]); return b })
		if want := whole[slot+n : slot+length]; allZero(want) {
			continue // nothing was cut off
		}
		if err != nil || !maps.Equal(got, older) {
			t.Fatalf("cut at byte %d: got %v, error %v", n, got, err)
		}
	}
	for what, damage := range map[string]func([]byte) []byte{
		"both slots": func(b []byte) []byte { b[30] ^= 1; b[slotSize+30] ^= 1; return b },
		"cut":        func(b []byte) []byte { return b[:slotSize+100] },
		"empty":      func([]byte) []byte { return nil },
	} {
		if _, err := restore(damage); !errors.Is(err, ErrRecordUnusable) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func allZero(b []byte) bool {
	for _, v := range b {
		if v != 0 {
			return false
		}
	}
	return true
}

// TestLowerComesFirst looks at the file at the moment that counts: after lower
// and before the log is changed.
func TestLowerComesFirst(t *testing.T) {
	dir := t.TempDir()
	r := newRecorder(newRecord(t, dir), marks{}, RecordInterval)
	if err := r.note(first, mark{lastIndex: 110, term: 1, vote: 2}); err != nil {
		t.Fatal(err)
	}
	if err := r.write(); err != nil {
		t.Fatal(err)
	}
	onDisk := func() mark {
		t.Helper()
		ms, err := reopen(t, dir)
		if err != nil {
			t.Fatal(err)
		}
		return ms[first]
	}
	if got := onDisk(); got.lastIndex != 110 {
		t.Fatalf("recorded %+v", got)
	}
	// A longer log needs no lowering, a shorter one does.
	if err := r.lower(first, mark{lastIndex: 112}); err != nil || onDisk().lastIndex != 110 {
		t.Fatalf("recorded %+v, error %v", onDisk(), err)
	}
	if err := r.lower(first, mark{lastIndex: 104}); err != nil {
		t.Fatal(err)
	}
	if got, want := onDisk(), (mark{lastIndex: 104, term: 1, vote: 2}); got != want {
		t.Fatalf("recorded %+v, want %+v", got, want)
	}
	// What was noted and isn't written yet is lowered as well, whenever the
	// goroutine comes to it.
	if err := r.note(second, mark{lastIndex: 96, term: 1}); err != nil {
		t.Fatal(err)
	}
	if err := r.lower(second, mark{lastIndex: 94}); err != nil {
		t.Fatal(err)
	}
	if err := r.write(); err != nil {
		t.Fatal(err)
	}
	if ms, err := reopen(t, dir); err != nil || ms[second].lastIndex != 94 {
		t.Fatalf("recorded %+v, error %v", ms[second], err)
	}
	if err := r.forget(first); err != nil || onDisk() != (mark{}) {
		t.Fatalf("recorded %+v, error %v", onDisk(), err)
	}
	if err := r.close(); err != nil {
		t.Fatal(err)
	}
}

// TestFailedRecordStopsTheLog makes a write of the record fail: the next save
// must fail, too, and no later one may succeed.
func TestFailedRecordStopsTheLog(t *testing.T) {
	dir := t.TempDir()
	f := newRecord(t, dir)
	r := newRecorder(f, marks{}, RecordInterval)
	if err := f.close(); err != nil { // every write fails from now on
		t.Fatal(err)
	}
	if err := r.note(first, mark{lastIndex: 1}); err != nil {
		t.Fatal(err)
	}
	<-r.done // the goroutine gives up at the first failure
	for i := uint64(2); i < 4; i++ {
		if r.note(first, mark{lastIndex: i}) == nil {
			t.Errorf("mark %d was taken", i)
		}
		if r.lower(first, mark{lastIndex: 0}) == nil {
			t.Errorf("the record was lowered")
		}
	}
	if r.close() == nil {
		t.Error("closed without an error")
	}
}

// TestTooManyReplicas fills a slot to its end, and beyond.
func TestTooManyReplicas(t *testing.T) {
	dir := t.TempDir()
	f := newRecord(t, dir)
	ms := marks{}
	for i := range uint64(maxMarks) {
		ms[raftio.NodeInfo{ShardID: i, ReplicaID: 1}] = mark{lastIndex: i}
	}
	if err := f.write(ms); err != nil {
		t.Fatal(err)
	}
	ms[first] = mark{lastIndex: 1}
	ms[second] = mark{lastIndex: 1}
	if f.write(ms) == nil {
		t.Error("more marks than a slot holds were written")
	}
	if err := f.close(); err != nil {
		t.Fatal(err)
	}
	if got, err := reopen(t, dir); err != nil || len(got) != maxMarks {
		t.Fatalf("%d marks, error %v", len(got), err)
	}
}
