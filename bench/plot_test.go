package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cairnkv/cairn/bench/internal/chart"
)

// TestPlotPoints: points are medians in the order of x, a later report replaces what
// it has anew, and nothing of other profiles gets in.
func TestPlotPoints(t *testing.T) {
	at := func(profile string, x float64, y ...float64) profileReport {
		xs := slices.Repeat([]float64{x}, len(y))
		return profileReport{Profile: profile, Targets: map[string]targetReport{nameCairn: {"keys": xs, "disk MB": y}}}
	}
	first := report{Started: time.Unix(0, 0).UTC(), Profiles: []profileReport{
		at("scale-keys 100", 100, 7), at("scale-keys 20", 20, 1, 5, 2), at("scale-keys x", 3, 3), at("scale-keysize 4", 4, 4), at("scale-keys 9", 9),
	}}
	second := report{Profiles: []profileReport{at("scale-keys 100", 100, 8), at("put-64", 5, 5)}}
	i := slices.IndexFunc(plots, func(p plot) bool { return p.family == profileScaleKeys })
	p := plots[i]
	want := []chart.Point{{X: 20, Y: 2}, {X: 100, Y: 8}}
	if got := p.points([]report{first, second}, nameCairn, "disk MB"); !slices.Equal(got, want) {
		t.Errorf("points %v, want %v", got, want)
	}
	if f := p.figure([]report{first}); f == nil || !strings.HasPrefix(f.Note, "1970-01-01; ") || len(f.Panels) != len(p.panels) {
		t.Errorf("figure %+v", f)
	}
	if f := p.figure([]report{{Profiles: []profileReport{at("put-64", 5, 5)}}}); f != nil {
		t.Errorf("a figure of nothing: %+v", f)
	}
}

// TestPlotColumns: each panel shows a column that there is.
func TestPlotColumns(t *testing.T) {
	for _, p := range plots {
		columns := latencyColumns
		switch p.family {
		case profileScaleKeys:
			columns = scaleKeysColumns
		case profileScaleConnections:
			columns = scaleConnectionsColumns
		}
		names := []string{p.x}
		for _, panel := range p.panels {
			names = append(names, panel.column)
		}
		for _, name := range names {
			if !slices.ContainsFunc(columns, func(c column) bool { return c.name == name }) {
				t.Errorf("%s: there is no column %q", p.file, name)
			}
		}
	}
}

// TestScaleProfiles runs what there are plots of, and the disk, against real servers,
// and draws it. With CAIRN_LONG set, etcd is beside Cairn.
func TestScaleProfiles(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: it starts servers")
	}
	targets := []string{nameCairn}
	if os.Getenv("CAIRN_LONG") != "" {
		targets = append(targets, nameGRPC)
	}
	self, dir := buildSelf(t), t.TempDir()
	out := filepath.Join(dir, "report.json")
	text, err := exec.Command(self, "-short", "-dir", t.TempDir(), "-duration", "50ms", "-rest", "0s", "-targets", strings.Join(targets, ","), "-json", out,
		"-keys", "1000", "-latency-percents", "5", "-latency-clients", "8", "-scale-keys", "1000,2000", "-scale-etcd-keys", "1000", "-scale-connections", "5",
		profileLatency, profileScaleKeys, profileScaleConnections, profileDisk).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	for _, title := range []string{
		"latency put capacity", "latency put 5", "latency get 5", "scale-keys 1000", "scale-keys 2000", "scale-connections 5", "disk",
	} {
		if !bytes.Contains(text, []byte("\n"+title+": ")) {
			t.Errorf("%s is not shown:\n%s", title, text)
		}
	}
	if text, err := exec.Command(self, commandPlot, "-out", dir, out).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	for _, p := range plots {
		svg, err := os.ReadFile(filepath.Join(dir, p.file+".svg"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range targets {
			if name = targetTitles[name]; !bytes.Contains(svg, []byte(">"+name+"<")) {
				t.Errorf("%s has nothing of %s", p.file, name)
			}
		}
	}
	if text, err := exec.Command(self, commandPlot, "-out", dir).CombinedOutput(); err == nil {
		t.Errorf("a plot of no report passes:\n%s", text)
	}
}
