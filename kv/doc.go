// Package kv is the vocabulary that every part of Cairn shares: entries,
// events, ranges, queries, transactions, the commands that travel through the
// Raft log, and the results that applying them gives.
//
// It is pure. It opens nothing, starts nothing, reads no clock and imports no
// other package of Cairn, so that the face that receives a request, the log
// that orders it and the store that applies it speak of the same things
// without knowing each other.
//
// # What is replicated
//
// A [Command] is everything that applying may look at besides the replicated
// state itself: who asked, when the proposer's clock stood, under which
// idempotency key, and what to do. Encoding is versioned and strict: a decoder
// that meets a kind, a flag or a length that it doesn't know returns an error
// and never guesses, because a replica that skips what it doesn't understand
// silently differs from the others from then on.
//
// # Ownership
//
// Decoded commands alias the buffer that they were decoded from. Whoever keeps
// a key or a value beyond the life of that buffer copies it.
package kv
