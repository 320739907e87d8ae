package node

import (
	"errors"
	"fmt"

	"github.com/cairnkv/cairn/raftsm"
	"github.com/prometheus/client_golang/prometheus"
)

// PeerTLS names the files of mutual TLS between the members. All three, or none.
// They are read again when they change.
type PeerTLS struct {
	// CA has the certificates, in PEM, of the authorities that sign those of the
	// members: an authority of their own, or everyone who has a certificate of it
	// could be a member. Cert and Key are this member's.
	CA, Cert, Key string
	// AllowedNames are the DNS names ("*." for any one label) and IP addresses of
	// which the certificate of a peer must have one. Default: the host of its own
	// peer address.
	AllowedNames []string
}

func (p *PeerTLS) on() bool { return p.CA != "" || p.Cert != "" || p.Key != "" }

func (p *PeerTLS) check() error {
	if p.on() && (p.CA == "" || p.Cert == "" || p.Key == "") {
		return errors.New("TLS between peers needs an authority, a certificate and a key: --peer-ca, --peer-cert and --peer-key")
	}
	if !p.on() && len(p.AllowedNames) > 0 {
		return errors.New("names of peers mean nothing without their certificates: --peer-ca, --peer-cert and --peer-key")
	}
	return nil
}

func (p *PeerTLS) files() *raftsm.PeerFiles {
	if !p.on() {
		return nil
	}
	return &raftsm.PeerFiles{CA: p.CA, Cert: p.Cert, Key: p.Key, AllowedNames: p.AllowedNames}
}

// disowned ends the node after another member said that it is not who it was.
func (n *Node) disowned(err error) {
	n.fail(fmt.Errorf("%w: %w; add a member and start it in an empty directory (cairn member add --help)", errDisowned, err))
}

// fail makes Wait return. Only the first reasons count.
func (n *Node) fail(err error) {
	select {
	case n.failed <- err:
	default:
	}
}

// peerMetrics shows the connections between the members.
type peerMetrics struct{ host *raftsm.Host }

var (
	peerConnections = prometheus.NewDesc("cairn_peer_connections", "Open connections between members.",
		[]string{"direction", "kind"}, nil)
	peerRefused = prometheus.NewDesc("cairn_peer_refused_total", "Connections to the peer port that this member refused or ended.",
		[]string{"reason"}, nil)
	peerFailed = prometheus.NewDesc("cairn_peer_dials_refused_total", "Connections of this member to others that one of the two refused.",
		[]string{"reason"}, nil)
	peerBytes = prometheus.NewDesc("cairn_peer_bytes_total", "Bytes between members.",
		[]string{"direction"}, nil)
	peerPostponed = prometheus.NewDesc("cairn_peer_messages_postponed_total", "Messages with entries that were not taken, since too much that came before is not applied.",
		nil, nil)
	peerDropped = prometheus.NewDesc("cairn_peer_messages_dropped_total", "Messages of members that this member must not receive.",
		nil, nil)
	peerExpires = prometheus.NewDesc("cairn_peer_certificate_expiry_timestamp_seconds", "When a certificate for peers ends.",
		[]string{"certificate"}, nil)
	peerReloads = prometheus.NewDesc("cairn_peer_certificate_reloads_total", "Looks at changed certificate files, by whether they could be used.",
		[]string{"result"}, nil)
)

func (m peerMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{peerConnections, peerRefused, peerFailed, peerBytes, peerDropped, peerPostponed, peerExpires, peerReloads} {
		ch <- d
	}
}

func (m peerMetrics) Collect(ch chan<- prometheus.Metric) {
	s := m.host.PeerStats()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	count := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	for kind, n := range s.Inbound {
		gauge(peerConnections, float64(n), "in", kind)
	}
	for kind, n := range s.Outbound {
		gauge(peerConnections, float64(n), "out", kind)
	}
	gauge(peerConnections, float64(s.Waiting), "in", "handshake")
	for reason, n := range s.Refused {
		count(peerRefused, n, reason)
	}
	for reason, n := range s.Failed {
		count(peerFailed, n, reason)
	}
	count(peerBytes, s.SentBytes, "out")
	count(peerBytes, s.ReceivedBytes, "in")
	count(peerDropped, s.DroppedMessages)
	count(peerPostponed, s.PostponedMessages)
	if !s.CertificateExpires.IsZero() {
		gauge(peerExpires, float64(s.CertificateExpires.Unix()), "own")
		gauge(peerExpires, float64(s.AuthorityExpires.Unix()), "authority")
		count(peerReloads, s.Reloads, "used")
		count(peerReloads, s.ReloadFailures, "refused")
	}
}
