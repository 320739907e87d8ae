package robustness

import (
	"fmt"
	"slices"
	"strings"

	"github.com/anishathalye/porcupine"
)

// A Store is the sequential store that the cluster must be indistinguishable
// from: a revision and a few keys. It is comparable, which porcupine makes use
// of.
type Store struct {
	Revision uint64
	Cells    [len(keys)]Cell
}

// A Cell is a key: its newest version, or nothing when Mod is 0.
type Cell struct {
	Value                string
	Create, Mod, Version uint64
}

// emptyStore is how every store begins.
var emptyStore = Store{Revision: 1}

func cellOf(key string) int { return slices.Index(keys[:], key) }

// put writes a key at the store's present revision.
func (s *Store) put(key, value string) {
	cell := &s.Cells[cellOf(key)]
	if cell.Mod == 0 {
		cell.Create, cell.Version = s.Revision, 0
	}
	cell.Value, cell.Mod = value, s.Revision
	cell.Version++
}

func (s *Store) delete(key string) { s.Cells[cellOf(key)] = Cell{} }

func (s *Store) mod(key string) uint64 { return s.Cells[cellOf(key)].Mod }

// matches reports whether the store shows exactly what was seen of some keys.
func (s *Store) matches(read []string, seen []Version) bool {
	found := 0
	for _, key := range read {
		cell := s.Cells[cellOf(key)]
		if cell.Mod == 0 {
			continue
		}
		if !slices.Contains(seen, Version{Key: key, Value: cell.Value, Create: cell.Create, Mod: cell.Mod, Version: cell.Version}) {
			return false
		}
		found++
	}
	return found == len(seen)
}

// Step does an operation on the store, and reports whether what was recorded of
// it can have come from that. Of an operation of unknown outcome whose revision
// is unknown, too, everything can; it may also stand at the very end of the
// order, which is where one that never took effect is put.
func (s Store) Step(o *Operation) (bool, Store) {
	before := s
	applied := s.apply(o)
	if o.Outcome == Unknown && o.Revision == 0 {
		return true, s
	}
	if o.Revision != s.Revision {
		return false, before
	}
	switch o.Outcome {
	case Unknown: // the history has it at this revision
		return applied, s
	case Refused:
		if applied {
			return false, before
		}
		if o.Kind == Txn {
			return s.matches(o.read(), o.Seen), s
		}
		return s.mod(o.Key) == o.Current, s
	}
	switch o.Kind {
	case Put:
		return applied && o.Created == (before.mod(o.Key) == 0), s
	case PutIf:
		return applied && o.Created == (o.If == 0), s
	case Delete:
		return applied == (o.Deleted == 1), s
	case Txn:
		return applied, s
	}
	return s.matches(o.read(), o.Seen), s
}

// apply changes the store as the operation asks, and reports whether anything
// changed.
func (s *Store) apply(o *Operation) bool {
	switch {
	case !o.Kind.writes():
		return false
	case o.Kind == Delete && s.mod(o.Key) == 0:
		return false
	case (o.Kind == PutIf || o.Kind == Txn) && s.mod(o.Key) != o.If:
		return false
	}
	s.Revision++
	for _, key := range o.written() {
		if o.Kind == Delete {
			s.delete(key)
		} else {
			s.put(key, o.Value)
		}
	}
	return true
}

// model is the store for porcupine, from a known state on.
func model(from Store) porcupine.Model {
	return porcupine.Model{
		Init: func() any { return from },
		Step: func(state, input, _ any) (bool, any) {
			return state.(Store).Step(input.(*Operation))
		},
		Hash:              func(state any) uint64 { return state.(Store).Revision },
		DescribeOperation: func(input, _ any) string { return describe(input.(*Operation)) },
		DescribeState: func(state any) string {
			s := state.(Store)
			var b strings.Builder
			fmt.Fprintf(&b, "revision %d", s.Revision)
			for i, cell := range s.Cells {
				if cell.Mod != 0 {
					fmt.Fprintf(&b, ", %s=%s@%d", keys[i], cell.Value, cell.Mod)
				}
			}
			return b.String()
		},
	}
}

func describe(o *Operation) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", o.Kind, o.Key)
	if o.Kind == Txn {
		fmt.Fprintf(&b, " %s", o.Other)
	}
	if o.Value != "" {
		fmt.Fprintf(&b, " = %s", o.Value)
	}
	if o.Kind == PutIf || o.Kind == Txn {
		fmt.Fprintf(&b, " if @%d", o.If)
	}
	fmt.Fprintf(&b, " -> %s @%d", o.Outcome, o.Revision)
	for _, v := range o.Seen {
		fmt.Fprintf(&b, " %s=%s@%d", v.Key, v.Value, v.Mod)
	}
	if o.Outcome == Refused && o.Kind == PutIf {
		fmt.Fprintf(&b, " is @%d", o.Current)
	}
	return b.String()
}
