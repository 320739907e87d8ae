package httpapi

import (
	"crypto/tls"
	"errors"
	"net"
	"slices"
	"time"

	"github.com/cairnkv/cairn/api"
)

// A tlsListener speaks TLS with the clients of a limitedListener. It stands in for
// that of net/http so that what net/http answers by itself can be seen before it is
// encrypted.
type tlsListener struct {
	net.Listener
	config *tls.Config
	s      *Server
}

func (s *Server) listenTLS(l net.Listener) net.Listener {
	config := s.cfg.TLS.Clone()
	for _, protocol := range []string{"h2", "http/1.1"} {
		if !slices.Contains(config.NextProtos, protocol) {
			config.NextProtos = append(config.NextProtos, protocol)
		}
	}
	return &tlsListener{l, config, s}
}

func (l *tlsListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	secured := tls.Server(conn, l.config)
	return &tlsConn{Conn: secured, tls: secured, s: l.s}, nil
}

// A tlsConn is a connection of a client that speaks TLS.
//
// net/http takes it for a plain one, since it is no *tls.Conn and does not have its
// ConnectionState. So HTTP/2 begins with what its clients send first, as without
// TLS, and the time of the handshake is part of that of the first head.
type tlsConn struct {
	net.Conn // tls
	tls      *tls.Conn
	s        *Server
	due      headDue
}

// Write encrypts what net/http answers, or a problem instead.
func (c *tlsConn) Write(b []byte) (int, error) {
	if c.due.written() {
		if !c.tls.ConnectionState().HandshakeComplete {
			return 0, c.refuse()
		}
		if problem := c.s.instead(b); problem != nil {
			return len(b), sayAndEnd(c, problem)
		}
	}
	return c.tls.Write(b)
}

// refuse ends a connection whose handshake failed. A client that speaks HTTP without
// TLS is told so.
func (c *tlsConn) refuse() error {
	err := c.tls.Handshake() // has its error
	c.s.cfg.Logger.Debug("A TLS handshake failed.", "client", c.RemoteAddr().String(), "error", err)
	var record tls.RecordHeaderError
	if errors.As(err, &record) && record.Conn != nil && looksLikeHTTP(record.RecordHeader) {
		f := newFault(api.CodeMalformedRequest, "this port speaks TLS; send the request to https://")
		_ = sayAndEnd(record.Conn, c.s.wholeProblem(&f))
	}
	return err
}

// looksLikeHTTP reports whether what came in place of a record of TLS is the
// beginning of a request.
func looksLikeHTTP(header [5]byte) bool {
	switch string(header[:]) {
	case "GET /", "HEAD ", "POST ", "PUT /", "DELET", "PATCH", "OPTIO", "PRI *":
		return true
	}
	return false
}

// SetReadDeadline is called around each head.
func (c *tlsConn) SetReadDeadline(t time.Time) error {
	c.due.deadlineSet()
	return c.tls.SetReadDeadline(t)
}

// NetConn is the connection under TLS.
func (c *tlsConn) NetConn() net.Conn { return c.tls.NetConn() }

// CloseWrite lets net/http say why it ends a connection.
func (c *tlsConn) CloseWrite() error { return c.tls.CloseWrite() }
