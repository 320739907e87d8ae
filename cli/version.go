package cli

import (
	"fmt"
	"io"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/cairnkv/cairn/api"
)

func (a *app) version() *cobra.Command {
	var server bool
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version of this binary or of a node",
		Example: `  cairn version
  cairn version --server`,
		Args: arguments(0, 0),
	}
	cmd.Flags().BoolVar(&server, "server", false, "ask the node instead")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		v := &api.Version{Version: a.build.Version, API: "v1", Go: runtime.Version()}
		if server {
			c, err := a.client()
			if err != nil {
				return err
			}
			if v, err = c.Version(cmd.Context()); err != nil {
				return err
			}
		}
		return a.print(v, func(w io.Writer) {
			fmt.Fprintf(w, "cairn %s (API %s, %s)\n", v.Version, v.API, v.Go)
		}, func(w io.Writer) { fmt.Fprintln(w, v.Version) })
	}
	return cmd
}
