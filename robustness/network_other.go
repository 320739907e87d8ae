//go:build !linux

package robustness

import "testing"

// A Network that can be cut needs to know which process dials, which is asked of
// Linux.
type Network struct{}

// A Cut is a way for a direction not to work.
type Cut int

// The ways of network_linux.go.
const (
	Silent Cut = iota + 1
	Refusing
)

func newNetwork(t testing.TB, _ []*Node, _, _ []string) *Network {
	t.Skip("SKIPPED: the network between the nodes can be cut on Linux only")
	return nil
}

// Isolate is never reached.
func (*Network) Isolate(int, Cut, bool) {}

// Heal is never reached.
func (*Network) Heal() {}

// Met is never reached.
func (*Network) Met() int { return 0 }
