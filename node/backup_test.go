package node

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cairnkv/cairn/backup"
	"github.com/cairnkv/cairn/kv"
)

// TestBackupUnderLoad takes a backup while keys are written, and restores it. The
// backup is of one moment: each writer writes its two keys in one transaction,
// and the backup has the same of both. With CAIRN_LONG there are 1,000,000 keys;
// what the writers lost and how long the restore took is logged, not judged.
func TestBackupUnderLoad(t *testing.T) {
	t.Parallel()
	keys, calm, rounds := 20_000, 200*time.Millisecond, 1
	if os.Getenv("CAIRN_LONG") != "" {
		keys, calm, rounds = 1_000_000, 10*time.Second, 3
	}
	n := ready(t, config(t))
	rng := rand.New(rand.NewPCG(1, 2))
	for from := 0; from < keys; from += 1000 {
		txn := &kv.Txn{}
		for i := from; i < from+1000; i++ {
			value := make([]byte, 0, 256)
			for len(value) < 200 {
				value = fmt.Appendf(value, `{"n":%d,`, rng.Uint32())
			}
			txn.Then = append(txn.Then, kv.Op{Type: kv.OpPut, Key: fmt.Appendf(nil, "app/config/%07d", i), Value: value})
		}
		r, err := n.shard.Propose(context.Background(), &kv.Command{Kind: kv.KindTxn, Txn: txn})
		must(t, err)
		must(t, r.Err())
	}

	const writers = 32
	var writes atomic.Int64
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for w := range writers {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				value := fmt.Append(nil, i)
				r, err := n.shard.Propose(context.Background(), &kv.Command{Kind: kv.KindTxn, Txn: &kv.Txn{Then: []kv.Op{
					{Type: kv.OpPut, Key: fmt.Appendf(nil, "a/%d", w), Value: value},
					{Type: kv.OpPut, Key: fmt.Appendf(nil, "z/%d", w), Value: value},
				}}})
				if err != nil || r.Code != kv.OK {
					t.Errorf("%v %v", r, err)
					return
				}
				writes.Add(1)
			}
		})
	}
	rate := func(during func()) float64 {
		before, began := writes.Load(), time.Now()
		during()
		return float64(writes.Load()-before) / time.Since(began).Seconds()
	}
	wait := func() { pause(context.Background(), calm) }
	rate(wait) // until it is warm
	file := filepath.Join(t.TempDir(), "backup")
	var took time.Duration
	save := func() {
		began := time.Now()
		f, err := os.Create(file)
		must(t, err)
		b, err := face{n}.Backup()
		must(t, err)
		must(t, b.Save(context.Background(), f))
		b.Close()
		must(t, f.Close())
		took = time.Since(began)
	}
	// In turns, since the machine has other things to do as well.
	var before, during []float64
	for range rounds {
		before = append(before, rate(wait))
		during = append(during, rate(save))
	}
	before = append(before, rate(wait))
	close(stop)
	wg.Wait()

	f, err := os.Open(file)
	must(t, err)
	defer f.Close()
	r, err := backup.NewReader(f)
	must(t, err)
	defer r.Close()
	first := map[string][]byte{}
	pairs := 0
	for {
		content, err := r.Next()
		if err != nil {
			break
		}
		must(t, kv.WalkBackup(content, nil, func(e *kv.Entry) error {
			switch {
			case bytes.HasPrefix(e.Key, []byte("a/")):
				first[string(e.Key[2:])] = bytes.Clone(e.Value)
			case bytes.HasPrefix(e.Key, []byte("z/")):
				pairs++
				if !bytes.Equal(first[string(e.Key[2:])], e.Value) {
					t.Errorf("%s is %s here and %s there", e.Key[2:], first[string(e.Key[2:])], e.Value)
				}
			}
			return nil
		}))
	}
	info := r.Info()
	if pairs != writers || info.Keys != uint64(keys+2*writers) {
		t.Errorf("%d pairs; %+v", pairs, info)
	}

	must(t, n.Close())
	cfg := config(t)
	cfg.RestoreFrom = file
	began := time.Now()
	restored := ready(t, cfg)
	t.Logf("%d keys, %d bytes: backup of %d bytes in %v; writes a second before, between and after: %.0f, during: %.0f; restored and ready in %v",
		info.Keys, info.Bytes, info.Size, took.Round(time.Millisecond), before, during, time.Since(began).Round(time.Millisecond))
	sameContent(t, restored, info)
}
