package raftsm

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/cairnkv/cairn/raftsm/raftlog"
	"github.com/oklog/ulid/v2"
)

func TestParseInitialCluster(t *testing.T) {
	for _, c := range []struct {
		text string
		want []InitialMember
		err  string
	}{
		{text: "n1=a:1", want: []InitialMember{{"n1", "a:1"}}},
		{text: "n2=b:1,n1=a:1", want: []InitialMember{{"n1", "a:1"}, {"n2", "b:1"}}},
		{text: " n1=a:1 , n2=[::1]:7481 ", want: []InitialMember{{"n1", "a:1"}, {"n2", "[::1]:7481"}}},
		{text: "", err: `has "" where name=host:port is expected`},
		{text: "n1", err: `has "n1" where name=host:port is expected`},
		{text: "n1=", err: "name=host:port"},
		{text: "=a:1", err: "name=host:port"},
		{text: "n1=a:1,", err: "name=host:port"},
		{text: "n1=a:1,n1=b:1", err: "twice"},
		{text: "n1=a:1,n2=a:1", err: "twice"},
	} {
		got, err := ParseInitialCluster(c.text)
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%q gives %v, want %v", c.text, got, c.want)
		}
		wantError(t, c.text, err, c.err)
	}
}

// wantError checks that an error says something; "" means that there is none.
func wantError(t *testing.T, what string, err error, says string) {
	t.Helper()
	if (err == nil) != (says == "") || err != nil && !strings.Contains(err.Error(), says) {
		t.Errorf("%s: got error %v, want %q", what, err, says)
	}
}

// TestIdentityIsAgreed makes the identities of three members that have not
// spoken: they name the same cluster, and each is another member.
func TestIdentityIsAgreed(t *testing.T) {
	texts := []string{"n1=a:1,n2=b:1,n3=c:1", "n3=c:1,n2=b:1,n1=a:1", " n2=b:1, n1=a:1, n3=c:1"}
	var all []Identity
	for i, text := range texts {
		d, err := OpenDir(filepath.Join(t.TempDir(), "data"), Spec{Name: []string{"n1", "n2", "n3"}[i], InitialCluster: text})
		must(t, err)
		d.Close()
		all = append(all, d.Identity)
	}
	for i, id := range all {
		if id.ClusterID != all[0].ClusterID || id.Replica != uint64(i+1) || !reflect.DeepEqual(id.Members, all[0].Members) {
			t.Errorf("member %d is %+v, the first %+v", i+1, id, all[0])
		}
	}
	// A cluster that is restored on the same addresses is another one, and its
	// members find together by the backup.
	ids := map[ulid.ULID]bool{all[0].ClusterID: true}
	deployments := map[uint64]bool{deploymentID(all[0].ClusterID): true}
	for _, spec := range []Spec{
		{Name: "n1", InitialCluster: "n1=a:1,n2=b:1,n3=c:2"},
		{Name: "n1", InitialCluster: texts[0], Backup: "aa"},
		{Name: "n1", InitialCluster: texts[0], Backup: "bb"},
	} {
		other, err := newIdentity(spec)
		must(t, err)
		if ids[other.ClusterID] || deployments[deploymentID(other.ClusterID)] {
			t.Error("two clusters have one id")
		}
		ids[other.ClusterID], deployments[deploymentID(other.ClusterID)] = true, true
		spec.Name = "n2"
		second, err := newIdentity(spec)
		must(t, err)
		if second.ClusterID != other.ClusterID || second.Backup != spec.Backup {
			t.Errorf("%+v is not of the cluster of %+v", second, other)
		}
	}
}

func TestIdentityRefusals(t *testing.T) {
	for _, c := range []struct {
		name  string
		first Spec
		then  Spec
		err   string
	}{
		{name: "same again", first: Spec{Name: "n1", PeerAddress: "a:1"}, then: Spec{Name: "n1", PeerAddress: "a:1"}},
		{name: "nothing said again", first: Spec{Name: "n7", PeerAddress: "a:1"}},
		{name: "the cluster is looked at once", first: Spec{PeerAddress: "a:1"}, then: Spec{InitialCluster: "n1=x:1,n2=y:1"}},
		{name: "wrong name", first: Spec{Name: "n1", PeerAddress: "a:1"}, then: Spec{Name: "n2"}, err: `belongs to the node "n1", not to "n2"`},
		{name: "wrong address", first: Spec{PeerAddress: "a:1"}, then: Spec{PeerAddress: "a:2"}, err: "is a:1 and can't become a:2: start it with --peer-advertise a:1, or replace the member"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "data")
			d, err := OpenDir(path, c.first)
			must(t, err)
			if !d.Fresh {
				t.Error("not fresh at the first start")
			}
			first := d.Identity
			d.Close()
			d, err = OpenDir(path, c.then)
			wantError(t, c.name, err, c.err)
			if err != nil {
				return
			}
			defer d.Close()
			if d.Fresh || !reflect.DeepEqual(d.Identity, first) {
				t.Errorf("it was %+v and is %+v (fresh: %v)", first, d.Identity, d.Fresh)
			}
		})
	}
	for _, c := range []struct {
		name string
		spec Spec
		err  string
	}{
		{"not in its cluster", Spec{Name: "n9", InitialCluster: "n1=a:1,n2=b:1"}, `does not name this node, "n9"`},
		{"elsewhere in its cluster", Spec{Name: "n1", PeerAddress: "z:1", InitialCluster: "n1=a:1"}, "says that n1 is at a:1, this node's peer address is z:1"},
		{"no cluster", Spec{InitialCluster: "n1"}, "name=host:port"},
	} {
		path := filepath.Join(t.TempDir(), "data")
		_, err := OpenDir(path, c.spec)
		wantError(t, c.name, err, c.err)
		// The mistake leaves nothing behind that the corrected start trips over.
		d, err := OpenDir(path, Spec{PeerAddress: "a:1"})
		must(t, err)
		d.Close()
	}
}

// TestDirectoryRefusals goes through directories that are not fit.
func TestDirectoryRefusals(t *testing.T) {
	fresh := func(t *testing.T, path string) {
		d, err := OpenDir(path, Spec{PeerAddress: "a:1"})
		must(t, err)
		d.Close()
	}
	edit := func(change func(*Identity)) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			fresh(t, path)
			file := filepath.Join(path, identityFile)
			id, err := readIdentity(file)
			must(t, err)
			change(&id)
			must(t, writeIdentity(file, id))
		}
	}
	for _, c := range []struct {
		name string
		make func(t *testing.T, path string)
		err  string
	}{
		{"missing", func(*testing.T, string) {}, ""},
		{"empty", func(t *testing.T, path string) { must(t, os.Mkdir(path, 0o700)) }, ""},
		{"others may read it", func(t *testing.T, path string) { must(t, os.Mkdir(path, 0o755)) }, ""},
		{"others may write it", func(t *testing.T, path string) {
			must(t, os.Mkdir(path, 0o700))
			must(t, os.Chmod(path, 0o707))
		}, "may be written by others (mode 0707); chmod 0700 it"},
		{"the group may write it", func(t *testing.T, path string) {
			must(t, os.Mkdir(path, 0o700))
			must(t, os.Chmod(path, 0o770))
		}, "may be written by others (mode 0770)"},
		{"a file", func(t *testing.T, path string) { must(t, os.WriteFile(path, nil, 0o600)) }, "not a directory"},
		{"a link", func(t *testing.T, path string) { must(t, os.Symlink(t.TempDir(), path)) }, "links are not followed"},
		{"store without identity", func(t *testing.T, path string) {
			must(t, os.MkdirAll(filepath.Join(path, storeDir, "shard-1"), 0o700))
		}, "has data but no IDENTITY file (there is store/shard-1)"},
		{"log without identity", func(t *testing.T, path string) {
			must(t, os.MkdirAll(filepath.Join(path, raftDir, lostAndFound), 0o700))
			must(t, os.WriteFile(filepath.Join(path, raftDir, "NODEHOST.ID"), nil, 0o600))
		}, "has data but no IDENTITY file (there is raft/NODEHOST.ID)"},
		{"a log that a link leads to", func(t *testing.T, path string) {
			must(t, os.Mkdir(path, 0o700))
			volume := t.TempDir()
			must(t, os.Symlink(volume, filepath.Join(path, raftDir)))
			must(t, os.Mkdir(filepath.Join(volume, "host"), 0o700))
		}, "has data but no IDENTITY file (there is raft/host)"},
		{"a link to nothing", func(t *testing.T, path string) {
			must(t, os.Mkdir(path, 0o700))
			must(t, os.Symlink(filepath.Join(t.TempDir(), "none"), filepath.Join(path, storeDir)))
		}, "store leads nowhere"},
		{"a file for the store", func(t *testing.T, path string) {
			must(t, os.Mkdir(path, 0o700))
			must(t, os.WriteFile(filepath.Join(path, storeDir), nil, 0o600))
		}, "not a directory"},
		{"volumes", func(t *testing.T, path string) {
			must(t, os.MkdirAll(filepath.Join(path, raftDir, lostAndFound), 0o700))
			must(t, os.Symlink(t.TempDir(), filepath.Join(path, storeDir)))
		}, ""},
		{"a first start that was cut off", func(t *testing.T, path string) {
			must(t, os.MkdirAll(path, 0o700))
			must(t, os.WriteFile(filepath.Join(path, identityFile+".new"), []byte(`{"form`), 0o600))
		}, ""},
		{"identity cut off", func(t *testing.T, path string) {
			fresh(t, path)
			must(t, os.Truncate(filepath.Join(path, identityFile), 20))
		}, "is damaged"},
		{"identity empty", func(t *testing.T, path string) {
			fresh(t, path)
			must(t, os.Truncate(filepath.Join(path, identityFile), 0))
		}, "is damaged"},
		{"identity of a version to come", edit(func(id *Identity) { id.Format++ }), "has format 2, this version of Cairn knows 1"},
		{"identity without replica", edit(func(id *Identity) { id.Replica = 0 }), "is damaged"},
		{"identity without cluster", edit(func(id *Identity) { id.ClusterID = ulid.ULID{} }), "is damaged"},
		{"identity that contradicts itself", edit(func(id *Identity) { id.PeerAddress = "b:1" }), "is damaged"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "data")
			c.make(t, path)
			for range 2 { // refusing changes nothing
				d, err := OpenDir(path, Spec{})
				wantError(t, c.name, err, c.err)
				if err == nil {
					d.Close()
				}
			}
		})
	}
}

// TestModes: what is made is nobody else's.
func TestModes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "above", "data")
	d, err := OpenDir(path, Spec{PeerAddress: "a:1"})
	must(t, err)
	defer d.Close()
	for file, want := range map[string]os.FileMode{path: 0o700, filepath.Join(path, identityFile): 0o600, filepath.Join(path, lockFile): 0o600} {
		info, err := os.Stat(file)
		must(t, err)
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s has mode %04o, want %04o", filepath.Base(file), got, want)
		}
	}
}

// TestLocked opens a directory twice.
func TestLocked(t *testing.T) {
	m := lone(t)
	m.open(t)
	second := &member{path: m.path, spec: m.spec}
	wantError(t, "second", second.tryOpen(), "is locked by another process")
	m.mustPut(t, "k", "v") // the first isn't disturbed
	m.close(t)
	must(t, second.tryOpen())
	second.wantValue(t, "k", "v")
	second.close(t)
}

// TestForeignParts puts together what doesn't belong together: each start is
// refused, with an error that says what to do, and leaves everything as it is.
func TestForeignParts(t *testing.T) {
	type parts struct{ dir, early, late, other string }
	// The directory of a member at two moments, and that of another.
	prepare := func(t *testing.T) (m *member, p parts) {
		m = lone(t)
		copyOf := func(m *member) string {
			to := t.TempDir()
			must(t, os.CopyFS(to, os.DirFS(m.path)))
			return to
		}
		p.dir = m.path
		write := func(m *member, n int) {
			m.open(t)
			for range n {
				m.mustPut(t, "k", "v")
			}
			m.close(t)
		}
		write(m, 5)
		p.early = copyOf(m)
		write(m, 20)
		p.late = copyOf(m)
		other := lone(t)
		other.spec = m.spec // the same address, another cluster
		write(other, 30)
		p.other = other.path
		return m, p
	}
	replace := func(t *testing.T, from, to, name string) {
		must(t, os.RemoveAll(filepath.Join(to, name)))
		must(t, os.CopyFS(filepath.Join(to, name), os.DirFS(filepath.Join(from, name))))
	}
	for _, c := range []struct {
		name string
		do   func(t *testing.T, p parts)
		err  string
		is   error
	}{
		{name: "nothing", do: func(*testing.T, parts) {}},
		{name: "an old store under its log", do: func(t *testing.T, p parts) { replace(t, p.early, p.dir, storeDir) }},
		{
			name: "an old log under its store", do: func(t *testing.T, p parts) { replace(t, p.early, p.dir, raftDir) },
			is: raftlog.ErrLogTruncated,
		},
		{
			name: "no log under its store", do: func(t *testing.T, p parts) { must(t, os.RemoveAll(filepath.Join(p.dir, raftDir))) },
			is: raftlog.ErrLogTruncated,
		},
		{
			name: "no store with its log", do: func(t *testing.T, p parts) { must(t, os.RemoveAll(filepath.Join(p.dir, storeDir))) },
			err: "is missing or has no identity, but this replica has a log: start this member anew under a new replica id",
		},
		{
			name: "neither log nor store", do: func(t *testing.T, p parts) {
				must(t, os.RemoveAll(filepath.Join(p.dir, raftDir)))
				must(t, os.RemoveAll(filepath.Join(p.dir, storeDir)))
			},
			is: raftlog.ErrLogTruncated, err: "this member has run before",
		},
		{
			name: "another member's store", do: func(t *testing.T, p parts) { replace(t, p.other, p.dir, storeDir) },
			err: "belongs to member",
		},
		{
			name: "another cluster's log", do: func(t *testing.T, p parts) { replace(t, p.other, p.dir, raftDir) },
			err: "the log in it must be this member's own",
		},
		{
			name: "a store without its identity", do: func(t *testing.T, p parts) {
				must(t, os.Remove(filepath.Join(p.dir, storeDir, "shard-1", identityFile)))
			},
			err: "has no identity",
		},
		{
			name: "an identity with another name", do: func(t *testing.T, p parts) {
				file := filepath.Join(p.dir, identityFile)
				b, err := os.ReadFile(file)
				must(t, err)
				b = bytes.Replace(b, []byte(`"n1"`), []byte(`"n3"`), 1)
				must(t, os.WriteFile(file, b, 0o600))
			},
			err: "IDENTITY is damaged",
		},
		{
			name: "a damaged file of Dragonboat's", do: func(t *testing.T, p parts) {
				must(t, os.Truncate(filepath.Join(p.dir, raftDir, "NODEHOST.ID"), 10))
			},
			err: "NODEHOST.ID in it is damaged; remove both",
		},
		{
			name: "no files of Dragonboat's", do: func(t *testing.T, p parts) {
				must(t, os.Remove(filepath.Join(p.dir, raftDir, "NODEHOST.ID")))
				must(t, os.Remove(filepath.Join(p.dir, raftDir, "dragonboat.ds")))
			},
		},
		{
			name: "no identity", do: func(t *testing.T, p parts) { must(t, os.Remove(filepath.Join(p.dir, identityFile))) },
			err: "has data but no IDENTITY file",
		},
		{
			name: "another member's identity", do: func(t *testing.T, p parts) {
				b, err := os.ReadFile(filepath.Join(p.other, identityFile))
				must(t, err)
				must(t, os.WriteFile(filepath.Join(p.dir, identityFile), b, 0o600))
			},
			err: "the log in it must be this member's own",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, p := prepare(t)
			c.do(t, p)
			for range 2 {
				err := m.tryOpen()
				t.Log(err)
				switch {
				case c.is != nil:
					if !errors.Is(err, c.is) || !Damaged(err) || !strings.Contains(err.Error(), c.err) {
						t.Errorf("got %v, want %v", err, c.is)
					}
				case c.err != "":
					wantError(t, c.name, err, c.err)
				default:
					must(t, err)
					m.wantValue(t, "k", "v")
					if revision, _ := m.shard.Store().Revisions(); revision != 26 {
						t.Errorf("revision %d, want 26", revision)
					}
				}
				if err == nil {
					m.close(t)
				}
			}
			// Put right, it starts.
			must(t, os.RemoveAll(p.dir))
			must(t, os.CopyFS(p.dir, os.DirFS(p.late)))
			must(t, os.Chmod(p.dir, 0o700))
			must(t, m.tryOpen())
			m.wantValue(t, "k", "v")
			m.close(t)
		})
	}
}

// TestStartedMark: a member that has run does not begin again, whichever version it ran
// first under. One that was killed in its first start does, at any step, and so does one
// in a directory in which another has run.
func TestStartedMark(t *testing.T) {
	m := lone(t)
	lose := func() {
		must(t, os.RemoveAll(filepath.Join(m.path, raftDir)))
		must(t, os.RemoveAll(filepath.Join(m.path, storeDir)))
	}
	start := func() {
		t.Helper()
		must(t, m.tryOpen())
		m.mustPut(t, "k", "v")
		m.close(t)
	}
	d, err := OpenDir(m.path, m.spec)
	must(t, err)
	mark := d.startedFile(1)
	must(t, os.WriteFile(mark, []byte(ulid.ULID{1}.String()), 0o600))
	d.Close() // killed with nothing but an identity
	d, err = OpenDir(m.path, m.spec)
	must(t, err)
	must(t, d.checkStore(1, false))
	d.Close() // killed before there was a log
	start()
	must(t, os.Remove(mark)) // as before there were marks, and killed before there was one
	start()
	lose()
	for range 2 {
		wantError(t, "log and store are gone", m.tryOpen(), "this member has run before")
	}
	if _, err := os.Stat(filepath.Join(m.path, storeDir)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a refused start has made a store: %v", err)
	}
	d, unreadable, err := LookAt(m.path)
	must(t, errors.Join(unreadable, err))
	_, err = d.ExamineLog(t.Context(), 1, 0)
	wantError(t, "an examination", err, "this member has run before")
	d.Close()
	must(t, os.Remove(filepath.Join(m.path, identityFile)))
	must(t, os.RemoveAll(filepath.Join(m.path, raftDir)))
	start() // as another member
}

// TestLostAndFoundIsNoLog: what the repair of a file system has found in the one of the
// logs is not taken for one.
func TestLostAndFoundIsNoLog(t *testing.T) {
	d := &Dir{Path: t.TempDir()}
	must(t, os.MkdirAll(filepath.Join(d.Path, raftDir, lostAndFound, "#12", "tandb"), 0o700))
	if dir, err := d.logDir(); dir != "" || err != nil {
		t.Errorf("found %s, %v", dir, err)
	}
	log := filepath.Join(d.Path, raftDir, "host", "7")
	must(t, os.MkdirAll(filepath.Join(log, "tandb"), 0o700))
	if dir, err := d.logDir(); dir != log || err != nil {
		t.Errorf("found %s, %v", dir, err)
	}
}

// TestOldStoreUnderCutLog puts an old store under a log that has been cut since
// then: what lies between is nowhere.
func TestOldStoreUnderCutLog(t *testing.T) {
	m := lone(t)
	m.cfg.SnapshotEntries = 20
	m.open(t)
	m.mustPut(t, "k", "v")
	m.close(t)
	early := t.TempDir()
	must(t, os.CopyFS(early, os.DirFS(filepath.Join(m.path, storeDir))))
	m.open(t)
	for range 200 {
		m.mustPut(t, "k", "w")
	}
	m.close(t)
	late := t.TempDir()
	must(t, os.CopyFS(late, os.DirFS(filepath.Join(m.path, storeDir))))

	for _, c := range []struct {
		store string
		err   string
	}{
		{early, "the log begins after entry"},
		{late, ""},
	} {
		must(t, os.RemoveAll(filepath.Join(m.path, storeDir)))
		must(t, os.CopyFS(filepath.Join(m.path, storeDir), os.DirFS(c.store)))
		err := m.tryOpen()
		wantError(t, "store", err, c.err)
		if err == nil {
			m.wantValue(t, "k", "w")
			m.close(t)
		}
	}
}

// TestKilledWhileItBegins: a first start that was killed while it wrote the identity
// of its store is begun anew. Anything else there without an identity is data.
func TestKilledWhileItBegins(t *testing.T) {
	d, err := OpenDir(filepath.Join(t.TempDir(), "data"), Spec{Name: "n1", PeerAddress: "a:1"})
	must(t, err)
	defer d.Close()
	store := d.shardDir(1)
	must(t, os.MkdirAll(store, 0o700))
	must(t, os.WriteFile(filepath.Join(store, identityFile+newSuffix), []byte(`{"clus`), 0o600))
	must(t, os.WriteFile(filepath.Join(store, "CURRENT"), nil, 0o600))
	wantError(t, "data without an identity", d.checkStore(1, false), "has data but no identity")
	must(t, os.Remove(filepath.Join(store, "CURRENT")))
	must(t, d.checkStore(1, false))
	got, err := readIdentity(filepath.Join(store, identityFile))
	must(t, err)
	if !reflect.DeepEqual(got, d.Identity) {
		t.Errorf("the store's identity is %+v, want %+v", got, d.Identity)
	}
	must(t, d.checkStore(1, true))
}
