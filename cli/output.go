package cli

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/cairnkv/cairn/api"
)

// outputFlag is the form that an answer is printed in; empty is the command's
// own choice.
type outputFlag string

const (
	outputTable outputFlag = "table"
	outputJSON  outputFlag = "json"
	outputRaw   outputFlag = "raw"
)

// String is the form.
func (o *outputFlag) String() string { return string(*o) }

// Type names the flag's type in its help.
func (o *outputFlag) Type() string { return "form" }

// Set accepts one of the forms.
func (o *outputFlag) Set(s string) error {
	switch f := outputFlag(s); f {
	case outputTable, outputJSON, outputRaw:
		*o = f
		return nil
	}
	return fmt.Errorf("%q is not table, json or raw", s)
}

// print writes an answer in the form that was asked for: v as JSON, or what table
// or raw write.
func (a *app) print(v any, table, raw func(w io.Writer)) error {
	switch a.output {
	case outputJSON:
		return writeJSON(a.stdout, v)
	case outputRaw:
		w := bufio.NewWriter(a.stdout)
		raw(w)
		return w.Flush() // has the first error of them all
	default:
		w := newTable(a.stdout)
		table(w)
		return w.Flush()
	}
}

func newTable(w io.Writer) *tabwriter.Writer { return tabwriter.NewWriter(w, 0, 8, 2, ' ', 0) }

// writeJSON writes an answer over several lines.
func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// lineEncoder writes answers of which there are many, one a line.
func lineEncoder(w io.Writer) *json.Encoder {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e
}

// displayKey is a key for people. What could confuse a terminal or a reader is
// quoted.
func displayKey(key []byte) string {
	if len(key) > 0 && printable(key) && !strings.ContainsAny(string(key), " \"") {
		return string(key)
	}
	return strconv.Quote(string(key))
}

// preview is the beginning of a value for people, on one line.
func preview(value []byte) string {
	const most = 60
	text := value
	if len(text) > most {
		text = text[:most]
		// Don't take a cut through a character for binary data.
		for i := 0; i < utf8.UTFMax-1 && len(text) > 0 && !utf8.Valid(text); i++ {
			text = text[:len(text)-1]
		}
	}
	switch {
	case !utf8.Valid(text):
		return fmt.Sprintf("(%s)", sizeText(uint64(len(value))))
	case len(text) < len(value):
		return fmt.Sprintf("%s… (%s)", escape(text), sizeText(uint64(len(value))))
	}
	return escape(text)
}

// escape replaces what is not printable.
func escape(text []byte) string {
	if printable(text) {
		return string(text)
	}
	quoted := strconv.Quote(string(text))
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
}

func printable(b []byte) bool {
	if !utf8.Valid(b) {
		return false
	}
	for _, r := range string(b) {
		if !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}

// timeText is a time for people; empty if there is none.
func timeText(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(api.TimeLayout)
}

// plural is a count with its noun.
func plural(n uint64, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}

// A row is a line of a table.
func row(w io.Writer, cells ...string) { fmt.Fprintln(w, strings.Join(cells, "\t")) }

func number(n uint64) string { return strconv.FormatUint(n, 10) }
