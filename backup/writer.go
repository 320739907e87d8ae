package backup

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"hash"
	"io"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/cairnkv/cairn/kv"
)

// Source is a store that is pinned at one revision.
type Source interface {
	Revision() uint64
	// LastTime is the newest time of a change, in milliseconds since the epoch.
	LastTime() int64
	// BackupLeases calls fn for each lease by id, Scan for each entry of q in
	// order. What they give is valid during the call only.
	BackupLeases(ctx context.Context, fn func(*kv.BackupLease) error) error
	Scan(ctx context.Context, q *kv.Query, fn func(*kv.Entry) error) error
}

// Share is how much of the time a backup works, so that writers keep what is
// left. 1 is without a pause.
type Share float64

// Background is the share of a backup that is taken beside writers.
const Background Share = 1.0 / 8

// pause waits after a stretch of work, so that the work stays within the share.
func (s Share) pause(ctx context.Context, worked time.Duration) error {
	if s >= 1 {
		return ctx.Err()
	}
	timer := time.NewTimer(time.Duration(float64(worked) * (1/float64(s) - 1)))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Save writes a backup of src to w. The header's Revision and LastTime are those
// of src. An error of w is returned as it is; whatever was written by then is no
// backup.
func Save(ctx context.Context, w io.Writer, src Source, h Header, share Share) (Info, error) {
	h.Revision, h.LastTime = src.Revision(), src.LastTime()
	b, err := newWriter(w, h)
	if err != nil {
		return Info{}, err
	}
	defer b.close()
	began := time.Now()
	rest := func() error {
		if b.written == 0 {
			return nil
		}
		// What the receiver took its time for is no work.
		worked := time.Since(began) - b.waited
		err := share.pause(ctx, worked)
		b.written, b.waited, began = 0, 0, time.Now()
		return err
	}
	err = src.BackupLeases(ctx, func(l *kv.BackupLease) error {
		if err := b.lease(l); err != nil {
			return err
		}
		return rest()
	})
	if err != nil {
		return Info{}, err
	}
	err = src.Scan(ctx, &kv.Query{}, func(e *kv.Entry) error {
		if err := b.entry(e); err != nil {
			return err
		}
		return rest()
	})
	if err != nil {
		return Info{}, err
	}
	return b.finish()
}

// writer writes the frames of a file.
type writer struct {
	w    io.Writer
	zstd *zstd.Encoder
	info Info
	// sum is that of the file, content that of the entries.
	sum, content hash.Hash
	block        []byte
	stored       []byte
	record       []byte
	// written counts the blocks, and waited the time that their receiver took,
	// since the last pause.
	written int
	waited  time.Duration
}

func newWriter(w io.Writer, h Header) (*writer, error) {
	z, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20))
	if err != nil {
		return nil, err
	}
	h.TakenAt = h.TakenAt.UTC()
	b := &writer{w: w, zstd: z, info: Info{Header: h}, sum: sha256.New(), content: sha256.New()}
	text, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	if err := b.write([]byte(magic)); err != nil {
		return nil, err
	}
	return b, b.frame(frameHeader, text)
}

// close frees what the writer holds. The file is not complete by it.
func (b *writer) close() { _ = b.zstd.Close() }

func (b *writer) write(p []byte) error {
	b.sum.Write(p)
	b.info.Size += int64(len(p))
	began := time.Now()
	_, err := b.w.Write(p)
	b.waited += time.Since(began)
	return err
}

func (b *writer) frame(kind byte, payload []byte) error {
	if err := b.write(appendFrameHead(make([]byte, 0, frameHeadBytes), kind, payload)); err != nil {
		return err
	}
	return b.write(payload)
}

func (b *writer) lease(l *kv.BackupLease) error {
	b.block = kv.AppendBackupLease(b.block, l)
	b.info.Leases++
	return b.full()
}

func (b *writer) entry(e *kv.Entry) error {
	b.record = kv.AppendBackupEntry(b.record[:0], e)
	b.content.Write(b.record)
	b.block = append(b.block, b.record...)
	b.info.Keys++
	b.info.Bytes += uint64(e.Size())
	return b.full()
}

func (b *writer) full() error {
	if len(b.block) < blockBytes {
		return nil
	}
	return b.flush()
}

func (b *writer) flush() error {
	b.stored = b.zstd.EncodeAll(b.block, b.stored[:0])
	b.block = b.block[:0]
	b.info.Blocks++
	b.written++
	return b.frame(frameBlock, b.stored)
}

// finish writes what is left and the end.
func (b *writer) finish() (Info, error) {
	if len(b.block) > 0 {
		if err := b.flush(); err != nil {
			return Info{}, err
		}
	}
	b.info.ContentHash = hex.EncodeToString(b.content.Sum(nil))
	text, err := json.Marshal(b.info.Trailer)
	if err != nil {
		return Info{}, err
	}
	if err := b.frame(frameTrailer, text); err != nil {
		return Info{}, err
	}
	sum := b.sum.Sum(nil)
	b.info.SHA256 = hex.EncodeToString(sum)
	if _, err := b.w.Write(sum); err != nil {
		return Info{}, err
	}
	b.info.Size += sumBytes
	return b.info, nil
}
