package raftlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"slices"

	"github.com/cespare/xxhash/v2"
	"github.com/lni/vfs"
)

// The files of the log store are sequences of records. A file is cut into
// blocks, a record into chunks, and no chunk crosses the end of a block:
//
//	0  uint32  checksum: the low half of the xxHash64 of type and payload
//	4  uint16  length of the payload
//	6  uint8   type
//	7  payload
//
// in little-endian order. Less than a header's room at the end of a block is
// left unused, as zeros.
const (
	blockSize   = 32 << 10
	chunkHeader = 7

	chunkFull   = 1 // a record in one chunk
	chunkFirst  = 2
	chunkMiddle = 3
	chunkLast   = 4
)

// recordReader reads the records of a file from any place in it. It only
// looks: what is damaged is for the caller to judge.
type recordReader struct {
	file  io.ReaderAt
	size  int64
	start int64  // where block begins in the file, or -1 before the first
	block []byte // what the file holds of that block
}

func newRecordReader(file vfs.File) (*recordReader, error) {
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	return &recordReader{file: file, size: info.Size(), start: -1, block: make([]byte, 0, blockSize)}, nil
}

// load makes block the one that holds offset.
func (r *recordReader) load(offset int64) error {
	start := offset / blockSize * blockSize
	if start == r.start {
		return nil
	}
	n := min(blockSize, r.size-start)
	if _, err := r.file.ReadAt(r.block[:n], start); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	r.start, r.block = start, r.block[:n]
	return nil
}

// at gives what the block holds of the chunk at offset, and where that begins.
// It is nil at the end of the file.
func (r *recordReader) at(offset int64) (b []byte, start int64, err error) {
	if blockSize-offset%blockSize < chunkHeader {
		offset += blockSize - offset%blockSize
	}
	if offset >= r.size {
		return nil, offset, nil
	}
	if err := r.load(offset); err != nil {
		return nil, 0, err
	}
	return r.block[offset-r.start:], offset, nil
}

// chunk gives the type and the payload of the whole chunk at offset, and where
// the next one begins. A type of 0 means that there is none. The payload is
// valid until the next call.
func (r *recordReader) chunk(offset int64) (typ byte, payload []byte, next int64, err error) {
	b, offset, err := r.at(offset)
	if err != nil {
		return 0, nil, 0, err
	}
	end, whole := wholeChunk(b)
	if !whole {
		return 0, nil, offset, nil
	}
	return b[6], b[chunkHeader:end], offset + int64(end), nil
}

// wholeChunk reports whether b begins with a whole chunk, and where it ends.
func wholeChunk(b []byte) (end int, whole bool) {
	if len(b) < chunkHeader {
		return 0, false
	}
	end = chunkHeader + int(binary.LittleEndian.Uint16(b[4:]))
	typ := b[6]
	return end, typ >= chunkFull && typ <= chunkLast && end <= len(b) &&
		uint32(xxhash.Sum64(b[6:end])) == binary.LittleEndian.Uint32(b)
}

// flipped reports whether the chunk at offset would be whole if one of its bits
// were the other way round. No torn write looks like that: it lacks a sector, or
// all from some place on, which was zeros before.
func (r *recordReader) flipped(offset int64) (bool, error) {
	b, offset, err := r.at(offset)
	if err != nil || len(b) < chunkHeader {
		return false, err
	}
	b = bytes.Clone(b)
	try := func(from, to int) bool {
		for i := from; i < to; i++ {
			for bit := byte(1); bit != 0; bit <<= 1 {
				b[i] ^= bit
				_, whole := wholeChunk(b)
				b[i] ^= bit
				if whole {
					return true
				}
			}
		}
		return false
	}
	if try(0, chunkHeader) {
		return true, nil
	}
	end, _ := wholeChunk(b)
	if end > len(b) || lacksSector(b[:end], offset) {
		return false, nil
	}
	return try(chunkHeader, end), nil // 32 KiB at the most, in a second at the most
}

// sectorSize is what a disk writes whole or not at all, in bytes.
const sectorSize = 512

// lacksSector reports whether what b holds of some sector is nothing but zeros.
// b begins at offset in its file.
func lacksSector(b []byte, offset int64) bool {
	for len(b) > 0 {
		n := min(len(b), int(sectorSize-offset%sectorSize))
		if !slices.ContainsFunc(b[:n], func(c byte) bool { return c != 0 }) {
			return true
		}
		b, offset = b[n:], offset+int64(n)
	}
	return false
}

// record appends to buf the payload of the record that begins at offset, and
// says where it ends. begun tells whether a record begins there at all, whole
// whether all of it is there.
func (r *recordReader) record(offset int64, buf []byte) (payload []byte, end int64, begun, whole bool, err error) {
	for first := true; ; first = false {
		typ, chunk, next, err := r.chunk(offset)
		if err != nil {
			return nil, 0, begun, false, err
		}
		if starts := typ == chunkFull || typ == chunkFirst; typ == 0 || starts != first {
			return nil, offset, begun, false, nil
		}
		begun = true
		buf = append(buf, chunk...)
		offset = next
		if typ == chunkFull || typ == chunkLast {
			return buf, offset, true, true, nil
		}
	}
}

// blank reports whether the file holds nothing but zeros from offset on.
func (r *recordReader) blank(offset int64) (bool, error) {
	for offset < r.size {
		if err := r.load(offset); err != nil {
			return false, err
		}
		for _, b := range r.block[offset-r.start:] {
			if b != 0 {
				return false, nil
			}
		}
		offset = r.start + blockSize
	}
	return true, nil
}
