package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/client"
)

// streams answers with server-sent events, and then does what comes after them.
func streams(events string, then step) step {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, ": connected\n\n"+events)
		_ = http.NewResponseController(w).Flush()
		then(w, r)
	}
}

// ends is the end of an answer that was meant.
func ends(http.ResponseWriter, *http.Request) {}

// stays is quiet until the client goes.
func stays(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

// change is the message of a revision that puts keys.
func change(revision int, keys ...string) string {
	return fmt.Sprintf("id: %d\nevent: change\ndata: {\"revision\":%d,\"events\":[%s]}\n\n", revision, revision, puts(revision, keys))
}

// part is a part of a revision, which is not the last one.
func part(revision int, keys ...string) string {
	return fmt.Sprintf("event: change\ndata: {\"revision\":%d,\"events\":[%s],\"more\":true}\n\n", revision, puts(revision, keys))
}

func puts(revision int, keys []string) string {
	var events []string
	for _, key := range keys {
		events = append(events, fmt.Sprintf(`{"type":"put","key":%q,"value":"v","create_revision":%d,"mod_revision":%d,"version":1,"modified_at":"2026-01-01T00:00:00.000Z"}`, key, revision, revision))
	}
	return strings.Join(events, ",")
}

func initial(revision int, keys ...string) string {
	var entries []string
	for _, key := range keys {
		entries = append(entries, fmt.Sprintf(`{"key":%q,"value":"v","create_revision":2,"mod_revision":2,"version":1,"modified_at":"2026-01-01T00:00:00.000Z"}`, key))
	}
	return fmt.Sprintf("event: initial\ndata: {\"revision\":%d,\"entries\":[%s]}\n\n", revision, strings.Join(entries, ","))
}

func synced(revision int) string {
	return fmt.Sprintf("id: %d\nevent: synced\ndata: {\"revision\":%d}\n\n", revision, revision)
}

const (
	compactedAt7 = "event: compacted\ndata: {\"resume_from\":7,\"compact_revision\":7,\"current_revision\":9}\n\n"
	draining     = "id: 5\nretry: 20\nevent: draining\ndata: {\"resume_from\":6}\n\n"
)

// show is a message in one word: "5:a,b", "5:a+" for a part, "reset 9", "initial
// 9:a", "synced 9", "bookmark 9".
func show(m client.WatchMessage) string {
	var keys []string
	for _, e := range m.Events {
		keys = append(keys, string(e.Key))
	}
	for _, e := range m.Entries {
		keys = append(keys, string(e.Key))
	}
	s := fmt.Sprint(m.Revision)
	if m.Kind != client.WatchChange {
		s = string(m.Kind) + " " + s
	}
	if len(keys) > 0 || m.Kind == client.WatchChange {
		s += ":" + strings.Join(keys, ",")
	}
	if m.More {
		s += "+"
	}
	return s
}

// follow watches until n messages have come, or until the watch ends, and returns
// them with the error of that.
func follow(t *testing.T, c *client.Client, o client.WatchOptions, n int) (got []string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for m, err := range c.Watch(ctx, o) {
		if err != nil {
			return got, err
		}
		if got = append(got, show(m)); len(got) == n {
			break
		}
	}
	return got, nil
}

func wantWatched(t *testing.T, got []string, err error, want ...string) {
	t.Helper()
	if err != nil {
		t.Errorf("the watch ended: %v", err)
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// However a stream ends after revision 5, the watch goes on behind what was
// complete.
func TestWatchResumes(t *testing.T) {
	whole := change(6, "b")
	for _, test := range []struct {
		name   string
		first  string
		then   step
		behind string // where the next connection goes on
		want   []string
	}{
		{"the connection breaks", "", breaks, "5", nil},
		{"the answer ends", "", ends, "5", nil},
		{"the node drains", draining, ends, "5", nil},
		{"in the middle of a message", whole[:len(whole)-1], breaks, "5", nil},
		{"in the middle of a line", whole[:len(whole)/2], breaks, "5", nil},
		{"between two parts", part(6, "b1"), breaks, "5", nil},
		{"after a quiet time", ": \n\nid: 11\n\n", breaks, "11", nil},
		{"after a bookmark", "id: 12\nevent: bookmark\ndata: {\"revision\":12}\n\n", breaks, "12", []string{"bookmark 12"}},
		{"after a kind that is to come", "id: 13\nevent: weather\ndata: sunny\n\n", breaks, "13", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newScript(t, streams(change(5, "a")+test.first, test.then), streams(change(21, "c"), stays))
			want := append(append([]string{"5:a"}, test.want...), "21:c")
			got, err := follow(t, newClient(t, s.url), client.WatchOptions{From: 5}, len(want))
			wantWatched(t, got, err, want...)
			first, second := s.requests()[0], s.requests()[1]
			if first.target != "/v1/watch?from_revision=5" || first.lastEventID != "" {
				t.Errorf("began with %+v", first)
			}
			if second.target != "/v1/watch" || second.lastEventID != test.behind {
				t.Errorf("went on with %+v, want it behind %s", second, test.behind)
			}
		})
	}
}

// Until a node has said where the watch is, it begins where it was to begin.
func TestWatchBeginsAgain(t *testing.T) {
	for _, o := range []struct {
		client.WatchOptions
		target string
	}{
		{client.WatchOptions{}, "/v1/watch"},
		{client.WatchOptions{From: 9}, "/v1/watch?from_revision=9"},
		{client.WatchOptions{Earliest: true}, "/v1/watch?from_revision=earliest"},
		{client.WatchOptions{Initial: true}, "/v1/watch?initial=true"},
	} {
		s := newScript(t, streams("", breaks), streams(synced(20)+change(21, "c"), stays))
		if _, err := follow(t, newClient(t, s.url), o.WatchOptions, 2); err != nil {
			t.Error(err)
		}
		for _, r := range s.requests() {
			if r.target != o.target || r.lastEventID != "" {
				t.Errorf("got %+v, want %s", r, o.target)
			}
		}
	}
}

// A revision of the future that the cluster has not reached stays where the watch
// begins, whatever a node says of itself.
func TestWatchFuture(t *testing.T) {
	s := newScript(t, streams("id: 7\n\n", breaks), streams(change(8, "early")+change(100, "a"), stays))
	got, err := follow(t, newClient(t, s.url), client.WatchOptions{From: 100}, 1)
	wantWatched(t, got, err, "100:a")
	if r := s.requests()[1]; r.lastEventID != "99" {
		t.Errorf("went on with %+v", r)
	}
}

// TestWatchUnique: what was handed out is not handed out again, even by a node
// that sends it again.
func TestWatchUnique(t *testing.T) {
	s := newScript(t, streams(change(5, "a")+change(6, "b"), breaks), streams(change(6, "b")+change(6, "b")+change(7, "c"), stays))
	got, err := follow(t, newClient(t, s.url), client.WatchOptions{From: 5}, 3)
	wantWatched(t, got, err, "5:a", "6:b", "7:c")
}

// TestWatchAtomic: a revision that comes in parts is handed out once, whole, also
// if the connection breaks between two of them and it is parted elsewhere then.
func TestWatchAtomic(t *testing.T) {
	steps := []step{
		streams(part(5, "a", "b")+part(5, "c"), breaks),
		streams(part(5, "a"), ends),
		streams(part(5, "a")+part(5, "b", "c", "d")+change(5, "e")+part(6, "x")+change(6)+change(7, "y"), stays),
	}
	got, err := follow(t, newClient(t, newScript(t, steps...).url), client.WatchOptions{From: 5}, 3)
	wantWatched(t, got, err, "5:a,b,c,d,e", "6:x", "7:y")

	got, err = follow(t, newClient(t, newScript(t, steps...).url), client.WatchOptions{From: 5, Parts: true}, 7)
	wantWatched(t, got, err, "5:a,b+", "5:c+", "5:d+", "5:e", "6:x+", "6:", "7:y")
}

// The end of a revision is handed out, too, when all of its events were.
func TestWatchPartsEnd(t *testing.T) {
	s := newScript(t, streams(part(5, "a", "b"), breaks), streams(change(5, "a", "b"), breaks), streams(change(6, "c"), stays))
	got, err := follow(t, newClient(t, s.url), client.WatchOptions{From: 5, Parts: true}, 3)
	wantWatched(t, got, err, "5:a,b+", "5:", "6:c")
	if r := s.requests(); r[1].lastEventID != "" || r[2].lastEventID != "5" {
		t.Errorf("went on with %+v", r)
	}
}

// A watch that history has left behind ends with what a caller needs to know.
func TestWatchCompacted(t *testing.T) {
	gone := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusGone)
		_, _ = io.WriteString(w, `{"type":"urn:cairn:problem:compacted","title":"x","status":410,"code":"compacted","compact_revision":7,"current_revision":9}`)
	}
	for name, steps := range map[string][]step{
		"at the beginning": {gone},
		"under way":        {streams(change(5, "a")+compactedAt7, ends)},
		"at a reconnect":   {streams(change(5, "a"), breaks), streams(compactedAt7, ends)},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := follow(t, newClient(t, newScript(t, steps...).url), client.WatchOptions{From: 5}, 2)
			var e *client.Error
			if !errors.Is(err, client.ErrCompacted) || !errors.As(err, &e) {
				t.Fatalf("got %v", err)
			}
			if e.Problem.CompactRevision != 7 || e.Problem.CurrentRevision == nil || *e.Problem.CurrentRevision != 9 {
				t.Errorf("got %+v", e.Problem)
			}
		})
	}
}

// TestWatchInitial: the present state, changes without a gap, and the state again
// when it broke off or was overtaken. Only a complete one is gone on behind.
func TestWatchInitial(t *testing.T) {
	for _, test := range []struct {
		name  string
		steps []step
		ids   []string
		want  []string
	}{
		{
			"in one piece", []step{streams(initial(9, "a", "b")+initial(9, "c")+synced(9)+change(10, "d"), stays)}, []string{""},
			[]string{"reset 9", "initial 9:a,b", "initial 9:c", "synced 9", "10:d"},
		},
		{
			"empty", []step{streams(synced(9), stays)}, []string{""},
			[]string{"reset 9", "synced 9"},
		},
		{
			"resumed", []step{streams(initial(9, "a")+synced(9), breaks), streams(change(10, "d"), stays)}, []string{"", "9"},
			[]string{"reset 9", "initial 9:a", "synced 9", "10:d"},
		},
		{
			"broken off", []step{streams(initial(9, "a"), breaks), streams(initial(12, "b")+synced(12), stays)}, []string{"", ""},
			[]string{"reset 9", "initial 9:a", "reset 12", "initial 12:b", "synced 12"},
		},
		{
			"drained", []step{streams(initial(9, "a")+"id:\nevent: draining\ndata: {\"resume_from\":1}\n\n", ends), streams(synced(12), stays)}, []string{"", ""},
			[]string{"reset 9", "initial 9:a", "reset 12", "synced 12"},
		},
		{
			"overtaken", []step{streams(initial(3, "a")+synced(3)+part(4, "x")+"id:\n"+compactedAt7+initial(9, "b")+synced(9)+change(10, "c"), stays)}, []string{""},
			[]string{"reset 3", "initial 3:a", "synced 3", "reset 9", "initial 9:b", "synced 9", "10:c"},
		},
		{
			"overtaken and broken off", []step{
				streams(initial(3, "a")+synced(3), breaks),
				streams("id: 3\n\n"+compactedAt7+initial(9, "b"), breaks),
				streams(initial(12, "c")+synced(12)+change(13, "d"), stays),
			}, []string{"", "3", ""},
			[]string{"reset 3", "initial 3:a", "synced 3", "reset 9", "initial 9:b", "reset 12", "initial 12:c", "synced 12", "13:d"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newScript(t, test.steps...)
			got, err := follow(t, newClient(t, s.url), client.WatchOptions{Initial: true}, len(test.want))
			wantWatched(t, got, err, test.want...)
			var ids []string
			for _, r := range s.requests() {
				ids = append(ids, r.lastEventID)
				if r.target != "/v1/watch?initial=true" {
					t.Errorf("asked for %s", r.target)
				}
			}
			if !slices.Equal(ids, test.ids) {
				t.Errorf("went on behind %q, want %q", ids, test.ids)
			}
		})
	}
}

// A node that can't be reached, or can't serve, is passed over; at the beginning
// only as often as for any call.
func TestWatchFailover(t *testing.T) {
	s := newScript(t, refuses(api.CodeNoLeader), streams(change(5, "a"), breaks),
		refuses(api.CodeNotCaughtUp), says(502, "<html>bad gateway"), says(404, "<html>no backend"), says(200, "<html>hello"), refuses(api.CodeInternal),
		streams(change(6, "b"), stays))
	got, err := follow(t, newClientOf(t, client.Config{Endpoints: []string{deadEndpoint(t), s.url}, Attempts: 4}), client.WatchOptions{From: 5}, 2)
	wantWatched(t, got, err, "5:a", "6:b")

	_, err = follow(t, newClientOf(t, client.Config{Endpoints: []string{deadEndpoint(t), deadEndpoint(t)}, Attempts: 3}), client.WatchOptions{}, 1)
	var e *client.Error
	if !errors.Is(err, client.ErrUnavailable) || !errors.As(err, &e) || e.Attempts != 3 {
		t.Errorf("got %v", err)
	}

	// A node that takes the request and is silent does not hold it up for ever.
	_, err = follow(t, newClientOf(t, client.Config{Endpoints: []string{newScript(t, stays).url}, Timeout: 100 * time.Millisecond}), client.WatchOptions{}, 1)
	if !errors.Is(err, client.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

// A node that can't reach the cluster is left for another one, if there is one.
func TestWatchDoubtful(t *testing.T) {
	const doubtful = "event: doubtful\ndata: {\"resume_from\":6}\n\n"
	alone := newScript(t, streams(change(5, "a")+": \n\nid: 8\n\n"+doubtful, stays))
	other := newScript(t, streams(change(9, "b"), stays))
	left := ""
	got, err := follow(t, newClientOf(t, client.Config{Endpoints: []string{alone.url, other.url}}),
		client.WatchOptions{From: 5, OnRetry: func(err error, _ time.Duration) { left += err.Error() }}, 2)
	wantWatched(t, got, err, "5:a", "9:b")
	if !strings.Contains(left, alone.url+" can't reach the cluster") {
		t.Errorf("it was told %q", left)
	}
	if second := other.requests()[0]; second.lastEventID != "8" {
		t.Errorf("went on with %+v", second)
	}

	only := newScript(t, streams(change(5, "a")+doubtful+"event: certain\ndata: {\"resume_from\":6}\n\n"+change(6, "b"), stays))
	got, err = follow(t, newClient(t, only.url), client.WatchOptions{From: 5}, 2)
	wantWatched(t, got, err, "5:a", "6:b")
}

// Refusals that another try would meet again end the watch.
func TestWatchRefused(t *testing.T) {
	garbage := streams("event: change\ndata: {\"revision\":\n\n", stays)
	for name, test := range map[string]struct {
		step step
		want error
	}{
		"a wrong request":           {refuses(api.CodeInvalidArgument), client.ErrInvalid},
		"a foreign host":            {refuses(api.CodeHostNotAllowed), client.ErrInvalid},
		"what is not Cairn":         {says(404, "not found"), nil},
		"an answer of another type": {answers("{}"), nil},
		"what can't be read":        {garbage, nil},
	} {
		s := newScript(t, test.step)
		_, err := follow(t, newClient(t, s.url), client.WatchOptions{}, 1)
		var e *client.Error
		if !errors.As(err, &e) || e.Endpoint != s.url || test.want != nil && !errors.Is(err, test.want) {
			t.Errorf("%s: got %v, want %v", name, err, test.want)
		}
	}
	s := newScript(t, streams(change(5, "a"), breaks), refuses(api.CodeInvalidArgument))
	if _, err := follow(t, newClient(t, s.url), client.WatchOptions{From: 5}, 2); !errors.Is(err, client.ErrInvalid) {
		t.Errorf("got %v", err)
	}
}

// The pause after a stream is of any length within what the node asked for, up to
// a bound.
func TestWatchPause(t *testing.T) {
	const tries = 20
	var longest time.Duration
	for range tries {
		s := newScript(t, streams("retry: 3600000\n\n"+change(5, "a"), breaks))
		ctx, cancel := context.WithCancel(context.Background())
		for _, err := range newClient(t, s.url).Watch(ctx, client.WatchOptions{OnRetry: func(err error, pause time.Duration) {
			if !errors.Is(err, client.ErrUnavailable) {
				t.Errorf("told of %v", err)
			}
			longest = max(longest, pause)
			cancel()
		}}) {
			if err != nil && !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}
		cancel()
	}
	if longest <= 2*time.Second || longest > 30*time.Second {
		t.Errorf("the longest of %d pauses is %v", tries, longest)
	}
}

// A node that has said nothing for too long is given up, before its answer and
// after it. A loop that takes its time is no silence.
func TestWatchSilence(t *testing.T) {
	const silence = 500 * time.Millisecond
	for name, first := range map[string]step{"no answer": stays, "no message": streams(change(5, "a"), stays)} {
		t.Run(name, func(t *testing.T) {
			silent := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { first(w, r) }))
			defer silent.Close()
			speaks := httptest.NewServer(http.HandlerFunc(streams(change(5, "a")+change(6, "b"), stays)))
			defer speaks.Close()
			c := newClient(t, silent.URL, speaks.URL)
			c.SetSilence(silence)
			got, err := follow(t, c, client.WatchOptions{From: 5}, 2)
			wantWatched(t, got, err, "5:a", "6:b")
		})
	}

	rested := make(chan struct{})
	s := newScript(t, streams(change(5, "a"), func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-rested:
			_, _ = io.WriteString(w, change(6, "b"))
			_ = http.NewResponseController(w).Flush()
			stays(w, r)
		case <-r.Context().Done():
		}
	}))
	c := newClient(t, s.url)
	c.SetSilence(silence)
	begun := false
	for m, err := range c.Watch(context.Background(), client.WatchOptions{From: 5, OnRetry: func(err error, _ time.Duration) {
		if begun {
			t.Fatalf("the connection was given up: %v", err)
		}
	}}) {
		if err != nil {
			t.Fatal(err)
		}
		if m.Revision == 6 {
			break
		}
		begun = true
		<-time.After(3 * silence)
		close(rested)
	}
}

// Leaving the loop, and the end of the context, close the connection.
func TestWatchEnds(t *testing.T) {
	gone := make(chan struct{}, 1)
	leaves := func(w http.ResponseWriter, r *http.Request) {
		stays(w, r)
		gone <- struct{}{}
	}
	s := newScript(t, streams(change(5, "a"), leaves), streams(change(5, "a"), leaves))
	c := newClient(t, s.url)
	if _, err := follow(t, c, client.WatchOptions{}, 1); err != nil {
		t.Error(err)
	}
	<-gone

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var last error
	for _, err := range c.Watch(ctx, client.WatchOptions{}) {
		last = err
		cancel()
	}
	if !errors.Is(last, context.Canceled) {
		t.Errorf("ended with %v", last)
	}
	<-gone
}

// A GET where a URL can say it, a POST otherwise.
func TestWatchRequest(t *testing.T) {
	var many []client.Keys
	for i := range 500 {
		many = append(many, client.Key(fmt.Sprintf("key/%d", i)))
	}
	for _, test := range []struct {
		o            client.WatchOptions
		target, body string
	}{
		{client.WatchOptions{}, "/v1/watch", ""},
		{client.WatchOptions{Keys: []client.Keys{client.EveryKey()}}, "/v1/watch?prefix=", ""},
		{
			client.WatchOptions{Keys: []client.Keys{client.Prefix("a/"), client.Prefix("b"), client.Key("\xff"), client.Range("m", "")}},
			"/v1/watch?key=%FF&prefix=a%2F&prefix=b&start=m", "",
		},
		{
			client.WatchOptions{From: 7, Prev: true, KeysOnly: true, Type: api.TypeDelete, Bookmark: 1500 * time.Millisecond},
			"/v1/watch?bookmark=1.5&from_revision=7&keys_only=true&prev=true&type=delete", "",
		},
		{
			client.WatchOptions{Keys: []client.Keys{client.Range("a", "b"), client.Range("c", "d")}, Bookmark: time.Minute, Earliest: true},
			"/v1/watch", `{"watches":[{"start":"a","end":"b"},{"start":"c","end":"d"}],"from_revision":"earliest","bookmark_seconds":60}`,
		},
		{
			client.WatchOptions{Named: map[string]client.Keys{"one": client.Prefix("a/"), "all": client.EveryKey()}, Initial: true},
			"/v1/watch", `{"watches":[{"prefix":"","name":"all"},{"prefix":"a/","name":"one"}],"initial":true}`,
		},
		{client.WatchOptions{Keys: many, Type: api.TypePut}, "/v1/watch", `{"watches":[{"key":"key/0"},`},
	} {
		s := newScript(t, streams(change(9, "a"), stays))
		if _, err := follow(t, newClient(t, s.url), test.o, 1); err != nil {
			t.Error(err)
		}
		r := s.requests()[0]
		if r.target != test.target || !strings.HasPrefix(r.body, test.body) || (r.method == http.MethodGet) != (test.body == "") {
			t.Errorf("got  %s %s %s\nwant %s %s", r.method, r.target, r.body, test.target, test.body)
		}
	}
}

// Messages tell the client what revision there is.
func TestWatchRevision(t *testing.T) {
	c := newClient(t, newScript(t, streams(change(2135, "a"), stays)).url)
	if _, err := follow(t, c, client.WatchOptions{}, 1); err != nil || c.Revision() != 2135 {
		t.Errorf("Revision is %d, %v", c.Revision(), err)
	}
}
