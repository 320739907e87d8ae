package storage

import (
	"fmt"
	"testing"
)

// TestChanged: a key that was changed is known for as long as the generations say,
// and few others are taken for it.
func TestChanged(t *testing.T) {
	c := newChanged(7)
	c.limit = 1000
	at := map[string]uint64{} // the revision that changed a key
	for revision := uint64(8); revision < 500; revision++ {
		batch := map[string]*version{fmt.Sprint("read/", revision): {fetched: true}}
		for i := range revision % 40 {
			key := fmt.Sprintf("%d/%d", revision, i)
			batch[key], at[key] = &version{}, revision
		}
		c.commit(revision, 10*revision, batch)
		if want := c.old.since*10 + 10; c.old.first != want && c.old.since != 7 {
			t.Fatalf("what was changed behind %d has numbers from %d on, want %d", c.old.since, c.old.first, want)
		}
	}
	if c.old.since == 7 || len(at) < 5*c.limit {
		t.Fatalf("the generations did not change: %+v", c.old.since)
	}
	known := 0
	for key, revision := range at {
		if may := c.may([]byte(key)); may {
			known++
		} else if revision > c.old.since {
			t.Errorf("%s was changed at %d and is not known to be; generations begin at %d and %d", key, revision, c.old.since, c.young.since)
		}
	}
	if known > 2*c.limit+40+len(at)/20 {
		t.Errorf("%d keys of %d are known, with generations of %d", known, len(at), c.limit)
	}
}

// TestFilterIsSharp: a filter that holds what it is made for takes few other keys for
// one of its own.
func TestFilterIsSharp(t *testing.T) {
	c := newChanged(1)
	batch := map[string]*version{}
	for i := range filterKeys {
		batch[fmt.Sprint(i)] = &version{}
	}
	c.commit(2, 1, batch)
	wrong := 0
	const others = 100_000
	for i := range others {
		if c.may(fmt.Append(nil, "other/", i)) {
			wrong++
		}
	}
	t.Logf("%d of %d", wrong, others)
	if wrong == 0 || wrong > others/150 {
		t.Errorf("%d of %d keys are taken for changed", wrong, others)
	}
}
