package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/client"
)

const memberHelp = `Show and change who belongs to the cluster.

A member is named by its id or by its name. A new one comes in as a learner: it
receives everything and does not vote until it has caught up. One that was
removed never comes back: its node, or another, joins under a new id.`

const memberExample = `  cairn member list
  cairn member add --name n4
  cairn serve --join http://10.0.0.1:7480 --join-token TOKEN …    # on the new node
  cairn member replace n2                       # then start the new node
  cairn member remove n2`

// memberPoll is how often a command that waits for a member looks at it.
const memberPoll = 200 * time.Millisecond

func (a *app) member() *cobra.Command {
	return a.family(&cobra.Command{
		Use:     "member",
		Short:   "Show, add, promote, remove and replace members",
		Long:    memberHelp,
		Example: memberExample,
	}, a.memberList(), a.memberAdd(), a.memberPromote(), a.memberRemove(), a.memberReplace(), a.memberLead())
}

func (a *app) memberList() *cobra.Command {
	var read readFlags
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the members and how they are",
		Long: `List the members and how they are.

Without a majority nobody can say who belongs to the cluster now; --stale asks one
node for what it knows.`,
		Args: arguments(0, 0),
	}
	read.register(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		cluster, err := c.Cluster(cmd.Context(), read.options()...)
		if err != nil {
			return err
		}
		return a.print(cluster, func(w io.Writer) {
			row(w, "ID", "NAME", "STATE", "HEALTH", "LEADER", "LAG", "PEER", "CLIENT")
			for i := range cluster.Members {
				printMember(w, &cluster.Members[i])
			}
		}, func(w io.Writer) {
			for i := range cluster.Members {
				fmt.Fprintln(w, cluster.Members[i].ID)
			}
		})
	}
	return cmd
}

func printMember(w io.Writer, m *api.ClusterMember) {
	health, leader, lag := "no answer", "", ""
	switch {
	case m.State == api.MemberPending:
		health = ""
	case m.Healthy:
		health = "healthy"
	case m.AppliedIndex != nil:
		health = "not ready"
	}
	if m.Leader {
		leader = "leader"
	}
	if m.Lag != nil {
		lag = number(*m.Lag)
	}
	row(w, m.ID, m.Name, m.State, health, leader, lag, m.PeerAddress, m.ClientURL)
}

// printOne prints a member for a command that changed it.
func (a *app) printOne(m *api.ClusterMember) error {
	return a.print(m, func(w io.Writer) { fmt.Fprintf(w, "member %s (%s) is %s\n", m.ID, m.Name, m.State) },
		func(w io.Writer) { fmt.Fprintln(w, m.State) })
}

func (a *app) memberAdd() *cobra.Command {
	var (
		what api.AddMember
		ttl  time.Duration
	)
	cmd := &cobra.Command{
		Use:   "add",
		Short: "Reserve a place for a node, and print the token that it joins with",
		Long: `Reserve a place for a node, and print the token that it joins with. The token is
good for one node and is told this once. With --output raw it prints the bare
token.`,
		Args: arguments(0, 0),
	}
	cmd.Flags().StringVar(&what.Name, "name", "", "`name` of the node; it may say so itself")
	cmd.Flags().BoolVar(&what.Learner, "learner", false, "it stays a learner until it is promoted by command")
	cmd.Flags().DurationVar(&ttl, "token-ttl", 24*time.Hour, "how long the token is good")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if ttl < time.Second || ttl%time.Millisecond != 0 {
			return usagef("--token-ttl is below a second, or finer than milliseconds")
		}
		what.TokenTTLSeconds = ttl.Seconds()
		c, err := a.client()
		if err != nil {
			return err
		}
		added, err := c.AddMember(cmd.Context(), what)
		if err != nil {
			return err
		}
		return a.print(added, func(w io.Writer) { a.printAdded(w, added) }, func(w io.Writer) { fmt.Fprintln(w, added.JoinToken) })
	}
	return cmd
}

func (a *app) printAdded(w io.Writer, added *api.AddedMember) {
	row(w, "member", added.Member.ID)
	row(w, "join token", added.JoinToken)
	row(w, "good until", added.ExpiresAt.UTC().Format(time.RFC3339))
	fmt.Fprintf(w, "start the node with: cairn serve --join %s --join-token %s\n", strings.Join(a.endpoints, ","), added.JoinToken)
}

func (a *app) memberPromote() *cobra.Command {
	return a.memberChange("promote MEMBER", "Make a learner a voter", (*client.Client).PromoteMember)
}

func (a *app) memberRemove() *cobra.Command {
	cmd := a.memberChange("remove MEMBER", "Remove a member for good", (*client.Client).RemoveMember)
	cmd.Long = `Remove a member for good; its node ends by itself. It is refused, with exit status
4, if too few of the voters that would be left answer.`
	return cmd
}

func (a *app) memberChange(use, short string, change func(*client.Client, context.Context, string) (*api.ClusterMember, error)) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Args: arguments(1, 1)}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		m, err := memberNamed(cmd.Context(), c, args[0])
		if err != nil {
			return err
		}
		if m, err = change(c, cmd.Context(), m.ID); err != nil {
			return err
		}
		return a.printOne(m)
	}
	return cmd
}

// memberNamed finds a member by its id or its name.
func memberNamed(ctx context.Context, c *client.Client, name string) (*api.ClusterMember, error) {
	if name == "" { // as one is called that has no name yet
		return nil, usagef("the id or name of the member is empty")
	}
	cluster, err := c.Cluster(ctx)
	if err != nil {
		return nil, err
	}
	for i := range cluster.Members {
		if m := &cluster.Members[i]; m.ID == name || m.Name == name {
			return m, nil
		}
	}
	// It may have been removed, or be a mistake: the node says which.
	return c.Member(ctx, name)
}

func (a *app) memberLead() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "lead [MEMBER]",
		Short: "Hand the leadership to a voter, or to any other one",
		Args:  arguments(0, 1),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		id := ""
		if len(args) == 1 {
			m, err := memberNamed(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			id = m.ID
		}
		leader, err := c.TransferLeader(cmd.Context(), id)
		if err != nil {
			return err
		}
		return a.print(api.ClusterLeader{Leader: leader}, func(w io.Writer) { fmt.Fprintf(w, "member %s leads\n", leader) },
			func(w io.Writer) { fmt.Fprintln(w, leader) })
	}
	return cmd
}

func (a *app) memberReplace() *cobra.Command {
	var (
		name string
		wait time.Duration
	)
	cmd := &cobra.Command{
		Use:   "replace MEMBER",
		Short: "Add a member, wait until its node votes, and remove another",
		Long: `Add a member, print its token, wait until a node has joined with it and votes, and
then remove the old member. So the cluster never has fewer voters than before.
It is also how a node gets another address.

If it is interrupted, or the time is over, nothing was removed: the new member is
there, and "cairn member remove" does the rest.`,
		Args: arguments(1, 1),
	}
	cmd.Flags().StringVar(&name, "name", "", "`name` of the new node; it may say so itself")
	durationVar(cmd.Flags(), &wait, "wait", time.Hour, "how long to wait for the new node to vote")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		old, err := memberNamed(cmd.Context(), c, args[0])
		if err != nil {
			return err
		}
		added, err := c.AddMember(cmd.Context(), api.AddMember{Name: name})
		if err != nil {
			return err
		}
		// The token is for whoever starts the node, while the answer is yet to come.
		w := newTable(a.stderr)
		a.printAdded(w, added)
		if err := w.Flush(); err != nil {
			return err
		}
		if err := untilVoter(cmd.Context(), c, added.Member.ID, wait); err != nil {
			return fmt.Errorf("member %s does not vote yet, and %s was not removed: %w", added.Member.ID, old.ID, err)
		}
		removed, err := c.RemoveMember(cmd.Context(), old.ID)
		if err != nil {
			return err
		}
		return a.printOne(removed)
	}
	return cmd
}

// untilVoter waits until a member votes and is healthy.
func untilVoter(ctx context.Context, c *client.Client, id string, wait time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	tick := time.NewTicker(memberPoll)
	defer tick.Stop()
	for {
		m, err := c.Member(ctx, id)
		switch {
		case err == nil && m.State == api.MemberVoter && m.Healthy:
			return nil
		case err == nil && (m.State == api.MemberRemoving || m.State == api.MemberRemoved):
			return fmt.Errorf("member %s was removed", id)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
