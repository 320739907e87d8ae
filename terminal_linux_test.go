package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

func init() { programs["terminal"] = terminal }

// terminal TYPED COMMAND… runs a command in the foreground of a new terminal, at which
// somebody has typed a line. Input and output are not the terminal, but what this program
// has.
func terminal() {
	keyboard, screen, err := openTerminal()
	if err == nil {
		defer keyboard.Close()
		if _, err = io.WriteString(keyboard, os.Args[1]+"\n"); err == nil {
			cmd := exec.Command(os.Args[2], os.Args[3:]...)
			cmd.ExtraFiles = []*os.File{screen}
			runProgram(cmd, &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 3})
		}
	}
	fmt.Fprintln(os.Stderr, "terminal:", err)
	os.Exit(1)
}

// openTerminal makes a terminal and returns its two ends.
func openTerminal() (keyboard, screen *os.File, err error) {
	keyboard, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	fd := int(keyboard.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	err = errors.Join(err, unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0))
	if err != nil {
		return nil, nil, err
	}
	screen, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	return keyboard, screen, err
}
