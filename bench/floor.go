package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cairnkv/cairn/bench/internal/histogram"
)

// The floor is what no server on this machine can do better: net/http with a
// handler that reads and answers the same bytes as Cairn's and keeps values in a
// map, and a loop that makes records durable and does nothing else.

// commandFloorServer is the argument that makes this program the bare server.
const commandFloorServer = "floor-server"

func floorServer(args []string) error {
	switch len(args) {
	case 1:
		return http.ListenAndServe(args[0], &floorHandler{&mapStore{values: map[string][]byte{}}})
	case 2:
		stack, err := openStack(args[1])
		if err != nil {
			return err
		}
		return http.ListenAndServe(args[0], &floorHandler{stack})
	}
	return errors.New("usage: " + commandFloorServer + " address [directory]")
}

// A valueStore keeps the values of the bare server.
type valueStore interface {
	put(key string, value []byte) error
	// get hands the value of a key to use, and says whether there is one.
	get(key string, use func(value []byte)) (bool, error)
}

type floorHandler struct{ store valueStore }

type mapStore struct {
	mu     sync.RWMutex // guards the map, not what is in it
	values map[string][]byte
}

func (s *mapStore) put(key string, value []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.values[key] = value
	return nil
}

func (s *mapStore) get(key string, use func([]byte)) (bool, error) {
	s.mu.RLock()
	value, ok := s.values[key]
	s.mu.RUnlock()
	if ok {
		use(value)
	}
	return ok, nil
}

func (h *floorHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Cairn-Revision", "1234567")
	header.Set("Cairn-Member", "01JD0000000000000000000000")
	header.Set("X-Request-Id", "01JD0000000000000000000000")
	header.Set("X-Content-Type-Options", "nosniff")
	key := strings.TrimPrefix(r.URL.Path, "/v1/kv/")
	switch {
	case r.URL.Path == "/readyz":
		w.WriteHeader(http.StatusOK)
	case r.Method == http.MethodPut:
		value := make([]byte, r.ContentLength)
		if _, err := io.ReadFull(r.Body, value); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if err := h.store.put(key, value); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		header.Set("Content-Type", "application/json")
		header.Set("Etag", `"1234567"`)
		_, _ = io.WriteString(w, `{"revision":1234567,"created":false}`+"\n")
	default:
		found, err := h.store.get(key, func(value []byte) {
			header.Set("Content-Type", "application/octet-stream")
			header.Set("Content-Security-Policy", "default-src 'none'; sandbox")
			header.Set("Etag", `"1234567"`)
			header.Set("Cairn-Mod-Revision", "1234567")
			header.Set("Cairn-Create-Revision", "1234567")
			header.Set("Cairn-Version", "1")
			_, _ = w.Write(value)
		})
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		} else if !found {
			http.NotFound(w, r)
		}
	}
}

// floorSession is Cairn's, but for loading: the bare server has no bulk route.
type floorSession struct{ session }

func (floorSession) batch() int { return 1 }

func (s floorSession) load(keys []int) error {
	return s.loadValues(keys, s.session.(*cairnSession).data.loaded)
}

func (s floorSession) loadValues(keys []int, value func(int) []byte) error {
	for _, key := range keys {
		if err := s.put(key, value(key)); err != nil {
			return err
		}
	}
	return nil
}

func dialFloor(data *dataset) dialer {
	dial := dialCairn(data, 1)
	return func(ctx context.Context, addr string, n int) (*clients, error) {
		c, err := dial(ctx, addr, n)
		if err != nil {
			return nil, err
		}
		for i, s := range c.sessions {
			c.sessions[i] = floorSession{s}
		}
		return c, nil
	}
}

// recordSize is what a put takes in a log: key, value, and something around them.
const recordSize = keySize + valueSize + 64

var diskColumns = []column{
	{name: "records/s", format: whole},
	{name: "syncs/s", format: whole},
	{name: "p50 ms", format: three},
	{name: "p99 ms", format: three},
}

// diskLoops are the ways in which a log can be written: at the end of a growing
// file, so that each sync also writes the new size, or over blocks that are there.
var diskLoops = []struct {
	name      string
	records   int // made durable by one sync
	overwrite bool
}{
	{"append 1", 1, false},
	{"append 64", 64, false},
	{"append 256", 256, false},
	{"overwrite 1", 1, true},
	{"overwrite 64", 64, true},
	{"overwrite 256", 256, true},
}

// diskFloor writes records and calls fdatasync after each group of them. A file
// has a bounded size and is then begun anew.
func diskFloor(ctx context.Context, dir string, records int, overwrite bool, duration time.Duration) (sample, error) {
	const fileSize = 64 << 20
	path := filepath.Join(dir, "floor")
	f, err := os.Create(path)
	if err != nil {
		return sample{}, err
	}
	defer os.Remove(path)
	defer f.Close()
	if overwrite {
		if _, err := f.Write(make([]byte, fileSize)); err != nil {
			return sample{}, err
		}
	}
	if err := quiet(dir); err != nil {
		return sample{}, err
	}
	group := make([]byte, records*recordSize)
	var latency histogram.Histogram
	begin := time.Now()
	last, at := begin, int64(0)
	for last.Sub(begin) < duration && ctx.Err() == nil {
		if at+int64(len(group)) > fileSize {
			at = 0
			if !overwrite {
				if err := f.Truncate(0); err != nil {
					return sample{}, err
				}
			}
		}
		if _, err := f.WriteAt(group, at); err != nil {
			return sample{}, err
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return sample{}, fmt.Errorf("fdatasync: %w", err)
		}
		at += int64(len(group))
		now := time.Now()
		latency.Record(now.Sub(last))
		last = now
	}
	syncs := float64(latency.Count()) / last.Sub(begin).Seconds()
	return sample{values: []float64{
		syncs * float64(records),
		syncs,
		latency.Quantile(0.50).Seconds() * 1e3,
		latency.Quantile(0.99).Seconds() * 1e3,
	}}, ctx.Err()
}
