package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/client"
)

const leaseHelp = `Keys that live as long as somebody says so.

A lease ends when nobody has renewed it for its time to live, or when it is
revoked. The keys that are attached to it, by put --lease, are then deleted, in
one transaction. A lease is named by its id or by its number.`

const leaseExample = `  id=$(cairn lease grant 30s -o raw)
  cairn put --lease $id service/web1 10.0.0.1:80
  cairn lease hold $id                      # renews it until it is interrupted`

func (a *app) lease() *cobra.Command {
	return a.family(&cobra.Command{
		Use:     "lease",
		Short:   "Grant, renew, hold and revoke leases",
		Long:    leaseHelp,
		Example: leaseExample,
	}, a.leaseGrant(), a.leaseRenew(), a.leaseHold(), a.leaseGet(), a.leaseLs(), a.leaseRevoke())
}

func (a *app) leaseGrant() *cobra.Command {
	var (
		id    string
		write writeFlags
	)
	cmd := &cobra.Command{
		Use:   "grant TTL",
		Short: "Make a lease",
		Long: `Make a lease with a time to live, such as 30s, 5m or 168h, of a second at least.

With --output raw it prints the bare id.`,
		Args: arguments(1, 1),
	}
	cmd.Flags().Var((*given)(&id), "id", "an `id` of your own, a ULID, or a number from 1 to 2^63-1")
	write.register(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ttl, err := parseTTL(args[0])
		if err != nil {
			return err
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		g, err := c.Leases().GrantAs(cmd.Context(), id, ttl, write.options()...)
		if err != nil {
			return err
		}
		return a.print(g, func(w io.Writer) { printGranted(w, g) }, func(w io.Writer) { fmt.Fprintln(w, g.ID) })
	}
	return cmd
}

// maxTTLSeconds is the longest time to live, about what a Duration holds.
const maxTTLSeconds = 9_000_000_000

// parseTTL reads a time to live.
func parseTTL(s string) (time.Duration, error) {
	d, err := parseDuration(s)
	if err != nil || d <= 0 {
		return 0, usagef("%q is not a time to live such as 30s, 5m or 168h", s)
	}
	return d, nil
}

func printGranted(w io.Writer, g *api.Granted) {
	row(w, "lease", g.ID)
	row(w, "number", g.Number)
	row(w, "time to live", secondsText(g.TTLSeconds))
}

// secondsText is a time in seconds as people write it.
func secondsText(seconds float64) string {
	if seconds > 1e9 { // more than a Duration holds
		return strconv.FormatFloat(seconds, 'f', -1, 64) + "s"
	}
	return time.Duration(seconds * float64(time.Second)).Round(time.Millisecond).String()
}

func (a *app) leaseRenew() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "renew LEASE...",
		Short: "Let the time to live of leases begin anew",
		Long: `Let the time to live of leases begin anew, all in one step.

The exit status is 3 if one of them does not exist; the others are renewed.`,
		Args: arguments(1, 10_000),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		renewed, err := c.Leases().RenewMany(cmd.Context(), args)
		if err != nil {
			return err
		}
		err = a.print(renewed, func(w io.Writer) {
			row(w, "LEASE", "NUMBER", "TIME TO LIVE")
			for _, l := range renewed.Leases {
				if l.Error != "" {
					row(w, l.ID, "", string(l.Error))
					continue
				}
				row(w, l.ID, l.Number, secondsText(l.TTLSeconds))
			}
		}, func(w io.Writer) {
			for _, l := range renewed.Leases {
				if l.Error == "" {
					fmt.Fprintln(w, l.ID)
				}
			}
		})
		if err != nil {
			return err
		}
		for _, l := range renewed.Leases {
			if l.Error != "" {
				return leaseGone(l.ID)
			}
		}
		return nil
	}
	return cmd
}

// leaseGone is the error of a lease that does not exist, where the answer that says
// so was no error itself.
func leaseGone(id string) error {
	info, _ := api.CodeLeaseNotFound.Info()
	return &client.Error{Problem: api.Problem{
		Status: info.Status, Code: info.Code, Title: info.Title, Detail: "there is no lease " + id,
	}}
}

func (a *app) leaseHold() *cobra.Command {
	return &cobra.Command{
		Use:   "hold LEASE",
		Short: "Renew a lease until interrupted",
		Long: `Renew a lease until the command is interrupted or terminated; its time to live then
runs out. If the lease is lost before, by its end or because no node answers for
as long as it lives, the command says so, and its exit status is 4.`,
		Args: arguments(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			ctx, stop := untilSignal(cmd)
			defer stop()
			k, err := c.Leases().KeepAlive(ctx, args[0])
			if err != nil {
				return err
			}
			fmt.Fprintln(a.stderr, "holding the lease", args[0])
			<-k.Done()
			if err := k.Err(); err != nil {
				return &lostError{"the lease " + args[0] + " was lost", err}
			}
			return nil
		},
	}
}

func (a *app) leaseGet() *cobra.Command {
	var (
		keys bool
		read readFlags
	)
	cmd := &cobra.Command{
		Use:   "get LEASE",
		Short: "Print how long a lease lives, and its keys",
		Long: `Print how long a lease lives at least if nobody renews it, and how many keys it
has. With --keys they follow, one a line.`,
		Args: arguments(1, 1),
	}
	cmd.Flags().BoolVar(&keys, "keys", false, "print the attached keys, too")
	read.register(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		leases := c.Leases()
		l, err := leases.Lookup(cmd.Context(), args[0], read.options()...)
		if err != nil {
			return err
		}
		if keys {
			if l.Keys, err = collectKeys(cmd.Context(), leases, args[0], read.options()); err != nil {
				return err
			}
		}
		return a.print(l, func(w io.Writer) {
			row(w, "lease", l.ID)
			row(w, "number", l.Number)
			row(w, "time to live", secondsText(l.TTLSeconds))
			row(w, "remaining", secondsText(l.RemainingSeconds))
			row(w, "keys", number(l.KeyCount))
			for _, key := range l.Keys {
				row(w, "", displayKey(key))
			}
		}, func(w io.Writer) {
			if !keys {
				fmt.Fprintln(w, strconv.FormatFloat(l.RemainingSeconds, 'f', -1, 64))
			}
			for _, key := range l.Keys {
				fmt.Fprintf(w, "%s\n", key)
			}
		})
	}
	return cmd
}

func collectKeys(ctx context.Context, leases *client.Leases, id string, read []client.ReadOption) (keys [][]byte, err error) {
	for key, err := range leases.Keys(ctx, id, read...) {
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	return keys, nil
}

func (a *app) leaseLs() *cobra.Command {
	var read readFlags
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List leases",
		Long: `List leases in the order of their ids.

With --output json it is a lease a line, with raw the bare ids.`,
		Args: arguments(0, 0),
	}
	read.register(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		out := bufio.NewWriter(a.stdout)
		table := newTable(out)
		lines := lineEncoder(out)
		first := true
		for l, err := range c.Leases().List(cmd.Context(), read.options()...) {
			if err != nil {
				return err
			}
			switch a.output {
			case outputJSON:
				if err := lines.Encode(l); err != nil {
					return err
				}
			case outputRaw:
				row(out, l.ID)
			default:
				if first {
					row(table, "LEASE", "NUMBER", "TIME TO LIVE", "REMAINING", "KEYS")
				}
				row(table, l.ID, l.Number, secondsText(l.TTLSeconds), secondsText(l.RemainingSeconds), number(l.KeyCount))
			}
			first = false
		}
		if err := table.Flush(); err != nil {
			return err
		}
		return out.Flush()
	}
	return cmd
}

func (a *app) leaseRevoke() *cobra.Command {
	var write writeFlags
	cmd := &cobra.Command{
		Use:   "revoke LEASE",
		Short: "End a lease and delete its keys",
		Args:  arguments(1, 1),
	}
	write.register(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		r, err := c.Leases().Revoke(cmd.Context(), args[0], write.options()...)
		if err != nil {
			return err
		}
		return a.print(r, func(w io.Writer) {
			fmt.Fprintf(w, "revoked at revision %d, with %s\n", r.Revision, plural(r.Deleted, "key"))
		}, func(w io.Writer) { fmt.Fprintln(w, r.Deleted) })
	}
	return cmd
}
