package main

import (
	"io"
	"strings"
	"testing"
)

// The file asks for what there is.
func TestGuardFile(t *testing.T) {
	opt, err := parseOptions([]string{modeGuard})
	if err != nil {
		t.Fatal(err)
	}
	if len(opt.guard) == 0 || len(opt.profiles) == 0 {
		t.Fatalf("nothing is guarded: %+v", opt)
	}
	columns := map[string]bool{}
	for _, c := range loadColumns {
		columns[c.name] = c.ratio
	}
	for _, f := range opt.guard {
		if !columns[f.Column] {
			t.Errorf("%s: there is no ratio of %q", f.Profile, f.Column)
		}
	}
	if _, err := parseOptions([]string{modeGuard, "put-64"}); err == nil || !strings.Contains(err.Error(), "combined") {
		t.Errorf("a mode beside a profile: %v", err)
	}
}

func TestGuard(t *testing.T) {
	results := []*result{comparison()} // 3 and 5 against etcd-json, 1.5 and 2.5 against etcd-grpc
	for want, f := range map[string]figure{
		holds:    {Profile: "put-9", Column: "ops/s", Against: nameGateway, AtLeast: 4},
		doubtful: {Profile: "put-9", Column: "ops/s", Against: nameGateway, AtLeast: 4.5},
		slipped:  {Profile: "put-9", Column: "ops/s", Against: nameGateway, AtLeast: 5.5},
		missing:  {Profile: "put-8", Column: "ops/s", Against: nameGateway, AtLeast: 1},
	} {
		if _, word := f.state(results); word != want {
			t.Errorf("%+v: %s, want %s", f, word, want)
		}
	}
	for want, most := range map[string]float64{holds: 0.75, doubtful: 0.6, slipped: 0.4} {
		f := figure{Profile: "put-9", Column: "p99 ms", Against: nameGateway, AtMost: most}
		if _, word := f.state(results); word != want {
			t.Errorf("%+v: %s, want %s", f, word, want)
		}
	}
	err := checkFigures(io.Discard, []figure{{Profile: "put-9", Column: "ops/s", Against: nameGateway, AtLeast: 9}}, results)
	if err == nil || !strings.Contains(err.Error(), "hold: 1") {
		t.Errorf("a figure that slipped: %v", err)
	}
}
