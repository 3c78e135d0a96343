package node

import (
	"context"
	"time"

	"github.com/coffer-network/coffer/chains"
	"github.com/coffer-network/coffer/ledger"
)

// foreignWatch says when what a chain's picture shows as foreign is worth a word.
//
// A replica that replays its log, after a restart above all, meets on the chain
// what the cluster planned later than where it stands, and a picture is matched
// against the ledger of a moment ago. Being in touch with a leader says nothing of
// either: four nodes that were started at once would halt their cluster. So when a
// foreign spend is first seen, the node asks for a height that holds all that was
// committed by then (a transaction of ours was planned before anybody could see
// it), and believes only pictures of ledgers at that height or above. The same holds
// for what else leans on the ledger (leaning).
type foreignWatch struct {
	from map[string]uint64 // by chain and what leans on the ledger there
}

// readIndexTime bounds the question; without a leader nobody is listened to anyway.
const readIndexTime = 2 * time.Second

// known reports whether all that leans on the ledger in the pictures stood so at a
// height that covers it. at are the heights of the ledgers that they were matched against.
func (f *foreignWatch) known(seen map[string]chains.Observations, at map[string]uint64, readIndex func() (uint64, error)) bool {
	from := map[string]uint64{}
	all := true
	for chain, o := range seen {
		for _, key := range leaning(chain, o) {
			height, asked := f.from[key]
			if !asked {
				var err error
				if height, err = readIndex(); err != nil {
					all = false
					continue
				}
			}
			from[key] = height
			all = all && at[chain] >= height
		}
	}
	f.from = from // what is shown no more is forgotten
	return all
}

// leaning is what a picture makes of the chain by the ledger that it was matched
// against: foreign spends, and deposits of the native coin, which are told with what
// that ledger knows of our own transactions. One that lags takes gas that we sent for
// a deposit. Their ids move with the finalized height, so the amount names them.
func leaning(chain string, o chains.Observations) (keys []string) {
	for _, s := range o.Spends {
		if s.Foreign {
			keys = append(keys, chain+" "+s.Anchor+" "+s.TxID)
		}
	}
	for _, in := range o.Inflows {
		if f := in.Fact; f.ID == ledger.NativeID(f.Address, f.Height) {
			keys = append(keys, chain+" "+f.Address+" "+f.Amount.String())
		}
	}
	return keys
}

// knowsForeign asks foreignWatch for the pictures that this node has now.
func (n *Node) knowsForeign(ctx context.Context, seen map[string]chains.Observations, at map[string]uint64) bool {
	return n.foreign.known(seen, at, func() (uint64, error) {
		ctx, cancel := context.WithTimeout(ctx, readIndexTime)
		defer cancel()
		return n.cons.ReadIndex(ctx)
	})
}
