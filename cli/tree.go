package cli

import (
	"bufio"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

const treeHelp = `Draw the keys as a tree, as if each delimiter began a directory.

A key and the directory of the same name are two lines: "a" is a key, "a/" holds
"a/b".`

const treeExample = `  cairn tree
  cairn tree config/
  cairn tree --depth 2`

func (a *app) tree() *cobra.Command {
	var (
		depth int
		f     levelFlags
	)
	cmd := &cobra.Command{
		Use:               "tree [PREFIX]",
		Short:             "Draw the keys as a tree",
		Long:              treeHelp,
		Example:           treeExample,
		Args:              arguments(0, 1),
		ValidArgsFunction: a.completePrefix,
	}
	cmd.Flags().IntVar(&depth, "depth", 0, "draw this many `levels` and count what lies below them; 0 draws all")
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
		prefix := ""
		if len(args) == 1 {
			prefix = args[0]
		}
		root := &branch{}
		for e, err := range c.All(cmd.Context(), keys, opts...) {
			if err != nil {
				return err
			}
			if a.output == outputJSON {
				if err := lineEncoder(a.stdout).Encode(e); err != nil {
					return err
				}
				continue
			}
			root.add(strings.TrimPrefix(string(e.Key), prefix), f.delimiter, depth)
		}
		if a.output == outputJSON {
			return nil
		}
		w := bufio.NewWriter(a.stdout)
		if prefix == "" {
			fmt.Fprintln(w, ".")
		} else {
			fmt.Fprintln(w, displayKey([]byte(prefix)))
		}
		root.draw(w, "")
		fmt.Fprintf(w, "\n%s\n", plural(root.keys, "key"))
		return w.Flush()
	}
	return cmd
}

// A branch is a directory of the drawing, with what is in it in order.
type branch struct {
	name     string
	children []*branch
	// leaf says that it is a key.
	leaf bool
	// keys counts the keys in it and below.
	keys uint64
	// cut says that what is below is not drawn.
	cut bool
}

// add puts a key, given relative to the branch, into it. Keys come in byte order,
// so that those of one directory follow each other.
func (b *branch) add(key, delimiter string, depth int) {
	b.keys++
	head, rest, deeper := strings.Cut(key, delimiter)
	if !deeper {
		b.children = append(b.children, &branch{name: key, leaf: true})
		return
	}
	name := head + delimiter
	var child *branch
	if n := len(b.children); n > 0 && !b.children[n-1].leaf && b.children[n-1].name == name {
		child = b.children[n-1]
	} else {
		child = &branch{name: name, cut: depth == 1}
		b.children = append(b.children, child)
	}
	if child.cut {
		child.keys++
		return
	}
	child.add(rest, delimiter, depth-1)
}

// draw writes what is in the branch, each line after the indent.
func (b *branch) draw(w io.Writer, indent string) {
	for i, c := range b.children {
		joint, below := "├── ", "│   "
		if i == len(b.children)-1 {
			joint, below = "└── ", "    "
		}
		name := displayKey([]byte(c.name))
		if c.cut {
			name += fmt.Sprintf(" (%s)", plural(c.keys, "key"))
		}
		fmt.Fprintf(w, "%s%s%s\n", indent, joint, name)
		c.draw(w, indent+below)
	}
}
