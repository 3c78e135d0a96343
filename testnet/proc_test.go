package testnet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

func shell(t *testing.T, script string) ProcConfig {
	return ProcConfig{Name: "child", Path: "/bin/sh", Args: []string{"-c", script}, Dir: t.TempDir(), Grace: time.Minute}
}

// says is a readiness check that waits for a line in the child's log.
func says(cfg *ProcConfig, word string) {
	cfg.Ready = func(context.Context) error {
		text, err := os.ReadFile(filepath.Join(cfg.Dir, "logs", "child.log"))
		if err == nil && !strings.Contains(string(text), word) {
			err = errors.New("not said yet")
		}
		return err
	}
}

func TestProcDeathIsOneLine(t *testing.T) {
	cfg := shell(t, "echo one; echo two; echo three; echo four >&2; exit 7")
	cfg.Ready = func(context.Context) error { return errors.New("never") }
	_, err := StartProc(testContext(t), cfg)
	want := "child died (exit status 7); its last words: two | three | four; log: " + cfg.Dir + "/logs/child.log"
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	if info := must[os.FileInfo](t)(os.Stat(cfg.Dir + "/logs/child.log")); info.Mode().Perm() != 0o600 {
		t.Errorf("the log has mode %v", info.Mode())
	}
}

func TestProcNeverReadyIsKilled(t *testing.T) {
	cfg := shell(t, "echo $$; exec sleep 600")
	cfg.ReadyTimeout = 200 * time.Millisecond
	cfg.Ready = func(context.Context) error { return errors.New("no answer") }
	_, err := StartProc(testContext(t), cfg)
	if err == nil || !strings.Contains(err.Error(), "was not ready within 200ms: no answer") {
		t.Error(err)
	}
}

func TestProcMissingProgram(t *testing.T) {
	_, err := StartProc(testContext(t), ProcConfig{Name: "child", Path: "/nonexistent/btcd", Dir: t.TempDir()})
	if err == nil || !strings.Contains(err.Error(), "start child") {
		t.Error(err)
	}
}

func TestProcStopTakesGrandchildrenAlong(t *testing.T) {
	cfg := shell(t, `trap 'exit 0' TERM; (trap "" TERM; exec sleep 600) & echo up; wait`)
	says(&cfg, "up")
	p := must[*Proc](t)(StartProc(testContext(t), cfg))
	if err := p.Stop(testContext(t)); err != nil {
		t.Error(err)
	}
	gone(t, p)
	if p.Err() != nil {
		t.Errorf("a stopped child reports %v", p.Err())
	}
	p.Kill() // harmless on what has ended
	if err := errors.Join(p.Stop(testContext(t)), p.Signal(syscall.SIGTERM)); err != nil {
		t.Error(err)
	}
}

func TestProcStubbornChildIsKilled(t *testing.T) {
	cfg := shell(t, `trap "" TERM; echo up; while :; do sleep 1; done`)
	cfg.Grace = 50 * time.Millisecond
	says(&cfg, "up")
	p := must[*Proc](t)(StartProc(testContext(t), cfg))
	if err := p.Stop(testContext(t)); err == nil || !strings.Contains(err.Error(), "was killed") {
		t.Errorf("stop of a child that ignores SIGTERM: %v", err)
	}
	gone(t, p)
}

func TestProcStopsWhenSuspended(t *testing.T) {
	cfg := shell(t, `trap 'exit 0' TERM; echo up; while :; do sleep 0.05; done`)
	says(&cfg, "up")
	p := must[*Proc](t)(StartProc(testContext(t), cfg))
	if err := errors.Join(p.Signal(syscall.SIGSTOP), p.Stop(testContext(t))); err != nil {
		t.Error(err)
	}
}

func TestProcInheritsNoSecrets(t *testing.T) {
	t.Setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
	cfg := shell(t, "env; exec sleep 600")
	says(&cfg, "HOME="+cfg.Dir)
	p := must[*Proc](t)(StartProc(testContext(t), cfg))
	defer p.Kill()
	if text := must[[]byte](t)(os.ReadFile(p.LogPath())); strings.Contains(string(text), "hunter2") {
		t.Errorf("the child inherited the environment:\n%s", text)
	}
}

func TestPortInUse(t *testing.T) {
	l := must[net.Listener](t)(net.Listen("tcp4", "127.0.0.1:0"))
	defer l.Close()
	taken := l.Addr().(*net.TCPAddr).Port
	_, err := PickPort(PortWish{Purpose: "Bitcoin RPC", Flag: "--bitcoin-rpc-port", Number: taken})
	if err == nil || !strings.Contains(err.Error(), "(Bitcoin RPC) is in use: stop the program that holds it, or choose another with --bitcoin-rpc-port") {
		t.Error(err)
	}
}

// A port that was picked is given to nobody who asks for any port, and can be bound by who names it.
func TestPickedPortIsReserved(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the kernel's table of sockets is read from /proc")
	}
	port := freePort(t)
	const timeWait = "06"
	reserved := regexp.MustCompile(fmt.Sprintf(`(?m)^ *\d+: 0100007F:%04X \S+ %s `, port, timeWait))
	if table := must[[]byte](t)(os.ReadFile("/proc/net/tcp")); !reserved.Match(table) {
		t.Errorf("port %d is not kept in TIME_WAIT", port)
	}
	l := must[net.Listener](t)(net.Listen("tcp4", Loopback(port)))
	l.Close()
}

func TestOneTestnetPerDirectory(t *testing.T) {
	dir := t.TempDir()
	unlock := must[func()](t)(LockDir(dir))
	if _, err := LockDir(dir); err == nil || !strings.Contains(err.Error(), "already runs") {
		t.Error(err)
	}
	unlock()
	must[func()](t)(LockDir(dir))()
}
