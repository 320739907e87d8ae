package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/client"
)

const statusHelp = `Print what each endpoint knows of itself and of its cluster, and whether it is
ready: it can serve linearizable reads and writes.

An endpoint that does not answer or is not ready is exit status 5. --wait waits
for all of them to be ready and to know their leader: for scripts that have just
started a node.`

const statusExample = `  cairn status
  cairn status --wait 10s
  cairn status --endpoint http://10.0.0.1:7480,http://10.0.0.2:7480
  cairn status -o json | jq .status.revision`

// A nodeStatus is what is printed of an endpoint.
type nodeStatus struct {
	Endpoint string      `json:"endpoint"`
	Ready    bool        `json:"ready"`
	Status   *api.Status `json:"status,omitempty"`
	Error    string      `json:"error,omitempty"`

	err error
}

func (a *app) status() *cobra.Command {
	var wait time.Duration
	cmd := &cobra.Command{
		Use:     "status",
		Short:   "Print the state of the nodes",
		Long:    statusHelp,
		Example: statusExample,
		Args:    arguments(0, 0),
	}
	durationVar(cmd.Flags(), &wait, "wait", 0, "wait this long for every endpoint to be ready")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var nodes []nodeStatus
		for _, endpoint := range a.endpoints {
			c, err := a.clientFor([]string{endpoint})
			if err != nil {
				return err
			}
			nodes = append(nodes, statusOf(cmd.Context(), c, endpoint, wait))
		}
		if err := a.printStatus(nodes); err != nil {
			return err
		}
		for i := range nodes {
			if nodes[i].err != nil {
				return nodes[i].err
			}
		}
		return nil
	}
	return cmd
}

// statusOf asks a node until it is ready and knows its leader, at most for the time
// of wait. A node that has just been ready may know none: it misses the leader for
// an election timeout before its last round is too old.
func statusOf(ctx context.Context, c *client.Client, endpoint string, wait time.Duration) nodeStatus {
	const pause = 50 * time.Millisecond
	deadline := time.Now().Add(wait)
	for {
		n := statusNow(ctx, c, endpoint)
		if n.Ready && n.Status != nil && n.Status.Leader != "" || time.Until(deadline) < pause {
			return n
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return n
		}
	}
}

func statusNow(ctx context.Context, c *client.Client, endpoint string) nodeStatus {
	n := nodeStatus{Endpoint: endpoint}
	if n.err = c.Ready(ctx); n.err == nil {
		n.Ready = true
	}
	// A node that is not ready still knows something, if it answers at all.
	var refused *client.Error
	if n.Ready || errors.As(n.err, &refused) && refused.Problem.Status != 0 {
		var err error
		if n.Status, err = c.Status(ctx); err != nil {
			n.err = errors.Join(n.err, err)
		}
	}
	if n.err != nil {
		n.Error = oneLine(n.err.Error())
	}
	return n
}

func (a *app) printStatus(nodes []nodeStatus) error {
	switch a.output {
	case outputJSON:
		// Several are a line each, as all that there can be many of.
		e := lineEncoder(a.stdout)
		if len(nodes) == 1 {
			e.SetIndent("", "  ")
		}
		for i := range nodes {
			if err := e.Encode(&nodes[i]); err != nil {
				return err
			}
		}
		return nil
	case outputRaw:
		for i := range nodes {
			if _, err := fmt.Fprintln(a.stdout, readiness(&nodes[i])); err != nil {
				return err
			}
		}
		return nil
	}
	w := newTable(a.stdout)
	row(w, "ENDPOINT", "NAME", "STATE", "ROLE", "TERM", "REVISION", "COMPACTED", "KEYS", "DISK", "VERSION")
	for i := range nodes {
		printNode(w, &nodes[i])
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return a.printAlarms(nodes)
}

func printNode(w io.Writer, n *nodeStatus) {
	s := n.Status
	if s == nil {
		row(w, n.Endpoint, "", readiness(n))
		return
	}
	role := "follower"
	switch {
	case s.IsLeader:
		role = "leader"
	case s.Leader == "":
		role = "no leader"
	}
	row(w, n.Endpoint, s.Name, readiness(n), role, number(s.Term), number(s.Revision), number(s.CompactRevision),
		number(s.Keys), sizeText(s.DiskBytes), s.Version)
}

func readiness(n *nodeStatus) string {
	switch {
	case n.Ready:
		return "ready"
	case n.Status != nil:
		return "not ready"
	}
	return "no answer"
}

// printAlarms prints the alarms of the cluster once, with the names of members.
func (a *app) printAlarms(nodes []nodeStatus) error {
	printed := map[api.Alarm]bool{}
	for i := range nodes {
		s := nodes[i].Status
		if s == nil {
			continue
		}
		names := memberNames(s)
		for _, alarm := range s.Alarms {
			if printed[alarm] {
				continue
			}
			printed[alarm] = true
			line := "alarm: " + alarm.Type
			if name := cmp.Or(names[alarm.Member], alarm.Member); name != "" {
				line += " on " + name
			}
			if _, err := fmt.Fprintln(a.stdout, line); err != nil {
				return err
			}
		}
	}
	return nil
}

// memberNames are the names of members by their ids.
func memberNames(s *api.Status) map[string]string {
	names := map[string]string{}
	for _, m := range s.Members {
		names[m.ID] = m.Name
	}
	return names
}
