//go:build !linux

package transport

import (
	"net"
	"time"
)

// boundUnacked leaves it to the system how long it tries.
func boundUnacked(*net.TCPConn, time.Duration) {}
