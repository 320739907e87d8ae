package testkit

import (
	"net"
	"os/exec"
	"sync"
	"testing"
)

// TestPortsBesideForks: whoever is given a port can listen there at once, whatever
// processes are started meanwhile.
func TestPortsBesideForks(t *testing.T) {
	done := make(chan struct{})
	var forks sync.WaitGroup
	for range 4 {
		forks.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					_ = exec.Command("/nothing/is/here").Run() // forks, and can't go on
				}
			}
		})
	}
	for range 200 {
		l, err := net.Listen("tcp", FreeAddress(t))
		if err != nil {
			t.Error(err)
			break
		}
		l.Close()
	}
	close(done)
	forks.Wait()
}
