package raftsm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cairnkv/cairn/kv"
	"github.com/cairnkv/cairn/storage"
	"github.com/lni/dragonboat/v4"
)

// fakeLog takes the place of Dragonboat below a proposer. It applies an entry,
// or does not, and gives an error in any case: that is what a proposer sees
// whose requests always end too early.
type fakeLog struct {
	*proposer
	// answer decides what becomes of an entry, n-th of the log.
	answer func(n int) (apply bool, err error)

	mu      sync.Mutex
	seen    int
	entries []entryReader
	// awaited are the keys of the commands that were waited for when they were applied.
	awaited []string
}

func startProposer(t *testing.T, timeout time.Duration, answer func(n int) (apply bool, err error)) *fakeLog {
	l := &fakeLog{proposer: newProposer(incarnation("p1"), timeout), answer: answer}
	l.propose = l.receive
	l.start()
	t.Cleanup(func() {
		if !l.closed() {
			l.close()
		}
	})
	return l
}

func (l *fakeLog) closed() bool {
	l.proposer.mu.Lock()
	defer l.proposer.mu.Unlock()
	return l.proposer.mu.closed
}

func (l *fakeLog) receive(entry []byte, _ time.Duration) (*dragonboat.RequestState, error) {
	l.mu.Lock()
	l.seen++
	n := l.seen
	l.mu.Unlock()
	apply, err := l.answer(n)
	if apply {
		r, bad := openEntry(uint64(n), bytes.Clone(entry))
		if bad != nil {
			panic(bad)
		}
		l.mu.Lock()
		l.entries = append(l.entries, r)
		l.mu.Unlock()
		var results []*kv.Result
		for i := range r.count {
			c, bad := r.next()
			if bad != nil {
				panic(bad)
			}
			// The result tells which command it belongs to.
			result := &kv.Result{Revision: uint64(i)}
			if c.Txn != nil {
				result.Detail = string(c.Txn.Then[0].Key)
			}
			results = append(results, result)
			if l.awaits(r.seq, i) {
				l.mu.Lock()
				l.awaited = append(l.awaited, result.Detail)
				l.mu.Unlock()
			}
		}
		l.deliver(r.seq, results)
		if l.awaits(r.seq, 0) {
			panic("a result is awaited that was delivered")
		}
	}
	return nil, err
}

func (l *fakeLog) proposals() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.seen
}

// asleep keeps every entry until wake is closed.
func asleep(t *testing.T) (answer func(int) (bool, error), wake func()) {
	gate := make(chan struct{})
	wake = sync.OnceFunc(func() { close(gate) })
	t.Cleanup(wake)
	return func(int) (bool, error) {
		<-gate
		return true, dragonboat.ErrTimeout
	}, wake
}

// proposeAll proposes the commands at once and returns what each got.
func (l *fakeLog) proposeAll(commands []*kv.Command) (results []*kv.Result, errs []error, wait func()) {
	var wg sync.WaitGroup
	results, errs = make([]*kv.Result, len(commands)), make([]error, len(commands))
	for i, c := range commands {
		wg.Go(func() { results[i], errs[i] = l.Propose(context.Background(), c) })
	}
	return results, errs, wg.Wait
}

// occupy sends every flight away with a lone command.
func (l *fakeLog) occupy(t *testing.T) (wait func()) {
	var waits []func()
	for i := range flights {
		_, _, wait := l.proposeAll([]*kv.Command{put("lone", "")})
		waits = append(waits, wait)
		eventually(t, "a lone command leaves at once", func() bool { return l.proposals() == i+1 })
	}
	return func() {
		for _, wait := range waits {
			wait()
		}
	}
}

// TestEntriesStayApart: while an entry is on its way, none is proposed that would push
// its number out of what the state machine remembers.
func TestEntriesStayApart(t *testing.T) {
	gate := make(chan struct{})
	l := startProposer(t, time.Minute, func(n int) (bool, error) {
		if n == 1 {
			<-gate
		}
		return true, dragonboat.ErrTimeout
	})
	var timed atomic.Int64
	l.replicated = func(commands int, _ time.Duration) { timed.Add(int64(commands)) }
	_, firstErr, first := l.proposeAll([]*kv.Command{put("first", "")})
	eventually(t, "the first entry is away", func() bool { return l.proposals() == 1 })
	for range storage.WindowEntries - 1 {
		if _, err := l.Propose(t.Context(), put("k", "")); err != nil {
			t.Fatal(err)
		}
	}
	_, restErrs, rest := l.proposeAll([]*kv.Command{put("a", ""), put("b", ""), put("c", "")})
	eventually(t, "the others wait", func() bool { return l.waiting() == 3 || l.proposals() > storage.WindowEntries })
	close(gate)
	first()
	rest()
	if err := errors.Join(append(restErrs, firstErr...)...); err != nil {
		t.Fatal(err)
	}
	highest := uint64(0)
	for _, e := range l.entries {
		if highest = max(highest, e.seq); highest-e.seq >= storage.WindowEntries {
			t.Errorf("entry %d came behind %d", e.seq, highest)
		}
	}
	if n := timed.Load(); n != storage.WindowEntries+3 {
		t.Errorf("%d commands were timed", n)
	}
}

// TestCoalescing lets a thousand commands wait while all flights are away. They
// leave in as few entries as the limit allows, and each gets its own result.
func TestCoalescing(t *testing.T) {
	answer, wake := asleep(t)
	l := startProposer(t, patience, answer)
	lone := l.occupy(t)
	var commands []*kv.Command
	for i := range 1000 {
		commands = append(commands, put("k"+strconv.Itoa(i), "v"))
	}
	results, errs, wait := l.proposeAll(commands)
	eventually(t, "all wait", func() bool { return l.waiting() == len(commands) })
	wake()
	wait()
	lone()
	for i := range results {
		must(t, errs[i])
		if want := "k" + strconv.Itoa(i); results[i].Detail != want {
			t.Fatalf("the command for %s got the result for %s", want, results[i].Detail)
		}
	}
	if want := flights + 2; l.proposals() != want {
		t.Errorf("%d entries for %d lone and 1000 waiting commands, want %d", l.proposals(), flights, want)
	}
	for _, e := range l.entries {
		if e.count > maxEntryCommands {
			t.Errorf("%d commands in one entry", e.count)
		}
	}
}

// TestEntrySize puts large commands into entries of the allowed size, and one
// that is larger alone into its own.
func TestEntrySize(t *testing.T) {
	answer, wake := asleep(t)
	l := startProposer(t, patience, answer)
	lone := l.occupy(t)
	var waits []func()
	sizes := []int{300 << 10, 300 << 10, 300 << 10, 300 << 10, maxEntryBytes, 10}
	for i, size := range sizes {
		_, _, wait := l.proposeAll([]*kv.Command{put("k", string(make([]byte, size)))})
		waits = append(waits, wait)
		eventually(t, "it waits", func() bool { return l.waiting() == i+1 })
	}
	wake()
	for _, wait := range append(waits, lone) {
		wait()
	}
	counts := map[int]int{}
	for _, e := range l.entries {
		counts[e.count]++
	}
	// 3 of 300 KiB; the fourth; the large one; the small one. The fourth doesn't
	// fit before the large one, the small one not behind it.
	if len(l.entries) != flights+4 || counts[3] != 1 || counts[1] != flights+3 {
		t.Errorf("entries by their number of commands: %v", counts)
	}
}

// TestQueueLimits fills the queue by number and by bytes: what comes then is
// refused at once, what waits is not.
func TestQueueLimits(t *testing.T) {
	for _, c := range []struct {
		name      string
		n, size   int
		longAfter time.Duration
	}{
		{"by number", maxQueueWrites, 0, patience},
		{"by bytes", maxQueueBytes / maxEntryBytes, maxEntryBytes - 100, patience},
		{"by bytes and time", longQueueBytes / maxEntryBytes, maxEntryBytes - 100, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			answer, wake := asleep(t)
			l := startProposer(t, patience, answer)
			l.longAfter = c.longAfter
			lone := l.occupy(t)
			command := put("k", string(make([]byte, c.size)))
			commands := make([]*kv.Command, c.n)
			for i := range commands {
				commands[i] = command
			}
			_, errs, wait := l.proposeAll(commands)
			eventually(t, "the queue is full", func() bool { return l.waiting() == c.n })
			_, err := l.Propose(context.Background(), command)
			wantCode(t, err, kv.Busy)
			wantCode(t, l.room(c.size), kv.Busy)
			// There is room for what keeps leases alive.
			_, vital, renewed := l.proposeAll([]*kv.Command{{Kind: kv.KindLeaseRenew, Renew: []kv.LeaseID{{1}}}})
			eventually(t, "the renewal is queued", func() bool { return l.waiting() == c.n+1 })
			wake()
			wait()
			lone()
			renewed()
			must(t, errors.Join(append(errs, vital...)...))
			must(t, l.room(c.size))
			_, err = l.Propose(context.Background(), command)
			must(t, err)
		})
	}
}

// TestLateWrites keeps the log busy for longer than half of the time that writes
// have. Those that waited so long are refused and never proposed: a client that is
// told that nothing was applied can count on it, and the others are on time. Where no
// leader is known they are told that, so that they ask another node.
func TestLateWrites(t *testing.T) {
	for led, want := range map[bool]kv.Code{true: kv.Busy, false: kv.NoLeader} {
		t.Run(fmt.Sprintf("led-%v", led), func(t *testing.T) {
			answer, wake := asleep(t)
			l := startProposer(t, patience, answer)
			l.led = func() bool { return led }
			lone := l.occupy(t)
			_, late, wait := l.proposeAll([]*kv.Command{put("late", "v"), put("late", "v"), put("late", "v")})
			eventually(t, "three writes wait", func() bool { return l.waiting() == 3 })
			l.proposer.mu.Lock()
			for _, w := range l.proposer.mu.queue {
				w.deadline = w.deadline.Add(-patience * 3 / 4) // as if they had waited for so long
			}
			l.proposer.mu.Unlock()
			_, early, waitEarly := l.proposeAll([]*kv.Command{put("early", "v")})
			eventually(t, "another one waits", func() bool { return l.waiting() == 4 })
			wake()
			wait()
			waitEarly()
			lone()
			must(t, errors.Join(early...))
			for _, err := range late {
				wantCode(t, err, want)
			}
			l.mu.Lock()
			defer l.mu.Unlock()
			if got := len(l.entries); got != flights+1 {
				t.Errorf("%d entries were proposed, want those of the %d flights and one of the early write", got, flights)
			}
			for _, e := range l.entries {
				if e.count != 1 {
					t.Errorf("an entry has %d commands: late ones are in it", e.count)
				}
			}
		})
	}
}

// TestRefusals tells the errors apart that are left when the deadline is over.
func TestRefusals(t *testing.T) {
	always := func(errs ...error) func(int) (bool, error) {
		return func(n int) (bool, error) { return false, errs[min(n, len(errs))-1] }
	}
	for _, c := range []struct {
		name   string
		answer func(int) (bool, error)
		want   kv.Code
	}{
		{"no leader", always(dragonboat.ErrShardNotReady), kv.NoLeader},
		{"busy", always(dragonboat.ErrSystemBusy), kv.Busy},
		{"too large", always(dragonboat.ErrPayloadTooBig), kv.TransactionTooLarge},
		{"closed under it", always(dragonboat.ErrShardClosed), kv.OutcomeUnknown},
		{"lost once, then refused", always(dragonboat.ErrTimeout, dragonboat.ErrShardNotReady), kv.OutcomeUnknown},
		{"refused, then lost", always(dragonboat.ErrSystemBusy, dragonboat.ErrTimeout), kv.OutcomeUnknown},
		{"lost once, then too large", always(dragonboat.ErrTimeout, dragonboat.ErrPayloadTooBig), kv.OutcomeUnknown},
		{"refused, then applied", func(n int) (bool, error) { return n == 3, dragonboat.ErrSystemBusy }, kv.OK},
		{"lost, then applied", func(n int) (bool, error) { return n == 3, dragonboat.ErrTimeout }, kv.OK},
		{"applied, and applied again", func(n int) (bool, error) { return true, dragonboat.ErrTimeout }, kv.OK},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel() // most of them wait for their deadline
			l := startProposer(t, 3*time.Second, c.answer)
			result, err := l.Propose(context.Background(), put("k", "v"))
			wantCode(t, err, c.want)
			if (result != nil) != (c.want == kv.OK) {
				t.Errorf("result %v with %v", result, err)
			}
		})
	}
}

// TestSameEntryAgain proposes until the log has taken an entry: each attempt is
// the same, byte for byte, number included.
func TestSameEntryAgain(t *testing.T) {
	var mu sync.Mutex
	var attempts [][]byte
	l := &fakeLog{proposer: newProposer(incarnation("p1"), patience), answer: func(n int) (bool, error) {
		return n == 5, dragonboat.ErrTimeout
	}}
	l.propose = func(entry []byte, timeout time.Duration) (*dragonboat.RequestState, error) {
		mu.Lock()
		attempts = append(attempts, bytes.Clone(entry))
		mu.Unlock()
		return l.receive(entry, timeout)
	}
	l.start()
	defer l.close()
	_, err := l.Propose(context.Background(), put("k", "v"))
	must(t, err)
	for _, a := range attempts {
		if !bytes.Equal(a, attempts[0]) {
			t.Errorf("proposed %x, then %x", attempts[0], a)
		}
	}
	if len(attempts) != 5 {
		t.Errorf("%d attempts", len(attempts))
	}
}

// TestWaitForAProposal says how long an entry is waited for before it is proposed
// again: a follower can't know whether it has arrived; a leader has it in its log, and
// to propose it again would only make what is slow slower.
func TestWaitForAProposal(t *testing.T) {
	for _, c := range []struct {
		name     string
		leads    bool
		from, to time.Duration
	}{{"follower", false, 0, tryFor}, {"leader", true, patience / 2, patience}} {
		t.Run(c.name, func(t *testing.T) {
			waits := make(chan time.Duration, 1)
			l := &fakeLog{proposer: newProposer(incarnation("p1"), patience), answer: func(int) (bool, error) { return true, dragonboat.ErrTimeout }}
			l.leads = func() bool { return c.leads }
			l.propose = func(entry []byte, timeout time.Duration) (*dragonboat.RequestState, error) {
				waits <- timeout
				return l.receive(entry, timeout)
			}
			l.start()
			defer l.close()
			_, err := l.Propose(context.Background(), put("k", "v"))
			must(t, err)
			if wait := <-waits; wait <= c.from || wait > c.to {
				t.Errorf("it is waited for %v, want more than %v and %v at the most", wait, c.from, c.to)
			}
		})
	}
}

// TestCloseAnswersAll closes a proposer with commands on their way and in the
// queue: who waits for a flight learns that nothing was applied, who is under
// way that this is not known.
func TestCloseAnswersAll(t *testing.T) {
	gate := make(chan struct{})
	l := startProposer(t, patience, func(int) (bool, error) {
		<-gate
		return false, dragonboat.ErrShardClosed
	})
	var away []error
	var waits []func()
	collect := make([][]error, 0, flights)
	for i := range flights {
		_, errs, wait := l.proposeAll([]*kv.Command{put("k", "v")})
		collect, waits = append(collect, errs), append(waits, wait)
		eventually(t, "it is under way", func() bool { return l.proposals() == i+1 })
	}
	_, queued, wait := l.proposeAll([]*kv.Command{put("a", ""), put("b", ""), put("c", "")})
	eventually(t, "they wait", func() bool { return l.waiting() == 3 })
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		l.close()
	}()
	wait() // the queue is answered although the flights are away
	close(gate)
	<-closed
	for i, wait := range waits {
		wait()
		away = append(away, collect[i]...)
	}
	for _, err := range queued {
		wantCode(t, err, kv.ShuttingDown)
	}
	for _, err := range away {
		wantCode(t, err, kv.OutcomeUnknown)
	}
	_, err := l.Propose(context.Background(), put("k", "v"))
	wantCode(t, err, kv.ShuttingDown)
}

// TestCallerLeaves ends a request before its write: nobody knows what becomes
// of it, nobody waits for it, and the flight is not disturbed.
func TestCallerLeaves(t *testing.T) {
	answer, wake := asleep(t)
	l := startProposer(t, patience, answer)
	ctx, cancel := context.WithCancel(context.Background())
	left := make(chan error, 1)
	go func() {
		_, err := l.Propose(ctx, put("k", "v"))
		left <- err
	}()
	eventually(t, "it is under way", func() bool { return l.proposals() == 1 })
	cancel()
	wantCode(t, <-left, kv.OutcomeUnknown)
	wake()
	result, err := l.Propose(context.Background(), put("other", "v"))
	must(t, err)
	if result.Detail != "other" {
		t.Errorf("got the result for %s", result.Detail)
	}
	eventually(t, "both are applied", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.entries) == 2
	})
	if !slices.Equal(l.awaited, []string{"other"}) {
		t.Errorf("%v were waited for", l.awaited)
	}
}

// TestHungLog: while the log answers nothing and refuses nothing, as when its disk
// hangs, each command has an answer in time all the same, and one whose caller has left
// the queue is never proposed.
func TestHungLog(t *testing.T) {
	answer, wake := asleep(t)
	l := startProposer(t, time.Second, answer)
	away := make(chan error, flights)
	for i := range flights {
		go func() {
			_, err := l.Propose(context.Background(), put("lone", ""))
			away <- err
		}()
		eventually(t, "a lone command leaves at once", func() bool { return l.proposals() == i+1 })
	}
	ctx, cancel := context.WithCancel(context.Background())
	left := make(chan error, 1)
	go func() {
		_, err := l.Propose(ctx, put("left", ""))
		left <- err
	}()
	_, queued, wait := l.proposeAll([]*kv.Command{put("queued", ""), put("queued", "")})
	cancel()
	wantCode(t, <-left, kv.OutcomeUnknown)
	wait()
	for _, err := range queued {
		wantCode(t, err, kv.Busy)
	}
	for range flights {
		wantCode(t, <-away, kv.OutcomeUnknown)
	}
	wake()
	result, err := l.Propose(context.Background(), put("after", ""))
	must(t, err)
	if result.Detail != "after" {
		t.Errorf("got the result for %s", result.Detail)
	}
	eventually(t, "the log has what the flights took", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.entries) == flights+1
	})
	if n := l.proposals(); n != flights+1 {
		t.Errorf("%d entries were proposed, want those of the %d flights and the one after them", n, flights)
	}
}

// TestHungLogOfReads: the same for linearizable reads. Nor does the end of the node wait
// for a round that Dragonboat has forgotten.
func TestHungLogOfReads(t *testing.T) {
	begun := func(timeout time.Duration) (r *rounds, asked chan struct{}, read chan error) {
		r, asked, read = newRounds(timeout), make(chan struct{}, 1), make(chan error, 1)
		r.readIndex = func(time.Duration) (*dragonboat.RequestState, error) {
			signal(asked)
			return &dragonboat.RequestState{}, nil // which is never answered
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		t.Cleanup(cancel)
		go func() { read <- r.wait(ctx) }()
		eventually(t, "a reader waits", r.hasNext)
		go r.run()
		return r, asked, read
	}
	r, _, read := begun(time.Second)
	wantCode(t, <-read, kv.NoLeader)
	r.close()

	r, asked, read := begun(time.Hour)
	<-asked
	r.close()
	wantCode(t, <-read, kv.ShuttingDown)
}
