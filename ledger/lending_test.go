package ledger

import (
	"testing"

	"github.com/coffer-network/coffer/ledger/fixed"
)

func n(s string) fixed.Int { return fixed.MustParse(s) }

// the pools of the worked examples (spec: lending §17): liquidation threshold
// 80 %, max LTV 75 %.
func lendingState(t *testing.T) *State {
	t.Helper()
	s := &State{Millis: 1_700_000_000_000}
	s.Params = DefaultParams()
	s.Genesis.Chains = []ChainParam{{Name: "btc", Final: 6}, {Name: "eth"}}
	s.Genesis.Assets = []AssetParam{
		{ID: "btc", Decimals: 8, Chain: "btc"}, {ID: "eth", Decimals: 18, Chain: "eth"},
		{ID: "usdt.eth", Decimals: 6, Chain: "eth", Stable: true},
	}
	for _, a := range s.Genesis.Assets {
		p := PoolParam{
			Asset: a.ID, Base: 200, Opt: 9200, S1: 700, S2: 30000, RF: 1000, LTV: 7500, LT: 8000, Bonus: 11000, LiqFee: 1000,
			MinSupply: fixed.New(100), MinBorrow: fixed.New(100), MinWithdraw: fixed.New(100),
		}
		if err := p.Validate(); err != nil {
			t.Fatal(err)
		}
		s.Genesis.Pools = append(s.Genesis.Pools, p)
		s.Pools.put(a.ID, newPool(p, a, s.Time()))
	}
	price(s, "btc", "5000000000000")
	price(s, "eth", "300000000000")
	price(s, "usdt.eth", "100000000")
	return s
}

func price(s *State, asset, at string) {
	s.Prices.put(asset, Price{Low: n(at), High: n(at), Millis: s.Millis})
}

// want runs an operation as Apply does: kept only when it is accepted, and the
// books must hold in either case.
func want(t *testing.T, s *State, code Code, op func(*State) Code) {
	t.Helper()
	w := s.View()
	if got := op(w); got != code {
		t.Fatalf("code %s, want %s", got, code)
	}
	if code == OK {
		w.refreshRates()
		*s = *w
	}
	if err := s.checkLending(); err != nil {
		t.Fatal(err)
	}
}

func supplied(t *testing.T, s *State, who, pool, amount string) {
	t.Helper()
	want(t, s, OK, func(s *State) Code {
		reason, code := s.supply(who, pool, n(amount))
		if reason != "" {
			t.Fatalf("suspended: %s", reason)
		}
		return code
	})
}

// borrows runs borrow and creates the outflow, as the command does.
func borrows(who, pool, amount string) func(*State) Code {
	return func(s *State) Code {
		minted, code := s.borrow(who, pool, n(amount))
		open(s, Outflow{Kind: OutflowBorrow, Account: who, Asset: pool, Gross: n(amount), Minted: minted})
		return code
	}
}

func withdraws(who, pool, amount string) func(*State) Code {
	return func(s *State) Code {
		gross, code := s.withdraw(who, pool, n(amount), false)
		open(s, Outflow{Kind: OutflowWithdraw, Account: who, Asset: pool, Gross: gross})
		return code
	}
}

func open(s *State, o Outflow) Outflow {
	s.NextOutflow++
	o.ID, o.State = s.NextOutflow, Queued
	s.Outflows.put(o.ID, o)
	return o
}

func hf(t *testing.T, s *State, who string) string {
	t.Helper()
	_, h := s.PositionOf(who)
	if h.Code != OK {
		t.Fatalf("health of %s: %s", who, h.Code)
	}
	return DisplayHF(h.HF)
}

// The loan of the demo (spec: lending §17).
func TestWorkedExample(t *testing.T) {
	s := lendingState(t)
	supplied(t, s, "lender", "usdt.eth", "100000000000")
	supplied(t, s, "alice", "btc", "100000000")
	if got := hf(t, s, "alice"); got != "∞" {
		t.Errorf("HF without debt %s", got)
	}
	want(t, s, OK, borrows("alice", "usdt.eth", "20000000000"))
	if got := hf(t, s, "alice"); got != "2.00" {
		t.Errorf("HF %s, want 2.00", got)
	}
	if views, _ := s.PositionOf("alice"); views[0].LiquidationPrice == nil || *views[0].LiquidationPrice != n("2499999999999") {
		t.Errorf("liquidation price of the collateral: %v", views[0].LiquidationPrice)
	}
	want(t, s, HealthFactor, borrows("alice", "usdt.eth", "25000000000"))
	w := s.View()
	borrows("alice", "usdt.eth", "25000000000")(w)
	if h, _ := w.Health("alice"); *h.HF != n("888888888888888888") {
		t.Errorf("HF of the refused loan %s", *h.HF)
	}
	want(t, s, OK, borrows("alice", "usdt.eth", "15000000000"))
	if got := hf(t, s, "alice"); got != "1.14" {
		t.Errorf("HF %s, want 1.14", got)
	}

	// an hour later interest is owed, and exactly what FullRepay said clears it
	debt, code := s.FullRepay("alice", "usdt.eth", 3600)
	if code != OK || !n("35000000000").Less(debt) {
		t.Fatalf("full repay %s %s", debt, code)
	}
	for range 240 {
		s.Millis += 15_000
		s.sync()
		s.refreshRates()
	}
	want(t, s, OK, func(s *State) Code { _, code := s.repay("alice", "usdt.eth", debt); return code })
	if p := s.Accounts.at("alice").position("usdt.eth"); !p.Debt.IsZero() || !p.Supply.IsZero() {
		t.Errorf("left after a full repayment: %+v", p)
	}
	want(t, s, OK, func(s *State) Code {
		gross, code := s.withdraw("alice", "btc", fixed.Int{}, true)
		if gross != n("100000000") {
			t.Errorf("withdrew %s", gross)
		}
		open(s, Outflow{Kind: OutflowWithdraw, Account: "alice", Asset: "btc", Gross: gross})
		return code
	})
	if len(s.Accounts.at("alice").Positions) != 0 {
		t.Error("an empty position was kept")
	}
}

// The order of the checks decides the code when several would fail
// (spec: lending §6.5).
func TestBorrowRefusals(t *testing.T) {
	s := lendingState(t)
	supplied(t, s, "lender", "usdt.eth", "1000000000")
	supplied(t, s, "alice", "btc", "100000000")
	pool := func(change func(*Pool)) func(*State) {
		return func(s *State) {
			p := s.Pools.at("usdt.eth")
			change(&p)
			s.Pools.put("usdt.eth", p)
		}
	}
	// each row keeps what the rows below it break: the upper check answers
	rows := []struct {
		code  Code
		who   string
		pool  string
		units string
		spoil func(*State)
	}{
		{HealthFactor, "carol", "usdt.eth", "2000000", func(s *State) {}},
		{BorrowCap, "alice", "usdt.eth", "2000000", pool(func(p *Pool) { p.Param.BorrowCap = n("1999999") })},
		{NoLiquidity, "alice", "usdt.eth", "1000000001", func(*State) {}},
		{SameAsset, "lender", "usdt.eth", "2000000000", func(*State) {}},
		{PriceStale, "alice", "usdt.eth", "2000000", func(s *State) { s.Millis += 120_001 }},
		{BelowMin, "alice", "usdt.eth", "99", func(*State) {}},
		{BorrowDisabled, "alice", "usdt.eth", "1", func(s *State) { s.BorrowOff = true }},
		{BorrowDisabled, "alice", "usdt.eth", "1", pool(func(p *Pool) { p.BorrowEnabled = false })},
		{Frozen, "alice", "usdt.eth", "1", pool(func(p *Pool) { p.Frozen = true })},
		{Paused, "alice", "usdt.eth", "1", pool(func(p *Pool) { p.Paused = true })},
		{UnknownPool, "alice", "doge", "1", func(*State) {}},
	}
	want(t, s, OK, func(s *State) Code { // carol has collateral for half of it
		_, code := s.supply("carol", "eth", n("333333333333333"))
		return code
	})
	want(t, s, NoCollateral, borrows("nobody", "usdt.eth", "2000000"))
	want(t, s, MaxLTV, borrows("carol", "usdt.eth", "760000"))
	w := s.View()
	for _, r := range rows {
		r.spoil(w)
		want(t, w.View(), r.code, borrows(r.who, r.pool, r.units))
	}
}

func TestPriceAge(t *testing.T) {
	s := lendingState(t)
	supplied(t, s, "lender", "usdt.eth", "100000000000")
	supplied(t, s, "alice", "btc", "100000000")
	want(t, s, OK, borrows("alice", "usdt.eth", "1000000"))
	s.Millis += 120_000
	want(t, s.View(), OK, borrows("alice", "usdt.eth", "1000000"))
	s.Millis++
	want(t, s, PriceStale, borrows("alice", "usdt.eth", "1000000"))
	want(t, s, PriceStale, withdraws("alice", "btc", "1000"))
	want(t, s, OK, withdraws("lender", "usdt.eth", "1000")) // without debt no price is needed
	if code := s.gates("alice"); code != PriceStale {
		t.Errorf("gates %s", code)
	}
	s.Prices.delete("btc")
	if views, h := s.PositionOf("alice"); h.Code != PriceStale || len(views) != 2 || views[0].Priced {
		t.Errorf("without a price: %+v %+v", views, h)
	}
}

// Two prices, a suspect price and a stablecoin above one dollar each count
// against the borrower (spec: lending §8.4, §12).
func TestPricesCountAgainstTheBorrower(t *testing.T) {
	s := lendingState(t)
	supplied(t, s, "lender", "usdt.eth", "100000000000")
	supplied(t, s, "alice", "btc", "100000000")
	limit := n("37500000000")
	if got := s.MaxBorrow("alice", "usdt.eth"); got != limit {
		t.Fatalf("max borrow %s, want %s", got, limit)
	}
	for name, p := range map[string]Price{
		"low counts for collateral": {Low: n("4000000000000"), High: n("5000000000000")},
		"suspect after a jump up":   {Low: n("5000000000000"), High: n("5000000000000"), Suspect: s.Millis, SusLow: n("4000000000000"), SusHigh: n("4000000000000")},
		"suspect after a fall":      {Low: n("4000000000000"), High: n("4000000000000"), Suspect: s.Millis, SusLow: n("5000000000000"), SusHigh: n("5000000000000")},
	} {
		w := s.View()
		p.Millis = w.Millis
		w.Prices.put("btc", p)
		if got := w.MaxBorrow("alice", "usdt.eth"); got != n("30000000000") {
			t.Errorf("%s: max borrow %s", name, got)
		}
	}
	for name, p := range map[string]Price{
		"high counts for debt": {Low: n("100000000"), High: n("125000000")},
		"suspect debt":         {Low: n("100000000"), High: n("100000000"), Suspect: s.Millis, SusLow: n("125000000"), SusHigh: n("125000000")},
	} {
		w := s.View()
		p.Millis = w.Millis
		w.Prices.put("usdt.eth", p)
		if got := w.MaxBorrow("alice", "usdt.eth"); got != n("30000000000") {
			t.Errorf("%s: max borrow %s", name, got)
		}
	}
	price(s, "usdt.eth", "110000000")
	if h, _ := s.Health("lender"); h.CollValue != n("10000000000000") {
		t.Errorf("a stablecoin at 1.10 is worth %s as collateral", h.CollValue)
	}
}

// Supply that a reorganisation could take away earns and may leave, but is no
// collateral (spec: lending §8.4).
func TestUnfinalSupplyIsNoCollateral(t *testing.T) {
	s := lendingState(t)
	s.Tips.put("btc", ChainTip{Height: 104})
	supplied(t, s, "lender", "usdt.eth", "100000000000")
	supplied(t, s, "alice", "btc", "100000000")
	a := s.addUnfinal(s.Accounts.at("alice"), Inflow{Asset: "btc", Chain: "btc", Height: 100}, n("100000000"))
	s.Accounts.put("alice", a)
	want(t, s, NoCollateral, borrows("alice", "usdt.eth", "1000000"))
	want(t, s.View(), OK, withdraws("alice", "btc", "100000000"))
	if views, _ := s.PositionOf("alice"); views[0].Supplied != n("100000000") || !views[0].Collateral.IsZero() {
		t.Errorf("position %+v", views[0])
	}
	s.Tips.put("btc", ChainTip{Height: 105}) // six blocks: 100 … 105
	want(t, s, OK, borrows("alice", "usdt.eth", "1000000"))

	// what is not final never carries the debt of what is
	a = s.addUnfinal(s.Accounts.at("alice"), Inflow{Asset: "btc", Chain: "btc", Height: 101}, n("100000000"))
	if len(a.Unfinal) != 1 {
		t.Errorf("final entries kept: %+v", a.Unfinal)
	}
	s.Accounts.put("alice", a)
	want(t, s, HealthFactor, withdraws("alice", "btc", "1000"))
	for i := range uint64(2 * maxUnfinal) {
		a = s.addUnfinal(a, Inflow{Asset: "btc", Chain: "btc", Height: 200 + i}, n("1"))
	}
	if len(a.Unfinal) != maxUnfinal || s.unfinal(a, "btc") != n("100000064") {
		t.Errorf("%d entries, %s shares", len(a.Unfinal), s.unfinal(a, "btc"))
	}
	if eth := s.addUnfinal(Account{}, Inflow{Asset: "eth", Chain: "eth", Height: 1 << 40}, n("1")); len(eth.Unfinal) != 0 {
		t.Error("a chain that says itself what is final has no unfinal deposits")
	}
}

// What an account cannot be given is claimable, never lost.
func TestSuspenseAndClaim(t *testing.T) {
	s := lendingState(t)
	want(t, s, OK, func(s *State) Code {
		reason, code := s.supply("alice", "btc", n("99"))
		if reason != string(BelowMin) {
			t.Errorf("reason %q", reason)
		}
		return code
	})
	want(t, s, InsufficientBalance, func(s *State) Code { _, code := s.claim("bob", "btc"); return code })
	var o Outflow
	want(t, s, OK, func(s *State) Code {
		amount, code := s.claim("alice", "btc")
		o = open(s, Outflow{Kind: OutflowRefund, Account: "alice", Asset: "btc", Gross: amount})
		return code
	})
	want(t, s, InsufficientBalance, func(s *State) Code { _, code := s.claim("alice", "btc"); return code })
	want(t, s, OK, func(s *State) Code {
		code := s.outflowFail(o)
		o.State = Refunded
		s.Outflows.put(o.ID, o)
		return code
	})
	if got := s.Suspense.at("alice/btc").Amount; got != n("99") {
		t.Errorf("back in suspense: %s", got)
	}
	want(t, s, UnknownOutflow, func(s *State) Code { return s.outflowFail(o) })
}

// A borrow that failed for the account's own reason is repaid less what the
// chain took; interest is owed and the pool keeps the fee (spec: lending §11.4).
func TestRevertIsAnOrdinaryRepayment(t *testing.T) {
	s := lendingState(t)
	supplied(t, s, "lender", "usdt.eth", "100000000000")
	supplied(t, s, "alice", "btc", "100000000")
	want(t, s, OK, borrows("alice", "usdt.eth", "20000000000"))
	o := s.Outflows.at(s.NextOutflow)
	s.Millis += 3_600_000
	want(t, s, OK, func(s *State) Code {
		code := s.outflowRevert(o, n("3000000"))
		o.State = Refunded
		s.Outflows.put(o.ID, o)
		return code
	})
	owed, code := s.FullRepay("alice", "usdt.eth", 0)
	if code != OK || owed.Less(n("3000000")) {
		t.Errorf("still owed %s %s, want the fee and the interest", owed, code)
	}
	p := s.Pools.at("usdt.eth")
	if p.Cash != n("100000000000") || p.TreasuryShares.Less(n("2999000")) {
		t.Errorf("cash %s, treasury %s", p.Cash, p.TreasuryShares)
	}
}

// The second term of socialise keeps I1 where rounding the claims up would
// exceed the assets: here 2.5 units are claimed, 1.5 are there and the claims
// count as 3 (spec: lending §9).
func TestSocialise(t *testing.T) {
	s := lendingState(t)
	socialise := func(s *State) Code { return s.socialise("btc") }
	want(t, s, NoDeficit, socialise)
	one := fixed.New(1)
	p := s.Pools.at("btc")
	p.SupplyShares, p.DebtShares, p.Deficit = one, one, one
	p.SupplyIndex, p.BorrowIndex = n("2500000000000000000000000000"), n("1500000000000000000000000000")
	s.Pools.put("btc", p)
	s.Accounts.put("lender", Account{ID: "lender", Positions: []Position{{Pool: "btc", Supply: one}}})
	s.Accounts.put("debtor", Account{ID: "debtor", Positions: []Position{{Pool: "btc", Debt: one}}})
	want(t, s, OK, socialise)
	if p = s.Pools.at("btc"); p.SupplyIndex != n("1500000000000000000000000000") || !p.Deficit.IsZero() {
		t.Errorf("index %s, deficit %s", p.SupplyIndex, p.Deficit)
	}
	p.Deficit = fixed.New(2)
	s.Pools.put("btc", p)
	want(t, s, Insolvent, socialise)
}

func TestDisplayHF(t *testing.T) {
	for in, out := range map[string]string{
		"2000000000000000000": "2.00", "1142857142857142857": "1.14", "1145000000000000000": "1.15", "888888888888888888": "0.88",
		"996000000000000000": "0.99", "999999999999999999": "0.99", "1000000000000000000": "1.00", "0": "0.00",
		"1004999999999999999": "1.00", "1005000000000000000": "1.01", "15480000000000000000000000000000": "15480000000000.00",
	} {
		v := n(in)
		if got := DisplayHF(&v); got != out {
			t.Errorf("%s is shown as %s, want %s", in, got, out)
		}
	}
	if got := DisplayHF(nil); got != "∞" {
		t.Errorf("no debt is shown as %s", got)
	}
}

func TestPoolParamValidate(t *testing.T) {
	good := lendingState(t).Genesis.Pools[0]
	for name, spoil := range map[string]func(*PoolParam){
		"ltv above lt":      func(p *PoolParam) { p.LTV = p.LT + 1 },
		"lt·bonus":          func(p *PoolParam) { p.LT = 8700 },
		"lt·bonus wraps":    func(p *PoolParam) { p.Bonus = 1 << 63 },
		"bonus below par":   func(p *PoolParam) { p.Bonus = 9999 },
		"liq_fee":           func(p *PoolParam) { p.LiqFee = 10001 },
		"opt low":           func(p *PoolParam) { p.Opt = 99 },
		"opt high":          func(p *PoolParam) { p.Opt = 9901 },
		"s1 above s2":       func(p *PoolParam) { p.S1 = p.S2 + 1 },
		"rates":             func(p *PoolParam) { p.S2 = 99_101 },
		"rates wrap":        func(p *PoolParam) { p.Base = 1<<64 - 1 },
		"rf":                func(p *PoolParam) { p.RF = 5001 },
		"min_supply":        func(p *PoolParam) { p.MinSupply = fixed.Int{} },
		"min_borrow":        func(p *PoolParam) { p.MinBorrow = fixed.Int{} },
		"min_withdraw":      func(p *PoolParam) { p.MinWithdraw = fixed.Int{} },
		"min_debt reserved": func(p *PoolParam) { p.MinDebt = fixed.New(1) },
		"emode_id reserved": func(p *PoolParam) { p.EmodeID = 1 },
	} {
		p := good
		spoil(&p)
		if p.Validate() == nil {
			t.Errorf("%s: accepted", name)
		}
		s := lendingState(t)
		want(t, s, BadParam, func(s *State) Code { return s.setPool(p.Asset, poolChange{Param: &p}) })
	}
}

// A pool whose index would not fit any more is frozen; time goes on.
func TestAccrualFreezesOnOverflow(t *testing.T) {
	s := lendingState(t)
	p := s.Pools.at("btc")
	p.SupplyIndex, p.SupplyRate = fixed.Max, fixed.Ray
	q := p.accrue(p.LastSync + 1)
	if !q.Frozen || q.SupplyIndex != fixed.Max || q.LastSync != p.LastSync+1 {
		t.Errorf("pool %+v", q)
	}
}

// Readers share one view, so nothing they ask may change it.
func TestReadersChangeNothing(t *testing.T) {
	s := lendingState(t)
	supplied(t, s, "lender", "usdt.eth", "100000000000")
	supplied(t, s, "alice", "btc", "100000000")
	want(t, s, OK, borrows("alice", "usdt.eth", "20000000000"))
	s.Millis += 60_000
	before := *s
	done := make(chan struct{})
	for range 2 { // the race detector watches them
		go func() {
			defer func() { done <- struct{}{} }()
			s.PositionOf("alice")
			s.MaxBorrow("alice", "usdt.eth")
			s.MaxWithdraw("alice", "btc")
			s.FullRepay("alice", "usdt.eth", 600)
			s.Market("usdt.eth")
			s.Health("lender")
		}()
	}
	<-done
	<-done
	if string(Marshal(&before)) != string(Marshal(s)) {
		t.Error("a reader changed the state")
	}
}

// The answers of readers are what the operations accept, to the unit: of the state that
// a test has, and of the frozen view that a node's API asks. Planted: scratch is frozen
// like what it was made of.
func TestQuotesAreTheLimits(t *testing.T) {
	s := lendingState(t)
	supplied(t, s, "lender", "usdt.eth", "100000000000")
	supplied(t, s, "alice", "btc", "100000000")
	want(t, s, OK, borrows("alice", "usdt.eth", "20000000000"))
	s.Millis += 100_000
	one := fixed.New(1)
	for _, read := range []*State{s, s.Frozen(), s.Frozen().View()} {
		for name, c := range map[string]struct {
			most fixed.Int
			op   func(string, string, string) func(*State) Code
			pool string
		}{
			"borrow":   {read.MaxBorrow("alice", "usdt.eth"), borrows, "usdt.eth"},
			"withdraw": {read.MaxWithdraw("alice", "btc"), withdraws, "btc"},
		} {
			if c.most.IsZero() {
				t.Errorf("%s: nothing", name)
			}
			want(t, s.View(), OK, c.op("alice", c.pool, c.most.String()))
			want(t, s.View(), MaxLTV, c.op("alice", c.pool, must(fixed.Add(c.most, one)).String()))
		}
	}
	if got := s.MaxBorrow("nobody", "usdt.eth"); !got.IsZero() {
		t.Errorf("nobody may borrow %s", got)
	}
	if m, code := s.Market("usdt.eth"); code != OK || m.Borrowed.Less(n("20000000001")) || m.BorrowAPY.Less(m.Pool.BorrowRate) {
		t.Errorf("market %+v %s", m, code)
	}
}
