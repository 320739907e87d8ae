package client_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/client"
)

const (
	putAnswer   = `{"revision":12,"created":true}`
	entryAnswer = `{"key":"a","value":"1","mod_revision":12,"create_revision":12,"version":1,"modified_at":"2026-01-01T00:00:00.000Z"}`
)

// What becomes of a put and of a get, by what the first attempt met. The second
// attempt, if there is one, succeeds.
func TestRepetition(t *testing.T) {
	for _, test := range []struct {
		name  string
		first step
		// what is expected of a get, of a put, and of a put with an
		// Idempotency-Key: nil means that it was repeated and succeeded.
		get, put, idempotent error
	}{
		{"nothing was applied", refuses(api.CodeNoLeader), nil, nil, nil},
		{"too busy", refuses(api.CodeBusy), nil, nil, nil},
		{"shutting down", refuses(api.CodeShuttingDown), nil, nil, nil},
		{"the outcome is unknown", refuses(api.CodeOutcomeUnknown), nil, client.ErrOutcomeUnknown, nil},
		{"the connection broke", breaks, nil, client.ErrOutcomeUnknown, nil},
		{"the answer broke off", breaksOff, nil, client.ErrOutcomeUnknown, nil},
		{"a proxy's 502", says(502, "<html>bad gateway"), nil, client.ErrOutcomeUnknown, nil},
		{"a proxy's 503", says(503, "no upstream"), nil, client.ErrOutcomeUnknown, nil},
		{"a proxy's 429", says(429, "slow down"), nil, nil, nil},
		{"something went wrong", refuses(api.CodeInternal), nil, client.ErrOutcomeUnknown, nil},
		{"a refusal", refuses(api.CodeReserved), client.ErrReserved, client.ErrReserved, client.ErrReserved},
		{"a wrong request", refuses(api.CodeInvalidArgument), client.ErrInvalid, client.ErrInvalid, client.ErrInvalid},
		{"a condition", refuses(api.CodeConditionFailed), client.ErrConditionFailed, client.ErrConditionFailed, client.ErrConditionFailed},
		{"no such key", refuses(api.CodeKeyNotFound), client.ErrNotFound, client.ErrNotFound, client.ErrNotFound},
		{"a full store", refuses(api.CodeNoSpace), client.ErrNoSpace, client.ErrNoSpace, client.ErrNoSpace},
	} {
		t.Run(test.name, func(t *testing.T) {
			check := func(what string, want error, second string, call func(*client.Client) error) {
				t.Helper()
				s := newScript(t, test.first)
				sent := 1
				if want == nil {
					s.steps, sent = append(s.steps, answers(second)), 2
				}
				err := call(newClient(t, s.url))
				if !errors.Is(err, want) {
					t.Errorf("%s: got %v, want %v", what, err, want)
				}
				if got := len(s.requests()); got != sent {
					t.Errorf("%s: %d requests, want %d", what, got, sent)
				}
			}
			ctx := context.Background()
			check("get", test.get, entryAnswer, func(c *client.Client) error {
				_, err := c.Get(ctx, "a")
				return err
			})
			check("put", test.put, putAnswer, func(c *client.Client) error {
				_, err := c.Put(ctx, "a", []byte("1"))
				return err
			})
			check("idempotent put", test.idempotent, putAnswer, func(c *client.Client) error {
				_, err := c.Put(ctx, "a", []byte("1"), client.IdempotencyKey("k"))
				return err
			})
		})
	}
}

// A node that stands still keeps each write that may not be repeated until its time is
// over, but not one after the other.
func TestNodeThatStandsStill(t *testing.T) {
	stands := newScript(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	answering := newScript(t, answers(putAnswer))
	c := newClient(t, stands.url, answering.url)
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if _, err := c.Put(ctx, "a", []byte("1")); !errors.Is(err, client.ErrOutcomeUnknown) {
		t.Errorf("got %v", err)
	}
	if _, err := c.Put(context.Background(), "a", []byte("1")); err != nil || len(stands.requests()) != 1 {
		t.Errorf("got %v, and %d requests to who stands still", err, len(stands.requests()))
	}
}

// breaksOff begins an answer and closes the connection.
func breaksOff(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", "100")
	_, _ = io.WriteString(w, `{"revision":`)
	_ = http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler)
}

// A write that is repeated is the same write: the same key, target and body.
func TestRepetitionIsTheSameRequest(t *testing.T) {
	s := newScript(t, breaks, refuses(api.CodeOutcomeUnknown), answers(putAnswer))
	_, err := newClient(t, s.url).Put(context.Background(), "a/b", []byte("value"), client.Idempotent(), client.IfRevision(3))
	if err != nil {
		t.Fatal(err)
	}
	got := s.requests()
	if len(got) != 3 || got[0] != got[1] || got[1] != got[2] {
		t.Fatalf("got %v, want three equal requests", got)
	}
	if len(got[0].idempotencyKey) != 26 {
		t.Errorf("Idempotency-Key %q, want a ULID", got[0].idempotencyKey)
	}
	if got[0].target != "/v1/kv/a/b?if_revision=3" || got[0].body != "value" {
		t.Errorf("got %v", got[0])
	}
}

// A later refusal does not tell what became of an earlier attempt, unless it is
// one that the cluster remembers under the key.
func TestDoubtStays(t *testing.T) {
	for _, test := range []struct {
		name  string
		steps []step
		want  error
	}{
		{"then refused for good", []step{breaks, refuses(api.CodeNoSpace)}, client.ErrOutcomeUnknown},
		{"then never served", []step{breaks, refuses(api.CodeNoLeader), refuses(api.CodeNoLeader)}, client.ErrOutcomeUnknown},
		{"then decided", []step{breaks, refuses(api.CodeConditionFailed)}, client.ErrConditionFailed},
		{"never in doubt", []step{refuses(api.CodeNoLeader), refuses(api.CodeNoLeader), refuses(api.CodeNoLeader)}, client.ErrUnavailable},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newScript(t, test.steps...)
			c := newClientOf(t, client.Config{Endpoints: []string{s.url}, Attempts: 3})
			_, err := c.Put(context.Background(), "a", nil, client.Idempotent())
			if !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
			var e *client.Error
			if errors.As(err, &e) && e.Attempts != len(test.steps) {
				t.Errorf("%d attempts, want %d", e.Attempts, len(test.steps))
			}
		})
	}
}

// A node at which nothing listens is passed over, by writes as well, and the one
// that answered is asked first from then on.
func TestFailover(t *testing.T) {
	ctx := context.Background()
	s := newScript(t, answers(putAnswer), answers(entryAnswer))
	c := newClient(t, deadEndpoint(t), s.url)
	if _, err := c.Put(ctx, "a", []byte("1")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Get(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	if c.Revision() != 12 {
		t.Errorf("Revision is %d, want 12", c.Revision())
	}

	nobody := newClientOf(t, client.Config{Endpoints: []string{deadEndpoint(t), deadEndpoint(t)}, Attempts: 2})
	_, err := nobody.Put(ctx, "a", []byte("1"))
	if !errors.Is(err, client.ErrUnavailable) || errors.Is(err, client.ErrOutcomeUnknown) {
		t.Errorf("got %v, want unavailable: nothing was sent", err)
	}
}

// A bulk write is begun again only where its lines can be read again and the
// cluster knows them again.
func TestBulkRepetition(t *testing.T) {
	const line = `{"delete":{"key":"a"}}` + "\n"
	done := says(200, `{"applied":1,"revision":12,"done":true}`+"\n")
	for _, test := range []struct {
		name  string
		lines io.Reader
		opts  []client.WriteOption
		want  error
	}{
		{"under a key", strings.NewReader(line), []client.WriteOption{client.Idempotent()}, nil},
		{"without a key", strings.NewReader(line), nil, client.ErrOutcomeUnknown},
		{"of a stream", io.MultiReader(strings.NewReader(line)), []client.WriteOption{client.Idempotent()}, client.ErrOutcomeUnknown},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newScript(t, breaks, done)
			report, err := newClient(t, s.url).BulkLines(context.Background(), test.lines, nil, test.opts...)
			if !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
			if test.want == nil && (report.Applied != 1 || s.requests()[1].body != line) {
				t.Errorf("got %+v after %v", report, s.requests())
			}
		})
	}
}

// lateReader is a transport that answers before it reads the body: the first request
// with a refusal, and the second once it has tried to read the first one's body.
type lateReader struct {
	bodies []io.Reader
	late   string // what was read of the first
	sent   string // what was read of the second
}

func (l *lateReader) RoundTrip(r *http.Request) (*http.Response, error) {
	answer := httptest.NewRecorder()
	l.bodies = append(l.bodies, r.Body)
	if len(l.bodies) == 1 {
		refuses(api.CodeBusy)(answer, r)
		return answer.Result(), nil
	}
	late, _ := io.ReadAll(l.bodies[0])
	sent, err := io.ReadAll(l.bodies[1])
	l.late, l.sent = string(late), string(sent)
	says(200, `{"applied":1,"revision":12,"done":true}`+"\n")(answer, r)
	return answer.Result(), err
}

// A transport may read the body of an attempt that is over. The lines are those of
// the next one.
func TestBulkLinesAreNotReadLate(t *testing.T) {
	const line = `{"delete":{"key":"a"}}` + "\n"
	for name, lines := range map[string]io.Reader{"a stream": io.MultiReader(strings.NewReader(line)), "a file": strings.NewReader(line)} {
		t.Run(name, func(t *testing.T) {
			transport := &lateReader{}
			c := newClientOf(t, client.Config{HTTPClient: &http.Client{Transport: transport}})
			if _, err := c.BulkLines(context.Background(), lines, nil); err != nil {
				t.Fatal(err)
			}
			if transport.late != "" || transport.sent != line {
				t.Errorf("the first attempt took %q, the second one sent %q", transport.late, transport.sent)
			}
		})
	}
}

// An answer that ends without its last line leaves open what was applied.
func TestBulkBreaksOff(t *testing.T) {
	s := newScript(t, says(200, `{"applied":7,"revision":12}`+"\n"))
	report, err := newClient(t, s.url).BulkLines(context.Background(), io.MultiReader(strings.NewReader("\n")), nil)
	if !errors.Is(err, client.ErrOutcomeUnknown) || report.Applied != 7 {
		t.Errorf("got %+v, %v", report, err)
	}
}

// A bulk write that is begun again and then refused is as much in doubt as before,
// unless the second answer tells how far it came.
func TestBulkDoubtStays(t *testing.T) {
	const line = `{"delete":{"key":"a"}}` + "\n"
	last := says(200, `{"applied":0,"revision":0,"done":false,"error":{"code":"no-space","status":507,"title":"full"}}`+"\n")
	for _, test := range []struct {
		name  string
		steps []step
		want  error
	}{
		{"then not served", []step{breaks, refuses(api.CodeNoLeader)}, client.ErrOutcomeUnknown},
		{"then refused as a whole", []step{breaks, refuses(api.CodeInvalidArgument)}, client.ErrOutcomeUnknown},
		{"then told", []step{breaks, last}, client.ErrNoSpace},
		{"never in doubt", []step{refuses(api.CodeNoLeader), refuses(api.CodeNoLeader)}, client.ErrUnavailable},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newScript(t, test.steps...)
			c := newClientOf(t, client.Config{Endpoints: []string{s.url}, Attempts: 2})
			_, err := c.BulkLines(context.Background(), strings.NewReader(line), nil, client.Idempotent())
			if !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
}

// A node that says when to come back is not asked before, and not at all if that
// is too late.
func TestRetryAfter(t *testing.T) {
	later := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", "1")
		refuses(api.CodeBusy)(w, r)
	}
	s := newScript(t, later, answers(putAnswer))
	began := time.Now()
	if _, err := newClient(t, s.url).Put(context.Background(), "a", nil); err != nil {
		t.Fatal(err)
	}
	if waited := time.Since(began); waited < time.Second {
		t.Errorf("the second attempt came after %v, want 1s at least", waited)
	}

	never := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", "3600")
		refuses(api.CodeBusy)(w, r)
	}
	s = newScript(t, never)
	_, err := newClient(t, s.url).Put(context.Background(), "a", nil)
	if !errors.Is(err, client.ErrUnavailable) || len(s.requests()) != 1 {
		t.Errorf("got %v after %d requests, want unavailable after 1", err, len(s.requests()))
	}
}

// silentTimeout is that of calls of which a node that is silent takes a half: what is left
// must do for the other one, also on a machine that stands still for a moment.
const silentTimeout = 10 * time.Second

// A node that takes a request and says nothing more leaves time for another one.
func TestSilentNode(t *testing.T) {
	t.Parallel()
	silent := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	first, second := newScript(t, silent), newScript(t, answers(entryAnswer))
	c := newClientOf(t, client.Config{Endpoints: []string{first.url, second.url}, Timeout: silentTimeout})
	if _, err := c.Get(context.Background(), "a"); err != nil {
		t.Error(err)
	}
}

// Neither does one hold up for long what is opened and then read, and those that come
// after it begin with another node.
func TestSilentNodeOfStreams(t *testing.T) {
	t.Parallel()
	silent := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	lines := func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Type", api.TypeNDJSON) }
	first, second := newScript(t, silent, silent), newScript(t, streams(change(5, "a"), stays), streams(change(6, "b"), stays), lines)
	endpoints := []string{first.url, second.url}
	c := newClientOf(t, client.Config{Endpoints: endpoints, Timeout: silentTimeout})
	for i, want := range []string{"5:a", "6:b"} {
		got, err := follow(t, c, client.WatchOptions{From: 5}, 1)
		wantWatched(t, got, err, want)
		if n := len(first.requests()); n != 1 {
			t.Errorf("watch %d: %d requests to who is silent", i, n)
		}
	}
	c = newClientOf(t, client.Config{Endpoints: endpoints, Timeout: silentTimeout})
	for _, err := range c.Scan(context.Background(), client.EveryKey()) {
		t.Error(err)
	}
}

// TryLock is a call like any other: it takes its time at most, and leaves some of it
// for another node.
func TestSilentNodeOfTryLock(t *testing.T) {
	t.Parallel()
	silent := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	lease := answers(`{"id":"01KB0000000000000000000000","number":"7","ttl_seconds":60}`)
	first := newScript(t, lease, lease, silent)
	second := newScript(t, answers(`{"name":"l","token":7,"fence":"l:7","lease":"01KB0000000000000000000000"}`), answers(`{"revoked":true}`))
	c := newClientOf(t, client.Config{Endpoints: []string{first.url, second.url}, Timeout: silentTimeout})
	l, err := c.TryLock(context.Background(), "l", client.LockOptions{TTL: time.Minute})
	if err != nil || l.Token != 7 {
		t.Fatal(l, err)
	}
	if err := l.Release(context.Background()); err != nil {
		t.Error(err)
	}
}

// A refusal is an answer: the next call begins where it came from. That a caller has
// lost interest says nothing of the node.
func TestWhoIsAskedNext(t *testing.T) {
	s := newScript(t, refuses(api.CodeKeyNotFound), refuses(api.CodeConditionFailed))
	c := newClient(t, deadEndpoint(t), s.url)
	_, err := c.Get(context.Background(), "a")
	var e *client.Error
	if !errors.As(err, &e) || e.Attempts != 2 {
		t.Errorf("got %v, want two attempts", err)
	}
	if _, err = c.Put(context.Background(), "a", nil); !errors.As(err, &e) || e.Attempts != 1 {
		t.Errorf("got %v, want one attempt", err)
	}

	ctx, cancel := context.WithCancel(context.Background())
	first := newScript(t, func(_ http.ResponseWriter, r *http.Request) { cancel(); <-r.Context().Done() }, answers(entryAnswer))
	c = newClient(t, first.url, deadEndpoint(t))
	if _, err := c.Get(ctx, "a"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if _, err := c.Get(context.Background(), "a"); err != nil || len(first.requests()) != 2 {
		t.Errorf("got %v, and %d requests", err, len(first.requests()))
	}
}

// What ends a call is found in its error: the caller's context, or the client's
// own time limit.
func TestEndOfTime(t *testing.T) {
	arrived := make(chan struct{}, 2)
	silent := func(_ http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		<-r.Context().Done()
	}
	s := newScript(t, silent, silent)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { <-arrived; cancel() }()
	_, err := newClient(t, s.url).Put(ctx, "a", nil)
	if !errors.Is(err, context.Canceled) || !errors.Is(err, client.ErrOutcomeUnknown) {
		t.Errorf("got %v, want canceled and of unknown outcome", err)
	}

	c := newClientOf(t, client.Config{Endpoints: []string{s.url}, Timeout: 50 * time.Millisecond})
	_, err = c.Get(context.Background(), "a")
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "within 50ms") {
		t.Errorf("got %v, want the client's time limit", err)
	}
}

// Cairn never redirects; whatever does is not followed.
func TestRedirect(t *testing.T) {
	s := newScript(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/elsewhere", http.StatusMovedPermanently)
	})
	if _, err := newClient(t, s.url).Put(context.Background(), "a", nil); err == nil {
		t.Error("a redirected put succeeded")
	}
	if n := len(s.requests()); n != 1 {
		t.Errorf("%d requests, want 1", n)
	}
}

func TestEndpoints(t *testing.T) {
	for _, bad := range []string{"ftp://x", "http://", "http://u:p@host", "http://host?x=1", "http://ho st", "://"} {
		if _, err := client.New(client.Config{Endpoints: []string{bad}}); err == nil {
			t.Errorf("%q is taken for an endpoint", bad)
		}
	}
	c := newClient(t, "10.0.0.1:7480", "https://cairn.example/base/")
	if got := c.Endpoints(); got[0] != "http://10.0.0.1:7480" || got[1] != "https://cairn.example/base" {
		t.Errorf("got %v", got)
	}
}

// What is not Cairn's way to answer is shown as it is, in one line.
func TestForeignAnswers(t *testing.T) {
	ctx := context.Background()
	s := newScript(t, says(404, "<html>\n no such\tpage"))
	_, err := newClient(t, s.url).Get(ctx, "a")
	if want := s.url + " answered with status 404, and not as Cairn does: <html> no such page"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	s = newScript(t, answers("surely not JSON"))
	if _, err := newClient(t, s.url).Get(ctx, "a"); err == nil || !strings.Contains(err.Error(), "invalid character") {
		t.Errorf("got %v, want that it is no JSON", err)
	}
	s = newScript(t, says(200, "<html>hello"))
	for _, err := range newClient(t, s.url, deadEndpoint(t)).Scan(ctx, client.EveryKey()) {
		if err == nil || errors.Is(err, context.Canceled) || !strings.HasPrefix(err.Error(), s.url+" answered with status 200, and not as Cairn does") {
			t.Errorf("got %v, want that it is no answer of Cairn's", err)
		}
	}
	// What became of a write nobody knows then, the attempts before it included.
	for _, steps := range [][]step{{answers("surely not JSON")}, {says(200, "<html>hello")}} {
		if _, err := newClient(t, newScript(t, steps...).url).Put(ctx, "a", nil); !errors.Is(err, client.ErrOutcomeUnknown) {
			t.Errorf("got %v, want that the outcome is unknown", err)
		}
	}
	s = newScript(t, breaks, says(404, "<html>no such page"))
	if _, err := newClient(t, s.url).Put(ctx, "a", nil, client.Idempotent()); !errors.Is(err, client.ErrOutcomeUnknown) {
		t.Errorf("got %v, want that the outcome is unknown", err)
	}
	s = newScript(t, says(503, "not ready\n"))
	err = newClient(t, s.url).Ready(ctx)
	if !errors.Is(err, client.ErrUnavailable) || !strings.Contains(err.Error(), s.url+" is not ready") {
		t.Errorf("got %v, want that it is not ready", err)
	}
}
