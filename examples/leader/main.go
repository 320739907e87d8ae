// Command leader shows an election: of several schedulers one leads and works, the
// others follow it, and one of them takes over when it is gone.
//
//	leader NAME
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

func main() {
	endpoints := flag.String("endpoints", client.DefaultEndpoint, "URLs of the nodes, separated by commas")
	flag.Parse()
	if flag.NArg() != 1 {
		log.Fatal("usage: leader NAME")
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	c, err := client.New(client.Config{Endpoints: strings.Split(*endpoints, ",")})
	if err != nil {
		log.Fatal(err)
	}
	go follow(ctx, c)
	for ctx.Err() == nil {
		if err := lead(ctx, c, flag.Arg(0)); err != nil && ctx.Err() == nil {
			log.Print(err)
		}
	}
}

// follow says who leads, whenever that changes.
func follow(ctx context.Context, c *client.Client) {
	for leader, err := range c.Observe(ctx, "scheduler") {
		switch {
		case err != nil:
			return
		case leader == nil:
			fmt.Println("nobody leads")
		default:
			fmt.Printf("%s leads\n", leader.Value)
		}
	}
}

// lead waits until it is elected and then works until it ends or loses the lead.
func lead(ctx context.Context, c *client.Client, name string) error {
	l, err := c.Campaign(ctx, "scheduler", []byte(name), client.CampaignOptions{TTL: 3 * time.Second})
	if err != nil {
		return err
	}
	defer func() { _ = l.Resign(context.WithoutCancel(ctx)) }() // else it ends by itself
	fmt.Println("elected")
	for turn := 1; ; turn++ {
		// What only a leader may do carries its fence: if this process was paused and
		// another leads meanwhile, the store refuses it.
		_, err := c.Put(ctx, "scheduler/turn", fmt.Appendf(nil, "%s %d", name, turn), client.Fenced(l.Fence))
		if errors.Is(err, client.ErrFenced) {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-l.Lost():
			return l.Err()
		case <-time.After(time.Second):
		}
	}
}
