package transport

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"time"
)

// After the handshake a connection carries frames:
//
//	type u8 · 3 zeros · length u32 · CRC-32C of the payload u32 · CRC-32C of the 12 bytes before it u32 · payload
//
// TLS would find damage by itself, but not all clusters have it, and a checksum
// costs less than a wrong vote.
const (
	frameHeadBytes = 16
	// maxFrameBytes bounds a frame. Dragonboat makes batches of 64 MiB, and a
	// message alone where it is larger.
	maxFrameBytes = 72 << 20
	// growBytes is by how much memory is taken ahead of what has arrived.
	growBytes = 64 << 10
	// keepBytes is the largest buffer that a connection keeps between frames.
	keepBytes = 1 << 20
	// pieceBytes must get through, one way or the other, within pieceTimeout.
	pieceBytes   = 64 << 10
	pieceTimeout = 10 * time.Second
)

type frameType byte

const (
	frameMessages frameType = 1
	frameChunk    frameType = 2
	frameAck      frameType = 3
)

var errFrame = errors.New("malformed frame")

// sealFrame fills in the head of a frame whose payload is behind it in b.
func sealFrame(b []byte, t frameType) {
	payload := b[frameHeadBytes:]
	clear(b[:frameHeadBytes])
	b[0] = byte(t)
	binary.BigEndian.PutUint32(b[4:], uint32(len(payload)))
	binary.BigEndian.PutUint32(b[8:], crc32.Checksum(payload, castagnoli))
	binary.BigEndian.PutUint32(b[12:], crc32.Checksum(b[:12], castagnoli))
}

// frameReader reads frames of one type. It keeps a buffer for the next one.
type frameReader struct {
	r     io.Reader
	want  frameType
	limit int
	// progress, if set, is called before each read that may wait: for the next
	// frame, or for the rest of one.
	progress func(within bool)
	buf      []byte
}

// next returns the payload of the next frame. It is valid until the next call.
func (f *frameReader) next() ([]byte, error) {
	var head [frameHeadBytes]byte
	f.wait(false)
	if _, err := io.ReadFull(f.r, head[:]); err != nil {
		return nil, err
	}
	if crc32.Checksum(head[:12], castagnoli) != binary.BigEndian.Uint32(head[12:]) {
		return nil, fmt.Errorf("%w: %w of a head", errFrame, errDamaged)
	}
	n := binary.BigEndian.Uint32(head[4:])
	if frameType(head[0]) != f.want || head[1]|head[2]|head[3] != 0 {
		return nil, fmt.Errorf("%w: type %d", errFrame, head[0])
	}
	if n > uint32(f.limit) {
		return nil, fmt.Errorf("%w: %d bytes", errFrame, n)
	}
	if cap(f.buf) > keepBytes {
		f.buf = nil
	}
	b := f.buf[:0]
	for left := int(n); left > 0; {
		// Memory doubles with what has come, so that it is bounded by twice that
		// and not by what was announced.
		piece := min(left, pieceBytes)
		if cap(b)-len(b) < piece {
			grown := make([]byte, len(b), len(b)+min(left, max(len(b), growBytes)))
			copy(grown, b)
			b = grown
		}
		f.wait(true)
		if _, err := io.ReadFull(f.r, b[len(b):len(b)+piece]); err != nil {
			return nil, err
		}
		b = b[:len(b)+piece]
		left -= piece
	}
	f.buf = b
	if crc32.Checksum(b, castagnoli) != binary.BigEndian.Uint32(head[8:]) {
		return nil, fmt.Errorf("%w: %w", errFrame, errDamaged)
	}
	return b, nil
}

func (f *frameReader) wait(within bool) {
	if f.progress != nil {
		f.progress(within)
	}
}

// writeFrame writes a sealed frame. Each piece of it has its own time, so that a
// slow line is not taken for a dead one.
func writeFrame(conn net.Conn, b []byte) error {
	for len(b) > 0 {
		if err := conn.SetWriteDeadline(time.Now().Add(pieceTimeout)); err != nil {
			return err
		}
		n, err := conn.Write(b[:min(len(b), pieceBytes)])
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}
