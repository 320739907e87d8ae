package node

import (
	"time"

	"github.com/cairnkv/cairn/raftsm"
	"github.com/prometheus/client_golang/prometheus"
)

// timings show how long the steps of writes and of linearizable reads take: the disk
// of the log, the majority, the store.
type timings struct {
	logSave, proposal, apply, round prometheus.Histogram
	commands                        prometheus.Counter
}

func newTimings() *timings {
	histogram := func(name, help string) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "cairn", Name: name, Help: help,
			Buckets: prometheus.ExponentialBuckets(0.000_1, 2, 17), // 0.1 ms to 6.5 s
		})
	}
	return &timings{
		logSave:  histogram("raft_log_save_seconds", "From writing something to the Raft log until it was durable on this member's disk."),
		proposal: histogram("proposal_seconds", "From when the first command of an entry came to this member until the entry was applied on it."),
		apply:    histogram("apply_seconds", "Applying committed entries to this member's store, some at a time."),
		round:    histogram("read_round_seconds", "Rounds of the majority that make reads on this member linearizable, each for all that wait."),
		commands: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: "cairn", Name: "proposal_commands_total", Help: "Commands in the entries that were proposed on this member and applied.",
		}),
	}
}

// told returns what the replica tells its timings.
func (t *timings) told() raftsm.Timings {
	observe := func(h prometheus.Histogram) func(time.Duration) {
		return func(took time.Duration) { h.Observe(took.Seconds()) }
	}
	return raftsm.Timings{
		LogSaved: observe(t.logSave), Applied: observe(t.apply), Confirmed: observe(t.round),
		Replicated: func(commands int, took time.Duration) {
			t.proposal.Observe(took.Seconds())
			t.commands.Add(float64(commands))
		},
	}
}

func (t *timings) register(r prometheus.Registerer) {
	r.MustRegister(t.logSave, t.proposal, t.apply, t.round, t.commands)
}
