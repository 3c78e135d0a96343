package ledger

import (
	"slices"

	"github.com/coffer-network/coffer/ledger/fixed"
)

// maxUnfinal bounds an account's list of deposits that are not final. Beyond it
// new ones join the newest of their pool, which is later at worst.
const maxUnfinal = 32

// pending reports whether u's block is below the depth F of its chain: F−1
// blocks must stand on it. F = 0: only final blocks are attested at all.
func (s *State) pending(u Unfinal) bool {
	c, ok := s.Genesis.Chain(u.Chain)
	return ok && c.Final > 0 && s.Tips.at(u.Chain).Height < u.Height+c.Final-1
}

// unfinal returns the account's SupplyShares in a pool that are no collateral
// yet. It may exceed what the account still holds: what leaves counts as final
// first, which is against the actor.
func (s *State) unfinal(a Account, pool string) fixed.Int {
	var sum fixed.Int
	for _, u := range a.Unfinal {
		if u.Pool != pool || !s.pending(u) {
			continue
		}
		var err error
		if sum, err = fixed.Add(sum, u.Shares); err != nil {
			return fixed.Max
		}
	}
	return sum
}

// collateral returns the SupplyShares of p that count in gates, HF and seizure.
func (s *State) collateral(a Account, p Position) fixed.Int {
	if s.Params.UnfinalCounts {
		return p.Supply
	}
	n, err := fixed.Sub(p.Supply, s.unfinal(a, p.Pool))
	if err != nil {
		return fixed.Int{}
	}
	return n
}

// addUnfinal notes that shares came from in, and forgets what has become final.
func (s *State) addUnfinal(a Account, in Inflow, shares fixed.Int) Account {
	n := Unfinal{Pool: in.Asset, Shares: shares, Chain: in.Chain, Height: in.Height}
	list := slices.DeleteFunc(slices.Clone(a.Unfinal), func(u Unfinal) bool { return !s.pending(u) })
	a.Unfinal = list
	if shares.IsZero() || !s.pending(n) {
		return a
	}
	if len(list) >= maxUnfinal {
		for i := len(list) - 1; i >= 0; i-- {
			if list[i].Pool == n.Pool {
				n.Shares, n.Height = must(fixed.Add(list[i].Shares, n.Shares)), max(list[i].Height, n.Height)
				a.Unfinal = append(slices.Delete(list, i, i+1), n)
				return a
			}
		}
	}
	a.Unfinal = append(list, n)
	return a
}
