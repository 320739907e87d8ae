package main

import (
	"encoding/json"
	"os"
	"runtime"
	"runtime/debug"
	"time"
)

// A report is what -json writes: every number of every round, and under which
// conditions they came about.
type report struct {
	Started    time.Time       `json:"started"`
	Go         string          `json:"go"`
	Processors int             `json:"processors"`
	Etcd       string          `json:"etcd"`
	Settings   settings        `json:"settings"`
	Profiles   []profileReport `json:"profiles"`
}

type profileReport struct {
	Profile string                  `json:"profile"`
	About   string                  `json:"about"`
	Notes   []string                `json:"notes,omitempty"`
	Targets map[string]targetReport `json:"targets"`
	// Ratios are by the names of the two targets, then by column.
	Ratios map[string]map[string]ratioReport `json:"ratios,omitempty"`
}

// targetReport has a value a round under the name of each column; a round that
// failed is missing.
type targetReport map[string][]float64

type ratioReport struct {
	Median   float64 `json:"median"`
	Least    float64 `json:"least"`
	Greatest float64 `json:"greatest"`
}

func newReport(started time.Time, set settings, results []*result) report {
	out := report{
		Started:    started.UTC().Truncate(time.Second),
		Go:         runtime.Version(),
		Processors: runtime.NumCPU(),
		Etcd:       etcdVersion(),
		Settings:   set,
	}
	for _, r := range results {
		out.Profiles = append(out.Profiles, r.report())
	}
	return out
}

func (r *result) report() profileReport {
	out := profileReport{Profile: r.profile, About: r.about, Notes: r.notes, Targets: map[string]targetReport{}}
	for _, row := range r.rows {
		values := targetReport{}
		for c, column := range r.columns {
			for _, s := range row.samples {
				if s != nil {
					values[column.name] = append(values[column.name], s.values[c])
				}
			}
		}
		out.Targets[row.name] = values
	}
	for _, p := range pairs {
		ratios := map[string]ratioReport{}
		for c, column := range r.columns {
			if s, ok := r.ratio(p, c); ok {
				ratios[column.name] = ratioReport{s.median, s.least, s.greatest}
			}
		}
		if len(ratios) > 0 {
			if out.Ratios == nil {
				out.Ratios = map[string]map[string]ratioReport{}
			}
			out.Ratios[p.of+"/"+p.to] = ratios
		}
	}
	return out
}

func (r report) write(path string) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}

// etcdVersion is the version of etcd's server that is linked into this program.
func etcdVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, dep := range info.Deps {
			if dep.Path == "go.etcd.io/etcd/server/v3" {
				return dep.Version
			}
		}
	}
	return "unknown"
}
