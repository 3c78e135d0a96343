package ledger

import (
	"testing"

	"github.com/coffer-network/coffer/ledger/fixed"
)

// impaired is a state whose USDT pool lost more than half a per cent: alice's
// loan was liquidated below its worth. Three lenders hold 40, 40 and 20 % of it.
func impaired(t *testing.T) *State {
	t.Helper()
	s := lendingState(t)
	supplied(t, s, "bob", "usdt.eth", "40000000000")
	supplied(t, s, "carol", "usdt.eth", "40000000000")
	supplied(t, s, "dave", "usdt.eth", "20000000000")
	supplied(t, s, "alice", "btc", "100000000")
	want(t, s, OK, borrows("alice", "usdt.eth", "37000000000"))
	price(s, "btc", "3000000000000")
	want(t, s, OK, liquidates("bob", "alice", "usdt.eth", "btc"))
	if p := s.Pools.at("usdt.eth"); !p.Frozen || !p.Impaired.Open || p.Deficit.IsZero() {
		t.Fatalf("frozen %v, %+v, deficit %s", p.Frozen, p.Impaired, p.Deficit)
	}
	return s
}

// most is the largest withdrawal that is accepted, and that one unit more is
// refused for the limit.
func mostUnderLimit(t *testing.T, s *State, who string) fixed.Int {
	t.Helper()
	most := s.MaxWithdraw(who, "usdt.eth")
	want(t, s.View(), DeficitLimit, withdraws(who, "usdt.eth", must(fixed.Add(most, fixed.New(1000))).String()))
	return most
}

// "total withdrawals until cover or socialise are limited per user to balance ·
// (1 − Deficit/supply) of the balance held at that moment" (spec: lending §8.4).
func TestDeficitLimit(t *testing.T) {
	s := impaired(t)
	m, p := s.Pools.at("usdt.eth").Impaired, s.Pools.at("usdt.eth")
	limit := func(balance string) fixed.Int {
		return must(fixed.MulDivFloor(n(balance), must(fixed.Sub(m.Claims, p.Deficit)), m.Claims))
	}
	if got := mostUnderLimit(t, s, "carol"); got != limit("40000000000") {
		t.Errorf("carol may withdraw %s, want %s", got, limit("40000000000"))
	}
	if got := mostUnderLimit(t, s, "dave"); got != limit("20000000000") {
		t.Errorf("dave may withdraw %s, want %s", got, limit("20000000000"))
	}
	want(t, s.View(), DeficitLimit, func(s *State) Code { _, code := s.withdraw("carol", "usdt.eth", fixed.Int{}, true); return code })

	// In parts it is no more, and a refund gives back what it took.
	want(t, s, OK, withdraws("carol", "usdt.eth", "10000000000"))
	o := s.Outflows.at(s.NextOutflow)
	if got := mostUnderLimit(t, s, "carol"); got != must(fixed.Sub(limit("40000000000"), n("10000000000"))) {
		t.Errorf("after a part, %s more", got)
	}
	w := s.View()
	want(t, w, OK, func(s *State) Code {
		code := s.outflowFail(o)
		o.State = Refunded
		s.Outflows.put(o.ID, o)
		return code
	})
	if got := mostUnderLimit(t, w, "carol"); got != limit("40000000000") {
		t.Errorf("after a refund, %s", got)
	}
	w = s.View()
	old := o
	old.ID = 0 // as if it had been withdrawn before the freeze
	w.returned(old, n("10000000000"))
	if got := mostUnderLimit(t, w, "carol"); got != must(fixed.Sub(limit("40000000000"), n("10000000000"))) {
		t.Errorf("a refund from before the freeze raised the limit to %s", got)
	}

	// New coins raise nothing: they go to suspense.
	w = s.View()
	if reason, code := w.supply("dave", "usdt.eth", n("50000000000")); reason != string(Frozen) || code != OK {
		t.Errorf("supply into a frozen pool: %s %s", reason, code)
	}
	if got := mostUnderLimit(t, w, "dave"); got != limit("20000000000") {
		t.Errorf("new coins raised the limit to %s", got)
	}

	// Claims that change hands by a liquidation carry no right to leave with them.
	w = s.View()
	a, b := w.Accounts.at("carol"), w.Accounts.at("dave") // who has not touched anything yet
	from, to := a.position("usdt.eth"), b.position("usdt.eth")
	var c fixed.Calc
	q := w.Pools.at("usdt.eth")
	moved := n("20000000000")
	from.Supply, to.Supply = c.Sub(from.Supply, moved), c.Add(to.Supply, moved)
	if w.store(&c, a, from, q) != OK || w.store(&c, b, to, q) != OK {
		t.Fatal("not stored")
	}
	if got := mostUnderLimit(t, w, "dave"); got != limit("20000000000") {
		t.Errorf("claims gained raised the limit to %s", got)
	}

	// Whoever runs, together they get no more than what is left.
	w = s.View()
	total := n("10000000000")
	for _, who := range []string{"carol", "bob", "dave"} {
		most := w.MaxWithdraw(who, "usdt.eth")
		if most.IsZero() {
			continue
		}
		want(t, w, OK, withdraws(who, "usdt.eth", most.String()))
		total = must(fixed.Add(total, most))
	}
	if most := must(fixed.Sub(m.Claims, p.Deficit)); most.Less(total) {
		t.Errorf("%s left of %s", total, most)
	}

	// Cover or socialise ends it; the vote that lifts the freeze is another thing.
	for name, end := range map[string]func(*State) Code{
		"socialise": func(s *State) Code { return s.socialise("usdt.eth") },
		"cover": func(s *State) Code {
			_, code := s.coverDeficit("carol", "usdt.eth", fixed.Max)
			return code
		},
	} {
		w := s.View()
		want(t, w, OK, end)
		p := w.Pools.at("usdt.eth")
		if p.Impaired.Open || !p.Frozen {
			t.Errorf("%s: open %v, frozen %v", name, p.Impaired.Open, p.Frozen)
		}
		want(t, w, OK, func(s *State) Code { // all he has
			gross, code := s.withdraw("dave", "usdt.eth", fixed.Int{}, true)
			open(s, Outflow{Kind: OutflowWithdraw, Account: "dave", Asset: "usdt.eth", Gross: gross})
			return code
		})
		if got := w.Accounts.at("dave"); len(got.Held) != 0 {
			t.Errorf("%s: still noted: %+v", name, got.Held)
		}
	}
	s.Params.FreezeDeficitBps = 0
	want(t, s, OK, withdraws("dave", "usdt.eth", "20000000000"))
}

// A second impairment is about what is held then.
func TestDeficitLimitOfASecondTime(t *testing.T) {
	s := impaired(t)
	want(t, s, OK, withdraws("dave", "usdt.eth", "5000000000"))
	want(t, s, OK, func(s *State) Code { return s.socialise("usdt.eth") })
	p := s.Pools.at("usdt.eth")
	p.Deficit, p.Frozen = n("1000000000"), false // of some 90,000: above 50 bps, covered by as much cash less
	p.Cash, p.FeeLosses = must(fixed.Sub(p.Cash, p.Deficit)), must(fixed.Add(p.FeeLosses, p.Deficit))
	s.Pools.put("usdt.eth", p)
	want(t, s, OK, func(*State) Code { return OK }) // refreshes the rates, as every command does
	if p = s.Pools.at("usdt.eth"); p.Impaired.Epoch != 2 || !p.Impaired.Open {
		t.Fatalf("%+v", p.Impaired)
	}
	held := must(fixed.MulDivFloor(s.supplyShares("dave", "usdt.eth"), p.SupplyIndex, fixed.Ray))
	limit := must(fixed.MulDivFloor(held, must(fixed.Sub(p.Impaired.Claims, p.Deficit)), p.Impaired.Claims))
	if got := mostUnderLimit(t, s, "dave"); got != limit {
		t.Errorf("%s, want %s: what was withdrawn the first time does not count", got, limit)
	}
}

// The bound of the freeze is exact: at 50 bps nothing happens.
func TestFreezeOnDeficitBound(t *testing.T) {
	for deficit, freezes := range map[string]bool{"0": false, "500": false, "501": true} {
		p := Pool{SupplyShares: n("100000"), SupplyIndex: fixed.Ray, Deficit: n(deficit)}
		if q := p.impair(50, 7); q.Frozen != freezes || q.Impaired.Open != freezes || freezes && (q.Impaired.First != 7 || q.Impaired.Claims != n("100000")) {
			t.Errorf("deficit %s: %+v", deficit, q.Impaired)
		}
		if q := p.impair(0, 7); q.Frozen {
			t.Error("frozen with the rule off")
		}
	}
	p := Pool{SupplyShares: n("100000"), SupplyIndex: fixed.Ray, Deficit: n("600")}.impair(50, 7)
	p.Deficit = n("501")
	if !p.mend(50).Impaired.Open {
		t.Error("mended above the bound")
	}
	p.Deficit = n("500")
	if p.mend(50).Impaired.Open {
		t.Error("not mended at the bound")
	}
}

// "when HF < lt·bonus/10⁴ a partial liquidation lowers HF; then the liquidator
// must clear a leg entirely" (spec: lending §8.4).
func TestNotClosing(t *testing.T) {
	s := under(t) // HF 0.8648 below lt·bonus 0.88
	part := func(s *State) Code {
		_, code := s.liquidate("bob", "alice", "usdt.eth", "btc", n("10000000000"))
		return code
	}
	want(t, s.View(), OK, part)
	s.Params.NotClosing = true
	want(t, s.View(), NotClosing, part)
	want(t, s.View(), OK, liquidates("bob", "alice", "usdt.eth", "btc")) // clears the debt
	price(s, "btc", "4069999999999")                                     // lt·bonus·40699.99…/37000 < 1 by a hair
	want(t, s.View(), NotClosing, part)
	price(s, "btc", "4070000000000") // exactly lt·bonus
	want(t, s.View(), OK, part)
}

// A small coin on its way would make a small loan dust that nobody may touch.
func TestDustOnTheWayProtectsNothing(t *testing.T) {
	legs := []leg{
		{Pool: "btc", Decimals: 8, Low: n("5000000000000"), High: n("5000000000000"), Collateral: n("3700000"), LT: 8000},
		{Pool: "usdt.eth", Decimals: 6, Low: n("100000000"), High: n("100000000"), Debt: n("1500000000")},
	}
	r, code := seize(legs, 0, 1, fixed.Max, seizeRules{Bonus: 11_000, Fee: 1_000, Covered: n("500000000")})
	if code != OK || r.Repaid != n("1500000000") {
		t.Errorf("repaid %s, %s", r.Repaid, code)
	}
}

// With a target, a liquidation repays what leads there and no more; where that
// would leave dust it does not bind.
func TestTargetHF(t *testing.T) {
	s := lendingState(t)
	supplied(t, s, "bob", "usdt.eth", "100000000000")
	supplied(t, s, "alice", "btc", "100000000")
	want(t, s, OK, borrows("alice", "usdt.eth", "37000000000"))
	s.Params.FirstDipSeconds = 0
	price(s, "btc", "4500000000000") // HF 0.973
	free, code := s.View().liquidate("bob", "alice", "usdt.eth", "btc", fixed.Max)
	if code != OK || free.Repaid != n("18500000000") {
		t.Fatalf("without a target: %s, %s", free.Repaid, code)
	}
	s.Params.TargetHF = n("1020000000000000000")
	w := s.View()
	l, code := w.liquidate("bob", "alice", "usdt.eth", "btc", fixed.Max)
	if code != OK || !l.Repaid.Less(free.Repaid) {
		t.Fatalf("with a target: %s, %s", l.Repaid, code)
	}
	h, _ := w.Health("alice")
	over := must(fixed.Sub(*h.HF, s.Params.TargetHF))
	if h.HF.Less(s.Params.TargetHF) || n("100000000000").Less(over) {
		t.Errorf("HF %s, want %s", h.HF, s.Params.TargetHF)
	}
	less, code := s.View().liquidate("bob", "alice", "usdt.eth", "btc", n("1000000000"))
	if code != OK || less.Repaid != n("1000000000") {
		t.Errorf("less than the target: %s, %s", less.Repaid, code)
	}
	s.Params.TargetHF = n("2000000000000000000") // all but dust of it would be repaid
	if l, code := s.View().liquidate("bob", "alice", "usdt.eth", "btc", fixed.Max); code != OK || l.Repaid != free.Repaid {
		t.Errorf("a target beyond the close factor: %s, %s", l.Repaid, code)
	}

	// A small loan: the target's amount would leave dust, so all may be repaid.
	s = lendingState(t)
	s.Params.FirstDipSeconds, s.Params.TargetHF = 0, n("1020000000000000000")
	supplied(t, s, "bob", "usdt.eth", "100000000000")
	supplied(t, s, "alice", "btc", "3000000")
	want(t, s, OK, borrows("alice", "usdt.eth", "1100000000"))
	price(s, "btc", "4500000000000")
	if l, code := s.liquidate("bob", "alice", "usdt.eth", "btc", fixed.Max); code != OK || l.Repaid != n("1100000000") {
		t.Errorf("a small loan: %s, %s", l.Repaid, code)
	}
}

// The rules whose parameter is off leave the operation alone.
func TestPolicyOff(t *testing.T) {
	s := lendingState(t)
	s.Tips.put("btc", ChainTip{Height: 104})
	supplied(t, s, "lender", "usdt.eth", "100000000000")
	supplied(t, s, "alice", "btc", "100000000")
	s.Accounts.put("alice", s.addUnfinal(s.Accounts.at("alice"), Inflow{Asset: "btc", Chain: "btc", Height: 100}, n("100000000")))
	want(t, s, NoCollateral, borrows("alice", "usdt.eth", "1000000"))
	s.Params.UnfinalCounts = true
	want(t, s, OK, borrows("alice", "usdt.eth", "1000000"))

	for one, high := range map[bool]string{false: "5030000000000", true: "5010000000000"} {
		c := running(t)
		c.s.Params.OnePrice = one
		r := c.nextRound()
		x := &execution{s: c.s.View()}
		for i, p := range []string{"5000000000000", "5030000000000", "5010000000000", "5040000000000"} {
			seat := x.s.Seats.at(idOf(c.keys[i]).String())
			seat.Reports = []PriceReport{{Asset: "btc", Round: r, Price: n(p), Observed: x.s.Millis}}
			x.s.Seats.put(idOf(c.keys[i]).String(), seat)
		}
		x.closeRound("btc", r)
		if p := x.s.Prices.at("btc"); p.Low != n("5010000000000") || p.High != n(high) {
			t.Errorf("one price %v: %s and %s", one, p.Low, p.High)
		}
	}
}

func TestPolicyBounds(t *testing.T) {
	for name, spoil := range map[string]func(*Params){
		"grace too short":   func(p *Params) { p.FirstDipSeconds = 14 },
		"grace too long":    func(p *Params) { p.FirstDipSeconds = 61 },
		"repay grace":       func(p *Params) { p.RepayGraceSec = 3601 },
		"liquidators":       func(p *Params) { p.LiquidatorSec = 7*86_400 + 1 },
		"freeze":            func(p *Params) { p.FreezeDeficitBps = 10_001 },
		"target below 1":    func(p *Params) { p.TargetHF = n("999999999999999999") },
		"target above 2":    func(p *Params) { p.TargetHF = n("2000000000000000001") },
		"insurance share":   func(p *Params) { p.InsuranceBps = 10_001 },
		"insurance account": func(p *Params) { p.Insurance = []AccountID{"AB"} },
		"insurance doubled": func(p *Params) { p.Insurance = []AccountID{insured(1), insured(1)} },
		"too many insurance": func(p *Params) {
			p.Insurance = []AccountID{insured(1), insured(2), insured(3), insured(4), insured(5), insured(6), insured(7), insured(8), insured(9)}
		},
	} {
		g, _ := coreGenesis()
		if err := g.Validate(); err != nil {
			t.Fatal(err)
		}
		spoil(&g.Params)
		if g.Validate() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func insured(i int) AccountID { return Hash(seedOf("insurance", i)).String()[:32] }
