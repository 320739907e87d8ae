//go:build !linux

package httpapi

import (
	"net"
	"time"
)

// tcpSilence is not known here: a peer that vanished is noticed when TCP gives
// it up.
func tcpSilence(*net.TCPConn) (time.Duration, bool) { return 0, false }
