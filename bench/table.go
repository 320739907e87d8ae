package main

import (
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// whole and three are how a column shows its numbers.
func whole(v float64) string { return groupDigits(strconv.FormatFloat(v, 'f', 0, 64)) }

// three shows three digits that matter, and never an exponent.
func three(v float64) string {
	if v == 0 {
		return "0"
	}
	before := int(math.Floor(math.Log10(math.Abs(v)))) + 1
	return groupDigits(strconv.FormatFloat(v, 'f', max(0, 3-before), 64))
}

// groupDigits puts a comma between thousands.
func groupDigits(s string) string {
	end := strings.IndexByte(s, '.')
	if end < 0 {
		end = len(s)
	}
	for at := end - 3; at > 0 && s[at-1] != '-'; at -= 3 {
		s = s[:at] + "," + s[at:]
	}
	return s
}

// print shows a result: a line a target with the medians of the rounds, then a
// line a pair with the ratios, each with its least and greatest round.
func (r *result) print(w io.Writer) {
	fmt.Fprintf(w, "\n%s: %s\n", r.profile, r.about)
	header := []string{""}
	for _, c := range r.columns {
		header = append(header, c.name)
	}
	table := [][]string{header}
	for i := range r.rows {
		line := []string{r.rows[i].name}
		for c, column := range r.columns {
			cell := "-"
			if v, ok := r.rows[i].median(c); ok {
				cell = column.format(v)
			}
			line = append(line, cell)
		}
		table = append(table, line)
	}
	for _, p := range pairs {
		if r.row(p.of) == nil || r.row(p.to) == nil {
			continue
		}
		line := []string{p.of + " / " + p.to}
		for c := range r.columns {
			cell := "-"
			if s, ok := r.ratio(p, c); ok {
				cell = s.String()
			}
			line = append(line, cell)
		}
		table = append(table, line)
	}
	writeTable(w, table)
	for _, note := range r.notes {
		fmt.Fprintf(w, "! %s\n", note)
	}
}

func (s spread) String() string {
	if s.least == s.greatest {
		return three(s.median)
	}
	return fmt.Sprintf("%s [%s, %s]", three(s.median), three(s.least), three(s.greatest))
}

// printSummary shows the median ratios of all loads, a line each, in a form that
// fits a commit message.
func printSummary(w io.Writer, results []*result) {
	shown := []string{"ops/s", "p50 ms", "p99 ms", "server µs/op", "peak MB"}
	// What a watch delivers is shown where other loads have operations.
	ofWatches := map[string]string{"events/s": "ops/s", "server µs/event": "server µs/op"}
	for _, p := range pairs {
		table := [][]string{append([]string{p.of + " / " + p.to}, shown...)}
		for _, r := range results {
			if r.row(p.of) == nil || r.row(p.to) == nil {
				continue
			}
			line := []string{r.profile}
			found := false
			for _, name := range shown {
				cell := "-"
				for c := range r.columns {
					column := r.columns[c].name
					if s, ok := r.ratio(p, c); ok && (column == name || ofWatches[column] == name) {
						cell, found = three(s.median), true
					}
				}
				line = append(line, cell)
			}
			if found {
				table = append(table, line)
			}
		}
		if len(table) > 1 {
			fmt.Fprintln(w)
			writeTable(w, table)
		}
	}
}

// writeTable aligns the first column to the left and the others to the right.
func writeTable(w io.Writer, table [][]string) {
	var widths []int
	for _, line := range table {
		for c, cell := range line {
			if c == len(widths) {
				widths = append(widths, 0)
			}
			widths[c] = max(widths[c], utf8.RuneCountInString(cell))
		}
	}
	for _, line := range table {
		var b strings.Builder
		for c, cell := range line {
			space := strings.Repeat(" ", widths[c]-utf8.RuneCountInString(cell))
			if c == 0 {
				b.WriteString(cell + space)
			} else {
				b.WriteString("  " + space + cell)
			}
		}
		fmt.Fprintln(w, strings.TrimRight(b.String(), " "))
	}
}
