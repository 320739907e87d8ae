package client

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"
)

// DefaultEndpoint is where a node listens that was started without flags.
const DefaultEndpoint = "http://127.0.0.1:7480"

// Config is what a [Client] is made of. The zero value is usable: it talks to a
// node on this machine.
type Config struct {
	// Endpoints are the URLs of nodes of one cluster, such as
	// http://10.0.0.1:7480; DefaultEndpoint if empty. A scheme that is left out
	// is http. The client stays with a node as long as it serves, and begins
	// with the first: give them in different orders to different clients if they
	// should share the load.
	Endpoints []string
	// Token is sent as a bearer token with every request, unless it is empty.
	Token string
	// HTTPClient sends the requests. By default the client has one of its own,
	// with a pool of connections, which takes the proxy from the environment. Its
	// Timeout should be 0: the one below knows about attempts and streams.
	HTTPClient *http.Client
	// Timeout bounds a call with all its attempts, besides the deadline of its
	// context; 10 s if it is 0, no bound if it is negative. What streams (Scan,
	// Snapshot, Bulk, a lock that is waited for) is bounded by its context alone;
	// where there are other nodes, one that does not begin to answer within Timeout
	// is left for the next. A bulk write, which may take long to begin, is not given to
	// a node that does not answer another question within it.
	Timeout time.Duration
	// Attempts bounds how often a call is sent; 8 if it is 0. One is an attempt
	// for each call and no repetition.
	Attempts int
	// UserAgent is sent with every request; "cairn-go" by default.
	UserAgent string
}

const (
	defaultTimeout  = 10 * time.Second
	defaultAttempts = 8
)

// Client talks to a cluster. It is safe for concurrent use.
type Client struct {
	endpoints []string // without a slash at the end
	token     string
	http      *http.Client
	timeout   time.Duration
	attempts  int
	userAgent string
	silence   time.Duration // watchSilence, but for tests

	// preferred is the index of the endpoint that answered last.
	preferred atomic.Uint32
	// revision is the newest revision that an answer carried.
	revision atomic.Uint64
}

// New makes a client. It does not connect.
func New(cfg Config) (*Client, error) {
	c := &Client{
		token: cfg.Token, http: cfg.HTTPClient,
		timeout: cfg.Timeout, attempts: cfg.Attempts, userAgent: cfg.UserAgent, silence: watchSilence,
	}
	given := cfg.Endpoints
	if len(given) == 0 {
		given = []string{DefaultEndpoint}
	}
	for _, e := range given {
		endpoint, err := parseEndpoint(e)
		if err != nil {
			return nil, err
		}
		c.endpoints = append(c.endpoints, endpoint)
	}
	if c.timeout == 0 {
		c.timeout = defaultTimeout
	}
	if c.attempts == 0 {
		c.attempts = defaultAttempts
	}
	if c.attempts < 0 {
		return nil, errors.New("client: Attempts is negative")
	}
	if c.userAgent == "" {
		c.userAgent = "cairn-go"
	}
	if strings.ContainsAny(c.token, "\r\n") {
		return nil, errors.New("client: the token has a line break")
	}
	if c.http == nil {
		c.http = &http.Client{Transport: newTransport()}
	}
	if c.http.CheckRedirect == nil {
		// Cairn never redirects. Whatever does is not Cairn, and a write that
		// follows it may arrive as a GET.
		own := *c.http
		own.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
		c.http = &own
	}
	return c, nil
}

// newTransport is net/http's with a pool that fits many callers of few hosts.
func newTransport() *http.Transport {
	return &http.Transport{
		Proxy:       http.ProxyFromEnvironment,
		DialContext: (&net.Dialer{Timeout: 3 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		// A node closes a connection that was idle for two minutes. The client
		// closes it first, so that no request crosses with that close.
		IdleConnTimeout:       time.Minute,
		MaxIdleConnsPerHost:   128,
		TLSHandshakeTimeout:   5 * time.Second,
		ExpectContinueTimeout: time.Second,
		ForceAttemptHTTP2:     true,
		// A connection of HTTP/2 outlives a stream that was given up. One whose
		// peer is gone must not get the next stream.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 15 * time.Second},
		// Values come as they are stored, and most are small.
		DisableCompression: true,
	}
}

func parseEndpoint(s string) (string, error) {
	full := strings.TrimSpace(s)
	if !strings.Contains(full, "://") {
		full = "http://" + full
	}
	u, err := url.Parse(full)
	switch {
	case err != nil:
		return "", fmt.Errorf("client: endpoint %q is not a URL", s)
	case u.Scheme != "http" && u.Scheme != "https":
		return "", fmt.Errorf("client: endpoint %q: want http or https", s)
	case u.Hostname() == "":
		return "", fmt.Errorf("client: endpoint %q has no host", s)
	case u.RawQuery != "" || u.Fragment != "" || u.User != nil:
		return "", fmt.Errorf("client: endpoint %q: want a scheme, a host and perhaps a path, nothing else", s)
	}
	return strings.TrimRight(full, "/"), nil
}

// Endpoints returns the URLs that the client knows.
func (c *Client) Endpoints() []string { return append([]string(nil), c.endpoints...) }

// Revision is the newest revision of the store that an answer to this client
// carried, and 0 before the first. With [MinRevision] it makes any node show
// this client its own writes.
func (c *Client) Revision() uint64 { return c.revision.Load() }

// saw notes a revision that an answer carried.
func (c *Client) saw(revision uint64) {
	for {
		old := c.revision.Load()
		if revision <= old || c.revision.CompareAndSwap(old, revision) {
			return
		}
	}
}

// Close closes the connections that are idle. The client remains usable.
func (c *Client) Close() { c.http.CloseIdleConnections() }
