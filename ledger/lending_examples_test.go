package ledger

import (
	"testing"

	"github.com/coffer-network/coffer/ledger/fixed"
)

// The worked examples of spec lending §17 that TestWorkedExample does not walk
// through; subaccounts and routes stand among the vectors.
func TestWorkedExamples(t *testing.T) {
	ray := func(percent string) fixed.Int { // of a decimal with four places
		return must(fixed.Mul(n(percent), n("100000000000000000000000")))
	}
	near := func(name string, got, want fixed.Int) {
		t.Helper()
		gap := must(fixed.Sub(got.Max(want), got.Min(want)))
		if !gap.Less(n("100000000000000000000000")) { // shown with four decimals
			t.Errorf("%s: %s, want about %s", name, got, want)
		}
	}
	var c fixed.Calc
	shares := c.MulDivCeil(n("1000000000"), fixed.Ray, n("1100000000000000000000000000"))
	if debt := c.MulDivCeil(shares, n("1150000000000000000000000000"), fixed.Ray); shares != n("909090910") || debt != n("1045454547") {
		t.Errorf("1000 USDT at 1.10: %s DebtShares, at 1.15 %s", shares, debt)
	}

	usdc := Pool{Param: PoolParam{Base: 200, Opt: 9200, S1: 700, S2: 30_000, RF: 1000}, SupplyIndex: fixed.Ray, BorrowIndex: fixed.Ray}
	for u, want := range map[uint64]string{50: "580", 92: "900", 98: "23400"} {
		p := usdc
		p.Cash, p.DebtShares = fixed.New((100-u)*1_000_000), fixed.New(u*1_000_000)
		borrow, _, err := p.rates()
		if err != nil {
			t.Fatal(err)
		}
		if u == 50 {
			near("u = 50 %", borrow, must(fixed.MulDivFloor(fixed.Ray, n("58043"), n("1000000"))))
		} else if borrow != ray(want) {
			t.Errorf("u = %d %%: %s, want %s", u, borrow, ray(want))
		}
	}

	year := Pool{
		Param: PoolParam{Opt: 8000, RF: 1000}, Cash: n("50000000000"), DebtShares: n("50000000000"), SupplyShares: n("100000000000"),
		SupplyIndex: fixed.Ray, BorrowIndex: fixed.Ray, BorrowRate: must(fixed.MulDivFloor(fixed.Ray, n("5125"), n("100000"))),
	}
	year.SupplyRate = must(fixed.MulDivFloor(year.BorrowRate, n("45"), n("100"))) // half lent, less a tenth
	year = year.accrue(yearSeconds)
	near("BorrowIndex after a year", year.BorrowIndex, must(fixed.MulDivFloor(fixed.Ray, n("105259"), n("100000"))))
	near("SupplyIndex after a year", year.SupplyIndex, must(fixed.MulDivFloor(fixed.Ray, n("102306"), n("100000"))))

	legs := []leg{
		{Pool: "btc", Decimals: 8, Low: n("5000000000000"), High: n("5000000000000"), Collateral: n("100000000"), LT: 8000},
		{Pool: "usdt.eth", Decimals: 6, Low: n("100000000"), High: n("100000000"), Debt: n("41000000000")},
	}
	for fee, want := range map[uint64]string{0: "0", 200: "82000"} {
		z, code := seize(legs, 0, 1, fixed.Max, seizeRules{Bonus: 11_000, Fee: fee})
		if code != OK || z.Repaid != n("20500000000") || z.Seized != n("45100000") || z.Fee != n(want) || z.HF.String()[:4] != "9756" {
			t.Errorf("fee %d: %+v %s", fee, z, code)
		}
		after := with(with(legs, 0, func(l *leg) { l.Collateral = must(fixed.Sub(l.Collateral, z.Seized)) }), 1, func(l *leg) { l.Debt = must(fixed.Sub(l.Debt, z.Repaid)) })
		if h, err := weigh(after); err != nil || h.HF.String()[:5] != "10712" {
			t.Errorf("HF after: %v %v", h.HF, err)
		}
	}
}
