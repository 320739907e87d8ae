// Command bench measures Cairn beside etcd: the same loads, on the same machine,
// in the same run, both with fsync on, and shows what came of it as ratios.
//
//	go run .                   all usual profiles, 3 rounds of 10 s each
//	go run . -short            the same, quickly, to see that everything works
//	go run . put-256 get-256   only these
//	go run . watch             the profiles of watches
//	go run . lease             the profiles of leases
//	go run . cluster           three nodes beside three members of etcd
//	go run . cluster-join      a node that joins a cluster under load
//	go run . latency           percentiles at given rates, in an open loop
//	go run . scale-keys        more and more keys
//	go run . scale-connections more and more connections
//	go run . disk              what is left on the disk without history
//	go run . plot FILE         figures of what -json wrote
//	go run . floor             what the machine can do without any store
//	go run . calibrate         which concurrency is best for each target
//	go run . -before COMMIT    against Cairn as it was, with verdicts
//	go run . guard             the figures that must not slip
//
// # What is measured
//
// There are three targets: Cairn over HTTP ("cairn"), etcd over its JSON gateway
// ("etcd-json"), which is what a user of curl would otherwise use, and etcd over
// gRPC through its own stubs ("etcd-grpc"), which is etcd at its best. etcd is the
// server of its Go module with its defaults, but for a quota that is never reached.
//
// A load is a closed loop: so many clients, each of which sends its next request
// when its last one was answered. For each load the table has the operations a
// second, the median and the 99th percentile of the time that a request took, the
// processor time that the server's process used and that this process used as its
// client, both also for each operation, and the most memory that was resident in the
// server meanwhile.
//
// The footprint profile loads a million keys and looks at memory, at disk, and at
// the time from the start of a new process over that data to its first answered
// linearizable read.
//
// Some profiles of leases are such loads, too: grants, and renewals one by one or
// many at once. Others look at a server that holds very many, keeps those whose
// holders are connected, or ends all of them in the same second.
//
// The profiles of watches have watchers with a connection each: of Cairn's streams
// of events, and of etcd's gRPC. Their puts are due at fixed times, and say in their
// values when that was.
//
// # How
//
//   - One measurement is one fresh server process with an empty data directory. No
//     other server runs meanwhile. Nothing is left of it afterwards.
//   - A round measures every target once; rounds begin with a different target each.
//     A ratio is always of two measurements of one round, and what is shown is the
//     median of the rounds' ratios with the least and the greatest.
//   - All data is on the file system of -dir, whose unwritten pages are flushed before
//     each measurement begins.
//   - The load is warmed up over the same connections for a fifth of its duration.
//   - Every answer is checked: writes for their status, gets for the exact value,
//     lists for the number of keys, bulk writes for the number of applied lines. An
//     error is counted and shown and is no operation.
//   - Clients cost as little as they can: requests over HTTP are bytes built in
//     advance on one connection a client; requests over gRPC share as many connections
//     as are best for etcd.
//
// # What is not measured
//
//   - A network: the members of a cluster speak over loopback, and share the disk.
//   - Machines of their own: client and server share the processors, so that a client
//     that costs more, as gRPC's does, takes from its server. The processor time of
//     each is shown; "server µs/op" says what the server alone costs.
//   - A given rate of arrivals, but for latency and the watches: in a closed loop a
//     slow server is asked less often, so percentiles are for comparison at this
//     concurrency and no promise at another.
//   - A cold page cache, power loss, long-term growth, compaction under load.
//   - Locks.
//
// It needs Linux, whose /proc has the numbers. Nothing but loopback is used.
package main
