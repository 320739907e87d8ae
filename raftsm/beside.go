package raftsm

import (
	"io"
	"time"
)

const (
	// besideStep is after how many bytes of a snapshot its sender and its receiver
	// rest for as long as these took, but not longer than besideRest.
	besideStep = 256 << 10
	besideRest = 4 * time.Millisecond
)

// beside lets a snapshot pass beside what else the processors and the disk have to
// do, which is to serve, here or on members that share them: half of the time it
// rests. On a machine that is busy already a step takes long for what others do, and
// resting as long again would help nobody; so a rest is short, and all of them
// together take 16 s for each GiB at most.
type beside struct {
	r    io.Reader
	w    io.Writer
	rest func(time.Duration)
	now  func() time.Time

	began time.Time // of the step, zero before the first one
	bytes int
}

func newBeside(r io.Reader, w io.Writer, stop <-chan struct{}) *beside {
	return &beside{r: r, w: w, now: time.Now, rest: func(d time.Duration) {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-stop: // who reads or writes looks at it, too
		}
	}}
}

// Read implements io.Reader.
func (b *beside) Read(p []byte) (int, error) {
	b.begin()
	n, err := b.r.Read(p)
	b.passed(n)
	return n, err
}

// Write implements io.Writer.
func (b *beside) Write(p []byte) (int, error) {
	b.begin()
	n, err := b.w.Write(p)
	b.passed(n)
	return n, err
}

func (b *beside) begin() {
	if b.began.IsZero() {
		b.began = b.now()
	}
}

func (b *beside) passed(n int) {
	if b.bytes += n; b.bytes < besideStep {
		return
	}
	steps := time.Duration(b.bytes / besideStep)
	b.rest(min(b.now().Sub(b.began), steps*besideRest))
	b.bytes %= besideStep
	b.began = b.now()
}
