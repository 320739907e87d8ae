package httpapi

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// A browser can be made to send requests here by any page that it shows. Two
// rules keep such a page from doing harm, without any configuration:
//
//   - The Host must be one of ours. A page of evil.example whose name is made to
//     point at this address (DNS rebinding) is of the same origin as its own
//     requests, but can't give them another Host.
//   - A request that may change something must not come from a page of another
//     origin. What such a page may send without asking first (forms, plain text)
//     carries an Origin, or at least Sec-Fetch-Site.

// hostOf cuts the port off a host, and the brackets off an IPv6 address.
func hostOf(hostport string) string {
	if strings.HasPrefix(hostport, "[") {
		host, _, ok := strings.Cut(hostport[1:], "]")
		if ok {
			return host
		}
		return hostport
	}
	if i := strings.LastIndexByte(hostport, ':'); i >= 0 && strings.IndexByte(hostport, ':') == i {
		return hostport[:i]
	}
	return hostport
}

// allowedHosts is the hosts that are ours by name.
func allowedHosts(configured []string) map[string]struct{} {
	hosts := map[string]struct{}{"localhost": {}, "127.0.0.1": {}, "::1": {}}
	for _, h := range configured {
		if host := strings.ToLower(hostOf(h)); host != "" {
			hosts[host] = struct{}{}
		}
	}
	return hosts
}

// hostAllowed reports whether the request names a host that is ours.
func (s *Server) hostAllowed(r *http.Request) bool {
	host := hostOf(r.Host)
	if _, ok := s.hosts[host]; ok {
		return true
	}
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if _, ok := s.hosts[host]; ok || strings.HasSuffix(host, ".localhost") {
		return true
	}
	// The address at which the connection arrived is ours whatever the
	// configuration says, and no name can be made to look like it.
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return false
	}
	if addr.IsLoopback() {
		return true
	}
	local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !ok {
		return false
	}
	arrived, err := netip.ParseAddrPort(local.String())
	return err == nil && arrived.Addr().Unmap().WithZone("") == addr.Unmap().WithZone("")
}

// originAllowed reports whether the request comes from no page, from a page of
// ours, or can't change anything.
func originAllowed(r *http.Request) bool {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return true
	}
	if origin, given := r.Header["Origin"]; given {
		if len(origin) != 1 {
			return false
		}
		host, ok := strings.CutPrefix(origin[0], "http://")
		if !ok {
			host, ok = strings.CutPrefix(origin[0], "https://")
		}
		return ok && strings.EqualFold(host, r.Host)
	}
	for _, site := range r.Header["Sec-Fetch-Site"] {
		if site != "same-origin" && site != "none" {
			return false
		}
	}
	return true
}
