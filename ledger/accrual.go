package ledger

import "github.com/coffer-network/coffer/ledger/fixed"

// newPool opens the book of an asset at ledger time now, in seconds.
func newPool(p PoolParam, a AssetParam, now uint64) Pool {
	return Pool{
		Param: p, Chain: a.Chain, Decimals: a.Decimals,
		SupplyIndex: fixed.Ray, BorrowIndex: fixed.Ray,
		BorrowRate: must(fixed.MulDivFloor(fixed.New(p.Base), fixed.Ray, fixed.Bps)),
		LastSync:   now, Active: true, BorrowEnabled: true,
	}
}

// linearFactor is RAY + ⌊rate·dt/YEAR⌋: supply accrues linearly between
// commands, so a supplier is never credited interest on interest that no
// debtor was charged.
func linearFactor(rate fixed.Int, dt uint64) (fixed.Int, error) {
	var c fixed.Calc
	f := c.Add(fixed.Ray, c.MulDivFloor(rate, fixed.New(dt), year))
	return f, c.Err()
}

// compoundFactor is the three-term series of e^(rate·dt/YEAR), in RAY: the
// first term up, the others half up. Its result is Wide because only its
// product with an index must fit.
func compoundFactor(rate fixed.Int, dt uint64) (fixed.Wide, error) {
	var c fixed.Calc
	x := c.MulDivCeil(rate, fixed.New(dt), year)
	half, sixth := c.DivFloor(x, fixed.New(2)), c.DivFloor(x, fixed.New(6))
	ray := fixed.Ray.Wide()
	third := c.Wide(fixed.WideHalfUp(x.Wide(), sixth.Wide(), ray))
	sum := c.Wide(half.Wide().Add(third))
	second := c.Wide(fixed.WideHalfUp(x.Wide(), sum, ray))
	f := c.Wide(ray.Add(x.Wide()))
	f = c.Wide(f.Add(second))
	return f, c.Err()
}

// accrue brings the pool to ledger time now (spec: lending §4, Sync). When an
// index or a claim would not fit, the pool is frozen and stays as it is: time
// cannot be refused.
func (p Pool) accrue(now uint64) Pool {
	if now <= p.LastSync {
		return p
	}
	dt := now - p.LastSync
	p.LastSync = now

	var c fixed.Calc
	grown := c.Int(linearFactor(p.SupplyRate, dt))
	supplyIndex := c.MulDivFloor(grown, p.SupplyIndex, fixed.Ray)
	borrowIndex := p.BorrowIndex
	if !p.DebtShares.IsZero() { // an empty debt leaves its index alone, even at base > 0
		f := c.Wide(compoundFactor(p.BorrowRate, dt))
		borrowIndex = c.Narrow(fixed.WideCeil(f, p.BorrowIndex.Wide(), fixed.Ray.Wide()))
	}
	interest := c.MulDivFloor(p.DebtShares, c.Sub(borrowIndex, p.BorrowIndex), fixed.Ray)
	reserve := c.MulDivFloor(interest, fixed.New(p.Param.RF), fixed.Bps)
	treasury := c.Add(p.TreasuryShares, c.MulDivFloor(reserve, fixed.Ray, supplyIndex))
	if c.Err() != nil {
		p.Frozen = true
		return p
	}
	p.Uninsured = c.Add(p.Uninsured, c.Sub(treasury, p.TreasuryShares))
	p.SupplyIndex, p.BorrowIndex, p.TreasuryShares = supplyIndex, borrowIndex, treasury
	return p
}

// sync brings all pools to ledger time, ascending.
func (s *State) sync() {
	now := s.Time()
	behind := func() bool { // mostly none is: most commands come within a second of another
		for _, p := range s.Pools.rows() {
			if p.LastSync < now {
				return true
			}
		}
		return false
	}
	if !behind() {
		return
	}
	for _, id := range s.Pools.keys() {
		if p := s.Pools.at(id); p.LastSync < now {
			s.Pools.put(id, p.accrue(now))
		}
	}
}
