package consensus

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/coffer-network/coffer/ledger"
)

// Receipt says where a command stands in the ledger and what became of it.
type Receipt struct {
	Height uint64
	Code   ledger.Code
}

// Limits of the leader's queue (spec: consensus §9).
const (
	maxQueued      = 4096
	maxQueuedBytes = 16 << 20
	maxUnapplied   = 5000            // raft entries committed and not applied
	maxProposed    = 2               // raft entries in flight; while they are, commands gather
	enqueueTimeout = 5 * time.Second // raft's main loop is that busy only on a failing disk
)

type submits struct {
	queue chan *proposal
	bytes atomic.Int64
	slots chan struct{}
}

func newSubmits() *submits {
	return &submits{queue: make(chan *proposal, maxQueued), slots: make(chan struct{}, maxProposed)}
}

type proposal struct {
	tx   []byte
	done chan outcome
}

type outcome struct {
	receipt Receipt
	err     error
}

// Submit brings a command into the log, on any node, and returns when this
// node's own replica has applied it. After ErrTimeout the same bytes may be
// sent again at any node.
func (c *Consensus) Submit(ctx context.Context, tx []byte) (Receipt, error) {
	if err := c.admit(tx); err != nil {
		return Receipt{}, err
	}
	if c.Leading() {
		return c.order(ctx, tx)
	}
	reply, err := c.ask(ctx, request{Op: opSubmit, Tx: tx})
	if err != nil {
		return Receipt{}, fmt.Errorf("forward command: %w", err)
	}
	if err := c.WaitHeight(ctx, reply.Height); err != nil {
		return Receipt{}, fmt.Errorf("%w: %w", ErrTimeout, err)
	}
	// The leader's word is not the answer; this replica's is.
	h, err := c.chain.header(reply.Height)
	if err != nil {
		return Receipt{}, fmt.Errorf("%w: %w", ErrTimeout, err)
	}
	code, ok := c.recall(reply.Height)
	if !ok || h.Command != sha256.Sum256(tx) {
		return Receipt{}, fmt.Errorf("%w: leader's answer names height %d, which holds another command", ErrTimeout, reply.Height)
	}
	return Receipt{Height: reply.Height, Code: code}, nil
}

func (c *Consensus) admit(tx []byte) error {
	if err := c.Err(); err != nil {
		return err
	}
	if len(tx) > MaxCommand {
		return ErrTooLarge
	}
	if err := c.cfg.App.Check(tx); err != nil {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return nil
}

// order queues the command on the leader and waits for its result.
func (c *Consensus) order(ctx context.Context, tx []byte) (Receipt, error) {
	if !c.Leading() {
		return Receipt{}, ErrNoLeader
	}
	if c.raft.CommitIndex() > c.now().index+maxUnapplied {
		return Receipt{}, fmt.Errorf("%w: applying is behind", ErrOverloaded)
	}
	size := int64(len(tx))
	if c.submits.bytes.Add(size) > maxQueuedBytes {
		c.submits.bytes.Add(-size)
		return Receipt{}, fmt.Errorf("%w: %d bytes queued", ErrOverloaded, maxQueuedBytes)
	}
	p := &proposal{tx: tx, done: make(chan outcome, 1)}
	select {
	case c.submits.queue <- p:
	default:
		c.submits.bytes.Add(-size)
		return Receipt{}, fmt.Errorf("%w: %d commands queued", ErrOverloaded, maxQueued)
	}
	select {
	case o := <-p.done:
		return o.receipt, o.err
	case <-ctx.Done():
		return Receipt{}, fmt.Errorf("%w: %w", ErrTimeout, ctx.Err())
	case <-c.failed:
		return Receipt{}, c.failure
	case <-c.ctx.Done():
		return Receipt{}, fmt.Errorf("%w: %w", ErrTimeout, ErrClosed)
	}
}

// propose makes raft entries of what is queued: the first command goes at once,
// those that come while entries are in flight share the next.
func (c *Consensus) propose() {
	var carried *proposal
	for {
		first := carried
		if first == nil {
			select {
			case first = <-c.submits.queue:
			case <-c.ctx.Done():
				return
			}
		}
		select {
		case c.submits.slots <- struct{}{}:
		case <-c.ctx.Done():
			return
		}
		var batch []*proposal
		batch, carried = c.gather(first)
		txs := make([][]byte, len(batch))
		for i, p := range batch {
			txs[i] = p.tx
			c.submits.bytes.Add(-int64(len(p.tx)))
		}
		f := c.raft.Apply(ledger.Marshal(txs), enqueueTimeout)
		if !c.spawn(func() { c.settle(f, batch) }) {
			f.Error() // raft still runs: Close waits for this goroutine
			return
		}
	}
}

// gather takes what is queued, up to the limits of an entry, and returns the
// command that no longer fitted.
func (c *Consensus) gather(first *proposal) (batch []*proposal, rest *proposal) {
	const perCommand = 5 // CBOR length of a byte string
	batch = []*proposal{first}
	size := perCommand + len(first.tx)
	for len(batch) < maxCommands {
		select {
		case p := <-c.submits.queue:
			if size += perCommand + len(p.tx); size > maxEntry-perCommand {
				return batch, p
			}
			batch = append(batch, p)
		default:
			return batch, nil
		}
	}
	return batch, nil
}

func (c *Consensus) settle(f raft.ApplyFuture, batch []*proposal) {
	err := f.Error()
	<-c.submits.slots
	results, ok := f.Response().([]Result)
	switch {
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		err = ErrNoLeader // raft refuses these before its log
	case errors.Is(err, raft.ErrEnqueueTimeout):
		err = ErrOverloaded
	case err != nil:
		err = fmt.Errorf("%w: %w", ErrTimeout, err)
	case !ok || len(results) != len(batch):
		err = ErrTimeout // this node failed while it applied
	}
	for i, p := range batch {
		o := outcome{err: err}
		if err == nil {
			o.receipt = Receipt{Height: results[i].Header.Height, Code: results[i].Code}
		}
		p.done <- o
	}
}

// What travels between a node and the leader over Forwarder.
const (
	opSubmit uint8 = 1
	opRead   uint8 = 2

	// MaxForward bounds a request; a reply is far smaller.
	MaxForward = MaxCommand + 64
	maxText    = 256
)

type request struct {
	Op uint8  `cbor:"1,keyasint"`
	Tx []byte `cbor:"2,keyasint"`
}

type reply struct {
	Failure uint8       `cbor:"1,keyasint"` // index+1 in failures; 0: none
	Text    string      `cbor:"2,keyasint"`
	Height  uint64      `cbor:"3,keyasint"`
	Code    ledger.Code `cbor:"4,keyasint"`
}

// failures are the errors that keep their identity between nodes; the order is
// part of the protocol. Any other is an unknown outcome.
var failures = []error{ErrNoLeader, ErrTimeout, ErrOverloaded, ErrTooLarge, ErrRefused}

func replyOf(r Receipt, err error) []byte {
	out := reply{Height: r.Height, Code: r.Code}
	if err != nil {
		out = reply{Failure: 2, Text: err.Error()[:min(len(err.Error()), maxText)]}
		for i, e := range failures {
			if errors.Is(err, e) {
				out.Failure = uint8(i + 1)
				break
			}
		}
		out.Text = validText(out.Text)
	}
	return ledger.Marshal(out)
}

func validText(s string) string {
	b := []rune(s)
	for i, r := range b {
		if r < ' ' || r == 0xFFFD {
			b[i] = '?'
		}
	}
	return string(b)
}

// ask sends a request to the leader, one hop.
func (c *Consensus) ask(ctx context.Context, req request) (reply, error) {
	leader, ok := c.Leader()
	if !ok || leader == c.cfg.Self {
		return reply{}, ErrNoLeader
	}
	b, err := c.cfg.Forwarder.Forward(ctx, leader, ledger.Marshal(req))
	if err != nil {
		return reply{}, fmt.Errorf("%w: ask leader %s: %w", ErrTimeout, leader, err)
	}
	var r reply
	if err := ledger.Unmarshal(b, &r); err != nil {
		return reply{}, fmt.Errorf("%w: leader's reply: %w", ErrTimeout, err)
	}
	if r.Failure == 0 {
		return r, nil
	}
	if int(r.Failure) > len(failures) {
		r.Failure = 2
	}
	return reply{}, fmt.Errorf("%w (leader: %s)", failures[r.Failure-1], r.Text)
}

// HandleForward answers what a member's Forwarder sent here. A node that does
// not lead refuses: the hop limit is one (spec: consensus §5.1).
func (c *Consensus) HandleForward(ctx context.Context, from ledger.MemberID, b []byte) []byte {
	return replyOf(c.handleForward(ctx, from, b))
}

func (c *Consensus) handleForward(ctx context.Context, from ledger.MemberID, b []byte) (Receipt, error) {
	if len(b) > MaxForward {
		return Receipt{}, ErrTooLarge
	}
	if !c.isMember(from) {
		return Receipt{}, fmt.Errorf("%w: %s is no member", ErrRefused, from)
	}
	var req request
	if err := ledger.Unmarshal(b, &req); err != nil {
		return Receipt{}, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	switch req.Op {
	case opSubmit:
		if err := c.admit(req.Tx); err != nil {
			return Receipt{}, err
		}
		return c.order(ctx, req.Tx)
	case opRead:
		h, err := c.leaderIndex(ctx)
		return Receipt{Height: h}, err
	default:
		return Receipt{}, fmt.Errorf("%w: unknown request %d", ErrRefused, req.Op)
	}
}

// isMember reports whether id has a seat in the epoch in force or the opened one.
func (c *Consensus) isMember(id ledger.MemberID) bool {
	at := c.now()
	return at.Epoch.Has(id) || at.Opened != nil && at.Opened.Epoch.Has(id)
}
