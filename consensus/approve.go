package consensus

import (
	"fmt"
	"time"

	"github.com/coffer-network/coffer/ledger"
)

// Promise is what a member has bound itself to: it approves only heads that
// descend from this one, for ever (spec: consensus R3).
type Promise struct {
	Epoch   uint64      `cbor:"1,keyasint"`
	Members ledger.Hash `cbor:"2,keyasint"` // what the approval said of the next member set
	Height  uint64      `cbor:"3,keyasint"`
	Head    ledger.Hash `cbor:"4,keyasint"`

	// Term and Index tell at the next start whether raft's directory still
	// holds what the promise stands on.
	Term  uint64 `cbor:"5,keyasint"`
	Index uint64 `cbor:"6,keyasint"`

	Verdicts []byte `cbor:"7,keyasint"` // of Config.MayApprove, as of this promise
}

// maxVerdicts bounds what is written with each promise.
const maxVerdicts = 256 << 10

// DecodePromise reads what a PromiseStore holds; a new store's nil is the zero
// Promise.
func DecodePromise(b []byte) (Promise, error) {
	var p Promise
	if len(b) == 0 {
		return p, nil
	}
	if err := ledger.Unmarshal(b, &p); err != nil {
		return p, fmt.Errorf("decode promise: %w", err)
	}
	return p, nil
}

func loadPromise(s PromiseStore) (Promise, error) {
	b, err := s.LastPromise()
	if err != nil {
		return Promise{}, fmt.Errorf("read promise: %w", err)
	}
	return DecodePromise(b)
}

// Promise returns the last promise.
func (c *Consensus) Promise() Promise {
	c.promiseMu.Lock()
	defer c.promiseMu.Unlock()
	return c.promise
}

// When to approve (spec: consensus §6.2).
const (
	approveEvery   = 200 * time.Millisecond
	approveHeights = 1024
	resendEvery    = time.Second
	// approveGap keeps approvals at once, which follow plans, below the 20 a
	// second that receivers accept.
	approveGap = 60 * time.Millisecond
)

// approvalPlan is everything the choice of a height depends on.
type approvalPlan struct {
	applied   uint64
	promised  uint64 // height of the last promise
	signed    uint64 // last height signed since the start
	since     uint64 // first height under the epoch in force
	opened    uint64 // height that opened the next epoch, or 0
	plannedAt uint64
	withheld  uint64 // what MayApprove last refused, or 0
	due       bool   // the regular time has come
}

// height chooses what to approve next, if anything.
//
// Approvals count only together with equal ones, and members look at different
// moments. So the regular choice is the roundest height of the window (the one
// with the most trailing zero bits): members whose windows overlap tend to
// choose the same, however fast heights grow.
func (p approvalPlan) height() (uint64, bool) {
	// Before replay reaches the promise the window is empty.
	low, high := max(p.promised, p.signed+1, p.since, 1), p.applied
	if p.opened != 0 {
		high = min(high, p.opened) // R7: nothing above x under e
	}
	switch {
	case low > high:
		return 0, false
	case p.opened != 0:
		return p.opened, true // the flip certificate is of exactly x
	case p.plannedAt >= low && p.plannedAt <= high && p.plannedAt != p.withheld:
		return p.plannedAt, true
	case !p.due && high-low < approveHeights:
		return 0, false
	}
	if h := roundest(low, high); h != p.withheld {
		return h, true
	}
	return high, true // what was wrong with that height may be mended by now
}

// roundest returns the number in low … high with the most trailing zero bits.
func roundest(low, high uint64) uint64 {
	for high&(high-1) >= low {
		high &= high - 1
	}
	return high
}

// approve is the loop that decides, promises, signs and sends, in this order.
func (c *Consensus) approve() {
	tick := time.NewTicker(approveEvery)
	defer tick.Stop()
	resend := time.NewTicker(resendEvery)
	defer resend.Stop()
	var (
		st   approverState
		due  bool
		last []byte
		at   time.Time
		gap  = time.NewTimer(0)
	)
	defer gap.Stop()
	for {
		select {
		case <-tick.C:
			due = true
		case <-c.wake:
		case <-gap.C:
		case <-resend.C:
			if last != nil {
				c.cfg.Gossip.Broadcast(GossipApproval, last)
			}
			continue
		case <-c.failed:
			return
		case <-c.ctx.Done():
			return
		}
		if wait := approveGap - time.Since(at); wait > 0 {
			gap.Reset(wait)
			continue
		}
		body, err := c.approveNext(&st, due)
		if err != nil {
			c.fail(err)
			return
		}
		due = false
		if body != nil {
			last, at = body, time.Now()
			c.cfg.Gossip.Broadcast(GossipApproval, body)
		}
	}
}

// approverState lives as long as the process.
type approverState struct {
	signed   uint64
	withheld uint64
}

// approveNext approves one height if one is to be approved, and returns what to
// send. An error stops the node: it cannot keep promises.
func (c *Consensus) approveNext(st *approverState, due bool) ([]byte, error) {
	at, p := c.now(), c.Promise()
	if !at.Epoch.Has(c.cfg.Self) {
		return nil, nil
	}
	plan := approvalPlan{applied: at.Height, promised: p.Height, signed: st.signed, since: at.since,
		plannedAt: at.PlannedAt, withheld: st.withheld, due: due}
	if at.Opened != nil {
		plan.opened = at.Opened.Height
	}
	height, ok := plan.height()
	if !ok {
		return nil, nil
	}
	a, ok, err := c.approval(height, at)
	if err != nil || !ok {
		return nil, err
	}
	if c.unprovenState() != 0 {
		return nil, nil
	}
	verdicts, err := c.cfg.MayApprove(a)
	if err == nil && len(verdicts) > maxVerdicts {
		err = fmt.Errorf("verdicts of %d bytes, at most %d", len(verdicts), maxVerdicts)
	}
	if err != nil {
		st.withheld = height
		c.log.Debug("approval withheld", "height", height, "reason", err)
		return nil, nil
	}
	// By ancestry, not by number: each link from the promise is recomputed.
	head, err := c.chain.descend(p.Height, promisedHead(p, c.cfg.Cluster), height)
	if (err != nil || head != a.Head) && !c.cfg.off.ancestry {
		return nil, fmt.Errorf("%w: height %d does not descend from promised %d: %w", ErrPromiseBroken, height, p.Height, err)
	}
	next := Promise{Epoch: a.Epoch, Members: a.Members, Height: height, Head: a.Head,
		Term: c.raft.CurrentTerm(), Index: at.index, Verdicts: verdicts}
	if err := c.cfg.Promises.SavePromise(ledger.Marshal(next)); err != nil {
		return nil, fmt.Errorf("save promise: %w", err)
	}
	c.promiseMu.Lock()
	c.promise = next
	c.promiseMu.Unlock()

	st.signed, st.withheld = height, 0
	s := signedApproval{Approval: a, Signature: c.cfg.Sign(a)}
	if err := c.pool.add(s, c); err != nil {
		c.log.Warn("own approval not counted", "height", height, "reason", err)
	}
	return ledger.Marshal(s), nil
}

func promisedHead(p Promise, genesis ledger.Hash) ledger.Hash {
	if p.Height == 0 {
		return genesis
	}
	return p.Head
}

// approval is what any honest member says about an applied height under the
// epoch in force; ok is false for a height that nobody may approve under it.
func (c *Consensus) approval(height uint64, at applied) (a ledger.Approval, ok bool, err error) {
	if height == 0 || height > at.Height {
		return a, false, nil
	}
	members := at.members
	if at.Opened != nil {
		switch {
		case height > at.Opened.Height:
			return a, false, nil
		case height == at.Opened.Height:
			members = at.openMembers
		}
	}
	head, err := c.chain.headAt(height)
	if err != nil {
		return a, false, err
	}
	rootHeight, root, err := c.chain.rootAt(height)
	if err != nil {
		return a, false, err
	}
	return ledger.Approval{Cluster: c.cfg.Cluster, Epoch: at.Epoch.Number, Height: height, Head: head,
		RootHeight: rootHeight, Root: root, Members: members}, true, nil
}
