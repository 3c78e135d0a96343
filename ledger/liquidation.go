package ledger

import "github.com/coffer-network/coffer/ledger/fixed"

// Constants of liquidation (spec: lending §13). A leftover below minLeftover
// would not pay the next liquidator's trouble; positions below closeFully are
// closed whole for the same reason.
var (
	closeFactor   = fixed.New(5_000)                   // bps of the total debt value
	closeFactorHF = fixed.New(950_000_000_000_000_000) // WAD; at or below it all may be closed
	closeFully    = fixed.New(2_000 * 100_000_000)     // USD · 10⁸
	minLeftover   = fixed.New(1_000 * 100_000_000)     // USD · 10⁸
)

// seizure is what one liquidation repays and takes, in base units.
type seizure struct {
	CloseFactor uint64    // bps
	MaxDebt     fixed.Int // most that may be repaid
	Repaid      fixed.Int
	Seized      fixed.Int // fee included
	Fee         fixed.Int
	HF          fixed.Int // before, WAD
}

// seizeRules is what one seizure depends on beside the legs and the amount. The
// fields below the first two are the policy layer's (spec: lending §8.4); their
// zero values are off.
type seizeRules struct {
	Bonus   uint64    `json:"bonusBps"`            // of the collateral pool
	Fee     uint64    `json:"feeBps"`              // of the collateral pool
	Target  fixed.Int `json:"targetHf"`            // WAD; Target HF
	Covered fixed.Int `json:"covered"`             // base units of the debt that repayments on their way protect
	Closing bool      `json:"notClosing,omitzero"` // NOT_CLOSING
}

// seize computes a liquidation of the debt leg against the collateral leg of
// one account (spec: lending §8.2): HEALTHY, NO_COLLATERAL, NO_DEBT, GRACE, DUST,
// NOT_CLOSING. Limits of the policy layer never make a liquidation impossible
// that they only mean to make smaller: where their amount would leave dust, they
// do not bind.
func seize(legs []leg, coll, debt int, requested fixed.Int, rules seizeRules) (seizure, Code) {
	if rules.Target.IsZero() {
		return seizeUpTo(legs, coll, debt, requested, rules)
	}
	h, err := weigh(legs)
	if err != nil {
		return seizure{}, Arith
	}
	limited := requested
	if coll >= 0 && debt >= 0 && !legs[debt].Debt.IsZero() {
		var c fixed.Calc
		value, ok, err := targetRepay(h.DebtValue, h.SumLT, legs[coll].LT, rules.Bonus, rules.Target)
		if err != nil {
			return seizure{}, Arith
		}
		if ok {
			limited = requested.Min(c.MulDivCeil(value, c.Pow10(legs[debt].Decimals), legs[debt].High))
		}
		if c.Err() != nil {
			return seizure{}, Arith
		}
	}
	r, code := seizeUpTo(legs, coll, debt, limited, rules)
	if code == Dust && limited.Less(requested) {
		return seizeUpTo(legs, coll, debt, requested, rules)
	}
	return r, code
}

func seizeUpTo(legs []leg, coll, debt int, requested fixed.Int, rules seizeRules) (seizure, Code) {
	h, err := weigh(legs)
	if err != nil {
		return seizure{}, Arith
	}
	if h.Healthy() {
		return seizure{}, Healthy
	}
	if coll < 0 || legs[coll].Collateral.IsZero() || legs[coll].LT == 0 {
		return seizure{}, NoCollateral
	}
	if debt < 0 || legs[debt].Debt.IsZero() {
		return seizure{}, NoDebt
	}
	var c fixed.Calc
	col, deb := legs[coll], legs[debt]
	cb, db := col.Collateral, deb.Debt
	cp, dp := col.Low, deb.High
	cu, du := c.Pow10(col.Decimals), c.Pow10(deb.Decimals)
	cv, dv := c.Int(col.collValue(cb)), c.Int(deb.debtValue(db))
	bonus := fixed.New(rules.Bonus)

	r := seizure{CloseFactor: bpsScale, MaxDebt: db, HF: *h.HF}
	if !cv.Less(closeFully) && !dv.Less(closeFully) && closeFactorHF.Less(*h.HF) {
		r.CloseFactor, _ = closeFactor.Uint64()
		if limit := c.MulDivFloor(h.DebtValue, closeFactor, fixed.Bps); limit.Less(dv) {
			r.MaxDebt = c.MulDivFloor(limit, du, dp)
		}
	}
	if rules.protects(c.Int(deb.debtValue(rules.Covered)), *h.HF) {
		open := fixed.Int{}
		if rules.Covered.Less(db) {
			open = c.Sub(db, rules.Covered)
		}
		if r.MaxDebt = r.MaxDebt.Min(open); open.IsZero() {
			return seizure{}, Grace
		}
	}
	r.Repaid = requested.Min(r.MaxDebt)
	base := c.Narrow(fixed.WideFloor(fixed.Product(dp, r.Repaid), cu.Wide(), fixed.Product(cp, du)))
	r.Seized = c.MulDivFloor(base, bonus, fixed.Bps)
	if cb.Less(r.Seized) {
		r.Seized = cb
		worth := c.Narrow(fixed.WideFloor(fixed.Product(cp, cb), du.Wide(), fixed.Product(dp, cu)))
		r.Repaid = c.MulDivCeil(worth, fixed.Bps, bonus)
	}
	part := c.Sub(r.Seized, c.MulDivFloor(r.Seized, fixed.Bps, bonus))
	r.Fee = c.MulDivCeil(part, fixed.New(rules.Fee), fixed.Bps)

	if r.Repaid != db && r.Seized != cb {
		left := c.Int(deb.debtValue(c.Sub(db, r.Repaid)))
		rest := c.Int(col.collValue(c.Sub(cb, r.Seized)))
		if left.Less(minLeftover) || rest.Less(minLeftover) {
			return r, Dust // with what it would have been
		}
		if rules.Closing && h.below(fixed.New(col.LT*rules.Bonus)) {
			return seizure{}, NotClosing
		}
	}
	if c.Err() != nil {
		return seizure{}, Arith
	}
	return r, OK
}

// protects reports whether repayments on their way, worth value, keep their
// amount of the debt from being liquidated. Not at HF below 0.95, and not where
// the protected rest would be dust, or a small coin on its way would stop a
// liquidation whole.
func (r seizeRules) protects(value, hf fixed.Int) bool {
	return !r.Covered.IsZero() && !value.Less(minLeftover) && !hf.Less(closeFactorHF)
}

// below reports HF < ratio/10⁸, exactly: Σ v·LT·10⁴ < D·ratio. With lt·bonus, the
// region where a partial liquidation lowers HF. Beyond 512 bits it says so.
func (h Health) below(ratio fixed.Int) bool {
	has, err := h.SumLT.Mul(fixed.Bps.Wide())
	if err != nil {
		return false
	}
	return has.Less(fixed.Product(h.DebtValue, ratio))
}

// targetRepay is the least debt value to repay so that HF reaches target (WAD)
// when one collateral is seized for it; 0 if it is there already, at most all
// of the debt. ok is false where seizing lowers HF faster than repaying raises
// it (spec: lending §8.4, Target HF). It advises liquidators; nothing enforces it
// unless Params.TargetHF is set.
func targetRepay(debtValue fixed.Int, sumLT fixed.Wide, ltBps, bonusBps uint64, target fixed.Int) (value fixed.Int, ok bool, err error) {
	var c fixed.Calc
	scale := c.Mul(fixed.Bps, fixed.Bps)
	has := c.Wide(sumLT.Mul(fixed.Product(fixed.Bps, fixed.Wad)))
	wants := c.Wide(fixed.Product(target, debtValue).Mul(scale.Wide()))
	gain := fixed.Product(target, scale)
	loss := fixed.Product(fixed.New(ltBps*bonusBps), fixed.Wad)
	switch {
	case c.Err() != nil || !has.Less(wants):
		return fixed.Int{}, c.Err() == nil, c.Err()
	case !loss.Less(gain):
		return fixed.Int{}, false, nil
	}
	value = c.Narrow(fixed.WideCeil(c.Wide(wants.Sub(has)), fixed.New(1).Wide(), c.Wide(gain.Sub(loss))))
	return value.Min(debtValue), true, c.Err()
}

// liquidation is what liquidate did.
type liquidation struct {
	seizure
	LiquidatorBurnt fixed.Int // SupplyShares in the debt pool
	DebtBurnt       fixed.Int // DebtShares of the borrower
	SharesSeized    fixed.Int // SupplyShares of the borrower
	SharesToActor   fixed.Int // SupplyShares to the liquidator; the rest is the treasury's
	BadDebt         []BadDebt // ascending by pool

	rules      seizeRules
	legs       []leg // of the borrower before, as weighed
	coll, debt int   // their indices
}

// BadDebt is what one pool lost by a liquidation, in base units.
type BadDebt struct {
	Pool    string    `json:"pool"`
	Debt    fixed.Int `json:"debt"`
	Covered fixed.Int `json:"coveredByTreasury"`
}

// liquidate repays a borrower's debt out of the liquidator's supply and gives
// him collateral in exchange, all in claims (spec: lending §6.6, §8.3). It
// works at full utilisation, since no cash moves.
func (s *State) liquidate(actor, borrower AccountID, debtPool, collPool string, amount fixed.Int) (l liquidation, code Code) {
	debtor, ok := s.Accounts.get(borrower)
	if !ok {
		return l, UnknownAccount
	}
	s.sync() // the first of the checks that weigh; a refusal drops it
	dp, okDebt := s.Pools.get(debtPool)
	cp, okColl := s.Pools.get(collPool)
	now := s.Time()
	switch {
	case !okDebt || !okColl:
		return l, UnknownPool
	case actor == borrower:
		return l, SelfLiquidation
	case dp.Paused || cp.Paused:
		return l, Paused
	case now < dp.LiqGraceUntil || now < cp.LiqGraceUntil:
		return l, Grace
	}
	if code := s.spared(debtor); code != OK {
		return l, code
	}
	legs, code := s.legs(debtor, asClosed)
	if code != OK {
		return l, code
	}
	coll, debt := -1, -1
	for i, g := range legs {
		if g.Pool == collPool {
			coll = i
		}
		if g.Pool == debtPool {
			debt = i
		}
	}
	l.legs, l.coll, l.debt = legs, coll, debt
	l.rules = seizeRules{
		Bonus: cp.Param.Bonus, Fee: cp.Param.LiqFee, Target: s.Params.TargetHF, Closing: s.Params.NotClosing,
		Covered: s.onTheWay(borrower, debtPool),
	}
	if l.seizure, code = seize(legs, coll, debt, amount, l.rules); code != OK {
		return l, code
	}
	if code := s.settleClaims(&l, actor, debtor, legs[coll], legs[debt]); code != OK {
		return l, code
	}
	if code := s.actorGates(actor); code != OK {
		return l, code
	}
	l.BadDebt, code = s.writeOff(borrower)
	return l, code
}

// spared is the first code of layer 2 and of the prices that keeps a borrower
// from being liquidated, whoever asks and for however much: GRACE, PRICE_STALE,
// PRICE_SUSPECT (spec: lending §6.6, steps 4 and 5).
func (s *State) spared(debtor Account) Code {
	if h, code := s.weighAccount(debtor, asClosed); code == OK && s.graced(debtor, h) {
		return Grace
	}
	if code := s.fresh(debtor, s.Params.LiquidationAge); code != OK {
		return code
	}
	for _, at := range debtor.Positions {
		if s.Suspected(s.Prices.at(at.Pool)) {
			return PriceSuspect
		}
	}
	return OK
}

// settleClaims moves the claims of a liquidation: first those of the debt, then
// those of the collateral, since both may be in one pool.
func (s *State) settleClaims(l *liquidation, actor AccountID, debtor Account, coll, debt leg) Code {
	var c fixed.Calc
	liquidator, p, code := s.book(actor, debt.Pool)
	if code != OK {
		return code
	}
	own, owed := liquidator.position(debt.Pool), debtor.position(debt.Pool)
	counted := s.collateral(debtor, debtor.position(coll.Pool))
	if err := l.convert(coll, debt, counted, owed.Debt, p.SupplyIndex, p.BorrowIndex, s.Pools.at(coll.Pool).SupplyIndex); err != nil {
		return Arith
	}
	if own.Supply.Less(l.LiquidatorBurnt) {
		return InsufficientBalance
	}
	own.Supply = c.Sub(own.Supply, l.LiquidatorBurnt)
	owed.Debt = c.Sub(owed.Debt, l.DebtBurnt)
	p.SupplyShares = c.Sub(p.SupplyShares, l.LiquidatorBurnt)
	p.DebtShares = c.Sub(p.DebtShares, l.DebtBurnt)
	s.Accounts.put(debtor.ID, debtor.withPosition(owed))
	if code := s.store(&c, liquidator, own, p); code != OK {
		return code
	}

	p = s.Pools.at(coll.Pool)
	debtor, liquidator = s.Accounts.at(debtor.ID), s.Accounts.at(actor)
	has, gets := debtor.position(coll.Pool), liquidator.position(coll.Pool)
	treasury := c.Sub(l.SharesSeized, l.SharesToActor)
	has.Supply = c.Sub(has.Supply, l.SharesSeized)
	gets.Supply = c.Add(gets.Supply, l.SharesToActor)
	p.SupplyShares = c.Sub(p.SupplyShares, treasury)
	p.TreasuryShares = c.Add(p.TreasuryShares, treasury)
	s.Accounts.put(debtor.ID, debtor.noteHeld(p, has.Supply).withPosition(has))
	return s.store(&c, liquidator, gets, p)
}

// convert turns the amounts of a seizure into claims (spec: lending §8.3): those
// of the liquidator and the debtor in the debt pool, and of the collateral, all
// that counts where all is seized.
func (l *liquidation) convert(coll, debt leg, counted, owed, debtSupplyIndex, debtBorrowIndex, collIndex fixed.Int) error {
	var c fixed.Calc
	l.LiquidatorBurnt = c.MulDivCeil(l.Repaid, fixed.Ray, debtSupplyIndex)
	if l.DebtBurnt = owed; l.Repaid != debt.Debt {
		l.DebtBurnt = c.MulDivFloor(l.Repaid, fixed.Ray, debtBorrowIndex)
	}
	if l.SharesSeized = counted; l.Seized != coll.Collateral {
		l.SharesSeized = c.MulDivCeil(l.Seized, fixed.Ray, collIndex)
	}
	l.SharesToActor = c.MulDivFloor(c.Sub(l.Seized, l.Fee), fixed.Ray, collIndex)
	return c.Err()
}

// actorGates holds a liquidator who owes something himself to his own gates.
func (s *State) actorGates(id AccountID) Code {
	a := s.Accounts.at(id)
	if !a.indebted() {
		return OK
	}
	if code := s.fresh(a, s.Params.LiquidationAge); code != OK {
		return code
	}
	h, code := s.weighAccount(a, cautious)
	if code != OK {
		return code
	}
	return h.gate()
}

// writeOff recognises the debt of an account whose collateral is worth nothing
// any more: TreasuryShares bear it first, the rest is Deficit (spec: lending
// §9). Supply that is not final yet counts here, or a deposit on its way would
// be forgiven.
func (s *State) writeOff(id AccountID) (lost []BadDebt, code Code) {
	a := s.Accounts.at(id)
	legs, code := s.legs(a, asClosed)
	if code != OK {
		return nil, code
	}
	var c fixed.Calc
	for _, l := range legs {
		if l.LT > 0 && !c.Int(l.collValue(l.Supply)).IsZero() {
			return nil, OK
		}
	}
	for _, at := range a.Positions {
		if at.Debt.IsZero() {
			continue
		}
		p := s.Pools.at(at.Pool)
		left := c.MulDivCeil(at.Debt, p.BorrowIndex, fixed.Ray)
		covered := left.Min(c.MulDivFloor(p.TreasuryShares, p.SupplyIndex, fixed.Ray))
		burn := p.TreasuryShares.Min(c.MulDivCeil(covered, fixed.Ray, p.SupplyIndex))
		p.DebtShares = c.Sub(p.DebtShares, at.Debt)
		p.TreasuryShares = c.Sub(p.TreasuryShares, burn)
		p.Deficit = c.Add(p.Deficit, c.Sub(left, covered))
		at.Debt = fixed.Int{}
		if code := s.store(&c, s.Accounts.at(id), at, p); code != OK {
			return nil, code
		}
		lost = append(lost, BadDebt{Pool: at.Pool, Debt: left, Covered: covered})
	}
	if c.Err() != nil {
		return nil, Arith
	}
	return lost, OK
}

// coverDeficit burns SupplyShares of an insurance account against a pool's
// Deficit (spec: lending §6.7).
func (s *State) coverDeficit(id AccountID, pool string, amount fixed.Int) (covered fixed.Int, code Code) {
	s.sync()
	a, p, code := s.book(id, pool)
	switch {
	case code != OK:
		return covered, code
	case p.Deficit.IsZero():
		return covered, NoDeficit
	case a.indebted():
		return covered, HasDebt
	}
	at := a.position(pool)
	var c fixed.Calc
	covered = amount.Min(p.Deficit)
	burn := c.MulDivCeil(covered, fixed.Ray, p.SupplyIndex)
	if at.Supply.Less(burn) {
		return covered, InsufficientBalance
	}
	at.Supply = c.Sub(at.Supply, burn)
	p.SupplyShares = c.Sub(p.SupplyShares, burn)
	p.Deficit = c.Sub(p.Deficit, covered)
	return covered, s.store(&c, a, at, p.mend(s.Params.FreezeDeficitBps))
}

// socialise spreads a pool's Deficit over all who hold claims in it: the one
// operation that lowers a SupplyIndex (spec: lending §9). The second term keeps
// I1 exact where rounding the claims up would exceed the assets.
func (s *State) socialise(pool string) Code {
	s.sync()
	p, ok := s.Pools.get(pool)
	if !ok {
		return UnknownPool
	}
	if p.Deficit.IsZero() {
		return NoDeficit
	}
	var c fixed.Calc
	shares := c.Add(p.SupplyShares, p.TreasuryShares)
	claims := c.MulDivCeil(shares, p.SupplyIndex, fixed.Ray)
	if c.Err() != nil {
		return Arith
	}
	if !p.Deficit.Less(claims) {
		return Insolvent
	}
	index := c.MulDivFloor(p.SupplyIndex, c.Sub(claims, p.Deficit), claims)
	assets := c.AddMul(fixed.Product(p.Cash, fixed.Ray), p.DebtShares, p.BorrowIndex)
	if bound, err := fixed.WideFloor(assets, fixed.New(1).Wide(), shares.Wide()); err != nil {
		return Arith
	} else if bound.Less(index.Wide()) {
		index = c.Narrow(bound, nil)
	}
	p.SupplyIndex, p.Deficit, p.Impaired.Open = index, fixed.Int{}, false
	if c.Err() != nil || index.IsZero() {
		return Arith
	}
	s.Accounts.unmark()
	s.Pools.put(pool, p)
	return OK
}
