package robustness

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// Evidence is the directory of one scenario: the data directories and logs of
// its nodes, its timeline, its recorded operations, and the picture of what
// porcupine found. It is deleted when the scenario passed.
type Evidence struct{ Dir string }

// NewEvidence makes the directory: below CAIRN_EVIDENCE, or the directory for
// temporary files. It is kept when the test failed, or when CAIRN_KEEP is set,
// and then its name is printed.
func NewEvidence(t testing.TB) *Evidence {
	t.Helper()
	dir, err := os.MkdirTemp(os.Getenv("CAIRN_EVIDENCE"), "cairn-robustness-")
	if err != nil {
		t.Fatal(err)
	}
	e := &Evidence{Dir: dir}
	t.Cleanup(func() {
		if t.Failed() || os.Getenv("CAIRN_KEEP") != "" {
			t.Logf("evidence is kept in %s", dir)
			return
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("the evidence was not deleted: %v", err)
		}
	})
	return e
}

// Path is a name in the directory.
func (e *Evidence) Path(name string) string { return filepath.Join(e.Dir, name) }

// WriteOperations writes the recorded operations, a line of JSON each.
func (e *Evidence) WriteOperations(operations []*Operation) error {
	f, err := os.Create(e.Path("operations.jsonl"))
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	lines := json.NewEncoder(w)
	for _, o := range operations {
		if err := lines.Encode(o); err != nil {
			break // of the disk; Flush says it again
		}
	}
	if err := w.Flush(); err != nil {
		f.Close()
		return fmt.Errorf("write the operations: %w", err)
	}
	return f.Close()
}

// WriteJSON writes a value into a file of its own.
func (e *Evidence) WriteJSON(name string, value any) error {
	text, err := json.MarshalIndent(value, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(e.Path(name), text, 0o600)
}

// alarming is what no log may have; ending is what only that of a node may have which may
// end by itself.
var (
	alarming = regexp.MustCompile(`(?i)\bpanic\b|\bfatal\b|DATA RACE`)
	ending   = regexp.MustCompile(`can't go on`)
)

// alarmingLines returns the lines of a log that tell of a crash.
func alarmingLines(path string, mayEnd bool) ([]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var found []string
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 16<<20)
	for n := 1; lines.Scan(); n++ {
		if alarming.Match(lines.Bytes()) || !mayEnd && ending.Match(lines.Bytes()) {
			found = append(found, fmt.Sprintf("%s:%d: %s", filepath.Base(path), n, lines.Text()))
		}
	}
	return found, lines.Err()
}
