package raftsm

import (
	"encoding/binary"
	"fmt"

	"github.com/cairnkv/cairn/kv"
	"github.com/cairnkv/cairn/raftsm/raftlog"
	"github.com/oklog/ulid/v2"
)

// A Raft entry is, behind the seal of package raftlog:
//
//	format u8 · incarnation 16 · seq uvarint · count uvarint · (length uvarint · command)*
const entryFormat = 1

// maxHeaderBytes is the most that an entry has before its commands.
const maxHeaderBytes = raftlog.SealSize + 1 + 16 + 2*binary.MaxVarintLen64

// appendEntry appends a sealed entry to b, which must be empty.
func appendEntry(b []byte, incarnation ulid.ULID, seq uint64, commands []*pending) []byte {
	b = append(b, make([]byte, raftlog.SealSize)...)
	b = append(b, entryFormat)
	b = append(b, incarnation[:]...)
	b = binary.AppendUvarint(b, seq)
	b = binary.AppendUvarint(b, uint64(len(commands)))
	for _, p := range commands {
		b = binary.AppendUvarint(b, uint64(len(p.encoded)))
		b = append(b, p.encoded...)
	}
	raftlog.SealEntry(b)
	return b
}

// entryReader walks the commands of an entry.
type entryReader struct {
	incarnation ulid.ULID
	seq         uint64
	count       int
	rest        []byte
}

func openEntry(index uint64, b []byte) (entryReader, error) {
	var r entryReader
	b, err := raftlog.OpenEntry(index, b)
	if err != nil {
		return r, err
	}
	if len(b) < 1+16 || b[0] != entryFormat {
		return r, fmt.Errorf("raftsm: entry %d is of an unknown format; run a newer version of Cairn on this member", index)
	}
	copy(r.incarnation[:], b[1:17])
	b = b[17:]
	seq, n := binary.Uvarint(b)
	if n <= 0 {
		return r, fmt.Errorf("raftsm: entry %d is malformed", index)
	}
	count, m := binary.Uvarint(b[n:])
	if m <= 0 || count > uint64(len(b)) {
		return r, fmt.Errorf("raftsm: entry %d is malformed", index)
	}
	r.seq, r.count, r.rest = seq, int(count), b[n+m:]
	return r, nil
}

// next decodes the next command, which aliases the entry.
func (r *entryReader) next() (*kv.Command, error) {
	size, n := binary.Uvarint(r.rest)
	if n <= 0 || size > uint64(len(r.rest)-n) {
		return nil, fmt.Errorf("%w: entry is cut short", kv.ErrMalformed)
	}
	c, err := kv.DecodeCommand(r.rest[n : n+int(size)])
	r.rest = r.rest[n+int(size):]
	return c, err
}
