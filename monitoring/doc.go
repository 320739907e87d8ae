// Package monitoring has no code, but the tests of the files beside it: alerting
// rules for Prometheus, a dashboard for Grafana, and an example of a
// configuration. They are held to the metrics of a real node and, where Debian's
// package prometheus is installed, loaded in the real program.
package monitoring
