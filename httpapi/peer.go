package httpapi

import (
	"context"
	"crypto/tls"
	"net"
	"time"
)

// connKey is under which the context of a request has its connection.
type connKey struct{}

func withConn(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}

// peerSilence is for how long the operating system of the peer behind a request
// has acknowledged nothing. Of a peer to which something is written regularly
// this tells whether it is there; behind a proxy, whether the proxy is. It is not
// known of what isn't TCP.
func peerSilence(ctx context.Context) (silent time.Duration, known bool) {
	conn, _ := ctx.Value(connKey{}).(net.Conn)
	for {
		switch c := conn.(type) {
		case *tls.Conn:
			conn = c.NetConn()
		case *limitedConn:
			conn = c.Conn
		case *net.TCPConn:
			return tcpSilence(c)
		default:
			return 0, false
		}
	}
}
