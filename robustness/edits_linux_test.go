package robustness

import "testing"

// TestEditsFit wants the texts that mutants, planted bugs and crash points change to be in
// the source: the long suites build them seldom, and the source moves on.
func TestEditsFit(t *testing.T) {
	all := map[string][]Edit{}
	for _, m := range mutants {
		all[m.name] = []Edit{{m.file, m.old, m.new}}
	}
	for _, m := range watchMutants {
		all[m.name] = m.edits
	}
	for _, m := range leaseMutants {
		all[m.name] = m.edits
	}
	for _, p := range plantedBugs {
		all[p.name] = p.edits
	}
	all["crash points"] = crashEdits("somewhere")
	for name, edits := range all {
		if _, err := edited(edits); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
