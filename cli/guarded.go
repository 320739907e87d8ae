package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/cairnkv/cairn/client"
)

// Variables of the commands that lock and elect run. Each command of cairn that
// writes keys carries the fence by itself.
const (
	envFencing       = "CAIRN_FENCING"
	envLockToken     = "CAIRN_LOCK_TOKEN"
	envElectionToken = "CAIRN_ELECTION_TOKEN"
)

// A held is what a command runs under: a lock, or the lead of an election.
type held struct {
	// what names it to people.
	what        string
	fence       string
	token       uint64
	tokenEnv    string
	lost        <-chan struct{}
	err         func() error
	release     func(context.Context) error
	releaseWord string
}

// An exitedError passes the exit status of a command on, or is what a shell makes of
// a signal; there is nothing to say.
type exitedError struct {
	status int
	// interrupted is set if it was SIGINT, by which this process then ends as well.
	interrupted bool
}

func (e *exitedError) Error() string {
	return fmt.Sprintf("the command ended with status %d", e.status)
}

// A lostError says that what was held was lost.
type lostError struct {
	what string
	why  error
}

func (e *lostError) Error() string { return fmt.Sprintf("%s: %v", e.what, e.why) }

// lostUnder is the loss of what a command ran under.
func lostUnder(what string, why error) error {
	return &lostError{what + " was lost, and the command was ended", why}
}

func (e *lostError) Unwrap() error { return e.why }

// A notTakenError says that the time to wait was over.
type notTakenError struct{ error }

// A guard is what commands run under: locks, or the lead of elections.
type guard struct {
	what string // before a name
	// take waits for its turn; before is told how many wait before it, if that is
	// known.
	take func(ctx context.Context, c *client.Client, name string, before func(int)) (*held, error)
	// others says who has it and who waits, to somebody who waits for it; show
	// prints that as the answer to a command.
	others func(ctx context.Context, c *client.Client, name string) (string, error)
	show   func(ctx context.Context, c *client.Client, name string) error
}

// runGuarded runs the command that stands behind the name, or shows what it would
// run under.
func (a *app) runGuarded(f *holdFlags, g guard) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		if err := f.check(); err != nil {
			return err
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		name := args[0]
		if len(args) == 1 {
			return g.show(cmd.Context(), c, name)
		}
		what := fmt.Sprintf("%s %q", g.what, name)
		take := func(ctx context.Context, before func(int)) (*held, error) {
			ctx, cancel := waiting(ctx, f.wait)
			defer cancel()
			h, err := g.take(ctx, c, name, before)
			if err != nil {
				return nil, notTaken(ctx, what, f.wait, err)
			}
			h.what = what
			return h, nil
		}
		waits := func(ctx context.Context) string {
			others, err := g.others(ctx, c, name)
			if err != nil {
				others = "no node says who has it"
			}
			return fmt.Sprintf("waiting for %s; %s", what, others)
		}
		return a.guarded(cmd.Context(), take, waits, args[1:], f.grace)
	}
}

// passedOn are the signals that a command gets through this process: what people,
// terminals and supervisors send to it. SIGCHLD, SIGPIPE and SIGURG are about this
// process, and one that stops it can't be caught in all cases.
var passedOn = []os.Signal{
	syscall.SIGHUP, os.Interrupt, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGABRT,
	syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGALRM, syscall.SIGCONT, syscall.SIGWINCH,
}

// notifyPassedOn has the signals come that are passed on. What this process was started to
// ignore stays ignored, and is by the command: SIGHUP as under nohup, SIGINT as by a script
// that runs it with &. Of all others the Go runtime doesn't say so, and has them come.
func notifyPassedOn(signals chan<- os.Signal) {
	for _, s := range passedOn {
		if !signal.Ignored(s) {
			signal.Notify(signals, s)
		}
	}
}

// ends reports whether a signal tells a process to end. Of the others the command makes
// what it likes: SIGHUP has many read their configuration again.
func ends(s os.Signal) bool {
	return s == os.Interrupt || s == syscall.SIGTERM || s == syscall.SIGQUIT || s == syscall.SIGABRT
}

// endsWait reports whether a signal tells a process to end that waits for its turn.
func endsWait(s os.Signal) bool { return ends(s) || s == syscall.SIGHUP }

// fromKeyboard reports whether a signal came from the keyboard, by which a terminal sends it
// to the whole group in its foreground. Who sent a signal isn't known here: while this
// process is in that group, one for it alone is taken for such a one.
func fromKeyboard(s os.Signal) bool {
	return (s == os.Interrupt || s == syscall.SIGQUIT) && inForeground()
}

// An order is what a command was told that has it end.
type order struct {
	by    os.Signal // nil, it was told nothing
	until time.Time // what it leaves behind may go on
	final bool      // what it runs under is lost
}

// end takes down that what it runs under was lost.
func (o *order) end(now time.Time, grace time.Duration) {
	*o = order{by: syscall.SIGTERM, until: now.Add(grace), final: true}
}

// note takes down a signal that the command was sent.
func (o *order) note(s os.Signal, now time.Time, grace time.Duration) {
	switch {
	case !ends(s):
	case o.final: // there is no more time, whatever comes
	case s == syscall.SIGQUIT && o.by != nil && o.by != s:
		// It may be about why the other one takes so long.
	default:
		o.by, o.until = s, now.Add(grace)
	}
}

// stands reports whether a command that has ended by now did so by the order. SIGQUIT is
// none to those who say where they are and go on, as a JVM does with its threads; who took
// it for one has ended within the grace.
func (o *order) stands(now time.Time) bool {
	return o.by != nil && (o.by != syscall.SIGQUIT || !now.After(o.until))
}

// repeat reports whether what the command leaves behind is still to be told by SIGTERM: it
// may have been told long ago, or by what a shell has it ignore.
func (o *order) repeat(now time.Time) bool {
	return !o.final && (o.by != syscall.SIGTERM || now.After(o.until))
}

// guarded takes something, runs a command under it, and releases it. It passes the
// exit status of the command on, and ends the command when what it runs under is
// lost: by SIGTERM, and by SIGKILL if it goes on for longer than grace.
func (a *app) guarded(ctx context.Context, take func(ctx context.Context, before func(int)) (*held, error), waits func(context.Context) string, command []string, grace time.Duration) error {
	signals := make(chan os.Signal, 8)
	notifyPassedOn(signals)
	defer signal.Stop(signals)
	// That nobody reads what is said must not end this process before the command.
	pipes := make(chan os.Signal, 1)
	signal.Notify(pipes, syscall.SIGPIPE)
	defer signal.Stop(pipes)
	tell := newTeller(a.stderr)
	defer tell.end()
	h, err := a.await(ctx, take, waits, signals, tell)
	if err != nil {
		return err
	}
	err = a.runUnder(h, command, signals, grace, tell)
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownLimit)
	defer cancel()
	released := h.release(limited)
	var lost *lostError
	switch {
	case errors.As(err, &lost):
		return err
	case errors.Is(released, client.ErrLeaseNotFound):
		// It ended before the command did, and nobody has noticed.
		return lostUnder(h.what, released)
	case released != nil:
		tell.say("%s was not %s, it ends by itself: %s", h.what, h.releaseWord, explain(released, ""))
	}
	return err
}

// tellAfter is how long a command waits before it says for what.
const tellAfter = 2 * time.Second

// await takes something, unless a signal comes first that tells to end. If it takes a while, it says
// for what it waits, and then each change of its place.
func (a *app) await(ctx context.Context, take func(ctx context.Context, before func(int)) (*held, error), waits func(context.Context) string, signals <-chan os.Signal, tell *teller) (*held, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type taken struct {
		h   *held
		err error
	}
	done := make(chan taken, 1)
	places := make(chan int)
	go func() {
		h, err := take(ctx, func(before int) {
			select {
			case places <- before:
			case <-ctx.Done():
			}
		})
		done <- taken{h, err}
	}()
	long := time.NewTimer(tellAfter)
	defer long.Stop()
	lines := make(chan string, 1)
	asked, telling := false, false
	unsaid := -1 // a place that became known after what stands in the line was asked for
	var interrupted error
	for waiting := true; waiting; {
		select {
		case t := <-done:
			return t.h, t.err
		case <-long.C:
			asked = true
			go func() { lines <- waits(ctx) }() // ends with ctx, and has room for its line
		case line := <-lines:
			telling = true
			tell.say("%s", line)
			if unsaid >= 0 {
				tell.say("%s", placeText(unsaid))
			}
		case before := <-places:
			switch {
			case telling:
				tell.say("%s", placeText(before))
			case asked:
				unsaid = before
			}
		case s := <-signals:
			if !endsWait(s) {
				continue // it is for the command, which is not there yet
			}
			cancel()
			interrupted, waiting = signaled(s), false
		}
	}
	t := <-done
	if t.err == nil {
		limited, stop := context.WithTimeout(context.WithoutCancel(ctx), shutdownLimit)
		defer stop()
		_ = t.h.release(limited) // it ends by itself as well
	}
	return nil, interrupted
}

// placeText says how many are before somebody that waits.
func placeText(before int) string {
	if before == 0 {
		return "still waiting; nobody else waits before this"
	}
	return fmt.Sprintf("still waiting; %d before this", before)
}

// runUnder runs the command until it ends. Where it was told to end, by a signal or
// since what it runs under is lost, all that it has started ends, too: what is left is told
// by SIGTERM and has grace for it.
func (a *app) runUnder(h *held, command []string, signals <-chan os.Signal, grace time.Duration, tell *teller) error {
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = a.stdin, a.stdout, a.stderr
	cmd.Env = append(h.environment(os.Environ()), variable("endpoint")+"="+strings.Join(a.endpoints, ","))
	if err := comeAlready(signals); err != nil {
		return err
	}
	child, err := startChild(cmd, !isTerminal(a.stdin) && !inForeground())
	if err != nil {
		return &usageError{err}
	}
	r := &run{child: child, what: h.what, grace: grace, tell: tell}
	lost := h.lost
	var why error
	var kill <-chan time.Time
	for {
		select {
		case s := <-signals:
			r.pass(s)
		case <-lost:
			lost, why = nil, h.err()
			tell.say("%s was lost; ending the command", h.what)
			r.told.end(time.Now(), grace)
			r.send(syscall.SIGTERM)
			timer := time.NewTimer(grace)
			defer timer.Stop()
			kill = timer.C
		case <-kill:
			r.send(syscall.SIGKILL)
		case err := <-child.ended:
			if child.group {
				r.leftBehind(signals)
			}
			if why != nil {
				return lostUnder(h.what, why)
			}
			return exited(cmd, err)
		}
	}
}

// comeAlready is the end by a signal that came before there was a command to tell. The
// terminal has told nobody else of it.
func comeAlready(signals <-chan os.Signal) error {
	for {
		select {
		case s := <-signals:
			if endsWait(s) {
				return signaled(s)
			}
		default:
			return nil
		}
	}
}

// A run is a command that runs, and what it was told.
type run struct {
	*child
	what  string // what it runs under
	grace time.Duration
	tell  *teller
	told  order
	over  bool   // it has ended, though not all that it has started
	said  string // of what no signal reaches
}

// send sends a signal, and says of whom none reaches, once in the same words. Of those that
// are about a terminal who is there hears without us.
func (r *run) send(s os.Signal) {
	err := r.child.send(s)
	if !errors.Is(err, syscall.EPERM) || s == syscall.SIGWINCH || s == syscall.SIGCONT {
		return
	}
	line := "no signal reaches the command, which runs under another user"
	if r.over {
		line = "no signal reaches what the command has left behind, which runs under another user"
	}
	if r.told.final || s == syscall.SIGKILL {
		line += ": it goes on without " + r.what
	}
	if line != r.said {
		r.said = line
		r.tell.say("%s", line)
	}
}

// pass passes a signal on.
func (r *run) pass(s os.Signal) {
	if r.group || !fromKeyboard(s) || r.left() { // the terminal has told the command already
		r.send(s)
	}
	r.told.note(s, time.Now(), r.grace)
}

// leftBehind has end what a command leaves behind in its group that has ended by what it
// was told, and passes on what comes meanwhile.
func (r *run) leftBehind(signals <-chan os.Signal) {
	if r.gone() {
		return
	}
	r.over = true
	for waiting := true; waiting; { // a signal may have come together with the end
		select {
		case s := <-signals:
			r.pass(s)
		default:
			waiting = false
		}
	}
	now := time.Now()
	if !r.told.stands(now) {
		return
	}
	if r.told.repeat(now) {
		r.send(syscall.SIGTERM)
		r.told.until = now.Add(r.grace)
	}
	if !r.awaitGone(signals) {
		r.send(syscall.SIGKILL)
	}
}

// awaitGone waits until the group of a command that has ended is gone, or the time is over,
// and reports whether it is gone: its number may then be another's at any time.
func (r *run) awaitGone(signals <-chan os.Signal) bool {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !r.gone() {
		if !time.Now().Before(r.told.until) {
			return false
		}
		select {
		case s := <-signals:
			r.pass(s)
		case <-tick.C:
		}
	}
	return true
}

// A child is a command that runs under something. It has a group of its own, with what it
// starts, so that all of it can be told.
//
// On a terminal it is the command alone, which may ask for a password there wherever its
// input comes from: it has to stay in our group, which is the one that may read from there,
// and so signals from the keyboard are all that reaches what it has started. It may leave
// that group by itself.
type child struct {
	pid   int
	group bool
	ended chan error
	kill  func(pid int, s syscall.Signal) error // as the system does
}

// startChild starts a command, in a group of its own or not.
func startChild(cmd *exec.Cmd, group bool) (*child, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: group}
	endWithUs(cmd.SysProcAttr)
	c := &child{group: group, ended: make(chan error, 1), kill: syscall.Kill}
	started := make(chan error)
	go func() { // ends with the command
		// To Linux, the end of the thread that has started the command is our end. The
		// runtime keeps all threads, but does not promise that.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			c.ended <- cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	c.pid = cmd.Process.Pid
	return c, nil
}

// send sends a signal to the command and to what it has started. An error may say that it
// has ended just now.
func (c *child) send(s os.Signal) error {
	pid := c.pid
	if c.group {
		pid = -pid
	}
	number, ok := s.(syscall.Signal)
	if !ok {
		return nil
	}
	return c.kill(pid, number)
}

// left reports whether the command has left our group by itself, as timeout and setsid do:
// the keyboard then tells us, and not the command.
func (c *child) left() bool {
	group, err := syscall.Getpgid(c.pid)
	return err == nil && group != syscall.Getpgrp()
}

// gone reports whether nothing is left of the group of a command that has ended.
func (c *child) gone() bool {
	reap(c.pid)
	return errors.Is(c.kill(-c.pid, 0), syscall.ESRCH)
}

// reap takes note of the ends of processes of a group that have become children of this
// one, as all that lose their parents do in a container where it is the first process:
// until somebody does, they count as there.
func reap(group int) {
	for {
		if pid, err := syscall.Wait4(-group, nil, syscall.WNOHANG, nil); err != nil || pid <= 0 {
			return
		}
	}
}

// signaled is an end by a signal, by a shell's convention.
func signaled(s os.Signal) error {
	number, ok := s.(syscall.Signal)
	if !ok {
		return &exitedError{status: statusOther}
	}
	return &exitedError{status: 128 + int(number), interrupted: s == os.Interrupt}
}

// exited is the end of a command as an error that passes its status on.
func exited(cmd *exec.Cmd, err error) error {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &exit):
		return err
	}
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return signaled(status.Signal())
	}
	return &exitedError{status: exit.ExitCode()}
}

// environment is that of the command. Under several, all fences must hold.
func (h *held) environment(inherited []string) (env []string) {
	fence := h.fence
	for _, pair := range inherited {
		name, value, _ := strings.Cut(pair, "=")
		if name == envFencing && value != "" {
			fence = value + ", " + fence
		}
		if name != envFencing && name != h.tokenEnv {
			env = append(env, pair)
		}
	}
	return append(env, envFencing+"="+fence, fmt.Sprintf("%s=%d", h.tokenEnv, h.token))
}

// ownName is what this process calls itself to others.
func ownName() string {
	host, err := os.Hostname()
	if err != nil {
		host = "?"
	}
	return fmt.Sprintf("%s:%d", host, os.Getpid())
}

// waiting is the context of a wait that a flag bounds; 0 is no bound.
func waiting(ctx context.Context, wait time.Duration) (context.Context, context.CancelFunc) {
	if wait == 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, wait)
}

// notTaken says of an error that it is the end of the wait.
func notTaken(ctx context.Context, what string, wait time.Duration, err error) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return &notTakenError{fmt.Errorf("%s was not to be had within %s", what, wait)}
	}
	return err
}
