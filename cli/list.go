package cli

import (
	"bufio"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/client"
)

const listHelp = `List the keys of a prefix or a range with their values, however many there are,
as one state of the store.

The answer is printed while it arrives. With --output json it is an entry a line,
with raw the bare keys.`

const listExample = `  cairn list
  cairn list config/
  cairn list --keys-only -o raw sessions/ | wc -l
  cairn list --start a --end b --limit 10
  cairn list --count config/
  cairn list -o json | jq -c '{put: with_entries(select(.key |
    IN("key", "key_base64", "value", "value_base64", "content_type")))}' | cairn bulk --endpoint http://other:7480`

type listFlags struct {
	bounds          rangeFlags
	limit           int
	keysOnly, count bool
	descending      bool
	revision        uint64
	modifiedSince   uint64
	read            readFlags
}

func (a *app) list() *cobra.Command {
	var f listFlags
	cmd := &cobra.Command{
		Use:               "list [PREFIX]",
		Short:             "List keys with their values",
		Long:              listHelp,
		Example:           listExample,
		Args:              arguments(0, 1),
		ValidArgsFunction: a.completePrefix,
	}
	flags := cmd.Flags()
	f.bounds.register(cmd)
	flags.IntVar(&f.limit, "limit", 0, "at most this many `keys`; 0 is all")
	flags.BoolVar(&f.keysOnly, "keys-only", false, "leave the values out")
	flags.BoolVar(&f.count, "count", false, "print only how many keys there are")
	flags.BoolVar(&f.descending, "desc", false, "from the last key to the first")
	flags.Uint64Var(&f.revision, "revision", 0, "as it was at this `revision`")
	flags.Uint64Var(&f.modifiedSince, "modified-since", 0, "only keys that were written at or after this `revision`")
	f.read.register(cmd)
	cmd.MarkFlagsMutuallyExclusive("count", "limit")

	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		keys, err := f.bounds.keys(args)
		if err != nil {
			return err
		}
		if f.limit < 0 {
			return usagef("--limit can't be negative")
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		if f.count {
			return a.printCount(cmd, c, keys, f.options())
		}
		p := a.entryPrinter(f.keysOnly)
		for e, err := range c.Scan(cmd.Context(), keys, f.options()...) {
			if err == nil {
				err = p.print(&e)
			}
			if err != nil {
				// What came before the failure is shown, and then the failure.
				_ = p.flush()
				return err
			}
		}
		return p.flush()
	}
	return cmd
}

func (f *listFlags) options() (opts []client.ListOption) {
	for _, o := range f.read.options() {
		opts = append(opts, o)
	}
	if f.limit > 0 {
		opts = append(opts, client.Limit(f.limit))
	}
	if f.keysOnly {
		opts = append(opts, client.KeysOnly())
	}
	if f.descending {
		opts = append(opts, client.Descending())
	}
	if f.revision > 0 {
		opts = append(opts, client.AtRevision(f.revision))
	}
	if f.modifiedSince > 0 {
		opts = append(opts, client.ModifiedBetween(f.modifiedSince, 0))
	}
	return opts
}

func (a *app) printCount(cmd *cobra.Command, c *client.Client, keys client.Keys, opts []client.ListOption) error {
	count, revision, err := c.Count(cmd.Context(), keys, opts...)
	if err != nil {
		return err
	}
	answer := struct {
		Revision uint64 `json:"revision"`
		Count    uint64 `json:"count"`
	}{revision, count}
	bare := func(w io.Writer) { fmt.Fprintln(w, count) }
	return a.print(answer, bare, bare)
}

// An entryPrinter prints entries while they arrive.
type entryPrinter struct {
	print func(*api.Entry) error
	flush func() error
}

// tableRows is how many rows of a table are laid out together. A table of any
// length is printed with little memory, and columns move only now and then.
const tableRows = 256

func (a *app) entryPrinter(keysOnly bool) *entryPrinter {
	out := bufio.NewWriter(a.stdout)
	p := &entryPrinter{flush: out.Flush}
	switch a.output {
	case outputJSON:
		lines := lineEncoder(out)
		p.print = func(e *api.Entry) error { return lines.Encode(e) }
	case outputRaw:
		p.print = func(e *api.Entry) error {
			_, err := fmt.Fprintf(out, "%s\n", e.Key)
			return err
		}
	default:
		table := newTable(out)
		rows := 0
		p.print = func(e *api.Entry) error {
			if rows == 0 {
				row(table, entryTitles(keysOnly)...)
			}
			row(table, entryCells(e, keysOnly)...)
			if rows++; rows%tableRows == 0 {
				return table.Flush()
			}
			return nil
		}
		p.flush = func() error {
			if err := table.Flush(); err != nil {
				return err
			}
			return out.Flush()
		}
	}
	return p
}

func entryTitles(keysOnly bool) []string {
	if keysOnly {
		return []string{"REVISION", "VERSION", "KEY"}
	}
	return []string{"REVISION", "VERSION", "KEY", "VALUE"}
}

func entryCells(e *api.Entry, keysOnly bool) []string {
	cells := []string{number(e.ModRevision), number(e.Version), displayKey(e.Key)}
	if !keysOnly {
		cells = append(cells, preview(e.Value))
	}
	return cells
}
