package httpapi

import (
	"errors"
	"net/http"
	"strings"

	"github.com/go-chi/chi/v5"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/internal/sse"
	"github.com/cairnkv/cairn/kv"
)

// A route is one method of one path.
type route struct {
	method, pattern string
	// params are the query parameters that it takes; all others are refused.
	params paramSet
	// repeats are those of them that may come more than once.
	repeats paramSet
	body    bodyKind
	// write says that it changes state: it takes an Idempotency-Key of at most
	// keyBytes.
	write    bool
	keyBytes int
	// fenced says that it is a transaction, or several, that can be bound to a
	// holder by a Cairn-Fencing header.
	fenced bool
	// conditional says that it is a write which If-Match and If-None-Match can hold
	// back; the others refuse these.
	conditional bool
	// unkeyed says that it changes state and may be repeated as it is: it refuses
	// an Idempotency-Key, under which a remembered answer could be out of date.
	unkeyed bool
	// types are the media types of its answer, if the request may choose among
	// them only. The value of a key has its own.
	types  []string
	handle func(*exchange)
	// served says that it needs what is in the store: while that is being filled
	// from a backup, it is refused.
	served bool
	// untrusting says that it goes on where what is stored can't be trusted: it is about
	// the members, and so a way to put that right, or it renews leases, whose ends would
	// change more. Whether it may is asked again before anything is proposed.
	untrusting bool
	// stream says that it may be open for long.
	stream bool
	meter  *meter
}

// Sets of parameters that several routes share.
var (
	keyParams   = params(pKey, pKeyBase64)
	rangeParams = params(pPrefix, pPrefixBase64, pStart, pStartBase64, pEnd, pEndBase64)

	getParams      = readModeParams | params(pRevision, pEncoding)
	putParams      = params(pLease, pTTL, pPrev, pIfRevision, pIgnoreValue, pIgnoreLease, pEncoding)
	sequenceParams = params(pSequence, pLease, pTTL, pEncoding)
	deleteParams   = params(pPrev, pIfRevision, pEncoding)
	listParams     = readModeParams | rangeParams | params(pRevision, pLimit, pCursor, pOrder, pSort, pKeysOnly, pCount, pCountOnly,
		pDelimiter, pMinModRevision, pMaxModRevision, pMinCreateRevision, pMaxCreateRevision, pEncoding)
	watchParams   = keyParams | rangeParams | params(pFromRevision, pLastEventID, pInitial, pPrev, pType, pKeysOnly, pBookmark, pWait, pEncoding)
	watchRepeats  = params(pKey, pKeyBase64, pPrefix, pPrefixBase64)
	historyParams = readModeParams | params(pLimit, pCursor, pKeysOnly, pEncoding)
)

var (
	typesJSON = []string{api.TypeJSON}
	typesList = []string{api.TypeJSON, api.TypeNDJSON}
	typesBulk = []string{api.TypeNDJSON}

	typesBackup = []string{api.TypeBackup}

	typesStream = []string{sse.ContentType}
	typesClaim  = []string{api.TypeJSON, sse.ContentType}
)

// routes is everything that this face answers.
func routes() []route {
	read := func(method, pattern string, p paramSet, types []string, handle func(*exchange)) route {
		return route{method: method, pattern: pattern, params: p, types: types, handle: handle}
	}
	write := func(method, pattern string, p paramSet, body bodyKind, types []string, handle func(*exchange)) route {
		return route{method: method, pattern: pattern, params: p, body: body, types: types, handle: handle, write: true, keyBytes: kv.MaxIdempotencyKeyBytes}
	}
	// A renewal changes state and takes no Idempotency-Key: it may be repeated, and
	// a remembered answer would say that a lease was renewed that wasn't.
	renewal := func(pattern string, body bodyKind, types []string, handle func(*exchange)) route {
		return route{method: "POST", pattern: pattern, body: body, types: types, handle: handle, untrusting: true}
	}
	several := func(r route) route { r.keyBytes = bulkKeyBytes; return r }
	conditional := func(r route) route { r.conditional = true; return r }
	long := func(r route) route { r.stream = true; return r }
	fenced := func(r route) route { r.fenced = true; return r }
	// What the recipes do is safe to repeat: see package coordination.
	recipe := func(method, pattern string, p paramSet, body bodyKind, types []string, handle func(*exchange)) route {
		return route{method: method, pattern: pattern, params: p, body: body, types: types, handle: handle, unkeyed: true}
	}

	// A key in the path, and the same key in the query.
	inPath := func(prefix string, handle func(*exchange, []byte)) func(*exchange) {
		return func(x *exchange) { handle(x, x.key(prefix)) }
	}
	inQuery := func(handle func(*exchange, []byte)) func(*exchange) {
		return func(x *exchange) { handle(x, x.key("")) }
	}

	return []route{
		read("GET", keyPath+"*", getParams, nil, inPath(keyPath, (*exchange).getKey)),
		read("HEAD", keyPath+"*", getParams, nil, inPath(keyPath, (*exchange).getKey)),
		conditional(fenced(write("PUT", keyPath+"*", putParams, rawBody, typesJSON, inPath(keyPath, (*exchange).putKey)))),
		conditional(fenced(write("DELETE", keyPath+"*", deleteParams, noBody, typesJSON, inPath(keyPath, (*exchange).deleteKey)))),
		fenced(write("POST", keyPath+"*", sequenceParams, rawBody, typesJSON, inPath(keyPath, (*exchange).postSequence))),

		read("GET", "/v1/key", keyParams|getParams, nil, inQuery((*exchange).getKey)),
		read("HEAD", "/v1/key", keyParams|getParams, nil, inQuery((*exchange).getKey)),
		conditional(fenced(write("PUT", "/v1/key", keyParams|putParams, rawBody, typesJSON, inQuery((*exchange).putKey)))),
		conditional(fenced(write("DELETE", "/v1/key", keyParams|deleteParams, noBody, typesJSON, inQuery((*exchange).deleteKey)))),
		fenced(write("POST", "/v1/key", keyParams|sequenceParams, rawBody, typesJSON, inQuery((*exchange).postSequence))),

		read("GET", "/v1/kv", listParams, typesList, (*exchange).list),
		fenced(write("DELETE", "/v1/kv", rangeParams|params(pAll, pPrev, pEncoding), noBody, typesJSON, (*exchange).deleteRange)),
		long(fenced(several(write("POST", "/v1/kv", 0, ndjsonBody, typesBulk, (*exchange).bulk)))),

		fenced(write("POST", "/v1/txn", params(pEncoding), jsonBody, typesJSON, (*exchange).postTxn)),

		read("GET", historyPath+"*", historyParams, typesJSON, inPath(historyPath, (*exchange).history)),
		read("GET", "/v1/history", keyParams|historyParams, typesJSON, inQuery((*exchange).history)),

		write("POST", "/v1/leases", 0, jsonBody, typesJSON, (*exchange).grantLease),
		read("GET", "/v1/leases", readModeParams|params(pLimit, pCursor), typesJSON, (*exchange).listLeases),
		read("GET", leasesPath+"{id}", readModeParams|params(pKeys, pLimit, pCursor, pEncoding), typesJSON, (*exchange).getLease),
		write("DELETE", leasesPath+"{id}", 0, noBody, typesJSON, (*exchange).revokeLease),
		renewal(renewalPattern, noBody, typesJSON, (*exchange).renewLease),
		long(renewal(leasesPath+"{id}/hold", noBody, typesStream, (*exchange).holdLease)),
		renewal(leasesPath+"keepalive", jsonBody, typesJSON, (*exchange).renewLeases),
		long(renewal(leasesPath+"hold", jsonBody, typesStream, (*exchange).holdLeases)),

		long(recipe("POST", locksPath+"{name}", 0, jsonBody, typesClaim, (*exchange).acquireLock)),
		read("GET", locksPath+"{name}", readModeParams, typesJSON, (*exchange).getLock),
		recipe("DELETE", locksPath+"{name}", params(pToken), noBody, typesJSON, (*exchange).releaseLock),

		long(recipe("POST", electionsPath+"{name}", 0, jsonBody, typesClaim, (*exchange).campaign)),
		read("GET", electionsPath+"{name}", readModeParams, typesJSON, (*exchange).getElection),
		recipe("PUT", electionsPath+"{name}", 0, jsonBody, typesJSON, (*exchange).proclaim),
		recipe("DELETE", electionsPath+"{name}", params(pToken), noBody, typesJSON, (*exchange).resign),
		long(read("GET", electionsPath+"{name}/observe", 0, typesStream, (*exchange).observe)),

		read("GET", "/v1/services", readModeParams|params(pLimit, pAfter), typesJSON, (*exchange).listServices),
		read("GET", servicesPath+"{service}", readModeParams|params(pTag, pLimit, pAfter), typesJSON, (*exchange).listInstances),
		recipe("PUT", servicesPath+"{service}/{instance}", 0, jsonBody, typesJSON, (*exchange).register),
		read("GET", servicesPath+"{service}/{instance}", readModeParams, typesJSON, (*exchange).getInstance),
		recipe("DELETE", servicesPath+"{service}/{instance}", 0, noBody, typesJSON, (*exchange).deregister),

		{method: "GET", pattern: "/v1/watch", params: watchParams, repeats: watchRepeats, handle: (*exchange).getWatch, stream: true},
		{method: "POST", pattern: "/v1/watch", params: params(pEncoding), body: jsonBody, handle: (*exchange).postWatch, stream: true},

		read("GET", "/v1/cluster", readModeParams, typesJSON, (*exchange).getCluster),
		read("GET", "/v1/cluster/members", readModeParams, typesJSON, (*exchange).listMembers),
		recipe("POST", "/v1/cluster/members", 0, jsonBody, typesJSON, (*exchange).addMember),
		read("GET", membersPath+"{id}", readModeParams, typesJSON, (*exchange).getMember),
		recipe("DELETE", membersPath+"{id}", 0, noBody, typesJSON, (*exchange).removeMember),
		recipe("POST", membersPath+"{id}/promote", 0, noBody, typesJSON, (*exchange).promoteMember),
		recipe("POST", "/v1/cluster/leader", 0, jsonBody, typesJSON, (*exchange).transferLeader),
		recipe("POST", "/v1/cluster/join", 0, jsonBody, typesJSON, (*exchange).joinCluster),

		write("POST", "/v1/compact", 0, jsonBody, typesJSON, (*exchange).postCompact),
		read("GET", "/v1/hash", readModeParams|params(pRevision), typesJSON, (*exchange).hash),
		read("GET", "/v1/snapshot", readModeParams, typesBackup, (*exchange).snapshot),
		read("GET", "/v1/status", 0, typesJSON, (*exchange).status),
		read("GET", "/v1/alarms", readModeParams, typesJSON, (*exchange).alarms),
		several(write("DELETE", "/v1/alarms", params(pMember, pType), noBody, typesJSON, (*exchange).clearAlarms)),

		read("GET", "/livez", 0, nil, (*exchange).live),
		read("HEAD", "/livez", 0, nil, (*exchange).live),
		read("GET", "/readyz", params(pVerbose), nil, (*exchange).ready),
		read("HEAD", "/readyz", params(pVerbose), nil, (*exchange).ready),
		read("GET", "/health", 0, nil, (*exchange).health),
		read("GET", "/version", 0, nil, (*exchange).version),
		read("GET", "/metrics", 0, nil, (*exchange).metrics),
		read("GET", "/openapi.yaml", 0, nil, (*exchange).openAPIYAML),
		read("GET", "/openapi.json", 0, nil, (*exchange).openAPIJSON),
		read("GET", "/", 0, nil, (*exchange).root),
	}
}

// tree makes chi's tree of the routes. Its handlers find the exchange in the
// ResponseWriter that they are given.
func (s *Server) tree() *chi.Mux {
	mux := chi.NewRouter()
	for i := range s.routes {
		rt := &s.routes[i]
		rt.served = strings.HasPrefix(rt.pattern, "/v1/") && rt.pattern != "/v1/status" && rt.pattern != "/v1/alarms"
		rt.untrusting = rt.untrusting || strings.HasPrefix(rt.pattern, "/v1/cluster")
		mux.MethodFunc(rt.method, rt.pattern, func(w http.ResponseWriter, r *http.Request) {
			w.(*exchange).run(rt)
		})
		if strings.HasPrefix(rt.pattern, keyPath) {
			s.direct[rt.method] = rt
		}
		if !strings.ContainsAny(rt.pattern, "{*") || rt.pattern == renewalPattern {
			s.fixed[target{rt.method, rt.pattern}] = rt
		}
	}
	mux.NotFound(func(w http.ResponseWriter, r *http.Request) {
		w.(*exchange).refuseRoute()
	})
	mux.MethodNotAllowed(func(w http.ResponseWriter, r *http.Request) {
		w.(*exchange).refuseMethod()
	})
	return mux
}

// A target is what chooses a route without a parameter.
type target struct{ method, path string }

// renewalPattern is the route of what is asked for most among those with one.
const renewalPattern = leasesPath + "{id}/keepalive"

// pattern is the pattern of a path as far as it is known without chi: the path.
func pattern(path string) string {
	if strings.HasSuffix(path, "/keepalive") && matches(renewalPattern, path) {
		return renewalPattern
	}
	return path
}

// dispatch finds the route of a request and runs it. The routes of a key, of one path
// and of renewals are found without chi, which copies the request for each one that
// it matches.
func (x *exchange) dispatch() {
	u := x.r.URL
	if _, ok := pathKey(u, keyPath); ok {
		if rt := x.s.direct[x.r.Method]; rt != nil {
			x.run(rt)
			return
		}
	} else if u.RawPath == "" {
		if rt := x.s.fixed[target{x.r.Method, pattern(u.Path)}]; rt != nil {
			x.run(rt)
			return
		}
	}
	x.s.mux.ServeHTTP(x, x.r)
}

// refuseRoute answers 404.
func (x *exchange) refuseRoute() {
	x.refuse(api.CodeNotFound, "nothing is at %.100q; GET / says what is where", x.r.URL.Path)
}

// refuseMethod answers 405 with the methods that the path has.
func (x *exchange) refuseMethod() {
	path := x.r.URL.RawPath
	if path == "" {
		path = x.r.URL.Path
	}
	var allow []string
	for i := range x.s.routes {
		if rt := &x.s.routes[i]; matches(rt.pattern, path) {
			allow = append(allow, rt.method)
		}
	}
	if len(allow) == 0 {
		x.refuseRoute()
		return
	}
	x.fault = newFault(api.CodeMethodNotAllowed, x.r.Method+" is not one of "+strings.Join(allow, ", "))
	x.fault.allow = strings.Join(allow, ", ")
	current, _ := x.s.cfg.Store.Revisions()
	x.sendProblem(current)
}

// matches reports whether a path is one of a pattern, in which a name in braces
// stands for one segment and a star at the end for whatever is left.
func matches(pattern, path string) bool {
	for {
		segment, pattern1, more := strings.Cut(pattern, "/")
		if segment == "*" {
			return true
		}
		given, path1, moreGiven := strings.Cut(path, "/")
		if more != moreGiven || segment != given && (given == "" || !strings.HasPrefix(segment, "{")) {
			return false
		}
		if !more {
			return true
		}
		pattern, path = pattern1, path1
	}
}

// run checks what the route says of all its requests, and then handles this one.
func (x *exchange) run(rt *route) {
	x.route = rt
	if !x.admit(rt) {
		return
	}
	if rt.served {
		err := x.s.cfg.Store.Serving()
		if rt.untrusting && errors.Is(err, &kv.Error{Code: kv.CorruptContent}) {
			err = nil
		}
		if err != nil {
			x.refuseRead(err)
			return
		}
	}
	if rt.body != noBody && !x.r.ProtoAtLeast(1, 1) && x.r.Header["Content-Length"] == nil {
		// net/http takes it for empty, also where it comes in chunks, which it doesn't tell,
		// and would take these for the next request.
		x.w.Header()["Connection"] = valueClose
		x.refuse(api.CodeMalformedRequest, "a request of HTTP/1.0 says with Content-Length how long its body is")
		return
	}
	if !x.checkMediaType(rt.body) || !x.checkAccept(rt.types) {
		return
	}
	if rt.write {
		x.readIdempotencyKey(rt.keyBytes)
	}
	if rt.unkeyed && len(x.r.Header[api.HeaderIdempotencyKey]) > 0 {
		x.fail(api.CodeInvalidArgument, "this route takes no Idempotency-Key: it may be repeated as it is")
	}
	if given := x.r.Header[api.HeaderFencing]; len(given) > 0 {
		x.readFences(given, rt.fenced)
	}
	if !rt.conditional && rt.method != http.MethodGet && rt.method != http.MethodHead {
		x.refuseConditions()
	}
	if x.r.URL.RawQuery != "" {
		x.parseQuery(x.r.URL.RawQuery, rt.params, rt.repeats)
	}
	if rt.body == noBody && x.r.ContentLength != 0 && !rt.stream {
		// net/http reads it before the answer goes out.
		x.readDeadline(x.s.cfg.BodyTimeout)
	}
	if rt.body == noBody && x.r.ProtoMajor > 1 {
		// What comes of one is dropped, and does not wait in memory for as long as the
		// request is under way.
		_ = x.r.Body.Close()
	}
	rt.handle(x)
}
