package consensus

import (
	"context"
	"fmt"
	"sync"
)

// ReadIndex returns a height that this replica has applied and that contains
// every command acknowledged anywhere before the call: reading the replica's
// state after it is linearizable (spec: consensus §5.2).
func (c *Consensus) ReadIndex(ctx context.Context) (uint64, error) {
	if c.Leading() {
		return c.leaderIndex(ctx)
	}
	r, err := c.ask(ctx, request{Op: opRead}, false)
	if err != nil {
		return 0, fmt.Errorf("read index: %w", err)
	}
	return r.Height, c.WaitHeight(ctx, r.Height)
}

// leaderIndex: a leader acknowledges a command after applying it, so its own
// height now covers all it acknowledged, and its Barrier those of leaders
// before it. What is left is to learn that it still leads.
func (c *Consensus) leaderIndex(ctx context.Context) (uint64, error) {
	term := c.raft.CurrentTerm()
	if !c.Leading() {
		return 0, ErrNoLeader
	}
	height := c.Height()
	if err := c.reads.wait(ctx); err != nil {
		return 0, err
	}
	// Another may have led in between and this node lead again.
	if !c.Leading() || c.raft.CurrentTerm() != term {
		return 0, ErrNoLeader
	}
	return height, nil
}

func (c *Consensus) verifyLeader() error {
	if err := c.raft.VerifyLeader().Error(); err != nil {
		return fmt.Errorf("%w: %w", ErrNoLeader, err)
	}
	return nil
}

// coalescer runs one round at a time. Callers that came before a round's start
// share it, later ones share the next: with a round each, 64 concurrent readers
// wait half a second (spec: consensus §5.2).
type coalescer struct {
	verify func() error
	spawn  func(func()) bool

	mu      sync.Mutex
	next    *round
	running bool
}

type round struct {
	done chan struct{}
	err  error
}

func (v *coalescer) wait(ctx context.Context) error {
	v.mu.Lock()
	if v.next == nil {
		v.next = &round{done: make(chan struct{})}
	}
	r := v.next
	if !v.running {
		if !v.spawn(v.run) {
			v.mu.Unlock()
			return ErrClosed
		}
		v.running = true
	}
	v.mu.Unlock()
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrTimeout, ctx.Err())
	}
}

func (v *coalescer) run() {
	for {
		v.mu.Lock()
		r := v.next
		v.next = nil
		v.running = r != nil
		v.mu.Unlock()
		if r == nil {
			return
		}
		r.err = v.verify()
		close(r.done)
	}
}
