package httpapi_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/cairnkv/cairn/httpapi"
	"github.com/cairnkv/cairn/internal/testkit"
	"github.com/cairnkv/cairn/node"
)

// needsMember finds the commands of a transcript that only a member in memory
// obeys.
var needsMember = regexp.MustCompile(`(?m)^(clock|fail|alarm|grant|expire|ready) `)

// The transcripts hold against a real node too: the log, the linearizable rounds
// and the disk change nothing in what is answered.
func TestTranscriptsOnANode(t *testing.T) {
	if testing.Short() {
		t.Skip("starts nodes")
	}
	paths, err := filepath.Glob("testdata/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	ran := 0
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if needsMember.Match(text) || bytes.Contains(text, []byte("\ngrant\n")) || bytes.Contains(text, []byte("\nexpire\n")) || strings.HasSuffix(path, "server.txt") {
			continue
		}
		ran++
		t.Run(filepath.Base(path), func(t *testing.T) { httpapi.RunTranscript(t, path, startNode(t)) })
	}
	if ran < 5 {
		t.Errorf("only %d transcripts ran", ran)
	}
}

// startNode starts a cluster of one and returns its address.
func startNode(t *testing.T) string {
	t.Helper()
	contract, err := os.ReadFile("../openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	n, err := node.Open(context.Background(), node.Config{
		DataDir: filepath.Join(t.TempDir(), "node"), Listen: "127.0.0.1:0", PeerAdvertise: freeAddress(t),
		OpenAPI: contract, Version: "0.0.0-test", Fatal: func(err error) { t.Error(err) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return strings.TrimPrefix(n.URL(), "http://")
}

var freeAddress = testkit.FreeAddress
