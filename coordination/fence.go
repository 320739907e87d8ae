package coordination

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/oklog/ulid/v2"

	"github.com/cairnkv/cairn/kv"
)

// A fence is the text by which a write says on whose behalf it is made:
//
//	<name>:<token>             a lock that is held alone
//	<name>:<token>/read/<id>   the same, shared: which of the holders follows
//	<name>:<token>/limit-5/3
//	election/<name>:<token>    an election
//
// The name is percent-encoded, so that it fits a header and a list of fences.
// Clients take it as it is given.

const electionFence = "election/"

// fence is the fence of a holder.
func (s site) fence(key []byte, token uint64) string {
	var b strings.Builder
	if s.candidates() {
		b.WriteString(electionFence)
	}
	b.WriteString(url.PathEscape(s.name))
	b.WriteByte(':')
	b.WriteString(strconv.FormatUint(token, 10))
	if rest, ok := strings.CutPrefix(string(key), s.shared()); ok {
		b.WriteByte('/')
		b.WriteString(rest)
	}
	return b.String()
}

// ParseFence returns the compare that a fence stands for: the holder's key is the
// one that came into being at the token's revision. A token of 0, which is what
// the compare would find where nobody holds anything, is no token.
func ParseFence(text string) (kv.Compare, error) {
	bad := func(why string) (kv.Compare, error) {
		return kv.Compare{}, fmt.Errorf("%.100q is not a fence: %s", text, why)
	}
	// A colon may stand in a name, but not behind the token.
	colon := strings.LastIndexByte(text, ':')
	if colon < 0 {
		return bad("want name:token, as a lock or an election answers it")
	}
	escaped, election := strings.CutPrefix(text[:colon], electionFence)
	name, err := url.PathUnescape(escaped)
	if err != nil {
		return bad("the name is not percent-encoded")
	}
	if strings.Contains(escaped, "/") {
		return bad("the name has a slash")
	}
	if err := CheckName(name); err != nil {
		return bad(err.Error())
	}
	digits, seat, shared := strings.Cut(text[colon+1:], "/")
	token, err := strconv.ParseUint(digits, 10, 64)
	if err != nil || token == 0 || digits != strconv.FormatUint(token, 10) {
		return bad("the token is not a number from 1 on")
	}
	s := lockSite(name)
	if election {
		s = electionSite(name)
	}
	key := s.alone()
	if shared {
		if key = append([]byte(s.shared()), seat...); !s.isSeat(seat) || election {
			return bad("what follows the token is not a holder")
		}
	}
	return created(key, token), nil
}

// isSeat reports whether a text is what a shared holder's key ends with.
func (s site) isSeat(text string) bool {
	segment, id, ok := strings.Cut(text, "/")
	k := parseKind(segment)
	if !ok || k.segment() != segment {
		return false
	}
	switch {
	case k.Read:
		parsed, err := ulid.ParseStrict(id)
		return err == nil && parsed.String() == id
	case k.Limit > 0 && k.Limit <= MaxSlots:
		n, err := strconv.Atoi(id)
		return err == nil && 1 <= n && n <= k.Limit && id == strconv.Itoa(n)
	}
	return false
}
