package cli

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/client"
)

const hashHelp = `Print the hash of everything that can be read at a revision.

With several endpoints each is asked for the same revision. Nodes that have the
same history and another hash differ in content: that is exit status 1. Those whose
histories begin at different revisions, since one was asked before a compaction and
the other after it, can't be compared, which is said.`

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
		groups := alike(hashes)
		if line := uncompared(groups); line != "" {
			fmt.Fprintf(a.stderr, "cairn: %s\n", line)
		}
		return differing(groups)
	}
	return cmd
}

// alike parts the hashes into those that can be compared: of the same revision, and of
// history that begins at the same one. Nodes compact one after the other.
func alike(hashes []nodeHash) (groups [][]nodeHash) {
	for _, h := range hashes {
		i := slices.IndexFunc(groups, func(g []nodeHash) bool {
			return g[0].Revision == h.Revision && g[0].CompactRevision == h.CompactRevision
		})
		if i < 0 {
			i, groups = len(groups), append(groups, nil)
		}
		groups[i] = append(groups[i], h)
	}
	return groups
}

// differing is an error if two of the hashes that can be compared differ.
func differing(groups [][]nodeHash) error {
	for _, g := range groups {
		for _, h := range g[1:] {
			if h.Hash.Hash != g[0].Hash.Hash {
				return errors.New(g[0].Endpoint + " and " + h.Endpoint + " differ in content")
			}
		}
	}
	return nil
}

// uncompared says which nodes could not be compared with which; nothing if all could.
func uncompared(groups [][]nodeHash) string {
	if len(groups) < 2 {
		return ""
	}
	var parts []string
	for _, g := range groups {
		var endpoints []string
		for _, h := range g {
			endpoints = append(endpoints, h.Endpoint)
		}
		parts = append(parts, fmt.Sprintf("%s at %d", strings.Join(endpoints, ", "), g[0].CompactRevision))
	}
	return "not all could be compared, since their histories begin at different revisions: " + strings.Join(parts, "; ") + "; ask again"
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
