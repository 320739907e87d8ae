package cli

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/client"
)

const serviceHelp = `Services and their live instances.

An instance is registered with a time to live and listed as long as it is renewed.
Its key is _cairn/services/SERVICE/INSTANCE, which can be watched.`

const serviceExample = `  cairn service register web 1 --address 10.0.0.1 --port 80 --tag blue
  cairn service ls web --tag blue
  cairn service ls`

func (a *app) service() *cobra.Command {
	return a.family(&cobra.Command{
		Use:     "service",
		Short:   "Register instances of services and find them",
		Long:    serviceHelp,
		Example: serviceExample,
	}, a.serviceRegister(), a.serviceLs(), a.serviceGet(), a.serviceDeregister())
}

func (a *app) serviceRegister() *cobra.Command {
	var (
		r    api.Registration
		meta map[string]string
		ttl  time.Duration
	)
	cmd := &cobra.Command{
		Use:   "register SERVICE INSTANCE",
		Short: "Register an instance while this command runs",
		Long: `Register an instance and renew it until the command is interrupted or terminated,
which deregisters it. If the command is gone without a word, the instance goes when
its time to live is over.`,
		Args: arguments(2, 2),
	}
	flags := cmd.Flags()
	flags.StringVar(&r.Address, "address", "", "where the instance is")
	flags.IntVar(&r.Port, "port", 0, "its port")
	flags.StringArrayVar(&r.Tags, "tag", nil, "a `word` by which it can be found; may be repeated")
	flags.StringToStringVar(&meta, "meta", nil, "whatever else is to be known, as `name=value`; may be repeated")
	durationVar(flags, &ttl, "ttl", 10*time.Second, "how long the registration outlives this command")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if ttl < time.Second {
			return usagef("--ttl is a second at least")
		}
		r.Metadata, r.TTLSeconds = meta, float64((ttl+time.Millisecond-1)/time.Millisecond)/1000
		c, err := a.client()
		if err != nil {
			return err
		}
		ctx, stop := untilSignal(cmd)
		defer stop()
		registered, err := c.Register(ctx, args[0], args[1], r)
		if err != nil {
			return err
		}
		fmt.Fprintf(a.stderr, "registered %s of %s\n", args[1], args[0])
		a.reportRenewals(registered)
		limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownLimit)
		defer cancel()
		return registered.Deregister(limited)
	}
	return cmd
}

// reportRenewals says when a registration can't be renewed, and when it is again,
// until it is to end.
func (a *app) reportRenewals(r *client.Registration) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	failing := false
	for {
		select {
		case <-r.Done():
			return
		case <-tick.C:
		}
		switch err := r.Err(); {
		case err != nil && !failing:
			failing = true
			fmt.Fprintf(a.stderr, "cairn: the registration is not renewed, and tried again: %s\n", explain(err, ""))
		case err == nil && failing:
			failing = false
			fmt.Fprintln(a.stderr, "cairn: the registration is renewed again")
		}
	}
}

func (a *app) serviceLs() *cobra.Command {
	var (
		tag  string
		read readFlags
	)
	cmd := &cobra.Command{
		Use:   "ls [SERVICE]",
		Short: "List the live instances of a service, or the services",
		Long: `List the live instances of a service in the order of their names, or, without one,
the services that have a live instance.

With --output json it is an instance a line, with raw the bare names.`,
		Args: arguments(0, 1),
	}
	cmd.Flags().StringVar(&tag, "tag", "", "only instances that have this tag")
	read.register(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		if len(args) == 0 {
			if tag != "" {
				return usagef("--tag goes with a service")
			}
			names := []string{}
			for name, err := range c.Services(cmd.Context(), read.options()...) {
				if err != nil {
					return err
				}
				names = append(names, name)
			}
			lines := func(w io.Writer) {
				for _, name := range names {
					fmt.Fprintln(w, name)
				}
			}
			return a.print(names, lines, lines)
		}
		first := true
		table := newTable(a.stdout)
		for i, err := range c.Instances(cmd.Context(), args[0], tag, read.options()...) {
			if err != nil {
				return err
			}
			switch a.output {
			case outputJSON:
				if err := lineEncoder(a.stdout).Encode(i); err != nil {
					return err
				}
			case outputRaw:
				if _, err := fmt.Fprintln(a.stdout, i.Instance); err != nil {
					return err
				}
			default:
				if first {
					row(table, "INSTANCE", "ADDRESS", "PORT", "TAGS", "SINCE")
				}
				row(table, i.Instance, i.Address, portText(i.Port), strings.Join(i.Tags, " "), timeText(i.ModifiedAt.Time))
			}
			first = false
		}
		return table.Flush()
	}
	return cmd
}

func portText(port int) string {
	if port == 0 {
		return ""
	}
	return fmt.Sprint(port)
}

func (a *app) serviceGet() *cobra.Command {
	var read readFlags
	cmd := &cobra.Command{
		Use:   "get SERVICE INSTANCE",
		Short: "Print an instance",
		Args:  arguments(2, 2),
	}
	read.register(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		i, err := c.Instance(cmd.Context(), args[0], args[1], read.options()...)
		if err != nil {
			return err
		}
		return a.print(i, func(w io.Writer) {
			row(w, "address", i.Address)
			row(w, "port", portText(i.Port))
			row(w, "tags", strings.Join(i.Tags, " "))
			for _, name := range slices.Sorted(maps.Keys(i.Metadata)) {
				row(w, name, i.Metadata[name])
			}
			row(w, "lease", i.Lease)
			row(w, "since", timeText(i.ModifiedAt.Time))
		}, func(w io.Writer) {
			address := i.Address
			if i.Port != 0 {
				address = fmt.Sprint(i.Address, ":", i.Port)
			}
			fmt.Fprintln(w, address)
		})
	}
	return cmd
}

func (a *app) serviceDeregister() *cobra.Command {
	return &cobra.Command{
		Use:   "deregister SERVICE INSTANCE",
		Short: "End the registration of an instance",
		Args:  arguments(2, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			deleted, err := c.Deregister(cmd.Context(), args[0], args[1])
			if err != nil {
				return err
			}
			what := "was not registered"
			if deleted {
				what = "deregistered"
			}
			line := func(w io.Writer) { fmt.Fprintln(w, what) }
			return a.print(map[string]bool{"deregistered": deleted}, line, line)
		},
	}
}
