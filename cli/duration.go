package cli

import (
	"strconv"
	"time"

	"github.com/spf13/pflag"
)

// parseDuration reads a duration such as 30s, 5m or 168h, or a bare number of
// seconds, as the API does.
func parseDuration(s string) (time.Duration, error) {
	if seconds, err := strconv.ParseUint(s, 10, 64); err == nil && seconds <= maxTTLSeconds {
		return time.Duration(seconds) * time.Second, nil
	}
	return time.ParseDuration(s)
}

// durationVar defines a flag that parseDuration reads.
func durationVar(flags *pflag.FlagSet, d *time.Duration, name string, value time.Duration, usage string) {
	*d = value
	flags.Var((*durationFlag)(d), name, usage)
}

type durationFlag time.Duration

func (f *durationFlag) Set(s string) (err error) {
	d, err := parseDuration(s)
	*f = durationFlag(d)
	return err
}

// String gives nothing as pflag knows it, so that help shows no default then.
func (f *durationFlag) String() string {
	if *f == 0 {
		return "0"
	}
	return time.Duration(*f).String()
}

func (f *durationFlag) Type() string { return "duration" }
