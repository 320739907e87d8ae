package httpapi

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// meters counts requests by route and class of status. Both are known when the
// server is made, so the number of series is fixed, whatever clients send, and a
// request finds its counters without looking for labels.
type meters struct {
	open  prometheus.Gauge
	other *meter // of what is refused before it has a route
}

type meter struct {
	classes [6]prometheus.Counter // by the first digit of the status; 0 is an answer that was broken off
	seconds prometheus.Observer
}

var classNames = [6]string{"aborted", "1xx", "2xx", "3xx", "4xx", "5xx"}

func newMeters(registerer prometheus.Registerer, routes []route) *meters {
	requests := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "cairn_http_requests_total",
		Help: "Requests that were answered, by method, route and class of status.",
	}, []string{"method", "route", "status"})
	seconds := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "cairn_http_request_seconds",
		Help:    "Time from the headers of a request to the end of its answer.",
		Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
	}, []string{"method", "route"})
	m := &meters{open: prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "cairn_http_connections",
		Help: "Open connections of clients.",
	})}
	make1 := func(method, pattern string) *meter {
		r := &meter{seconds: seconds.WithLabelValues(method, pattern)}
		for class, name := range classNames {
			r.classes[class] = requests.WithLabelValues(method, pattern, name)
		}
		return r
	}
	for i := range routes {
		routes[i].meter = make1(routes[i].method, routes[i].pattern)
	}
	m.other = make1("other", "none")
	if registerer != nil {
		registerer.MustRegister(requests, seconds, m.open)
	}
	return m
}

func (m *meters) connections(open int64) { m.open.Set(float64(open)) }

func (m *meters) observe(rt *route, status int, took time.Duration) {
	r := m.other
	if rt != nil {
		r = rt.meter
	}
	class := status / 100
	if class >= len(r.classes) {
		class = 0
	}
	r.classes[class].Inc()
	r.seconds.Observe(took.Seconds())
}
