package cli

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/v2"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

const (
	environmentPrefix = "CAIRN_"
	// longTests asks the tests of this repository to take their time. They start
	// nodes with the environment that they have.
	longTests = "CAIRN_LONG"
)

// underLock is what lock and elect tell the commands that they run.
var underLock = []string{envFencing, envLockToken, envElectionToken}

// injected are the variables that Kubernetes and Docker set in every container
// for a service that is called cairn or cairn-…, such as CAIRN_SERVICE_HOST and
// CAIRN_PORT_7480_TCP_ADDR. Nobody who sees them has written them.
var injected = regexp.MustCompile(`_SERVICE_(HOST|PORT)(_\w+)?$|_PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?$`)

// variable is the name in the environment of a flag: CAIRN_DATA_DIR of data-dir.
func variable(flag string) string {
	return environmentPrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// variables are the flags that the environment can set, by the name of the
// variable: the global ones and those of serve.
func variables(root *cobra.Command) map[string]string {
	known := map[string]string{}
	note := func(f *pflag.Flag) {
		if f.Name != "help" && f.Name != "version" {
			known[variable(f.Name)] = f.Name
		}
	}
	root.PersistentFlags().VisitAll(note)
	if serve, _, err := root.Find([]string{"serve"}); err == nil {
		serve.LocalFlags().VisitAll(note)
	}
	return known
}

// fromEnvironment sets the flags of a command that were not given and that the
// environment has. A variable that no command knows is a mistake, which would
// otherwise go unnoticed. An empty one is as good as none.
//
// What is said of a node is for commands about one, which have its directory or make
// some: a new member does not get the name of the one beside which it is added.
func fromEnvironment(cmd *cobra.Command) error {
	known := variables(cmd.Root())
	ofNode := cmd.GroupID == groupNodes || cmd.Flags().Lookup("data-dir") != nil
	for _, pair := range os.Environ() {
		name, value, _ := strings.Cut(pair, "=")
		if !strings.HasPrefix(name, environmentPrefix) || value == "" {
			continue
		}
		flag, ok := known[name]
		switch {
		case !ok && (name == longTests || slices.Contains(underLock, name) || strings.HasPrefix(name, watchVariable) || injected.MatchString(name)):
			continue
		case !ok:
			return usagef("there is no setting %s in the environment%s", name, didYouMean(name, known))
		}
		if !ofNode && cmd.Root().PersistentFlags().Lookup(flag) == nil {
			continue
		}
		if err := set(cmd.Flags(), flag, []string{value}); err != nil {
			return usagef("%s: %w", name, err)
		}
	}
	return nil
}

// fromFile sets the flags that neither the command line nor the environment gave
// and that a YAML file has.
func fromFile(flags *pflag.FlagSet, path string) error {
	k := koanf.New(".")
	if err := k.Load(file.Provider(path), yaml.Parser()); err != nil {
		return usagef("the configuration file %s can't be read: %w", path, err)
	}
	known := map[string]string{}
	flags.VisitAll(func(f *pflag.Flag) { known[f.Name] = f.Name })
	for _, name := range []string{"config", "endpoint", "timeout", "output", "help"} {
		delete(known, name) // they make no sense in the file of a node
	}
	for _, key := range k.Keys() {
		if known[key] == "" {
			return usagef("%s: there is no setting %q%s", path, key, didYouMean(key, known))
		}
		values, err := texts(k.Get(key))
		if err == nil {
			err = set(flags, key, values)
		}
		if err != nil {
			return usagef("%s: %s: %w", path, key, err)
		}
	}
	return nil
}

// set gives a flag its value, unless it has one already. A flag that the command
// does not have is another command's.
func set(flags *pflag.FlagSet, name string, values []string) error {
	f := flags.Lookup(name)
	if f == nil || f.Changed {
		return nil
	}
	if list, ok := f.Value.(pflag.SliceValue); ok {
		var items []string
		for _, v := range values {
			for item := range strings.SplitSeq(v, ",") {
				items = append(items, strings.TrimSpace(item))
			}
		}
		f.Changed = true
		return list.Replace(items)
	}
	if len(values) != 1 {
		return errors.New("it takes one value, not a list")
	}
	return reason(flags.Set(name, values[0]))
}

// reason drops what pflag says in front of why a value is not valid, which speaks
// of a flag that nobody typed.
func reason(err error) error {
	var invalid *pflag.InvalidValueError
	if errors.As(err, &invalid) {
		return invalid.Unwrap()
	}
	return err
}

// texts writes a value of YAML as one would write it in a flag.
func texts(v any) ([]string, error) {
	switch v := v.(type) {
	case nil:
		return nil, errors.New("it has no value")
	case []any:
		var all []string
		for _, item := range v {
			one, err := texts(item)
			if err != nil {
				return nil, err
			}
			all = append(all, one...)
		}
		return all, nil
	case map[string]any:
		return nil, errors.New("it takes a value, not a section")
	}
	return []string{fmt.Sprint(v)}, nil
}

// didYouMean proposes the known name that is closest to a wrong one, if any is
// close.
func didYouMean(name string, known map[string]string) string {
	best, least := "", 3
	for _, candidate := range slices.Sorted(maps.Keys(known)) {
		if d := editDistance(name, candidate); d < least {
			best, least = candidate, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %s?", best)
}

// editDistance counts the bytes to insert, delete or replace to get from a to b.
func editDistance(a, b string) int {
	previous := make([]int, len(b)+1)
	for j := range previous {
		previous[j] = j
	}
	for i := range len(a) {
		current := make([]int, len(b)+1)
		current[0] = i + 1
		for j := range len(b) {
			replace := previous[j]
			if a[i] != b[j] {
				replace++
			}
			current[j+1] = min(previous[j+1]+1, current[j]+1, replace)
		}
		previous = current
	}
	return previous[len(b)]
}
