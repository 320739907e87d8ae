package cli

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/client"
)

const delHelp = `Delete a key, or all keys of a range in one transaction.

A key that does not exist is no error: 0 keys were deleted. An empty --prefix is
refused, so that a variable that was not set can't empty the store; --all says it
on purpose.`

const delExample = `  cairn del greeting
  cairn del --if-revision 42 greeting       # only if nobody wrote it since
  cairn del --prefix sessions/
  cairn del --start log/2025 --end log/2026
  cairn del --all`

type delFlags struct {
	ifRevision  uint64
	prefix      string
	bounds      rangeFlags
	all, prev   bool
	write       writeFlags
	keyGiven    bool
	prefixGiven bool
	rangeGiven  bool
}

func (a *app) del() *cobra.Command {
	var f delFlags
	cmd := &cobra.Command{
		Use:               "del [KEY]",
		Short:             "Delete a key or a range of keys",
		Long:              delHelp,
		Example:           delExample,
		Args:              arguments(0, 1),
		ValidArgsFunction: a.completeKey,
	}
	flags := cmd.Flags()
	flags.Uint64Var(&f.ifRevision, "if-revision", 0, "only if the key was last written at this `revision`")
	flags.StringVar(&f.prefix, "prefix", "", "every key that begins with this `prefix`")
	f.bounds.register(cmd)
	flags.BoolVar(&f.all, "all", false, "every key")
	flags.BoolVar(&f.prev, "prev", false, "show what was deleted")
	f.write.registerFenced(cmd)
	cmd.MarkFlagsMutuallyExclusive("prefix", "all", "if-revision")
	for _, bound := range []string{"start", "end"} {
		for _, other := range []string{"prefix", "all", "if-revision"} {
			cmd.MarkFlagsMutuallyExclusive(bound, other)
		}
	}

	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		changed := cmd.Flags().Changed
		f.keyGiven = len(args) == 1
		f.prefixGiven = changed("prefix")
		f.rangeGiven = changed("start") || changed("end")
		if err := f.check(); err != nil {
			return err
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		result, err := f.run(cmd, c, args)
		if err != nil {
			return err
		}
		return a.print(result, func(w io.Writer) {
			fmt.Fprintf(w, "deleted %s at revision %d\n", plural(result.Deleted, "key"), result.Revision)
			for _, e := range result.Prev {
				row(w, displayKey(e.Key), preview(e.Value))
			}
		}, func(w io.Writer) { fmt.Fprintln(w, result.Deleted) })
	}
	return cmd
}

// check refuses what would delete something else than was meant.
func (f *delFlags) check() error {
	ways := 0
	for _, given := range []bool{f.keyGiven, f.prefixGiven, f.rangeGiven, f.all} {
		if given {
			ways++
		}
	}
	switch {
	case ways == 0:
		return usagef("what is to be deleted? Give a key, --prefix, --start and --end, or --all")
	case ways > 1:
		return usagef("give one of a key, --prefix, --start and --end, and --all")
	case f.prefixGiven && f.prefix == "":
		return usagef("--prefix is empty; --all deletes every key")
	case f.rangeGiven && f.bounds.start == "" && f.bounds.end == "":
		return usagef("--start and --end are empty; --all deletes every key")
	}
	return nil
}

func (f *delFlags) run(cmd *cobra.Command, c *client.Client, args []string) (*api.DeleteResult, error) {
	var opts []client.DeleteOption
	for _, o := range f.write.options() {
		opts = append(opts, o)
	}
	if f.prev {
		opts = append(opts, client.Prev())
	}
	if f.keyGiven {
		if cmd.Flags().Changed("if-revision") {
			opts = append(opts, client.IfRevision(f.ifRevision))
		}
		result, err := c.Delete(cmd.Context(), args[0], opts...)
		return result, aboutKey(args[0], err)
	}
	keys := client.EveryKey()
	switch {
	case f.prefixGiven:
		keys = client.Prefix(f.prefix)
	case f.rangeGiven:
		keys = client.Range(f.bounds.start, f.bounds.end)
	}
	return c.DeleteRange(cmd.Context(), keys, opts...)
}
