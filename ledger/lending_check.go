package ledger

import (
	"errors"
	"fmt"

	"github.com/coffer-network/coffer/ledger/fixed"
)

// checkBook verifies I1 of one pool: what suppliers and treasury may claim is
// covered by cash, debt and recognised deficit, exactly (spec: lending §14).
func checkBook(p Pool) error {
	var c fixed.Calc
	claims := fixed.Product(c.Add(p.SupplyShares, p.TreasuryShares), p.SupplyIndex)
	assets := c.AddMul(fixed.Product(c.Add(p.Cash, p.Deficit), fixed.Ray), p.DebtShares, p.BorrowIndex)
	if c.Err() != nil {
		return fmt.Errorf("%w: I4, pool %s: %w", errLending, p.Param.Asset, c.Err())
	}
	if assets.Less(claims) {
		return fmt.Errorf("%w: I1, pool %s: claims %s exceed assets %s", errLending, p.Param.Asset, claims, assets)
	}
	return nil
}

// checkBooks verifies I1 of all pools. It is cheap: it walks no accounts.
func (s *State) checkBooks() error {
	for _, p := range s.Pools.all() {
		if err := checkBook(p); err != nil {
			return err
		}
	}
	return nil
}

// checkLending verifies I1 to I5 (spec: lending §14). I4, nothing negative and
// all below 2¹²⁸, is what fixed.Int is.
func (s *State) checkLending() error {
	if err := s.checkBooks(); err != nil {
		return err
	}
	type total struct{ supply, debt, reserved fixed.Int }
	sums := map[string]total{}
	var c fixed.Calc
	for id, a := range s.Accounts.all() {
		for i, at := range a.Positions {
			if i > 0 && a.Positions[i-1].Pool >= at.Pool || at.Supply.IsZero() && at.Debt.IsZero() {
				return fmt.Errorf("%w: account %s: positions not sorted, doubled or empty", errLending, id)
			}
			if !s.Pools.has(at.Pool) {
				return fmt.Errorf("%w: account %s: position in unknown pool %s", errLending, id, at.Pool)
			}
			t := sums[at.Pool]
			t.supply, t.debt = c.Add(t.supply, at.Supply), c.Add(t.debt, at.Debt)
			sums[at.Pool] = t
		}
	}
	for _, o := range s.Outflows.all() {
		switch o.Kind {
		case OutflowBorrow, OutflowWithdraw, OutflowRefund:
			if o.State != Paid && o.State != Refunded {
				t := sums[o.Asset]
				t.reserved = c.Add(t.reserved, o.Gross)
				sums[o.Asset] = t
			}
		}
	}
	if c.Err() != nil {
		return fmt.Errorf("%w: I4, sums: %w", errLending, c.Err())
	}
	for id, p := range s.Pools.all() {
		t := sums[id]
		var err error
		if t.supply != p.SupplyShares {
			err = errors.Join(err, fmt.Errorf("I2, pool %s: accounts hold %s SupplyShares of %s", id, t.supply, p.SupplyShares))
		}
		if t.debt != p.DebtShares {
			err = errors.Join(err, fmt.Errorf("I3, pool %s: accounts owe %s DebtShares of %s", id, t.debt, p.DebtShares))
		}
		if t.reserved != p.Reserved {
			err = errors.Join(err, fmt.Errorf("I5, pool %s: open outflows of %s, reserved %s", id, t.reserved, p.Reserved))
		}
		if err != nil {
			return fmt.Errorf("%w: %w", errLending, err)
		}
	}
	return nil
}

// errLending is the root of broken lending invariants.
var errLending = errors.New("lending invariant broken")
