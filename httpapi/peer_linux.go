package httpapi

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

func tcpSilence(c *net.TCPConn) (silent time.Duration, known bool) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, false
	}
	_ = raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		if err == nil {
			silent, known = time.Duration(info.Last_ack_recv)*time.Millisecond, true
		}
	})
	return silent, known
}
