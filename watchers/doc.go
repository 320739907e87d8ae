// Package watchers tells who watches what changed.
//
// A [Hub] follows what one replica applies; a [Stream] is one watcher of any
// number of key ranges, from a revision on. A stream is
//
//   - ordered: revisions come in their order;
//   - unique: none comes twice;
//   - reliable: none that matches is left out;
//   - atomic: the changes of a revision come together, in their order, in parts
//     only where they are very many;
//   - bookmarkable: once [Stream.Position] is R, everything up to R was handed
//     out.
//
// It may lag, and says so by its position.
//
// # Two sources
//
// The past is read from the store's change log, in pieces, by the goroutine of
// whoever reads the stream. The present comes from the hub: a dispatcher takes
// each applied change, finds the streams that it concerns through an index of
// their ranges, and appends a pointer to the change, which all of them share,
// to their queues. A stream is live while its queue has no gap. It changes over
// in both directions without losing or repeating anything:
//
//   - From history to live: the stream enters the index first and learns up to
//     which revision H the hub was then. It reads the history up to H, and
//     beyond that what has come into its queue.
//   - From live to history: when its queue is full, or when the hub itself does
//     not know some revisions, the stream leaves the index with a note of the
//     revision up to which its queue is whole, and reads on behind that.
//
// So a slow reader costs itself only: a bounded queue, and then its own reads.
//
// # Who waits for whom
//
// Applying never waits: [Hub.Applied] appends to a queue, and when that is full
// forgets it, which sends every stream to history. The dispatcher never waits
// for a reader. A reader waits for nothing but what it reads.
//
// # What a crash leaves behind
//
// Nothing: the hub is memory. A client that comes again, to any member, says
// after which revision to go on.
package watchers
