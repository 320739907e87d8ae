package httpapi

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/kv"
)

// A listing is a list as it was asked for.
type listing struct {
	form
	mode   readMode
	keys   keyRange
	parts  []kv.Range // what is left of the range, in list order
	query  kv.Query   // everything but the range
	count  bool
	stream bool
	asked  [16]byte // digest of the question, for cursors
}

// list answers GET /v1/kv.
func (x *exchange) list() {
	x.w.Header()["Vary"] = valueAccept
	l := x.listing()
	if x.refused() {
		return
	}
	if l.stream && !x.admitStream() {
		return
	}
	v := x.view(&l.mode)
	if v == nil {
		return
	}
	if l.query.Revision = l.mode.revision; l.query.Revision == 0 {
		l.query.Revision = v.Revision()
	}
	if l.stream {
		x.streamList(v, &l)
		return
	}
	revision := v.Revision()
	ctx, cancel := context.WithTimeout(x.r.Context(), x.s.cfg.ReadTimeout)
	defer cancel()
	if x.readPage(ctx, v, &l) {
		x.sendJSON(200, revision)
	}
}

// readPage reads one page into x.out, and closes the view. It returns false when it
// has answered why not.
func (x *exchange) readPage(ctx context.Context, v View, l *listing) bool {
	defer v.Close()
	if l.query.Sort != kv.SortByKey {
		if !x.enter(x.s.admission.sorts) {
			return false
		}
		defer leave(x.s.admission.sorts)
	}
	if !x.enterPage() {
		return false
	}
	defer x.leavePage()
	p, err := l.page(ctx, v)
	if err == nil {
		if p.more && l.query.Sort == kv.SortByKey && !l.query.CountOnly {
			p.cursor = x.s.encodeCursor(cursor{l.query.Revision, l.asked, p.next})
			x.setHeader("Link", "<"+x.nextTarget(p.cursor)+`>; rel="next"`)
		}
		x.room(p.size())
		x.out = l.appendPage(x.out[:0], &p.page)
	}
	if err != nil {
		x.refuseRead(err)
	}
	return err == nil
}

// listing reads what is asked for.
func (x *exchange) listing() (l listing) {
	l.form = form{base64: x.base64Param(), keysOnly: x.boolParam(pKeysOnly)}
	l.mode = x.readMode()
	l.keys = x.rangeParams(false)
	l.stream = negotiate(x.r.Header["Accept"], api.TypeJSON, api.TypeNDJSON) == wantsSecond
	l.count = x.boolParam(pCount)
	q := &l.query
	q.CountOnly = x.boolParam(pCountOnly)
	q.KeysOnly = l.keysOnly
	q.Descending = x.wordParam(pOrder, "asc", "desc") == "desc"
	q.Sort = sortTargets[x.wordParam(pSort, sortWords...)]
	q.MinModRevision = x.uintParam(pMinModRevision, 1, kv.MaxRevision)
	q.MaxModRevision = x.uintParam(pMaxModRevision, 1, kv.MaxRevision)
	q.MinCreateRevision = x.uintParam(pMinCreateRevision, 1, kv.MaxRevision)
	q.MaxCreateRevision = x.uintParam(pMaxCreateRevision, 1, kv.MaxRevision)
	if l.stream {
		q.Limit = int(x.uintParam(pLimit, 1, math.MaxInt32))
	} else if q.Limit = int(x.uintParam(pLimit, 1, maxPage)); q.Limit == 0 {
		q.Limit = defaultPage
	}
	if x.q.present.has(pDelimiter) {
		q.Delimiter, q.PrefixLen = []byte(x.q.values[pDelimiter]), l.keys.prefixLen
		if len(q.Delimiter) == 0 || len(q.Delimiter) > kv.MaxKeyBytes {
			x.fail(api.CodeInvalidArgument, "delimiter: want 1 to %d bytes", kv.MaxKeyBytes)
		}
	}
	switch {
	case q.Sort != kv.SortByKey && (l.stream || x.q.present.has(pCursor) || q.Delimiter != nil):
		x.fail(api.CodeInvalidArgument, "a list that is sorted by something else than the key is one page of JSON, without cursor and delimiter")
	case l.stream && (l.count || q.CountOnly):
		x.fail(api.CodeInvalidArgument, "a stream has no count; ask for it with Accept: application/json")
	case q.CountOnly && (x.q.present.has(pCursor) || q.Delimiter != nil):
		x.fail(api.CodeInvalidArgument, "count_only excludes cursor and delimiter")
	}

	l.asked = l.question()
	l.parts = l.keys.parts()
	if q.Descending {
		slices.Reverse(l.parts)
	}
	if c, ok := x.cursorParam(l.asked, &l.mode); ok {
		l.parts = l.after(l.parts, c.after)
	}
	return l
}

// question digests what decides which entries come, and in which order.
func (l *listing) question() [16]byte {
	q := &l.query
	var numbers []byte
	for _, n := range []uint64{q.MinModRevision, q.MaxModRevision, q.MinCreateRevision, q.MaxCreateRevision, uint64(q.PrefixLen)} {
		numbers = binary.BigEndian.AppendUint64(numbers, n)
	}
	flags := []byte{'l', boolByte(l.keys.bare), boolByte(q.Descending)}
	return question(flags, l.keys.Start, l.keys.End, q.Delimiter, numbers)
}

func boolByte(v bool) byte {
	if v {
		return 1
	}
	return 0
}

// isFolded reports whether what a list gave last is a common prefix: a key of the
// list itself has no delimiter behind the prefix.
func (l *listing) isFolded(last []byte) bool {
	q := &l.query
	return len(q.Delimiter) > 0 && len(last) > q.PrefixLen && bytes.Contains(last[q.PrefixLen:], q.Delimiter)
}

// after returns what is left of parts behind last, a key or a common prefix. A
// common prefix is left behind with all that is under it, also what is under it
// in another part.
func (l *listing) after(parts []kv.Range, last []byte) []kv.Range {
	var rest []kv.Range
	for _, part := range parts {
		if l.query.Descending {
			// Everything under a common prefix comes after it in byte order.
			if len(part.End) == 0 || bytes.Compare(last, part.End) < 0 {
				part.End = last
			}
		} else {
			from := kv.SingleKey(last).End
			if l.isFolded(last) {
				if from = kv.PrefixEnd(last); from == nil {
					continue
				}
			}
			if bytes.Compare(from, part.Start) > 0 {
				part.Start = from
			}
		}
		if !part.Empty() {
			rest = append(rest, part)
		}
	}
	return rest
}

// A listPage is a page and where the list goes on behind it.
type listPage struct {
	page
	next []byte
}

// page reads one page. A list of every key is read in two parts, with the
// reserved keys between them left out.
func (l *listing) page(ctx context.Context, v View) (p listPage, err error) {
	p.revision = l.query.Revision
	p.folded = l.query.Delimiter != nil
	if l.count || l.query.CountOnly {
		p.counted = true
		for _, part := range l.keys.parts() {
			q := l.query
			q.Range, q.CountOnly, q.Count, q.Limit, q.Delimiter = part, true, true, 0, nil
			part, err := v.List(ctx, &q)
			if err != nil {
				return p, err
			}
			p.count += part.Count
		}
		if l.query.CountOnly {
			return p, nil
		}
	}
	if l.query.Sort != kv.SortByKey {
		err := l.sorted(ctx, v, &p)
		return p, err
	}
	left, bytesLeft := l.query.Limit, maxPageBytes
	if l.stream {
		bytesLeft = streamBytes
	}
	for parts := l.parts; len(parts) > 0 && !p.more; {
		q := l.query
		q.Range, q.Limit, q.MaxBytes = parts[0], left, bytesLeft
		parts = parts[1:]
		// A page that is full may still not be all there is.
		probe := left == 0 || bytesLeft <= 0
		if probe {
			q.Limit, q.MaxBytes, q.KeysOnly = 1, 0, true
		}
		got, err := v.List(ctx, &q)
		if err != nil {
			return p, err
		}
		if probe {
			p.more = len(got.Entries)+len(got.CommonPrefixes) > 0
			continue
		}
		p.add(got)
		left -= len(got.Entries) + len(got.CommonPrefixes)
		for i := range got.Entries {
			bytesLeft -= got.Entries[i].Size()
		}
		if last := lastOf(got, l.query.Descending); last != nil {
			p.next = last
			parts = l.after(parts, last)
		}
		if got.More {
			p.more, p.next = true, got.Next
		}
	}
	return p, nil
}

func (p *listPage) add(got *kv.List) {
	if p.entries == nil && p.prefixes == nil {
		p.entries, p.prefixes = got.Entries, got.CommonPrefixes
		return
	}
	p.entries = append(p.entries, got.Entries...)
	p.prefixes = append(p.prefixes, got.CommonPrefixes...)
}

// lastOf is the last key or common prefix of a list, in list order.
func lastOf(got *kv.List, descending bool) []byte {
	var last []byte
	if n := len(got.Entries); n > 0 {
		last = got.Entries[n-1].Key
	}
	if n := len(got.CommonPrefixes); n > 0 {
		p := got.CommonPrefixes[n-1]
		if last == nil || (bytes.Compare(p, last) > 0) != descending {
			last = p
		}
	}
	return last
}

// sorted reads a page that is sorted by something else than the key.
func (l *listing) sorted(ctx context.Context, v View, p *listPage) error {
	var ends []kv.Entry // behind which a part has more
	for _, part := range l.parts {
		q := l.query
		q.Range, q.MaxBytes = part, maxPageBytes
		if q.Sort == kv.SortByValue && len(l.parts) > 1 {
			q.KeysOnly, q.MaxBytes = false, 0 // the parts are merged by their values
		}
		got, err := v.List(ctx, &q)
		if err != nil {
			return err
		}
		if n := len(got.Entries); got.More && n > 0 {
			ends = append(ends, got.Entries[n-1])
		}
		p.add(got)
		p.more = p.more || got.More
	}
	if len(l.parts) < 2 {
		return nil
	}
	slices.SortFunc(p.entries, func(a, b kv.Entry) int { return l.compare(&a, &b) })
	used := 0
	for i := range p.entries {
		e := &p.entries[i]
		if used += e.Size(); l.query.KeysOnly {
			used -= len(e.Value) + len(e.ContentType)
		}
		// What a part did not tell may come before this.
		unknown := slices.ContainsFunc(ends, func(end kv.Entry) bool { return l.compare(e, &end) > 0 })
		if i == l.query.Limit || i > 0 && used > maxPageBytes || unknown {
			p.entries, p.more = p.entries[:i], true
			break
		}
	}
	if l.query.KeysOnly {
		for i := range p.entries {
			p.entries[i].Value, p.entries[i].ContentType = nil, ""
		}
	}
	return nil
}

// compare compares in the order of a list that is sorted by something else than the key.
func (l *listing) compare(a, b *kv.Entry) int {
	order := compareBy(l.query.Sort, a, b)
	if l.query.Descending {
		order = -order
	}
	if order == 0 {
		// Ties go by key, ascending, as in each of the parts.
		order = bytes.Compare(a.Key, b.Key)
	}
	return order
}

func compareBy(target kv.SortTarget, a, b *kv.Entry) int {
	switch target {
	case kv.SortByVersion:
		return cmp.Compare(a.Version, b.Version)
	case kv.SortByCreate:
		return cmp.Compare(a.CreateRevision, b.CreateRevision)
	case kv.SortByMod:
		return cmp.Compare(a.ModRevision, b.ModRevision)
	case kv.SortByValue:
		return bytes.Compare(a.Value, b.Value)
	}
	return 0
}

// nextTarget is the target of this request with another cursor.
func (x *exchange) nextTarget(cursor string) string {
	var b strings.Builder
	b.WriteString(x.r.URL.EscapedPath())
	separator := byte('?')
	for pair := range strings.SplitSeq(x.r.URL.RawQuery, "&") {
		if name, _, _ := strings.Cut(pair, "="); pair == "" || name == paramNames[pCursor] {
			continue
		}
		b.WriteByte(separator)
		b.WriteString(linkSafe(pair))
		separator = '&'
	}
	b.WriteByte(separator)
	b.WriteString("cursor=")
	b.WriteString(cursor)
	return b.String()
}

// linkSafe escapes what would end the target of a Link header. The parser of
// net/http lets it through in a query.
func linkSafe(s string) string {
	return linkEscaper.Replace(s)
}

var linkEscaper = strings.NewReplacer(">", "%3E", "<", "%3C", `"`, "%22", " ", "%20", "\\", "%5C")

// streamBytes is how much of a stream is collected before it is written.
const streamBytes = 32 << 10

// viewHold is for how long a stream holds on to a view of the store. A client that
// reads slowly would keep on the disk what was overwritten and compacted since, for
// hours. The next view is read at the same revision.
const viewHold = 30 * time.Second

// listViews are the views of the store that a stream reads, one after the other.
type listViews struct {
	x     *exchange
	now   View
	since time.Time
}

// old reports whether it is time for another view.
func (s *listViews) old() bool { return time.Since(s.since) >= s.x.s.viewHold }

// renew lets go of the view and opens another one.
func (s *listViews) renew() error {
	s.now.Close()
	s.now = nil
	v, err := s.x.s.cfg.Store.View()
	if err != nil {
		return err
	}
	s.now, s.since = v, time.Now()
	return nil
}

func (s *listViews) close() {
	if s.now != nil {
		s.now.Close()
	}
}

// streamList answers with a line for each entry, in constant memory. What goes
// wrong after the first line breaks the connection off, so that a stream that
// ended well is one that is complete. It closes the view.
func (x *exchange) streamList(v View, l *listing) {
	views := &listViews{x: x, now: v, since: time.Now()}
	defer views.close()
	revision := v.Revision()
	x.w.Header()["Content-Type"] = valueNDJSON
	x.w.Header()["Cache-Control"] = valueNoStore
	x.w.Header()["X-Content-Type-Options"] = valueNosniff
	b := x.out[:0]
	started := false
	flush := func() error {
		if !started {
			started = true
			x.writeHeader(200, revision)
		}
		err := x.writeBody(b)
		b = b[:0]
		return err
	}
	ended := func() error {
		if len(b) < streamBytes {
			return nil
		}
		return flush()
	}
	err := l.scan(views, func(e *kv.Entry) error {
		b = append(l.appendEntry(b, e), '\n')
		return ended()
	}, func(prefix []byte) error {
		b = append(b, '{')
		b = appendBytes(b, "common_prefix", prefix, l.base64)
		b = append(b, '}', '\n')
		return ended()
	})
	x.out = b
	switch {
	case err == nil:
		_ = flush()
	case !started:
		x.refuseRead(err)
	default:
		panic(http.ErrAbortHandler)
	}
}

// errViewOld ends a scan that goes on with another view.
var errViewOld = errors.New("the view is old")

// scan calls entry or prefix for each line of a stream.
func (l *listing) scan(views *listViews, entry func(*kv.Entry) error, prefix func([]byte) error) error {
	if l.query.Delimiter != nil {
		return l.scanFolded(views, entry, prefix)
	}
	left := l.query.Limit
	for _, part := range l.parts {
		q := l.query
		q.Range, q.Limit = part, left
		for more := true; more; {
			seen := 0
			err := views.now.Scan(views.x.r.Context(), &q, func(e *kv.Entry) error {
				seen++
				if err := entry(e); err != nil || !views.old() {
					return err
				}
				q.After = bytes.Clone(e.Key)
				return errViewOld
			})
			if more = err == errViewOld; more {
				err = views.renew()
			}
			if err != nil {
				return err
			}
			if l.query.Limit > 0 {
				if left -= seen; left <= 0 {
					return nil
				}
				q.Limit = left
			}
		}
	}
	return nil
}

// scanFolded streams a list with common prefixes, page after page. Pages are small: one
// is held, with its view, until a client that reads slowly has taken it.
func (l *listing) scanFolded(views *listViews, entry func(*kv.Entry) error, prefix func([]byte) error) error {
	const pageEntries = 1000
	pages, ctx := *l, views.x.r.Context()
	left := l.query.Limit
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		if views.old() {
			if err := views.renew(); err != nil {
				return err
			}
		}
		pages.query.Limit = pageEntries
		if l.query.Limit > 0 {
			pages.query.Limit = min(pageEntries, left)
		}
		p, err := pages.page(ctx, views.now)
		if err != nil {
			return err
		}
		// Entries and common prefixes are two lists, each in order.
		entries, prefixes := p.entries, p.prefixes
		for len(entries)+len(prefixes) > 0 {
			takeEntry := len(prefixes) == 0 ||
				len(entries) > 0 && (bytes.Compare(entries[0].Key, prefixes[0]) < 0) != l.query.Descending
			if takeEntry {
				err, entries = entry(&entries[0]), entries[1:]
			} else {
				err, prefixes = prefix(prefixes[0]), prefixes[1:]
			}
			if err != nil {
				return err
			}
		}
		left -= len(p.entries) + len(p.prefixes)
		if !p.more || l.query.Limit > 0 && left <= 0 {
			return nil
		}
		pages.parts = pages.after(pages.parts, p.next)
	}
}
