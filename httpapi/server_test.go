package httpapi

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/kv"
)

// sample is a good request of each route.
var sample = map[string]struct {
	target, body string
	headers      []string
}{
	"GET /v1/kv/*":      {target: "/v1/kv/a"},
	"HEAD /v1/kv/*":     {target: "/v1/kv/a"},
	"PUT /v1/kv/*":      {target: "/v1/kv/b", body: "x"},
	"DELETE /v1/kv/*":   {target: "/v1/kv/b"},
	"GET /v1/key":       {target: "/v1/key?key=a"},
	"HEAD /v1/key":      {target: "/v1/key?key=a"},
	"PUT /v1/key":       {target: "/v1/key?key=b", body: "x"},
	"DELETE /v1/key":    {target: "/v1/key?key=b"},
	"POST /v1/kv/*":     {target: "/v1/kv/q/?sequence=true", body: "x"},
	"POST /v1/key":      {target: "/v1/key?key=q/&sequence=true", body: "x"},
	"POST /v1/kv":       {target: "/v1/kv", body: `{"put":{"key":"b","value":"x"}}`, headers: []string{"Content-Type: application/x-ndjson"}},
	"DELETE /v1/kv":     {target: "/v1/kv?prefix=b"},
	"POST /v1/txn":      {target: "/v1/txn", body: `{}`, headers: []string{"Content-Type: application/json"}},
	"GET /v1/history/*": {target: "/v1/history/a"},
	"GET /v1/history":   {target: "/v1/history?key=a"},

	"POST /v1/leases":                {target: "/v1/leases", body: `{"ttl_seconds":10}`, headers: []string{"Content-Type: application/json"}},
	"GET /v1/leases/{id}":            {target: "/v1/leases/1"},
	"DELETE /v1/leases/{id}":         {target: "/v1/leases/2"},
	"POST /v1/leases/{id}/keepalive": {target: "/v1/leases/1/keepalive"},
	"POST /v1/leases/{id}/hold":      {target: "/v1/leases/3/hold"},
	"POST /v1/leases/keepalive":      {target: "/v1/leases/keepalive", body: `{"ids":["1"]}`, headers: []string{"Content-Type: application/json"}},
	"POST /v1/leases/hold":           {target: "/v1/leases/hold", body: `{"ids":["4"]}`, headers: []string{"Content-Type: application/json"}},

	"POST /v1/locks/{name}":                    {target: "/v1/locks/l", body: `{"ttl_seconds":60}`, headers: []string{"Content-Type: application/json"}},
	"GET /v1/locks/{name}":                     {target: "/v1/locks/l"},
	"DELETE /v1/locks/{name}":                  {target: "/v1/locks/l?token=LAST"},
	"POST /v1/elections/{name}":                {target: "/v1/elections/e", body: `{"ttl_seconds":60}`, headers: []string{"Content-Type: application/json"}},
	"GET /v1/elections/{name}":                 {target: "/v1/elections/e"},
	"PUT /v1/elections/{name}":                 {target: "/v1/elections/e", body: `{"token":LAST,"value":"v"}`, headers: []string{"Content-Type: application/json"}},
	"DELETE /v1/elections/{name}":              {target: "/v1/elections/e?token=LAST"},
	"GET /v1/elections/{name}/observe":         {target: "/v1/elections/e/observe"},
	"GET /v1/services":                         {target: "/v1/services"},
	"GET /v1/services/{service}":               {target: "/v1/services/s"},
	"PUT /v1/services/{service}/{instance}":    {target: "/v1/services/s/i", body: `{"ttl_seconds":60}`, headers: []string{"Content-Type: application/json"}},
	"GET /v1/services/{service}/{instance}":    {target: "/v1/services/s/i"},
	"DELETE /v1/services/{service}/{instance}": {target: "/v1/services/s/i"},

	"GET /v1/watch":                         {target: "/v1/watch?wait=0"},
	"POST /v1/watch":                        {target: "/v1/watch", body: `{"wait_seconds":0}`, headers: []string{"Content-Type: application/json"}},
	"POST /v1/cluster/members":              {target: "/v1/cluster/members", body: `{}`, headers: []string{"Content-Type: application/json"}},
	"GET /v1/cluster/members/{id}":          {target: "/v1/cluster/members/" + testMember.String()},
	"DELETE /v1/cluster/members/{id}":       {target: "/v1/cluster/members/" + testMember.String()},
	"POST /v1/cluster/members/{id}/promote": {target: "/v1/cluster/members/" + testMember.String() + "/promote"},
	"POST /v1/cluster/leader":               {target: "/v1/cluster/leader", body: `{}`, headers: []string{"Content-Type: application/json"}},
	"POST /v1/cluster/join": {target: "/v1/cluster/join", body: `{"token":"t","claim":"01KB0000000000000000000009","peer_address":"a:1"}`,
		headers: []string{"Content-Type: application/json"}},

	"POST /v1/compact": {target: "/v1/compact", body: `{"revision":2}`, headers: []string{"Content-Type: application/json"}},
}

// tokenPattern finds the token of a holder; LAST stands for the last one in what is
// sent.
var tokenPattern = regexp.MustCompile(`"token":(\d+)`)

// each sends a good request to every route.
func (k *kit) each(fn func(rt *route, a *answer), headers ...string) {
	k.t.Helper()
	k.put("a", "1")
	for n := range int64(4) {
		k.member.apply(k.t, &kv.Command{Kind: kv.KindLeaseGrant, Lease: kv.Lease{ID: kv.LeaseID{1, byte(n + 1)}, Number: n + 1, TTLMillis: 1_000}})
	}
	token := ""
	for i := range k.server.routes {
		rt := &k.server.routes[i]
		s, ok := sample[rt.method+" "+rt.pattern]
		if !ok {
			s.target = rt.pattern
		}
		var body []byte
		if rt.body != noBody {
			body = []byte(s.body)
		}
		if strings.HasSuffix(rt.pattern, "/hold") {
			k.revokeAfterRenewal(kv.LeaseID{1, 3})
			if rt.pattern == "/v1/leases/hold" {
				k.revokeAfterRenewal(kv.LeaseID{1, 4})
			}
		}
		// Streams end with their server.
		k.member.changing = nil
		if strings.HasSuffix(rt.pattern, "/observe") {
			k.member.changing = func() error { return kv.Errorf(kv.ShuttingDown, "the node is about to stop") }
		}
		body = bytes.ReplaceAll(body, []byte("LAST"), []byte(token))
		a := k.do(rt.method, strings.ReplaceAll(s.target, "LAST", token), body, append(s.headers, headers...)...)
		if a.StatusCode >= 300 {
			k.t.Errorf("%s %s: %d %.300s", rt.method, s.target, a.StatusCode, a.body)
		}
		if found := tokenPattern.FindSubmatch(a.body); rt.method == "POST" && found != nil {
			token = string(found[1])
		}
		fn(rt, a)
	}
}

// revokeAfterRenewal revokes a lease as soon as it was renewed, which ends the
// stream that holds it.
func (k *kit) revokeAfterRenewal(id kv.LeaseID) {
	m := k.member
	m.mu.Lock()
	defer m.mu.Unlock()
	m.proposing = func(*kv.Command) error {
		m.proposing = nil
		go func() {
			// It waits until the renewal is applied.
			if _, err := m.Propose(context.Background(), &kv.Command{Kind: kv.KindLeaseRevoke, Lease: kv.Lease{ID: id}}); err != nil {
				k.t.Error(err)
			}
		}()
		return nil
	}
}

// Every answer of every route names itself, its member and its revision.
func TestEveryAnswerIsNamed(t *testing.T) {
	k := newKit(t)
	k.each(func(rt *route, a *answer) {
		if got := a.Header.Get(api.HeaderRequestID); got != "my.request-1_A" {
			t.Errorf("%s %s: request id %q", rt.method, rt.pattern, got)
		}
	}, "X-Request-Id: my.request-1_A")
	for _, malformed := range []string{"a b", "é", strings.Repeat("x", 65), "a/b", ""} {
		a := k.do("GET", "/livez", nil, "X-Request-Id: "+malformed)
		if got := a.Header.Get(api.HeaderRequestID); got == malformed || len(got) != 26 {
			t.Errorf("request id %q becomes %q", malformed, got)
		}
	}
}

// No GET and no HEAD changes anything.
func TestReadsChangeNothing(t *testing.T) {
	k := newKit(t)
	k.put("a", "1")
	before, _ := k.member.Revisions()
	k.each(func(rt *route, a *answer) {
		after, _ := k.member.Revisions()
		if rt.method == http.MethodGet || rt.method == http.MethodHead {
			k.member.mu.Lock()
			k.member.proposing = func(*kv.Command) error {
				t.Errorf("%s %s proposes", rt.method, rt.pattern)
				return nil
			}
			k.member.mu.Unlock()
			k.do(rt.method, a.Request.URL.Opaque+"?"+a.Request.URL.RawQuery, nil)
			k.member.mu.Lock()
			k.member.proposing = nil
			k.member.mu.Unlock()
			if again, _ := k.member.Revisions(); again != after {
				t.Errorf("%s %s moves the revision from %d to %d", rt.method, rt.pattern, after, again)
			}
		} else if after < before {
			t.Errorf("%s %s: revision %d after %d", rt.method, rt.pattern, after, before)
		}
		before = after
	})
}

// The number of series does not grow with what clients send.
func TestMetrics(t *testing.T) {
	k := newKit(t)
	k.each(func(*route, *answer) {})
	metrics := func() string {
		a := k.do("GET", "/metrics", nil)
		if a.StatusCode != 200 {
			t.Fatalf("metrics: %d", a.StatusCode)
		}
		return string(a.body)
	}
	before := metrics()
	for _, target := range []string{"/v1/kv/1", "/v1/kv/2", "/nothing", "/v1/kv/%ff"} {
		k.do("GET", target, nil)
		k.do("BREW", target, nil)
		k.do("GET", target, nil, "Host: evil.example")
	}
	after := metrics()
	if b, a := strings.Count(before, "\n"), strings.Count(after, "\n"); a != b {
		t.Errorf("%d lines become %d", b, a)
	}
	for _, want := range []string{
		`cairn_http_requests_total{method="GET",route="/v1/kv/*",status="2xx"} 1`,
		`cairn_http_requests_total{method="GET",route="/v1/kv/*",status="4xx"} 3`,
		`cairn_http_requests_total{method="other",route="none",status="4xx"} 9`,
		`cairn_http_request_seconds_count{method="PUT",route="/v1/kv/*"} 1`,
		`cairn_http_requests_total{method="GET",route="/metrics",status="2xx"} 2`,
		"cairn_http_connections 1", "extra_metric 1",
	} {
		if !strings.Contains(after, want+"\n") {
			t.Errorf("no line %s", want)
		}
	}
}

// The contract is served as it is, and as the same in JSON.
func TestContractIsServed(t *testing.T) {
	k := newKit(t)
	if a := k.do("GET", "/openapi.yaml", nil); !bytes.Equal(a.body, contractText(t)) {
		t.Error("/openapi.yaml is another document")
	}
	a := k.do("GET", "/openapi.json", nil)
	served, err := json.Marshal(loadContract(t).Info)
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		OpenAPI string
		Info    json.RawMessage
		Paths   map[string]any
	}
	a.read(t, &doc)
	var got, want any
	if json.Unmarshal(doc.Info, &got) != nil || json.Unmarshal(served, &want) != nil || doc.OpenAPI != "3.1.0" || len(doc.Paths) != loadContract(t).Paths.Len() {
		t.Errorf("/openapi.json is %.300s", a.body)
	}
}

// One port speaks HTTP/1.1 and HTTP/2, without TLS and with it.
func TestProtocols(t *testing.T) {
	certificate := selfSigned(t)
	for _, c := range []struct {
		name string
		tls  bool
		set  func(*http.Protocols)
		want string
	}{
		{"HTTP/1.1", false, func(p *http.Protocols) { p.SetHTTP1(true) }, "HTTP/1.1"},
		{"h2c", false, func(p *http.Protocols) { p.SetUnencryptedHTTP2(true) }, "HTTP/2.0"},
		{"HTTP/1.1 with TLS", true, func(p *http.Protocols) { p.SetHTTP1(true) }, "HTTP/1.1"},
		{"HTTP/2 with TLS", true, func(p *http.Protocols) { p.SetHTTP2(true) }, "HTTP/2.0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			scheme := "http://"
			k := newKit(t, func(cfg *Config) {
				if c.tls {
					cfg.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12}
					scheme = "https://"
				}
			})
			pool := x509.NewCertPool()
			leaf, err := x509.ParseCertificate(certificate.Certificate[0])
			if err != nil {
				t.Fatal(err)
			}
			pool.AddCert(leaf)
			transport := &http.Transport{Protocols: new(http.Protocols), TLSClientConfig: &tls.Config{RootCAs: pool}}
			c.set(transport.Protocols)
			defer transport.CloseIdleConnections()
			client := &http.Client{Transport: &contractRoundTripper{t, k.contract.doc, transport}}
			req, err := http.NewRequest(http.MethodPut, scheme+k.addr+"/v1/kv/a", strings.NewReader("value"))
			if err != nil {
				t.Fatal(err)
			}
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if resp.StatusCode != 201 || resp.Proto != c.want {
				t.Errorf("got %d over %s", resp.StatusCode, resp.Proto)
			}
			// Bulk answers while it reads, over each of them.
			bulk, err := client.Post(scheme+k.addr+"/v1/kv", api.TypeNDJSON, bytes.NewReader(manyLines(3*kv.MaxBulkOps, 1)))
			if err != nil {
				t.Fatal(err)
			}
			report, err := io.ReadAll(bulk.Body)
			_ = bulk.Body.Close()
			if err != nil || !bytes.HasSuffix(report, []byte("\"done\":true}\n")) {
				t.Errorf("bulk: %q, %v", report, err)
			}
		})
	}
}

func selfSigned(t testing.TB) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// Shutdown waits for the requests that are being served, and refuses others.
func TestShutdownDrains(t *testing.T) {
	k := newKit(t)
	proposed, proceed := make(chan struct{}), make(chan struct{})
	k.member.proposing = func(*kv.Command) error {
		close(proposed)
		<-proceed
		return nil
	}
	conn := k.dial()
	conn.send("PUT /v1/kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx")
	<-proposed
	done := make(chan error, 1)
	go func() { done <- k.server.Shutdown(context.Background()) }()
	// The listener is closed before Shutdown waits.
	for {
		c, err := net.Dial("tcp", k.addr)
		if err != nil {
			break
		}
		_ = c.Close()
	}
	select {
	case err := <-done:
		t.Fatalf("Shutdown returned %v while a request was served", err)
	default:
	}
	close(proceed)
	if resp, body := conn.answer(); resp.StatusCode != 201 {
		t.Errorf("the request: %d %s", resp.StatusCode, body)
	}
	if err := <-done; err != nil {
		t.Errorf("Shutdown: %v", err)
	}
}

// A panic is answered once and hurts no other request.
func TestPanic(t *testing.T) {
	k := newKit(t)
	k.put("a", "1")
	k.member.waiting = func(kv.Consistency) error { panic("on purpose") }
	k.do("GET", "/v1/kv/a", nil).want(t, 500, api.CodeInternal)
	k.member.waiting = nil
	if a := k.do("GET", "/v1/kv/a", nil); a.StatusCode != 200 {
		t.Errorf("after a panic: %d %s", a.StatusCode, a.body)
	}
}

// A stream that fails is broken off, so that nobody takes it for complete.
func TestStreamThatFails(t *testing.T) {
	k := newKit(t)
	k.bulk(manyLines(1000, 1000))
	n := 0
	k.member.scanning = func(*kv.Entry) error {
		if n++; n == 900 {
			return errors.New("made to fail")
		}
		return nil
	}
	req, err := http.NewRequest(http.MethodGet, "http://"+k.addr+"/v1/kv", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", api.TypeNDJSON)
	resp, err := k.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if _, err := io.ReadAll(resp.Body); err == nil {
		t.Error("the stream ends as if it were complete")
	}
	// Before the first byte is out, it is an answer like any other.
	n = 899
	a := k.do("GET", "/v1/kv?limit=3", nil, "Accept: application/x-ndjson")
	a.want(t, 500, api.CodeInternal)
}

// What the store says without a code is never made up: a write may have been
// applied.
func TestErrorsWithoutCode(t *testing.T) {
	k := newKit(t)
	k.member.proposing = func(*kv.Command) error { return context.Canceled }
	k.do("PUT", "/v1/kv/a", []byte("x")).want(t, 504, api.CodeOutcomeUnknown)
	k.member.proposing = func(*kv.Command) error { return errors.New("anything") }
	k.do("PUT", "/v1/kv/a", []byte("x")).want(t, 504, api.CodeOutcomeUnknown)
	k.member.waiting = func(kv.Consistency) error { return context.Canceled }
	k.do("GET", "/v1/kv/a", nil).want(t, 503, api.CodeReadTimeout)
}

// Hosts are compared by name, whatever the port.
func TestAllowedHosts(t *testing.T) {
	k := newKit(t, func(c *Config) { c.AllowedHosts = []string{"kv.example:7480", "Other.Example", "[2001:db8::1]:7480"} })
	for host, status := range map[string]int{
		"kv.example": 200, "kv.example:1": 200, "KV.EXAMPLE:7480": 200, "kv.example.": 200, "other.example": 200,
		"[2001:db8::1]": 200, "[2001:DB8::1]:9": 200, "127.0.0.1": 200, "127.0.0.2:80": 200, "[::1]:7480": 200,
		"localhost": 200, "LOCALHOST:1": 200, "a.localhost": 200,
		"kv.example.evil": 421, "evil.example": 421, "xlocalhost": 421, "192.0.2.1": 421, "[2001:db8::2]": 421,
		"kv.example@evil.example": 421, "127.0.0.1.evil.example": 421,
	} {
		if a := k.do("GET", "/livez", nil, "Host: "+host); a.StatusCode != status {
			t.Errorf("Host %s: got %d, want %d", host, a.StatusCode, status)
		}
	}
}
