package lint

import (
	"bytes"
	"go/format"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestFormat(t *testing.T) {
	for _, s := range sources(t) {
		report(t, unformatted(s))
	}
}

// unformatted finds a file that gofmt would write otherwise.
func unformatted(s *source) []finding {
	if want, err := format.Source(s.text); err != nil || !bytes.Equal(want, s.text) {
		return []finding{s.at(s.file.Package, "gofmt would write it otherwise")}
	}
	return nil
}

// marks are notes to oneself, which belong in an issue.
var marks = regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|XX` + `X)\b`)

func TestNoMarks(t *testing.T) {
	for _, s := range sources(t) {
		report(t, marked(s))
	}
}

func marked(s *source) (found []finding) {
	for _, group := range s.file.Comments {
		for _, c := range group.List {
			for i, line := range strings.Split(c.Text, "\n") {
				if m := marks.FindString(line); m != "" {
					f := s.at(c.Pos(), "%s: do it, or open an issue", m)
					f.line += i
					found = append(found, f)
				}
			}
		}
	}
	return found
}

// TestPackageComments wants of each package that it says what it is: in doc.go
// where it has several files, or in its only one. A package of tests alone says
// it in one of them.
func TestPackageComments(t *testing.T) {
	report(t, undocumented(sources(t)))
}

func undocumented(files []*source) (found []finding) {
	says := map[string]bool{}
	first := map[string]*source{}
	for _, s := range files {
		if first[s.pkg] == nil {
			first[s.pkg] = s
		}
		if s.file.Doc == nil {
			continue
		}
		name, text := s.file.Name.Name, strings.TrimSpace(s.file.Doc.Text())
		if strings.HasPrefix(text, "Package "+name+" ") || name == "main" && strings.HasPrefix(text, "Command ") {
			says[s.pkg] = true
		}
	}
	for pkg, s := range first {
		if !says[pkg] {
			found = append(found, s.at(s.file.Package, `%s has no package comment that begins "Package %s …"`, pkg, s.file.Name.Name))
		}
	}
	return found
}

// home is a path that exists on one person's machine only.
var home = regexp.MustCompile(`(^|[\s"'` + "`" + `=(:,])(/ro` + `ot|/ho` + `me/[a-z]\w*|/Use` + `rs/\w+|[A-Z]:\\Users)(/|\b)`)

// TestNoHomes looks at every file that git tracks.
func TestNoHomes(t *testing.T) {
	for _, name := range tracked(t) {
		b, err := os.ReadFile(filepath.Join(root, name))
		if os.IsNotExist(err) {
			continue // removed, and not committed yet
		}
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(name, "internal/lint/testdata/") {
			continue
		}
		report(t, homes(name, b))
	}
}

func homes(name string, b []byte) (found []finding) {
	if !utf8.Valid(b) {
		return nil
	}
	for i, line := range strings.Split(string(b), "\n") {
		if m := home.FindString(line); m != "" {
			found = append(found, finding{name, i + 1, "names a path of one machine: " + strings.TrimSpace(m)})
		}
	}
	return found
}

// TestFileRules breaks the rules.
func TestFileRules(t *testing.T) {
	s := fixture(t, "storage", "marks")
	mustFind(t, s, marked(s))

	s = fixture(t, "storage", "homes")
	mustFind(t, s, homes(s.name, s.text))
	if len(homes("administrator.go", []byte(`data = "/ro`+`ot/cairn-data"`))) != 1 {
		t.Error("the home of the administrator is not found")
	}

	s = fixture(t, "storage", "unformatted")
	mustFind(t, s, unformatted(s))

	s = fixture(t, "storage", "undocumented")
	mustFind(t, s, undocumented([]*source{s}))

	documented, err := parse(token.NewFileSet(), "internal/lint/doc.go", "doc.go")
	if err != nil {
		t.Fatal(err)
	}
	report(t, undocumented([]*source{documented}))
}
