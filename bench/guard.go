package main

import (
	_ "embed"
	"fmt"
	"io"
	"slices"

	"sigs.k8s.io/yaml"
)

// modeGuard measures the figures of guard.yaml and fails if one has slipped.
const modeGuard = "guard"

//go:embed guard.yaml
var guardFile []byte

// A figure is one that must not slip: the ratio of Cairn to another target in a
// column of a profile.
type figure struct {
	Profile string `json:"profile"`
	Column  string `json:"column"`
	Against string `json:"against"`
	// One of them bounds the ratio.
	AtLeast float64 `json:"at_least,omitempty"`
	AtMost  float64 `json:"at_most,omitempty"`
}

// guarded reads the figures.
func guarded() ([]figure, error) {
	var figures []figure
	if err := yaml.UnmarshalStrict(guardFile, &figures); err != nil {
		return nil, fmt.Errorf("guard.yaml: %w", err)
	}
	for i, f := range figures {
		if (f.AtLeast > 0) == (f.AtMost > 0) {
			return nil, fmt.Errorf("guard.yaml: figure %d, of %s, needs at_least or at_most", i+1, f.Profile)
		}
	}
	return figures, nil
}

// guardProfiles and guardTargets are what must be measured for the figures, each
// once, in their order.
func guardProfiles(figures []figure) (names []string) {
	for _, f := range figures {
		if !slices.Contains(names, f.Profile) {
			names = append(names, f.Profile)
		}
	}
	return names
}

func guardTargets(figures []figure) []string {
	names := []string{nameCairn}
	for _, f := range figures {
		if !slices.Contains(names, f.Against) {
			names = append(names, f.Against)
		}
	}
	return names
}

const (
	holds    = "holds"
	slipped  = "slipped"  // in every round
	doubtful = "doubtful" // in most of them; measure again
	missing  = "missing"
)

// state says whether a figure holds. One round within the bound is enough not to
// fail: what a busy machine takes away it takes from single rounds.
func (f figure) state(results []*result) (s spread, word string) {
	for _, r := range results {
		c := slices.IndexFunc(r.columns, func(c column) bool { return c.name == f.Column })
		if r.profile != f.Profile || c < 0 {
			continue
		}
		s, ok := r.ratio(pair{nameCairn, f.Against}, c)
		if !ok {
			continue
		}
		best, within := s.greatest, func(v float64) bool { return v >= f.AtLeast }
		if f.AtMost > 0 {
			best, within = s.least, func(v float64) bool { return v <= f.AtMost }
		}
		switch {
		case within(s.median):
			return s, holds
		case within(best):
			return s, doubtful
		}
		return s, slipped
	}
	return spread{}, missing
}

// checkFigures shows all figures and returns an error if one does not hold.
func checkFigures(w io.Writer, figures []figure, results []*result) error {
	table := [][]string{{"guard", "against", "figure", "bound", "measured", ""}}
	lost := 0
	for _, f := range figures {
		s, word := f.state(results)
		bound := "at least " + three(f.AtLeast)
		if f.AtMost > 0 {
			bound = "at most " + three(f.AtMost)
		}
		if word == slipped || word == missing {
			lost++
		}
		table = append(table, []string{f.Profile, f.Against, f.Column, bound, s.String(), word})
	}
	fmt.Fprintln(w)
	writeTable(w, table)
	if lost > 0 {
		return fmt.Errorf("figures of guard.yaml that don't hold: %d", lost)
	}
	return nil
}
