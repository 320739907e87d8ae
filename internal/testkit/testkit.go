// Package testkit has what the tests of several packages wait and listen with.
// Nothing but tests imports it.
package testkit

import (
	"net"
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

// FreeAddress finds an address of the loopback at which nothing listens. Somebody
// else may take it before it is used.
func FreeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
