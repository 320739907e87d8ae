package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/cairnkv/cairn/bench/internal/chart"
)

// commandPlot is the argument that makes this program draw what -json wrote.
const commandPlot = "plot"

// A plot is a figure of a family of profiles, whose names end with a number.
type plot struct {
	file   string
	title  string
	family string
	// x is the column along which they lie.
	x       string
	xAxis   chart.Axis
	columns int
	panels  []plotPanel
}

// A plotPanel shows a column.
type plotPanel struct {
	title, column string
	log           bool
	most          float64
}

var plots = []plot{
	latencyPlot("put", "Puts"),
	latencyPlot("get", "Linearizable gets"),
	{
		file: "scale-keys", title: "More and more keys", family: profileScaleKeys,
		x: "keys", xAxis: chart.Axis{Label: "keys", Log: true}, columns: 3,
		panels: []plotPanel{
			{"puts a second, 64 clients", "put/s", false, 0},
			{"p99 of puts, ms", "put p99 ms", false, 0},
			{"gets a second, 64 clients", "get/s", false, 0},
			{"p99 of gets, ms", "get p99 ms", false, 0},
			{"keys a second in bulk", "load keys/s", false, 0},
			{"resident memory after a rest, MB", "rested MB", true, 0},
			{"most memory ever resident, MB", "peak MB", true, 0},
			{"disk, MB", "disk MB", true, 0},
			{"restart to the first read, s", "restart s", true, 0},
		},
	},
	{
		file: "scale-connections", title: "More and more connections, each with a request under way", family: profileScaleConnections,
		x: "connections", xAxis: chart.Axis{Label: "connections", Log: true}, columns: 3,
		panels: []plotPanel{
			{"puts a second", "put/s", true, 0},
			{"p99 of puts, ms", "put p99 ms", true, 0},
			{"puts refused or failed, %", "put % lost", false, 100},
			{"gets a second", "get/s", true, 0},
			{"p99 of gets, ms", "get p99 ms", true, 0},
			{"gets refused or failed, %", "get % lost", false, 100},
			{"resident when connected, MB", "connected MB", true, 0},
			{"most memory resident, MB", "peak MB", true, 0},
			{"processor time of the server, µs a put", "server µs/put", true, 0},
		},
	},
}

func latencyPlot(load, title string) plot {
	return plot{
		file: profileLatency + "-" + load, title: title + " at given rates", family: profileLatency + " " + load,
		x: "due/s", xAxis: chart.Axis{Label: "requests due a second"}, columns: 2,
		panels: []plotPanel{
			{"p50 from when due, ms", "p50 ms", true, 0},
			{"p99 from when due, ms", "p99 ms", true, 0},
			{"p99.9 from when due, ms", "p99.9 ms", true, 0},
			{"refused, failed or not sent in time, %", "% lost", false, 100},
		},
	}
}

// runPlot draws all figures that reports have something for.
func runPlot(args []string) error {
	flags := flag.NewFlagSet("bench plot", flag.ContinueOnError)
	out := flags.String("out", filepath.Join("..", "docs", "plots"), "directory to write figures to")
	flags.Usage = func() {
		fmt.Fprintf(flags.Output(), "usage: go run . plot [flags] report.json ...\n\nOf several reports, the later ones add to the others, or take their place.\n\n")
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() == 0 {
		return errors.New("plot needs a file that -json wrote")
	}
	var reports []report
	for _, path := range flags.Args() {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		var r report
		if err := json.Unmarshal(text, &r); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		reports = append(reports, r)
	}
	if err := os.MkdirAll(*out, 0o755); err != nil {
		return err
	}
	drawn := 0
	for _, p := range plots {
		figure := p.figure(reports)
		if figure == nil {
			continue
		}
		path := filepath.Join(*out, p.file+".svg")
		if err := os.WriteFile(path, figure.SVG(), 0o644); err != nil {
			return err
		}
		fmt.Println(path)
		drawn++
	}
	if drawn == 0 {
		return errors.New("the reports have no profile of which there is a plot")
	}
	return nil
}

// figure is nil if no report has the family.
func (p *plot) figure(reports []report) *chart.Figure {
	f := &chart.Figure{Title: p.title, Columns: p.columns}
	for _, panel := range p.panels {
		c := chart.Panel{Title: panel.title, X: p.xAxis, Y: chart.Axis{Log: panel.log, Most: panel.most}}
		for _, name := range []string{nameCairn, nameGRPC, nameGateway} {
			if points := p.points(reports, name, panel.column); len(points) > 0 {
				c.Lines = append(c.Lines, chart.Line{Name: targetTitles[name], Points: points})
			}
		}
		f.Panels = append(f.Panels, c)
	}
	for _, r := range reports {
		if slices.ContainsFunc(r.Profiles, func(q profileReport) bool { return p.has(q.Profile) }) {
			f.Note = fmt.Sprintf("%s; one node, fsync on, values of %d bytes; etcd %s; %d processors, shared with the clients; %s of %v",
				r.Started.Format("2006-01-02"), valueSize, r.Etcd, r.Processors, rounds(r.Settings.Rounds), r.Settings.Duration)
		}
	}
	if f.Note == "" {
		return nil
	}
	return f
}

func rounds(n int) string {
	if n == 1 {
		return "one round"
	}
	return fmt.Sprintf("medians of %d rounds", n)
}

// targetTitles are what a reader knows the targets by.
var targetTitles = map[string]string{nameCairn: "Cairn, HTTP", nameGRPC: "etcd, gRPC", nameGateway: "etcd, JSON gateway"}

// has says whether a profile is of the family.
func (p *plot) has(profile string) bool {
	rest, ok := strings.CutPrefix(profile, p.family+" ")
	if !ok {
		return false
	}
	_, err := strconv.Atoi(rest)
	return err == nil
}

// points are the medians of a target's rounds, along x.
func (p *plot) points(reports []report, target, column string) (points []chart.Point) {
	at := map[float64]float64{}
	for _, r := range reports {
		for _, q := range r.Profiles {
			x, ok := median(q.Targets[target][p.x])
			y, measured := median(q.Targets[target][column])
			if p.has(q.Profile) && ok && measured {
				at[x] = y
			}
		}
	}
	for x, y := range at {
		points = append(points, chart.Point{X: x, Y: y})
	}
	slices.SortFunc(points, func(a, b chart.Point) int { return cmp.Compare(a.X, b.X) })
	return points
}
