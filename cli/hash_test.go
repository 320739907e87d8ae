package cli

import (
	"testing"

	"github.com/cairnkv/cairn/api"
)

// TestHashesOfOneHistory: nodes whose history begins at the same revision are compared
// whoever was asked first, and the others are told.
func TestHashesOfOneHistory(t *testing.T) {
	node := func(endpoint string, compacted uint64, hash string) nodeHash {
		return nodeHash{endpoint, &api.Hash{Revision: 9, CompactRevision: compacted, Hash: hash}}
	}
	for _, c := range []struct {
		name        string
		hashes      []nodeHash
		differ, say string
	}{
		{"one", []nodeHash{node("a", 5, "x")}, "", ""},
		{"all the same", []nodeHash{node("a", 5, "x"), node("b", 5, "x"), node("c", 5, "x")}, "", ""},
		{"the last one differs", []nodeHash{node("a", 5, "x"), node("b", 5, "x"), node("c", 5, "y")}, "a and c differ in content", ""},
		{"the first one is not yet compacted", []nodeHash{node("a", 3, "x"), node("b", 5, "y"), node("c", 5, "y")}, "",
			"not all could be compared, since their histories begin at different revisions: a at 3; b, c at 5; ask again"},
		{"it is not, and the others differ", []nodeHash{node("a", 3, "x"), node("b", 5, "y"), node("c", 5, "z")}, "b and c differ in content",
			"not all could be compared, since their histories begin at different revisions: a at 3; b, c at 5; ask again"},
	} {
		groups, got := alike(c.hashes), ""
		if err := differing(groups); err != nil {
			got = err.Error()
		}
		if said := uncompared(groups); got != c.differ || said != c.say {
			t.Errorf("%s: got %q, and it says %q", c.name, got, said)
		}
	}
}
