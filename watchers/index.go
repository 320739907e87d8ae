package watchers

import (
	"bytes"
	"math/rand/v2"

	"github.com/cairnkv/cairn/kv"
)

// An index finds the ranges that a key is in. Equal ranges are one node with
// many members, so that a thousand streams of one prefix are found at once.
//
// Ranges of a single key are in a map. The others are in a treap, ordered by
// their starts, each node knowing the last end below it: what a key is in is
// found in time that follows the logarithm of the ranges and the matches.
type index struct {
	keys  map[string]*node
	root  *node
	nodes int
}

// A node is one range and who watches it.
type node struct {
	r       kv.Range
	members []*member

	left, right *node
	priority    uint64
	maxEnd      []byte // the last end of the ranges here and below; empty: no end
}

// A member is one stream's interest in one range.
type member struct {
	stream *Stream
	node   *node
	at     int // its place in node.members
}

// add enters a stream's interest in a range, which is not empty.
func (x *index) add(r kv.Range, s *Stream) *member {
	n := x.find(r)
	if n == nil {
		// The node outlives the stream that brought its range, if others watch the
		// same, and with it the memory that the range came in.
		r.Start, r.End = bytes.Clone(r.Start), bytes.Clone(r.End)
		n = &node{r: r, maxEnd: r.End, priority: rand.Uint64()}
		x.nodes++
		if key, ok := r.Single(); ok {
			if x.keys == nil {
				x.keys = map[string]*node{}
			}
			x.keys[string(key)] = n
		} else {
			before, behind := split(x.root, r)
			x.root = merge(merge(before, n), behind)
		}
	}
	m := &member{stream: s, node: n, at: len(n.members)}
	n.members = append(n.members, m)
	return m
}

// remove takes back what add returned.
func (x *index) remove(m *member) {
	n := m.node
	last := len(n.members) - 1
	n.members[m.at] = n.members[last]
	n.members[m.at].at = m.at
	n.members[last] = nil
	n.members = n.members[:last]
	if last > 0 {
		return
	}
	x.nodes--
	if key, ok := n.r.Single(); ok {
		delete(x.keys, string(key))
		return
	}
	x.root = without(x.root, n)
}

// visit calls fn for each range that key is in.
func (x *index) visit(key []byte, fn func(*node)) {
	if n := x.keys[string(key)]; n != nil {
		fn(n)
	}
	x.root.visit(key, fn)
}

func (n *node) visit(key []byte, fn func(*node)) {
	for n != nil && isBefore(key, n.maxEnd) {
		n.left.visit(key, fn)
		if bytes.Compare(n.r.Start, key) > 0 {
			return
		}
		if isBefore(key, n.r.End) {
			fn(n)
		}
		n = n.right
	}
}

func (x *index) find(r kv.Range) *node {
	if key, ok := r.Single(); ok {
		return x.keys[string(key)]
	}
	n := x.root
	for n != nil {
		switch c := compareRanges(r, n.r); {
		case c == 0:
			return n
		case c < 0:
			n = n.left
		default:
			n = n.right
		}
	}
	return nil
}

// isBefore reports whether key is before the end of a range; an empty one is no
// end.
func isBefore(key, end []byte) bool { return len(end) == 0 || bytes.Compare(key, end) < 0 }

func compareRanges(a, b kv.Range) int {
	if c := bytes.Compare(a.Start, b.Start); c != 0 {
		return c
	}
	return compareEnds(a.End, b.End)
}

func compareEnds(a, b []byte) int {
	switch {
	case len(a) == 0 && len(b) == 0:
		return 0
	case len(a) == 0:
		return 1
	case len(b) == 0:
		return -1
	}
	return bytes.Compare(a, b)
}

// split divides a treap into what is before r and the rest.
func split(n *node, r kv.Range) (before, rest *node) {
	if n == nil {
		return nil, nil
	}
	if compareRanges(n.r, r) < 0 {
		n.right, rest = split(n.right, r)
		n.refresh()
		return n, rest
	}
	before, n.left = split(n.left, r)
	n.refresh()
	return before, n
}

// merge joins two treaps of which all of a is before all of b.
func merge(a, b *node) *node {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	case a.priority > b.priority:
		a.right = merge(a.right, b)
		a.refresh()
		return a
	}
	b.left = merge(a, b.left)
	b.refresh()
	return b
}

// without removes the node gone from the treap n.
func without(n, gone *node) *node {
	if n == gone {
		return merge(n.left, n.right)
	}
	if compareRanges(gone.r, n.r) < 0 {
		n.left = without(n.left, gone)
	} else {
		n.right = without(n.right, gone)
	}
	n.refresh()
	return n
}

func (n *node) refresh() {
	n.maxEnd = n.r.End
	for _, child := range [2]*node{n.left, n.right} {
		if child != nil && compareEnds(child.maxEnd, n.maxEnd) > 0 {
			n.maxEnd = child.maxEnd
		}
	}
}
