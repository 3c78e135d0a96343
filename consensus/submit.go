package consensus

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/coffer-network/coffer/ledger"
)

// Receipt says where a command stands in the ledger and what became of it.
type Receipt struct {
	Height uint64
	Code   ledger.Code
}

// Limits of the leader's queues (spec: consensus §9). Attestations have their
// own, with a quota for each member that sends some, so that clients cannot
// starve facts, nor one member the others.
const (
	maxQueued      = 4096 // commands of clients
	maxQueuedBytes = 16 << 20
	memberQueued   = 256 // attestations that came through one member
	memberBytes    = 1 << 20
	maxUnapplied   = 5000 // raft entries committed and not applied
	// maxForwarding of clients' commands and reads are on their way to the leader
	// at once. The transport takes 256 requests: the rest are for attestations,
	// which clients must not starve, and for what nodes ask each other.
	maxForwarding  = 192
	maxProposed    = 2               // raft entries in flight; while they are, commands gather
	enqueueTimeout = 5 * time.Second // raft's main loop is that busy only on a failing disk
)

type submits struct {
	clients chan *proposal
	facts   chan *proposal
	slots   chan struct{}
	window  chan struct{} // of maxForwarding

	mu     sync.Mutex
	queued map[ledger.MemberID]load // of facts by the member they came through; of clients under no member
}

// load is what waits in a queue.
type load struct{ commands, bytes int }

func newSubmits() *submits {
	return &submits{
		clients: make(chan *proposal, maxQueued), facts: make(chan *proposal, ledger.MaxMembers*memberQueued),
		slots: make(chan struct{}, maxProposed), window: make(chan struct{}, maxForwarding), queued: map[ledger.MemberID]load{},
	}
}

// put queues p, or says which limit it met.
func (s *submits) put(p *proposal) error {
	lane, commands, bytes := s.clients, maxQueued, maxQueuedBytes
	fullOf, heavyOf := LimitCommands, LimitBytes
	if p.through != (ledger.MemberID{}) {
		lane, commands, bytes = s.facts, memberQueued, memberBytes
		fullOf, heavyOf = LimitMember, LimitMember
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.queued[p.through]
	switch {
	case l.commands == commands:
		return &Overload{Limit: fullOf}
	case l.bytes+len(p.tx) > bytes:
		return &Overload{Limit: heavyOf}
	}
	select {
	case lane <- p:
		s.queued[p.through] = load{l.commands + 1, l.bytes + len(p.tx)}
		return nil
	default: // more members than an epoch has have sent some
		return &Overload{Limit: fullOf}
	}
}

// took notes that commands have left their queues.
func (s *submits) took(batch []*proposal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range batch {
		l := s.queued[p.through]
		if l = (load{l.commands - 1, l.bytes - len(p.tx)}); l.commands > 0 {
			s.queued[p.through] = l
		} else {
			delete(s.queued, p.through)
		}
	}
}

// next is the command to go in after so many others: the queues take turns
// while both hold some. Nil: there is none.
func (s *submits) next(after int) *proposal {
	first, second := s.facts, s.clients
	if after%2 == 1 {
		first, second = second, first
	}
	select {
	case p := <-first:
		return p
	default:
	}
	select {
	case p := <-second:
		return p
	default:
		return nil
	}
}

type proposal struct {
	tx      []byte
	through ledger.MemberID // that sent the attestation here; none: a client's command
	done    chan outcome
}

type outcome struct {
	receipt Receipt
	err     error
}

// Submit brings a command into the log, on any node, and returns when this
// node's own replica has applied it. After ErrTimeout the same bytes may be
// sent again at any node.
func (c *Consensus) Submit(ctx context.Context, tx []byte) (Receipt, error) {
	through, err := c.admit(c.cfg.Self, tx)
	if err != nil {
		return Receipt{}, err
	}
	if c.Leading() {
		return c.order(ctx, through, tx)
	}
	if leader, ok := c.Leader(); ok && leader != c.cfg.Self {
		c.grieve.sent(tx, leader, time.Now())
	}
	reply, err := c.ask(ctx, request{Op: opSubmit, Tx: tx}, through != (ledger.MemberID{}))
	if err != nil {
		// Of an attestation the leader's word is not enough: it is said until it
		// is applied. A client was told that it may say something else.
		if through == (ledger.MemberID{}) && (errors.Is(err, ErrRefused) || errors.Is(err, ErrOverloaded) || errors.Is(err, ErrTooLarge) || errors.Is(err, ErrNoLeader)) {
			c.grieve.done(sha256.Sum256(tx))
		}
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

// admit looks at a command that came through a member, who is the answer if it
// is an attestation.
func (c *Consensus) admit(from ledger.MemberID, tx []byte) (through ledger.MemberID, err error) {
	if err := c.Err(); err != nil {
		return through, err
	}
	if len(tx) > MaxCommand {
		return through, ErrTooLarge
	}
	attestation, err := c.cfg.App.Check(tx)
	if err != nil {
		return through, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	if attestation {
		return from, nil
	}
	if c.cfg.Room != nil {
		return through, c.cfg.Room(from == c.cfg.Self)
	}
	return through, nil
}

// order queues the command on the leader and waits for its result.
func (c *Consensus) order(ctx context.Context, through ledger.MemberID, tx []byte) (Receipt, error) {
	if !c.Leading() {
		return Receipt{}, ErrNoLeader
	}
	if c.raft.CommitIndex() > c.now().index+maxUnapplied {
		return Receipt{}, &Overload{Limit: LimitUnapplied}
	}
	p := &proposal{tx: tx, through: through, done: make(chan outcome, 1)}
	if err := c.submits.put(p); err != nil {
		return Receipt{}, err
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
			case first = <-c.submits.facts:
			case first = <-c.submits.clients:
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
		}
		c.submits.took(batch)
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
		p := c.submits.next(len(batch))
		if p == nil {
			return batch, nil
		}
		if size += perCommand + len(p.tx); size > maxEntry-perCommand {
			return batch, p
		}
		batch = append(batch, p)
	}
	return batch, nil
}

func (c *Consensus) settle(f raft.ApplyFuture, batch []*proposal) {
	err := f.Error()
	<-c.submits.slots
	if err == nil && len(c.submits.slots) == 0 {
		c.tell(f.Index())
	}
	results, ok := f.Response().([]Result)
	switch {
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		err = ErrNoLeader // raft refuses these before its log
	case errors.Is(err, raft.ErrEnqueueTimeout):
		err = &Overload{Limit: LimitRaft}
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
	// opPosition asks a node that follows how far it is: the raft index it applied.
	opPosition uint8 = 3

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
	Limit   Limit       `cbor:"5,keyasint"` // of ErrOverloaded
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
		if o, ok := errors.AsType[*Overload](err); ok {
			out.Limit = o.Limit
		}
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

// ask sends a request to the leader, one hop. What is no attestation finds room
// in the window, or is not sent.
func (c *Consensus) ask(ctx context.Context, req request, attestation bool) (reply, error) {
	leader, ok := c.Leader()
	if !ok || leader == c.cfg.Self {
		return reply{}, ErrNoLeader
	}
	if !attestation {
		select {
		case c.submits.window <- struct{}{}:
			defer func() { <-c.submits.window }()
		default:
			return reply{}, &Overload{Limit: LimitForwarding}
		}
	}
	b, err := c.cfg.Forwarder.Forward(ctx, leader, ledger.Marshal(req))
	if errors.Is(err, ErrOverloaded) { // nothing was sent
		return reply{}, err
	}
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
	if failures[r.Failure-1] == ErrOverloaded {
		return reply{}, &Overload{Limit: r.Limit, Leader: true}
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
	member := c.isMember(from)
	if !member && !c.follower(from) {
		return Receipt{}, fmt.Errorf("%w: %s is no member", ErrRefused, from)
	}
	var req request
	if err := ledger.Unmarshal(b, &req); err != nil {
		return Receipt{}, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	if !member && req.Op != opSubmit {
		return Receipt{}, fmt.Errorf("%w: %s holds no seat", ErrRefused, from)
	}
	switch req.Op {
	case opPosition:
		return Receipt{Height: c.now().index}, nil
	case opSubmit:
		through, err := c.admit(from, req.Tx)
		if err != nil {
			return Receipt{}, err
		}
		if !member && through != from {
			return Receipt{}, fmt.Errorf("%w: %s holds no seat, and clients' commands are for members to bring", ErrRefused, from)
		}
		return c.order(ctx, through, req.Tx)
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
