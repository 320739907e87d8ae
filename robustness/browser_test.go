package robustness

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A site is what a browser sees: a page, and behind /v1 a node. It stands for the
// reverse proxy that a page and its API share, and tells what passes.
type site struct {
	t     testing.TB
	page  string
	proxy *httputil.ReverseProxy

	mu sync.Mutex
	// away says how requests to the API fail: not, by a broken connection, or
	// with the answer of a proxy that has nobody to ask.
	away away
	// dom is what the page last said that it shows, and changed is closed and
	// made anew when it says something.
	dom     string
	changed chan struct{}
	// resumed are the ids with which the browser came again, failed counts the
	// requests that failed.
	resumed []uint64
	failed  int
	// passing is closed while answers of the API pass; while it is not, they are
	// held up, as by a browser that takes nothing.
	passing chan struct{}
}

type away uint8

const (
	present away = iota
	cutOff
	badGateway
)

func newSite(t testing.TB, n *Node, page string) (*site, string) {
	t.Helper()
	node, err := url.Parse(n.URL())
	must(t, err)
	s := &site{t: t, page: page, changed: make(chan struct{}), passing: make(chan struct{})}
	close(s.passing)
	s.proxy = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(node) },
		// A node that is gone is a broken connection.
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
		ErrorLog:     log.New(io.Discard, "", 0),
		Transport:    &http.Transport{DisableKeepAlives: true},
		ModifyResponse: func(r *http.Response) error {
			r.Body = &held{r.Body, r.Request.Context(), s}
			return nil
		},
	}
	server := httptest.NewServer(s)
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return s, server.URL
}

func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path == "/":
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = io.WriteString(w, s.page)
	case r.URL.Path == "/dom" && r.Method == http.MethodPost:
		dom, err := io.ReadAll(r.Body)
		if err != nil {
			return // the page says it again when it changes
		}
		s.mu.Lock()
		s.dom = string(dom)
		s.notify()
		s.mu.Unlock()
	case strings.HasPrefix(r.URL.Path, "/v1/"):
		switch s.admit(r) {
		case cutOff:
			panic(http.ErrAbortHandler)
		case badGateway:
			http.Error(w, "no node", http.StatusBadGateway)
		default:
			s.proxy.ServeHTTP(w, r)
		}
	default:
		http.NotFound(w, r)
	}
}

// admit notes a request to the API and says what becomes of it.
func (s *site) admit(r *http.Request) away {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.away != present {
		s.failed++
		s.notify()
	} else if id, err := strconv.ParseUint(r.Header.Get("Last-Event-ID"), 10, 64); err == nil {
		s.resumed = append(s.resumed, id)
		s.notify()
	}
	return s.away
}

func (s *site) notify() {
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *site) set(a away) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.away, s.failed = a, 0
}

// hold holds up the answers of the API until the function that it returns is
// called.
func (s *site) hold() (release func()) {
	passing := make(chan struct{})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.passing = passing
	return sync.OnceFunc(func() { close(passing) })
}

// held is an answer that the site can hold up.
type held struct {
	io.ReadCloser
	ctx  context.Context
	site *site
}

// Read reads once answers pass.
func (h *held) Read(p []byte) (int, error) {
	h.site.mu.Lock()
	passing := h.site.passing
	h.site.mu.Unlock()
	select {
	case <-passing:
		return h.ReadCloser.Read(p)
	case <-h.ctx.Done():
		return 0, h.ctx.Err()
	}
}

// await waits until what the site has seen is as wanted.
func (s *site) await(ctx context.Context, what string, wanted func() bool) {
	s.t.Helper()
	for {
		s.mu.Lock()
		ok, changed, dom := wanted(), s.changed, s.dom
		s.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			s.t.Fatalf("waited in vain until %.2000s; the page shows\n%.2000s", what, dom)
		}
	}
}

// browserPage is the page of docs/browser.md, with a show, and with lines that
// tell the site what the page has become.
func browserPage(t testing.TB) string {
	t.Helper()
	doc, err := os.ReadFile(filepath.Join("..", "docs", "browser.md"))
	must(t, err)
	_, rest, _ := strings.Cut(string(doc), "<!-- page -->\n```js\n")
	script, _, ok := strings.Cut(rest, "```\n<!-- /page -->")
	if !ok {
		t.Fatal("docs/browser.md has no page between its marks")
	}
	return `<!DOCTYPE html><meta charset="utf-8"><title>keys</title><pre id="keys"></pre><script>
const keys = document.getElementById("keys");
function show(state) {
  keys.textContent = [...state].sort(([a], [b]) => a < b ? -1 : 1).map(([key, value]) => key + "=" + value + "\n").join("");
}
let said = Promise.resolve();
new MutationObserver(() => {
  const dom = keys.textContent;
  said = said.then(() => fetch("/dom", {method: "POST", body: dom})).catch(() => {});
}).observe(keys, {childList: true, characterData: true, subtree: true});
` + script + `</script>`
}

// startBrowser shows a page in Chromium until the test ends.
func startBrowser(t testing.TB, page string) {
	t.Helper()
	chromium := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable"} {
		if path, err := exec.LookPath(name); err == nil {
			chromium = path
			break
		}
	}
	if chromium == "" {
		t.Skip("SKIPPED: no Chromium on this machine; Debian's package is chromium")
	}
	profile, err := os.MkdirTemp("", "cairn-browser-")
	must(t, err)
	args := []string{
		"--headless", "--disable-gpu", "--disable-dev-shm-usage", "--user-data-dir=" + profile, "--remote-debugging-port=0",
		// It is to speak to the page and to nobody else.
		"--no-first-run", "--no-default-browser-check", "--disable-background-networking", "--disable-component-update",
		"--disable-sync", "--disable-default-apps", "--disable-quic", "--no-proxy-server",
	}
	if os.Geteuid() == 0 {
		args = append(args, "--no-sandbox") // Chromium insists
	}
	browser := exec.Command(chromium, append(args, page)...)
	var said bytes.Buffer
	browser.Stdout, browser.Stderr = &said, &said
	browser.SysProcAttr = processAttributes()
	// Whoever of its processes holds on to the pipe must not hold up the test.
	browser.WaitDelay = 5 * time.Second
	must(t, browser.Start())
	t.Cleanup(func() {
		// It is the leader of a group of its own, with all that it has started.
		if err := syscall.Kill(-browser.Process.Pid, syscall.SIGKILL); err != nil {
			t.Errorf("end %s: %v", chromium, err)
		}
		_ = browser.Wait() // killed
		if t.Failed() {
			t.Logf("%s said\n%s", chromium, said.Bytes())
		}
		if err := os.RemoveAll(profile); err != nil {
			t.Errorf("the profile was not deleted: %v", err)
		}
	})
}

// TestBrowser shows keys in Chromium with the plain EventSource of
// docs/browser.md. The node is stopped, killed, and compacted while the browser is
// away, and a proxy answers in its place; at the end the page shows what the store
// has.
func TestBrowser(t *testing.T) {
	beside(t)
	c := NewCluster(t, NewEvidence(t), rand.New(rand.NewPCG(Seed(t), 0)), Layout{Size: 1})
	n := c.Nodes[0]
	s, page := newSite(t, n, browserPage(t))
	startBrowser(t, page) // a test that is skipped starts no node
	must(t, c.Start())
	h := NewHTTP()
	defer h.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()

	write := func(method, key, value string) {
		t.Helper()
		a := h.Do(n, Request{Method: method, Path: "/v1/kv/" + key, Body: []byte(value)})
		must(t, a.explain())
	}
	// compact forgets all history but the newest revision, which it returns.
	compact := func() uint64 {
		t.Helper()
		a := h.Do(n, Request{
			Method: http.MethodPost, Path: "/v1/compact", Body: []byte(`{"keep_revisions":0}`),
			Header: map[string]string{"Content-Type": "application/json"},
		})
		must(t, a.explain())
		var result struct {
			Compacted uint64 `json:"compact_revision"`
		}
		must(t, json.Unmarshal(a.Body, &result))
		return result.Compacted
	}
	// same waits until the page shows what the store has.
	same := func(when string) {
		t.Helper()
		var want strings.Builder
		must(t, Stream(n, "prefix=app/", func(v Version) error {
			fmt.Fprintf(&want, "%s=%s\n", v.Key, v.Value)
			return nil
		}))
		s.await(ctx, "the page shows what the store has, "+when+":\n"+want.String(), func() bool { return s.dom == want.String() })
	}

	write(http.MethodPut, "app/color", "blue")
	write(http.MethodPut, "app/gone", "soon")
	write(http.MethodPut, "other", "not shown")
	same("at first")
	write(http.MethodPut, "app/color", "grün")
	write(http.MethodPut, "app/size", "9")
	same("after changes")

	c.Note("an orderly restart")
	must(t, n.Stop())
	must(t, c.Start())
	write(http.MethodPut, "app/after", "restart")
	same("after a restart")
	s.await(ctx, "the browser resumed", func() bool { return len(s.resumed) > 0 })

	c.Note("kill -9, and a compaction of all that the browser has not seen")
	s.set(cutOff)
	must(t, n.Kill())
	must(t, c.Start())
	write(http.MethodDelete, "app/gone", "")
	write(http.MethodPut, "app/size", "10")
	write(http.MethodPut, "app/new", "while it was away")
	write(http.MethodPut, "app/last", "x")
	compacted := compact()
	s.await(ctx, "the browser has come in vain", func() bool { return s.failed > 0 })
	s.mu.Lock()
	before := len(s.resumed)
	s.mu.Unlock()
	s.set(present)
	same("after a compaction")
	s.mu.Lock()
	if len(s.resumed) == before || s.resumed[before]+1 >= compacted {
		t.Errorf("the browser resumed behind %d, want that below the compaction at %d", s.resumed[before:], compacted)
	}
	s.mu.Unlock()

	c.Note("a compaction overtakes the browser, which takes nothing")
	s.mu.Lock()
	before = len(s.resumed)
	s.mu.Unlock()
	release := s.hold()
	defer release()
	large := strings.Repeat("x", 1<<20)
	for range 24 { // more than sockets hold
		write(http.MethodPut, "app/large", large)
	}
	write(http.MethodDelete, "app/large", "")
	write(http.MethodDelete, "app/after", "")
	write(http.MethodPut, "app/overtaken", "yes")
	_, err := retry(func() (struct{}, error) {
		a := h.Do(n, Request{Method: http.MethodGet, Path: "/v1/status"})
		if err := a.explain(); err != nil {
			return struct{}{}, err
		}
		var status struct {
			Watches struct{ Behind int }
		}
		if err := json.Unmarshal(a.Body, &status); err != nil {
			return struct{}{}, err
		}
		if status.Watches.Behind != 1 {
			return struct{}{}, fmt.Errorf("%d watches are behind", status.Watches.Behind)
		}
		return struct{}{}, nil
	})
	must(t, err)
	compact()
	release()
	same("after a compaction has overtaken it")
	s.mu.Lock()
	if len(s.resumed) != before {
		t.Errorf("the browser came again, behind %d; it should have been told on its connection", s.resumed[before:])
	}
	s.mu.Unlock()

	c.Note("a proxy's 502 while the node is gone")
	s.set(badGateway)
	must(t, n.Kill())
	s.await(ctx, "the browser was told that no node is there", func() bool { return s.failed > 1 })
	must(t, c.Start())
	write(http.MethodDelete, "app/last", "")
	write(http.MethodPut, "app/end", "well")
	s.set(present)
	same("after a proxy's 502")
	write(http.MethodPut, "app/end", "live")
	write(http.MethodDelete, "app/new", "")
	same("at the end")
}
