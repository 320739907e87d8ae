package cli

import (
	"io"
	"log/slog"

	"github.com/spf13/cobra"
)

// logFlags say what nodes write into their log, which goes to the standard error.
type logFlags struct {
	level, format string
}

func (f *logFlags) register(cmd *cobra.Command, level string) {
	cmd.Flags().StringVar(&f.level, "log-level", level, "`level` of the log: debug, info, warn or error")
	cmd.Flags().StringVar(&f.format, "log-format", "text", "`format` of the log: text or json")
	_ = cmd.RegisterFlagCompletionFunc("log-level", cobra.FixedCompletions([]cobra.Completion{"debug", "info", "warn", "error"}, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("log-format", cobra.FixedCompletions([]cobra.Completion{"text", "json"}, cobra.ShellCompDirectiveNoFileComp))
}

var logLevels = map[string]slog.Level{
	"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError,
}

func (f *logFlags) logger(w io.Writer) (*slog.Logger, error) {
	level, ok := logLevels[f.level]
	if !ok {
		return nil, usagef("log-level %q is not debug, info, warn or error", f.level)
	}
	options := &slog.HandlerOptions{Level: level}
	switch f.format {
	case "text":
		return slog.New(slog.NewTextHandler(w, options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, options)), nil
	}
	return nil, usagef("log-format %q is not text or json", f.format)
}
