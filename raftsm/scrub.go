package raftsm

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/cairnkv/cairn/kv"
	"github.com/cairnkv/cairn/storage"
)

const (
	defaultScrubInterval = 10 * time.Second
	// scrubPassPause is how many intervals lie between the end of a pass through
	// the whole store and the next one.
	scrubPassPause = 3
	// scrubStepBytes is how much of the store a step covers: what is pinned for
	// it is let go after seconds.
	scrubStepBytes = 64 << 20
	// scrubBytesPerSecond is the pace of reading it.
	scrubBytesPerSecond = 16 << 20
	// A replica in quarantine looks every quarantinePace whether it leads, to hand
	// that over, and whether nobody does. Once nobody has led for lastResort, it
	// may be the only one left whose log has everything: then it may lead until
	// another one has that as well.
	quarantinePace = 250 * time.Millisecond
	lastResort     = 5 * time.Second
)

// Quarantine says whether a replica's content may be served.
type Quarantine int32

const (
	// Sound: nothing is known against it.
	Sound Quarantine = iota
	// Corrupt: it differs from the majority's. The replica votes and keeps the
	// log, which the store has no part in, but serves nobody, gives its state to
	// nobody, and leads only while nobody else can.
	Corrupt
	// Doubtful: the members' contents differ, and no majority is of one mind.
	// None of them can be trusted.
	Doubtful
)

// Quarantine returns what the replicated alarms say of this replica.
func (s *Shard) Quarantine() Quarantine { return Quarantine(s.quarantine.Load()) }

// lookAtAlarms is called after an alarm was raised or cleared, before anything
// else is answered.
func (s *Shard) lookAtAlarms() {
	it, all, err := s.store.Corrupt(s.replica)
	if err != nil {
		s.cfg.Fatal(fmt.Errorf("raftsm: read the alarms: %w", err))
		return
	}
	now := Sound
	switch {
	case it:
		now = Corrupt
	case all:
		now = Doubtful
	}
	was := s.setQuarantine(now)
	if was == now {
		return
	}
	log := s.cfg.Logger
	switch now {
	case Corrupt:
		log.Error("This member's content differs from the majority's. It serves nobody any more. Keep its directory for the investigation, and replace it.", "replica", s.replica)
	case Doubtful:
		log.Error("The members' contents differ, and no majority is of one mind. Nothing is served until an operator decides which is right.", "replica", s.replica)
	default:
		log.Warn("The alarm of this member's content was cleared. It serves again.", "replica", s.replica)
	}
	s.scrubber.wake()
}

// setQuarantine changes the quarantine, and returns what it was.
func (s *Shard) setQuarantine(now Quarantine) (was Quarantine) {
	s.quarantine.Lock()
	defer s.quarantine.Unlock()
	was = Quarantine(s.quarantine.Swap(int32(now)))
	s.host.transport.Quarantine(now == Corrupt, false)
	return was
}

// mayLead says whether a replica in quarantine may lead all the same. The alarm may have
// been cleared since that was decided: then there is nothing to say.
func (s *Shard) mayLead(lastResort bool) {
	s.quarantine.Lock()
	defer s.quarantine.Unlock()
	if s.Quarantine() == Corrupt {
		s.host.transport.Quarantine(true, lastResort)
	}
}

// scrubber compares what this replica has stored with what the others have. It
// has a goroutine that adds parts up, and one that begins steps while this
// replica leads.
type scrubber struct {
	s      *Shard
	cancel context.CancelFunc
	wg     sync.WaitGroup
	kick   chan struct{} // level trigger, capacity 1
	alarm  chan struct{} // the same, for the other goroutine
	kept   bool          // that one's: the leadership could not be handed over the last time

	mu   sync.Mutex
	part *storage.Scrub // waits to be added up
	// whole says that the last part was the store's last.
	whole bool
}

func newScrubber(s *Shard) *scrubber {
	return &scrubber{s: s, kick: make(chan struct{}, 1), alarm: make(chan struct{}, 1)}
}

func (c *scrubber) start() {
	ctx, cancel := context.WithCancel(context.Background())
	c.cancel = cancel
	for _, run := range []func(context.Context){c.addUp, c.lead} {
		c.wg.Add(1)
		go func() {
			defer c.wg.Done()
			run(ctx)
		}()
	}
}

// stop ends the goroutines.
func (c *scrubber) stop() {
	c.cancel()
	c.wg.Wait()
}

// drop lets go of a part that nobody will add up.
func (c *scrubber) drop() {
	if part := c.next(); part != nil {
		part.Close()
	}
}

// take hands over this replica's part in a step. One that still waits is out of
// date. It never waits itself.
func (c *scrubber) take(part *storage.Scrub) {
	c.mu.Lock()
	old := c.part
	c.part = part
	c.mu.Unlock()
	if old != nil {
		old.Close()
	}
	signal(c.kick)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// wake makes a replica that may not lead look at that at once.
func (c *scrubber) wake() { signal(c.alarm) }

func (c *scrubber) next() *storage.Scrub {
	c.mu.Lock()
	defer c.mu.Unlock()
	part := c.part
	c.part = nil
	return part
}

var errOutOfDate = errors.New("a newer step has begun")

func (c *scrubber) addUp(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.kick:
		}
		part := c.next()
		if part == nil {
			continue
		}
		found, err := part.Sum(func(bytes int) error {
			timer := time.NewTimer(time.Duration(bytes) * time.Second / scrubBytesPerSecond)
			defer timer.Stop()
			select {
			case <-timer.C:
			case <-ctx.Done():
				return ctx.Err()
			}
			c.mu.Lock()
			defer c.mu.Unlock()
			if c.part != nil {
				return errOutOfDate
			}
			return nil
		})
		votes := slices.Contains(part.Members, c.s.replica)
		part.Close()
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, errOutOfDate):
			continue
		case err != nil:
			// What is on the disk is not what was written, and is not readable.
			c.s.cfg.Fatal(fmt.Errorf("raftsm: reading all of the store: %w", err))
			return
		}
		c.mu.Lock()
		c.whole = len(found.Next) == 0
		c.mu.Unlock()
		found.Replica = c.s.replica
		if !votes {
			c.compare(ctx, &found)
			continue
		}
		// A find that gets lost is missed by this step alone.
		_, err = c.s.Propose(ctx, &kv.Command{Kind: kv.KindScrubbed, Time: time.Now().UnixMilli(), Scrubbed: found})
		if err != nil && ctx.Err() == nil {
			c.s.cfg.Logger.Debug("the find of a scrub got lost", "err", err)
		}
	}
}

// verdictPace is how often a learner looks what the voters have found.
const verdictPace = 100 * time.Millisecond

// compare compares what this replica, a learner, has found with what the majority of
// the voters says, once it does, and raises the alarm of this replica if they differ. A
// step that is missed is made up for by the next pass.
func (c *scrubber) compare(ctx context.Context, found *kv.Scrubbed) {
	ticker := time.NewTicker(verdictPace)
	defer ticker.Stop()
	for {
		right, over, err := c.s.store.ScrubVerdict(found.Step)
		switch {
		case err != nil || over:
			return
		case right != nil && storage.SameScrub(right, found):
			return
		case right != nil:
			alarm := kv.Alarm{Replica: c.s.replica, Type: kv.AlarmCorrupt, Active: true}
			_, err := c.s.Propose(ctx, &kv.Command{Kind: kv.KindAlarm, Time: time.Now().UnixMilli(), Alarm: alarm})
			if err == nil || ctx.Err() != nil {
				return
			}
			c.s.cfg.Logger.Warn("the alarm of this member's content was not raised yet", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		c.mu.Lock()
		newer := c.part != nil
		c.mu.Unlock()
		if newer {
			return
		}
	}
}

// lead begins a step each interval while this replica leads, and keeps a replica
// in quarantine from leading.
func (c *scrubber) lead(ctx context.Context) {
	interval := c.s.cfg.ScrubInterval
	timer := time.NewTimer(interval)
	defer timer.Stop()
	var quarantine <-chan time.Time // ticks while there is one
	ticker := time.NewTicker(quarantinePace)
	defer ticker.Stop()
	var leaderless time.Time // since when; zero while somebody leads
	for {
		if c.s.Quarantine() == Corrupt {
			quarantine = ticker.C
		} else {
			quarantine, leaderless = nil, time.Time{}
		}
		select {
		case <-ctx.Done():
			return
		case <-c.alarm:
		case <-quarantine:
			leaderless = c.abstain(ctx, leaderless)
		case <-timer.C:
			c.mu.Lock()
			pause := interval
			if c.whole {
				pause *= scrubPassPause
			}
			c.mu.Unlock()
			timer.Reset(pause)
			if c.s.IsLeader() {
				if err := c.begin(ctx); err != nil && ctx.Err() == nil {
					c.s.cfg.Logger.Debug("a step of a scrub was not begun", "err", err)
				}
			}
		}
	}
}

// abstain hands the leadership over, if this replica has it, and makes it a
// candidate only where nobody else has led for long.
func (c *scrubber) abstain(ctx context.Context, leaderless time.Time) time.Time {
	switch leader, _ := c.s.Leader(); {
	case leader == c.s.replica:
		c.resign(ctx)
		return time.Time{}
	case leader != 0:
		c.s.mayLead(false)
		return time.Time{}
	case leaderless.IsZero():
		return time.Now()
	}
	if time.Since(leaderless) >= lastResort {
		c.s.mayLead(true)
	}
	return leaderless
}

func (c *scrubber) begin(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.s.cfg.Timeout)
	defer cancel()
	m, err := c.s.host.nh.SyncGetShardMembership(ctx, c.s.cfg.Shard)
	if err != nil {
		return err
	}
	members := slices.Sorted(maps.Keys(m.Nodes))
	if len(members)+len(m.NonVotings) < 2 || len(members) > kv.MaxScrubMembers {
		return nil // there is nobody to compare with
	}
	_, err = c.s.Propose(ctx, &kv.Command{
		Kind: kv.KindScrub, Time: time.Now().UnixMilli(), Scrub: kv.Scrub{Members: members, Bytes: scrubStepBytes},
	})
	return err
}

// resign gives the leadership to a member whose content is right. It is tried
// again, if nobody took it.
func (c *scrubber) resign(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, c.s.cfg.Timeout)
	defer cancel()
	err := c.s.HandOver(ctx)
	if err != nil && ctx.Err() == nil && !c.kept {
		c.s.cfg.Logger.Warn("a member in quarantine could not hand over the leadership, and tries it again", "err", err)
	}
	c.kept = err != nil
}
