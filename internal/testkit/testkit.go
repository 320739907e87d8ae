// Package testkit has what the tests of several packages wait and listen with.
// Nothing but tests imports it.
package testkit

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"
)

// Patience is how long a test waits for something that is bound to happen: far
// longer than it takes on the busiest machine.
const Patience = 2 * time.Minute

// Eventually waits until something holds, and fails the test if that does not
// happen.
func Eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(Patience); !holds(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("this did not happen: %s", what)
		}
	}
}

// The ports that are given to tests are below those from which the kernel takes the
// ports of outgoing connections: a node that stops listening for a while must find
// its port free when it comes back.
const lowestPort, highestPort = 10_000, 32_000

// given are the ports that this process has given to its tests.
var given struct {
	sync.Mutex
	ports map[int]bool
}

// FreePorts finds ports of the loopback at which nothing listens, and gives none twice
// to one process. Another process may take one before it is used, which is very rare.
func FreePorts(t testing.TB, n int) []int {
	t.Helper()
	given.Lock()
	defer given.Unlock()
	if given.ports == nil {
		given.ports = map[int]bool{}
	}
	var ports []int
	for tries := 0; len(ports) < n; tries++ {
		if tries > 1000*n {
			t.Fatal("no free ports")
		}
		port := lowestPort + rand.IntN(highestPort-lowestPort)
		if given.ports[port] {
			continue
		}
		if !IsFree(port) {
			continue
		}
		ports = append(ports, port)
		given.ports[port] = true
	}
	return ports
}

// IsFree says whether nothing listens at a port of the loopback. It asks by a
// connection: a listener that is closed lives on for a moment in each process that was
// forked meanwhile, and would keep the port from whom it is given to.
func IsFree(port int) bool {
	conn, err := net.Dial("tcp", address(port))
	if err != nil {
		return true
	}
	conn.Close()
	return false
}

// FreeAddresses are the addresses of FreePorts.
func FreeAddresses(t testing.TB, n int) (all []string) {
	t.Helper()
	for _, port := range FreePorts(t, n) {
		all = append(all, address(port))
	}
	return all
}

// FreeAddress is one of FreeAddresses.
func FreeAddress(t testing.TB) string {
	t.Helper()
	return FreeAddresses(t, 1)[0]
}

func address(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }
