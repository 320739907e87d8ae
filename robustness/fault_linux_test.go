package robustness

import (
	"errors"
	"math/rand/v2"
	"testing"

	"golang.org/x/sync/errgroup"
)

// machines are nodes with a network namespace each, and with a disk each where the
// machine has them to give; else there are no disks, and it is said why. There is no layout
// where another process plays the scenario: the test is over then.
func machines(t *testing.T, size int) (l *Layout, disks []*Disk) {
	t.Helper()
	s := InNamespaces(t, size)
	if s == nil {
		return nil, nil
	}
	l = &Layout{Size: size, Namespaces: s}
	if err := canMount(); err != nil {
		t.Logf("SKIPPED: the disks of the nodes: %v", err)
		return l, nil
	}
	made, disks := withDisks(t, *l, diskBytes)
	return &made, disks
}

func onTheWire(t *testing.T, few int, b wireBreak) {
	t.Helper()
	inNamespaces(t, 3, few, func(l *Layout, _ []*Disk) Fault { return OnTheWire(l.Namespaces, b) })
}

// inNamespaces plays a scenario on machines.
func inNamespaces(t *testing.T, size, few int, fault func(l *Layout, disks []*Disk) Fault) {
	t.Helper()
	l, disks := machines(t, size)
	if l == nil {
		return
	}
	f := fault(l, disks) // which may change the layout
	Judge(t, Scenario{Layout: *l, Rounds: rounds(few, 20), Fault: f, Seed: Seed(t), Alive: true}.Run(t))
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
	inNamespaces(t, 3, 1, func(l *Layout, _ []*Disk) Fault {
		quietly, promised := FastFail(l.Namespaces), OnTheWire(l.Namespaces, fastFail)
		return func(c *Cluster, random *rand.Rand, round int) error {
			return errors.Join(quietly(c, random, round), promised(c, random, round))
		}
	})
}

func TestBridge(t *testing.T) {
	onlyLong(t)
	onTheWire(t, 1, bridge)
}

func TestRing(t *testing.T) {
	onlyLong(t)
	inNamespaces(t, 5, 1, func(l *Layout, _ []*Disk) Fault { return OnTheWire(l.Namespaces, ring) })
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
func local(t *testing.T, l Layout, few int, fault Fault) {
	t.Helper()
	l.Size = 3
	Judge(t, Scenario{Layout: l, Rounds: rounds(few, 20), Fault: fault, Seed: Seed(t), Alive: true}.Run(t))
}

func TestSyncFails(t *testing.T) {
	beside(t)
	needs(t, []string{"strace"}, nil)
	local(t, Layout{MayEnd: true}, 1, SyncFails)
}

func TestWriteFails(t *testing.T) {
	onlyLong(t)
	needs(t, []string{"strace"}, nil)
	local(t, Layout{MayEnd: true}, 1, WriteFails)
}

func TestSnapshotFails(t *testing.T) {
	onlyLong(t)
	needs(t, []string{"strace"}, nil)
	local(t, Layout{Relayed: true, Binary: ShortLogBinary(t), MayEnd: true}, 1, SnapshotFails)
}

func TestSlowSync(t *testing.T) {
	onlyLong(t)
	needs(t, []string{"strace"}, nil)
	local(t, Layout{}, 1, calm(SlowSync))
}

func TestReadOnly(t *testing.T) {
	beside(t)
	needs(t, []string{"losetup", "e2fsck"}, nil)
	l, disks := withDisks(t, Layout{Size: 3, MayEnd: true}, diskBytes)
	local(t, l, 1, ReadOnly(disks))
}

func TestStarve(t *testing.T) {
	beside(t)
	needs(t, nil, []string{"/sys/fs/cgroup/cpu/cpu.cfs_quota_us"})
	local(t, Layout{}, 1, calm(Starve))
}

func TestLittleMemory(t *testing.T) {
	onlyLong(t)
	needs(t, nil, []string{"/sys/fs/cgroup/memory/memory.limit_in_bytes"})
	local(t, Layout{}, 1, LittleMemory)
}

func TestFewFiles(t *testing.T) {
	onlyLong(t)
	needs(t, nil, nil)
	// Whose store and log make files all the time.
	binary, err := BuildEdited(t.TempDir(), smallMemtables, shortLog)
	must(t, err)
	local(t, Layout{Binary: binary, MayEnd: true}, 1, FewFiles)
}

// TestTogether does two or three things at once: the wire breaks, nodes are killed, stopped
// or lose power, and one is slow.
func TestTogether(t *testing.T) {
	beside(t)
	needs(t, []string{"strace", "tc"}, []string{"/sys/fs/cgroup/cpu/cpu.cfs_quota_us"})
	inNamespaces(t, 3, 2, func(l *Layout, disks []*Disk) Fault {
		wires := []wireBreak{unplug, oneWay, fastFail, bridge, clientsCut, narrow}
		ends := []Fault{KillNine, Pause, quiet}
		if disks != nil {
			ends, l.MayEnd = append(ends, powerLoss(disks, victims)), true
		}
		slows := []Fault{SlowSyncIdle, StarveIdle, quiet}
		return func(c *Cluster, random *rand.Rand, round int) error {
			var all errgroup.Group
			for i, fault := range []Fault{
				Breaking(l.Namespaces, wires[random.IntN(len(wires))]), ends[random.IntN(len(ends))], slows[random.IntN(len(slows))],
			} {
				own := rand.New(rand.NewPCG(random.Uint64(), uint64(i)))
				all.Go(func() error { return fault(c, own, round) })
			}
			return all.Wait()
		}
	})
}
