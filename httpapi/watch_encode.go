package httpapi

import (
	"slices"
	"strconv"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/internal/sse"
	"github.com/cairnkv/cairn/kv"
	"github.com/cairnkv/cairn/watchers"
)

// A watchEncoder writes the messages of one watch. What a change looks like
// depends on a few switches only, so live changes are encoded once for all
// watches with the same ones; their bytes are copied into the buffers of each.
type watchEncoder struct {
	w     *watch
	store Store
	// view is where previous versions are looked up; it lives for one batch.
	view    View
	scratch []byte
	// spill takes what was written when it has become much, and returns the buffer to go
	// on with. The view is released before.
	spill func(b []byte) ([]byte, error)
	// pass, if set, writes a large message that many share, so that it is not copied for each.
	pass func(message []byte) error
}

// shape is the switches that decide about the bytes of a change.
func (c *watchEncoder) shape() watchers.Form {
	var f watchers.Form
	for i, on := range []bool{c.w.prev, c.w.keysOnly, c.w.base64, c.w.delivery == asEvents, c.w.delivery == asLines} {
		if on {
			f |= 1 << i
		}
	}
	return f
}

// release lets go of the view.
func (c *watchEncoder) release() {
	if c.view != nil {
		c.view.Close()
		c.view = nil
	}
}

// change appends the messages of a delivery.
func (c *watchEncoder) change(b []byte, d *watchers.Delivery) ([]byte, error) {
	own := func(e []byte, i int) ([]byte, error) { return c.event(e, &d.Events[i]) }
	if !d.Shared {
		return c.split(b, d, own)
	}
	enc, err := d.Encoded(c.shape(), func() (*watchers.Encoding, error) { return c.whole(d.Change) })
	switch {
	case err != nil:
		return b, err
	case enc.Message == nil: // too large to be shared
		return c.split(b, d, own)
	}
	if d.Subset == nil && !c.w.named && len(enc.Message) <= maxMessageBytes {
		if c.pass == nil || len(enc.Message) <= streamBytes {
			return append(b, enc.Message...), nil
		}
		c.release()
		if b, err = c.spill(b); err == nil {
			err = c.pass(enc.Message)
		}
		return b, err
	}
	return c.split(b, d, func(e []byte, i int) ([]byte, error) {
		return c.withNames(append(e, enc.Events[i]...), &d.Events[i]), nil
	})
}

// shareable bounds the encoding of a change that is kept for all its watches: they wait in
// queues that count the change itself. Previous values can be very much more than it.
func shareable(change *watchers.Change) int { return 2*change.Bytes() + 4<<10 }

// whole encodes all of a change as one message, or as none if that is too large to be kept.
func (c *watchEncoder) whole(change *watchers.Change) (*watchers.Encoding, error) {
	enc := &watchers.Encoding{Events: make([][]byte, len(change.Events))}
	var events []byte
	ends := make([]int, len(change.Events))
	for i := range change.Events {
		if i > 0 {
			events = append(events, ',')
		}
		var err error
		if events, err = c.plainEvent(events, &change.Events[i]); err != nil {
			return nil, err
		}
		if len(events) > shareable(change) {
			return &watchers.Encoding{}, nil
		}
		ends[i] = len(events)
	}
	message := make([]byte, 0, len(events)+messageOverhead)
	enc.Message = c.message(message, change.Revision, events, true)
	start := slices.Index(enc.Message, '[') + 1
	from := 0
	for i, end := range ends {
		enc.Events[i] = enc.Message[start+from : start+end : start+end]
		from = end + 1
	}
	return enc, nil
}

// messageOverhead is room for what a message has around its events.
const messageOverhead = 96

// split writes events into messages of a bounded size. All but the last say that
// more of the revision follows.
func (c *watchEncoder) split(b []byte, d *watchers.Delivery, event func([]byte, int) ([]byte, error)) ([]byte, error) {
	events := c.scratch[:0]
	n := d.Len()
	for at := range n {
		i := at
		if d.Subset != nil {
			i = int(d.Subset[at])
		}
		if len(events) > 0 {
			events = append(events, ',')
		}
		var err error
		if events, err = event(events, i); err != nil {
			return b, err
		}
		if len(events) > maxMessageBytes && at < n-1 {
			b = c.message(b, d.Revision, events, false)
			if c.w.delivery == asPoll {
				b = append(b, ',') // between the elements of its array
			}
			events = events[:0]
			if b, err = c.spilled(b); err != nil {
				return b, err
			}
		}
	}
	c.scratch = keep(events)
	return c.message(b, d.Revision, events, !d.More), nil
}

// spilled gives away what was written, if it is much. No view is held meanwhile: who takes
// it may be slow.
func (c *watchEncoder) spilled(b []byte) ([]byte, error) {
	if len(b) < maxMessageBytes {
		return b, nil
	}
	c.release()
	return c.spill(b)
}

// message appends a message with events that are encoded already.
func (c *watchEncoder) message(b []byte, revision uint64, events []byte, last bool) []byte {
	switch c.w.delivery {
	case asEvents:
		if last {
			b = append(b, "id: "...)
			b = strconv.AppendUint(b, revision, 10)
			b = append(b, '\n')
		}
		b = append(b, "event: "+api.EventChange+"\ndata: {"...)
	case asLines:
		b = append(b, `{"event":"`+api.EventChange+`",`...)
	default:
		b = append(b, '{')
	}
	b = appendUint(b, `"revision":`, revision)
	b = append(b, `,"events":[`...)
	b = append(b, events...)
	b = append(b, ']')
	if !last && c.w.delivery != asPoll {
		b = append(b, `,"more":true`...)
	}
	b = append(b, '}')
	switch c.w.delivery {
	case asEvents:
		b = append(b, '\n', '\n')
	case asLines:
		b = append(b, '\n')
	}
	return b
}

// event appends one event, with the names of what it matches.
func (c *watchEncoder) event(b []byte, e *kv.Event) ([]byte, error) {
	b, err := c.plainEvent(b, e)
	return c.withNames(b, e), err
}

func (c *watchEncoder) plainEvent(b []byte, e *kv.Event) ([]byte, error) {
	if e.Type == kv.EventDelete {
		b = append(b, `{"type":"delete",`...)
		b = appendBytes(b, "key", e.Entry.Key, c.w.base64)
		b = appendUint(b, `,"mod_revision":`, e.Entry.ModRevision)
		b = append(b, `,"modified_at":`...)
		b = appendTime(b, e.Entry.ModifiedAt)
		b = append(b, `,"reason":"`...)
		b = append(b, e.Reason.String()...)
		b = append(b, '"')
	} else {
		b = append(b, `{"type":"put",`...)
		b = c.w.appendEntryMembers(b, &e.Entry)
	}
	if c.w.prev && e.PrevRevision != 0 {
		prev, found, err := c.version(e.Entry.Key, e.PrevRevision)
		if err != nil {
			return b, err
		}
		if found {
			b = append(b, `,"prev":`...)
			b = c.w.appendEntry(b, &prev)
		}
	}
	return append(b, '}'), nil
}

func (c *watchEncoder) version(key []byte, revision uint64) (kv.Entry, bool, error) {
	if c.view == nil {
		v, err := c.store.View()
		if err != nil {
			return kv.Entry{}, false, err
		}
		c.view = v
	}
	return c.view.Version(key, revision)
}

// withNames puts the names of what an event matches before the brace that ends
// it.
func (c *watchEncoder) withNames(b []byte, e *kv.Event) []byte {
	if !c.w.named {
		return b
	}
	return append(c.names(b[:len(b)-1], e.Entry.Key), '}')
}

func (c *watchEncoder) names(b, key []byte) []byte {
	first := true
	for i := range c.w.watched {
		w := &c.w.watched[i]
		if w.name == "" || !slices.ContainsFunc(w.parts, func(r kv.Range) bool { return r.Contains(key) }) {
			continue
		}
		if first {
			b = append(b, `,"names":[`...)
		} else {
			b = append(b, ',')
		}
		first = false
		b = appendQuoted(b, w.name)
	}
	if !first {
		b = append(b, ']')
	}
	return b
}

// note appends a message that is not a change: its name, its id if it has one,
// and the members of its object.
func (c *watchEncoder) note(b []byte, id, name string, members []byte) []byte {
	if c.w.delivery == asLines {
		b = append(b, `{"event":"`...)
		b = append(b, name...)
		b = append(b, '"', ',')
		b = append(b, members...)
		return append(b, '}', '\n')
	}
	data := append(append([]byte{'{'}, members...), '}')
	return sse.AppendEvent(b, id, name, data)
}

// mark appends a message that everything up to a revision was sent.
func (c *watchEncoder) mark(b []byte, name string, revision uint64) []byte {
	return c.note(b, strconv.FormatUint(revision, 10), name, appendUint(nil, `"revision":`, revision))
}

// initial appends messages with entries of the present state: one, unless what they are in
// JSON, or the names of what they match, are very much more than they are.
func (c *watchEncoder) initial(b []byte, revision uint64, entries []kv.Entry) ([]byte, error) {
	members := c.scratch[:0]
	for i := range entries {
		if len(members) == 0 {
			members = appendUint(members, `"revision":`, revision)
			members = append(members, `,"entries":[`...)
		} else {
			members = append(members, ',')
		}
		members = append(members, '{')
		members = c.w.appendEntryMembers(members, &entries[i])
		if c.w.named {
			members = c.names(members, entries[i].Key)
		}
		members = append(members, '}')
		if len(members) <= maxMessageBytes && i < len(entries)-1 {
			continue
		}
		members = append(members, ']')
		b = c.note(b, "", api.EventInitial, members)
		members = members[:0]
		var err error
		if b, err = c.spilled(b); err != nil {
			return b, err
		}
	}
	c.scratch = keep(members)
	return b, nil
}
