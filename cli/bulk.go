package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/client"
)

const bulkHelp = `Write what is too much for one transaction: puts and deletes, one a line, applied
in order in large transactions.

  {"put": {"key": "a", "value": "1"}}
  {"put": {"key": "b", "value_base64": "AAEC"}}
  {"delete": {"key": "c"}}

The lines come from a file or the standard input. --from-dir instead stores each
file below a directory under its path, behind --prefix. Files over 1 MiB and what
is no regular file (links, sockets) are reported and skipped; the others are
stored, and the exit status is 1.

Blank lines are passed over, and counted. It ends with how many lines were applied,
also after a failure. From a file it can be repeated by itself after a lost
connection, and what was applied is not applied twice; --idempotency-key makes that so
for a later run of the same command, too.`

const bulkExample = `  cairn bulk backup.ndjson
  zcat backup.ndjson.gz | cairn bulk
  cairn bulk --from-dir ./conf.d --prefix config/`

type bulkFlags struct {
	dir, prefix string
	write       writeFlags

	// skipped counts the files that were left out.
	skipped uint64
}

func (a *app) bulk() *cobra.Command {
	var f bulkFlags
	cmd := &cobra.Command{
		Use:     "bulk [FILE | -]",
		Short:   "Write many keys",
		Long:    bulkHelp,
		Example: bulkExample,
		Args:    arguments(0, 1),
	}
	cmd.Flags().StringVar(&f.dir, "from-dir", "", "store the files below this `directory`")
	cmd.Flags().StringVar(&f.prefix, "prefix", "", "`prefix` of the keys of --from-dir")
	_ = cmd.MarkFlagDirname("from-dir")
	f.write.registerFenced(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch {
		case f.dir != "" && len(args) > 0:
			return usagef("give a file or --from-dir, not both")
		case f.dir == "" && f.prefix != "":
			return usagef("--prefix belongs to --from-dir")
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		ctx, stop := untilSignal(cmd)
		defer stop()
		cmd.SetContext(ctx)
		var report *api.BulkReport
		if f.dir != "" {
			report, err = a.bulkDir(cmd, c, &f)
		} else {
			report, err = a.bulkLines(cmd, c, &f, args)
		}
		if report == nil {
			return err
		}
		// How far it came is as important after a failure.
		err = errors.Join(err, a.printReport(report, f.skipped, errors.Is(err, client.ErrOutcomeUnknown)))
		if err == nil && f.skipped > 0 {
			err = fmt.Errorf("%s skipped; all others are stored", plural(f.skipped, "file"))
		}
		return err
	}
	return cmd
}

// printReport prints how far a bulk write came; of one that broke off, how far it
// came at least.
func (a *app) printReport(r *api.BulkReport, skipped uint64, brokeOff bool) error {
	return a.print(r, func(w io.Writer) {
		least := ""
		if brokeOff && r.Done == nil {
			least = "at least "
		}
		fmt.Fprintf(w, "applied %s%s", least, plural(r.Applied, "line"))
		if r.Revision > 0 {
			fmt.Fprintf(w, " up to revision %d", r.Revision)
		}
		if r.OutcomeUnknownLines > 0 {
			fmt.Fprintf(w, "; the next %s may or may not have been", plural(r.OutcomeUnknownLines, "line"))
		}
		if skipped > 0 {
			fmt.Fprintf(w, "; skipped %s", plural(skipped, "file"))
		}
		fmt.Fprintln(w)
	}, func(w io.Writer) { fmt.Fprintln(w, r.Applied) })
}

// bulkLines writes the lines of a file or of the standard input.
func (a *app) bulkLines(cmd *cobra.Command, c *client.Client, f *bulkFlags, args []string) (*api.BulkReport, error) {
	name := "-"
	if len(args) == 1 {
		name = args[0]
	}
	file, err := a.open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	opts, total := f.write.options(), int64(-1)
	if info.Mode().IsRegular() {
		total = info.Size()
		if !f.write.repeats() {
			// A file can be read again, so that the client can begin again.
			opts = append(opts, client.Idempotent())
		}
	}
	bar := a.progress(total, name)
	defer bar.Finish()
	return c.BulkLines(cmd.Context(), &shownFile{file, bar}, nil, opts...)
}

// A shownFile shows how far it is read.
type shownFile struct {
	file *os.File
	bar  *progressbar.ProgressBar
}

// Read moves the bar along.
func (s *shownFile) Read(p []byte) (int, error) {
	n, err := s.file.Read(p)
	_ = s.bar.Add(n) // a bar that can't be drawn is no reason to stop
	return n, err
}

// Seek moves the bar to where reading goes on. Of a pipe it fails, as it should:
// what was read is gone.
func (s *shownFile) Seek(offset int64, whence int) (int64, error) {
	at, err := s.file.Seek(offset, whence)
	if err == nil {
		_ = s.bar.Set64(at)
	}
	return at, err
}

// progress is a bar on the standard error, if that is a terminal. A total below 0
// is one that is not known.
func (a *app) progress(total int64, what string) *progressbar.ProgressBar {
	if what == "-" {
		what = "standard input"
	}
	return progressbar.NewOptions64(total,
		progressbar.OptionSetWriter(a.stderr),
		progressbar.OptionSetVisibility(isTerminal(a.stderr)),
		progressbar.OptionSetDescription(what),
		progressbar.OptionShowBytes(true),
		progressbar.OptionUseIECUnits(true),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionClearOnFinish(),
	)
}

// bulkDir stores the files below a directory.
func (a *app) bulkDir(cmd *cobra.Command, c *client.Client, f *bulkFlags) (*api.BulkReport, error) {
	info, err := os.Stat(f.dir)
	switch {
	case err != nil:
		return nil, &usageError{err}
	case !info.IsDir():
		return nil, usagef("%s is not a directory", f.dir)
	}
	// A walk does not follow links, and neither would it one that it begins at.
	if f.dir, err = filepath.EvalSymlinks(f.dir); err != nil {
		return nil, &usageError{err}
	}
	bar := a.progress(-1, f.dir)
	defer bar.Finish()
	ops := func(yield func(api.Op, error) bool) {
		err := filepath.WalkDir(f.dir, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			op, why, err := fileOp(f, path, entry)
			if why != "" {
				f.skipped++
				_ = bar.Clear()
				fmt.Fprintf(a.stderr, "cairn: skipped %s: %s\n", displayKey([]byte(path)), why)
			}
			if err != nil || op == nil {
				return err
			}
			_ = bar.Add(len(op.Put.Value))
			if !yield(*op, nil) {
				return fs.SkipAll
			}
			return nil
		})
		if err != nil {
			yield(api.Op{}, err)
		}
	}
	return c.Bulk(cmd.Context(), ops, nil, f.write.options()...)
}

// fileOp is the put of a file, or nil and why the file is skipped.
func fileOp(f *bulkFlags, path string, entry fs.DirEntry) (op *api.Op, why string, err error) {
	if !entry.Type().IsRegular() {
		return nil, "it is not a regular file", nil
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, "", err
	}
	defer file.Close()
	// The size may change while it is read; what was read counts.
	value, err := readLimited(file, valueLimit)
	if err != nil {
		return nil, "", err
	}
	if len(value) > valueLimit {
		return nil, "it is larger than 1 MiB", nil
	}
	below, err := filepath.Rel(f.dir, path)
	if err != nil {
		return nil, "", err
	}
	put := client.OpPut(f.prefix+filepath.ToSlash(below), value)
	return &put, "", nil
}
