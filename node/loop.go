package node

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"
)

// Loops that money depends on say with each turn that they advance. One that does
// not for a minute is ended and begun anew: their plans are pure and made from the
// ledger each time, so a restart is harmless, and sessions that were joined are
// not joined again (spec: committee §10). What a loop waits for longer than that, a
// certificate or a session, runs beside it.
//
// Why not the followers of chains and the price feed: a slow endpoint may take
// longer, and a restart would only ask it once more. Their ages are metrics.

const (
	loopStall    = time.Minute
	loopLook     = 5 * time.Second
	loopFarewell = 5 * time.Second // that an ended loop gets before the next begins beside it
)

// pace says how patient supervise is; the zero value is in earnest.
type pace struct{ stall, look, farewell time.Duration }

func (p pace) or() pace {
	if p.stall == 0 {
		return pace{loopStall, loopLook, loopFarewell}
	}
	return p
}

// supervise runs a loop until ctx ends, anew whenever it does not advance.
func (n *Node) supervise(ctx context.Context, name string, loop func(ctx context.Context, advanced func())) {
	for ctx.Err() == nil {
		if n.watchLoop(ctx, loop) {
			return
		}
		n.metrics.loopRestarted(name)
		n.log.Error("loop does not advance, it is restarted", slog.String("loop", name))
	}
}

// watchLoop is one life of a loop; false: it stood still.
func (n *Node) watchLoop(ctx context.Context, loop func(ctx context.Context, advanced func())) bool {
	p := n.pace.or()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var last atomic.Int64
	advanced := func() { last.Store(int64(time.Since(n.started))) }
	advanced()
	done := make(chan struct{})
	n.wg.Add(1)
	go func() {
		defer n.wg.Done()
		defer close(done)
		loop(ctx, advanced)
	}()
	tick := time.NewTicker(p.look)
	defer tick.Stop()
	looked := time.Now()
	for {
		select {
		case <-done:
			return true
		case <-tick.C:
		}
		slept := time.Since(looked) > 3*p.look // the whole process stood still, as after SIGSTOP
		looked = time.Now()
		if slept {
			advanced()
			continue
		}
		if time.Since(n.started)-time.Duration(last.Load()) < p.stall {
			continue
		}
		stop()
		select {
		case <-done:
		case <-time.After(p.farewell):
		}
		return false
	}
}
