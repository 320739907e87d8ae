package backup

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// Place is where backups are kept.
type Place interface {
	// List returns the names of what is there, in any order, backups or not.
	List(ctx context.Context) ([]string, error)
	// Open opens one of them.
	Open(ctx context.Context, name string) (io.ReadCloser, error)
	// Write makes one, which is there under its name once write has returned nil
	// and all of it is durable, and not before.
	Write(ctx context.Context, name string, write func(io.Writer) error) error
	// Remove removes one.
	Remove(ctx context.Context, name string) error
	// String says where it is, for people.
	String() string
}

const (
	namePrefix = "cairn-"
	nameTime   = "20060102T150405.000Z"
)

// Name is the name of a scheduled backup. Names sort by time.
func Name(taken time.Time, revision uint64) string {
	return fmt.Sprintf("%s%s-r%d%s", namePrefix, taken.UTC().Format(nameTime), revision, Extension)
}

// Taken returns when a backup of that name was taken, and whether it is the name
// of a scheduled one.
func Taken(name string) (time.Time, bool) {
	rest, ok := strings.CutPrefix(name, namePrefix)
	stamp, rest, cut := strings.Cut(rest, "-r")
	if !ok || !cut || !strings.HasSuffix(rest, Extension) {
		return time.Time{}, false
	}
	t, err := time.Parse(nameTime, stamp)
	return t, err == nil
}

// Newest returns the names of the scheduled backups of a place, newest first.
func Newest(ctx context.Context, p Place) ([]string, error) {
	names, err := p.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the backups in %s: %w", p, err)
	}
	names = slices.DeleteFunc(names, func(name string) bool {
		_, ok := Taken(name)
		return !ok
	})
	slices.SortFunc(names, func(a, b string) int { return strings.Compare(b, a) })
	return names, nil
}
