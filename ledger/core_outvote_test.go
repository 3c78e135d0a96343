package ledger

import (
	"fmt"
	"testing"

	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/ledger/fixed"
)

func act(k ProposalKind, a OutflowAct) Proposal {
	return Proposal{Kind: k, Text: "because", Act: &a}
}

// agreed has Q members vote for an act and waits until it takes effect; it
// returns what became of it.
func (c *cluster) agreed(k ProposalKind, a OutflowAct) Decided {
	c.t.Helper()
	c.s.Params.LiftSeconds, c.s.Params.SocialiseSeconds = 5, 5
	p := act(k, a)
	c.carried(p)
	if k == ProposeBook {
		c.tick(6_000)
		for i := range 3 {
			if code := c.yes(i, p); code != OK {
				c.t.Fatalf("second vote: %s", code)
			}
		}
	}
	if c.s.Ballots.has(p.Hash().String()) {
		c.tick(6_000)
	}
	if c.s.Ballots.has(p.Hash().String()) {
		c.t.Fatalf("%+v is still open", a)
	}
	c.backed()
	return c.lastDecided()
}

// unhalt lifts a halt whose cause was looked at.
func (c *cluster) unhalt() {
	c.t.Helper()
	c.s.Params.LiftSeconds = 5
	c.carried(Proposal{Kind: ProposeLift, Text: "looked at", Flag: FlagHalt, Halt: c.s.OutflowsHalt})
	c.tick(6_000)
	if c.s.OutflowsHalt != "" {
		c.t.Fatalf("halted: %s", c.s.OutflowsHalt)
	}
}

// foreignHold is a payout whose anchor a final transaction of nobody's consumed.
func foreignHold(t *testing.T) (c *cluster, w wallet, o Outflow, b Batch) {
	c, w, o, b = planned(t)
	c.deposit(accountOf(c, w), "btc", PurposeSupply, "90000000")
	c.all(KindSpent, SpentFact{Batch: b.ID, Foreign: true, Height: c.s.Tips.at(Bitcoin).Height, Block: "block-2"})
	if c.s.Outflows.at(o.ID).State != Hold {
		t.Fatal("no HOLD")
	}
	return c, w, o, c.s.Batches.at(b.ID)
}

// A batch leaves HOLD by a vote that names its outcome, and the books hold after
// each (agreed compares every coin with what is owed). Paid: what the thief's
// transaction paid is not owed any more. Refund: the client has it back. Requeue:
// it is paid once, from another anchor. Planted: anchorGone without lose. Seen:
// "frozen by batch 13, which is done". Planted: paid without bookFee. Seen: "custody
// holds 90000000 sats and owes 50000000".
func TestLeaveHoldForeign(t *testing.T) {
	for _, how := range []string{VotePaid, VoteRefund, VoteRequeue} {
		t.Run(how, func(t *testing.T) {
			c, w, o, b := foreignHold(t)
			shares := c.s.supplyShares(accountOf(c, w), "btc")
			if d := c.agreed(ProposeLeaveHold, OutflowAct{Batch: b.ID, Outcome: how, TxID: "thief"}); d.How != DecidedDone {
				t.Fatalf("%+v", d)
			}
			got := c.s.Outflows.at(o.ID)
			if c.s.Coins.has(b.Anchor) || got.TxID != "thief" {
				t.Errorf("the anchor is in custody %v, outflow %+v", c.s.Coins.has(b.Anchor), got)
			}
			switch how {
			case VotePaid:
				if got.State != Paid || !c.s.Pools.at("btc").Reserved.IsZero() {
					t.Errorf("outflow %s, reserved %s", got.State, c.s.Pools.at("btc").Reserved)
				}
			case VoteRefund:
				if got.State != Refunded || !shares.Less(c.s.supplyShares(accountOf(c, w), "btc")) {
					t.Errorf("outflow %s", got.State)
				}
			case VoteRequeue:
				if got.State != Queued || got.Binding != 1 {
					t.Fatalf("outflow %s, binding %d", got.State, got.Binding)
				}
				c.unhalt()
				c.mine(Bitcoin, 12)
				c.feeRate(Bitcoin, 2_000, 0)
				c.tick(1_000)
				next := c.payment()
				if next.Anchor == b.Anchor || next.ID == b.ID {
					t.Fatal("under the same anchor")
				}
				c.pay(next)
				if got := c.s.Outflows.at(o.ID); got.State != Paid {
					t.Errorf("outflow %s", got.State)
				}
				c.backed()
			}
			if code := c.propose(0, act(ProposeLeaveHold, OutflowAct{Batch: b.ID, Outcome: how, TxID: "thief"})); code == OK {
				t.Error("left HOLD a second time")
			}
		})
	}
}

// What a cause does not allow is refused, whoever votes for it: nothing is given
// back or paid anew while the old transaction may still confirm. Each was seen
// accepted with its case removed from mayLeaveHold ("refund of fork: OK").
func TestLeaveHoldRefusals(t *testing.T) {
	holds := map[string]func(t *testing.T) (*cluster, Batch){
		"foreign": func(t *testing.T) (*cluster, Batch) { c, _, _, b := foreignHold(t); return c, b },
		"fork": func(t *testing.T) (*cluster, Batch) {
			c, _, _, b := planned(t)
			c.all(KindSpent, c.spentFact(b))
			c.all(KindDeepFork, DeepForkFact{Chain: Bitcoin})
			return c, b
		},
		"unclear": func(t *testing.T) (*cluster, Batch) {
			c, _, _, b := borrowed(t)
			c.some(3, KindFinal, c.finalFact(b, OutcomeUnclear))
			return c, b
		},
		"none": func(t *testing.T) (*cluster, Batch) { c, _, _, b := planned(t); return c, b },
	}
	for name, allowed := range map[string][]string{
		"foreign": {VotePaid, VoteRefund, VoteRequeue}, "fork": {VotePaid, VoteResume}, "unclear": {VotePaid, VoteRefund, VoteRequeue}, "none": nil,
	} {
		c, b := holds[name](t)
		for _, how := range []string{VotePaid, VoteRefund, VoteRequeue, VoteResume} {
			a := OutflowAct{Batch: b.ID, Outcome: how}
			if how != VoteResume {
				a.TxID = "tx"
			}
			if how == VotePaid && name == "fork" {
				a.Height = c.s.Tips.at(Bitcoin).Height
			}
			code := c.s.View().possible(act(ProposeLeaveHold, a))
			want := false
			for _, x := range allowed {
				want = want || x == how
			}
			if (code == OK) != want {
				t.Errorf("%s of %s: %s", how, name, code)
			}
		}
	}
	c, b := holds["fork"](t)
	for name, a := range map[string]OutflowAct{
		"a body that is none":   {Batch: b.ID, Outcome: VotePaid, TxID: "tx", Body: 7, Height: 1},
		"a block to come":       {Batch: b.ID, Outcome: VotePaid, TxID: "tx", Height: 1 << 30},
		"another batch":         {Batch: 999, Outcome: VoteResume},
		"an outflow of another": {Batch: b.ID, Outflow: 999, Outcome: VoteResume},
		"a fee on Bitcoin":      {Batch: b.ID, Outcome: VoteResume, Fee: fixed.New(1)},
	} {
		if code := c.s.View().possible(act(ProposeLeaveHold, a)); code == OK {
			t.Errorf("%s: possible", name)
		}
	}
	for name, p := range map[string]Proposal{
		"no act":           {Kind: ProposeCancel, Text: "x"},
		"no txid":          act(ProposeLeaveHold, OutflowAct{Batch: b.ID, Outcome: VoteRefund}),
		"no such outcome":  act(ProposeLeaveHold, OutflowAct{Batch: b.ID, Outcome: "gone", TxID: "x"}),
		"an amount":        act(ProposeCancel, OutflowAct{Batch: b.ID, Outcome: VoteRefund, Amount: fixed.New(1)}),
		"cancel to paid":   act(ProposeCancel, OutflowAct{Batch: b.ID, Outcome: VotePaid}),
		"nothing":          act(ProposeTopUp, OutflowAct{}),
		"an act of others": {Kind: ProposeResume, Text: "x", Act: &OutflowAct{Batch: 1}},
	} {
		if p.wellFormed() {
			t.Errorf("%s: well formed", name)
		}
	}
}

// A chain that forked beyond finality and healed: the batch goes on under its
// anchor and pays once; or members saw it final after all.
func TestLeaveHoldFork(t *testing.T) {
	for _, how := range []string{VoteResume, VotePaid} {
		c, _, o, b := planned(t)
		c.all(KindSpent, c.spentFact(b))
		c.all(KindDeepFork, DeepForkFact{Chain: Bitcoin})
		c.tick(86_500_000) // draws of a batch on HOLD are kept
		a := OutflowAct{Batch: b.ID, Outcome: how}
		if how == VotePaid {
			a.TxID, a.Height = c.finalFact(b, OutcomePaid).TxID, c.s.Tips.at(Bitcoin).Height
		}
		if d := c.agreed(ProposeLeaveHold, a); d.How != DecidedDone {
			t.Fatalf("%+v", d)
		}
		if how == VoteResume {
			if got := c.s.Outflows.at(o.ID).State; got != Mined {
				t.Fatalf("outflow %s", got)
			}
			c.unhalt()
			c.all(KindFinal, c.finalFact(b, OutcomePaid))
		}
		if got := c.s.Outflows.at(o.ID).State; got != Paid {
			t.Errorf("%s: outflow %s", how, got)
		}
		c.backed()
	}
}

// Success on Ethereum without the transfer's log: whatever members find, the book
// and the sender's float follow.
func TestLeaveHoldUnclear(t *testing.T) {
	for _, how := range []string{VotePaid, VoteRefund, VoteRequeue} {
		c, w, o, b := borrowed(t)
		c.some(3, KindFinal, c.finalFact(b, OutcomeUnclear))
		from := b.Newest().Ethereum.From
		was := c.s.Senders.at(from)
		debt := c.s.Accounts.at(accountOf(c, w)).position("usdt.eth").Debt
		if d := c.agreed(ProposeLeaveHold, OutflowAct{Batch: b.ID, Outcome: how, TxID: "tx", Fee: fixed.New(gweiCore)}); d.How != DecidedDone {
			t.Fatalf("%+v", d)
		}
		now := c.s.Senders.at(from)
		if now.Open != was.Open-1 || must(fixed.Sub(was.Float, now.Float)) != fixed.New(gweiCore) {
			t.Errorf("%s: sender %+v, was %+v", how, now, was)
		}
		want := map[string]OutflowState{VotePaid: Paid, VoteRefund: Refunded, VoteRequeue: Queued}[how]
		if got := c.s.Outflows.at(o.ID).State; got != want {
			t.Errorf("%s: outflow %s", how, got)
		}
		if left := c.s.Accounts.at(accountOf(c, w)).position("usdt.eth").Debt; (how == VoteRefund) != left.Less(fixed.New(100)) || debt.IsZero() { // interest is waived as far as the treasury bears it
			t.Errorf("%s: debt %s of %s", how, left, debt)
		}
	}
}

// Row 54 of the fault table: the transaction that made the anchor is undone beyond
// finality and its input spent by another, final. Nothing is decided by itself;
// members name the killer, the payout is proven unpaid, gets another anchor and is
// paid once, and the deposit that never was is taken back. Planted: anchorGone
// that loses the coin instead. Seen: "the deposit is still credited".
func TestFault54_DeadCreator(t *testing.T) {
	c, w, o, b := planned(t)
	id := accountOf(c, w)
	in := c.s.Inflows.at(b.Anchor)
	c.deposit(id, "btc", PurposeSupply, "90000000")
	c.undo(InflowFact{ID: in.ID, Block: c.s.Recent.at(recentKey(in.Chain, in.Height, in.ID))})
	if c.s.Outflows.at(o.ID).State != Hold || c.s.Batches.at(b.ID).Held != HeldUndone {
		t.Fatalf("outflow %s", c.s.Outflows.at(o.ID).State)
	}
	supply := c.s.suppliedIn(id, "btc")
	if d := c.agreed(ProposeLeaveHold, OutflowAct{Batch: b.ID, Outcome: VoteRequeue, TxID: "killer"}); d.How != DecidedDone {
		t.Fatalf("%+v", d)
	}
	if got := c.s.Inflows.at(in.ID).State; got != InflowUndone || !c.s.suppliedIn(id, "btc").Less(supply) {
		t.Errorf("the deposit is still credited: state %d", got)
	}
	if got := c.s.Outflows.at(o.ID); got.State != Queued || got.Heir != "" {
		t.Fatalf("outflow %+v", got)
	}
	c.unhalt()
	c.mine(Bitcoin, 12)
	c.feeRate(Bitcoin, 2_000, 0)
	c.refresh()
	c.tick(1_000)
	if c.s.Outflows.at(o.ID).State == Refunded {
		return // the account owes now, and its gates decide
	}
	next := c.payment()
	if next.Anchor == b.Anchor {
		t.Fatal("under the dead anchor")
	}
	c.pay(next)
	if got := c.s.Outflows.at(o.ID).State; got != Paid {
		t.Errorf("outflow %s", got)
	}
	c.all(KindFinal, c.finalFact(b, OutcomePaid)) // the old one can never be; said all the same, it is about nothing
	if got := c.s.Pools.at("btc").PaidOut; got != o.Gross {
		t.Errorf("%s paid out of %s", got, o.Gross)
	}
	c.backed()
}

// A vote has a batch's anchor spent back to us; what becomes of its payout is in
// the vote, and a payment that is faster stands. Planted: batchGates without
// Cancel. Seen: "attempt … retry". Planted: a payment that is final, given back all
// the same. Seen: "BROKEN".
func TestVoteCancel(t *testing.T) {
	for _, how := range []string{VoteRefund, VoteRequeue, "paid first"} {
		c, w, o, b := planned(t)
		shares := c.s.supplyShares(accountOf(c, w), "btc")
		outcome := how
		if how == "paid first" {
			outcome = VoteRefund
		}
		if d := c.agreed(ProposeCancel, OutflowAct{Batch: b.ID, Outcome: outcome}); d.How != DecidedDone {
			t.Fatalf("%+v", d)
		}
		now, a := c.newest(b)
		if !a.Cancels() || a.Bitcoin.Inputs[0].Outpoint != b.Anchor || c.s.Outflows.at(o.ID).State != Cancelling {
			t.Fatalf("attempt %+v", a)
		}
		if code := c.propose(1, act(ProposeCancel, OutflowAct{Batch: b.ID, Outcome: outcome})); code != BadParam {
			t.Errorf("cancelled again: %s", code)
		}
		if how == "paid first" {
			c.all(KindFinal, c.finalFact(b, OutcomePaid))
			if got := c.s.Outflows.at(o.ID).State; got != Paid {
				t.Errorf("outflow %s", got)
			}
			c.backed()
			continue
		}
		c.all(KindFinal, c.finalFact(now, OutcomeSelf))
		got := c.s.Outflows.at(o.ID)
		switch {
		case how == VoteRefund && (got.State != Refunded || !shares.Less(c.s.supplyShares(accountOf(c, w), "btc"))):
			t.Errorf("%s: outflow %s", how, got.State)
		case how == VoteRequeue && (got.State != Queued || got.Heir == ""):
			t.Errorf("%s: outflow %+v", how, got)
		}
		c.backed()
	}
}

// A cancel that cannot be planned at once is planned as soon as it can, and until
// then nothing that pays is.
func TestVoteCancelWaits(t *testing.T) {
	c, _, _, b := planned(t)
	rate := c.s.Rates.at(Bitcoin)
	c.s.Rates.delete(Bitcoin) // no rate: nothing can be planned
	c.agreed(ProposeCancel, OutflowAct{Batch: b.ID, Outcome: VoteRefund})
	if _, a := c.newest(b); a.K != 0 {
		t.Fatalf("attempt %+v", a)
	}
	c.mine(Bitcoin, firstBumpBlocks)
	c.tick(c.s.Params.AttemptMillis + 1_000)
	if _, a := c.newest(b); a.Body != 0 {
		t.Fatalf("bumped: %+v", a)
	}
	rate.Millis = c.s.Millis
	c.s.Rates.put(Bitcoin, rate)
	c.tick(1_000)
	if _, a := c.newest(b); !a.Cancels() {
		t.Errorf("attempt %+v", a)
	}
}

// The minter advances coins to the pool vault: they move between our own vaults,
// what P fronts next is paid back already, and neither book breaks. Planted:
// topUp without Over. Seen: "btc pool: … do not fit its book".
func TestVoteTopUp(t *testing.T) {
	c, w := tiers(t, 4)
	if code := c.propose(0, act(ProposeTopUp, OutflowAct{Amount: n("100000000000")})); code != NoLiquidity {
		t.Errorf("more than there is: %s", code)
	}
	if code := c.propose(0, act(ProposeTopUp, OutflowAct{Amount: n("50000")})); code != BadParam {
		t.Errorf("less than a recoup: %s", code)
	}
	owed := c.s.Pools.at("btc")
	if d := c.agreed(ProposeTopUp, OutflowAct{Amount: n("2000000")}); d.How != DecidedDone {
		t.Fatalf("%+v", d)
	}
	c.tick(1_000)
	b := c.payment()
	pool, _ := c.s.Vault(Bitcoin, address.RolePool)
	if tx := b.Newest().Bitcoin; b.Vault != address.RoleMinter || tx.Outputs[0].Address != pool.Address {
		t.Fatalf("planned %+v", tx)
	}
	c.pay(b)
	p := c.s.Pools.at("btc")
	if p.SupplyShares != owed.SupplyShares || c.s.Two.Over != 2_000_000 || c.s.Two.Recoup != 0 {
		t.Errorf("pool %+v, book %+v", p, c.s.Two)
	}
	c.backed()
	c.small(w, "50000", 1, "40000") // fronted out of the advance
	if c.s.Two.Over != 1_950_000 || c.s.Two.Boost != 0 {
		t.Errorf("book %+v", c.s.Two)
	}
	c.round()
	c.pay(c.payment())
	c.backed()
}

// vaultCoin is a coin that somebody sent to a vault.
func (c *cluster) vaultCoin(role string, i int, units string) InflowFact {
	c.t.Helper()
	w, ok := c.s.Vault(Bitcoin, role)
	if !ok {
		c.t.Fatalf("no vault %s", role)
	}
	return InflowFact{
		Chain: Bitcoin, ID: outpoint(fmt.Sprintf("%064x", 0xbeef00+i), 0), Address: w.Address, Asset: "btc", Amount: n(units), Height: c.s.Tips.at(Bitcoin).Height, Block: "block-v",
	}
}

// Operators' later coins become float, strangers' coins the treasury's: by vote
// and by what a quorum sees, neither of them alone, each coin once, and never one
// of our own. Planted: knownCoin without the live batches. Seen: "our own change
// was let in". Planted: knownCoin without VaultCoins. Seen: "our own
// change of before is not known any more".
func TestVoteCoins(t *testing.T) {
	c, w := tiers(t, 4)
	f := c.vaultCoin(address.RolePool, 1, "700000")
	c.all(KindInflow, f) // no vote: OK or DUPLICATE, and nothing happens
	if c.s.Coins.has(f.ID) {
		t.Fatal("counted without a vote")
	}
	if d := c.agreed(ProposeBTCFloat, OutflowAct{Coin: f.ID, Amount: f.Amount}); d.How != DecidedDone || c.s.Coins.has(f.ID) || !c.s.Wants(f.ID) {
		t.Fatalf("%+v", d)
	}
	other := f
	other.Amount = n("700001")
	if code := c.say(0, KindInflow, other); code != NotAllowed {
		t.Errorf("another amount: %s", code)
	}
	c.some(2, KindInflow, f)
	if c.s.Coins.has(f.ID) {
		t.Fatal("two members are no quorum")
	}
	c.say(2, KindInflow, f)
	if !c.s.Coins.has(f.ID) || c.s.Two.Float != testFloat+700_000 || c.s.Wants(f.ID) {
		t.Fatalf("float %+v", c.s.Two)
	}
	c.backed()
	for _, k := range []ProposalKind{ProposeBTCFloat, ProposeBook} {
		if code := c.propose(0, act(k, OutflowAct{Coin: f.ID, Amount: f.Amount})); code != DuplicateInflow {
			t.Errorf("a coin that is there: %s", code)
		}
	}
	for i, role := range []string{address.RoleMinter, address.RolePool} {
		g := c.vaultCoin(role, 10+i, "300000")
		before := c.s.Pools.at("btc")
		if d := c.agreed(ProposeBook, OutflowAct{Coin: g.ID, Amount: g.Amount}); d.How != DecidedDone {
			t.Fatalf("%+v", d)
		}
		c.some(3, KindInflow, g)
		p := c.s.Pools.at("btc")
		if must(fixed.Sub(p.Cash, before.Cash)) != g.Amount || p.TreasuryShares.IsZero() || p.SupplyShares != before.SupplyShares {
			t.Errorf("%s: cash %s, was %s", role, p.Cash, before.Cash)
		}
		c.backed()
	}
	// What our own transactions leave at a vault: while they are under way, final,
	// and spent again.
	c.small(w, "50000", 1, "40000")
	c.round()
	b := c.payment()
	tx := b.Newest().Bitcoin
	change := outpoint(tx.TxID(), 1)
	if tx.Outputs[1].Outflow != 0 {
		t.Fatal("no change")
	}
	if code := c.propose(0, act(ProposeBTCFloat, OutflowAct{Coin: change, Amount: fixed.New(tx.Outputs[1].Sats)})); code != DuplicateInflow {
		t.Errorf("our own change was let in: %s", code)
	}
	final := c.finalFact(b, OutcomePaid)
	final.TxID = tx.TxID()
	c.all(KindFinal, final)
	c.s.Coins.delete(change) // as if it were spent again
	if !c.s.knownCoin(change) {
		t.Error("our own change of before is not known any more")
	}
}

// Wei that operators bring later is booked by a vote; of an address that is no
// vault of ours nothing is.
func TestVoteGasFloat(t *testing.T) {
	c := running(t)
	hot, _ := c.s.Vault(Ethereum, address.RoleHot)
	was := c.s.Senders.at(hot.Address).Float
	if d := c.agreed(ProposeGasFloat, OutflowAct{Address: hot.Address, Amount: n("5000")}); d.How != DecidedDone {
		t.Fatalf("%+v", d)
	}
	if got := must(fixed.Sub(c.s.Senders.at(hot.Address).Float, was)); got != n("5000") {
		t.Errorf("%s booked", got)
	}
	if code := c.propose(0, act(ProposeGasFloat, OutflowAct{Address: payeeETH, Amount: n("5000")})); code != BadParam {
		t.Errorf("a stranger's address: %s", code)
	}
}
