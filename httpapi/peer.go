package httpapi

import (
	"context"
	"net"
	"time"
)

// connKey is under which the context of a request has its connection.
type connKey struct{}

func withConn(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}

// below finds what a connection is made of: the one that this server counts, and
// that of the operating system. Either may be nil.
func below(conn net.Conn) (limited *limitedConn, tcp *net.TCPConn) {
	for {
		switch c := conn.(type) {
		case *tlsConn:
			conn = c.tls.NetConn()
		case *limitedConn:
			limited, conn = c, c.Conn
		case *net.TCPConn:
			return limited, c
		default:
			return limited, nil
		}
	}
}

// probePeer has the operating system ask the one of the peer, holdProbes times in
// a time or more often, whether it is there, while nothing else is said; a
// connection to one that is silent for all of that time ends. Of several times for a
// connection, as of the streams of HTTP/2, the shortest counts. It returns false
// where that can't be done: TCP counts in seconds.
func probePeer(conn net.Conn, silent time.Duration) bool {
	limited, tcp := below(conn)
	pace := (silent / holdProbes).Truncate(time.Second)
	if limited == nil || tcp == nil || pace == 0 {
		return false
	}
	limited.probes.Lock()
	defer limited.probes.Unlock()
	if limited.probes.silent > 0 && limited.probes.silent <= silent {
		return true
	}
	// The first probe comes after a silence of one pace, and one pace after the last
	// the connection ends.
	err := tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: pace, Interval: pace, Count: int(silent/pace) - 1})
	if err != nil {
		return false
	}
	limited.probes.silent = silent
	return true
}

// peerSilence is for how long the operating system of the peer has sent and
// acknowledged nothing, or for ever, if the connection is known to have ended. Of a peer to
// which something is sent regularly this tells whether it is there; behind a proxy,
// whether the proxy is. It is not known of what isn't TCP.
func peerSilence(conn net.Conn) (silent time.Duration, known bool) {
	if _, tcp := below(conn); tcp != nil {
		return tcpSilence(tcp)
	}
	return 0, false
}
