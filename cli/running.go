package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cairnkv/cairn/node"
)

const (
	// drainLimit is how long a node may take to hand over and to let requests finish: it
	// is to have ended within ten seconds.
	drainLimit = 8 * time.Second
	// shutdownLimit is how long commands try to give back what they hold.
	shutdownLimit = 10 * time.Second
	// closeLimit is how long after that the process may take to end. What is on the
	// disk is good at any moment, and a disk that hangs is not worth waiting for.
	closeLimit = 5 * time.Second
	// patience is after how long a node that is not ready says what it waits for.
	patience = 3 * time.Second
)

// running are nodes of this process, from their start to their end.
type running struct {
	nodes []*node.Node
	// announce is called once all nodes are ready, waiting before that if it
	// takes its time.
	announce, waiting func()
	// giveUp ends the process with an error, though nodes still run.
	giveUp func(error)
}

// errStuck says that nodes were ended where they were.
var errStuck = errors.New("the node did not end in time and is cut off, its disk may hang; nothing that was answered is lost")

// giveUp ends the process as Main does with an error.
func (a *app) giveUp(err error) {
	fmt.Fprintf(a.stderr, "cairn: %s\n", explain(err, "cairn"))
	os.Exit(exitStatus(err))
}

// start runs what starts nodes, which ends with ctx.
func (a *app) start(ctx context.Context, open func() error) error {
	return until(ctx, drainLimit+closeLimit, open, func() { a.giveUp(errStuck) })
}

// run waits until ctx ends or a node fails, and shuts the nodes down.
func (r *running) run(ctx context.Context) error {
	failed := make(chan error, len(r.nodes))
	for _, n := range r.nodes {
		go func() { failed <- n.Wait() }() // ends with the node, at the latest below
	}
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	slow := time.NewTimer(patience)
	defer slow.Stop()
	for {
		select {
		case <-ctx.Done():
			return r.end(nil)
		case err := <-failed:
			return r.end(err)
		case <-slow.C:
			r.waiting()
		case <-poll.C:
			if r.ready() {
				poll.Stop()
				slow.Stop()
				r.announce()
			}
		}
	}
}

func (r *running) ready() bool {
	for _, n := range r.nodes {
		if n.Ready() != nil {
			return false
		}
	}
	return true
}

// end ends the nodes, of which one failed if err is set, or gives up.
func (r *running) end(err error) error {
	over, cancel := context.WithCancel(context.Background())
	cancel()
	return errors.Join(err, until(over, drainLimit+closeLimit, r.shutdown, func() { r.giveUp(errors.Join(err, errStuck)) }))
}

// until runs what is to return once ctx has ended, and gives up where it has not within a
// limit from then on.
func until(ctx context.Context, limit time.Duration, run func() error, giveUp func()) error {
	returned := make(chan struct{})
	defer close(returned)
	stop := context.AfterFunc(ctx, func() {
		late := time.NewTimer(limit)
		defer late.Stop()
		select {
		case <-late.C:
			giveUp()
		case <-returned:
		}
	})
	defer stop()
	return run()
}

// shutdown ends the nodes.
func (r *running) shutdown() error {
	if len(r.nodes) > 1 {
		return r.close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), drainLimit)
	defer cancel()
	err := r.nodes[0].Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		return nil // that requests are cut off at the limit is how it is meant to be
	}
	return err
}

// close ends all nodes of a cluster at once. There is nobody left to hand over to;
// the last ones would only wait for a majority that does not come back.
func (r *running) close() error {
	var all errgroup.Group
	for _, n := range r.nodes {
		all.Go(n.Close)
	}
	return all.Wait()
}
