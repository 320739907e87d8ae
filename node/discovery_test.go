package node

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// nameserver is a DNS server that answers with what it is told to.
type nameserver struct {
	address string
	asked   atomic.Int64
	mu      sync.Mutex
	answer  func(question string) (code int, records []string)
}

// serveNames starts one on the loopback.
func serveNames(t testing.TB) *nameserver {
	t.Helper()
	n := &nameserver{}
	n.say(dns.RcodeNameError)
	socket, err := net.ListenPacket("udp", "127.0.0.1:0")
	must(t, err)
	n.address = socket.LocalAddr().String()
	server := &dns.Server{PacketConn: socket, Handler: n}
	started := make(chan struct{})
	server.NotifyStartedFunc = func() { close(started) }
	ended := make(chan error, 1)
	go func() { ended <- server.ActivateAndServe() }()
	<-started
	t.Cleanup(func() {
		must(t, server.Shutdown())
		must(t, <-ended)
	})
	return n
}

// say changes the answer: a code, and records in their text form, of the name that
// was asked for.
func (n *nameserver) say(code int, records ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.answer = func(string) (int, []string) { return code, records }
}

// ServeDNS implements dns.Handler.
func (n *nameserver) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	n.asked.Add(1)
	n.mu.Lock()
	code, records := n.answer(q.Question[0].Name)
	n.mu.Unlock()
	if code < 0 {
		return // it says nothing
	}
	answer := new(dns.Msg).SetRcode(q, code)
	answer.RecursionAvailable = true
	if code == dns.RcodeSuccess && q.Question[0] != (dns.Question{Name: "_cairn-peer._tcp.kv.example.", Qtype: dns.TypeSRV, Qclass: dns.ClassINET}) {
		answer.SetRcode(q, dns.RcodeNameError)
		records = nil
	}
	for _, text := range records {
		r, err := dns.NewRR("_cairn-peer._tcp.kv.example. 5 IN SRV " + text)
		if err != nil {
			panic(err)
		}
		answer.Answer = append(answer.Answer, r)
	}
	_ = w.WriteMsg(answer) // who asked asks again
}

func (n *nameserver) resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, n.address)
	}}
}

// discovering is the configuration of a node that finds its cluster by DNS, and its
// record.
func discovering(t testing.TB, n *nameserver) (Config, string) {
	cfg := config(t)
	_, port, err := net.SplitHostPort(cfg.PeerListen)
	must(t, err)
	cfg.DiscoverySRV, cfg.resolver = "kv.example", n.resolver()
	cfg.PeerAdvertise = "localhost:" + port
	cfg.discoveryPause = 50 * time.Millisecond
	return cfg, fmt.Sprintf("0 0 %s localhost.", port)
}

// TestDiscovery starts three nodes that know nothing but a name, whose records come
// late and one after the other, and one of the nodes once more when nobody answers
// for the name any longer.
func TestDiscovery(t *testing.T) {
	t.Parallel()
	names := serveNames(t)
	var configs []Config
	var records []string
	for range 3 {
		cfg, record := discovering(t, names)
		configs, records = append(configs, cfg), append(records, record)
	}
	names.say(dns.RcodeServerFailure)
	var logs [3]transcript
	var nodes [3]*Node
	var starting sync.WaitGroup
	for i := range configs {
		configs[i].Logger = logs[i].logger()
		starting.Go(func() {
			n, err := Open(context.Background(), configs[i])
			if err != nil {
				t.Error(err)
				return
			}
			nodes[i] = n
		})
	}
	all := func(texts ...string) func() bool {
		return func() bool { return logs[0].has(texts...) && logs[1].has(texts...) && logs[2].has(texts...) }
	}
	eventually(t, "they say that the lookup fails", all("not found yet", "_cairn-peer._tcp.kv.example", "server misbehaving"))
	names.say(dns.RcodeNameError)
	eventually(t, "they say that there are no records", all("not found yet", "no such records"))
	names.say(dns.RcodeSuccess, records[0])
	eventually(t, "they say that there are too few", all("not found yet", "1 of 3 records"))
	// One twice, with another weight, and one in other letters.
	names.say(dns.RcodeSuccess, records[2], "7 8"+records[1][3:], records[1], strings.ToUpper(records[0]))
	starting.Wait()
	seen := map[string]bool{}
	for i, n := range nodes {
		if n == nil {
			t.FailNow()
		}
		t.Cleanup(func() { must(t, n.Close()) })
		eventually(t, "the node is ready", func() bool { return n.Ready() == nil })
		id := n.dir.Identity
		if seen[id.Name] = true; id.PeerAddress != configs[i].PeerAdvertise || id.Name != "n"+strconv.Itoa(int(id.Replica)) || len(id.Members) != 3 {
			t.Errorf("node %d is %+v", i, id)
		}
	}
	if len(seen) != 3 {
		t.Errorf("the nodes are called %v", seen)
	}
	newUser(t, nodes[0]).want(201, "", "PUT", "/v1/kv/k", "v")
	newUser(t, nodes[1]).want(200, "v", "GET", "/v1/kv/k", "")

	must(t, nodes[2].Close())
	names.say(dns.RcodeSuccess, "0 0 1 elsewhere.example.")
	asked := names.asked.Load()
	newUser(t, ready(t, configs[2])).want(200, "v", "GET", "/v1/kv/k", "")
	if names.asked.Load() != asked {
		t.Error("a node that has an identity asked for the first members")
	}
}

// TestDiscoveryRefused says what a node doesn't start with. Nothing is decided by
// then: with the right records it does.
func TestDiscoveryRefused(t *testing.T) {
	t.Parallel()
	names := serveNames(t)
	cfg, record := discovering(t, names)
	cfg.DiscoveryMembers, cfg.discoveryLimit = 1, 300*time.Millisecond
	for _, c := range []struct {
		name    string
		code    int
		records []string
		err     string
	}{
		{"no records", dns.RcodeNameError, nil, "there are no such records (tried for 300ms)"},
		{"an empty answer", dns.RcodeSuccess, nil, "there are no such records (tried for 300ms)"},
		{"a failing server", dns.RcodeServerFailure, nil, "server misbehaving (tried for 300ms)"},
		{"a silent server", -1, nil, "(tried for 300ms)"},
		{"too many", dns.RcodeSuccess, []string{record, "0 0 7481 other.example."}, "there are 2 records"},
		{"somebody else", dns.RcodeSuccess, []string{"0 0 7481 other.example."}, "this node's peer address is " + cfg.PeerAdvertise + ", and the records have other.example:7481"},
		{"not available", dns.RcodeSuccess, []string{"0 0 0 ."}, "where nobody can be"},
		{"no port", dns.RcodeSuccess, []string{"0 0 0 localhost."}, "where nobody can be"},
	} {
		names.say(c.code, c.records...)
		n, err := Open(context.Background(), cfg)
		if err == nil || !strings.Contains(err.Error(), c.err) || !strings.Contains(err.Error(), "_cairn-peer._tcp.kv.example") {
			t.Errorf("%s: got %v, want %q", c.name, err, c.err)
		}
		if err == nil {
			must(t, n.Close())
		}
	}
	names.say(-1)
	ctx, cancel := context.WithCancel(context.Background())
	asked := names.asked.Load()
	patient := cfg
	patient.discoveryLimit = patience
	ended := make(chan error, 1)
	go func() {
		_, err := Open(ctx, patient)
		ended <- err
	}()
	eventually(t, "it asks", func() bool { return names.asked.Load() > asked })
	cancel()
	if err := <-ended; err == nil {
		t.Error("a start that was called off went on")
	}
	names.say(dns.RcodeSuccess, record)
	n := ready(t, cfg)
	newUser(t, n).want(201, "", "PUT", "/v1/kv/k", "v")
}
