package storage

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// Every store that a test opens is closed by it, and a closed store leaves no
// goroutine behind.
func TestMain(m *testing.M) {
	if story := os.Getenv(storyEnv); story != "" {
		os.Exit(liveStory(story))
	}
	goleak.VerifyTestMain(m)
}

// long says that the tests may take hours: CAIRN_LONG=1.
var long = os.Getenv("CAIRN_LONG") != ""
