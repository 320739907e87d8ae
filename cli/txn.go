package cli

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/cairnkv/cairn/api"
)

const txnHelp = `Run a transaction: if every compare holds then do one list of operations, else the
other, all in one step.

It is JSON, from a file or the standard input, as POST /v1/txn takes it:

  {"if":   [{"key": "a", "mod_revision": {"eq": 9}}, {"key": "b", "exists": false}],
   "then": [{"put": {"key": "a", "value": "y"}}, {"increment": {"key": "n", "by": 2}}],
   "else": [{"get": {"key": "a"}}]}

Compares look at value, version, create_revision, mod_revision or lease with eq,
ne, gt, ge, lt or le, or at exists. Operations are get, put, delete, increment and
a nested txn.

That the compares do not hold is an answer and no error, unless --must-succeed
makes it exit status 4.`

const txnExample = `  cairn txn move.json
  echo '{"then":[{"increment":{"key":"hits","by":1}}]}' | cairn txn --idempotent
  cairn txn --must-succeed lock.json || echo "someone else was faster"`

// txnLimit is the most that the body of a request may have.
const txnLimit = 3 << 19

// errNotSucceeded is how --must-succeed says that the compares did not hold.
var errNotSucceeded = errors.New("the compares did not hold, so that else was done")

func (a *app) txn() *cobra.Command {
	var (
		must  bool
		write writeFlags
	)
	cmd := &cobra.Command{
		Use:     "txn [FILE | -]",
		Short:   "Run a transaction",
		Long:    txnHelp,
		Example: txnExample,
		Args:    arguments(0, 1),
	}
	cmd.Flags().BoolVar(&must, "must-succeed", false, "exit with status 4 if the compares do not hold")
	write.registerFenced(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		name := "-"
		if len(args) == 1 {
			name = args[0]
		}
		f, err := a.open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		body, err := readLimited(f, txnLimit)
		if err != nil {
			return err
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		result, err := c.TxnJSON(cmd.Context(), body, write.options()...)
		if err != nil {
			return err
		}
		err = a.print(result, func(w io.Writer) {
			fmt.Fprintf(w, "%s at revision %d\n", branchName(result), result.Revision)
			printResults(w, result.Results, "")
		}, func(w io.Writer) { fmt.Fprintln(w, result.Succeeded) })
		if err == nil && must && !result.Succeeded {
			return errNotSucceeded
		}
		return err
	}
	return cmd
}

func branchName(r *api.TxnResult) string {
	if r.Succeeded {
		return "then"
	}
	return "else"
}

// printResults prints a line for each operation, and its entries below it.
func printResults(w io.Writer, results []api.OpResult, indent string) {
	for i := range results {
		r := &results[i]
		switch {
		case r.Put != nil && r.Put.Created:
			row(w, indent+"put", "created")
		case r.Put != nil:
			row(w, indent+"put", "updated")
		case r.Increment != nil:
			row(w, indent+"increment", fmt.Sprint(r.Increment.Value))
		case r.Delete != nil:
			row(w, indent+"delete", plural(r.Delete.Deleted, "key"))
			printEntries(w, r.Delete.Prev, indent)
		case r.Get != nil && r.Get.Count != nil:
			row(w, indent+"get", plural(*r.Get.Count, "key"))
			printEntries(w, r.Get.Entries, indent)
		case r.Get != nil:
			row(w, indent+"get", plural(uint64(len(r.Get.Entries)), "key"))
			printEntries(w, r.Get.Entries, indent)
		case r.Txn != nil:
			row(w, indent+"txn", branchName(r.Txn))
			printResults(w, r.Txn.Results, indent+"  ")
		}
	}
}

func printEntries(w io.Writer, entries []api.Entry, indent string) {
	for i := range entries {
		row(w, indent+"  "+displayKey(entries[i].Key), preview(entries[i].Value))
	}
}
