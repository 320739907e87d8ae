package watchers

import (
	"bytes"
	"slices"
	"sync"

	"github.com/cairnkv/cairn/kv"
)

// A Change is one revision, or a part of one. It is shared by all streams that
// it concerns, so nobody may write to it.
type Change struct {
	Revision uint64
	// Events are in the order of their transaction.
	Events []kv.Event

	bytes   int
	mu      sync.Mutex
	encoded map[Form]*Encoding
}

// Bytes is about what the change takes in memory, as queues of streams count it.
func (c *Change) Bytes() int { return c.bytes }

// A Form is a way to write a change down. What it means is the caller's; equal
// forms must give equal bytes.
type Form uint8

// An Encoding is a change that is written down. Nobody may write to its bytes.
type Encoding struct {
	Message []byte
	// Events are the bytes of each event, for those whom not all concern.
	Events [][]byte
}

// Encoded returns the whole change in a form. It is made once, by whoever comes
// first, and shared. An error is not remembered.
func (c *Change) Encoded(f Form, encode func() (*Encoding, error)) (*Encoding, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.encoded[f]; e != nil {
		return e, nil
	}
	e, err := encode()
	if err != nil {
		return nil, err
	}
	if c.encoded == nil {
		c.encoded = make(map[Form]*Encoding, 1)
	}
	c.encoded[f] = e
	return e, nil
}

// A Delivery is what a stream hands out: a change as far as it concerns the
// stream.
type Delivery struct {
	*Change
	// Subset says which of the events concern the stream; nil means all.
	Subset []int32
	// More says that further parts of the revision follow.
	More bool
	// Shared says that other streams have the change too, so that it is
	// worth encoding once for all.
	Shared bool
}

// Len is the number of events that concern the stream.
func (d *Delivery) Len() int {
	if d.Subset == nil {
		return len(d.Events)
	}
	return len(d.Subset)
}

func eventBytes(e *kv.Event) int { return e.Entry.Size() + perEventBytes }

// selection is the keys of a stream: ranges in order that don't touch, so that
// a key is in at most one of them, found by halving.
type selection []kv.Range

func newSelection(ranges []kv.Range) selection { return Merge(ranges) }

// Merge returns the keys of ranges as ranges in order that don't touch.
func Merge(ranges []kv.Range) []kv.Range {
	sorted := slices.Clone(ranges)
	slices.SortFunc(sorted, compareRanges)
	var s []kv.Range
	for _, r := range sorted {
		if r.Empty() {
			continue
		}
		if n := len(s); n > 0 && (isBefore(r.Start, s[n-1].End) || bytes.Equal(r.Start, s[n-1].End)) {
			if compareEnds(r.End, s[n-1].End) > 0 {
				s[n-1].End = r.End
			}
			continue
		}
		s = append(s, r)
	}
	return s
}

func (s selection) contains(key []byte) bool {
	// The range with the last start at or before the key.
	i, found := slices.BinarySearchFunc(s, key, func(r kv.Range, key []byte) int { return bytes.Compare(r.Start, key) })
	if found {
		return true
	}
	return i > 0 && isBefore(key, s[i-1].End)
}
