package transport

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// boundUnacked has the kernel give up a connection on which something that was sent is not
// acknowledged for so long.
func boundUnacked(conn *net.TCPConn, d time.Duration) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(d.Milliseconds()))
	})
}
