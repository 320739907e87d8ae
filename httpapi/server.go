package httpapi

import (
	"context"
	"net"
	"net/http"
)

// Server answers HTTP requests.
type Server struct {
	cfg Config
}

// New makes a server. It starts nothing.
func New(cfg Config) *Server {
	return &Server{cfg: cfg.withDefaults()}
}

// Handler returns the face as a handler, for tests and for other servers.
func (s *Server) Handler() http.Handler { return nil }

// Serve answers requests on l until Shutdown; it then returns
// http.ErrServerClosed. It may be called for several listeners.
func (s *Server) Serve(l net.Listener) error { return nil }

// Shutdown refuses new requests and waits until those in flight are answered or
// ctx ends; then it closes what is left.
func (s *Server) Shutdown(ctx context.Context) error { return nil }
