package kv

// SortTarget is what a list is sorted by.
type SortTarget uint8

const (
	SortByKey SortTarget = iota
	SortByVersion
	SortByCreate
	SortByMod
	SortByValue
	sortTargetEnd
)

// Query asks for the entries of a range.
type Query struct {
	Range Range
	// Revision asks for the state at that revision; 0 means the newest.
	Revision uint64
	// Limit bounds the entries and common prefixes together; 0 means no limit.
	Limit int
	// MaxBytes bounds the size of the answer; 0 means no bound. At least one
	// entry is given, however large.
	MaxBytes int
	// After continues a list: only keys strictly beyond it, in list order, are
	// given. With a delimiter it may be a common prefix, which is then skipped
	// with all that is under it.
	After []byte
	// Descending reverses the order.
	Descending bool
	// Sort by something else than the key needs the whole range in memory.
	Sort SortTarget
	// KeysOnly leaves values and content types out, CountOnly the entries.
	KeysOnly, CountOnly bool
	// Count asks for the number of keys in the whole range, whatever Limit and
	// the revision filters say.
	Count bool
	// Delimiter, when set, folds all keys that have it after PrefixLen bytes
	// into one common prefix, which ends with it.
	Delimiter []byte
	// PrefixLen is the number of bytes of a key in which no delimiter is
	// looked for: the length of the listed prefix.
	PrefixLen int
	// Filters on revisions, inclusive; 0 means no filter.
	MinModRevision, MaxModRevision       uint64
	MinCreateRevision, MaxCreateRevision uint64
}

// Passes reports whether e passes the revision filters.
func (q *Query) Passes(e *Entry) bool {
	return (q.MinModRevision == 0 || e.ModRevision >= q.MinModRevision) &&
		(q.MaxModRevision == 0 || e.ModRevision <= q.MaxModRevision) &&
		(q.MinCreateRevision == 0 || e.CreateRevision >= q.MinCreateRevision) &&
		(q.MaxCreateRevision == 0 || e.CreateRevision <= q.MaxCreateRevision)
}

// List is the answer to a Query.
type List struct {
	// Revision is the revision whose state was read.
	Revision       uint64
	Entries        []Entry
	CommonPrefixes [][]byte
	// More says that the limit cut the list. Next is then what to give as
	// Query.After.
	More bool
	Next []byte
	// Count is set when it was asked for.
	Count uint64
}
