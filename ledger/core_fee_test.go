package ledger

import (
	"testing"

	"github.com/coffer-network/coffer/ledger/address"
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

// A bump that costs more than cash can bear, with a treasury that covers it: the
// coins that are gone are missing until cash comes, and a snapshot of that moment
// can be read.
func TestFeeLossCoveredByTreasury(t *testing.T) {
	c, w := tiers(t, 4)
	pool, _ := c.s.Vault(Bitcoin, address.RolePool)
	x := &execution{s: c.s}
	gain := fixed.New(50_000) // what clients paid more than chains took
	giveCoin(x.s, 50_000)
	x.bookFee("btc", gain, fixed.Int{})
	held := c.small(w, "299990000", 1, "10000")
	p := x.s.Pools.at("btc")
	take := must(fixed.Add(p.Cash, fixed.New(1_000))) // a little more than there is
	n, _ := take.Uint64()
	for at, k := range x.s.Coins.all() { // a coin pays it
		if k.Sats > n && k.State == CoinAvailable && k.Address != pool.Address {
			k.Sats -= n
			x.s.Coins.put(at, k)
			break
		}
	}
	x.bookFee("btc", fixed.Int{}, take)
	x.s.refreshRates()
	c.s.Accounts.fold()
	p = c.s.Pools.at("btc")
	if p.Missing != fixed.New(1_000) {
		t.Errorf("missing %s", p.Missing)
	}
	c.s = restored(t, c.s)
	c.backed()
	if code := c.ask(w, address.Command{Action: address.ActionCancelOutflow, Outflow: held}); code != OK {
		t.Fatal(code)
	}
	if p := c.s.Pools.at("btc"); !p.Missing.IsZero() {
		t.Errorf("with cash again, missing %s", p.Missing)
	}
	c.backed()
}

// A round of boosted payouts must take some time: nothing else may be voted.
func TestBoostSecondsBounds(t *testing.T) {
	for sec, ok := range map[uint64]bool{0: false, 1: true, maxPeriod: true, maxPeriod + 1: false} {
		p := DefaultParams()
		p.BoostSeconds = sec
		if err := p.Validate(); (err == nil) != ok {
			t.Errorf("%d s: %v", sec, err)
		}
	}
}
