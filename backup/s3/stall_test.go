package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cairnkv/cairn/backup"
	"github.com/cairnkv/cairn/internal/testkit"
)

// stalling is a service that stands still in the middle of what it says, and in the
// middle of what it is sent.
func stalling(t *testing.T) *Bucket {
	t.Helper()
	t.Setenv("AWS_ACCESS_KEY_ID", "cairn-test")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "not-a-secret")
	done := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "/object"):
			w.Header().Set("Content-Length", "1000000")
			w.Header().Set("Last-Modified", time.Now().UTC().Format(http.TimeFormat))
			_, _ = w.Write(make([]byte, 1000))
			w.(http.Flusher).Flush()
		case r.Method == http.MethodPut:
			_, _ = io.ReadFull(r.Body, make([]byte, 1000))
		case r.URL.Query().Has("uploads") && r.Method == http.MethodPost:
			_, _ = io.WriteString(w, `<InitiateMultipartUploadResult><Bucket>backups</Bucket><Key>k</Key><UploadId>1</UploadId></InitiateMultipartUploadResult>`)
			return
		case r.URL.Query().Has("uploads"):
			_, _ = io.WriteString(w, `<ListMultipartUploadsResult></ListMultipartUploadsResult>`)
			return
		case r.Method == http.MethodDelete:
			w.WriteHeader(http.StatusNoContent)
			return
		}
		select {
		case <-done:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(done) })
	b, err := open("s3://backups/p?endpoint="+server.URL+"&region=us-east-1", 50*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestStall: what stands still ends with an error, in both directions.
func TestStall(t *testing.T) {
	b := stalling(t)
	ctx, cancel := context.WithTimeout(context.Background(), testkit.Patience)
	defer cancel()
	r, err := b.Open(ctx, "object")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, r); err == nil || ctx.Err() != nil {
		t.Errorf("what is read ends with %v", err)
	}
	_ = r.Close()
	// More than the buffers of the kernel take.
	if err := b.Write(ctx, "object", func(w io.Writer) error {
		_, err := w.Write(make([]byte, 2*partBytes))
		return err
	}); err == nil || ctx.Err() != nil {
		t.Errorf("what is written ends with %v", err)
	}
}

// TestCut: a connection that ends in the midst of an object is no damage of what is
// stored.
func TestCut(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "cairn-test")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "not-a-secret")
	for _, came := range []int{0, 7, 15} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "1000000")
			w.Header().Set("Last-Modified", time.Now().UTC().Format(http.TimeFormat))
			w.WriteHeader(http.StatusOK)
			_, _ = w.Write([]byte("cairn-backup 1\n")[:came])
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler) // closes the connection
		}))
		b, err := open("s3://backups/p?endpoint="+server.URL+"&region=us-east-1", time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		r, err := b.Open(context.Background(), "object")
		if err != nil {
			t.Fatal(err)
		}
		var damaged *backup.DamagedError
		if _, err := io.ReadAll(r); !errors.Is(err, errCut) {
			t.Errorf("after %d bytes: %v", came, err)
		}
		_ = r.Close()
		if r, err = b.Open(context.Background(), "object"); err != nil {
			t.Fatal(err)
		}
		if _, err := backup.Verify(r); err == nil || errors.As(err, &damaged) {
			t.Errorf("after %d bytes, a backup: %v", came, err)
		}
		_ = r.Close()
		server.Close()
	}
}

// TestAbandoned removes what a crash left of uploads of backups, and nothing else.
func TestAbandoned(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "cairn-test")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "not-a-secret")
	now := time.Now()
	name := backup.Name(now, 7)
	for _, prefix := range []string{"", "p/"} {
		var text strings.Builder
		for id, u := range map[string]struct {
			key string
			age time.Duration
		}{
			"old": {prefix + name, 25 * time.Hour}, "gone": {prefix + backup.Name(now, 8), 25 * time.Hour},
			"of the same name, under way": {prefix + name, time.Hour},
			"of another application":      {prefix + "video", 1000 * time.Hour},
			"of a place below":            {prefix + "below/" + name, 1000 * time.Hour},
			"of a place beside":           {prefix + "beside-" + name, 1000 * time.Hour},
		} {
			fmt.Fprintf(&text, "<Upload><Key>%s</Key><UploadId>%s</UploadId><Initiated>%s</Initiated></Upload>",
				u.key, id, now.Add(-u.age).UTC().Format(time.RFC3339))
		}
		var aborted []string
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			q := r.URL.Query()
			switch {
			case r.Method == http.MethodGet && q.Has("uploads"):
				if q.Get("prefix") != prefix || q.Get("delimiter") != "/" {
					t.Errorf("it asks for %q", r.URL)
				}
				fmt.Fprintf(w, "<ListMultipartUploadsResult>%s</ListMultipartUploadsResult>", &text)
			case r.Method == http.MethodDelete:
				aborted = append(aborted, q.Get("uploadId"))
				if q.Get("uploadId") == "gone" {
					w.WriteHeader(http.StatusNotFound)
					fmt.Fprint(w, "<Error><Code>NoSuchUpload</Code></Error>")
					return
				}
				w.WriteHeader(http.StatusNoContent)
			default:
				t.Errorf("it asks for %s %q", r.Method, r.URL)
			}
		}))
		b, err := open("s3://backups/"+prefix+"?endpoint="+server.URL+"&region=us-east-1", time.Minute)
		if err == nil {
			err = b.removeAbandoned(context.Background())
		}
		if err != nil {
			t.Error(err)
		}
		server.Close()
		slices.Sort(aborted)
		if !slices.Equal(aborted, []string{"gone", "old"}) {
			t.Errorf("under %q: aborted %q", prefix, aborted)
		}
	}
}

// A counted connection counts its deadlines, of which each is for both directions.
type counted struct {
	net.Conn
	deadlines int
}

func (c *counted) SetDeadline(at time.Time) error {
	c.deadlines++
	return c.Conn.SetDeadline(at)
}

// TestMovingConn: each piece that is written puts off the deadline of what waits to be
// read.
func TestMovingConn(t *testing.T) {
	here, there := net.Pipe()
	defer there.Close()
	read := make(chan struct{})
	go func() {
		defer close(read)
		_, _ = io.ReadFull(there, make([]byte, 2*writePiece+1))
	}()
	conn := &counted{Conn: here}
	c := &movingConn{conn, time.Hour}
	if n, err := c.Write(make([]byte, 2*writePiece+1)); n != 2*writePiece+1 || err != nil {
		t.Errorf("wrote %d, %v", n, err)
	}
	<-read
	if conn.deadlines != 3 {
		t.Errorf("%d deadlines for three pieces", conn.deadlines)
	}
}
