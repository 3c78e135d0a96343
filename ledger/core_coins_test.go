package ledger

import (
	"fmt"
	"strings"
	"testing"

	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/ledger/fixed"
)

// blockchain is what is unspent on Bitcoin at scripts of ours, by outpoint, sats.
type blockchain map[string]uint64

// chainOf is a chain that has what the ledger has.
func (c *cluster) chainOf() blockchain {
	on := blockchain{}
	for p, k := range c.s.Coins.all() {
		on[p] = k.Sats
	}
	return on
}

// confirms spends what a transaction of ours consumes and makes what it leaves us.
func (on blockchain) confirms(s *State, tx *BitcoinTx) {
	for _, in := range tx.Inputs {
		delete(on, in.Outpoint)
	}
	for i, o := range tx.Outputs {
		if o.Outflow == 0 || s.Outflows.at(o.Outflow).Account == "" {
			on[outpoint(tx.TxID(), i)] = o.Sats
		}
	}
}

// word is what a member with a replica says, as its adapter counts: strangers' is
// whatever does not count.
func (on blockchain) word(replica *State, k Check) BalanceFact {
	f := BalanceFact{Asset: "btc", Asked: k.Asked, Height: k.Height, Block: "block-s"}
	ours := replica.Ours(k)
	for p, sats := range on {
		if ours(p) {
			f.Amount = must(fixed.Add(f.Amount, fixed.New(sats)))
		} else {
			f.Strangers = must(fixed.Add(f.Strangers, fixed.New(sats)))
		}
	}
	return f
}

// weighs has a quorum say what a chain shows to members of today.
func (c *cluster) weighs(on blockchain, k Check) Solvency {
	c.t.Helper()
	c.some(3, KindBalance, on.word(c.s, k))
	row := c.s.Solvency.at("btc")
	if row.Open != nil || row.Newest.Asked != k.Asked {
		c.t.Fatalf("did not count: %+v", row)
	}
	return row
}

// What a stranger sends to a vault on Bitcoin, or an operator without a vote, or a
// client below the least coin, is a number of its own and makes up for nothing: a
// coin of the books that is gone is a breach beside any of them, of the same amount
// or a greater one. Once the spend is final its loss is booked, and after a lift the
// next balance is good without anybody's coin. Planted: Ours that admits whatever is
// there, as the balance once was. Seen: "a theft of as much: not halted".
func TestStrangersOnBitcoin(t *testing.T) {
	for _, gift := range []uint64{1, 100_000_000, 2_000_000_000} {
		c, _, _ := lent(t)
		c.mine(Bitcoin, 20)
		on := c.chainOf()
		on["stranger:0"] = gift
		row := c.weighs(on, c.asked("btc"))
		if row.Good != row.Newest.Asked || row.Unattributed != fixed.New(gift) || row.Newest.Amount != n("100000000") || !row.Newest.Nobodys.IsZero() {
			t.Errorf("a gift of %d: %+v", gift, row)
		}
		if e, ok := c.event("unattributed"); !ok || e.Amount != fmt.Sprint(gift) {
			t.Errorf("nobody is told: %+v", e)
		}
		delete(on, "stranger:0") // it comes and goes, by a fork or with its key: nobody's coin is missed
		if row = c.weighs(on, c.asked("btc")); row.Halt != "" || !row.Unattributed.IsZero() {
			t.Errorf("the gift is gone: %+v", row)
		}
		on["stranger:0"] = gift
		stolen := c.s.Coins.keys()[0]
		delete(on, stolen)
		if row = c.weighs(on, c.asked("btc")); row.Halt == "" || !strings.Contains(row.Halt, "100000000 missing, of which 0 may be under way") {
			t.Errorf("a theft of as much: not halted: %+v", row)
			continue
		}
		c.all(KindForeign, ForeignFact{Chain: Bitcoin, Resource: stolen, TxID: "thief", Height: c.s.Tips.at(Bitcoin).Height, Block: "b"})
		p := lift("btc", FlagHalt)
		p.Halt = row.Halt
		c.carried(p)
		c.tick(c.s.Params.LiftSeconds*1000 + 1000)
		if row = c.weighs(on, c.asked("btc")); row.Halt != "" || row.Good != row.Newest.Asked || !row.Newest.Books.IsZero() {
			t.Errorf("after the lift: %+v", row)
		}
	}
}

// Once a vote has booked it, a stranger's coin is one of the books, and its loss a
// breach; before members saw it final nothing is.
func TestStrangersCoinIsBooked(t *testing.T) {
	c, _, _ := lent(t)
	on := c.chainOf()
	f := c.vaultCoin(address.RoleMinter, 1, "700000")
	on[f.ID] = 700_000
	if row := c.weighs(on, c.asked("btc")); row.Good != row.Newest.Asked || row.Unattributed != f.Amount {
		t.Fatalf("%+v", row)
	}
	if d := c.agreed(ProposeBook, OutflowAct{Coin: f.ID, Amount: f.Amount}); d.How != DecidedDone {
		t.Fatalf("%+v", d)
	}
	c.some(3, KindInflow, f)
	c.mine(Bitcoin, 20)
	if row := c.weighs(on, c.asked("btc")); row.Good != row.Newest.Asked || !row.Unattributed.IsZero() || row.Newest.Amount != n("100700000") {
		t.Fatalf("booked: %+v", row)
	}
	delete(on, f.ID)
	if row := c.weighs(on, c.asked("btc")); row.Halt == "" {
		t.Errorf("gone: %+v", row)
	}
}

// What our own transactions leave at vaults counts from the block that has it, be
// they under way, on HOLD or final: nothing is halted for it, and no stranger's coin
// stands in for it. A payment of which the change is gone, its block attested or not,
// is a breach. Planted: openOutputs without batches on HOLD. Seen: "on HOLD". Without
// any: "mined, not attested".
func TestSolvencyOfOwnChange(t *testing.T) {
	c, _, _, b := planned(t)
	tx := b.Newest().Bitcoin
	change := outpoint(tx.TxID(), 1)
	on := c.chainOf()
	on["stranger:0"] = 100_000_000
	c.mine(Bitcoin, 20)
	on.confirms(c.s, tx)
	if on[change] == 0 {
		t.Fatal("no change")
	}
	good := func(what string) {
		t.Helper()
		row := c.weighs(on, c.asked("btc"))
		if row.Halt != "" || row.Good != row.Newest.Asked || row.Unattributed != n("100000000") {
			t.Fatalf("%s: %+v", what, row)
		}
	}
	robbed := func(what string) {
		t.Helper()
		before, kept := c.s.View(), on[change]
		delete(on, change)
		if row := c.weighs(on, c.asked("btc")); row.Halt == "" {
			t.Errorf("%s: %+v", what, row)
		}
		c.s, on[change] = before, kept
	}
	if row := c.weighs(on, c.asked("btc")); row.Halt != "" || row.Short == 0 || row.Unattributed != n("100000000") {
		t.Fatalf("mined, not attested: %+v", row)
	}
	robbed("mined, not attested, and its change is gone")
	spent, final := c.spentFact(b), c.finalFact(b, OutcomePaid)
	spent.Height -= 10
	final.Height, final.TxID = spent.Height, tx.TxID()
	c.all(KindSpent, spent)
	good("attested")
	robbed("attested, and its change is gone")

	held := c.s
	c.s = held.View()
	x := &execution{s: c.s}
	x.hold(c.s.Batches.at(b.ID), HeldFork, spent.Height, "a test")
	good("on HOLD")
	robbed("on HOLD, and its change is gone")
	for name := range c.s.openOutputs() { // payouts too; seen failing with custody's own outputs alone
		if !c.s.knownCoin(name) {
			t.Errorf("a vote may book %s of what is on HOLD", name)
		}
	}
	if n := len(c.s.openOutputs()); n < len(tx.Outputs) || !c.s.knownCoin(change) || !c.s.knownCoin(outpoint(tx.TxID(), 0)) {
		t.Errorf("a vote may book an output of what is on HOLD: %d are known", n)
	}

	c.s = held
	c.all(KindFinal, final)
	good("final")
	robbed("final, and its change is gone")
}

// Members look at different moments, and say the same whatever was counted in
// between: what came in since the question is in nobody's balance. What left the books
// since, by a payment above the block, is missed by those alone that had applied it,
// and is unsure until the next minute; no such moment halts anything. Planted: numbers
// that Ours does not look at. Seen: "they say different things". Planted: coinGone that
// notes nothing. Seen: "those who had applied it: halted". Planted: Strangers taken as
// said. Seen: "what was ours is said to be nobody's", and by the auditor of seed 2026.
// Planted: what left before the question is sure. Seen by the auditor of seed 408.
func TestSolvencyWhileMembersLook(t *testing.T) {
	c, w, _, b := planned(t)
	id := accountOf(c, w)
	tx := b.Newest().Bitcoin
	on := c.chainOf()
	c.mine(Bitcoin, 20)
	k := c.asked("btc")
	early := c.s.View()
	f := c.inflowTo(id, "btc", PurposeSupply, "30000000")
	f.Height = k.Height - 15
	c.all(KindInflow, f)
	on[f.ID] = 30_000_000
	one, two := on.word(early, k), on.word(c.s, k)
	if one != two || one.Amount != n("100000000") {
		t.Errorf("they say different things: %+v, %+v", one, two)
	}
	if row := c.weighs(on, k); row.Good != k.Asked || row.Newest.Books != n("100000000") {
		t.Errorf("%+v", row)
	}
	if row := c.weighs(on, c.asked("btc")); row.Good != row.Newest.Asked || row.Newest.Amount != n("130000000") {
		t.Errorf("a minute later: %+v", row)
	}

	k = c.asked("btc")
	early = c.s.View()
	spent, final := c.spentFact(b), c.finalFact(b, OutcomePaid)
	final.TxID = tx.TxID()
	c.all(KindSpent, spent)
	c.all(KindFinal, final)
	sooner, later := on.word(early, k), on.word(c.s, k) // the block has not got the payment
	if sooner.Amount != n("130000000") || later.Amount != n("30000000") {
		t.Fatalf("%+v, %+v", sooner, later)
	}
	before := c.s.View()
	if row := c.weighs(on, k); row.Halt != "" || row.Short == 0 {
		t.Errorf("those who had applied it: halted: %+v", row)
	} else if !row.Unattributed.IsZero() {
		t.Errorf("what was ours is said to be nobody's: %+v", row)
	}
	// The tip may lag so far that the question comes when all have applied it.
	c.s = before.View()
	if row := c.weighs(on, c.asked("btc")); row.Halt != "" || row.Short == 0 {
		t.Errorf("all had applied it: halted: %+v", row)
	}
	c.s = before
	c.some(3, KindBalance, sooner)
	if row := c.s.Solvency.at("btc"); row.Good != k.Asked || row.Newest.Books != n("130000000") {
		t.Errorf("those who had not: %+v", row)
	}
	on.confirms(c.s, tx)
	c.mine(Bitcoin, 12)
	if row := c.weighs(on, c.asked("btc")); row.Good != row.Newest.Asked || row.Short != 0 {
		t.Errorf("a minute later: %+v", row)
	}
}
