package examples

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cairnkv/cairn/client"
)

// What the scripts do by themselves, where the programs have the client.

// runScript starts a script against one endpoint.
func runScript(t *testing.T, endpoint string, args ...string) *program {
	t.Helper()
	cmd := exec.Command("sh", args...)
	cmd.Env = append(os.Environ(), "ENDPOINTS="+endpoint)
	return launch(t, cmd)
}

// TestScriptsAlike pushes from scripts that have the same number of a process and
// begin together, as in containers: no job is taken for the repetition of another.
func TestScriptsAlike(t *testing.T) {
	c := newCluster(t)
	const alike = `for job in a b c d e f; do (set -- push $job; . ./queue.sh) & done; wait`
	runScript(t, c.nodes[0].url, "-c", alike, "./queue.sh").awaitEnd()
	var jobs []string
	for e, err := range c.All(context.Background(), client.Prefix("jobs/")) {
		must(t, err)
		jobs = append(jobs, string(e.Value))
	}
	slices.Sort(jobs)
	if got := strings.Join(jobs, ""); got != "abcdef" {
		t.Errorf("stored %q", got)
	}
}

// TestPushRefused has no room for a job: the script says so and fails.
func TestPushRefused(t *testing.T) {
	full := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusInsufficientStorage)
		fmt.Fprint(w, `{"code":"no-space"}`)
	}))
	t.Cleanup(full.Close)
	push := runScript(t, full.URL, "queue.sh", "push", "job")
	<-push.done
	if code := push.cmd.ProcessState.ExitCode(); code != 1 {
		t.Errorf("it ended with %d", code)
	}
	if got := push.printed(); !slices.Equal(got, []string{`job is not stored: {"code":"no-space"}`}) {
		t.Errorf("printed %q", got)
	}
}

// TestLockBehindProxy reads the counter through a proxy that answers by itself at
// first: that is not taken for a counter that is not there.
func TestLockBehindProxy(t *testing.T) {
	c := newCluster(t)
	_, err := c.Put(context.Background(), "counter", []byte("41"))
	must(t, err)
	node, err := url.Parse(c.nodes[0].url)
	must(t, err)
	pass := httputil.NewSingleHostReverseProxy(node)
	var mu sync.Mutex
	answers := []int{http.StatusBadGateway, http.StatusInternalServerError, http.StatusForbidden}
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if r.Method == http.MethodGet && len(answers) > 0 {
			w.WriteHeader(answers[0])
			answers = answers[1:]
			return
		}
		pass.ServeHTTP(w, r)
	}))
	t.Cleanup(proxy.Close)
	runScript(t, proxy.URL, "lock.sh").awaitEnd()
	e, err := c.Get(context.Background(), "counter")
	must(t, err)
	if string(e.Value) != "42" {
		t.Errorf("the counter is at %q", e.Value)
	}
}

// TestCandidateTurns refuses a candidate again and again: it gives up its lease each
// time, and renews none that it has given up.
func TestCandidateTurns(t *testing.T) {
	const turns = 3
	var mu sync.Mutex
	granted, late := 0, map[string]int{} // renewals of a lease after its end
	ended := map[string]bool{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		id := strings.TrimSuffix(strings.TrimPrefix(r.URL.Path, "/v1/leases/"), "/keepalive")
		switch {
		case r.URL.Path == "/v1/leases":
			granted++
			w.WriteHeader(http.StatusCreated)
			fmt.Fprintf(w, `{"id":"L%d","ttl_seconds":3}`, granted)
		case strings.HasSuffix(r.URL.Path, "/keepalive"):
			if ended[id] {
				late[id]++
			}
		case r.Method == http.MethodDelete:
			ended[id] = true
		case r.Method == http.MethodPost:
			w.WriteHeader(http.StatusConflict)
		default:
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(s.Close)
	runScript(t, s.URL, "leader.sh", "x")
	await(t, "its turns are over", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(ended) >= turns
	})
	mu.Lock()
	defer mu.Unlock()
	for id, n := range late {
		if n > 1 { // one may have been on its way
			t.Errorf("%s was renewed %d times after its end", id, n)
		}
	}
}
