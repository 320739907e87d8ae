package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cairnkv/cairn/client"
)

const putHelp = `Store a value under a key.

The value is the second argument. "-", or no second argument, reads it from the
standard input, byte for byte; "@FILE" reads it from a file. (A value that itself
begins with @ or is a lone - goes through the standard input.)`

const putExample = `  cairn put greeting hello
  cairn put config/app.yaml @app.yaml --content-type application/yaml
  date | cairn put last-run
  cairn put --create leader me              # only if there is none: exit status 4
  cairn put --if-revision 42 counter 7      # only if nobody wrote it since
  cairn put --ttl 30s heartbeat/web1 up     # deleted after 30 seconds
  cairn put --next queue/ job               # queue/ and the next number`

// valueLimit is the most that a value may have.
const valueLimit = 1 << 20

type putFlags struct {
	ifRevision           uint64
	create, update, prev bool
	lease                string
	ttl                  time.Duration
	contentType          string
	keepLease, next      bool
	write                writeFlags
}

func (a *app) put() *cobra.Command {
	var f putFlags
	cmd := &cobra.Command{
		Use:               "put KEY [VALUE | @FILE | -]",
		Short:             "Store a value",
		Long:              putHelp,
		Example:           putExample,
		Args:              arguments(1, 2),
		ValidArgsFunction: a.completeKey,
	}
	flags := cmd.Flags()
	flags.Uint64Var(&f.ifRevision, "if-revision", 0, "only if the key was last written at this `revision`; 0 means that it must not exist")
	flags.BoolVar(&f.create, "create", false, "only if the key does not exist")
	flags.BoolVar(&f.update, "update", false, "only if the key exists")
	flags.Var((*given)(&f.lease), "lease", "attach the key to the lease with this `id`")
	durationVar(flags, &f.ttl, "ttl", 0, "delete the key after this time, unless it is written again before")
	flags.BoolVar(&f.keepLease, "keep-lease", false, "leave the key attached to the lease that it has")
	flags.StringVar(&f.contentType, "content-type", "", "the media `type` that is kept with the value")
	flags.BoolVar(&f.next, "next", false, "KEY is a prefix: store under the next key of its sequence, which is printed")
	flags.BoolVar(&f.prev, "prev", false, "show what was replaced")
	f.write.registerFenced(cmd)
	cmd.MarkFlagsMutuallyExclusive("if-revision", "create", "update")
	cmd.MarkFlagsMutuallyExclusive("lease", "ttl", "keep-lease")
	for _, other := range []string{"if-revision", "create", "update", "keep-lease", "prev"} {
		cmd.MarkFlagsMutuallyExclusive("next", other)
	}

	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		value, err := a.value(args[1:])
		if err != nil {
			return err
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		if f.next {
			return a.putNext(cmd, c, args[0], value, &f)
		}
		result, err := c.Put(cmd.Context(), args[0], value, f.options(cmd)...)
		if err != nil {
			return aboutKey(args[0], err)
		}
		return a.print(result, func(w io.Writer) {
			what := "updated"
			if result.Created {
				what = "created"
			}
			fmt.Fprintf(w, "%s at revision %d\n", what, result.Revision)
			if result.Lease != "" {
				fmt.Fprintf(w, "lease %s\n", result.Lease)
			}
			if result.Prev != nil {
				fmt.Fprintf(w, "replaced %s of revision %d\n", preview(result.Prev.Value), result.Prev.ModRevision)
			}
		}, func(w io.Writer) { fmt.Fprintln(w, result.Revision) })
	}
	return cmd
}

// putNext stores a value under the next key of a sequence.
func (a *app) putNext(cmd *cobra.Command, c *client.Client, prefix string, value []byte, f *putFlags) error {
	var opts []client.NextOption
	for _, o := range f.write.options() {
		opts = append(opts, o)
	}
	if f.lease != "" {
		opts = append(opts, client.WithLease(f.lease))
	}
	if cmd.Flags().Changed("ttl") {
		opts = append(opts, client.WithTTL(f.ttl))
	}
	if f.contentType != "" {
		opts = append(opts, client.ContentType(f.contentType))
	}
	result, err := c.PutNext(cmd.Context(), prefix, value, opts...)
	if err != nil {
		return aboutKey(prefix, err)
	}
	return a.print(result, func(w io.Writer) {
		fmt.Fprintf(w, "%s created\n", displayKey(result.Key))
		if result.Lease != "" {
			fmt.Fprintf(w, "lease %s\n", result.Lease)
		}
	}, func(w io.Writer) { fmt.Fprintf(w, "%s\n", result.Key) })
}

func (f *putFlags) options(cmd *cobra.Command) (opts []client.PutOption) {
	for _, o := range f.write.options() {
		opts = append(opts, o)
	}
	switch {
	case cmd.Flags().Changed("if-revision"):
		opts = append(opts, client.IfRevision(f.ifRevision))
	case f.create:
		opts = append(opts, client.IfMissing())
	case f.update:
		opts = append(opts, client.IfExists())
	}
	switch {
	case f.lease != "":
		opts = append(opts, client.WithLease(f.lease))
	case cmd.Flags().Changed("ttl"):
		opts = append(opts, client.WithTTL(f.ttl))
	case f.keepLease:
		opts = append(opts, client.KeepLease())
	}
	if f.contentType != "" {
		opts = append(opts, client.ContentType(f.contentType))
	}
	if f.prev {
		opts = append(opts, client.Prev())
	}
	return opts
}

// value is what an argument says, or what it says to read.
func (a *app) value(args []string) ([]byte, error) {
	switch {
	case len(args) == 0 && isTerminal(a.stdin):
		return nil, usagef("which value? Give it as an argument, as @FILE, or on the standard input")
	case len(args) == 0 || args[0] == "-":
		return readLimited(a.stdin, valueLimit)
	case strings.HasPrefix(args[0], "@"):
		f, err := os.Open(args[0][1:])
		if err != nil {
			return nil, &usageError{err}
		}
		defer f.Close()
		return readLimited(f, valueLimit)
	}
	return []byte(args[0]), nil
}
