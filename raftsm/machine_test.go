package raftsm

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cairnkv/cairn/kv"
	"github.com/cairnkv/cairn/raftsm/raftlog"
	"github.com/cairnkv/cairn/storage"
	"github.com/cockroachdb/datadriven"
	sm "github.com/lni/dragonboat/v4/statemachine"
)

// TestMachine drives state machines by hand, as Dragonboat would: the same log,
// cut into other pieces, with restarts and snapshots between. The scenarios are
// in testdata.
//
//	log                     appends entries, a line each: "PROPOSER SEQ: command; command",
//	                        or "-" for an entry without a command
//	update M [pieces=a,b,…] applies the next entries to M, that many with each call; without
//	                        pieces, all that are left with one call. M is made when it is new;
//	                        its process is the proposer of the same name
//	sync M                  makes durable what M applied
//	reopen M [as=NAME]      closes M and opens it again, as another process
//	kill M                  opens what a killed process leaves on the disk, as another process, and
//	                        applies to it the rest of the log
//	damage entry=N how=WHAT alters an entry: a bit, its format, or its last command
//	save M                  M takes a snapshot
//	recover M               M takes over the newest snapshot
//	hash M…                 compares the states
func TestMachine(t *testing.T) {
	datadriven.Walk(t, "testdata/machine", func(t *testing.T, path string) {
		b := &machines{t: t, byName: map[string]*driven{}}
		defer b.close()
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			b.t = t
			return b.step(d)
		})
	})
}

// machines are the machines of a scenario and the log that they follow.
type machines struct {
	t        *testing.T
	log      []sm.Entry
	snapshot []byte
	byName   map[string]*driven
}

// driven is a machine driven by hand. What it calls back is written down.
type driven struct {
	*machine
	dir    string
	said   strings.Builder
	synced uint64
}

func (b *machines) close() {
	for _, m := range b.byName {
		must(b.t, m.store.Close())
	}
}

func (b *machines) step(d *datadriven.TestData) string {
	switch d.Cmd {
	case "log":
		return b.append(d)
	case "damage":
		return b.damage(d)
	}
	name := d.CmdArgs[0].Key
	if d.Cmd == "hash" {
		return b.hash(d)
	}
	m := b.byName[name]
	if m == nil {
		m = b.open(name, b.t.TempDir())
	}
	m.said.Reset()
	switch d.Cmd {
	case "update":
		b.update(m, d)
	case "sync":
		must(b.t, m.Sync())
		m.synced = b.applied(m)
	case "reopen":
		as := name
		d.MaybeScanArgs(b.t, "as", &as)
		must(b.t, m.store.Close())
		m = b.open(name, m.dir)
		m.incarnation = incarnation(as)
		fmt.Fprintf(&m.said, "at entry %d\n", b.applied(m))
	case "kill":
		// The copy is what the process has given to the operating system; the
		// process itself goes on for a moment, and then is gone.
		image := b.t.TempDir()
		must(b.t, os.CopyFS(image, os.DirFS(m.dir)))
		must(b.t, m.store.Close())
		synced := m.synced
		m = b.open(name, image)
		m.incarnation = incarnation("another")
		if at := b.applied(m); at < synced || at > uint64(len(b.log)) {
			b.t.Errorf("entry %d is left, %d was durable", at, synced)
		}
		// How much is left is the operating system's and Pebble's affair.
		b.update(m, d)
		m.said.Reset()
		fmt.Fprintf(&m.said, "recovered, at entry %d\n", b.applied(m))
	case "save":
		pinned, err := m.PrepareSnapshot()
		must(b.t, err)
		var stream bytes.Buffer
		must(b.t, m.SaveSnapshot(pinned, &stream, nil))
		b.snapshot = stream.Bytes()
	case "recover":
		must(b.t, m.RecoverFromSnapshot(bytes.NewReader(b.snapshot), nil))
		fmt.Fprintf(&m.said, "at entry %d\n", b.applied(m))
	default:
		d.Fatalf(b.t, "unknown step %q", d.Cmd)
	}
	if m.said.Len() == 0 {
		return "ok"
	}
	return m.said.String()
}

func (b *machines) open(name, dir string) *driven {
	store, err := storage.Open(filepath.Join(dir, "store"), storage.Options{CacheBytes: 1 << 20, MemTableBytes: 1 << 20})
	must(b.t, err)
	m := &driven{dir: dir}
	m.machine = &machine{
		timed: func(time.Duration) {},
		store: store, incarnation: incarnation(name), revisions: newRevisionWaiters(), log: newLogCut(defaultSnapshotEntries, raftlog.Length{}),
		fatal:  func(err error) { fmt.Fprintf(&m.said, "fatal: %v\n", err) },
		closed: make(chan struct{}), answerRoom: maxAnswerBytes,
		alarms: func() {}, scrub: func(part *storage.Scrub) { part.Close() },
		trusted: func() bool { return true },
		awaits:  func(uint64, int) bool { return true },
		deliver: func(seq uint64, results []*kv.Result) {
			fmt.Fprintf(&m.said, "  to %d:", seq)
			for _, r := range results {
				fmt.Fprintf(&m.said, " %s r%d", r.Code, r.Revision)
			}
			m.said.WriteByte('\n')
		},
		callbacks: Callbacks{
			Applied: func(from, to uint64, events []kv.Event) {
				fmt.Fprintf(&m.said, "  applied r%d to r%d, %d events\n", from, to, len(events))
			},
			Jumped: func(to uint64) { fmt.Fprintf(&m.said, "  jumped to r%d\n", to) },
		},
	}
	b.byName[name] = m
	return m
}

func (b *machines) applied(m *driven) uint64 {
	applied, err := m.Open(nil)
	must(b.t, err)
	return applied
}

// append reads entries and seals them.
func (b *machines) append(d *datadriven.TestData) string {
	for _, line := range strings.Split(d.Input, "\n") {
		e := sm.Entry{Index: uint64(len(b.log)) + 1}
		if line != "-" {
			head, commands, _ := strings.Cut(line, ":")
			by, number, _ := strings.Cut(head, " ")
			seq, err := strconv.ParseUint(number, 10, 64)
			must(b.t, err)
			var list []*kv.Command
			for _, text := range strings.Split(commands, ";") {
				list = append(list, parseCommand(b.t, strings.Fields(text)))
			}
			e.Cmd = sealed(incarnation(by), seq, list...)
		}
		b.log = append(b.log, e)
	}
	return fmt.Sprintf("%d entries", len(b.log))
}

func (b *machines) damage(d *datadriven.TestData) string {
	var n int
	var how string
	d.ScanArgs(b.t, "entry", &n)
	d.ScanArgs(b.t, "how", &how)
	cmd := b.log[n-1].Cmd
	switch how {
	case "bit":
		cmd[len(cmd)-1] ^= 1
		return "damaged"
	case "format":
		cmd[raftlog.SealSize]++
	case "cut":
		cmd = cmd[:len(cmd)-1]
	default:
		d.Fatalf(b.t, "unknown damage %q", how)
	}
	raftlog.SealEntry(cmd)
	b.log[n-1].Cmd = cmd
	return "made otherwise"
}

func parseCommand(t *testing.T, words []string) *kv.Command {
	number := func(i int) int64 {
		n, err := strconv.ParseInt(words[i], 10, 64)
		must(t, err)
		return n
	}
	txn := func(op kv.Op) *kv.Command { return &kv.Command{Kind: kv.KindTxn, Txn: &kv.Txn{Then: []kv.Op{op}}} }
	switch words[0] {
	case "put":
		return put(words[1], words[2])
	case "add":
		return txn(kv.Op{Type: kv.OpIncrement, Key: []byte(words[1]), By: number(2)})
	case "delete":
		return txn(kv.Op{Type: kv.OpDelete, Range: kv.SingleKey([]byte(words[1]))})
	case "compact":
		return &kv.Command{Kind: kv.KindCompact, Compact: uint64(number(1))}
	case "grant":
		return &kv.Command{Kind: kv.KindLeaseGrant, Lease: kv.Lease{ID: incarnation(words[1]), TTLMillis: number(2)}}
	case "clock":
		return &kv.Command{Kind: kv.KindClock, Clock: kv.Clock{Prev: uint64(number(1)), AdvanceMillis: number(2)}}
	}
	t.Fatalf("unknown command %q", words)
	return nil
}

// update applies what m has not applied. Dragonboat may reuse the memory of an
// entry as soon as Update has returned, so it is overwritten.
func (b *machines) update(m *driven, d *datadriven.TestData) {
	rest := b.log[b.applied(m):]
	if len(rest) == 0 {
		return
	}
	pieces := []int{len(rest)}
	if d.HasArg("pieces") {
		pieces = nil
		for _, a := range d.CmdArgs {
			if a.Key == "pieces" {
				for _, v := range a.Vals {
					n, err := strconv.Atoi(v)
					must(b.t, err)
					pieces = append(pieces, n)
				}
			}
		}
	}
	for _, n := range pieces {
		var piece []sm.Entry
		for _, e := range rest[:n] {
			piece = append(piece, sm.Entry{Index: e.Index, Cmd: bytes.Clone(e.Cmd)})
		}
		rest = rest[n:]
		fmt.Fprintf(&m.said, "entries %d to %d\n", piece[0].Index, piece[n-1].Index)
		done, err := m.Update(piece)
		if err != nil {
			fmt.Fprintf(&m.said, "  stopped: %v\n", err)
			return
		}
		if len(done) != n {
			b.t.Errorf("%d of %d entries came back", len(done), n)
		}
		for _, e := range piece {
			for i := range e.Cmd {
				e.Cmd[i] = 0xdb
			}
		}
	}
}

func (b *machines) hash(d *datadriven.TestData) string {
	var hashes []string
	for _, a := range d.CmdArgs {
		m := b.byName[a.Key]
		v, err := m.store.View()
		must(b.t, err)
		sum, err := v.StateHash(context.Background())
		must(b.t, err)
		v.Close()
		hashes = append(hashes, fmt.Sprintf("entry %d, %x", b.applied(m), sum))
	}
	for _, h := range hashes {
		if h != hashes[0] {
			return "different:\n" + strings.Join(hashes, "\n")
		}
	}
	return "equal"
}

// get reads a key inside a transaction in a transaction.
func get(key string) *kv.Command {
	return &kv.Command{Kind: kv.KindTxn, Txn: &kv.Txn{Then: []kv.Op{{Type: kv.OpTxn, Txn: &kv.Txn{
		Then: []kv.Op{{Type: kv.OpGet, Query: &kv.Query{Range: kv.SingleKey([]byte(key))}}}}}}}}
}

// Answers take no more memory than there is for them; who waits for one that finds none is
// told that nobody knows.
func TestAnswersAreBounded(t *testing.T) {
	m := lone(t)
	m.open(t)
	m.mustPut(t, "k", strings.Repeat("v", 1000))
	result, err := m.shard.Propose(context.Background(), get("k"))
	must(t, err)
	if n := answerBytes(result); n < 1000 {
		t.Fatalf("the answer takes %d bytes", n)
	}
	m.shard.machine.answerRoom = 500
	if _, err := m.shard.Propose(context.Background(), get("k")); !errIs(err, kv.OutcomeUnknown) {
		t.Errorf("got %v", err)
	}
	m.mustPut(t, "k", "w")
}

// TestCommonPrefixesAreCounted: an answer may have nothing else.
func TestCommonPrefixesAreCounted(t *testing.T) {
	prefix := []byte("a/long/prefix/")
	r := &kv.Result{Ops: []kv.OpResult{{List: &kv.List{CommonPrefixes: [][]byte{prefix, prefix}}}}}
	if got, want := answerBytes(r), 2*(kv.ResultEntryBytes+len(prefix)); got != want {
		t.Errorf("it takes %d bytes, want %d", got, want)
	}
}

// TestAnswersOfThoseWhoHaveGone: they are not kept, and take nothing of the memory for
// those of others in the same Update.
func TestAnswersOfThoseWhoHaveGone(t *testing.T) {
	b := &machines{t: t, byName: map[string]*driven{}}
	defer b.close()
	m := b.open("p1", t.TempDir())
	var got []*kv.Result
	m.deliver = func(_ uint64, results []*kv.Result) { got = append(got, results...) }
	m.awaits = func(seq uint64, i int) bool { return seq == 2 && i == 1 || seq == 3 }
	entry := func(seq uint64, commands ...*kv.Command) {
		b.log = append(b.log, sm.Entry{Index: seq, Cmd: sealed(incarnation("p1"), seq, commands...)})
	}
	entry(1, put("k", strings.Repeat("v", 1000)))
	entry(2, get("k"), get("k"), put("l", "v"))
	entry(3, get("k"))
	m.answerRoom = 1500
	if _, err := m.Update(b.log); err != nil {
		t.Fatal(err)
	}
	var kept []bool
	for _, r := range got {
		kept = append(kept, r != nil)
	}
	// The put has an answer of no size, which is kept whoever waits; the last one finds no
	// room behind the one that was waited for.
	if want := []bool{true, false, true, true, false}; !slices.Equal(kept, want) {
		t.Errorf("kept are %v, want %v", kept, want)
	}
}
