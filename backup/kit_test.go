package backup

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/cairnkv/cairn/kv"
	"github.com/cairnkv/cairn/storage"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// shard is a store with a log of one member, which is applied as it comes.
type shard struct {
	t     testing.TB
	store *storage.Store
	index uint64
}

func newShard(t testing.TB) *shard {
	store, err := storage.Open("/shard", storage.Options{FS: vfs.NewMem(), Fatal: func(err error) { t.Error(err) }})
	must(t, err)
	t.Cleanup(func() { must(t, store.Close()) })
	return &shard{t: t, store: store}
}

// apply applies commands as one entry, through the codec.
func (s *shard) apply(commands ...*kv.Command) []*kv.Result {
	s.t.Helper()
	b, err := s.store.NewBatch()
	must(s.t, err)
	defer b.Close()
	s.index++
	b.BeginEntry(s.index, kv.LeaseID{1}, s.index)
	var decoded []*kv.Command
	for _, c := range commands {
		must(s.t, c.Check())
		d, err := kv.DecodeCommand(kv.AppendCommand(nil, c))
		must(s.t, err)
		decoded = append(decoded, d)
	}
	must(s.t, b.Fetch(decoded))
	var results []*kv.Result
	for _, c := range decoded {
		r, err := b.Apply(c)
		must(s.t, err)
		results = append(results, r)
	}
	b.EndEntry()
	_, err = b.Commit()
	must(s.t, err)
	return results
}

// do applies one command, which must succeed.
func (s *shard) do(c *kv.Command) *kv.Result {
	s.t.Helper()
	r := s.apply(c)[0]
	must(s.t, r.Err())
	return r
}

func (s *shard) view() *storage.View {
	s.t.Helper()
	v, err := s.store.View()
	must(s.t, err)
	s.t.Cleanup(v.Close)
	return v
}

func putOf(key, value string, lease kv.LeaseID) kv.Op {
	return kv.Op{Type: kv.OpPut, Key: []byte(key), Value: []byte(value), Lease: lease}
}

func txn(ops ...kv.Op) *kv.Command { return &kv.Command{Kind: kv.KindTxn, Txn: &kv.Txn{Then: ops}} }

// tick lets the replicated clock of a store run.
func (s *shard) tick(millis int64) {
	for ; millis > 0; millis -= kv.MaxClockAdvanceMillis {
		_, prev := s.store.NeedsClock()
		s.do(&kv.Command{Kind: kv.KindClock, Clock: kv.Clock{Prev: prev, AdvanceMillis: min(millis, kv.MaxClockAdvanceMillis)}})
	}
}

// steps are the commands of a restore of a file.
func steps(t testing.TB, file io.Reader, revision uint64) (all []*kv.Command) {
	t.Helper()
	sum := sha256.New()
	r, err := NewReader(io.TeeReader(file, sum))
	must(t, err)
	defer r.Close()
	all = []*kv.Command{{Kind: kv.KindRestore, Restore: &kv.Restore{Step: kv.RestoreBegin}}}
	for part := uint64(1); ; part++ {
		content, err := r.Next()
		if errors.Is(err, io.EOF) {
			all = append(all, &kv.Command{Kind: kv.KindRestore, Restore: &kv.Restore{Step: kv.RestoreEnd, Part: part, Revision: revision}})
			return all
		}
		must(t, err)
		all = append(all, &kv.Command{Kind: kv.KindRestore, Restore: &kv.Restore{
			Step: kv.RestorePart, Part: part, Content: append([]byte(nil), content...),
		}})
	}
}

func leaseName(n int) (id kv.LeaseID) {
	binary.BigEndian.PutUint64(id[8:], uint64(n))
	id[0] = 1
	return id
}

var background = context.Background()
