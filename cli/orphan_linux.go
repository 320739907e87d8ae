package cli

import "syscall"

// endWithUs has a command end when this process is gone, whatever has ended it: nobody
// keeps what it runs under any more.
func endWithUs(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGTERM }
