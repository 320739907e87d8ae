package httpapi

import (
	"math"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// tcpEstablished is the state of a connection that neither side has ended, as the
// kernel counts states.
const tcpEstablished = 1

func tcpSilence(c *net.TCPConn) (silent time.Duration, known bool) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, false
	}
	err = raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		switch {
		case err != nil:
		case info.State != tcpEstablished:
			silent, known = math.MaxInt64, true
		default:
			// What a peer sends after a long time acknowledges nothing new, and counts
			// as data alone.
			silent, known = time.Duration(min(info.Last_ack_recv, info.Last_data_recv))*time.Millisecond, true
		}
	})
	if err != nil { // this side has closed it
		return math.MaxInt64, true
	}
	return silent, known
}
