package node

import (
	"log/slog"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/tss/keystore"
)

// inForce is this node's note of the KeyShares that the cluster signs with. It is
// for whoever opens the keystore while no ledger runs: no record of a KeyShare
// tells, since after a rollback the older ones sign again.
type inForce struct {
	Epoch  uint64             `cbor:"1,keyasint"`
	Height uint64             `cbor:"2,keyasint"` // of the ledger, where Epoch came into force
	Shares []keystore.ShareID `cbor:"3,keyasint"` // this member's, one a key; none: it holds no seat in Epoch
}

const inForceName = "in-force"

// planInForce is what v has a node note; false: there are no keys yet.
func planInForce(v *ledger.State, self ledger.MemberID) (inForce, bool) {
	info, ok := v.Infos.Get(v.Epoch().Number)
	f := inForce{Epoch: v.Epoch().Number, Height: info.Height}
	if v.Epoch().Has(self) {
		f.Shares = planActivations(v)
	}
	return f, ok && len(info.Keys) > 0
}

// readInForce returns the newest note; Epoch 0: there is none that can be read.
func readInForce(ks *keystore.Keystore) (f inForce) {
	if b, err := ks.Get(inForceName); err != nil || len(b) == 0 || ledger.Unmarshal(b, &f) != nil {
		return inForce{}
	}
	return f
}

// noteInForce writes down what came into force, once an epoch. A replica that
// replays its log passes through older ones, which its note outlives.
func (n *Node) noteInForce(v *ledger.State) {
	f, ok := planInForce(v, n.self)
	if !ok || f.Epoch <= n.noted {
		return
	}
	if f.Epoch > readInForce(n.keys).Epoch {
		if err := n.keys.Put(inForceName, ledger.Marshal(f)); err != nil {
			n.log.Error("which key shares are in force is not written down", slog.Uint64("epoch", f.Epoch), slog.Any("err", err))
			return
		}
	}
	n.noted = f.Epoch
}
