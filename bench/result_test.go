package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// comparison is a result of three rounds in which Cairn's second one failed.
func comparison() *result {
	of := func(values ...float64) *sample { return &sample{values: values} }
	return &result{
		profile: "put-9",
		about:   "nine clients",
		columns: []column{
			{name: "ops/s", format: whole, ratio: true},
			{name: "p99 ms", format: three, ratio: true, latency: true},
			{name: "errors", format: whole},
		},
		rows: []row{
			{nameCairn, []*sample{of(30000, 2, 0), nil, of(50000, 4, 0)}},
			{nameGateway, []*sample{of(10000, 4, 0), of(1, 1, 0), of(10000, 4, 1)}},
			{nameGRPC, []*sample{of(20000, 0, 0), of(1, 0, 0), of(20000, 0, 0)}},
		},
		notes: []string{"something"},
	}
}

func TestPrint(t *testing.T) {
	var b strings.Builder
	comparison().print(&b)
	want := `
put-9: nine clients
                               ops/s               p99 ms  errors
cairn                         40,000                 3.00       0
etcd-json                     10,000                 4.00       0
etcd-grpc                     20,000                    0       0
cairn / etcd-json  4.00 [3.00, 5.00]  0.750 [0.500, 1.00]       -
cairn / etcd-grpc  2.00 [1.50, 2.50]                    -       -
! something
`
	if got := b.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// squeeze makes one space of many.
func squeeze(s string) string {
	for strings.Contains(s, "  ") {
		s = strings.ReplaceAll(s, "  ", " ")
	}
	return s
}

func TestPrintWithoutPartner(t *testing.T) {
	r := comparison()
	r.rows = r.rows[1:]
	var b strings.Builder
	r.print(&b)
	printSummary(&b, []*result{r})
	if strings.Contains(b.String(), " / ") {
		t.Errorf("a ratio with a target that was not measured:\n%s", b.String())
	}
}

func TestSummary(t *testing.T) {
	var b strings.Builder
	printSummary(&b, []*result{comparison()})
	got := squeeze(b.String())
	for _, want := range []string{"put-9 4.00 - 0.750 - -\n", "put-9 2.00 - - - -\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("no line %q in\n%s", want, got)
		}
	}
}

func TestBatchedRequestsHaveNoLatencyRatio(t *testing.T) {
	r := comparison()
	r.batched = true
	if s, ok := r.ratio(pairs[0], 1); ok {
		t.Errorf("requests of different sizes are compared: %v", s)
	}
	if _, ok := r.ratio(pairs[0], 0); !ok {
		t.Error("throughput is not compared")
	}
}

func TestMedian(t *testing.T) {
	for _, tt := range []struct {
		values []float64
		want   float64
	}{{[]float64{3}, 3}, {[]float64{9, 1, 2}, 2}, {[]float64{4, 1, 3, 2}, 2.5}} {
		if got, ok := median(tt.values); !ok || got != tt.want {
			t.Errorf("median(%v) = %v, %v; want %v", tt.values, got, ok, tt.want)
		}
	}
	if got, ok := median(nil); ok {
		t.Errorf("median of nothing is %v", got)
	}
}

func TestNumbers(t *testing.T) {
	for _, tt := range []struct {
		format func(float64) string
		value  float64
		want   string
	}{
		{three, 0, "0"}, {three, 0.001234, "0.00123"}, {three, 0.5, "0.500"}, {three, 1, "1.00"},
		{three, 12.34, "12.3"}, {three, 123.4, "123"}, {three, 12345, "12,345"}, {three, -1.5, "-1.50"},
		{whole, 0, "0"}, {whole, 999, "999"}, {whole, 1000, "1,000"}, {whole, 1234567.8, "1,234,568"}, {whole, -123456, "-123,456"},
	} {
		if got := tt.format(tt.value); got != tt.want {
			t.Errorf("%v is shown as %q, want %q", tt.value, got, tt.want)
		}
	}
}

func TestReport(t *testing.T) {
	path := filepath.Join(t.TempDir(), "report.json")
	if err := newReport(time.Now(), settings{Rounds: 3}, []*result{comparison()}).write(path); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var back report
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	p := back.Profiles[0]
	if got := p.Targets[nameCairn]["ops/s"]; len(got) != 2 || got[1] != 50000 {
		t.Errorf("cairn's rounds: %v", got)
	}
	if got := p.Ratios["cairn/etcd-json"]["ops/s"]; got != (ratioReport{4, 3, 5}) {
		t.Errorf("ratio: %+v", got)
	}
}

// One failing measurement is noted and doesn't end the others; the order rotates.
func TestAlternate(t *testing.T) {
	b := &bench{set: settings{Rounds: 3}, progress: &strings.Builder{}}
	r := &result{profile: "p", columns: []column{{name: "ops/s", format: whole}}}
	var order []string
	b.alternate(t.Context(), r, []target{{name: "a"}, {name: "b"}}, func(t target) (sample, error) {
		order = append(order, t.name)
		if len(order) == 4 {
			return sample{}, errors.New("broken")
		}
		return sample{values: []float64{float64(len(order))}}, nil
	})
	if got := strings.Join(order, ""); got != "abbaab" {
		t.Errorf("order %q", got)
	}
	if len(r.notes) != 1 || !failed([]*result{r}) || r.rows[0].samples[1] != nil {
		t.Errorf("notes %q", r.notes)
	}
	if v, ok := r.rows[1].median(0); !ok || v != 3 { // of 2, 3 and 6
		t.Errorf("median %v", v)
	}
}
