package backup

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// Names sort by time, and only those that Name makes are taken for backups.
func TestNames(t *testing.T) {
	at := time.Date(2026, 11, 25, 23, 59, 59, 999_000_000, time.UTC)
	names := []string{Name(at, 12), Name(at.Add(time.Millisecond), 3), Name(at.Add(time.Hour), 2), Name(at.AddDate(1, 0, 0), 1)}
	if !slices.IsSorted(names) || names[0] != "cairn-20261125T235959.999Z-r12.cairn-backup" {
		t.Errorf("got %q", names)
	}
	for _, name := range names {
		if s, ok := ParseName(name); !ok || s.Name != name {
			t.Errorf("%s is not taken for one", name)
		}
	}
	if s, _ := ParseName(names[0]); !s.Taken.Equal(at) || s.Revision != 12 {
		t.Errorf("got %+v", s)
	}
	for _, name := range []string{
		"", "cairn-", "cairn-20261125T235959.999Z", "cairn-20261125T235959.999Z-r12", "cairn-x-r12.cairn-backup",
		"cairn-20261125T235959.999Z-r.cairn-backup", "cairn-20261125T235959.999Z-r-1.cairn-backup", "cairn-20261125T235959.999Z-r012.cairn-backup",
		"cairn-20261125T235959.999Z-r12-r13.cairn-backup", "." + names[0] + ".owner.partial", names[0] + ".gz", "x" + names[0],
	} {
		if _, ok := ParseName(name); ok {
			t.Errorf("%q is taken for one", name)
		}
	}
}

// The newest is the one of the latest revision, whatever a clock said; of several of
// one revision it is the last that was taken.
func TestNewest(t *testing.T) {
	at := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	want := []string{Name(at, 1<<40), Name(at.Add(time.Hour), 30), Name(at, 30), Name(at.AddDate(1, 0, 0), 29), Name(at, 3)}
	dir := t.TempDir()
	for _, name := range append([]string{"another file"}, want...) {
		must(t, os.WriteFile(filepath.Join(dir, name), nil, 0o600))
	}
	all, err := Newest(context.Background(), Directory{Path: dir})
	must(t, err)
	var got []string
	for _, s := range all {
		got = append(got, s.Name)
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A file is there when it is complete, and not before.
func TestDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	d := Directory{Path: dir, Owner: "me"}
	ctx := context.Background()
	if _, err := d.List(ctx); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a directory that is not there: %v", err)
	}
	must(t, d.Write(ctx, "one", func(w io.Writer) error {
		names, err := d.List(ctx)
		if err != nil || slices.Contains(names, "one") {
			t.Errorf("it is there too early: %q, %v", names, err)
		}
		_, err = io.WriteString(w, "first")
		return err
	}))
	broken := errors.New("broken")
	err := d.Write(ctx, "one", func(w io.Writer) error {
		_, _ = io.WriteString(w, "sec")
		return broken
	})
	if !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	f, err := d.Open(ctx, "one")
	must(t, err)
	text, err := io.ReadAll(f)
	must(t, errors.Join(err, f.Close()))
	if string(text) != "first" {
		t.Errorf("got %q", text)
	}
	if names, err := d.List(ctx); err != nil || len(names) != 1 {
		t.Errorf("got %q, %v", names, err)
	}
	info, err := os.Stat(filepath.Join(dir, "one"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file has mode %v, %v", info.Mode(), err)
	}
	full := Directory{Path: dir, Owner: "me", Reserve: 1 << 62}
	err = full.Write(ctx, "two", func(w io.Writer) error {
		_, err := io.WriteString(w, "second")
		return err
	})
	if names, _ := d.List(ctx); err == nil || !strings.Contains(err.Error(), "are to stay free") || len(names) != 1 {
		t.Errorf("on a full disk: %v, %q", err, names)
	}
	must(t, d.Remove(ctx, "one"))
	if _, err := Choose(ctx, dir, nil); err == nil {
		t.Error("a backup was found where there is none")
	}
}
