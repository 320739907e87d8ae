package robustness

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
)

// A Change is what the history of the store has of one key at one revision.
type Change struct {
	Key    string
	Delete bool
	Version
}

// A History is everything that the store says ever happened to the keys: the
// changes of each revision. Nothing is compacted during a scenario.
type History struct {
	// Revision is the newest one.
	Revision uint64
	// Changes are those of each revision; the index is the revision.
	Changes [][]Change
}

// ReadHistory reads the history of every key from a node, linearizably.
func ReadHistory(h *HTTP, n *Node) (*History, error) {
	history := &History{}
	for _, key := range keys {
		cursor := ""
		for {
			a := h.Do(n, Request{Method: http.MethodGet, Path: "/v1/history/" + key + "?limit=1000" + cursor})
			if a.Status == http.StatusNotFound {
				break // the key never existed
			}
			if err := a.explain(); err != nil {
				return nil, fmt.Errorf("read the history of %s: %w", key, err)
			}
			var page struct {
				Versions []struct {
					Type string `json:"type"`
					Version
				} `json:"versions"`
				Cursor string `json:"next_cursor"`
			}
			if err := json.Unmarshal(a.Body, &page); err != nil {
				return nil, err
			}
			for _, v := range page.Versions {
				history.add(Change{Key: key, Delete: v.Type == "delete", Version: v.Version})
			}
			history.Revision = max(history.Revision, a.Revision)
			if page.Cursor == "" {
				break
			}
			cursor = "&cursor=" + url.QueryEscape(page.Cursor)
		}
	}
	for uint64(len(history.Changes)) <= history.Revision {
		history.Changes = append(history.Changes, nil)
	}
	return history, nil
}

func (h *History) add(c Change) {
	for uint64(len(h.Changes)) <= c.Mod {
		h.Changes = append(h.Changes, nil)
	}
	h.Changes[c.Mod] = append(h.Changes[c.Mod], c)
}

// States replays the history: the store at each revision; the index is the
// revision.
func (h *History) States() []Store {
	states := make([]Store, len(h.Changes))
	if len(states) > 1 {
		states[1] = emptyStore
	}
	for r := 2; r < len(states); r++ {
		s := states[r-1]
		s.Revision = uint64(r)
		for _, c := range h.Changes[r] {
			if c.Delete {
				s.delete(c.Key)
			} else {
				s.put(c.Key, c.Value)
			}
		}
		states[r] = s
	}
	return states
}

// Explain holds the record of the clients and the history of the store against
// each other, and returns what does not fit. Operations of unknown outcome that
// the history has get its revision.
func (h *History) Explain(operations []*Operation) []string {
	var wrong []string
	complain := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }

	states := h.States()
	byValue := map[string]*Operation{}
	deletes := map[uint64]*Operation{} // acknowledged, by revision
	var lost []*Operation              // deletes of unknown outcome
	for _, o := range operations {
		switch {
		case o.Value != "":
			byValue[o.Value] = o
		case o.Kind == Delete && o.Outcome == Done && o.Deleted > 0:
			if first := deletes[o.Revision]; first != nil {
				complain("two deletes were answered with revision %d: %s and %s", o.Revision, describe(first), describe(o))
			}
			deletes[o.Revision] = o
		case o.Kind == Delete && o.Outcome == Unknown:
			lost = append(lost, o)
		}
	}
	// A delete has no value by which it is known. The deletions that nobody was
	// answered for belong to the deletes of unknown outcome; if there is any way
	// to give each to one, then giving them in the order of the calls is one.
	slices.SortFunc(lost, func(a, b *Operation) int { return cmp.Compare(a.Call, b.Call) })

	found := map[*Operation]uint64{}
	for r := 2; r < len(h.Changes); r++ {
		if len(h.Changes[r]) == 0 {
			complain("no change explains revision %d", r)
		}
		var by *Operation // whose revision this is
		for _, c := range h.Changes[r] {
			var o *Operation
			if c.Delete {
				o = deletes[uint64(r)]
				if o == nil {
					i := slices.IndexFunc(lost, func(l *Operation) bool { return l.Key == c.Key })
					if i >= 0 {
						o = lost[i]
						lost = slices.Delete(lost, i, i+1)
					}
				}
			} else {
				o = byValue[c.Value]
				if cell := states[r].Cells[cellOf(c.Key)]; cell != (Cell{c.Value, c.Create, c.Mod, c.Version.Version}) {
					complain("the history of %s has %+v at revision %d; what precedes it makes it %+v", c.Key, c.Version, r, cell)
				}
			}
			switch {
			case o == nil:
				complain("nobody asked for the change of %s (delete: %v, value %q) at revision %d", c.Key, c.Delete, c.Value, r)
				continue
			case by != nil && by != o:
				complain("revision %d has changes of two requests: %s and %s", r, describe(by), describe(o))
			case !slices.Contains(o.written(), c.Key):
				complain("revision %d has a change of %s by %s", r, c.Key, describe(o))
			}
			by = o
		}
		if by == nil {
			continue
		}
		if len(h.Changes[r]) != len(by.written()) {
			complain("revision %d has %d of the %d changes of %s", r, len(h.Changes[r]), len(by.written()), describe(by))
		}
		if first, twice := found[by]; twice {
			complain("%s was applied twice, at revisions %d and %d", describe(by), first, r)
		}
		found[by] = uint64(r)
	}

	for _, o := range operations {
		r, applied := found[o]
		switch {
		case !o.Kind.writes():
		case o.Outcome == Done && (o.Kind != Delete || o.Deleted > 0):
			if !applied {
				complain("LOST: node %d acknowledged %s, and the history does not have it", o.Node+1, describe(o))
			} else if r != o.Revision {
				complain("%s was acknowledged, and the history has it at revision %d", describe(o), r)
			}
		case o.Outcome == Unknown:
			o.Revision = r
		case applied:
			complain("node %d answered %d (%s) for %s, and the history has it at revision %d", o.Node+1, o.Status, o.Code, describe(o), r)
		}
		if o.Kind.stale() && o.Outcome == Done {
			if o.Revision >= uint64(len(states)) {
				complain("a stale read shows revision %d; the history ends at %d", o.Revision, h.Revision)
			} else if !states[o.Revision].matches(o.read(), o.Seen) {
				complain("%s (node %d) does not show the state of that revision", describe(o), o.Node+1)
			}
		}
		for _, v := range o.Seen {
			if w := byValue[v.Value]; w == nil || w.Outcome == NotApplied || w.Outcome == Refused {
				complain("%s shows a value that was never written", describe(o))
			}
		}
	}
	return wrong
}
