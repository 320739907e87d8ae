package raftsm

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"

	"github.com/cairnkv/cairn/kv"
	"github.com/cairnkv/cairn/raftsm/raftlog"
	"github.com/oklog/ulid/v2"
)

// sealed makes an entry.
func sealed(by ulid.ULID, seq uint64, commands ...*kv.Command) []byte {
	var list []*pending
	for _, c := range commands {
		list = append(list, &pending{encoded: kv.AppendCommand(nil, c)})
	}
	return appendEntry(nil, by, seq, list)
}

func incarnation(name string) (id ulid.ULID) {
	copy(id[:], name)
	return id
}

// TestGoldenEntry holds the bytes of an entry: they are in the logs of running
// clusters.
func TestGoldenEntry(t *testing.T) {
	const want = "" +
		"a9de165c" + "01000000" + // the seal: checksum and version
		"01" + "70310000000000000000000000000000" + // format, incarnation
		"ac02" + "02" + // number 300, two commands
		"0d" + "0101000000010100016b017600" +
		"05" + "0102000207"
	got := hex.EncodeToString(sealed(incarnation("p1"), 300, put("k", "v"), &kv.Command{Kind: kv.KindCompact, Time: 1, Compact: 7}))
	if got != want {
		t.Errorf("an entry is\n%s, want\n%s", got, want)
	}
}

func TestEntryRoundTrip(t *testing.T) {
	commands := []*kv.Command{put("a", "1"), {Kind: kv.KindCompact, Compact: 9}, put("b", "2")}
	r, err := openEntry(5, sealed(incarnation("p1"), 1<<40, commands...))
	must(t, err)
	if r.incarnation != incarnation("p1") || r.seq != 1<<40 || r.count != 3 {
		t.Fatalf("opened as %v %d, %d commands", r.incarnation, r.seq, r.count)
	}
	for i, want := range commands {
		got, err := r.next()
		must(t, err)
		if !bytes.Equal(kv.AppendCommand(nil, got), kv.AppendCommand(nil, want)) {
			t.Errorf("command %d came back as %+v", i, got)
		}
	}
	if len(r.rest) > 0 {
		t.Errorf("%d bytes are left", len(r.rest))
	}
}

// TestHeaderFits holds the constant to the largest header that there is.
func TestHeaderFits(t *testing.T) {
	if n := len(sealed(incarnation("p1"), 1<<64-1)); n > maxHeaderBytes {
		t.Errorf("a header takes %d bytes, %d are planned", n, maxHeaderBytes)
	}
}

// TestDamagedEntry alters an entry in every byte, and cuts it everywhere: it is
// never taken for another.
func TestDamagedEntry(t *testing.T) {
	entry := sealed(incarnation("p1"), 1, put("k", "v"))
	for i := range entry {
		bad := bytes.Clone(entry)
		bad[i] ^= 0x10
		if _, err := openEntry(7, bad); !errors.Is(err, raftlog.ErrEntryCorrupt) {
			t.Errorf("byte %d altered: %v", i, err)
		}
		if _, err := openEntry(7, entry[:i]); !errors.Is(err, raftlog.ErrEntryCorrupt) {
			t.Errorf("cut at %d: %v", i, err)
		}
	}
}

// TestNewerEntry meets an entry of a version to come: it is refused, not
// skipped.
func TestNewerEntry(t *testing.T) {
	entry := sealed(incarnation("p1"), 1)
	entry[raftlog.SealSize] = entryFormat + 1
	raftlog.SealEntry(entry)
	if _, err := openEntry(7, entry); err == nil {
		t.Error("an unknown format was opened")
	}
}

// FuzzOpenEntry opens what was sealed around anything: no panic, no more
// commands than bytes, and what is read whole is what appendEntry writes.
func FuzzOpenEntry(f *testing.F) {
	for _, e := range [][]byte{
		sealed(incarnation("p1"), 1),
		sealed(incarnation("p1"), 1, put("k", "v")),
		sealed(incarnation("p2"), 1<<63, put("", ""), &kv.Command{Kind: kv.KindCompact, Compact: 1}),
	} {
		f.Add(e[raftlog.SealSize:])
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		entry := append(make([]byte, raftlog.SealSize), payload...)
		raftlog.SealEntry(entry)
		r, err := openEntry(1, entry)
		if err != nil {
			return
		}
		if r.count > len(payload) {
			t.Fatalf("%d commands in %d bytes", r.count, len(payload))
		}
		var commands []*kv.Command
		for range r.count {
			c, err := r.next()
			if err != nil {
				return
			}
			commands = append(commands, c)
		}
		again := sealed(r.incarnation, r.seq, commands...)
		if len(again) != len(entry)-len(r.rest) {
			t.Skip("a number in more bytes than it needs")
		}
		if !bytes.Equal(again[raftlog.SealSize:], entry[raftlog.SealSize:len(again)]) {
			t.Fatalf("%x is written again as %x", entry, again)
		}
	})
}
