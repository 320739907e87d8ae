package cli

import (
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/cairnkv/cairn/node"
)

const devHelp = `Start three nodes of one cluster in this process, to try things out.

They listen on the loopback: for clients on ports 7480, 7490 and 7500, for each
other on the ports after them. The data is kept in ./cairn-dev, and a later start
goes on with it; remove the directory to begin anew.`

const devExample = `  cairn dev
  cairn dev --base-port 9000 --dir /tmp/cairn-dev`

const (
	// devNodes is how many nodes dev starts: the least that survive the loss of
	// one.
	devNodes = 3
	// devStep is between the ports of two nodes; a node's peer port is the one
	// after that for clients.
	devStep = 10
)

func (a *app) dev() *cobra.Command {
	var (
		port int
		dir  string
		log  logFlags
	)
	cmd := &cobra.Command{
		Use:     "dev",
		Short:   "Start a cluster of three nodes to try things out",
		Long:    devHelp,
		Example: devExample,
		Args:    arguments(0, 0),
	}
	cmd.Flags().IntVar(&port, "base-port", 7480, "`port` of the first node; the others follow 10 and 20 above")
	cmd.Flags().StringVar(&dir, "dir", "cairn-dev", "`directory` of the data")
	_ = cmd.MarkFlagDirname("dir")
	log.register(cmd, "error")
	hideGlobalFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		const most = 65535 - (devNodes-1)*devStep - 1
		if port < 1 || port > most {
			return usagef("base-port %d is not between 1 and %d", port, most)
		}
		logger, err := log.logger(a.stderr)
		if err != nil {
			return err
		}
		configs := devConfigs(port, dir)
		for i := range configs {
			// Without the node's name: the log of Raft is one for the process.
			configs[i].Logger = logger
			configs[i].Version, configs[i].OpenAPI = a.build.Version, a.build.OpenAPI
		}
		return a.runDev(cmd, dir, configs)
	}
	return cmd
}

// devConfigs are the nodes n1, n2 and n3.
func devConfigs(port int, dir string) []node.Config {
	local := func(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
	configs := make([]node.Config, devNodes)
	var members []string
	for i := range configs {
		name := fmt.Sprintf("n%d", i+1)
		configs[i] = node.Config{
			Name:               name,
			DataDir:            filepath.Join(dir, name),
			Listen:             local(port + devStep*i),
			PeerAdvertise:      local(port + devStep*i + 1),
			AutoCompactionKeep: time.Hour,
		}
		members = append(members, name+"="+configs[i].PeerAdvertise)
	}
	for i := range configs {
		configs[i].InitialCluster = strings.Join(members, ",")
	}
	return configs
}

func (a *app) runDev(cmd *cobra.Command, dir string, configs []node.Config) error {
	ctx, stop := untilSignal(cmd)
	defer stop()
	nodes := make([]*node.Node, len(configs))
	var starts errgroup.Group
	for i := range configs {
		starts.Go(func() error {
			n, err := node.Open(ctx, configs[i])
			if err != nil {
				return fmt.Errorf("node %s: %w", configs[i].Name, err)
			}
			nodes[i] = n
			return nil
		})
	}
	if err := a.start(ctx, starts.Wait); err != nil {
		for _, n := range nodes {
			if n != nil {
				_ = n.Close() // why another did not start says more
			}
		}
		if ctx.Err() != nil {
			return nil
		}
		return startError(err)
	}
	r := running{nodes: nodes, giveUp: a.giveUp, announce: func() { a.welcome(dir, nodes) }, waiting: func() {
		fmt.Fprintln(a.stderr, "cairn: the nodes are up · waiting for them to elect a leader")
	}}
	return r.run(ctx)
}

// welcome says what runs where, and what to type next.
func (a *app) welcome(dir string, nodes []*node.Node) {
	var b strings.Builder
	var urls []string
	b.WriteString("A cluster of three nodes is ready:\n\n")
	for i, n := range nodes {
		fmt.Fprintf(&b, "  n%d  %s\n", i+1, n.URL())
		urls = append(urls, n.URL())
	}
	fmt.Fprintf(&b, `
Try in another terminal:

  export CAIRN_ENDPOINT=%s
  cairn put greeting hello
  cairn get greeting
  curl %s/v1/kv/greeting
  cairn status

The data is in %s. Ctrl-C ends all three.
`, strings.Join(urls, ","), urls[len(urls)-1], dir)
	fmt.Fprint(a.stderr, b.String())
}
