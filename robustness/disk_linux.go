package robustness

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const (
	// ioctlShutdown is FS_IOC_SHUTDOWN; noLogFlush has the file system forget at
	// once what it has not written, its journal included.
	ioctlShutdown = 0x8004587D
	noLogFlush    = 2
)

// A Disk is a file system of its own, in a file: one that can lose power, or be
// full, without harm to the machine's.
type Disk struct {
	Dir   string // where it is mounted
	image string
	up    bool
}

// NewDisk makes a file system of a size, with further options of mkfs.ext4, and
// mounts it. The test is skipped, and says why, where that is not possible.
func NewDisk(t testing.TB, e *Evidence, name string, size int64, options ...string) *Disk {
	t.Helper()
	if err := canMount(); err != nil {
		t.Skipf("SKIPPED: a disk of its own: %v", err)
	}
	d := &Disk{Dir: e.Path(name), image: e.Path(name + ".img")}
	if err := errors.Join(os.Mkdir(d.Dir, 0o700), os.WriteFile(d.image, nil, 0o600), os.Truncate(d.image, size)); err != nil {
		t.Fatal(err)
	}
	// Without what is kept back for root, as who the nodes run: full is full.
	if err := command("mkfs.ext4", slices.Concat([]string{"-q", "-F", "-m", "0"}, options, []string{d.image})...); err != nil {
		t.Fatal(err)
	}
	if err := d.Mount(); err != nil {
		t.Skipf("SKIPPED: a disk of its own can't be mounted: %v", err)
	}
	// Registered before the cluster's own clean-up, and so done after it.
	t.Cleanup(func() {
		if d.up {
			if err := d.Unmount(); err != nil {
				t.Error(err)
			}
		}
	})
	return d
}

// canMount says what the machine lacks for disks.
func canMount() error {
	if os.Geteuid() != 0 {
		return errors.New("needs root, to mount it")
	}
	for _, tool := range []string{"mkfs.ext4", "mount", "umount"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("needs %s: %w", tool, err)
		}
	}
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		return fmt.Errorf("needs loop devices: %w", err)
	}
	return nil
}

// Mount makes the disk usable. What was not synced is not written by the kernel
// for five minutes, so that the loss of power has something to lose.
func (d *Disk) Mount() error {
	err := command("mount", "-o", "loop,commit=300,errors=remount-ro", d.image, d.Dir)
	if d.up = err == nil; !d.up {
		return err
	}
	if err = d.works(); err != nil {
		return fmt.Errorf("%s is mounted and does not work: %w", d.Dir, err)
	}
	return nil
}

// Remount takes the disk away and gives it back, mended in between if mend is set. It takes
// several tries as long as another mount namespace, of somebody else on this machine, has
// the disk as well.
func (d *Disk) Remount(mend bool) error {
	_, err := retry(func() (struct{}, error) {
		if d.up {
			if err := d.Unmount(); err != nil {
				return struct{}{}, err
			}
		}
		if mend {
			if err := d.check(); err != nil {
				return struct{}{}, err
			}
		}
		return struct{}{}, d.Mount()
	})
	return err
}

// works tells whether something on the disk can be made durable: a mount of a file system
// that somebody else has mounted is that one, with what was done to it.
func (d *Disk) works() error {
	root, err := d.Open()
	if err != nil {
		return err
	}
	return errors.Join(root.Sync(), root.Close())
}

// Unmount takes the disk away; the loop device goes with it.
func (d *Disk) Unmount() error {
	err := command("umount", d.Dir)
	d.up = err != nil
	return err
}

// device is the name of the loop device under the disk.
func (d *Disk) device() (string, error) {
	out, err := exec.Command("losetup", "-n", "-O", "NAME", "-j", d.image).Output()
	if err != nil {
		return "", fmt.Errorf("losetup: %w", err)
	}
	return filepath.Base(strings.TrimSpace(string(out))), nil
}

// check mends the file system as an operator does after an error.
func (d *Disk) check() error {
	err := command("e2fsck", "-f", "-y", d.image)
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 1 {
		return nil // 1 says that something was mended
	}
	return err
}

// Open gives a handle through which CutPower can be called without delay.
func (d *Disk) Open() (*os.File, error) { return os.Open(d.Dir) }

// CutPower makes everything that was not synced gone. The file system answers
// every later call with an error, until it was unmounted and mounted again.
func CutPower(root *os.File) error {
	return unix.IoctlSetPointerInt(int(root.Fd()), ioctlShutdown, noLogFlush)
}

// Free is how many bytes the disk has left.
func (d *Disk) Free() (int64, error) {
	var fs unix.Statfs_t
	err := unix.Statfs(d.Dir, &fs)
	return int64(fs.Bavail) * fs.Bsize, err
}

// Fill takes all but some bytes of the disk, with a file that Remove ends.
func (d *Disk) Fill(leave int64) (remove func() error, err error) {
	free, err := d.Free()
	if err != nil {
		return nil, err
	}
	f, err := os.Create(d.Dir + "/filler")
	if err != nil {
		return nil, err
	}
	err = take(int(f.Fd()), free-leave)
	return func() error { return os.Remove(f.Name()) }, errors.Join(err, f.Close())
}

// take gives a file so many bytes of the disk, or, where the file system needs some of
// them to keep account of the others, as many as there are.
func take(fd int, bytes int64) error {
	for at, step := int64(0), bytes; at < bytes && step > 0; {
		switch err := unix.Fallocate(fd, 0, at, min(step, bytes-at)); {
		case err == nil:
			at += step
		case errors.Is(err, unix.ENOSPC):
			step /= 2
		case !errors.Is(err, unix.EINTR):
			return err
		}
	}
	return nil
}

// FillInodes takes all inodes that the disk has left, with empty files in a
// directory that is made for the first of them.
func (d *Disk) FillInodes() error {
	if err := os.MkdirAll(d.fillers(), 0o700); err != nil && !errors.Is(err, unix.ENOSPC) {
		return err
	}
	for {
		f, err := os.CreateTemp(d.fillers(), "")
		if errors.Is(err, unix.ENOSPC) || errors.Is(err, os.ErrNotExist) {
			break
		}
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(d.Dir, &fs); err != nil {
		return err
	}
	if free := fs.Bavail * uint64(fs.Bsize); free < 1<<20 {
		return fmt.Errorf("the disk has %d inodes and %d bytes left; it was to be the inodes that are used up", fs.Ffree, free)
	}
	return nil
}

// FreeInodes undoes all of FillInodes.
func (d *Disk) FreeInodes() error { return os.RemoveAll(d.fillers()) }

func (d *Disk) fillers() string { return filepath.Join(d.Dir, "fillers") }

func command(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %v: %w: %s", name, args, err, out)
	}
	return nil
}
