// Package api is what travels between a client and a server of Cairn: the
// bodies of requests and answers as Go types, and the codes of errors.
//
// The contract itself is openapi.yaml; the tests of package httpapi hold the
// server, the contract and these types to each other.
//
// # JSON
//
//   - A key or a value is the member "key" or "value", a string, when its bytes
//     are valid UTF-8, and "key_base64" or "value_base64" otherwise; never
//     both. In Go it is always a []byte: the types here choose the form when
//     they are written and accept either when they are read.
//   - Revisions, versions and counts are integers below 2^53. Numbers that use
//     all 64 bits, such as the value of an increment, are decimal strings.
//   - Durations are members that end in _seconds. Times are RFC 3339 in UTC
//     with milliseconds.
//   - A lease is named by its ULID, 26 letters and digits. An empty string
//     means no lease.
//
// # Errors
//
// An answer that is not a success carries a [Problem], and its code is one of
// the [Table]. The order of the table is the order of precedence: a request
// with two faults is answered for the one that stands first.
//
// The package imports nothing of Cairn, so that a client needs nothing else.
package api
