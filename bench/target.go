package main

import (
	"context"
	"flag"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// A target is one way to reach one kind of server. It is started anew for each
// measurement, in an empty directory.
type target struct {
	name string
	// command is the program with its arguments that serves data/ under dir to
	// clients at addr and, if it has some, to other members at peer.
	command func(dir, addr, peer string) *exec.Cmd
	// memberCommand is the program of one of the first members of a cluster, whose
	// data is in dir; nil if the target has no clusters.
	memberCommand func(dir string, self member, all []member) *exec.Cmd
	// joinCommand is the program of a node that joins a cluster, of which a member
	// is at url, with a token; nil if that is not measured.
	joinCommand func(dir string, self member, url, token string) *exec.Cmd
	// ready is answered with 200 once the server serves; readBack is a
	// linearizable read of key 0, answered with 200 once it was loaded.
	ready, readBack func(addr string) []byte
	// dial opens sessions that write; dialReads, where it is another, such as read.
	dial, dialReads dialer
	// dialOwn, where dial's sessions share connections, has one for each.
	dialOwn dialer
	// dialWatch begins watches; nil if the target has none that is measured.
	dialWatch watchDialer
	// dialHold holds leases, dialEnds watches their ends; nil likewise.
	dialHold holdDialer
	dialEnds endsDialer
	// renewals is how many leases the server has renewed so far; nil if it does not
	// tell.
	renewals func(ctx context.Context, addr string) (float64, error)
	// loaders is how many sessions load keys fastest.
	loaders int
	// compact gives up all versions but the newest.
	compact func(ctx context.Context, addr string) error
}

// dialFor is how sessions are opened that read, or that write.
func (t target) dialFor(reads bool) dialer {
	if reads && t.dialReads != nil {
		return t.dialReads
	}
	return t.dial
}

// A member is one of a cluster: its name, and where clients and other members
// reach it.
type member struct{ name, addr, peer string }

// initialCluster lists members as both servers want it, name=peer, with a scheme
// before each peer or none.
func initialCluster(all []member, scheme string) string {
	var list []string
	for _, m := range all {
		list = append(list, m.name+"="+scheme+m.peer)
	}
	return strings.Join(list, ",")
}

const (
	nameCairn   = "cairn"
	nameGateway = "etcd-json"
	nameGRPC    = "etcd-grpc"
	nameFloor   = "floor"
	nameStack   = "stack"
)

// tuning is what differs between the targets because each is given what is best
// for it. Mode calibrate measures these.
type tuning struct {
	CairnStreams int `json:"cairn_streams"` // concurrent bulk requests
	CairnLines   int `json:"cairn_lines"`   // keys in each of them
	CairnHolds   int `json:"cairn_holds"`   // leases that a connection holds
	EtcdTxns     int `json:"etcd_txns"`     // concurrent transactions
	// The connections that gRPC requests share.
	EtcdWriteConnections int `json:"etcd_write_connections"`
	EtcdReadConnections  int `json:"etcd_read_connections"`
}

func (t *tuning) register(f *flag.FlagSet) {
	f.IntVar(&t.CairnStreams, "cairn-streams", t.CairnStreams, "concurrent bulk requests to cairn")
	f.IntVar(&t.CairnLines, "cairn-lines", t.CairnLines, "keys in a bulk request to cairn")
	f.IntVar(&t.CairnHolds, "hold-together", t.CairnHolds, "leases that each connection to cairn holds, in lease-hold, up to 10,000")
	f.IntVar(&t.EtcdTxns, "etcd-txns", t.EtcdTxns, "concurrent bulk transactions to etcd")
	f.IntVar(&t.EtcdWriteConnections, "etcd-write-connections", t.EtcdWriteConnections, "connections that gRPC writes to etcd share")
	f.IntVar(&t.EtcdReadConnections, "etcd-read-connections", t.EtcdReadConnections, "connections that gRPC reads from etcd share")
}

func cairnTarget(binary string, extra []string, data *dataset, tune tuning) target {
	return target{
		name: nameCairn,
		command: func(dir, addr, peer string) *exec.Cmd {
			args := []string{"serve", "--listen", addr, "--peer-listen", peer, "--data-dir", filepath.Join(dir, "data")}
			return exec.Command(binary, append(args, extra...)...)
		},
		memberCommand: func(dir string, self member, all []member) *exec.Cmd {
			args := []string{
				"serve", "--name", self.name, "--listen", self.addr, "--peer-listen", self.peer,
				"--initial-cluster", initialCluster(all, ""), "--data-dir", dir,
			}
			return exec.Command(binary, append(args, extra...)...)
		},
		joinCommand: cairnJoin(binary, extra),

		ready:    func(addr string) []byte { return getBytes(addr, "/readyz") },
		readBack: func(addr string) []byte { return getBytes(addr, "/v1/kv/"+keyName(0)) },
		dial:     dialCairn(data, tune.CairnLines),
		loaders:  tune.CairnStreams,
		compact:  compactCairn,

		dialWatch: dialCairnWatch,
		dialHold:  dialCairnHold(data, tune.CairnHolds),
		renewals:  renewalsOfCairn,
		dialEnds:  dialCairnEnds,
	}
}

func gatewayTarget(self string, data *dataset, tune tuning) target {
	t := etcdTarget(self)
	t.name, t.dial, t.loaders = nameGateway, dialGateway(data), tune.EtcdTxns
	return t
}

func grpcTarget(self string, data *dataset, tune tuning) target {
	t := etcdTarget(self)
	t.name, t.loaders = nameGRPC, tune.EtcdTxns
	t.dial, t.dialReads = dialGRPC(data, tune.EtcdWriteConnections), dialGRPC(data, tune.EtcdReadConnections)
	t.dialOwn = dialGRPC(data, math.MaxInt)
	t.dialWatch, t.dialEnds = dialGRPCWatch, dialGRPCEnds
	t.dialHold = dialGRPCHold(t.dial)
	return t
}

// etcdTarget is what both faces of etcd share. Whether it is up is asked over
// the gateway, as with Cairn over HTTP: a gRPC client waits longer and longer
// between its attempts, which would show in the time of a restart.
func etcdTarget(self string) target {
	return target{
		command: func(dir, addr, peer string) *exec.Cmd {
			return exec.Command(self, commandEtcdServer, filepath.Join(dir, "data"), addr, peer)
		},
		memberCommand: func(dir string, m member, all []member) *exec.Cmd {
			return exec.Command(self, commandEtcdServer, dir, m.addr, m.peer, m.name, initialCluster(all, "http://"))
		},
		ready:    func(addr string) []byte { return rangeBytes(addr, "ready?") },
		readBack: func(addr string) []byte { return rangeBytes(addr, keyName(0)) },
		compact:  compactEtcd,
	}
}

// floorTarget is a server that answers like Cairn and does nothing.
func floorTarget(self string, data *dataset) target {
	return target{
		name:    nameFloor,
		command: func(_, addr, _ string) *exec.Cmd { return exec.Command(self, commandFloorServer, addr) },
		ready:   func(addr string) []byte { return getBytes(addr, "/readyz") },
		dial:    dialFloor(data),
		loaders: 1,
	}
}

// stackTarget is the same, over the log and the store that Cairn has.
func stackTarget(self string, data *dataset) target {
	t := floorTarget(self, data)
	t.name = nameStack
	t.command = func(dir, addr, _ string) *exec.Cmd {
		return exec.Command(self, commandFloorServer, addr, filepath.Join(dir, "data"))
	}
	return t
}

func keyName(i int) string {
	var key [keySize]byte
	putKey(key[:], i)
	return string(key[:])
}

// server is a target that runs. Its addresses stay the same when it is restarted:
// a member is known to others by them.
type server struct {
	*process
	target     target
	dir        string
	addr, peer string
}

// start runs the target in an empty directory under parent and waits until it
// serves.
func (t target) start(ctx context.Context, parent string) (*server, error) {
	dir, err := os.MkdirTemp(parent, t.name+"-")
	if err != nil {
		return nil, err
	}
	s := &server{target: t, dir: dir}
	if s.addr, err = freeAddr(); err != nil {
		return nil, err
	}
	if s.peer, err = freeAddr(); err != nil {
		return nil, err
	}
	if err := s.run(ctx, t.ready); err != nil {
		_ = os.RemoveAll(dir) // the parent is removed later anyway
		return nil, err
	}
	return s, nil
}

// run starts the process over the server's directory, which may hold data, and
// waits until a request is answered.
func (s *server) run(ctx context.Context, request func(addr string) []byte) error {
	started, err := startProcess(s.dir, s.target.command(s.dir, s.addr, s.peer))
	if err != nil {
		return err
	}
	s.process = started
	if err := s.waitFor(ctx, s.addr, request(s.addr)); err != nil {
		_ = s.stop() // the first error says more
		return fmt.Errorf("%s: %w", s.target.name, err)
	}
	return nil
}

// discard stops the server and deletes its data.
func (s *server) discard() error {
	err := s.stop()
	if rmErr := os.RemoveAll(s.dir); err == nil {
		err = rmErr
	}
	return err
}

// buildCairn compiles the server from its source.
func buildCairn(ctx context.Context, source, binary string) (string, error) {
	build := exec.CommandContext(ctx, "go", "build", "-o", binary, ".")
	build.Dir = source
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building cairn in %s: %w\n%s", source, err, out)
	}
	return binary, nil
}
