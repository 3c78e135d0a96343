package ledger

import (
	"encoding/json"
	"testing"

	"github.com/coffer-network/coffer/ledger/address"
)

// A refused Intent leaves an effect that says why, with the numbers of the state
// it was judged on; one that the prelude refuses leaves none.
func TestRefusedEvent(t *testing.T) {
	c, lender, borrower := dipped(t, "4700000000000")
	for name, tc := range map[string]struct {
		by           wallet
		cmd          address.Command
		code         Code
		limit, found string
	}{
		"health":    {borrower, c.borrowUSDT("5000000000"), HealthFactor, "1000000000000000000", "895238075969161412"},
		"liquidity": {borrower, c.borrowUSDT("500000000000"), NoLiquidity, c.s.Pools.at("usdt.eth").Cash.String(), "500000000000"},
		"minimum":   {borrower, c.borrowUSDT("1"), BelowMin, "1000000", "1"},
		"healthy":   {lender, c.liquidate(borrower, "10000000000", "", "0"), Healthy, "1000000000000000000", "1016216191371"},
		"fee":       {lender, c.payout(address.ActionWithdraw, "usdt.eth", "10000000000", payeeETH, "1"), FeeTooHigh, "1", ""},
		"same":      {lender, c.borrowUSDT("5000000000"), SameAsset, "0", c.s.suppliedIn(accountOf(c, lender), "usdt.eth").String()},
		"fee eats":  {lender, c.payout(address.ActionWithdraw, "usdt.eth", "10000000000", payeeETH, "10000000000"), BelowMin, "10000000001", "10000000000"},
		"no number": {borrower, c.liquidate(borrower, "10000000000", "", "0"), SelfLiquidation, "", ""},
	} {
		w := *c
		w.s = c.s.View()
		if code := w.ask(tc.by, tc.cmd); code != tc.code {
			t.Fatalf("%s: %s, want %s", name, code, tc.code)
		}
		e, ok := w.event(EventRefused)
		var r RefusalRecord
		if !ok || json.Unmarshal([]byte(e.Note), &r) != nil {
			t.Fatalf("%s: events %+v", name, w.last.Events)
		}
		if e.Account != accountOf(c, tc.by) || r.Code != tc.code || r.Limit != tc.limit || tc.found != "" && r.Found[:min(8, len(r.Found))] != tc.found[:min(8, len(tc.found))] {
			t.Errorf("%s: %+v", name, r)
		}
	}
}
