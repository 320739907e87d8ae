package monitoring

import (
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/cairnkv/cairn/internal/authority"
	"github.com/cairnkv/cairn/internal/testkit"
	"github.com/cairnkv/cairn/node"
)

// patience is how long a test waits for something that is bound to happen.
const patience = 2 * time.Minute

// await waits until something holds; why says at the end what was missing.
func await(t testing.TB, what string, holds func() (why string)) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		why := holds()
		if why == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("this did not happen: %s: %s", what, why)
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// startNode starts a node that has all the metrics that a node can have: it takes
// backups, and speaks TLS with its peers.
func startNode(t testing.TB) *node.Node {
	t.Helper()
	a, _, err := authority.Open(t.TempDir())
	must(t, err)
	cert, key, err := a.Issue("n1", []string{"127.0.0.1"}, 24*time.Hour)
	must(t, err)
	n, err := node.Open(context.Background(), node.Config{
		DataDir: filepath.Join(t.TempDir(), "data"), Listen: "127.0.0.1:0", PeerListen: testkit.FreeAddress(t),
		PeerTLS: node.PeerTLS{CA: a.File(), Cert: cert, Key: key},
		Backup:  node.Backup{To: t.TempDir()},
		Version: "test",
		Fatal:   func(err error) { t.Errorf("the node can't go on: %v", err) },
	})
	must(t, err)
	t.Cleanup(func() { must(t, n.Close()) })
	await(t, "the node is ready", func() string {
		if err := n.Ready(); err != nil {
			return err.Error()
		}
		return ""
	})
	return n
}

// request sends a request and returns the body of the answer.
func request(t testing.TB, method, url, body string) string {
	t.Helper()
	r, err := http.NewRequest(method, url, strings.NewReader(body))
	must(t, err)
	answer, err := http.DefaultClient.Do(r)
	must(t, err)
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	must(t, err)
	if answer.StatusCode/100 != 2 {
		t.Fatalf("%s %s: %s: %s", method, url, answer.Status, b)
	}
	return string(b)
}

var sample = regexp.MustCompile(`(?m)^([a-z_][a-z0-9_]*)[{ ]`)
var family = regexp.MustCompile(`(?m)^# TYPE (cairn_[a-z0-9_]+) `)

// exposed returns the names of all series of a node, and those of Cairn's own
// metrics.
func exposed(t testing.TB, n *node.Node) (series, own map[string]bool) {
	text := request(t, http.MethodGet, n.URL()+"/metrics", "")
	series, own = map[string]bool{}, map[string]bool{}
	for _, m := range sample.FindAllStringSubmatch(text, -1) {
		series[m[1]] = true
	}
	for _, m := range family.FindAllStringSubmatch(text, -1) {
		own[m[1]] = true
	}
	if len(own) < 30 {
		t.Fatalf("the node has only %d metrics of its own", len(own))
	}
	return series, own
}

func read(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	must(t, err)
	return string(b)
}
