package httpapi

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/internal/sse"
	"github.com/cairnkv/cairn/kv"
	"github.com/cairnkv/cairn/watchers"
)

// A watch is what a client wants to see, and how.
type watch struct {
	form
	prev    bool // with the versions that were replaced
	watched []watched
	named   bool // some of them have a name
	only    kv.EventType

	// Where it begins: behind what the client has seen, at a revision, or at one
	// of the two words.
	resume   bool
	from     uint64
	earliest bool
	initial  bool

	delivery delivery
	bookmark time.Duration // 0: none
	wait     time.Duration
}

// A delivery is the form of the answer.
type delivery uint8

const (
	asEvents delivery = iota
	asLines
	asPoll
)

// watched is one key, prefix or range, with the name that its events carry.
type watched struct {
	parts []kv.Range
	name  string
}

// ranges are all that is watched.
func (w *watch) ranges() []kv.Range {
	var all []kv.Range
	for i := range w.watched {
		all = append(all, w.watched[i].parts...)
	}
	return all
}

// watchedBytes is what a range that is watched takes, besides its keys: where it is kept for
// the request, and in the index of all watches.
const watchedBytes = 256

// own gives the watch memory of its own, for when its body or its request is over.
// It returns how many bytes that is.
func (w *watch) own() (n int) {
	for i := range w.watched {
		n += len(w.watched[i].name) + len(w.watched[i].parts)*watchedBytes
		parts := slices.Clone(w.watched[i].parts)
		for j, r := range parts {
			parts[j] = kv.Range{Start: bytes.Clone(r.Start), End: bytes.Clone(r.End)}
			n += len(r.Start) + len(r.End)
		}
		w.watched[i].parts = parts
	}
	return n
}

// getWatch answers GET /v1/watch.
func (x *exchange) getWatch() {
	w := watch{form: form{base64: x.base64Param(), keysOnly: x.boolParam(pKeysOnly)}}
	w.prev, w.initial = x.boolParam(pPrev), x.boolParam(pInitial)
	for _, key := range x.repeatedBytes(pKey, pKeyBase64) {
		x.watchKey(&w, key, "")
	}
	for _, prefix := range x.repeatedBytes(pPrefix, pPrefixBase64) {
		x.watchPrefix(&w, prefix, "")
	}
	start, hasStart := x.bytesParam(pStart, pStartBase64)
	end, hasEnd := x.bytesParam(pEnd, pEndBase64)
	if hasStart || hasEnd {
		x.watchRange(&w, start, end, "")
	}
	w.only = eventTypes[x.wordParam(pType, "", "put", "delete")]
	w.bookmark = time.Duration(x.durationParam(pBookmark, minBookmarkMillis, maxBookmarkMillis)) * time.Millisecond
	w.wait = time.Duration(x.durationParam(pWait, 0, maxPollMillis)) * time.Millisecond
	if x.q.present.has(pWait) {
		w.delivery = asPoll
	}
	fromGiven := x.q.present.has(pFromRevision)
	switch s := x.q.values[pFromRevision]; {
	case !fromGiven || s == "now":
	case s == "earliest":
		w.earliest = true
	default:
		n, ok := parseUint(s)
		if !ok || n == 0 || n > kv.MaxRevision {
			x.fail(api.CodeInvalidArgument, "from_revision=%.40s: want a revision, now or earliest", s)
		}
		w.from = n
	}
	x.watch(&w, x.q.values[pLastEventID], fromGiven)
}

var eventTypes = map[string]kv.EventType{"put": kv.EventPut, "delete": kv.EventDelete}

// postWatch answers POST /v1/watch.
func (x *exchange) postWatch() {
	w := watch{form: form{base64: x.base64Param()}}
	body, _ := x.readBody(maxBodyBytes)
	lastEventID, fromGiven := "", false
	if !x.bodyFailed {
		x.parseJSON(body, func(p *jsonParser) { lastEventID, fromGiven = x.readWatch(p, &w) })
	}
	x.watch(&w, lastEventID, fromGiven)
}

// readWatch reads the body of a POST.
func (x *exchange) readWatch(p *jsonParser, w *watch) (lastEventID string, fromGiven bool) {
	count := 0
	p.object("a watch", func(name string) bool {
		switch name {
		case "watches":
			p.array("the watches", func() {
				if count++; count > maxWatched {
					p.skip()
					return
				}
				x.readWatched(p, w)
			})
		case "from_revision":
			fromGiven = true
			if p.peek() != '"' {
				w.from = p.uint("from_revision", 1, kv.MaxRevision)
			} else {
				w.earliest = p.oneOf("from_revision", "now", "earliest") == "earliest"
			}
		case "last_event_id":
			lastEventID = string(p.string())
		case "initial":
			w.initial = p.bool()
		case "prev":
			w.prev = p.bool()
		case "keys_only":
			w.keysOnly = p.bool()
		case "type":
			w.only = eventTypes[p.oneOf("type", "put", "delete")]
		case "bookmark_seconds":
			w.bookmark = time.Duration(p.millis("bookmark_seconds", minBookmarkMillis, maxBookmarkMillis)) * time.Millisecond
		case "wait_seconds":
			w.wait, w.delivery = time.Duration(p.millis("wait_seconds", 0, maxPollMillis))*time.Millisecond, asPoll
		default:
			return false
		}
		return true
	})
	if count > maxWatched {
		x.failTooManyWatched(count)
	}
	return lastEventID, fromGiven
}

func (x *exchange) readWatched(p *jsonParser, w *watch) {
	var key, prefix, start, end jsonBytes
	name := ""
	p.object("a watched key or range", func(member string) bool {
		if member == "name" {
			name = string(p.string())
			if !p.broken && (name == "" || len(name) > maxWatchName) {
				x.failLimit(api.CodeInvalidArgument, maxWatchName, "a name has 1 to %d bytes", maxWatchName)
			}
			return true
		}
		return key.member(p, member, "key") || prefix.member(p, member, "prefix") ||
			start.member(p, member, "start") || end.member(p, member, "end")
	})
	ranged := start.given || end.given
	switch {
	case p.broken:
	case key.given && !prefix.given && !ranged:
		x.watchKey(w, key.value, name)
	case prefix.given && !key.given && !ranged:
		x.watchPrefix(w, prefix.value, name)
	case ranged && !key.given && !prefix.given:
		x.watchRange(w, start.value, end.value, name)
	default:
		x.fail(api.CodeInvalidArgument, "what is watched is a key, a prefix, or a start and an end: one of the three")
	}
}

func (x *exchange) watchKey(w *watch, key []byte, name string) {
	x.checkKey(key)
	w.add(name, kv.SingleKey(key))
}

func (x *exchange) watchPrefix(w *watch, prefix []byte, name string) {
	x.checkBound(prefix)
	if len(prefix) == 0 {
		parts := withoutReserved()
		w.add(name, parts[:]...)
		return
	}
	w.add(name, kv.Prefix(prefix))
}

func (x *exchange) watchRange(w *watch, start, end []byte, name string) {
	x.checkBound(start)
	x.checkBound(end)
	if len(start) == 0 && len(end) == 0 {
		x.watchPrefix(w, nil, name)
		return
	}
	r := kv.Range{Start: start, End: end}
	if r.Empty() {
		x.fail(api.CodeRangeInvalid, "start must be before end")
	}
	w.add(name, r)
}

func (w *watch) add(name string, parts ...kv.Range) {
	w.watched = append(w.watched, watched{parts, name})
	w.named = w.named || name != ""
}

func (x *exchange) failTooManyWatched(n int) {
	x.failLimit(api.CodeInvalidArgument, maxWatched, "a connection watches at most %d keys, prefixes and ranges; these are %d", maxWatched, n)
}

// watch checks the watch as a whole, finds out where it begins, and serves it.
func (x *exchange) watch(w *watch, lastEventID string, fromGiven bool) {
	if len(w.watched) > maxWatched {
		x.failTooManyWatched(len(w.watched))
	}
	if len(w.watched) == 0 {
		x.watchPrefix(w, nil, "")
	}
	if given := x.r.Header["Last-Event-Id"]; len(given) == 1 && given[0] != "" {
		lastEventID = given[0]
	} else if len(given) > 1 {
		x.fail(api.CodeInvalidArgument, "Last-Event-ID is given twice")
	}
	if lastEventID != "" {
		seen, ok := parseUint(lastEventID)
		if !ok || seen > kv.MaxRevision {
			x.fail(api.CodeInvalidArgument, "Last-Event-ID %.40q: want the id of a message of a watch", lastEventID)
		}
		w.resume, w.from, w.earliest = true, seen+1, false
	}
	if fromGiven && w.initial {
		x.fail(api.CodeInvalidArgument, "initial sends the present state, which from_revision has nothing to do with: give one of the two")
	}
	if w.initial && w.delivery == asPoll {
		x.fail(api.CodeInvalidArgument, "a long poll has no initial state; list the keys, and then poll from the revision of the list plus one")
	}
	if w.bookmark != 0 && w.delivery == asPoll {
		x.fail(api.CodeInvalidArgument, "a long poll has no bookmarks; its answer says how far it reached")
	}
	x.chooseDelivery(w)
	if x.refused() || !x.placeWatch(w) {
		return
	}
	if !x.reserve(w.own()) {
		x.failAnswer()
		x.refused()
		return
	}
	x.dropBody()
	if w.delivery == asPoll {
		x.pollWatch(w)
	} else {
		x.streamWatch(w)
	}
}

func (x *exchange) chooseDelivery(w *watch) {
	accept := x.r.Header["Accept"]
	if w.delivery == asPoll {
		if q, _ := quality(accept, api.TypeJSON); q == 0 {
			x.fail(api.CodeNotAcceptable, "a long poll, which wait asks for, is %s", api.TypeJSON)
		}
		return
	}
	switch negotiate(accept, sse.ContentType, api.TypeNDJSON) {
	case wantsSecond:
		w.delivery = asLines
	case wantsNeither:
		x.fail(api.CodeNotAcceptable, "a watch is %s, or with wait= a long poll in %s",
			strings.Join([]string{sse.ContentType, api.TypeNDJSON}, " or "), api.TypeJSON)
	}
}

// placeWatch finds the first revision of a watch that does not say it as a
// number. It returns false when it has answered: for a start that is compacted,
// unless the client comes again, which is told in the stream.
func (x *exchange) placeWatch(w *watch) bool {
	store := x.s.cfg.Store
	if w.from == 0 && !w.earliest {
		// Now is the linearizable now, whichever member is asked.
		if err := store.Wait(x.r.Context(), kv.Consistency{}); err != nil {
			x.refuseRead(err)
			return false
		}
	}
	current, compact := store.Revisions()
	switch {
	case w.earliest:
		w.from = max(compact, 1)
	case w.from == 0:
		w.from = current + 1
	case w.from < compact && !(w.resume && w.delivery != asPoll):
		e := kv.Errorf(kv.Compacted, "revision %d is compacted; history begins at %d", w.from, compact)
		e.CurrentRevision, e.CompactRevision = current, compact
		x.refuseRead(e)
		return false
	}
	return true
}

// open opens the stream of changes from a revision on.
func (w *watch) open(hub *watchers.Hub, from uint64, pace func(context.Context) (func(), error)) (*watchers.Stream, error) {
	return hub.Watch(watchers.Request{Ranges: w.ranges(), From: from, Type: w.only, Pace: pace})
}
