package cli

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/client"
)

const lsHelp = `List one level of the keys: those that begin with the prefix and go on without
the delimiter, and what the others have in common up to the delimiter.

The cost follows what is printed, not what lies below it.`

const lsExample = `  cairn ls
  cairn ls config/
  cairn ls --delimiter : user:`

// levelFlags are the flags of the commands that show keys as levels.
type levelFlags struct {
	delimiter string
	revision  uint64
	read      readFlags
}

func (f *levelFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&f.delimiter, "delimiter", "d", "/", "what ends a level")
	cmd.Flags().Uint64Var(&f.revision, "revision", 0, "as it was at this `revision`")
	f.read.register(cmd)
}

// list gives the keys of the prefix that the arguments name, and the options of
// a list of them without values.
func (f *levelFlags) list(args []string) (client.Keys, []client.ListOption, error) {
	if f.delimiter == "" {
		return client.Keys{}, nil, usagef("--delimiter is empty; list prints every key")
	}
	keys, err := (&rangeFlags{}).keys(args)
	opts := []client.ListOption{client.KeysOnly()}
	for _, o := range f.read.options() {
		opts = append(opts, o)
	}
	if f.revision > 0 {
		opts = append(opts, client.AtRevision(f.revision))
	}
	return keys, opts, err
}

func (a *app) ls() *cobra.Command {
	var f levelFlags
	cmd := &cobra.Command{
		Use:               "ls [PREFIX]",
		Short:             "List one level of keys",
		Long:              lsHelp,
		Example:           lsExample,
		Args:              arguments(0, 1),
		ValidArgsFunction: a.completePrefix,
	}
	f.register(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		keys, opts, err := f.list(args)
		if err != nil {
			return err
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		opts = append(opts, client.Delimiter(f.delimiter), client.Limit(1000))
		w := bufio.NewWriter(a.stdout)
		defer w.Flush()
		for page, err := range c.Pages(cmd.Context(), keys, opts...) {
			if err != nil {
				return err
			}
			if err := a.printLevel(w, page); err != nil {
				return err
			}
		}
		return w.Flush()
	}
	return cmd
}

// A levelItem is a key, or what the keys below it have in common.
type levelItem struct {
	name   []byte
	entry  *api.Entry
	common bool
}

// level are the keys and the common prefixes of a page, in order.
func level(page *api.List) []levelItem {
	items := make([]levelItem, 0, len(page.Entries)+len(page.CommonPrefixes))
	for i := range page.Entries {
		items = append(items, levelItem{name: page.Entries[i].Key, entry: &page.Entries[i]})
	}
	for _, p := range page.CommonPrefixes {
		items = append(items, levelItem{name: p, common: true})
	}
	slices.SortFunc(items, func(a, b levelItem) int { return bytes.Compare(a.name, b.name) })
	return items
}

func (a *app) printLevel(w io.Writer, page *api.List) error {
	lines := lineEncoder(w)
	for _, item := range level(page) {
		var err error
		switch {
		case a.output == outputJSON && item.common:
			err = lines.Encode(commonPrefix(item.name))
		case a.output == outputJSON:
			err = lines.Encode(item.entry)
		case a.output == outputRaw:
			_, err = fmt.Fprintf(w, "%s\n", item.name)
		default:
			_, err = fmt.Fprintln(w, displayKey(item.name))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// commonPrefix writes a common prefix as a stream of the API does.
type commonPrefix []byte

// MarshalJSON writes text as such and other bytes in base64.
func (p commonPrefix) MarshalJSON() ([]byte, error) {
	// A range has the same two forms for its prefix.
	b, err := json.Marshal(api.Delete{Range: api.Range{Prefix: p}})
	if err != nil {
		return nil, err
	}
	return bytes.Replace(b, []byte(`{"prefix`), []byte(`{"common_prefix`), 1), nil
}
