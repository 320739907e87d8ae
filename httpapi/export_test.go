package httpapi

import (
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
)

// RunTranscript holds a transcript against a server that runs elsewhere. What
// such a server says in its own words, and its name and clock, is not compared.
func RunTranscript(t *testing.T, path, addr string) {
	transport := &http.Transport{DisableCompression: true}
	defer transport.CloseIdleConnections()
	tr := &transcript{kit: &kit{t: t, addr: addr, scheme: "http", client: &http.Client{
		Transport: &contractRoundTripper{t, loadContract(t), transport},
	}}}
	datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
		tr.t = t
		got := tr.run(d)
		if ownWords.ReplaceAllString(got, "~") == ownWords.ReplaceAllString(strings.TrimPrefix(d.Expected, "----\n"), "~") {
			return d.Expected
		}
		return got
	})
}

var ownWords = regexp.MustCompile(`"detail":"(\\.|[^"\\])*"|"(?:modified_at|since)":"[^"]*"|"remaining_seconds":[0-9.]+|"leader":"[^"]*"|Cairn-Member: \S+|Retry-After: \d+|"retry_after_seconds":\d+`)
