package transport

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cairnkv/cairn/internal/authority"
	"github.com/cairnkv/cairn/internal/testkit"
	"github.com/lni/dragonboat/v4/client"
	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/raftio"
	pb "github.com/lni/dragonboat/v4/raftpb"
	"github.com/oklog/ulid/v2"
	"go.uber.org/goleak"
)

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

var testCluster = ulid.Make()

// end is one end of the connections: a transport, and what it was given.
type end struct {
	asked func() // by whoever looks for the members, if it is not nil
	*Transport
	mu       sync.Mutex
	messages []pb.Message
	batches  []pb.MessageBatch
	chunks   []pb.Chunk
	reject   bool          // chunks
	applied  atomic.Uint64 // the index
	room     atomic.Uint64 // bytes; 0: as much as is wanted
	second   atomic.Uint64 // a shard that it has besides the first, or 0
	members  []Member
	logged   *lines
}

func (e *end) Members() ([]Member, error) {
	if e.asked != nil {
		e.asked()
	}
	return e.members, nil
}

func (e *end) HasShard(shard uint64) bool { return shard == 1 || shard == e.second.Load() }

func (e *end) Applied(uint64) uint64 { return e.applied.Load() }

func (e *end) Room(bytes uint64) error {
	if room := e.room.Load(); room > 0 && bytes > room {
		return errors.New("no room")
	}
	return nil
}

// lines is what was logged.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lines) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.b.String(), text)
}

var freeAddress = testkit.FreeAddress

// newEnd makes a transport of a replica, listening.
func newEnd(t testing.TB, replica uint64, change func(*Config)) *end {
	t.Helper()
	e := &end{logged: &lines{}}
	cfg := Config{
		Self:   Identity{Cluster: testCluster, Deployment: 7, Replica: replica, Member: ulid.Make(), Address: freeAddress(t)},
		Logger: slog.New(slog.NewTextHandler(e.logged, nil)),
	}
	cfg.Listen = cfg.Self.Address
	if change != nil {
		change(&cfg)
	}
	e.Transport = New(cfg)
	made := e.Factory().Create(config.NodeHostConfig{}, func(b pb.MessageBatch) {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.batches = append(e.batches, b)
		e.messages = append(e.messages, b.Requests...)
	}, func(c pb.Chunk) bool {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.chunks = append(e.chunks, c)
		return !e.reject
	})
	must(t, made.Start())
	t.Cleanup(func() {
		must(t, made.Close())
		if t.Failed() {
			t.Logf("replica %d said:\n%s", replica, e.logged.b.String())
		}
	})
	return e
}

// pair makes two ends that know nothing of each other.
func pair(t testing.TB, change func(*Config)) (a, b *end) {
	t.Helper()
	a, b = newEnd(t, 1, change), newEnd(t, 2, change)
	a.Join(a, Start{})
	b.Join(b, Start{})
	return a, b
}

func (e *end) received() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.messages)
}

// taken is how many chunks came.
func (e *end) taken() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.chunks)
}

// connect makes a connection for messages, which the test's end closes.
func connect(t testing.TB, from, to *end) raftio.IConnection {
	t.Helper()
	c, err := from.GetConnection(context.Background(), to.cfg.Self.Address)
	must(t, err)
	t.Cleanup(c.Close)
	return c
}

func batch(messages ...pb.Message) pb.MessageBatch {
	return pb.MessageBatch{DeploymentId: 7, SourceAddress: "evil:1", BinVer: raftio.TransportBinVersion, Requests: messages}
}

func heartbeat(from, to uint64) pb.Message {
	return pb.Message{Type: pb.Heartbeat, From: from, To: to, ShardID: 1, Term: 5}
}

// proposed is an entry with a command, as members make it.
func proposed(index, term uint64, command []byte) pb.Entry {
	return pb.Entry{
		Type: pb.EncodedEntry, Index: index, Term: term, Key: 1, ClientID: 1, SeriesID: client.NoOPSeriesID,
		Cmd: append([]byte{plainHeader}, command...),
	}
}

// withTLS gives ends certificates of one authority.
func withTLS(t testing.TB) func(*Config) {
	t.Helper()
	a, _, err := authority.Open(t.TempDir())
	must(t, err)
	return func(cfg *Config) { cfg.TLS = credentialsOf(t, a, cfg.Self.Member.String(), []string{"127.0.0.1"}, nil) }
}

func credentialsOf(t testing.TB, a *authority.Authority, name string, hosts, allowed []string) *Credentials {
	t.Helper()
	cert, key, err := a.Issue(name, hosts, time.Hour)
	must(t, err)
	c, err := LoadCredentials(Files{CA: a.File(), Cert: cert, Key: key, AllowedNames: allowed})
	must(t, err)
	c.interval = 10 * time.Millisecond
	return c
}
