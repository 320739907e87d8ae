package node

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// damagedVar tells a process to start a node on a directory that was damaged:
// the directory, and the peer address that belongs to it.
const damagedVar = "CAIRN_NODE_DAMAGED"

const (
	damageWriters = 4
	damageKeys    = 50 // of each writer
)

// startDamaged is that process. Its last line says what became of it: whole,
// lost and what, or refused and why. A panic anywhere ends it differently.
func startDamaged(env string) (code int) {
	dir, address, _ := strings.Cut(env, " ")
	// Several of these run at once, and nobody calls them.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	listen := l.Addr().String()
	_ = l.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var first sync.Mutex // several may find the damage, and the process ends with the first
	refuse := func(err error) {
		first.Lock()
		line := strings.Join(strings.Fields(err.Error()), " ") // as the command line has it
		if Hopeless(err) {
			fmt.Println("refused:", line)
		} else {
			fmt.Println("refused, and a supervisor would try again:", line)
		}
		os.Exit(0)
	}
	n, err := Open(ctx, Config{DataDir: dir, Listen: "127.0.0.1:0", PeerListen: listen, PeerAdvertise: address, Fatal: refuse})
	if err != nil {
		refuse(err)
	}
	// A member that turns out not to be what it was ends by itself.
	failed := make(chan error, 1)
	go func() { failed <- n.Wait() }()
	for n.Ready() != nil {
		select {
		case err := <-failed:
			refuse(err)
		case <-ctx.Done():
			fmt.Println("lost: the node is never ready")
			return 0
		case <-time.After(5 * time.Millisecond):
		}
	}
	for w := range damageWriters {
		for k := range damageKeys {
			key := fmt.Sprintf("w%d-%d", w, k)
			e, found, _, err := n.shard.Store().Get([]byte(key))
			if err != nil {
				refuse(err)
			}
			if !found || !bytes.Equal(e.Value, damageValue(key)) {
				fmt.Println("lost:", key)
				return 0
			}
		}
	}
	v, err := n.shard.Store().View()
	if err != nil {
		refuse(err)
	}
	hash, err := v.Hash(ctx, 0)
	v.Close()
	if err != nil {
		refuse(err)
	}
	if _, err := n.shard.Propose(ctx, put("after", "v")); err != nil {
		refuse(err)
	}
	if err := n.Close(); err != nil {
		refuse(err)
	}
	fmt.Printf("whole %x\n", hash)
	return 0
}

func damageValue(key string) []byte { return bytes.Repeat([]byte(key), 100) }

// fillForDamage makes a data directory that has one of each kind of file: the
// log was cut, and has finished files and one in use; the store has tables and a
// log. It returns copies of it: as a kill leaves it, and as Close does.
func fillForDamage(t *testing.T) (cfg Config, killed, closed string) {
	cfg = config(t)
	fill := func(n *Node, rounds int) {
		var wg sync.WaitGroup
		for w := range damageWriters {
			wg.Go(func() {
				for i := range rounds * damageKeys {
					key := fmt.Sprintf("w%d-%d", w, i%damageKeys)
					if _, err := n.shard.Propose(context.Background(), put(key, string(damageValue(key)))); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
	}
	snapshots := func() bool {
		found, err := filepath.Glob(filepath.Join(cfg.DataDir, "raft", "*", "*", "snapshot-part-*", "*", "snapshot-*"))
		must(t, err)
		return len(found) > 0
	}
	n := ready(t, cfg)
	fill(n, 20)
	for i := 0; !snapshots() && i < 50; i++ {
		fill(n, 20)
	}
	must(t, n.Close())
	n = ready(t, cfg)
	fill(n, 1)
	// What was acknowledged in the last moment before a kill may be cut off and
	// nobody knows (docs/guarantees.md). The record is written again and again
	// while there is something new; the second time it knows all of the above.
	for range 2 {
		before := raftRecord(t, cfg.DataDir)
		eventually(t, "the record of the log is written", func() bool {
			_, err := n.shard.Propose(context.Background(), put("recorded", "v"))
			must(t, err)
			return !bytes.Equal(raftRecord(t, cfg.DataDir), before)
		})
	}
	killed, closed = filepath.Join(t.TempDir(), "killed"), filepath.Join(t.TempDir(), "closed")
	must(t, os.CopyFS(killed, os.DirFS(cfg.DataDir)))
	must(t, n.Close())
	must(t, os.CopyFS(closed, os.DirFS(cfg.DataDir)))
	return cfg, killed, closed
}

// raftRecord is the file that says how far the log is durable.
func raftRecord(t *testing.T, dir string) []byte {
	found, err := filepath.Glob(filepath.Join(dir, "raft", "*", "*", "raftlog.highwater"))
	must(t, err)
	if len(found) != 1 {
		t.Fatalf("records of the log: %q", found)
	}
	content, err := os.ReadFile(found[0])
	must(t, err)
	return content
}

// TestDamagedFiles damages every file of a data directory, one at a time: takes
// it away, cuts it, flips a bit in it. The node starts and has lost nothing, or
// says in a line what is wrong and where. It never panics, and never goes on
// with less than it had.
func TestDamagedFiles(t *testing.T) {
	cfg, killed, closed := fillForDamage(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for _, image := range []struct{ name, dir string }{{"killed", killed}, {"closed", closed}} {
		t.Run(image.name, func(t *testing.T) {
			var all []damage
			must(t, filepath.WalkDir(image.dir, func(path string, d fs.DirEntry, err error) error {
				if err == nil && !d.IsDir() {
					path, err = filepath.Rel(image.dir, path)
					file := damages(t, rng, image.dir, path)
					if image.dir == closed && os.Getenv("CAIRN_LONG") == "" {
						file = file[rng.IntN(len(file)):][:1] // most files are as the kill left them
					}
					all = append(all, file...)
				}
				return err
			}))
			want, _ := startOn(t, image.dir, cfg.PeerListen, damage{})
			if !strings.HasPrefix(want, "whole ") {
				t.Fatalf("undamaged: %s", want)
			}
			var whole, refused atomic.Int64
			work := make(chan damage)
			var wg sync.WaitGroup
			for range 4 { // a start is mostly waiting
				wg.Go(func() {
					for d := range work {
						got, findings := startOn(t, image.dir, cfg.PeerListen, d)
						switch {
						case got == want:
							whole.Add(1)
						case strings.HasPrefix(got, "refused: ") && d.named(got):
							refused.Add(1)
							// The doctor finds what keeps a node from starting.
							if Sound(findings) {
								t.Errorf("%s, %s: the doctor finds nothing, but %s\n%s", d.file, d.what, got, verdicts(findings))
							}
						default:
							t.Errorf("%s, %s: %s", d.file, d.what, got)
						}
					}
				})
			}
			for _, d := range all {
				work <- d
			}
			close(work)
			wg.Wait()
			t.Logf("%d starts were whole, %d refused", whole.Load(), refused.Load())
			if whole.Load() == 0 || refused.Load() == 0 {
				t.Error("the damages are not what they should be")
			}
		})
	}
}

// damage is what is done to one file of a data directory.
type damage struct {
	file, what string
	do         func(path string) error
}

// named reports whether a refusal names the file, or a directory that it is in.
func (d damage) named(refusal string) bool {
	for path := d.file; strings.ContainsRune(path, filepath.Separator); path = filepath.Dir(path) {
		if strings.Contains(refusal, path) {
			return true
		}
	}
	return strings.Contains(refusal, filepath.Base(d.file))
}

func damages(t *testing.T, rng *rand.Rand, dir, file string) []damage {
	content, err := os.ReadFile(filepath.Join(dir, file))
	must(t, err)
	all := []damage{{file, "gone", os.Remove}}
	if len(content) == 0 {
		return all
	}
	cut := func(size int) {
		all = append(all, damage{file, fmt.Sprint("cut to ", size), func(path string) error { return os.Truncate(path, int64(size)) }})
	}
	flip := func(at int) {
		bit := byte(1) << rng.IntN(8)
		all = append(all, damage{file, fmt.Sprintf("bit %#02x of byte %d flipped", bit, at), func(path string) error {
			damaged := slices.Clone(content)
			damaged[at] ^= bit
			return os.WriteFile(path, damaged, 0o600)
		}})
	}
	cut(len(content) / 2)
	flip(rng.IntN(len(content)))
	if os.Getenv("CAIRN_LONG") == "" {
		return all
	}
	cut(0)
	cut(len(content) - 1)
	for range 50 {
		flip(rng.IntN(len(content)))
	}
	return all
}

// startOn runs the process that starts a node on a damaged copy of a directory,
// and returns its verdict, and what the doctor found before.
func startOn(t *testing.T, image, address string, d damage) (string, []Finding) {
	dir, err := os.MkdirTemp(t.TempDir(), "data")
	if err == nil {
		err = os.CopyFS(dir, os.DirFS(image))
	}
	if err == nil && d.do != nil {
		err = d.do(filepath.Join(dir, d.file))
	}
	if err != nil {
		return err.Error(), nil
	}
	defer os.RemoveAll(dir)
	before := tree(t, dir)
	findings := Examine(t.Context(), dir)
	if tree(t, dir) != before {
		t.Errorf("%s, %s: the doctor changed something", d.file, d.what)
	}
	process := exec.CommandContext(t.Context(), os.Args[0])
	process.Env = append(os.Environ(), damagedVar+"="+dir+" "+address)
	out, err := process.CombinedOutput()
	text := strings.TrimSpace(string(out))
	if err == nil && !strings.Contains(text, "\n") {
		return text, findings
	}
	return fmt.Sprintf("the process ended with %v:\n%.2000s", err, text), findings
}
