package raftsm

import (
	"context"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cairnkv/cairn/kv"
	"github.com/lni/dragonboat/v4"
)

// TestDepartures walks through the cases of when an entry leaves.
func TestDepartures(t *testing.T) {
	now := time.Now()
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	landed := departures{flying: 1, aboard: 10}
	landed.land(now, ago(3*time.Millisecond), 10, 5)
	few := departures{flying: 1, aboard: 3}
	few.land(now, ago(3*time.Millisecond), 3, 5)
	left := landed
	left.leave(15)
	for _, c := range []struct {
		name          string
		d             departures
		oldest        time.Time
		queued, bytes int
		want          time.Duration
	}{
		{"a lone command", departures{}, now, 1, 10, 0},
		{"many at once, where nothing was", departures{}, now, 100, 10, 0},
		{"few beside few", departures{flying: 2, aboard: crowd - 2}, now, 1, 10, 0},
		{"one beside a crowd", departures{flying: 1, aboard: crowd - 1}, now, 1, 10, longestGather},
		{"one that has waited beside a crowd", departures{flying: 1, aboard: crowd}, ago(longestGather), 1, 10, 0},
		{"a full entry by number", departures{flying: 1, aboard: crowd}, now, maxEntryCommands, 10, 0},
		{"a full entry by bytes", departures{flying: 1, aboard: crowd}, now, 1, maxEntryBytes, 0},
		{"behind a crowd, as long as it has flown", landed, ago(time.Millisecond), 5, 10, 3 * time.Millisecond},
		{"behind a crowd, no longer than any", landed, ago(3 * time.Millisecond), 5, 10, longestGather - 3*time.Millisecond},
		{"behind a crowd that is back", landed, now, 15, 10, 0},
		{"behind few", few, now, 5, 10, 0},
		{"beside those that have gathered", left, now, 1, 10, longestGather},
	} {
		if got := c.d.wait(now, c.oldest, c.queued, c.bytes); got != c.want {
			t.Errorf("%s: waits %v, want %v", c.name, got, c.want)
		}
	}
}

// TestCrowdGathers has clients ask again as soon as they have an answer, which begin at
// different times of the bubble's clock. They come to share entries, whose number is what they cost.
func TestCrowdGathers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const (
			clients = 24
			each    = 50
			flight  = 4 * time.Millisecond
			think   = 300 * time.Microsecond
		)
		l := startProposer(t, time.Minute, func(int) (bool, error) {
			time.Sleep(flight)
			return true, dragonboat.ErrTimeout
		})
		var wg sync.WaitGroup
		for i := range clients {
			wg.Go(func() {
				time.Sleep(time.Duration(i) * flight / clients)
				for j := range each {
					if _, err := l.Propose(context.Background(), put(strconv.Itoa(i*each+j), "")); err != nil {
						t.Error(err)
					}
					time.Sleep(think)
				}
			})
		}
		wg.Wait()
		l.close()
		if got, most := l.proposals(), each*3/2; got > most {
			t.Errorf("%d entries for %d commands of %d clients, want %d at the most", got, clients*each, clients, most)
		}
	})
}

// TestGatherEnds: a command beside a crowd leaves in time though nothing lands, and
// nothing more is proposed.
func TestGatherEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := startProposer(t, time.Minute, func(int) (bool, error) { return true, dragonboat.ErrTimeout })
		l.proposer.mu.Lock()
		l.proposer.mu.departures.leave(crowd) // with an entry that does not land
		l.proposer.mu.Unlock()
		began := time.Now()
		_, _, late := l.proposeAll([]*kv.Command{put("late", "")})
		synctest.Wait()
		if l.proposals() > 0 {
			t.Error("a command beside a crowd left at once")
		}
		late()
		if took := time.Since(began); took != longestGather {
			t.Errorf("it left after %v, want %v", took, longestGather)
		}
		l.close()
	})
}
