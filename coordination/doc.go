// Package coordination has the recipes for locks, elections and services: what
// several programs do with a few keys so that they agree on who may act, who
// leads and what is alive. They are transactions and leases on plain keys; the
// state machine knows nothing of them, and whatever reads, lists and watches keys
// sees them.
//
//	_cairn/locks/<name>/holder              who holds the lock, alone
//	_cairn/locks/<name>/holders/read/<id>   who holds it for reading
//	_cairn/locks/<name>/holders/limit-5/3   slot 3 of a semaphore of 5
//	_cairn/locks/<name>/queue/<kind>/<id>   who waits
//	_cairn/elections/<name>/leader          who leads, with what it proclaimed
//	_cairn/elections/<name>/queue/…         the candidates
//	_cairn/services/<service>/<instance>    an instance that is alive
//
// <id> is the lease of whoever holds or waits.
//
// # What is promised
//
//   - Exclusion is decided by the store: a holder's key is put by a transaction
//     that wants all keys which exclude it to be missing.
//   - The token is the create revision of the holder's key, so tokens strictly
//     increase. A fence ([ParseFence]) makes a compare of it: a write that carries it is
//     applied only as long as that very holder's key is there. Mutual exclusion of
//     what holders do is the fence's work, not the lock's: a holder that was
//     paused learns late that it lost the lock, the store knows at once.
//   - First come, first served: the order of waiters is the create revision of
//     their keys. Nobody passes a waiter whose turn excludes its own.
//   - Locks and elections are idempotent per name and lease: asking again gives
//     the same token as long as it is held, and a place in the queue is kept.
//   - A release wakes those alone whose turn it may be: a waiter looks at the one
//     before it, and only who is first looks at the holder.
//
// # Who owns what
//
// A [Recipes] has no goroutine and no state: everything is in the store, and
// every wait belongs to the call that waits. The caller bounds it by a context.
//
// # What a crash leaves behind
//
// A holder's key is attached to a lease, the holder's own or one that ends with
// the key; it goes when the holder stops renewing. A waiter's key has a lease of
// [waiterTTLMillis] that the node which serves the request renews while it waits;
// when the client or that node goes away, the key goes. Between the two there is
// one transaction, which deletes the waiter's key and puts the holder's: there is
// no moment in which both or neither is there.
//
// What is left when a request ends without an answer is what the client could
// have been told: a lock that is held, until its lease ends. With a lease of its
// own a client asks again and is told; see [Recipes.Acquire].
package coordination
