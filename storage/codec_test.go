package storage

import (
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/cairnkv/cairn/kv"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"
)

// recordCodec is a kind of record: how it is decoded, and encoded again.
type recordCodec struct {
	name    string
	samples []recordSample
	// again decodes a record and encodes what it found; it fails on what it
	// can't decode.
	again func(b []byte) ([]byte, error)
}

type recordSample struct {
	name    string
	encoded []byte
}

// recordCodecs are the records of all spaces, with samples of each.
func recordCodecs() []recordCodec {
	lease1 := leaseName("lease")
	full := meta{create: 2, mod: 300, version: 5, modifiedAt: 1_700_000_000_000, lease: lease1, contentTypeLen: 10, valueLen: 5}
	bare := meta{create: 2, mod: 2, version: 1}
	changeHead := func(kind byte, prev uint64, key string) []byte {
		return append(binary.AppendUvarint(binary.AppendUvarint([]byte{kind}, prev), uint64(len(key))), key...)
	}
	st := state{
		applied: 1, partialIndex: 2, partialDone: 3, revision: 4, compact: 5, clock: 600_000, clockIndex: 7, lastTime: 1_700_000_000_000,
		keys: 8, leases: 9, idempotent: 10, noSpace: 11, corrupt: 12, clusterVersion: 13, restoring: 14,
	}
	empty := emptyState()
	w := &window{}
	for _, seq := range []uint64{1, 2, 64, 1000, 1030} {
		w.admit(seq, 90+seq)
	}
	return []recordCodec{
		{"newest version", []recordSample{
			{"bare", appendMeta(nil, &bare)}, {"with lease and type", appendMeta(nil, &full)},
		}, func(b []byte) ([]byte, error) {
			var v version
			err := decodeNewest([]byte("m"), b, &v)
			return appendMeta(nil, &v.meta), err
		}},
		{"version", []recordSample{
			{"put", append(appendMeta([]byte{recordPut}, &full), "text/plainvalue"...)},
			{"put of an empty value", appendMeta([]byte{recordPut}, &bare)},
			{"tombstone", appendTombstone([]byte{recordTombstone}, tombstone{kv.ReasonExpired, 1_700_000_000_000})},
		}, func(b []byte) ([]byte, error) {
			var v version
			t, err := decodeVersion([]byte("v"), b, &v)
			if !v.exists {
				return appendTombstone([]byte{recordTombstone}, t), err
			}
			return append(appendMeta([]byte{recordPut}, &v.meta), v.payload...), err
		}},
		{"change", []recordSample{
			{"put", append(appendMeta(changeHead(recordPut, 7, "key"), &full), "text/plainvalue"...)},
			{"put of a large value", appendMeta(changeHead(recordElsewhere, 0, "k\x00"), &full)},
			{"delete", appendTombstone(changeHead(recordTombstone, 300, "key"), tombstone{kv.ReasonDeleted, 0})},
		}, func(b []byte) ([]byte, error) {
			var c change
			err := decodeChange([]byte("r"), b, &c)
			return encodeChange(&c), err
		}},
		{"state", []recordSample{
			{"empty", appendState(nil, &empty)}, {"full", appendState(nil, &st)},
		}, func(b []byte) ([]byte, error) {
			s, err := decodeState(b)
			return appendState(nil, &s), err
		}},
		{"entry window", []recordSample{{"five entries", appendWindow(nil, w)}}, func(b []byte) ([]byte, error) {
			w, err := decodeWindow([]byte("q"), b)
			if err != nil {
				return nil, err
			}
			return appendWindow(nil, w), nil
		}},
		{"lease", []recordSample{
			{"granted", appendLease(nil, &lease{number: 77, ttl: 10_000, deadline: 11_000, queued: 11_000})},
			{"of a put, renewed", appendLease(nil, &lease{number: math.MaxInt64, ttl: 1, deadline: 1 << 50, queued: 1 << 50, generation: 3, keys: 1, bytes: 9, own: true})},
			{"renewed, and queued by its first deadline", appendLease(nil, &lease{number: 77, ttl: 10_000, deadline: 13_500, queued: 11_000, generation: 1})},
			{"both", appendLease(nil, &lease{number: 77, ttl: 10_000, deadline: 11_001, queued: 11_000, generation: 1, keys: 1, bytes: 9, own: true})},
		}, func(b []byte) ([]byte, error) {
			l, err := decodeLease([]byte("l"), b)
			if err != nil {
				return nil, err
			}
			return appendLease(nil, l), nil
		}},
		{"scrub", []recordSample{
			{"begun", appendScrubStep(nil, &scrubStep{number: 1, members: []uint64{1, 2, 300}})},
			{"with two finds", appendScrubStep(nil, &scrubStep{number: 300, from: []byte("vk"), members: []uint64{1, 2, 3}, finds: []kv.Scrubbed{
				{Replica: 2, Sum: [32]byte{1, 31: 2}, Next: []byte("vl")}, {Replica: 1},
			}})},
		}, func(b []byte) ([]byte, error) {
			s, err := decodeScrubStep(b)
			if err != nil {
				return nil, err
			}
			return appendScrubStep(nil, s), nil
		}},
		{"member", []recordSample{{"full", appendMember(nil, &kv.Member{
			Replica: 3, ID: leaseName("member"), Name: "n1", Version: 1, ClientURL: "https://n1:7480", PeerAddress: "n1:7481",
		})}}, func(b []byte) ([]byte, error) {
			m, err := decodeMember([]byte("M"), b)
			return appendMember(nil, &m), err
		}},
	}
}

// encodeChange writes a change as emit does.
func encodeChange(c *change) []byte {
	b := binary.AppendUvarint([]byte{c.kind}, c.prevRevision)
	b = append(binary.AppendUvarint(b, uint64(len(c.key))), c.key...)
	if c.kind == recordTombstone {
		return appendTombstone(b, c.tombstone)
	}
	return append(appendMeta(b, &c.version.meta), c.version.payload...)
}

// checkRecord decodes arbitrary bytes: they are refused, or what they say is
// said again in the encoder's words and understood in the same way.
func checkRecord(t *testing.T, c *recordCodec, b []byte) {
	once, err := c.again(b)
	if err != nil {
		return
	}
	twice, err := c.again(once)
	if err != nil || !bytes.Equal(once, twice) {
		t.Fatalf("%s %x\nsays %x\nwhich says %x, %v", c.name, b, once, twice, err)
	}
}

func TestRecords(t *testing.T) {
	for _, c := range recordCodecs() {
		for _, s := range c.samples {
			again, err := c.again(s.encoded)
			if err != nil || !bytes.Equal(again, s.encoded) {
				t.Errorf("%s, %s: %x was read as %x, %v", c.name, s.name, s.encoded, again, err)
			}
			for i := range s.encoded {
				if _, err := c.again(s.encoded[:i]); err == nil {
					t.Errorf("%s, %s: cut to %d bytes it is still one", c.name, s.name, i)
				}
				for v := range 256 {
					bent := bytes.Clone(s.encoded)
					bent[i] = byte(v)
					checkRecord(t, &c, bent)
				}
			}
			if _, err := c.again(append(bytes.Clone(s.encoded), 0)); err == nil {
				t.Errorf("%s, %s: with a byte more it is still one", c.name, s.name)
			}
		}
	}
}

func FuzzRecords(f *testing.F) {
	for i, c := range recordCodecs() {
		for _, s := range c.samples {
			f.Add(byte(i), s.encoded)
		}
	}
	codecs := recordCodecs()
	f.Fuzz(func(t *testing.T, kind byte, b []byte) { checkRecord(t, &codecs[int(kind)%len(codecs)], b) })
}

// checkKeys holds two keys, and versions of them, against what the layout
// promises.
func checkKeys(t *testing.T, a, b []byte, ra, rb uint64) {
	va, vb := appendVersionKey(nil, a, ra), appendVersionKey(nil, b, rb)
	want := bytes.Compare(a, b)
	if want == 0 {
		want = bytes.Compare(binary.BigEndian.AppendUint64(nil, rb), binary.BigEndian.AppendUint64(nil, ra)) // the newest version comes first
	}
	if got := bytes.Compare(va, vb); got != want {
		t.Fatalf("%q at %d, %q at %d: versions are ordered %d, want %d", a, ra, b, rb, got, want)
	}
	// A bound is below all versions of its key and those after it, and above all
	// before.
	if got := bytes.Compare(appendVersionStart(nil, a), vb) <= 0; got != (bytes.Compare(a, b) <= 0) {
		t.Fatalf("%q begins before the versions of %q: %v", a, b, got)
	}
	if bytes.HasPrefix(vb, appendVersionPrefix(nil, a)) != bytes.Equal(a, b) {
		t.Fatalf("a version of %q among those of %q", b, a)
	}
	escaped, revision, ok := splitVersionKey(va)
	if !ok || revision != ra || !bytes.Equal(unescape(nil, escaped), a) {
		t.Fatalf("the version key of %q at %d is of %q at %d", a, ra, unescape(nil, escaped), revision)
	}
	if got := versionPrefixLen(va); got != len(va)-revisionBytes {
		t.Fatalf("prefix of %x: %d bytes", va, got)
	}
	checkComparer(t, va, vb)
	checkComparer(t, a, vb)
	checkComparer(t, append([]byte{spaceVersion}, a...), append([]byte{spaceVersion}, b...))
}

// checkComparer holds two keys of any form against what Pebble asks of a
// comparer: it asks for separators and parts of keys, too.
func checkComparer(t *testing.T, a, b []byte) {
	c := comparer
	pa, pb := c.Split(a), c.Split(b)
	if again := c.Split(a[:pa]); again != pa {
		t.Fatalf("prefix of %x: %d bytes, of its prefix: %d", a, pa, again)
	}
	want := bytes.Compare(a[:pa], b[:pb])
	if want == 0 {
		want = c.ComparePointSuffixes(a[pa:], b[pb:])
	}
	if got := c.Compare(a, b); got != want {
		t.Fatalf("%x and %x compare as %d, by prefix and suffix as %d", a, b, got, want)
	}
	// The immediate successor of a prefix is beyond everything that has the
	// prefix, and not beyond any other prefix that is.
	next := c.ImmediateSuccessor(nil, a[:pa])
	if c.Split(next) != len(next) || c.Compare(a, next) >= 0 {
		t.Fatalf("%x follows prefix %x", next, a[:pa])
	}
	if order := bytes.Compare(b[:pb], a[:pa]); order == 0 && c.Compare(b, next) >= 0 || order > 0 && c.Compare(b, next) < 0 {
		t.Fatalf("%x follows prefix %x, %x has prefix %x", next, a[:pa], b, b[:pb])
	}
	if len(a) == 0 {
		return // no key of ours, and none that Pebble asks about
	}
	if c.Compare(a, b) < 0 {
		if sep := c.Separator(nil, a, b); c.Compare(a, sep) > 0 || c.Compare(sep, b) >= 0 {
			t.Fatalf("%x separates %x and %x", sep, a, b)
		}
	}
	if s := c.Successor(nil, a); c.Compare(a, s) > 0 {
		t.Fatalf("%x succeeds %x", s, a)
	}
}

func TestKeys(t *testing.T) {
	revisions := []uint64{0, 1, 255, 256, 1 << 40, math.MaxUint64}
	for _, a := range hostileKeys {
		for _, b := range append(hostileKeys, "") {
			for _, r := range revisions {
				checkKeys(t, []byte(a), []byte(b), r, 7)
			}
		}
	}
	rng := rand.New(rand.NewPCG(1, 1))
	random := func() []byte {
		k := make([]byte, rng.IntN(8))
		for i := range k {
			k[i] = []byte{0, 1, 2, 'a', 0xfe, 0xff}[rng.IntN(6)]
		}
		return k
	}
	for range 50_000 {
		checkKeys(t, random(), random(), rng.Uint64N(4), rng.Uint64N(4))
	}
}

func FuzzKeys(f *testing.F) {
	for i, k := range hostileKeys {
		f.Add([]byte(k), []byte(hostileKeys[len(hostileKeys)-1-i]), uint64(i), uint64(1))
	}
	f.Fuzz(func(t *testing.T, a, b []byte, ra, rb uint64) { checkKeys(t, a, b, ra, rb) })
}

// Idempotency keys of different callers don't meet, whatever they contain.
func TestIdempotencyScopes(t *testing.T) {
	parts := []string{"", "a", "b", "ab", "\x00", "\x01", "\x01a", "a\x00"}
	seen := map[string]string{}
	for _, principal := range parts {
		for _, key := range parts {
			scope, name := string(idempotencyScope(principal, key)), fmt.Sprintf("%q %q", principal, key)
			if other, twice := seen[scope]; twice {
				t.Errorf("%s and %s have the same scope", name, other)
			}
			seen[scope] = name
		}
	}
}

var rewriteGolden = flag.Bool("rewrite-golden", false, "write the golden encodings anew")

// The bytes on disk and in snapshots never change under a format's name.
func TestGoldenLayout(t *testing.T) {
	var records, keys, snapshot strings.Builder
	for _, c := range recordCodecs() {
		for _, s := range c.samples {
			golden(&records, c.name+": "+s.name, s.encoded)
		}
	}
	key := []byte("a\x00b")
	id := leaseName("lease")
	for _, k := range []recordSample{
		{"newest version", appendNewestKey(nil, key)},
		{"version of revision 5", appendVersionKey(nil, key, 5)},
		{"first of all versions from a key on", appendVersionStart(nil, key)},
		{"third change of revision 5", appendChangeKey(nil, 5, 2)},
		{"lease", leaseKey(id)},
		{"number of a lease", numberKey(77)},
		{"key of a lease", attachedKey(id, key)},
		{"deadline of a lease", queueKey(11_000, id)},
		{"remembered answer", idempotencyKey(idempotencyScope("bob", "retry"))},
		{"its expiry", expiryKey(600_000, idempotencyScope("bob", "retry"))},
		{"entries of a proposer", entriesKey(id)},
		{"member", memberKey(3)},
		{"alarm", alarmKey(3, kv.AlarmCorrupt)},
		{"state", keyState},
		{"scrub", keyScrub},
		{"format", keyFormat},
		{"the format itself", []byte(format)},
		{"the comparer's name", []byte(comparer.Name)},
	} {
		golden(&keys, k.name, k.encoded)
	}
	s := openStore(t, vfs.NewMem())
	defer closeStore(t, s)
	run(t, s, `grant L 5000; @time=9 @id=k @print=f put "a\x00b" value type=text/plain lease=L; put c 1 own=2000 lease=O; delete c`)
	golden(&snapshot, "a snapshot of a few records", saved(t, s))

	for name, got := range map[string]string{"records.txt": records.String(), "keys.txt": keys.String(), "snapshot.txt": snapshot.String()} {
		path := filepath.Join("testdata", "golden", name)
		if *rewriteGolden {
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(string(want), got); d != "" {
			t.Errorf("%s: the encoding of what is on disks already has changed:\n%s", path, d)
		}
	}
}

// golden writes bytes in hex, sixteen a line with their letters, under a
// comment.
func golden(b *strings.Builder, name string, encoded []byte) {
	fmt.Fprintf(b, "# %s\n", name)
	for line := range slices.Chunk(encoded, 16) {
		letters := bytes.Clone(line)
		for i, c := range letters {
			if c < ' ' || c > '~' {
				letters[i] = '.'
			}
		}
		fmt.Fprintf(b, "% -48x %s\n", line, letters)
	}
	b.WriteString("\n")
}

// saved returns a snapshot of s.
func saved(t testing.TB, s *Store) []byte {
	t.Helper()
	var b bytes.Buffer
	mustView(t, s, func(v *View) {
		if err := v.Save(&b, nil); err != nil {
			t.Fatal(err)
		}
	})
	return b.Bytes()
}

// records reads a snapshot as a list.
func snapshotRecords(b []byte) (records []recordSample, err error) {
	err = readSnapshot(bytes.NewReader(b), nil, func(key, value []byte) error {
		records = append(records, recordSample{string(key), bytes.Clone(value)})
		return nil
	})
	return records, err
}

// Whatever single byte of a snapshot is changed, and wherever it is cut, it is
// refused.
func TestBentSnapshots(t *testing.T) {
	s := openStore(t, vfs.NewMem())
	defer closeStore(t, s)
	run(t, s, `put a 1; put b fill:300:x`)
	whole := saved(t, s)
	if _, err := snapshotRecords(whole); err != nil {
		t.Fatal(err)
	}
	for i := range whole {
		if _, err := snapshotRecords(whole[:i]); err == nil {
			t.Errorf("cut to %d bytes it is accepted", i)
		}
		for _, flip := range []byte{0x01, 0x80, 0xff} {
			bent := bytes.Clone(whole)
			bent[i] ^= flip
			if _, err := snapshotRecords(bent); err == nil {
				t.Errorf("with byte %d changed it is accepted", i)
			}
		}
		if _, err := snapshotRecords(slices.Concat(whole[:i], []byte{0}, whole[i:])); err == nil {
			t.Errorf("with a byte more at %d it is accepted", i)
		}
	}
}

// A stream of any bytes is refused without a panic and without allocating more
// than a block.
func FuzzReadSnapshot(f *testing.F) {
	s := openStore(f, vfs.NewMem())
	run(f, s, `put a 1; put b fill:300:x; grant L 1000`)
	whole := saved(f, s)
	closeStore(f, s)
	want, err := snapshotRecords(whole)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add(whole[:60])
	f.Add(append([]byte(snapshotMagic), 0xff, 0xff, 0xff, 0xff))
	f.Add(append([]byte(snapshotMagic), 0, 0x80, 0, 0, 1, 2, 3, 4))
	f.Fuzz(func(t *testing.T, b []byte) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		got, err := snapshotRecords(b)
		runtime.ReadMemStats(&after)
		if took := after.TotalAlloc - before.TotalAlloc; took > maxSnapshotBlockBytes+64<<10+200*uint64(len(b)) {
			t.Fatalf("%d bytes of input took %d bytes of memory", len(b), took)
		}
		if err == nil && len(b) == len(whole) && !reflect.DeepEqual(got, want) {
			t.Fatalf("another snapshot of the same length was accepted: %q", got)
		}
	})
}
