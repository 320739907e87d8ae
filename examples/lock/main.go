// Command lock increments a counter under a lock, as several processes may that
// must not do it at the same time. (A transaction with an increment needs no lock;
// what is done here stands for work that is not one transaction.)
//
//	lock [-n TIMES]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/cairnkv/cairn/client"
)

func main() {
	endpoints := flag.String("endpoints", client.DefaultEndpoint, "URLs of the nodes, separated by commas")
	times := flag.Int("n", 1, "how often")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	c, err := client.New(client.Config{Endpoints: strings.Split(*endpoints, ","), Timeout: time.Minute, Attempts: 100})
	if err != nil {
		log.Fatal(err)
	}
	for done := 0; done < *times; {
		switch err := increment(ctx, c); {
		case err == nil:
			done++
		case errors.Is(err, client.ErrFenced), errors.Is(err, client.ErrLeaseNotFound):
			log.Print("lost the lock; again: ", err)
		default:
			log.Fatal(err)
		}
	}
}

// increment reads, thinks, and writes, alone.
func increment(ctx context.Context, c *client.Client) error {
	l, err := c.Lock(ctx, "counter", client.LockOptions{TTL: 5 * time.Second})
	if err != nil {
		return err
	}
	defer func() { _ = l.Release(context.WithoutCancel(ctx)) }() // else it ends by itself
	n := 0
	e, err := c.Get(ctx, "counter")
	switch {
	case err == nil:
		if n, err = strconv.Atoi(string(e.Value)); err != nil {
			return err
		}
	case !errors.Is(err, client.ErrNotFound):
		return err
	}
	// With the fence it is written only if this process holds the lock even now, and
	// with an idempotency key once, whatever becomes of the connection.
	if _, err := c.Put(ctx, "counter", []byte(strconv.Itoa(n+1)), client.Fenced(l.Fence), client.Idempotent()); err != nil {
		return err
	}
	fmt.Println(n+1, "with token", l.Token)
	return nil
}
