// Command cache shows leases: what is in the cache lives for seven days after it
// was hit last, and what is over is cleaned up. The content is in files of a
// directory; the keys in Cairn say which of them are alive.
//
//	cache put KEY CONTENT
//	cache get KEY
//	cache clean
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/client"
)

const prefix = "cache/"

func main() {
	endpoints := flag.String("endpoints", client.DefaultEndpoint, "URLs of the nodes, separated by commas")
	dir := flag.String("dir", "cache", "where the content is")
	ttl := flag.Duration("ttl", 7*24*time.Hour, "how long a key lives after it was hit last")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	c, err := client.New(client.Config{Endpoints: strings.Split(*endpoints, ",")})
	if err != nil {
		log.Fatal(err)
	}
	k := cache{c, *dir, *ttl}
	switch {
	case flag.Arg(0) == "put" && flag.NArg() == 3:
		err = k.put(ctx, flag.Arg(1), flag.Arg(2))
	case flag.Arg(0) == "get" && flag.NArg() == 2:
		err = k.get(ctx, flag.Arg(1))
	case flag.Arg(0) == "clean" && flag.NArg() == 1:
		err = k.clean(ctx)
	default:
		log.Fatal("usage: cache put KEY CONTENT | cache get KEY | cache clean")
	}
	if err != nil && ctx.Err() == nil {
		log.Fatal(err)
	}
}

type cache struct {
	c   *client.Client
	dir string
	ttl time.Duration
}

// put writes the content first: a key that is alive has content.
func (k cache) put(ctx context.Context, key, content string) error {
	if err := os.WriteFile(k.file(key), []byte(content), 0o600); err != nil {
		return err
	}
	// The key gets a lease of its own, in the same step.
	_, err := k.c.Put(ctx, prefix+key, nil, client.WithTTL(k.ttl), client.Idempotent())
	return err
}

// get renews the lease of what it finds, so that it lives on.
func (k cache) get(ctx context.Context, key string) error {
	e, err := k.c.Get(ctx, prefix+key)
	if errors.Is(err, client.ErrNotFound) {
		fmt.Println("miss")
		return nil
	}
	if err != nil {
		return err
	}
	if _, err := k.c.Leases().Renew(ctx, e.Lease); errors.Is(err, client.ErrLeaseNotFound) {
		fmt.Println("miss") // it ended just now
		return nil
	} else if err != nil {
		return err
	}
	content, err := os.ReadFile(k.file(key))
	if err != nil {
		return err
	}
	fmt.Printf("hit: %s\n", content)
	return nil
}

// clean removes what nothing refers to any more: at first whatever has no key, then
// what loses its key.
func (k cache) clean(ctx context.Context) error {
	alive := map[string]bool{}
	for m, err := range k.c.Watch(ctx, client.WatchOptions{Keys: []client.Keys{client.Prefix(prefix)}, Initial: true}) {
		if err != nil {
			return err
		}
		switch m.Kind {
		case client.WatchReset:
			clear(alive)
		case client.WatchInitial:
			for _, e := range m.Entries {
				alive[strings.TrimPrefix(string(e.Key), prefix)] = true
			}
		case client.WatchSynced:
			if err := k.sweep(alive); err != nil {
				return err
			}
			fmt.Println("clean")
		case client.WatchChange:
			for _, e := range m.Events {
				key := strings.TrimPrefix(string(e.Key), prefix)
				if e.Type == api.TypeDelete {
					if err := os.Remove(k.file(key)); err != nil && !errors.Is(err, fs.ErrNotExist) {
						return err
					}
					fmt.Printf("removed %s: %s\n", key, e.Reason)
				}
			}
		}
	}
	return nil
}

func (k cache) sweep(alive map[string]bool) error {
	files, err := os.ReadDir(k.dir)
	if err != nil {
		return err
	}
	for _, f := range files {
		key, err := url.PathUnescape(f.Name())
		if err != nil || alive[key] {
			continue
		}
		if err := os.Remove(k.file(key)); err != nil {
			return err
		}
		fmt.Printf("removed %s: it has no key\n", key)
	}
	return nil
}

func (k cache) file(key string) string { return filepath.Join(k.dir, url.PathEscape(key)) }
