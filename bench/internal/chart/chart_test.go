package chart

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
)

// TestScales: ticks grow, are not too many, and lie around all values, whatever
// these are.
func TestScales(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		axis := Axis{Log: rng.IntN(2) == 0}
		var values []float64
		for range 1 + rng.IntN(5) {
			values = append(values, math.Pow(10, rng.Float64()*10-4))
		}
		s := newScale(axis, values, 10, 110)
		for i, tick := range s.ticks {
			if i > 0 && tick <= s.ticks[i-1] {
				t.Fatalf("%v of %v: ticks %v", axis, values, s.ticks)
			}
		}
		if len(s.ticks) < 2 || len(s.ticks) > 14 {
			t.Errorf("%v of %v: %d ticks %v", axis, values, len(s.ticks), s.ticks)
		}
		for _, v := range append(values, s.ticks...) {
			if at := s.at(v); at < 10-1e-6 || at > 110+1e-6 {
				t.Errorf("%v of %v: %v is at %v, ticks %v", axis, values, v, at, s.ticks)
			}
		}
	}
}

func TestTicks(t *testing.T) {
	for _, tt := range []struct {
		log    bool
		values []float64
		want   string
	}{
		{false, []float64{30_000}, "0 5k 10k 15k 20k 25k 30k"},
		{false, []float64{100}, "0 20 40 60 80 100"},
		{false, []float64{0}, "0 0.2 0.4 0.6 0.8 1"},
		{true, []float64{10_000, 20_000_000}, "10k 100k 1M 10M 100M"},
		{true, []float64{0.3, 2.5}, "0.2 0.5 1 2 5"},
		{true, []float64{1, 0, math.NaN()}, "1 2"},
	} {
		var got []string
		for _, tick := range newScale(Axis{Log: tt.log}, tt.values, 0, 1).ticks {
			got = append(got, number(tick))
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("log %v, %v: %v, want %s", tt.log, tt.values, got, tt.want)
		}
	}
}

// TestSVG: it is well-formed, names are escaped, and what has no place on an axis is
// not drawn.
func TestSVG(t *testing.T) {
	f := Figure{Title: "a < b", Note: "&", Columns: 2, Panels: []Panel{
		{Title: "ms", X: Axis{Label: "keys", Log: true}, Y: Axis{Log: true}, Lines: []Line{
			{"one", []Point{{1, 2}, {10, 0}, {100, 4}, {1000, math.NaN()}}}, {"two", []Point{{1, 1}}},
		}},
		{Title: "none", X: Axis{Label: "keys"}},
		{Title: "%", X: Axis{Label: "keys"}, Lines: []Line{{"two", []Point{{0, 0}, {3, 100}}}}},
	}}
	svg := f.SVG()
	decoder := xml.NewDecoder(bytes.NewReader(svg))
	for {
		if _, err := decoder.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("%v\n%s", err, svg)
		}
	}
	for text, want := range map[string]int{
		"<circle": 3, `class="f1"`: 4, "NaN": 0, "Inf": 0, "a &lt; b": 2, ">one<": 1, ">two<": 1,
	} {
		if got := bytes.Count(svg, []byte(text)); got != want {
			t.Errorf("%d times %q, want %d:\n%s", got, text, want, svg)
		}
	}
}
