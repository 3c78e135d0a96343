package consensus

import (
	"errors"
	"fmt"
	"io"

	"github.com/hashicorp/raft"

	"github.com/coffer-network/coffer/ledger"
)

// A state taken over from another member is *unproven*: headers show what
// commands did, only a root shows what they left alone, and a lying leader can
// make up headers too. While it is unproven this node approves nothing, hands out
// no certificate and so signs nothing (spec: consensus R6).
//
// It is proved when f+1 other members have approved a root that this node folded
// itself, above the height taken over: one of them is honest. Order the honest
// members that ever approve such a root by when they do. The first of them had
// nobody honest before it, so it was not unproven: it replayed, and the root is
// true. Equal roots are equal states.
//
// This node's own approval must not come first, however much it equals its own
// root: if as many honest members as the traitors need for a quorum were given
// the same false state, their approvals would be equal, and would certify it.

// unprovenState is the height of the state that was taken over, or of a checkpoint
// that is not reached yet, or 0.
func (c *Consensus) unprovenState() uint64 {
	if c.cfg.off.unproven {
		return 0
	}
	return max(c.unproven.Load(), c.ahead())
}

// Vouched reports that no state taken over waits for its proof and that no checkpoint is
// ahead. Where it does not, what App holds may be false, and a true state may come in its
// place: nothing that lasts is to be done by it.
func (c *Consensus) Vouched() bool { return c.unprovenState() == 0 }

// prove is told, under the pool's lock, that this node's own chain gives a, and
// who else approved it.
func (p *pool) prove(a ledger.Approval, e ledger.Epoch, c *Consensus) {
	u := c.unproven.Load()
	if u == 0 || a.RootHeight <= u {
		return
	}
	others := len(p.sigs[a])
	if _, own := p.sigs[a][c.cfg.Self]; own {
		others--
	}
	if others <= e.F {
		return
	}
	c.unproven.Store(0)
	c.log.Info("the state taken over from another member is proved", "height", u, "root", a.RootHeight)
	close(p.changed)
	p.changed = make(chan struct{})
	// The snapshot on disk says unproven until another takes its place. Were the power lost
	// at all of too many such nodes first, nobody would be left to vouch for anybody.
	c.spawn(func() {
		if err := c.raft.Snapshot().Error(); err != nil && !errors.Is(err, raft.ErrNothingNewToSnapshot) {
			c.log.Warn("no snapshot of the proved state yet", "reason", err)
		}
	})
}

var errEpochs = errors.New("epochs without their flip certificates")

// trustEpochs checks the epochs of another member's state: from the genesis
// members, each next one by a certificate of the one before, of a head on the
// chain that the state claims (spec: consensus R6, R7). Else a false state could
// bring the very members who vouch for it.
func (c *Consensus) trustEpochs(b Body, head func(height uint64) (ledger.Hash, error)) error {
	epochs, flips := b.Epochs()
	if len(epochs) == 0 || len(flips) != len(epochs)-1 || epochs[0].MembersHash() != c.genesis.MembersHash() {
		return fmt.Errorf("%w: %d epochs, %d flips", errEpochs, len(epochs), len(flips))
	}
	for i, f := range flips {
		was, next := epochs[i], epochs[i+1]
		if err := f.Verify(c.cfg.Cluster, was); err != nil {
			return fmt.Errorf("%w: %w", errEpochs, err)
		}
		if next.Number <= was.Number || f.Approval.Members != next.MembersHash() {
			return fmt.Errorf("%w: epoch %d is not the one certified at height %d", errEpochs, next.Number, f.Approval.Height)
		}
		if h, err := head(f.Approval.Height); err != nil || h != f.Approval.Head {
			return fmt.Errorf("%w: epoch %d was certified on another chain (%v)", errEpochs, next.Number, err)
		}
	}
	return nil
}

// headIn returns the head at a height of the chain that a snapshot brings: own up
// to the applied height, headers above.
func (c *Consensus) headIn(own uint64, headers io.ReaderAt) func(uint64) (ledger.Hash, error) {
	return func(height uint64) (ledger.Hash, error) {
		if height <= own {
			return c.chain.headAt(height)
		}
		var b [recordSize]byte
		if _, err := headers.ReadAt(b[:], int64((height-own-1)*recordSize)); err != nil {
			return ledger.Hash{}, fmt.Errorf("header %d: %w", height, err)
		}
		return decodeHeader(b[:]).Head(), nil
	}
}
