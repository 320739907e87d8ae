package main

import (
	"strings"
	"testing"
)

// between is a result of so many rounds of two commits.
func between(before, after []float64) *result {
	of := func(values []float64) (samples []*sample) {
		for _, v := range values {
			samples = append(samples, &sample{values: []float64{v, 1000 / v}})
		}
		return samples
	}
	return &result{
		profile: "put-9",
		columns: []column{{name: "ops/s", format: whole, ratio: true}, {name: "server µs/op", format: three, ratio: true}},
		rows:    []row{{nameCairn, of(after)}, {nameBefore, of(before)}},
	}
}

func TestVerdicts(t *testing.T) {
	steady := []float64{100, 101, 99, 100, 102, 100}
	for name, tt := range map[string]struct {
		after []float64
		want  string
	}{
		"faster":     {[]float64{110, 112, 108, 111, 110, 109}, better},
		"slower":     {[]float64{90, 91, 92, 89, 90, 93}, worse},
		"both ways":  {[]float64{90, 112, 99, 104, 97, 101}, same},
		"not enough": {[]float64{150, 150, 150, 150, 150}, undecided},
	} {
		list := between(steady[:len(tt.after)], tt.after).verdicts(pair{nameCairn, nameBefore})
		if len(list) != 2 || list[0].word != tt.want || list[1].word != tt.want {
			t.Errorf("%s: %+v, want %s", name, list, tt.want)
		}
	}
}

func TestPrintVerdicts(t *testing.T) {
	var b strings.Builder
	printVerdicts(&b, "v1", []*result{between([]float64{100, 100, 100, 100, 100, 100}, []float64{110, 110, 110, 110, 110, 110})})
	for _, want := range []string{"against v1 figure change within", "put-9 ops/s +10.0 % +10.0 % to +10.0 % better", "put-9 server µs/op -9.1 % -9.1 % to -9.1 % better"} {
		if !strings.Contains(squeeze(b.String()), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
}
