// Command queue shows a fair queue: jobs are taken in the order in which they came,
// each by one worker.
//
//	queue push JOB...
//	queue work NAME
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/cairnkv/cairn/client"
)

const prefix = "jobs/"

func main() {
	endpoints := flag.String("endpoints", client.DefaultEndpoint, "URLs of the nodes, separated by commas")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	c, err := client.New(client.Config{Endpoints: strings.Split(*endpoints, ","), Timeout: time.Minute, Attempts: 100})
	if err != nil {
		log.Fatal(err)
	}
	switch {
	case flag.Arg(0) == "push" && flag.NArg() > 1:
		err = push(ctx, c, flag.Args()[1:])
	case flag.Arg(0) == "work" && flag.NArg() == 2:
		err = work(ctx, c, flag.Arg(1))
	default:
		log.Fatal("usage: queue push JOB... | queue work NAME")
	}
	if err != nil && ctx.Err() == nil {
		log.Fatal(err)
	}
}

// push stores each job under the next key of a sequence.
func push(ctx context.Context, c *client.Client, jobs []string) error {
	for _, job := range jobs {
		next, err := c.PutNext(ctx, prefix, []byte(job), client.Idempotent())
		if err != nil {
			return err
		}
		fmt.Printf("%s is %s\n", job, next.Key)
	}
	return nil
}

// work takes one job after the other, and waits for the next one.
func work(ctx context.Context, c *client.Client, name string) error {
	for {
		page, err := c.List(ctx, client.Prefix(prefix), client.Limit(1))
		if err != nil {
			return err
		}
		if len(page.Entries) == 0 {
			// If a compaction is faster, the list tells what there is.
			if err := await(ctx, c, page.Revision+1); err != nil && !errors.Is(err, client.ErrCompacted) {
				return err
			}
			continue
		}
		// Whoever deletes the key has the job. (A job that must not be lost with its
		// worker is not deleted but moved, by the same transaction, under a key with
		// the worker's lease.)
		job := page.Entries[0]
		key := string(job.Key)
		t := client.If(client.Key(key).ModRevision().Eq(job.ModRevision)).Then(client.Key(key).Delete())
		result, err := c.Txn(ctx, t.Txn, client.Idempotent())
		if err != nil {
			return err
		}
		if result.Succeeded {
			fmt.Printf("%s does %s\n", name, job.Value)
		}
	}
}

// await returns when there is a job that came with a revision or later.
func await(ctx context.Context, c *client.Client, revision uint64) error {
	for _, err := range c.Watch(ctx, client.WatchOptions{Keys: []client.Keys{client.Prefix(prefix)}, From: revision, Type: "put", KeysOnly: true}) {
		return err
	}
	return ctx.Err()
}
