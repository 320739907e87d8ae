package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cairnkv/cairn/backup"
	"github.com/cairnkv/cairn/kv"
	"golang.org/x/sys/unix"
)

// TestBackupAge: a backup that is dated in the future counts as none.
func TestBackupAge(t *testing.T) {
	now := time.Now()
	for _, c := range []struct {
		taken time.Time
		want  float64
	}{
		{time.Time{}, math.Inf(1)}, {now.Add(-time.Hour), 3600}, {now.Add(time.Hour), math.Inf(1)}, {now.Add(30 * time.Second), -30},
	} {
		s := &schedule{}
		if !c.taken.IsZero() {
			s.newest.Store(c.taken.UnixMilli())
		}
		if got := s.ageSeconds(now); got != c.want && math.Abs(got-c.want) > 0.01 {
			t.Errorf("taken at %v: %v, want %v", c.taken, got, c.want)
		}
	}
}

// newestIn is the newest backup of a directory, and how many there are.
func newestIn(t testing.TB, dir string) (path string, n int) {
	t.Helper()
	all, err := backup.Newest(context.Background(), backup.Directory{Path: dir})
	must(t, err)
	if len(all) == 0 {
		return "", 0
	}
	return filepath.Join(dir, all[0].Name), len(all)
}

// TestScheduledBackups takes backups, keeps as many as it is told, and clears up
// what a crash of its own left. A node that begins with the directory begins with
// the newest.
func TestScheduledBackups(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "backups")
	cfg := config(t)
	n := ready(t, cfg)
	owner := n.dir.Identity.MemberID.String()
	must(t, n.Close())
	must(t, os.Mkdir(dir, 0o700))
	others := []string{"notes.txt", ".cairn-x.01KB0000000000000000000001.partial", "cairn-manual.cairn-backup"}
	for _, name := range append([]string{".cairn-x." + owner + ".partial"}, others...) {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600))
	}
	cfg.Backup = Backup{To: dir, Every: time.Second, Keep: 2}
	n = ready(t, cfg)
	u := newUser(t, n)
	u.want(201, "", "PUT", "/v1/kv/k", "0")
	eventually(t, "backups are taken", func() bool { return n.schedule.taken.Load() > 3 })
	u.want(200, "", "PUT", "/v1/kv/k", "last")
	revision := n.Status().Revision
	eventually(t, "one has what was written last", func() bool {
		path, _ := newestIn(t, dir)
		f, err := os.Open(path)
		if err != nil {
			return false // it was one of those that are not kept
		}
		defer f.Close()
		info, err := backup.Verify(f)
		must(t, err)
		return info.Revision == revision
	})
	u.want(200, "cairn_backup_age_seconds", "GET", "/metrics", "")
	u.want(200, "cairn_backup_failures_total 0", "GET", "/metrics", "")
	if age := n.schedule.age(time.Now()); age < -time.Second || age > patience {
		t.Errorf("the newest is %v old", age)
	}
	eventually(t, "the oldest are gone", func() bool { _, kept := newestIn(t, dir); return kept <= 2 })
	must(t, n.Close())
	for _, name := range others {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Errorf("what is not ours is gone: %v", err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, ".cairn-x."+owner+".partial")); err == nil {
		t.Error("what a crash left is there")
	}
	again := config(t)
	again.RestoreFrom = dir
	newUser(t, ready(t, again)).want(200, "last", "GET", "/v1/kv/k", "")
}

// TestScheduleOfThree has one of three members take the backups, into a place
// that all of them see. When it goes, another does.
func TestScheduleOfThree(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "backups")
	var cluster []string
	var configs []Config
	for i := range 3 {
		cfg := config(t)
		cfg.Name, cfg.Backup = fmt.Sprint("n", i+1), Backup{To: dir, Every: time.Second}
		configs = append(configs, cfg)
		cluster = append(cluster, cfg.Name+"="+cfg.PeerListen)
	}
	var nodes []*Node
	for _, cfg := range configs {
		cfg.InitialCluster = strings.Join(cluster, ",")
		nodes = append(nodes, open(t, cfg))
	}
	leader := func() *Node {
		for _, n := range nodes {
			if n.shard.IsLeader() {
				return n
			}
		}
		return nil
	}
	eventually(t, "a backup is taken and all know of it", func() bool {
		for _, n := range nodes {
			if n.schedule.newest.Load() == 0 {
				return false
			}
		}
		return leader() != nil
	})
	first := leader()
	eventually(t, "the leader takes backups", func() bool { return first.schedule.taken.Load() > 1 || !first.shard.IsLeader() })
	must(t, first.Close())
	nodes = append(nodes[:0:0], except(nodes, first)...)
	eventually(t, "another takes them", func() bool {
		for _, n := range nodes {
			if n.schedule.taken.Load() > 1 {
				return true
			}
		}
		return false
	})
}

func except(nodes []*Node, gone *Node) (rest []*Node) {
	for _, n := range nodes {
		if n != gone {
			rest = append(rest, n)
		}
	}
	return rest
}

// TestScheduleWaitsForAll restores a cluster from the place where it will keep its
// backups. One member starts late, when the others serve and the newest backup is old:
// it must find the one that they began with.
func TestScheduleWaitsForAll(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	old := ready(t, config(t))
	fillNode(t, old, 10)
	info := save(t, old, filepath.Join(dir, backup.Name(time.Now().Add(-time.Hour), old.Status().Revision)))
	configs := threeConfigs(t)
	log := &transcript{}
	for i := range configs {
		configs[i].RestoreFrom = dir
		configs[i].Backup = Backup{To: dir, Every: time.Second}
		configs[i].Logger = log.logger()
	}
	nodes := []*Node{open(t, configs[0]), open(t, configs[1])}
	for _, n := range nodes {
		eventually(t, "the node is ready", func() bool { return n.Ready() == nil })
	}
	taken := func() (taken uint64) {
		for _, n := range nodes {
			taken += n.schedule.taken.Load()
		}
		return taken
	}
	eventually(t, "a backup is due", func() bool {
		return log.has("it waits for the member at "+configs[2].PeerListen) || taken() > 0
	})
	if _, n := newestIn(t, dir); taken() > 0 || n != 1 {
		t.Fatal("a backup was taken before all members had started")
	}
	late := ready(t, configs[2])
	nodes = append(nodes, late)
	if got := late.dir.Identity.Backup; got != info.SHA256 {
		t.Errorf("the late member began with %s, the others with %s", got, info.SHA256)
	}
	eventually(t, "a backup is taken", func() bool { return taken() > 0 })
}

// TestScheduleFails has no place for backups, says so, and goes on when there is
// one.
func TestScheduleFails(t *testing.T) {
	place := filepath.Join(t.TempDir(), "place")
	must(t, os.WriteFile(place, []byte("a file"), 0o600))
	cfg := config(t)
	cfg.Backup = Backup{To: place, Every: time.Second}
	n := ready(t, cfg)
	u := newUser(t, n)
	eventually(t, "failures are counted", func() bool { return n.schedule.failures.Load() > 1 })
	u.want(200, "cairn_backup_age_seconds +Inf", "GET", "/metrics", "")
	u.want(201, "", "PUT", "/v1/kv/k", "v")
	must(t, os.Remove(place))
	eventually(t, "a backup is taken", func() bool { return n.schedule.taken.Load() > 0 })
	if path, _ := newestIn(t, place); path == "" {
		t.Error("there is none")
	}

	// One of another cluster, which would look newer than all that follow.
	must(t, os.WriteFile(filepath.Join(place, backup.Name(time.Now().Add(-time.Hour), 1<<40)), []byte("of another one"), 0o600))
	before := n.schedule.failures.Load()
	eventually(t, "failures are counted", func() bool { return n.schedule.failures.Load() > before+1 })
	taken := n.schedule.taken.Load()
	eventually(t, "failures are counted", func() bool { return n.schedule.failures.Load() > before+3 })
	if now := n.schedule.taken.Load(); now != taken {
		t.Errorf("%d backups were taken beside that of another cluster", now-taken)
	}
}

// TestBackupWithoutRoom leaves more free than what ends an alarm over the disk of the
// data. Where that is not there, older backups that are not to be kept make room.
func TestBackupWithoutRoom(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	cfg.Backup = Backup{To: t.TempDir()}
	n := ready(t, cfg)
	place := n.schedule.place.(backup.Directory)
	if place.Reserve < 2*reserveBytes {
		t.Errorf("a backup leaves %d bytes; an alarm ends above %d", place.Reserve, 2*reserveBytes)
	}
	must(t, n.Close())
	cfg.Backup = Backup{}
	n = ready(t, cfg)
	dir := t.TempDir()
	for i := range 4 {
		must(t, os.WriteFile(filepath.Join(dir, backup.Name(time.Now().Add(-time.Hour), uint64(i))), nil, 0o600))
	}
	fillNode(t, n, 10)
	s := &schedule{n: n, cfg: Backup{Every: time.Minute, Keep: 2}, place: backup.Directory{Path: dir, Reserve: 1 << 62}}
	if err := s.look(context.Background()); !backup.NoRoom(err) {
		t.Errorf("without room: %v", err)
	}
	if _, left := newestIn(t, dir); left != 2 {
		t.Errorf("%d backups are left, of which two are to be kept", left)
	}
}

// TestBackupIsDue says when the next one is taken.
func TestBackupIsDue(t *testing.T) {
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	for _, c := range []struct {
		name                     string
		newest, lastOwn, lastTry time.Time
		want                     bool
	}{
		{name: "there is none", want: true},
		{name: "another member took one", newest: ago(time.Minute)},
		{name: "it is old", newest: ago(time.Hour), want: true},
		{name: "it is nearly old", newest: ago(time.Hour - time.Second)},
		{name: "this member took it", newest: ago(2 * time.Hour), lastOwn: ago(2 * time.Hour), lastTry: ago(2 * time.Hour), want: true},
		{name: "this member's was removed", lastOwn: ago(time.Minute), lastTry: ago(time.Minute)},
		{name: "one failed just now", newest: ago(2 * time.Hour), lastTry: ago(time.Second)},
		{name: "one failed a while ago", newest: ago(2 * time.Hour), lastTry: ago(time.Minute), want: true},
		{name: "a little ahead", newest: ago(-time.Second)},
		{name: "by a clock that was wrong", newest: ago(-1000 * time.Hour), want: true},
		{name: "by a clock that was wrong, and one since", newest: ago(-1000 * time.Hour), lastOwn: ago(time.Minute), lastTry: ago(time.Minute)},
	} {
		s := &schedule{cfg: Backup{Every: time.Hour}, lastOwn: c.lastOwn, lastTry: c.lastTry}
		if !c.newest.IsZero() {
			s.newest.Store(c.newest.UnixMilli())
		}
		if got := s.due(now); got != c.want {
			t.Errorf("%s: due %v", c.name, got)
		}
	}
	if (&schedule{}).age(now) != math.MaxInt64 {
		t.Error("what is not there has an age")
	}
}

// meddling is a directory in whose use something else happens: with the first bytes
// that are written, and whenever a file is opened, which may then be another.
type meddling struct {
	backup.Directory
	written func()
	opened  func(io.ReadCloser) io.ReadCloser
}

func (m meddling) Write(ctx context.Context, name string, write func(io.Writer) error) error {
	return m.Directory.Write(ctx, name, func(w io.Writer) error { return write(&meddled{w, m.written}) })
}

func (m meddling) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	f, err := m.Directory.Open(ctx, name)
	if err != nil || m.opened == nil {
		return f, err
	}
	return m.opened(f), nil
}

type meddled struct {
	io.Writer
	written func() // once
}

func (m *meddled) Write(p []byte) (int, error) {
	if m.written != nil {
		m.written()
		m.written = nil
	}
	return m.Writer.Write(p)
}

// raise raises or clears the alarm that a node's content is wrong.
func raise(t testing.TB, n *Node, active bool) {
	t.Helper()
	r, err := n.shard.Propose(context.Background(), &kv.Command{
		Kind: kv.KindAlarm, Time: time.Now().UnixMilli(), Alarm: kv.Alarm{Replica: n.shard.Replica(), Type: kv.AlarmCorrupt, Active: active},
	})
	must(t, err)
	must(t, r.Err())
	eventually(t, "the member knows of it", func() bool { return (n.quarantined() != nil) == active })
}

// TestBackupOfWrongContent finds out about the content of a member while it takes a
// backup. The backup is not finished, or not kept, and no older one goes for it.
func TestBackupOfWrongContent(t *testing.T) {
	t.Parallel()
	n := ready(t, config(t))
	fillNode(t, n, 10)
	dir := t.TempDir()
	for i := range 2 {
		must(t, os.WriteFile(filepath.Join(dir, backup.Name(time.Now(), uint64(i+1))), []byte("an older one"), 0o600))
	}
	found := func() { raise(t, n, true) }
	for name, place := range map[string]meddling{
		"when it was begun":   {written: found},
		"when it was written": {opened: func(r io.ReadCloser) io.ReadCloser { found(); return r }},
	} {
		place.Directory = backup.Directory{Path: dir, Owner: "me"}
		s := &schedule{n: n, cfg: Backup{Every: time.Hour, Keep: 1}, place: place}
		var refused *kv.Error
		err := s.take(context.Background(), backup.Scheduled{})
		if !errors.As(err, &refused) || refused.Code != kv.CorruptContent {
			t.Errorf("%s: %v", name, err)
		}
		if err := s.retain(context.Background()); err == nil {
			t.Errorf("%s: older ones may go", name)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) != 2 {
			t.Errorf("%s: there is %v, %v", name, left, err)
		}
		raise(t, n, false)
	}
	b, err := face{n}.Backup()
	must(t, err)
	defer b.Close()
	var file bytes.Buffer
	if err := b.Save(context.Background(), &meddled{&file, found}); err == nil {
		t.Error("a backup that a client asked for was finished")
	}
	if _, err := backup.Verify(&file); err == nil {
		t.Error("what was sent to a client is complete")
	}
}

// failing is a file that can't be read to its end.
type failing struct {
	io.Closer
	io.Reader
	err error
}

func (f failing) Read(p []byte) (int, error) {
	n, err := f.Reader.Read(p)
	if errors.Is(err, io.EOF) {
		err = f.err
	}
	return n, err
}

// TestBackupThatIsNotRead: what was written and can't be read again may be as it
// should, so it stays, and is checked later. No older one is removed before that. What
// was read and is not right goes.
func TestBackupThatIsNotRead(t *testing.T) {
	t.Parallel()
	n := ready(t, config(t))
	fillNode(t, n, 10)
	dir := t.TempDir()
	older := filepath.Join(dir, backup.Name(time.Now().Add(-time.Hour), 1))
	must(t, os.WriteFile(older, nil, 0o600))
	reading := func(r io.ReadCloser) io.ReadCloser { return r }
	place := meddling{Directory: backup.Directory{Path: dir, Owner: "me"}, opened: func(r io.ReadCloser) io.ReadCloser { return reading(r) }}
	s := &schedule{n: n, cfg: Backup{Every: time.Hour, Keep: 1}, place: place}
	look := func() error {
		s.lastTry = time.Time{} // as if it had rested
		return s.look(context.Background())
	}
	for _, cause := range []error{unix.EIO, context.Canceled} {
		reading = func(r io.ReadCloser) io.ReadCloser { return failing{r, io.LimitReader(r, 100), cause} }
		if err := look(); !errors.Is(err, cause) {
			t.Errorf("got %v, want %v", err, cause)
		}
		if _, n := newestIn(t, dir); n != 2 || s.taken.Load() != 0 {
			t.Fatalf("%d are there, %d were taken", n, s.taken.Load())
		}
	}
	reading = func(r io.ReadCloser) io.ReadCloser { return r }
	must(t, look())
	if _, err := os.Stat(older); s.taken.Load() != 1 || len(s.unchecked) > 0 || err == nil {
		t.Errorf("%d were taken; the older one: %v", s.taken.Load(), err)
	}
	right, _ := newestIn(t, dir)

	// One that was cut is damaged.
	reading = func(r io.ReadCloser) io.ReadCloser { return failing{r, io.LimitReader(r, 100), io.EOF} }
	var damaged *backup.DamagedError
	if err := s.take(context.Background(), backup.Scheduled{}); !errors.As(err, &damaged) {
		t.Errorf("cut: %v", err)
	}
	if path, n := newestIn(t, dir); n != 1 || path != right || len(s.unchecked) > 0 {
		t.Errorf("%d are there, %s is the newest", n, path)
	}
}

// TestSurplus: of the backups that count as many are kept as there are to be, and of those
// that were not checked as many at most, and none behind these.
func TestSurplus(t *testing.T) {
	for _, c := range []struct{ all, want string }{ // newest first; u: not checked, x: goes
		{"", ""},
		{"c", "c"},
		{"ccc", "ccx"},
		{"uc", "uc"},
		{"uccc", "uccx"},
		{"uucuc", "uucxc"},
		{"uuuccc", "uuxccx"},
		{"cucuu", "cucxx"},
		{"cuuuuc", "cuuxxc"},
		{"uuuuuu", "uuxxxx"}, // as where nothing can be read
		{"uuuuuc", "uuxxxc"},
	} {
		s := &schedule{cfg: Backup{Keep: 2}}
		var all []backup.Scheduled
		for i := range c.all {
			all = append(all, backup.Scheduled{Name: fmt.Sprint(i)})
			if c.all[i] == 'u' {
				s.unchecked = append(s.unchecked, &written{name: all[i].Name})
			}
		}
		got, last := []byte(c.all), -1
		for _, old := range s.surplus(all) {
			i, err := strconv.Atoi(old.Name)
			must(t, err)
			if i <= last {
				t.Errorf("%s: %d is said after %d", c.all, i, last)
			}
			got[i], last = 'x', i
		}
		if string(got) != c.want {
			t.Errorf("of %s: %s, want %s", c.all, got, c.want)
		}
	}
}

// TestUncheckedBackupsDoNotCount: as many are kept as there are to be, beside those that
// could not be read again, whatever was written since. These are checked later all the same,
// but no more of them are kept than of the others.
func TestUncheckedBackupsDoNotCount(t *testing.T) {
	t.Parallel()
	n := ready(t, config(t))
	fillNode(t, n, 10)
	u := newUser(t, n)
	dir := t.TempDir()
	var older []string
	for i := range 3 {
		older = append(older, backup.Name(time.Now().Add(time.Duration(i-9)*time.Hour), uint64(i+1)))
		must(t, os.WriteFile(filepath.Join(dir, older[i]), nil, 0o600))
	}
	reading := func(r io.ReadCloser) io.ReadCloser { return r }
	place := meddling{Directory: backup.Directory{Path: dir, Owner: "me"}, opened: func(r io.ReadCloser) io.ReadCloser { return reading(r) }}
	s := &schedule{n: n, cfg: Backup{Keep: 2}, place: place}
	// look finds that the next one is due, or that it is not.
	look := func(every time.Duration) error {
		u.want(http.StatusOK, "", "PUT", "/v1/kv/k/0000000", "v") // so that the next one is of a later revision
		s.cfg.Every, s.lastOwn, s.lastTry = every, time.Time{}, time.Time{}
		return s.look(context.Background())
	}
	want := func(taken uint64, unchecked, there int, kept ...string) {
		t.Helper()
		if _, n := newestIn(t, dir); n != there || s.taken.Load() != taken || len(s.unchecked) != unchecked {
			t.Errorf("%d are there, %d were taken, %d not checked; want %d, %d, %d", n, s.taken.Load(), len(s.unchecked), there, taken, unchecked)
		}
		for _, name := range kept {
			if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
				t.Errorf("one that is to be kept: %v", err)
			}
		}
	}
	unreadable := func(r io.ReadCloser) io.ReadCloser { return failing{r, io.LimitReader(r, 100), unix.EIO} }
	reading = unreadable
	for unchecked := 1; unchecked <= 3; unchecked++ {
		if err := look(1); !errors.Is(err, unix.EIO) {
			t.Errorf("got %v", err)
		}
		want(0, unchecked, 2+min(unchecked, 2), older[1:]...)
	}
	// The next one can be read, and those before it can't.
	reading = func(r io.ReadCloser) io.ReadCloser { reading = unreadable; return r }
	if err := look(1); !errors.Is(err, unix.EIO) {
		t.Errorf("got %v", err)
	}
	want(1, 2, 4, older[2])
	reading = func(r io.ReadCloser) io.ReadCloser { return r }
	must(t, look(time.Hour))
	want(3, 0, 2)
}
