package robustness

import "syscall"

// processAttributes keeps a Ctrl-C in the terminal from the servers, which are
// stopped in order, and has the kernel kill them should the test die first.
func processAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// smallReceiveBuffer keeps the kernel from reading ahead on a connection.
func smallReceiveBuffer(fd uintptr) error {
	return syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, slowReceiveBuffer)
}
