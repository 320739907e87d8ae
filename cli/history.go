package cli

import (
	"bufio"

	"github.com/spf13/cobra"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/client"
)

const historyHelp = `Print the versions of a key that were not compacted away, newest first, with its
deletes and their reasons.

With --output json it is a version a line, with raw the bare revisions.`

const historyExample = `  cairn history config/limit
  cairn history --limit 1 -o json config/limit
  cairn get --revision $(cairn history -o raw config/limit | tail -1) config/limit`

func (a *app) history() *cobra.Command {
	var (
		limit int
		read  readFlags
	)
	cmd := &cobra.Command{
		Use:               "history KEY",
		Short:             "Print the versions of a key",
		Long:              historyHelp,
		Example:           historyExample,
		Args:              arguments(1, 1),
		ValidArgsFunction: a.completeKey,
	}
	cmd.Flags().IntVar(&limit, "limit", 0, "at most this many `versions`; 0 is all")
	read.register(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if limit < 0 {
			return usagef("--limit can't be negative")
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		var opts []client.HistoryOption
		for _, o := range read.options() {
			opts = append(opts, o)
		}
		if limit > 0 && limit < 1000 {
			opts = append(opts, client.Limit(limit))
		}
		out := bufio.NewWriter(a.stdout)
		table := newTable(out)
		lines := lineEncoder(out)
		printed := 0
		for v, err := range c.Versions(cmd.Context(), args[0], opts...) {
			if err != nil {
				return aboutKey(args[0], err)
			}
			switch a.output {
			case outputJSON:
				if err := lines.Encode(v); err != nil {
					return err
				}
			case outputRaw:
				row(out, number(v.ModRevision))
			default:
				if printed == 0 {
					row(table, "REVISION", "TIME", "CHANGE", "VALUE")
				}
				row(table, changeCells(&v)...)
			}
			if printed++; printed == limit {
				break
			}
		}
		if err := table.Flush(); err != nil {
			return err
		}
		return out.Flush()
	}
	return cmd
}

func changeCells(v *api.Change) []string {
	change, value := v.Type, preview(v.Value)
	if v.Type == api.TypeDelete {
		change, value = v.Reason, ""
		if change == "" {
			change = v.Type
		}
	}
	return []string{number(v.ModRevision), timeText(v.ModifiedAt), change, value}
}
