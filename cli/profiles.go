package cli

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"time"
)

// serveProfiles serves Go's profiles of this process, below /debug/pprof/, until
// the function that it returns is called. A profile shows what is in memory and
// costs the process time, and nobody is asked who they are: so it is for whoever is
// on the machine.
func serveProfiles(ctx context.Context, address string) (end func(), err error) {
	if address == "" {
		return func() {}, nil
	}
	at, err := netip.ParseAddrPort(address)
	if err != nil || !at.Addr().IsLoopback() || at.Port() == 0 {
		return nil, usagef("profile-listen is %q, not an address of the loopback such as 127.0.0.1:7490; from elsewhere use a tunnel (ssh -L)", address)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("profile-listen: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	done := make(chan struct{})
	go func() { // ends with the server
		defer close(done)
		_ = srv.Serve(l) // http.ErrServerClosed, or the listener broke: profiles are no reason to end
	}()
	return func() {
		_ = srv.Close() // a profile that is under way ends with the process
		<-done
	}, nil
}
