package client

import (
	"encoding/base64"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/cairnkv/cairn/api"
)

// Keys says which keys an operation is about.
type Keys struct {
	r   api.Range
	all bool // EveryKey
}

// Key is one key.
func Key(key string) Keys { return Keys{r: api.Range{Key: []byte(key)}} }

// Prefix is every key that begins with prefix.
func Prefix(prefix string) Keys { return Keys{r: api.Range{Prefix: []byte(prefix)}} }

// Range is every key from start on (inclusive) to end (exclusive), in byte order.
// An empty start or end is open.
func Range(start, end string) Keys {
	var r api.Range
	if start != "" {
		r.Start = []byte(start)
	}
	if end != "" {
		r.End = []byte(end)
	}
	return Keys{r: r}
}

// EveryKey is every key but those under _cairn/, which are Cairn's own.
func EveryKey() Keys { return Keys{all: true} }

func (k Keys) every() bool {
	return k.r.Key == nil && k.r.Prefix == nil && k.r.Start == nil && k.r.End == nil
}

// query writes the keys as parameters of a list or a range delete.
func (k Keys) query(q url.Values) {
	set := func(name string, b []byte) {
		if b != nil {
			setBytes(q, name, string(b))
		}
	}
	if k.r.Key != nil {
		// A list knows no single key; this is the range of just it.
		set("start", k.r.Key)
		set("end", append([]byte(k.r.Key), 0))
		return
	}
	set("prefix", k.r.Prefix)
	set("start", k.r.Start)
	set("end", k.r.End)
}

// setBytes sets a parameter that is bytes, as base64 where that is shorter. What a query
// must escape takes three times its size, and two long keys with that would not fit the
// head of a request.
func setBytes(q url.Values, name, value string) {
	const suffix = "_base64"
	coded := base64.RawURLEncoding
	if len(url.QueryEscape(value)) > len(suffix)+coded.EncodedLen(len(value)) {
		name, value = name+suffix, coded.EncodeToString([]byte(value))
	}
	q.Set(name, value)
}

// keyTarget is the path of a key under a route, or the route's form with the key
// in the query for a key that a path can't carry unharmed: proxies merge empty
// segments, resolve dots, and disagree on bytes that are no text.
func keyTarget(path, byQuery, key string, q url.Values) (target string) {
	if !fitsPath(key) {
		setBytes(q, "key", key)
		return byQuery
	}
	var b strings.Builder
	b.WriteString(path)
	for i, segment := range strings.Split(key, "/") {
		if i > 0 {
			b.WriteByte('/')
		}
		b.WriteString(url.PathEscape(segment))
	}
	return b.String()
}

func fitsPath(key string) bool {
	if key == "" || !utf8.ValidString(key) {
		return false
	}
	for segment := range strings.SplitSeq(key, "/") {
		if segment == "" || segment == "." || segment == ".." {
			return false
		}
	}
	for i := range len(key) {
		if key[i] < 0x20 || key[i] == 0x7f || key[i] == '\\' {
			return false
		}
	}
	return true
}
