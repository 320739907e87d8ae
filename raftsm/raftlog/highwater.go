package raftlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"

	"github.com/lni/dragonboat/v4/raftio"
	"github.com/lni/vfs"
)

// The record file has two slots of slotSize bytes, which are written in turn.
// A slot is, in little-endian order:
//
//	 0  8 bytes  recordMagic
//	 8  uint64   sequence number; the valid slot with the larger one counts
//	16  uint64   number of marks
//	24  5 uint64 a mark: shard, replica, last index, term, vote
//	 …  uint32   CRC-32C of everything before it
//
// and whatever an earlier, longer record left behind it. Both slots are filled
// with zeros when the file is made: writing one later changes no metadata of
// the file system, and so costs one flush of the device and no more.
const (
	slotSize   = 64 << 10
	slotHeader = 24
	slotMark   = 40
	maxMarks   = (slotSize - slotHeader - 4) / slotMark
)

var recordMagic = [8]byte{'c', 'a', 'i', 'r', 'n', 'h', 'w', '1'}

// encodeSlot appends a slot to buf.
func encodeSlot(buf []byte, seq uint64, ms marks) []byte {
	buf = append(buf, recordMagic[:]...)
	buf = binary.LittleEndian.AppendUint64(buf, seq)
	buf = binary.LittleEndian.AppendUint64(buf, uint64(len(ms)))
	for id, m := range ms {
		for _, v := range [...]uint64{id.ShardID, id.ReplicaID, m.lastIndex, m.term, m.vote} {
			buf = binary.LittleEndian.AppendUint64(buf, v)
		}
	}
	return binary.LittleEndian.AppendUint32(buf, crc32.Checksum(buf, castagnoli))
}

// decodeSlot is the reverse; ok is false if the slot isn't whole.
func decodeSlot(b []byte) (seq uint64, ms marks, ok bool) {
	if len(b) < slotHeader || !bytes.Equal(b[:8], recordMagic[:]) {
		return 0, nil, false
	}
	seq = binary.LittleEndian.Uint64(b[8:])
	n := binary.LittleEndian.Uint64(b[16:])
	if n > maxMarks {
		return 0, nil, false
	}
	end := slotHeader + int(n)*slotMark
	if len(b) < end+4 || crc32.Checksum(b[:end], castagnoli) != binary.LittleEndian.Uint32(b[end:]) {
		return 0, nil, false
	}
	ms = make(marks, n)
	for p := b[slotHeader:end]; len(p) > 0; p = p[slotMark:] {
		u := func(i int) uint64 { return binary.LittleEndian.Uint64(p[8*i:]) }
		ms[raftio.NodeInfo{ShardID: u(0), ReplicaID: u(1)}] = mark{lastIndex: u(2), term: u(3), vote: u(4)}
	}
	return seq, ms, true
}

// recordFile is the open record. It has one user at a time.
type recordFile struct {
	name string
	file vfs.File
	seq  uint64 // of the newest slot; its parity is the slot's number
	buf  []byte
}

// openRecord opens the record in dir and gives what it says, or makes one that
// says nothing; found tells which. A file that exists and has no whole slot is
// a *RecordError.
func openRecord(fsys vfs.FS, dir string) (f *recordFile, ms marks, found bool, err error) {
	f = &recordFile{name: fsys.PathJoin(dir, RecordFile)}
	if _, err := fsys.Stat(f.name); errors.Is(err, fs.ErrNotExist) {
		return f, marks{}, false, f.create(fsys, dir)
	} else if err != nil {
		return nil, nil, false, err
	}
	// "Reuse" under its own name is how this file system opens for writing
	// without truncating.
	if f.file, err = fsys.ReuseForWrite(f.name, f.name); err != nil {
		return nil, nil, false, err
	}
	content, err := io.ReadAll(f.file)
	if err == nil && len(content) < 2*slotSize {
		err = &RecordError{File: f.name, Reason: fmt.Sprintf("it has %d bytes instead of %d", len(content), 2*slotSize)}
	}
	for i := 0; err == nil && i < 2; i++ {
		if seq, slot, ok := decodeSlot(content[i*slotSize:][:slotSize]); ok && seq > f.seq && seq%2 == uint64(i) {
			f.seq, ms = seq, slot
		}
	}
	if err == nil && ms == nil {
		err = &RecordError{File: f.name, Reason: "neither of its two slots is whole"}
	}
	if err != nil {
		return nil, nil, false, errors.Join(err, f.file.Close())
	}
	return f, ms, true, nil
}

// create makes the file under another name first, so that it is never seen
// without a whole slot.
func (f *recordFile) create(fsys vfs.FS, dir string) (err error) {
	tmp := f.name + ".tmp"
	if f.file, err = fsys.Create(tmp); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.file.Close())
		}
	}()
	if _, err = f.file.Write(make([]byte, 2*slotSize)); err != nil {
		return err
	}
	if err = f.write(marks{}); err != nil {
		return err
	}
	if err = f.file.Sync(); err != nil { // the size too, not the data alone
		return err
	}
	if err = fsys.Rename(tmp, f.name); err != nil {
		return err
	}
	return syncDir(fsys, dir)
}

// write makes ms the newest record. It is durable when write returns.
func (f *recordFile) write(ms marks) error {
	if len(ms) > maxMarks {
		return fmt.Errorf("raftlog: %d replicas on one node, at most %d fit into %s", len(ms), maxMarks, f.name)
	}
	f.buf = encodeSlot(f.buf[:0], f.seq+1, ms)
	if _, err := f.file.WriteAt(f.buf, int64((f.seq+1)%2*slotSize)); err != nil {
		return fmt.Errorf("raftlog: write %s: %w", f.name, err)
	}
	if err := syncData(f.file); err != nil {
		return fmt.Errorf("raftlog: sync %s: %w", f.name, err)
	}
	f.seq++
	return nil
}

func (f *recordFile) close() error { return f.file.Close() }

// syncDir makes the names in dir durable.
func syncDir(fsys vfs.FS, dir string) error {
	d, err := fsys.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
