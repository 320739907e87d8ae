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
