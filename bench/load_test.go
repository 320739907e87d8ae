package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// fakeSession loads nothing but remembers how much.
type fakeSession struct {
	session
	loaded *atomic.Int64
	fail   bool
}

func (f fakeSession) batch() int { return 7 }

func (f fakeSession) load(keys []int) error {
	if f.fail {
		return errors.New("full")
	}
	f.loaded.Add(int64(len(keys)))
	return nil
}

func TestFill(t *testing.T) {
	var loaded atomic.Int64
	good, bad := fakeSession{loaded: &loaded}, fakeSession{fail: true}
	if err := fill(t.Context(), []session{good, good, good}, 100); err != nil || loaded.Load() != 100 {
		t.Errorf("loaded %d of 100, %v", loaded.Load(), err)
	}
	if err := fill(t.Context(), []session{bad}, 100); err == nil {
		t.Error("a failed load passes")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := fill(ctx, []session{good}, 100); !errors.Is(err, context.Canceled) {
		t.Errorf("an interrupted load: %v", err)
	}
}

// TestLoadInParts: only a part of many is loaded again, and not for ever.
func TestLoadInParts(t *testing.T) {
	fails := 0
	var parts []int
	part := func(from, to int) error {
		parts = append(parts, from, to)
		if fails--; fails >= 0 {
			return errors.New("behind")
		}
		return nil
	}
	for _, tt := range []struct {
		n, fails int
		failed   bool
		parts    []int
	}{
		{5, 0, false, []int{0, 5}},
		{5, 1, true, []int{0, 5}},
		{1_000_001, 2, false, []int{0, 1_000_000, 0, 1_000_000, 0, 1_000_000, 1_000_000, 1_000_001}},
		{2_000_000, 5, true, []int{0, 1_000_000, 0, 1_000_000, 0, 1_000_000, 0, 1_000_000, 0, 1_000_000}},
	} {
		fails, parts = tt.fails, nil
		if err := loadInParts(t.Context(), tt.n, part); (err != nil) != tt.failed || !slices.Equal(parts, tt.parts) {
			t.Errorf("%d keys with %d errors: %v, %v", tt.n, tt.fails, parts, err)
		}
	}
}

// TestShare: parts hand out each key once.
func TestShare(t *testing.T) {
	seen := make([]int, 100)
	for _, part := range [][2]int{{0, 30}, {30, 31}, {31, 100}} {
		err := share(t.Context(), []session{fakeSession{}}, part[0], part[1], len(seen), 7, func(_ session, keys []int) error {
			for _, key := range keys {
				seen[key]++
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if slices.Min(seen) != 1 || slices.Max(seen) != 1 {
		t.Errorf("keys were handed out %v times", seen)
	}
}

func TestDriveCountsErrors(t *testing.T) {
	do := func(session, *rand.Rand) (int, error) { return 0, errors.New("no") }
	got := drive(t.Context(), make([]session, 2), do, time.Minute)
	if got.errors != 2*faultsMax || got.firstError == nil || got.operations != 0 || got.latency.Count() != 0 {
		t.Errorf("%d errors, %d operations, %v", got.errors, got.operations, got.firstError)
	}
}

func TestDriveStops(t *testing.T) {
	do := func(session, *rand.Rand) (int, error) { return 3, nil }
	got := drive(t.Context(), make([]session, 2), do, 10*time.Millisecond)
	if got.errors != 0 || got.operations == 0 || got.latency.Count()*3 != uint64(got.operations) || got.elapsed < 10*time.Millisecond {
		t.Errorf("%d operations, %d latencies in %v", got.operations, got.latency.Count(), got.elapsed)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got := drive(ctx, make([]session, 1), do, time.Hour); !errors.Is(got.firstError, context.Canceled) {
		t.Errorf("an interrupted load has no error: %v", got.firstError)
	}
}

func TestOptions(t *testing.T) {
	opt, err := parseOptions([]string{"-short", "-duration", "3s", "-profiles", "put-1,list", "bulk"})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"put-1", "list", "bulk"}; !slices.Equal(opt.profiles, want) {
		t.Errorf("profiles %q, want %q", opt.profiles, want)
	}
	if opt.set.Duration != 3*time.Second || opt.set.Rounds != 1 {
		t.Errorf("-short overrules what was asked for, or nothing: %+v", opt.set)
	}
	opt, err = parseOptions([]string{"-before", "HEAD", "put-1", "watch"})
	if err != nil {
		t.Fatal(err)
	}
	if want := append([]string{"put-1"}, watchNames()...); !slices.Equal(opt.profiles, want) {
		t.Errorf("profiles %q, want %q", opt.profiles, want)
	}
	if !slices.Equal(opt.targets, []string{nameCairn}) || opt.set.Rounds != verdictRounds {
		t.Errorf("commits are compared over %d rounds, beside %q", opt.set.Rounds, opt.targets)
	}
	for _, bad := range []string{"nonsense", "-targets=redis", "-targets=stack list", "-targets=floor watch", "-rounds=0", "-duration=1ns", "-keys=1", "-footprint-keys=0",
		"-cairn-lines=0", "-etcd-txns=1000000", "calibrate bulk", "-latency-percents=", "-latency-percents=10,x", "-latency-percents=0",
		"-latency-clients=0", "-latency-patience=0s", "-scale-keys=10,0", "-scale-connections=-1", "-disk-keys=0", "-disk-overwrites=0", "-disk-idle=0s"} {
		if _, err := parseOptions(strings.Fields(bad)); err == nil {
			t.Errorf("%s is accepted", bad)
		}
	}
}

// buildSelf compiles this program, which its servers are commands of.
func buildSelf(t *testing.T) string {
	t.Helper()
	self := filepath.Join(t.TempDir(), "bench")
	if out, err := exec.Command("go", "build", "-o", self, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return self
}

// The whole program: it measures, writes its report, and leaves nothing behind,
// not when it is done and not when it is interrupted.
func TestProgram(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers")
	}
	self, dir := buildSelf(t), t.TempDir()
	report := filepath.Join(t.TempDir(), "report.json")
	out, err := exec.Command(self, "-short", "-dir", dir, "-duration", "50ms", "-targets", "etcd-grpc", "-footprint-keys", "5000", "-json", report, "put-64", "footprint", "floor").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if _, err := os.Stat(report); err != nil {
		t.Error(err)
	}
	mustBeEmpty(t, dir)

	// Interrupt it once its server has data.
	cmd := exec.Command(self, "-dir", dir, "-duration", "1h", "-targets", "etcd-json", "put-64")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for range 6000 { // a minute
		<-poll.C
		if found, _ := filepath.Glob(filepath.Join(dir, "*", "etcd-json-*", "data", "member")); len(found) > 0 {
			break
		}
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("an interrupted run exits with 0")
	}
	mustBeEmpty(t, dir)
}

func mustBeEmpty(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) > 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

// TestFreeAddr: no address is given twice, and all are below the ports of outgoing
// connections.
func TestFreeAddr(t *testing.T) {
	seen := map[string]bool{}
	for range 2_000 { // of 22,000, some come up twice
		addr, err := freeAddr()
		if err != nil {
			t.Fatal(err)
		}
		_, port, err := net.SplitHostPort(addr)
		if n, _ := strconv.Atoi(port); err != nil || n < lowestPort || n >= highestPort {
			t.Fatalf("got %s, %v", addr, err)
		}
		if seen[addr] {
			t.Fatalf("%s was given twice", addr)
		}
		seen[addr] = true
	}
}
