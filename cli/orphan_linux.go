package cli

import "syscall"

// endWithUs has a command end when this process is gone, whatever has ended it: nobody
// keeps what it runs under any more. Linux tells neither what the command has started nor
// one that changes its user, as by being set-user-ID.
func endWithUs(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGTERM }
