package raftsm

import "time"

// Timings are told how long the steps of a write and of a linearizable read take, so
// that a slow disk, a slow network and a store that can't keep up look different.
// They are called from several goroutines, once for many requests, and must not
// block. One that is nil is not told.
type Timings struct {
	// LogSaved: entries, or a vote, were written to the Raft log and made durable.
	LogSaved func(took time.Duration)
	// Replicated: an entry with commands that were proposed on this member was
	// applied here; it took so long since the first of them had come.
	Replicated func(commands int, took time.Duration)
	// Applied: committed entries were applied to the store.
	Applied func(took time.Duration)
	// Confirmed: a round has shown that this member may serve linearizable reads.
	Confirmed func(took time.Duration)
}

// complete fills in what is nil.
func (t *Timings) complete() {
	nobody := func(time.Duration) {}
	if t.LogSaved == nil {
		t.LogSaved = nobody
	}
	if t.Replicated == nil {
		t.Replicated = func(int, time.Duration) {}
	}
	if t.Applied == nil {
		t.Applied = nobody
	}
	if t.Confirmed == nil {
		t.Confirmed = nobody
	}
}
