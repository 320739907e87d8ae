package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/client"
)

// Change a value that nobody else has changed meanwhile.
func Example_condition() {
	ctx := context.Background()
	c, err := client.New(client.Config{Endpoints: []string{"http://10.0.0.1:7480", "http://10.0.0.2:7480"}})
	if err != nil {
		log.Fatal(err)
	}
	for {
		entry, err := c.Get(ctx, "config/limit")
		if err != nil {
			log.Fatal(err)
		}
		_, err = c.Put(ctx, "config/limit", append(entry.Value, '0'), client.IfRevision(entry.ModRevision))
		if errors.Is(err, client.ErrConditionFailed) {
			continue // somebody was faster
		}
		if err != nil {
			log.Fatal(err)
		}
		return
	}
}

// Go through any number of keys, as they are at one revision.
func ExampleClient_All() {
	c, err := client.New(client.Config{})
	if err != nil {
		log.Fatal(err)
	}
	for entry, err := range c.All(context.Background(), client.Prefix("config/")) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s = %s\n", entry.Key, entry.Value)
	}
}

// Count something exactly once, whatever the network does: the increment has a
// key under which it may be sent again.
func ExampleIdempotent() {
	c, err := client.New(client.Config{})
	if err != nil {
		log.Fatal(err)
	}
	count := client.If().Then(client.OpIncrement("visits", 1))
	result, err := c.Txn(context.Background(), count.Txn, client.Idempotent())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(result.Results[0].Increment.Value)
}

// Write what a program makes up as it goes.
func ExampleClient_Bulk() {
	c, err := client.New(client.Config{})
	if err != nil {
		log.Fatal(err)
	}
	squares := func(yield func(api.Op, error) bool) {
		for i := range 1_000_000 {
			if !yield(client.OpPut(fmt.Sprintf("squares/%d", i), fmt.Append(nil, i*i)), nil) {
				return
			}
		}
	}
	report, err := c.Bulk(context.Background(), squares, func(r api.BulkReport) { log.Printf("%d so far", r.Applied) })
	if err != nil {
		log.Fatalf("after %d: %v", report.Applied, err)
	}
}

// Keep a copy of some keys, which is right whatever happens to connections, nodes
// and history.
func ExampleClient_Watch() {
	c, err := client.New(client.Config{Endpoints: []string{"http://10.0.0.1:7480", "http://10.0.0.2:7480"}})
	if err != nil {
		log.Fatal(err)
	}
	config := map[string]string{}
	watch := client.WatchOptions{Keys: []client.Keys{client.Prefix("config/")}, Initial: true}
	for m, err := range c.Watch(context.Background(), watch) {
		if err != nil {
			log.Fatal(err)
		}
		if m.Kind == client.WatchReset {
			clear(config)
		}
		for _, e := range m.Entries {
			config[string(e.Key)] = string(e.Value)
		}
		for _, e := range m.Events {
			if e.Type == api.TypePut {
				config[string(e.Key)] = string(e.Value)
			} else {
				delete(config, string(e.Key))
			}
		}
		if m.Kind == client.WatchSynced || m.Kind == client.WatchChange {
			fmt.Println("at revision", m.Revision, config)
		}
	}
}
