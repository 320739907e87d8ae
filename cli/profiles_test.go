package cli

import (
	"context"
	"testing"
)

// Whoever isn't on the machine must not get profiles, and port 0 tells nobody where
// they are.
func TestProfilesAreOfTheLoopback(t *testing.T) {
	for _, address := range []string{"0.0.0.0:7490", ":7490", "10.0.0.1:7490", "[::]:7490", "localhost", "127.0.0.1", "127.0.0.1:0"} {
		if end, err := serveProfiles(context.Background(), address); err == nil {
			end()
			t.Errorf("%q was taken", address)
		}
	}
}
