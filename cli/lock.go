package cli

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/client"
)

const lockHelp = `Run a command while holding a lock, or see who holds it.

The command is run when the lock's turn has come, in the order in which it was
asked for, and its exit status is passed on. If that takes long, you are told who
holds the lock, and then each change of the place in the queue. If the lock is
lost, because it could not be renewed in time, the command is ended: by SIGTERM,
and by SIGKILL if it goes on.

Signals are passed on to the command and what it has started; at a terminal to the
command alone, so that it can read from there. In the foreground of one, SIGINT and
SIGQUIT are left to the keyboard, which tells the command by itself, unless the
command has left the foreground, as 'timeout' does; whatever else ends it there, as
'docker stop' may, has to send SIGTERM. To signal a job of an interactive shell, name
the process id of cairn: 'kill %1' may reach the command as well, and tell it twice.

A SIGHUP or SIGINT that is ignored where cairn starts is ignored by the command as
well. On Linux the command gets SIGTERM also when cairn itself is killed; what it has
started does not, nor does one that changes its user, such as sudo. Where cairn has
no right to signal a command, it says so, and waits for its end, also if the lock is
lost.

Where SIGINT has ended the command or the wait for it, cairn ends by SIGINT as well,
so that a script ends that runs it; a shell makes the status 130 of that.

A lock alone does not keep a process that was paused from acting too late. The
command finds in CAIRN_FENCING what a write over HTTP carries in Cairn-Fencing, so
that it is refused once the lock is lost; 'cairn put' and the like do so by
themselves. CAIRN_LOCK_TOKEN is a number that grows from holder to holder.

Without a command it prints who holds the lock and who waits.`

const lockExample = `  cairn lock backup -- ./backup.sh
  cairn lock deploy --no-wait -- make deploy     # exit status 4 if it is held
  cairn lock pool --limit 3 -- ./job             # at most three at a time
  cairn lock config --read -- cat config.yaml    # together with other readers
  cairn lock backup                              # who holds it?`

// holdFlags are those of the commands that run a command under something.
type holdFlags struct {
	ttl, wait, grace time.Duration
}

func (f *holdFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	durationVar(flags, &f.ttl, "ttl", 10*time.Second, "how long it outlives this process if that is gone without a word")
	durationVar(flags, &f.wait, "wait", 0, "how long to wait for the turn; 0 is no limit")
	durationVar(flags, &f.grace, "grace", 10*time.Second, "how long the command may take to end once it is told to")
}

func (f *holdFlags) check() error {
	switch {
	case f.ttl < time.Second:
		return usagef("--ttl is a second at least")
	case f.wait < 0 || f.grace < 0:
		return usagef("--wait and --grace can't be negative")
	}
	return nil
}

// nameAndCommand splits the arguments at the dashes.
func nameAndCommand(cmd *cobra.Command, args []string) error {
	dash := cmd.ArgsLenAtDash()
	switch {
	case dash < 0 && len(args) == 1, dash == 1 && len(args) > 1:
		return nil
	case dash < 0 && len(args) > 1:
		return usagef("put -- before the command: '%s %s -- %s'", cmd.CommandPath(), args[0], args[1])
	}
	return arguments(1, 1)(cmd, nil)
}

func (a *app) lock() *cobra.Command {
	var (
		hold   holdFlags
		o      client.LockOptions
		noWait bool
	)
	cmd := &cobra.Command{
		Use:     "lock NAME [-- COMMAND...]",
		Short:   "Run a command under a lock",
		Long:    lockHelp,
		Example: lockExample,
		Args:    nameAndCommand,
	}
	flags := cmd.Flags()
	hold.register(cmd)
	flags.BoolVar(&noWait, "no-wait", false, "fail if another holds it or waits for it")
	flags.BoolVar(&o.Read, "read", false, "share it with other readers")
	flags.IntVar(&o.Limit, "limit", 0, "share it with others, `n` of them together at most")
	flags.StringVar(&o.Owner, "owner", "", "a `name` that others see (default host and process)")
	durationVar(flags, &o.Delay, "delay", 0, "how long it stays closed if it is lost")
	cmd.MarkFlagsMutuallyExclusive("read", "limit")
	cmd.MarkFlagsMutuallyExclusive("wait", "no-wait")
	cmd.RunE = a.runGuarded(&hold, guard{
		what: "the lock",
		take: func(ctx context.Context, c *client.Client, name string, before func(int)) (*held, error) {
			o.TTL, o.Waiting = hold.ttl, before
			if o.Owner == "" {
				o.Owner = ownName()
			}
			take := c.Lock
			if noWait {
				take = c.TryLock
			}
			l, err := take(ctx, name, o)
			if err != nil {
				return nil, err
			}
			return &held{
				fence: l.Fence, token: l.Token, tokenEnv: envLockToken,
				lost: l.Lost(), err: l.Err, release: l.Release, releaseWord: "released",
			}, nil
		},
		others: lockOthers,
		show:   a.lockState,
	})
	return cmd
}

// lockOthers says who is before somebody that waits for a lock.
func lockOthers(ctx context.Context, c *client.Client, name string) (string, error) {
	s, err := c.LockState(ctx, name)
	switch {
	case err != nil:
		return "", err
	case len(s.Holders) == 0:
		return "nobody holds it", nil
	case len(s.Holders) > 1:
		return fmt.Sprintf("%d hold it, %d wait", len(s.Holders), s.Waiting), nil
	case s.Holders[0].Owner == "":
		return fmt.Sprintf("the lease %s holds it, %d wait", s.Holders[0].Lease, s.Waiting), nil
	}
	return fmt.Sprintf("%s holds it, %d wait", s.Holders[0].Owner, s.Waiting), nil
}

// lockState prints who holds a lock and who waits.
func (a *app) lockState(ctx context.Context, c *client.Client, name string) error {
	s, err := c.LockState(ctx, name)
	if err != nil {
		return err
	}
	return a.print(s, func(w io.Writer) {
		if len(s.Holders) == 0 && s.Waiting == 0 {
			fmt.Fprintln(w, "free")
			return
		}
		row(w, "", "OWNER", "HOW", "TOKEN", "SINCE", "LEASE")
		for _, h := range s.Holders {
			row(w, "held", h.Owner, how(h.Mode, h.Limit), number(h.Token), timeText(h.Since.Time), h.Lease)
		}
		for _, q := range s.Queue {
			row(w, fmt.Sprint("waits ", q.Place), q.Owner, how(q.Mode, q.Limit), "", timeText(q.Since.Time), q.Lease)
		}
		if more := s.Waiting - len(s.Queue); more > 0 {
			fmt.Fprintf(w, "and %d more wait\n", more)
		}
	}, func(w io.Writer) {
		for _, h := range s.Holders {
			fmt.Fprintln(w, h.Owner)
		}
	})
}

// how is how a lock is held.
func how(mode string, limit int) string {
	switch {
	case mode == api.ModeRead:
		return mode
	case limit > 0:
		return fmt.Sprint("limit ", limit)
	}
	return "alone"
}
