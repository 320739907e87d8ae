package node

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/cairnkv/cairn/backup"
	"github.com/cairnkv/cairn/backup/s3"
	"github.com/cairnkv/cairn/kv"
	"github.com/cairnkv/cairn/raftsm"
)

const (
	// revisionsPerSecond is more than any cluster makes. A restored store begins
	// that many revisions, for each second since the newest change and one more, behind
	// it: beyond all that was handed out.
	revisionsPerSecond = 1 << 20
	// restorePause is between two looks at whether it is this member's turn to
	// restore, or another's.
	restorePause = 50 * time.Millisecond
	// clockError is how far the clock may be behind a backup. Clocks that are right
	// differ by less.
	clockError = time.Minute
)

// chooseBackup finds the backup that an empty node is to be filled from, before
// anything is made of its data directory; nil if there is nothing to do.
func (c *Config) chooseBackup(ctx context.Context) (*backup.Chosen, error) {
	if c.chosen != nil || c.RestoreFrom == "" {
		return c.chosen, nil
	}
	switch used, err := raftsm.Used(c.DataDir); {
	case err != nil:
		return nil, err
	case used:
		c.Logger.Info("the data directory is in use already; no backup is restored into it", "data_dir", c.DataDir)
		return nil, nil
	}
	chosen, err := choose(ctx, c.RestoreFrom, nil)
	if err == nil {
		_, err = restoredRevision(&chosen.Info.Header, time.Now()) // while nothing is made yet
	}
	return chosen, err
}

// restored reports whether this member's store has all of the backup that it is
// to be filled from. A store that is not to be filled has it.
func (n *Node) restored() bool {
	store := n.shard.Store()
	if restoring, _ := store.Restoring(); restoring {
		return false
	}
	revision, _ := store.Revisions()
	return n.dir.Identity.Backup == "" || revision > 1
}

// serving is nil, or says that the store is being filled from a backup, or that
// its content can't be trusted.
func (n *Node) serving() error {
	if err := n.quarantined(); err != nil {
		return err
	}
	if n.restored() {
		return nil
	}
	return errRestoring()
}

func errRestoring() error {
	return &kv.Error{Code: kv.Restoring, Detail: "the store is being filled from a backup", RetryAfterSeconds: 1}
}

// restore fills the cluster from the backup, as long as this member leads. When
// another does, it is the other's turn, and it goes on where this one was.
func (n *Node) restore(ctx context.Context) {
	if n.dir.Identity.Backup == "" {
		return
	}
	began, filled, said := time.Now(), false, ""
	for ; ctx.Err() == nil; pause(ctx, restorePause) {
		// After a start the log may have to repeat what the store had lost, the end
		// of the restore among it.
		if err := n.shard.Wait(ctx, kv.Consistency{}); err != nil {
			continue
		}
		if n.restored() {
			if filled {
				stats, _ := n.shard.Store().Stats() // a store that is closing has none
				n.cfg.Logger.Info("the cluster is restored", "keys", stats.Keys, "revision", stats.Revision, "took", time.Since(began))
			}
			return
		}
		if !n.shard.IsLeader() {
			continue
		}
		filled = true
		err := n.fill(ctx)
		var final *restoreError
		switch {
		case err == nil || ctx.Err() != nil:
		case errors.As(err, &final):
			n.fail(err)
			return
		case err.Error() != said:
			said = err.Error()
			n.cfg.Logger.Warn("restoring goes on in a moment", "err", err)
		}
	}
}

// fill finds the backup, after a restart anew, and proposes what is missing of
// it. A member that has not got it hands the leadership on.
func (n *Node) fill(ctx context.Context) error {
	if n.backup == nil {
		chosen, err := n.findBackup(ctx)
		if err != nil {
			if len(n.dir.Identity.Members) == 1 || ctx.Err() != nil {
				return &restoreError{err}
			}
			moving, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			return errors.Join(err, n.shard.HandOver(moving))
		}
		n.backup = chosen
	}
	return n.feed(ctx)
}

// choose finds and checks the backup that a path, or the URL of a bucket, means.
func choose(ctx context.Context, from string, sum *[32]byte) (*backup.Chosen, error) {
	if !strings.HasPrefix(from, s3.Scheme) {
		return backup.Choose(ctx, from, sum)
	}
	bucket, err := s3.Open(from)
	if err != nil {
		return nil, err
	}
	return backup.ChooseIn(ctx, bucket, sum)
}

// findBackup finds the backup of a restore that was interrupted.
func (n *Node) findBackup(ctx context.Context) (*backup.Chosen, error) {
	if n.cfg.RestoreFrom == "" {
		return nil, fmt.Errorf("the restore of %s was interrupted: start it again with the same --restore-from, or begin anew in an empty directory", n.dir.Path)
	}
	sum, err := backupOf(&n.dir.Identity, n.dir.Path)
	if err != nil {
		return nil, err
	}
	return choose(ctx, n.cfg.RestoreFrom, sum)
}

// backupOf is the checksum of the backup that the node of a directory is filled from.
func backupOf(id *raftsm.Identity, dir string) (*[32]byte, error) {
	var sum [32]byte
	if b, err := hex.DecodeString(id.Backup); err != nil || copy(sum[:], b) != len(sum) {
		return nil, fmt.Errorf("the identity of %s names no backup", dir)
	}
	return &sum, nil
}

// restoreError says that a restore can't be finished.
type restoreError struct{ err error }

func (e *restoreError) Error() string { return "the restore can't go on: " + e.err.Error() }
func (e *restoreError) Unwrap() error { return e.err }

func impossible(format string, args ...any) error {
	return &restoreError{fmt.Errorf(format, args...)}
}

// feed proposes the steps of the restore that have not been applied.
func (n *Node) feed(ctx context.Context) error {
	if err := n.shard.Wait(ctx, kv.Consistency{}); err != nil {
		return err
	}
	store := n.shard.Store()
	sum, begun, err := store.Backup()
	if err != nil {
		return err
	}
	revision, _ := store.Revisions()
	switch {
	case begun && sum != n.backup.Sum:
		return impossible("the cluster is filled from another backup, with the checksum %x", sum)
	case !begun && revision > 1:
		return impossible("the cluster is not empty: something was written before the restore began; begin anew, with --restore-from on every member")
	}
	// Asked again at the end, which counts. With a clock that is wrong nothing is filled.
	if _, err := restoredRevision(&n.backup.Info.Header, time.Now()); err != nil {
		return err
	}
	if err := n.proposeRestore(ctx, kv.Restore{Step: kv.RestoreBegin}); err != nil {
		return err
	}
	restoring, next := store.Restoring()
	if !restoring {
		return nil
	}
	reading, stop := context.WithCancel(ctx)
	defer stop()
	parts := make(chan []byte, 2) // the next is unpacked while one is applied
	read := make(chan error, 1)
	go func() { read <- n.readParts(reading, next, parts) }()
	for content := range parts {
		if err = n.proposePart(ctx, next, content); err != nil {
			break
		}
		next++
	}
	stop()
	if readErr := <-read; err == nil {
		err = readErr
	}
	if err != nil {
		return err
	}
	revision, err = restoredRevision(&n.backup.Info.Header, time.Now())
	if err != nil {
		return err
	}
	return n.proposeRestore(ctx, kv.Restore{Step: kv.RestoreEnd, Part: next, Revision: revision})
}

// readParts gives the blocks of the backup from one on, and closes parts. Its
// error is nil only if all of the file was right, and the one that was chosen.
func (n *Node) readParts(ctx context.Context, from uint64, parts chan<- []byte) error {
	defer close(parts)
	f, err := n.backup.Open(ctx)
	if err != nil {
		return err
	}
	defer f.Close()
	var damaged *backup.DamagedError
	r, err := backup.NewReader(f)
	switch {
	case errors.As(err, &damaged):
		return &restoreError{err}
	case err != nil:
		return err
	}
	defer r.Close()
	for part := uint64(1); ; part++ {
		content, err := r.Next()
		switch {
		case errors.Is(err, io.EOF):
			if r.Info().SHA256 != n.backup.Info.SHA256 {
				return impossible("%s was replaced by another backup meanwhile", n.backup)
			}
			return nil
		case errors.As(err, &damaged):
			return &restoreError{err}
		case err != nil:
			return err
		case !n.backup.Has(part, content):
			// Before anything of it is proposed: what was applied is the other's.
			return impossible("%s was replaced by another backup meanwhile", n.backup)
		case part < from:
			continue
		}
		select {
		case parts <- slices.Clone(content):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (n *Node) proposePart(ctx context.Context, part uint64, content []byte) error {
	if n.guard.full.Load() {
		return errors.New("this member's disk is almost full")
	}
	if n.cfg.beforePart != nil {
		if err := n.cfg.beforePart(part); err != nil {
			return err
		}
	}
	return n.proposeRestore(ctx, kv.Restore{Step: kv.RestorePart, Part: part, Content: content})
}

func (n *Node) proposeRestore(ctx context.Context, r kv.Restore) error {
	r.Backup = n.backup.Sum
	result, err := n.shard.Propose(ctx, &kv.Command{
		Kind: kv.KindRestore, Restore: &r,
		// The time of a store never goes back.
		Time: max(time.Now().UnixMilli(), n.backup.Info.LastTime),
	})
	if err != nil {
		return err
	}
	return result.Err()
}

// restoredRevision is where a store begins that is restored now. What was handed out
// since is counted from the newest change in the backup: a member that was cut off,
// or whose clock was ahead, may have been asked for it long after. A clock that is behind
// all of that can't tell how many there may be.
func restoredRevision(h *backup.Header, now time.Time) (uint64, error) {
	from := h.TakenAt
	if changed := time.UnixMilli(h.LastTime); h.LastTime > 0 && changed.Before(from) {
		from = changed
	}
	if now.Before(from.Add(-clockError)) {
		return 0, impossible("it is %s, and the backup is of %s: set the clock, or, if it is right, take a backup of a member whose clock was",
			now.UTC().Format(time.RFC3339), from.UTC().Format(time.RFC3339))
	}
	since := max(now.Sub(from), 0)
	revision := h.Revision + (uint64(since/time.Second)+1)*revisionsPerSecond
	if revision > kv.MaxRevision {
		return 0, impossible("it is %s, which is too long after the backup of %s: set the clock", now.UTC().Format(time.RFC3339), h.TakenAt.Format(time.RFC3339))
	}
	return revision, nil
}

// Restore makes the data directory of a new cluster of one from a backup, and
// returns when it is complete. It refuses a directory that has data, unless it
// is what an interrupted Restore of the same backup left. Nobody is served.
func Restore(ctx context.Context, cfg Config) (info backup.Info, err error) {
	if cfg.InitialCluster != "" {
		return info, errors.New("a cluster of several is restored by starting its members with --restore-from")
	}
	used, err := raftsm.Used(cfg.DataDir)
	if err != nil {
		return info, err
	}
	var begun *[32]byte // what an interrupted restore goes on with, whatever is newer by now
	if used {
		id, err := raftsm.ReadIdentity(cfg.DataDir)
		if err != nil {
			return info, err
		}
		if id.Backup == "" {
			return info, fmt.Errorf("%s has data already; a backup is restored into an empty directory", cfg.DataDir)
		}
		if begun, err = backupOf(&id, cfg.DataDir); err != nil {
			return info, err
		}
	}
	if cfg.chosen, err = choose(ctx, cfg.RestoreFrom, begun); err != nil {
		if used {
			err = fmt.Errorf("%s has data already, of a restore: %w", cfg.DataDir, err)
		}
		return info, err
	}
	if _, err := restoredRevision(&cfg.chosen.Info.Header, time.Now()); err != nil {
		return info, err
	}
	// Nobody is spoken to: the peer address is only written down. Dragonboat wants
	// to listen all the same, and not at a port that it is given by the system.
	cfg.Listen = "127.0.0.1:0"
	cfg.PeerAdvertise = cmp.Or(cfg.PeerAdvertise, cfg.PeerListen, DefaultPeer)
	if cfg.PeerListen, err = freeLoopback(); err != nil {
		return info, err
	}
	n, err := Open(ctx, cfg)
	if err != nil {
		return info, err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	if used && n.restored() {
		return info, fmt.Errorf("%s was restored from this backup already", cfg.DataDir)
	}
	for !n.restored() {
		select {
		case err := <-n.failed:
			return info, err
		case <-ctx.Done():
			return info, ctx.Err()
		case <-time.After(restorePause):
		}
	}
	return cfg.chosen.Info, nil
}

// freeLoopback returns an address of the loopback at which nobody listens.
func freeLoopback() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
