package robustness

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cairnkv/cairn/internal/testkit"
)

// startNginx starts nginx in front of a node, with nothing set but where it
// listens, where it sends requests, and where it may write, and returns its URL.
func startNginx(t testing.TB, c *Cluster) string {
	t.Helper()
	nginx, err := exec.LookPath("nginx")
	if err != nil {
		// Debian keeps it where only root looks.
		if nginx, err = exec.LookPath("/usr/sbin/nginx"); err != nil {
			t.Skip("SKIPPED: no nginx on this machine; Debian's package is nginx")
		}
	}
	dir := c.Evidence.Path("nginx")
	must(t, os.Mkdir(dir, 0o755))
	address := testkit.FreeAddress(t)
	config := filepath.Join(dir, "nginx.conf")
	must(t, os.WriteFile(config, []byte(strings.NewReplacer("DIR", dir, "ADDRESS", address, "NODE", c.Nodes[0].Address).Replace(`
daemon off;
pid DIR/pid;
error_log DIR/error.log;
events {}
http {
	access_log DIR/access.log;
	client_body_temp_path DIR/body;
	proxy_temp_path DIR/proxy;
	fastcgi_temp_path DIR/fastcgi;
	uwsgi_temp_path DIR/uwsgi;
	scgi_temp_path DIR/scgi;
	server {
		listen ADDRESS;
		location / { proxy_pass http://NODE; }
	}
}
`)), 0o600))
	log, err := os.Create(filepath.Join(dir, "output.log"))
	must(t, err)
	defer log.Close()
	process := exec.Command(nginx, "-e", filepath.Join(dir, "error.log"), "-c", config)
	process.Stdout, process.Stderr = log, log
	process.SysProcAttr = processAttributes()
	must(t, process.Start())
	t.Cleanup(func() {
		if err := process.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Error(err)
		}
		if err := process.Wait(); err != nil {
			t.Errorf("nginx: %v", err)
		}
	})
	return "http://" + address
}

// A wire is an event stream as it comes: line by line, comments included.
type wire struct{ lines *bufio.Reader }

// openWire opens a watch once whoever is asked answers.
func openWire(ctx context.Context, t testing.TB, url string) *wire {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	must(t, err)
	r.Header.Set("Accept", "text/event-stream")
	answer, err := retry(func() (*http.Response, error) {
		answer, err := http.DefaultClient.Do(r)
		if err == nil && answer.StatusCode != http.StatusOK {
			answer.Body.Close()
			err = errors.New(answer.Status)
		}
		return answer, err
	})
	must(t, err)
	t.Cleanup(func() { answer.Body.Close() })
	return &wire{lines: bufio.NewReader(answer.Body)}
}

// until reads to a line that begins so.
func (w *wire) until(t testing.TB, begin string) string {
	t.Helper()
	for {
		line, err := w.lines.ReadString('\n')
		if err != nil {
			if err == io.EOF {
				err = errors.New("the stream ended")
			}
			t.Fatalf("waited for %q: %v", begin, err)
		}
		if line = strings.TrimSuffix(line, "\n"); strings.HasPrefix(line, begin) {
			return line
		}
	}
}

// TestNginx watches through nginx as it comes: events arrive at once, one by one,
// and a stream on which nothing happens stays open. nginx ends a connection that
// was silent for a minute; the long suite is quiet for three.
func TestNginx(t *testing.T) {
	beside(t)
	quiet := 10 * time.Second // until the first sign of life
	if Long() {
		quiet = 3 * time.Minute
	}
	random := rand.New(rand.NewPCG(Seed(t), 0))
	c := NewCluster(t, NewEvidence(t), random, Layout{Size: 1})
	nginx := startNginx(t, c) // a test that is skipped starts no node
	must(t, c.Start())
	n := c.Nodes[0]
	h := NewHTTP()
	defer h.Close()
	ctx, cancel := context.WithTimeout(t.Context(), quiet+2*time.Minute)
	defer cancel()

	w := openWire(ctx, t, nginx+"/v1/watch?prefix=a/")
	w.until(t, ": connected")
	w.until(t, "id: ")
	// Each is written once the one before it has arrived.
	arrive := func(from, to int) (longest time.Duration) {
		for i := from; i < to; i++ {
			began := time.Now()
			a := h.Do(n, Request{Method: http.MethodPut, Path: fmt.Sprintf("/v1/kv/a/%d", i), Body: fmt.Append(nil, i)})
			must(t, a.explain())
			if line := w.until(t, "data: "); !strings.Contains(line, fmt.Sprintf(`"revision":%d,`, a.Revision)) {
				t.Fatalf("%s, want revision %d", line, a.Revision)
			}
			longest = max(longest, time.Since(began))
		}
		return longest
	}
	t.Logf("the slowest of 100 events arrived %v after its write began", arrive(0, 100))

	began := time.Now()
	signs := 0
	for time.Since(began) < quiet {
		w.until(t, ":")
		signs++
	}
	t.Logf("the stream was open for %v without an event, with %d signs of life", time.Since(began).Round(time.Second), signs)
	arrive(100, 101)
}
