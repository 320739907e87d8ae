package cli

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/cairnkv/cairn/node"
)

const doctorHelp = `Look at the data directory of a node that does not run.

It reads everything in it and changes nothing: whose directory it is, whether
every checksum is right, whether the Raft log has all that it is known to have
had and goes on from what the store has applied, what the alarms say, and
whether there is room. The log is looked at in a copy, for which the directory
for temporary files needs room (TMPDIR). A copy of the directory can be looked at
as well, on any machine.

For each thing it says what it found and, where something is wrong, what to do
next. Exit status 0: the node may be started. 1: something is wrong, or could
not be looked at.`

const doctorExample = `  cairn doctor --data-dir /var/lib/cairn
  cairn doctor --data-dir /var/lib/cairn -o json`

var errNotSound = errors.New("something is wrong with the data directory")

func (a *app) doctor() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:     "doctor",
		Short:   "Look at a data directory for damage",
		Long:    doctorHelp,
		Example: doctorExample,
		Args:    arguments(0, 0),
	}
	cmd.Flags().StringVar(&dir, "data-dir", "cairn-data", "`directory` of the data")
	_ = cmd.MarkFlagDirname("data-dir")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		ctx, stop := untilSignal(cmd) // so that no copy of the log is left behind
		defer stop()
		findings := node.Examine(ctx, dir)
		sound := node.Sound(findings)
		lines := func(w io.Writer) {
			for _, f := range findings {
				fmt.Fprintf(w, "%-8s %-10s %s\n", f.Verdict, f.Check, oneLine(f.Detail))
				if f.Next != "" {
					fmt.Fprintf(w, "%19s→ %s\n", "", f.Next)
				}
			}
		}
		answer := struct {
			Sound    bool           `json:"sound"`
			Findings []node.Finding `json:"findings"`
		}{sound, findings}
		if err := a.print(answer, lines, lines); err != nil {
			return err
		}
		if !sound {
			return errNotSound
		}
		return nil
	}
	return cmd
}
