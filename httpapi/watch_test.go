package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/internal/sse"
	"github.com/cairnkv/cairn/internal/testkit"
	"github.com/cairnkv/cairn/kv"
	"github.com/cairnkv/cairn/watchers"
)

// A watching is the client's side of a watch.
type watching struct {
	t      testing.TB
	resp   *http.Response
	cancel context.CancelFunc
	events *sse.Reader
}

// watch opens a watch and fails the test if it is refused.
func (k *kit) watch(query string, headers ...string) *watching {
	k.t.Helper()
	return k.watchWith(http.MethodGet, query, nil, headers...)
}

func (k *kit) watchWith(method, query string, body []byte, headers ...string) *watching {
	k.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	req, err := http.NewRequestWithContext(ctx, method, "http://"+k.addr+"/v1/watch?"+query, bytes.NewReader(body))
	if err != nil {
		k.t.Fatal(err)
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", api.TypeJSON)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	resp, err := k.client.Do(req)
	if err != nil {
		k.t.Fatal(err)
	}
	w := &watching{k.t, resp, cancel, sse.NewReader(resp.Body, 64<<20)}
	k.t.Cleanup(w.close)
	if resp.StatusCode != 200 {
		b, _ := io.ReadAll(resp.Body)
		k.t.Fatalf("watch %s: %d %s", query, resp.StatusCode, b)
	}
	return w
}

func (w *watching) close() {
	w.cancel()
	_ = w.resp.Body.Close()
}

// next returns the next message as "type id data", without the times.
func (w *watching) next() string {
	w.t.Helper()
	e, err := w.events.Next()
	if err != nil {
		w.t.Fatalf("the stream is over: %v", err)
	}
	return fmt.Sprintf("%s %s %s", e.Type, e.ID, untimed(e.Data))
}

// ended waits for the end of the stream and returns how it came.
func (w *watching) ended() error {
	w.t.Helper()
	for {
		if _, err := w.events.Next(); err != nil {
			return err
		}
	}
}

// untimed shortens a message to what the tests are about.
func untimed(data []byte) string {
	var v any
	if err := json.Unmarshal(data, &v); err != nil {
		return string(data)
	}
	var strip func(any)
	strip = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			for _, name := range []string{"modified_at", "create_revision", "mod_revision", "version", "revision"} {
				delete(v, name)
			}
			for _, m := range v {
				strip(m)
			}
		case []any:
			for _, m := range v {
				strip(m)
			}
		}
	}
	strip(v)
	b, _ := json.Marshal(v)
	return strings.ReplaceAll(string(b), `"`, "")
}

func (w *watching) want(messages ...string) {
	w.t.Helper()
	for _, want := range messages {
		if got := w.next(); got != want {
			w.t.Fatalf("got  %s\nwant %s", got, want)
		}
	}
}

func (k *kit) del(key string) {
	k.t.Helper()
	if a := k.do("DELETE", "/v1/kv/"+key, nil); a.StatusCode != 200 {
		k.t.Fatalf("delete: %d %s", a.StatusCode, a.body)
	}
}

func TestWatch(t *testing.T) {
	k := newKit(t)
	w := k.watch("prefix=a/&prefix_base64=Yi8&key=x&prev")
	h := w.resp.Header
	if h.Get("Content-Type") != "text/event-stream" || h.Get("X-Accel-Buffering") != "no" || h.Get("Cache-Control") != "no-store, no-transform" {
		t.Errorf("headers %v", h)
	}
	k.put("a/1", "one")
	k.put("c", "unseen")
	k.put("b/1", "two")
	k.put("x", "three")
	k.put("a/1", "four")
	k.del("a/1")
	w.want(
		"change 2 {events:[{key:a/1,type:put,value:one}]}",
		"change 4 {events:[{key:b/1,type:put,value:two}]}",
		"change 5 {events:[{key:x,type:put,value:three}]}",
		"change 6 {events:[{key:a/1,prev:{key:a/1,value:one},type:put,value:four}]}",
		"change 7 {events:[{key:a/1,prev:{key:a/1,value:four},reason:deleted,type:delete}]}",
	)
}

// A transaction's events come in one message, those of them that match.
func TestWatchIsAtomic(t *testing.T) {
	k := newKit(t)
	all, some := k.watch("prefix="), k.watch("prefix=a")
	body := `{"then":[{"put":{"key":"a1","value":"1"}},{"put":{"key":"b","value":"2"}},{"put":{"key":"a2","value":"3"}}]}`
	if a := k.do("POST", "/v1/txn", []byte(body), "Content-Type: application/json"); a.StatusCode != 200 {
		t.Fatal(string(a.body))
	}
	for _, from := range []string{"", "&from_revision=2"} {
		if from != "" {
			all, some = k.watch("prefix="+from), k.watch("prefix=a"+from)
		}
		all.want("change 2 {events:[{key:a1,type:put,value:1},{key:b,type:put,value:2},{key:a2,type:put,value:3}]}")
		some.want("change 2 {events:[{key:a1,type:put,value:1},{key:a2,type:put,value:3}]}")
	}
}

func TestWatchMany(t *testing.T) {
	k := newKit(t)
	body := `{"watches":[{"prefix":"a","name":"A"},{"key":"ab","name":"AB"},{"start":"c","end":"d"},{"key_base64":"/w","name":"bin"}],
		"type":"put","keys_only":true,"prev":true,"bookmark_seconds":3600,"from_revision":"earliest"}`
	k.put("ab", "1")
	w := k.watchWith("POST", "encoding=base64", []byte(body))
	w.want("change 2 {events:[{key_base64:YWI=,names:[A,AB],type:put}]}")
	k.put("c", "2")
	k.del("ab")
	k.put("\xff", "3")
	k.put("ab", "4")
	w.want("change 3 {events:[{key_base64:Yw==,type:put}]}",
		"change 5 {events:[{key_base64:/w==,names:[bin],type:put}]}",
		"change 6 {events:[{key_base64:YWI=,names:[A,AB],type:put}]}")
}

// A watch of everything leaves the reserved keys out; one of them, or a prefix of
// them, is watched by its name.
func TestWatchReservedKeys(t *testing.T) {
	k := newKit(t)
	bare, reserved := k.watch(""), k.watch("prefix=_cairn/")
	k.member.apply(t, &kv.Command{Kind: kv.KindTxn, Txn: &kv.Txn{Then: []kv.Op{{Type: kv.OpPut, Key: []byte("_cairn/locks/l/x"), Value: []byte("1")}}}})
	k.put("a", "2")
	bare.want("change 3 {events:[{key:a,type:put,value:2}]}")
	reserved.want("change 2 {events:[{key:_cairn/locks/l/x,type:put,value:1}]}")
}

// The present state, then synced, then what changes behind it: no gap, nothing
// twice, each key once however many of the ranges have it.
func TestWatchInitial(t *testing.T) {
	k := newKit(t)
	k.put("a/1", "one")
	k.put("a/2", "two")
	k.put("b", "three")
	w := k.watch("initial=true&prefix=a/&key=a/1&key=b")
	w.want("initial  {entries:[{key:a/1,value:one},{key:a/2,value:two}]}")
	k.put("a/1", "four") // the state is one of a revision, whatever happens meanwhile
	w.want(
		"initial  {entries:[{key:b,value:three}]}",
		"synced 4 {}",
		"change 5 {events:[{key:a/1,type:put,value:four}]}",
	)
	// A resume skips the state.
	k.watch("initial=true&prefix=a/", "Last-Event-ID: 4").want("change 5 {events:[{key:a/1,type:put,value:four}]}")
	lines := k.watch("initial=true&prefix=a/", "Accept: application/x-ndjson")
	if got := lines.line(); got != "{entries:[{key:a/1,value:four},{key:a/2,value:two}],event:initial}" {
		t.Errorf("got %s", got)
	}
	if got := lines.line(); got != "{event:synced}" {
		t.Errorf("got %s", got)
	}
}

// line reads a line of NDJSON.
func (w *watching) line() string {
	w.t.Helper()
	var line []byte
	for b := make([]byte, 1); ; {
		if _, err := w.resp.Body.Read(b); err != nil {
			w.t.Fatal(err)
		}
		if b[0] == '\n' {
			return untimed(line)
		}
		line = append(line, b[0])
	}
}

func TestWatchLines(t *testing.T) {
	k := newKit(t)
	w := k.watch("prefix=a&from_revision=2", "Accept: application/x-ndjson")
	k.put("a", "1")
	if got := w.line(); got != "{event:change,events:[{key:a,type:put,value:1}]}" {
		t.Errorf("got %s", got)
	}
}

// The header wins over the parameter, which wins over the revision.
func TestWatchResume(t *testing.T) {
	k := newKit(t)
	for i := range 6 {
		k.put("a", fmt.Sprint(i+2))
	}
	for _, c := range []struct {
		query, header, want string
	}{
		{"from_revision=earliest", "", "2"}, {"from_revision=3", "", "3"}, {"from_revision=3&last_event_id=3", "", "4"},
		{"from_revision=3&last_event_id=3", "4", "5"}, {"last_event_id=5", "", "6"}, {"last_event_id=0", "", "2"}, {"from_revision=3", "0", "2"},
	} {
		w := k.watch(c.query+"&key=a", "Last-Event-ID: "+c.header)
		if got := w.next(); !strings.HasPrefix(got, "change "+c.want+" ") {
			t.Errorf("%v: got %s", c, got)
		}
	}
}

func TestWatchCompacted(t *testing.T) {
	k := newKit(t)
	for i := range 6 {
		k.put("a", fmt.Sprint(i+2))
	}
	k.del("a")
	k.put("b", "9")
	k.do("POST", "/v1/compact", []byte(`{"revision":8}`), "Content-Type: application/json")
	a := k.do("GET", "/v1/watch?from_revision=7", nil)
	a.want(t, 410, api.CodeCompacted)
	if p := a.problem(t); p.CompactRevision != 8 || *p.CurrentRevision != 9 {
		t.Errorf("problem %+v", p)
	}
	k.do("GET", "/v1/watch?last_event_id=6&wait=1s", nil).want(t, 410, api.CodeCompacted)
	// The delete at the compacted revision is there.
	k.watch("from_revision=8").want("change 8 {events:[{key:a,reason:deleted,type:delete}]}")
	k.watch("from_revision=earliest").want("change 8 {events:[{key:a,reason:deleted,type:delete}]}")
	// A client that comes again is told in the stream, which then ends.
	w := k.watch("key=a", "Last-Event-ID: 5")
	w.want("compacted 7 {compact_revision:8,current_revision:9,resume_from:8}")
	if err := w.ended(); !errors.Is(err, io.EOF) {
		t.Errorf("the stream ends with %v", err)
	}
	// With the initial state it goes on, and forgets its id until that is whole.
	w = k.watch("prefix=&initial", "Last-Event-ID: 5")
	w.want("compacted  {compact_revision:8,current_revision:9,resume_from:8}", "initial  {entries:[{key:b,value:9}]}", "synced 9 {}")
	k.put("c", "10")
	w.want("change 10 {events:[{key:c,type:put,value:10}]}")
}

// A stream that is overtaken by compaction is told so.
func TestWatchOvertaken(t *testing.T) {
	k := newKit(t)
	w := k.watch("from_revision=2&initial=false")
	k.put("a", "2")
	w.want("change 2 {events:[{key:a,type:put,value:2}]}")
	// The hub is not told of these, as after a snapshot.
	k.member.quietly(t, 5)
	k.do("POST", "/v1/compact", []byte(`{"revision":6}`), "Content-Type: application/json")
	k.member.hub.Jumped(8)
	w.want("compacted 5 {compact_revision:6,current_revision:7,resume_from:6}")
}

// A revision that is larger than a message comes in parts, of which the last alone
// has an id.
func TestWatchParts(t *testing.T) {
	k := newKit(t)
	var ops []kv.Op
	for i := range 5 {
		ops = append(ops, kv.Op{Type: kv.OpPut, Key: fmt.Appendf(nil, "a%d", i), Value: bytes.Repeat([]byte{'v'}, 700<<10)})
	}
	live := k.watch("prefix=a")
	k.member.apply(t, &kv.Command{Kind: kv.KindTxn, Txn: &kv.Txn{Then: ops}})
	for _, w := range []*watching{live, k.watch("prefix=a&from_revision=2"), k.watch("prefix=a&prev&from_revision=2")} {
		count, parts := 0, 0
		for more := true; more; parts++ {
			e, err := w.events.Next()
			if err != nil {
				t.Fatal(err)
			}
			var c struct {
				Revision uint64
				Events   []json.RawMessage
				More     bool
			}
			if err := json.Unmarshal(e.Data, &c); err != nil {
				t.Fatal(err)
			}
			count += len(c.Events)
			more = c.More
			if c.Revision != 2 || more == (e.ID == "2") {
				t.Errorf("revision %d, more %v, id %q", c.Revision, more, e.ID)
			}
		}
		if count != 5 || parts < 2 {
			t.Errorf("%d events in %d parts", count, parts)
		}
	}
	var b struct{ Changes []struct{ Events []any } }
	a := k.do("GET", "/v1/watch?prefix=a&from_revision=2&wait=1s", nil)
	if a.read(t, &b); len(b.Changes) < 1 {
		t.Fatalf("%.200s", a.body)
	}
	count := 0
	for _, c := range b.Changes {
		count += len(c.Events)
	}
	if count != 5 {
		t.Errorf("%d events in a poll", count)
	}

	// The same where a previous version makes an event larger than a message may be.
	k.member.apply(t, &kv.Command{Kind: kv.KindTxn, Txn: &kv.Txn{Then: []kv.Op{
		{Type: kv.OpPut, Key: []byte("a0"), Value: bytes.Repeat([]byte{'w'}, 1<<20)}, {Type: kv.OpPut, Key: []byte("a1"), Value: bytes.Repeat([]byte{1}, 300<<10)},
	}}})
	k.member.apply(t, &kv.Command{Kind: kv.KindTxn, Txn: &kv.Txn{Then: []kv.Op{
		{Type: kv.OpDelete, Range: kv.Prefix([]byte("a"))},
	}}})
	a = k.do("GET", "/v1/watch?prefix=a&prev&from_revision=4&wait=1s", nil)
	b.Changes = nil
	a.read(t, &b)
	count = 0
	for _, c := range b.Changes {
		count += len(c.Events)
	}
	if count != 5 || len(b.Changes) < 2 {
		t.Errorf("%d events in %d parts of a poll", count, len(b.Changes))
	}
}

// sizes keeps how much a stream writes at a time, and all of it, if it is not very much.
type sizes struct {
	most, events, messages int
}

func (s *sizes) write(b []byte) error {
	s.most = max(s.most, len(b))
	s.events += bytes.Count(b, []byte(`"type":"delete"`))
	s.messages += bytes.Count(b, []byte("event: change\n"))
	return nil
}

func (*sizes) abort() {}

// What an event says besides the change, a previous version or names, can be a thousand
// times as much. However much that is, a stream writes it bit by bit.
func TestWatchOfLargePreviousVersions(t *testing.T) {
	k := newKit(t)
	const keys = 40
	for i := range keys {
		k.member.apply(t, &kv.Command{Kind: kv.KindTxn, Txn: &kv.Txn{Then: []kv.Op{
			{Type: kv.OpPut, Key: fmt.Appendf(nil, "big/%d", i), Value: bytes.Repeat([]byte{'v'}, kv.MaxValueBytes)},
		}}})
	}
	names := make([]watched, 500)
	for i := range names {
		names[i] = watched{name: strings.Repeat("n", maxWatchName), parts: []kv.Range{kv.Prefix([]byte("big/"))}}
	}
	before, _ := k.server.cfg.Store.Revisions()
	streams := map[string]*watchStream{}
	open := func(name string, w *watch) *watchers.Stream {
		w.delivery, w.prev = asEvents, true
		s := &watchStream{s: k.server, w: w, enc: watchEncoder{w: w, store: k.server.cfg.Store}, to: &sizes{}}
		s.enc.spill = s.spill
		streams[name] = s
		from, err := w.open(k.server.cfg.Watchers, before+1, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(from.Close)
		return from
	}
	big := watched{parts: []kv.Range{kv.Prefix([]byte("big/"))}}
	froms := map[string]*watchers.Stream{"live": open("live", &watch{watched: []watched{big}})}
	got := make(chan []watchers.Delivery)
	go func() {
		next, err := froms["live"].Next(t.Context(), nil)
		if err != nil {
			t.Error(err)
		}
		got <- next
	}()
	testkit.Eventually(t, "the watch is live", func() bool { return k.server.cfg.Watchers.Stats().Live > 0 })
	k.member.apply(t, &kv.Command{Kind: kv.KindTxn, Txn: &kv.Txn{Then: []kv.Op{{Type: kv.OpDelete, Range: kv.Prefix([]byte("big/"))}}}})
	live := <-got // and so whoever comes now finds it in history
	froms["history"] = open("history", &watch{watched: []watched{big}})
	froms["named"] = open("named", &watch{watched: append(names, big), named: true})
	for name, s := range streams {
		from := froms[name]
		next := live
		if name != "live" {
			var err error
			if next, err = from.Next(t.Context(), nil); err != nil {
				t.Fatal(err)
			}
		}
		if shared := next[0].Shared; shared != (name == "live") {
			t.Fatalf("%s: shared %v", name, shared)
		}
		if err := s.send(from, next); err != nil {
			t.Fatal(err)
		}
		to := s.to.(*sizes)
		if to.events != keys || to.messages < keys/3 || to.most > maxMessageBytes+2*kv.MaxValueBytes {
			t.Errorf("%s: %d events in %d messages, up to %d bytes at a time", name, to.events, to.messages, to.most)
		}
	}
}

// A message of the present state is bounded as well.
func TestWatchInitialWithManyNames(t *testing.T) {
	k := newKit(t)
	var lines []byte
	const entries = 100
	for i := range entries {
		lines = fmt.Appendf(lines, "{\"put\":{\"key\":\"k/%d\",\"value\":\"\"}}\n", i)
	}
	k.bulk(lines)
	var body bytes.Buffer
	body.WriteString(`{"initial":true,"watches":[`)
	for i := range 200 {
		if i > 0 {
			body.WriteByte(',')
		}
		fmt.Fprintf(&body, `{"prefix":"k/","name":"%s%d"}`, strings.Repeat("n", 250), i)
	}
	body.WriteString(`]}`)
	w := k.watchWith(http.MethodPost, "", body.Bytes())
	count, messages := 0, 0
	for {
		e, err := w.events.Next()
		if err != nil {
			t.Fatal(err)
		}
		if string(e.Type) == api.EventSynced {
			break
		}
		var state struct{ Entries []struct{ Names []string } }
		if err := json.Unmarshal(e.Data, &state); err != nil {
			t.Fatal(err)
		}
		for _, entry := range state.Entries {
			if len(entry.Names) != 200 {
				t.Fatalf("%d names", len(entry.Names))
			}
		}
		count += len(state.Entries)
		messages++
		if len(e.Data) > maxMessageBytes+200*300 {
			t.Errorf("a message of %d bytes", len(e.Data))
		}
	}
	if count != entries || messages < 4 {
		t.Errorf("%d entries in %d messages", count, messages)
	}
}

func TestWatchPoll(t *testing.T) {
	k := newKit(t)
	k.put("a", "2")
	k.put("b", "3")
	for _, c := range []struct{ query, want string }{
		{"from_revision=2&wait=0", "{changes:[{events:[{key:a,type:put,value:2}]},{events:[{key:b,type:put,value:3}]}]}"},
		{"from_revision=3&wait=5m", "{changes:[{events:[{key:b,type:put,value:3}]}]}"},
		{"wait=0", "{changes:[]}"}, {"wait=1s&from_revision=100", "{changes:[]}"}, {"key=z&from_revision=earliest&wait=0s", "{changes:[]}"},
	} {
		if got := untimed(k.do("GET", "/v1/watch?"+c.query, nil).body); got != c.want {
			t.Errorf("%s: got %s", c.query, got)
		}
	}
	answers := make(chan string)
	go func() { answers <- string(k.do("GET", "/v1/watch?key=c&from_revision=4&wait=5m", nil).body) }()
	testkit.Eventually(t, "the poll is live", func() bool { return k.server.cfg.Watchers.Stats().Live > 0 })
	k.put("c", "4")
	if got := <-answers; !strings.Contains(got, `"revision":4}`) || !strings.Contains(got, `"value":"4"`) {
		t.Errorf("got %s", got)
	}
}

// Bookmarks come on quiet streams, and never say what is not so.
func TestWatchBookmark(t *testing.T) {
	k := newKit(t)
	w := k.watch("key=a&bookmark=1s")
	k.put("b", "2")
	w.want("bookmark 2 {}")
	future := k.watch("key=a&bookmark=1s&from_revision=50")
	k.put("a", "3")
	w.want("change 3 {events:[{key:a,type:put,value:3}]}", "bookmark 3 {}")
	for i := k.put("a", "4"); i < 50; {
		i = k.put("a", "x")
	}
	future.want("change 50 {events:[{key:a,type:put,value:x}]}", "bookmark 50 {}")
}

// written keeps what a stream writes.
type written []string

func (*written) abort() {}

func (w *written) write(b []byte) error {
	*w = append(*w, string(b))
	return nil
}

// A bookmark comes at its interval also where that is longer than a stream may be
// silent, and one that can't be said yet is not tried again and again.
func TestWatchRareBookmark(t *testing.T) {
	k := newKit(t)
	current, _ := k.server.cfg.Store.Revisions()
	for _, c := range []struct {
		name     string
		position uint64
		delivery delivery
		want     string
	}{
		{"events", current, asEvents, "15s comment, 30s comment, 40s bookmark, 55s comment, 1m10s comment, 1m20s bookmark"},
		{"a revision that is not reached", current + 9, asEvents, "15s comment, 30s comment, 40s comment, 55s comment, 1m10s comment, 1m20s comment"},
		{"lines", current, asLines, "15s bookmark, 30s bookmark, 45s bookmark, 1m0s bookmark, 1m15s bookmark"},
	} {
		synctest.Test(t, func(t *testing.T) {
			var out written
			var got []string
			w := &watch{delivery: c.delivery, bookmark: 40 * time.Second}
			s := &watchStream{
				s: k.server, w: w, enc: watchEncoder{w: w, store: k.server.cfg.Store}, to: &out,
				position: c.position, placed: true, spoke: time.Now(), told: time.Now(),
			}
			for began := time.Now(); len(got) < len(strings.Split(c.want, ",")); {
				time.Sleep(s.pause())
				if err := s.tick(); err != nil {
					t.Fatal(err)
				}
				kind := "comment"
				if strings.Contains(out[len(out)-1], api.EventBookmark) {
					kind = "bookmark"
				}
				got = append(got, fmt.Sprint(time.Since(began), " ", kind))
			}
			if got := strings.Join(got, ", "); got != c.want {
				t.Errorf("%s: got %s, want %s", c.name, got, c.want)
			}
		})
	}
}

// A stream that has not said all of the present state says no position, however long it
// has to wait for its turn.
func TestWatchNoBookmarkBeforeTheStateIsWhole(t *testing.T) {
	k := newKit(t)
	for _, d := range []delivery{asEvents, asLines} {
		var out written
		w := &watch{delivery: d, bookmark: time.Second, initial: true}
		s := &watchStream{s: k.server, w: w, enc: watchEncoder{w: w, store: k.server.cfg.Store}, to: &out}
		if err := s.tick(); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(out, ""); len(out) != 1 || strings.Contains(got, api.EventBookmark) || strings.Contains(got, "id:") {
			t.Errorf("it says %q", got)
		}
	}
}

// A quiet stream says when the node has been out of touch with its cluster for a
// while, once, and when it is back; a moment is not worth a word.
func TestWatchDoubtful(t *testing.T) {
	m := newMember(t)
	k := newKitOn(t, m)
	k.server.doubtAfter = 20 * time.Millisecond
	w := k.watch("key=a&bookmark=1s")
	// said is the next message that isn't a bookmark.
	said := func() string {
		t.Helper()
		for {
			if got := w.next(); !strings.HasPrefix(got, "bookmark 1") {
				return got
			}
		}
	}
	w.want("bookmark 1 {}")
	m.notReady.Store(true)
	if got := said(); got != "doubtful 1 {resume_from:2}" {
		t.Errorf("out of touch: %s", got)
	}
	// It isn't said again: the next is a bookmark, a second later.
	w.want("bookmark 1 {}")
	m.notReady.Store(false)
	if got := said(); got != "certain 1 {resume_from:2}" {
		t.Errorf("in touch again: %s", got)
	}
	k.put("a", "2")
	w.want("change 2 {events:[{key:a,type:put,value:2}]}", "bookmark 2 {}")
}

// A server that drains says so and where to go on; a poll is answered.
func TestWatchDraining(t *testing.T) {
	m := newMember(t)
	k := newKitOn(t, m)
	w := k.watch("key=a")
	k.put("a", "2")
	w.want("change 2 {events:[{key:a,type:put,value:2}]}")
	polled := make(chan string)
	go func() { polled <- untimed(k.do("GET", "/v1/watch?key=c&wait=5m", nil).body) }()
	testkit.Eventually(t, "both watch", func() bool { return m.hub.Stats().Streams == 2 })
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := k.server.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	w.want("draining 2 {resume_from:3}")
	if err := w.ended(); !errors.Is(err, io.EOF) {
		t.Errorf("the stream ends with %v", err)
	}
	if got := <-polled; got != "{changes:[]}" {
		t.Errorf("the poll got %s", got)
	}
	if w.events.Retry() < minRetry || w.events.Retry() > maxRetry {
		t.Errorf("retry %v", w.events.Retry())
	}
}

// A client that goes away takes its stream with it.
func TestWatchClientGone(t *testing.T) {
	for name, transport := range transports(t) {
		t.Run(name, func(t *testing.T) {
			k := newKit(t)
			k.client.Transport.(*contractRoundTripper).next = transport
			w := k.watch("key=a")
			k.streams(1)
			w.close()
			k.streams(0)
		})
	}
}

// A store that fails under a watch breaks the connection off; it doesn't look
// like an end.
func TestWatchFailingStore(t *testing.T) {
	k := newKit(t)
	w := k.watch("key=a&prev&from_revision=2")
	k.put("a", "2")
	w.want("change 2 {events:[{key:a,type:put,value:2}]}")
	k.member.failVersions.Store(true)
	k.put("a", "3")
	if err := w.ended(); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("the stream ends with %v", err)
	}
}

// Every way to say what is watched, by query and by body.
func TestWatchForms(t *testing.T) {
	k := newKit(t)
	k.put("a", "2")
	k.put("b", "3")
	k.del("b")
	for _, c := range []struct{ query, want string }{
		{"start=a&end=b", "2"}, {"start_base64=Yg&end_base64=Yw", "34"}, {"start=b", "34"}, {"end=b", "2"},
		{"key_base64=YQ&key=b", "234"}, {"type=delete", "4"}, {"type=put", "23"}, {"keys_only", "234"},
	} {
		a := k.do("GET", "/v1/watch?from_revision=2&wait=0&encoding=base64&"+c.query, nil)
		var b struct{ Changes []struct{ Revision int } }
		a.read(t, &b)
		got := ""
		for _, change := range b.Changes {
			got += fmt.Sprint(change.Revision)
		}
		if got != c.want || bytes.Contains(a.body, []byte("value")) && c.query == "keys_only" {
			t.Errorf("%s: got %s", c.query, a.body)
		}
	}
	post := func(body string, headers ...string) *answer {
		return k.do("POST", "/v1/watch", []byte(body), append(headers, "Content-Type: application/json")...)
	}
	if a := post(`{"wait_seconds":0}`, "Last-Event-ID: 3"); !bytes.HasSuffix(bytes.TrimSpace(a.body), []byte(`"revision":4}`)) {
		t.Errorf("got %s", a.body)
	}
	post(`{"wait_seconds":0}`, "Accept: text/event-stream").want(t, 406, api.CodeNotAcceptable)
	k.do("POST", "/v1/compact", []byte(`{"revision":4}`), "Content-Type: application/json")
	post(`{"from_revision":3}`).want(t, 410, api.CodeCompacted)
	k.member.waiting = func(kv.Consistency) error { return kv.Errorf(kv.NoLeader, "made to fail") }
	post(`{}`).want(t, 503, api.CodeNoLeader)
	many := `{"watches":[` + strings.Repeat(`{"key":"a"},`, 1000) + `{"key":"a"}]}`
	post(many).want(t, 400, api.CodeInvalidArgument)
	if p := post(many).problem(t); p.Limit != 1000 {
		t.Errorf("problem %+v", p)
	}
}
