package raftsm

import (
	"testing"
	"time"

	"github.com/lni/dragonboat/v4/raftio"
	"github.com/lni/goutils/netutil/facebookgo/clock"
)

// aheadClock is a wall clock that is an hour ahead.
type aheadClock struct{ clock.Clock }

func (c aheadClock) Now() time.Time { return c.Clock.Now().Add(time.Hour) }

// TestClockSetBackBarsNobody has the way to a peer barred while the wall clock is an hour
// ahead, and sets the clock right. The way is open again long before the hour is over.
func TestClockSetBackBarsNobody(t *testing.T) {
	t.Parallel()
	m := lone(t)
	m.open(t)
	const peer = "127.0.0.1:9"
	bar := m.host.breakers.of(peer)
	right := bar.Clock
	bar.Clock = aheadClock{right}
	bar.Fail()
	bar.Clock = right
	if bar.Ready() {
		t.Fatal("nothing is barred")
	}
	unloads{h: m.host}.ConnectionFailed(raftio.ConnectionInfo{Address: peer})
	eventually(t, "the way is open", bar.Ready)
}
