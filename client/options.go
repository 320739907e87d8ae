package client

import (
	"strconv"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/cairnkv/cairn/api"
)

// Options belong to the calls that take them: an option of a put does not
// compile with a get.
type (
	// ReadOption is an option of every read.
	ReadOption interface {
		GetOption
		ListOption
		HistoryOption
	}
	// GetOption is an option of [Client.Get] and [Client.Hash].
	GetOption interface{ get(*request) }
	// ListOption is an option of [Client.List], [Client.Pages], [Client.All],
	// [Client.Scan] and [Client.Count].
	ListOption interface{ list(*request) }
	// HistoryOption is an option of [Client.History] and [Client.Versions].
	HistoryOption interface{ history(*request) }

	// WriteOption is an option of every write.
	WriteOption interface {
		PutOption
		DeleteOption
		NextOption
		write(*request)
	}
	// NextOption is an option of [Client.PutNext].
	NextOption interface{ next(*request) }
	// PutOption is an option of [Client.Put].
	PutOption interface{ put(*request) }
	// DeleteOption is an option of [Client.Delete] and, but for the conditions,
	// of [Client.DeleteRange].
	DeleteOption interface{ remove(*request) }
)

// The kinds of options, each with the calls that it fits.
type (
	readOption      func(*request)
	pointOption     func(*request) // a get or a list
	pageOption      func(*request) // a list or a history
	listOption      func(*request)
	writeOption     func(*request)
	conditionOption func(*request) // a put or a delete
	putOption       func(*request)
	valueOption     func(*request) // a put of a key that is named or numbered
)

func (o readOption) get(r *request)     { o(r) }
func (o readOption) list(r *request)    { o(r) }
func (o readOption) history(r *request) { o(r) }

func (o pointOption) get(r *request)  { o(r) }
func (o pointOption) list(r *request) { o(r) }

func (o pageOption) list(r *request)    { o(r) }
func (o pageOption) history(r *request) { o(r) }

func (o listOption) list(r *request) { o(r) }

func (o writeOption) put(r *request)    { o(r) }
func (o writeOption) remove(r *request) { o(r) }
func (o writeOption) next(r *request)   { o(r) }
func (o writeOption) write(r *request)  { o(r) }

func (o conditionOption) put(r *request)    { o(r) }
func (o conditionOption) remove(r *request) { o(r) }

func (o putOption) put(r *request) { o(r) }

func (o valueOption) put(r *request)  { o(r) }
func (o valueOption) next(r *request) { o(r) }

// Stale reads what the node that is asked has, without asking the others. On a
// node that has just restarted it may be older than what was read there before.
func Stale() ReadOption {
	return readOption(func(r *request) { r.query.Set("consistency", "stale") })
}

// MinRevision reads on any node as soon as it has applied the revision, without
// asking the others. See [Client.Revision]. 0, which is what that is before the first
// answer, asks for nothing: the read is linearizable.
func MinRevision(revision uint64) ReadOption {
	return readOption(func(r *request) {
		if revision > 0 {
			r.query.Set("min_revision", number(revision))
		}
	})
}

// MaxStaleness reads what a node has, if it knows that this is not older than d;
// otherwise the node refuses.
func MaxStaleness(d time.Duration) ReadOption {
	return readOption(func(r *request) { r.query.Set("max_staleness", duration(d)) })
}

// AtRevision reads the past: the state at a revision that is not compacted.
func AtRevision(revision uint64) interface {
	GetOption
	ListOption
} {
	return pointOption(func(r *request) { r.query.Set("revision", number(revision)) })
}

// Limit bounds the entries of a page, or of a whole scan. A page has 100 by
// default and 10,000 at most.
func Limit(n int) interface {
	ListOption
	HistoryOption
} {
	return pageOption(func(r *request) { r.query.Set("limit", strconv.Itoa(n)) })
}

// Cursor continues after a page, with its NextCursor and the same options.
func Cursor(cursor string) interface {
	ListOption
	HistoryOption
} {
	return pageOption(func(r *request) { r.query.Set("cursor", cursor) })
}

// KeysOnly leaves the values out.
func KeysOnly() interface {
	ListOption
	HistoryOption
} {
	return pageOption(func(r *request) { r.query.Set("keys_only", "true") })
}

// Descending lists from the last key to the first.
func Descending() ListOption {
	return listOption(func(r *request) { r.query.Set("order", "desc") })
}

// SortBy sorts a list by "version", "create", "mod" or "value". Such a list is
// one page.
func SortBy(target string) ListOption {
	return listOption(func(r *request) { r.query.Set("sort", target) })
}

// Delimiter folds the keys that have the delimiter behind the prefix of the list
// into common prefixes, as a directory does with what is in its directories.
func Delimiter(delimiter string) ListOption {
	return listOption(func(r *request) { r.query.Set("delimiter", delimiter) })
}

// WithCount asks a list for the number of keys in the whole range as well, at the
// cost of going through it.
func WithCount() ListOption {
	return listOption(func(r *request) { r.query.Set("count", "true") })
}

// ModifiedBetween lists only keys whose mod_revision is from lo to hi; 0 is open.
func ModifiedBetween(lo, hi uint64) ListOption {
	return listOption(func(r *request) { r.between("min_mod_revision", lo, "max_mod_revision", hi) })
}

// CreatedBetween lists only keys whose create_revision is from lo to hi; 0 is
// open.
func CreatedBetween(lo, hi uint64) ListOption {
	return listOption(func(r *request) { r.between("min_create_revision", lo, "max_create_revision", hi) })
}

// Idempotent makes a write safe to repeat, and has it repeated, by an
// Idempotency-Key of its own. It costs the cluster a record; see the package
// documentation for when that is worth it.
func Idempotent() WriteOption {
	return writeOption(func(r *request) { r.header.Set(api.HeaderIdempotencyKey, ulid.Make().String()) })
}

// IdempotencyKey is [Idempotent] with a key of the caller's, which may be kept and
// used for the same write again, by another process as well, within ten minutes.
// It has 1 to 255 printable ASCII characters other than spaces, quotes and
// backslashes; for a bulk write 234.
func IdempotencyKey(key string) WriteOption {
	return writeOption(func(r *request) { r.header.Set(api.HeaderIdempotencyKey, key) })
}

// Prev asks a put for what it replaced, or a delete for what it deleted.
func Prev() interface {
	PutOption
	DeleteOption
} {
	return conditionOption(func(r *request) { r.query.Set("prev", "true") })
}

// IfRevision writes only if the key is at this mod_revision; 0 means that the key
// must not exist.
func IfRevision(revision uint64) interface {
	PutOption
	DeleteOption
} {
	return conditionOption(func(r *request) { r.query.Set("if_revision", number(revision)) })
}

// IfExists writes only if the key exists.
func IfExists() interface {
	PutOption
	DeleteOption
} {
	return conditionOption(func(r *request) { r.header.Set("If-Match", "*") })
}

// IfMissing puts only if the key does not exist.
func IfMissing() PutOption {
	return putOption(func(r *request) { r.header.Set("If-None-Match", "*") })
}

// IfMatch writes only if the key's entity tag is this one, as an HTTP answer had
// it: in quotes.
func IfMatch(tag string) interface {
	PutOption
	DeleteOption
} {
	return conditionOption(func(r *request) { r.header.Set("If-Match", tag) })
}

// ContentType is stored with the value and comes back with it.
func ContentType(mediaType string) interface {
	PutOption
	NextOption
} {
	return valueOption(func(r *request) { r.header.Set("Content-Type", mediaType) })
}

// WithLease attaches the key to a lease, by its ULID: it is deleted when the lease
// ends.
func WithLease(id string) interface {
	PutOption
	NextOption
} {
	return valueOption(func(r *request) { r.query.Set("lease", id) })
}

// WithTTL gives the key a lease of its own, in the same step: the key is deleted
// when d has passed, unless it is overwritten or deleted before.
func WithTTL(d time.Duration) interface {
	PutOption
	NextOption
} {
	return valueOption(func(r *request) { r.query.Set("ttl", duration(d)) })
}

// KeepValue changes only the lease of a key that exists: with [WithLease] the key
// gets that one, and without it none. The put has no value.
func KeepValue() PutOption {
	return putOption(func(r *request) { r.query.Set("ignore_value", "true") })
}

// KeepLease leaves the key, which exists, attached to the lease that it has.
func KeepLease() PutOption {
	return putOption(func(r *request) { r.query.Set("ignore_lease", "true") })
}

func number(n uint64) string { return strconv.FormatUint(n, 10) }

// seconds is a duration as a node reads it, to the millisecond. It is rounded up:
// what is asked for is at least given.
func seconds(d time.Duration) float64 {
	return float64((d+time.Millisecond-1)/time.Millisecond) / 1000
}

// duration writes seconds for a query.
func duration(d time.Duration) string { return strconv.FormatFloat(seconds(d), 'f', -1, 64) }
