// Package transport carries Raft messages and snapshots between the members of
// a cluster: Dragonboat's raftio.ITransport over TCP, with mutual TLS.
//
// # What it promises
//
//   - Nothing that arrives is believed before both ends know who they speak to.
//     With TLS, each end shows a certificate of the peers' own authority for a
//     name that is allowed. Then a handshake (handshake.go) names the cluster,
//     the replica and the member behind it on both ends; a member of another
//     cluster, a replica that is somebody else by now (wiped, cloned) or at
//     another address is refused, with a line in both logs. So it can neither
//     vote nor be asked for its vote. The same goes for one whose log ends before
//     what it has acknowledged (memory.go).
//   - No memory is taken on the word of a peer. Frames (frame.go) have an upper
//     length, and memory grows with what has arrived. Connections that have not
//     shown who they are yet are few, and each has a few seconds.
//   - Nothing that a peer sends makes this process panic, as far as it can be
//     told from the message: what Dragonboat would panic at, or what only this
//     process may tell itself, is dropped (receive.go). A member that has shown
//     who it is can still lie about its log; that is what membership means.
//   - A snapshot has a connection of its own, and is acknowledged chunk by
//     chunk: a sender is never far ahead of the disk of the receiver.
//   - A network that was out is used again seconds after it is back: what is not
//     acknowledged for long ends its connection, and the next one is dialled.
//   - Certificates, the authority and the list of names are read again when
//     their files change. A set that does not fit together is reported and the
//     former one stays.
//
// # Ownership
//
// A Transport owns its listener, the goroutine that accepts, one goroutine for
// each connection that was accepted, and, with TLS, the one that looks after the
// files. Close ends them all and returns when they are gone. Connections that
// were dialled belong to Dragonboat, which closes them; they end with the context
// that they were dialled with.
package transport
