package ledger

import "github.com/coffer-network/coffer/ledger/fixed"

// The operations of lending (spec: lending §6), below prelude and policy. Each
// does its checks in the order of its table, syncs where the table says, and
// then changes claims and cash.
//
// A code other than OK may leave s half changed: the caller runs the operation
// where it can be taken back (execution.try). After OK the caller refreshes the
// rates, once per command.

// book returns an account, which need not exist yet, and a pool, which must.
func (s *State) book(id AccountID, pool string) (Account, Pool, Code) {
	p, ok := s.Pools.get(pool)
	if !ok {
		return Account{}, Pool{}, UnknownPool
	}
	a := s.Accounts.at(id)
	a.ID = id
	return a, p, OK
}

// store writes both back, a as it was before with at in place of its position,
// and turns an error of arithmetic into its code.
func (s *State) store(c *fixed.Calc, a Account, at Position, p Pool) Code {
	if c.Err() != nil {
		return Arith
	}
	s.Accounts.put(a.ID, a.noteHeld(p, at.Supply).withPosition(at))
	s.Pools.put(at.Pool, p)
	return OK
}

// supplyShares returns an account's SupplyShares in a pool.
func (s *State) supplyShares(id AccountID, pool string) fixed.Int {
	return s.Accounts.at(id).position(pool).Supply
}

// supply credits an inflow (spec: lending §6.1). An arriving coin cannot be
// refused: if it may not be supplied, all of it goes to suspense for the reason
// that is returned.
func (s *State) supply(id AccountID, pool string, amount fixed.Int) (reason string, code Code) {
	s.sync()
	return s.creditSupply(id, pool, amount)
}

func (s *State) creditSupply(id AccountID, pool string, amount fixed.Int) (reason string, code Code) {
	a, p, code := s.book(id, pool)
	if code != OK {
		return "", code
	}
	at := a.position(pool)
	var c fixed.Calc
	minted := c.MulDivFloor(amount, fixed.Ray, p.SupplyIndex)
	total := c.MulDivFloor(c.Add(c.Add(p.SupplyShares, p.TreasuryShares), minted), p.SupplyIndex, fixed.Ray)
	if c.Err() != nil {
		return "", Arith
	}
	var why Code
	switch {
	case p.Paused:
		why = Paused
	case p.Frozen:
		why = Frozen
	case amount.Less(p.Param.MinSupply) || minted.IsZero():
		why = BelowMin
	case !p.Param.SupplyCap.IsZero() && p.Param.SupplyCap.Less(total):
		why = SupplyCap
	case !p.Param.SameAsset && !at.Debt.IsZero():
		why = SameAsset
	}
	if why != "" {
		s.Accounts.put(id, a)
		if p.Credited = c.Add(p.Credited, amount); c.Err() != nil {
			return "", Arith
		}
		s.Pools.put(pool, p)
		return string(why), s.suspend(id, pool, amount, string(why))
	}
	p.Credited = c.Add(p.Credited, amount)
	at.Supply = c.Add(at.Supply, minted)
	p.SupplyShares = c.Add(p.SupplyShares, minted)
	p.Cash = c.Add(p.Cash, amount)
	return "", s.store(&c, a, at, p)
}

// suspend puts an amount where only a claim of the account gets it out.
func (s *State) suspend(id AccountID, asset string, amount fixed.Int, reason string) Code {
	if amount.IsZero() {
		return OK
	}
	key := id + "/" + asset
	p := s.Pools.at(asset)
	var c fixed.Calc
	sum := c.Add(s.Suspense.at(key).Amount, amount)
	p.Suspended = c.Add(p.Suspended, amount)
	if c.Err() != nil {
		return Arith
	}
	s.Suspense.put(key, Suspended{Amount: sum, Reason: reason})
	s.Pools.put(asset, p)
	return OK
}

// repay books an inflow against the account's debt and supplies what is left
// over (spec: lending §6.2). Neither pause nor freeze blocks it.
func (s *State) repay(id AccountID, pool string, amount fixed.Int) (reason string, code Code) {
	s.sync()
	_, paid, code := s.payDebt(id, pool, amount)
	if code != OK {
		return "", code
	}
	p := s.Pools.at(pool)
	var c fixed.Calc
	p.Credited = c.Add(p.Credited, paid)
	excess := c.Sub(amount, paid)
	if c.Err() != nil {
		return "", Arith
	}
	s.Pools.put(pool, p)
	if excess.IsZero() {
		return "", OK
	}
	return s.creditSupply(id, pool, excess)
}

// payDebt burns DebtShares for at most amount, which becomes cash.
func (s *State) payDebt(id AccountID, pool string, amount fixed.Int) (burnt, paid fixed.Int, code Code) {
	a, p, code := s.book(id, pool)
	if code != OK {
		return fixed.Int{}, fixed.Int{}, code
	}
	at := a.position(pool)
	var c fixed.Calc
	debt := c.MulDivCeil(at.Debt, p.BorrowIndex, fixed.Ray)
	paid, burnt = debt, at.Debt
	if amount.Less(debt) {
		paid, burnt = amount, c.MulDivFloor(amount, fixed.Ray, p.BorrowIndex)
	}
	at.Debt = c.Sub(at.Debt, burnt)
	p.DebtShares = c.Sub(p.DebtShares, burnt)
	p.Cash = c.Add(p.Cash, paid)
	return burnt, paid, s.store(&c, a, at, p)
}

// claim takes the whole suspense entry of an account out (spec: lending §6.3).
func (s *State) claim(id AccountID, asset string) (amount fixed.Int, code Code) {
	return s.claimUpTo(id, asset, fixed.Max)
}

// claimUpTo is claim of an amount at most; the rest stays claimable.
func (s *State) claimUpTo(id AccountID, asset string, most fixed.Int) (amount fixed.Int, code Code) {
	s.sync()
	p, ok := s.Pools.get(asset)
	if !ok {
		return fixed.Int{}, UnknownPool
	}
	key := id + "/" + asset
	entry, ok := s.Suspense.get(key)
	if !ok {
		return fixed.Int{}, InsufficientBalance
	}
	var c fixed.Calc
	amount = entry.Amount.Min(most)
	p.Reserved = c.Add(p.Reserved, amount)
	p.Suspended = c.Sub(p.Suspended, amount)
	entry.Amount = c.Sub(entry.Amount, amount)
	if c.Err() != nil {
		return fixed.Int{}, Arith
	}
	if entry.Amount.IsZero() {
		s.Suspense.delete(key)
	} else {
		s.Suspense.put(key, entry)
	}
	s.Pools.put(asset, p)
	return amount, OK
}

// withdraw burns SupplyShares and reserves their amount for an outflow of gross
// (spec: lending §6.4). max takes all. Without debt no price is needed, so a
// lender can leave while the oracle is out.
func (s *State) withdraw(id AccountID, pool string, amount fixed.Int, max bool) (gross fixed.Int, code Code) {
	a, p, code := s.book(id, pool)
	if code != OK {
		return gross, code
	}
	if code := withdrawable(p, amount, max); code != OK {
		return gross, code
	}
	if a.indebted() {
		if code := s.fresh(a, s.Params.PriceMaxAge); code != OK {
			return gross, code
		}
	}
	s.sync()
	p = s.Pools.at(pool)
	at := a.position(pool)
	var c fixed.Calc
	burn := c.MulDivCeil(amount, fixed.Ray, p.SupplyIndex)
	if max {
		burn = at.Supply
		amount = c.MulDivFloor(burn, p.SupplyIndex, fixed.Ray)
	}
	switch {
	case c.Err() != nil:
		return gross, Arith
	case at.Supply.Less(burn) || burn.IsZero():
		return gross, InsufficientBalance
	}
	if left, limited := s.mayWithdraw(a, p); limited && left.Less(amount) {
		return gross, DeficitLimit
	}
	if p.Cash.Less(amount) {
		return gross, NoLiquidity
	}
	a, err := a.withdrew(p, amount)
	if err != nil {
		return gross, Arith
	}
	at.Supply = c.Sub(at.Supply, burn)
	p.SupplyShares = c.Sub(p.SupplyShares, burn)
	p.Cash = c.Sub(p.Cash, amount)
	p.Reserved = c.Add(p.Reserved, amount)
	if code := s.store(&c, a, at, p); code != OK {
		return gross, code
	}
	if code := s.gates(id); code != OK {
		return gross, code
	}
	return amount, OK
}

// withdrawable are checks 2 and 3 of spec lending §6.4.
func withdrawable(p Pool, amount fixed.Int, max bool) Code {
	switch {
	case p.Paused:
		return Paused
	case !max && amount.Less(p.Param.MinWithdraw):
		return BelowMin
	}
	return OK
}

// borrowable are checks 2 to 4 of spec lending §6.5.
func (s *State) borrowable(p Pool, amount fixed.Int) Code {
	switch {
	case p.Paused:
		return Paused
	case p.Frozen:
		return Frozen
	case !p.BorrowEnabled || s.BorrowOff:
		return BorrowDisabled
	case amount.Less(p.Param.MinBorrow):
		return BelowMin
	}
	return OK
}

// borrow mints DebtShares and reserves the amount for an outflow (spec: lending
// §6.5).
func (s *State) borrow(id AccountID, pool string, amount fixed.Int) (minted fixed.Int, code Code) {
	a, p, code := s.book(id, pool)
	if code != OK {
		return minted, code
	}
	if code := s.borrowable(p, amount); code != OK {
		return minted, code
	}
	if code := s.fresh(a, s.Params.PriceMaxAge, pool); code != OK {
		return minted, code
	}
	s.sync()
	p = s.Pools.at(pool)
	at := a.position(pool)
	var c fixed.Calc
	own := c.MulDivFloor(at.Supply, p.SupplyIndex, fixed.Ray)
	mint := c.MulDivCeil(amount, fixed.Ray, p.BorrowIndex)
	total := c.MulDivCeil(c.Add(p.DebtShares, mint), p.BorrowIndex, fixed.Ray)
	switch {
	case !p.Param.SameAsset && !at.Supply.IsZero() && !own.Less(p.Param.SameAssetDust):
		return minted, SameAsset
	case p.Cash.Less(amount):
		return minted, NoLiquidity
	case c.Err() != nil:
		return minted, Arith
	case !p.Param.BorrowCap.IsZero() && p.Param.BorrowCap.Less(total):
		return minted, BorrowCap
	}
	at.Debt = c.Add(at.Debt, mint)
	p.DebtShares = c.Add(p.DebtShares, mint)
	p.Cash = c.Sub(p.Cash, amount)
	p.Reserved = c.Add(p.Reserved, amount)
	if code := s.store(&c, a, at, p); code != OK {
		return minted, code
	}
	h, code := s.weighAccount(s.Accounts.at(id), cautious)
	if code != OK {
		return minted, code
	}
	if h.SumLTV.IsZero() {
		return minted, NoCollateral
	}
	if code := h.gate(); code != OK {
		return minted, code
	}
	return mint, OK
}

// repayFromSupply pays debt with the account's own supply of the same pool
// (spec: lending F14): withdraw and repay in one, so cash stays as it is and
// full utilisation does not stand in the way. max takes as much as debt and
// supply allow; beyond the debt nothing is taken. No price is needed: an account
// that passes its gates passes them still.
//
// Codes, in this order: UNKNOWN_POOL; PAUSED and BELOW_MIN as for a withdrawal;
// NO_DEBT; INSUFFICIENT_BALANCE; DEFICIT_LIMIT: it leaves the pool as a
// withdrawal would.
func (s *State) repayFromSupply(id AccountID, pool string, amount fixed.Int, max bool) (paid fixed.Int, code Code) {
	_, p, code := s.book(id, pool)
	if code != OK {
		return paid, code
	}
	if code := withdrawable(p, amount, max); code != OK {
		return paid, code
	}
	s.sync()
	a, p, _ := s.book(id, pool)
	at := a.position(pool)
	if at.Debt.IsZero() {
		return paid, NoDebt
	}
	var c fixed.Calc
	own := c.MulDivFloor(at.Supply, p.SupplyIndex, fixed.Ray)
	paid = c.MulDivCeil(at.Debt, p.BorrowIndex, fixed.Ray)
	if max {
		paid = paid.Min(own)
	} else {
		paid = paid.Min(amount)
	}
	burn := c.MulDivCeil(paid, fixed.Ray, p.SupplyIndex)
	if max && paid == own {
		burn = at.Supply
	}
	switch {
	case c.Err() != nil:
		return paid, Arith
	case at.Supply.Less(burn) || burn.IsZero() || paid.IsZero():
		return paid, InsufficientBalance
	}
	if left, limited := s.mayWithdraw(a, p); limited && left.Less(paid) {
		return paid, DeficitLimit
	}
	a, err := a.withdrew(p, paid)
	if err != nil {
		return paid, Arith
	}
	at.Supply = c.Sub(at.Supply, burn)
	p.SupplyShares = c.Sub(p.SupplyShares, burn)
	if code := s.store(&c, a, at, p); code != OK {
		return paid, code
	}
	if _, _, code := s.payDebt(id, pool, paid); code != OK {
		return paid, code
	}
	p = s.Pools.at(pool)
	p.Cash = c.Sub(p.Cash, paid) // payDebt booked what never came in
	s.Pools.put(pool, p)
	if c.Err() != nil {
		return paid, Arith
	}
	return paid, OK
}

// outflowDone closes the reservation of a paid outflow.
func (s *State) outflowDone(pool string, gross fixed.Int) Code {
	s.sync()
	p, ok := s.Pools.get(pool)
	if !ok {
		return UnknownPool
	}
	var c fixed.Calc
	p.Reserved = c.Sub(p.Reserved, gross)
	p.PaidOut = c.Add(p.PaidOut, gross)
	if c.Err() != nil {
		return Arith
	}
	s.Pools.put(pool, p)
	return OK
}

// refunded is what a refund did.
type refunded struct {
	Burnt  fixed.Int // DebtShares
	Waived fixed.Int // interest the treasury bore
	Minted fixed.Int // SupplyShares
}

// outflowFail gives back an outflow that we proved unpaid, or never planned
// (spec: lending §11.4). A borrower owes no interest for money he never had, as
// far as the treasury can bear it.
func (s *State) outflowFail(o Outflow) Code {
	_, code := s.refund(o, fixed.Int{}, true)
	return code
}

// outflowRevert gives back an outflow that failed for a reason of the
// account's: its destination, its gates, its own cancel. The account bears
// spent, and no interest is waived.
func (s *State) outflowRevert(o Outflow, spent fixed.Int) Code {
	_, code := s.refund(o, spent, false)
	return code
}

// refund undoes what the acceptance of o did, less spent, which is booked like
// the fee of a paid outflow: the native cost came from the gas float, so the
// pool gains it as TreasuryShares (spec: outflows §7).
func (s *State) refund(o Outflow, spent fixed.Int, waive bool) (r refunded, code Code) {
	if o.State == Paid || o.State == Refunded {
		return r, UnknownOutflow
	}
	s.sync()
	p, ok := s.Pools.get(o.Asset)
	if !ok {
		return r, UnknownPool
	}
	var c fixed.Calc
	back := c.Sub(o.Gross, spent)
	p.Reserved = c.Sub(p.Reserved, o.Gross)
	p.Cash = c.Add(p.Cash, spent)
	p.TreasuryShares = c.Add(p.TreasuryShares, c.MulDivFloor(spent, fixed.Ray, p.SupplyIndex))
	if c.Err() != nil {
		return r, Arith
	}
	s.Pools.put(o.Asset, p)
	switch o.Kind {
	case OutflowRefund:
		return r, s.suspend(o.Account, o.Asset, back, "REFUND")
	case OutflowWithdraw:
		if r.Minted, code = s.mint(o.Account, o.Asset, back); code == OK {
			s.returned(o, back)
		}
		return r, code
	case OutflowBorrow:
		if waive {
			if r, done, code := s.waive(o, back); done || code != OK {
				return r, code
			}
		}
		burnt, paid, code := s.payDebt(o.Account, o.Asset, back)
		if code != OK {
			return r, code
		}
		r.Burnt = burnt
		excess, err := fixed.Sub(back, paid)
		if err != nil {
			return r, Arith
		}
		r.Minted, code = s.mint(o.Account, o.Asset, excess)
		return r, code
	}
	return r, UnknownOutflow // custody's own outflows reserve nothing
}

// waive burns exactly the DebtShares that the borrow minted, and TreasuryShares
// for the interest on them. done is false when either is not there any more.
func (s *State) waive(o Outflow, back fixed.Int) (r refunded, done bool, code Code) {
	a, p, code := s.book(o.Account, o.Asset)
	if code != OK {
		return r, false, code
	}
	at := a.position(o.Asset)
	var c fixed.Calc
	need := fixed.Int{}
	if owed := c.MulDivCeil(o.Minted, p.BorrowIndex, fixed.Ray); back.Less(owed) {
		need = c.Sub(owed, back)
	}
	burn := c.MulDivCeil(need, fixed.Ray, p.SupplyIndex)
	if c.Err() != nil {
		return r, false, Arith
	}
	if at.Debt.Less(o.Minted) || p.TreasuryShares.Less(burn) {
		return r, false, OK
	}
	at.Debt = c.Sub(at.Debt, o.Minted)
	p.DebtShares = c.Sub(p.DebtShares, o.Minted)
	p.TreasuryShares = c.Sub(p.TreasuryShares, burn)
	p.Cash = c.Add(p.Cash, back)
	return refunded{Burnt: o.Minted, Waived: need}, true, s.store(&c, a, at, p)
}

// mint supplies an amount past caps and flags: it was the account's before.
func (s *State) mint(id AccountID, pool string, amount fixed.Int) (minted fixed.Int, code Code) {
	a, p, code := s.book(id, pool)
	if code != OK {
		return minted, code
	}
	at := a.position(pool)
	var c fixed.Calc
	minted = c.MulDivFloor(amount, fixed.Ray, p.SupplyIndex)
	at.Supply = c.Add(at.Supply, minted)
	p.SupplyShares = c.Add(p.SupplyShares, minted)
	p.Cash = c.Add(p.Cash, amount)
	return minted, s.store(&c, a, at, p)
}

// poolChange is what a vote may change of a pool; nil fields stay.
type poolChange struct {
	Param         *PoolParam
	Paused        *bool
	Frozen        *bool
	BorrowEnabled *bool
}

// setPool stores a change after a sync at the old parameters (spec: lending
// §6.7).
func (s *State) setPool(pool string, n poolChange) Code {
	p, ok := s.Pools.get(pool)
	if !ok {
		return UnknownPool
	}
	if n.Param != nil && (n.Param.Asset != p.Param.Asset || n.Param.Validate() != nil) {
		return BadParam
	}
	s.sync()
	p = s.Pools.at(pool)
	if n.Param != nil {
		p.Param = *n.Param
	}
	for _, f := range []struct {
		to   *bool
		flag *bool
	}{{n.Paused, &p.Paused}, {n.Frozen, &p.Frozen}, {n.BorrowEnabled, &p.BorrowEnabled}} {
		if f.to != nil {
			*f.flag = *f.to
		}
	}
	s.Pools.put(pool, p)
	return OK
}
