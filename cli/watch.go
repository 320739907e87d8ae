package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/client"
)

const watchHelp = `Print what happens to keys as it happens, or run a command for each event.

Without a key, --prefix or --start and --end it is every key but Cairn's own. It
goes on by itself when a node goes away, without losing or repeating an event,
until it is interrupted. SIGTERM ends it with status 0; by SIGINT, as of Ctrl-C, it
ends as by that, status 130 in a shell, so that nothing is done that stands behind it.

With --output json it is a line a revision, as GET /v1/watch sends it; a line with
"more" is a part of a revision. With raw it is the value of each put, and nothing
of a delete.

The command, behind -- or as a line for the shell with --exec, is run for one event
after the other, in their order; the next waits until it has ended. It gets the
value on its standard input (nothing for a delete), or with --output json the whole
event, and in its environment

  CAIRN_WATCH_TYPE               put or delete
  CAIRN_WATCH_KEY                the key; not set if it has a NUL byte
  CAIRN_WATCH_KEY_BASE64         the same as base64
  CAIRN_WATCH_REVISION           the revision of the event
  CAIRN_WATCH_TIME               when it was
  CAIRN_WATCH_REASON             of a delete: deleted, expired or revoked
  CAIRN_WATCH_CREATE_REVISION    and, of a put, CAIRN_WATCH_VERSION,
                                 CAIRN_WATCH_CONTENT_TYPE and CAIRN_WATCH_LEASE
  CAIRN_WATCH_INITIAL            true for what --initial begins with

The command has no terminal: what would ask for a password there fails. Ctrl-C ends
the watch once the command has ended by itself.

A command that fails is reported, and the watch goes on, unless --stop-on-failure
says otherwise. If a compaction overtakes a watch with --initial, the command is run
with CAIRN_WATCH_TYPE=reset and then for each key that there is: what is not among
them is gone.`

const watchExample = `  cairn watch config/limit
  cairn watch --prefix config/ --initial
  cairn watch --prefix jobs/ --from 813 -o json
  cairn watch --prefix hosts/ --type delete --prev
  cairn watch --limit 1 ready                        # wait for it
  cairn watch -o raw motd | while read -r line; do wall "$line"; done
  cairn watch nginx.conf -- sh -c 'cat > /etc/nginx/nginx.conf && nginx -s reload'
  cairn watch --prefix jobs/ --type put --exec 'run-job "$CAIRN_WATCH_KEY"'`

type watchFlags struct {
	keys, prefixes []string
	bounds         rangeFlags
	from           string
	limit          uint64
	exec           string
	stopOnFailure  bool
	watch          client.WatchOptions
}

func (a *app) watch() *cobra.Command {
	var f watchFlags
	cmd := &cobra.Command{
		Use:               "watch [KEY]... [-- COMMAND [ARG]...]",
		Short:             "Print what happens to keys, or run a command for it",
		Long:              watchHelp,
		Example:           watchExample,
		ValidArgsFunction: a.completeKey,
	}
	flags := cmd.Flags()
	flags.StringArrayVar(&f.keys, "key", nil, "this `key`, as if it were an argument; may be repeated")
	flags.StringArrayVar(&f.prefixes, "prefix", nil, "every key that begins with this `prefix`; may be repeated")
	f.bounds.register(cmd)
	flags.StringVar(&f.from, "from", "now", "the first `revision` to see, or now, or earliest for all that history has")
	flags.BoolVar(&f.watch.Initial, "initial", false, "begin with what there is, and go on without a gap")
	flags.BoolVar(&f.watch.Prev, "prev", false, "show what was replaced or deleted")
	flags.BoolVar(&f.watch.KeysOnly, "keys-only", false, "leave the values out")
	flags.StringVar(&f.watch.Type, "type", "", "only events of this `type`, put or delete")
	flags.DurationVar(&f.watch.Bookmark, "bookmark", 0, "with --output json, say how far it has come when nothing happened for so long")
	flags.Uint64Var(&f.limit, "limit", 0, "end after this many `events`; 0 is never")
	flags.StringVar(&f.exec, "exec", "", "run this `command` of the shell for each event")
	flags.BoolVar(&f.stopOnFailure, "stop-on-failure", false, "end when a command fails")
	cmd.MarkFlagsMutuallyExclusive("initial", "from")
	_ = cmd.RegisterFlagCompletionFunc("type", cobra.FixedCompletions([]cobra.Completion{api.TypePut, api.TypeDelete}, cobra.ShellCompDirectiveNoFileComp))

	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		command, err := f.complete(cmd, args)
		if err != nil {
			return err
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		ctx, stop := untilSignal(cmd)
		defer stop()
		var to watchSink
		switch {
		case command != nil:
			to = &watchCommand{a: a, ctx: ctx, args: command, stopOnFailure: f.stopOnFailure}
		case a.output == outputJSON:
			to = watchLines{a.stdout}
		case a.output == outputRaw:
			to = &watchValues{out: bufio.NewWriter(a.stdout)}
		default:
			to = &watchTable{out: bufio.NewWriter(a.stdout), prev: f.watch.Prev}
		}
		return a.runWatch(ctx, c, &f, to)
	}
	return cmd
}

// complete checks the flags, and takes the arguments in: keys, and behind -- the
// command, which is nil if there is none.
func (f *watchFlags) complete(cmd *cobra.Command, args []string) (command []string, err error) {
	if dash := cmd.ArgsLenAtDash(); dash >= 0 {
		args, command = args[:dash], args[dash:]
		if len(command) == 0 {
			return nil, usagef("there is no command behind --")
		}
	}
	switch {
	case f.exec != "" && command != nil:
		return nil, usagef("give --exec or a command behind --, not both")
	case f.exec != "":
		command = []string{"sh", "-c", f.exec}
	case f.stopOnFailure && command == nil:
		return nil, usagef("--stop-on-failure belongs to a command")
	}
	if command != nil {
		if _, err := exec.LookPath(command[0]); err != nil {
			return nil, &usageError{err}
		}
	}
	switch f.watch.Type {
	case "", api.TypePut, api.TypeDelete:
	default:
		return nil, usagef("--type is put or delete, not %q", f.watch.Type)
	}
	switch f.from {
	case "now":
	case "earliest":
		f.watch.Earliest = true
	default:
		if f.watch.From, err = strconv.ParseUint(f.from, 10, 64); err != nil || f.watch.From == 0 {
			return nil, usagef("--from is a revision, now or earliest, not %q", f.from)
		}
	}
	for _, key := range append(args, f.keys...) {
		f.watch.Keys = append(f.watch.Keys, client.Key(key))
	}
	for _, prefix := range f.prefixes {
		f.watch.Keys = append(f.watch.Keys, client.Prefix(prefix))
	}
	if f.bounds.start != "" || f.bounds.end != "" {
		f.watch.Keys = append(f.watch.Keys, client.Range(f.bounds.start, f.bounds.end))
	}
	// What is very much in one revision need not be held as a whole.
	f.watch.Parts = true
	return command, nil
}

// A watchSink is where a watch goes. Its error ends the watch.
type watchSink interface {
	put(m *client.WatchMessage) error
}

// runWatch watches until it is told to end, which is an error only by SIGINT: what a
// script or a list of a shell does next is not to be done then.
func (a *app) runWatch(ctx context.Context, c *client.Client, f *watchFlags, to watchSink) error {
	told := ""
	f.watch.OnRetry = func(err error, _ time.Duration) {
		var refused *client.Error
		line := err.Error()
		if errors.As(err, &refused) {
			line = refusal(refused)
		}
		// The same again and again helps nobody.
		if line = oneLine(line); line != told {
			fmt.Fprintf(a.stderr, "cairn: %s; trying again\n", line)
			told = line
		}
	}
	var reached, events uint64
	for m, err := range c.Watch(ctx, f.watch) {
		told = ""
		last := false
		if left := f.limit - events; f.limit > 0 && uint64(len(m.Events)) >= left {
			m.Events, last = m.Events[:left], true
		}
		events += uint64(len(m.Events))
		if err == nil {
			err = to.put(&m)
		}
		switch {
		case err != nil && ctx.Err() != nil:
			if reached > 0 {
				fmt.Fprintf(a.stderr, "cairn: interrupted; --from %d goes on\n", reached+1)
			}
			var by *signalError
			if errors.As(context.Cause(ctx), &by) && by.Signal == os.Interrupt {
				return signaled(by.Signal)
			}
			return nil
		case err != nil || last:
			return err
		case m.Kind != client.WatchReset && m.Kind != client.WatchInitial && !m.More:
			reached = m.Revision
		}
	}
	return nil
}

// watchLines writes JSON, a message a line.
type watchLines struct{ out io.Writer }

func (s watchLines) put(m *client.WatchMessage) error {
	return lineEncoder(s.out).Encode(api.WatchLine{
		Event: string(m.Kind), Revision: m.Revision, Events: m.Events, More: m.More, Entries: m.Entries,
	})
}

// watchValues writes the value of each put and a line end.
type watchValues struct{ out *bufio.Writer }

func (s *watchValues) put(m *client.WatchMessage) error {
	write := func(value []byte) {
		_, _ = s.out.Write(value) // Flush has the error
		_ = s.out.WriteByte('\n')
	}
	for i := range m.Entries {
		write(m.Entries[i].Value)
	}
	for i := range m.Events {
		if e := &m.Events[i]; e.Type == api.TypePut {
			write(e.Value)
		}
	}
	return s.out.Flush()
}

// watchTable writes a table that has no end, so that its columns have widths that
// fit most of what comes.
type watchTable struct {
	out   *bufio.Writer
	prev  bool
	begun bool
}

func (s *watchTable) put(m *client.WatchMessage) error {
	if m.Kind == client.WatchReset && s.begun { // another state came before
		s.row("", "", "reset", "what is not in the following state is gone", "", "")
	}
	for i := range m.Entries {
		e := &m.Entries[i]
		s.row(number(e.ModRevision), timeText(e.ModifiedAt), "present", displayKey(e.Key), preview(e.Value), "")
	}
	for i := range m.Events {
		e := &m.Events[i]
		cells, prev := changeCells(&e.Change), ""
		if e.Prev != nil {
			prev = preview(e.Prev.Value)
		}
		s.row(cells[0], cells[1], cells[2], displayKey(e.Key), cells[3], prev)
	}
	return s.out.Flush()
}

func (s *watchTable) row(revision, at, change, key, value, prev string) {
	if !s.begun {
		s.begun = true
		last := ""
		if s.prev {
			last = "PREVIOUS"
		}
		s.row("REVISION", "TIME", "CHANGE", "KEY", "VALUE", last)
	}
	if prev != "" {
		value = fmt.Sprintf("%-20s  %s", value, prev)
	}
	line := fmt.Sprintf("%-8s  %-24s  %-7s  %-24s  %s", revision, at, change, key, value)
	fmt.Fprintln(s.out, strings.TrimRight(line, " "))
}
