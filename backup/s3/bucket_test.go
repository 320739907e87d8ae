package s3_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/cairnkv/cairn/backup"
	"github.com/cairnkv/cairn/backup/s3"
	"github.com/cairnkv/cairn/internal/testkit"
	"github.com/cairnkv/cairn/node"
)

const (
	accessKey = "cairn-test"
	secretKey = "not-a-secret"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually waits until something holds.
var eventually = testkit.Eventually

var freeAddress = testkit.FreeAddress

// gateway is a real S3 server, which keeps its objects in a directory.
type gateway struct {
	endpoint string
	files    string // the bucket "backups"
	admin    *minio.Client
}

// startGateway builds the server, which takes a while the first time, and starts
// it with one empty bucket.
func startGateway(t *testing.T) *gateway {
	t.Helper()
	if testing.Short() {
		t.Skip("builds and starts an S3 server")
	}
	binary := filepath.Join(t.TempDir(), "versitygw")
	build := exec.Command("go", "build", "-o", binary, "github.com/versity/versitygw/cmd/versitygw")
	build.Dir = "gateway"
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the S3 server: %v\n%s", err, out)
	}
	g := &gateway{files: filepath.Join(t.TempDir(), "objects")}
	must(t, os.Mkdir(g.files, 0o700))
	address := freeAddress(t)
	g.endpoint = "http://" + address
	server := exec.Command(binary, "--quiet", "--port", address, "--access", accessKey, "--secret", secretKey, "posix", g.files)
	var out bytes.Buffer
	server.Stdout, server.Stderr = &out, &out
	must(t, server.Start())
	t.Cleanup(func() {
		_ = server.Process.Kill()
		_ = server.Wait()
		if t.Failed() {
			t.Logf("the S3 server said:\n%s", out.String())
		}
	})
	var err error
	g.admin, err = minio.New(address, &minio.Options{Creds: credentials.NewStaticV4(accessKey, secretKey, "")})
	must(t, err)
	eventually(t, "the S3 server answers", func() bool {
		_, err := g.admin.ListBuckets(context.Background())
		return err == nil
	})
	must(t, g.admin.MakeBucket(context.Background(), "backups", minio.MakeBucketOptions{}))
	t.Setenv("AWS_ACCESS_KEY_ID", accessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", secretKey)
	return g
}

func (g *gateway) url(prefix string) string {
	return "s3://backups/" + prefix + "?endpoint=" + g.endpoint + "&region=us-east-1"
}

// uploads are the uploads that are not completed.
func (g *gateway) uploads(t *testing.T) (keys []string) {
	t.Helper()
	for o := range g.admin.ListIncompleteUploads(context.Background(), "backups", "", true) {
		must(t, o.Err)
		keys = append(keys, o.Key)
	}
	return keys
}

// TestBucket keeps objects in a bucket of a real S3 server.
func TestBucket(t *testing.T) {
	g := startGateway(t)
	ctx := context.Background()
	b, err := s3.Open(g.url("prod/eu"))
	must(t, err)
	if b.String() != "s3://backups/prod/eu" {
		t.Errorf("it says that it is %s", b)
	}
	list := func() []string {
		t.Helper()
		names, err := b.List(ctx)
		must(t, err)
		slices.Sort(names)
		return names
	}
	if names := list(); len(names) != 0 {
		t.Errorf("an empty bucket has %q", names)
	}

	// An object of several parts, and a small one.
	large := make([]byte, 40<<20)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range large {
		large[i] = byte(rng.Uint32())
	}
	for name, content := range map[string][]byte{"large": large, "small": []byte("content"), "empty": nil} {
		must(t, b.Write(ctx, name, func(w io.Writer) error {
			if slices.Contains(list(), name) {
				t.Errorf("%s is there before it is complete", name)
			}
			for part := range slices.Chunk(content, 1<<20) {
				if _, err := w.Write(part); err != nil {
					return err
				}
			}
			return nil
		}))
		r, err := b.Open(ctx, name)
		must(t, err)
		got, err := io.ReadAll(r)
		must(t, errors.Join(err, r.Close()))
		if !bytes.Equal(got, content) {
			t.Errorf("%s: got %d bytes, want %d", name, len(got), len(content))
		}
	}
	other, err := s3.Open(g.url("prod"))
	must(t, err)
	must(t, other.Write(ctx, "above", func(w io.Writer) error { _, err := w.Write([]byte("x")); return err }))
	if names := list(); !slices.Equal(names, []string{"empty", "large", "small"}) {
		t.Errorf("it has %q", names)
	}

	// A write that fails leaves nothing, neither an object nor an upload.
	broken := errors.New("broken")
	err = b.Write(ctx, "failed", func(w io.Writer) error {
		_, err := w.Write(large)
		return errors.Join(err, broken)
	})
	if !errors.Is(err, broken) {
		t.Errorf("a write that fails: %v", err)
	}
	// The ends of a file that the library takes for good are errors of the writer here.
	for name, end := range map[string]error{"failed at its end": io.EOF, "failed early": io.ErrUnexpectedEOF} {
		for _, size := range []int{0, 7, len(large)} {
			err := b.Write(ctx, name, func(w io.Writer) error {
				_, err := w.Write(large[:size])
				return cmp.Or(err, end)
			})
			if !errors.Is(err, end) {
				t.Errorf("%s, after %d bytes: %v", name, size, err)
			}
			if slices.Contains(list(), name) {
				t.Errorf("%s, after %d bytes: it is there", name, size)
			}
		}
	}
	canceled, cancel := context.WithCancel(ctx)
	err = b.Write(canceled, "canceled", func(w io.Writer) error {
		_, err := w.Write(large[:20<<20])
		cancel()
		return errors.Join(err, canceled.Err())
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("a write that is canceled: %v", err)
	}
	if names := list(); len(names) != 3 {
		t.Errorf("it has %q", names)
	}
	if left := g.uploads(t); slices.ContainsFunc(left, func(key string) bool { return strings.Contains(key, "failed") }) {
		t.Errorf("uploads are left: %q", left)
	}

	must(t, b.Remove(ctx, "small"))
	must(t, b.Remove(ctx, "small"))
	if names := list(); !slices.Equal(names, []string{"empty", "large"}) {
		t.Errorf("after a removal it has %q", names)
	}
	if r, err := b.Open(ctx, "small"); err == nil {
		if _, err := io.ReadAll(r); err == nil {
			t.Error("what was removed can be read")
		}
		_ = r.Close()
	}
	missing, err := s3.Open(strings.Replace(g.url(""), "backups", "nowhere", 1))
	must(t, err)
	if _, err := missing.List(ctx); err == nil {
		t.Error("a bucket that is not there is empty")
	}
	t.Setenv("AWS_SECRET_ACCESS_KEY", "another")
	foreign, err := s3.Open(g.url(""))
	must(t, err)
	if _, err := foreign.List(ctx); err == nil || strings.Contains(err.Error(), "another") {
		t.Errorf("with the wrong secret: %v", err)
	}
}

// TestScheduleAndRestore has a node take backups into a bucket, and another one
// begin with the newest.
func TestScheduleAndRestore(t *testing.T) {
	g := startGateway(t)
	start := func(change func(*node.Config)) *node.Node {
		t.Helper()
		cfg := node.Config{
			DataDir: filepath.Join(t.TempDir(), "data"), Listen: "127.0.0.1:0", PeerListen: freeAddress(t),
			Fatal: func(err error) { t.Errorf("the node can't go on: %v", err) },
		}
		change(&cfg)
		n, err := node.Open(context.Background(), cfg)
		must(t, err)
		t.Cleanup(func() { must(t, n.Close()) })
		eventually(t, "the node is ready", func() bool { return n.Ready() == nil })
		return n
	}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	do := func(n *node.Node, method, path, body string) string {
		t.Helper()
		r, err := http.NewRequest(method, n.URL()+path, strings.NewReader(body))
		must(t, err)
		answer, err := (&http.Client{Transport: transport}).Do(r)
		must(t, err)
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		must(t, err)
		return fmt.Sprintf("%d %s", answer.StatusCode, text)
	}
	n := start(func(c *node.Config) {
		c.Backup = node.Backup{To: g.url("cluster"), Every: time.Second, Keep: 2}
	})
	do(n, "PUT", "/v1/kv/k", "v")
	place, err := s3.Open(g.url("cluster"))
	must(t, err)
	newest := func() []backup.Scheduled {
		all, err := backup.Newest(context.Background(), place)
		must(t, err)
		return all
	}
	seen := map[string]bool{}
	eventually(t, "backups come and go", func() bool {
		all := newest()
		for _, one := range all {
			seen[one.Name] = true
		}
		return len(seen) > 3 && len(all) <= 2 && all[0].Revision == 2
	})
	must(t, n.Close())
	again := start(func(c *node.Config) { c.RestoreFrom = g.url("cluster") })
	if got := do(again, "GET", "/v1/kv/k", ""); got != "200 v" {
		t.Errorf("restored: %s", got)
	}
	_, err = node.Open(context.Background(), node.Config{
		DataDir: filepath.Join(t.TempDir(), "data"), Listen: "127.0.0.1:0", PeerListen: freeAddress(t), RestoreFrom: g.url("elsewhere"),
	})
	if err == nil || !strings.Contains(err.Error(), "there is no backup in s3://backups/elsewhere") {
		t.Errorf("from nothing: %v", err)
	}
}

// TestOpenRefuses says what is no address of a bucket, and never repeats what may
// be a secret.
func TestOpenRefuses(t *testing.T) {
	for _, address := range []string{
		"", "s3://", "s3:///prefix", "http://bucket/prefix", "s3://key:hush@bucket/prefix", "s3://bucket/%zz?secret=hush",
		"s3://bucket/prefix?secret=hush", "s3://bucket/prefix?endpoint=a&endpoint=b", "s3://bucket/prefix?endpoint=host:9000",
		"s3://bucket/prefix?endpoint=ftp://host", "s3://bucket/prefix?endpoint=http://user:hush@host", "s3://bucket/prefix?endpoint=http://host/path",
		"s3://bucket/prefix#hush", "s3://bucket/prefix?a=%zz",
	} {
		if _, err := s3.Open(address); err == nil || strings.Contains(err.Error(), "hush") {
			t.Errorf("%q: %v", address, err)
		}
	}
	t.Setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
	for address, says := range map[string]string{
		"s3://bucket": "s3://bucket/", "s3://bucket/": "s3://bucket/", "s3://bucket/a/b/": "s3://bucket/a/b",
		"s3://bucket/a?region=eu-central-1&endpoint=https://s3.example.com": "s3://bucket/a",
	} {
		b, err := s3.Open(address)
		must(t, err)
		if b.String() != says {
			t.Errorf("%s is %s", address, b)
		}
	}
}
