package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/cairnkv/cairn/client"
)

const electHelp = `Run a command while leading an election, or see who leads.

The command is run once this candidate is elected, in the order of the candidates,
and its exit status is passed on. If the lead is lost the command is ended, as with
'cairn lock'. CAIRN_FENCING and CAIRN_ELECTION_TOKEN are to the leader what
CAIRN_FENCING and CAIRN_LOCK_TOKEN are to a lock's holder.

Without a command it prints who leads and who would.`

const electExample = `  cairn elect scheduler --value http://10.0.0.1:8080 -- ./scheduler
  cairn elect scheduler -o raw                   # what the leader proclaims`

func (a *app) elect() *cobra.Command {
	var (
		hold  holdFlags
		value string
	)
	cmd := &cobra.Command{
		Use:     "elect NAME [-- COMMAND...]",
		Short:   "Run a command as the leader of an election",
		Long:    electHelp,
		Example: electExample,
		Args:    nameAndCommand,
	}
	hold.register(cmd)
	cmd.Flags().StringVar(&value, "value", "", "what the leader proclaims (default host and process)")
	cmd.RunE = a.runGuarded(&hold, guard{
		what: "the lead of",
		take: func(ctx context.Context, c *client.Client, name string, before func(int)) (*held, error) {
			if !cmd.Flags().Changed("value") {
				value = ownName()
			}
			l, err := c.Campaign(ctx, name, []byte(value), client.CampaignOptions{TTL: hold.ttl, Waiting: before})
			if err != nil {
				return nil, err
			}
			return &held{
				fence: l.Fence, token: l.Token, tokenEnv: envElectionToken,
				lost: l.Lost(), err: l.Err, release: l.Resign, releaseWord: "resigned",
			}, nil
		},
		others: electionOthers,
		show:   a.electionState,
	})
	return cmd
}

// electionOthers says who is before a candidate.
func electionOthers(ctx context.Context, c *client.Client, name string) (string, error) {
	s, err := c.Election(ctx, name)
	switch {
	case err != nil:
		return "", err
	case s.Leader == nil:
		return "nobody leads", nil
	}
	return fmt.Sprintf("%s leads, candidates: %d", preview(s.Leader.Value), s.Waiting), nil
}

// electionState prints who leads and who would.
func (a *app) electionState(ctx context.Context, c *client.Client, name string) error {
	s, err := c.Election(ctx, name)
	if err != nil {
		return err
	}
	return a.print(s, func(w io.Writer) {
		if s.Leader == nil {
			fmt.Fprintln(w, "nobody leads")
		} else {
			row(w, "leads", preview(s.Leader.Value))
			row(w, "token", number(s.Leader.Token))
			row(w, "lease", s.Leader.Lease)
			row(w, "since", timeText(s.Leader.ModifiedAt))
		}
		if s.Waiting > 0 {
			row(w, "candidates", number(uint64(s.Waiting)))
		}
	}, func(w io.Writer) {
		if s.Leader != nil {
			fmt.Fprintf(w, "%s\n", s.Leader.Value)
		}
	})
}
