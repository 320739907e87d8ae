package raftlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/lni/dragonboat/v4/raftio"
	pb "github.com/lni/dragonboat/v4/raftpb"
	"github.com/lni/vfs"
)

// The log store's directory has one directory a replica, and in it:
//
//	CURRENT          the name of the manifest in use
//	MANIFEST-000002  which log files there are, a record a change
//	000003.log       the log, a record a save
//	000003.index     where in it is what; made when the log file is finished
//
// A log file without an index is the one that was being written to when the
// process ended without closing the store.
const tanDir = "tandb"

// inspect looks at the files of every replica before the log store does.
//
// The store takes damage in the newest log file, and in the manifest, for the
// place where the power went: it forgets all that follows, without a word, or
// refuses to start although nothing was lost, depending on which byte it is.
// inspect tells the two apart, as far as the file itself shows it. A record is
// written only after the one before it was synced, if that held entries. So
// damage before a record with entries that is itself followed by another
// record can't come from a crash, and neither can a single bit that is flipped;
// both are given as a *CorruptError. Otherwise
// the file is cut after its last whole record, and the store finds a clean
// end. What was cut off there, and had been durable, is for the record file to
// tell.
//
// The errors are those of single replicas, which must not be started then.
func inspect(fsys vfs.FS, dir string) (map[raftio.NodeInfo]error, error) {
	root := fsys.PathJoin(dir, tanDir)
	names, err := fsys.List(root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	bad := make(map[raftio.NodeInfo]error)
	for _, name := range names {
		var id raftio.NodeInfo
		if n, _ := fmt.Sscanf(name, "node-%d-%d", &id.ShardID, &id.ReplicaID); n != 2 {
			continue
		}
		if err := inspectReplica(fsys, fsys.PathJoin(root, name), id); err != nil {
			bad[id] = err
		}
	}
	return bad, nil
}

func inspectReplica(fsys vfs.FS, dir string, id raftio.NodeInfo) error {
	names, err := fsys.List(dir)
	if err != nil {
		return err
	}
	known, manifest, err := inspectManifest(fsys, dir)
	if err != nil {
		return err
	}
	cuts := []fileScan{manifest}
	for _, name := range names {
		number, isLog := strings.CutSuffix(name, ".log")
		if !isLog || slices.Contains(names, number+".index") {
			continue
		}
		name = fsys.PathJoin(dir, name)
		scan, err := inspectLog(fsys, name, id)
		if err != nil {
			return err
		}
		cuts = append(cuts, scan)
		// The manifest knows a log file before its first record is written. One
		// that it doesn't know has been taken out of it, and is deleted by the
		// next start, or the manifest has lost its end.
		var n uint64
		if _, err := fmt.Sscanf(number, "%d", &n); err == nil && scan.records > 0 && n > known {
			return &CorruptError{File: manifest.name, Offset: manifest.end, Reason: fmt.Sprintf("it has lost log file %s, which holds %d records", name, scan.records)}
		}
	}
	for _, scan := range cuts { // only now: a replica that is refused stays as it was found
		if scan.name == "" {
			continue
		}
		if err := settle(fsys, scan); err != nil {
			return err
		}
	}
	return nil
}

// fileScan is what a file of records was found to be.
type fileScan struct {
	name    string
	size    int64
	records int   // that are whole, from its beginning
	end     int64 // of them
}

// inspectLog scans a log file of a replica.
//
// What looks like a record behind the damage may be the value of a client, which lies in the
// record that is damaged as it was given. So it counts only if it is one that this replica
// would have saved, and it is taken for anything at all only with care.
func inspectLog(fsys vfs.FS, name string, id raftio.NodeInfo) (fileScan, error) {
	synced := false
	return inspectFile(fsys, name, nil, func(payload []byte) (proof bool) {
		if payload == nil { // only begun
			return synced
		}
		u, ok := decodeSave(payload)
		if !ok || u.ShardID != id.ShardID || u.ReplicaID != id.ReplicaID {
			return false
		}
		proof = synced
		synced = synced || follow(u.EntriesToSave)
		return proof
	})
}

// follow reports whether there are entries, one behind the other.
func follow(entries []pb.Entry) bool {
	for i := range entries {
		if entries[i].Index == 0 || entries[i].Term == 0 || i > 0 && entries[i].Index != entries[i-1].Index+1 {
			return false
		}
	}
	return len(entries) > 0
}

// decodeSave decodes what may be a save, or anything. Dragonboat's decoder trusts what it
// is given: it makes room for as many entries as are announced, and panics at the end of
// what is too short.
func decodeSave(b []byte) (u pb.Update, ok bool) {
	defer func() {
		if recover() != nil {
			ok = false
		}
	}()
	if !roomForEntries(b) {
		return u, false
	}
	return u, u.Unmarshal(b) == nil
}

// roomForEntries reports whether so many entries can be in a save as it announces: behind
// shard and replica, and a state if there is one, their number, and each with its length.
func roomForEntries(b []byte) bool {
	for range 2 {
		_, n := binary.Uvarint(b)
		if n <= 0 {
			return false
		}
		b = b[n:]
	}
	if len(b) < 1 {
		return false
	}
	hasState := b[0] != 0
	b = b[1:]
	if hasState {
		if len(b) < 4 {
			return false
		}
		n := uint64(binary.LittleEndian.Uint32(b))
		if b = b[4:]; n > uint64(len(b)) {
			return false
		}
		b = b[n:]
	}
	return len(b) >= 4 && uint64(binary.LittleEndian.Uint32(b)) <= uint64(len(b)-4)/4
}

// inspectManifest scans the manifest and gives the number of the newest log
// file that it knows.
func inspectManifest(fsys vfs.FS, dir string) (newest uint64, scan fileScan, err error) {
	current, err := readFile(fsys, fsys.PathJoin(dir, "CURRENT"))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, fileScan{}, nil // nothing was ever saved here
	}
	if err != nil {
		return 0, fileScan{}, err
	}
	// CURRENT holds one record with the name and a line feed. The store
	// refuses one that is damaged, with a reason of its own.
	i := strings.Index(string(current), "MANIFEST-")
	if i < 0 || !strings.HasSuffix(string(current), "\n") {
		return 0, fileScan{}, &CorruptError{File: fsys.PathJoin(dir, "CURRENT"), Reason: "it names no manifest"}
	}
	name := fsys.PathJoin(dir, strings.TrimSpace(string(current[i:])))
	scan, err = inspectFile(fsys, name, func(payload []byte) {
		newest = max(newest, newestInEdit(payload))
	}, func([]byte) bool { return true }) // every record of a manifest is synced
	if errors.Is(err, fs.ErrNotExist) {
		err = &CorruptError{File: name, Offset: -1, Reason: "the manifest is missing", Err: err}
	}
	return newest, scan, err
}

// newestInEdit gives the largest number of a log file that a record of the
// manifest adds or removes: pairs of a tag and a number.
func newestInEdit(b []byte) (newest uint64) {
	const nextFileNumber = 1
	for len(b) > 0 {
		tag, n := binary.Uvarint(b)
		if n <= 0 {
			return newest
		}
		number, k := binary.Uvarint(b[n:])
		if k <= 0 {
			return newest
		}
		if tag != nextFileNumber {
			newest = max(newest, number)
		}
		b = b[n+k:]
	}
	return newest
}

// inspectFile scans a file and calls visit with each whole record at its
// beginning. If there is damage, later is called with each record after it
// that is whole, or with nil for one that is only begun, until it reports that
// the damage can't come from a crash.
func inspectFile(fsys vfs.FS, name string, visit func([]byte), later func([]byte) (proof bool)) (scan fileScan, err error) {
	file, err := fsys.Open(name)
	if err != nil {
		return fileScan{}, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	r, err := newRecordReader(file)
	if err != nil {
		return fileScan{}, err
	}
	scan = fileScan{name: name, size: r.size}
	var buf []byte
	for {
		payload, stop, _, whole, err := r.record(scan.end, buf[:0])
		if err != nil {
			return scan, err
		}
		if !whole {
			proof, err := laterRecords(r, stop, buf, later)
			if err == nil && proof {
				err = &CorruptError{File: name, Offset: scan.end, Reason: "a record is damaged, and later ones are whole"}
			}
			if err != nil {
				return scan, err
			}
			flipped, err := r.flipped(stop)
			if err == nil && flipped {
				err = &CorruptError{File: name, Offset: stop, Reason: "a bit of a record is flipped"}
			}
			return scan, err
		}
		buf, scan.end = payload, stop
		scan.records++
		if visit != nil {
			visit(payload)
		}
	}
}

// laterRecords looks for records after the damage at offset, byte by byte
// since nothing says where they begin.
func laterRecords(r *recordReader, offset int64, buf []byte, later func([]byte) bool) (bool, error) {
	if blank, err := r.blank(offset); blank || err != nil {
		return false, err
	}
	for offset++; offset < r.size; {
		payload, end, begun, whole, err := r.record(offset, buf[:0])
		if err != nil {
			return false, err
		}
		switch {
		case whole:
			buf = payload
			if payload == nil {
				payload = []byte{}
			}
			offset = end
		case begun:
			payload = nil
			offset = max(end, offset+1)
		default:
			offset++
			continue
		}
		if later(payload) {
			return true, nil
		}
	}
	return false, nil
}

// settle cuts a file after its whole records and makes them durable. If the
// process was killed and the machine went on, the last of them may have been
// written and not synced; the replica is about to answer for them.
func settle(fsys vfs.FS, scan fileScan) error {
	file, err := fsys.ReuseForWrite(scan.name, scan.name)
	if err != nil {
		return err
	}
	if scan.end < scan.size {
		t, ok := file.(truncater)
		if !ok {
			return errors.Join(fmt.Errorf("raftlog: %s: this file system can't truncate", scan.name), file.Close())
		}
		if err := t.Truncate(scan.end); err != nil {
			return errors.Join(err, file.Close())
		}
	}
	return errors.Join(file.Sync(), file.Close())
}

func readFile(fsys vfs.FS, name string) ([]byte, error) {
	file, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(file)
	return content, errors.Join(err, file.Close())
}
