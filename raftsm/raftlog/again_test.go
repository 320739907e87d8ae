package raftlog

import (
	"testing"
	"time"
)

// TestAgain: reads from places at which two members stand still are repetitions for as long
// as they go on, also while a third one that catches up reads from many others.
func TestAgain(t *testing.T) {
	var a again
	now := time.Unix(1, 0)
	next := uint64(1 << 20)
	for round := range 100 {
		for _, low := range []uint64{100, 200} {
			if again := a.repeats(1, 1, low, now); again != (round > 0) {
				t.Fatalf("round %d: a read from %d is a repetition: %v", round, low, again)
			}
		}
		for range maxPlaces / 20 {
			if next++; a.repeats(1, 1, next, now) {
				t.Fatalf("round %d: a read from another place is a repetition", round)
			}
		}
		now = now.Add(againWithin / 10)
	}
	if a.repeats(1, 2, 100, now) || a.repeats(2, 1, 200, now) {
		t.Error("a read of another log is a repetition")
	}
	if a.repeats(1, 1, 100, now.Add(againWithin)) {
		t.Error("a read long after is a repetition")
	}
}

// TestAgainForgets: what is remembered is bounded, whatever is read.
func TestAgainForgets(t *testing.T) {
	var a again
	for low := range uint64(10 * maxPlaces) {
		a.repeats(1, 1, low, time.Unix(1, 0))
		if len(a.read) > maxPlaces {
			t.Fatalf("%d places are remembered", len(a.read))
		}
	}
}
