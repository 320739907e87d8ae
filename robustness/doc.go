// Package robustness runs real clusters of Cairn under real faults and checks
// that nothing that was promised is broken.
//
// A scenario starts one or three processes of the binary, lets clients work on a
// few keys over HTTP, and lets a nemesis do harm meanwhile: kill -9, SIGSTOP,
// SIGTERM, the loss of power, a full disk. Everything that a client sent and got
// is recorded. At the end the cluster must be whole, and the record must agree
// with itself and with the store's own history.
//
// # What is checked
//
//   - The operations are strictly serializable, revisions included (model.go,
//     with porcupine). An operation of unknown outcome may take effect at any
//     time after its call, or never.
//   - Every acknowledged write is in the history of the store, at the revision
//     that was answered; a write that was answered "not applied" is nowhere; no
//     write is there twice; each revision is explained by somebody's request
//     (history.go).
//   - A stale read shows the state at the revision that it names, and the
//     revision of a process never goes back.
//   - No answer is a 500, each error has a code, no log has a panic.
//   - At the end a write succeeds on every node, and all nodes reach the same
//     revision with the same hash.
//   - A node that was restarted is ready within ten seconds.
//   - The run was worth something: there was enough traffic before the fault,
//     the fault happened, and there was success after it.
//
// Leases have a record of their own (leasetrace.go) and these checks
// (leasecheck.go):
//
//   - Early: no lease ended before its time to live had passed since the client
//     sent the last renewal that was answered, by what watchers on all nodes saw
//     first and by what the store says of when the end was proposed.
//   - Late: none ended more than 2 s after that, of the time in which commits took
//     no longer than 250 ms, or more than 3 s, of that in which they took no longer
//     than 500 ms. A probe on each node, a small write every 100 ms, proves that
//     time; what it does not prove is not counted.
//   - Ends: all keys of a lease go at one revision, for one reason.
//   - Lost: a lease that is denied has ended.
//   - Clock: what is left of a lease that nobody renews never grows, is never less
//     than the time says, and goes on through everything.
//   - WallOrder: modified_at never goes backwards.
//
// Holders of locks have theirs (fencecheck.go):
//
//   - Tokens: each is the revision of its holder, and they grow from holder to
//     holder, through everything.
//   - Fences: a write that carries one took effect only while that very holder had
//     the lock; after that it is 412, on every route.
//
// Watches have a scenario and checks of their own. Watchers of every kind are cut
// off and resume on other nodes while keys change, leases end, history is
// compacted as soon as it is known, and nodes are killed, paused, cut off and left
// behind. What happened is learned without any watch, from the histories of the
// keys; watchcheck.go holds each trace against it, one function a guarantee.
//
// Members that are replaced have these (members.go): each comes to vote, under a
// replica id that was never given before; one that was removed ends, also if it was
// cut off or down at the time, and one that was down is never ready again.
//
// Bit flips have a sweep of their own (bitflip_test.go): one bit in one file of one
// of three nodes, which is then started and read.
//
// That the checks find what they are made for is itself tested: checks_test.go,
// lease_test.go, fence_test.go and watchcheck_test.go spoil a history and traces in
// many ways, and mutant_linux_test.go, leasemutant_test.go and watchmutant_test.go
// build servers with one mistake each; every one must be found.
//
// # The parts
//
//   - process.go and cluster.go: processes, their ports, logs and directories.
//   - disk_linux.go: a file system of its own for a node, which can lose power or be
//     full.
//   - operation.go, client.go, traffic.go: what is asked, how, and by whom.
//   - nemesis.go: what goes wrong, and when.
//   - members.go: members that leave, and others that join in their place.
//   - scenario.go: traffic and faults, round by round.
//   - history.go, model.go, verdict.go, whole.go: what must be true.
//   - leasetraffic.go, leasescenario.go: the same for leases; fencetraffic.go: for
//     locks.
//   - network_linux.go: what is between the nodes on the loopback, and can be cut.
//   - namespaces_linux.go, netfault_linux.go: nodes with a network of their own, and
//     how its wire breaks.
//   - cable_linux.go: a wire on which frames are lost, doubled, and overtaken.
//   - processfault_linux.go: system calls that fail or wait, and limits.
//   - alive.go: that each node can do everything again at the end.
//   - watchtrace.go, watchclient.go: what a watcher asks for and receives.
//   - watchtraffic.go, watchtruth.go: what happens meanwhile, and how it is known.
//   - watchcheck.go, watchscenario.go: what must be true, and how it comes about.
//   - overlay.go: servers with other text in some files; crashpoints.go: of which a line
//     ends the process.
//   - wallclock.go: servers whose wall clock can jump.
//   - load.go: many keys at once, in and out.
//   - evidence.go: what is kept when it is not.
//
// Every random choice comes from one seed, which is printed; CAIRN_SEED repeats
// it. The scheduling of processes is not under its control, so that the same
// seed makes the same requests and faults, but not always the same result.
package robustness
