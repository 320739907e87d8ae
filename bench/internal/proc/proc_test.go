package proc

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestParseCPU(t *testing.T) {
	stat := []byte("42 (a) b) S 1 42 42 0 -1 4194560 1 2 3 4 150 25 7 8 20 0 9 0 100 1 1\n")
	got, err := parseCPU(stat)
	if err != nil || got != 1750*time.Millisecond {
		t.Fatalf("got %v, %v; want 1.75s", got, err)
	}
	for _, bad := range []string{"", "42", "42 (a) S 1 2 3", "42 (a) S 1 2 3 4 5 6 7 8 9 10 x y z"} {
		if got, err := parseCPU([]byte(bad)); err == nil {
			t.Errorf("%q gives %v", bad, got)
		}
	}
}

func TestParseMemory(t *testing.T) {
	status := []byte("Name:\ta\nVmHWM:\t    2048 kB\nVmRSS:\t 1024 kB\nRssAnon:\t 512 kB\nRssFile:\t 512 kB\n")
	got, err := parseMemory(status)
	if want := (Memory{Resident: 1 << 20, Anonymous: 512 << 10, Peak: 2 << 20}); err != nil || got != want {
		t.Fatalf("got %+v, %v; want %+v", got, err, want)
	}
	if got, err := parseMemory([]byte("Name:\ta\n")); err == nil {
		t.Errorf("a status without memory gives %+v", got)
	}
}

// The numbers of this very process are there and plausible.
func TestOwnProcess(t *testing.T) {
	pid := os.Getpid()
	before, err := OwnCPU()
	if err != nil {
		t.Fatal(err)
	}
	// Work until the clock of the kernel has moved by several ticks.
	for deadline := time.Now().Add(10 * time.Second); ; {
		now, err := OwnCPU()
		if err != nil {
			t.Fatal(err)
		}
		if now-before > 5*Tick {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("busy for 10 s and used no processor time")
		}
	}
	if cpu, err := CPU(pid); err != nil || cpu < 3*Tick {
		t.Errorf("processor time %v, %v", cpu, err)
	}
	m, err := ReadMemory(pid)
	if err != nil || m.Resident < 1<<20 || m.Anonymous > m.Resident || m.Peak < m.Resident/2 {
		t.Errorf("memory %+v, %v", m, err)
	}
	if _, err := CPU(-1); err == nil {
		t.Error("a process that doesn't exist has used processor time")
	}
}

func TestDiskUsage(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "a", "b"), 0o700); err != nil {
		t.Fatal(err)
	}
	file, err := os.Create(filepath.Join(dir, "a", "b", "c"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.Write(make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	if err := file.Truncate(1 << 30); err != nil { // a hole, which takes no space
		t.Fatal(err)
	}
	if err := file.Sync(); err != nil { // blocks are allocated when written back
		t.Fatal(err)
	}
	if got, err := DiskUsage(dir); err != nil || got < 1<<20 || got > 2<<20 {
		t.Errorf("got %d bytes, %v; want about 1 MiB", got, err)
	}
}
