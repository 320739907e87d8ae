package cli

import (
	"strings"

	"github.com/spf13/cobra"
)

// hideGlobalFlags leaves the flags of clients out of the help of a command that
// is none.
func hideGlobalFlags(cmd *cobra.Command) {
	const section, end = "{{if .HasAvailableInheritedFlags}}", "{{end}}"
	before, rest, ok := strings.Cut(cmd.UsageTemplate(), section)
	if !ok {
		return
	}
	if _, after, ok := strings.Cut(rest, end); ok {
		cmd.SetUsageTemplate(before + after)
	}
}
