package transport

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

const (
	// credentialsInterval is how often the files are looked at.
	credentialsInterval = 5 * time.Second
	// expiryWarning is how long before its end a certificate is warned about,
	// once a day.
	expiryWarning  = 14 * 24 * time.Hour
	expiryReminder = 24 * time.Hour
	// maxCredentialBytes bounds what is read of a file.
	maxCredentialBytes = 1 << 20
)

// Files name what mutual TLS between peers needs.
type Files struct {
	// CA has the certificates, in PEM, of the authorities that sign those of the
	// members: one of their own, not the one of the clients. Cert is this
	// member's certificate, with those between it and the authority behind it,
	// Key its key. The certificate must be good for both ends of a connection.
	CA, Cert, Key string
	// AllowedNames are the DNS names and IP addresses of which the certificate of
	// a peer must have one. "*.example.com" stands for each name with one label
	// before the rest. If there are none, the certificate must be for the host of
	// the peer's own address.
	AllowedNames []string
}

// Credentials are the files as they were last read whole.
type Credentials struct {
	files    Files
	current  atomic.Pointer[credentials]
	failures atomic.Uint64
	reloads  atomic.Uint64
	interval time.Duration
}

type credentials struct {
	sum   [sha256.Size]byte
	roots *x509.CertPool
	cert  tls.Certificate
	// expires is when the first of the certificate and its chain ends,
	// authorities when the last of the authorities does.
	expires, authorities time.Time
}

// LoadCredentials reads the files. Later changes are taken over by the transport
// that is given the credentials.
func LoadCredentials(files Files) (*Credentials, error) {
	c := &Credentials{files: files, interval: credentialsInterval}
	for _, name := range files.AllowedNames {
		if strings.TrimPrefix(name, "*.") == "" || strings.Contains(strings.TrimPrefix(name, "*."), "*") {
			return nil, fmt.Errorf("%q can't be a name that peers are allowed to have", name)
		}
	}
	loaded, err := readCredentials(&files)
	if err != nil {
		return nil, err
	}
	c.current.Store(loaded)
	return c, nil
}

func readCredentials(files *Files) (*credentials, error) {
	c := &credentials{roots: x509.NewCertPool()}
	var pems [3][]byte
	h := sha256.New()
	for i, file := range []string{files.CA, files.Cert, files.Key} {
		info, err := os.Stat(file)
		if err == nil && info.Size() > maxCredentialBytes {
			err = fmt.Errorf("%s has %d bytes, which is no certificate or key", file, info.Size())
		}
		if err == nil {
			pems[i], err = os.ReadFile(file)
		}
		if err != nil {
			return nil, fmt.Errorf("read the credentials of peers: %w", err)
		}
		sum := sha256.Sum256(pems[i])
		h.Write(sum[:])
	}
	h.Sum(c.sum[:0])
	authorities, err := parseCertificates(pems[0])
	if err != nil {
		return nil, fmt.Errorf("the authority of peers, %s: %w", files.CA, err)
	}
	for _, a := range authorities {
		c.roots.AddCert(a)
		if a.NotAfter.After(c.authorities) {
			c.authorities = a.NotAfter
		}
	}
	if c.cert, err = tls.X509KeyPair(pems[1], pems[2]); err != nil {
		return nil, fmt.Errorf("the certificate of this member, %s, and its key, %s: %w", files.Cert, files.Key, err)
	}
	chain, err := parseCertificates(pems[1])
	if err != nil {
		return nil, fmt.Errorf("the certificate of this member, %s: %w", files.Cert, err)
	}
	c.expires = chain[0].NotAfter
	for _, cert := range chain {
		if cert.NotAfter.Before(c.expires) {
			c.expires = cert.NotAfter
		}
	}
	// One's own certificate has to be what is asked of others, or all would
	// refuse it and only they would say why. That it has run out is for them to
	// judge: a clock may be wrong, and the rest of the node still works.
	at := time.Now()
	if at.After(c.expires) {
		at = c.expires.Add(-time.Second)
	}
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		if err := c.verify(chain, usage, at); err != nil {
			return nil, fmt.Errorf("the certificate of this member, %s, is none that its peers would accept: %w", files.Cert, err)
		}
	}
	return c, nil
}

func parseCertificates(b []byte) (all []*x509.Certificate, err error) {
	for {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		all = append(all, cert)
	}
	if len(all) == 0 {
		return nil, errors.New("it has no certificate")
	}
	return all, nil
}

// verify checks that a chain leads to an authority.
func (c *credentials) verify(chain []*x509.Certificate, usage x509.ExtKeyUsage, at time.Time) error {
	between := x509.NewCertPool()
	for _, cert := range chain[1:] {
		between.AddCert(cert)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots: c.roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{usage}, CurrentTime: at,
	})
	return err
}

// verifiedTLS is a connection's certificate that was found good, for one of the
// two uses. Without TLS it is empty.
type verifiedTLS struct {
	from  *Credentials
	state *tls.ConnectionState
	usage x509.ExtKeyUsage
}

// server is the accepting end of a TLS handshake. Without credentials the
// connection stays as it is.
func (c *Credentials) server(ctx context.Context, raw net.Conn) (net.Conn, verifiedTLS, error) {
	if c == nil {
		return raw, verifiedTLS{}, nil
	}
	now := c.current.Load()
	conf := c.config(now, x509.ExtKeyUsageClientAuth)
	// What is sent by a peer is checked in VerifyConnection, by the same rules on
	// both ends.
	conf.ClientAuth = tls.RequireAnyClientCert
	conf.ClientCAs = now.roots // so that a peer knows which certificate to show
	return c.handshake(ctx, tls.Server(raw, conf), x509.ExtKeyUsageClientAuth)
}

// client is the dialling end.
func (c *Credentials) client(ctx context.Context, raw net.Conn) (net.Conn, verifiedTLS, error) {
	if c == nil {
		return raw, verifiedTLS{}, nil
	}
	conf := c.config(c.current.Load(), x509.ExtKeyUsageServerAuth)
	// The library would compare one name with the certificate. Here a list of
	// names may be allowed, so VerifyConnection does all of it.
	conf.InsecureSkipVerify = true
	return c.handshake(ctx, tls.Client(raw, conf), x509.ExtKeyUsageServerAuth)
}

func (c *Credentials) config(now *credentials, usage x509.ExtKeyUsage) *tls.Config {
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{now.cert},
		// A resumed session would be judged by what was known when it began.
		SessionTicketsDisabled: true,
		VerifyConnection:       func(s tls.ConnectionState) error { return c.judge(&s, usage) },
	}
}

func (c *Credentials) handshake(ctx context.Context, conn *tls.Conn, usage x509.ExtKeyUsage) (net.Conn, verifiedTLS, error) {
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, verifiedTLS{}, err
	}
	state := conn.ConnectionState()
	return conn, verifiedTLS{c, &state, usage}, nil
}

// certificateError says that a certificate is not good enough.
type certificateError struct{ err error }

func (e *certificateError) Error() string { return e.err.Error() }
func (e *certificateError) Unwrap() error { return e.err }

// isCertificate reports whether a handshake failed over a certificate, by our own
// judgement or by the other end's alert.
func isCertificate(err error) bool {
	var own *certificateError
	var alert tls.AlertError
	var record tls.RecordHeaderError
	return errors.As(err, &own) || errors.As(err, &alert) || errors.As(err, &record) ||
		strings.Contains(err.Error(), "remote error: tls") || strings.Contains(err.Error(), "didn't provide a certificate")
}

// judge says whether the certificate of a peer is good now.
func (c *Credentials) judge(s *tls.ConnectionState, usage x509.ExtKeyUsage) error {
	if len(s.PeerCertificates) == 0 {
		return &certificateError{errors.New("it shows no certificate")}
	}
	if err := c.current.Load().verify(s.PeerCertificates, usage, time.Now()); err != nil {
		return &certificateError{err}
	}
	if len(c.files.AllowedNames) > 0 && !hasName(s.PeerCertificates[0], c.files.AllowedNames) {
		return &certificateError{fmt.Errorf("its certificate is for %s, of which none is allowed", namesOf(s.PeerCertificates[0]))}
	}
	return nil
}

// stillGood judges a certificate once more before its connection is one of those that
// recheck looks at: the authority may have changed since the TLS handshake. The caller
// holds the lock, so that one of the two sees the change.
func (v verifiedTLS) stillGood() error {
	if v.state == nil {
		return nil
	}
	return v.from.judge(v.state, v.usage)
}

// mustBe checks that a certificate belongs to who has introduced itself.
func (v verifiedTLS) mustBe(who *Identity) error {
	if err := v.isOf(who.Address); err != nil {
		return refuse(ReasonCertificate, "replica %d says that it is at %s: %s", who.Replica, who.Address, err)
	}
	return nil
}

// isOf checks that a certificate is for the host of an address, unless there are names
// that are allowed.
func (v verifiedTLS) isOf(address string) error {
	if v.state == nil || len(v.from.files.AllowedNames) > 0 {
		return nil
	}
	return v.state.PeerCertificates[0].VerifyHostname(hostOf(address))
}

func hasName(cert *x509.Certificate, allowed []string) bool {
	for _, name := range allowed {
		if ip := net.ParseIP(name); ip != nil {
			if slices.ContainsFunc(cert.IPAddresses, ip.Equal) {
				return true
			}
			continue
		}
		if slices.ContainsFunc(cert.DNSNames, func(have string) bool { return matches(name, have) }) {
			return true
		}
	}
	return false
}

func matches(pattern, name string) bool {
	pattern, name = strings.ToLower(pattern), strings.ToLower(name)
	if rest, ok := strings.CutPrefix(pattern, "*."); ok {
		label, of, found := strings.Cut(name, ".")
		return found && label != "" && label != "*" && of == rest
	}
	return pattern == name
}

func namesOf(cert *x509.Certificate) string {
	names := slices.Clone(cert.DNSNames)
	for _, ip := range cert.IPAddresses {
		names = append(names, ip.String())
	}
	if len(names) == 0 {
		return "no name"
	}
	return strings.Join(names[:min(len(names), 10)], ", ")
}

// watch reads the files again when they have changed, until closing is closed,
// and calls changed after each time that something else is in force.
func (c *Credentials) watch(closing <-chan struct{}, logger *slog.Logger, changed func()) {
	tick := time.NewTicker(c.interval)
	defer tick.Stop()
	var failed string
	var reminded time.Time
	for {
		if left := time.Until(c.current.Load().expires); left < expiryWarning && time.Since(reminded) >= expiryReminder {
			reminded = time.Now()
			logger.Warn("The certificate for peers ends soon, or has ended.", "file", c.files.Cert, "expires", c.current.Load().expires, "left", left.Round(time.Minute))
		}
		select {
		case <-closing:
			return
		case <-tick.C:
		}
		loaded, err := readCredentials(&c.files)
		if err != nil {
			// Files are replaced one after the other; that they don't fit together
			// for a moment is worth one line.
			if c.failures.Add(1); err.Error() != failed {
				failed = err.Error()
				logger.Error("The credentials for peers were not read again; the former ones stay.", "err", err)
			}
			continue
		}
		failed = ""
		if loaded.sum == c.current.Load().sum {
			continue
		}
		c.current.Store(loaded)
		c.reloads.Add(1)
		reminded = time.Time{}
		logger.Info("The credentials for peers were read again.", "expires", loaded.expires)
		changed()
	}
}

// recheck ends the connections whose certificates are no longer good, after the
// authority has changed.
func (t *Transport) recheck() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for conn, v := range t.tlsOpen {
		if err := v.from.judge(v.state, v.usage); err != nil {
			t.stats.refused(ReasonCertificate, 1)
			t.cfg.Logger.Warn("A peer's connection was closed: its certificate is no longer good.", "from", conn.RemoteAddr().String(), "err", err)
			_ = conn.Close()
		}
	}
}
