// Package histogram counts durations in buckets whose width grows with the
// value, so that every quantile is known to better than one percent whatever
// its size, in a fixed amount of memory and without a lock: each worker has a
// histogram of its own, and they are merged when the work is over.
package histogram

import (
	"math/bits"
	"time"
)

const (
	// Each power of two is cut into 2^subBits buckets of equal width. A value
	// is off by at most one width, which is 2^-subBits of it: 0.8 %.
	subBits  = 7
	subCount = 1 << subBits

	// Limit is the largest duration that is told apart, about 18 minutes.
	// What is longer counts as this.
	Limit = time.Duration(1<<limitBits - 1)

	limitBits   = 40
	bucketCount = (limitBits-subBits-1)*subCount + 2*subCount
)

// Histogram is a set of durations. Its zero value is empty and ready to use.
type Histogram struct {
	counts [bucketCount]uint64
	total  uint64
	max    time.Duration
}

// Record adds one duration. A negative one counts as zero.
func (h *Histogram) Record(d time.Duration) {
	d = min(max(d, 0), Limit)
	h.counts[bucketOf(uint64(d))]++
	h.total++
	h.max = max(h.max, d)
}

// Merge adds all of o's durations.
func (h *Histogram) Merge(o *Histogram) {
	for i, n := range o.counts {
		h.counts[i] += n
	}
	h.total += o.total
	h.max = max(h.max, o.max)
}

// Count says how many durations were recorded.
func (h *Histogram) Count() uint64 { return h.total }

// Max is the longest duration, exactly.
func (h *Histogram) Max() time.Duration { return h.max }

// Quantile is the duration that a share q of all durations, 0 < q <= 1, did
// not exceed. It is never less than the true one and at most 0.8 % more. An
// empty histogram answers 0.
func (h *Histogram) Quantile(q float64) time.Duration {
	rank := uint64(q * float64(h.total))
	if float64(rank) < q*float64(h.total) {
		rank++ // the smallest whole rank that covers the share
	}
	var seen uint64
	for i, n := range h.counts {
		seen += n
		if seen >= rank && n > 0 {
			return min(upperBound(i), h.max)
		}
	}
	return h.max
}

// bucketOf is the position of v. Values below 2*subCount have a bucket each;
// above, the leading subBits+1 bits choose it. Neighbouring values are in the
// same bucket or in neighbouring ones, without a gap.
func bucketOf(v uint64) int {
	shift := bits.Len64(v) - subBits - 1
	if shift <= 0 {
		return int(v)
	}
	return shift<<subBits + int(v>>shift)
}

// upperBound is the largest value of a bucket.
func upperBound(bucket int) time.Duration {
	if bucket < 2*subCount {
		return time.Duration(bucket)
	}
	shift := bucket>>subBits - 1
	lead := uint64(bucket) - uint64(shift)<<subBits
	return time.Duration((lead+1)<<shift - 1)
}
