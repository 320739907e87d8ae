package httpapi

import (
	"math"
	"slices"
	"strings"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/kv"
)

// Conditions of a write become compares of its transaction; they are decided
// where the write is applied and nowhere else.

// never is a revision that no key has.
const never = math.MaxUint64

// refuseConditions refuses the conditions of a request whose route has none: who asks
// for one must not get a write without it.
func (x *exchange) refuseConditions() {
	if len(x.r.Header["If-Match"])|len(x.r.Header["If-None-Match"]) != 0 {
		x.fail(api.CodeInvalidArgument, "this route takes neither If-Match nor If-None-Match; POST /v1/txn has conditions in its if")
	}
}

// conditions reads If-Match, If-None-Match and if_revision into compares on key.
func (x *exchange) conditions(key []byte) []kv.Compare {
	x.ifs = x.ifs[:0]
	match, noneMatch := x.r.Header["If-Match"], x.r.Header["If-None-Match"]
	if len(match)|len(noneMatch) == 0 && !x.q.present.has(pIfRevision) {
		return nil
	}
	single := kv.SingleKey(key)
	add := func(target kv.Target, op kv.Operator, n uint64) {
		x.ifs = append(x.ifs, kv.Compare{Range: single, Target: target, Operator: op, Number: n})
	}
	if len(match) > 0 {
		tags, ok := parseTags(match)
		switch {
		case !ok:
			x.fail(api.CodeInvalidArgument, "If-Match: want * or an entity tag in quotes")
		case tags.any:
			add(kv.TargetVers, kv.Greater, 0)
		case len(tags.list) > 1:
			x.fail(api.CodeInvalidArgument, "If-Match: want one entity tag; a write depends on one version")
		case tags.list[0].weak:
			// A weak tag never matches here; nor does one that isn't ours.
			add(kv.TargetMod, kv.Equal, never)
		default:
			add(kv.TargetMod, kv.Equal, tags.list[0].revision)
		}
	}
	if len(noneMatch) > 0 {
		tags, ok := parseTags(noneMatch)
		switch {
		case !ok:
			x.fail(api.CodeInvalidArgument, "If-None-Match: want * or at most %d entity tags in quotes", maxConditionTags)
		case tags.any:
			add(kv.TargetVers, kv.Equal, 0)
		default:
			for _, tag := range tags.list {
				add(kv.TargetMod, kv.NotEqual, tag.revision)
			}
		}
	}
	if x.q.present.has(pIfRevision) {
		if n := x.uintParam(pIfRevision, 0, kv.MaxRevision); n == 0 {
			add(kv.TargetVers, kv.Equal, 0)
		} else {
			add(kv.TargetMod, kv.Equal, n)
		}
	}
	if contradictory(x.ifs) {
		x.fail(api.CodeInvalidArgument, "the conditions contradict each other: no state can meet them all")
	}
	return x.ifs
}

// contradictory reports whether no state of one key can meet all compares.
func contradictory(ifs []kv.Compare) bool {
	// What is left to try is the states that the compares name, a key at some
	// other revision, and no key.
	states := []uint64{0, never - 1}
	for i := range ifs {
		if ifs[i].Target == kv.TargetMod {
			states = append(states, ifs[i].Number)
		}
	}
	holds := func(state uint64) bool {
		for i := range ifs {
			c := &ifs[i]
			var ok bool
			switch {
			case c.Target == kv.TargetVers && c.Operator == kv.Greater:
				ok = state > 0
			case c.Target == kv.TargetVers:
				ok = state == 0
			case c.Operator == kv.Equal:
				ok = state == c.Number
			default:
				ok = state != c.Number
			}
			if !ok {
				return false
			}
		}
		return true
	}
	return !slices.ContainsFunc(states, holds)
}

// Tags are the entity tags of a condition, or any.
type tags struct {
	any  bool
	list []tag
}

// A tag is an entity tag. One that is not one of ours counts as the revision never.
type tag struct {
	revision   uint64
	weak, json bool
}

// parseTags reads the values of If-Match or If-None-Match: a star, or a list of at most
// maxConditionTags entity tags.
func parseTags(values []string) (t tags, ok bool) {
	for _, value := range values {
		for rest := strings.TrimSpace(value); rest != ""; {
			if rest[0] == ',' {
				rest = strings.TrimLeft(rest[1:], " \t")
				continue
			}
			if rest[0] == '*' {
				t.any = true
				rest = strings.TrimLeft(rest[1:], " \t")
			} else {
				weak := strings.HasPrefix(rest, "W/")
				if weak {
					rest = rest[2:]
				}
				opaque, tail, closed := "", "", false
				if strings.HasPrefix(rest, `"`) {
					opaque, tail, closed = strings.Cut(rest[1:], `"`)
				}
				if !closed || len(t.list) == maxConditionTags {
					return tags{}, false
				}
				t.list = append(t.list, tag{tagRevision(opaque), weak, strings.HasSuffix(opaque, tagJSON)})
				rest = strings.TrimLeft(tail, " \t")
			}
			if rest != "" && rest[0] != ',' {
				return tags{}, false
			}
		}
	}
	if t.any == (len(t.list) > 0) {
		return tags{}, false
	}
	return t, true
}

// tagJSON ends the tag of an entry as JSON, which differs from that of its value.
const tagJSON = "-json"

// tagRevision is the revision that a tag of ours names, in either form.
func tagRevision(opaque string) uint64 {
	n, ok := parseUint(strings.TrimSuffix(opaque, tagJSON))
	if !ok || n == 0 || n > kv.MaxRevision || opaque[0] == '0' {
		return never
	}
	return n
}

// A readCondition is If-Match and If-None-Match of a read, which looks at the
// version that it found.
type readCondition struct{ match, noneMatch *tags }

func (x *exchange) readConditions() (c readCondition) {
	if match := x.r.Header["If-Match"]; len(match) > 0 {
		t, ok := parseTags(match)
		if !ok {
			x.fail(api.CodeInvalidArgument, "If-Match: want * or at most %d entity tags in quotes", maxConditionTags)
		}
		c.match = &t
	}
	if noneMatch := x.r.Header["If-None-Match"]; len(noneMatch) > 0 {
		t, ok := parseTags(noneMatch)
		if !ok {
			x.fail(api.CodeInvalidArgument, "If-None-Match: want * or at most %d entity tags in quotes", maxConditionTags)
		}
		c.noneMatch = &t
	}
	return c
}

// failed reports whether If-Match refuses the version, in whichever form.
func (c readCondition) failed(modRevision uint64) bool {
	return c.match != nil && !c.match.any && !slices.ContainsFunc(c.match.list, func(t tag) bool {
		return t.revision == modRevision && !t.weak
	})
}

// unchanged reports whether the client has the version already, in the form that it
// would get: a cache that has only the other one could not use the answer.
func (c readCondition) unchanged(modRevision uint64, json bool) bool {
	return c.noneMatch != nil && (c.noneMatch.any || slices.ContainsFunc(c.noneMatch.list, func(t tag) bool {
		return t.revision == modRevision && t.json == json
	}))
}
