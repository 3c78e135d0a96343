package tss

import (
	"container/heap"
	"context"
	"errors"
	"sync"
	"time"
)

// cpuQueue hands out processors, older batches first. Every node orders its
// sessions alike, so under load the parties of one session compute at the same
// time and the oldest outflow is finished before the next is begun in earnest.
//
// Why not one slot per session for its whole life, as spec signing §10 has it:
// two nodes whose slots are taken by different sessions would wait for each
// other until both time out.
type cpuQueue struct {
	mu      sync.Mutex
	free    int
	waiting waiters
}

type waiter struct {
	priority priority
	ready    chan struct{}
	index    int
}

// priority: keygens after signatures, then by age of the plan.
type priority [5]uint64

func priorityOf(r Request) priority {
	return priority{uint64(r.Kind), r.Batch, r.Attempt, uint64(r.Input), uint64(r.Turn)}
}

var errSessionOver = errors.New("session over")

// acquire waits for a processor; release must be called once.
func (q *cpuQueue) acquire(ctx context.Context, over <-chan struct{}, p priority) (release func(), err error) {
	q.mu.Lock()
	if q.free > 0 {
		q.free--
		q.mu.Unlock()
		return q.release, nil
	}
	w := &waiter{priority: p, ready: make(chan struct{})}
	heap.Push(&q.waiting, w)
	q.mu.Unlock()
	select {
	case <-w.ready:
		return q.release, nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-over:
		err = errSessionOver
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if w.index < 0 {
		// Handed over in the same moment: pass it on.
		q.releaseLocked()
		return nil, err
	}
	heap.Remove(&q.waiting, w.index)
	return nil, err
}

func (q *cpuQueue) release() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.releaseLocked()
}

func (q *cpuQueue) releaseLocked() {
	if len(q.waiting) == 0 {
		q.free++
		return
	}
	close(heap.Pop(&q.waiting).(*waiter).ready)
}

type waiters []*waiter

func (w waiters) Len() int { return len(w) }
func (w waiters) Less(i, j int) bool {
	for k := range w[i].priority {
		if w[i].priority[k] != w[j].priority[k] {
			return w[i].priority[k] < w[j].priority[k]
		}
	}
	return false
}
func (w waiters) Swap(i, j int) {
	w[i], w[j] = w[j], w[i]
	w[i].index, w[j].index = i, j
}
func (w *waiters) Push(x any) {
	x.(*waiter).index = len(*w)
	*w = append(*w, x.(*waiter))
}
func (w *waiters) Pop() any {
	old := *w
	x := old[len(old)-1]
	x.index = -1
	*w = old[:len(old)-1]
	return x
}

// outbox sends one session's frames to one party, in order. A frame that the
// transport does not take is tried again until the session ends: the receiver
// drops what it has (E6).
type outbox struct {
	mu     sync.Mutex
	closed bool
	ch     chan []byte
	stop   context.CancelFunc
}

const (
	sendRetry = 50 * time.Millisecond
	// linger is what frames queued at a session's end get to leave: the last
	// round's message is what the peers still wait for.
	linger = 2 * time.Second
)

func (s *Signer) newOutbox(to PartyID) *outbox {
	ctx, stop := context.WithCancel(s.ctx)
	o := &outbox{ch: make(chan []byte, outboxLength), stop: stop}
	s.wg.Go(func() {
		defer stop()
		for raw := range o.ch {
			for s.cfg.Transport.Send(ctx, to, raw) != nil {
				select {
				case <-ctx.Done():
					return
				case <-time.After(sendRetry):
				}
			}
		}
	})
	return o
}

// put queues a frame; false if the queue is full. A closed one takes nothing
// and needs nothing: its session is over.
func (o *outbox) put(raw []byte) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return true
	}
	select {
	case o.ch <- raw:
		return true
	default:
		return false
	}
}

func (o *outbox) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return
	}
	o.closed = true
	close(o.ch)
	time.AfterFunc(linger, o.stop)
}
