package lint

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// rule says what of ours a package may import.
type rule struct {
	may []string
	// tests may be imported by the package's tests besides, themselves and the
	// package apart.
	tests []string
}

// anything marks the packages above all others.
var anything = []string{"*"}

// ours is the order of the packages. A package that isn't here has no place
// yet: give it one.
var ours = map[string]rule{
	"kv":      {},
	"api":     {},
	"storage": {may: []string{"kv"}, tests: []string{"internal/testkit"}},
	"leases":  {may: []string{"kv"}},
	// Recipes are tested on a store that is real.
	"coordination":   {may: []string{"kv"}, tests: []string{"internal/testkit", "storage"}},
	"watchers":       {may: []string{"kv"}, tests: []string{"storage"}},
	"raftsm/raftlog": {may: []string{"internal/durable"}},
	// What is saved and restored in tests is a store that is real.
	"backup": {may: []string{"kv", "internal/durable"}, tests: []string{"storage"}},
	// What it removes of uploads has the name of a backup.
	"backup/s3":        {may: []string{"backup"}, tests: []string{"internal/testkit", "node"}},
	"raftsm/transport": {tests: []string{"internal/testkit", "internal/authority"}},
	"raftsm":           {may: []string{"kv", "storage", "raftsm/raftlog", "raftsm/transport", "internal/durable"}, tests: []string{"internal/testkit"}},
	// The tests of the HTTP face speak to a store that is real, and to a node.
	"httpapi":    {may: []string{"api", "kv", "coordination", "leases", "watchers", "internal/sse"}, tests: []string{"internal/testkit", "storage", "node", "backup"}},
	"client":     {may: []string{"api", "internal/sse"}, tests: []string{"internal/testkit", "kv", "httpapi", "node", "storage", "backup"}},
	"node":       {may: []string{"kv", "api", "backup", "backup/s3", "storage", "leases", "watchers", "raftsm", "httpapi"}, tests: []string{"internal/testkit", "client", "internal/authority"}},
	"cli":        {may: []string{"api", "backup", "client", "node", "internal/authority", "internal/durable"}, tests: anything},
	".":          {may: []string{"cli"}, tests: []string{"internal/testkit"}},
	"robustness": {may: anything, tests: anything},
	// What is there for Prometheus and Grafana is tested on a node.
	"monitoring": {tests: []string{"node", "internal/authority", "internal/testkit"}},
	// What an example imports is what its reader has.
	"examples":           {tests: []string{"internal/testkit", "client"}},
	"examples/cache":     {may: []string{"api", "client"}},
	"examples/leader":    {may: []string{"client"}},
	"examples/lock":      {may: []string{"client"}},
	"examples/queue":     {may: []string{"client"}},
	"examples/registry":  {may: []string{"api", "client"}},
	"internal/authority": {may: []string{"internal/durable"}},
	"internal/durable":   {},
	"internal/lint":      {},
	"internal/sse":       {},
	"internal/testkit":   {},
	// Modules of their own; the compiler keeps them from importing ours.
	"bench":                    {may: []string{"bench/internal/chart", "bench/internal/histogram", "bench/internal/proc", "bench/internal/rawhttp", "bench/internal/rawsse"}},
	"bench/internal/chart":     {},
	"bench/internal/histogram": {},
	"bench/internal/proc":      {},
	"bench/internal/rawhttp":   {},
	"bench/internal/rawsse":    {},
}

// owner says which package of ours may import a heavy dependency, and what is
// below it.
type owner struct {
	dependency string
	by         []string // a package, or everything below it with "/..."
	why        string
}

var owners = []owner{
	{"github.com/lni/dragonboat", []string{"raftsm/...", "bench"}, "raftsm alone knows the replicated log; the benchmark measures it without the rest"},
	{"github.com/cockroachdb/pebble/v2", []string{"storage", "bench"}, "storage alone knows the disk format; the benchmark measures it without the rest"},
	{"github.com/cockroachdb/pebble", nil, "that path is pinned by Dragonboat to an old version; ours is /v2"},
	{"github.com/minio/minio-go", []string{"backup/s3"}, "backup/s3 alone speaks to S3"},
	{"github.com/go-chi/chi", []string{"httpapi"}, "httpapi alone knows the router"},
}

// exceptions are imports in tests that an owner doesn't allow.
var exceptions = map[[2]string]string{
	{"node", "github.com/cockroachdb/pebble/v2"}:             "a test changes what is stored below all checksums, which the store must not be able to",
	{"httpapi", "github.com/cockroachdb/pebble/v2/vfs"}:      "the tests keep their store in memory, and that is an option of the store",
	{"coordination", "github.com/cockroachdb/pebble/v2/vfs"}: "the same",
	{"watchers", "github.com/cockroachdb/pebble/v2/vfs"}:     "the same",
	{"backup", "github.com/cockroachdb/pebble/v2/vfs"}:       "the same",
}

func TestImports(t *testing.T) {
	var found []finding
	for _, s := range sources(t) {
		found = append(found, imports(s)...)
	}
	report(t, found)
}

// TestImportRules breaks each rule.
func TestImportRules(t *testing.T) {
	for _, c := range []struct{ pkg, file string }{
		{"kv", "imports_ours"},
		{"storage", "imports_heavy"},
		{"httpapi", "imports_face"},
		{"auth", "imports_unknown"},
	} {
		s := fixture(t, c.pkg, c.file)
		mustFind(t, s, imports(s))
	}
}

// TestImportTable holds the table itself to what it says: the order has no
// circle, and every package in it exists or is one that is announced.
func TestImportTable(t *testing.T) {
	exists := map[string]bool{"robustness": true} // it has its place before its files
	for _, s := range sources(t) {
		exists[s.pkg] = true
	}
	rank := map[string]int{}
	var visit func(pkg string, above []string)
	visit = func(pkg string, above []string) {
		if slices.Contains(above, pkg) {
			t.Fatalf("a circle: %q", append(above, pkg))
		}
		if rank[pkg]++; rank[pkg] > 1 || pkg == "*" {
			return
		}
		for _, below := range ours[pkg].may {
			visit(below, append(above, pkg))
		}
	}
	for _, pkg := range slices.Sorted(maps.Keys(ours)) {
		visit(pkg, nil)
		if !exists[pkg] {
			t.Errorf("%s has a rule but no files", pkg)
		}
	}
}

func imports(s *source) (found []finding) {
	rule, known := ours[s.pkg]
	if !known {
		found = append(found, s.at(s.file.Package, "package %s has no rule in internal/lint: say what it may import", s.pkg))
	}
	for _, spec := range s.file.Imports {
		path, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			continue // the parser has seen to it
		}
		if below, ok := strings.CutPrefix(path+"/", module+"/"); ok && known {
			below = strings.TrimSuffix(below, "/")
			if below == "" {
				below = "."
			}
			if !mayImport(s, rule, below) {
				found = append(found, s.at(spec.Pos(), "%s may not import %s", s.pkg, below))
			}
		}
		if why := heavy(s, path); why != "" {
			found = append(found, s.at(spec.Pos(), "%s may not import %s: %s", s.pkg, path, why))
		}
	}
	return found
}

func mayImport(s *source, r rule, below string) bool {
	allowed := r.may
	if s.test {
		allowed = slices.Concat(allowed, r.tests, []string{s.pkg})
	}
	return slices.Contains(allowed, below) || slices.Contains(allowed, "*")
}

// heavy says why an import is not allowed, if an owner of it says so. The first
// owner that fits counts.
func heavy(s *source, path string) string {
	for _, o := range owners {
		if path != o.dependency && !strings.HasPrefix(path, o.dependency+"/") {
			continue
		}
		for _, by := range o.by {
			if tree, ok := strings.CutSuffix(by, "/..."); s.pkg == by || ok && (s.pkg == tree || strings.HasPrefix(s.pkg, tree+"/")) {
				return ""
			}
		}
		if s.test && exceptions[[2]string{s.pkg, path}] != "" {
			return ""
		}
		return o.why
	}
	return ""
}
