package httpapi

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/go-chi/chi/v5"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/kv"
)

// operations calls fn for each operation of the contract, in order.
func operations(doc *openapi3.T, fn func(method, path string, op *openapi3.Operation)) {
	for _, path := range slices.Sorted(func(yield func(string) bool) {
		for p := range doc.Paths.Map() {
			if !yield(p) {
				return
			}
		}
	}) {
		ops := doc.Paths.Value(path).Operations()
		methods := make([]string, 0, len(ops))
		for method := range ops {
			methods = append(methods, method)
		}
		sort.Strings(methods)
		for _, method := range methods {
			fn(method, path, ops[method])
		}
	}
}

// The routes of chi's tree are the operations of the contract.
func TestRoutesAreTheContract(t *testing.T) {
	doc := loadContract(t)
	s := New(Config{Store: newMember(t), MemberID: testMember.String()})
	routed := map[string]bool{}
	err := chi.Walk(s.mux, func(method, pattern string, _ http.Handler, _ ...func(http.Handler) http.Handler) error {
		routed[method+" "+strings.Replace(pattern, "*", "{key}", 1)] = true
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]bool{}
	operations(doc, func(method, path string, _ *openapi3.Operation) {
		documented[method+" "+path] = true
		if !routed[method+" "+path] {
			t.Errorf("%s %s is in the contract and has no route", method, path)
		}
	})
	for r := range routed {
		if !documented[r] {
			t.Errorf("%s is a route and not in the contract", r)
		}
	}
}

// The query parameters that a route takes are those of its operation, and the
// routes that are found without chi are the same as with it.
func TestParametersAreTheContract(t *testing.T) {
	doc := loadContract(t)
	s := New(Config{Store: newMember(t), MemberID: testMember.String()})
	for i := range s.routes {
		rt := &s.routes[i]
		path := strings.Replace(rt.pattern, "*", "{key}", 1)
		op := doc.Paths.Value(path).GetOperation(rt.method)
		var documented paramSet
		for _, p := range op.Parameters {
			if p.Value.In == "query" {
				known, ok := paramByName[p.Value.Name]
				if !ok {
					t.Errorf("%s %s: the contract has an unknown parameter %s", rt.method, path, p.Value.Name)
				}
				documented |= params(known)
			}
		}
		if documented != rt.params {
			t.Errorf("%s %s: the route takes %s, the contract has %s", rt.method, path, rt.params.names(), documented.names())
		}
		if idempotent := op.Parameters.GetByInAndName("header", api.HeaderIdempotencyKey) != nil; idempotent != rt.write {
			t.Errorf("%s %s: write %v, Idempotency-Key in the contract %v", rt.method, path, rt.write, idempotent)
		}
		if path == "/v1/kv/{key}" && s.direct[rt.method] != rt {
			t.Errorf("%s %s is not found directly", rt.method, path)
		}
		if !strings.Contains(path, "{") && s.fixed[target{rt.method, path}] != rt {
			t.Errorf("%s %s is not found by its path", rt.method, path)
		}
	}
}

// Codes are the same in the store, in the table and in the contract, and come in
// the same order in the last two.
func TestCodesAreTheContract(t *testing.T) {
	doc := loadContract(t)
	var documented []string
	for _, v := range doc.Components.Schemas["Code"].Value.Enum {
		documented = append(documented, v.(string))
	}
	var table []string
	for i, info := range api.Table {
		table = append(table, string(info.Code))
		if info.Code.Rank() != i {
			t.Errorf("code %s is in the table twice", info.Code)
		}
		if info.Title == "" || http.StatusText(info.Status) == "" || info.Class == 0 {
			t.Errorf("code %s: incomplete line %+v", info.Code, info)
		}
	}
	if !slices.Equal(table, documented) {
		t.Errorf("codes of the contract:\n%q\nof the table:\n%q", documented, table)
	}
	for _, c := range kv.Codes() {
		if _, ok := api.Code(c.String()).Info(); !ok {
			t.Errorf("code %s of the store is not in the table", c)
		}
	}
	for _, info := range api.Table {
		// After a 504 alone a write may have been applied.
		if (info.Status == 504) != (info.Code == api.CodeOutcomeUnknown) {
			t.Errorf("code %s has status %d", info.Code, info.Status)
		}
	}
}

// The contract is a valid OpenAPI 3.1 document, and says something about
// everything in it.
func TestContractLint(t *testing.T) {
	text := string(contractText(t))
	doc, err := openapi3.NewLoader().LoadFromData([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Validate(context.Background(), openapi3.EnableExamplesValidation()); err != nil {
		t.Error(err)
	}
	if !doc.IsOpenAPI31OrLater() {
		t.Errorf("version %s", doc.OpenAPI)
	}
	ids := map[string]string{}
	operations(doc, func(method, path string, op *openapi3.Operation) {
		where := method + " " + path
		if other := ids[op.OperationID]; op.OperationID == "" || other != "" {
			t.Errorf("%s: operationId %q is also of %s", where, op.OperationID, other)
		}
		ids[op.OperationID] = where
		if op.Summary == "" || op.Description == "" || len(op.Tags) != 1 {
			t.Errorf("%s: needs a summary, a description and one tag", where)
		}
		if op.Responses.Default() == nil {
			t.Errorf("%s: has no default answer", where)
		}
		for status, r := range op.Responses.Map() {
			for _, name := range []string{api.HeaderRevision, api.HeaderMember, api.HeaderRequestID} {
				if r.Value.Headers[name] == nil {
					t.Errorf("%s %s: has no %s", where, status, name)
				}
			}
			for media, content := range r.Value.Content {
				if content.Schema == nil || content.Schema.Ref == "" {
					t.Errorf("%s %s %s: has no named schema", where, status, media)
				}
			}
		}
	})
	for name, p := range doc.Components.Parameters {
		if p.Value.Description == "" {
			t.Errorf("parameter %s has no description", name)
		}
	}
	for name, h := range doc.Components.Headers {
		if h.Value.Description == "" {
			t.Errorf("header %s has no description", name)
		}
	}
	for name, s := range doc.Components.Schemas {
		if s.Value.Description == "" {
			t.Errorf("schema %s has no description", name)
		}
		for property, p := range s.Value.Properties {
			if p.Ref == "" && p.Value.Description == "" {
				t.Errorf("schema %s: %s has no description", name, property)
			}
		}
	}
	for kind, names := range map[string][]string{
		"parameters": keysOf(doc.Components.Parameters), "headers": keysOf(doc.Components.Headers),
		"schemas": keysOf(doc.Components.Schemas), "responses": keysOf(doc.Components.Responses),
	} {
		for _, name := range names {
			if !strings.Contains(text, fmt.Sprintf(`"#/components/%s/%s"`, kind, name)) {
				t.Errorf("component %s/%s is not used", kind, name)
			}
		}
	}
	if unquoted := regexp.MustCompile(`(?m)^.*\$ref: [^"].*$`).FindString(text); unquoted != "" {
		t.Errorf("a reference that is not in double quotes: %s", unquoted)
	}
}

func keysOf[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	return names
}

// unseen is what tests can't bring about, with the reason.
var unseen = map[string]string{
	"code auth-changed": "there are no rules to change yet",
}

// gaps lists what the contract documents and no exchange has shown.
func gaps() []string {
	doc, err := contract()
	if err != nil {
		return []string{err.Error()}
	}
	seen.Lock()
	defer seen.Unlock()
	var gaps []string
	missing := func(what string, ok bool) {
		_, excused := unseen[what]
		if ok && excused {
			gaps = append(gaps, what+" (which is on the list of what can't be seen)")
		}
		if !ok && !excused {
			gaps = append(gaps, what)
		}
	}
	operations(doc, func(method, path string, op *openapi3.Operation) {
		for status := range op.Responses.Map() {
			if status != "default" {
				missing(method+" "+path+" "+status, seen.responses[method+" "+path+" "+status])
			}
		}
		for _, p := range op.Parameters {
			name := p.Value.Name
			switch p.Value.In {
			case "header":
				name = http.CanonicalHeaderKey(name)
			case "path":
				name = "path " + name
			}
			missing(method+" "+path+" "+name, seen.params[method+" "+path+" "+name])
		}
	})
	for _, info := range api.Table {
		missing("code "+string(info.Code), seen.codes[info.Code])
	}
	sort.Strings(gaps)
	return gaps
}

// wholeRun reports whether all tests of the package ran.
func wholeRun() bool {
	for _, name := range []string{"test.run", "test.skip", "test.fuzz", "test.bench", "test.list"} {
		if f := flag.Lookup(name); f != nil && f.Value.String() != "" {
			return false
		}
	}
	return true
}
