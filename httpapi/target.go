package httpapi

import (
	"encoding/base64"
	"net/url"
	"strings"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/kv"
)

const (
	keyPath     = "/v1/kv/"
	historyPath = "/v1/history/"
)

// pathKey returns what follows prefix in the path, percent-decoded exactly once.
//
// That is what URL.Path has, whatever it was decoded from; what chi calls its "*"
// is cut from RawPath when there is one and from Path when there is none, so that
// it is sometimes decoded and sometimes not. The prefix itself must stand in the
// path as it was sent.
func pathKey(u *url.URL, prefix string) (key string, ok bool) {
	if u.RawPath != "" && !strings.HasPrefix(u.RawPath, prefix) {
		return "", false
	}
	return strings.CutPrefix(u.Path, prefix)
}

// key returns the key that the request names, from the path after prefix or, if
// prefix is empty, from the query. The key is copied out of the request.
func (x *exchange) key(prefix string) []byte {
	var key []byte
	switch {
	case prefix != "":
		s, _ := pathKey(x.r.URL, prefix)
		key = append(x.keyBuf[:0], s...)
		x.keyBuf = key
	case x.q.present.has(pKey) && x.q.present.has(pKeyBase64):
		x.fail(api.CodeInvalidArgument, "key and key_base64 exclude each other")
		return nil
	case !x.q.present.has(pKey) && !x.q.present.has(pKeyBase64):
		x.fail(api.CodeInvalidArgument, "key or key_base64 is missing")
		return nil
	default:
		key, _ = x.bytesParam(pKey, pKeyBase64)
		if x.fault.code == api.CodeBadKeyEncoding {
			return nil
		}
	}
	x.checkKey(key)
	return key
}

// checkKey reports a key that can't be one.
func (x *exchange) checkKey(key []byte) {
	switch {
	case len(key) == 0:
		x.fail(api.CodeKeyEmpty, "a key has at least one byte")
	case len(key) > kv.MaxKeyBytes:
		x.failLimit(api.CodeKeyTooLarge, kv.MaxKeyBytes, "a key has at most %d bytes, this one has %d", kv.MaxKeyBytes, len(key))
	}
}

// checkWritable reports a key that only Cairn's own recipes write.
func (x *exchange) checkWritable(key []byte) {
	if len(key) >= len(kv.ReservedPrefix) && string(key[:len(kv.ReservedPrefix)]) == kv.ReservedPrefix {
		x.fail(api.CodeReserved, "keys under %s are written by Cairn's own recipes alone", kv.ReservedPrefix)
	}
}

// bytesParam reads bytes that are given as they are or as base64, and whether
// they are given at all.
func (x *exchange) bytesParam(plain, b64 param) ([]byte, bool) {
	switch {
	case x.q.present.has(plain) && x.q.present.has(b64):
		x.fail(api.CodeInvalidArgument, "%s and %s exclude each other", paramNames[plain], paramNames[b64])
	case x.q.present.has(plain):
		return []byte(x.q.values[plain]), true
	case x.q.present.has(b64):
		b, ok := decodeBase64(x.q.values[b64])
		if !ok {
			x.fail(api.CodeBadKeyEncoding, "%s is not base64", paramNames[b64])
		}
		return b, true
	default:
		return nil, false
	}
	return nil, true
}

// repeatedBytes reads bytes that may be given any number of times, as they are or
// as base64.
func (x *exchange) repeatedBytes(plain, b64 param) (all [][]byte) {
	add := func(p param, value string) {
		b, ok := []byte(value), true
		if p == b64 {
			b, ok = decodeBase64(value)
		}
		if !ok {
			x.fail(api.CodeBadKeyEncoding, "%s is not base64", paramNames[b64])
			return
		}
		all = append(all, b)
	}
	for _, p := range []param{plain, b64} {
		if x.q.present.has(p) {
			add(p, x.q.values[p])
		}
	}
	for _, m := range x.q.more {
		if m.p == plain || m.p == b64 {
			add(m.p, m.value)
		}
	}
	return all
}

// decodeBase64 takes the standard and the URL-safe alphabet, but not a mixture,
// padded or not. Bits that don't reach a byte must be zero, so that each byte
// string has one spelling in each form.
func decodeBase64(s string) ([]byte, bool) {
	enc := base64.RawStdEncoding
	if strings.ContainsAny(s, "-_") {
		enc = base64.RawURLEncoding
	}
	// The library skips line breaks; a key in a query has no business with them.
	if strings.ContainsAny(s, "\r\n") {
		return nil, false
	}
	if len(s)%4 == 0 {
		s = strings.TrimSuffix(strings.TrimSuffix(s, "="), "=")
	}
	b, err := enc.Strict().DecodeString(s)
	return b, err == nil
}

// keyRange is what a list or a range delete is about.
type keyRange struct {
	kv.Range
	prefixLen int
	// bare says that nothing was given, so that keys under _cairn/ don't count.
	bare bool
}

// rangeParams reads prefix, or start and end. What is given and empty counts as
// given when strict is set, and is then refused: a variable that was not set
// must not become every key.
func (x *exchange) rangeParams(strict bool) keyRange {
	prefix, hasPrefix := x.bytesParam(pPrefix, pPrefixBase64)
	start, hasStart := x.bytesParam(pStart, pStartBase64)
	end, hasEnd := x.bytesParam(pEnd, pEndBase64)
	if strict && (hasPrefix && len(prefix) == 0 || hasStart && len(start) == 0 || hasEnd && len(end) == 0) {
		x.fail(api.CodeInvalidArgument, "an empty prefix, start or end is refused here; all=true means every key")
	}
	for _, b := range [][]byte{prefix, start, end} {
		x.checkBound(b)
	}
	switch {
	case hasPrefix && (hasStart || hasEnd):
		x.fail(api.CodeInvalidArgument, "prefix excludes start and end")
		return keyRange{}
	case len(prefix) > 0:
		return keyRange{Range: kv.Prefix(prefix), prefixLen: len(prefix)}
	case len(start) == 0 && len(end) == 0:
		return keyRange{bare: true}
	}
	r := keyRange{Range: kv.Range{Start: start, End: end}}
	if r.Empty() {
		x.fail(api.CodeRangeInvalid, "start must be before end")
	}
	return r
}

// checkBound reports a prefix or a bound of a range that can't be one.
func (x *exchange) checkBound(b []byte) {
	if len(b) > kv.MaxKeyBytes+1 {
		x.failLimit(api.CodeKeyTooLarge, kv.MaxKeyBytes, "a prefix or a bound has at most %d bytes", kv.MaxKeyBytes)
	}
}

// reservedRange is the keys that only Cairn's own recipes write.
var reservedRange = kv.Prefix([]byte(kv.ReservedPrefix))

// withoutReserved returns the ranges before and after the reserved one, which
// together with it are every key.
func withoutReserved() [2]kv.Range {
	return [2]kv.Range{{End: reservedRange.Start}, {Start: reservedRange.End}}
}

// parts returns the ranges whose keys count, in byte order.
func (r keyRange) parts() []kv.Range {
	if r.bare {
		parts := withoutReserved()
		return parts[:]
	}
	return []kv.Range{r.Range}
}
