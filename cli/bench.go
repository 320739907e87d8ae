package cli

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/spf13/cobra"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/client"
)

const benchHelp = `Measure what a cluster does for clients on this machine: each of the named
operations for a while, and how long the answers took.

  put        overwrite keys at random
  get        read keys at random, linearizable
  stale-get  read what the node has, without asking the others

By default as many clients as --clients, each with a connection of its own, ask
again as soon as they have an answer. With --rate requests are due at that rate
instead, whether or not earlier ones were answered, and their latency counts from
when they were due: that is what clients see that know nothing of each other. The
clients begin with the endpoints in turn. A request that fails is not repeated.

The keys are written first, below cairn-bench/ and an id of this run. They hang on
a lease and go with it, at the end or when it was not renewed for a minute. Their
versions stay in the history, as any, until it is compacted: this is no command
for a cluster that is busy, or short of disk.`

const benchExample = `  cairn bench
  cairn bench put --clients 256 --size 1024
  cairn bench get stale-get --rate 2000 --duration 1m
  cairn bench --endpoint http://10.0.0.1:7480,http://10.0.0.2:7480 -o json`

// Limits of a run.
const (
	maxBenchClients = 4096
	// maxBenchKeys is what one lease holds.
	maxBenchKeys = 100_000
	benchTTL     = time.Minute
	// maxBenchRate is beyond what one machine can ask for.
	maxBenchRate = 10_000_000
)

type benchFlags struct {
	clients, keys, size int
	duration            time.Duration
	rate                float64
}

func (f *benchFlags) check() error {
	switch {
	case f.clients < 1 || f.clients > maxBenchClients:
		return usagef("--clients is %d, want 1 to %d", f.clients, maxBenchClients)
	case f.keys < 1 || f.keys > maxBenchKeys:
		return usagef("--keys is %d, want 1 to %d", f.keys, maxBenchKeys)
	case f.size < 0 || f.size > valueLimit:
		return usagef("--size is %d, want 0 to %d", f.size, valueLimit)
	case f.duration <= 0:
		return usagef("--duration is %v, want more than 0", f.duration)
	case !(f.rate >= 0) || f.rate > maxBenchRate: // nor is NaN a rate
		return usagef("--rate is %v, want up to %d, or 0 for as fast as answers come", f.rate, maxBenchRate)
	}
	return nil
}

func (a *app) bench() *cobra.Command {
	var f benchFlags
	cmd := &cobra.Command{
		Use:       "bench [OPERATION]...",
		Short:     "Measure how fast a cluster is",
		Long:      benchHelp,
		Example:   benchExample,
		ValidArgs: benchOperations,
	}
	flags := cmd.Flags()
	flags.IntVar(&f.clients, "clients", 64, "`number` of clients")
	flags.IntVar(&f.keys, "keys", 10_000, "`number` of keys")
	flags.IntVar(&f.size, "size", 256, "`bytes` of a value")
	flags.DurationVar(&f.duration, "duration", 10*time.Second, "how long each operation is measured")
	flags.Float64Var(&f.rate, "rate", 0, "`requests` a second of all clients together (default as fast as answers come)")
	cmd.RunE = func(cmd *cobra.Command, operations []string) error {
		if err := f.check(); err != nil {
			return err
		}
		if len(operations) == 0 {
			operations = []string{"put", "get"}
		}
		for _, operation := range operations {
			if !slices.Contains(benchOperations, operation) {
				return usagef("there is no operation %q, want %s", operation, strings.Join(benchOperations, ", "))
			}
		}
		ctx, stop := untilSignal(cmd)
		defer stop()
		results, err := a.measure(ctx, &f, operations)
		if len(results) > 0 {
			err = errors.Join(err, a.printBench(results))
		}
		return err
	}
	return cmd
}

// measure prepares the keys, runs the operations one after the other, and removes
// the keys. What was measured before an error is returned with it.
func (a *app) measure(ctx context.Context, f *benchFlags, operations []string) (results []benchResult, err error) {
	c, err := a.client()
	if err != nil {
		return nil, err
	}
	value := make([]byte, f.size)
	_, _ = rand.Read(value) // never fails
	held, err := a.benchKeys(ctx, c, f, value)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, held.release(context.WithoutCancel(ctx))) }()
	run := benchRun{benchFlags: f, keys: held, value: value}
	if run.clients, err = a.benchClients(f.clients); err != nil {
		return nil, err
	}
	for _, operation := range operations {
		result := run.measure(ctx, operation)
		results = append(results, *result)
		if ctx.Err() != nil {
			return results, errors.New("interrupted")
		}
		err = errors.Join(err, result.failure)
	}
	return results, err
}

// benchClients makes clients that begin with the endpoints in turn and repeat
// nothing.
func (a *app) benchClients(n int) ([]*client.Client, error) {
	clients := make([]*client.Client, n)
	for i := range clients {
		first := i % len(a.endpoints)
		c, err := a.clientWith(client.Config{
			Endpoints: slices.Concat(a.endpoints[first:], a.endpoints[:first]),
			Attempts:  1,
		})
		if err != nil {
			return nil, err
		}
		clients[i] = c
	}
	return clients, nil
}

// heldKeys are the keys of a run, and the lease that they hang on.
type heldKeys struct {
	c      *client.Client
	prefix string
	lease  string
	alive  *client.KeepAlive
	stop   context.CancelFunc
}

func (k *heldKeys) key(i int) string { return k.prefix + strconv.Itoa(i) }

// benchKeys writes the keys of a run. A crash leaves them for as long as their lease
// lives.
func (a *app) benchKeys(ctx context.Context, c *client.Client, f *benchFlags, value []byte) (_ *heldKeys, err error) {
	granted, err := c.Leases().Grant(ctx, benchTTL)
	if err != nil {
		return nil, err
	}
	k := &heldKeys{c: c, prefix: "cairn-bench/" + ulid.Make().String() + "/", lease: granted.ID}
	holding, stop := context.WithCancel(context.WithoutCancel(ctx))
	k.stop = stop
	defer func() {
		if err != nil {
			err = errors.Join(err, k.release(context.WithoutCancel(ctx)))
		}
	}()
	if k.alive, err = c.Leases().KeepAlive(holding, k.lease); err != nil {
		return nil, err
	}
	ops := func(yield func(api.Op, error) bool) {
		for i := range f.keys {
			put := client.OpPut(k.key(i), value)
			put.Put.Lease = k.lease
			if !yield(put, nil) {
				return
			}
		}
	}
	_, err = c.Bulk(ctx, ops, nil)
	return k, err
}

// release ends the lease, and with it the keys.
func (k *heldKeys) release(ctx context.Context) error {
	k.stop()
	if k.alive != nil {
		<-k.alive.Done()
	}
	_, err := k.c.Leases().Revoke(ctx, k.lease)
	return err
}

func (a *app) printBench(results []benchResult) error {
	return a.print(results, func(w io.Writer) {
		row(w, "OPERATION", "DONE", "FAILED", "PER SECOND", "P50", "P90", "P99", "P99.9", "MAX")
		for _, r := range results {
			l := &r.Latency
			row(w, r.Operation, number(r.Done), number(r.Failed), strconv.FormatFloat(r.PerSecond, 'f', 0, 64),
				millisText(l.P50), millisText(l.P90), millisText(l.P99), millisText(l.P999), millisText(l.Max))
		}
	}, func(w io.Writer) {
		for _, r := range results {
			fmt.Fprintf(w, "%s\t%.0f\n", r.Operation, r.PerSecond)
		}
	})
}

func millisText(ms float64) string { return strconv.FormatFloat(ms, 'f', 1, 64) + "ms" }
