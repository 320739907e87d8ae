package node

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cairnkv/cairn/backup"
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
