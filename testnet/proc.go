package testnet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// readyPoll is how often a starting child is asked whether it is ready.
	readyPoll = 50 * time.Millisecond
	// defaultReadyTimeout: the slowest child, btcd resuming a long chain on a loaded machine, needs a few seconds.
	defaultReadyTimeout = 60 * time.Second
	// defaultGrace: btcd flushes its caches and Badger its tables within a few seconds of SIGTERM.
	defaultGrace = 15 * time.Second
	// logTailBytes and logTailLines bound what the one error line carries of a dead child's log.
	logTailBytes = 4096
	logTailLines = 3
)

// ProcConfig describes one child process.
type ProcConfig struct {
	Name         string // names the log file and the errors: "bitcoin", "node-2"
	Path         string
	Args         []string
	Env          []string // added to PATH, HOME and TMPDIR, which is all a child inherits
	Dir          string   // the child's working directory and HOME; the log is Dir/logs/Name.log
	Ready        func(context.Context) error
	ReadyTimeout time.Duration // 0: a minute
	Grace        time.Duration // between SIGTERM and SIGKILL in Stop; 0: 15 s
}

// Proc is a running child in a process group of its own, so that a Ctrl-C at the terminal reaches the testnet
// alone, which then stops its children in order. On Linux the kernel kills the child when the testnet dies.
type Proc struct {
	cfg     ProcConfig
	pid     int
	logPath string
	grace   time.Duration

	wanted atomic.Bool // its end was asked for
	done   chan struct{}
	err    error // set before done is closed

	signal sync.Mutex // held while signalling, so that no signal is sent to a pid already reaped
	reaped bool
}

// DiedError says that a child ended without being asked to.
type DiedError struct {
	Name    string
	Status  string   // "exit status 1", "signal: killed"
	Lines   []string // the last of its log
	LogPath string
}

func (e *DiedError) Error() string {
	last := "its log is empty"
	if len(e.Lines) > 0 {
		last = "its last words: " + strings.Join(e.Lines, " | ")
	}
	return fmt.Sprintf("%s died (%s); %s; log: %s", e.Name, e.Status, last, e.LogPath)
}

// StartProc starts the child and waits until Ready returns nil. ctx bounds the start alone, not the child's life.
func StartProc(ctx context.Context, cfg ProcConfig) (*Proc, error) {
	p := &Proc{cfg: cfg, logPath: filepath.Join(cfg.Dir, "logs", cfg.Name+".log"), done: make(chan struct{}), grace: cfg.Grace}
	if p.grace == 0 {
		p.grace = defaultGrace
	}
	if err := p.start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", cfg.Name, err)
	}
	if err := p.waitReady(ctx); err != nil {
		p.Kill()
		return nil, err
	}
	return p, nil
}

func (p *Proc) start() error {
	if err := os.MkdirAll(filepath.Dir(p.logPath), 0o700); err != nil {
		return err
	}
	// Appended: a restarted child's log keeps the lines before its death.
	log, err := os.OpenFile(p.logPath, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	cmd := exec.Command(p.cfg.Path, p.cfg.Args...)
	cmd.Dir = p.cfg.Dir
	// HOME is the testnet's: a child must not read or write the user's own ~/.btcd and the like.
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + p.cfg.Dir, "TMPDIR=" + os.TempDir()}, p.cfg.Env...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = childAttributes()

	started := make(chan error)
	go func() {
		// The parent-death signal fires when the thread that forked ends, so that thread waits for the child here.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer log.Close()
		err := cmd.Start()
		if err == nil {
			p.pid = cmd.Process.Pid
		}
		started <- err
		if err != nil {
			return
		}
		p.reap(cmd)
	}()
	return <-started
}

func (p *Proc) reap(cmd *exec.Cmd) {
	// First wait without reaping, so that the pid stays ours until no signal can be under way to it.
	waitExit(p.pid)
	p.signal.Lock()
	_ = syscall.Kill(-p.pid, syscall.SIGKILL) // what the child itself started and left behind
	_ = cmd.Wait()                            // the status is read from ProcessState
	p.reaped = true
	p.signal.Unlock()
	if !p.wanted.Load() {
		p.err = &DiedError{Name: p.cfg.Name, Status: cmd.ProcessState.String(), Lines: tail(p.logPath), LogPath: p.logPath}
	}
	close(p.done)
}

func (p *Proc) waitReady(ctx context.Context) error {
	if p.cfg.Ready == nil {
		return nil
	}
	timeout := p.cfg.ReadyTimeout
	if timeout == 0 {
		timeout = defaultReadyTimeout
	}
	waiting, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	tick := time.NewTicker(readyPoll)
	defer tick.Stop()
	for {
		err := p.cfg.Ready(waiting)
		select {
		case <-p.done:
			return p.err
		default:
		}
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return p.err
		case <-waiting.Done():
			if ctx.Err() != nil {
				return fmt.Errorf("start %s: %w", p.cfg.Name, ctx.Err())
			}
			return fmt.Errorf("%s was not ready within %s: %w; log: %s", p.cfg.Name, timeout, err, p.logPath)
		case <-tick.C:
		}
	}
}

// Name is the child's name, as configured.
func (p *Proc) Name() string { return p.cfg.Name }

// Pid is the child's process id, and that of its group.
func (p *Proc) Pid() int { return p.pid }

// LogPath is the file that holds the child's output.
func (p *Proc) LogPath() string { return p.logPath }

// Done is closed when the child has ended.
func (p *Proc) Done() <-chan struct{} { return p.done }

// Err is a *DiedError if the child ended unasked, nil while it runs and after Stop or Kill.
func (p *Proc) Err() error {
	select {
	case <-p.done:
		return p.err
	default:
		return nil
	}
}

// Signal sends a signal to the child's whole group; a child that has ended gets none. SIGSTOP and SIGCONT are
// what tests use; to end a child, Stop and Kill record that its end was asked for.
func (p *Proc) Signal(sig syscall.Signal) error {
	p.signal.Lock()
	defer p.signal.Unlock()
	if p.reaped {
		return nil
	}
	if err := syscall.Kill(-p.pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("send %s to %s: %w", sig, p.cfg.Name, err)
	}
	return nil
}

// Kill ends the child with SIGKILL and waits for its end.
func (p *Proc) Kill() {
	p.wanted.Store(true)
	_ = p.Signal(syscall.SIGKILL) // the group is ours; what remains to fail is that it is gone
	<-p.done
}

// Stop asks the child to end and kills it after the grace period, or at once when ctx ends. It returns an error
// if the child had to be killed: then it did not close its files.
func (p *Proc) Stop(ctx context.Context) error {
	select {
	case <-p.done:
		return nil
	default:
	}
	p.wanted.Store(true)
	if err := p.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	// A suspended child cannot act on SIGTERM.
	if err := p.Signal(syscall.SIGCONT); err != nil {
		return err
	}
	timer := time.NewTimer(p.grace)
	defer timer.Stop()
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
	case <-timer.C:
	}
	p.Kill()
	return fmt.Errorf("%s did not stop when asked and was killed; log: %s", p.cfg.Name, p.logPath)
}

// tail returns the last lines of a log.
func tail(path string) []string {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > logTailBytes {
		if _, err := f.Seek(-logTailBytes, io.SeekEnd); err != nil {
			return nil
		}
	}
	b, err := io.ReadAll(io.LimitReader(f, logTailBytes))
	if err != nil {
		return nil
	}
	lines := strings.FieldsFunc(string(b), func(r rune) bool { return r == '\n' || r == '\r' })
	return lines[max(0, len(lines)-logTailLines):]
}
