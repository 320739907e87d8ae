package watchers

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cairnkv/cairn/kv"
)

// The index finds what asking every range finds.
func TestIndexAgainstAsking(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	word := func() []byte {
		b := make([]byte, rng.IntN(4))
		for i := range b {
			b[i] = "ab\x00\xff"[rng.IntN(4)]
		}
		return b
	}
	var x index
	members := map[*member]kv.Range{}
	for step := range 20000 {
		switch {
		case rng.IntN(100) < 40:
			var r kv.Range
			switch rng.IntN(4) {
			case 0:
				r = kv.SingleKey(append(word(), 'k'))
			case 1:
				r = kv.Prefix(word())
			default:
				r = kv.Range{Start: word(), End: word()}
			}
			if !r.Empty() {
				members[x.add(r, nil)] = r
			}
		case rng.IntN(100) < 60:
			for m := range members {
				x.remove(m)
				delete(members, m)
				break
			}
		}
		if len(members) > 200 {
			for m := range members {
				x.remove(m)
				delete(members, m)
			}
			if x.nodes != 0 || x.root != nil || len(x.keys) != 0 {
				t.Fatalf("step %d: an empty index has %d nodes", step, x.nodes)
			}
		}
		key := word()
		got := map[*member]bool{}
		x.visit(key, func(n *node) {
			for at, m := range n.members {
				if m.at != at || m.node != n || got[m] {
					t.Fatalf("step %d: member %+v at %d of %+v", step, m, at, n)
				}
				got[m] = true
			}
		})
		for m, r := range members {
			if r.Contains(key) != got[m] {
				t.Fatalf("step %d: key %q, range %q: found is %v", step, key, r, got[m])
			}
			delete(got, m)
		}
		if len(got) > 0 {
			t.Fatalf("step %d: key %q found ranges that were removed", step, key)
		}
	}
}

// A range that several streams watch stays what it was when the first of them is
// gone, whose request had its bytes.
func TestIndexKeepsItsOwnBytes(t *testing.T) {
	for _, whole := range []kv.Range{kv.Prefix([]byte("a/")), kv.SingleKey([]byte("a/1"))} {
		var x index
		start, end := slices.Clone(whole.Start), slices.Clone(whole.End)
		request := kv.Range{Start: start, End: end}
		first := x.add(request, nil)
		second := x.add(whole, nil)
		x.remove(first)
		for i := range start {
			start[i] = 'x'
		}
		for i := range end {
			end[i] = 'y'
		}
		found := false
		x.visit([]byte("a/1"), func(n *node) { found = n == second.node })
		if !found {
			t.Errorf("%q: the second stream is not found any more", whole)
		}
		third := x.add(whole, nil)
		if third.node != second.node {
			t.Errorf("%q: the same range has two nodes", whole)
		}
		x.remove(second)
		x.remove(third)
		if x.nodes != 0 || x.root != nil || len(x.keys) != 0 {
			t.Errorf("%q: an empty index has %d nodes", whole, x.nodes)
		}
	}
}

func TestSelection(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	word := func() []byte {
		b := make([]byte, rng.IntN(3))
		for i := range b {
			b[i] = "abc"[rng.IntN(3)]
		}
		return b
	}
	for range 5000 {
		ranges := make([]kv.Range, rng.IntN(5))
		for i := range ranges {
			ranges[i] = kv.Range{Start: word(), End: word()}
		}
		s := newSelection(ranges)
		for i := 1; i < len(s); i++ {
			if compareEnds(s[i-1].End, s[i].Start) >= 0 {
				t.Fatalf("%q touch in %q", s, ranges)
			}
		}
		for range 20 {
			k := word()
			want := slices.ContainsFunc(ranges, func(r kv.Range) bool { return !r.Empty() && r.Contains(k) })
			if s.contains(k) != want {
				t.Fatalf("%q in %q as %q: got %v", k, ranges, s, !want)
			}
		}
	}
}
