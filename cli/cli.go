package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/cairnkv/cairn/client"
)

// Build is what the binary brings along.
type Build struct {
	// Version is the version of the binary.
	Version string
	// OpenAPI is the contract that a node serves.
	OpenAPI []byte
}

// An app is one run of the command line.
type app struct {
	build          Build
	stdin          *os.File
	stdout, stderr *os.File

	// Of the global flags.
	endpoints []string
	timeout   time.Duration
	output    outputFlag

	// running is set once a command has accepted its flags and arguments: what
	// fails before is wrong usage.
	running bool
}

// Main runs the command that the arguments of the process name and returns its
// exit status. Where SIGINT has ended what the command ran or waited for, it ends the
// process by that.
func Main(build Build) int {
	a := &app{build: build, stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr}
	cmd, err := a.root().ExecuteContextC(context.Background())
	if err == nil {
		return statusOK
	}
	if !a.running {
		err = &usageError{err}
	}
	var exited *exitedError
	if errors.As(err, &exited) {
		if exited.interrupted {
			endByInterrupt()
		}
		return exited.status // it is the command's own to say why
	}
	fmt.Fprintf(a.stderr, "cairn: %s\n", explain(err, cmd.CommandPath()))
	return exitStatus(err)
}

const rootHelp = `Cairn is a strongly consistent key-value store with an HTTP and JSON API.

Start a node and use it:

  cairn serve                     # http://127.0.0.1:7480, data in ./cairn-data
  cairn put greeting hello
  cairn get greeting
  curl http://127.0.0.1:7480/v1/kv/greeting

Or three nodes of one cluster, to try things out:

  cairn dev

Environment: every global flag and every flag of serve can be given as CAIRN_
and its name, such as CAIRN_ENDPOINT or CAIRN_DATA_DIR. A flag beats it.

Exit status: 0 done · 2 wrong usage · 3 not found · 4 the state is not what the
command needs (a condition failed) · 5 unavailable, nothing was applied · 6 a
write of which the outcome is unknown · 7 a node that a restart can't help: what is
on its disk is damaged, or another member has its place · 1 anything else.`

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:               "cairn",
		Short:             "A strongly consistent key-value store over HTTP",
		Long:              rootHelp,
		Version:           a.build.Version,
		SilenceErrors:     true,
		SilenceUsage:      true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return a.settings(cmd) },
		Args:              cobra.ArbitraryArgs,
		RunE:              unknownCommand,
	}
	root.SuggestionsMinimumDistance = 2
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.SetVersionTemplate("cairn {{.Version}}\n")

	flags := root.PersistentFlags()
	flags.StringSliceVar(&a.endpoints, "endpoint", []string{client.DefaultEndpoint}, "`URL` of a node; repeat it, or separate with commas, to fail over between several")
	flags.DurationVar(&a.timeout, "timeout", 10*time.Second, "how long a request may take with all its repetitions; 0 is no limit")
	flags.VarP(&a.output, "output", "o", "`form` of the answer: table, json or raw (default table; of get, raw)")
	_ = root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]cobra.Completion{"table", "json", "raw"}, cobra.ShellCompDirectiveNoFileComp))

	root.AddGroup(
		&cobra.Group{ID: groupNodes, Title: "Nodes:"},
		&cobra.Group{ID: groupKeys, Title: "Keys:"},
		&cobra.Group{ID: groupTogether, Title: "Working together:"},
		&cobra.Group{ID: groupCluster, Title: "Cluster:"},
	)
	add := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(a.noting(c))
		}
	}
	add(groupNodes, a.serve(), a.dev(), a.certs(), a.doctor())
	add(groupKeys, a.put(), a.get(), a.del(), a.ls(), a.tree(), a.list(), a.txn(), a.bulk(), a.history(), a.watch(), a.lease())
	add(groupTogether, a.lock(), a.elect(), a.service())
	add(groupCluster, a.status(), a.alarm(), a.member(), a.hash(), a.compact(), a.snapshot(), a.bench(), a.version())
	return root
}

// settings completes the flags of a command.
func (a *app) settings(cmd *cobra.Command) error {
	if err := fromEnvironment(cmd); err != nil {
		return err
	}
	if len(a.endpoints) == 0 || slices.Contains(a.endpoints, "") {
		return usagef("--endpoint is empty; leave it out to ask %s", client.DefaultEndpoint)
	}
	return nil
}

// unknownCommand is what cairn does by itself: it prints its help.
func unknownCommand(root *cobra.Command, args []string) error {
	if len(args) == 0 {
		return root.Help()
	}
	if near := root.SuggestionsFor(args[0]); len(near) > 0 {
		return usagef("there is no command %q; did you mean %s?", args[0], strings.Join(near, " or "))
	}
	return usagef("there is no command %q", args[0])
}

// family makes a command that others belong to. By itself it prints its help.
func (a *app) family(cmd *cobra.Command, members ...*cobra.Command) *cobra.Command {
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		return usagef("there is no command %q", cmd.Name()+" "+args[0])
	}
	for _, c := range members {
		cmd.AddCommand(a.noting(c))
	}
	return cmd
}

// arguments checks how many arguments a command has. Its usage line says which.
func arguments(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < least || len(args) > most {
			usage := strings.TrimSuffix(cmd.UseLine(), " [flags]")
			return usagef("wrong number of arguments, want '%s'", usage)
		}
		return nil
	}
}

// Groups of commands in the help.
const (
	groupNodes    = "nodes"
	groupKeys     = "keys"
	groupTogether = "together"
	groupCluster  = "cluster"
)

// noting makes the command note when it is begun.
func (a *app) noting(c *cobra.Command) *cobra.Command {
	run := c.RunE
	c.RunE = func(cmd *cobra.Command, args []string) error {
		a.running = true
		return run(cmd, args)
	}
	return c
}

// endByInterrupt ends this process by SIGINT, and returns where it is ignored. To a shell
// that is more than the status 130: one that runs a script then ends that as well.
func endByInterrupt() {
	if signal.Ignored(os.Interrupt) {
		return
	}
	signal.Reset(os.Interrupt)
	if syscall.Kill(syscall.Getpid(), syscall.SIGINT) == nil {
		time.Sleep(time.Second) // the Go runtime ends the process, in another thread perhaps
	}
}

// A signalError says by which signal a command was told to end.
type signalError struct{ os.Signal }

func (e *signalError) Error() string { return e.String() + " signal received" }

// untilSignal is the context of a command that has something to finish when it is
// told to end; its cause is a signalError. A second signal ends the process at once, as the
// first one does with all other commands.
func untilSignal(cmd *cobra.Command) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(cmd.Context())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() { // ends with ctx
		defer signal.Stop(signals)
		select {
		case s := <-signals:
			cancel(&signalError{s})
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(nil) }
}

// client makes the client that the global flags describe.
func (a *app) client() (*client.Client, error) { return a.clientFor(a.endpoints) }

func (a *app) clientFor(endpoints []string) (*client.Client, error) {
	return a.clientWith(client.Config{Endpoints: endpoints})
}

// clientWith makes a client whose timeout and name are those of the command line.
func (a *app) clientWith(cfg client.Config) (*client.Client, error) {
	timeout := a.timeout
	switch {
	case timeout < 0:
		return nil, usagef("--timeout can't be negative")
	case timeout == 0:
		timeout = -1 // no limit, as the client has it
	}
	cfg.Timeout, cfg.UserAgent = timeout, "cairn-cli/"+a.build.Version
	c, err := client.New(cfg)
	if err != nil {
		return nil, &usageError{errors.New(strings.TrimPrefix(err.Error(), "client: "))}
	}
	return c, nil
}

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// inForeground reports whether this process has a terminal and is in the group that may
// read from it.
func inForeground() bool {
	terminal, err := os.Open("/dev/tty")
	if err != nil {
		return false
	}
	defer terminal.Close()
	group, err := unix.IoctlGetInt(int(terminal.Fd()), unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}

// open opens what a command reads its input from: a file, or the standard input
// for "-".
func (a *app) open(name string) (*os.File, error) {
	if name == "-" {
		return a.stdin, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, &usageError{err}
	}
	return f, nil
}

// readLimited reads a little more than limit at most: the node then says that it
// is too much, and what that means.
func readLimited(r io.Reader, limit int64) ([]byte, error) {
	return io.ReadAll(io.LimitReader(r, limit+1))
}
