package robustness

import (
	"math/rand/v2"
	"testing"
)

// The other scenarios ask for the order of operations. Here the watches, the leases and the
// fences go through the same faults of the wire, and of disks, power and processors, each
// kind of fault in turn.

// wireFaults are all ways for the wire to fail.
func wireFaults(s *Namespaces) (faults []Fault) {
	for _, b := range []wireBreak{unplug, oneWay, fastFail, bridge, clientsCut, narrow, lossy, reorders, doubles, delays, badWire} {
		faults = append(faults, OnTheWire(s, underLoad(b)))
	}
	return faults
}

// underLoad is a break that may cost the leader its place: with much traffic beside it, what
// is late anyway may be too late for an election timeout.
func underLoad(b wireBreak) wireBreak {
	return func(s *Namespaces, random *rand.Rand) (*broken, error) {
		broken, err := b(s, random)
		if err == nil {
			broken.steady = false
		}
		return broken, err
	}
}

// machineFaults are those of one machine, or of all of them at once.
func machineFaults(disks []*Disk) []Fault {
	return []Fault{
		powerLoss(disks, everyNode), toTheLastByte(disks), SyncFails, SlowSyncIdle,
		powerLoss(disks, victims), ReadOnly(disks), WriteFails, StarveIdle,
	}
}

// onAllWires plays a scenario on machines whose wires fail in all ways.
func onAllWires(t *testing.T, play func(t *testing.T, l Layout, faults []Fault)) {
	t.Helper()
	onlyLong(t)
	needs(t, []string{"tc"}, []string{"/dev/net/tun"})
	if l, _ := machines(t, 3); l != nil {
		play(t, *l, wireFaults(l.Namespaces))
	}
}

// onAllMachines plays a scenario on nodes whose machines fail in all ways.
func onAllMachines(t *testing.T, play func(t *testing.T, l Layout, faults []Fault)) {
	t.Helper()
	onlyLong(t)
	needs(t, []string{"strace", "losetup", "e2fsck"}, []string{"/sys/fs/cgroup/cpu/cpu.cfs_quota_us"})
	l, disks := withDisks(t, Layout{Size: 3, MayEnd: true}, smallDisk)
	play(t, l, machineFaults(disks))
}

func playWatches(t *testing.T, l Layout, faults []Fault) {
	v, tally := WatchScenario{Layout: l, Rounds: cycles(t, 1, 5) * len(faults), Faults: faults, Watchers: 24, Seed: Seed(t)}.Run(t)
	Judge(t, v)
	t.Logf("%+v", tally)
}

func playLeases(t *testing.T, l Layout, faults []Fault) {
	s := LeaseScenario{Layout: l, Rounds: cycles(t, 1, 5) * len(faults), Faults: faults, Seed: Seed(t)}
	if l.Namespaces != nil {
		s.Lingers = lingersOnWires
	}
	Judge(t, s.Run(t))
}

func playFences(t *testing.T, l Layout, faults []Fault) {
	Judge(t, FenceScenario{Layout: l, Rounds: cycles(t, 1, 5) * len(faults), Faults: faults, Seed: Seed(t)}.Run(t))
}

func TestWiresWatched(t *testing.T)    { onAllWires(t, playWatches) }
func TestWiresLeases(t *testing.T)     { onAllWires(t, playLeases) }
func TestWiresFences(t *testing.T)     { onAllWires(t, playFences) }
func TestMachinesWatched(t *testing.T) { onAllMachines(t, playWatches) }
func TestMachinesLeases(t *testing.T)  { onAllMachines(t, playLeases) }
func TestMachinesFences(t *testing.T)  { onAllMachines(t, playFences) }
