package backup

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
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

// Scheduled is a scheduled backup, as its name says.
type Scheduled struct {
	Name     string
	Taken    time.Time
	Revision uint64
}

// Name is the name of a scheduled backup. Names sort by time.
func Name(taken time.Time, revision uint64) string {
	return fmt.Sprintf("%s%s-r%d%s", namePrefix, taken.UTC().Format(nameTime), revision, Extension)
}

// ParseName returns what a name says, and whether it is one that Name makes.
func ParseName(name string) (s Scheduled, ok bool) {
	rest, ok := strings.CutPrefix(name, namePrefix)
	if !ok {
		return s, false
	}
	if rest, ok = strings.CutSuffix(rest, Extension); !ok {
		return s, false
	}
	stamp, number, _ := strings.Cut(rest, "-r")
	taken, err := time.Parse(nameTime, stamp)
	if err != nil {
		return s, false
	}
	revision, err := strconv.ParseUint(number, 10, 64)
	s = Scheduled{name, taken, revision}
	return s, err == nil && Name(taken, revision) == name
}

// Newest returns the scheduled backups of a place, newest first. Which one is newer is
// said by their revisions, which only grow, also through a restore; by the time only
// where they are the same. A clock that was wrong once would otherwise make one the
// newest for years, from which the next restore would begin.
func Newest(ctx context.Context, p Place) ([]Scheduled, error) {
	names, err := p.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the backups in %s: %w", p, err)
	}
	var all []Scheduled
	for _, name := range names {
		if s, ok := ParseName(name); ok {
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(a, b Scheduled) int {
		return cmp.Or(cmp.Compare(b.Revision, a.Revision), b.Taken.Compare(a.Taken))
	})
	return all, nil
}
