package raftlog_test

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/cespare/xxhash/v2"
	pb "github.com/lni/dragonboat/v4/raftpb"
	"github.com/lni/vfs"
)

// chunkOf is a record in one chunk, as whoever knows the format can put it into a value.
func chunkOf(payload []byte) []byte {
	b := binary.LittleEndian.AppendUint16(make([]byte, 4), uint16(len(payload)))
	b = append(append(b, 1), payload...)
	binary.LittleEndian.PutUint32(b, uint32(xxhash.Sum64(b[6:])))
	return b
}

// TestValuesThatLookLikeRecords tears the newest record of a log, whose entry is full of
// what looks like records: those of a client are no proof of damage, and nothing that they
// hold may end the start.
func TestValuesThatLookLikeRecords(t *testing.T) {
	other := update(7, 9, 1, 10)
	other.ReplicaID = replica + 1
	encoded := make([]byte, other.SizeUpperLimit())
	n, err := other.MarshalTo(encoded)
	must(t, err)
	for name, payload := range map[string][]byte{
		"too short":            {shard, replica},
		"nothing":              {},
		"two thousand million": {shard, replica, 0, 0xff, 0xff, 0xff, 0x7f},
		"a state without end":  {shard, replica, 1, 0xff, 0xff, 0xff, 0x7f},
		"no entry":             {shard, replica, 0, 1, 0, 0, 0, 0xff, 0xff, 0, 0},
		"another replica":      encoded[:n],
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s, err := openOurs(vfs.Default, dir)
			must(t, err)
			must(t, s.bootstrap())
			must(t, s.save(update(1, 5, 1, 100)))
			before := filepath.Join(t.TempDir(), "before")
			copyDir(t, dir, before)
			u := update(6, 6, 1, 10)
			u.EntriesToSave = []pb.Entry{{Index: 6, Term: 1, Cmd: bytes.Repeat(chunkOf(payload), 20_000/(7+len(payload)))}}
			must(t, s.save(u))
			torn := filepath.Join(t.TempDir(), "torn")
			copyDir(t, dir, torn)
			must(t, s.Close())
			// The end of the record did not reach the disk, and what it is worth was not noted.
			file, earlier := glob(t, torn, "*.log"), glob(t, before, "*.log")
			begins := written(t, earlier)
			content, err := os.ReadFile(file)
			must(t, err)
			clear(content[begins+10_000:])
			must(t, os.WriteFile(file, content, 0o600))
			record, err := os.ReadFile(glob(t, before, "*.highwater"))
			must(t, err)
			must(t, os.WriteFile(glob(t, torn, "*.highwater"), record, 0o600))

			again, err := openOurs(vfs.Default, torn)
			must(t, err)
			defer func() { must(t, again.Close()) }()
			must(t, again.verify(0))
			entries, _, err := again.read()
			if err != nil || len(entries) != 5 {
				t.Errorf("%d entries, %v", len(entries), err)
			}
		})
	}
}
