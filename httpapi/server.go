package httpapi

import (
	"context"
	"net"
	"net/http"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/coordination"
)

// Server answers HTTP requests. Its methods are safe for concurrent use.
type Server struct {
	cfg         Config
	http        *http.Server
	mux         *chi.Mux
	routes      []route
	direct      map[string]*route // by method: the routes of a key in the path
	fixed       map[target]*route // those whose path has no parameter, and renewals
	hosts       map[string]struct{}
	valueMember []string
	date        dateHeader
	meters      *meters
	exchanges   sync.Pool
	buffers     sync.Pool // of *streamBuffers
	pages       sync.Pool // of *[]byte, for large answers and bodies
	taken       takenConns
	snapshots   atomic.Int32 // backups that are being streamed
	admission   *admission
	loans       *loans
	recipes     *coordination.Recipes
	openAPI     func() ([]byte, error) // the contract as JSON

	// draining is closed by Shutdown, which is when streams end.
	draining  chan struct{}
	drainOnce sync.Once

	// silence is peerSilence, doubtAfter and bulkPatience are the constants, but for
	// tests.
	silence      func(net.Conn) (time.Duration, bool)
	doubtAfter   time.Duration
	viewHold     time.Duration // the constant, but for tests
	bulkPatience time.Duration
}

// New makes a server. It starts nothing.
func New(cfg Config) *Server {
	s := &Server{
		cfg:    cfg.withDefaults(),
		routes: routes(),
		direct: map[string]*route{},
		fixed:  map[target]*route{},
		hosts:  allowedHosts(cfg.AllowedHosts),

		draining: make(chan struct{}),
		silence:  peerSilence,

		doubtAfter:   doubtAfter,
		viewHold:     viewHold,
		bulkPatience: bulkPatience,
	}
	s.recipes = coordination.New(recipeStore{s.cfg.Store}, s.cfg.Now)
	s.valueMember = []string{s.cfg.MemberID}
	s.exchanges.New = func() any { return &exchange{} }
	s.buffers.New = func() any { return &streamBuffers{} }
	s.meters = newMeters(s.cfg.Registerer, s.routes)
	s.admission = newAdmission(s.cfg.MaxConnections, s.cfg.Registerer)
	s.loans = newLoans(s.admission.shed[shedMemory])
	s.mux = s.tree()
	s.openAPI = sync.OnceValues(func() ([]byte, error) { return yamlToJSON(s.cfg.OpenAPI) })
	s.http = &http.Server{
		Handler:           s,
		ReadHeaderTimeout: s.cfg.HeaderTimeout,
		IdleTimeout:       s.cfg.IdleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: maxStreams, WriteByteTimeout: s.cfg.WriteTimeout,
			MaxReceiveBufferPerStream: maxUnread,
		},
		Protocols:                    new(http.Protocols),
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     netHTTPLog(s.cfg.Logger),
		ConnContext:                  withConn,
	}
	// Called once the listeners are closed, so that clients that are told of the
	// end find another member.
	s.http.RegisterOnShutdown(s.drain)
	s.http.Protocols.SetHTTP1(true)
	s.http.Protocols.SetHTTP2(true)
	s.http.Protocols.SetUnencryptedHTTP2(true)
	return s
}

// Serve answers requests on l until Shutdown; it then returns
// http.ErrServerClosed. It may be called for several listeners.
func (s *Server) Serve(l net.Listener) error {
	l = limitListener(l, s.cfg.MaxConnections, s.cfg.WriteTimeout, s.meters.connections, s.refuseConnection, s.instead)
	if s.cfg.TLS != nil {
		l = s.listenTLS(l)
	}
	return s.http.Serve(l)
}

// refuseConnection counts a connection too many and returns its answer. It says, as
// other problems do, that nothing was applied.
func (s *Server) refuseConnection() []byte {
	s.admission.shed[shedConnections].Inc()
	f := newFault(api.CodeUnavailable, "this node has no connection left; use those that are open again, or ask another node")
	f.retryAfter = 1
	return s.wholeProblem(&f)
}

// drain tells the streams that they end.
func (s *Server) drain() {
	s.drainOnce.Do(func() { close(s.draining) })
	s.cfg.Watchers.Close()
}

// Shutdown refuses new connections, tells the streams that they end, and waits
// until the requests in flight are answered or ctx ends; then it closes what is
// left.
func (s *Server) Shutdown(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	if err == nil {
		// No request is in flight that could take over another connection.
		err = s.taken.wait(ctx)
	}
	if err != nil {
		_ = s.http.Close()
		s.taken.close()
	}
	return err
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := s.begin(w, r)
	defer x.finish()
	switch {
	case !s.hostAllowed(r):
		x.refuse(api.CodeHostNotAllowed, "%.100q is not a name of this server; see the option for allowed hosts", r.Host)
	case !originAllowed(r):
		x.refuse(api.CodeOriginNotAllowed, "the request comes from a page of another origin")
	default:
		x.dispatch()
	}
}

// finish ends an exchange: it counts it, and turns a panic into an answer if
// there is none yet. A panic is a bug; the process goes on, since what it holds
// is on disk and replicated, and nothing here is shared between requests.
func (x *exchange) finish() {
	failure := recover()
	if failure != nil && failure != http.ErrAbortHandler {
		x.s.cfg.Logger.Error("A handler panicked.", "request_id", x.id(), "panic", failure, "stack", string(debug.Stack()))
		if x.sent == 0 {
			clear(x.w.Header())
			x.text, x.lines = x.text[:0], x.lines[:0]
			x.refuse(api.CodeInternal, "the server's log says more under this request id")
			failure = nil
		} else {
			failure = http.ErrAbortHandler
		}
	}
	if !x.taken && x.r.ProtoMajor > 1 {
		// What net/http still has of the answer leaves once the handler has returned.
		_ = http.NewResponseController(x.w).SetWriteDeadline(time.Now().Add(x.s.cfg.WriteTimeout))
	}
	x.s.admission.leave(&x.share)
	if !x.taken {
		x.s.meters.observe(x.route, x.sent, x.s.cfg.Now().Sub(x.began))
	}
	if failure != nil {
		// The connection must not look as if the answer were complete.
		panic(failure)
	}
	x.end()
}
