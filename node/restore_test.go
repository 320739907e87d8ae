package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/backup"
	"github.com/cairnkv/cairn/client"
	"github.com/cairnkv/cairn/kv"
	"github.com/cairnkv/cairn/storage"
)

// save takes a backup of a node into a file, and returns what it is.
func save(t testing.TB, n *Node, path string) backup.Info {
	t.Helper()
	b, err := face{n}.Backup()
	must(t, err)
	defer b.Close()
	var file bytes.Buffer
	must(t, b.Save(context.Background(), &file))
	must(t, os.WriteFile(path, file.Bytes(), 0o600))
	info, err := backup.Verify(&file)
	must(t, err)
	return info
}

// held keeps a restore from going beyond a part.
type held struct{ last atomic.Uint64 }

func holdAt(part uint64) *held {
	h := &held{}
	h.last.Store(part)
	return h
}

func (h *held) beforePart(part uint64) error {
	if part > h.last.Load() {
		return errors.New("the test holds it")
	}
	return nil
}

func (h *held) release() { h.last.Store(1 << 62) }

// reached reports whether a node has applied all up to where a restore is held.
func (h *held) reached(n *Node) bool {
	restoring, next := n.shard.Store().Restoring()
	return restoring && next == h.last.Load()+1
}

// fillNode writes keys, some of them on leases, and overwrites and deletes some.
func fillNode(t testing.TB, n *Node, keys int) {
	t.Helper()
	lease := kv.LeaseID{1, 2, 3}
	propose := func(c *kv.Command) {
		t.Helper()
		r, err := n.shard.Propose(context.Background(), c)
		must(t, err)
		must(t, r.Err())
	}
	propose(&kv.Command{Kind: kv.KindLeaseGrant, Lease: kv.Lease{ID: lease, TTLMillis: 3_600_000}})
	for from := 0; from < keys; from += 1000 {
		txn := &kv.Txn{}
		for i := from; i < min(from+1000, keys); i++ {
			op := kv.Op{Type: kv.OpPut, Key: fmt.Appendf(nil, "k/%07d", i), Value: fmt.Appendf(nil, "value %d", i)}
			if i%100 == 0 {
				op.Lease = lease
			}
			txn.Then = append(txn.Then, op)
		}
		propose(&kv.Command{Kind: kv.KindTxn, Time: time.Now().UnixMilli(), Txn: txn})
	}
	propose(put("k/0000001", "again"))
	propose(&kv.Command{Kind: kv.KindTxn, Txn: &kv.Txn{Then: []kv.Op{{Type: kv.OpDelete, Range: kv.SingleKey([]byte("k/0000002"))}}}})
}

// sameContent wants a node to have the keys of a backup, and no others.
func sameContent(t testing.TB, n *Node, want backup.Info) {
	t.Helper()
	got := save(t, n, filepath.Join(t.TempDir(), "again"))
	if got.ContentHash != want.ContentHash || got.Keys != want.Keys || got.Leases != want.Leases {
		t.Errorf("restored %+v, want %+v", got.Trailer, want.Trailer)
	}
}

// TestRestoreOne restores a cluster of one, by serve and by itself, and restarts
// it. Whoever comes with a position of the old cluster is told.
func TestRestoreOne(t *testing.T) {
	old := ready(t, config(t))
	fillNode(t, old, 5_000)
	newUser(t, old).want(201, "", "PUT", "/v1/kv/short?ttl=1h", "v")
	dir := t.TempDir()
	file := filepath.Join(dir, backup.Name(time.Now(), 1))
	info := save(t, old, file)
	must(t, os.WriteFile(filepath.Join(dir, backup.Name(time.Now().Add(-time.Hour), 1)), []byte("an older one, which is damaged"), 0o600))

	for _, from := range []string{file, dir} {
		cfg := config(t)
		cfg.RestoreFrom = from
		n := ready(t, cfg)
		sameContent(t, n, info)
		s := n.Status()
		if s.ClusterID == old.Status().ClusterID || s.Revision < info.Revision+1<<20 || s.CompactRevision != s.Revision {
			t.Errorf("the new cluster %s is at %d, compacted at %d; the backup is of %d", s.ClusterID, s.Revision, s.CompactRevision, info.Revision)
		}
		u := newUser(t, n)
		u.want(200, "again", "GET", "/v1/kv/k/0000001", "")
		u.want(404, "key-not-found", "GET", "/v1/kv/k/0000002", "")
		for _, position := range []uint64{2, info.Revision, info.Revision + 1, s.Revision - 1} {
			u.want(410, `"code":"compacted"`, "GET", fmt.Sprintf("/v1/kv/k/0000001?revision=%d", position), "")
			u.want(410, `"code":"compacted"`, "GET", fmt.Sprintf("/v1/watch?prefix=k/&from_revision=%d", position), "")
			u.want(410, `"code":"compacted"`, "GET", fmt.Sprintf("/v1/watch?prefix=k/&wait=1s&from_revision=%d", position), "")
		}
		// The cursors of a list are signed by the cluster, which is another one.
		cursor := func(u *user) string {
			_, body, err := u.try("GET", "/v1/kv?prefix=k/&limit=1", "")
			must(t, err)
			var list api.List
			must(t, json.Unmarshal([]byte(body), &list))
			return list.NextCursor
		}
		u.want(400, "bad-cursor", "GET", "/v1/kv?prefix=k/&limit=1&cursor="+cursor(newUser(t, old)), "")
		u.want(200, "k/0000001", "GET", "/v1/kv?prefix=k/&limit=1&cursor="+cursor(u), "")
		u.want(201, fmt.Sprintf(`"revision":%d`, s.Revision+1), "PUT", "/v1/kv/new", "v")

		// What has been restored starts as any other, with and without the flag.
		must(t, n.Close())
		for _, from := range []string{"", from, filepath.Join(t.TempDir(), "nowhere")} {
			cfg.RestoreFrom = from
			n = ready(t, cfg)
			newUser(t, n).want(200, "v", "GET", "/v1/kv/new", "")
			must(t, n.Close())
		}
	}
}

// TestRestoreThree restores a cluster of three: each member is told of the
// backup, the leader fills the cluster, and one that dies meanwhile is replaced
// by another.
func TestRestoreThree(t *testing.T) {
	t.Parallel()
	old := ready(t, config(t))
	fillNode(t, old, 30_000)
	file := filepath.Join(t.TempDir(), "backup")
	info := save(t, old, file)

	var cluster []string
	var configs []Config
	for i := range 3 {
		cfg := config(t)
		cfg.Name, cfg.RestoreFrom = fmt.Sprint("n", i+1), file
		configs = append(configs, cfg)
		cluster = append(cluster, cfg.Name+"="+cfg.PeerListen)
	}
	nodes := make([]*Node, 3)
	hold := holdAt(1)
	for i := range configs {
		configs[i].InitialCluster, configs[i].beforePart = strings.Join(cluster, ","), hold.beforePart
		nodes[i] = open(t, configs[i])
		u := newUser(t, nodes[i])
		if i == 0 {
			// Nothing is served before, on whichever member.
			u.want(503, `"code":"restoring"`, "PUT", "/v1/kv/k", "v")
			u.want(503, `"code":"restoring"`, "GET", "/v1/kv/k?consistency=stale", "")
			u.want(503, `"code":"restoring"`, "GET", "/v1/watch?prefix=k", "")
			u.want(503, `"code":"restoring"`, "GET", "/v1/snapshot", "")
			u.want(503, "restoring", "GET", "/readyz?verbose", "")
			u.want(200, "", "GET", "/v1/status", "")
			u.want(200, "cairn_restoring 1", "GET", "/metrics", "")
		}
	}
	// The leader goes in the middle of it, and comes back.
	leader := 0
	eventually(t, "a part is restored", func() bool {
		leader = slices.IndexFunc(nodes, func(n *Node) bool { return n.shard.IsLeader() })
		return leader >= 0 && hold.reached(nodes[leader])
	})
	must(t, nodes[leader].Close())
	hold.release()
	nodes[leader] = open(t, configs[leader])
	hashes := map[string]bool{}
	for _, n := range nodes {
		eventually(t, "the node is ready", func() bool { return n.Ready() == nil })
		sameContent(t, n, info)
		v, err := n.shard.Store().View()
		must(t, err)
		hash, err := v.Hash(context.Background(), 0)
		v.Close()
		must(t, err)
		hashes[fmt.Sprintf("%d %x", n.Status().Revision, hash)] = true
	}
	if len(hashes) != 1 {
		t.Errorf("the members differ: %v", hashes)
	}
	newUser(t, nodes[0]).want(201, "", "PUT", "/v1/kv/new", "v")
	newUser(t, nodes[1]).want(200, "v", "GET", "/v1/kv/new", "")
}

// TestRestoreThreeResumes ends all three members in the middle of a restore. When
// only one of them still has the backup, whoever leads hands on to it.
func TestRestoreThreeResumes(t *testing.T) {
	t.Parallel()
	old := ready(t, config(t))
	fillNode(t, old, 30_000)
	file := filepath.Join(t.TempDir(), "backup")
	info := save(t, old, file)
	configs := make([]Config, 3)
	var cluster []string
	for i := range configs {
		configs[i] = config(t)
		configs[i].Name, configs[i].RestoreFrom = fmt.Sprint("n", i+1), file
		cluster = append(cluster, configs[i].Name+"="+configs[i].PeerListen)
	}
	nodes := make([]*Node, 3)
	hold := holdAt(1)
	for i := range nodes {
		configs[i].InitialCluster, configs[i].beforePart = strings.Join(cluster, ","), hold.beforePart
		nodes[i] = open(t, configs[i])
	}
	eventually(t, "a part is restored", func() bool { return hold.reached(nodes[0]) })
	var wg sync.WaitGroup
	for _, n := range nodes {
		wg.Go(func() { _ = n.Close() })
	}
	wg.Wait()
	hold.release()
	for i := range nodes {
		if i < 2 {
			configs[i].RestoreFrom = ""
		}
		nodes[i] = open(t, configs[i])
	}
	for _, n := range nodes {
		eventually(t, "the node is ready", func() bool { return n.Ready() == nil })
		sameContent(t, n, info)
	}
}

// TestRestoreInterrupted ends a node in the middle of a restore. It goes on with
// the same backup, and with nothing else.
func TestRestoreInterrupted(t *testing.T) {
	t.Parallel()
	old := ready(t, config(t))
	fillNode(t, old, 50_000)
	dir := t.TempDir()
	file, other := filepath.Join(dir, backup.Name(time.Now(), 1)), filepath.Join(t.TempDir(), "other")
	info := save(t, old, file)
	newUser(t, old).want(200, "", "PUT", "/v1/kv/k/0000001", "v")
	save(t, old, other)

	cfg := config(t)
	cfg.RestoreFrom = file
	interrupted := func(part uint64) {
		t.Helper()
		hold := holdAt(part)
		cfg := cfg
		cfg.beforePart = hold.beforePart
		n := open(t, cfg)
		eventually(t, "a part is restored", func() bool { return hold.reached(n) })
		must(t, n.Close())
	}
	interrupted(1)
	for _, c := range []struct{ from, says string }{
		{"", "was interrupted: start it again with the same --restore-from"},
		{other, "is not the backup with the checksum " + info.SHA256},
		{filepath.Dir(other), "there is no backup in"},
		{filepath.Join(dir, "nowhere"), "no such file"},
	} {
		cfg := cfg
		cfg.RestoreFrom = c.from
		n := open(t, cfg)
		if err := n.Wait(); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("from %q: %v, want %q", c.from, err, c.says)
		}
		newUser(t, n).want(503, "restoring", "GET", "/v1/kv/k?consistency=stale", "")
		must(t, n.Close())
	}
	// A newer backup in the same directory is not what the restore began with.
	cfg.RestoreFrom = dir
	must(t, os.Rename(other, filepath.Join(dir, backup.Name(time.Now().Add(time.Hour), 1))))
	interrupted(2)
	sameContent(t, ready(t, cfg), info)
}

// TestRestoreOfAReplacedFile: where another backup takes the place of the file while
// the restore is interrupted, nothing of it is restored that differs, and with the
// right file it goes on.
func TestRestoreOfAReplacedFile(t *testing.T) {
	t.Parallel()
	old := ready(t, config(t))
	fillNode(t, old, 50_000)
	dir := t.TempDir()
	file, right, other := filepath.Join(dir, "backup"), filepath.Join(dir, "right"), filepath.Join(dir, "other")
	info := save(t, old, file)
	must(t, os.Link(file, right))
	newUser(t, old).want(200, "", "PUT", "/v1/kv/k/0049000", "of the other")
	save(t, old, other)

	cfg := config(t)
	cfg.RestoreFrom = file
	replaced := false
	first := cfg
	first.beforePart = func(part uint64) error {
		if part < 2 || replaced {
			return nil
		}
		replaced = true
		return errors.Join(os.Rename(other, file), errors.New("interrupted"))
	}
	n := open(t, first)
	if err := n.Wait(); err == nil || !strings.Contains(err.Error(), "was replaced by another backup") {
		t.Errorf("it ended with %v", err)
	}
	must(t, n.Close())
	must(t, os.Rename(right, file))
	sameContent(t, ready(t, cfg), info)
}

// TestRestoreOverACutConnection has the connection with the bucket end again and again
// while the backup is restored. It is read anew; nothing is wrong with it.
func TestRestoreOverACutConnection(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "cairn-test")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "not-a-secret")
	old := ready(t, config(t))
	fillNode(t, old, 20_000)
	file := filepath.Join(t.TempDir(), "backup")
	info := save(t, old, file)
	content, err := os.ReadFile(file)
	must(t, err)
	name := backup.Name(time.Now(), 1)
	var reads atomic.Int64
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, name) {
			fmt.Fprintf(w, "<ListBucketResult><Contents><Key>p/%s</Key></Contents></ListBucketResult>", name)
			return
		}
		w.Header().Set("Last-Modified", time.Now().UTC().Format(http.TimeFormat))
		w.Header().Set("Content-Length", fmt.Sprint(len(content)))
		// The first time it is checked, then it is restored.
		cut := map[int64]int{2: 0, 3: 7, 4: len(content) / 2, 5: len(content) - 1}
		if n, ends := cut[reads.Add(1)]; ends {
			w.WriteHeader(http.StatusOK)
			_, _ = w.Write(content[:n])
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler) // closes the connection
		}
		_, _ = w.Write(content)
	}))
	defer service.Close()
	cfg := config(t)
	cfg.RestoreFrom = "s3://backups/p?endpoint=" + service.URL + "&region=us-east-1"
	n := open(t, cfg)
	ended := make(chan error, 1)
	go func() { ended <- n.Wait() }()
	eventually(t, "the node is ready, or ended", func() bool { return n.Ready() == nil || len(ended) > 0 })
	if len(ended) > 0 {
		t.Fatalf("the node has ended: %v", <-ended)
	}
	sameContent(t, n, info)
	if n := reads.Load(); n != 6 {
		t.Errorf("it was read %d times", n)
	}
	must(t, n.Close())
	must(t, <-ended)
}

// TestRestoreRefused doesn't begin where it can't end, and then makes nothing.
func TestRestoreRefused(t *testing.T) {
	old := ready(t, config(t))
	fillNode(t, old, 10)
	dir := t.TempDir()
	file, damaged := filepath.Join(dir, "backup"), filepath.Join(t.TempDir(), backup.Name(time.Now(), 1))
	save(t, old, file)
	content, err := os.ReadFile(file)
	must(t, err)
	content[len(content)/2] ^= 1
	must(t, os.WriteFile(damaged, content, 0o600))
	for _, c := range []struct{ from, says string }{
		{filepath.Join(dir, "nowhere"), "no such file"},
		{dir, "there is no backup in"},
		{damaged, "is damaged at byte"},
		{filepath.Dir(damaged), "is damaged at byte"},
	} {
		cfg := config(t)
		cfg.RestoreFrom = c.from
		if _, err := Open(context.Background(), cfg); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("from %s: %v, want %q", c.from, err, c.says)
		}
		if _, err := os.Stat(cfg.DataDir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("from %s: something was made: %v", c.from, err)
		}
	}

	// A cluster that was written to is not overwritten.
	cfg := config(t)
	n := ready(t, cfg)
	newUser(t, n).want(201, "", "PUT", "/v1/kv/mine", "v")
	must(t, n.Close())
	cfg.RestoreFrom = file
	if _, err := Restore(context.Background(), cfg); err == nil || !strings.Contains(err.Error(), "has data already") {
		t.Errorf("into a directory that is in use: %v", err)
	}
	n = ready(t, cfg) // a node with data does not look at the flag
	newUser(t, n).want(200, "v", "GET", "/v1/kv/mine", "")
	newUser(t, n).want(404, "", "GET", "/v1/kv/k/0000001", "")
}

// TestRestoreIsNotShown: a request that was let in before the restore began sees nothing
// of it, whatever it reads.
func TestRestoreIsNotShown(t *testing.T) {
	t.Parallel()
	old := ready(t, config(t))
	fillNode(t, old, 50_000)
	cfg := config(t)
	cfg.RestoreFrom = filepath.Join(t.TempDir(), "backup")
	save(t, old, cfg.RestoreFrom)
	hold := holdAt(1)
	cfg.beforePart = hold.beforePart
	n := open(t, cfg)
	eventually(t, "a part is restored", func() bool { return hold.reached(n) })
	reads := map[string]func() error{
		"a key":          func() error { _, _, _, err := face{n}.Get([]byte("k/0000001")); return err },
		"a view":         func() error { v, err := face{n}.View(); return closed(v, err) },
		"a backup":       func() error { b, err := face{n}.Backup(); return closed(b, err) },
		"a time":         func() error { _, err := face{n}.RevisionAt(time.Now().UnixMilli()); return err },
		"a watch's past": func() error { v, err := past{n}.View(); return closed(v, err) },
	}
	for what, read := range reads {
		if read() == nil {
			t.Errorf("%s is shown in the midst of a restore", what)
		}
	}
	hold.release()
	eventually(t, "the node is ready", func() bool { return n.Ready() == nil })
	for what, read := range reads {
		if err := read(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// closed closes what was opened, if it was.
func closed(v interface{ Close() }, err error) error {
	if err == nil {
		v.Close()
	}
	return err
}

// TestRestoreAlone makes a directory that a node then serves.
func TestRestoreAlone(t *testing.T) {
	old := ready(t, config(t))
	fillNode(t, old, 3_000)
	file := filepath.Join(t.TempDir(), "backup")
	want := save(t, old, file)
	cfg := config(t)
	cfg.RestoreFrom = file
	info, err := Restore(context.Background(), cfg)
	must(t, err)
	if info.SHA256 != want.SHA256 {
		t.Errorf("restored %+v, want %+v", info, want)
	}
	if _, err := Restore(context.Background(), cfg); err == nil || !strings.Contains(err.Error(), "already") {
		t.Errorf("twice: %v", err)
	}
	cfg.RestoreFrom = ""
	sameContent(t, ready(t, cfg), want)
}

// TestRestoreAloneResumes gives an interrupted restore again, with the directory in which
// there is a newer backup by now. It goes on with the one that it began with.
func TestRestoreAloneResumes(t *testing.T) {
	t.Parallel()
	old := ready(t, config(t))
	fillNode(t, old, 50_000)
	dir := t.TempDir()
	first := filepath.Join(dir, backup.Name(time.Now(), 1))
	want := save(t, old, first)
	cfg := config(t)
	cfg.RestoreFrom = dir
	ctx, interrupt := context.WithCancel(context.Background())
	cfg.beforePart = func(part uint64) error {
		if part < 2 {
			return nil
		}
		interrupt()
		return ctx.Err()
	}
	if _, err := Restore(ctx, cfg); !errors.Is(err, context.Canceled) {
		t.Fatalf("interrupted: %v", err)
	}
	newUser(t, old).want(200, "", "PUT", "/v1/kv/k/0000001", "newer")
	save(t, old, filepath.Join(dir, backup.Name(time.Now(), 2)))
	cfg.beforePart = nil
	info, err := Restore(context.Background(), cfg)
	must(t, err)
	if info.SHA256 != want.SHA256 {
		t.Errorf("it went on with %+v, and had begun with %+v", info, want)
	}
	must(t, os.Remove(first))
	if _, err := Restore(context.Background(), cfg); err == nil || !strings.Contains(err.Error(), "has data already, of a restore") {
		t.Errorf("without that backup: %v", err)
	}
	cfg.RestoreFrom = ""
	sameContent(t, ready(t, cfg), want)
}

// TestRestoredLeases keeps what was left of leases.
func TestRestoredLeases(t *testing.T) {
	t.Parallel()
	old := ready(t, config(t))
	u := newUser(t, old)
	u.want(201, "", "PUT", "/v1/kv/long?ttl=1h", "v")
	u.want(201, "", "PUT", "/v1/kv/short?ttl=20s", "v")
	eventually(t, "time has passed", func() bool { return old.Status().ClockMillis > 1000 })
	file := filepath.Join(t.TempDir(), "backup")
	save(t, old, file)
	cfg := config(t)
	cfg.RestoreFrom = file
	n := ready(t, cfg)
	v, err := n.shard.Store().View()
	must(t, err)
	leases, _, err := v.Leases(context.Background(), kv.LeaseID{}, 10)
	v.Close()
	must(t, err)
	for _, l := range leases {
		if left := l.TTLMillis - l.RemainingMillis; left < 500 || l.RemainingMillis < l.TTLMillis-60_000 && l.TTLMillis > 60_000 {
			t.Errorf("%d ms are left of %d", l.RemainingMillis, l.TTLMillis)
		}
	}
	u = newUser(t, n)
	u.want(200, "v", "GET", "/v1/kv/short", "")
	eventually(t, "the short lease ends", func() bool { return n.Status().Leases == 1 })
	u.want(404, "", "GET", "/v1/kv/short", "")
	u.want(200, "v", "GET", "/v1/kv/long", "")
}

// TestRestoredRevision is beyond what was handed out, for as long as revisions
// can be told apart.
func TestRestoredRevision(t *testing.T) {
	taken := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		since time.Duration
		want  uint64 // behind the backup's; 0: refused
	}{
		{0, 1 << 20}, {-time.Minute, 1 << 20}, {-time.Minute - 1, 0}, {-time.Hour, 0}, {999 * time.Millisecond, 1 << 20}, {time.Second, 2 << 20},
		{24 * time.Hour, 86_401 << 20}, {200 * 365 * 24 * time.Hour, (200*365*86_400 + 1) << 20}, {280 * 365 * 24 * time.Hour, 0},
	} {
		got, err := restoredRevision(&backup.Header{Revision: 1000, TakenAt: taken}, taken.Add(c.since))
		if c.want == 0 && err == nil || c.want != 0 && (err != nil || got != 1000+c.want) {
			t.Errorf("after %v: %d, %v", c.since, got, err)
		}
	}
	// The backup of a member that was a day behind, and one of a clock that was ahead.
	for _, taken := range []time.Time{taken, taken.Add(30 * 24 * time.Hour)} {
		h := &backup.Header{Revision: 1000, TakenAt: taken, LastTime: taken.Add(-24 * time.Hour).UnixMilli()}
		if got, err := restoredRevision(h, time.UnixMilli(h.LastTime).Add(24*time.Hour)); err != nil || got != 1000+86_401<<20 {
			t.Errorf("a day after the last change: %d, %v", got, err)
		}
	}
}

// ahead is a store whose newest change is of a clock that was an hour ahead.
type ahead struct{ *storage.View }

func (a ahead) LastTime() int64 { return a.View.LastTime() + time.Hour.Milliseconds() }

// TestRestoreWithAClockBehind refuses a backup of the future before anything is made:
// nobody knows how many revisions were handed out since.
func TestRestoreWithAClockBehind(t *testing.T) {
	t.Parallel()
	old := ready(t, config(t))
	fillNode(t, old, 10)
	v, err := old.view()
	must(t, err)
	defer v.Close()
	header := old.backupHeader()
	header.TakenAt = header.TakenAt.Add(time.Hour)
	var file bytes.Buffer
	_, err = backup.Save(context.Background(), &file, ahead{v}, header, 1)
	must(t, err)
	cfg := config(t)
	cfg.RestoreFrom = filepath.Join(t.TempDir(), "backup")
	must(t, os.WriteFile(cfg.RestoreFrom, file.Bytes(), 0o600))
	_, openErr := Open(context.Background(), cfg)
	_, restoreErr := Restore(context.Background(), cfg)
	for _, err := range []error{openErr, restoreErr} {
		if err == nil || !strings.Contains(err.Error(), "set the clock") {
			t.Errorf("got %v", err)
		}
	}
	if _, err := os.Stat(cfg.DataDir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("something was made: %v", err)
	}
}

// TestRestoredWatchers has clients watch a cluster that is restored behind their
// backs, to before what they have seen, at the same address. Who follows the
// state sees it anew, and who follows changes is told that there is a gap.
func TestRestoredWatchers(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	cfg.Listen = freeAddress(t)
	old := ready(t, cfg)
	fillNode(t, old, 100)
	file := filepath.Join(t.TempDir(), "backup")
	save(t, old, file)
	newUser(t, old).want(201, "", "PUT", "/v1/kv/k/lost", "v")

	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	c, err := client.New(client.Config{Endpoints: []string{old.URL()}, HTTPClient: &http.Client{Transport: transport}})
	must(t, err)
	type seen struct {
		message client.WatchMessage
		err     error
	}
	follow := func(o client.WatchOptions) <-chan seen {
		o.Keys = []client.Keys{client.Prefix("k/")}
		messages := make(chan seen)
		go func() {
			defer close(messages)
			for m, err := range c.Watch(ctx, o) {
				select {
				case messages <- seen{m, err}:
				case <-ctx.Done():
					return
				}
			}
		}()
		return messages
	}
	// until takes messages up to one of a kind, and gives the keys of a state.
	until := func(messages <-chan seen, kind client.WatchKind) (keys map[string]bool, revision uint64) {
		t.Helper()
		keys = map[string]bool{}
		for s := range messages {
			must(t, s.err)
			for _, e := range s.message.Entries {
				keys[string(e.Key)] = true
			}
			if s.message.Kind == kind {
				return keys, s.message.Revision
			}
		}
		t.Fatal("the watch has ended")
		return nil, 0
	}
	state := follow(client.WatchOptions{Initial: true})
	if keys, _ := until(state, client.WatchSynced); !keys["k/lost"] {
		t.Error("what will be lost is not there")
	}
	changes := follow(client.WatchOptions{From: 2})
	until(changes, client.WatchChange)
	for _, last := until(changes, client.WatchChange); last < old.Status().Revision; {
		_, last = until(changes, client.WatchChange)
	}
	must(t, old.Close())

	again := config(t)
	again.Listen, again.RestoreFrom = cfg.Listen, file
	n := ready(t, again)
	until(state, client.WatchReset)
	keys, revision := until(state, client.WatchSynced)
	if keys["k/lost"] || len(keys) != 99 || revision != n.Status().Revision {
		t.Errorf("%d keys at %d", len(keys), revision)
	}
	if s := <-changes; !errors.Is(s.err, client.ErrCompacted) {
		t.Errorf("the watch of changes: %+v, %v", s.message, s.err)
	}
	newUser(t, n).want(201, "", "PUT", "/v1/kv/k/new", "v")
	until(state, client.WatchChange)
	cancel()
	for range state {
	}
}
