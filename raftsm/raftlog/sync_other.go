//go:build !linux

package raftlog

import "github.com/lni/vfs"

// syncData makes the content and the size of f durable.
func syncData(f vfs.File) error { return f.Sync() }

func confirm(vfs.File) error { return nil }

// allocate reserves nothing here.
func allocate(vfs.File, int64, int64) {}
