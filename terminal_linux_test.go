package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

func init() {
	programs["terminal"], programs["background"], programs["adopter"] = terminal, background, adopter
	programs["unprivileged"], programs["privileged"] = unprivileged, privileged
}

// terminal TYPED COMMAND… runs a command in the foreground of a new terminal, at which
// somebody types a line once something is to be read there; ^C is the key. Input and output
// are not the terminal, but what this program has.
func terminal() {
	keyboard, screen, err := openTerminal()
	if err != nil {
		fmt.Fprintln(os.Stderr, "terminal:", err)
		os.Exit(1)
	}
	typed := strings.ReplaceAll(os.Args[1], "^C", "\x03") + "\n"
	go func() { // ends with the process
		_, err := keyboard.Read(make([]byte, 1))
		if err == nil {
			_, err = io.WriteString(keyboard, typed)
		}
		if err == nil {
			_, err = io.Copy(io.Discard, keyboard)
		}
		fmt.Fprintln(os.Stderr, "terminal:", err)
	}()
	cmd := exec.Command(os.Args[2], os.Args[3:]...)
	cmd.ExtraFiles = []*os.File{screen}
	runProgram(cmd, &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 3})
}

// background COMMAND… runs a command in the background of the terminal, as a shell does by &.
func background() {
	runProgram(exec.Command(os.Args[1], os.Args[2:]...), &syscall.SysProcAttr{Setpgid: true})
}

// adopter COMMAND… becomes a command to which the descendants come that lose their parents,
// as to the first process of a container.
func adopter() { become("adopter", unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)) }

// unprivileged COMMAND… runs a command under a user that may signal none of root's processes,
// though it reads and writes root's files; root runs it.
func unprivileged() {
	runProgram(exec.Command(os.Args[1], os.Args[2:]...), &syscall.SysProcAttr{
		Credential:  &syscall.Credential{Uid: 65534, Gid: 65534},
		AmbientCaps: []uintptr{unix.CAP_SETUID, unix.CAP_DAC_OVERRIDE},
	})
}

// privileged COMMAND… becomes a command of root under unprivileged, as sudo does.
func privileged() { become("privileged", syscall.Setuid(0)) }

// become turns this process into the command that its arguments name, unless what it was to
// do before has failed.
func become(program string, err error) {
	path := ""
	if err == nil {
		path, err = exec.LookPath(os.Args[1])
	}
	if err == nil {
		err = syscall.Exec(path, os.Args[1:], os.Environ())
	}
	fmt.Fprintln(os.Stderr, program+":", err)
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
