package cli

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/client"
)

const hashHelp = `Print the hash of everything that can be read at a revision.

With several endpoints each is asked for the same revision. Nodes that have the
same history and another hash differ in content: that is exit status 1.`

const hashExample = `  cairn hash
  cairn hash --revision 42
  cairn hash --endpoint http://10.0.0.1:7480,http://10.0.0.2:7480`

// A nodeHash is the hash of one node.
type nodeHash struct {
	Endpoint string `json:"endpoint"`
	*api.Hash
}

func (a *app) hash() *cobra.Command {
	var revision uint64
	cmd := &cobra.Command{
		Use:     "hash",
		Short:   "Print the hash of the content",
		Long:    hashHelp,
		Example: hashExample,
		Args:    arguments(0, 0),
	}
	cmd.Flags().Uint64Var(&revision, "revision", 0, "as it was at this `revision` (default: the newest of the first endpoint)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		hashes, err := a.hashes(cmd, revision)
		if err != nil {
			return err
		}
		err = a.print(hashes, func(w io.Writer) {
			row(w, "ENDPOINT", "REVISION", "COMPACTED", "HASH")
			for _, h := range hashes {
				row(w, h.Endpoint, number(h.Revision), number(h.CompactRevision), h.Hash.Hash)
			}
		}, func(w io.Writer) {
			for _, h := range hashes {
				fmt.Fprintln(w, h.Hash.Hash)
			}
		})
		if err != nil {
			return err
		}
		for _, h := range hashes[1:] {
			first := hashes[0]
			if h.CompactRevision == first.CompactRevision && h.Hash.Hash != first.Hash.Hash {
				return errors.New(first.Endpoint + " and " + h.Endpoint + " differ in content")
			}
		}
		return nil
	}
	return cmd
}

func (a *app) hashes(cmd *cobra.Command, revision uint64) ([]nodeHash, error) {
	var hashes []nodeHash
	for _, endpoint := range a.endpoints {
		c, err := a.clientFor([]string{endpoint})
		if err != nil {
			return nil, err
		}
		var opts []client.GetOption
		if revision > 0 {
			opts = append(opts, client.AtRevision(revision))
		}
		h, err := c.Hash(cmd.Context(), opts...)
		if err != nil {
			return nil, err
		}
		revision = h.Revision
		hashes = append(hashes, nodeHash{endpoint, h})
	}
	return hashes, nil
}
