package coordination

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/cairnkv/cairn/kv"
)

const (
	// MaxNameBytes bounds the name of a lock, an election, a service or an
	// instance: two of them and what stands around them are far from the limit of
	// a key, and one fits a header when it is percent-encoded.
	MaxNameBytes = 255
	// MaxSlots bounds the limit of a semaphore: all slots are looked at when one
	// is wanted.
	MaxSlots = 1_000
)

// Where the recipes keep their keys.
const (
	locksPrefix     = kv.ReservedPrefix + "locks/"
	electionsPrefix = kv.ReservedPrefix + "elections/"
	servicesPrefix  = kv.ReservedPrefix + "services/"
)

// CheckName reports why a name can't be one: it is a segment of a key and of a
// path, and text, since it is shown in JSON and in logs.
func CheckName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("a name has at least one byte")
	case len(name) > MaxNameBytes:
		return fmt.Errorf("a name has at most %d bytes, this one has %d", MaxNameBytes, len(name))
	case strings.Contains(name, "/"):
		return fmt.Errorf("a name has no slash")
	case !utf8.ValidString(name):
		return fmt.Errorf("a name is UTF-8")
	case strings.ContainsFunc(name, func(r rune) bool { return r < 0x20 || r == 0x7f }):
		return fmt.Errorf("a name has no control characters")
	}
	return nil
}

// Kind is how a lock is held: what excludes what.
//
// A lock that is held for writing excludes all others; readers don't exclude each
// other; up to N holders with the limit N don't exclude each other. Who asks in
// another way than the holders waits until they are gone.
type Kind struct {
	// Read is shared by any number.
	Read bool
	// Limit is shared by so many, if it is not 0.
	Limit int
}

// segment is the kind as a segment of a key.
func (k Kind) segment() string {
	switch {
	case k.Read:
		return "read"
	case k.Limit > 0:
		return limitPrefix + strconv.Itoa(k.Limit)
	}
	return "write"
}

const limitPrefix = "limit-"

func parseKind(segment string) Kind {
	if segment == "read" {
		return Kind{Read: true}
	}
	n, _ := strconv.Atoi(strings.TrimPrefix(segment, limitPrefix)) // else it is "write"
	return Kind{Limit: n}
}

// A site is where the keys of one lock or one election are.
type site struct {
	name string
	base string
	// holder is the name of the key of who holds it alone; that of the others
	// begins with it, too, so that all holders are one range.
	holder string
}

func lockSite(name string) site     { return site{name, locksPrefix + name + "/", "holder"} }
func electionSite(name string) site { return site{name, electionsPrefix + name + "/", "leader"} }

// alone is the key of who holds it alone.
func (s site) alone() []byte { return []byte(s.base + s.holder) }

// held is every holder's key.
func (s site) held() kv.Range { return kv.Prefix([]byte(s.base + s.holder)) }

// shared begins the keys of those who hold it with others.
func (s site) shared() string { return s.base + s.holder + "s/" }

// seat is the key of a holder; which is the slot of a semaphore.
func (s site) seat(k Kind, id kv.LeaseID, slot int) []byte {
	switch {
	case k.Read:
		return []byte(s.shared() + k.segment() + "/" + id.String())
	case k.Limit > 0:
		return []byte(s.shared() + k.segment() + "/" + strconv.Itoa(slot))
	}
	return s.alone()
}

// slots is the slots of all semaphores of the lock.
func (s site) slots() kv.Range { return kv.Prefix([]byte(s.shared() + limitPrefix)) }

// readers is the keys of all readers.
func (s site) readers() kv.Range { return kv.Prefix([]byte(s.shared() + "read/")) }

func (s site) queue() string { return s.base + "queue/" }

// waiter is the key of one that waits.
func (s site) waiter(k Kind, id kv.LeaseID) []byte {
	return []byte(s.queue() + k.segment() + "/" + id.String())
}

// outside is what has the prefix, but for what one kind has in it: the ranges
// before and after.
func outside(prefix string, k Kind) [2]kv.Range {
	inner := kv.Prefix([]byte(prefix + k.segment() + "/"))
	outer := kv.Prefix([]byte(prefix))
	return [2]kv.Range{{Start: outer.Start, End: inner.Start}, {Start: inner.End, End: outer.End}}
}

// excluding is the shared holders that keep one of that kind out.
func (s site) excluding(k Kind) []kv.Range {
	if k == (Kind{}) {
		return []kv.Range{kv.Prefix([]byte(s.shared()))}
	}
	parts := outside(s.shared(), k)
	return parts[:]
}

// ahead is the waiters that one of that kind does not pass, if they came before
// it: readers don't pass writers, but there is no reason to wait for a reader.
func (s site) ahead(k Kind) []kv.Range {
	if !k.Read {
		return []kv.Range{kv.Prefix([]byte(s.queue()))}
	}
	parts := outside(s.queue(), k)
	return parts[:]
}

// kindOf is the kind in the key of a holder or a waiter, slot what follows it.
func (s site) kindOf(key []byte) (k Kind, rest string) {
	tail, ok := strings.CutPrefix(string(key), s.shared())
	if !ok {
		tail, _ = strings.CutPrefix(string(key), s.queue())
	}
	segment, rest, ok := strings.Cut(tail, "/")
	if !ok {
		return Kind{}, ""
	}
	return parseKind(segment), rest
}
