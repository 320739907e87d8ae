package httpapi

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// boundUnsent bounds what the kernel keeps for each client that connects: what
// such a socket accepts inherits the option.
func boundUnsent(_, _ string, c syscall.RawConn) error {
	var set error
	err := c.Control(func(fd uintptr) {
		set = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, unsentBytes)
	})
	if err != nil {
		return err
	}
	return set
}
