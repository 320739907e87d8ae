//go:build !linux

package robustness

import "syscall"

// processAttributes keeps a Ctrl-C in the terminal from the servers, which are
// stopped in order.
func processAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

func smallReceiveBuffer(uintptr) error { return nil }
