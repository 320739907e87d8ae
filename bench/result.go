package main

import "slices"

// A column is one number of a sample.
type column struct {
	name    string
	format  func(float64) string
	ratio   bool // worth comparing between targets
	latency bool // not comparable when the requests of the targets differ
}

// A sample is what one measurement gave.
type sample struct {
	values     []float64 // one a column
	errors     int
	firstError error
}

// A result is all rounds of one profile.
type result struct {
	profile string
	about   string
	columns []column
	batched bool
	rows    []row // in the order in which they are shown
	notes   []string
}

// A row is one target's samples, one a round; nil where a measurement failed.
type row struct {
	name    string
	samples []*sample
}

// A pair names the targets of a ratio.
type pair struct{ of, to string }

// pairs are the ratios that are shown when both targets were measured.
var pairs = []pair{{nameCairn, nameGateway}, {nameCairn, nameGRPC}, {nameCairn, nameBefore}, {nameCairn, nameParts},
	{nameCairn, nameFloor}, {nameCairn, nameStack}, {nameStack, nameGateway}, {nameStack, nameGRPC},
	{nameParts, nameGateway}, {nameParts, nameGRPC}}

func (r *result) row(name string) *row {
	i := slices.IndexFunc(r.rows, func(row row) bool { return row.name == name })
	if i < 0 {
		return nil
	}
	return &r.rows[i]
}

// median is the middle of a row's column over the rounds.
func (r *row) median(column int) (float64, bool) {
	var values []float64
	for _, s := range r.samples {
		if s != nil {
			values = append(values, s.values[column])
		}
	}
	return median(values)
}

// spread is a ratio: its median over the rounds, its least and its greatest. Each
// round's ratio is of its own two measurements, which are neighbours in time.
type spread struct{ median, least, greatest float64 }

// ratio compares two targets in one column. There is none when the column doesn't
// lend itself to it or no round has both.
func (r *result) ratio(p pair, column int) (spread, bool) {
	ratios := r.ratios(p, column)
	m, ok := median(ratios)
	if !ok {
		return spread{}, false
	}
	return spread{m, slices.Min(ratios), slices.Max(ratios)}, true
}

// ratios has the ratio of each round that has both targets.
func (r *result) ratios(p pair, column int) (ratios []float64) {
	of, to := r.row(p.of), r.row(p.to)
	if of == nil || to == nil || !r.columns[column].ratio || r.batched && r.columns[column].latency {
		return nil
	}
	for i := range min(len(of.samples), len(to.samples)) {
		a, b := of.samples[i], to.samples[i]
		if a != nil && b != nil && b.values[column] != 0 {
			ratios = append(ratios, a.values[column]/b.values[column])
		}
	}
	return ratios
}

// median of an even number of values is the mean of the middle two.
func median(values []float64) (float64, bool) {
	if len(values) == 0 {
		return 0, false
	}
	sorted := slices.Sorted(slices.Values(values))
	mid := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[mid], true
	}
	return (sorted[mid-1] + sorted[mid]) / 2, true
}
