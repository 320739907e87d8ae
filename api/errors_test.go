package api_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/cairnkv/cairn/api"
)

// A problem is an error that is compared by its code, however it is wrapped.
func TestProblemIsAnError(t *testing.T) {
	var p api.Problem
	if err := json.Unmarshal([]byte(`{"status":404,"code":"key-not-found","title":"T","detail":"d","added_later":1}`), &p); err != nil {
		t.Fatal(err)
	}
	err := fmt.Errorf("couldn't read: %w", &p)
	if !errors.Is(err, &api.Problem{Code: api.CodeKeyNotFound}) || errors.Is(err, &api.Problem{Code: api.CodeLeaseNotFound}) {
		t.Errorf("%v is compared wrongly", err)
	}
	if got, want := p.Error(), "T: d (key-not-found)"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A code that a newer server may send is classed by its status, and only a 504
// leaves the outcome open.
func TestClassOfUnknownCodes(t *testing.T) {
	for status, want := range map[int]api.Class{
		400: api.ClassUsage, 401: api.ClassForbidden, 403: api.ClassForbidden, 404: api.ClassNotFound, 405: api.ClassUsage,
		409: api.ClassConflict, 410: api.ClassNotFound, 412: api.ClassConflict, 422: api.ClassConflict, 429: api.ClassUnavailable,
		500: api.ClassInternal, 502: api.ClassInternal, 503: api.ClassUnavailable, 504: api.ClassUnknown,
	} {
		p := &api.Problem{Status: status, Code: "made-later"}
		if got := p.Class(); got != want {
			t.Errorf("status %d: class %d, want %d", status, got, want)
		}
	}
	for _, info := range api.Table {
		if p := (&api.Problem{Status: info.Status, Code: info.Code}); p.Class() != info.Class {
			t.Errorf("%s: class %d, want %d", info.Code, p.Class(), info.Class)
		}
	}
}
