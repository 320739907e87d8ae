package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	// The servers that aren't Cairn are this program under another command, and so is
	// what draws its reports.
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case commandEtcdServer:
			exit(etcdServer(os.Args[2:]))
		case commandFloorServer:
			exit(floorServer(os.Args[2:]))
		case commandPlot:
			exit(runPlot(os.Args[2:]))
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	exit(err)
}

func exit(err error) {
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
		os.Exit(0)
	case errors.Is(err, context.Canceled):
		fmt.Fprintln(os.Stderr, "bench: interrupted")
	default:
		fmt.Fprintln(os.Stderr, "bench:", err)
	}
	os.Exit(1)
}

var errFailed = errors.New("some measurements failed or had errors; see the lines that begin with !")

func run(ctx context.Context, args []string) (err error) {
	started := time.Now()
	opt, err := parseOptions(args)
	if err != nil {
		return err
	}
	// All data of all servers is under this one directory, which goes in the end.
	opt.set.Dir, err = os.MkdirTemp(opt.set.Dir, "cairn-bench-")
	if err != nil {
		return err
	}
	defer func() {
		if rmErr := os.RemoveAll(opt.set.Dir); err == nil {
			err = rmErr
		}
	}()
	warnAboutMemoryDisk(opt.set.Dir)
	// The client shares the processors with the servers: let it collect garbage
	// seldom. The servers have Go's default or what they set themselves.
	debug.SetGCPercent(400)

	b, err := newBench(ctx, opt)
	if err != nil {
		return err
	}
	fmt.Printf("etcd %s, %s, %d processors; %d rounds of %v, %s keys, values of %d bytes\n", etcdVersion(),
		runtime.Version(), runtime.NumCPU(), opt.set.Rounds, opt.set.Duration, whole(float64(opt.set.Keys)), valueSize)
	var results []*result
	if slices.Equal(opt.profiles, []string{modeCalibrate}) {
		results = b.calibrate(ctx)
	} else if results, err = b.run(ctx, opt.profiles); err != nil {
		return err
	}
	if opt.before != "" {
		printVerdicts(b.table, opt.before, results)
	}
	if opt.json != "" {
		if err := newReport(started, opt.set, results).write(opt.json); err != nil {
			return err
		}
	}
	if ctx.Err() == nil && failed(results) {
		return errFailed
	}
	if ctx.Err() == nil && opt.guard != nil {
		return checkFigures(b.table, opt.guard, results)
	}
	return ctx.Err()
}

func newBench(ctx context.Context, opt options) (*bench, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	b := &bench{set: opt.set, data: newDataset(), self: self, cairnArgs: opt.cairnArgs, progress: os.Stderr, table: os.Stdout}
	needsCairn := slices.Contains(opt.targets, nameCairn)
	if b.cairnBinary = opt.cairn; needsCairn && b.cairnBinary == "" {
		if b.cairnBinary, err = buildCairn(ctx, "..", filepath.Join(opt.set.Dir, "cairn")); err != nil {
			return nil, err
		}
	}
	for _, name := range opt.targets {
		switch name {
		case nameCairn:
			b.targets = append(b.targets, b.cairn(opt.set.Tuning))
		case nameGateway:
			b.targets = append(b.targets, gatewayTarget(self, b.data, opt.set.Tuning))
		case nameGRPC:
			b.targets = append(b.targets, grpcTarget(self, b.data, opt.set.Tuning))
		case nameFloor:
			b.targets = append(b.targets, floorTarget(self, b.data))
		case nameStack:
			b.targets = append(b.targets, stackTarget(self, b.data))
		}
	}
	if opt.before != "" {
		binary, err := buildCommit(ctx, opt.before, opt.set.Dir)
		if err != nil {
			return nil, err
		}
		b.targets = append(b.targets, b.beforeTarget(binary, opt.set.Tuning))
	}
	return b, nil
}

// warnAboutMemoryDisk says so when what will be measured is no disk: there, fsync
// costs nothing.
func warnAboutMemoryDisk(dir string) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err == nil && fs.Type == unix.TMPFS_MAGIC {
		fmt.Fprintln(os.Stderr, "bench: the directory is in memory, so that fsync costs nothing; choose another with -dir")
	}
}
