package ledger

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/coffer-network/coffer/ledger/fixed"
)

// checkBook verifies I1 and I7 of one pool (spec: lending §14): what suppliers and
// treasury may claim is covered by cash, debt and recognised deficit, exactly;
// and every unit ever credited is in cash, reserved, in suspense, paid out, or
// was lost to a chain's fee.
func checkBook(p *Pool) error {
	var c fixed.Calc
	claims := fixed.Product(c.Add(p.SupplyShares, p.TreasuryShares), p.SupplyIndex)
	assets := c.AddMul(fixed.Product(c.Add(p.Cash, p.Deficit), fixed.Ray), p.DebtShares, p.BorrowIndex)
	if c.Err() != nil {
		return fmt.Errorf("%w: I4, pool %s: %w", errLending, p.Param.Asset, c.Err())
	}
	from := c.Add(c.Add(p.Credited, p.FeeGains), p.Missing)
	to := c.Add(c.Add(p.Cash, p.Reserved), c.Add(c.Add(p.Suspended, p.PaidOut), p.FeeLosses))
	if c.Err() != nil || from != to {
		return fmt.Errorf("%w: I7, pool %s: credited %s, fees won %s and missing %s, but cash %s, reserved %s, suspended %s, paid %s and fees lost %s",
			errLending, p.Param.Asset, p.Credited, p.FeeGains, p.Missing, p.Cash, p.Reserved, p.Suspended, p.PaidOut, p.FeeLosses)
	}
	if assets.Less(claims) {
		return fmt.Errorf("%w: I1, pool %s: claims %s exceed assets %s", errLending, p.Param.Asset, claims, assets)
	}
	return nil
}

// checkTouched verifies what a command could have broken since before: I1, I2,
// I3, I5 and I7 of each pool that it touched, be it on one side only. It walks no
// accounts and no outflows: their tables know what they add up to.
//
// The lists only grow: what is not in its place of before was touched, or
// something was put in before it, and is checked too.
func (s *State) checkTouched(before *State) error {
	var room [16]string
	moved := room[:0]
	for i, h := range s.Accounts.held {
		if was := before.Accounts.held; i >= len(was) || was[i] != h {
			moved = append(moved, h.pool)
		}
	}
	for i, r := range s.Outflows.reserved {
		if was := before.Outflows.reserved; i >= len(was) || was[i] != r {
			moved = append(moved, r.asset)
		}
	}
	for i, r := range s.Pools.list {
		if was := before.Pools.list; i < len(was) && was[i].pool == r.pool && !slices.Contains(moved, r.id) {
			continue
		}
		if err := errors.Join(checkBook(r.pool), s.checkSums(r.id, r.pool)); err != nil {
			return err
		}
	}
	return nil
}

// sums is what the rows of other tables say of a pool.
type sums struct{ supply, debt, reserved fixed.Wide }

func (s *State) sums(pool string) (u sums) {
	u.supply, u.debt = s.Accounts.holds(pool)
	u.reserved = s.Outflows.reserves(pool)
	return u
}

// checkSums verifies I2, I3 and I5 of one pool by what the tables hold.
func (s *State) checkSums(id string, p *Pool) error {
	u := s.sums(id)
	switch {
	case u.supply != p.SupplyShares.Wide():
		return fmt.Errorf("%w: I2, pool %s: accounts hold %s SupplyShares of %s", errLending, id, u.supply, p.SupplyShares)
	case u.debt != p.DebtShares.Wide():
		return fmt.Errorf("%w: I3, pool %s: accounts owe %s DebtShares of %s", errLending, id, u.debt, p.DebtShares)
	case u.reserved != p.Reserved.Wide():
		return fmt.Errorf("%w: I5, pool %s: open outflows of %s, reserved %s", errLending, id, u.reserved, p.Reserved)
	}
	return nil
}

// checkLending verifies I1 to I5 and I7 (spec: lending §14) by walking everything, and
// with it the sums that checkTouched relies on. I4, nothing negative and
// all below 2¹²⁸, is what fixed.Int is.
func (s *State) checkLending() error {
	for id, p := range s.Pools.rows() {
		if err := errors.Join(checkBook(p), s.checkSums(id, p)); err != nil {
			return err
		}
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
		if o.reserves() {
			t := sums[o.Asset]
			t.reserved = c.Add(t.reserved, o.Gross)
			sums[o.Asset] = t
		}
	}
	suspended := map[string]fixed.Int{}
	for key, e := range s.Suspense.all() {
		asset := key[strings.IndexByte(key, '/')+1:]
		suspended[asset] = c.Add(suspended[asset], e.Amount)
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
		if suspended[id] != p.Suspended {
			err = errors.Join(err, fmt.Errorf("I7, pool %s: %s in suspense, counted %s", id, suspended[id], p.Suspended))
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
