package ledger

import (
	"testing"

	"github.com/coffer-network/coffer/ledger/fixed"
)

// A chain fee beyond the client's, found when the pool's cash is reserved for
// others: the books stay sound, the loss is seen, and nothing halts.
func TestFeeLossBeyondCash(t *testing.T) {
	c := running(t)
	x := &execution{s: c.s.View()}
	p := x.s.Pools.at("btc")
	p.Cash, p.Credited, p.SupplyShares, p.TreasuryShares = fixed.New(100), fixed.New(100), fixed.New(60), fixed.New(40)
	x.s.Pools.put("btc", p)
	x.bookFee("btc", fixed.Int{}, fixed.New(300))
	p = x.s.Pools.at("btc")
	if !p.Cash.IsZero() || !p.TreasuryShares.IsZero() || p.Deficit != fixed.New(260) {
		t.Errorf("cash %s, treasury %s, deficit %s", p.Cash, p.TreasuryShares, p.Deficit)
	}
	if err := checkBook(&p); err != nil {
		t.Error(err)
	}
}
