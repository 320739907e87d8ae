package kv

import "bytes"

// Range is a set of keys: Start <= key < End in byte order. An empty End means
// "to the end of the key space", so the zero Range is every key.
type Range struct {
	Start, End []byte
}

// SingleKey returns the range that holds exactly key.
func SingleKey(key []byte) Range {
	end := make([]byte, len(key)+1)
	copy(end, key)
	return Range{Start: end[:len(key):len(key)], End: end}
}

// Prefix returns the range of all keys that begin with prefix.
func Prefix(prefix []byte) Range {
	return Range{Start: prefix, End: PrefixEnd(prefix)}
}

// PrefixEnd returns the first key after all keys that begin with prefix, or
// nil when there is none (an empty prefix, or one of 0xff bytes alone).
func PrefixEnd(prefix []byte) []byte {
	for i := len(prefix) - 1; i >= 0; i-- {
		if prefix[i] < 0xff {
			end := bytes.Clone(prefix[:i+1])
			end[i]++
			return end
		}
	}
	return nil
}

// Single returns the key of a range that holds exactly one.
func (r Range) Single() ([]byte, bool) {
	n := len(r.Start)
	if n > 0 && len(r.End) == n+1 && r.End[n] == 0 && bytes.Equal(r.End[:n], r.Start) {
		return r.Start, true
	}
	return nil, false
}

// Contains reports whether key is in the range.
func (r Range) Contains(key []byte) bool {
	return bytes.Compare(key, r.Start) >= 0 && (len(r.End) == 0 || bytes.Compare(key, r.End) < 0)
}

// Empty reports whether no key can be in the range.
func (r Range) Empty() bool {
	return len(r.End) > 0 && bytes.Compare(r.Start, r.End) >= 0
}

// Overlaps reports whether some key is in both ranges.
func (r Range) Overlaps(o Range) bool {
	if r.Empty() || o.Empty() {
		return false
	}
	return (len(r.End) == 0 || bytes.Compare(o.Start, r.End) < 0) &&
		(len(o.End) == 0 || bytes.Compare(r.Start, o.End) < 0)
}
