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
)

func (a *app) snapshot() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "snapshot",
		Short: "Take and check backups",
		Args:  cobra.ArbitraryArgs,
		RunE:  unknownSnapshotCommand,
	}
	cmd.AddCommand(a.noting(a.snapshotSave()), a.noting(a.snapshotStatus()))
	return cmd
}

func unknownSnapshotCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return cmd.Help()
	}
	return usagef("there is no command %q of %s", args[0], cmd.CommandPath())
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
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return info, err
	}
	return info, errors.Join(dir.Sync(), dir.Close(), f.Close())
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
