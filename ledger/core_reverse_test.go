package ledger

import (
	"testing"

	"github.com/coffer-network/coffer/ledger/fixed"
)

// deposited is a cluster with an account that was credited 0.5 BTC beside its 1
// BTC, by a block that may still go.
func deposited(t testing.TB, purpose Purpose) (c *cluster, w wallet, f InflowFact) {
	t.Helper()
	c, _, w = lent(t)
	f = c.inflowTo(accountOf(c, w), "btc", purpose, "50000000")
	c.all(KindInflow, f)
	if c.s.Inflows.at(f.ID).State != InflowCredited || c.s.Recent.len() == 0 {
		t.Fatalf("inflow %+v", c.s.Inflows.at(f.ID))
	}
	return c, w, f
}

func (c *cluster) undo(f InflowFact) {
	c.t.Helper()
	c.all(KindReversed, ReversedFact{ID: f.ID, Block: f.Block})
}

// Plants a credited deposit that is reorganised away and spent twice: it is taken
// back from the supply, in the open, and custody holds what it owes. Two members
// are not enough; a block that it was not counted from is not either. Seen
// failing with the coin left in custody.
func TestFault12_CreditedDepositIsUndone(t *testing.T) {
	c, w, f := deposited(t, PurposeSupply)
	id := accountOf(c, w)
	had := c.s.supplyShares(id, "btc")
	c.some(2, KindReversed, ReversedFact{ID: f.ID, Block: f.Block})
	c.all(KindReversed, ReversedFact{ID: f.ID, Block: "another"})
	if c.s.supplyShares(id, "btc") != had || !c.s.Coins.has(f.ID) {
		t.Fatal("taken back without a quorum")
	}
	c.undo(f)
	if got := c.s.supplyShares(id, "btc"); got != n("100000000") || c.s.Coins.has(f.ID) || c.s.Counted(f.ID) || c.s.Inflows.at(f.ID).State != InflowUndone {
		t.Fatalf("shares %s, coin %v", got, c.s.Coins.at(f.ID))
	}
	if p := c.s.Pools.at("btc"); !p.Deficit.IsZero() {
		t.Errorf("a loss of %s", p.Deficit)
	}
	said := false
	for _, e := range c.emitted {
		said = said || e.Name == "reversed" && e.Account == id && e.Amount == "50000000"
	}
	if !said {
		t.Error("nobody was told")
	}
	c.backed()
	// Mined again in another block: the same outpoint, credited once (13).
	again := f
	again.Block, again.Height = "block-again", c.s.Tips.at(Bitcoin).Height
	c.all(KindInflow, again)
	if got := c.s.supplyShares(id, "btc"); got != n("150000000") {
		t.Errorf("shares after it came again: %s", got)
	}
	for i := range 4 {
		if code := c.say(i, KindInflow, again); code != DuplicateInflow {
			t.Errorf("a third time: %s", code)
		}
	}
	c.undo(f) // the old block says nothing about the new one
	if !c.s.Coins.has(f.ID) {
		t.Error("taken back by its old block")
	}
	c.backed()
}

// What the account spent meanwhile it owes: its debt holds up its payouts like any
// other. A repayment that vanishes is treated alike.
func TestUndoneDepositBecomesDebt(t *testing.T) {
	for _, purpose := range []Purpose{PurposeSupply, PurposeRepay} {
		c, w, f := deposited(t, purpose)
		id := accountOf(c, w)
		c.mine(Bitcoin, 2)
		o := c.withdrawBTC(w, "140000000") // of 150,000,000
		c.tick(1000)
		b := c.payment()
		if len(b.Newest().Bitcoin.Inputs) != 2 || b.Anchor == f.ID {
			t.Fatalf("batch %+v", b.Newest().Bitcoin)
		}
		c.undo(f)
		at := c.s.Accounts.at(id).position("btc")
		p := c.s.Pools.at("btc")
		if !at.Supply.IsZero() || at.Debt != n("40000000") || p.Missing != n("40000000") || !p.Cash.IsZero() || !p.Deficit.IsZero() {
			t.Fatalf("position %+v, pool %+v", at, p)
		}
		c.backed()
		spends, pays := reads(c, b)
		if c.s.VerifySpend(b.ID, 0, spends, pays) == nil {
			t.Error("a transaction of an undone coin may be signed")
		}
		// His payout is cancelled on its anchor and given back, and pays his debt.
		c.mine(Bitcoin, firstBumpBlocks)
		c.refresh()
		c.tick(1000)
		now, a := c.newest(b)
		if !a.Cancels() || len(a.Bitcoin.Inputs) != 1 {
			t.Fatalf("attempt %+v", a.Bitcoin)
		}
		c.all(KindFinal, c.finalFact(now, OutcomeSelf))
		if got := c.s.Outflows.at(o.ID).State; got != Refunded {
			t.Fatalf("his payout is %s", got)
		}
		if p := c.s.Pools.at("btc"); !p.Missing.IsZero() || !p.Deficit.IsZero() {
			t.Errorf("pool %+v", p)
		}
		c.backed()
	}
}

// In suspense it is taken from there, and what was claimed meanwhile is owed.
func TestUndoneSuspense(t *testing.T) {
	c, _, w := lent(t)
	id := accountOf(c, w)
	f := c.inflowTo(id, "btc", PurposeSupply, "3000") // below the pool's minimum
	c.all(KindInflow, f)
	if c.s.Suspense.at(id+"/btc").Amount != n("3000") {
		t.Fatalf("suspense %+v", c.s.Suspense.at(id+"/btc"))
	}
	had := c.s.supplyShares(id, "btc")
	c.undo(f)
	if c.s.Suspense.has(id+"/btc") || c.s.supplyShares(id, "btc") != had {
		t.Errorf("suspense %+v, shares %s", c.s.Suspense.at(id+"/btc"), c.s.supplyShares(id, "btc"))
	}
	c.backed()
}

// Deep enough, nothing is remembered to be undone.
func TestRecentIsForgotten(t *testing.T) {
	c, _, f := deposited(t, PurposeSupply)
	c.mine(Bitcoin, reversalWindow+20)
	c.tick(20_000)
	if got := c.s.RecentInflows(Bitcoin); len(got) != 0 {
		t.Errorf("%+v", got)
	}
	c.undo(f)
	if !c.s.Coins.has(f.ID) {
		t.Error("undone at a depth that nothing may undo")
	}
}

// Plants a reorganisation beyond finality: a quorum's word stops every signature
// and holds what is mined; nothing is taken back by itself (spec: outflows §3.8).
func TestFault11_DeepFork(t *testing.T) {
	c, _, o, b := planned(t)
	c.all(KindSpent, c.spentFact(b))
	c.some(2, KindDeepFork, DeepForkFact{Chain: Bitcoin})
	if c.s.OutflowsHalt != "" {
		t.Fatal("two members stopped everything")
	}
	c.all(KindDeepFork, DeepForkFact{Chain: Bitcoin})
	if got := c.s.Outflows.at(o.ID).State; c.s.OutflowsHalt == "" || got != Hold {
		t.Errorf("halt %q, outflow %s", c.s.OutflowsHalt, got)
	}
	spends, pays := reads(c, b)
	if c.s.VerifySpend(b.ID, 0, spends, pays) == nil {
		t.Error("it may be signed")
	}
}

// Plants a thief with the key: signing stops, and the loss is in the books (spec:
// outflows §8.1; §10, 28). Seen failing with the coin left in custody.
func TestFault28_UnknownSpendOfOurCoin(t *testing.T) {
	c, w, _ := deposited(t, PurposeSupply)
	_ = w
	var coin Coin
	for _, k := range c.s.Coins.all() {
		if k.Sats == 50_000_000 {
			coin = k
		}
	}
	f := ForeignFact{Chain: Bitcoin, Resource: coin.Outpoint, TxID: "t", Height: c.s.Tips.at(Bitcoin).Height, Block: "b"}
	c.some(2, KindForeign, f)
	if c.s.OutflowsHalt != "" {
		t.Fatal("two members stopped everything")
	}
	was := c.s.Pools.at("btc")
	c.all(KindForeign, f)
	p := c.s.Pools.at("btc")
	if c.s.OutflowsHalt == "" || c.s.Coins.has(coin.Outpoint) || p.Deficit.IsZero() || must(fixed.Sub(p.FeeLosses, was.FeeLosses)) != n("50000000") {
		t.Errorf("halt %q, deficit %s", c.s.OutflowsHalt, p.Deficit)
	}
	c.backed()
}

// Plants a deposit that is undone after a payout was built on it, and a branch that
// brings back both: the payout is final before the deposit counts again. It pays
// once, the deposit is credited once, and its coin, which is spent, is nobody's.
func TestUndoneDepositComesBackSpent(t *testing.T) {
	c, w, f := deposited(t, PurposeSupply)
	id := accountOf(c, w)
	c.mine(Bitcoin, 2)
	o := c.withdrawBTC(w, "140000000")
	c.tick(1000)
	b := c.payment()
	c.undo(f)
	if c.s.Coins.has(f.ID) {
		t.Fatal("not undone")
	}
	c.all(KindFinal, c.finalFact(b, OutcomePaid))
	if got := c.s.Outflows.at(o.ID).State; got != Paid {
		t.Fatalf("the payout is %s", got)
	}
	if err := c.s.Check(); err != nil {
		t.Fatal(err)
	}
	for i := range 4 { // its spend is known: nobody stole it
		c.say(i, KindForeign, ForeignFact{Chain: Bitcoin, Resource: f.ID, TxID: "t", Height: 1, Block: "b"})
	}
	if c.s.OutflowsHalt != "" {
		t.Fatalf("halted: %s", c.s.OutflowsHalt)
	}
	again := f
	again.Block, again.Height = "block-again", c.s.Tips.at(Bitcoin).Height
	c.all(KindInflow, again)
	if c.s.Coins.has(f.ID) {
		t.Errorf("a spent coin is in custody: %+v", c.s.Coins.at(f.ID))
	}
	if a := c.s.Accounts.at(id).position("btc"); a.Supply.IsZero() && !a.Debt.IsZero() {
		t.Errorf("position %+v", a)
	}
	if p := c.s.Pools.at("btc"); !p.Missing.IsZero() || !p.Deficit.IsZero() {
		t.Errorf("pool %+v", p)
	}
	c.backed()
}
