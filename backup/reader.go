package backup

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/cairnkv/cairn/kv"
)

// Reader reads a backup and checks it on the way.
type Reader struct {
	r    *timed
	zstd *zstd.Decoder
	info Info
	// got counts what came, and must be what the trailer says.
	got          Trailer
	sum, content hash.Hash
	stored       []byte
	block        []byte
	record       []byte
	lastKey      []byte
	lastLease    kv.LeaseID
	// open are the leases with the keys of theirs that have not come.
	open map[kv.LeaseID]held
	err  error // the end, or what was wrong
}

// timed is a reader, with the time that was waited for what it gave.
type timed struct {
	r      io.Reader
	waited time.Duration
}

// Read implements io.Reader.
func (t *timed) Read(p []byte) (int, error) {
	began := time.Now()
	n, err := t.r.Read(p)
	t.waited += time.Since(began)
	return n, err
}

// held counts the keys that a lease holds, and their bytes.
type held struct {
	keys, bytes uint64
}

// NewReader reads the beginning of a file. Close the reader.
func NewReader(r io.Reader) (*Reader, error) {
	z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxBlockBytes))
	if err != nil {
		return nil, err
	}
	b := &Reader{r: &timed{r: r}, zstd: z, sum: sha256.New(), content: sha256.New(), open: map[kv.LeaseID]held{}}
	if err := b.begin(); err != nil {
		b.Close()
		return nil, err
	}
	return b, nil
}

// Close frees what the reader holds.
func (b *Reader) Close() { b.zstd.Close() }

// Info is what the whole file says. It is complete once Next has returned
// io.EOF.
func (b *Reader) Info() Info { return b.info }

func (b *Reader) begin() error {
	head := make([]byte, len(magic))
	if n, err := io.ReadFull(b.r, head); err != nil && !short(err) {
		return err
	} else if string(head) != magic {
		if name, _, ok := bytes.Cut(head[:n], []byte(" ")); ok && string(name) == "cairn-backup" {
			return &DamagedError{Reason: "its form is one that this version of Cairn does not know"}
		}
		return &DamagedError{Reason: "it does not begin as a backup of Cairn"}
	}
	b.sum.Write(head)
	b.info.Size = int64(len(head))
	kind, payload, err := b.frame()
	if err != nil {
		return err
	}
	if kind != frameHeader {
		return b.damaged("there is no header")
	}
	if err := b.text(payload, &b.info.Header); err != nil {
		return err
	}
	if h := &b.info.Header; h.Revision == 0 || h.Revision > kv.MaxRevision {
		return b.damaged("revision %d", h.Revision)
	}
	return nil
}

// text decodes a header or a trailer, which says what this version knows and
// nothing else.
func (b *Reader) text(payload []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(payload))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil || d.More() {
		return b.damaged("a header or trailer that can't be read")
	}
	return nil
}

// damaged says what is wrong with what was read last.
func (b *Reader) damaged(format string, args ...any) error {
	e := &DamagedError{Offset: b.info.Size, Reason: fmt.Sprintf(format, args...)}
	if b.got.Blocks > 0 {
		e.Block = b.got.Blocks
	}
	return e
}

func short(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }

// read fills p.
func (b *Reader) read(p []byte) error {
	n, err := io.ReadFull(b.r, p)
	b.info.Size += int64(n)
	if err != nil && short(err) {
		return &DamagedError{Offset: b.info.Size, Reason: "it ends here, which is too early: it was cut, or never finished"}
	}
	return err
}

// frame reads a frame and checks its sum. The payload is valid until the next
// one.
func (b *Reader) frame() (kind byte, payload []byte, err error) {
	var head [frameHeadBytes]byte
	if err := b.read(head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n > maxStoredBytes {
		return 0, nil, b.damaged("a frame of %d bytes", n)
	}
	if uint32(cap(b.stored)) < n {
		b.stored = make([]byte, n)
	}
	payload = b.stored[:n]
	if err := b.read(payload); err != nil {
		return 0, nil, err
	}
	if frameSum(head[:5], payload) != binary.BigEndian.Uint32(head[5:]) {
		return 0, nil, b.damaged("a checksum is wrong")
	}
	if head[0] != frameBlock && n > maxTextBytes {
		return 0, nil, b.damaged("a header or trailer of %d bytes", n)
	}
	b.sum.Write(head[:])
	b.sum.Write(payload)
	return head[0], payload, nil
}

// Next returns the content of the next block, for kv.WalkBackup. It is valid
// until the next call. After the last one, and if all of the file was right, the
// error is io.EOF.
func (b *Reader) Next() ([]byte, error) {
	if b.err != nil {
		return nil, b.err
	}
	block, err := b.next()
	b.err = err
	return block, err
}

func (b *Reader) next() ([]byte, error) {
	kind, payload, err := b.frame()
	if err != nil {
		return nil, err
	}
	switch kind {
	case frameBlock:
		b.got.Blocks++
		b.block, err = b.zstd.DecodeAll(payload, b.block[:0])
		if err != nil || len(b.block) > maxBlockBytes {
			return nil, b.damaged("it can't be unpacked")
		}
		return b.block, b.checkBlock()
	case frameTrailer:
		return nil, b.end(payload)
	}
	return nil, b.damaged("a frame of kind %q", kind)
}

// checkBlock holds the records of a block to each other, and to those before.
func (b *Reader) checkBlock() error {
	err := kv.WalkBackup(b.block, func(l *kv.BackupLease) error {
		if b.lastKey != nil || b.got.Leases > 0 && bytes.Compare(l.ID[:], b.lastLease[:]) <= 0 {
			return b.damaged("leases are out of order")
		}
		b.lastLease = l.ID
		b.got.Leases++
		if l.Keys > 0 {
			b.open[l.ID] = held{l.Keys, l.Bytes}
		}
		return nil
	}, func(e *kv.Entry) error {
		if b.lastKey != nil && bytes.Compare(e.Key, b.lastKey) <= 0 {
			return b.damaged("keys are out of order")
		}
		if e.ModRevision > b.info.Revision {
			return b.damaged("a key of revision %d", e.ModRevision)
		}
		b.lastKey = append(b.lastKey[:0], e.Key...)
		b.got.Keys++
		b.got.Bytes += uint64(e.Size())
		b.record = kv.AppendBackupEntry(b.record[:0], e)
		b.content.Write(b.record)
		return b.checkLease(e)
	})
	if errors.Is(err, kv.ErrMalformed) {
		return b.damaged("%v", err)
	}
	return err
}

// checkLease counts a key for its lease.
func (b *Reader) checkLease(e *kv.Entry) error {
	if e.Lease == (kv.LeaseID{}) {
		return nil
	}
	h, ok := b.open[e.Lease]
	if !ok || uint64(len(e.Key)) > h.bytes {
		return b.damaged("a key of a lease that does not have it")
	}
	h.keys--
	h.bytes -= uint64(len(e.Key))
	if h.keys > 0 {
		b.open[e.Lease] = h
		return nil
	}
	if h.bytes != 0 {
		return b.damaged("a lease whose keys are not those that it says")
	}
	delete(b.open, e.Lease)
	return nil
}

// end checks the trailer and what is behind it.
func (b *Reader) end(payload []byte) error {
	if err := b.text(payload, &b.info.Trailer); err != nil {
		return err
	}
	b.got.ContentHash = hex.EncodeToString(b.content.Sum(nil))
	if b.got != b.info.Trailer {
		return b.damaged("the trailer says %+v, and %+v came", b.info.Trailer, b.got)
	}
	if len(b.open) > 0 {
		return b.damaged("%d leases have fewer keys than they say", len(b.open))
	}
	want := b.sum.Sum(nil)
	var sum [sumBytes]byte
	if err := b.read(sum[:]); err != nil {
		return err
	}
	if !bytes.Equal(sum[:], want) {
		return b.damaged("the checksum of the file is wrong")
	}
	b.info.SHA256 = hex.EncodeToString(sum[:])
	switch n, err := io.ReadFull(b.r, sum[:1]); {
	case n > 0:
		return b.damaged("there is something behind its end")
	case !short(err):
		return err
	}
	return io.EOF
}

// Verify reads a whole backup and returns what it is.
func Verify(r io.Reader) (Info, error) { return VerifyBeside(context.Background(), r, 1) }

// VerifyBeside is Verify within a share of the time, and until ctx ends.
func VerifyBeside(ctx context.Context, r io.Reader, share Share) (Info, error) {
	return verify(ctx, r, share, func([]byte) {})
}

// verify reads a whole backup and gives its blocks to each, in order.
func verify(ctx context.Context, r io.Reader, share Share, each func(content []byte)) (Info, error) {
	b, err := NewReader(r)
	if err != nil {
		return Info{}, err
	}
	defer b.Close()
	for {
		began, waited := time.Now(), b.r.waited
		content, err := b.Next()
		switch {
		case errors.Is(err, io.EOF):
			return b.Info(), nil
		case err != nil:
			return Info{}, err
		}
		each(content)
		// What the file took its time for, as one that comes by a network, is no work.
		if err := share.pause(ctx, time.Since(began)-(b.r.waited-waited)); err != nil {
			return Info{}, err
		}
	}
}
