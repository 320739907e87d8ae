package robustness

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cairnkv/cairn/internal/sse"
)

const (
	// watchMessageBytes is more than any message has.
	watchMessageBytes = 8 << 20
	// slowReceiveBuffer is what the kernel keeps for a watcher that reads slowly,
	// so that the server notices soon.
	slowReceiveBuffer = 4 << 10
	// pollWait is how long a long poll may take.
	pollWait = 700 * time.Millisecond
)

// A Watcher is a client that knows nothing of the server but the words of the
// protocol: it asks, writes down everything that it receives, is cut off at a
// random moment, and asks some node for what follows.
type Watcher struct {
	// answered, when set, is called once a connection is answered.
	answered func()

	Trace WatchTrace
	// Slow says that it stops reading now and then.
	Slow bool
	// Starts picks how it begins when it has nothing to go on from.
	Starts Start

	cluster *Cluster
	random  *rand.Rand
	client  *http.Client
	// from is the next revision to ask for, known if there is one.
	from  uint64
	known bool
	// reached tells others how far it got.
	reached atomic.Uint64
}

// A Start is where a watcher begins.
type Start string

const (
	Now      Start = "now"
	Earliest Start = earliest
)

// NewWatcher makes a watcher; Run lets it watch.
func NewWatcher(c *Cluster, random *rand.Rand, id int, spec WatchSpec) *Watcher {
	w := &Watcher{
		Trace: WatchTrace{Watcher: id, Spec: spec}, cluster: c, Starts: Now,
		random: rand.New(rand.NewPCG(random.Uint64(), random.Uint64())),
	}
	dialer := net.Dialer{Timeout: time.Second, Control: func(_, _ string, raw syscall.RawConn) error {
		if !w.Slow {
			return nil
		}
		var err error
		return errors.Join(raw.Control(func(fd uintptr) { err = smallReceiveBuffer(fd) }), err)
	}}
	w.client = &http.Client{Transport: &http.Transport{
		DialContext: dialer.DialContext, DisableKeepAlives: true, ReadBufferSize: 4 << 10,
	}}
	return w
}

// Reached is how far the watcher got.
func (w *Watcher) Reached() uint64 { return w.reached.Load() }

// Run watches, connection after connection, until the context ends or the
// watcher has reached a revision, once there is one to reach.
func (w *Watcher) Run(ctx context.Context, end *atomic.Uint64) {
	defer w.client.CloseIdleConnections()
	for ctx.Err() == nil {
		if last := end.Load(); last != 0 && w.Reached() >= last {
			return
		}
		if w.Trace.Spec.Initial && w.random.IntN(2) == 0 {
			w.from, w.known = 0, false // as a page that is loaded anew
		}
		n := w.cluster.Nodes[w.random.IntN(len(w.cluster.Nodes))]
		atMost := 300*time.Millisecond + time.Duration(w.random.Int64N(int64(4*time.Second)))
		if end.Load() != 0 {
			atMost = wholeWithin // whatever is left may come on this one
		}
		cut, cancel := context.WithTimeout(ctx, atMost)
		c := w.Connect(cut, n, end)
		cancel()
		if c.Status != http.StatusOK {
			// As clients do: not at once again.
			pause := time.NewTimer(20*time.Millisecond + time.Duration(w.random.Int64N(int64(100*time.Millisecond))))
			select {
			case <-pause.C:
			case <-ctx.Done():
				pause.Stop()
			}
		}
	}
}

// Connect opens one connection to a node and reads it until it ends, the context
// does, or the end is reached. It goes on where the last one ended.
func (w *Watcher) Connect(ctx context.Context, n *Node, end *atomic.Uint64) *WatchConnection {
	c := &WatchConnection{Node: n.Index, Opened: w.now()}
	w.Trace.Connections = append(w.Trace.Connections, c)
	r, err := w.request(ctx, n, c)
	if err != nil {
		c.Why = err.Error()
		return c
	}
	answer, err := w.client.Do(r)
	if err != nil {
		c.Ended, c.Why = w.now(), err.Error()
		return c
	}
	defer answer.Body.Close()
	c.Answered, c.Status = w.now(), answer.StatusCode
	if w.answered != nil {
		w.answered()
	}
	c.Revision, _ = strconv.ParseUint(answer.Header.Get("Cairn-Revision"), 10, 64)
	if c.Status != http.StatusOK {
		w.refused(c, answer.Body)
		c.Ended = w.now()
		return c
	}
	in := &halting{r: answer.Body, w: w, c: c, end: end}
	switch w.Trace.Spec.Delivery {
	case Events:
		err = w.readEvents(c, in, end)
	case Lines:
		err = w.readLines(c, in, end)
	default:
		err = w.readPoll(c, in)
	}
	c.Ended, c.Why = w.now(), err.Error()
	w.settle(c)
	return c
}

func (w *Watcher) now() int64 { return time.Since(w.cluster.began).Nanoseconds() }

// settle decides how to go on after a connection.
func (w *Watcher) settle(c *WatchConnection) {
	if n := len(c.Messages); n > 0 && c.Messages[n-1].Event == compacted && !w.Trace.Spec.Initial {
		// It was told where history begins: a new start, not a resume.
		w.from, w.known = c.Messages[n-1].ResumeFrom, false
		return
	}
	if c.Reached == 0 && slices.ContainsFunc(c.Messages, func(m WatchMessage) bool { return m.Event == compacted }) {
		w.from, w.known = 0, false // the state that follows did not come whole
		return
	}
	if c.Reached != 0 {
		w.from, w.known = c.Reached+1, true
		w.reached.Store(max(w.reached.Load(), c.Reached))
	}
}

// refused takes over what an answer says that is no stream.
func (w *Watcher) refused(c *WatchConnection, body io.Reader) {
	text, err := io.ReadAll(io.LimitReader(body, 64<<10))
	if err == nil {
		err = json.Unmarshal(text, &c.Problem)
	}
	c.Why = c.Problem.Detail
	if err != nil {
		c.Why = err.Error()
	}
	if c.Status == http.StatusGone {
		w.from, w.known = 0, false
		if !w.Trace.Spec.Initial {
			w.from = c.Problem.Compact
		}
	}
}

// request says what is to be watched, and from where on.
func (w *Watcher) request(ctx context.Context, n *Node, c *WatchConnection) (*http.Request, error) {
	s := &w.Trace.Spec
	c.From, c.Resumed = w.from, w.known
	ways := []string{"Last-Event-ID", "last_event_id", "from_revision"}
	switch {
	case c.From == 0:
		c.By = string(w.Starts)
	case !c.Resumed || s.Delivery == Polls:
		c.By = "from_revision"
	case s.Delivery == Events && !s.Initial:
		c.By = ways[w.random.IntN(3)]
	default:
		c.By = ways[w.random.IntN(2)] // with from_revision there is no initial state
	}
	// A start from a number, for a watcher that wants the state first, is one
	// from the state.
	if s.Initial && c.By == "from_revision" {
		c.From, c.By = 0, string(w.Starts)
	}
	if s.Initial && c.From == 0 {
		c.By = string(Now)
	}
	method, target, body := http.MethodGet, n.URL()+"/v1/watch", []byte(nil)
	if s.Post {
		method = http.MethodPost
		body = w.body(c)
	} else {
		target += "?" + w.query(c)
	}
	r, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	switch s.Delivery {
	case Events:
		r.Header.Set("Accept", sse.ContentType)
	case Lines:
		r.Header.Set("Accept", "application/x-ndjson")
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	if c.By == "Last-Event-ID" {
		r.Header.Set("Last-Event-ID", strconv.FormatUint(c.From-1, 10))
	}
	return r, nil
}

func (w *Watcher) query(c *WatchConnection) string {
	s, q := &w.Trace.Spec, url.Values{}
	for _, watched := range s.Watched {
		switch {
		case watched.Key != "":
			q.Add("key", watched.Key)
		case watched.Prefix != "":
			q.Add("prefix", watched.Prefix)
		default:
			q.Set("start", watched.Start)
			q.Set("end", watched.End)
		}
	}
	for name, on := range map[string]bool{"prev": s.Prev, "initial": s.Initial, "keys_only": s.KeysOnly} {
		if on {
			q.Set(name, "true")
		}
	}
	if s.Type != "" {
		q.Set("type", s.Type)
	}
	if s.Bookmark > 0 {
		q.Set("bookmark", s.Bookmark.String())
	}
	if s.Delivery == Polls {
		q.Set("wait", pollWait.String())
	}
	switch c.By {
	case earliest:
		q.Set("from_revision", earliest)
	case "from_revision":
		q.Set("from_revision", strconv.FormatUint(c.From, 10))
	case "last_event_id":
		q.Set("last_event_id", strconv.FormatUint(c.From-1, 10))
	}
	return q.Encode()
}

func (w *Watcher) body(c *WatchConnection) []byte {
	s := &w.Trace.Spec
	body := map[string]any{}
	if s.Watched != nil {
		body["watches"] = s.Watched
	}
	for name, on := range map[string]bool{"prev": s.Prev, "initial": s.Initial, "keys_only": s.KeysOnly} {
		if on {
			body[name] = true
		}
	}
	if s.Type != "" {
		body["type"] = s.Type
	}
	if s.Bookmark > 0 {
		body["bookmark_seconds"] = s.Bookmark.Seconds()
	}
	if s.Delivery == Polls {
		body["wait_seconds"] = pollWait.Seconds()
	}
	switch c.By {
	case earliest:
		body["from_revision"] = earliest
	case "from_revision":
		body["from_revision"] = c.From
	case "last_event_id":
		body["last_event_id"] = strconv.FormatUint(c.From-1, 10)
	}
	text, err := json.Marshal(body)
	if err != nil {
		panic(err) // strings and numbers
	}
	return text
}

// errReached ends a connection that has all that there will be.
var errReached = errors.New("the end is reached")

// note records a message and moves the position. It reports whether that is all
// there will be.
func (w *Watcher) note(c *WatchConnection, m WatchMessage, position uint64, end *atomic.Uint64) bool {
	m.At = w.now()
	for i := range m.Events {
		m.Events[i].shorten()
	}
	for i := range m.Entries {
		m.Entries[i].shorten()
	}
	c.Messages = append(c.Messages, m)
	c.Reached = position
	if position > w.reached.Load() && m.Event != compacted {
		w.reached.Store(position)
	}
	last := end.Load()
	return last != 0 && w.Reached() >= last && m.Event != initial && !m.More
}

// streamed is the object of a message of a stream.
type streamed struct {
	Event    string `json:"event"` // of lines
	Revision uint64 `json:"revision"`
	More     bool   `json:"more"`
	Events   []Item `json:"events"`
	Entries  []Item `json:"entries"`
	Resume   uint64 `json:"resume_from"`
	Compact  uint64 `json:"compact_revision"`
}

func (d *streamed) message(event string, id uint64) WatchMessage {
	return WatchMessage{
		Event: event, ID: id, Revision: d.Revision, More: d.More, Events: d.Events, Entries: d.Entries,
		ResumeFrom: d.Resume, Compact: d.Compact,
	}
}

// readEvents reads server-sent events as a browser does: its position is the
// last event id, whatever moved it.
func (w *Watcher) readEvents(c *WatchConnection, in io.Reader, end *atomic.Uint64) error {
	ids := &firstID{}
	r := sse.NewReader(io.TeeReader(in, ids), watchMessageBytes)
	for {
		e, err := r.Next()
		c.Begun = ids.begun
		if err != nil {
			c.Reached = idOf(r.LastEventID())
			return err
		}
		var d streamed
		if err := json.Unmarshal(e.Data, &d); err != nil {
			return fmt.Errorf("a message of the kind %s is no JSON: %w", e.Type, err)
		}
		if w.note(c, d.message(e.Type, idOf(e.ID)), idOf(e.ID), end) {
			return errReached
		}
	}
}

func idOf(text string) uint64 {
	id, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0
	}
	return id
}

// firstID looks for the id that stands at the beginning of a stream, before any
// event.
type firstID struct {
	text  []byte
	done  bool
	begun uint64
}

func (f *firstID) Write(p []byte) (int, error) {
	for f.text = append(f.text, p...); !f.done; {
		line, rest, whole := bytes.Cut(f.text, []byte("\n"))
		if !whole {
			break
		}
		f.text = rest
		if id, found := bytes.CutPrefix(line, []byte("id: ")); found {
			// One with an event is none of the beginning.
			if len(rest) == 0 {
				f.text = append([]byte("id: "+string(id)+"\n"), rest...)
				return len(p), nil
			}
			f.done = true
			if rest[0] == '\n' {
				f.begun = idOf(string(id))
			}
		}
		if bytes.HasPrefix(line, []byte("event")) || bytes.HasPrefix(line, []byte("data")) {
			f.done = true
		}
	}
	if f.done {
		f.text = nil
	}
	return len(p), nil
}

// readLines reads NDJSON. Its position is the last revision that came whole, or
// that a message named.
func (w *Watcher) readLines(c *WatchConnection, in io.Reader, end *atomic.Uint64) error {
	lines := bufio.NewReaderSize(in, 4<<10)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return err // what is left of a line is none
		}
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		var d streamed
		if err := json.Unmarshal(line, &d); err != nil {
			return fmt.Errorf("a line is no JSON: %w: %.80q", err, line)
		}
		position := c.Reached
		switch d.Event {
		case change:
			if !d.More {
				position = d.Revision
			}
		case synced, bookmark:
			position = d.Revision
		case compacted:
			position = 0
		case draining:
			if position > 0 {
				position = max(position, d.Resume-1)
			}
		}
		if w.note(c, d.message(d.Event, 0), position, end) {
			return errReached
		}
	}
}

// readPoll reads the answer of a long poll.
func (w *Watcher) readPoll(c *WatchConnection, in io.Reader) error {
	text, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	var answer struct {
		Changes  []streamed `json:"changes"`
		Revision uint64     `json:"revision"`
	}
	if err := json.Unmarshal(text, &answer); err != nil {
		return fmt.Errorf("the answer of a poll is no JSON: %w", err)
	}
	var never atomic.Uint64
	for i := range answer.Changes {
		d := &answer.Changes[i]
		// A poll does not say that more follows, since all of it is there.
		d.More = i+1 < len(answer.Changes) && answer.Changes[i+1].Revision == d.Revision
		w.note(c, d.message(change, 0), c.Reached, &never)
	}
	w.note(c, WatchMessage{Event: reached, Revision: answer.Revision}, answer.Revision, &never)
	return io.EOF
}

// halting is the body of an answer. If the watcher is a slow one, it stops
// reading now and then, as long as there is more to come than the end.
type halting struct {
	r    io.Reader
	w    *Watcher
	c    *WatchConnection
	end  *atomic.Uint64
	next time.Time // when it stops again
}

func (h *halting) Read(p []byte) (int, error) {
	if h.w.Slow && h.end.Load() == 0 && time.Now().After(h.next) {
		if !h.next.IsZero() {
			h.c.Slow++
			moment(h.w.random, 200*time.Millisecond, 3*time.Second)
		}
		h.next = time.Now().Add(time.Duration(h.w.random.Int64N(int64(time.Second))))
	}
	return h.r.Read(p)
}
