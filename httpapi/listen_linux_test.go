package httpapi

import (
	"context"
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// TestListenBoundsUnsent looks at what a client's connection got from the
// listener.
func TestListenBoundsUnsent(t *testing.T) {
	l, err := Listen(context.Background(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	err = raw.Control(func(fd uintptr) {
		got, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT)
		if err != nil || got != unsentBytes {
			t.Errorf("the kernel keeps %d unsent bytes (%v), not %d", got, err, unsentBytes)
		}
	})
	if err != nil {
		t.Error(err)
	}
}
