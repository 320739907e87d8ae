package backup

import (
	"bytes"
	"context"
	"io"
	"testing"
	"testing/synctest"
	"time"
)

// slow is a file that comes by a slow network. It counts the time that it took.
type slow struct {
	io.Reader
	took time.Duration
}

func (s *slow) Read(p []byte) (int, error) {
	time.Sleep(time.Second) // of a synctest's clock
	s.took += time.Second
	return s.Reader.Read(p)
}

// TestVerifyDoesNotPauseForWaiting: only what is work is paused for.
func TestVerifyDoesNotPauseForWaiting(t *testing.T) {
	file, info := saved(t, filled(t, 100))
	synctest.Test(t, func(t *testing.T) {
		began, r := time.Now(), &slow{Reader: bytes.NewReader(file)}
		got, err := VerifyBeside(context.Background(), r, Background)
		must(t, err)
		if took := time.Since(began); took != r.took || got.SHA256 != info.SHA256 {
			t.Errorf("it took %v, and the file %v", took, r.took)
		}
	})
}
