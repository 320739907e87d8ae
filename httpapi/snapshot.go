package httpapi

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"net/http"

	"github.com/cairnkv/cairn/api"
)

var (
	valueBackup = []string{api.TypeBackup}
	// valueTrailer announces the digest that follows the file.
	valueTrailer = []string{api.HeaderDigest}
)

// snapshot answers GET /v1/snapshot.
func (x *exchange) snapshot() {
	mode := x.readMode()
	if x.refused() || !x.await(&mode) {
		return
	}
	if x.s.snapshots.Add(1) > maxSnapshots {
		x.s.snapshots.Add(-1)
		x.fault = newFault(api.CodeBusy, fmt.Sprintf("this node streams %d backups already, which is the most", maxSnapshots))
		x.fault.retryAfter, x.fault.shed = 30, shedBackups
		x.refused()
		return
	}
	defer x.s.snapshots.Add(-1)
	b, err := x.s.cfg.Store.Backup()
	if err != nil {
		x.refuseRead(err)
		return
	}
	defer b.Close()
	w := &snapshotWriter{x: x, revision: b.Revision(), sum: sha256.New()}
	if err := b.Save(x.r.Context(), w); err != nil {
		if w.err == nil && x.r.Context().Err() == nil {
			x.s.cfg.Logger.Error("A backup failed.", "request_id", x.id(), "error", err)
		}
		if !w.started {
			x.refuseRead(err)
			return
		}
		// The connection breaks off: what ends well is complete.
		panic(http.ErrAbortHandler)
	}
	x.w.Header().Set(api.HeaderDigest, "sha-256=:"+base64.StdEncoding.EncodeToString(w.sum.Sum(nil))+":")
}

// snapshotWriter sends the file of a backup. The headers leave with its first
// bytes.
type snapshotWriter struct {
	x        *exchange
	revision uint64
	sum      hash.Hash
	started  bool
	err      error // of the peer
}

// Write implements io.Writer.
func (w *snapshotWriter) Write(p []byte) (int, error) {
	x := w.x
	if !w.started {
		w.started = true
		h := x.w.Header()
		h["Content-Type"] = valueBackup
		h["Cache-Control"] = valueStreamed
		h["X-Content-Type-Options"] = valueNosniff
		h["Trailer"] = valueTrailer
		x.setHeader("Content-Disposition", fmt.Sprintf(`attachment; filename="cairn-%s-r%d.cairn-backup"`,
			x.s.cfg.Now().UTC().Format("20060102T150405.000Z"), w.revision))
		x.writeHeader(http.StatusOK, w.revision)
	}
	w.sum.Write(p)
	if err := x.writeBody(p); err != nil {
		w.err = errors.Join(w.err, err)
		return 0, err
	}
	return len(p), nil
}
