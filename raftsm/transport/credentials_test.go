package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/cairnkv/cairn/internal/authority"
)

func newAuthority(t testing.TB) *authority.Authority {
	t.Helper()
	a, _, err := authority.Open(t.TempDir())
	must(t, err)
	return a
}

// TestCertificates: only who has a certificate of the authority, for the right
// name, for both ends of a connection, and one that is good today, gets in; and
// only such a one is spoken to.
func TestCertificates(t *testing.T) {
	ours, theirs := newAuthority(t), newAuthority(t)
	for _, c := range []struct {
		name    string
		from    *authority.Authority
		hosts   []string
		allowed []string // of the first end
		life    time.Duration
		clear   bool
		ok      bool
	}{
		{name: "right", from: ours, hosts: []string{"127.0.0.1"}, ok: true},
		{name: "one of several names", from: ours, hosts: []string{"n2.internal", "127.0.0.1"}, ok: true},
		{name: "allowed name", from: ours, hosts: []string{"n2.internal", "127.0.0.1"}, allowed: []string{"n2.internal", "127.0.0.1"}, ok: true},
		{name: "allowed pattern", from: ours, hosts: []string{"N2.internal"}, allowed: []string{"*.Internal"}, ok: true},
		{name: "allowed address, another than its own", from: ours, hosts: []string{"10.0.0.9"}, allowed: []string{"10.0.0.9"}, ok: true},
		{name: "wrong authority", from: theirs, hosts: []string{"127.0.0.1"}},
		{name: "name of another host", from: ours, hosts: []string{"127.0.0.2", "n2.internal"}},
		{name: "name that is not allowed", from: ours, hosts: []string{"127.0.0.1"}, allowed: []string{"127.0.0.2", "n2.internal"}},
		{name: "pattern takes one label", from: ours, hosts: []string{"a.b.internal", "internal", "*.internal"}, allowed: []string{"*.internal"}},
		{name: "no TLS", clear: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			// The first end allows itself nothing: its own certificate is right, and
			// the second end checks it against its host.
			a := newEnd(t, 1, func(cfg *Config) { cfg.TLS = credentialsOf(t, ours, "a", []string{"127.0.0.1"}, c.allowed) })
			b := newEnd(t, 2, func(cfg *Config) {
				if !c.clear {
					// It trusts whom the first one trusts, whoever signed its own.
					cert, key, err := c.from.Issue("b", c.hosts, time.Hour)
					must(t, err)
					pair, err := tls.LoadX509KeyPair(cert, key)
					must(t, err)
					cfg.TLS = credentialsOf(t, ours, "b-trust", []string{"127.0.0.1"}, nil)
					now := *cfg.TLS.current.Load()
					now.cert = pair
					cfg.TLS.current.Store(&now)
					cfg.TLS.interval = time.Hour
				}
			})
			a.Join(a, Start{})
			b.Join(b, Start{})
			for _, way := range []struct {
				name     string
				from, to *end
			}{{"in", b, a}, {"out", a, b}} {
				conn, err := way.from.GetConnection(context.Background(), way.to.cfg.Self.Address)
				if err == nil {
					err = conn.SendMessageBatch(batch(heartbeat(way.from.cfg.Self.Replica, way.to.cfg.Self.Replica)))
					conn.Close()
				}
				if c.ok {
					must(t, err)
					eventually(t, "it is heard", func() bool { return way.to.received() == 1 })
					continue
				}
				if way.name == "out" && err == nil {
					t.Error("the first end speaks to it")
				}
				if got := way.to.received(); got != 0 {
					t.Errorf("%s: %d messages were heard", way.name, got)
				}
			}
			if !c.ok {
				eventually(t, "the first end counts and says it", func() bool {
					return a.Stats().Refused["certificate"] == 1 && a.logged.has("reason=certificate")
				})
			}
		})
	}
}

// TestRefusalOfAStranger: who answers with a certificate of another host is not heard, also
// where it says that this member was removed. Of the member itself that is believed.
func TestRefusalOfAStranger(t *testing.T) {
	ours := newAuthority(t)
	for host, want := range map[string]Reason{"127.0.0.1": ReasonRemoved, "127.0.0.2": ReasonCertificate} {
		var told []Reason
		a := newEnd(t, 1, func(cfg *Config) {
			cfg.TLS = credentialsOf(t, ours, "a", []string{"127.0.0.1"}, nil)
			cfg.Refused = func(_ string, r *Refusal) { told = append(told, r.Reason) }
		})
		b := newEnd(t, 2, func(cfg *Config) { cfg.TLS = credentialsOf(t, ours, "b"+host, []string{host}, nil) })
		b.members = []Member{{Replica: 1, Removed: true}}
		a.Join(a, Start{})
		b.Join(b, Start{})
		_, err := a.GetConnection(context.Background(), b.cfg.Self.Address)
		var refusal *Refusal
		if !errors.As(err, &refusal) || refusal.Reason != want {
			t.Errorf("%s: got %v, want %s", host, err, want)
		}
		if heard := len(told) > 0; heard != (want == ReasonRemoved) {
			t.Errorf("%s: it was told %v", host, told)
		}
	}
}

// TestExpired: a certificate that has run out is warned about by who has it, and
// refused by the others.
func TestExpired(t *testing.T) {
	ours := newAuthority(t)
	cert, key, err := ours.Issue("b", []string{"127.0.0.1"}, -time.Minute)
	must(t, err)
	a := newEnd(t, 1, func(cfg *Config) { cfg.TLS = credentialsOf(t, ours, "a", []string{"127.0.0.1"}, nil) })
	b := newEnd(t, 2, func(cfg *Config) {
		cfg.TLS, err = LoadCredentials(Files{CA: ours.File(), Cert: cert, Key: key})
		must(t, err)
	})
	a.Join(a, Start{})
	b.Join(b, Start{})
	if _, err := a.GetConnection(context.Background(), b.cfg.Self.Address); err == nil || !strings.Contains(err.Error(), "expired") {
		t.Errorf("got %v", err)
	}
	eventually(t, "it says so", func() bool { return b.logged.has("ends soon, or has ended") })
	if !b.Stats().CertificateExpires.Before(time.Now()) || a.Stats().CertificateExpires.Before(time.Now()) {
		t.Error("the figures say something else")
	}
}

// TestReload replaces the files of a running end: by garbage, which changes
// nothing, by a new certificate, which new connections show while the old ones
// live on, and by another authority, which ends those that are not of it.
func TestReload(t *testing.T) {
	ours := newAuthority(t)
	a := newEnd(t, 1, func(cfg *Config) { cfg.TLS = credentialsOf(t, ours, "a", []string{"127.0.0.1"}, nil) })
	b := newEnd(t, 2, func(cfg *Config) { cfg.TLS = credentialsOf(t, ours, "b", []string{"127.0.0.1"}, nil) })
	a.Join(a, Start{})
	b.Join(b, Start{})
	c := connect(t, b, a)
	heard := 0
	hear := func() {
		t.Helper()
		heard++
		must(t, c.SendMessageBatch(batch(heartbeat(2, 1))))
		eventually(t, "it is heard", func() bool { return a.received() == heard })
	}
	hear()
	files := a.cfg.TLS.files
	good, err := os.ReadFile(files.Cert)
	must(t, err)
	must(t, os.WriteFile(files.Cert, []byte("garbage"), 0o600))
	eventually(t, "the garbage is noticed", func() bool {
		return a.Stats().ReloadFailures > 0 && a.logged.has("the former ones stay")
	})
	hear()
	connect(t, b, a) // as before
	must(t, os.WriteFile(files.Cert, good, 0o600))

	expires := a.Stats().CertificateExpires
	_, _, err = ours.Issue("a", []string{"127.0.0.1"}, 2*time.Hour)
	must(t, err)
	eventually(t, "the new certificate is in force", func() bool { return a.Stats().CertificateExpires.After(expires) })
	hear()
	connect(t, b, a)
	eventually(t, "all three are connected", func() bool { return a.Stats().Inbound["messages"] == 3 })

	theirs := newAuthority(t)
	cert, key, err := theirs.Issue("a", []string{"127.0.0.1"}, time.Hour)
	must(t, err)
	for from, to := range map[string]string{key: files.Key, cert: files.Cert, theirs.File(): files.CA} {
		content, err := os.ReadFile(from)
		must(t, err)
		must(t, os.WriteFile(to, content, 0o600))
	}
	eventually(t, "the others are out", func() bool { return a.Stats().Inbound["messages"] == 0 })
	if _, err := b.GetConnection(context.Background(), a.cfg.Self.Address); err == nil {
		t.Error("they came in again")
	}
}

// TestReloadInAHandshake takes another authority over between the TLS handshake and the
// moment in which a connection is let in. It is not, whoever dialled.
func TestReloadInAHandshake(t *testing.T) {
	ours, theirs := newAuthority(t), newAuthority(t)
	for _, dials := range []bool{false, true} {
		a := newEnd(t, 1, func(cfg *Config) { cfg.TLS = credentialsOf(t, ours, "a", []string{"127.0.0.1"}, nil) })
		b := newEnd(t, 2, func(cfg *Config) { cfg.TLS = credentialsOf(t, ours, "b", []string{"127.0.0.1"}, nil) })
		other := credentialsOf(t, theirs, "a", []string{"127.0.0.1"}, nil).current.Load()
		a.asked = func() {
			now := *a.cfg.TLS.current.Load()
			now.roots = other.roots
			a.cfg.TLS.current.Store(&now)
			a.recheck()
		}
		a.Join(a, Start{})
		b.Join(b, Start{})
		from, to := b, a
		if dials {
			from, to = a, b
		}
		c, err := from.GetConnection(context.Background(), to.cfg.Self.Address)
		if err == nil {
			c.Close()
			t.Errorf("it dials: %v; it was let in", dials)
			continue
		}
		if r := reasonOf(err); r.Reason != ReasonCertificate {
			t.Errorf("it dials: %v; got %v", dials, err)
		}
	}
}

// TestBadFiles says what is wrong with files that can't be used.
func TestBadFiles(t *testing.T) {
	ours, theirs := newAuthority(t), newAuthority(t)
	cert, key, err := ours.Issue("a", []string{"127.0.0.1"}, time.Hour)
	must(t, err)
	other, otherKey, err := theirs.Issue("a", []string{"127.0.0.1"}, time.Hour)
	must(t, err)
	for _, c := range []struct {
		files Files
		err   string
	}{
		{Files{CA: ours.File(), Cert: cert, Key: key}, ""},
		{Files{CA: "missing", Cert: cert, Key: key}, "missing"},
		{Files{CA: key, Cert: cert, Key: key}, "it has no certificate"},
		{Files{CA: ours.File(), Cert: cert, Key: otherKey}, "does not match"},
		{Files{CA: ours.File(), Cert: other, Key: otherKey}, "none that its peers would accept"},
		{Files{CA: ours.File(), Cert: ours.File(), Key: strings.TrimSuffix(ours.File(), "crt") + "key", AllowedNames: []string{"*"}}, "can't be a name"},
		{Files{CA: ours.File(), Cert: cert, Key: key, AllowedNames: []string{"a.*.b"}}, "can't be a name"},
	} {
		_, err := LoadCredentials(c.files)
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%+v: got %v, want %q", c.files, err, c.err)
		}
	}
	if _, err := LoadCredentials(Files{CA: "/nonexistent"}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}
