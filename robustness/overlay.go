package robustness

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// An Edit is a change to the source of a server: in a file, of the checkout or by
// its whole name, the text Old, which must occur once, becomes New. Where Old is empty,
// New is a file that there is not.
type Edit struct{ File, Old, New string }

// BuildEdited builds a server with edits into a directory and returns its file.
// The source of the checkout stays as it is: the compiler is told to take
// another text for some files.
func BuildEdited(dir string, edits ...Edit) (string, error) {
	texts, err := edited(edits)
	if err != nil {
		return "", err
	}
	replace := map[string]string{}
	for path, text := range texts {
		changed := filepath.Join(dir, fmt.Sprintf("%d-%s", len(replace), filepath.Base(path)))
		if err := os.WriteFile(changed, []byte(text), 0o600); err != nil {
			return "", err
		}
		replace[path] = changed
	}
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": replace})
	if err != nil {
		return "", err
	}
	list := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(list, overlay, 0o600); err != nil {
		return "", err
	}
	binary := filepath.Join(dir, "cairn")
	return binary, Build(binary, "-overlay", list)
}

// edited gives the files that edits change, by path, each as it is then.
func edited(edits []Edit) (map[string]string, error) {
	texts := map[string]string{}
	for _, e := range edits {
		path := e.File
		if !filepath.IsAbs(path) {
			var err error
			if path, err = filepath.Abs(filepath.Join("..", path)); err != nil {
				return nil, err
			}
		}
		text, ok := texts[path]
		if e.Old == "" {
			if _, err := os.Stat(path); ok || !errors.Is(err, os.ErrNotExist) {
				return nil, fmt.Errorf("%s is there already", e.File)
			}
			texts[path] = e.New
			continue
		}
		if !ok {
			source, err := os.ReadFile(path)
			if err != nil {
				return nil, err
			}
			text = string(source)
		}
		if n := strings.Count(text, e.Old); n != 1 {
			return nil, fmt.Errorf("%s has the text %q %d times, want once", e.File, e.Old, n)
		}
		texts[path] = strings.Replace(text, e.Old, e.New, 1)
	}
	return texts, nil
}

// shortLogEntries is after how many entries a server with shortLog cuts its log.
const shortLogEntries = 150

// shortLog is no mistake: a node that was away for a few seconds needs a
// snapshot, instead of one that was away for minutes.
var shortLog = Edit{
	File: "raftsm/shard.go", Old: "defaultSnapshotEntries = 10_000",
	New: fmt.Sprintf("defaultSnapshotEntries = %d", shortLogEntries),
}

var shortLogged struct {
	once sync.Once
	path string
	err  error
}

// ShortLogBinary builds the server of this checkout with a short log, once a
// run, or takes the one that CAIRN_BINARY names.
func ShortLogBinary(t testing.TB) string {
	t.Helper()
	if os.Getenv("CAIRN_BINARY") != "" {
		return Binary(t)
	}
	shortLogged.once.Do(func() {
		dir := filepath.Join(scratch, "short-log")
		if shortLogged.err = os.Mkdir(dir, 0o700); shortLogged.err == nil {
			shortLogged.path, shortLogged.err = BuildEdited(dir, shortLog)
		}
	})
	if shortLogged.err != nil {
		t.Fatal(shortLogged.err)
	}
	return shortLogged.path
}
