package robustness

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
)

// Namespaces are machines on one wire: a network namespace for each node,
// and one, the hub, with the bridge between them, in which the test and its clients
// are. Nothing of it is in the machine's own network, and each link is broken by the
// kernel itself.
type Namespaces struct {
	prefix string
	size   int // how many nodes
}

const (
	// hubVariable names the namespaces to the test that runs in their hub.
	hubVariable = "CAIRN_HUB"
	subnet      = "10.77.0."
	hubAddress  = subnet + "254"
	// wrongNeighbour is a hardware address that nobody has.
	wrongNeighbour = "02:de:ad:00:00:02"
)

// made counts the namespaces of this process, by which they are told apart.
var made atomic.Int64

func (s *Namespaces) hub() string        { return s.prefix + "-hub" }
func (s *Namespaces) name(i int) string  { return fmt.Sprintf("%s-n%d", s.prefix, i+1) }
func (*Namespaces) address(i int) string { return fmt.Sprintf("%s%d", subnet, i+1) }
func (*Namespaces) listen(i int) string  { return fmt.Sprintf("%s%d:7480", subnet, i+1) }
func (*Namespaces) peer(i int) string    { return fmt.Sprintf("%s%d:7481", subnet, i+1) }
func (s *Namespaces) in(i int) []string  { return enter(s.name(i)) }
func (s *Namespaces) ip(i int) []string  { return []string{"-n", s.name(i)} }

// port is the device at the hub's end of a node's link.
func (*Namespaces) port(i int) string { return fmt.Sprintf("port%d", i+1) }

// enter is what a command in a namespace begins with. The command sees the machine's
// /sys, with its control groups.
func enter(space string) []string { return []string{"nsenter", "--net=/run/netns/" + space} }

func ip(args ...string) error { return command("ip", args...) }
func (s *Namespaces) all() (names []string) {
	names = append(names, s.hub())
	for i := range s.size {
		names = append(names, s.name(i))
	}
	return names
}

// InNamespaces makes namespaces for so many nodes and runs the calling test once more, by itself, in a
// process within their hub. There it returns them; here, where that test has ended
// and its result is this one's, nil. The test is skipped, and says why, where the
// machine has no namespaces to give.
func InNamespaces(t *testing.T, size int) *Namespaces {
	t.Helper()
	if prefix := os.Getenv(hubVariable); prefix != "" {
		return &Namespaces{prefix, size}
	}
	needs(t, []string{"ip", "nsenter"}, nil)
	s := &Namespaces{fmt.Sprintf("cairn%d-%d", os.Getpid(), made.Add(1)), size}
	t.Cleanup(func() {
		for _, name := range s.all() {
			_ = ip("netns", "del", name) // those that were made; the links end with them
		}
	})
	if err := s.build(); err != nil {
		t.Skipf("SKIPPED: no network namespaces: %v", err)
	}
	line := append(enter(s.hub()), os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v", "-test.timeout", "0")
	again := exec.CommandContext(t.Context(), line[0], line[1:]...)
	again.Env = append(os.Environ(), hubVariable+"="+s.prefix)
	again.SysProcAttr = processAttributes()
	var out bytes.Buffer
	again.Stdout, again.Stderr = &out, &out
	err := again.Run()
	t.Logf("in %s:\n%s", s.hub(), out.Bytes())
	switch {
	case err != nil:
		t.Errorf("in %s: %v", s.hub(), err)
	case bytes.Contains(out.Bytes(), []byte("--- SKIP: "+t.Name())):
		t.Skip("SKIPPED: see above")
	}
	return nil
}

// build makes the namespaces and wires them.
func (s *Namespaces) build() error {
	steps := [][]string{
		{"netns", "add", s.hub()},
		{"-n", s.hub(), "link", "set", "lo", "up"},
		{"-n", s.hub(), "link", "add", "wire", "type", "bridge"},
		{"-n", s.hub(), "addr", "add", hubAddress + "/24", "dev", "wire"},
		{"-n", s.hub(), "link", "set", "wire", "up"},
	}
	for i := range s.size {
		port := s.port(i)
		steps = append(steps,
			[]string{"netns", "add", s.name(i)},
			[]string{"-n", s.hub(), "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", s.name(i)},
			[]string{"-n", s.hub(), "link", "set", port, "master", "wire", "up"},
			append(s.ip(i), "addr", "add", s.address(i)+"/24", "dev", "eth0"),
			append(s.ip(i), "link", "set", "eth0", "up"),
			append(s.ip(i), "link", "set", "lo", "up"),
		)
	}
	for _, step := range steps {
		if err := ip(step...); err != nil {
			return err
		}
	}
	return nil
}

// received is how many packets a node has got from the wire. It tells that a link
// was really down.
func (s *Namespaces) received(i int) (string, error) {
	out, err := s.read(i, "/proc/net/dev")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(out) {
		fields := strings.Fields(line)
		if len(fields) > 2 && fields[0] == "eth0:" {
			return fields[2], nil
		}
	}
	return "", fmt.Errorf("no eth0 in %q", out)
}

// read reads a file as it is in a node's namespace. "ip netns exec" would have mounts of its
// own meanwhile, with which a disk of another test can't be taken away.
func (s *Namespaces) read(i int, file string) (string, error) {
	in := enter(s.name(i))
	out, err := exec.Command(in[0], append(in[1:], "cat", file)...).Output()
	return string(out), err
}
