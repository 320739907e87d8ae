package monitoring

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cairnkv/cairn/node"
)

// program finds a program of Debian's package prometheus, or skips the test.
func program(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("SKIPPED: no %s on this machine; Debian's package is prometheus", name)
	}
	return path
}

// TestPromtool has promtool check the files and run the tests of the alerts.
func TestPromtool(t *testing.T) {
	promtool := program(t, "promtool")
	for _, args := range [][]string{
		{"check", "config", "prometheus.yml"},
		{"check", "rules", "alerts.yaml"},
		{"test", "rules", "alerts_test.yaml"},
	} {
		out, err := exec.Command(promtool, args...).CombinedOutput()
		if err != nil || !strings.Contains(string(out), "SUCCESS") {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

// A prometheus is a real one that scrapes a node.
type prometheus struct {
	t   testing.TB
	url string
}

var listens = regexp.MustCompile(`Listening on" address=(\S+)`)

func startPrometheus(t testing.TB, n *node.Node) *prometheus {
	t.Helper()
	path := program(t, "prometheus")
	dir := t.TempDir()
	rules, err := filepath.Abs("alerts.yaml")
	must(t, err)
	config := filepath.Join(dir, "prometheus.yml")
	must(t, os.WriteFile(config, fmt.Appendf(nil, `
global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [%s]
scrape_configs:
  - job_name: cairn
    static_configs: [{targets: ["%s"]}]
`, rules, strings.TrimPrefix(n.URL(), "http://")), 0o600))
	logName := filepath.Join(dir, "log")
	log, err := os.Create(logName)
	must(t, err)
	defer log.Close()
	process := exec.Command(path, "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address=127.0.0.1:0")
	process.Stdout, process.Stderr = log, log
	must(t, process.Start())
	t.Cleanup(func() {
		must(t, process.Process.Signal(syscall.SIGTERM))
		if err := process.Wait(); err != nil {
			t.Errorf("prometheus: %v\n%s", err, read(t, logName))
		}
	})
	p := &prometheus{t: t}
	await(t, "Prometheus listens", func() string {
		text := read(t, logName)
		if m := listens.FindStringSubmatch(text); m != nil {
			p.url = "http://" + m[1]
			return ""
		}
		return "its log: " + text
	})
	return p
}

// get asks the API, and returns what it said instead of data.
func (p *prometheus) get(path string, into any) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url+path, nil)
	must(p.t, err)
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	var body struct {
		Status, Error string
		Data          json.RawMessage
	}
	if err := json.NewDecoder(answer.Body).Decode(&body); err != nil {
		return fmt.Errorf("%s: %w", answer.Status, err)
	}
	if body.Status != "success" {
		return fmt.Errorf("%s: %s", answer.Status, body.Error)
	}
	return json.Unmarshal(body.Data, into)
}

// asGrafana fills in the variables as Grafana does.
var asGrafana = strings.NewReplacer("$job", "cairn", "$instance", ".*", "$__rate_interval", "1m")

// TestPrometheus loads the alerts in a real Prometheus that scrapes a real node:
// every rule is evaluated, and every query of the dashboard finds something.
func TestPrometheus(t *testing.T) {
	program(t, "prometheus") // a test that is skipped starts no node
	n := startNode(t)
	p := startPrometheus(t, n)

	await(t, "the node is scraped", func() string {
		var targets struct {
			ActiveTargets []struct{ Health, LastError string }
		}
		if err := p.get("/api/v1/targets", &targets); err != nil {
			return err.Error()
		}
		if len(targets.ActiveTargets) != 1 || targets.ActiveTargets[0].Health != "up" {
			return fmt.Sprint(targets)
		}
		return ""
	})
	want := len(alerts(t))
	await(t, "all rules are evaluated", func() string {
		var rules struct {
			Groups []struct {
				Rules []struct {
					Name, Health, LastError string
					LastEvaluation          time.Time
				}
			}
		}
		if err := p.get("/api/v1/rules", &rules); err != nil {
			return err.Error()
		}
		good := 0
		for _, g := range rules.Groups {
			for _, r := range g.Rules {
				if r.Health == "err" {
					t.Fatalf("%s: %s", r.Name, r.LastError)
				}
				if r.Health == "ok" && !r.LastEvaluation.IsZero() {
					good++
				}
			}
		}
		if good != want {
			return fmt.Sprintf("%d of %d", good, want)
		}
		return ""
	})
	for _, panel := range panels(t) {
		for _, target := range panel.Targets {
			query := asGrafana.Replace(target.Expr)
			await(t, panel.Title+" shows something", func() string {
				// Something to show: a write, and a read.
				request(t, http.MethodPut, n.URL()+"/v1/kv/a", "b")
				request(t, http.MethodGet, n.URL()+"/v1/kv/a", "")
				var found struct{ Result []any }
				if err := p.get("/api/v1/query?query="+url.QueryEscape(query), &found); err != nil {
					t.Fatalf("%s: %s: %v", panel.Title, query, err)
				}
				if len(found.Result) == 0 {
					return query + " finds nothing"
				}
				return ""
			})
		}
	}
}
