package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cairnkv/cairn/backup"
	"github.com/cairnkv/cairn/backup/s3"
	"github.com/cairnkv/cairn/kv"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
)

// Backup says whether, where and how often the cluster backs itself up. Give all
// members the same: the one that leads does it.
type Backup struct {
	// To is a directory or the URL of a bucket, as package backup/s3 reads it; empty
	// for no scheduled backups. It is for backups of this cluster alone.
	To string
	// Every is how old the newest backup becomes before the next is taken. Default
	// 1 h; at least 1 s.
	Every time.Duration
	// Keep is how many backups are kept. Default 24.
	Keep int

	bucket *s3.Bucket // what To means, if it is one
}

// Defaults of Backup.
const (
	DefaultBackupEvery = time.Hour
	DefaultBackupKeep  = 24
)

func (b *Backup) complete() error {
	if b.Every == 0 {
		b.Every = DefaultBackupEvery
	}
	if b.Keep == 0 {
		b.Keep = DefaultBackupKeep
	}
	switch {
	case b.Every < time.Second:
		return fmt.Errorf("a backup every %v is too often; it must be 1 s at least", b.Every)
	case b.Keep < 1:
		return errors.New("at least one backup must be kept")
	case strings.HasPrefix(b.To, s3.Scheme):
		var err error
		b.bucket, err = s3.Open(b.To)
		return err
	}
	return nil
}

const (
	// How often the place of the backups is looked at: some ten times between two
	// of them, within these bounds.
	minBackupLook = 100 * time.Millisecond
	maxBackupLook = 10 * time.Second
	// backupRetry is the pause after one that failed.
	backupRetry = 30 * time.Second
	// futureBackup is how far ahead of this member's clock a backup may be. One that
	// is further ahead was taken by a clock that was wrong, and keeps nobody from
	// taking the next.
	futureBackup = time.Minute
	// backupReserve is what a backup leaves free, which may be on the disk of the data.
	// With less, the next writes would raise the alarm of the whole cluster, or it would
	// not end.
	backupReserve = 2 * reserveBytes
)

// schedule takes backups. Every member looks at what is there, which tells the
// age of the newest one; the leader takes the next when it is due.
type schedule struct {
	n     *Node
	cfg   Backup
	place backup.Place

	newest           atomic.Int64 // when the newest one was taken, in milliseconds since the epoch; 0: there is none
	size             atomic.Int64 // of the last one that this member took
	taken, failures  atomic.Uint64
	lastTry, lastOwn time.Time
	unchecked        []*written // what this member wrote, until it was checked; the oldest first
}

// written is a backup that is there and was not read again yet.
type written struct {
	name  string
	info  backup.Info
	began time.Time
}

// newSchedule returns nil if there is nothing to do.
func newSchedule(n *Node) *schedule {
	cfg := n.cfg.Backup
	switch {
	case cfg.To == "":
		return nil
	case cfg.bucket != nil:
		return &schedule{n: n, cfg: cfg, place: cfg.bucket}
	}
	return &schedule{n: n, cfg: cfg, place: backup.Directory{Path: cfg.To, Owner: n.dir.Identity.MemberID.String(), Reserve: backupReserve}}
}

func (s *schedule) run(ctx context.Context) {
	if s == nil {
		return
	}
	said := ""
	for ; ctx.Err() == nil; pause(ctx, min(max(s.cfg.Every/10, minBackupLook), maxBackupLook)) {
		err := s.look(ctx)
		switch {
		case err == nil:
			said = ""
		case ctx.Err() != nil:
		case err.Error() != said: // and not at each look
			said = err.Error()
			s.n.cfg.Logger.Error("scheduled backup", "to", s.place.String(), "err", err)
		}
	}
}

// look notes how old the newest backup is, and takes one if that is due.
func (s *schedule) look(ctx context.Context) error {
	all, err := backup.Newest(ctx, s.place)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		s.failures.Add(1)
		return err
	}
	var newest backup.Scheduled
	taken := int64(0)
	if len(all) > 0 {
		newest = all[0]
		taken = newest.Taken.UnixMilli()
	}
	s.newest.Store(taken)
	s.unchecked = slices.DeleteFunc(s.unchecked, func(w *written) bool { // what somebody else has removed
		return !slices.ContainsFunc(all, func(b backup.Scheduled) bool { return b.Name == w.name })
	})
	now := time.Now()
	leads := s.n.shard.IsLeader() && s.n.serving() == nil
	switch {
	case leads && s.due(now):
		if err := s.n.begunByAll(); err != nil {
			return err
		}
		s.lastTry = now
		err = s.take(ctx, newest)
	case len(s.unchecked) > 0 && s.rested(now):
		s.lastTry = now
		err = s.conclude(ctx)
	default:
		return nil
	}
	if err != nil {
		s.failures.Add(1)
		// With fewer, the next one may find room; and one that can't be read for ever must
		// not keep all the others.
		if leads && (backup.NoRoom(err) || errors.Is(err, errNotRead)) {
			err = errors.Join(err, s.retain(ctx))
		}
		return err
	}
	if !leads {
		return nil
	}
	return s.retain(ctx)
}

// begunByAll is nil, or says which first member of a cluster that was restored has not
// started. It may be about to choose the newest backup of this place, as the others
// did: if it found a newer one, it would be another cluster's for good.
func (n *Node) begunByAll() error {
	_, restored, err := n.shard.Store().Backup()
	if err != nil || !restored {
		return err
	}
	all, err := n.shard.Members()
	if err != nil {
		return err
	}
	for i := range all {
		if m := &all[i]; m.ID == (ulid.ULID{}) {
			return fmt.Errorf("it waits for the member at %s, which has not started and may be about to choose the backup that the cluster was restored from", m.PeerAddress)
		}
	}
	return nil
}

func (s *schedule) due(now time.Time) bool {
	if !s.lastOwn.IsZero() && now.Sub(s.lastOwn) < s.cfg.Every {
		return false
	}
	age := s.age(now)
	return s.rested(now) && (age >= s.cfg.Every || age < -futureBackup)
}

// rested reports whether a try that failed was long enough ago.
func (s *schedule) rested(now time.Time) bool {
	return !s.lastTry.After(s.lastOwn) || now.Sub(s.lastTry) >= min(backupRetry, s.cfg.Every)
}

// age is how old the newest backup is; without one it is as old as can be.
func (s *schedule) age(now time.Time) time.Duration {
	newest := s.newest.Load()
	if newest == 0 {
		return math.MaxInt64
	}
	return now.Sub(time.UnixMilli(newest))
}

// ageSeconds is the age as the metric has it. One that is dated in the future says
// nothing of how old its state is, so it counts as none: an alert must not wait until
// its time has come.
func (s *schedule) ageSeconds(now time.Time) float64 {
	age := s.age(now)
	if s.newest.Load() == 0 || age < -futureBackup {
		return math.Inf(1)
	}
	return age.Seconds()
}

// take writes a backup and checks what was written, as far as that can be read. It must be newer than the one that
// was the newest, or it would be removed before those that it should replace: the
// revision of a cluster never goes back.
func (s *schedule) take(ctx context.Context, newest backup.Scheduled) error {
	// Only a member that leads in truth has what is current.
	if err := s.n.shard.Wait(ctx, kv.Consistency{}); err != nil {
		return err
	}
	began := time.Now()
	v, err := s.n.view()
	if err != nil {
		return err
	}
	defer v.Close()
	if newest.Revision > v.Revision() {
		return fmt.Errorf("%s is of a later revision than the %d of this cluster, so it is another one's: remove it from here, or give each cluster a place of its own", newest.Name, v.Revision())
	}
	header := s.n.backupHeader()
	name := backup.Name(header.TakenAt, v.Revision())
	var info backup.Info
	err = s.place.Write(ctx, name, func(w io.Writer) (err error) {
		info, err = backup.Save(ctx, trusted{w, s.n}, v, header, backup.Background)
		return err
	})
	if err != nil {
		return err
	}
	v.Close() // what was overwritten since need not wait for what follows
	s.unchecked = append(s.unchecked, &written{name, info, began})
	return s.conclude(ctx)
}

var (
	// errOtherBackup says that a backup was read whole, and is not the one that was written.
	errOtherBackup = errors.New("it is another one")
	// errNotRead says that it is not known whether it is.
	errNotRead = errors.New("was written and could not be read again to check it")
)

// conclude checks what was not checked yet, the newest first. Once one could not be read,
// those before it wait for a later look: each may take the time of a service that does not
// answer.
func (s *schedule) conclude(ctx context.Context) (wrong error) {
	for i := len(s.unchecked) - 1; i >= 0; i-- {
		known, err := s.check(ctx, s.unchecked[i])
		wrong = errors.Join(wrong, err)
		if !known {
			break
		}
		s.unchecked = slices.Delete(s.unchecked, i, i+1)
	}
	return wrong
}

// check reads a backup that was written. If it is not right, it is removed. If it could not
// be read, it may well be right: it stays, and is not known.
func (s *schedule) check(ctx context.Context, w *written) (known bool, err error) {
	err = s.verify(ctx, w.name, w.info.SHA256)
	distrust := s.n.quarantined()
	var damaged *backup.DamagedError
	switch {
	case distrust != nil, errors.As(err, &damaged), errors.Is(err, errOtherBackup):
		err = fmt.Errorf("%s was written and is not right: %w", w.name, cmp.Or(distrust, err))
		removed := s.place.Remove(ctx, w.name)
		return removed == nil, errors.Join(err, removed) // the next look finds it again
	case err != nil:
		return false, fmt.Errorf("%s %w: %w", w.name, errNotRead, err)
	}
	s.taken.Add(1)
	if w.began.After(s.lastOwn) {
		s.lastOwn = w.began
		s.newest.Store(w.info.TakenAt.UnixMilli())
		s.size.Store(w.info.Size)
	}
	s.n.cfg.Logger.Info("backup taken", "to", s.place.String(), "name", w.name, "revision", w.info.Revision, "keys", w.info.Keys, "bytes", w.info.Size, "took", time.Since(w.began))
	return true, nil
}

// verify reads a backup again.
func (s *schedule) verify(ctx context.Context, name, sha256 string) error {
	f, err := s.place.Open(ctx, name)
	if err != nil {
		return err
	}
	info, err := backup.VerifyBeside(ctx, f, backup.Background)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if info.SHA256 != sha256 {
		return errOtherBackup
	}
	return nil
}

// trusted is what a backup is written to, as long as the content of its member can be
// trusted. The end of a file is written by itself, so that one of which that is not
// known has none.
type trusted struct {
	io.Writer
	n *Node
}

// Write implements io.Writer.
func (t trusted) Write(p []byte) (int, error) {
	if err := t.n.quarantined(); err != nil {
		return 0, err
	}
	return t.Writer.Write(p)
}

// retain removes the backups that are not kept, the oldest first.
func (s *schedule) retain(ctx context.Context) error {
	all, err := backup.Newest(ctx, s.place)
	if err != nil {
		return err
	}
	for _, old := range slices.Backward(s.surplus(all)) {
		if err := s.n.quarantined(); err != nil {
			return err // the newest ones may have what is wrong
		}
		// Another member may have been there first.
		if err := s.place.Remove(ctx, old.Name); err != nil && !errors.Is(err, os.ErrNotExist) {
			s.failures.Add(1)
			return fmt.Errorf("remove an old backup: %w", err)
		}
	}
	return nil
}

// surplus is the backups that are not kept, of all, the newest first. As many are kept as
// there are to be, and until these are reached what this member wrote and has not checked:
// that never takes the place of one that was. With credentials that can't read nothing is
// ever checked, so of these the newest are kept alone, as many again. So whatever turns out
// to be right, those that would be kept if all had been checked are there.
func (s *schedule) surplus(all []backup.Scheduled) (old []backup.Scheduled) {
	checked, unchecked := 0, 0
	for i := range all {
		if checked == s.cfg.Keep {
			return append(old, all[i:]...)
		}
		if !slices.ContainsFunc(s.unchecked, func(w *written) bool { return w.name == all[i].Name }) {
			checked++
		} else if unchecked++; unchecked > s.cfg.Keep {
			old = append(old, all[i])
		}
	}
	return old
}

// registerMetrics makes the figures of the backups visible, if there are any.
func (s *schedule) registerMetrics(r prometheus.Registerer) {
	if s == nil {
		return
	}
	gauge := func(name, help string, value func() float64) {
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "cairn", Name: name, Help: help}, value))
	}
	counter := func(name, help string, value *atomic.Uint64) {
		r.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Namespace: "cairn", Name: name, Help: help}, func() float64 {
			return float64(value.Load())
		}))
	}
	gauge("backup_age_seconds", "Age of the newest scheduled backup that this member sees; +Inf if there is none, or if it is dated in the future.", func() float64 {
		return s.ageSeconds(time.Now())
	})
	gauge("backup_interval_seconds", "Time between scheduled backups, as configured.", s.cfg.Every.Seconds)
	gauge("backup_last_size_bytes", "Size of the last scheduled backup that this member took.", func() float64 { return float64(s.size.Load()) })
	counter("backups_total", "Scheduled backups that this member took.", &s.taken)
	counter("backup_failures_total", "Scheduled backups, and looks at where they are kept, that failed on this member.", &s.failures)
}

// backupHeader says of a backup that is taken now where it comes from.
func (n *Node) backupHeader() backup.Header {
	id := &n.dir.Identity
	return backup.Header{
		ClusterID: id.ClusterID.String(), MemberID: id.MemberID.String(), Member: id.Name,
		TakenAt: time.Now(), Version: n.cfg.Version,
	}
}
