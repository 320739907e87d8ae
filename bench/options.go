package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

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

// usualSettings are the defaults of the flags.
var usualSettings = settings{
	Rounds: 3, Duration: 10 * time.Second, Keys: 100_000, FootprintKeys: 1_000_000, Rest: 150 * time.Second,
	Watch: usualWatchSettings, Lease: usualLeaseSettings, Join: usualJoinSettings,
	Latency: usualLatencySettings, Scale: usualScaleSettings, Disk: usualDiskSettings,
	Tuning: tuning{
		CairnStreams: 4, CairnLines: 10_000, CairnHolds: 1,
		EtcdTxns: 32, EtcdWriteConnections: 2, EtcdReadConnections: 8,
	},
}

// shortSettings are the defaults with -short. They show only that everything works.
func shortSettings() settings {
	s := settings{
		Rounds: 1, Duration: 500 * time.Millisecond, Keys: 5_000, FootprintKeys: 20_000, Rest: time.Second,
		Watch: shortWatchSettings, Lease: shortLeaseSettings, Join: shortJoinSettings,
		Latency: shortLatencySettings, Scale: shortScaleSettings, Disk: shortDiskSettings,
		Tuning: usualSettings.Tuning,
	}
	s.Tuning.CairnLines = 1000
	return s
}

// targetNames are what is measured when nothing is said, bareNames what can be besides
// with puts and linearizable gets, which is all that it has.
var (
	targetNames = []string{nameCairn, nameGateway, nameGRPC}
	bareNames   = []string{nameFloor, nameStack}
)

// usualProfiles are those that run when none is named.
func usualProfiles() (names []string) {
	for _, p := range profiles {
		names = append(names, p.name)
	}
	return append(names, profileFootprint)
}

// A family is a name that stands for several profiles.
type family struct {
	name    string
	members []string
}

func families() []family {
	return []family{
		{profileWatch, watchNames()},
		{profileLease, leaseNames()},
		{profileCluster, clusterNames()},
	}
}

// knownProfiles are all names that the command line may have.
func knownProfiles() []string {
	names := usualProfiles()
	for _, f := range families() {
		names = append(append(names, f.members...), f.name)
	}
	return append(names, profileJoin, profileLatency, profileScaleKeys, profileScaleConnections, profileDisk, profileFloor, profileFloorBulk, modeCalibrate, modeGuard)
}

// expand puts the members of families in the place of their names.
func expand(names []string) (all []string) {
	known := families()
	for _, name := range names {
		if i := slices.IndexFunc(known, func(f family) bool { return f.name == name }); i >= 0 {
			all = append(all, known[i].members...)
		} else {
			all = append(all, name)
		}
	}
	return all
}

// parseOptions reads the command line. Everything that is not a flag is the name
// of a profile.
func parseOptions(args []string) (options, error) {
	line, err := readLine(args, usualSettings)
	if err == nil && line.short {
		line, err = readLine(args, shortSettings()) // the same, over other defaults
	}
	if err != nil {
		return options{}, err
	}
	if err := line.complete(); err != nil {
		return options{}, err
	}
	return line.options, line.check()
}

// A commandLine holds the options until they are complete, and the flags that need a
// second look for that.
type commandLine struct {
	options
	flags *flag.FlagSet
	short bool
	// Lists, the first two with commas, the last one with spaces.
	profileList, targetList, cairnArgList string
}

// readLine reads the flags over their defaults.
func readLine(args []string, defaults settings) (*commandLine, error) {
	l := &commandLine{options: options{set: defaults}, flags: flag.NewFlagSet("bench", flag.ContinueOnError)}
	l.flags.Usage = func() {
		fmt.Fprintf(l.flags.Output(), "usage: go run . [flags] [profile ...]\n\nprofiles: %s\nusual ones, when none is named: %s\n\n",
			strings.Join(knownProfiles(), " "), strings.Join(usualProfiles(), " "))
		l.flags.PrintDefaults()
	}
	l.register()
	return l, l.flags.Parse(args)
}

func (l *commandLine) register() {
	f := l.flags
	f.StringVar(&l.profileList, "profiles", "", "profiles to run, separated by commas, in place of arguments")
	f.StringVar(&l.targetList, "targets", strings.Join(targetNames, ","), "what to measure, separated by commas")
	f.StringVar(&l.cairn, "cairn", "", "path of a cairn binary, in place of building the one in the directory above")
	f.StringVar(&l.cairnArgList, "cairn-args", "", "more arguments for cairn serve, separated by spaces")
	f.StringVar(&l.before, "before", "", fmt.Sprintf("commit that Cairn is compared with, in place of etcd; verdicts need %d rounds, which is then the default", verdictRounds))
	f.StringVar(&l.json, "json", "", "file to write all numbers of all rounds to")
	f.BoolVar(&l.short, "short", false, "try everything quickly: one round of half a second, few keys; the numbers mean nothing")
	s := &l.set
	f.StringVar(&s.Dir, "dir", os.TempDir(), "directory on the disk to measure; a temporary one is made in it")
	f.IntVar(&s.Rounds, "rounds", s.Rounds, "measurements of each target in each profile")
	f.DurationVar(&s.Duration, "duration", s.Duration, "length of one measurement, without its warm-up of a fifth of it")
	f.IntVar(&s.Keys, "keys", s.Keys, "keys that puts, gets and lists choose from")
	f.IntVar(&s.FootprintKeys, "footprint-keys", s.FootprintKeys, "keys that the footprint is taken with")
	f.DurationVar(&s.Rest, "rest", s.Rest, "time that a loaded server is left alone before its footprint is taken")
	s.Watch.register(f)
	s.Lease.register(f)
	s.Join.register(f)
	s.Latency.register(f)
	s.Scale.register(f)
	s.Disk.register(f)
	s.Tuning.register(f)
}

// complete finds out what the flags mean together.
func (l *commandLine) complete() error {
	given := map[string]bool{}
	l.flags.Visit(func(f *flag.Flag) { given[f.Name] = true })
	l.cairnArgs, l.targets = strings.Fields(l.cairnArgList), splitList(l.targetList)
	if l.before != "" {
		if !given["targets"] {
			l.targets = []string{nameCairn}
		}
		if !given["rounds"] && !l.short {
			l.set.Rounds = verdictRounds
		}
	}
	if l.profiles = append(splitList(l.profileList), l.flags.Args()...); len(l.profiles) == 0 {
		l.profiles = usualProfiles()
	}
	if slices.Equal(l.profiles, []string{modeGuard}) {
		var err error
		if l.guard, err = guarded(); err != nil {
			return err
		}
		l.profiles, l.targets = guardProfiles(l.guard), guardTargets(l.guard)
	}
	l.profiles = expand(l.profiles)
	// Absolute, since servers run in directories of their own.
	for _, path := range []*string{&l.cairn, &l.set.Dir} {
		if *path == "" {
			continue
		}
		var err error
		if *path, err = filepath.Abs(*path); err != nil {
			return err
		}
	}
	return nil
}

// check refuses what can't be measured.
func (opt *options) check() error {
	known := knownProfiles()
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
		bare := slices.Contains(bareNames, name)
		if !bare && !slices.Contains(targetNames, name) {
			return fmt.Errorf("there is no target %q; known are %s", name, strings.Join(append(targetNames, bareNames...), ", "))
		}
		for _, asked := range opt.profiles {
			if bare && !slices.ContainsFunc(profiles, func(p profile) bool { return p.name == asked && p.bare() }) {
				return fmt.Errorf("the target %s has no %s: it has puts and linearizable gets of one node", name, asked)
			}
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

func splitList(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' })
}
