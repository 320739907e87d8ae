package cli

import (
	"errors"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/cairnkv/cairn/client"
)

// readFlags say how fresh a read must be, for the commands that read.
type readFlags struct {
	stale        bool
	minRevision  uint64
	maxStaleness time.Duration
}

func (f *readFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.BoolVar(&f.stale, "stale", false, "read what the node has, without asking the others")
	flags.Uint64Var(&f.minRevision, "min-revision", 0, "read as soon as the node has this `revision`, without asking the others")
	flags.DurationVar(&f.maxStaleness, "max-staleness", 0, "read what the node has if it knows that it is not older than this")
	cmd.MarkFlagsMutuallyExclusive("stale", "min-revision")
	cmd.MarkFlagsMutuallyExclusive("stale", "max-staleness")
	cmd.MarkFlagsMutuallyExclusive("min-revision", "max-staleness")
}

func (f *readFlags) options() (opts []client.ReadOption) {
	if f.stale {
		opts = append(opts, client.Stale())
	}
	if f.minRevision > 0 {
		opts = append(opts, client.MinRevision(f.minRevision))
	}
	if f.maxStaleness > 0 {
		opts = append(opts, client.MaxStaleness(f.maxStaleness))
	}
	return opts
}

// given is the value of a flag that can't be empty: with a variable that was not set, the
// flag would else be as good as left out, and the write another one than was meant.
type given string

func (g *given) Set(s string) error {
	if s == "" {
		return errors.New("it is empty; leave the flag out if none is meant")
	}
	*g = given(s)
	return nil
}

func (g *given) String() string { return string(*g) }
func (g *given) Type() string   { return "string" }

// writeFlags make a write safe to repeat, for the commands that write.
type writeFlags struct {
	idempotent bool
	key        string
	// fencing is only for those that write keys.
	fencing string
}

func (f *writeFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.BoolVar(&f.idempotent, "idempotent", false, "repeat the write if its outcome is unknown; it is applied once (costs the cluster a record for ten minutes)")
	flags.Var((*given)(&f.key), "idempotency-key", "as --idempotent, with a `key` of your own, to run the same command again later")
	cmd.MarkFlagsMutuallyExclusive("idempotent", "idempotency-key")
}

// registerFenced is register for the commands that write keys, which can be bound
// to a holder.
func (f *writeFlags) registerFenced(cmd *cobra.Command) {
	f.register(cmd)
	f.fencing = os.Getenv(envFencing)
	cmd.Flags().Var((*given)(&f.fencing), "fencing", "write only as long as the holder with this `fence` is one (default $"+envFencing+")")
	cmd.Flags().Lookup("fencing").DefValue = ""
}

func (f *writeFlags) options() (opts []client.WriteOption) {
	switch {
	case f.key != "":
		opts = append(opts, client.IdempotencyKey(f.key))
	case f.idempotent:
		opts = append(opts, client.Idempotent())
	}
	if f.fencing != "" {
		opts = append(opts, client.Fenced(f.fencing))
	}
	return opts
}

// repeats reports whether the write may be repeated.
func (f *writeFlags) repeats() bool { return f.idempotent || f.key != "" }

// rangeFlags say which keys, for the commands that take a prefix as argument or a
// range.
type rangeFlags struct {
	start, end string
}

func (f *rangeFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.start, "start", "", "the first `key`, instead of a prefix")
	cmd.Flags().StringVar(&f.end, "end", "", "the `key` to stop before, instead of a prefix")
}

// keys are those that an optional prefix or the flags say; all, if neither does.
func (f *rangeFlags) keys(args []string) (client.Keys, error) {
	switch {
	case len(args) == 1 && (f.start != "" || f.end != ""):
		return client.Keys{}, usagef("give a prefix, or --start and --end, not both")
	case len(args) == 1 && args[0] != "":
		return client.Prefix(args[0]), nil
	case f.start != "" || f.end != "":
		return client.Range(f.start, f.end), nil
	}
	return client.EveryKey(), nil
}
