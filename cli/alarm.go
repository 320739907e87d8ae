package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cairnkv/cairn/api"
)

const alarmHelp = `Show and clear alarms: conditions of members that an operator has to look at.

  no-space   The disk or the quota of a member is full. All members refuse what
             grows the store. It ends by itself once there is room.
  corrupt    What a member has stored differs from what the majority has. It serves
             nobody. Without a member, no majority is of one mind and nobody serves.
             It ends when the member is removed, or when it is cleared.

"cairn status" shows them, too.`

const alarmExample = `  cairn alarm list
  cairn alarm list --stale                  # when there is no majority
  cairn alarm clear corrupt
  cairn alarm clear --member n2
  cairn alarm clear --all`

func (a *app) alarm() *cobra.Command {
	return a.family(&cobra.Command{
		Use:     "alarm",
		Short:   "Show and clear alarms",
		Long:    alarmHelp,
		Example: alarmExample,
	}, a.alarmList(), a.alarmClear())
}

func (a *app) alarmList() *cobra.Command {
	var read readFlags
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the alarms that are on",
		Long: `List the alarms that are on.

With --output raw it is the type and the id of the member, with a tab between them.`,
		Args: arguments(0, 0),
	}
	read.register(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		alarms, err := c.Alarms(cmd.Context(), read.options()...)
		if err != nil {
			return err
		}
		status, err := c.Status(cmd.Context())
		if err != nil {
			return err
		}
		names := memberNames(status)
		return a.print(alarms, func(w io.Writer) {
			if len(alarms.Alarms) == 0 {
				fmt.Fprintln(w, "no alarms")
				return
			}
			row(w, "TYPE", "MEMBER", "NAME")
			for _, alarm := range alarms.Alarms {
				row(w, alarm.Type, alarm.Member, names[alarm.Member])
			}
		}, func(w io.Writer) {
			for _, alarm := range alarms.Alarms {
				row(w, alarm.Type, alarm.Member)
			}
		})
	}
	return cmd
}

func (a *app) alarmClear() *cobra.Command {
	var (
		member string
		all    bool
		write  writeFlags
	)
	cmd := &cobra.Command{
		Use:   "clear [TYPE]",
		Short: "Clear alarms",
		Long: `Clear alarms: those of a type (no-space or corrupt), those of a member or, with both,
those of the type that the member has.

One whose cause is still there is raised again. A member whose content is corrupt
serves until its content has been compared again: remove or replace it instead,
which ends its alarm, too.`,
		Args:      arguments(0, 1),
		ValidArgs: []cobra.Completion{api.AlarmNoSpace, api.AlarmCorrupt},
	}
	cmd.Flags().StringVar(&member, "member", "", "only alarms of this `member`, by its id or its name")
	cmd.Flags().BoolVar(&all, "all", false, "every alarm")
	cmd.MarkFlagsMutuallyExclusive("member", "all")
	write.register(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		typed, named := len(args) == 1, cmd.Flags().Changed("member")
		switch {
		case typed && all:
			return usagef("give a type or --all, not both")
		case typed && !slices.Contains(cmd.ValidArgs, args[0]):
			return usagef("there is no alarm %q, want %s", args[0], strings.Join(cmd.ValidArgs, " or "))
		case named && member == "":
			return usagef("--member is empty; --all clears every alarm")
		case !typed && !named && !all:
			return usagef("which alarms are to be cleared? Give a type, --member, or --all")
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		var which api.Alarm
		if typed {
			which.Type = args[0]
		}
		if named {
			// A member in quarantine says who belongs to the cluster in its status
			// alone.
			status, err := c.Status(cmd.Context())
			if err != nil {
				return err
			}
			which.Member = memberID(status, member)
		}
		cleared, err := c.ClearAlarms(cmd.Context(), which, write.options()...)
		if err != nil {
			return err
		}
		return a.print(cleared, func(w io.Writer) {
			fmt.Fprintf(w, "cleared %s\n", plural(uint64(cleared.Cleared), "alarm"))
		}, func(w io.Writer) { fmt.Fprintln(w, cleared.Cleared) })
	}
	return cmd
}

// memberID is the id of a member that is named by it or by its name. What is neither
// is for the node to refuse.
func memberID(s *api.Status, name string) string {
	for _, m := range s.Members {
		if m.Name == name {
			return m.ID
		}
	}
	return name
}
