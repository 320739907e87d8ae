package robustness

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"
)

// checkWithin bounds the search for an order of the operations between two
// barriers. Running out of time is a failure: nothing was proven.
const checkWithin = time.Minute

// A Verdict collects what a scenario found wrong. A scenario goes on after the
// first violation where that can tell more.
type Verdict struct {
	mu         sync.Mutex
	violations []string
}

// maxViolations bounds what is kept: one mistake shows in a thousand ways.
const maxViolations = 40

// Add notes a violation.
func (v *Verdict) Add(format string, args ...any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.violations) < maxViolations {
		v.violations = append(v.violations, fmt.Sprintf(format, args...))
	}
}

// AddError notes an error, if there is one, as a violation.
func (v *Verdict) AddError(err error) {
	if err != nil {
		v.Add("%v", err)
	}
}

// Violations is what was found so far.
func (v *Verdict) Violations() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.violations)
}

// CheckAnswers holds each answer against what is true of any: no 500, and no
// error without a code.
func (v *Verdict) CheckAnswers(operations []*Operation) {
	for _, o := range operations {
		switch {
		case o.Status == 500:
			v.Add("node %d answered 500 to %s: %s", o.Node+1, describe(o), o.Error)
		case o.Status >= 400 && o.Code == "":
			v.Add("node %d answered %d without a code to %s: %s", o.Node+1, o.Status, describe(o), o.Error)
		case o.Status == 504 && !o.Kind.writes():
			v.Add("node %d answered 504 to a read: %s", o.Node+1, describe(o))
		case o.Status != 0 && o.Outcome == Unknown && o.Status != 504 && o.Repeated == 0 && o.Status < 300:
			v.Add("node %d broke off an answer or gave a wrong one to %s: %s", o.Node+1, describe(o), o.Error)
		}
	}
}

// CheckMonotonic holds the revisions of each process against the time: an
// answer that was asked for after another one arrived is not older.
func (v *Verdict) CheckMonotonic(operations []*Operation) {
	type process struct{ node, incarnation int }
	byProcess := map[process][]*Operation{}
	for _, o := range operations {
		if o.Incarnation != 0 && o.Outcome != Unknown && o.Revision != 0 && o.Repeated == 0 {
			p := process{o.Node, o.Incarnation}
			byProcess[p] = append(byProcess[p], o)
		}
	}
	for p, asked := range byProcess {
		answered := slices.Clone(asked)
		slices.SortFunc(asked, func(a, b *Operation) int { return cmp.Compare(a.Call, b.Call) })
		slices.SortFunc(answered, func(a, b *Operation) int { return cmp.Compare(a.Return, b.Return) })
		var newest *Operation
		next := 0
		for _, o := range asked {
			for ; answered[next].Return < o.Call; next++ {
				if newest == nil || answered[next].Revision > newest.Revision {
					newest = answered[next]
				}
			}
			if newest != nil && o.Revision < newest.Revision {
				v.Add("node %d answered revision %d (%s) after it had answered revision %d (%s)",
					p.node+1, o.Revision, describe(o), newest.Revision, describe(newest))
			}
		}
	}
}

// CheckHistory holds the record against the store's own history, and then looks
// for an order of the operations that a single store could have done them in.
// Barriers are the operations that read everything while nothing else was under
// way; between two of them the search starts anew.
func (v *Verdict) CheckHistory(e *Evidence, h *History, operations, barriers []*Operation) {
	for _, wrong := range h.Explain(operations) {
		v.Add("%s", wrong)
	}
	states := h.States()
	from := emptyStore
	var begin int64
	for i, b := range barriers {
		if b.Outcome != Done {
			v.Add("the cluster could not be read after round %d: %d %s %s", i+1, b.Status, b.Code, b.Error)
			return
		}
		if b.Revision >= uint64(len(states)) {
			v.Add("LOST: the cluster was at revision %d after round %d, and its history ends at %d", b.Revision, i+1, h.Revision)
			return
		}
		v.checkOrder(e, i+1, from, segment(operations, from.Revision, begin, b))
		from, begin = states[b.Revision], b.Return
	}
}

// segment picks the operations that took effect after one barrier and not after
// another. Those of unknown outcome are picked by the revision at which the
// history has them: they may have been called long before.
func segment(operations []*Operation, after uint64, begin int64, b *Operation) []porcupine.Operation {
	var picked []porcupine.Operation
	for _, o := range operations {
		call, end := o.Call, o.Return
		switch o.Outcome {
		case NotApplied:
			continue
		case Unknown:
			if o.Revision <= after || o.Revision > b.Revision {
				continue
			}
			call = max(call, begin)
		default:
			if o.Kind.stale() || o.Call < begin || o.Call > b.Call {
				continue
			}
		}
		picked = append(picked, porcupine.Operation{ClientId: o.Client, Input: o, Call: call, Return: end})
	}
	return picked
}

func (v *Verdict) checkOrder(e *Evidence, round int, from Store, operations []porcupine.Operation) {
	m := model(from)
	result := porcupine.CheckOperationsTimeout(m, operations, checkWithin)
	if result == porcupine.Ok {
		return
	}
	v.Add("round %d: %d operations are not linearizable (porcupine says %s)", round, len(operations), result)
	_, info := porcupine.CheckOperationsVerbose(m, operations, checkWithin)
	f, err := os.Create(e.Path(fmt.Sprintf("round-%d.html", round)))
	if err != nil {
		v.AddError(err)
		return
	}
	defer f.Close()
	v.AddError(porcupine.Visualize(m, info, f))
}

// CheckLogs looks for crashes in the logs of the nodes.
func (v *Verdict) CheckLogs(c *Cluster) {
	for _, n := range c.Nodes {
		lines, err := alarmingLines(n.Log, c.mayEnd)
		v.AddError(err)
		for _, line := range lines {
			v.Add("the log of a node tells of a crash: %s", line)
		}
	}
}
