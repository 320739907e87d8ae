package robustness

import (
	"strings"
	"testing"

	"github.com/anishathalye/porcupine"
)

// sound is a small history that is right: a put, a conditional put that fails,
// a delete whose answer was lost, and reads.
func sound() []*Operation {
	a := Version{Key: keys[0], Value: "a", Create: 2, Mod: 2, Version: 1}
	return []*Operation{
		{Kind: Put, Key: keys[0], Value: "a", Call: 1, Return: 2, Outcome: Done, Status: 201, Revision: 2, Created: true},
		{Kind: PutIf, Key: keys[0], Value: "b", If: 7, Call: 3, Return: 4, Outcome: Refused, Status: 412, Code: "condition-failed", Revision: 2, Current: 2},
		{Kind: Get, Key: keys[0], Call: 5, Return: 6, Outcome: Done, Status: 200, Revision: 2, Seen: []Version{a}},
		{Kind: Delete, Key: keys[0], Call: 7, Return: never, Outcome: Unknown},
		{Kind: Txn, Key: keys[1], Other: keys[2], Value: "c", Call: 8, Return: 12, Outcome: Done, Status: 200, Revision: 4},
		{Kind: GetStale, Key: keys[0], Call: 13, Return: 14, Outcome: Done, Status: 200, Revision: 2, Seen: []Version{a}},
		{Kind: Get, Key: keys[0], Call: 15, Return: 16, Outcome: Done, Status: 404, Code: "key-not-found", Revision: 4},
	}
}

func soundHistory() *History {
	h := &History{Revision: 4}
	h.add(Change{Key: keys[0], Version: Version{Value: "a", Create: 2, Mod: 2, Version: 1}})
	h.add(Change{Key: keys[0], Delete: true, Version: Version{Mod: 3}})
	h.add(Change{Key: keys[1], Version: Version{Value: "c", Create: 4, Mod: 4, Version: 1}})
	h.add(Change{Key: keys[2], Version: Version{Value: "c", Create: 4, Mod: 4, Version: 1}})
	return h
}

// judged are the complaints about a record and a history.
func judged(operations []*Operation, h *History) []string {
	wrong := h.Explain(operations)
	b := &Operation{Outcome: Done, Call: 100, Return: 101, Revision: h.Revision}
	if !porcupine.CheckOperations(model(emptyStore), segment(operations, 1, 0, b)) {
		wrong = append(wrong, "not linearizable")
	}
	var v Verdict
	for _, o := range operations {
		o.Incarnation = 1
	}
	v.CheckAnswers(operations)
	v.CheckMonotonic(operations)
	return append(wrong, v.Violations()...)
}

// TestChecks takes a history that is right, makes it wrong in one way after the
// other, and wants each noticed.
func TestChecks(t *testing.T) {
	sounder, history := sound(), soundHistory()
	sounder = append(sounder[:5], sounder[6]) // a stale read after a newer answer is right on another node only
	if wrong := judged(sounder, history); len(wrong) > 0 {
		t.Fatalf("a history that is right: %v", wrong)
	}
	if got := sounder[3].Revision; got != 3 {
		t.Errorf("the lost delete was found at revision %d, want 3", got)
	}
	tests := map[string]struct {
		spoil func(o []*Operation, h *History)
		want  string
	}{
		"acknowledged and lost":         {func(_ []*Operation, h *History) { h.Changes[4] = nil }, "LOST"},
		"half of a transaction":         {func(_ []*Operation, h *History) { h.Changes[4] = h.Changes[4][:1] }, "1 of the 2 changes"},
		"refused and applied":           {func(o []*Operation, _ *History) { o[0].Outcome, o[0].Status = NotApplied, 503 }, "answered 503"},
		"applied at another revision":   {func(o []*Operation, _ *History) { o[4].Revision = 3 }, "has it at revision 4"},
		"a change that nobody made":     {func(_ []*Operation, h *History) { h.Changes[3][0].Key = keys[4] }, "nobody asked"},
		"a value that nobody wrote":     {func(o []*Operation, _ *History) { o[2].Seen[0].Value = "z" }, "never written"},
		"a read of the past":            {func(o []*Operation, _ *History) { o[6].Revision, o[6].Status, o[6].Seen = 2, 200, o[2].Seen }, "not linearizable"},
		"a wrong stale read":            {func(o []*Operation, _ *History) { o[5].Seen = nil }, "does not show the state"},
		"a condition that was ignored":  {func(o []*Operation, _ *History) { o[1].Current = 7 }, "not linearizable"},
		"a revision that goes back":     {func(o []*Operation, _ *History) {}, "after it had answered revision 4"},
		"an internal error":             {func(o []*Operation, _ *History) { o[1].Status = 500 }, "answered 500"},
		"an error without a code":       {func(o []*Operation, _ *History) { o[1].Code = "" }, "without a code"},
		"a version that does not count": {func(_ []*Operation, h *History) { h.Changes[2][0].Version.Version = 2 }, "what precedes it"},
	}
	for name, test := range tests {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			operations, history := sound(), soundHistory()
			test.spoil(operations, history)
			wrong := judged(operations, history)
			for _, w := range wrong {
				if strings.Contains(w, test.want) {
					return
				}
			}
			t.Errorf("want a complaint with %q, got %q", test.want, wrong)
		})
	}
}
