package child

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// harden gives up what a child must not have. With no file descriptor left to
// open there is neither a file nor a socket for it, without any privilege being
// needed to arrange that.
func harden() error {
	used, err := mapped()
	if err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("non-dumpable: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no new privileges: %w", err)
	}
	for _, l := range []struct {
		what  string
		which int
		limit uint64
	}{
		{"core dumps", unix.RLIMIT_CORE, 0},
		{"file sizes", unix.RLIMIT_FSIZE, 0},
		{"memory", unix.RLIMIT_DATA, used + hardMemory},
		{"open files", unix.RLIMIT_NOFILE, 3},
	} {
		if err := unix.Setrlimit(l.which, &unix.Rlimit{Cur: l.limit, Max: l.limit}); err != nil {
			return fmt.Errorf("limit %s: %w", l.what, err)
		}
	}
	return nil
}

// mapped is how much private memory the process has mapped, in bytes: what the
// memory limit counts. Under the race detector that is terabytes.
func mapped() (uint64, error) {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(b) {
		f := bytes.Fields(line)
		if len(f) == 3 && string(f[0]) == "VmData:" {
			kib, err := strconv.ParseUint(string(f[1]), 10, 54)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("no VmData in /proc/self/status")
}

// attributes put the child into a process group of its own, so that a Ctrl-C is
// the parent's alone, and tie its life to the thread that started it.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// executable names the running program itself, also after an update replaced
// its file.
func executable() (string, error) { return "/proc/self/exe", nil }

// nice lowers the priority of all threads of a process. A thread made meanwhile
// inherits from the one that makes it; the second pass finds those of the first.
func nice(pid int) error {
	for range 2 {
		tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		if err != nil {
			return err
		}
		for _, t := range tasks {
			tid, err := strconv.Atoi(t.Name())
			if err != nil {
				return err
			}
			if err := unix.Setpriority(unix.PRIO_PROCESS, tid, 19); err != nil && err != unix.ESRCH {
				return err
			}
		}
	}
	return nil
}
