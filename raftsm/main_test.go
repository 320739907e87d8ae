package raftsm

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/cairnkv/cairn/internal/testkit"
	"github.com/cairnkv/cairn/kv"
	"go.uber.org/goleak"
)

// Every host and shard that a test opens is closed by it, and leaves no
// goroutine behind: ours or Dragonboat's.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for something that is bound to happen.
const patience = testkit.Patience

// eventually waits until something holds.
var eventually = testkit.Eventually

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantCode checks that an error is one of ours with that code.
func wantCode(t testing.TB, err error, code kv.Code) {
	t.Helper()
	if codeOf(err) != code {
		t.Errorf("got %v, want %s", err, code)
	}
}

func codeOf(err error) kv.Code {
	if err == nil {
		return kv.OK
	}
	for _, c := range kv.Codes() {
		if errIs(err, c) {
			return c
		}
	}
	return ^kv.Code(0)
}

// member is one node's part of this package: a directory, a host, a shard.
type member struct {
	path string
	spec Spec
	// listen is where it listens for peers, if that is not its peer address.
	listen string
	room   func(bytes uint64) error // for snapshots; may be nil
	cfg    Config
	dir    *Dir
	host   *Host
	shard  *Shard
}

// lone is a cluster of one in a directory of its own.
func lone(t testing.TB) *member {
	return &member{path: filepath.Join(t.TempDir(), "data"), spec: Spec{PeerAddress: freeAddress(t)}}
}

// open opens the member; the test closes it at its end, if it has not by then.
func (m *member) open(t testing.TB) {
	t.Helper()
	must(t, m.tryOpen())
	t.Cleanup(func() { m.close(t) })
}

func (m *member) tryOpen() (err error) {
	defer func() {
		if err != nil {
			m.release()
		}
	}()
	if m.dir, err = OpenDir(m.path, m.spec); err != nil {
		return err
	}
	if m.host, err = OpenHost(HostConfig{Dir: m.dir, ListenAddress: m.listen, Room: m.room}); err != nil {
		return err
	}
	cfg := m.cfg
	cfg.Shard = 1
	m.shard, err = m.host.OpenShard(cfg)
	return err
}

func (m *member) close(t testing.TB) {
	t.Helper()
	if m.shard != nil {
		must(t, m.shard.Close())
		m.shard = nil
		if n := m.host.PeerStats().DroppedMessages; n != 0 {
			t.Errorf("%s has dropped %d messages that members sent", m.spec.Name, n)
		}
	}
	m.release()
}

// release closes what a failed start leaves.
func (m *member) release() {
	if m.host != nil {
		m.host.Close()
		m.host = nil
	}
	if m.dir != nil {
		m.dir.Close()
		m.dir = nil
	}
}

var freeAddress = testkit.FreeAddress

// put is the command of a put.
func put(key, value string) *kv.Command {
	return &kv.Command{Kind: kv.KindTxn, Txn: &kv.Txn{Then: []kv.Op{{Type: kv.OpPut, Key: []byte(key), Value: []byte(value)}}}}
}

// mustPut puts as soon as there is a leader.
func (m *member) mustPut(t testing.TB, key, value string) *kv.Result {
	t.Helper()
	for deadline := time.Now().Add(patience); ; {
		result, err := m.shard.Propose(context.Background(), put(key, value))
		if err == nil {
			must(t, result.Err())
			return result
		}
		if !errIs(err, kv.NoLeader) || time.Now().After(deadline) {
			t.Fatalf("put %s: %v", key, err)
		}
	}
}

// wantValue reads linearizably.
func (m *member) wantValue(t testing.TB, key, value string) {
	t.Helper()
	must(t, m.shard.Wait(context.Background(), kv.Consistency{}))
	m.wantStale(t, key, value)
}

// wantStale reads what is here.
func (m *member) wantStale(t testing.TB, key, value string) {
	t.Helper()
	e, found, _, err := m.shard.Store().Get([]byte(key))
	must(t, err)
	if !found || string(e.Value) != value {
		t.Errorf("%s is %q (found: %v), want %q", key, e.Value, found, value)
	}
}

// state is a hash of all that is replicated, and of the entry at which it was taken.
func (m *member) state(t testing.TB) string {
	t.Helper()
	hash, _ := m.stateAt(t)
	return hash
}

// stateAt is the same with the index up to which the log was applied then.
func (m *member) stateAt(t testing.TB) (hash string, applied uint64) {
	t.Helper()
	v, err := m.shard.Store().View()
	must(t, err)
	defer v.Close()
	sum, err := v.StateHash(context.Background())
	must(t, err)
	return fmt.Sprintf("%x", sum[:8]), v.Applied()
}
