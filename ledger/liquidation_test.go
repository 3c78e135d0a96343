package ledger

import (
	"testing"

	"github.com/coffer-network/coffer/ledger/fixed"
)

// under returns a state where alice's loan is liquidatable and bob, who lent,
// may liquidate it.
func under(t *testing.T) *State {
	t.Helper()
	s := lendingState(t)
	supplied(t, s, "bob", "usdt.eth", "100000000000")
	supplied(t, s, "alice", "btc", "100000000")
	want(t, s, OK, borrows("alice", "usdt.eth", "37000000000"))
	price(s, "btc", "4000000000000")
	return s
}

func liquidates(who, whom, debt, coll string) func(*State) Code {
	return func(s *State) Code {
		_, code := s.liquidate(who, whom, debt, coll, fixed.Max)
		return code
	}
}

// The order of the checks decides the code (spec: lending §6.6).
func TestLiquidationRefusals(t *testing.T) {
	s := under(t)
	want(t, s.View(), OK, liquidates("bob", "alice", "usdt.eth", "btc"))
	want(t, s, InsufficientBalance, liquidates("carol", "alice", "usdt.eth", "btc"))
	want(t, s, NoDebt, liquidates("bob", "alice", "eth", "btc"))
	want(t, s, NoCollateral, liquidates("bob", "alice", "usdt.eth", "eth"))
	w := s.View()
	price(w, "btc", "5000000000000")
	want(t, w, Healthy, liquidates("bob", "alice", "usdt.eth", "eth"))
	p := s.Prices.at("btc")
	p.Suspect, p.SusLow, p.SusHigh = s.Millis, p.Low, p.High
	s.Prices.put("btc", p)
	w = s.View()
	w.Millis += suspectMaxMillis - 1
	want(t, w.View(), PriceSuspect, liquidates("bob", "alice", "usdt.eth", "btc"))
	w.Millis++ // no round closed meanwhile: a crash blocks nobody longer (spec: lending §12.4)
	want(t, w, OK, liquidates("bob", "alice", "usdt.eth", "btc"))
	s.Millis += 900_001
	want(t, s, PriceStale, liquidates("bob", "alice", "usdt.eth", "btc"))
	q := s.Pools.at("btc")
	q.LiqGraceUntil = s.Time() + 1
	s.Pools.put("btc", q)
	want(t, s, Grace, liquidates("bob", "alice", "usdt.eth", "btc"))
	q.Paused = true
	s.Pools.put("btc", q)
	want(t, s, Paused, liquidates("bob", "alice", "usdt.eth", "btc"))
	want(t, s, SelfLiquidation, liquidates("alice", "alice", "usdt.eth", "btc"))
	want(t, s, UnknownPool, liquidates("alice", "alice", "usdt.eth", "doge"))
	want(t, s, UnknownAccount, liquidates("bob", "nobody", "usdt.eth", "btc"))
}

// A liquidator who owes is held to his own gates: he gives up supply that may
// be his collateral.
func TestLiquidatorsOwnGates(t *testing.T) {
	s := under(t)
	supplied(t, s, "lender", "eth", "20000000000000000000")
	// bob's 100 000 USDT carry a loan that they would not carry after the trade
	// if its collateral were worth nothing to him
	want(t, s, OK, borrows("bob", "eth", "20000000000000000000"))
	p := s.Pools.at("btc")
	p.Param.LTV, p.Param.LT = 0, 1
	s.Pools.put("btc", p)
	want(t, s, HealthFactor, func(s *State) Code {
		price(s, "eth", "390000000000")
		_, code := s.liquidate("bob", "alice", "usdt.eth", "btc", fixed.Max)
		return code
	})
}

// Supply that is not final is not seized; in the bad-debt step it counts, or
// its owner's debt would be forgiven (spec: lending §8.4).
func TestUnfinalSupplyIsNotSeized(t *testing.T) {
	s := under(t)
	supplied(t, s, "alice", "btc", "50000000")
	a := s.addUnfinal(s.Accounts.at("alice"), Inflow{Asset: "btc", Chain: "btc", Height: 1}, n("50000000"))
	s.Accounts.put("alice", a)
	price(s, "btc", "3000000000000") // all that counts does not cover the debt
	want(t, s, OK, liquidates("bob", "alice", "usdt.eth", "btc"))
	left := s.Accounts.at("alice")
	if got := left.position("btc").Supply; got != n("50000000") {
		t.Errorf("%s left, want what was not final", got)
	}
	if !left.indebted() || !s.Pools.at("usdt.eth").Deficit.IsZero() {
		t.Error("a debt was written off though a deposit is on its way")
	}
	s.Tips.put("btc", ChainTip{Height: 6})
	want(t, s, Healthy, liquidates("bob", "alice", "usdt.eth", "btc"))
}
