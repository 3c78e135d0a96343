package node

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"time"

	"github.com/coffer-network/coffer/chains"
	"github.com/coffer-network/coffer/consensus"
	"github.com/coffer-network/coffer/ledger"
)

const (
	// clockTolerance: a member whose clock differs more from ledger time
	// withholds approval, ten seconds while time catches up (spec: consensus §7).
	clockTolerance = 2 * time.Second
	clockCatchUp   = 10 * time.Second
	// planTolerance bounds how far from its own clock a plan may be to be signed
	// by this member (spec: consensus R5a).
	planTolerance = 60 * time.Second
	// maxVerdicts bounds what is saved with each promise.
	maxVerdicts = 1024
)

// verdict says whether a plan was timely for this member.
type verdict struct {
	Batch   uint64 `cbor:"1,keyasint"`
	Attempt uint64 `cbor:"2,keyasint"`
	Timely  bool   `cbor:"3,keyasint"`
}

// judgePlans decides, for every open attempt that a head at height covers and
// no earlier approval did, whether it was planned at about the time it got
// here. A leader that orders nothing for a while and then replays honest
// attestations with a borrow inserted at an old price is caught by this alone.
func judgePlans(v *ledger.State, height uint64, now time.Time, known map[jobKey]bool) []verdict {
	var vs []verdict
	for id := range v.Live.All() {
		b, ok := v.Batches.Get(id)
		if !ok || b.Kind != ledger.BatchPay {
			continue
		}
		a := b.Newest()
		k := jobKey{b.ID, a.K}
		timely, judged := known[k]
		if !judged {
			if a.Height > height {
				continue
			}
			timely = now.Sub(time.UnixMilli(int64(a.Millis))).Abs() <= planTolerance
		}
		vs = append(vs, verdict{b.ID, a.K, timely})
	}
	return vs[max(0, len(vs)-maxVerdicts):]
}

// mayApprove is asked before every approval; what it returns is on disk before
// the approval leaves.
//
// While there are no keys nothing can be paid, and ledger time starts where
// genesis says, which may be long ago: the clock is not compared then.
func (n *Node) mayApprove(a ledger.Approval) ([]byte, error) {
	if is, _ := n.learner(); is {
		return nil, errLearner
	}
	return n.mayApproveAt(a, time.Now())
}

func (n *Node) mayApproveAt(a ledger.Approval, now time.Time) ([]byte, error) {
	v, _ := n.app.now()
	if v.Epoch().Number > 0 {
		tolerance := clockTolerance + clockIdleMillis*time.Millisecond // an idle cluster's time rests between clocks
		if v.Catching {
			tolerance = max(tolerance, clockCatchUp)
		}
		if d := now.Sub(time.UnixMilli(int64(v.Millis))); d < -tolerance || d > tolerance && !v.Catching {
			return nil, fmt.Errorf("own clock is %s from ledger time", d.Round(time.Millisecond))
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if why := disputed(v, n.balances); why != "" {
		return nil, fmt.Errorf("solvency disputed: %s", why)
	}
	vs := judgePlans(v, a.Height, now, n.verdicts)
	clear(n.verdicts)
	for _, x := range vs {
		n.verdicts[jobKey{x.Batch, x.Attempt}] = x.Timely
	}
	return ledger.Marshal(vs), nil
}

func (n *Node) loadVerdicts() error {
	p := n.cons.Promise()
	if len(p.Verdicts) == 0 {
		return nil
	}
	var vs []verdict
	if err := ledger.Unmarshal(p.Verdicts, &vs); err != nil {
		return fmt.Errorf("read verdicts of promise %d: %w", p.Height, err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, x := range vs {
		n.verdicts[jobKey{x.Batch, x.Attempt}] = x.Timely
	}
	n.log.Debug("promise read", slog.Uint64("height", p.Height))
	return nil
}

func (n *Node) verdict(k jobKey) (timely, known bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	timely, known = n.verdicts[k]
	return timely, known
}

// world gathers what the attestor's plan needs besides the ledger.
func (n *Node) world(ctx context.Context, v *ledger.State) world {
	w := world{self: n.self, feeEvery: uint64(n.cfg.FeeEvery.or(time.Minute).Milliseconds())}
	if v.Opening != nil && v.Opening.Head != (ledger.Hash{}) {
		if c, ok := n.cons.FlipCertificate(v.Opening.Height); ok {
			w.flip = &c
		}
	}
	w.tests = n.plannedTests(v)
	w.said = n.said
	n.mu.Lock()
	w.seen = maps.Clone(n.seen)
	at := maps.Clone(n.seenAt)
	n.mu.Unlock()
	w.caughtUp = n.caughtUp() && n.knowsForeign(ctx, w.seen, at)
	w.vouched = n.proof.Vouched()
	n.mu.Lock()
	defer n.mu.Unlock()
	// A learner signs nothing: unheard, it stands at the end of every roster. And
	// it may have said another price for a round it forgot.
	learner := n.restored != ""
	if n.prepared && !learner {
		w.clock = uint64(time.Now().UnixMilli())
	}
	w.prices = map[string]ledger.PriceReport{}
	for a, p := range n.prices {
		if !learner {
			w.prices[a] = p
		}
	}
	w.tooCheap = maps.Clone(n.tooCheap)
	w.balances = maps.Clone(n.balances)
	w.forked = map[string]bool{}
	for c, st := range n.chainStatus {
		w.forked[c] = st.Failing == chains.ErrDeepFork.Error()
	}
	w.ready = append(w.ready, n.readyShares...)
	w.wiped = n.wiped
	w.screened = n.screening.inflows()
	w.blames = n.provenLocked()
	for k, r := range n.refusals {
		if b, ok := v.Batches.Get(k.batch); ok && b.Done {
			delete(n.refusals, k)
			continue
		}
		w.refusals = append(w.refusals, r)
	}
	for k, g := range n.gaveUp {
		if b, ok := v.Batches.Get(k.batch); ok && b.Done {
			delete(n.gaveUp, k)
			continue
		}
		w.gaveUp = append(w.gaveUp, g)
	}
	return w
}

// caughtUp: this replica is in touch with a leader. That it has applied what it was
// sent does not follow; for what is foreign, foreignWatch asks.
func (n *Node) caughtUp() bool {
	s := n.cons.Status()
	return s.Leading || s.HasLeader && time.Since(s.LastContact) < 2*time.Second
}

var _ consensus.App = (*app)(nil)
