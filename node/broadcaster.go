package node

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/coffer-network/coffer/chains"
	"github.com/coffer-network/coffer/ledger"
)

// rebroadcast is how often a signed transaction is sent again until its anchor
// is attested spent. Sending twice is harmless; a broadcast's answer moves no
// state (spec: outflows R-4).
const rebroadcast = 5 * time.Second

// planBroadcasts says which batches wait for their anchor to be spent.
func planBroadcasts(v *ledger.State) []ledger.Batch {
	var bs []ledger.Batch
	for id := range v.Live.All() {
		if b, ok := v.Batches.Get(id); ok && b.Kind == ledger.BatchPay && b.Spent == nil {
			bs = append(bs, b)
		}
	}
	return bs
}

// broadcast sends everything this node holds signatures for. Every distinct
// transaction of a batch may be sent: they all consume one anchor.
func (n *Node) broadcast(ctx context.Context, advanced func()) {
	sent := map[inputKey]time.Time{}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		advanced()
		v, _ := n.app.now()
		live := map[inputKey]bool{}
		for _, b := range planBroadcasts(v) {
			for _, a := range b.Attempts {
				k := inputKey{batch: b.ID, body: a.Body}
				live[k] = true
				advanced()
				if time.Since(sent[k]) < rebroadcast {
					continue
				}
				if n.send(ctx, b, a) {
					sent[k] = time.Now()
				}
			}
		}
		for k := range sent {
			if !live[k] {
				delete(sent, k)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// send assembles and sends one transaction; false: signatures are missing.
func (n *Node) send(ctx context.Context, b ledger.Batch, a ledger.Attempt) bool {
	chain, ok := n.chains[b.Chain]
	if !ok {
		return false
	}
	u, err := chain.Build(a)
	if err != nil {
		n.log.Error("planned attempt does not build", slog.Uint64("batch", b.ID), slog.Any("err", err))
		return true
	}
	sigs := make([]chains.Signature, 0, len(u.Inputs))
	for i := range u.Inputs {
		if s, ok := n.signature(inputKey{b.ID, a.Body, i}); ok {
			sigs = append(sigs, chains.Signature{R: s.Sig.R, S: s.Sig.S, RecID: s.Sig.RecID})
		}
	}
	if len(sigs) < len(u.Inputs) {
		return false
	}
	raw, err := chain.Finish(u, sigs)
	if err != nil {
		n.log.Error("signatures do not finish the transaction", slog.Uint64("batch", b.ID), slog.Any("err", err))
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	err = chain.Broadcast(ctx, raw.Bytes)
	n.metrics.broadcast(b.Chain, answerOf(err))
	if a.Body == b.Newest().Body { // an older one is refused because it was replaced
		n.noteTooCheap(inputKey{batch: b.ID, body: a.Body}, errors.Is(err, chains.ErrTooCheap))
	}
	switch {
	case err == nil, errors.Is(err, chains.ErrAnchorSpent):
		// The second: somebody's broadcast was faster, or the follower will say who spent it.
		n.log.Debug("broadcast", slog.Uint64("batch", b.ID), slog.String("tx", raw.TxID))
	default:
		n.log.Warn("broadcast not accepted, will be sent again", slog.Uint64("batch", b.ID), slog.Any("err", err))
	}
	return true
}

func (n *Node) noteTooCheap(k inputKey, cheap bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if cheap {
		n.tooCheap[k] = true
	} else {
		delete(n.tooCheap, k)
	}
}

func answerOf(err error) string {
	switch {
	case err == nil:
		return "known"
	case errors.Is(err, chains.ErrAnchorSpent):
		return "anchor spent"
	case errors.Is(err, chains.ErrTooCheap):
		return "too cheap"
	case errors.Is(err, chains.ErrTransport):
		return "not reached"
	}
	return "refused"
}
