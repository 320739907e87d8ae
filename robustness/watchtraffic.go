package robustness

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// watchWriters work at the same time, watchPace apart each.
	watchWriters = 4
	watchPace    = 12 * time.Millisecond
	// watchPatience is how long a writer waits for an answer, and watchAvoid how
	// long it then asks other nodes: what is wanted here is many changes, also
	// while a node is cut off.
	watchPatience = time.Second
	watchAvoid    = 3 * time.Second
	// watchEnd is written last; every watcher watches it.
	watchEnd = "w/end"
	// watchRare is written seldom, so that bookmarks come between.
	watchRare = "w/rare"
	// watchPrefix is where everything happens.
	watchPrefix = "w/"
	// largeValue is a value of which four don't fit one message.
	largeValue = 320 << 10
)

// watchKeys are all keys that are ever written, so that the history of each can
// be read.
var watchKeys = func() []string {
	all := []string{watchEnd, watchRare}
	for prefix, n := range map[string]int{"w/a/": 6, "w/b/": 6, "w/c/": 6, "w/lease/": 4, "w/large/": 4} {
		for i := range n {
			all = append(all, fmt.Sprintf("%s%d", prefix, i))
		}
	}
	slices.Sort(all)
	return all
}()

// WatchTraffic writes what watchers see: puts, deletes of keys and of ranges,
// transactions of several keys, some of them large, and keys whose leases
// expire. Meanwhile it learns the truth from the histories of the keys, and
// compacts them as soon as it knows.
type WatchTraffic struct {
	Truth *Truth
	Lists []WatchList

	cluster *Cluster
	writers []*watchWriter
	history *rand.Rand
	quit    chan struct{}
	wg      sync.WaitGroup
	writes  atomic.Int64 // acknowledged
	newest  atomic.Int64 // the revision of one of the last of them
	failed  error        // why the truth is not known; set before the end of Stop
}

type watchWriter struct {
	t        *WatchTraffic
	id       int
	count    int
	random   *rand.Rand
	http     *HTTP
	avoid    []time.Time // until when, by node
	recorded []*WatchWrite
	wrong    []string
}

// NewWatchTraffic prepares the writers.
func NewWatchTraffic(c *Cluster, random *rand.Rand) *WatchTraffic {
	t := &WatchTraffic{
		Truth: NewTruth(), cluster: c, quit: make(chan struct{}),
		history: rand.New(rand.NewPCG(random.Uint64(), random.Uint64())),
	}
	for id := range watchWriters {
		w := &watchWriter{
			t: t, id: id, http: NewHTTP(), random: rand.New(rand.NewPCG(random.Uint64(), random.Uint64())),
			avoid: make([]time.Time, len(c.Nodes)),
		}
		w.http.client.Timeout = watchPatience
		t.writers = append(t.writers, w)
	}
	return t
}

// Start lets the writers work until Stop.
func (t *WatchTraffic) Start() {
	for _, w := range t.writers {
		t.wg.Go(w.work)
	}
	t.wg.Go(t.keepHistory)
}

// Await waits until some more writes are acknowledged.
func (t *WatchTraffic) Await(n int64) error {
	enough := t.writes.Load() + n
	_, err := retry(func() (struct{}, error) {
		if t.writes.Load() < enough {
			return struct{}{}, fmt.Errorf("too few writes are acknowledged")
		}
		return struct{}{}, nil
	})
	return err
}

// Stop ends the writers, if they were started, and writes the end. It returns its
// revision.
func (t *WatchTraffic) Stop() (end uint64, err error) {
	close(t.quit)
	t.wg.Wait()
	if t.failed != nil {
		return 0, t.failed
	}
	h := NewHTTP()
	defer h.Close()
	w := &watchWriter{t: t, id: len(t.writers), http: h, random: t.history, avoid: make([]time.Time, len(t.cluster.Nodes))}
	// A put and a delete, so that whoever watches one type only sees it, too.
	for _, o := range []*WatchWrite{
		{What: "the last put", Puts: map[string]string{watchEnd: "end"}},
		{What: "the last delete", Deletes: []string{watchEnd}},
	} {
		method, path := http.MethodPut, "/v1/kv/"+watchEnd
		if o.Deletes != nil {
			method = http.MethodDelete
		}
		_, err := retry(func() (struct{}, error) {
			a := w.perform(o, Request{Method: method, Path: path, Body: []byte("end")})
			return struct{}{}, a.explain()
		})
		if err != nil {
			return 0, fmt.Errorf("%s: %w", o.What, err)
		}
		if end == 0 {
			end = o.Revision
		}
	}
	t.Truth.writes = append(t.Truth.writes, w.recorded...)
	return end, nil
}

// Settle learns the rest of the truth: what the writers did last, and the leases
// that ended until now.
func (t *WatchTraffic) Settle() error {
	for _, w := range t.writers {
		t.Truth.writes = append(t.Truth.writes, w.recorded...)
		w.http.Close()
	}
	h := NewHTTP()
	defer h.Close()
	_, err := retry(func() (struct{}, error) {
		return struct{}{}, t.Truth.Collect(h, t.cluster.Nodes[0], watchKeys)
	})
	t.Truth.Seal()
	return err
}

func (w *watchWriter) work() {
	tick := time.NewTicker(watchPace)
	defer tick.Stop()
	for {
		select {
		case <-w.t.quit:
			return
		case <-tick.C:
		}
		o, q := w.next()
		if a := w.perform(o, q); a.Err == nil && a.Status < 300 {
			w.t.writes.Add(1)
		}
	}
}

func (t *WatchTraffic) now() int64 { return time.Since(t.cluster.began).Nanoseconds() }

// perform sends a write to some node and records what came of it.
func (w *watchWriter) perform(o *WatchWrite, q Request) Answer {
	n := w.node()
	r := *o
	r.Call = w.t.now()
	a := w.http.Do(n, q)
	r.Return, r.Outcome, r.Revision = w.t.now(), a.outcome(), a.Revision
	if wrong := forbidden(n, q, &a); wrong != "" {
		w.wrong = append(w.wrong, wrong)
	}
	if r.Outcome != Done {
		w.avoid[n.Index] = time.Now().Add(watchAvoid)
	}
	if r.Outcome == Done && q.Method == http.MethodDelete {
		var body struct {
			Deleted int `json:"deleted"`
		}
		if json.Unmarshal(a.Body, &body) != nil || body.Deleted == 0 {
			r.Deletes = nil // the answer names no revision of its own
		}
	}
	if r.Outcome == Done {
		w.t.newest.Store(int64(r.Revision))
	}
	w.recorded = append(w.recorded, &r)
	*o = r
	return a
}

// node picks a node that has not failed lately, if there is one.
func (w *watchWriter) node() *Node {
	nodes := w.t.cluster.Nodes
	order := w.random.Perm(len(nodes))
	for _, i := range order {
		if time.Now().After(w.avoid[i]) {
			return nodes[i]
		}
	}
	return nodes[order[0]]
}

// value is like no other value of a scenario. Behind the bar is what makes it
// long.
func (w *watchWriter) value(place, size int) string {
	head := fmt.Sprintf("w%d-%d.%d|", w.id, w.count, place)
	return head + strings.Repeat("x", max(0, size-len(head)))
}

func (w *watchWriter) key(prefix string, n int) string {
	return fmt.Sprintf("%s%d", prefix, w.random.IntN(n))
}

// next invents a write.
func (w *watchWriter) next() (*WatchWrite, Request) {
	w.count++
	prefix := []string{"w/a/", "w/b/", "w/c/"}[w.random.IntN(3)]
	key := w.key(prefix, 6)
	size := 64 + w.random.IntN(2000)
	o := &WatchWrite{Puts: map[string]string{}}
	if w.random.IntN(600) == 0 {
		return o.put(watchRare, w.value(0, size), "")
	}
	switch p := w.random.IntN(200); {
	case p < 80:
		return o.put(key, w.value(0, size), "")
	case p < 110:
		o.What, o.Deletes = "delete "+key, []string{key}
		return o, Request{Method: http.MethodDelete, Path: "/v1/kv/" + key}
	case p < 116:
		// No Deletes: others may put one of them at once.
		o.What = "delete all of " + prefix
		return o, Request{Method: http.MethodDelete, Path: "/v1/kv?prefix=" + url.QueryEscape(prefix)}
	case p < 134:
		return o.put(w.key("w/lease/", 4), w.value(0, 64), "?ttl=1s")
	case p < 136:
		return w.transaction(o, []string{"w/large/0", "w/large/1", "w/large/2", "w/large/3"}, largeValue)
	case p < 137:
		o.What = "delete all large values"
		return o, Request{Method: http.MethodDelete, Path: "/v1/kv?prefix=w/large/"}
	}
	var keys []string
	for _, i := range w.random.Perm(3)[:1+w.random.IntN(3)] {
		for _, j := range w.random.Perm(6)[:1+w.random.IntN(3)] {
			keys = append(keys, fmt.Sprintf("%s%d", []string{"w/a/", "w/b/", "w/c/"}[i], j))
		}
	}
	return w.transaction(o, keys, size/len(keys))
}

func (o *WatchWrite) put(key, value, query string) (*WatchWrite, Request) {
	o.What = "put " + key
	o.Puts[key] = shortened(value)
	return o, Request{Method: http.MethodPut, Path: "/v1/kv/" + key + query, Body: []byte(value)}
}

// transaction puts keys in their order, and deletes some of those that are not
// large.
func (w *watchWriter) transaction(o *WatchWrite, keys []string, size int) (*WatchWrite, Request) {
	o.What = fmt.Sprintf("transaction over %q", keys)
	var then []string
	for i, key := range keys {
		if i > 0 && size < largeValue && w.random.IntN(4) == 0 {
			then = append(then, fmt.Sprintf(`{"delete":{"key":%q}}`, key))
			o.Deletes = append(o.Deletes, key)
			continue
		}
		value := w.value(i, size)
		then = append(then, fmt.Sprintf(`{"put":{"key":%q,"value":%q}}`, key, value))
		o.Puts[key] = shortened(value)
	}
	return o, Request{
		Method: http.MethodPost, Path: "/v1/txn", Body: []byte(`{"then":[` + strings.Join(then, ",") + `]}`),
		Header: map[string]string{"Content-Type": "application/json"},
	}
}

// keepHistory learns what has happened, looks at some revision of the past, and
// compacts, again and again. Only it compacts, so that nothing is gone before it
// is known.
func (t *WatchTraffic) keepHistory() {
	h := NewHTTP()
	h.client.Timeout = watchPatience
	defer h.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { // ends with the traffic, or with this
		select {
		case <-t.quit:
			cancel()
		case <-ctx.Done():
		}
	}()
	for ctx.Err() == nil {
		pause := time.NewTimer(150*time.Millisecond + time.Duration(t.history.Int64N(int64(500*time.Millisecond))))
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return
		}
		n := t.cluster.Nodes[t.history.IntN(len(t.cluster.Nodes))]
		if t.Truth.Collect(h, n, watchKeys) != nil {
			continue // the node has its own troubles
		}
		t.look(h, n)
		// Mostly a part of the past is left, sometimes none.
		keep := uint64(t.history.IntN(200))
		if t.history.IntN(3) == 0 {
			keep = uint64(t.history.IntN(4))
		}
		if t.Truth.Upto > keep+1 {
			revision := t.Truth.Upto - keep
			t.Truth.compactions = append(t.Truth.compactions, compaction{revision, t.now()})
			h.Do(n, Request{
				Method: http.MethodPost, Path: "/v1/compact", Body: fmt.Appendf(nil, `{"revision":%d}`, revision),
				Header: map[string]string{"Content-Type": "application/json"},
			})
		}
	}
}

// look lists keys at a revision that may still be there.
func (t *WatchTraffic) look(h *HTTP, n *Node) {
	l := WatchList{
		Prefix:   []string{"w/a/", "w/b/", "w/c/", "w/lease/"}[t.history.IntN(4)],
		Revision: t.Truth.Upto - min(t.Truth.Upto-1, uint64(t.history.IntN(60))),
	}
	a := h.Do(n, Request{Method: http.MethodGet, Path: fmt.Sprintf("/v1/kv?prefix=%s&revision=%d", l.Prefix, l.Revision)})
	if a.explain() != nil {
		return
	}
	var body struct {
		Entries []Item `json:"entries"`
	}
	if err := json.Unmarshal(a.Body, &body); err != nil {
		t.failed = err
		return
	}
	for i := range body.Entries {
		body.Entries[i].shorten()
	}
	l.Entries = body.Entries
	t.Lists = append(t.Lists, l)
}
