package main

import (
	"math/rand/v2"
	"sync/atomic"
)

// A profile is one kind of load.
type profile struct {
	name  string
	about string
	// clients is how many sessions there are at once; 0 means as many as the
	// target loads fastest with.
	clients int
	// reads says that the load only reads: the keys are there before it begins.
	reads bool
	// batched says that a request is not the same for all targets, so that
	// latencies can't be compared; operations are keys.
	batched bool
	// leases says that there are leases before it begins.
	leases bool
	// step makes the load for one measurement.
	step func(data *dataset, set settings) step
}

// profiles lists all loads in the order in which they run.
var profiles = []profile{
	{name: "put-1", about: "put one of the keys at random, 1 client", clients: 1, step: putStep},
	{name: "put-64", about: "put one of the keys at random, 64 clients", clients: 64, step: putStep},
	{name: "put-256", about: "put one of the keys at random, 256 clients", clients: 256, step: putStep},
	{name: "get-256", about: "linearizable get of one of the keys at random, 256 clients", clients: 256, reads: true, step: getStep(false)},
	{name: "stale-256", about: "stale (Cairn) or serializable (etcd) get of one of the keys at random, 256 clients", clients: 256, reads: true, step: getStep(true)},
	{name: "list", about: "list of 1,000 keys with values by prefix, 8 clients", clients: 8, reads: true, step: listStep},
	{name: "bulk", about: "new keys, in the largest requests that each takes and with the best concurrency for each", batched: true, step: bulkStep},
}

// bare reports whether the bare servers can do it: they have neither lists nor another
// kind of read, nor batches.
func (p *profile) bare() bool { return p.name != "list" && p.name != "stale-256" && !p.batched }

// Profiles that are not a load of this kind have files of their own.
const (
	profileFootprint = "footprint"
	profileFloor     = "floor"
	profileFloorBulk = "floor-bulk"
	modeCalibrate    = "calibrate"
)

func putStep(data *dataset, set settings) step {
	return func(s session, rng *rand.Rand) (int, error) {
		return 1, s.put(rng.IntN(set.Keys), data.value(rng.Uint64()))
	}
}

func getStep(stale bool) func(*dataset, settings) step {
	return func(_ *dataset, set settings) step {
		return func(s session, rng *rand.Rand) (int, error) {
			return 1, s.get(rng.IntN(set.Keys), stale)
		}
	}
}

func listStep(_ *dataset, set settings) step {
	return func(s session, rng *rand.Rand) (int, error) {
		return 1, s.list(rng.IntN(set.Keys / groupSize))
	}
}

// bulkStep writes keys that don't exist yet, in random order.
func bulkStep(*dataset, settings) step {
	var next atomic.Int64
	return func(s session, _ *rand.Rand) (int, error) {
		keys := make([]int, s.batch())
		from := int(next.Add(int64(len(keys)))) - len(keys)
		for i := range keys {
			keys[i] = scatter((from+i)%keysMax, keysMax)
		}
		return len(keys), s.load(keys)
	}
}
