package testnet

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// Progress shows the work that takes more than a second. Work begun before other work ended is shown too.
type Progress interface {
	Begin(label string, size Size) Task
}

// Size is what is known about work beforehand; the zero Size is work of unknown length.
type Size struct {
	Total    int64         // steps, reported with Task.Add
	Expected time.Duration // how long it usually takes: the remaining time follows from it while Total is 0
}

// Task is one piece of work being shown. Its methods may be called from any goroutine.
type Task interface {
	Add(steps int64)
	// End takes the task off the screen; err is why it failed, or nil. Only the first call counts.
	End(err error)
}

// NoProgress shows nothing.
var NoProgress Progress = silent{}

type silent struct{}

func (silent) Begin(string, Size) Task { return silent{} }
func (silent) Add(int64)               {}
func (silent) End(error)               {}

// NewProgress draws bars with the remaining time if w is a terminal, and writes plain lines otherwise.
func NewProgress(w io.Writer) Progress {
	f, ok := w.(*os.File)
	return &progress{w: w, terminal: ok && term.IsTerminal(int(f.Fd()))}
}

const (
	// lineEvery keeps a log of a piped run readable: a minute of work is six lines.
	lineEvery = 10 * time.Second
	// drawEvery is what a terminal can show without flicker.
	drawEvery = 200 * time.Millisecond
	// finalMilli: a bar that follows the clock may not claim to be done before End does.
	finalMilli = 990
)

type progress struct {
	w        io.Writer
	terminal bool

	mu  sync.Mutex // guards writes to w, and bar
	bar *task      // the task that draws; others write lines, for two bars would overwrite each other
}

func (p *progress) Begin(label string, size Size) Task {
	t := &task{p: p, label: label, size: size, started: time.Now(), stop: make(chan struct{}), stopped: make(chan struct{})}
	p.mu.Lock()
	if p.terminal && p.bar == nil {
		p.bar = t
		t.draw = t.newBar()
	}
	drawing := t.draw != nil
	p.mu.Unlock()
	every := drawEvery
	if !drawing {
		every = lineEvery
		p.line(label + t.outlook(0, 0))
	}
	go t.run(every)
	return t
}

func (p *progress) line(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bar != nil {
		_ = p.bar.draw.Clear()
	}
	fmt.Fprintln(p.w, text)
}

type task struct {
	p       *progress
	label   string
	size    Size
	started time.Time
	draw    *progressbar.ProgressBar // nil: lines

	mu   sync.Mutex
	done int64

	once    sync.Once
	stop    chan struct{}
	stopped chan struct{}
}

func (t *task) newBar() *progressbar.ProgressBar {
	total := int64(-1) // spinner
	switch {
	case t.size.Total > 0:
		total = t.size.Total
	case t.size.Expected > 0:
		total = 1000
	}
	return progressbar.NewOptions64(total,
		progressbar.OptionSetWriter(t.p.w),
		progressbar.OptionSetDescription(t.label),
		progressbar.OptionSetPredictTime(true),
		progressbar.OptionSetElapsedTime(true),
		progressbar.OptionSetRenderBlankState(true),
		progressbar.OptionFullWidth(),
		progressbar.OptionSetSpinnerChangeInterval(0), // else the bar draws from a goroutine of its own
		progressbar.OptionClearOnFinish(),
	)
}

func (t *task) Add(steps int64) {
	t.mu.Lock()
	t.done += steps
	t.mu.Unlock()
}

func (t *task) steps() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.done
}

func (t *task) run(every time.Duration) {
	defer close(t.stopped)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-t.stop:
			return
		case <-tick.C:
			t.show(time.Since(t.started))
		}
	}
}

func (t *task) show(elapsed time.Duration) {
	if t.draw == nil {
		t.p.line(t.label + ": " + seconds(elapsed) + t.outlook(elapsed, t.steps()))
		return
	}
	t.p.mu.Lock()
	defer t.p.mu.Unlock()
	switch {
	case t.size.Total > 0:
		// One step short of the end: reaching it would print the finished bar before End.
		_ = t.draw.Set64(min(t.steps(), t.size.Total-1))
	case t.size.Expected > 0:
		_ = t.draw.Set64(min(int64(1000*elapsed/t.size.Expected), finalMilli))
	default:
		_ = t.draw.Add(1)
	}
}

// outlook says how much is done and how much time remains, as far as either is known.
func (t *task) outlook(elapsed time.Duration, done int64) string {
	switch {
	case t.size.Total > 0 && done > 0 && done < t.size.Total && elapsed > 0:
		left := time.Duration(float64(elapsed) / float64(done) * float64(t.size.Total-done))
		return fmt.Sprintf(", %d of %d, about %s left", done, t.size.Total, seconds(left))
	case t.size.Total > 0:
		return fmt.Sprintf(", %d of %d", done, t.size.Total)
	case elapsed < t.size.Expected:
		return ", about " + seconds(t.size.Expected-elapsed) + " left"
	case t.size.Expected > 0:
		return ", longer than the usual " + seconds(t.size.Expected)
	}
	return ""
}

func (t *task) End(err error) {
	t.once.Do(func() {
		close(t.stop)
		<-t.stopped
		took := seconds(time.Since(t.started))
		if t.draw != nil {
			t.p.mu.Lock()
			_ = t.draw.Clear()
			t.p.bar = nil
			t.p.mu.Unlock()
		}
		if err != nil {
			// The reason is the caller's to report, once.
			t.p.line(t.label + ": failed after " + took)
			return
		}
		t.p.line(t.label + ": done in " + took)
	})
}

func seconds(d time.Duration) string {
	if d < 10*time.Second {
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}
