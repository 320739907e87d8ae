package httpapi

import (
	"bytes"
	"errors"
	"runtime"

	"github.com/prometheus/common/expfmt"

	"github.com/cairnkv/cairn/api"
)

func (x *exchange) sendText(status int, text string) {
	current, _ := x.s.cfg.Store.Revisions()
	h := x.w.Header()
	h["Cache-Control"] = valueNoStore
	h["X-Content-Type-Options"] = valueNosniff
	x.send(status, valueText, []byte(text), current)
}

// live answers /livez: the process runs and answers. It does not look at the
// cluster, since to restart a node helps no cluster to find a leader.
func (x *exchange) live() {
	if x.refused() {
		return
	}
	x.sendText(200, "ok\n")
}

// ready answers /readyz: this node can serve what needs the cluster.
func (x *exchange) ready() {
	verbose := x.boolParam(pVerbose)
	if x.refused() {
		return
	}
	status, text := 200, "ok\n"
	check := "[+] linearizable-read ok\n"
	if err := x.s.cfg.Store.Ready(); err != nil {
		status, text = 503, "not ready\n"
		check = "[-] linearizable-read failed: " + printable(err.Error()) + "\n"
		x.w.Header()["Retry-After"] = valueOneSecond
	}
	if verbose {
		text = check + text
	}
	x.sendText(status, text)
}

// health answers /health as etcd does.
func (x *exchange) health() {
	if x.refused() {
		return
	}
	current, _ := x.s.cfg.Store.Revisions()
	if err := x.s.cfg.Store.Ready(); err != nil {
		x.w.Header()["Retry-After"] = valueOneSecond
		x.sendValue(503, current, map[string]string{"health": "false", "reason": printable(err.Error())})
		return
	}
	x.sendValue(200, current, map[string]string{"health": "true"})
}

// version answers /version.
func (x *exchange) version() {
	if x.refused() {
		return
	}
	s := x.s.cfg.Store.Status()
	x.sendValue(200, s.Revision, api.Version{
		Version: x.s.cfg.Version, API: "v1", ClusterVersion: s.ClusterVersion, Go: runtime.Version(),
	})
}

// metricsFormat is the oldest text format of Prometheus, to which more can be appended.
var metricsFormat = []string{string(expfmt.NewFormat(expfmt.TypeTextPlain))}

// metrics answers /metrics. It is never refused for what else there is to do, and so
// only a few are read at a time.
func (x *exchange) metrics() {
	if x.refused() {
		return
	}
	text, ok := x.gather()
	if !ok {
		x.shed(shedRequests, maxScrapes, "the metrics are being read by %d requests already", maxScrapes)
		return
	}
	_ = x.reserve(text.Len()) // counted, and never refused
	h := x.w.Header()
	h["Content-Type"], h["Cache-Control"], h["X-Content-Type-Options"] = metricsFormat, valueNoStore, valueNosniff
	x.setNumber("Content-Length", uint64(text.Len()))
	current, _ := x.s.cfg.Store.Revisions()
	x.writeHeader(200, current)
	_ = x.writeBody(text.Bytes()) // an error means that the peer is gone
}

// gather reads the metrics, unless too many others do.
func (x *exchange) gather() (text bytes.Buffer, ok bool) {
	scrapes := &x.s.admission.scrapes
	defer scrapes.Add(-1)
	if scrapes.Add(1) > maxScrapes {
		return text, false
	}
	if g := x.s.cfg.Gatherer; g != nil {
		families, err := g.Gather()
		for _, f := range families {
			_, bad := expfmt.MetricFamilyToText(&text, f)
			err = errors.Join(err, bad)
		}
		if err != nil { // the others are shown
			x.s.cfg.Logger.Error("Some metrics can't be read.", "request_id", x.id(), "error", err)
		}
	}
	if more := x.s.cfg.ExtraMetrics; more != nil {
		more(&text)
	}
	return text, true
}

func (x *exchange) openAPIYAML() {
	if x.refused() {
		return
	}
	current, _ := x.s.cfg.Store.Revisions()
	x.w.Header()["Cache-Control"] = valueNoCache
	x.send(200, valueYAML, x.s.cfg.OpenAPI, current)
}

func (x *exchange) openAPIJSON() {
	if x.refused() {
		return
	}
	current, _ := x.s.cfg.Store.Revisions()
	document, err := x.s.openAPI()
	if err != nil {
		x.s.cfg.Logger.Error("The contract is not YAML.", "error", err)
		x.refuse(api.CodeInternal, "the contract can't be read")
		return
	}
	x.w.Header()["Cache-Control"] = valueNoCache
	x.send(200, valueJSON, document, current)
}

// root answers / with where to go.
func (x *exchange) root() {
	if x.refused() {
		return
	}
	current, _ := x.s.cfg.Store.Revisions()
	x.sendValue(200, current, api.Root{
		Name: "cairn", Version: x.s.cfg.Version, Member: x.s.cfg.MemberID, Cluster: x.s.cfg.ClusterID,
		Links: map[string]string{
			"keys": "/v1/kv", "transactions": "/v1/txn", "history": "/v1/history", "watch": "/v1/watch",
			"leases": "/v1/leases", "services": "/v1/services", "cluster": "/v1/cluster", "status": "/v1/status",
			"contract": "/openapi.yaml", "metrics": "/metrics", "ready": "/readyz",
		},
	})
}
