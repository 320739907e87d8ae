// Package proc reads from the kernel what a process has used: processor time,
// memory, disk. It needs Linux, where these numbers are files.
package proc

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// Tick is the unit of processor times in /proc/PID/stat. The kernel converts its own
// unit to this one, which is the same on every architecture that Go runs on.
const Tick = 10 * time.Millisecond

// CPU is the processor time, user and system, that a process with all its
// threads, those that ended included, has used so far.
func CPU(pid int) (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	return parseCPU(stat)
}

// parseCPU takes the fields utime and stime. They are counted from the last
// parenthesis, since the name before it may hold anything.
func parseCPU(stat []byte) (time.Duration, error) {
	const utime, stime = 11, 12 // after the parenthesis, from 0
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) <= stime {
		return 0, fmt.Errorf("process statistics %q have too few fields", stat)
	}
	user, err := strconv.ParseInt(string(fields[utime]), 10, 64)
	if err != nil {
		return 0, err
	}
	system, err := strconv.ParseInt(string(fields[stime]), 10, 64)
	if err != nil {
		return 0, err
	}
	return time.Duration(user+system) * Tick, nil
}

// OwnCPU is the processor time that this process has used so far, without its
// children.
func OwnCPU() (time.Duration, error) {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0, err
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano()), nil
}

// Memory says how much of a process is resident, in bytes.
type Memory struct {
	Resident  int64 // all of it now
	Anonymous int64 // without pages that mirror files and can be dropped
	Peak      int64 // the most that was ever resident, since ResetPeak if that was called
}

// ReadMemory asks for the memory of a process.
func ReadMemory(pid int) (Memory, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return Memory{}, err
	}
	return parseMemory(status)
}

func parseMemory(status []byte) (Memory, error) {
	var m Memory
	found := 0
	for line := range bytes.Lines(status) {
		name, value, _ := bytes.Cut(line, []byte(":"))
		var to *int64
		switch string(name) {
		case "VmRSS":
			to = &m.Resident
		case "RssAnon":
			to = &m.Anonymous
		case "VmHWM":
			to = &m.Peak
		default:
			continue
		}
		kib, err := strconv.ParseInt(string(bytes.TrimSpace(bytes.TrimSuffix(bytes.TrimSpace(value), []byte("kB")))), 10, 64)
		if err != nil {
			return Memory{}, err
		}
		*to = kib << 10
		found++
	}
	if found != 3 {
		return Memory{}, fmt.Errorf("process status lacks memory: %q", status)
	}
	return m, nil
}

// ResetPeak starts the peak anew from what is resident now.
func ResetPeak(pid int) error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0)
}

// DiskUsage is what the files under a directory take on the disk, in bytes:
// allocated blocks, so that preallocated files count and holes don't. Files that
// vanish meanwhile count as nothing.
func DiskUsage(dir string) (int64, error) {
	var total int64
	err := filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if os.IsNotExist(err) {
			return nil
		}
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if os.IsNotExist(err) {
			return nil
		}
		if err != nil {
			return err
		}
		if stat, ok := info.Sys().(*syscall.Stat_t); ok {
			total += stat.Blocks * 512
		}
		return nil
	})
	return total, err
}
