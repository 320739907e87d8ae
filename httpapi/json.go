package httpapi

import (
	"bytes"
	"fmt"
	"slices"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/cairnkv/cairn/api"
)

// A jsonParser reads one JSON document strictly: RFC 8259 to the letter, valid
// UTF-8, names compared exactly, no name twice, none that the reader doesn't
// know, nothing after the end, and no number rounded.
//
// It reports faults to an exchange. After bad-json it is broken: nothing that
// follows can be relied on, and every method returns zero. After any other fault
// it goes on, since one that comes first in api.Table may still follow.
//
// Strings without escapes alias the document.
type jsonParser struct {
	x      *exchange
	doc    []byte
	pos    int
	broken bool
}

// parseJSON reads doc with read and reports what is wrong with it.
func (x *exchange) parseJSON(doc []byte, read func(p *jsonParser)) {
	p := &jsonParser{x: x, doc: doc}
	if tooDeep(doc) {
		x.failLimit(api.CodeTooDeep, maxJSONDepth, "the JSON is nested more than %d levels deep", maxJSONDepth)
		return
	}
	if !utf8.Valid(doc) {
		p.bad("want UTF-8")
		return
	}
	read(p)
	if p.space(); !p.broken && p.pos < len(p.doc) {
		p.bad("want nothing after the end of the document")
	}
}

// tooDeep reports whether a document nests deeper than maxJSONDepth, looked at
// before it is parsed so that depth is refused whatever else is wrong. Of something
// that isn't JSON it is just an answer.
func tooDeep(doc []byte) bool {
	if bytes.Count(doc, []byte{'{'})+bytes.Count(doc, []byte{'['}) <= maxJSONDepth {
		return false // as nearly all
	}
	depth := 0
	inString := false
	for i := 0; i < len(doc); i++ {
		switch c := doc[i]; {
		case inString:
			if c == '\\' {
				i++
			} else if c == '"' {
				inString = false
			}
		case c == '"':
			inString = true
		case c == '{' || c == '[':
			if depth++; depth > maxJSONDepth {
				return true
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return false
}

// bad reports that the document is not the JSON that was wanted at this place.
func (p *jsonParser) bad(format string, args ...any) {
	if !p.broken {
		p.broken = true
		p.x.fail(api.CodeBadJSON, "at byte %d: %s", p.pos, fmt.Sprintf(format, args...))
	}
}

func (p *jsonParser) space() {
	for p.pos < len(p.doc) {
		switch p.doc[p.pos] {
		case ' ', '\t', '\n', '\r':
			p.pos++
		default:
			return
		}
	}
}

// peek returns the next byte that is not space, or 0 at the end.
func (p *jsonParser) peek() byte {
	if p.broken {
		return 0
	}
	p.space()
	if p.pos == len(p.doc) {
		return 0
	}
	return p.doc[p.pos]
}

func (p *jsonParser) accept(c byte) bool {
	if p.peek() != c {
		return false
	}
	p.pos++
	return true
}

// object reads an object. For each of its names it calls member, which reads the
// value and returns true, or returns false for a name that it doesn't know.
func (p *jsonParser) object(what string, member func(name string) bool) {
	if !p.accept('{') {
		p.bad("want an object: %s", what)
		return
	}
	var seen []string
	for first := true; ; first = false {
		if p.accept('}') || p.broken {
			return
		}
		if !first && !p.accept(',') {
			p.bad("want a comma or a closing brace")
			return
		}
		if p.peek() != '"' {
			p.bad("want a name in quotes")
			return
		}
		name := string(p.string())
		if !p.accept(':') {
			p.bad("want a colon")
			return
		}
		switch {
		case len(seen) == maxObjectFields:
			p.bad("an object has at most %d fields", maxObjectFields)
			return
		case slices.Contains(seen, name):
			p.x.fail(api.CodeDuplicateField, "%s has the field %.64q twice", what, name)
			p.skip()
		case member(name):
			seen = append(seen, name)
		default:
			p.x.fail(api.CodeUnknownField, "%s has no field %.64q", what, name)
			p.skip()
		}
	}
}

// maxObjectFields bounds the fields of one object: each is compared with those before
// it. No object of the API has so many.
const maxObjectFields = 256

// array reads an array and calls element for each of its elements.
func (p *jsonParser) array(what string, element func()) {
	if !p.accept('[') {
		p.bad("want an array: %s", what)
		return
	}
	for first := true; ; first = false {
		if p.accept(']') || p.broken {
			return
		}
		if !first && !p.accept(',') {
			p.bad("want a comma or a closing bracket")
			return
		}
		// "[1,]" has no element after its comma; whatever reads one says so.
		element()
	}
}

// skip reads any value.
func (p *jsonParser) skip() {
	switch c := p.peek(); {
	case c == '{':
		p.pos++
		for first := true; !p.broken; first = false {
			if p.accept('}') {
				return
			}
			if !first && !p.accept(',') {
				p.bad("want a comma or a closing brace")
				return
			}
			if p.peek() != '"' {
				p.bad("want a name in quotes")
				return
			}
			p.string()
			if !p.accept(':') {
				p.bad("want a colon")
				return
			}
			p.skip()
		}
	case c == '[':
		p.array("any", p.skip)
	case c == '"':
		p.string()
	case c == '-' || '0' <= c && c <= '9':
		p.number()
	default:
		for _, word := range []string{"true", "false", "null"} {
			if p.word(word) {
				return
			}
		}
		p.bad("want a value")
	}
}

func (p *jsonParser) word(w string) bool {
	if p.peek() != w[0] || !bytes.HasPrefix(p.doc[p.pos:], []byte(w)) {
		return false
	}
	p.pos += len(w)
	return true
}

func (p *jsonParser) bool() bool {
	switch {
	case p.word("true"):
		return true
	case p.word("false"):
		return false
	}
	p.bad("want true or false")
	return false
}

// string reads a string. It aliases the document if it has no escapes.
func (p *jsonParser) string() []byte {
	if !p.accept('"') {
		p.bad("want a string")
		return nil
	}
	start := p.pos
	for ; p.pos < len(p.doc); p.pos++ {
		switch c := p.doc[p.pos]; {
		case c == '"':
			s := p.doc[start:p.pos:p.pos]
			p.pos++
			return s
		case c == '\\':
			return p.escaped(start)
		case c < 0x20:
			p.bad("want control characters escaped")
			return nil
		}
	}
	p.bad("want a closing quote")
	return nil
}

// escaped reads the rest of a string that begins at start and has an escape at
// the current place.
func (p *jsonParser) escaped(start int) []byte {
	s := append([]byte(nil), p.doc[start:p.pos]...)
	for p.pos < len(p.doc) {
		c := p.doc[p.pos]
		p.pos++
		switch {
		case c == '"':
			return s
		case c < 0x20:
			p.bad("want control characters escaped")
			return nil
		case c != '\\':
			s = append(s, c)
			continue
		}
		if p.pos == len(p.doc) {
			break
		}
		c = p.doc[p.pos]
		p.pos++
		switch c {
		case '"', '\\', '/':
			s = append(s, c)
		case 'b':
			s = append(s, '\b')
		case 'f':
			s = append(s, '\f')
		case 'n':
			s = append(s, '\n')
		case 'r':
			s = append(s, '\r')
		case 't':
			s = append(s, '\t')
		case 'u':
			r := p.unit()
			if utf16.IsSurrogate(r) {
				if p.pos+1 < len(p.doc) && p.doc[p.pos] == '\\' && p.doc[p.pos+1] == 'u' {
					p.pos += 2
					r = utf16.DecodeRune(r, p.unit())
				} else {
					r = utf8.RuneError
				}
				if r == utf8.RuneError {
					p.bad("want surrogates in pairs")
				}
			}
			if p.broken {
				return nil
			}
			s = utf8.AppendRune(s, r)
		default:
			p.bad("want one of the escapes of JSON")
			return nil
		}
	}
	p.bad("want a closing quote")
	return nil
}

// unit reads the four digits of a \u escape.
func (p *jsonParser) unit() rune {
	if p.pos+4 > len(p.doc) {
		p.bad("want four hexadecimal digits")
		return 0
	}
	var r rune
	for _, c := range p.doc[p.pos : p.pos+4] {
		h := unhex(c)
		if h < 0 {
			p.bad("want four hexadecimal digits")
			return 0
		}
		r = r<<4 | rune(h)
	}
	p.pos += 4
	return r
}

// number reads a number and returns how it is written.
func (p *jsonParser) number() string {
	p.peek()
	start := p.pos
	digits := func() bool {
		from := p.pos
		for p.pos < len(p.doc) && '0' <= p.doc[p.pos] && p.doc[p.pos] <= '9' {
			p.pos++
		}
		return p.pos > from
	}
	if p.broken {
		return ""
	}
	if p.pos < len(p.doc) && p.doc[p.pos] == '-' {
		p.pos++
	}
	whole := p.pos
	valid := digits() && (p.doc[whole] != '0' || p.pos == whole+1)
	if valid && p.pos < len(p.doc) && p.doc[p.pos] == '.' {
		p.pos++
		valid = digits()
	}
	if valid && p.pos < len(p.doc) && p.doc[p.pos]|0x20 == 'e' {
		p.pos++
		if p.pos < len(p.doc) && (p.doc[p.pos] == '+' || p.doc[p.pos] == '-') {
			p.pos++
		}
		valid = digits()
	}
	if !valid {
		p.bad("want a number")
		return ""
	}
	return string(p.doc[start:p.pos])
}

// uint reads an integer that is not negative.
func (p *jsonParser) uint(what string, lo, hi uint64) uint64 {
	s := p.number()
	if p.broken {
		return 0
	}
	n, ok := parseUint(s)
	if !ok || n < lo || n > hi {
		p.x.fail(api.CodeInvalidArgument, "%s is %.40s: want an integer from %d to %d", what, s, lo, hi)
	}
	return n
}

// int reads an integer of 64 bits.
func (p *jsonParser) int(what string) int64 {
	s := p.number()
	if p.broken {
		return 0
	}
	digits, negative := s, false
	if s[0] == '-' {
		digits, negative = s[1:], true
	}
	n, ok := parseUint(digits)
	switch {
	case ok && negative && n <= 1<<63:
		return -int64(n)
	case ok && !negative && n < 1<<63:
		return int64(n)
	}
	p.x.fail(api.CodeInvalidArgument, "%s is %.40s: want an integer of 64 bits", what, s)
	return 0
}

// millis reads a number of seconds, with up to three decimals.
func (p *jsonParser) millis(what string, lo, hi int64) int64 {
	s := p.number()
	if p.broken {
		return 0
	}
	ms, ok := parseMillis(s)
	if !ok || ms < lo || ms > hi {
		p.x.fail(api.CodeInvalidArgument, "%s is %.40s: want a number from %s to %s with at most three decimals", what, s, seconds(lo), seconds(hi))
	}
	return ms
}

// oneOf reads one of some words.
func (p *jsonParser) oneOf(what string, words ...string) string {
	s := string(p.string())
	if !p.broken && !slices.Contains(words, s) {
		p.x.fail(api.CodeInvalidArgument, "%s is %.40q: want one of %q", what, s, words)
	}
	return s
}

// jsonBytes are bytes of a document, which come as text or as base64.
type jsonBytes struct {
	value []byte
	given bool
}

// member reads the member called field, or field with _base64, into b.
func (b *jsonBytes) member(p *jsonParser, name, field string) bool {
	asText := name == field
	if !asText && (len(name) != len(field)+len("_base64") || name[:len(field)] != field || name[len(field):] != "_base64") {
		return false
	}
	s := p.string()
	if b.given {
		p.x.fail(api.CodeInvalidArgument, "%s and %s_base64 exclude each other", field, field)
		return true
	}
	b.given = true
	if asText || p.broken {
		b.value = s
		return true
	}
	value, ok := decodeBase64(string(s))
	if !ok {
		code := api.CodeBadKeyEncoding
		if field == "value" {
			code = api.CodeInvalidArgument
		}
		p.x.fail(code, "%s_base64 is not base64", field)
	}
	b.value = value
	return true
}
