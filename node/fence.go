package node

import (
	"context"
	"errors"
	"fmt"

	"github.com/coffer-network/coffer/chains"
	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/ledger/address"
)

// The fence against a data directory that is old as a whole (spec: outflows §2.4,
// C10). Raft, keystore and cursors that were all put back to yesterday agree with
// each other; only the chain knows better. A committee of such members would plan
// again what was paid since, out of coins that the chain still has, and every rule
// about anchors would hold. So before a member signs a payment, nothing that its
// ledger has at its free disposal may be consumed on the chain: a single coin or
// sequence that is tells of a payment this ledger knows nothing of.
//
// What batches hold is not asked of all: their spends are facts that the ledger is
// about to learn. Only what the transaction itself consumes must still be there.

// ErrFence: the chain has moved beyond this ledger. Nothing is given up for it:
// the ledger catches up, or never will and then nothing may be signed.
var ErrFence = errors.New("the chain has consumed what this ledger holds unconsumed")

// freeResources are what the ledger would plan the next payments of a chain with.
func freeResources(v *ledger.State, chain string) (names []string) {
	switch chain {
	case ledger.Bitcoin:
		tip, _ := v.Tips.Get(chain)
		for name, k := range v.Coins.All() {
			if k.State == ledger.CoinAvailable && k.Height > 0 && k.Height <= tip.Height {
				names = append(names, name)
			}
		}
	case ledger.Ethereum:
		for _, role := range []string{address.RoleHot, address.RoleGas} {
			if w, ok := v.Vault(chain, role); ok {
				s, _ := v.Senders.Get(w.Address)
				names = append(names, ledger.EthereumAnchor(w.Address, s.Next))
			}
		}
	}
	return names
}

// Fence remembers the coins that were seen unspent since the start. Later spends
// of them are in the follower's picture; a sequence is asked for every time. The
// zero value is ready. Not for several goroutines.
type Fence struct{ seen map[string]bool }

// Check holds a chain against the ledger before a transaction that spends is
// signed. picture is the follower's.
func (f *Fence) Check(ctx context.Context, v *ledger.State, name string, c chains.Chain, spends []string, picture chains.Observations) error {
	free := freeResources(v, name)
	ask := append([]string(nil), spends...)
	held := make(map[string]bool, len(free))
	for _, r := range free {
		held[r] = true
		if !f.seen[r] || name != ledger.Bitcoin {
			ask = append(ask, r)
		}
	}
	for _, s := range picture.Spends {
		if held[s.Anchor] {
			return fmt.Errorf("%w: %s, by %s at height %d", ErrFence, s.Anchor, s.TxID, s.Height)
		}
	}
	gone, err := c.Consumed(ctx, ask)
	if err != nil {
		return fmt.Errorf("compare the ledger with %s: %w", name, err)
	}
	if len(gone) > 0 {
		return fmt.Errorf("%w: %s and %d more", ErrFence, gone[0], len(gone)-1)
	}
	f.seen = held
	return nil
}
