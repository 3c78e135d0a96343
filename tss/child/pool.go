package child

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// Options of a Pool.
type Options struct {
	Warm int      // idle children kept ready
	Args []string // after Argument
}

// Stats of a Pool. Every child that was started is alive or reaped.
type Stats struct {
	Alive   int
	Started uint64
	Died    uint64 // by themselves: not killed by this side
}

// Pool starts children. Every child serves one caller and is killed afterwards.
type Pool struct {
	path    string
	args    []string
	keep    int
	takes   chan chan<- taken
	wg      sync.WaitGroup // forker and one reaper per child
	quit    chan struct{}
	closing sync.Once

	alive   atomic.Int64
	started atomic.Uint64
	died    atomic.Uint64
}

type taken struct {
	c   *Process
	err error
}

const (
	// startWait is how long a fresh child gets to say hello: far more than a
	// loaded machine needs.
	startWait = 20 * time.Second
	// retryAfter: with too many processes, or no memory, starting children in a
	// loop makes it worse.
	retryAfter = time.Second
)

// ErrClosed: the pool was closed.
var ErrClosed = errors.New("child pool is closed")

// NewPool begins to warm children. Close ends them all.
func NewPool(o Options) (*Pool, error) {
	path, err := executable()
	if err != nil {
		return nil, fmt.Errorf("own program: %w", err)
	}
	p := &Pool{
		path: path, args: append([]string{"coffer", Argument}, o.Args...), keep: o.Warm,
		takes: make(chan chan<- taken), quit: make(chan struct{}),
	}
	p.wg.Go(p.fork)
	return p, nil
}

// fork starts all children on one thread that lives as long as the pool: to
// Pdeathsig the parent is the thread that forked, and a thread of the Go
// runtime can end while its process lives on.
func (p *Pool) fork() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var warm []*Process
	defer func() {
		for _, c := range warm {
			c.Kill()
		}
	}()
	give := func(to chan<- taken) {
		if len(warm) > 0 {
			to <- taken{c: warm[0]}
			warm = warm[1:]
			return
		}
		c, err := p.start()
		to <- taken{c, err}
	}
	for {
		select { // who waits comes before those who might
		case <-p.quit:
			return
		case to := <-p.takes:
			give(to)
			continue
		default:
		}
		var retry <-chan time.Time
		if len(warm) < p.keep {
			c, err := p.start()
			if err == nil {
				warm = append(warm, c)
				continue
			}
			retry = time.After(retryAfter)
		}
		select {
		case <-p.quit:
			return
		case to := <-p.takes:
			give(to)
		case <-retry:
		}
	}
}

// Take returns a child that said hello, a warm one if there is any. The caller
// kills it.
func (p *Pool) Take(ctx context.Context) (*Process, error) {
	var last error
	for range 1 + p.keep { // warm ones may have died while nobody looked
		c, err := p.next(ctx)
		if err != nil {
			return nil, err
		}
		stop := context.AfterFunc(ctx, c.Kill)
		late := time.AfterFunc(startWait, c.Kill)
		b, err := c.Recv()
		inTime := stop()
		inTime = late.Stop() && inTime
		switch {
		case err == nil && string(b) == hello && inTime && !c.ended():
			return c, nil
		case err == nil:
			err = fmt.Errorf("said %.40q", b)
		}
		c.Kill()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		last = fmt.Errorf("child did not start: %w: %s", err, c.death().first())
	}
	return nil, last
}

func (p *Pool) next(ctx context.Context) (*Process, error) {
	to := make(chan taken, 1)
	select {
	case p.takes <- to:
	case <-p.quit:
		return nil, ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	t := <-to
	return t.c, t.err
}

// start runs on the forker's thread.
func (p *Pool) start() (*Process, error) {
	inR, inW, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start child: %w", err)
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		inR.Close()
		inW.Close()
		return nil, fmt.Errorf("start child: %w", err)
	}
	c := &Process{pool: p, in: inW, out: outR, gone: make(chan struct{})}
	cmd := exec.Command(p.path)
	cmd.Args = p.args
	cmd.Env = []string{}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = inR, outW, &c.stderr
	cmd.SysProcAttr = attributes()
	err = cmd.Start()
	inR.Close()
	outW.Close()
	if err != nil {
		inW.Close()
		outR.Close()
		return nil, fmt.Errorf("start child: %w", err)
	}
	c.cmd = cmd
	p.started.Add(1)
	p.alive.Add(1)
	p.wg.Go(c.reap)
	return c, nil
}

// Close kills and reaps the idle children and waits until those that were taken
// are killed.
func (p *Pool) Close() {
	p.closing.Do(func() { close(p.quit) })
	p.wg.Wait()
}

// Stats returns the counters.
func (p *Pool) Stats() Stats {
	return Stats{Alive: int(p.alive.Load()), Started: p.started.Load(), Died: p.died.Load()}
}

// Process is one child.
type Process struct {
	pool   *Pool
	cmd    *exec.Cmd
	in     *os.File
	out    *os.File
	stderr tail
	killed atomic.Bool
	err    error // of its exit, after gone
	gone   chan struct{}
}

// Send writes one frame. It fails once the child is gone.
func (c *Process) Send(b []byte) error { return WriteFrame(c.in, b) }

// Recv reads one frame: an error once the child is gone and all it wrote is
// read.
func (c *Process) Recv() ([]byte, error) { return ReadFrame(c.out) }

// Nice lowers the child's priority as far as it goes, where that is possible.
func (c *Process) Nice() error { return nice(c.cmd.Process.Pid) }

// Kill ends the child and returns when it is reaped. Safe to call again, and
// from several goroutines.
func (c *Process) Kill() {
	c.killed.Store(true)
	_ = c.cmd.Process.Kill() // gone already is as good
	<-c.gone
	c.in.Close()
	c.out.Close()
}

// ended reports whether the child is reaped.
func (c *Process) ended() bool {
	select {
	case <-c.gone:
		return true
	default:
		return false
	}
}

// Death returns how a child ended that was not killed by this side. It waits
// for the end.
func (c *Process) Death() Death {
	<-c.gone
	return c.death()
}

func (c *Process) death() Death {
	d := readTrace(c.stderr.bytes())
	d.How = "exit status 0"
	if c.err != nil {
		d.How = c.err.Error()
	}
	return d
}

func (c *Process) reap() {
	c.err = c.cmd.Wait()
	c.pool.alive.Add(-1)
	if !c.killed.Load() {
		c.pool.died.Add(1)
	}
	close(c.gone)
}

// maxTrace is what is kept of a child's standard error: the trace of the
// goroutine that died comes first.
const maxTrace = 64 << 10

// tail keeps the first maxTrace bytes of what it is given.
type tail struct {
	mu sync.Mutex
	b  []byte
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, b[:min(len(b), maxTrace-len(t.b))]...)
	return len(b), nil
}

func (t *tail) bytes() []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]byte(nil), t.b...)
}
