package testnet

import (
	"syscall"
	"unsafe"
)

// childAttributes puts the child into a group of its own and ties its life to the testnet's.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// waitExit returns when the child has ended, leaving it unreaped.
func waitExit(pid int) {
	const byPid = 1    // P_PID of waitid(2), which package syscall does not name
	var info [128]byte // siginfo_t
	for {
		_, _, errno := syscall.Syscall6(syscall.SYS_WAITID, byPid, uintptr(pid),
			uintptr(unsafe.Pointer(&info)), syscall.WEXITED|syscall.WNOWAIT, 0, 0)
		if errno != syscall.EINTR {
			return
		}
	}
}
