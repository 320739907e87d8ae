// Package durable makes directories, and the names in them, survive a loss of power. What
// is in a file is for who writes it to sync.
package durable

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// MakeDir makes a directory for its owner alone, and those above it that are missing. When
// it returns they survive a loss of power, with what will be synced in them.
func MakeDir(path string) error {
	parent := filepath.Dir(path)
	_, missing := os.Stat(path)
	if errors.Is(missing, os.ErrNotExist) && parent != path {
		if err := MakeDir(parent); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(path, 0o700); err != nil { // also where another process was first
		return err
	}
	// Also of one that is there: who made it may have been killed right after that.
	switch err := SyncDir(parent); {
	case errors.Is(err, os.ErrPermission):
		return nil // it can't be this process that made it there
	case missing == nil && errors.Is(err, unix.EROFS):
		// One that was there may be a file system of its own, or the only part of one that
		// this process may write. Where all of it can't be written any more, neither can it.
		return ConfirmDir(path)
	default:
		return err
	}
}

// SyncDir makes the names in a directory survive a loss of power, where its file system
// can do that: one that can't, as some shares, is no reason to do without what was
// written.
func SyncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	err = dir.Sync()
	switch {
	case err == nil:
		err = Confirm(dir.Fd())
	case errors.Is(err, unix.EINVAL):
		err = nil
	}
	return errors.Join(err, dir.Close())
}

// ConfirmDir is [Confirm] for what was synced somewhere below a directory, on the same file
// system.
func ConfirmDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(Confirm(dir.Fd()), dir.Close())
}
