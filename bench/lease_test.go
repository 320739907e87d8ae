package main

import (
	"errors"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestLeaseIDs(t *testing.T) {
	var ids []string
	for _, lease := range []int{0, 9, 10, 99_999, 100_000, keysMax} {
		id := string(appendLeaseID(nil, lease))
		if len(id) != leaseIDSize || strings.Trim(id, "0123456789ABCDEFGHJKMNPQRSTVWXYZ") != "" || id[0] > '7' {
			t.Errorf("lease %d is %q, which is no ULID", lease, id)
		}
		ids = append(ids, id)
	}
	if !slices.IsSorted(ids) || len(slices.Compact(ids)) != len(ids) {
		t.Errorf("not in the order of the numbers: %v", ids)
	}
	if etcdLeaseID(serverChooses) != 0 || etcdLeaseID(0) == 0 {
		t.Error("0 is the id of which etcd makes another")
	}
}

func TestEndings(t *testing.T) {
	e := newEndings(3)
	waits := func() bool {
		select {
		case <-e.all:
			return false
		default:
			return true
		}
	}
	e.deleted(0, time.Now())
	e.deleted(2, time.Now())
	if !waits() {
		t.Error("two of three were enough")
	}
	e.deleted(2, time.Now()) // one too many: it counts, as another early or late end
	if waits() {
		t.Error("all have ended, and it waits")
	}
	e.fail(errors.New("after the end"))
	if at, err := e.times(); len(at) != 4 || err != nil {
		t.Errorf("%d ends, %v", len(at), err)
	}
	cut := newEndings(3)
	cut.deleted(1, time.Now())
	cut.fail(errStreamEnded)
	<-cut.all
	cut.deleted(2, time.Now())
	if _, err := cut.times(); !errors.Is(err, errStreamEnded) {
		t.Errorf("the watch was cut: %v", err)
	}
}

// TestLeaseSessions holds every face to its server: what succeeds must have
// succeeded, and what can't must be an error.
func TestLeaseSessions(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: it starts servers")
	}
	self, data := buildSelf(t), newDataset()
	cairn, err := buildCairn(t.Context(), "..", filepath.Join(t.TempDir(), "cairn"))
	if err != nil {
		t.Fatal(err)
	}
	tune := tuning{CairnStreams: 1, CairnLines: 1, CairnHolds: 7, EtcdTxns: 1, EtcdWriteConnections: 1, EtcdReadConnections: 1}
	for _, target := range []target{cairnTarget(cairn, nil, data, tune), gatewayTarget(self, data, tune), grpcTarget(self, data, tune)} {
		t.Run(target.name, func(t *testing.T) {
			srv, err := target.start(t.Context(), t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := srv.discard(); err != nil {
					t.Error(err)
				}
			}()
			c, err := target.dial(t.Context(), srv.addr, 3)
			if err != nil {
				t.Fatal(err)
			}
			defer c.close()
			exerciseLeases(t, c.sessions[0].(leaser), c.sessions[1].(leaser))
			if owner, ok := c.sessions[2].(leaseOwner); ok {
				exerciseOwner(t, owner)
			}
		})
	}
}

// exerciseLeases uses a second session for the renewal that fails, since a stream
// is of no use after that.
func exerciseLeases(t *testing.T, s, other leaser) {
	t.Helper()
	for _, err := range []error{s.grant(serverChooses, loadTTL), s.grant(0, loadTTL), s.grant(1, loadTTL), s.renew(1), s.renew(0)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if s.grant(1, loadTTL) == nil {
		t.Error("a lease was granted twice")
	}
	if other.renew(2) == nil {
		t.Error("a lease that doesn't exist was renewed")
	}
}

func exerciseOwner(t *testing.T, s leaseOwner) {
	t.Helper()
	if err := s.renewMany([]int{1, 0, 1}); err != nil {
		t.Error(err)
	}
	if err := s.putLeased(5, 1); err != nil {
		t.Error(err)
	}
	if s.putLeased(6, 2) == nil {
		t.Error("a key was attached to a lease that doesn't exist")
	}
	if s.renewMany([]int{1, 2, 0}) == nil {
		t.Error("a lease that doesn't exist was renewed among others")
	}
}

// TestLeaseProfiles runs all of them on a small scale.
func TestLeaseProfiles(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: it starts servers")
	}
	out, err := exec.Command(buildSelf(t), "-short", "-dir", t.TempDir(), "-duration", "200ms", "-json", filepath.Join(t.TempDir(), "out.json"), profileLease).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, name := range leaseNames() {
		if !strings.Contains(string(out), "\n"+name+": ") {
			t.Errorf("%s is not shown:\n%s", name, out)
		}
	}
}
