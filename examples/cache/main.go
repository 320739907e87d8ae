// Command cache shows leases: what is in the cache lives for seven days after it
// was hit last, and what is over is cleaned up. The content is in files of a
// directory; the keys in Cairn name those that are alive.
//
//	cache put KEY CONTENT
//	cache get KEY
//	cache clean
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log"
	"os"
	"os/signal"
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
	root, err := os.OpenRoot(*dir) // the names in Cairn lead nowhere else
	if err != nil {
		log.Fatal(err)
	}
	k := cache{c, root, *ttl}
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
	dir *os.Root
	ttl time.Duration
}

// put writes the content first: a key that is alive has content. Each put has a file
// of its own, which its key names, so that the end of a key takes away its own
// content, however late that is noticed, and not what was put later.
func (k cache) put(ctx context.Context, key, content string) error {
	name := rand.Text()
	if err := k.write(name, content); err != nil {
		return err
	}
	// The key gets a lease of its own, in the same step. If it is unknown whether the
	// key is there, so is whether the file is needed, and it stays for the sweep.
	_, err := k.c.Put(ctx, prefix+key, []byte(name), client.WithTTL(k.ttl), client.Idempotent())
	return err
}

// write makes a file with its content on the disk, or none.
func (k cache) write(name, content string) error {
	f, err := k.dir.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, k.dir.Remove(name))
	}
	return nil
}

// get renews the lease of what it finds, so that it lives on. A key whose content is
// gone is a miss, and is not renewed: it must come to its end.
func (k cache) get(ctx context.Context, key string) error {
	e, err := k.c.Get(ctx, prefix+key)
	if errors.Is(err, client.ErrNotFound) {
		fmt.Println("miss")
		return nil
	}
	if err != nil {
		return err
	}
	content, err := k.dir.ReadFile(string(e.Value))
	if errors.Is(err, fs.ErrNotExist) {
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
	fmt.Printf("hit: %s\n", content)
	return nil
}

const (
	// grace is how old a file is at least that has no key and never will: a put has
	// given up long before.
	grace = 10 * time.Minute
	// sweepEvery is how often the files without a key are looked for.
	sweepEvery = time.Hour
)

// clean removes what nothing refers to any more: at first whatever has no key, then
// what loses its key, and every hour what never had one.
func (k cache) clean(ctx context.Context) error {
	swept := time.Now()
	o := client.WatchOptions{Keys: []client.Keys{client.Prefix(prefix)}, Initial: true, Prev: true, Bookmark: time.Minute}
	for m, err := range k.c.Watch(ctx, o) {
		if err != nil {
			return err
		}
		if m.Kind == client.WatchSynced || time.Since(swept) >= sweepEvery {
			if err := k.sweep(ctx); err != nil {
				return err
			}
			swept = time.Now()
		}
		switch m.Kind {
		case client.WatchSynced:
			fmt.Println("clean")
		case client.WatchChange:
			for _, e := range m.Events {
				k.drop(e)
			}
		}
	}
	return nil
}

// drop removes the file that a key named, if it does no more.
func (k cache) drop(e api.WatchedChange) {
	if e.Prev == nil || string(e.Prev.Value) == string(e.Value) {
		return
	}
	why := e.Reason
	if e.Type == api.TypePut {
		why = "replaced"
	}
	k.remove(string(e.Prev.Value), strings.TrimPrefix(string(e.Key), prefix), why)
}

// sweep removes the files that no key names: those of puts that did not succeed, and
// of keys that ended while nobody looked. The files are listed before the keys, so
// that the key of an old one is seen.
func (k cache) sweep(ctx context.Context) error {
	unnamed, err := k.old()
	if err != nil || len(unnamed) == 0 {
		return err
	}
	for e, err := range k.c.Scan(ctx, client.Prefix(prefix)) {
		if err != nil {
			return err
		}
		delete(unnamed, string(e.Value))
	}
	for name := range unnamed {
		k.remove(name, name, "no key names it")
	}
	return nil
}

// old lists the files whose key would be there, if one came.
func (k cache) old() (map[string]bool, error) {
	files, err := fs.ReadDir(k.dir.FS(), ".")
	if err != nil {
		return nil, err
	}
	old := map[string]bool{}
	for _, f := range files {
		info, err := f.Info()
		switch {
		case errors.Is(err, fs.ErrNotExist): // removed meanwhile
		case err != nil:
			return nil, err
		case info.Mode().IsRegular() && time.Since(info.ModTime()) > grace:
			old[f.Name()] = true
		}
	}
	return old, nil
}

// remove removes a file. One that can't be removed stays for the sweep.
func (k cache) remove(name, what, why string) {
	if err := k.dir.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Print(err)
		return
	}
	fmt.Printf("removed %s: %s\n", what, why)
}
