package examples

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cairnkv/cairn/client"
)

// TestRegistry has masters come and go, with a word and without one, and the
// leader of the cluster killed meanwhile: the scheduler's list is true.
func TestRegistry(t *testing.T) {
	inBothForms(t, func(t *testing.T, c *cluster, start func(string, ...string) *program) {
		scheduler := start("registry", "scheduler")
		a := start("registry", "master", "a", "10.0.0.1")
		a.awaitLine("registered a")
		b := start("registry", "master", "b", "10.0.0.2")
		scheduler.awaitLast("servers: a=10.0.0.1 b=10.0.0.2")
		c.killLeader()
		start("registry", "master", "c", "10.0.0.3")
		scheduler.awaitLast("servers: a=10.0.0.1 b=10.0.0.2 c=10.0.0.3")
		a.signal(syscall.SIGKILL)
		scheduler.awaitLast("servers: b=10.0.0.2 c=10.0.0.3")
		b.signal(syscall.SIGTERM)
		scheduler.awaitLast("servers: c=10.0.0.3")
	})
}

// TestLeader kills the leader of the cluster and then that of the election: another
// candidate takes over, and the third one follows it.
func TestLeader(t *testing.T) {
	inBothForms(t, func(t *testing.T, c *cluster, start func(string, ...string) *program) {
		candidates := map[string]*program{}
		elected := func() (names []string) {
			for name, p := range candidates {
				if p.count("elected") > 0 {
					names = append(names, name)
				}
			}
			return names
		}
		for _, name := range []string{"x", "y", "z"} {
			candidates[name] = start("leader", name)
		}
		await(t, "one is elected", func() bool { return len(elected()) == 1 })
		first := elected()[0]
		for _, p := range candidates {
			p.awaitLine(first + " leads")
		}
		c.killLeader()
		candidates[first].signal(syscall.SIGKILL)
		delete(candidates, first)
		await(t, "another takes over", func() bool { return len(elected()) == 1 })
		second := elected()[0]
		for _, p := range candidates {
			p.awaitLine(second + " leads")
		}
	})
}

// TestElectionEnds ends a leader and a candidate as a terminal does.
func TestElectionEnds(t *testing.T) {
	inBothForms(t, func(t *testing.T, c *cluster, start func(string, ...string) *program) {
		x := start("leader", "x")
		x.awaitLine("elected")
		y := start("leader", "y")
		y.awaitLine("x leads")
		for _, p := range []*program{y, x} {
			p.signal(syscall.SIGINT)
			p.awaitEnd() // with all that it has started
		}
	})
}

// caching runs the cache with a directory and a time to live.
func caching(t *testing.T, c *cluster, start func(string, ...string) *program, dir string) func(ttl string, args ...string) *program {
	return func(ttl string, args ...string) *program {
		c.env = []string{"DIR=" + dir, "TTL=" + ttl}
		if filepath.Base(t.Name()) == "go" {
			args = append([]string{"-dir", dir, "-ttl", ttl}, args...)
		}
		return start("cache", args...)
	}
}

// files are the names in a directory.
func files(t *testing.T, dir string) (names []string) {
	t.Helper()
	all, err := os.ReadDir(dir)
	must(t, err)
	for _, f := range all {
		names = append(names, f.Name())
	}
	return names
}

// TestCache lets a key end that nobody hits any more, and keeps one that is hit.
func TestCache(t *testing.T) {
	inBothForms(t, func(t *testing.T, c *cluster, start func(string, ...string) *program) {
		dir := t.TempDir()
		withTTL := caching(t, c, start, dir)
		cache := func(args ...string) *program { return withTTL("4s", args...) }
		for _, name := range []string{"orphan", "coming"} {
			must(t, os.WriteFile(filepath.Join(dir, name), nil, 0o600))
		}
		long := time.Now().Add(-time.Hour)
		must(t, os.Chtimes(filepath.Join(dir, "orphan"), long, long))
		clean := cache("clean")
		clean.awaitLine("removed orphan")
		clean.awaitLine("clean")
		// What is new may be about to get its key.
		if got := files(t, dir); !slices.Equal(got, []string{"coming"}) {
			t.Fatalf("there is %q", got)
		}
		must(t, os.Remove(filepath.Join(dir, "coming")))
		cache("put", "k", "old").awaitEnd()
		cache("put", "k", "content").awaitEnd()
		clean.awaitLine("removed k: replaced")
		cache("put", "other", "content").awaitEnd()
		c.killLeader()
		// As long as it is hit it lives, while the other one ends.
		await(t, "the other one is over", func() bool {
			hit := cache("get", "k")
			hit.awaitEnd()
			if hit.count("hit: content") != 1 {
				t.Fatalf("printed %q", hit.printed())
			}
			return clean.count("removed other: expired") == 1
		})
		clean.awaitLine("removed k: expired")
		miss := cache("get", "k")
		miss.awaitEnd()
		if miss.count("miss") != 1 {
			t.Errorf("printed %q", miss.printed())
		}
		await(t, "the content is gone", func() bool { return len(files(t, dir)) == 0 })
	})
}

// TestCacheLateCleaner has a cleaner that stands still while a key ends and is put
// again: it takes away what ended, not what came later, nor what it finds when it
// starts.
func TestCacheLateCleaner(t *testing.T) {
	inBothForms(t, func(t *testing.T, c *cluster, start func(string, ...string) *program) {
		dir := t.TempDir()
		cache := caching(t, c, start, dir)
		clean := cache("1h", "clean")
		clean.awaitLine("clean")
		clean.signal(syscall.SIGSTOP)
		cache("1s", "put", "k", "old").awaitEnd()
		await(t, "the key ends", func() bool {
			_, err := c.Get(context.Background(), "cache/k")
			return errors.Is(err, client.ErrNotFound)
		})
		cache("1h", "put", "k", "new").awaitEnd()
		clean.signal(syscall.SIGCONT)
		clean.awaitLine("removed k: expired")
		for _, name := range files(t, dir) {
			long := time.Now().Add(-time.Hour)
			must(t, os.Chtimes(filepath.Join(dir, name), long, long))
		}
		cache("1h", "clean").awaitLine("clean")
		hit := cache("1h", "get", "k")
		hit.awaitEnd()
		if got := hit.printed(); !slices.Equal(got, []string{"hit: new"}) {
			t.Errorf("printed %q", got)
		}
		if got := files(t, dir); len(got) != 1 {
			t.Errorf("there is %q", got)
		}
	})
}

// TestCacheWithoutContent takes away the content of a key: it is a miss, and comes to
// its end although it is asked for all the time.
func TestCacheWithoutContent(t *testing.T) {
	inBothForms(t, func(t *testing.T, c *cluster, start func(string, ...string) *program) {
		dir := t.TempDir()
		cache := caching(t, c, start, dir)
		cache("3s", "put", "k", "content").awaitEnd()
		for _, name := range files(t, dir) {
			must(t, os.Remove(filepath.Join(dir, name)))
		}
		await(t, "the key ends", func() bool {
			miss := cache("3s", "get", "k")
			miss.awaitEnd()
			if got := miss.printed(); !slices.Equal(got, []string{"miss"}) {
				t.Fatalf("printed %q", got)
			}
			_, err := c.Get(context.Background(), "cache/k")
			return errors.Is(err, client.ErrNotFound)
		})
	})
}

// TestLock has three processes increment a counter: no increment is lost, although
// the leader of the cluster is killed.
func TestLock(t *testing.T) {
	const processes, times = 3, 8
	inBothForms(t, func(t *testing.T, c *cluster, start func(string, ...string) *program) {
		var all []*program
		for range processes {
			if filepath.Base(t.Name()) == "go" {
				all = append(all, start("lock", "-n", fmt.Sprint(times)))
			} else {
				all = append(all, start("lock", fmt.Sprint(times)))
			}
		}
		counter := func() string {
			e, err := c.Get(context.Background(), "counter")
			if err != nil {
				return err.Error()
			}
			return string(e.Value)
		}
		await(t, "they have begun", func() bool { n, err := strconv.Atoi(counter()); return err == nil && n >= 3 })
		c.killLeader()
		for _, p := range all {
			p.awaitEnd()
		}
		if got, want := counter(), fmt.Sprint(processes*times); got != want {
			t.Errorf("the counter is at %s, want %s", got, want)
		}
	})
}

// TestQueue has two push and two work: each job is done once, in order.
func TestQueue(t *testing.T) {
	const jobs = 12
	inBothForms(t, func(t *testing.T, c *cluster, start func(string, ...string) *program) {
		workers := []*program{start("queue", "work", "w1"), start("queue", "work", "w2")}
		var pushers []*program
		for _, name := range []string{"a", "b"} {
			args := []string{"push"}
			for i := range jobs {
				args = append(args, fmt.Sprintf("%s%02d", name, i))
			}
			pushers = append(pushers, start("queue", args...))
		}
		pushers[0].awaitLine("a03 is jobs/")
		c.killLeader()
		for _, p := range pushers {
			p.awaitEnd()
		}
		done := func() (n int) {
			for i, w := range workers {
				n += w.count(fmt.Sprintf("w%d does ", i+1))
			}
			return n
		}
		await(t, "all are done", func() bool { return done() >= 2*jobs })
		seen := map[string]int{}
		for i, w := range workers {
			last := map[byte]string{} // by who pushed it
			for _, line := range w.printed() {
				job, ok := strings.CutPrefix(line, fmt.Sprintf("w%d does ", i+1))
				if !ok {
					continue
				}
				seen[job]++
				if job <= last[job[0]] {
					t.Errorf("w%d does %s after %s", i+1, job, last[job[0]])
				}
				last[job[0]] = job
			}
		}
		for _, name := range []string{"a", "b"} {
			for i := range jobs {
				if job := fmt.Sprintf("%s%02d", name, i); seen[job] != 1 {
					t.Errorf("%s was done %d times", job, seen[job])
				}
			}
		}
		if n, _, err := c.Count(context.Background(), client.Prefix("jobs/")); err != nil || n != 0 {
			t.Errorf("%d jobs are left, %v", n, err)
		}
	})
}

// TestQueueBytes pushes jobs that a shell or JSON could take for something else: they
// are done as they are.
func TestQueueBytes(t *testing.T) {
	jobs := []string{`{"key":"a, b","value":"}"}`, "\xff\xfe", "@queue.sh", `back\nslash`, "-n"}
	inBothForms(t, func(t *testing.T, c *cluster, start func(string, ...string) *program) {
		worker := start("queue", "work", "w")
		start("queue", append([]string{"push"}, jobs...)...).awaitEnd()
		for _, job := range jobs {
			worker.awaitLine("w does " + job)
		}
		if got := len(worker.printed()); got != len(jobs) {
			t.Errorf("printed %q", worker.printed())
		}
	})
}

// TestQueueOverACompaction gives up history between the list of a worker, which finds no
// job, and its wait for one: it lists again.
func TestQueueOverACompaction(t *testing.T) {
	inBothForms(t, func(t *testing.T, c *cluster, _ func(string, ...string) *program) {
		target, err := url.Parse(c.nodes[0].url)
		must(t, err)
		pass := httputil.NewSingleHostReverseProxy(target)
		var overtaken sync.Once
		proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/v1/watch" {
				overtaken.Do(func() {
					_, err := c.PutNext(context.Background(), "jobs/", []byte("job"))
					for range 2 {
						if err == nil {
							_, err = c.Put(context.Background(), "other", nil)
						}
					}
					if err == nil {
						_, err = c.Compact(context.Background(), client.KeepRevisions(1))
					}
					if err != nil {
						t.Error(err)
					}
				})
			}
			pass.ServeHTTP(w, r)
		}))
		t.Cleanup(proxy.Close)
		behind := &cluster{t: t, nodes: []*node{{url: proxy.URL}}}
		for _, f := range forms {
			if f.name == filepath.Base(t.Name()) {
				launch(t, f.command(behind, "queue", "work", "w")).awaitLine("w does job")
			}
		}
	})
}

// TestFrozenNode stops the node that is asked first: another one is asked.
func TestFrozenNode(t *testing.T) {
	inBothForms(t, func(t *testing.T, c *cluster, start func(string, ...string) *program) {
		must(t, c.nodes[0].cmd.Process.Signal(syscall.SIGSTOP))
		push := start("queue", "push", "job")
		push.awaitEnd()
		if push.count("job is jobs/") != 1 {
			t.Errorf("printed %q", push.printed())
		}
	})
}
