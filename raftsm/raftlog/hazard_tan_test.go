package raftlog_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cairnkv/cairn/raftsm/raftlog"

	"github.com/lni/vfs"
)

// sweep makes the tests of hazards try every byte, and many more rounds,
// instead of a sample.
var sweep = os.Getenv("RAFTLOG_SWEEP") != ""

// sampled says so in the output of a test that tries a sample.
func sampled(t *testing.T) {
	if !sweep {
		t.Log("a sample of what RAFTLOG_SWEEP=1 goes through")
	}
}

// image is the directory of a log that ended in one way or another, with what
// it held.
type image struct {
	dir  string
	last uint64 // the newest entry, durable and acknowledged
	size int    // of an entry's payload
}

type opener func(vfs.FS, string) (*logStore, error)

// makeImage saves entries one by one and leaves a crashed log, or a closed one.
func makeImage(t testing.TB, open opener, saves uint64, size int, crash bool) image {
	t.Helper()
	live, dead := t.TempDir(), t.TempDir()
	s, err := open(vfs.Default, live)
	must(t, err)
	must(t, s.bootstrap())
	im := image{dir: dead, last: saves, size: size}
	for i := uint64(1); i <= saves; i++ {
		must(t, s.save(update(i, i, 3, size)))
	}
	if !crash {
		must(t, s.Close())
		copyDir(t, live, dead)
		return im
	}
	copyDir(t, live, dead)
	must(t, s.Close())
	if s.log == nil {
		return im
	}
	// The record as it would be had the crash come a RecordInterval later.
	content, err := os.ReadFile(filepath.Join(live, raftlog.RecordFile))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dead, raftlog.RecordFile), content, 0o600))
	return im
}

// outcome of opening a damaged image.
type outcome int

const (
	correct   outcome = iota // everything is there
	refused                  // an error of ours
	shortened                // it starts, with less than was acknowledged
	wrong                    // it starts with something that was never saved
)

// try opens the image in dir and compares it with what was saved.
func (im image) try(t testing.TB, dir string, open opener) (result outcome, have uint64, why error) {
	t.Helper()
	defer func() {
		if p := recover(); p != nil {
			result, why = refused, errors.New("panic") // the plain store's way
		}
	}()
	s, err := open(vfs.Default, dir)
	if err != nil {
		return refused, 0, err
	}
	defer func() { _ = s.Close() }()
	if err := s.verify(0); err != nil {
		return refused, 0, err
	}
	entries, state, err := s.read()
	if err != nil {
		return refused, 0, err
	}
	for i, e := range entries {
		want := entry(uint64(i)+1, 3, im.size)
		if e.Index != want.Index || e.Term != want.Term || !bytes.Equal(e.Cmd, want.Cmd) {
			return wrong, 0, nil
		}
	}
	have = uint64(len(entries))
	if have < im.last {
		return shortened, have, nil
	}
	if state.Term != 3 || state.Vote != replica {
		return wrong, have, nil
	}
	return correct, have, nil
}

// tally counts outcomes.
type tally map[outcome]int

func (o outcome) String() string {
	return [...]string{"correct", "refused", "shortened", "wrong"}[o]
}

// flip changes one bit of a file.
func flip(t testing.TB, name string, offset int64, bit int) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	var b [1]byte
	_, err = f.ReadAt(b[:], offset)
	must(t, err)
	b[0] ^= 1 << bit
	_, err = f.WriteAt(b[:], offset)
	must(t, err)
}

// stale puts back a record from before the first entry: the crash came within
// the first RecordInterval.
func (im image) stale(t testing.TB) {
	t.Helper()
	fresh := t.TempDir()
	s, err := openOurs(vfs.Default, fresh)
	must(t, err)
	content, err := os.ReadFile(filepath.Join(fresh, raftlog.RecordFile))
	must(t, err)
	must(t, s.Close())
	must(t, os.WriteFile(filepath.Join(im.dir, raftlog.RecordFile), content, 0o600))
}

// written is how much of a log file was written before the zeros.
func written(t testing.TB, name string) int64 {
	t.Helper()
	content, err := os.ReadFile(name)
	must(t, err)
	for n := len(content); n > 0; n-- {
		if content[n-1] != 0 {
			return int64(n)
		}
	}
	t.Fatalf("%s is empty", name)
	return 0
}

// chunks gives where the chunks of a log file begin.
func chunks(t testing.TB, name string) (offsets []int64) {
	t.Helper()
	const block = 32 << 10
	content, err := os.ReadFile(name)
	must(t, err)
	for at := 0; ; {
		if block-at%block < 7 {
			at += block - at%block
		}
		if at+7 > len(content) || content[at+6] == 0 {
			return offsets
		}
		offsets = append(offsets, int64(at))
		at += 7 + int(binary.LittleEndian.Uint16(content[at+4:]))
	}
}

// spot is a bit of a file.
type spot struct {
	offset int64
	bit    int
}

// spots are the bits to flip: in a sample of the chunks, some of each field of
// the header and one of the payload; or each byte, in a sweep.
func spots(t testing.TB, name string) (at []spot) {
	starts := chunks(t, name)
	if sweep {
		for offset := range written(t, name) {
			at = append(at, spot{offset, int(offset % 8)})
		}
		return at
	}
	n := len(starts)
	for _, i := range slices.Compact([]int{0, n / 2, n - 2, n - 1}) {
		o := starts[max(i, 0)]
		at = append(at, spot{o, 3}, spot{o + 4, 0}, spot{o + 5, 7}, spot{o + 6, 0}, spot{o + 9, 5})
	}
	return at
}

// damage flips a bit of the log in a copy of the image.
func (im image) damage(t testing.TB, file string, at spot) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "damaged")
	copyDir(t, im.dir, dir)
	flip(t, glob(t, dir, file), at.offset, at.bit)
	return dir
}

// TestL3BitFlips flips bits of the log of a node that has crashed.
//
// Found by running: after a flip in the length or the type of a chunk the
// plain store starts with less than was acknowledged, down to nothing at all;
// a flip in a payload it refuses. With a record that is up to date, ours never
// starts with less, and neither with one that is older than all entries: a
// flipped bit is no torn write.
func TestL3BitFlips(t *testing.T) {
	sampled(t)
	const saves = 12
	for _, size := range []int{120, 70_000} { // within a block, and across three
		plain := makeImage(t, openPlain, saves, size, true)
		results := tally{}
		for _, at := range spots(t, glob(t, plain.dir, "*.log")) {
			result, _, _ := plain.try(t, plain.damage(t, "*.log", at), openPlain)
			results[result]++
		}
		t.Logf("entries of %d bytes, plain store: %v", size, results)
		if results[shortened] == 0 {
			t.Errorf("entries of %d bytes: the plain store has lost nothing in silence: what is ours for?", size)
		}

		im := makeImage(t, openOurs, saves, size, true)
		results = tally{}
		for _, at := range spots(t, glob(t, im.dir, "*.log")) {
			result, have, err := im.try(t, im.damage(t, "*.log", at), openOurs)
			results[result]++
			if result != refused || !errors.Is(err, raftlog.ErrLogCorrupt) && !errors.Is(err, raftlog.ErrLogTruncated) {
				t.Errorf("entries of %d bytes, %+v: %v with %d entries, error %v", size, at, result, have, err)
			}
		}
		t.Logf("entries of %d bytes, ours: %v", size, results)

		im.stale(t)
		results = tally{}
		for _, at := range spots(t, glob(t, im.dir, "*.log")) {
			result, have, err := im.try(t, im.damage(t, "*.log", at), openOurs)
			results[result]++
			if result != refused || !errors.Is(err, raftlog.ErrLogCorrupt) {
				t.Errorf("entries of %d bytes, %+v, old record: %v with %d entries, error %v", size, at, result, have, err)
			}
		}
		t.Logf("entries of %d bytes, ours with an old record: %v", size, results)
	}
}

// TestL3TornTail cuts, blanks and garbles the end of a crashed log whose
// record is old, at many places, as a power loss within the last save can.
//
// Found by running: the plain store refuses to start after some of them,
// although nothing that was synced is missing. Ours starts after each, with
// every entry of the saves before the last.
func TestL3TornTail(t *testing.T) {
	const saves, size = 6, 40_000 // the last record is in two blocks or three
	plain := makeImage(t, openPlain, saves, size, true)
	im := makeImage(t, openOurs, saves, size, true)
	im.stale(t)
	log := glob(t, im.dir, "*.log")
	starts, end := chunks(t, log), written(t, log)
	var first int64 // of the last record
	for _, o := range starts {
		content, err := os.ReadFile(log)
		must(t, err)
		if typ := content[o+6]; typ == 1 || typ == 2 {
			first = o
		}
	}
	tears := map[string]func([]byte) []byte{
		"cut":   func(tail []byte) []byte { return nil },
		"blank": func(tail []byte) []byte { return make([]byte, len(tail)) },
		"noise": func(tail []byte) []byte {
			r := rand.New(rand.NewPCG(1, 2))
			for i := range tail {
				tail[i] = byte(r.Uint32())
			}
			return tail
		},
		"hole": func(tail []byte) []byte { // the rest of one block is missing, what follows is there
			clear(tail[:min(len(tail), 4096)])
			return tail
		},
	}
	for name, tear := range tears {
		plainResults, results := tally{}, tally{}
		for i := int64(0); i <= 5; i++ {
			at := first + 1 + (end-first-2)*i/5
			apply := func(im image) string {
				dir := filepath.Join(t.TempDir(), "torn")
				copyDir(t, im.dir, dir)
				file := glob(t, dir, "*.log")
				content, err := os.ReadFile(file)
				must(t, err)
				torn := append(content[:at:at], tear(slices.Clone(content[at:end]))...)
				must(t, os.WriteFile(file, torn, 0o600))
				return dir
			}
			result, _, _ := plain.try(t, apply(plain), openPlain)
			plainResults[result]++
			result, have, err := im.try(t, apply(im), openOurs)
			results[result]++
			if (result != shortened || have != saves-1) && result != correct {
				t.Errorf("%s at %d: %v with %d entries, error %v", name, at, result, have, err)
			}
		}
		t.Logf("%s: plain store %v, ours %v", name, plainResults, results)
	}
}

// TestL4SmallFiles flips bits of all the other files: the manifest, the index,
// CURRENT and the bootstrap record, of a log that was closed and of one that
// wasn't; and of the record file itself.
//
// Found by running: after a flip in its manifest the plain store forgets the
// newest log file, starts with nothing, and deletes that file. Ours starts
// complete or not at all.
func TestL4SmallFiles(t *testing.T) {
	sampled(t)
	const saves = 8
	lost := false
	for _, crash := range []bool{true, false} {
		plain := makeImage(t, openPlain, saves, 120, crash)
		im := makeImage(t, openOurs, saves, 120, crash)
		for _, pattern := range []string{"MANIFEST-*", "CURRENT", "BOOTSTRAP-*", "*.index", raftlog.RecordFile} {
			if crash && pattern == "*.index" {
				continue // it is made by closing
			}
			plainResults, results := tally{}, tally{}
			for _, at := range smallSpots(t, glob(t, im.dir, pattern)) {
				if pattern != raftlog.RecordFile && at.offset < written(t, glob(t, plain.dir, pattern)) {
					result, _, _ := plain.try(t, plain.damage(t, pattern, at), openPlain)
					plainResults[result]++
				}
				result, have, err := im.try(t, im.damage(t, pattern, at), openOurs)
				results[result]++
				if result != refused && result != correct {
					t.Errorf("crash %v, %s, %+v: %v with %d entries, error %v", crash, pattern, at, result, have, err)
				}
			}
			lost = lost || plainResults[shortened] > 0
			t.Logf("crash %v, %s: plain store %v, ours %v", crash, pattern, plainResults, results)
		}
	}
	if !lost {
		t.Error("the plain store has lost nothing in silence: what is ours for?")
	}
}

// smallSpots are the bits to flip in a small file.
func smallSpots(t testing.TB, name string) (at []spot) {
	if filepath.Base(name) != raftlog.RecordFile && !sweep {
		return spots(t, name)
	}
	for offset := int64(0); offset < min(written(t, name), 300); offset += 7 {
		at = append(at, spot{offset, int(offset) % 8})
	}
	return at
}
