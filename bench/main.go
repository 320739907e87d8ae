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
	"strings"
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

// options are the command line.
type options struct {
	set       settings
	profiles  []string
	targets   []string
	cairn     string
	cairnArgs []string
	// before is the commit that Cairn is compared with; guard has the figures that
	// are held to their bounds.
	before string
	guard  []figure
	json   string
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

// parseOptions reads the command line. Everything that is not a flag is the name
// of a profile.
func parseOptions(args []string) (options, error) {
	known := []string{}
	for _, p := range profiles {
		known = append(known, p.name)
	}
	known = append(known, profileFootprint)
	usual := slices.Clone(known)
	watches := []string{}
	for _, p := range watchProfiles {
		watches = append(watches, p.name)
	}
	leases := leaseNames()
	known = append(append(known, watches...), profileWatch)
	known = append(append(known, leases...), profileLease)
	known = append(append(known, clusterNames()...), profileCluster, profileJoin, profileLatency, profileScaleKeys, profileScaleConnections, profileDisk, profileFloor, modeCalibrate, modeGuard)
	allTargets := []string{nameCairn, nameGateway, nameGRPC}

	var opt options
	var names, targets, cairnArgs string
	var short bool
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.Usage = func() {
		fmt.Fprintf(flags.Output(), "usage: go run . [flags] [profile ...]\n\nprofiles: %s\nusual ones, when none is named: %s\n\n",
			strings.Join(known, " "), strings.Join(usual, " "))
		flags.PrintDefaults()
	}
	flags.StringVar(&names, "profiles", "", "profiles to run, separated by commas, in place of arguments")
	flags.StringVar(&targets, "targets", strings.Join(allTargets, ","), "what to measure, separated by commas")
	flags.IntVar(&opt.set.Rounds, "rounds", 3, "measurements of each target in each profile")
	flags.DurationVar(&opt.set.Duration, "duration", 10*time.Second, "length of one measurement, without its warm-up of a fifth of it")
	flags.StringVar(&opt.set.Dir, "dir", os.TempDir(), "directory on the disk to measure; a temporary one is made in it")
	flags.StringVar(&opt.cairn, "cairn", "", "path of a cairn binary, in place of building the one in the directory above")
	flags.StringVar(&cairnArgs, "cairn-args", "", "more arguments for cairn serve, separated by spaces")
	flags.StringVar(&opt.before, "before", "", fmt.Sprintf("commit that Cairn is compared with, in place of etcd; verdicts need %d rounds, which is then the default", verdictRounds))
	flags.StringVar(&opt.json, "json", "", "file to write all numbers of all rounds to")
	flags.BoolVar(&short, "short", false, "try everything quickly: one round of half a second, few keys; the numbers mean nothing")
	flags.IntVar(&opt.set.Keys, "keys", 100_000, "keys that puts, gets and lists choose from")
	flags.IntVar(&opt.set.FootprintKeys, "footprint-keys", 1_000_000, "keys that the footprint is taken with")
	flags.DurationVar(&opt.set.Rest, "rest", 150*time.Second, "time that a loaded server is left alone before its footprint is taken")
	flags.IntVar(&opt.set.Tuning.CairnStreams, "cairn-streams", 4, "concurrent bulk requests to cairn")
	flags.IntVar(&opt.set.Tuning.CairnLines, "cairn-lines", 10_000, "keys in a bulk request to cairn")
	flags.IntVar(&opt.set.Tuning.EtcdTxns, "etcd-txns", 32, "concurrent bulk transactions to etcd")
	flags.IntVar(&opt.set.Tuning.EtcdWriteConnections, "etcd-write-connections", 2, "connections that gRPC writes to etcd share")
	flags.IntVar(&opt.set.Tuning.EtcdReadConnections, "etcd-read-connections", 8, "connections that gRPC reads from etcd share")
	watch := &opt.set.Watch
	*watch = defaultWatchSettings
	flags.IntVar(&watch.FanOut, "fan-out", watch.FanOut, "watchers of one prefix, in watch-fan-out")
	flags.IntVar(&watch.FanOutRate, "fan-out-rate", watch.FanOutRate, "puts a second to that prefix")
	flags.IntVar(&watch.Watchers, "watchers", watch.Watchers, "watchers of a key each, in watch-many-keys and watch-idle-memory")
	flags.IntVar(&watch.KeyRate, "key-rate", watch.KeyRate, "puts a second over the watched keys, in watch-many-keys")
	flags.IntVar(&watch.Events, "events", watch.Events, "events that pass in watch-stalled, and revisions to catch up with in watch-catch-up")
	flags.IntVar(&watch.Stalled, "stalled", watch.Stalled, "readers that stop, in watch-stalled")
	flags.IntVar(&watch.Finishers, "finishers", watch.Finishers, "of them, those that read on to the end")
	flags.IntVar(&watch.StalledRate, "stalled-rate", watch.StalledRate, "events a second while they are stalled")
	flags.DurationVar(&watch.CatchUpLimit, "catch-up-limit", watch.CatchUpLimit, "after which a reader in watch-catch-up is stopped")
	lease := &opt.set.Lease
	*lease = defaultLeaseSettings
	flags.IntVar(&lease.Leases, "leases", lease.Leases, "leases that renewals choose from")
	flags.IntVar(&lease.Batch, "lease-batch", lease.Batch, "leases in a request to cairn, or in a burst on a stream to etcd, in lease-renew-bulk")
	flags.IntVar(&lease.Holds, "holds", lease.Holds, "leases that are held, in lease-hold")
	flags.IntVar(&opt.set.Tuning.CairnHolds, "hold-together", 1, "leases that each connection to cairn holds, in lease-hold, up to 10,000")
	flags.IntVar(&lease.Memory, "live-leases", lease.Memory, "leases that live at once, in lease-memory")
	flags.IntVar(&lease.Ends, "ends", lease.Ends, "leases that end together, in lease-end")
	flags.DurationVar(&lease.EndsTTL, "ends-ttl", lease.EndsTTL, "their time to live, within which they must have got their keys")
	flags.DurationVar(&lease.EndsLimit, "ends-limit", lease.EndsLimit, "after which their end is no longer waited for")
	join := &opt.set.Join
	*join = defaultJoinSettings
	flags.IntVar(&join.Keys, "join-keys", join.Keys, "keys of the cluster that a node joins, in cluster-join")
	flags.IntVar(&join.Rate, "join-rate", join.Rate, "puts a second meanwhile")
	latency := &opt.set.Latency
	*latency = defaultLatencySettings
	flags.Var(listFlag{&latency.Percents}, "latency-percents", "rates of latency, in percent of what the first target can do, separated by commas")
	flags.IntVar(&latency.Clients, "latency-clients", latency.Clients, "requests that may be under way at once, in latency")
	flags.DurationVar(&latency.Patience, "latency-patience", latency.Patience, "after which a request that could not be sent is given up, in latency")
	scale := &opt.set.Scale
	*scale = defaultScaleSettings
	flags.Var(listFlag{&scale.Keys}, "scale-keys", "keys of scale-keys, separated by commas")
	flags.IntVar(&scale.EtcdKeys, "scale-etcd-keys", scale.EtcdKeys, "most keys that etcd is measured with in scale-keys")
	flags.Var(listFlag{&scale.Connections}, "scale-connections", "connections of scale-connections, separated by commas")
	disk := &opt.set.Disk
	*disk = defaultDiskSettings
	flags.IntVar(&disk.Keys, "disk-keys", disk.Keys, "keys of disk")
	flags.IntVar(&disk.Overwrites, "disk-overwrites", disk.Overwrites, "times that each of them is overwritten")
	flags.DurationVar(&disk.Idle, "disk-idle", disk.Idle, "time at rest after which a server counts as having done its work in the background, in disk")
	if err := flags.Parse(args); err != nil {
		return opt, err
	}
	asked := map[string]bool{}
	flags.Visit(func(f *flag.Flag) { asked[f.Name] = true })
	if short {
		setUnlessAsked(asked["rounds"], &opt.set.Rounds, 1)
		setUnlessAsked(asked["duration"], &opt.set.Duration, 500*time.Millisecond)
		setUnlessAsked(asked["keys"], &opt.set.Keys, 5_000)
		setUnlessAsked(asked["footprint-keys"], &opt.set.FootprintKeys, 20_000)
		setUnlessAsked(asked["cairn-lines"], &opt.set.Tuning.CairnLines, 1000)
		setUnlessAsked(asked["rest"], &opt.set.Rest, time.Second)
		few := shortWatchSettings
		setUnlessAsked(asked["fan-out"], &watch.FanOut, few.FanOut)
		setUnlessAsked(asked["fan-out-rate"], &watch.FanOutRate, few.FanOutRate)
		setUnlessAsked(asked["watchers"], &watch.Watchers, few.Watchers)
		setUnlessAsked(asked["key-rate"], &watch.KeyRate, few.KeyRate)
		setUnlessAsked(asked["events"], &watch.Events, few.Events)
		setUnlessAsked(asked["stalled"], &watch.Stalled, few.Stalled)
		setUnlessAsked(asked["finishers"], &watch.Finishers, few.Finishers)
		setUnlessAsked(asked["stalled-rate"], &watch.StalledRate, few.StalledRate)
		fewLeases := shortLeaseSettings
		setUnlessAsked(asked["leases"], &lease.Leases, fewLeases.Leases)
		setUnlessAsked(asked["lease-batch"], &lease.Batch, fewLeases.Batch)
		setUnlessAsked(asked["holds"], &lease.Holds, fewLeases.Holds)
		setUnlessAsked(asked["live-leases"], &lease.Memory, fewLeases.Memory)
		setUnlessAsked(asked["ends"], &lease.Ends, fewLeases.Ends)
		setUnlessAsked(asked["ends-ttl"], &lease.EndsTTL, fewLeases.EndsTTL)
		setUnlessAsked(asked["ends-limit"], &lease.EndsLimit, fewLeases.EndsLimit)
		setUnlessAsked(asked["join-keys"], &join.Keys, shortJoinSettings.Keys)
		setUnlessAsked(asked["join-rate"], &join.Rate, shortJoinSettings.Rate)
		setUnlessAsked(asked["latency-percents"], &latency.Percents, shortLatencySettings.Percents)
		setUnlessAsked(asked["latency-clients"], &latency.Clients, shortLatencySettings.Clients)
		setUnlessAsked(asked["scale-keys"], &scale.Keys, shortScaleSettings.Keys)
		setUnlessAsked(asked["scale-connections"], &scale.Connections, shortScaleSettings.Connections)
		setUnlessAsked(asked["disk-keys"], &disk.Keys, shortDiskSettings.Keys)
		setUnlessAsked(asked["disk-overwrites"], &disk.Overwrites, shortDiskSettings.Overwrites)
		setUnlessAsked(asked["disk-idle"], &disk.Idle, shortDiskSettings.Idle)
	}

	opt.cairnArgs = strings.Fields(cairnArgs)
	opt.targets = splitList(targets)
	if opt.before != "" {
		if !asked["targets"] {
			opt.targets = []string{nameCairn}
		}
		setUnlessAsked(asked["rounds"] || short, &opt.set.Rounds, verdictRounds)
	}
	if opt.profiles = append(splitList(names), flags.Args()...); len(opt.profiles) == 0 {
		opt.profiles = usual
	}
	if slices.Equal(opt.profiles, []string{modeGuard}) {
		var err error
		if opt.guard, err = guarded(); err != nil {
			return opt, err
		}
		opt.profiles, opt.targets = guardProfiles(opt.guard), guardTargets(opt.guard)
	}
	if i := slices.Index(opt.profiles, profileWatch); i >= 0 {
		opt.profiles = slices.Replace(opt.profiles, i, i+1, watches...)
	}
	if i := slices.Index(opt.profiles, profileLease); i >= 0 {
		opt.profiles = slices.Replace(opt.profiles, i, i+1, leases...)
	}
	if i := slices.Index(opt.profiles, profileCluster); i >= 0 {
		opt.profiles = slices.Replace(opt.profiles, i, i+1, clusterNames()...)
	}
	// Absolute, since servers run in directories of their own.
	for _, path := range []*string{&opt.cairn, &opt.set.Dir} {
		if *path != "" {
			abs, err := filepath.Abs(*path)
			if err != nil {
				return opt, err
			}
			*path = abs
		}
	}
	return opt, opt.check(known, allTargets)
}

func (opt options) check(known, allTargets []string) error {
	for _, name := range opt.profiles {
		if !slices.Contains(known, name) {
			return fmt.Errorf("there is no profile %q; known are %s", name, strings.Join(known, ", "))
		}
	}
	for _, mode := range []string{modeCalibrate, modeGuard} {
		if slices.Contains(opt.profiles, mode) && len(opt.profiles) > 1 {
			return errors.New(mode + " can't be combined with profiles")
		}
	}
	if opt.before != "" && !slices.Contains(opt.targets, nameCairn) {
		return errors.New("-before compares Cairn with itself: it needs the target " + nameCairn)
	}
	for _, name := range opt.targets {
		if !slices.Contains(allTargets, name) {
			return fmt.Errorf("there is no target %q; known are %s", name, strings.Join(allTargets, ", "))
		}
	}
	s, t, w, l := opt.set, opt.set.Tuning, opt.set.Watch, opt.set.Lease
	switch {
	case min(l.Leases, l.Batch, l.Holds, l.Memory, l.Ends) < 1 || max(l.Leases, l.Batch, l.Holds, l.Memory, l.Ends) > endsPutKey:
		return fmt.Errorf("leases must be from 1 to %d", endsPutKey)
	case l.EndsTTL < holdTTL || l.EndsTTL > time.Hour || l.EndsTTL%time.Second != 0:
		return fmt.Errorf("-ends-ttl must be whole seconds, from %v to 1h", holdTTL)
	case l.EndsLimit < time.Second || l.EndsLimit > time.Hour:
		return errors.New("-ends-limit must be from 1s to 1h")
	case min(w.FanOut, w.FanOutRate, w.Watchers, w.KeyRate, w.Events, w.Stalled, w.Finishers, w.StalledRate) < 1:
		return errors.New("watchers, events and their rates must be at least 1")
	case min(s.Join.Keys, s.Join.Rate) < 1 || max(s.Join.Keys, s.Join.Rate) > keysMax:
		return fmt.Errorf("-join-keys and -join-rate must be from 1 to %d", keysMax)
	case outside(s.Latency.Percents, 1, 1000) || s.Latency.Clients < 1 || s.Latency.Clients > 100_000:
		return errors.New("-latency-percents must be from 1 to 1000, -latency-clients from 1 to 100000")
	case s.Latency.Patience < 10*time.Millisecond || s.Latency.Patience > time.Minute:
		return errors.New("-latency-patience must be from 10ms to 1m")
	case outside(s.Scale.Keys, 1, keysMax) || s.Scale.EtcdKeys < 0 || outside(s.Scale.Connections, 1, 1_000_000):
		return fmt.Errorf("-scale-keys must be from 1 to %d, -scale-connections from 1 to 1000000", keysMax)
	case s.Disk.Keys < 1 || s.Disk.Keys > keysMax || s.Disk.Overwrites < 1 || s.Disk.Overwrites > 1000:
		return fmt.Errorf("-disk-keys must be from 1 to %d, -disk-overwrites from 1 to 1000", keysMax)
	case s.Disk.Idle < 10*time.Millisecond || s.Disk.Idle > time.Minute:
		return errors.New("-disk-idle must be from 10ms to 1m")
	case w.CatchUpLimit < time.Second || w.CatchUpLimit > catchUpWithin/2:
		return errors.New("-catch-up-limit must be from 1s to 15m")
	case max(w.FanOut, w.Watchers, w.Stalled) > 1_000_000 || max(w.Events, w.FanOutRate, w.KeyRate, w.StalledRate) > keysMax:
		return errors.New("watchers, events or their rates are out of all proportion")
	case s.Rounds < 1 || s.Rounds > 1000:
		return errors.New("-rounds must be from 1 to 1000")
	case s.Duration < 10*time.Millisecond || s.Duration > time.Hour:
		return errors.New("-duration must be from 10ms to 1h")
	case s.Rest < 0 || s.Rest > time.Hour/4:
		return errors.New("-rest must be from 0 to 15m")
	case s.Keys < groupSize || s.Keys > keysMax || s.Keys%groupSize != 0:
		return fmt.Errorf("-keys must be a multiple of %d, at most %d", groupSize, keysMax)
	case s.FootprintKeys < 1 || s.FootprintKeys > keysMax:
		return fmt.Errorf("-footprint-keys must be from 1 to %d", keysMax)
	case min(t.CairnStreams, t.CairnLines, t.CairnHolds, t.EtcdTxns, t.EtcdWriteConnections, t.EtcdReadConnections) < 1:
		return errors.New("concurrency, lines and connections must be at least 1")
	case max(t.CairnStreams, t.EtcdTxns, t.EtcdWriteConnections, t.EtcdReadConnections) > 10_000 || t.CairnLines > keysMax || t.CairnHolds > 10_000:
		return errors.New("concurrency, lines or connections are out of all proportion")
	}
	return nil
}

// outside says whether a list is empty or has a number that is out of bounds.
func outside(list []int, least, most int) bool {
	return len(list) == 0 || slices.Min(list) < least || slices.Max(list) > most
}

func setUnlessAsked[T any](asked bool, to *T, value T) {
	if !asked {
		*to = value
	}
}

func splitList(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' })
}

// warnAboutMemoryDisk says so when what will be measured is no disk: there, fsync
// costs nothing.
func warnAboutMemoryDisk(dir string) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err == nil && fs.Type == unix.TMPFS_MAGIC {
		fmt.Fprintln(os.Stderr, "bench: the directory is in memory, so that fsync costs nothing; choose another with -dir")
	}
}
