package robustness

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"golang.org/x/sync/errgroup"
)

// inNamespaces plays a scenario of three nodes with a network namespace each, and
// with a disk each where the machine has them to give.
func inNamespaces(t *testing.T, few int, fault func(*Namespaces) Fault) {
	s := InNamespaces(t)
	if s == nil {
		return
	}
	Judge(t, Scenario{Layout: Layout{Size: 3, Namespaces: s}, Rounds: rounds(few, 20), Fault: fault(s), Seed: Seed(t), Alive: true}.Run(t))
}

func onTheWire(t *testing.T, few int, b wireBreak) {
	inNamespaces(t, few, func(s *Namespaces) Fault { return OnTheWire(s, b) })
}

// onlyLong leaves a test to the long suite: a run of the others has what is in it,
// or most of it, and takes long enough.
func onlyLong(t *testing.T) {
	t.Helper()
	if !Long() {
		t.Skip("SKIPPED: part of the long suite, CAIRN_LONG=1")
	}
}

func TestUnplugged(t *testing.T) {
	onlyLong(t)
	onTheWire(t, 1, unplug)
}

func TestOneWay(t *testing.T) {
	onlyLong(t)
	onTheWire(t, 1, oneWay)
}

func TestFastFail(t *testing.T) {
	onlyLong(t)
	inNamespaces(t, 1, FastFail)
}

func TestBridge(t *testing.T) {
	onlyLong(t)
	onTheWire(t, 1, bridge)
}

func TestClientsCut(t *testing.T) {
	onlyLong(t)
	onTheWire(t, 1, clientsCut)
}

func TestNarrow(t *testing.T) {
	onlyLong(t)
	needs(t, []string{"tc"}, nil)
	onTheWire(t, 1, narrow)
}

// throughCable needs what a cable is made of.
func throughCable(t *testing.T, b wireBreak) {
	onlyLong(t)
	needs(t, nil, []string{"/dev/net/tun"})
	onTheWire(t, 1, b)
}

func TestLoss(t *testing.T)      { throughCable(t, lossy) }
func TestReorder(t *testing.T)   { throughCable(t, reorders) }
func TestDuplicate(t *testing.T) { throughCable(t, doubles) }
func TestDelay(t *testing.T)     { throughCable(t, delays) }
func TestBadWire(t *testing.T)   { throughCable(t, badWire) }

// local plays a scenario of three nodes on the loopback.
func local(t *testing.T, s Scenario, few int, fault Fault) {
	s.Layout.Size, s.Rounds, s.Fault, s.Seed, s.Alive = 3, rounds(few, 20), fault, Seed(t), true
	Judge(t, s.Run(t))
}

func TestSyncFails(t *testing.T) {
	beside(t)
	needs(t, []string{"strace"}, nil)
	local(t, Scenario{MayCrash: true}, 1, SyncFails)
}

func TestWriteFails(t *testing.T) {
	onlyLong(t)
	needs(t, []string{"strace"}, nil)
	local(t, Scenario{MayCrash: true}, 1, WriteFails)
}

func TestSnapshotFails(t *testing.T) {
	onlyLong(t)
	needs(t, []string{"strace"}, nil)
	local(t, Scenario{Layout: Layout{Relayed: true, Binary: ShortLogBinary(t)}, MayCrash: true}, 1, SnapshotFails)
}

func TestSlowSync(t *testing.T) {
	onlyLong(t)
	needs(t, []string{"strace"}, nil)
	local(t, Scenario{}, 1, SlowSync)
}

func TestReadOnly(t *testing.T) {
	beside(t)
	needs(t, []string{"losetup", "e2fsck"}, nil)
	s, _, disks := withDisks(t, Scenario{Layout: Layout{Size: 3}, MayCrash: true}, diskBytes)
	local(t, s, 1, ReadOnly(disks))
}

func TestStarve(t *testing.T) {
	beside(t)
	needs(t, nil, []string{"/sys/fs/cgroup/cpu/cpu.cfs_quota_us"})
	h := NewHTTP()
	defer h.Close()
	local(t, Scenario{}, 1, func(c *Cluster, random *rand.Rand, round int) error {
		_, before, err := leaderAndTerm(c, h)
		if err != nil {
			return err
		}
		if err := Starve(c, random, round); err != nil {
			return err
		}
		_, after, err := leaderAndTerm(c, h)
		if err == nil && after > before+1 {
			err = fmt.Errorf("the term went from %d to %d: a leader that is starved may lose its place, and that is all", before, after)
		}
		return err
	})
}

func TestLittleMemory(t *testing.T) {
	onlyLong(t)
	needs(t, nil, []string{"/sys/fs/cgroup/memory/memory.limit_in_bytes"})
	local(t, Scenario{}, 1, LittleMemory)
}

func TestFewFiles(t *testing.T) {
	onlyLong(t)
	needs(t, nil, nil)
	local(t, Scenario{MayCrash: true}, 1, FewFiles)
}

// TestTogether breaks the wire, and does something else meanwhile.
func TestTogether(t *testing.T) {
	beside(t)
	needs(t, []string{"strace", "tc"}, []string{"/sys/fs/cgroup/cpu/cpu.cfs_quota_us"})
	inNamespaces(t, 2, func(s *Namespaces) Fault {
		wires := []wireBreak{unplug, oneWay, fastFail, bridge, clientsCut, narrow}
		others := []Fault{KillNine, Pause, SlowSyncIdle, StarveIdle}
		return func(c *Cluster, random *rand.Rand, round int) error {
			wire, other := wires[random.IntN(len(wires))], others[random.IntN(len(others))]
			one, two := rand.New(rand.NewPCG(random.Uint64(), 1)), rand.New(rand.NewPCG(random.Uint64(), 2))
			var both errgroup.Group
			both.Go(func() error { return OnTheWire(s, wire)(c, one, round) })
			both.Go(func() error { return other(c, two, round) })
			return both.Wait()
		}
	})
}
