package cli

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/client"
)

const compactHelp = `Give up history: what was before a revision can't be read any more, and its space
is freed in the background. The newest version of every key always stays.

A cluster does this by itself for what is older than an hour; see
--auto-compaction-keep of serve.`

const compactExample = `  cairn compact --keep 24h
  cairn compact --keep-revisions 10000
  cairn compact --revision 4711`

func (a *app) compact() *cobra.Command {
	var (
		what  api.Compact
		keepN uint64
		keep  time.Duration
		write writeFlags
	)
	cmd := &cobra.Command{
		Use:     "compact",
		Short:   "Give up history",
		Long:    compactHelp,
		Example: compactExample,
		Args:    arguments(0, 0),
	}
	flags := cmd.Flags()
	flags.Uint64Var(&what.Revision, "revision", 0, "keep what this `revision` and later ones show")
	flags.Uint64Var(&keepN, "keep-revisions", 0, "keep the newest revision and `n` below it")
	flags.DurationVar(&keep, "keep", 0, "keep what was readable within this time")
	write.register(cmd)
	cmd.MarkFlagsMutuallyExclusive("revision", "keep-revisions", "keep")
	cmd.MarkFlagsOneRequired("revision", "keep-revisions", "keep")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		switch {
		case flags.Changed("keep-revisions"):
			what = client.KeepRevisions(keepN)
		case keep < 0:
			return usagef("--keep can't be negative")
		case flags.Changed("keep"):
			what = client.KeepFor(keep)
		case what.Revision == 0:
			return usagef("--revision must be at least 1")
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		result, err := c.Compact(cmd.Context(), what, write.options()...)
		if err != nil {
			return err
		}
		return a.print(result, func(w io.Writer) {
			fmt.Fprintf(w, "history begins at revision %d; the store is at %d\n", result.CompactRevision, result.Revision)
		}, func(w io.Writer) { fmt.Fprintln(w, result.CompactRevision) })
	}
	return cmd
}
