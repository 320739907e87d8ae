package monitoring

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"go.yaml.in/yaml/v3"
)

// An alert is what this package looks at in a rule.
type alert struct {
	Alert       string            `yaml:"alert"`
	Expr        string            `yaml:"expr"`
	For         string            `yaml:"for"`
	Labels      map[string]string `yaml:"labels"`
	Annotations map[string]string `yaml:"annotations"`
}

func alerts(t testing.TB) (all []alert) {
	t.Helper()
	var file struct {
		Groups []struct {
			Name  string
			Rules []alert
		}
	}
	must(t, yaml.Unmarshal([]byte(read(t, "alerts.yaml")), &file))
	for _, g := range file.Groups {
		all = append(all, g.Rules...)
	}
	if len(all) == 0 {
		t.Fatal("there are no alerts")
	}
	return all
}

// A panel is what this package looks at in a panel of the dashboard.
type panel struct {
	ID         int
	Type       string
	Title      string
	Datasource struct{ Type, UID string }
	GridPos    struct{ H, W, X, Y int }
	Targets    []struct {
		Expr       string
		Datasource struct{ Type, UID string }
	}
}

func panels(t testing.TB) (all []panel) {
	t.Helper()
	var file struct{ Panels []panel }
	must(t, json.Unmarshal([]byte(read(t, "dashboard.json")), &file))
	if len(file.Panels) == 0 {
		t.Fatal("the dashboard has no panels")
	}
	return file.Panels
}

var metric = regexp.MustCompile(`\b(?:cairn|process|go|dragonboat)_[a-z0-9_]+`)

// TestMetricsExist looks for what the alerts and the dashboard name among the
// series of a node.
func TestMetricsExist(t *testing.T) {
	series, _ := exposed(t, startNode(t))
	check := func(where, expr string) {
		names := metric.FindAllString(expr, -1)
		if len(names) == 0 && !strings.Contains(expr, "up{") {
			t.Errorf("%s looks at no metric: %s", where, expr)
		}
		for _, name := range names {
			if !series[name] {
				t.Errorf("%s looks at %s, which a node doesn't have", where, name)
			}
		}
	}
	for _, a := range alerts(t) {
		check(a.Alert, a.Expr)
	}
	for _, p := range panels(t) {
		for _, target := range p.Targets {
			check(p.Title, target.Expr)
		}
	}
}

// TestMetricsDocumented holds the table of docs/operations.md to a node, in both
// directions.
func TestMetricsDocumented(t *testing.T) {
	_, own := exposed(t, startNode(t))
	_, chapter, found := strings.Cut(read(t, "../docs/operations.md"), "\n## Metrics\n")
	if !found {
		t.Fatal("docs/operations.md has no chapter Metrics")
	}
	chapter, _, _ = strings.Cut(chapter, "\n## ")
	documented := map[string]bool{}
	for line := range strings.Lines(chapter) {
		if cells := strings.Split(line, "|"); len(cells) >= 5 {
			for _, m := range regexp.MustCompile("`(cairn_[a-z0-9_]+)").FindAllStringSubmatch(cells[1], -1) {
				documented[m[1]] = true
			}
		}
	}
	for name := range own {
		if !documented[name] {
			t.Errorf("%s is not in the table of docs/operations.md", name)
		}
	}
	for name := range documented {
		if !own[name] {
			t.Errorf("%s is in the table of docs/operations.md, but a node doesn't have it", name)
		}
	}
}

// TestAlertsAreComplete wants of each alert that it waits, how bad it is and what
// to do, and that promtool sees it fire.
func TestAlertsAreComplete(t *testing.T) {
	var tests struct {
		Tests []struct {
			Name  string
			Exprs []struct {
				Expr    string
				Samples []any `yaml:"exp_samples"`
			} `yaml:"promql_expr_test"`
		}
	}
	must(t, yaml.Unmarshal([]byte(read(t, "alerts_test.yaml")), &tests))
	fires, quiet := map[string]bool{}, map[string]bool{}
	for _, c := range tests.Tests {
		for _, e := range c.Exprs {
			if want := fmt.Sprintf("count(ALERTS{alertname=%q, alertstate=\"firing\"})", c.Name); e.Expr != want {
				t.Errorf("the test %s asks for %s, not for %s", c.Name, e.Expr, want)
			}
			if len(e.Samples) > 0 {
				fires[c.Name] = true
			} else {
				quiet[c.Name] = true
			}
		}
	}
	names := map[string]bool{}
	for _, a := range alerts(t) {
		if names[a.Alert] {
			t.Errorf("%s is there twice", a.Alert)
		}
		names[a.Alert] = true
		if !strings.HasPrefix(a.Alert, "Cairn") || a.For == "" || a.Annotations["summary"] == "" || a.Annotations["description"] == "" {
			t.Errorf("%s lacks something of: a name of Cairn's, for, a summary, a description", a.Alert)
		}
		if !slices.Contains([]string{"critical", "warning", "info"}, a.Labels["severity"]) {
			t.Errorf("%s has the severity %q", a.Alert, a.Labels["severity"])
		}
		if !fires[a.Alert] || !quiet[a.Alert] {
			t.Errorf("alerts_test.yaml does not see %s both quiet and firing", a.Alert)
		}
	}
	for name := range fires {
		if !names[name] {
			t.Errorf("alerts_test.yaml tests %s, which is no alert", name)
		}
	}
}

// TestDashboard reads the dashboard by the types of Grafana, which know every
// field, and looks at what they don't: that panels have room, and that each
// query goes where the variables say.
func TestDashboard(t *testing.T) {
	plugins.RegisterDefaultPlugins()
	var d dashboard.Dashboard
	// The library gives an error without text where nothing is wrong.
	if err := d.UnmarshalJSONStrict([]byte(read(t, "dashboard.json"))); err != nil && err.Error() != "" {
		t.Fatal(err)
	}
	if err := d.Validate(); err != nil && err.Error() != "" {
		t.Fatal(err)
	}
	variables := map[string]bool{}
	for _, v := range d.Templating.List {
		variables[v.Name] = true
	}
	if !variables["datasource"] || !variables["job"] || !variables["instance"] {
		t.Errorf("the dashboard has the variables %v", variables)
	}
	ids, taken := map[int]bool{}, map[[2]int]string{}
	for _, p := range panels(t) {
		if p.ID == 0 || ids[p.ID] {
			t.Errorf("%s has the number of another panel, or none: %d", p.Title, p.ID)
		}
		ids[p.ID] = true
		g := p.GridPos
		if g.W < 1 || g.H < 1 || g.X < 0 || g.Y < 0 || g.X+g.W > 24 {
			t.Errorf("%s is outside of the grid", p.Title)
		}
		for x := g.X; x < g.X+g.W; x++ {
			for y := g.Y; y < g.Y+g.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" {
					t.Fatalf("%s lies on %s", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		if p.Type == "row" {
			continue
		}
		if len(p.Targets) == 0 {
			t.Errorf("%s has no query", p.Title)
		}
		for _, target := range p.Targets {
			if p.Datasource.UID != "${datasource}" || target.Datasource.UID != "${datasource}" {
				t.Errorf("%s asks another source than ${datasource}", p.Title)
			}
			if !strings.Contains(target.Expr, `job="$job", instance=~"$instance"`) {
				t.Errorf("%s asks for more than the variables say: %s", p.Title, target.Expr)
			}
		}
	}
}
