// Package httpapi is the HTTP and JSON face of Cairn.
//
// It decodes a request strictly, composes one command or one read, calls the
// [Store], and encodes what that gave. It knows nothing of Raft and of disks:
// the node hands it a Store.
//
// # The way of a request
//
//	ServeHTTP    request id, Host, Origin                        server.go
//	dispatch     keys and fixed paths directly, else chi's tree  routes.go
//	target       key from the path as it was sent, query         target.go, params.go
//	conditions   If-Match, If-None-Match, if_revision            conditions.go
//	body         read with a limit, JSON with a strict parser    body.go, json.go
//	call         one kv.Command, or Wait and then a View         write.go, read.go
//	answer       append encoders into a pooled buffer            encode.go, exchange.go
//
// # Faults
//
// The head of a request is looked at as a whole before it is refused: every check
// reports what it finds to the exchange, which keeps the fault that comes first in
// api.Table. So a request with two faults has one defined answer, whatever the
// order of the checks in the code. The same goes for its body, which is read only
// if the head has no fault.
//
// # What is never done
//
//   - A key is never taken from chi's parameters, which are decoded in some cases
//     and not in others.
//   - Nothing is allocated because of a length that a client claims.
//   - A single key is never encoded by reflection.
//   - An answer never claims more than is known: once a command was handed to
//     the Store, an error that the Store does not name is outcome-unknown.
package httpapi
