package ethereum

import (
	"context"
	"fmt"
	"slices"

	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/rpc"

	"github.com/coffer-network/coffer/chains"
	"github.com/coffer-network/coffer/chains/internal/follow"
	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/ledger/fixed"
)

// Native deposits are found in balances at finalized heights (spec: outflows §8.4).
// What a contract sends leaves no log and is in no block's body; a balance shows it.
// So all watched addresses are gone through once for each finalized height, a
// bounded number in a step, and those that hold more than the ledger has counted are
// asked about in every step until it has.
const (
	// nativeStep: at two steps a second a hundred thousand addresses take four
	// minutes, in which finality moves once on the main network.
	nativeStep = 200
	// maxRich bounds the addresses of the second kind: what finds no place is met
	// again in the next round.
	maxRich = 256
)

// natives are the native deposits that the view's ledger has not counted, at the
// finalized height. A node that has no state of it says nothing, as of floats.
func (c *Chain) natives(ctx context.Context, s *follow.State, v chains.View, tip ledger.HeightReport) ([]chains.Seen, error) {
	if v.Native == nil || v.Watched == nil || c.native == "" || tip.Hash == "" {
		return nil, nil
	}
	n := s.Native
	if n.Next >= v.Watched.Registered() && tip.Height > n.Height || n.Next > v.Watched.Registered() {
		n.Height, n.Next = tip.Height, 0
	}
	ask := slices.Clone(n.Rich)
	for last := min(n.Next+nativeStep, v.Watched.Registered()); n.Next < last; n.Next++ {
		if a, ok := v.Watched.Number(n.Next); ok {
			ask = append(ask, a)
		}
	}
	slices.Sort(ask)
	ask = slices.Compact(ask)
	n.Rich = nil
	head, _ := s.Head()
	var seen []chains.Seen
	for group := range slices.Chunk(ask, custodyBatch) {
		balances, err := c.balances(ctx, group, tip.Hash)
		if asRPC(err) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		for i, a := range group {
			total, word := v.Native(a, tip.Height, balances[i])
			if word != ledger.NativeNothing && len(n.Rich) < maxRich {
				n.Rich = append(n.Rich, a)
			}
			if word == ledger.NativeMore {
				seen = append(seen, chains.Seen{Depth: head.Height - tip.Height + 1, Fact: ledger.InflowFact{
					Chain: c.name, ID: ledger.NativeID(a, tip.Height), Address: a, Asset: c.native,
					Amount: total, Height: tip.Height, Block: tip.Hash,
				}})
			}
		}
	}
	s.Native = n
	return seen, nil
}

// balances of the native coin at a block of the best chain.
func (c *Chain) balances(ctx context.Context, owners []string, block string) ([]fixed.Int, error) {
	at := map[string]any{"blockHash": block, "requireCanonical": true}
	wei := make([]hexutil.Big, len(owners))
	batch := make([]rpc.BatchElem, len(owners))
	for i, owner := range owners {
		batch[i] = rpc.BatchElem{Method: "eth_getBalance", Args: []any{owner, at}, Result: &wei[i]}
	}
	if err := c.rpc.BatchCallContext(ctx, batch); err != nil {
		return nil, transport(err)
	}
	out := make([]fixed.Int, len(owners))
	for i, owner := range owners {
		if err := batch[i].Error; err != nil {
			return nil, transport(err)
		}
		var err error
		if out[i], err = fixed.FromBytes(wei[i].ToInt().Bytes()); err != nil {
			return nil, fmt.Errorf("%w: balance of %s: %w", chains.ErrEndpoint, owner, err)
		}
	}
	return out, nil
}
