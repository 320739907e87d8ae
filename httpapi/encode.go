package httpapi

import (
	"encoding/base64"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/kv"
)

// The encoders append to a buffer and return it. They write the shapes of
// package api without its types, so that nothing is copied and nothing is
// reflected on; a test holds the two to each other.

const hexDigits = "0123456789abcdef"

// appendQuoted appends s, which must be valid UTF-8, as a JSON string.
func appendQuoted[S string | []byte](b []byte, s S) []byte {
	b = append(b, '"')
	from := 0
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' {
			continue
		}
		b = append(b, s[from:i]...)
		from = i + 1
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		default:
			b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	b = append(b, s[from:]...)
	return append(b, '"')
}

func appendBase64(b, s []byte) []byte {
	b = append(b, '"')
	b = base64.StdEncoding.AppendEncode(b, s)
	return append(b, '"')
}

// appendBytes appends a member that holds bytes: "name":"text" when they are
// valid UTF-8, else "name_base64":"…". force asks for the second form.
func appendBytes(b []byte, name string, s []byte, force bool) []byte {
	b = append(b, '"')
	b = append(b, name...)
	if !force && utf8.Valid(s) {
		b = append(b, '"', ':')
		return appendQuoted(b, s)
	}
	b = append(b, `_base64":`...)
	return appendBase64(b, s)
}

func appendLease(b []byte, id kv.LeaseID) []byte {
	n := len(b)
	b = append(b, "00000000000000000000000000"...)
	// Fails only when the space is not 26 bytes long.
	_ = id.MarshalTextTo(b[n:])
	return b
}

// appendTime appends a time in api.TimeLayout, which each entry has. Package time
// takes ten times as long, as it reads the layout anew each time.
func appendTime(b []byte, unixMillis int64) []byte {
	t := time.UnixMilli(unixMillis).UTC()
	year, month, day := t.Date()
	if year < 0 || year > 9999 {
		b = append(b, '"')
		b = t.AppendFormat(b, api.TimeLayout)
		return append(b, '"')
	}
	hour, minute, second := t.Clock()
	milli := t.Nanosecond() / int(time.Millisecond)
	digit := func(n, unit int) byte { return byte('0' + n/unit%10) }
	return append(b, '"',
		digit(year, 1000), digit(year, 100), digit(year, 10), digit(year, 1), '-',
		digit(int(month), 10), digit(int(month), 1), '-',
		digit(day, 10), digit(day, 1), 'T',
		digit(hour, 10), digit(hour, 1), ':',
		digit(minute, 10), digit(minute, 1), ':',
		digit(second, 10), digit(second, 1), '.',
		digit(milli, 100), digit(milli, 10), digit(milli, 1), 'Z', '"')
}

func appendUint(b []byte, name string, n uint64) []byte {
	b = append(b, name...)
	return strconv.AppendUint(b, n, 10)
}

// form is how entries are written.
type form struct {
	base64   bool // keys and values always as base64
	keysOnly bool // no values
}

func (f form) appendEntry(b []byte, e *kv.Entry) []byte {
	b = append(b, '{')
	b = f.appendEntryMembers(b, e)
	return append(b, '}')
}

func (f form) appendEntryMembers(b []byte, e *kv.Entry) []byte {
	b = appendBytes(b, "key", e.Key, f.base64)
	if !f.keysOnly {
		b = append(b, ',')
		b = appendBytes(b, "value", e.Value, f.base64)
	}
	if e.ContentType != "" {
		b = append(b, `,"content_type":`...)
		b = appendQuoted(b, e.ContentType)
	}
	b = appendUint(b, `,"create_revision":`, e.CreateRevision)
	b = appendUint(b, `,"mod_revision":`, e.ModRevision)
	b = appendUint(b, `,"version":`, e.Version)
	if e.Lease != (kv.LeaseID{}) {
		b = append(b, `,"lease":"`...)
		b = appendLease(b, e.Lease)
		b = append(b, '"')
	}
	b = append(b, `,"modified_at":`...)
	return appendTime(b, e.ModifiedAt)
}

func (f form) appendEntries(b []byte, entries []kv.Entry) []byte {
	b = append(b, '[')
	for i := range entries {
		if i > 0 {
			b = append(b, ',')
		}
		b = f.appendEntry(b, &entries[i])
	}
	return append(b, ']')
}

func appendBool(b []byte, name string, v bool) []byte {
	b = append(b, name...)
	return strconv.AppendBool(b, v)
}

func (f form) appendPut(b []byte, revision uint64, o *kv.OpResult) []byte {
	b = appendUint(b, `{"revision":`, revision)
	b = appendBool(b, `,"created":`, o.Created)
	if o.Lease != (kv.LeaseID{}) {
		b = append(b, `,"lease":"`...)
		b = appendLease(b, o.Lease)
		b = append(b, '"')
	}
	if len(o.Prev) > 0 {
		b = append(b, `,"prev":`...)
		b = f.appendEntry(b, &o.Prev[0])
	}
	return append(b, '}')
}

func appendIncrement(b []byte, revision uint64, o *kv.OpResult) []byte {
	b = appendUint(b, `{"revision":`, revision)
	b = appendBool(b, `,"created":`, o.Created)
	b = append(b, `,"value":"`...)
	b = strconv.AppendInt(b, o.Value, 10)
	b = append(b, '"')
	if o.Lease != (kv.LeaseID{}) {
		b = append(b, `,"lease":"`...)
		b = appendLease(b, o.Lease)
		b = append(b, '"')
	}
	return append(b, '}')
}

// appendDelete appends the sum of the deletes that one request was made of.
func (f form) appendDelete(b []byte, revision uint64, prev bool, ops ...kv.OpResult) []byte {
	var deleted uint64
	for i := range ops {
		deleted += ops[i].Deleted
	}
	b = appendUint(b, `{"revision":`, revision)
	b = appendUint(b, `,"deleted":`, deleted)
	if prev {
		b = append(b, `,"prev":[`...)
		first := true
		for i := range ops {
			for j := range ops[i].Prev {
				if !first {
					b = append(b, ',')
				}
				first = false
				b = f.appendEntry(b, &ops[i].Prev[j])
			}
		}
		b = append(b, ']')
	}
	return append(b, '}')
}

// A page is a list as it is answered.
type page struct {
	revision uint64
	entries  []kv.Entry
	prefixes [][]byte
	// folded says that common prefixes were asked for, counted that a count was.
	folded, counted bool
	count           uint64
	more            bool
	cursor          string
}

// size is about what the page takes as JSON. Bytes that have to be escaped take
// more.
func (p *page) size() int {
	const page, perEntry = 256, 216
	n := page + len(p.cursor)
	for i := range p.entries {
		e := &p.entries[i]
		n += perEntry + len(e.Key) + len(e.Value) + len(e.ContentType)
	}
	for _, prefix := range p.prefixes {
		n += len(prefix) + len(`"",`)
	}
	return n
}

func (f form) appendPage(b []byte, p *page) []byte {
	b = appendUint(b, `{"revision":`, p.revision)
	b = append(b, `,"entries":`...)
	b = f.appendEntries(b, p.entries)
	if p.folded {
		b = f.appendKeys(b, "common_prefixes", p.prefixes)
	}
	b = appendBool(b, `,"more":`, p.more)
	if p.cursor != "" {
		b = append(b, `,"next_cursor":`...)
		b = appendQuoted(b, p.cursor)
	}
	if p.counted {
		b = appendUint(b, `,"count":`, p.count)
	}
	return append(b, '}')
}

// appendKeys appends a member that holds a list of keys or prefixes, all of them
// in the same form.
func (f form) appendKeys(b []byte, name string, keys [][]byte) []byte {
	asText := !f.base64
	for _, k := range keys {
		asText = asText && utf8.Valid(k)
	}
	b = append(append(b, ',', '"'), name...)
	if !asText {
		b = append(b, "_base64"...)
	}
	b = append(b, '"', ':', '[')
	for i, k := range keys {
		if i > 0 {
			b = append(b, ',')
		}
		if asText {
			b = appendQuoted(b, k)
		} else {
			b = appendBase64(b, k)
		}
	}
	return append(b, ']')
}

func (f form) appendChange(b []byte, ev *kv.Event) []byte {
	if ev.Type == kv.EventDelete {
		b = appendUint(b, `{"type":"delete","mod_revision":`, ev.Entry.ModRevision)
		b = append(b, `,"modified_at":`...)
		b = appendTime(b, ev.Entry.ModifiedAt)
		b = append(b, `,"reason":"`...)
		b = append(b, ev.Reason.String()...)
		return append(b, '"', '}')
	}
	b = append(b, `{"type":"put",`...)
	b = f.appendEntryMembers(b, &ev.Entry)
	return append(b, '}')
}

func (f form) appendTxn(b []byte, revision uint64, t *kv.Txn, r *kv.Result) []byte {
	b = appendUint(b, `{"revision":`, revision)
	b = appendBool(b, `,"succeeded":`, r.Succeeded)
	b = append(b, `,"results":[`...)
	branch := t.Then
	if !r.Succeeded {
		branch = t.Else
	}
	for i := range r.Ops {
		if i > 0 {
			b = append(b, ',')
		}
		var op *kv.Op
		if i < len(branch) {
			op = &branch[i]
		}
		b = f.appendOp(b, revision, op, &r.Ops[i])
	}
	return append(b, ']', '}')
}

// appendOp appends the result o of the operation op. A remembered answer belongs
// to the same operation, since the fingerprint of its request is the same.
func (f form) appendOp(b []byte, revision uint64, op *kv.Op, o *kv.OpResult) []byte {
	switch o.Type {
	case kv.OpPut:
		b = f.appendPut(append(b, `{"put":`...), revision, o)
	case kv.OpIncrement:
		b = appendIncrement(append(b, `{"increment":`...), revision, o)
	case kv.OpDelete:
		b = f.appendDelete(append(b, `{"delete":`...), revision, op != nil && op.Prev, *o)
	case kv.OpGet:
		p := page{revision: revision}
		g := f
		if o.List != nil {
			p.entries, p.more, p.count = o.List.Entries, o.List.More, o.List.Count
			if o.List.Revision != 0 {
				p.revision = o.List.Revision
			}
		}
		if op != nil && op.Query != nil {
			p.counted = op.Query.Count || op.Query.CountOnly
			g.keysOnly = op.Query.KeysOnly
		}
		b = g.appendPage(append(b, `{"get":`...), &p)
	case kv.OpTxn:
		nested, inner := &kv.Result{}, &kv.Txn{}
		if o.Txn != nil {
			nested = o.Txn
		}
		if op != nil && op.Txn != nil {
			inner = op.Txn
		}
		b = f.appendTxn(append(b, `{"txn":`...), revision, inner, nested)
	}
	return append(b, '}')
}
