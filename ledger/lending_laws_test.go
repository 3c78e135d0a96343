package ledger

import (
	"flag"
	"fmt"
	"testing"

	"github.com/coffer-network/coffer/ledger/fixed"
	"pgregory.net/rapid"
)

// go test ./ledger -run TestLendingLaws -args -long
var long = flag.Bool("long", false, "a hundred times as many sequences of TestLendingLaws")

// step is one operation with what its laws are about.
type step struct {
	op, who, pool string
	amount        fixed.Int
	l             liquidation // op liquidate: what it did
	borrower      string
	coll          string
}

// TestLendingLaws runs random sequences over the fuzz alphabet of spec lending
// §14, with the policy layer on and every flag set now and then, and demands the
// invariants of operations after each: those of the books by checkLending, the
// others by law. A refused operation leaves the bytes as they were (I28).
func TestLendingLaws(t *testing.T) {
	accepted, refused, ran := map[string]int{}, map[string]int{}, 0
	users := []string{"a", "b", "c", "whale"}
	pools := []string{"btc", "eth", "usdt.eth"}
	run := func(r *rapid.T) {
		s := lendingState(t)
		s.Params.NotClosing = rapid.Bool().Draw(r, "not closing")
		s.Params.FirstDipSeconds = rapid.SampledFrom([]uint64{0, 15, 60}).Draw(r, "first dip")
		s.Params.TargetHF = n(rapid.SampledFrom([]string{"0", "1050000000000000000"}).Draw(r, "target"))
		s.Params.FreezeDeficitBps = rapid.SampledFrom([]uint64{0, 50}).Draw(r, "freeze")
		s.Params.Insurance = []AccountID{"whale"}
		s.Params.RepayGraceSec = rapid.SampledFrom([]uint64{0, 3600}).Draw(r, "repay grace")
		s.Params.OnePrice = rapid.Bool().Draw(r, "one price")
		s.Params.UnfinalCounts = rapid.Bool().Draw(r, "unfinal counts")
		for _, p := range pools {
			q := s.Pools.at(p)
			q.Param.SameAsset = rapid.Bool().Draw(r, "same asset")
			q.Param.RF = rapid.SampledFrom([]uint64{0, 1000, 5000}).Draw(r, "rf")
			q.Param.SupplyCap = n(rapid.SampledFrom([]string{"0", "100000000000000000"}).Draw(r, "cap"))
			q.Param.BorrowCap = n(rapid.SampledFrom([]string{"0", "30000000000"}).Draw(r, "borrow cap"))
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
		for range rapid.IntRange(60, 100).Draw(r, "steps") {
			ran++
			st := step{who: rapid.SampledFrom(users).Draw(r, "who"), pool: rapid.SampledFrom(pools).Draw(r, "pool")}
			st.amount = n(rapid.SampledFrom([]string{"1", "2", "3", "10", "100", "999", "1000", "123456", "1000000", "250000000", "40000000000", "7000000000000000000", "170141183460469231731687303715884105728"}).Draw(r, "amount"))
			w := s.View()
			w.Millis += rapid.SampledFrom([]uint64{0, 1, 7, 60, 3600, 86400, 2592000}).Draw(r, "dt") * 1000
			if rapid.IntRange(0, 9).Draw(r, "fresh") > 0 { // else gates meet stale prices
				for _, p := range pools {
					at := w.Prices.at(p)
					at.Millis, at.Round = w.Millis, w.Time()/15
					w.Prices.put(p, at)
				}
			}
			w.sync()
			if once := string(Marshal(w)); true { // I23
				if w.sync(); string(Marshal(w)) != once {
					r.Fatal("I23: a second sync at one time changed something")
				}
			}
			before := w.View()
			was := string(Marshal(before))
			code := st.do(r, w)
			if code == OK {
				code = w.refreshRates()
			}
			if string(Marshal(before)) != was {
				r.Fatalf("I28: %s %s reached behind its view", st.op, code)
			}
			if code != OK {
				refused[st.op+" "+string(code)]++
				continue
			}
			accepted[st.op]++
			if err := w.checkLending(); err != nil {
				r.Fatalf("%s: %v", st.op, err)
			}
			if err := st.law(before, w); err != nil {
				r.Fatalf("%s by %s in %s of %s: %v", st.op, st.who, st.pool, st.amount, err)
			}
			s = w
		}
	}
	times := 2
	if *long {
		times = 200
	}
	for range times {
		rapid.Check(t, run)
	}
	if least := enough(10_000); ran < least {
		t.Errorf("%d operations, want %d", ran, least)
	}
	for _, op := range []string{"supply", "repay", "borrow", "withdraw", "liquidate", "fail", "revert", "done", "claim", "price", "socialise", "cover", "flag", "insure", "dips"} {
		if accepted[op] == 0 {
			t.Errorf("no %s was ever accepted: the test proves nothing about it", op)
		}
	}
	if least := ran / 50; accepted["liquidate"] < least {
		t.Errorf("%d liquidations in %d operations, want %d", accepted["liquidate"], ran, least)
	}
	t.Log(ran, accepted, refused)
}

// enough is how much a random test must have met: rapid makes a fifth of its runs
// with -short.
func enough(n int) int {
	if testing.Short() {
		return n / 8
	}
	return n
}

// do runs a random operation, those of randomOp and the policy layer's own.
func (st *step) do(r *rapid.T, s *State) Code {
	switch st.op = rapid.SampledFrom([]string{"", "", "", "", "", "", "aim", "aim", "aim", "aim", "liquidate", "liquidate", "liquidate", "liquidate", "liquidate", "liquidate", "flag", "insure", "dips"}).Draw(r, "kind"); st.op {
	case "aim":
		return st.aim(r, s)
	case "liquidate":
		ill := []string{"a", "b", "c"}
		if below := s.View().unhealthy(); len(below) > 0 && rapid.IntRange(0, 4).Draw(r, "aimed") > 0 {
			ill = below
		}
		st.who, st.borrower = "whale", rapid.SampledFrom(ill).Draw(r, "borrower")
		st.coll = st.pool
		for _, at := range s.Accounts.at(st.borrower).Positions { // aim where there is something
			if !at.Debt.IsZero() {
				st.pool = at.Pool
			}
			if !at.Supply.IsZero() {
				st.coll = at.Pool
			}
		}
		if rapid.IntRange(0, 3).Draw(r, "all") > 0 {
			st.amount = fixed.Max
		}
		var code Code
		st.l, code = s.liquidate(st.who, st.borrower, st.pool, st.coll, st.amount)
		return code
	case "flag":
		on := rapid.IntRange(0, 3).Draw(r, "on") == 0
		flag := map[string]poolChange{"paused": {Paused: &on}, "frozen": {Frozen: &on}}
		off := !on
		flag["borrow"] = poolChange{BorrowEnabled: &off}
		return s.setPool(st.pool, flag[rapid.SampledFrom([]string{"paused", "frozen", "borrow"}).Draw(r, "flag")])
	case "insure":
		x := &execution{s: s}
		x.sweepInsurance()
		return OK
	case "dips":
		x := &execution{s: s}
		x.noteDips()
		return OK
	}
	var code Code
	if st.op, code = randomOp(r, s, st.who, st.pool, st.amount); st.op == "liquidate" {
		st.op = "" // one of its own draws; those of above are looked at closely
		return Healthy
	} else if st.op == "cover" {
		st.who = "whale"
	}
	return code
}

// aim brings a borrower just below HF 1: it supplies for him, borrows all he may,
// or lets the prices of his collateral fall so far.
func (st *step) aim(r *rapid.T, s *State) Code {
	st.who = rapid.SampledFrom([]string{"a", "b", "c"}).Draw(r, "borrower")
	var holds, owes []string
	for _, at := range s.Accounts.at(st.who).Positions {
		if !at.Supply.IsZero() {
			holds = append(holds, at.Pool)
		}
		if !at.Debt.IsZero() {
			owes = append(owes, at.Pool)
		}
	}
	pool := rapid.SampledFrom([]string{"btc", "eth", "usdt.eth"}).Draw(r, "aim")
	switch {
	case len(holds) == 0:
		st.op, st.pool = "supply", pool
		_, code := s.supply(st.who, pool, n(map[string]string{"btc": "100000000", "eth": "20000000000000000000", "usdt.eth": "50000000000"}[pool]))
		if code == OK && pool == "btc" && rapid.Bool().Draw(r, "unfinal") { // a part of it is no collateral yet
			tip := s.Tips.at("btc").Height
			part := must(fixed.MulDivFloor(s.supplyShares(st.who, pool), fixed.New(1), fixed.New(3)))
			s.Accounts.put(st.who, s.addUnfinal(s.Accounts.at(st.who), Inflow{Asset: "btc", Chain: "btc", Height: tip}, part))
		}
		return code
	case len(owes) == 0:
		st.op, st.pool = "borrow", pool
		return borrows(st.who, pool, s.MaxBorrow(st.who, pool).String())(s)
	}
	st.op = "price"
	h, code := s.weighAccount(s.Accounts.at(st.who), asClosed)
	if code != OK || h.HF == nil || h.HF.IsZero() {
		for asset, at := range map[string]string{"btc": "5000000000000", "eth": "300000000000", "usdt.eth": "100000000"} {
			price(s, asset, at)
		}
		return OK
	}
	target := n(rapid.SampledFrom([]string{"999999999999000000", "999000000000000000", "990000000000000000", "960000000000000000", "950000000000000001", "940000000000000000", "800000000000000000"}).Draw(r, "HF"))
	spread := fixed.New(rapid.SampledFrom([]uint64{10_000, 10_000, 10_010}).Draw(r, "spread"))
	for _, id := range holds {
		p := s.Prices.at(id)
		var c fixed.Calc
		p.Low = c.MulDivFloor(p.Low, target, *h.HF)
		p.High = c.MulDivCeil(p.Low, spread, fixed.Bps)
		if s.Params.OnePrice {
			p.High = p.Low
		}
		if c.Err() != nil || p.Low.IsZero() {
			return Arith
		}
		s.Prices.put(id, p)
	}
	if s.Params.RepayGraceSec > 0 && rapid.Bool().Draw(r, "a repayment on its way") {
		debt, _ := s.FullRepay(st.who, owes[0], 0)
		if part, err := fixed.MulDivFloor(debt, fixed.New(1), fixed.New(3)); err == nil {
			s.Seen.put(seenKey(st.who, "x"), SeenRepay{Asset: owes[0], Amount: part, Until: s.Millis + rapid.SampledFrom([]uint64{1, 3_600_000}).Draw(r, "until")})
		}
	}
	x := &execution{s: s}
	x.noteDips()
	return OK
}

// law says which invariant of spec lending §14 the step broke. before is synced
// to the time of after.
func (st *step) law(before, after *State) error {
	if err := monotone(before, after, st.op, st.who); err != nil {
		return err
	}
	for id, q := range after.Pools.all() {
		p := before.Pools.at(id)
		minted, lent := p.SupplyShares.Less(q.SupplyShares), p.DebtShares.Less(q.DebtShares)
		total := must(fixed.MulDivFloor(must(fixed.Add(q.SupplyShares, q.TreasuryShares)), q.SupplyIndex, fixed.Ray))
		owed := must(fixed.MulDivCeil(q.DebtShares, q.BorrowIndex, fixed.Ray))
		switch {
		case p.Frozen && minted && st.op != "fail" && st.op != "revert" && st.op != "liquidate":
			return fmt.Errorf("I26: new SupplyShares in the frozen pool %s", id)
		case (p.Frozen || p.Paused) && lent:
			return fmt.Errorf("I26: new debt in %s", id)
		case st.op == "supply" && minted && !q.Param.SupplyCap.IsZero() && q.Param.SupplyCap.Less(total):
			return fmt.Errorf("I25: supply of %s above its cap", id)
		case st.op == "borrow" && lent && !q.Param.BorrowCap.IsZero() && q.Param.BorrowCap.Less(owed):
			return fmt.Errorf("I25: debt of %s above its cap", id)
		}
	}
	for id, a := range after.Accounts.all() { // I13, I14
		touched := id == st.who || id == st.borrower || st.op == "insure" && id == "whale"
		for _, at := range a.Positions {
			b := before.Accounts.at(id).position(at.Pool)
			if !touched && st.op != "fail" && st.op != "revert" && at != b {
				return fmt.Errorf("I13: claims of %s in %s changed", id, at.Pool)
			}
			if b.Debt.Less(at.Debt) && (st.op != "borrow" || id != st.who) {
				return fmt.Errorf("I14: debt of %s in %s rose", id, at.Pool)
			}
		}
	}
	switch st.op {
	case "borrow", "withdraw": // I27
		if a := after.Accounts.at(st.who); a.indebted() && after.fresh(a, after.Params.PriceMaxAge) != OK {
			return fmt.Errorf("I27: accepted at a stale price")
		}
	case "liquidate":
		return st.seizureLaw(before, after)
	case "dips":
		for id, a := range after.Accounts.all() {
			h, code := after.weighAccount(a, asClosed)
			if below := code == OK && !h.Healthy(); below != after.Dips.has(id) {
				return fmt.Errorf("dips: %s below 1: %v, listed: %v", id, below, after.Dips.has(id))
			}
		}
	}
	return nil
}

// seizureLaw is I15 to I21 and I27.
func (st *step) seizureLaw(before, after *State) error {
	b, a := before.Accounts.at(st.borrower), after.Accounts.at(st.borrower)
	h, code := before.weighAccount(b, asClosed)
	if code != OK || h.Healthy() || before.fresh(b, before.Params.LiquidationAge) != OK {
		return fmt.Errorf("I15: HF %v, %s", h.HF, code)
	}
	if st.who == st.borrower {
		return fmt.Errorf("I21")
	}
	coll, debt := st.l.legs[st.l.coll], st.l.legs[st.l.debt]
	if st.l.MaxDebt.Less(st.l.Repaid) || debt.Debt.Less(st.l.Repaid) || coll.Collateral.Less(st.l.Seized) {
		return fmt.Errorf("I16: repaid %s of %s, seized %s of %s", st.l.Repaid, st.l.MaxDebt, st.l.Seized, coll.Collateral)
	}
	var c fixed.Calc
	left, rest := c.Int(debt.debtValue(c.Sub(debt.Debt, st.l.Repaid))), c.Int(coll.collValue(c.Sub(coll.Collateral, st.l.Seized)))
	cleared := st.l.Repaid == debt.Debt || st.l.Seized == coll.Collateral
	if !cleared && (left.Less(minLeftover) || rest.Less(minLeftover)) {
		return fmt.Errorf("I17: leftovers %s and %s", left, rest)
	}
	if covered := before.onTheWay(st.borrower, st.pool); h.HF != nil && closeFactorHF.Less(*h.HF) && !c.Int(debt.debtValue(covered.Min(debt.Debt))).Less(minLeftover) &&
		c.Sub(debt.Debt, st.l.Repaid).Less(covered.Min(debt.Debt)) {
		return fmt.Errorf("repay grace: repaid %s of %s, %s of it is on its way", st.l.Repaid, debt.Debt, covered)
	}
	after18, code := after.weighAccount(a, asClosed)
	big := fixed.New(10_000) // base units, and units of value: 10⁴ wei are worth none
	repaidWorth := c.Int(debt.debtValue(st.l.Repaid))
	if code == OK && after18.HF != nil && after18.HF.Less(*h.HF) && !st.l.Repaid.Less(big) && !st.l.Seized.Less(big) && !repaidWorth.Less(big) &&
		!h.below(fixed.New(coll.LT*st.l.rules.Bonus)) {
		return fmt.Errorf("I18: HF from %s to %s by %s for %s, debt worth %s", h.HF, after18.HF, st.l.Seized, st.l.Repaid, h.DebtValue)
	}
	if before.Params.NotClosing && h.below(fixed.New(coll.LT*st.l.rules.Bonus)) && !cleared {
		return fmt.Errorf("I18: no leg was cleared")
	}
	// Exact; but where all collateral is seized, the formula of §8.2 rounds its worth
	// down to a unit of the debt before it rounds the repayment up.
	repaid := st.l.Repaid
	if st.l.Seized == coll.Collateral {
		repaid = c.Add(repaid, fixed.New(1))
	}
	worth := fixed.Product(c.Int(coll.collValue(st.l.Seized)), fixed.Bps)
	paid := fixed.Product(c.Int(debt.debtValue(repaid)), fixed.New(st.l.rules.Bonus))
	part := c.Sub(st.l.Seized, c.MulDivFloor(st.l.Seized, fixed.Bps, fixed.New(st.l.rules.Bonus)))
	if c.Err() != nil || paid.Less(worth) || part.Less(st.l.Fee) {
		return fmt.Errorf("I19: seized %s for %s, fee %s of %s: %v", worth, paid, st.l.Fee, part, c.Err())
	}
	if st.coll != st.pool { // claims conserved, where the pool's own are not burnt for the debt too
		gained := c.Sub(after.supplyShares(st.who, st.coll), before.supplyShares(st.who, st.coll))
		lost := c.Sub(before.supplyShares(st.borrower, st.coll), after.supplyShares(st.borrower, st.coll))
		if gained != st.l.SharesToActor || lost != st.l.SharesSeized {
			return fmt.Errorf("I19: borrower lost %s, liquidator gained %s of %s", lost, gained, st.l.SharesSeized)
		}
	}
	for id, q := range after.Pools.all() {
		if p := before.Pools.at(id); p.Deficit.Less(q.Deficit) {
			if a.indebted() {
				return fmt.Errorf("I20: a deficit of %s while debt is left", id)
			}
		}
	}
	r, code := st.l.record(before, after, st.who, st.borrower, st.pool, st.coll, st.amount)
	if code != OK {
		return nil // beyond what can be weighed
	}
	_, err := ExplainLiquidation(must(ParseLiquidation(r.Note())))
	return err
}

// "deposit then max withdraw ≤ deposit; borrow then full repay ≥ borrow;
// splitting an operation into k parts is never better" (I12), at indices of every
// size.
func TestRoundingFavoursThePool(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		s := lendingState(t)
		for _, id := range []string{"btc", "usdt.eth"} {
			p := s.Pools.at(id)
			p.SupplyIndex = n(rapid.SampledFrom([]string{"1000000000000000000000000001", "1712345678901234567890123457", "1267650600228229401496703205376"}).Draw(r, "si"))
			p.BorrowIndex = n(rapid.SampledFrom([]string{"1000000000000000000000000001", "1912345678901234567890123457", "1267650600228229401496703205376"}).Draw(r, "bi"))
			p.Param.MinSupply, p.Param.MinBorrow, p.Param.MinWithdraw = fixed.New(1), fixed.New(1), fixed.New(1)
			s.Pools.put(id, p)
		}
		supplied(t, s, "lender", "usdt.eth", "100000000000")
		supplied(t, s, "alice", "btc", "100000000")
		units := rapid.Uint64Range(1, 1_000_000).Draw(r, "units")
		first := rapid.Uint64Range(0, units).Draw(r, "first")
		in := func(s *State, parts ...uint64) fixed.Int {
			for _, u := range parts {
				if u > 0 {
					s.supply("dave", "btc", fixed.New(u))
				}
			}
			gross, code := s.withdraw("dave", "btc", fixed.Int{}, true)
			if code != OK && code != InsufficientBalance {
				r.Fatal(code)
			}
			return gross
		}
		whole, split := in(s.View(), units), in(s.View(), first, units-first)
		if fixed.New(units).Less(whole) || whole.Less(split) {
			r.Fatalf("deposit %d, whole %s, in parts %s", units, whole, split)
		}
		out := func(s *State, parts ...uint64) fixed.Int {
			for _, u := range parts {
				if u > 0 {
					if _, code := s.borrow("alice", "usdt.eth", fixed.New(u)); code != OK {
						r.Fatal(code)
					}
				}
			}
			debt, _ := s.FullRepay("alice", "usdt.eth", 0)
			return debt
		}
		whole, split = out(s.View(), units), out(s.View(), first, units-first)
		if whole.Less(fixed.New(units)) || split.Less(whole) {
			r.Fatalf("borrowed %d, owes %s, in parts %s", units, whole, split)
		}
	})
}

// "sync(a) then sync(b) ≥ sync(a+b), by less than x²/2" (I24), at held rates.
func TestSyncInParts(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		p := Pool{Param: PoolParam{RF: 1000}, SupplyShares: n("1000000000000"), DebtShares: n("900000000000"), Cash: n("200000000000"), SupplyIndex: fixed.Ray, BorrowIndex: fixed.Ray}
		p.BorrowRate = must(fixed.MulDivFloor(fixed.Ray, fixed.New(rapid.Uint64Range(0, 30_000).Draw(r, "bps")), fixed.Bps))
		p.SupplyRate = must(fixed.MulDivFloor(p.BorrowRate, fixed.New(1), fixed.New(2)))
		a, b := rapid.Uint64Range(0, 86_400).Draw(r, "a"), rapid.Uint64Range(0, 86_400).Draw(r, "b")
		parts, once := p.accrue(a).accrue(a+b), p.accrue(a+b)
		x := must(fixed.MulDivCeil(p.BorrowRate, fixed.New(a+b), year))
		gap := must(fixed.Add(must(fixed.MulDivCeil(x, x, must(fixed.Mul(fixed.Ray, fixed.New(2))))), fixed.New(3)))
		for name, v := range map[string][2]fixed.Int{"BorrowIndex": {parts.BorrowIndex, once.BorrowIndex}, "SupplyIndex": {parts.SupplyIndex, once.SupplyIndex}} {
			more, err := fixed.Sub(must(fixed.Add(v[0], fixed.New(3))), v[1]) // a floor or ceil on each way
			if err != nil || gap.Less(must(fixed.Sub(more, fixed.New(3).Min(more)))) {
				r.Fatalf("%s: in parts %s, at once %s, x %s", name, v[0], v[1], x)
			}
		}
	})
}
