package raftlog_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/cairnkv/cairn/raftsm/raftlog"
)

// sealed gives an entry with a payload.
func sealed(payload string) []byte {
	entry := append(make([]byte, raftlog.SealSize), payload...)
	raftlog.SealEntry(entry)
	return entry
}

func TestSealAndOpen(t *testing.T) {
	for _, payload := range []string{"", "a", string(bytes.Repeat([]byte("x"), 1<<20))} {
		got, err := raftlog.OpenEntry(1, sealed(payload))
		if err != nil || string(got) != payload {
			t.Errorf("payload of %d bytes: got %d bytes, error %v", len(payload), len(got), err)
		}
	}
}

// TestOpenRefusesDamage flips each bit of an entry, and cuts and extends it.
func TestOpenRefusesDamage(t *testing.T) {
	entry := sealed("put a = 1")
	refuse := func(damaged []byte) {
		t.Helper()
		_, err := raftlog.OpenEntry(42, damaged)
		var entryError *raftlog.EntryError
		if !errors.Is(err, raftlog.ErrEntryCorrupt) || !errors.As(err, &entryError) || entryError.Index != 42 {
			t.Errorf("%x: %v", damaged, err)
		}
	}
	for i := range entry {
		for bit := range 8 {
			damaged := bytes.Clone(entry)
			damaged[i] ^= 1 << bit
			refuse(damaged)
		}
		refuse(entry[:i])
	}
	refuse(append(bytes.Clone(entry), 0))
}

// TestSealFormat holds the format to its description: other versions of the
// program read it.
func TestSealFormat(t *testing.T) {
	want := []byte{0x68, 0xda, 0x12, 0x85, 1, 0, 0, 0, 'a', 'b', 'c'}
	if got := sealed("abc"); !bytes.Equal(got, want) {
		t.Errorf("sealed: %#v", got)
	}
}

func TestSealAllocatesNothing(t *testing.T) {
	entry := sealed("put a = 1")
	if n := testing.AllocsPerRun(100, func() {
		raftlog.SealEntry(entry)
		if _, err := raftlog.OpenEntry(1, entry); err != nil {
			t.Error(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
