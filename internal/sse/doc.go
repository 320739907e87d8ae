// Package sse writes and reads server-sent events, the text/event-stream of the
// HTML standard, section 9.2.
//
// The writing half appends to a buffer: to send the same event to many readers,
// encode it once and share the bytes. The reading half is a parser of the
// whole grammar, for clients; it buffers one event, up to a bound, and hands
// out nothing of an event that was cut off before its blank line.
package sse
