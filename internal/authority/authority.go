// Package authority makes a certificate authority of a cluster's own, and the
// certificates of its members: just enough for mutual TLS between peers. A
// larger organisation has something better, and Cairn takes that as well.
package authority

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/cairnkv/cairn/internal/durable"
)

const (
	// caName is the name of the authority's files.
	caName = "ca"
	// caLife is how long an authority is good: it can't be replaced without a
	// time in which members trust the old and the new one.
	caLife = 20 * 365 * 24 * time.Hour
	// skew is how far the clock of another machine may be behind.
	skew = time.Hour
)

// Authority signs certificates.
type Authority struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// Open reads the authority in a directory, or makes one there.
func Open(dir string) (a *Authority, made bool, err error) {
	if err := durable.MakeDir(dir); err != nil {
		return nil, false, err
	}
	a = &Authority{dir: dir}
	pair, err := tls.LoadX509KeyPair(a.file(caName, "crt"), a.file(caName, "key"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		for _, suffix := range []string{"crt", "key"} {
			if _, err := os.Stat(a.file(caName, suffix)); err == nil {
				return nil, false, fmt.Errorf("%s has one half of an authority only; the other one is missing", dir)
			}
		}
		return a, true, a.make()
	case err != nil:
		return nil, false, fmt.Errorf("the authority in %s: %w", dir, err)
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok || !pair.Leaf.IsCA {
		return nil, false, fmt.Errorf("what is in %s is no authority that was made here", dir)
	}
	a.cert, a.key = pair.Leaf, key
	return a, false, nil
}

func (a *Authority) file(name, suffix string) string { return filepath.Join(a.dir, name+"."+suffix) }

// File is the authority's certificate, which members are told to trust.
func (a *Authority) File() string { return a.file(caName, "crt") }

func (a *Authority) make() (err error) {
	if a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return err
	}
	template, err := newTemplate("Cairn peers", caLife)
	if err != nil {
		return err
	}
	template.IsCA, template.BasicConstraintsValid, template.MaxPathLenZero = true, true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	if err := a.writeKey(caName, a.key); err != nil {
		return err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	if err != nil {
		return err
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		return err
	}
	return a.write(caName, "crt", "CERTIFICATE", der, 0o644)
}

// Issue makes or renews the certificate of a member for hosts: names and IP
// addresses. A key that is there is used again, so that a member that reads the
// files meanwhile never finds two that don't fit. It returns their paths.
func (a *Authority) Issue(name string, hosts []string, life time.Duration) (certFile, keyFile string, err error) {
	if name == caName || name != filepath.Base(name) || name == "." || len(hosts) == 0 {
		return "", "", fmt.Errorf("%q can't have a certificate here", name)
	}
	certFile, keyFile = a.file(name, "crt"), a.file(name, "key")
	key, err := readKey(keyFile)
	if errors.Is(err, fs.ErrNotExist) {
		if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err == nil {
			err = a.writeKey(name, key)
		}
	}
	if err != nil {
		return "", "", err
	}
	template, err := newTemplate(name, life)
	if err != nil {
		return "", "", err
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return "", "", err
	}
	return certFile, keyFile, a.write(name, "crt", "CERTIFICATE", der, 0o644)
}

func newTemplate(name string, life time.Duration) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name},
		NotBefore: now.Add(-skew), NotAfter: now.Add(life),
	}, nil
}

func readKey(file string) (*ecdsa.PrivateKey, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, fmt.Errorf("%s has no key", file)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s has another kind of key", file)
	}
	return key, nil
}

func (a *Authority) writeKey(name string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return a.write(name, "key", "PRIVATE KEY", der, 0o600)
}

// write gives a file its name when it is whole and durable.
func (a *Authority) write(name, suffix, kind string, der []byte, mode os.FileMode) error {
	var b bytes.Buffer
	if err := pem.Encode(&b, &pem.Block{Type: kind, Bytes: der}); err != nil {
		return err
	}
	file := a.file(name, suffix)
	f, err := os.OpenFile(file+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(b.Bytes())
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(file+".new", file); err != nil {
		return err
	}
	return durable.SyncDir(a.dir)
}
