// Package s3 keeps backups in a bucket of an S3 service.
//
// A place is named by a URL, s3://bucket/prefix, which may say in its query where
// the service is (endpoint=https://s3.example.com) and in which region. What it
// does not say is taken from the environment as other tools do: AWS_ENDPOINT_URL_S3
// or AWS_ENDPOINT_URL, AWS_REGION or AWS_DEFAULT_REGION. The credentials are those
// of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, of the file
// ~/.aws/credentials, or of the machine's role; they are never in the URL.
//
// An object is there once its upload is completed, and not before. What a crash
// leaves of an upload takes room in the bucket until the first upload after a day
// removes it. Uploads of objects that have no name of a backup, or are deeper, are
// left alone.
package s3

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/cairnkv/cairn/backup"
)

// Scheme begins the URL of a bucket.
const Scheme = "s3://"

const (
	// partBytes is what is held in memory of an upload. There are 10,000 parts at
	// most, so a backup can have 160 GB.
	partBytes = 16 << 20
	// abandonedAfter is how old an upload is that nobody will complete.
	abandonedAfter = 24 * time.Hour
)

// Bucket is a prefix in a bucket.
type Bucket struct {
	client *minio.Client
	name   string
	prefix string // empty, or with a slash at its end
}

// Open makes a place of a URL. It does not connect.
func Open(address string) (*Bucket, error) { return open(address, stallTimeout) }

func open(address string, stall time.Duration) (*Bucket, error) {
	u, err := url.Parse(address)
	if err != nil || !strings.HasPrefix(address, Scheme) || u.Host == "" || u.User != nil || u.Fragment != "" {
		// The error of the parser would repeat what may be a secret.
		return nil, errors.New("the address of a bucket is s3://bucket/prefix, with no more than endpoint= and region= behind it")
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, errors.New("the address of the bucket has a query that can't be read")
	}
	for name, values := range query {
		if name != "endpoint" && name != "region" || len(values) != 1 {
			return nil, fmt.Errorf("the address of the bucket has %q, where endpoint= and region= are known", name)
		}
	}
	endpoint := cmp.Or(query.Get("endpoint"), os.Getenv("AWS_ENDPOINT_URL_S3"), os.Getenv("AWS_ENDPOINT_URL"), "https://s3.amazonaws.com")
	service, err := url.Parse(endpoint)
	if err != nil || service.Scheme != "http" && service.Scheme != "https" || service.Host == "" || service.User != nil || strings.Trim(service.Path, "/") != "" {
		return nil, errors.New("the endpoint of the bucket must be http://host:port or https://host:port")
	}
	b := &Bucket{name: u.Host, prefix: strings.Trim(u.Path, "/")}
	if b.prefix != "" {
		b.prefix += "/"
	}
	secure := service.Scheme == "https"
	transport, err := newTransport(secure, stall)
	if err != nil {
		return nil, fmt.Errorf("the bucket %s: %w", b, err)
	}
	b.client, err = minio.New(service.Host, &minio.Options{
		Creds: credentials.NewChainCredentials([]credentials.Provider{
			&credentials.EnvAWS{}, &credentials.FileAWSCredentials{}, &credentials.IAM{},
		}),
		Secure: secure, Transport: transport, MaxRetries: maxTries,
		Region: cmp.Or(query.Get("region"), os.Getenv("AWS_REGION"), os.Getenv("AWS_DEFAULT_REGION")),
	})
	if err != nil {
		return nil, fmt.Errorf("the bucket %s: %w", b, err)
	}
	return b, nil
}

// String says where it is.
func (b *Bucket) String() string { return Scheme + b.name + "/" + strings.TrimSuffix(b.prefix, "/") }

// List returns the names of the objects behind the prefix, without those that
// are deeper.
func (b *Bucket) List(ctx context.Context) ([]string, error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop() // ends the library's goroutine when the loop ends early
	var names []string
	for o := range b.client.ListObjects(ctx, b.name, minio.ListObjectsOptions{Prefix: b.prefix}) {
		if o.Err != nil {
			return nil, o.Err
		}
		if name := strings.TrimPrefix(o.Key, b.prefix); name != "" && !strings.Contains(name, "/") {
			names = append(names, name)
		}
	}
	return names, nil
}

// Open opens an object. That it is not there may only be known when it is read.
func (b *Bucket) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	o, err := b.client.GetObject(ctx, b.name, b.prefix+name, minio.GetObjectOptions{})
	if err != nil {
		return nil, err
	}
	return object{o}, nil
}

// object is an object that is read. A connection that ends in the midst of it is not the
// end of what is stored.
type object struct{ io.ReadCloser }

var errCut = errors.New("the connection with the service ended in the midst of an object")

// Read implements io.Reader.
func (o object) Read(p []byte) (int, error) {
	n, err := o.ReadCloser.Read(p)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = errCut
	}
	return n, err
}

// Write uploads what write writes. The object is there when all of it is.
func (b *Bucket) Write(ctx context.Context, name string, write func(io.Writer) error) error {
	if err := b.removeAbandoned(ctx); err != nil {
		return err
	}
	r, w := io.Pipe()
	written := make(chan error, 1)
	go func() {
		err := write(w)
		ended := err
		if err != nil {
			// The library takes a bare io.EOF, or io.ErrUnexpectedEOF, for a good end.
			ended = fmt.Errorf("what is uploaded can't be written: %w", err)
		}
		_ = w.CloseWithError(ended) // it always returns nil
		written <- err
	}()
	_, err := b.client.PutObject(ctx, b.name, b.prefix+name, r, -1, minio.PutObjectOptions{
		ContentType: "application/octet-stream", PartSize: partBytes,
	})
	_ = r.CloseWithError(errors.Join(err, io.ErrClosedPipe)) // ends a write that nobody reads any more
	// Why the writer failed says more than that the upload did.
	if werr := <-written; werr != nil && !errors.Is(werr, io.ErrClosedPipe) {
		return werr
	}
	return err
}

// removeAbandoned removes the parts of uploads that a crash cut off: of backups of this
// place, by their ids. The bucket may be others' as well, and a name may have a younger
// upload that is under way.
func (b *Bucket) removeAbandoned(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	core := minio.Core{Client: b.client}
	for o := range b.client.ListIncompleteUploads(ctx, b.name, b.prefix, false) {
		if o.Err != nil {
			return o.Err
		}
		name := strings.TrimPrefix(o.Key, b.prefix)
		if _, ours := backup.ParseName(name); !ours || time.Since(o.Initiated) < abandonedAfter {
			continue
		}
		err := core.AbortMultipartUpload(ctx, b.name, o.Key, o.UploadID)
		// Another member may have been there first.
		if err != nil && minio.ToErrorResponse(err).Code != minio.NoSuchUpload {
			return err
		}
	}
	return nil
}

// Remove removes an object.
func (b *Bucket) Remove(ctx context.Context, name string) error {
	return b.client.RemoveObject(ctx, b.name, b.prefix+name, minio.RemoveObjectOptions{})
}
