package ledger

import (
	"fmt"

	"github.com/coffer-network/coffer/ledger/fixed"
)

// What readers ask. Every answer is computed on a view synced to ledger time,
// by the functions that Apply uses; s is never changed.

// scratch returns a state to read and to try operations of one account on, with
// pools and account of its own.
//
// Why not View: many readers share one view, and copying a table marks the
// original, which only its single writer may do.
func (s *State) scratch(id AccountID) *State {
	v := *s
	v.frozen = false // what is tried on it is tried on copies, which must not write to its own tables
	v.Pools, v.Accounts, v.Suspense = Pools{}, Accounts{}, table[string, Suspended]{}
	for pool, p := range s.Pools.all() {
		v.Pools.put(pool, p)
	}
	if a, ok := s.Accounts.get(id); ok {
		v.Accounts.put(id, a)
	}
	return &v
}

// synced returns a scratch state at ledger time with current rates.
func (s *State) synced(id AccountID) *State {
	v := s.scratch(id)
	v.sync()
	v.refreshRates()
	return v
}

// PositionView is an account's place in one pool, in base units.
type PositionView struct {
	Pool             string
	Decimals         uint8
	Supplied         fixed.Int  // rounded down
	Collateral       fixed.Int  // the part of it that counts: final deposits
	Owed             fixed.Int  // rounded up
	SuppliedValue    fixed.Int  // USD · 10⁸, at the lower price
	OwedValue        fixed.Int  // USD · 10⁸, at the upper price
	LiquidationPrice *fixed.Int // USD · 10⁸ per whole token; nil: no price of this asset alone liquidates
	Priced           bool       // false: no price yet, values are 0
}

// HealthView is an account's health for showing; gates use exact fractions.
type HealthView struct {
	Code           Code // OK, or PRICE_STALE: an asset has no price, nothing else is filled
	CollValue      fixed.Int
	DebtValue      fixed.Int
	Borrowable     fixed.Int  // USD · 10⁸ that max LTV leaves
	HF             *fixed.Int // WAD; nil: no debt
	LTV            *fixed.Int // bps, rounded up; nil: debt without collateral
	MaxLTV         fixed.Int  // bps, mean weighted by collateral
	LiquidationLTV fixed.Int  // bps, likewise
	Healthy        bool
	WithinLTV      bool
}

// view derives what is shown of h.
func (h Health) view() (HealthView, error) {
	v := HealthView{
		Code: OK, CollValue: h.CollValue, DebtValue: h.DebtValue, HF: h.HF,
		Healthy: h.Healthy(), WithinLTV: h.WithinLTV(),
	}
	var c fixed.Calc
	one := fixed.New(1).Wide()
	if limit := c.Narrow(fixed.WideFloor(h.SumLTV, one, fixed.Bps.Wide())); h.DebtValue.Less(limit) {
		v.Borrowable = c.Sub(limit, h.DebtValue)
	}
	switch {
	case !h.CollValue.IsZero():
		v.MaxLTV = c.Narrow(fixed.WideFloor(h.SumLTV, one, h.CollValue.Wide()))
		v.LiquidationLTV = c.Narrow(fixed.WideFloor(h.SumLT, one, h.CollValue.Wide()))
		ltv := c.MulDivCeil(h.DebtValue, fixed.Bps, h.CollValue)
		v.LTV = &ltv
	case h.DebtValue.IsZero():
		v.LTV = &fixed.Int{}
	}
	return v, c.Err()
}

// Health weighs an account at ledger time and the newest closed prices.
func (s *State) Health(id AccountID) (Health, Code) {
	v := s.synced(id)
	a, ok := v.Accounts.get(id)
	if !ok {
		return Health{}, UnknownAccount
	}
	return v.weighAccount(a, asClosed)
}

// PositionOf returns an account's positions, ascending by pool, and its health.
func (s *State) PositionOf(id AccountID) ([]PositionView, HealthView) {
	v := s.synced(id)
	a, ok := v.Accounts.get(id)
	if !ok {
		return nil, HealthView{Code: UnknownAccount}
	}
	legs := make([]leg, 0, len(a.Positions))
	views := make([]PositionView, 0, len(a.Positions))
	all := true
	for _, at := range a.Positions {
		price, priced := v.Prices.get(at.Pool)
		l, err := v.leg(a, at, price, asClosed)
		if err != nil {
			return nil, HealthView{Code: Arith}
		}
		all = all && priced
		legs = append(legs, l)
		p := PositionView{
			Pool: l.Pool, Decimals: l.Decimals, Supplied: l.Supply, Collateral: l.Collateral, Owed: l.Debt, Priced: priced,
		}
		var c fixed.Calc
		p.SuppliedValue, p.OwedValue = c.Int(l.collValue(l.Supply)), c.Int(l.debtValue(l.Debt))
		if c.Err() != nil {
			return nil, HealthView{Code: Arith}
		}
		views = append(views, p)
	}
	if !all {
		return views, HealthView{Code: PriceStale}
	}
	for i := range views {
		views[i].LiquidationPrice = liquidationPrice(legs, i)
	}
	h, err := weigh(legs)
	if err != nil {
		return views, HealthView{Code: Arith}
	}
	shown, err := h.view()
	if err != nil {
		return views, HealthView{Code: Arith}
	}
	return views, shown
}

// largest returns the largest n ≤ limit for which ok holds, given that ok holds
// up to some number and not beyond; 0 if it holds for none.
func largest(limit fixed.Int, ok func(fixed.Int) bool) fixed.Int {
	if ok(limit) {
		return limit
	}
	low, high := fixed.Int{}, limit // ok(high) is false; ok(low) true or low 0
	one, two := fixed.New(1), fixed.New(2)
	for {
		var c fixed.Calc
		half := c.DivFloor(c.Sub(high, low), two)
		if c.Err() != nil || half.IsZero() {
			return low
		}
		if mid := c.Add(low, half); ok(mid) {
			low = mid
		} else {
			high = mid
		}
		if next := c.Add(low, one); next == high {
			return low
		}
	}
}

// passes reports whether the legs pass both gates.
func passes(legs []leg) bool {
	h, err := weigh(legs)
	return err == nil && h.gate() == OK
}

// with returns a copy of the legs with one replaced.
func with(legs []leg, i int, change func(*leg)) []leg {
	n := append([]leg(nil), legs...)
	change(&n[i])
	return n
}

// liquidationPrice is the price of one leg's asset at which the account becomes
// liquidatable, the others' fixed: for collateral the highest such price, for
// debt the lowest. nil when no price of it alone decides.
func liquidationPrice(legs []leg, i int) *fixed.Int {
	liquidatable := func(price fixed.Int) bool {
		h, err := weigh(with(legs, i, func(l *leg) { l.Low, l.High = price, price }))
		return err == nil && !h.Healthy()
	}
	var c fixed.Calc
	l := legs[i]
	gain := c.Mul(l.Collateral, fixed.New(l.LT))
	cost := c.Mul(l.Debt, fixed.Bps)
	switch {
	case c.Err() != nil || gain == cost:
		return nil
	case cost.Less(gain): // falls into liquidation
		if !liquidatable(fixed.Int{}) {
			return nil
		}
		p := largest(fixed.Max, liquidatable)
		return &p
	}
	if liquidatable(fixed.Int{}) {
		return nil
	}
	// Prices beyond what can be weighed count as liquidatable: debt only grows.
	sound := func(price fixed.Int) bool {
		h, err := weigh(with(legs, i, func(l *leg) { l.Low, l.High = price, price }))
		return err == nil && h.Healthy()
	}
	p, err := fixed.Add(largest(fixed.Max, sound), fixed.New(1))
	if err != nil {
		return nil
	}
	return &p
}

// mostBorrow is the largest amount of a leg's asset, at most limit, whose debt
// keeps both gates.
func mostBorrow(legs []leg, i int, limit fixed.Int) fixed.Int {
	return largest(limit, func(x fixed.Int) bool {
		var c fixed.Calc
		debt := c.Add(legs[i].Debt, x)
		return c.Err() == nil && passes(with(legs, i, func(l *leg) { l.Debt = debt }))
	})
}

// mostWithdraw is the largest amount of a leg's supply, at most limit, without
// which both gates hold.
func mostWithdraw(legs []leg, i int, limit fixed.Int) fixed.Int {
	return largest(limit.Min(legs[i].Supply), func(x fixed.Int) bool {
		var c fixed.Calc
		rest := c.Sub(legs[i].Supply, x)
		free := c.Sub(legs[i].Supply, legs[i].Collateral) // not final: no collateral
		left := fixed.Int{}
		if free.Less(rest) {
			left = c.Sub(rest, free)
		}
		return c.Err() == nil && passes(with(legs, i, func(l *leg) { l.Supply, l.Collateral = rest, left }))
	})
}

// MaxBorrow is the largest amount that borrow would accept now, 0 where it
// would accept none. The fee comes out of it.
func (s *State) MaxBorrow(id AccountID, pool string) fixed.Int {
	v := s.synced(id)
	accepts := func(x fixed.Int) bool {
		_, code := v.View().borrow(id, pool, x)
		return code == OK
	}
	return largestAccepted(v.Pools.at(pool).Cash, v.Pools.at(pool).Param.MinBorrow, accepts)
}

// MaxWithdraw is the largest amount that withdraw would accept now. When it is
// all there is, withdraw with max leaves no dust behind.
func (s *State) MaxWithdraw(id AccountID, pool string) fixed.Int {
	v := s.synced(id)
	p := v.Pools.at(pool)
	held, err := fixed.MulDivFloor(v.supplyShares(id, pool), p.SupplyIndex, fixed.Ray)
	if err != nil {
		return fixed.Int{}
	}
	if gross, code := v.View().withdraw(id, pool, fixed.Int{}, true); code == OK {
		return gross
	}
	accepts := func(x fixed.Int) bool {
		_, code := v.View().withdraw(id, pool, x, false)
		return code == OK
	}
	return largestAccepted(held.Min(p.Cash), p.Param.MinWithdraw, accepts)
}

// largestAccepted is largest for an operation that also has a minimum.
func largestAccepted(limit, least fixed.Int, accepts func(fixed.Int) bool) fixed.Int {
	if limit.Less(least) || !accepts(least) {
		return fixed.Int{}
	}
	return largest(limit, func(x fixed.Int) bool { return x.Less(least) || accepts(x) })
}

// maxRepaySteps bounds how finely FullRepay looks ahead: an hour of ticks.
const maxRepaySteps = 240

// FullRepay is what repays all an account owes in a pool when it is credited
// secondsAhead from now, if nobody else moves the rates: it ticks as the ledger
// will. What is paid beyond the debt becomes supply, so a payer may round up.
func (s *State) FullRepay(id AccountID, pool string, secondsAhead uint64) (fixed.Int, Code) {
	v := s.scratch(id)
	step := max(accrualSeconds, secondsAhead/maxRepaySteps+1)
	for {
		v.sync()
		v.refreshRates()
		if secondsAhead == 0 {
			break
		}
		n := min(step, secondsAhead)
		secondsAhead -= n
		v.Millis += n * 1000
	}
	a, p, code := v.book(id, pool)
	if code != OK {
		return fixed.Int{}, code
	}
	debt, err := fixed.MulDivCeil(a.position(pool).Debt, p.BorrowIndex, fixed.Ray)
	if err != nil {
		return fixed.Int{}, Arith
	}
	if debt.IsZero() {
		return fixed.Int{}, NoDebt
	}
	return debt, OK
}

// LoanMissing is the collateral that a simple loan still lacks, whether what is
// there is final or not.
func (s *State) LoanMissing(id AccountID) fixed.Int {
	v, l := s.synced(id), s.Loans.at(id)
	p, at := v.Pools.at(l.CollateralPool), v.Accounts.at(id).position(l.CollateralPool)
	var c fixed.Calc
	need := l.needs(&c, p)
	have := c.Add(at.Supply, fixed.New(loanRounding))
	missing := fixed.Int{}
	if have.Less(need) {
		missing = c.Sub(l.Collateral, c.MulDivFloor(at.Supply, p.SupplyIndex, fixed.Ray))
	}
	if c.Err() != nil {
		return fixed.Int{}
	}
	return missing
}

// MarketView is one pool at ledger time. Rates in RAY per year, amounts in base
// units.
type MarketView struct {
	Pool        Pool      // as synced: parameters, cash, shares, indices, rates, flags
	Supplied    fixed.Int // claims of suppliers and treasury, rounded down
	Borrowed    fixed.Int // rounded up
	Utilisation fixed.Int // RAY
	SupplyAPY   fixed.Int // RAY
	BorrowAPY   fixed.Int // RAY
	Price       Price     // newest closed round; Millis 0: none yet
}

// Market returns a pool's figures.
func (s *State) Market(pool string) (MarketView, Code) {
	v := s.synced("")
	p, ok := v.Pools.get(pool)
	if !ok {
		return MarketView{}, UnknownPool
	}
	var c fixed.Calc
	m := MarketView{
		Pool:        p,
		Supplied:    c.MulDivFloor(c.Add(p.SupplyShares, p.TreasuryShares), p.SupplyIndex, fixed.Ray),
		Borrowed:    c.MulDivCeil(p.DebtShares, p.BorrowIndex, fixed.Ray),
		Utilisation: c.Int(p.utilisation()),
		SupplyAPY:   c.Int(yearlyYield(p.SupplyRate, accrualSeconds)),
		BorrowAPY:   c.Int(yearlyYield(p.BorrowRate, accrualSeconds)),
		Price:       v.Prices.at(pool),
	}
	if c.Err() != nil {
		return MarketView{}, Arith
	}
	return m, OK
}

// DisplayHF is a health factor as people read it: two decimals, half up; below
// 1 rounded down, so that 0.996 is never shown as 1.00 (spec: requests §6).
func DisplayHF(hf *fixed.Int) string {
	if hf == nil {
		return "∞"
	}
	const cent = 10_000_000_000_000_000 // WAD/100
	var c fixed.Calc
	n := c.DivFloor(*hf, fixed.New(cent))
	if !hf.Less(fixed.Wad) {
		n = c.MulDivHalfUp(*hf, fixed.New(1), fixed.New(cent))
	}
	whole := c.DivFloor(n, fixed.New(100))
	rest, _ := c.Sub(n, c.Mul(whole, fixed.New(100))).Uint64()
	return fmt.Sprintf("%s.%02d", whole, rest)
}
