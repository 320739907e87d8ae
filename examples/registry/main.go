// Command registry shows service discovery: masters register themselves and stay
// registered as long as they live, and a scheduler keeps its list of them true.
//
//	registry master NAME ADDRESS
//	registry scheduler
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"maps"
	"os/signal"
	"path"
	"slices"
	"strings"
	"syscall"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/client"
)

func main() {
	endpoints := flag.String("endpoints", client.DefaultEndpoint, "URLs of the nodes, separated by commas")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	c, err := client.New(client.Config{Endpoints: strings.Split(*endpoints, ",")})
	if err != nil {
		log.Fatal(err)
	}
	switch {
	case flag.Arg(0) == "master" && flag.NArg() == 3:
		err = master(ctx, c, flag.Arg(1), flag.Arg(2))
	case flag.Arg(0) == "scheduler" && flag.NArg() == 1:
		err = scheduler(ctx, c)
	default:
		log.Fatal("usage: registry master NAME ADDRESS | registry scheduler")
	}
	if err != nil && ctx.Err() == nil {
		log.Fatal(err)
	}
}

// master is registered until it ends. If it is gone without a word, its
// registration is three seconds later.
func master(ctx context.Context, c *client.Client, name, address string) error {
	r, err := c.Register(ctx, "master", name, api.Registration{Address: address, TTLSeconds: 3})
	if err != nil {
		return err
	}
	fmt.Println("registered", name)
	<-ctx.Done() // here a master does its work
	return r.Deregister(context.WithoutCancel(ctx))
}

// scheduler follows the registrations: first those that there are, then every
// change, without a gap.
func scheduler(ctx context.Context, c *client.Client) error {
	servers := map[string]string{}
	synced := false
	for m, err := range c.Watch(ctx, client.WatchOptions{Keys: []client.Keys{client.ServiceKeys("master")}, Initial: true}) {
		if err != nil {
			return err
		}
		switch m.Kind {
		case client.WatchReset: // what follows is all that there is
			clear(servers)
			synced = false
		case client.WatchInitial:
			for _, e := range m.Entries {
				add(servers, e.Key, e.Value)
			}
		case client.WatchSynced:
			synced = true
		case client.WatchChange:
			for _, e := range m.Events {
				if e.Type == api.TypePut {
					add(servers, e.Key, e.Value)
				} else {
					delete(servers, path.Base(string(e.Key)))
				}
			}
		}
		if synced {
			fmt.Println("servers:", strings.Join(list(servers), " "))
		}
	}
	return nil
}

func add(servers map[string]string, key, value []byte) {
	var r api.Registration
	if err := json.Unmarshal(value, &r); err != nil {
		log.Printf("%s is no registration: %v", key, err)
		return
	}
	servers[path.Base(string(key))] = r.Address
}

func list(servers map[string]string) (all []string) {
	for _, name := range slices.Sorted(maps.Keys(servers)) {
		all = append(all, name+"="+servers[name])
	}
	return all
}
