package node

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cairnkv/cairn/raftsm"
	"github.com/cairnkv/cairn/storage"
	"golang.org/x/sys/unix"
)

// tree is all that is in a directory: names, modes, times, contents.
func tree(t testing.TB, dir string) string {
	t.Helper()
	var b strings.Builder
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%s %s %s", path, info.Mode(), info.ModTime())
		if !d.IsDir() {
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, " %x", sha256.Sum256(content))
		}
		b.WriteString("\n")
		return nil
	}))
	return b.String()
}

func verdicts(findings []Finding) string {
	var b strings.Builder
	for _, f := range findings {
		fmt.Fprintf(&b, "%s %s: %s\n", f.Verdict, f.Check, f.Detail)
	}
	return b.String()
}

// wantFinding checks that there is a finding, and that something is to be done
// about it.
func wantFinding(t testing.TB, findings []Finding, check string, v Verdict, detail string) {
	t.Helper()
	for _, f := range findings {
		if f.Check == check && f.Verdict == v && strings.Contains(f.Detail, detail) && (v == Healthy || f.Next != "") {
			return
		}
	}
	t.Errorf("no finding %s %s %q in:\n%s", v, check, detail, verdicts(findings))
}

// TestDoctor looks at directories as a kill and as a close leave them: all is
// well, the content is told, and nothing was changed. A directory that a node has
// is left alone.
func TestDoctor(t *testing.T) {
	t.Parallel()
	_, killed, closed := fillForDamage(t)
	for _, dir := range []string{killed, closed} {
		must(t, os.Chmod(dir, 0o700))
		before := tree(t, dir)
		findings := Examine(context.Background(), dir)
		if !Sound(findings) {
			t.Errorf("%s", verdicts(findings))
		}
		for _, check := range []string{"directory", "disk", "identity", "store", "content", "log"} {
			wantFinding(t, findings, check, Healthy, "")
		}
		if after := tree(t, dir); after != before {
			t.Error("something was changed")
		}
	}
	cfg := config(t)
	cfg.DataDir = filepath.Join(filepath.Dir(cfg.DataDir), "data[1]*") // a name, and no pattern
	n := ready(t, cfg)
	u := newUser(t, n)
	u.want(201, "", "PUT", "/v1/kv/k", "v")
	findings := Examine(context.Background(), cfg.DataDir)
	wantFinding(t, findings, "directory", NotExamined, "a running node has")
	_, hash, err := u.try("GET", "/v1/hash", "")
	must(t, err)
	must(t, n.Close())
	findings = Examine(context.Background(), cfg.DataDir)
	told := false
	for _, f := range findings {
		if f.Check == "content" {
			told = strings.Contains(hash, strings.Fields(f.Detail)[1])
		}
	}
	if !told || !Sound(findings) {
		t.Errorf("the node says %s, the doctor\n%s", hash, verdicts(findings))
	}
	n = ready(t, cfg)
	must(t, n.Close())
}

// TestDoctorAfterCrash looks at what a kill leaves of tables that are being written, and
// of a very first start. A node starts on both.
func TestDoctorAfterCrash(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	n := ready(t, cfg)
	must(t, n.Close())
	databases, err := filepath.Glob(filepath.Join(cfg.DataDir, "store/shard-1/db-*"))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(databases[0], "000901.sst"), nil, 0o600))
	must(t, os.WriteFile(filepath.Join(databases[0], "000902.sst"), []byte("cut off"), 0o600))
	findings := Examine(context.Background(), cfg.DataDir)
	wantFinding(t, findings, "leftovers", Healthy, "2 files")
	if !Sound(findings) {
		t.Errorf("%s", verdicts(findings))
	}
	n = ready(t, cfg)
	must(t, n.Close())

	cfg = config(t)
	cfg.DataDir = filepath.Join(t.TempDir(), "first")
	dir, err := raftsm.OpenDir(cfg.DataDir, raftsm.Spec{PeerAddress: cfg.PeerListen})
	must(t, err)
	dir.Close()
	must(t, os.MkdirAll(filepath.Join(cfg.DataDir, "store/shard-1"), 0o700))
	must(t, os.WriteFile(filepath.Join(cfg.DataDir, "store/shard-1/IDENTITY.new"), []byte("{"), 0o600))
	if findings := Examine(context.Background(), cfg.DataDir); !Sound(findings) {
		t.Errorf("%s", verdicts(findings))
	}
	n = ready(t, cfg)
	must(t, n.Close())
}

// TestDoctorFinds says what each kind of damage is called.
func TestDoctorFinds(t *testing.T) {
	t.Parallel()
	_, _, closed := fillForDamage(t)
	one := func(dir, pattern string) string {
		t.Helper()
		found, err := filepath.Glob(filepath.Join(dir, pattern))
		must(t, err)
		if len(found) == 0 {
			t.Fatalf("there is no %s", pattern)
		}
		return found[0]
	}
	flip := func(file string, at int64) {
		b, err := os.ReadFile(file)
		must(t, err)
		b[at*int64(len(b))/100] ^= 1
		must(t, os.WriteFile(file, b, 0o600))
	}
	for _, c := range []struct {
		name          string
		damage        func(dir string)
		check, detail string
	}{
		{"nothing there", func(dir string) { must(t, os.RemoveAll(dir)) }, "directory", "no such file"},
		{"empty", func(dir string) { must(t, os.RemoveAll(dir)); must(t, os.Mkdir(dir, 0o700)) }, "directory", "is no data directory"},
		{"open to others", func(dir string) { must(t, os.Chmod(dir, 0o777)) }, "directory", "others may write"},
		{"identity", func(dir string) { flip(filepath.Join(dir, "IDENTITY"), 50) }, "identity", "damaged"},
		{"no identity", func(dir string) { must(t, os.Remove(filepath.Join(dir, "IDENTITY"))) }, "identity", "no such file"},
		{"no identity of the store", func(dir string) { must(t, os.Remove(filepath.Join(dir, "store/shard-1/IDENTITY"))) }, "store", "no identity"},
		{"table", func(dir string) { flip(one(dir, "store/shard-1/db-*/*.sst"), 30) }, "store", ".sst"},
		{"no table", func(dir string) { must(t, os.Remove(one(dir, "store/shard-1/db-*/*.sst"))) }, "store", "sstable"},
		{"no log", func(dir string) { must(t, os.RemoveAll(filepath.Join(dir, "raft"))) }, "log", "has applied entries of one"},
		{"host of the log", func(dir string) { flip(filepath.Join(dir, "raft/dragonboat.ds"), 50) }, "host files", "raft/dragonboat.ds is damaged"},
		{"name of the host", func(dir string) { must(t, os.Truncate(filepath.Join(dir, "raft/NODEHOST.ID"), 7)) }, "host files", "raft/NODEHOST.ID is damaged"},
		{"the log's end", func(dir string) {
			file := one(dir, "raft/*/*/tandb/node-*/*.log")
			must(t, os.Truncate(file, 100))
		}, "log", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			must(t, os.CopyFS(dir, os.DirFS(closed)))
			must(t, os.Chmod(dir, 0o700))
			c.damage(dir)
			findings := Examine(context.Background(), dir)
			wantFinding(t, findings, c.check, Sick, c.detail)
			if Sound(findings) {
				t.Error("it is called sound")
			}
		})
	}
}

// lasting is a context that is done once it was asked so many times.
type lasting struct {
	context.Context
	left int
}

func (c *lasting) Err() error {
	if c.left--; c.left < 0 {
		return context.Canceled
	}
	return nil
}

// TestDoctorNotSeen says of what could not be looked at just that, and not that it is
// damaged: nobody is to replace a member for it. And no copy of its log is left.
func TestDoctorNotSeen(t *testing.T) {
	cfg := config(t)
	n := ready(t, cfg)
	must(t, n.Close())
	look := func(ctx context.Context) []Finding {
		t.Helper()
		findings := Examine(ctx, cfg.DataDir)
		for _, f := range findings {
			if f.Next == nextReplace {
				t.Errorf("the member is to be replaced:\n%s", verdicts(findings))
			}
		}
		if Sound(findings) {
			t.Errorf("it is called sound:\n%s", verdicts(findings))
		}
		return findings
	}
	t.Setenv("TMPDIR", filepath.Join(t.TempDir(), "nowhere"))
	wantFinding(t, look(t.Context()), "log", NotExamined, "no such file")

	scratch := t.TempDir()
	t.Setenv("TMPDIR", scratch)
	empty := func(when any) {
		t.Helper()
		if left, err := os.ReadDir(scratch); err != nil || len(left) > 0 {
			t.Errorf("%v: %v is left, %v", when, left, err)
		}
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	wantFinding(t, look(canceled), "store", NotExamined, "canceled")
	dir, _, err := raftsm.LookAt(cfg.DataDir)
	must(t, err)
	for asked, err := 0, context.Canceled; err != nil; asked++ {
		_, err = dir.ExamineLog(&lasting{t.Context(), asked}, shardID, 0)
		if err != nil && unseen(err) == "" {
			t.Errorf("ended: %v", err)
		}
		empty(asked)
	}
	dir.Close()

	// A copy of the directory on another machine.
	logs, err := filepath.Glob(filepath.Join(cfg.DataDir, "raft/*/*/tandb"))
	must(t, err)
	host := filepath.Dir(filepath.Dir(logs[0]))
	must(t, os.Rename(host, filepath.Join(filepath.Dir(host), "elsewhere")))
	findings := look(t.Context())
	wantFinding(t, findings, "log", Healthy, "can be read to its end")
	wantFinding(t, findings, "host", Sick, `"elsewhere"`)
	empty("the host")
}

// TestUnseen tells what the disk or the system refused from what is damaged.
func TestUnseen(t *testing.T) {
	t.Parallel()
	corrupt := func(cause error) error {
		return errors.Join(&storage.CorruptError{Reason: "a record can't be read"}, cause)
	}
	for _, err := range []error{
		corrupt(unix.EIO), corrupt(unix.EMFILE), corrupt(&fs.PathError{Op: "read", Path: "log", Err: unix.EACCES}),
		fmt.Errorf("%w: %w", raftsm.ErrNotCopied, unix.ENOSPC), raftsm.ErrNotCopied, unix.EDQUOT, unix.ESTALE,
		context.Canceled, &storage.UnknownFormatError{Found: "cairn-store 2"},
	} {
		if next := unseen(err); next == "" || next == nextReplace {
			t.Errorf("%v: %q", err, next)
		}
	}
	for _, err := range []error{corrupt(nil), corrupt(unix.ENOENT), &storage.CorruptError{}, errors.New("anything else")} {
		if next := unseen(err); next != "" {
			t.Errorf("%v: %q", err, next)
		}
	}
}
