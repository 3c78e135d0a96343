//go:build unix && !linux

package testnet

import "syscall"

// childAttributes puts the child into a group of its own. Outside Linux a testnet that is itself killed with
// SIGKILL leaves its children behind: there is no parent-death signal.
func childAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// waitExit is Linux's refinement; elsewhere the reaping itself waits.
func waitExit(int) {}
