package ledger

import (
	"fmt"
	"testing"

	"github.com/coffer-network/coffer/ledger/fixed"
	"pgregory.net/rapid"
)

// TestLendingInvariants runs random operations and demands I1 to I5 after every
// one of them, with indices that never fall except by socialise (I8), gates
// that hold after borrow and withdraw (I10), health that supply and repay never
// lower (I11), and a Deficit that only a liquidation raises (I20).
func TestLendingInvariants(t *testing.T) {
	accepted := map[string]int{}
	amounts := []string{"1", "2", "3", "10", "100", "999", "1000", "123456", "1000000", "250000000", "40000000000", "7000000000000000000", "170141183460469231731687303715884105728"}
	users := []string{"a", "b", "c", "whale"}
	pools := []string{"btc", "eth", "usdt.eth"}
	run := func(r *rapid.T) {
		s := lendingState(t)
		for _, p := range pools {
			q := s.Pools.at(p)
			q.Param.SameAsset = rapid.Bool().Draw(r, "same asset")
			q.Param.RF = rapid.SampledFrom([]uint64{0, 1000, 5000}).Draw(r, "rf")
			q.SupplyIndex = n(rapid.SampledFrom([]string{"1000000000000000000000000000", "1000000000000000000000000001", "1267650600228229401496703205376"}).Draw(r, "index"))
			s.Pools.put(p, q)
			if _, code := s.supply("whale", p, n("90000000000000000")); code != OK {
				r.Fatal(code)
			}
		}
		for i, who := range users[:3] { // debtors close to their limit
			coll, debt := pools[i], pools[(i+1)%3]
			if _, code := s.supply(who, coll, n([]string{"100000000", "20000000000000000000", "50000000000"}[i])); code != OK {
				r.Fatal(code)
			}
			w := s.View()
			if borrows(who, debt, s.MaxBorrow(who, debt).String())(w) == OK && w.refreshRates() == OK {
				s = w
			}
		}
		steps := rapid.IntRange(60, 100).Draw(r, "steps")
		for range steps {
			who, pool := rapid.SampledFrom(users).Draw(r, "who"), rapid.SampledFrom(pools).Draw(r, "pool")
			amount := n(rapid.SampledFrom(amounts).Draw(r, "amount"))
			w := s.View()
			w.Millis += rapid.SampledFrom([]uint64{0, 1, 7, 60, 3600, 86400, 2592000}).Draw(r, "dt") * 1000
			for _, p := range pools { // fresh prices, so that gates are what refuses
				at := w.Prices.at(p)
				at.Millis = w.Millis
				w.Prices.put(p, at)
			}
			w.sync()
			before := w.View()
			op, code := randomOp(r, w, who, pool, amount)
			if code == OK {
				code = w.refreshRates()
			}
			if code != OK {
				continue
			}
			accepted[op]++
			if err := w.checkLending(); err != nil {
				r.Fatalf("%s: %v", op, err)
			}
			if err := monotone(before, w, op, who); err != nil {
				r.Fatalf("%s by %s in %s of %s: %v", op, who, pool, amount, err)
			}
			s = w
		}
	}
	for range 4 {
		rapid.Check(t, run)
	}
	for _, op := range []string{"supply", "repay", "borrow", "withdraw", "liquidate", "fail", "revert", "done", "claim", "price", "socialise", "cover"} {
		if accepted[op] == 0 {
			t.Errorf("no %s was ever accepted: the test proves nothing about it", op)
		}
	}
	t.Log(accepted)
}

func randomOp(r *rapid.T, s *State, who, pool string, amount fixed.Int) (string, Code) {
	ops := []string{"supply", "supply", "repay", "borrow", "borrow", "withdraw", "withdraw all", "claim", "price", "liquidate", "liquidate", "liquidate", "settle", "settle", "cover", "socialise"}
	var code Code
	switch op := rapid.SampledFrom(ops).Draw(r, "op"); op {
	case "supply":
		_, code = s.supply(who, pool, amount)
		return op, code
	case "repay":
		_, code = s.repay(who, pool, amount)
		return op, code
	case "borrow":
		if rapid.Bool().Draw(r, "most") {
			amount = s.MaxBorrow(who, pool)
		}
		return op, borrows(who, pool, amount.String())(s)
	case "withdraw":
		return op, withdraws(who, pool, amount.String())(s)
	case "withdraw all":
		gross, code := s.withdraw(who, pool, fixed.Int{}, true)
		open(s, Outflow{Kind: OutflowWithdraw, Account: who, Asset: pool, Gross: gross})
		return "withdraw", code
	case "claim":
		gross, code := s.claim(who, pool)
		open(s, Outflow{Kind: OutflowRefund, Account: who, Asset: pool, Gross: gross})
		return op, code
	case "price":
		p := s.Prices.at(pool)
		pct := fixed.New(rapid.SampledFrom([]uint64{90, 20, 50, 70, 97, 101, 110, 140, 300}).Draw(r, "pct"))
		p.Low = must(fixed.MulDivCeil(p.Low, pct, fixed.New(100)))
		p.High = p.Low
		s.Prices.put(pool, p)
		return op, OK
	case "liquidate":
		borrower := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(r, "borrower")
		coll := pool
		for _, at := range s.Accounts.at(borrower).Positions { // aim where there is something
			if !at.Debt.IsZero() {
				pool = at.Pool
			}
			if !at.Supply.IsZero() {
				coll = at.Pool
			}
		}
		if rapid.Bool().Draw(r, "all") {
			amount = fixed.Max
		}
		_, code = s.liquidate("whale", borrower, pool, coll, amount)
		return op, code
	case "settle":
		for _, o := range s.Outflows.all() {
			if o.State != Queued {
				continue
			}
			how := rapid.SampledFrom([]string{"done", "fail", "revert"}).Draw(r, "how")
			switch how {
			case "done":
				code = s.outflowDone(o.Asset, o.Gross)
			case "fail":
				code = s.outflowFail(o)
			case "revert":
				code = s.outflowRevert(o, must(fixed.DivFloor(o.Gross, fixed.New(7))))
			}
			o.State = map[string]OutflowState{"done": Paid, "fail": Refunded, "revert": Refunded}[how]
			s.Outflows.put(o.ID, o)
			return how, code
		}
		return op, UnknownOutflow
	case "cover":
		pool = withDeficit(s, pool)
		_, code = s.coverDeficit("whale", pool, amount)
		return op, code
	default:
		return op, s.socialise(withDeficit(s, pool))
	}
}

// withDeficit is a pool that has one, or else.
func withDeficit(s *State, otherwise string) string {
	for id, p := range s.Pools.all() {
		if !p.Deficit.IsZero() {
			return id
		}
	}
	return otherwise
}

// monotone compares the state before an operation, synced, with the one after.
func monotone(before, after *State, op, who string) error {
	for id, q := range after.Pools.all() {
		p := before.Pools.at(id)
		if q.BorrowIndex.Less(p.BorrowIndex) || q.SupplyIndex.Less(p.SupplyIndex) && op != "socialise" {
			return fmt.Errorf("I8: an index of %s fell", id)
		}
		if p.Deficit.Less(q.Deficit) && op != "liquidate" || q.Deficit.Less(p.Deficit) && op != "cover" && op != "socialise" {
			return fmt.Errorf("I20: deficit of %s from %s to %s", id, p.Deficit, q.Deficit)
		}
		if q.SupplyRate != (fixed.Int{}) && q.BorrowRate.Less(q.SupplyRate) {
			return fmt.Errorf("I22: supply rate of %s above its borrow rate", id)
		}
	}
	switch op {
	case "borrow", "withdraw":
		if code := after.gates(who); code != OK {
			return fmt.Errorf("I10: %s", code)
		}
	case "supply", "repay":
		b, code := before.weighAccount(before.Accounts.at(who), asClosed)
		a, code2 := after.weighAccount(after.Accounts.at(who), asClosed)
		if code == Arith || code2 == Arith {
			return nil // 2¹²⁷ units are worth more than a value can be
		}
		if code != OK || code2 != OK {
			return fmt.Errorf("health: %s, %s", code, code2)
		}
		if b.HF != nil && a.HF != nil && a.HF.Less(*b.HF) {
			return fmt.Errorf("I11: HF from %s to %s", b.HF, a.HF)
		}
	}
	return nil
}
