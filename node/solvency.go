package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/coffer-network/coffer/chains"
	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/ledger/address"
)

// The member's part of solvency (spec: committee §5, S5; consensus R3). The ledger
// names a block of each chain every minute, this member says what addresses of ours
// hold there, from its own chain alone, and signs no payment of an asset that is
// halted or has no good balance of the last ten minutes.

// custodyTimeout bounds what one question may hold up the follower.
const custodyTimeout = 20 * time.Second

// weigh answers what the ledger asks of this member about one chain's assets. What
// cannot be answered now is tried with the next step: the check stays for a minute.
func (n *Node) weigh(ctx context.Context, v *ledger.State, name string, chain chains.Chain, view chains.View, o chains.Observations, cursor chains.Cursor) {
	asks := v.Asks(n.self, name)
	for _, asset := range slices.Sorted(maps.Keys(asks)) {
		k := asks[asset]
		n.mu.Lock()
		done := n.balances[asset].Asked == k.Asked
		n.mu.Unlock()
		if done || forked(v, name, o, k.Height) {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, custodyTimeout)
		h, err := chain.Custody(ctx, view, cursor, askOf(v, name, asset, k))
		cancel()
		if err != nil {
			level := slog.LevelDebug
			if !errors.Is(err, chains.ErrNoBalance) && ctx.Err() == nil {
				level = slog.LevelWarn
			}
			n.log.Log(ctx, level, "balance not told", slog.String("asset", asset), slog.Any("err", err))
			continue
		}
		n.mu.Lock()
		n.balances[asset] = balanceOf(asset, k, h)
		n.mu.Unlock()
	}
}

// forked: the branch that this member sees lacks a deposit, up to a height, that the
// ledger has counted from another one. It is about to say so; until a quorum has, its
// balance would be short by the deposit, and no less when the new branch has grown
// beyond the depth at which one is final.
func forked(v *ledger.State, chain string, o chains.Observations, height uint64) bool {
	at := map[string]uint64{}
	for _, in := range o.Inflows {
		at[in.Fact.ID] = in.Fact.Height
	}
	for _, r := range v.RecentInflows(chain) {
		if now, shown := at[r.ID]; r.Height <= height && o.Left(r.Height, r.Block) && (!shown || now > height) {
			return true
		}
	}
	return false
}

// askOf is the question about an asset that a check puts to its chain.
func askOf(v *ledger.State, chain, asset string, k ledger.Check) chains.Ask {
	ask := chains.Ask{Asset: asset, Height: k.Height, At: k.At}
	if chain == ledger.Bitcoin {
		ask.Ours = v.Ours(k)
	}
	if gas, ok := v.Vault(chain, address.RoleGas); ok {
		ask.Apart = gas.Address
	}
	return ask
}

// balanceOf is what a member says of what its chain shows.
func balanceOf(asset string, k ledger.Check, h chains.Held) ledger.BalanceFact {
	return ledger.BalanceFact{
		Asset: asset, Asked: k.Asked, Height: k.Height, Block: h.Block, Amount: h.Amount, Waiting: h.Waiting, AtGas: h.Apart, Strangers: h.Strangers,
	}
}

// planBalances says what this member found and the ledger asks for, and has a
// balance asked for that a payment waits for.
func planBalances(v *ledger.State, w world) []ledger.BalanceFact {
	var out []ledger.BalanceFact
	asks := map[string]ledger.Check{}
	for _, c := range v.Genesis.Chains {
		maps.Copy(asks, v.Asks(w.self, c.Name))
	}
	for _, a := range v.Genesis.Assets {
		k, asked := asks[a.ID]
		if f, ok := w.balances[a.ID]; asked && ok && f.Asked == k.Asked && f.Height == k.Height {
			out = append(out, f)
		} else if v.BalanceWanted(a.ID) {
			out = append(out, ledger.BalanceFact{Asset: a.ID})
		}
	}
	return out
}

// unproven says why a payment is not signed for want of solvency (S5); empty: it
// may be. A cancel moves nothing out and is held to it as well: with coins missing
// nobody knows what the keys still protect.
func (n *Node) unproven(v *ledger.State, b ledger.Batch) string {
	n.mu.Lock()
	own := maps.Clone(n.balances)
	n.mu.Unlock()
	return unproven(v, b, own)
}

func unproven(v *ledger.State, b ledger.Batch, own map[string]ledger.BalanceFact) string {
	if why := v.Unproven(b); why != "" {
		return why
	}
	return disputed(v, own)
}

// disputed says where this member's chain contradicts the balance that counted, so
// that the books are not covered: it neither approves nor signs then (R3).
func disputed(v *ledger.State, own map[string]ledger.BalanceFact) string {
	for _, asset := range slices.Sorted(maps.Keys(own)) {
		if f := own[asset]; v.Disputed(f) {
			row, _ := v.Solvency.Get(asset)
			return fmt.Sprintf("%s: at block %d this node's chain shows %s, %s were attested and the books have %s",
				asset, f.Height, f.Amount, row.Newest.Amount, row.Newest.Books)
		}
	}
	return ""
}
