package ledger

import (
	"errors"
	"fmt"

	"github.com/coffer-network/coffer/ledger/fixed"
)

// yearSeconds is the year of all rates.
const yearSeconds = 31_536_000

var year = fixed.New(yearSeconds)

var rayPerBps = must(fixed.DivFloor(fixed.Ray, fixed.Bps)) // without remainder

// Bounds of pool parameters (spec: lending §3). maxSeizure is lt·bonus: below
// 10⁴ by enough that a partial liquidation between HF 0.95 and 1 raises HF.
const (
	bpsScale      = 10_000
	maxSeizureBps = 9_500
	minOptBps     = 100
	maxOptBps     = 9_900
	maxRateBps    = 100_000 // 1000 % a year
	maxReserveBps = 5_000
)

// Validate says which constraint a pool's parameters break.
func (p PoolParam) Validate() error {
	switch {
	case p.LTV > p.LT:
		return fmt.Errorf("ltv %d above lt %d", p.LTV, p.LT)
	case p.LT > bpsScale:
		return fmt.Errorf("lt %d above %d", p.LT, bpsScale)
	case p.Bonus < bpsScale || p.Bonus > 2*bpsScale:
		return fmt.Errorf("bonus %d, want %d to %d", p.Bonus, bpsScale, 2*bpsScale)
	case p.LT*p.Bonus > maxSeizureBps*bpsScale:
		return fmt.Errorf("lt·bonus %d, want at most %d", p.LT*p.Bonus/bpsScale, maxSeizureBps)
	case p.LiqFee > bpsScale:
		return fmt.Errorf("liq_fee %d above %d", p.LiqFee, bpsScale)
	case p.Opt < minOptBps || p.Opt > maxOptBps:
		return fmt.Errorf("opt %d, want %d to %d", p.Opt, minOptBps, maxOptBps)
	case p.S1 > p.S2:
		return fmt.Errorf("s1 %d above s2 %d", p.S1, p.S2)
	case p.Base > maxRateBps || p.S2 > maxRateBps || p.Base+p.S1+p.S2 > maxRateBps:
		return fmt.Errorf("base + s1 + s2 above %d", maxRateBps)
	case p.RF > maxReserveBps:
		return fmt.Errorf("rf %d above %d", p.RF, maxReserveBps)
	case p.MinSupply.IsZero() || p.MinBorrow.IsZero() || p.MinWithdraw.IsZero():
		return errors.New("a minimum is zero")
	case p.CapHourBps > maxCapBps || p.CapDayBps > maxCapBps:
		return fmt.Errorf("outflow caps of %d and %d bps, at most %d", p.CapHourBps, p.CapDayBps, maxCapBps)
	case p.CapDayBps != 0 && p.CapDayBps < p.CapHourBps || !p.CapDay.IsZero() && p.CapDay.Less(p.CapHour):
		return errors.New("an outflow cap of a day is below that of an hour")
	case !p.MinDebt.IsZero() || p.EmodeID != 0:
		return errors.New("min_debt and emode_id are reserved and must be 0")
	}
	return nil
}

// utilisation is what share of the liquidity is lent out, in RAY.
func (p *Pool) utilisation() (fixed.Int, error) {
	var c fixed.Calc
	debt := c.MulDivCeil(p.DebtShares, p.BorrowIndex, fixed.Ray)
	if debt.IsZero() {
		return fixed.Int{}, c.Err()
	}
	u := c.RayDiv(debt, c.Add(p.Cash, debt))
	return u, c.Err()
}

// rates returns the yearly borrow and supply rate that follow from the book
// (spec: lending §4). Deficit lowers only what suppliers get.
func (p *Pool) rates() (borrow, supply fixed.Int, err error) {
	u, err := p.utilisation()
	if err != nil {
		return fixed.Int{}, fixed.Int{}, err
	}
	var c fixed.Calc
	ray := func(bps uint64) fixed.Int { return c.Mul(fixed.New(bps), rayPerBps) }
	base, opt, s1, s2 := ray(p.Param.Base), ray(p.Param.Opt), ray(p.Param.S1), ray(p.Param.S2)
	if opt.Less(u) {
		over := c.RayDiv(c.Sub(u, opt), c.Sub(fixed.Ray, opt))
		borrow = c.Add(c.Add(base, s1), c.RayMul(s2, over))
	} else {
		borrow = c.Add(base, c.RayDiv(c.RayMul(s1, u), opt))
	}
	debt := c.MulDivFloor(p.DebtShares, p.BorrowIndex, fixed.Ray)
	if debt.IsZero() {
		return borrow, fixed.Int{}, c.Err()
	}
	us := c.MulDivFloor(debt, fixed.Ray, c.Add(c.Add(p.Cash, debt), p.Deficit))
	supply = c.MulDivFloor(borrow, us, fixed.Ray)
	supply = c.MulDivFloor(supply, fixed.New(bpsScale-p.Param.RF), fixed.Bps)
	return borrow, supply, c.Err()
}

// refreshRates stores the rates that follow from the new state, and freezes a
// pool whose Deficit has grown too large; the last step of every accepted
// operation. A pool whose rates do not fit keeps its old ones and the answer is
// ARITH.
//
// A pool that nobody has written to since it was rated needs nothing: what is
// stored follows from the pool and bps alone.
func (s *State) refreshRates() (code Code) {
	code = OK
	t, bps := &s.Pools, s.Params.FreezeDeficitBps
	for i := range t.list {
		if t.list[i].rated && t.bps == bps {
			continue
		}
		was := t.list[i].pool
		p := *was
		if !p.Missing.IsZero() || !p.Deficit.IsZero() {
			p = p.settleMissing().impair(bps, s.NextOutflow)
		}
		borrow, supply, err := p.rates()
		if err == nil {
			p.BorrowRate, p.SupplyRate = borrow, supply
		} else {
			code = Arith
		}
		if p != *was {
			t.put(t.list[i].id, p)
		}
		t.part()
		t.list[i].rated = err == nil
	}
	t.bps = bps
	return code
}

// yearlyYield turns a rate that compounds every interval seconds into what a
// year yields. For showing only: it rounds half up throughout.
func yearlyYield(rate fixed.Int, interval uint64) (fixed.Int, error) {
	var c fixed.Calc
	x := c.Add(fixed.Ray, c.MulDivHalfUp(rate, fixed.New(interval), year))
	y := fixed.Ray
	for n := yearSeconds / interval; n > 0 && c.Err() == nil; n /= 2 {
		if n%2 == 1 {
			y = c.RayMul(y, x)
		}
		if n > 1 {
			x = c.RayMul(x, x)
		}
	}
	y = c.Sub(y, fixed.Ray)
	return y, c.Err()
}
