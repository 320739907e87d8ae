package lint

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const (
	module = "github.com/cairnkv/cairn"
	root   = "../.."
)

// source is a parsed Go file.
type source struct {
	// pkg is the package's directory below the root, "." for the root itself.
	pkg  string
	name string // the file's path below the root
	test bool
	text []byte
	file *ast.File
	fset *token.FileSet
}

// finding is a place that breaks a rule.
type finding struct {
	file string
	line int
	what string
}

func (f finding) String() string { return fmt.Sprintf("%s:%d: %s", f.file, f.line, f.what) }

func (s *source) at(pos token.Pos, format string, args ...any) finding {
	return finding{s.name, s.fset.Position(pos).Line, fmt.Sprintf(format, args...)}
}

// report fails the test with what was found.
func report(t *testing.T, found []finding) {
	t.Helper()
	slices.SortFunc(found, func(a, b finding) int {
		return cmp.Or(cmp.Compare(a.file, b.file), cmp.Compare(a.line, b.line))
	})
	for _, f := range found {
		t.Error(f)
	}
}

// parse reads one file. name is how it is called in findings.
func parse(fset *token.FileSet, name, file string) (*source, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	tree, err := parser.ParseFile(fset, file, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	return &source{
		pkg: path.Dir(name), name: name, test: strings.HasSuffix(name, "_test.go"),
		text: text, file: tree, fset: fset,
	}, nil
}

// sources reads every Go file of the repository, the benchmark's module
// included, but for those in testdata.
func sources(t *testing.T) []*source {
	t.Helper()
	var all []*source
	fset := token.NewFileSet()
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() && file != root && (name == "testdata" || strings.HasPrefix(name, ".")) {
			return fs.SkipDir
		}
		if d.IsDir() || filepath.Ext(name) != ".go" {
			return nil
		}
		below, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		s, err := parse(fset, filepath.ToSlash(below), file)
		if err == nil {
			all = append(all, s)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 50 {
		t.Fatalf("only %d Go files were found", len(all))
	}
	return all
}

// fixture reads a file of testdata as if it lay in package pkg. The files are
// called .go.txt, so that no other tool takes them for code.
func fixture(t *testing.T, pkg, name string) *source {
	t.Helper()
	s, err := parse(token.NewFileSet(), path.Join(pkg, name+".go"), filepath.Join("testdata", name+".go.txt"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// mustFind checks that a rule found, in a fixture, just the lines that have a
// comment "// want: WORDS", and that it says those words of them.
func mustFind(t *testing.T, s *source, found []finding) {
	t.Helper()
	for i, line := range bytes.Split(s.text, []byte("\n")) {
		_, want, expected := strings.Cut(string(line), "// want: ")
		var said []string
		for _, f := range found {
			if f.line == i+1 {
				said = append(said, f.what)
			}
		}
		switch {
		case expected && !slices.ContainsFunc(said, func(what string) bool { return strings.Contains(what, want) }):
			t.Errorf("%s:%d: found %q, want %q", s.name, i+1, said, want)
		case !expected && len(said) > 0:
			t.Errorf("%s:%d: found %q, want nothing", s.name, i+1, said)
		}
	}
}

// tracked lists the files that git knows, or skips the test where this is no
// checkout.
func tracked(t *testing.T) []string {
	t.Helper()
	out, err := exec.Command("git", "-C", root, "ls-files", "-z").Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, exit.Stderr)
		}
		t.Skipf("this is no checkout of git: %v", err)
	}
	return strings.FieldsFunc(string(out), func(r rune) bool { return r == 0 })
}
