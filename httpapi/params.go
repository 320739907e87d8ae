package httpapi

import (
	"strings"

	"github.com/cairnkv/cairn/api"
)

// A param is a query parameter that some route knows.
type param uint8

const (
	pKey param = iota
	pKeyBase64
	pPrefix
	pPrefixBase64
	pStart
	pStartBase64
	pEnd
	pEndBase64
	pAll
	pLimit
	pCursor
	pOrder
	pSort
	pKeysOnly
	pCount
	pCountOnly
	pDelimiter
	pMinModRevision
	pMaxModRevision
	pMinCreateRevision
	pMaxCreateRevision
	pRevision
	pConsistency
	pMinRevision
	pMaxStaleness
	pEncoding
	pLease
	pTTL
	pPrev
	pIfRevision
	pIgnoreValue
	pIgnoreLease
	pKeys
	pSequence
	pToken
	pTag
	pAfter
	pVerbose
	pFromRevision
	pLastEventID
	pInitial
	pType
	pBookmark
	pWait
	pMember
	numParams
)

var paramNames = [numParams]string{
	pKey:               "key",
	pKeyBase64:         "key_base64",
	pPrefix:            "prefix",
	pPrefixBase64:      "prefix_base64",
	pStart:             "start",
	pStartBase64:       "start_base64",
	pEnd:               "end",
	pEndBase64:         "end_base64",
	pAll:               "all",
	pLimit:             "limit",
	pCursor:            "cursor",
	pOrder:             "order",
	pSort:              "sort",
	pKeysOnly:          "keys_only",
	pCount:             "count",
	pCountOnly:         "count_only",
	pDelimiter:         "delimiter",
	pMinModRevision:    "min_mod_revision",
	pMaxModRevision:    "max_mod_revision",
	pMinCreateRevision: "min_create_revision",
	pMaxCreateRevision: "max_create_revision",
	pRevision:          "revision",
	pConsistency:       "consistency",
	pMinRevision:       "min_revision",
	pMaxStaleness:      "max_staleness",
	pEncoding:          "encoding",
	pLease:             "lease",
	pTTL:               "ttl",
	pPrev:              "prev",
	pIfRevision:        "if_revision",
	pIgnoreValue:       "ignore_value",
	pIgnoreLease:       "ignore_lease",
	pKeys:              "keys",
	pSequence:          "sequence",
	pToken:             "token",
	pTag:               "tag",
	pAfter:             "after",
	pVerbose:           "verbose",
	pFromRevision:      "from_revision",
	pLastEventID:       "last_event_id",
	pInitial:           "initial",
	pType:              "type",
	pBookmark:          "bookmark",
	pWait:              "wait",
	pMember:            "member",
}

var paramByName = func() map[string]param {
	m := make(map[string]param, numParams)
	for p, name := range paramNames {
		m[name] = param(p)
	}
	return m
}()

// A paramSet is the parameters that a route takes.
type paramSet uint64

func params(ps ...param) paramSet {
	var set paramSet
	for _, p := range ps {
		set |= 1 << p
	}
	return set
}

func (s paramSet) has(p param) bool { return s&(1<<p) != 0 }

// names lists the set, for messages.
func (s paramSet) names() string {
	var names []string
	for p := range numParams {
		if s.has(p) {
			names = append(names, paramNames[p])
		}
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// paramValues is the query of a request. A parameter that stands without "="
// is bare: ?prev is ?prev=true, while ?prev= is a variable that was not set.
type paramValues struct {
	present, bare paramSet
	values        [numParams]string
	// more is what is given beyond the first time, of what may be.
	more []moreValue
}

type moreValue struct {
	p     param
	value string
}

func (v *paramValues) reset() {
	for p := param(0); v.present != 0; p++ {
		if v.present.has(p) {
			v.values[p] = ""
			v.present &^= 1 << p
		}
	}
	v.bare = 0
	clear(v.more)
	v.more = v.more[:0]
}

// parseQuery reads a raw query that may hold the allowed parameters, each once
// unless it may be repeated.
func (x *exchange) parseQuery(raw string, allowed, repeatable paramSet) {
	for raw != "" {
		var pair string
		pair, raw, _ = strings.Cut(raw, "&")
		if pair == "" {
			continue
		}
		rawName, rawValue, given := strings.Cut(pair, "=")
		name, ok := unescapeQuery(rawName)
		p, known := paramByName[name]
		if !ok || !known || !allowed.has(p) {
			if x.fault.code == api.CodeInvalidArgument {
				continue // the first one is told, and what is allowed takes longer to say than to refuse
			}
			x.fail(api.CodeInvalidArgument, "parameter %.64q is not one of this route, which takes: %s", name, allowed.names())
			continue
		}
		value, ok := unescapeQuery(rawValue)
		switch {
		case !ok && (keyParams | rangeParams).has(p):
			x.fail(api.CodeBadKeyEncoding, "parameter %s has a percent sign that no two hexadecimal digits follow, or a raw semicolon", name)
		case !ok:
			x.fail(api.CodeInvalidArgument, "parameter %s has a percent sign that no two hexadecimal digits follow, or a raw semicolon", name)
		case x.q.present.has(p) && repeatable.has(p):
			x.q.more = append(x.q.more, moreValue{p, value})
			continue
		case x.q.present.has(p):
			x.fail(api.CodeInvalidArgument, "parameter %s is given twice", name)
		}
		x.q.present |= 1 << p
		x.q.values[p] = value
		if !given {
			x.q.bare |= 1 << p
		}
	}
}

// unescapeQuery decodes one name or value of a query, in which a plus sign is a
// space. A raw semicolon is refused: some servers take it for an ampersand.
func unescapeQuery(s string) (string, bool) {
	plain := true
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '%', '+':
			plain = false
		case ';':
			return "", false
		}
	}
	if plain {
		return s, true
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '+':
			b = append(b, ' ')
		case '%':
			if i+2 >= len(s) {
				return "", false
			}
			hi, lo := unhex(s[i+1]), unhex(s[i+2])
			if hi < 0 || lo < 0 {
				return "", false
			}
			b = append(b, byte(hi<<4|lo))
			i += 2
		default:
			b = append(b, s[i])
		}
	}
	return string(b), true
}

func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// uintParam reads a number between lo and hi; absent it is 0.
func (x *exchange) uintParam(p param, lo, hi uint64) uint64 {
	if !x.q.present.has(p) {
		return 0
	}
	n, ok := parseUint(x.q.values[p])
	if !ok || n < lo || n > hi {
		x.fail(api.CodeInvalidArgument, "%s=%.40s: want a number from %d to %d", paramNames[p], x.q.values[p], lo, hi)
		if p == pLimit {
			x.fault.limit = int64(hi)
		}
		return 0
	}
	return n
}

// limitParam reads the limit of a page.
func (x *exchange) limitParam() int {
	if limit := int(x.uintParam(pLimit, 1, maxPage)); limit != 0 {
		return limit
	}
	return defaultPage
}

// boolParam reads true or false; absent it is false, bare it is true.
func (x *exchange) boolParam(p param) bool {
	switch {
	case !x.q.present.has(p):
		return false
	case x.q.bare.has(p) || x.q.values[p] == "true":
		return true
	case x.q.values[p] == "false":
		return false
	}
	x.fail(api.CodeInvalidArgument, "%s=%.40s: want true or false", paramNames[p], x.q.values[p])
	return false
}

// durationParam reads a duration in milliseconds; absent it is 0.
func (x *exchange) durationParam(p param, lo, hi int64) int64 {
	if !x.q.present.has(p) {
		return 0
	}
	ms, ok := parseDuration(x.q.values[p])
	if !ok {
		x.fail(api.CodeInvalidArgument, "%s=%.40s: want a duration such as 30s, 5m, 168h, or a number of seconds", paramNames[p], x.q.values[p])
		return 0
	}
	if ms < lo || ms > hi {
		x.fail(api.CodeInvalidArgument, "%s=%.40s: want at least %s and at most %s seconds", paramNames[p], x.q.values[p], seconds(lo), seconds(hi))
		return 0
	}
	return ms
}

// wordParam reads one of some words; absent it is the first.
func (x *exchange) wordParam(p param, words ...string) string {
	if !x.q.present.has(p) {
		return words[0]
	}
	for _, w := range words {
		if w != "" && x.q.values[p] == w {
			return w
		}
	}
	if words[0] == "" {
		words = words[1:]
	}
	x.fail(api.CodeInvalidArgument, "%s=%.40s: want %s", paramNames[p], x.q.values[p], strings.Join(words, " or "))
	return words[0]
}

// base64Param reads the encoding that the client wants of keys and values.
func (x *exchange) base64Param() bool {
	return x.wordParam(pEncoding, "", "base64") == "base64"
}
