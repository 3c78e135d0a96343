package consensus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/coffer-network/coffer/ledger"
)

// signedApproval is the body of GossipApproval.
type signedApproval struct {
	Approval  ledger.Approval  `cbor:"1,keyasint"`
	Signature ledger.MemberSig `cbor:"2,keyasint"`
}

// Limits of what others send (spec: consensus §4).
const (
	maxApproval     = 4 << 10
	approvalsPerSec = 20
	approvalBurst   = 40
	// maxHeld approvals of one member are remembered, by the order they came:
	// enough for a member that is some seconds ahead of this one.
	maxHeld = 64
)

var (
	errNotMember   = errors.New("not a member of the epoch in force")
	errOtherEpoch  = errors.New("approval of another cluster or epoch")
	errSignature   = errors.New("bad signature")
	errRate        = fmt.Errorf("more than %d approvals a second", approvalsPerSec)
	errTooBig      = fmt.Errorf("approval above %d bytes", maxApproval)
	errEquivocated = errors.New("approval contradicts an earlier one of its author")
)

// pool holds approvals until Q equal ones make a certificate.
type pool struct {
	mu    sync.Mutex
	epoch uint64
	held  map[ledger.MemberID][]ledger.Approval // oldest first
	sigs  map[ledger.Approval]map[ledger.MemberID]ledger.MemberSig
	turns turns

	best, flip  *ledger.Certificate
	changed     chan struct{} // closed and replaced with best
	equivocated uint64
	forked      uint64 // newest height at which f+1 members approve what is not this node's
}

func newPool() *pool {
	return &pool{
		held:    map[ledger.MemberID][]ledger.Approval{},
		sigs:    map[ledger.Approval]map[ledger.MemberID]ledger.MemberSig{},
		turns:   turns{perSec: approvalsPerSec, burst: approvalBurst, of: map[ledger.MemberID]*rate.Limiter{}},
		changed: make(chan struct{}),
	}
}

func (p *pool) status() (certified Checkpoint, equivocated, forked uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.best != nil {
		certified = Checkpoint{p.best.Approval.Height, p.best.Approval.Head}
	}
	return certified, p.equivocated, p.forked
}

// HandleApproval takes an approval that a member sent. The error says why it
// does not count, for metrics; a peer is not to be cut off for it, as honest
// members differ for a moment around a flip.
func (c *Consensus) HandleApproval(from ledger.MemberID, body []byte) error {
	if len(body) > maxApproval {
		return errTooBig
	}
	// Before the signature, which costs most.
	if !c.isMember(from) {
		return errNotMember
	}
	if !c.pool.allow(from, time.Now()) {
		return errRate
	}
	var s signedApproval
	if err := ledger.Unmarshal(body, &s); err != nil {
		return fmt.Errorf("decode approval: %w", err)
	}
	if s.Signature.Member != from {
		return fmt.Errorf("approval of %s: %w", s.Signature.Member, errSignature)
	}
	if !ledger.VerifyApproval(s.Approval, s.Signature) {
		return errSignature
	}
	return c.pool.add(s, c)
}

func (p *pool) allow(from ledger.MemberID, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.turns.take(from, now)
}

// turns bound how often a member is heard: so many times a second, after a burst.
type turns struct {
	perSec rate.Limit
	burst  int
	of     map[ledger.MemberID]*rate.Limiter
}

func (t turns) take(m ledger.MemberID, now time.Time) bool {
	l := t.of[m]
	if l == nil {
		l = rate.NewLimiter(t.perSec, t.burst)
		t.of[m] = l
	}
	return l.AllowN(now, 1)
}

// add counts a verified approval.
func (p *pool) add(s signedApproval, c *Consensus) error {
	at := c.now()
	a, from := s.Approval, s.Signature.Member
	p.mu.Lock()
	defer p.mu.Unlock()
	p.enter(at.Epoch)
	if a.Cluster != c.cfg.Cluster || a.Epoch != at.Epoch.Number {
		return errOtherEpoch
	}
	if !at.Epoch.Has(from) {
		return errNotMember
	}
	held := p.held[from]
	for _, h := range held {
		if h.Height == a.Height {
			if h == a {
				return nil
			}
			p.equivocated++
			return errEquivocated
		}
	}
	if len(held) == maxHeld {
		p.drop(from, held[0])
		held = held[1:]
	}
	p.held[from] = append(held, a)
	if p.sigs[a] == nil {
		p.sigs[a] = map[ledger.MemberID]ledger.MemberSig{}
	}
	p.sigs[a][from] = s.Signature
	p.count(a, at, c)
	return nil
}

func (p *pool) drop(m ledger.MemberID, a ledger.Approval) {
	delete(p.sigs[a], m)
	if len(p.sigs[a]) == 0 {
		delete(p.sigs, a)
	}
}

// enter forgets what was said under another epoch.
func (p *pool) enter(e ledger.Epoch) {
	if p.epoch == e.Number {
		return
	}
	p.epoch, p.flip = e.Number, nil
	clear(p.held)
	clear(p.sigs)
	clear(p.turns.of)
}

// reached counts again what others said of heights that are now applied.
func (p *pool) reached(c *Consensus) {
	at := c.now()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.enter(at.Epoch)
	for a := range p.sigs {
		p.count(a, at, c)
	}
}

// count makes a certificate of a, if Q members said it and this node says the
// same of its own chain. Approvals of a higher head never count for a lower one.
// Of f+1 one is honest: that many prove a state, or that this node is apart.
func (p *pool) count(a ledger.Approval, at applied, c *Consensus) {
	n := len(p.sigs[a])
	if n <= min(at.Epoch.F, c.quorum(at.Epoch)-1) {
		return
	}
	newest := p.best == nil || a.Height > p.best.Approval.Height
	flip := p.flip == nil && at.Opened != nil && a.Height == at.Opened.Height
	if !newest && !flip {
		return
	}
	own, ok, err := c.approval(a.Height, at)
	if err != nil || !ok {
		return
	}
	if own != a {
		p.apart(a, own, c)
		return
	}
	p.prove(a, at.Epoch, c)
	if n < c.quorum(at.Epoch) {
		return
	}
	cert := ledger.Certificate{Approval: a}
	for _, s := range p.sigs[a] {
		cert.Signatures = append(cert.Signatures, s)
	}
	slices.SortFunc(cert.Signatures, func(x, y ledger.MemberSig) int {
		return slices.Compare(x.Member[:], y.Member[:])
	})
	if flip {
		p.flip = &cert
	}
	if newest {
		p.best = &cert
		close(p.changed)
		p.changed = make(chan struct{})
	}
}

// apart notes that an honest member holds another history or state than this
// node. Nothing follows but an alarm: who is wrong only people can say, and until
// then no certificate covers this node's head.
func (p *pool) apart(theirs, own ledger.Approval, c *Consensus) {
	if theirs.Height <= p.forked {
		return
	}
	if p.forked == 0 {
		c.log.Error("members approve another history or state than this node holds", "height", theirs.Height,
			"theirs", theirs.Head.String(), "own", own.Head.String())
	}
	p.forked = theirs.Height
}

// Certificate returns the newest certificate, if it is of minHeight or above.
// Its head lies on this node's own chain (spec: consensus R5). After a state was
// taken over from another member there is none until one proves that state.
func (c *Consensus) Certificate(minHeight uint64) (ledger.Certificate, bool) {
	c.pool.mu.Lock()
	defer c.pool.mu.Unlock()
	if b := c.pool.best; b == nil || b.Approval.Height < minHeight || c.unprovenState() != 0 {
		return ledger.Certificate{}, false
	}
	return *c.pool.best, true
}

// WaitCertificate waits for a certificate of height or above.
func (c *Consensus) WaitCertificate(ctx context.Context, height uint64) (ledger.Certificate, error) {
	for {
		c.pool.mu.Lock()
		changed := c.pool.changed
		c.pool.mu.Unlock()
		if cert, ok := c.Certificate(height); ok {
			return cert, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ledger.Certificate{}, fmt.Errorf("wait for certificate of height %d: %w", height, ctx.Err())
		case <-c.failed:
			return ledger.Certificate{}, c.failure
		case <-c.ctx.Done():
			return ledger.Certificate{}, ErrClosed
		}
	}
}

// FlipCertificate returns the certificate of exactly the height x that opened
// the next epoch, while that epoch is not in force (spec: consensus R7).
func (c *Consensus) FlipCertificate(x uint64) (ledger.Certificate, bool) {
	c.pool.mu.Lock()
	defer c.pool.mu.Unlock()
	if c.pool.flip == nil || c.pool.flip.Approval.Height != x {
		return ledger.Certificate{}, false
	}
	return *c.pool.flip, true
}
