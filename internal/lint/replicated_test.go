package lint

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/types"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// replicated are the packages whose results must be the same on every replica:
// what applying looks at is the command and the replicated state. So they have
// no clock, no random source, no environment, and no result that depends on the
// order of a map.
var replicated = []string{"kv", "storage"}

// forbidden are functions, by package, that give different answers on different
// replicas. An empty list means all of the package.
var forbidden = map[string][]string{
	"time":         {"Now", "Since", "Until", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker", "Sleep"},
	"math/rand":    nil,
	"math/rand/v2": nil,
	"crypto/rand":  nil,
	"hash/maphash": nil,
	"os":           {"Getenv", "LookupEnv", "Environ", "ExpandEnv", "Hostname", "Getpid"},
}

// mapOrder are functions that go through a map as it comes.
var mapOrder = []string{"maps.Keys", "maps.Values", "maps.All"}

// unordered marks a range over a map with the reason why its order is no
// matter.
var unordered = regexp.MustCompile(`// lint:unordered \w`)

func TestReplicatedCodeLooksAtNothingElse(t *testing.T) {
	lookup := exports(t)
	for _, pkg := range replicated {
		var files []*source
		for _, s := range sources(t) {
			if s.pkg == pkg && !s.test {
				files = append(files, s)
			}
		}
		report(t, nondeterminism(t, lookup, files))
	}
}

// TestReplicatedRules breaks the rules.
func TestReplicatedRules(t *testing.T) {
	s := fixture(t, "storage", "nondeterminism")
	mustFind(t, s, nondeterminism(t, exports(t), []*source{s}))
}

// nondeterminism checks the files of one package.
func nondeterminism(t *testing.T, lookup importer.Lookup, files []*source) (found []finding) {
	t.Helper()
	if len(files) == 0 {
		t.Fatal("there is nothing to check")
	}
	var trees []*ast.File
	for _, s := range files {
		trees = append(trees, s.file)
	}
	fset := files[0].fset
	info := &types.Info{Uses: map[*ast.Ident]types.Object{}, Types: map[ast.Expr]types.TypeAndValue{}}
	conf := types.Config{Importer: importer.ForCompiler(fset, "gc", lookup)}
	if _, err := conf.Check(files[0].pkg, fset, trees, info); err != nil {
		t.Fatal(err)
	}
	for _, s := range files {
		lines := bytes.Split(s.text, []byte("\n"))
		order := func(n ast.Node, what string) {
			line := lines[s.fset.Position(n.Pos()).Line-1]
			if !unordered.Match(line) && !bytes.Contains(line, []byte("slices.Sorted")) {
				found = append(found, s.at(n.Pos(), "%s: go through it in order, or say on this line, after // lint:unordered, why the order is no matter", what))
			}
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.Ident:
				name := function(info.Uses[n])
				switch {
				case unequal(name):
					found = append(found, s.at(n.Pos(), "%s uses %s, which is not the same on every replica", s.pkg, name))
				case slices.Contains(mapOrder, name):
					order(n, name)
				}
			case *ast.RangeStmt:
				if isMap(info.Types[n.X].Type) {
					order(n, "range over a map")
				}
			}
			return true
		})
	}
	return found
}

// isMap reports whether ranging over t goes through a map.
func isMap(t types.Type) bool {
	if t == nil {
		return false
	}
	if p, ok := t.(*types.TypeParam); ok {
		return strings.Contains(p.Constraint().String(), "map[")
	}
	_, ok := t.Underlying().(*types.Map)
	return ok
}

// function names a function of a package, or is empty. Methods don't count:
// they belong to something that had to be made first.
func function(o types.Object) string {
	f, ok := o.(*types.Func)
	if !ok || f.Pkg() == nil || f.Signature().Recv() != nil {
		return ""
	}
	return f.Pkg().Path() + "." + f.Name()
}

// unequal reports whether a function is one of those that are forbidden.
func unequal(name string) bool {
	dot := strings.LastIndexByte(name, '.')
	if dot < 0 {
		return false
	}
	names, listed := forbidden[name[:dot]]
	return listed && (names == nil || slices.Contains(names, name[dot+1:]))
}

// exports finds the compiled form of whatever the replicated packages and the
// fixtures import.
func exports(t *testing.T) importer.Lookup {
	t.Helper()
	args := []string{"list", "-export", "-deps", "-json=ImportPath,Export"}
	for _, pkg := range replicated {
		args = append(args, "./"+pkg)
	}
	for pkg := range forbidden {
		args = append(args, pkg)
	}
	list := exec.Command("go", args...)
	list.Dir = root
	var stderr bytes.Buffer
	list.Stderr = &stderr
	out, err := list.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, &stderr)
	}
	files := map[string]string{}
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct{ ImportPath, Export string }
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		files[p.ImportPath] = p.Export
	}
	return func(path string) (io.ReadCloser, error) {
		if files[path] == "" {
			return nil, fmt.Errorf("%s is not among what go list gave", path)
		}
		return os.Open(files[path])
	}
}
