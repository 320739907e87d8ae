package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/backup"
	"github.com/cairnkv/cairn/client"
	"github.com/cairnkv/cairn/internal/durable"
	"github.com/cairnkv/cairn/node"
)

func (a *app) snapshot() *cobra.Command {
	return a.family(&cobra.Command{
		Use:   "snapshot",
		Short: "Take, check and restore backups",
	}, a.snapshotSave(), a.snapshotStatus(), a.snapshotRestore())
}

const snapshotSaveHelp = `Take a backup of a running cluster: the keys and the leases at one revision, in
one file. Nothing stops meanwhile, and any node can be asked.

The file appears under its name when all of it has come and was checked; what
was there under that name before stays until then. With - it goes to the
standard output, and the exit status says whether it is whole.

With --stale, a node that has lost its majority gives what it has.`

const snapshotSaveExample = `  cairn snapshot save cairn.cairn-backup
  cairn snapshot save - | ssh backup 'cat > cairn.cairn-backup'`

func (a *app) snapshotSave() *cobra.Command {
	var stale bool
	cmd := &cobra.Command{
		Use:     "save FILE",
		Short:   "Take a backup",
		Long:    snapshotSaveHelp,
		Example: snapshotSaveExample,
		Args:    arguments(1, 1),
	}
	cmd.Flags().BoolVar(&stale, "stale", false, "take what the node has, without asking the others whether it is current")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		var opts []client.ReadOption
		if stale {
			opts = append(opts, client.Stale())
		}
		ctx, stop := untilSignal(cmd)
		defer stop()
		s, err := c.Snapshot(ctx, opts...)
		if err != nil {
			return err
		}
		defer s.Close()
		if args[0] == "-" {
			_, err := backup.Verify(io.TeeReader(s, a.stdout))
			return err
		}
		info, err := saveFile(args[0], s)
		if err != nil {
			return err
		}
		return a.printBackup(args[0], info)
	}
	return cmd
}

// saveFile makes the file when all of it is there and checked.
func saveFile(path string, r io.Reader) (info backup.Info, err error) {
	if path == "" {
		return info, usagef("the name of the file is empty")
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*.partial")
	if err != nil {
		return info, err
	}
	renamed := false
	defer func() {
		if !renamed {
			err = errors.Join(err, f.Close(), os.Remove(f.Name()))
		}
	}()
	if info, err = backup.Verify(io.TeeReader(r, f)); err != nil {
		return info, err
	}
	if err := f.Sync(); err != nil {
		return info, err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return info, err
	}
	renamed = true
	return info, errors.Join(durable.SyncDir(filepath.Dir(path)), f.Close())
}

const snapshotStatusHelp = `Check a backup, all of it, and say what is in it. A file that is damaged or was
cut is exit status 1, with where that is.`

const snapshotStatusExample = `  cairn snapshot status cairn.cairn-backup
  cairn snapshot status -o json cairn.cairn-backup`

func (a *app) snapshotStatus() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "status FILE",
		Short:   "Check a backup",
		Long:    snapshotStatusHelp,
		Example: snapshotStatusExample,
		Args:    arguments(1, 1),
	}
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		f, err := a.open(args[0])
		if err != nil {
			return err
		}
		defer f.Close()
		info, err := backup.Verify(f)
		if err != nil {
			return fmt.Errorf("%s: %w", args[0], err)
		}
		return a.printBackup(args[0], info)
	}
	return cmd
}

const snapshotRestoreHelp = `Make the data directory of a new cluster of one from a backup, which can be a file,
or a directory or s3://bucket/prefix of scheduled ones, of which it takes the newest.
cairn serve then starts on it like on any other.

The backup is checked first, all of it, and the directory must be empty. What was
interrupted goes on when the same command is given again.

The new cluster has an identity of its own, and a revision that is beyond all
that the old one can have handed out; history begins there. So every watch and
every position of before is told that it is compacted.

A cluster of several is restored by starting all of its members, in empty
directories, with --restore-from.`

const snapshotRestoreExample = `  cairn snapshot restore cairn.cairn-backup --data-dir /var/lib/cairn
  cairn serve --data-dir /var/lib/cairn`

func (a *app) snapshotRestore() *cobra.Command {
	var cfg node.Config
	log := logFlags{}
	cmd := &cobra.Command{
		Use:     "restore FILE|DIRECTORY|BUCKET",
		Short:   "Make a new cluster from a backup",
		Long:    snapshotRestoreHelp,
		Example: snapshotRestoreExample,
		Args:    arguments(1, 1),
	}
	flags := cmd.Flags()
	flags.StringVar(&cfg.DataDir, "data-dir", "cairn-data", "`directory` of the data; made if it does not exist")
	flags.StringVar(&cfg.Name, "name", "", "`name` of the node (default n1); can't change later")
	flags.StringVar(&cfg.PeerAdvertise, "peer-advertise", "", "`address` at which other members will reach this one (default "+node.DefaultPeer+"); can't change later")
	log.register(cmd, "warn")
	_ = cmd.MarkFlagDirname("data-dir")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		logger, err := log.logger(a.stderr)
		if err != nil {
			return err
		}
		cfg.Logger, cfg.RestoreFrom, cfg.Version = logger, args[0], a.build.Version
		ctx, stop := untilSignal(cmd)
		defer stop()
		info, err := node.Restore(ctx, cfg)
		if err != nil {
			return err
		}
		return a.printBackup(args[0], info)
	}
	return cmd
}

func (a *app) printBackup(name string, info backup.Info) error {
	return a.print(info, func(w io.Writer) {
		row(w, "FILE", name)
		row(w, "REVISION", number(info.Revision))
		row(w, "KEYS", number(info.Keys))
		row(w, "LEASES", number(info.Leases))
		row(w, "SIZE", fmt.Sprintf("%s (%s of keys and values)", sizeText(uint64(info.Size)), sizeText(info.Bytes)))
		row(w, "TAKEN", info.TakenAt.UTC().Format(api.TimeLayout))
		row(w, "CLUSTER", info.ClusterID)
		row(w, "MEMBER", fmt.Sprintf("%s %s", info.MemberID, info.Member))
		row(w, "CONTENT", info.ContentHash)
		row(w, "SHA-256", info.SHA256)
	}, func(w io.Writer) { fmt.Fprintln(w, info.SHA256) })
}
