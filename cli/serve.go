package cli

import (
	"fmt"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cairnkv/cairn/node"
)

const serveHelp = `Start a node and run it until it is told to end.

Without flags it is a cluster of one that listens on the loopback and keeps its
data in ./cairn-data. On SIGTERM or Ctrl-C it hands over its leadership, lets
requests finish for up to 8 seconds, and exits with status 0; a second signal
ends it at once. Nothing that was answered is lost, whichever way it ends.

Every flag can also be given in the environment, as CAIRN_ and its name
(CAIRN_DATA_DIR), and in the YAML file that --config names, by its name:

  listen: 127.0.0.1:7480
  data-dir: /var/lib/cairn
  auto-compaction-keep: 24h
  allowed-host: [cairn.internal, kv.internal]

A flag beats the environment, and the environment beats the file. A name that
does not exist is refused in all three.

Members speak by mutual TLS if --peer-ca, --peer-cert and --peer-key are given;
"cairn certs" makes these files. They are read again when they change. Clients
are neither authenticated nor encrypted yet. Addresses other than the loopback
are therefore refused, for clients, and for peers without TLS, unless --insecure
says that the network is trusted.`

const serveExample = `  # A cluster of one
  cairn serve

  # The first of three nodes on a trusted network
  cairn serve --insecure --name n1 --data-dir /var/lib/cairn \
    --listen 10.0.0.1:7480 --peer-listen 10.0.0.1:7481 \
    --initial-cluster n1=10.0.0.1:7481,n2=10.0.0.2:7481,n3=10.0.0.3:7481

  # One of the first three, whose addresses are in DNS
  cairn serve --config /etc/cairn.yaml --discovery-srv kv.example.com \
    --peer-advertise n1.kv.example.com:7481

  # One more node, with the token that "cairn member add" printed
  cairn serve --insecure --data-dir /var/lib/cairn --listen 10.0.0.4:7480 \
    --peer-listen 10.0.0.4:7481 --join http://10.0.0.1:7480 --join-token TOKEN

  # A new cluster from the newest backup; give it to every one of its members
  cairn serve --data-dir /var/lib/cairn --restore-from /mnt/backups

  # From a file, with more in the log
  CAIRN_LOG_LEVEL=debug cairn serve --config /etc/cairn.yaml`

func (a *app) serve() *cobra.Command {
	var (
		cfg    = node.Config{Version: a.build.Version, OpenAPI: a.build.OpenAPI}
		quota  = size(node.DefaultQuotaBytes)
		cache  = size(node.DefaultCacheBytes)
		config string
		log    logFlags

		profiles string
	)
	cmd := &cobra.Command{
		Use:     "serve",
		Short:   "Start a node",
		Long:    serveHelp,
		Example: serveExample,
		Args:    arguments(0, 0),
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVar(&cfg.Listen, "listen", node.DefaultListen, "`address` of the HTTP API, host:port; port 0 takes a free one")
	flags.StringVar(&cfg.Advertise, "advertise", "", "`address` at which clients reach the node, if it is another one")
	flags.StringVar(&cfg.PeerListen, "peer-listen", "", "`address` for the other members (default: the peer address)")
	flags.StringVar(&cfg.PeerAdvertise, "peer-advertise", "", "`address` at which the other members reach this one (default: that of --initial-cluster, or --peer-listen, or "+node.DefaultPeer+"); can't change later")
	flags.StringVar(&cfg.Name, "name", "", "`name` of the node (default n1); can't change later")
	flags.StringVar(&cfg.DataDir, "data-dir", "cairn-data", "`directory` of the data; made if it does not exist")
	flags.StringVar(&cfg.InitialCluster, "initial-cluster", "", "all first `members`, name=host:port,…, the same on each; looked at on the first start only")
	flags.StringVar(&cfg.DiscoverySRV, "discovery-srv", "", "`domain` whose SRV records _cairn-peer._tcp are the peer addresses of all first members, in place of --initial-cluster; --peer-advertise says which one the node is; looked at on the first start only")
	flags.IntVar(&cfg.DiscoveryMembers, "discovery-members", 0, fmt.Sprintf("how many `members` that must be; fewer are waited for (default %d)", node.DefaultDiscoveryMembers))
	flags.StringVar(&cfg.Join, "join", "", "`URL` of a member of a running cluster that the node is to come to, or several with commas; looked at on the first start only")
	flags.StringVar(&cfg.JoinToken, "join-token", "", "`token` that 'cairn member add' gave for it")
	flags.StringVar(&cfg.PeerTLS.CA, "peer-ca", "", "PEM `file` with the authority that signs the certificates of members, and of nobody else")
	flags.StringVar(&cfg.PeerTLS.Cert, "peer-cert", "", "PEM `file` with this member's certificate")
	flags.StringVar(&cfg.PeerTLS.Key, "peer-key", "", "PEM `file` with its key")
	flags.StringSliceVar(&cfg.PeerTLS.AllowedNames, "peer-allowed-name", nil, "`name` or IP address of which a peer's certificate must have one; repeat it, or separate with commas (default: the host of the peer's address)")
	flags.StringVar(&cfg.RestoreFrom, "restore-from", "", "`backup`, or a directory or s3://bucket/prefix of which the newest one is taken, that an empty node is filled from; the same on each of the first members")
	flags.StringVar(&cfg.Backup.To, "backup-to", "", "`directory`, or s3://bucket/prefix, into which the leader takes backups; the same on every member, and for this cluster alone")
	flags.DurationVar(&cfg.Backup.Every, "backup-every", node.DefaultBackupEvery, "how old the newest backup becomes before the next is taken")
	flags.IntVar(&cfg.Backup.Keep, "backup-keep", node.DefaultBackupKeep, "how many backups are kept")
	flags.StringVar(&config, "config", "", "YAML `file` with settings")
	flags.BoolVar(&cfg.Insecure, "insecure", false, "allow addresses other than the loopback, without encryption and authentication")
	flags.StringSliceVar(&cfg.AllowedHosts, "allowed-host", nil, "further `host` by which clients may call the node; repeat it, or separate with commas")
	flags.Var(&quota, "quota", "disk space after which the cluster refuses what grows the store")
	flags.DurationVar(&cfg.AutoCompactionKeep, "auto-compaction-keep", time.Hour, "how much history is kept; 0 keeps all of it")
	flags.Var(&cache, "cache", "memory for the caches of the store: two thirds for blocks and memtables, a third for keys that were read recently")
	flags.StringVar(&profiles, "profile-listen", "", "loopback `address` for Go's profiles of the process, below /debug/pprof/ (default: none are served)")
	log.register(cmd, "info")
	_ = cmd.MarkFlagDirname("data-dir")
	_ = cmd.MarkFlagDirname("backup-to")
	_ = cmd.MarkFlagFilename("config", "yaml", "yml")
	for _, file := range []string{"peer-ca", "peer-cert", "peer-key"} {
		_ = cmd.MarkFlagFilename(file, "crt", "pem", "key")
	}
	hideGlobalFlags(cmd)

	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if config != "" {
			if err := fromFile(cmd.Flags(), config); err != nil {
				return err
			}
		}
		logger, err := log.logger(a.stderr)
		if err != nil {
			return err
		}
		cfg.Logger = logger
		cfg.QuotaBytes, cfg.CacheBytes = uint64(quota), int64(cache)
		if err := checkSettings(&cfg); err != nil {
			return err
		}
		return a.runServe(cmd, cfg, profiles)
	}
	return cmd
}

// checkSettings refuses values that can't be meant. What depends on the machine
// or on the data is for node.Open to refuse.
func checkSettings(cfg *node.Config) error {
	least := size(node.MinQuotaBytes)
	switch {
	case cfg.DataDir == "":
		return usagef("data-dir is empty")
	case cfg.QuotaBytes < node.MinQuotaBytes:
		return usagef("quota is below the least one, %s", least.String())
	case cfg.Backup.Every < time.Second:
		return usagef("backup-every is below a second")
	case cfg.Backup.Keep < 1:
		return usagef("backup-keep is below 1")
	case cfg.AutoCompactionKeep < 0:
		return usagef("auto-compaction-keep is negative")
	}
	return nil
}

func (a *app) runServe(cmd *cobra.Command, cfg node.Config, profiles string) error {
	spareProcessor()
	boundMalloc()
	defer runtime.KeepAlive(reserveHeap())
	ctx, stop := untilSignal(cmd)
	defer stop()
	endProfiles, err := serveProfiles(ctx, profiles)
	if err != nil {
		return err
	}
	defer endProfiles()
	var n *node.Node
	err = a.start(ctx, func() (err error) {
		n, err = node.Open(ctx, cfg)
		return err
	})
	if err != nil {
		if ctx.Err() != nil {
			return nil // it was told to end before it had begun
		}
		return startError(err)
	}
	r := running{nodes: []*node.Node{n}, giveUp: a.giveUp, announce: func() {
		fmt.Fprintf(a.stderr, "cairn: ready at %s · try: curl -X PUT -d hello %s/v1/kv/greeting\n", n.URL(), n.URL())
	}, waiting: func() {
		fmt.Fprintf(a.stderr, "cairn: listening at %s · waiting for a majority of the cluster\n", n.URL())
	}}
	return r.run(ctx)
}

// startError adds to why a node did not start what is most likely behind it.
func startError(err error) error {
	if strings.Contains(err.Error(), "address already in use") {
		return fmt.Errorf("%w (is another node running? --listen and --peer-listen choose other addresses)", err)
	}
	return err
}
