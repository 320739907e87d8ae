package cli

import (
	"io"

	"github.com/spf13/cobra"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/client"
)

const getHelp = `Print the value of a key, byte for byte. On a terminal a newline follows.

With --output json or table it is the whole entry. A key that does not exist is
exit status 3.`

const getExample = `  cairn get greeting
  cairn get config/app.yaml > app.yaml
  cairn get -o json greeting
  cairn get --revision 42 greeting          # as it was then`

func (a *app) get() *cobra.Command {
	var (
		revision uint64
		read     readFlags
	)
	cmd := &cobra.Command{
		Use:               "get KEY",
		Short:             "Print the value of a key",
		Long:              getHelp,
		Example:           getExample,
		Args:              arguments(1, 1),
		ValidArgsFunction: a.completeKey,
	}
	cmd.Flags().Uint64Var(&revision, "revision", 0, "as it was at this `revision`")
	read.register(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		var opts []client.GetOption
		for _, o := range read.options() {
			opts = append(opts, o)
		}
		if revision > 0 {
			opts = append(opts, client.AtRevision(revision))
		}
		entry, err := c.Get(cmd.Context(), args[0], opts...)
		if err != nil {
			return aboutKey(args[0], err)
		}
		return a.printEntry(entry)
	}
	return cmd
}

// printEntry prints the value alone unless another form is asked for.
func (a *app) printEntry(e *api.Entry) error {
	if a.output == "" || a.output == outputRaw {
		value := e.Value
		if isTerminal(a.stdout) {
			value = append(value, '\n')
		}
		_, err := a.stdout.Write(value)
		return err
	}
	return a.print(e, func(w io.Writer) {
		row(w, "key", displayKey(e.Key))
		row(w, "value", preview(e.Value))
		row(w, "size", sizeText(uint64(len(e.Value))))
		row(w, "created at", number(e.CreateRevision))
		row(w, "modified at", number(e.ModRevision))
		row(w, "version", number(e.Version))
		if e.ContentType != "" {
			row(w, "content type", escape([]byte(e.ContentType)))
		}
		if e.Lease != "" {
			row(w, "lease", e.Lease)
		}
		row(w, "time", timeText(e.ModifiedAt))
	}, nil)
}
