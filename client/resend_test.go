package client_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/client"
)

// breaker is a node that closes a connection once it has read the second request
// of it, and answers all others from a script.
type breaker struct {
	url string

	mu       sync.Mutex
	answers  []string // of requests that are answered, in order
	requests []string // method and path of all that were read
}

func newBreaker(t *testing.T, answers ...string) *breaker {
	b := &breaker{answers: answers}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b.url = "http://" + l.Addr().String()
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { b.serve(conn) })
		}
	})
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	return b
}

func (b *breaker) serve(conn net.Conn) {
	defer conn.Close()
	in := bufio.NewReader(conn)
	for n := 1; ; n++ {
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, r.Body)
		b.mu.Lock()
		b.requests = append(b.requests, r.Method+" "+r.URL.Path)
		answer := ""
		if n != 2 && len(b.answers) > 0 {
			answer, b.answers = b.answers[0], b.answers[1:]
		}
		b.mu.Unlock()
		if answer == "" {
			return
		}
		_, _ = io.WriteString(conn, answer)
	}
}

// TestLargeBodiesAreAskedFor writes a large value to a node that is busy and then is not:
// none of it is sent to be refused, and all of it once it is wanted.
func TestLargeBodiesAreAskedFor(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	value := strings.Repeat("v", 1<<20)
	var sent []int64
	var wg sync.WaitGroup
	wg.Go(func() {
		for _, answer := range []string{
			"HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/problem+json\r\nRetry-After: 0\r\nConnection: close\r\nContent-Length: 15\r\n\r\n{\"code\":\"busy\"}",
			"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: 14\r\n\r\n{\"revision\":7}",
		} {
			conn, err := l.Accept()
			if err != nil {
				t.Error(err)
				return
			}
			r, err := http.ReadRequest(bufio.NewReader(conn))
			switch {
			case err != nil:
				t.Error(err)
			case r.Header.Get("Expect") != "100-continue":
				t.Errorf("the client did not ask: %v", r.Header)
			}
			before, after := answer, ""
			if strings.Contains(answer, " 201 ") {
				before, after = "HTTP/1.1 100 Continue\r\n\r\n", answer
			}
			_, _ = io.WriteString(conn, before)
			n, _ := io.Copy(io.Discard, r.Body)
			sent = append(sent, n)
			_, _ = io.WriteString(conn, after)
			_ = conn.Close()
		}
	})
	c := newClient(t, "http://"+l.Addr().String())
	r, err := c.Put(t.Context(), "k", []byte(value))
	if err != nil || r.Revision != 7 {
		t.Errorf("the write: %+v, %v", r, err)
	}
	_ = l.Close()
	wg.Wait()
	if fmt.Sprint(sent) != "[0 1048576]" {
		t.Errorf("so much was sent to each attempt: %v", sent)
	}
}

// TestNobodyCanAsk writes a large value through a proxy that doesn't know what to expect:
// it gets all of it, at the second time of one call.
func TestNobodyCanAsk(t *testing.T) {
	var asked []string
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Header.Get("Expect"))
		if r.Header.Get("Expect") != "" {
			says(http.StatusExpectationFailed, "what?")(w, r)
			return
		}
		if n, err := io.Copy(io.Discard, r.Body); err != nil || n != 1<<20 {
			t.Errorf("%d bytes came: %v", n, err)
		}
		answers(putAnswer)(w, r)
	}))
	defer proxy.Close()
	c := newClient(t, proxy.URL)
	_, err := c.Put(t.Context(), "k", make([]byte, 1<<20))
	noError(t, err)
	if fmt.Sprintf("%q", asked) != `["100-continue" ""]` {
		t.Errorf("asked %q", asked)
	}
}

func (b *breaker) writes() (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range b.requests {
		if !strings.HasPrefix(r, "GET") {
			n++
		}
	}
	return n
}

func raw(status int, contentType, body string) string {
	return fmt.Sprintf("HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %d\r\nCairn-Revision: 12\r\n\r\n%s",
		status, http.StatusText(status), contentType, len(body), body)
}

func rawProblem(status int, code api.Code) string {
	return raw(status, api.TypeProblem, fmt.Sprintf(`{"type":"t","title":"t","status":%d,"code":%q,"detail":"d"}`, status, code))
}

// TestResending breaks a connection that the client uses again, after the write
// was read: it may have been applied. A write without an Idempotency-Key arrives
// once, whatever its method. One with a key net/http sends again by itself; what
// the second one is answered is believed only if it tells of the first as well.
func TestResending(t *testing.T) {
	put := func(opts ...client.PutOption) func(*client.Client) error {
		return func(c *client.Client) error {
			_, err := c.Put(context.Background(), "a", []byte("1"), opts...)
			return err
		}
	}
	del := func(opts ...client.DeleteOption) func(*client.Client) error {
		return func(c *client.Client) error {
			_, err := c.Delete(context.Background(), "a", opts...)
			return err
		}
	}
	key := client.IdempotencyKey("k")
	for _, c := range []struct {
		name   string
		call   func(*client.Client) error
		second string
		want   error
		writes int
	}{
		{"a put", put(), raw(201, api.TypeJSON, putAnswer), client.ErrOutcomeUnknown, 1},
		{"a create", put(client.IfMissing()), rawProblem(412, api.CodeConditionFailed), client.ErrOutcomeUnknown, 1},
		{"a delete", del(), raw(200, api.TypeJSON, `{"revision":13,"deleted":0}`), client.ErrOutcomeUnknown, 1},
		{"a put with a key", put(key), raw(201, api.TypeJSON, putAnswer), nil, 2},
		{"a delete with a key", del(key), raw(200, api.TypeJSON, `{"revision":13,"deleted":1}`), nil, 2},
		{"a create with a key, decided", put(key, client.IfMissing()), rawProblem(412, api.CodeConditionFailed), client.ErrConditionFailed, 2},
		{"a put with a key, then no leader", put(key), rawProblem(503, api.CodeNoLeader), client.ErrOutcomeUnknown, 2},
		{"a put with a key, then no space", put(key), rawProblem(507, api.CodeNoSpace), client.ErrOutcomeUnknown, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBreaker(t, raw(200, api.TypeJSON, entryAnswer), c.second)
			cl := newClientOf(t, client.Config{Endpoints: []string{b.url}, Attempts: 1})
			if _, err := cl.Get(context.Background(), "a"); err != nil {
				t.Fatal(err)
			}
			if err := c.call(cl); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if n := b.writes(); n != c.writes {
				t.Errorf("the write arrived %d times, want %d", n, c.writes)
			}
		})
	}
}
