package raftsm

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/cairnkv/cairn/kv"
	"github.com/cairnkv/cairn/storage"
	"github.com/lni/dragonboat/v4"
	"github.com/oklog/ulid/v2"
)

const (
	// maxEntryBytes and maxEntryCommands bound what is put into one Raft entry.
	// One command may be larger than the first.
	maxEntryBytes    = 1 << 20
	maxEntryCommands = 512
	// flights is how many entries are under way at once. While one is being
	// synced the next fills; more would only make smaller ones.
	flights = 4
	// maxQueueWrites and maxQueueBytes bound what waits for a flight. Beyond, a
	// command is refused at once with kv.Busy. The first is what a few rounds of the
	// flights can take, a fraction of a second: as many clients as that may write
	// at the same moment, and a longer queue would only make everything late.
	maxQueueWrites = 4 * flights * maxEntryCommands
	maxQueueBytes  = 128 << 20
	// maxQueueCommands is the bound of what keeps leases and the cluster alive,
	// for which there must be room when writes have filled theirs.
	maxQueueCommands = 16_384
	// longQueueBytes is more than the flights that go next can take. A queue that
	// is longer, and whose first command has waited for longQueueAfter, is one
	// that the disks don't keep up with.
	longQueueBytes = flights * maxEntryBytes
	longQueueAfter = time.Second
)

const (
	// tryFor is how long the first proposal is waited for on a follower before the
	// entry is proposed again, the second twice as long: what it forwarded is lost
	// without a word when the connection breaks, or the leader dies. An election ends
	// the wait earlier. Where replication is slow, each further proposal makes it
	// slower, by the whole entry once more.
	tryFor = 1500 * time.Millisecond
	// retryPause is the pause before another try, while there is no leader.
	retryPause = 20 * time.Millisecond
	// patrolEvery is how often is looked for commands that wait in vain.
	patrolEvery = 250 * time.Millisecond
	// answerGrace is how long after the deadline of a command its answer may come.
	answerGrace = time.Second
)

// pending is a command that waits for its result.
type pending struct {
	encoded  []byte
	deadline time.Time
	ctx      context.Context // of the caller
	result   *kv.Result
	err      error
	done     chan struct{} // one token when result or err is set
}

// proposer queues commands and flies them through the log.
type proposer struct {
	incarnation ulid.ULID
	timeout     time.Duration
	// longAfter is longQueueAfter, but for tests.
	longAfter time.Duration
	// propose hands an entry to Dragonboat.
	propose func(entry []byte, timeout time.Duration) (*dragonboat.RequestState, error)
	// elected returns a channel that is closed at the next election.
	elected func() <-chan struct{}
	// leads reports whether this replica leads, led whether it knows of a leader.
	leads, led func() bool
	// replicated is told of each entry that is applied here; see Timings.
	replicated func(commands int, took time.Duration)

	quit chan struct{} // closed by close
	wg   sync.WaitGroup
	// idle are values of pending for later commands.
	idle sync.Pool
	// gathered wakes a flight when what is queued has waited long enough.
	gathered *time.Timer

	mu struct {
		sync.Mutex
		work       sync.Cond // an entry may leave, or closed
		queue      []*pending
		bytes      int
		closed     bool
		seq        uint64
		departures departures
		// flying are the entries whose results are awaited, by number.
		flying map[uint64]*flight
	}
}

// flight is one Raft entry on its way.
type flight struct {
	seq      uint64
	deadline time.Time // of the oldest command
	left     time.Time
	count    int // commands
	// commands are those that wait, nil where the patrol has let one go.
	commands []*pending
	entry    []byte // has the commands once encoded is set
	encoded  bool
	// landed says that the machine delivered the results. Guarded by the
	// proposer's mutex.
	landed bool
}

func newProposer(incarnation ulid.ULID, timeout time.Duration) *proposer {
	p := &proposer{incarnation: incarnation, timeout: timeout, longAfter: longQueueAfter, quit: make(chan struct{}), elected: never}
	p.leads, p.led = func() bool { return false }, func() bool { return true }
	p.replicated = func(int, time.Duration) {}
	p.idle.New = func() any { return &pending{done: make(chan struct{}, 1)} }
	p.mu.work.L = &p.mu.Mutex
	p.mu.flying = map[uint64]*flight{}
	p.gathered = time.AfterFunc(longestGather, p.wake)
	p.gathered.Stop()
	return p
}

// never is the elections of a log that has none.
func never() <-chan struct{} { return nil }

// start starts the flights and the patrol; close ends them.
func (p *proposer) start() {
	p.wg.Go(p.patrol)
	for range flights {
		p.wg.Go(p.fly)
	}
}

// Propose implements Shard.Propose.
func (p *proposer) Propose(ctx context.Context, c *kv.Command) (*kv.Result, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	w := p.idle.Get().(*pending)
	w.encoded = kv.AppendCommand(w.encoded[:0], c)
	if err := kv.CheckEncoded(w.encoded); err != nil {
		return nil, err // the buffer is too large to be kept
	}
	now := time.Now()
	w.deadline = now.Add(p.timeout)
	w.result, w.err = nil, nil

	p.mu.Lock()
	if err := p.full(c.Kind, len(w.encoded)); err != nil {
		p.mu.Unlock()
		p.idle.Put(w)
		return nil, err
	}
	w.ctx = ctx
	p.mu.queue = append(p.mu.queue, w)
	p.mu.bytes += len(w.encoded)
	// Where the entry waits for company, a flight has set the timer when the first came.
	if len(p.mu.queue) == 1 || p.gathering(now) == 0 {
		p.mu.work.Signal()
	}
	p.mu.Unlock()

	<-w.done // the patrol sees to it that it comes
	result, err := w.result, w.err
	w.result, w.ctx = nil, nil
	if cap(w.encoded) <= maxPooledBytes {
		p.idle.Put(w)
	}
	return result, err
}

// waiting is how many commands no flight has taken.
func (p *proposer) waiting() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.mu.queue)
}

// room is why a transaction of so many bytes can't be queued now, or nil.
func (p *proposer) room(bytes int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.full(kv.KindTxn, bytes)
}

// full is why a command can't be queued now, or nil. The mutex is held.
func (p *proposer) full(kind kv.Kind, size int) error {
	queued := len(p.mu.queue)
	switch {
	case p.mu.closed:
		return kv.Errorf(kv.ShuttingDown, "this node is shutting down")
	case queued < maxQueueWrites && p.mu.bytes+size <= longQueueBytes:
		return nil
	case vital(kind) && queued < maxQueueCommands:
		return nil
	case queued >= maxQueueWrites, p.mu.bytes+size > maxQueueBytes,
		queued > 0 && time.Since(p.mu.queue[0].deadline.Add(-p.timeout)) > p.longAfter:
		return p.tooMany()
	}
	return nil
}

// tooMany says why writes wait for too long: where there is no leader, another node may
// know one, and to wait here is no use.
func (p *proposer) tooMany() error {
	if !p.led() {
		return &kv.Error{Code: kv.NoLeader, Detail: "no leader is known, and more writes wait than this node could replicate in time; nothing was applied", RetryAfterSeconds: 1}
	}
	return &kv.Error{Code: kv.Busy, Detail: "more writes wait on this node than it can replicate in time", RetryAfterSeconds: 1}
}

// vital reports whether commands of a kind keep leases or the cluster alive.
func vital(kind kv.Kind) bool {
	return kind != kv.KindTxn && kind != kv.KindCompact && kind != kv.KindLeaseGrant && kind != kv.KindLeaseRevoke
}

// maxPooledBytes bounds the buffers that are kept for later commands.
const maxPooledBytes = 64 << 10

// fly takes what waits and replicates it, again and again.
func (p *proposer) fly() {
	var entry []byte
	for {
		f := p.take()
		if f == nil {
			return
		}
		f.entry = appendEntry(entry[:0], p.incarnation, f.seq, f.commands)
		if cap(f.entry) <= 2*maxEntryBytes {
			entry = f.entry
		}
		p.mu.Lock()
		f.encoded = true
		p.mu.Unlock()
		p.replicate(f)
	}
}

// take waits for commands and returns a flight with as many as fit, or nil once
// the proposer is closed and nothing is left.
func (p *proposer) take() *flight {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		p.dropLate()
		if len(p.mu.queue) > 0 && !p.tooFar() {
			wait := p.gathering(time.Now())
			if wait == 0 {
				break
			}
			p.gathered.Reset(wait)
		} else if p.mu.closed {
			return nil
		}
		p.mu.work.Wait()
	}
	n, size := 0, 0
	for n < len(p.mu.queue) && n < maxEntryCommands {
		size += len(p.mu.queue[n].encoded)
		if n > 0 && size > maxEntryBytes {
			size -= len(p.mu.queue[n].encoded)
			break
		}
		n++
	}
	f := &flight{commands: append(make([]*pending, 0, n), p.mu.queue[:n]...), deadline: p.mu.queue[0].deadline, left: time.Now(), count: n}
	p.unqueue(n, size)
	p.mu.departures.leave(n)
	if len(p.mu.queue) > 0 {
		p.mu.work.Signal()
	}
	p.mu.seq++
	f.seq = p.mu.seq
	p.mu.flying[f.seq] = f
	return f
}

// wake has a flight look whether it may leave now. A flight that has set the timer holds
// the mutex until it waits.
func (p *proposer) wake() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.work.Signal()
}

// gathering is how long the entry that leaves next waits for more commands. The mutex is
// held, and the queue not empty.
func (p *proposer) gathering(now time.Time) time.Duration {
	if p.mu.closed {
		return 0
	}
	queued := p.mu.queue[0].deadline.Add(-p.timeout)
	return p.mu.departures.wait(now, queued, len(p.mu.queue), p.mu.bytes)
}

// tooFar reports whether another entry would be so far ahead of one that is still in
// the air that the state machine would not know that one any more, and refuse it as a
// repetition. Those behind an entry that was lost on its way to the leader get
// there. The mutex is held.
func (p *proposer) tooFar() bool {
	for seq := range p.mu.flying {
		if p.mu.seq+1-seq >= storage.WindowEntries {
			return true
		}
	}
	return false
}

// dropLate refuses what has waited for more than half of its time. It would be
// replicated, and its client most probably told that nobody knows, or be gone: work
// that helps nobody, while those behind it become late as well. The mutex is held.
func (p *proposer) dropLate() {
	if len(p.mu.queue) == 0 {
		return
	}
	from := time.Now().Add(p.timeout / 2)
	n, size := 0, 0
	for ; n < len(p.mu.queue) && p.mu.queue[n].deadline.Before(from); n++ {
		w := p.mu.queue[n]
		size += len(w.encoded)
		w.err = p.tooMany()
		w.done <- struct{}{}
	}
	if n > 0 {
		p.unqueue(n, size)
	}
}

// unqueue removes the first n commands, which have so many bytes.
func (p *proposer) unqueue(n, size int) {
	rest := copy(p.mu.queue, p.mu.queue[n:])
	clear(p.mu.queue[rest:])
	p.mu.queue = p.mu.queue[:rest]
	p.mu.bytes -= size
}

// replicate proposes an entry until its results are here or its deadline is
// over. Proposing again is safe, since the machine applies each number once.
func (p *proposer) replicate(f *flight) {
	unknown := false
	var last error
	wait := tryFor
	for left := time.Until(f.deadline); left > 0; left = time.Until(f.deadline) {
		err := p.try(f.entry, left, wait)
		if err == nil {
			p.applied(f)
			return
		}
		last, unknown = err, unknown || !refused(err)
		if p.hasLanded(f) || errors.Is(err, dragonboat.ErrPayloadTooBig) {
			break
		}
		switch {
		case errors.Is(err, errElection):
			continue
		case errors.Is(err, errNoAnswer):
			wait *= 2
		}
		select {
		case <-time.After(retryPause):
		case <-p.quit:
			p.land(f, p.unanswered(unknown, nil))
			return
		}
	}
	p.land(f, p.unanswered(unknown, last))
}

// Why nobody knows what became of a proposal.
var (
	// errElection: what was sent to the leader before is lost if that one is dead. The
	// result may still come, from either proposal.
	errElection = errors.New("another leader was elected")
	errNoAnswer = errors.New("the log gave no answer in time, or was stopped")
)

// try proposes an entry once, and returns nil if it was applied. A follower waits for that
// no longer than wait.
func (p *proposer) try(entry []byte, left, wait time.Duration) error {
	elected := p.elected()
	if p.leads() {
		// It goes into the log of this replica, and is not lost from there but by
		// an election.
		wait = left
	}
	rs, err := p.propose(entry, min(left, wait))
	if err != nil {
		return err
	}
	select {
	case outcome := <-rs.ResultC():
		rs.Release()
		switch {
		case outcome.Completed():
			return nil
		case outcome.Dropped():
			return dragonboat.ErrShardNotReady
		case outcome.Rejected():
			return dragonboat.ErrRejected
		}
		return errNoAnswer
	case <-elected:
		return errElection
	}
}

// applied ends the flight of an entry that was applied. Its results were delivered before
// that. If they were not, the entry was applied inside a snapshot that took the state's
// place, and nobody here knows what it gave.
func (p *proposer) applied(f *flight) {
	if left := p.end(f); len(left) > 0 {
		fail(left, kv.Errorf(kv.OutcomeUnknown, "the write may be applied, but its result is not known on this node; read to see"))
	}
}

// unanswered is the error of commands that got no result in time.
func (p *proposer) unanswered(unknown bool, last error) error {
	switch {
	case unknown:
		return kv.Errorf(kv.OutcomeUnknown, "the write was not confirmed in time; it may or may not be applied")
	case last == nil:
		select {
		case <-p.quit:
			return kv.Errorf(kv.ShuttingDown, "this node is shutting down")
		default:
			return &kv.Error{Code: kv.NoLeader, Detail: "the write waited too long for its turn; nothing was applied", RetryAfterSeconds: 1}
		}
	}
	return notApplied(last)
}

func (p *proposer) hasLanded(f *flight) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return f.landed
}

// awaits reports whether anybody waits for the result of the i-th command of an entry that
// was proposed here. Whoever does not is gone for good. The machine calls it.
func (p *proposer) awaits(seq uint64, i int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	f := p.mu.flying[seq]
	return f != nil && i < len(f.commands) && f.commands[i] != nil
}

// deliver gives an entry's results to the commands that wait for them. The
// machine calls it.
func (p *proposer) deliver(seq uint64, results []*kv.Result) {
	p.mu.Lock()
	f := p.mu.flying[seq]
	if f == nil || f.landed {
		p.mu.Unlock()
		return
	}
	p.landed(f)
	commands := f.commands
	f.commands = nil // theirs again, as soon as they are told
	p.mu.Unlock()
	p.replicated(len(commands), time.Since(f.deadline.Add(-p.timeout)))
	for i, w := range commands {
		if w != nil {
			if w.result = results[i]; w.result == nil {
				w.err = kv.Errorf(kv.OutcomeUnknown, "the command was applied, or refused, and this node had no memory for its answer")
			}
			w.done <- struct{}{}
		}
	}
}

// land ends a flight. Commands whose results didn't come get err.
func (p *proposer) land(f *flight, err error) { fail(p.end(f), err) }

// end ends a flight and returns the commands whose results didn't come.
func (p *proposer) end(f *flight) []*pending {
	p.mu.Lock()
	defer p.mu.Unlock()
	far := p.tooFar()
	delete(p.mu.flying, f.seq)
	if far {
		p.mu.work.Broadcast()
	}
	if !f.landed {
		p.landed(f)
	}
	commands := f.commands
	f.commands = nil
	return commands
}

// landed notes that an entry is not in the air any more. Its flight looks for the next
// one at once. The mutex is held.
func (p *proposer) landed(f *flight) {
	f.landed = true
	p.mu.departures.land(time.Now(), f.left, f.count, len(p.mu.queue))
}

func fail(commands []*pending, err error) {
	for _, w := range commands {
		if w != nil {
			w.err = err
			w.done <- struct{}{}
		}
	}
}

// patrol lets those go who wait in vain. It is one goroutine that looks now and then,
// so that a command that is applied within milliseconds, as nearly all are, waits for
// its result alone.
func (p *proposer) patrol() {
	tick := time.NewTicker(patrolEvery)
	defer tick.Stop()
	for {
		select {
		case <-p.quit:
			return
		case <-tick.C:
			p.letGo(time.Now())
		}
	}
}

// letGo answers commands whose callers are gone, and those whose time is over where
// nothing else does: while the disk of the log hangs, Dragonboat counts no time and no
// flight comes back.
//
// A command that was taken from the queue was never proposed. One in a flight isn't
// taken back, for it may be in the log; its result goes nowhere.
func (p *proposer) letGo(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dropLate()
	waiting := p.mu.queue[:0]
	for _, w := range p.mu.queue {
		if w.ctx.Err() == nil {
			waiting = append(waiting, w)
			continue
		}
		p.mu.bytes -= len(w.encoded)
		w.err = callerGone()
		w.done <- struct{}{}
	}
	clear(p.mu.queue[len(waiting):])
	p.mu.queue = waiting
	for _, f := range p.mu.flying {
		for i, w := range f.commands {
			switch {
			case w == nil || !f.encoded:
				continue
			case w.ctx.Err() != nil:
				w.err = callerGone()
			case now.Sub(w.deadline) > answerGrace:
				w.err = p.unanswered(true, nil)
			default:
				continue
			}
			f.commands[i] = nil
			w.done <- struct{}{}
		}
	}
}

func callerGone() error {
	return kv.Errorf(kv.OutcomeUnknown, "the request ended before the write did")
}

// close fails what waits and returns when the flights have ended. Entries in
// the air end with Dragonboat's shard, which is stopped before.
func (p *proposer) close() {
	p.mu.Lock()
	p.mu.closed = true
	waiting := p.mu.queue
	p.mu.queue = nil
	p.mu.work.Broadcast()
	p.mu.Unlock()
	p.gathered.Stop()
	close(p.quit)
	for _, w := range waiting {
		w.err = kv.Errorf(kv.ShuttingDown, "this node is shutting down")
		w.done <- struct{}{}
	}
	p.wg.Wait()
}
