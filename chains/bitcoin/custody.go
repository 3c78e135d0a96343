package bitcoin

import (
	"context"
	"fmt"
	"slices"

	"github.com/btcsuite/btcd/txscript"

	"github.com/coffer-network/coffer/chains"
	"github.com/coffer-network/coffer/chains/internal/follow"
	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/ledger/fixed"
)

// Custody implements chains.Chain, from the follower's index of coins: the node has
// none by script, and its list of unspent outputs is of the best block only.
//
// Only coins that the question admits count. A stranger's coin beside them would hide
// as much missing; and what arrived before its address was effective is found by
// members at different times, by some only when their operators ask for a rescan, so
// that an amount with it would never have a quorum. No question can add a coin: it
// admits one that is there, for what the chain says it is worth.
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
	var sats, strangers uint64 // all there are fit
	s.Coins.Unspent(ask.Height, func(k follow.Coin) {
		if ask.Ours != nil && ask.Ours(k.Name()) {
			sats += k.Sats
			return
		}
		addr, e := address.AddressOf(c.network, append([]byte{txscript.OP_0, txscript.OP_DATA_20}, k.Program[:]...))
		if e != nil {
			err = e
			return
		}
		if from, ok := v.Watched.From(addr); ok && k.Height >= from && slices.Contains(v.Vaults, addr) {
			strangers += k.Sats
		}
	})
	if err != nil {
		return fail(err)
	}
	return chains.Held{Block: block, Amount: fixed.New(sats), Strangers: fixed.New(strangers)}, nil
}
