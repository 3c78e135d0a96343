package bitcoin

import (
	"context"
	"fmt"

	"github.com/btcsuite/btcd/txscript"

	"github.com/coffer-network/coffer/chains"
	"github.com/coffer-network/coffer/chains/internal/follow"
	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/ledger/fixed"
)

// Custody implements chains.Chain, from the follower's index of coins: the node has
// none by script, and its list of unspent outputs is of the best block only.
//
// What arrived before its address was effective counts once the ledger lists it:
// members find such coins at different times, and some only when their operators
// ask for a rescan; an amount that each tells differently would never have a
// quorum. The ledger cannot add a coin that way, only admit one that is there.
func (c *Chain) Custody(_ context.Context, v chains.View, cur chains.Cursor, ask chains.Ask) (chains.Held, error) {
	fail := func(err error) (chains.Held, error) {
		return chains.Held{}, fmt.Errorf("custody of %s on %s at %d: %w", ask.Asset, c.name, ask.Height, err)
	}
	if ask.Asset != asset || v.Watched == nil {
		return fail(fmt.Errorf("%w: unknown asset, or nothing is watched", chains.ErrNoBalance))
	}
	s, err := follow.Load(cur, c.param.CAIP2, c.param.Start)
	if err != nil {
		return fail(err)
	}
	block, err := s.Asked(ask.Height)
	if err != nil {
		return fail(err)
	}
	var sats uint64 // all there are fit
	s.Coins.Unspent(ask.Height, func(k follow.Coin) {
		addr, e := address.AddressOf(c.network, append([]byte{txscript.OP_0, txscript.OP_DATA_20}, k.Program[:]...))
		if e != nil {
			err = e
			return
		}
		if from, ok := v.Watched.From(addr); ok && (k.Height >= from || v.Coin != nil && v.Coin(k.Name())) {
			sats += k.Sats
		}
	})
	if err != nil {
		return fail(err)
	}
	return chains.Held{Block: block, Amount: fixed.New(sats)}, nil
}
