package raftsm

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"time"
)

// TestBeside lets bytes pass that take some time, and looks at the rests.
func TestBeside(t *testing.T) {
	now := time.Unix(0, 0)
	var rests []time.Duration
	var out bytes.Buffer
	b := newBeside(strings.NewReader(strings.Repeat("x", 4*besideStep)), &out, nil)
	b.now = func() time.Time { return now }
	b.rest = func(d time.Duration) {
		rests = append(rests, d)
		now = now.Add(d)
	}
	want := func(what string, want ...time.Duration) {
		t.Helper()
		if len(rests) != len(want) || len(want) > 0 && rests[0] != want[0] {
			t.Errorf("%s: the rests are %v, want %v", what, rests, want)
		}
		rests = nil
	}
	write := func(n int) {
		_, err := b.Write(make([]byte, n))
		must(t, err)
	}
	write(besideStep / 2)
	want("half a step")
	now = now.Add(time.Millisecond)
	write(besideStep / 2)
	want("a step that took 1 ms", time.Millisecond)
	now = now.Add(time.Second)
	write(besideStep)
	want("a step that took 1 s", besideRest)
	now = now.Add(time.Second)
	write(3 * besideStep)
	want("three steps at once", 3*besideRest)
	if out.Len() != 5*besideStep {
		t.Errorf("%d bytes were written, want %d", out.Len(), 5*besideStep)
	}
	now = now.Add(2 * time.Millisecond)
	got := make([]byte, besideStep)
	if _, err := io.ReadFull(b, got); err != nil || !bytes.Equal(got, bytes.Repeat([]byte("x"), besideStep)) {
		t.Errorf("%d bytes were read: %v", len(got), err)
	}
	want("a step that was read", 2*time.Millisecond)

	// A stream that is stopped rests no longer.
	stop := make(chan struct{})
	close(stop)
	stopped := newBeside(nil, io.Discard, stop)
	stopped.rest(time.Hour)
}
