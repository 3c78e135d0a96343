package ledger

import "testing"

// A deposit whose block was reorganised away after it counted makes its sweep
// revert. It must hold up no other deposit, burn gas twice at most, and stay
// visible: it may be a token that refuses for a while.
func TestPhantomDepositIsHeld(t *testing.T) {
	c := running(t)
	id := c.open(ethWallet(5))
	phantom := c.inflowTo(id, "usdt.eth", PurposeSupply, "500000000")
	c.all(KindInflow, phantom)
	real := c.inflowTo(id, "usdt.eth", PurposeSupply, "700000000")
	c.all(KindInflow, real)

	reverted, sweeps := 0, 0
	for range 40 {
		c.tick(5_000)
		for _, b := range c.payments() {
			o := c.s.Outflows.at(b.Outflows[0])
			if o.Kind != OutflowSweep {
				c.pay(b)
				continue
			}
			sweeps++
			if len(o.Carries) == 1 && o.Carries[0] == real.ID {
				c.pay(b)
				continue
			}
			reverted++ // it moves more than is there
			c.all(KindSpent, c.spentFact(b))
			c.mine(b.Chain, 12)
			c.all(KindFinal, c.finalFact(b, OutcomeReverted))
		}
	}
	if got := c.s.Inflows.at(real.ID).State; got != InflowCredited || c.s.supplyShares(id, "usdt.eth") != n("700000000") {
		t.Errorf("the real deposit is in state %d", got)
	}
	if got := c.s.Inflows.at(phantom.ID); got.State != InflowHeld || got.Reverts != 2 {
		t.Errorf("the phantom: %+v", got)
	}
	if reverted != 2 || sweeps != 3 || c.s.Waiting.len() != 0 {
		t.Errorf("%d sweeps, %d reverted, %d waiting", sweeps, reverted, c.s.Waiting.len())
	}
	if err := c.s.Check(); err != nil {
		t.Error(err)
	}
}
