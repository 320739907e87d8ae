package histogram

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// Every value lies within its bucket, and the bucket is narrow enough for the
// promised error. Checked around each power of two, where mistakes would be.
func TestBucketsCoverValuesClosely(t *testing.T) {
	for exp := range limitBits {
		for _, delta := range []int64{-2, -1, 0, 1, 2, 12345} {
			v := int64(1)<<exp + delta
			if v < 0 || v > int64(Limit) {
				continue
			}
			b := bucketOf(uint64(v))
			if b < 0 || b >= bucketCount {
				t.Fatalf("value %d falls into bucket %d of %d", v, b, bucketCount)
			}
			upper := int64(upperBound(b))
			if upper < v || float64(upper-v) > float64(v)/subCount {
				t.Fatalf("value %d is in bucket %d, which ends at %d", v, b, upper)
			}
			if b > 0 && int64(upperBound(b-1)) >= v {
				t.Fatalf("value %d also fits bucket %d", v, b-1)
			}
		}
	}
}

// Quantiles of random durations agree with those of the sorted list.
func TestQuantilesMatchSortedValues(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for round := range 50 {
		var whole, other Histogram
		values := make([]time.Duration, 1+rng.IntN(3000))
		for i := range values {
			values[i] = time.Duration(rng.Int64N(1 << (1 + rng.IntN(limitBits-1))))
			if i%2 == 0 {
				whole.Record(values[i])
			} else {
				other.Record(values[i])
			}
		}
		whole.Merge(&other)
		slices.Sort(values)
		if whole.Count() != uint64(len(values)) || whole.Max() != values[len(values)-1] {
			t.Fatalf("round %d: count %d, max %v; want %d, %v", round, whole.Count(), whole.Max(), len(values), values[len(values)-1])
		}
		for _, q := range []float64{0.01, 0.5, 0.9, 0.99, 0.999, 1} {
			rank := int(q * float64(len(values)))
			if float64(rank) < q*float64(len(values)) {
				rank++
			}
			want := values[rank-1]
			got := whole.Quantile(q)
			if got < want || float64(got-want) > float64(want)/subCount {
				t.Fatalf("round %d: quantile %v is %v, want %v", round, q, got, want)
			}
		}
	}
}

func TestEdges(t *testing.T) {
	var h Histogram
	if got := h.Quantile(0.5); got != 0 {
		t.Fatalf("empty histogram answers %v", got)
	}
	h.Record(-time.Second)
	h.Record(100 * time.Hour)
	if got := h.Quantile(0.5); got != 0 {
		t.Fatalf("a negative duration counts as %v", got)
	}
	if got := h.Quantile(1); got != Limit {
		t.Fatalf("a very long duration counts as %v, want %v", got, Limit)
	}
}
