//go:build !linux

package child

import (
	"os"
	"syscall"
)

// Elsewhere a child is a process of its own that ends with its pipe; the limits
// are Linux's alone.
func harden() error                    { return nil }
func attributes() *syscall.SysProcAttr { return nil }
func executable() (string, error)      { return os.Executable() }
func nice(int) error                   { return nil }
