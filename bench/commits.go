package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"golang.org/x/perf/benchmath"
)

// Two commits are compared as two targets are: in turns, within one run. What
// differs between them is mostly smaller than what differs between two rounds, so
// here the table is not the answer, but a verdict on each figure.

// nameBefore is the target that is Cairn at another commit.
const nameBefore = "before"

const (
	// confidence is that of the intervals: one verdict in twenty is wrong.
	confidence = 0.95
	// verdictRounds is how many rounds an interval of that confidence needs at least.
	verdictRounds = 6
)

// judged are the columns that get a verdict, and whether more is better.
var judged = []struct {
	column string
	more   bool
}{
	{"ops/s", true}, {"events/s", true}, {"p99 ms", false}, {"server µs/op", false}, {"server µs/event", false}, {"peak MB", false},
}

// buildCommit compiles the server as it was at a commit. It looks at what git has,
// never at the files of the working tree, and leaves nothing behind in the
// repository, even if it is interrupted.
func buildCommit(ctx context.Context, revision, to string) (string, error) {
	source := filepath.Join(to, "source-before")
	if err := os.Mkdir(source, 0o700); err != nil {
		return "", err
	}
	archive := exec.CommandContext(ctx, "git", "-C", "..", "archive", "--format=tar", "--end-of-options", revision)
	unpack := exec.CommandContext(ctx, "tar", "-x", "-C", source)
	var err error
	if unpack.Stdin, err = archive.StdoutPipe(); err != nil {
		return "", err
	}
	archive.Stderr, unpack.Stderr = os.Stderr, os.Stderr
	if err := unpack.Start(); err != nil {
		return "", err
	}
	if err := errors.Join(archive.Run(), unpack.Wait()); err != nil {
		return "", fmt.Errorf("unpacking %s: %w", revision, err)
	}
	return buildCairn(ctx, source, filepath.Join(to, "cairn-before"))
}

// beforeTarget is Cairn at another commit.
func (b *bench) beforeTarget(binary string, tune tuning) target {
	t := cairnTarget(binary, b.cairnArgs, b.data, tune)
	t.name = nameBefore
	return t
}

// A verdict says what became of a figure between two commits.
type verdict struct {
	profile, column string
	// ratio is that of the new value to the old one, least and greatest the ends of
	// the interval in which its median lies with the confidence of all verdicts.
	ratio, least, greatest float64
	word                   string
}

const (
	better    = "better"
	worse     = "worse"
	same      = "same" // as far as these rounds can tell
	undecided = "too few rounds"
)

// verdicts judges each figure of a result.
func (r *result) verdicts(p pair) []verdict {
	var list []verdict
	for _, j := range judged {
		c := slices.IndexFunc(r.columns, func(c column) bool { return c.name == j.column })
		if c < 0 {
			continue
		}
		ratios := r.ratios(p, c)
		if len(ratios) == 0 {
			continue
		}
		s := benchmath.AssumeNothing.Summary(benchmath.NewSample(ratios, &benchmath.DefaultThresholds), confidence)
		v := verdict{profile: r.profile, column: j.column, ratio: s.Center, least: s.Lo, greatest: s.Hi, word: same}
		switch {
		case math.IsInf(s.Lo, 0) || math.IsInf(s.Hi, 0):
			v.word = undecided
		case s.Lo > 1 && j.more || s.Hi < 1 && !j.more:
			v.word = better
		case s.Hi < 1 && j.more || s.Lo > 1 && !j.more:
			v.word = worse
		}
		list = append(list, v)
	}
	return list
}

// printVerdicts shows all of them, a line each, as changes in percent.
func printVerdicts(w io.Writer, revision string, results []*result) {
	table := [][]string{{"against " + revision, "figure", "change", "within", ""}}
	for _, r := range results {
		for _, v := range r.verdicts(pair{nameCairn, nameBefore}) {
			within := "-"
			if v.word != undecided {
				within = percent(v.least) + " to " + percent(v.greatest)
			}
			table = append(table, []string{v.profile, v.column, percent(v.ratio), within, v.word})
		}
	}
	if len(table) > 1 {
		fmt.Fprintln(w)
		writeTable(w, table)
	}
}

// percent shows a ratio as what was added to 1.
func percent(ratio float64) string { return fmt.Sprintf("%+.1f %%", 100*(ratio-1)) }
