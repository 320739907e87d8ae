package node

import (
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cairnkv/cairn/internal/testkit"
	"github.com/cairnkv/cairn/kv"
	"go.uber.org/goleak"
)

// A closed node leaves no goroutine behind, its own or Dragonboat's.
func TestMain(m *testing.M) {
	if env := os.Getenv(damagedVar); env != "" {
		os.Exit(startDamaged(env))
	}
	goleak.VerifyTestMain(m)
}

// patience is how long a test waits for something that is bound to happen.
const patience = testkit.Patience

// eventually waits until something holds.
var eventually = testkit.Eventually

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var freeAddress = testkit.FreeAddress

// config is a cluster of one in a directory of its own, on ports of its own.
func config(t testing.TB) Config {
	return Config{
		DataDir: filepath.Join(t.TempDir(), "data"), Listen: "127.0.0.1:0", PeerListen: freeAddress(t),
		Fatal: func(err error) { t.Errorf("the node can't go on: %v", err) },
	}
}

// open starts a node, which the test's end closes.
func open(t testing.TB, cfg Config) *Node {
	t.Helper()
	n, err := Open(context.Background(), cfg)
	must(t, err)
	t.Cleanup(func() { must(t, n.Close()) })
	return n
}

// ready is open, and waits until the node can serve.
func ready(t testing.TB, cfg Config) *Node {
	t.Helper()
	n := open(t, cfg)
	eventually(t, "the node is ready", func() bool { return n.Ready() == nil })
	return n
}

// user is a client of a node.
type user struct {
	t         testing.TB
	n         *Node
	transport *http.Transport
}

func newUser(t testing.TB, n *Node) *user {
	u := &user{t: t, n: n, transport: &http.Transport{MaxIdleConnsPerHost: 100}}
	t.Cleanup(u.transport.CloseIdleConnections)
	return u
}

// try sends a request and returns the status and the body.
func (u *user) try(method, path, body string) (int, string, error) {
	r, err := http.NewRequest(method, u.n.URL()+path, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	if strings.HasPrefix(body, "{") {
		r.Header.Set("Content-Type", "application/json")
	}
	answer, err := (&http.Client{Transport: u.transport}).Do(r)
	if err != nil {
		return 0, "", err
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	return answer.StatusCode, string(b), err
}

// want sends a request and checks what comes back: the status, and that the
// body has a text.
func (u *user) want(status int, has, method, path, body string) {
	u.t.Helper()
	got, text, err := u.try(method, path, body)
	must(u.t, err)
	if got != status || !strings.Contains(text, has) {
		u.t.Fatalf("%s %s: %d %s; want %d and %q", method, path, got, text, status, has)
	}
}

func put(key, value string) *kv.Command {
	return &kv.Command{Kind: kv.KindTxn, Txn: &kv.Txn{Then: []kv.Op{{Type: kv.OpPut, Key: []byte(key), Value: []byte(value)}}}}
}
