package ledger

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/ledger/fixed"
)

// asked lets the next minute begin and returns what is asked for of an asset.
func (c *cluster) asked(asset string) Check {
	c.t.Helper()
	c.tick((solvencySeconds - c.s.Time()%solvencySeconds) * 1000)
	row := c.s.Solvency.at(asset)
	if row.Open == nil {
		c.t.Fatalf("no balance of %s is asked for", asset)
	}
	return *row.Open
}

// counts has a quorum of members say what custody holds at a check's block, with
// what is owed at deposit addresses lying there, and at the gas address its float.
func (c *cluster) counts(asset string, k Check, units string) Solvency {
	c.t.Helper()
	f := BalanceFact{Asset: asset, Asked: k.Asked, Height: k.Height, Block: "block-s", Amount: n(units), Waiting: lesser(k.Owed, n(units))}
	if gas, _ := c.s.Vault(Ethereum, address.RoleGas); asset == "eth" {
		from := c.s.Senders.at(gas.Address)
		f.AtGas = lesser(must(fixed.Sub(from.Float, lesser(from.Due, from.Float))), must(fixed.Sub(f.Amount, f.Waiting)))
	}
	c.some(3, KindBalance, f)
	row := c.s.Solvency.at(asset)
	if row.Open != nil || row.Newest.Asked != k.Asked {
		c.t.Fatalf("%s of %s did not count: %+v", units, asset, row)
	}
	return row
}

func less(a string, by uint64) string { return must(fixed.Sub(n(a), fixed.New(by))).String() }

// Each minute every asset's balance is asked for, at the attested tip of its chain.
// It counts when Q members say the same of the same block, each once. Seen failing
// with two words enough ("counted after 2 words"), and with a member's second word
// in the place of its first ("a member changed its word").
func TestSolvencyIsAskedForEachMinute(t *testing.T) {
	c, _, _ := lent(t)
	k := c.asked("btc")
	for asset, chain := range map[string]string{"btc": Bitcoin, "eth": Ethereum, "usdt.eth": Ethereum} {
		if open := c.s.Solvency.at(asset).Open; open == nil || open.Height != c.s.Tips.at(chain).Height || open.Asked != k.Asked {
			t.Fatalf("%s: asked for %+v", asset, open)
		}
		if c.s.unproven(asset) == "" {
			t.Errorf("%s: proven before any word", asset)
		}
	}
	good := BalanceFact{Asset: "btc", Asked: k.Asked, Height: k.Height, Block: "b", Amount: n("100000000")}
	other, fork, early, doge, askless := good, good, good, good, good
	other.Amount, fork.Block, early.Asked, doge.Asset, askless.Block = n("100000001"), "fork", k.Asked-1, "doge", ""
	c.say(0, KindBalance, good)
	c.say(0, KindBalance, other) // its first word stays
	if w := c.s.Solvency.at("btc").Open.Words; len(w) != 1 || w[0].Amount != good.Amount {
		t.Fatalf("a member changed its word: %+v", w)
	}
	c.say(1, KindBalance, fork)
	c.say(2, KindBalance, good)
	if c.s.Solvency.at("btc").Open == nil {
		t.Fatal("counted after 2 words")
	}
	for name, tc := range map[string]struct {
		f    BalanceFact
		code Code
	}{"an unknown asset": {doge, UnknownPool}, "no block": {askless, Malformed}, "another check": {early, OK}} {
		before := frame(c.s)
		if code := c.say(3, KindBalance, tc.f); code != tc.code || frame(c.s) != before {
			t.Errorf("%s: %s", name, code)
		}
	}
	c.say(3, KindBalance, good)
	row := c.s.Solvency.at("btc")
	if row.Open != nil || row.Good != k.Asked || row.Newest.Amount != good.Amount || row.Newest.Books != good.Amount || c.s.unproven("btc") != "" {
		t.Fatalf("after Q words: %+v, %s", row, c.s.unproven("btc"))
	}
	again, err := DecodeState(Marshal(c.s))
	if err != nil || string(Marshal(again)) != string(Marshal(c.s)) {
		t.Fatalf("restored: %v", err)
	}
	// Ten minutes are ledger time from when it was asked for.
	c.tick(k.Asked + SolvencySeconds*1000 - c.s.Millis)
	if why := c.s.unproven("btc"); why != "" {
		t.Errorf("after ten minutes: %s", why)
	}
	c.tick(1000)
	if why := c.s.unproven("btc"); !strings.Contains(why, "601 s old, at most 600") {
		t.Errorf("older than ten minutes: %q", why)
	}
}

// A member may ask at any time; what is asked for already is not asked for again
// within ten seconds.
func TestSolvencyOnDemand(t *testing.T) {
	c, _, _ := lent(t)
	k := c.asked("btc")
	c.tick(5_000)
	c.say(0, KindBalance, BalanceFact{Asset: "btc"})
	if c.s.Solvency.at("btc").Open.Asked != k.Asked {
		t.Error("asked again after five seconds")
	}
	c.tick(5_000)
	c.say(0, KindBalance, BalanceFact{Asset: "btc"})
	if got := c.s.Solvency.at("btc").Open.Asked; got != c.s.Millis {
		t.Errorf("asked at %d, want %d", got, c.s.Millis)
	}
	if got := c.s.Solvency.at("eth").Open.Asked; got != k.Asked {
		t.Errorf("another asset is asked for too")
	}
}

// Plants a satoshi that is gone from custody. The asset is halted with the numbers:
// no request for it, no plan, no session; deposits are recorded, debt is repaid, and
// the other assets go on. A vote that names the cause lifts it; members sign again
// after the next balance that covers the books. Seen failing with what is unsure held
// to be missing less ("nothing is halted"), without the gates in again ("planned while
// halted"), VerifySpend ("it may be signed") and payOut ("a withdrawal: BELOW_MIN").
func TestSolvencyBreachHaltsTheAsset(t *testing.T) {
	c, lender, w := lent(t)
	id := accountOf(c, w)
	o := c.withdrawBTC(w, "10000000")
	row := c.counts("btc", c.asked("btc"), "100000000")
	c.tick(1000)
	b := c.payment()
	row = c.counts("btc", c.asked("btc"), less("100000000", 10_000_001))
	if row.Halt == "" {
		t.Fatal("nothing is halted")
	}
	for _, number := range []string{"89999999", "100000000", "10000001 missing", "10000000 may be under way"} {
		if !strings.Contains(row.Halt, number) {
			t.Errorf("%q does not say %s", row.Halt, number)
		}
	}
	if e, ok := c.event("insolvent"); !ok || e.Asset != "btc" || e.Amount != "10000001" {
		t.Errorf("event %+v", e)
	}
	spends, pays := reads(c, b)
	if err := c.s.VerifySpend(b.ID, b.Newest().K, spends, pays); err == nil || !strings.Contains(err.Error(), "insolvent") {
		t.Errorf("it may be signed: %v", err)
	}
	if c.s.Unproven(b) == "" || c.s.HaltOf("btc") == "" || c.s.HaltOf("usdt.eth") != "" {
		t.Error("HaltOf")
	}
	if code := c.ask(w, c.payout(address.ActionWithdraw, "btc", "5100", payeeBTC(1), "5000")); code != Halted {
		t.Errorf("a withdrawal: %s", code)
	}
	k := b.Newest().K
	c.tick(2 * c.s.Params.AttemptMillis)
	if now := c.s.Batches.at(b.ID); now.Newest().K != k {
		t.Error("planned while halted")
	}
	c.deposit(id, "btc", PurposeRepay, "200000")
	if got := c.s.supplyShares(id, "btc"); got != n("90200000") {
		t.Errorf("a deposit is not recorded: %s", got)
	}
	c.feeRate(Ethereum, gweiCore, gweiCore)
	c.refresh()
	if code := c.ask(lender, c.payout(address.ActionWithdraw, "usdt.eth", "10000000", payeeETH, "5000000")); code != OK {
		t.Fatalf("another asset: %s", code)
	}
	c.tick(1000)
	if len(c.payments()) != 2 {
		t.Error("another asset is not planned")
	}
	// A covered balance alone lifts nothing.
	row = c.counts("btc", c.asked("btc"), "100200000")
	if row.Halt == "" || row.Good != 0 {
		t.Fatalf("lifted by itself: %+v", row)
	}
	wrong := lift("btc", FlagHalt)
	wrong.Halt = "another cause"
	if code := c.propose(0, wrong); code != BadParam {
		t.Errorf("a lift of another cause: %s", code)
	}
	right := wrong
	right.Halt, right.Text = row.Halt, "the node's index was wrong"
	c.carried(right)
	c.tick(c.s.Params.LiftSeconds*1000 + 1000)
	if c.s.HaltOf("btc") != "" || c.lastDecided().How != DecidedDone {
		t.Fatalf("not lifted: %q, %+v", c.s.HaltOf("btc"), c.lastDecided())
	}
	if c.s.Unproven(b) == "" {
		t.Error("proven right after the lift")
	}
	c.counts("btc", c.asked("btc"), "100200000")
	if why := c.s.unproven("btc"); why != "" {
		t.Errorf("after a good balance: %s", why)
	}
	if c.s.Outflows.at(o.ID).State != Planned {
		t.Errorf("the payout is %s", c.s.Outflows.at(o.ID).State)
	}
}

// Whatever waits for a plan when its asset is halted waits on: payouts of both tiers,
// merges, sweeps. What was planned is not planned anew. Seen failing without the gate of
// each: plan, planBoosted, planSweep ("planned: batch 11 of outflows [2]").
func TestSolvencyHaltStopsEveryPlan(t *testing.T) {
	c, w := tiers(t, 4)
	in := c.inflowTo(accountOf(c, w), "usdt.eth", PurposeSupply, "900000000")
	c.all(KindInflow, in)
	c.small(w, "40000", 1, "10000")
	c.small(w, "70000", 2, "10000") // not asked for in a tick: both wait
	free := c.s.View()
	for _, s := range []*State{c.s, free} {
		if c.s = s; s != free {
			s.setHalt("btc", "a test")
			s.setHalt("usdt.eth", "a test")
		}
		c.round()
		c.feeRate(Ethereum, gweiCore, gweiCore)
		c.tick(1000)
		bs := c.payments()
		if s == free && len(bs) < 3 {
			t.Errorf("without a halt only %d batches are planned", len(bs))
		}
		if s != free && len(bs) > 0 {
			t.Errorf("planned: batch %d of outflows %v", bs[0].ID, bs[0].Outflows)
		}
	}
}

// A balance that is short after a lift halts again: nothing but coins covers books.
// Seen failing with a vote's halt that left Good as it was ("halted by "vote: because",
// good at 1700003760000").
func TestSolvencyLiftDoesNotMakeCoins(t *testing.T) {
	c, _, _ := lent(t)
	row := c.counts("btc", c.asked("btc"), "1")
	p := lift("btc", FlagHalt)
	p.Halt = row.Halt
	c.carried(p)
	c.tick(c.s.Params.LiftSeconds*1000 + 1000)
	if c.s.HaltOf("btc") != "" {
		t.Fatal("not lifted")
	}
	if row = c.counts("btc", c.asked("btc"), "1"); row.Halt == "" {
		t.Error("not halted again")
	}
	// Members halt an asset by vote as well; what was good before does not last.
	c.counts("usdt.eth", c.asked("usdt.eth"), "100000000000")
	q := stop("usdt.eth", FlagHalt)
	c.carried(q)
	if got := c.s.HaltOf("usdt.eth"); got != "usdt.eth: vote: because" {
		t.Errorf("halted by vote: %q", got)
	}
}

// A payment that left its block's custody while the books still have it is no
// theft: exactly what it took may be missing once its spend is attested, and not a
// satoshi more. Before that it is not known, so the balance is neither good nor a
// breach, for five minutes at most. Seen failing with the fee left out of `taken`
// ("exactly what left"), with Spent above the block counted ("mined above the block"),
// and with no end to what is unclear ("five minutes").
func TestSolvencyWhileAPaymentConfirms(t *testing.T) {
	c, _, _, b := planned(t)
	const have, took = "100000000", 40_000_000
	k := c.asked("btc")
	row := c.counts("btc", k, have)
	if row.Good != k.Asked || row.Newest.Leaving != (fixed.Int{}) {
		t.Fatalf("planned only: %+v", row)
	}
	good := row.Good
	row = c.counts("btc", c.asked("btc"), less(have, took))
	if row.Halt != "" || row.Good != good || row.Short == 0 {
		t.Fatalf("mined and not attested: %+v", row)
	}
	if _, ok := c.event("short"); !ok {
		t.Error("nobody is told")
	}
	fresh, err := DecodeState(Marshal(c.s))
	if err != nil {
		t.Fatal(err)
	}
	c.mine(Bitcoin, 1)
	spent := c.spentFact(b)
	spent.Height--
	c.all(KindSpent, spent)
	k = c.asked("btc")
	row = c.counts("btc", k, less(have, took))
	if row.Good != k.Asked || row.Short != 0 || row.Newest.Leaving != fixed.New(took) {
		t.Fatalf("exactly what left: %+v", row)
	}
	row = c.counts("btc", c.asked("btc"), less(have, took+1))
	if row.Halt == "" {
		t.Fatal("a satoshi more")
	}
	// The same without the fact: five minutes later it is a breach.
	c.s = fresh
	for row = c.s.Solvency.at("btc"); c.s.Millis < row.Short+shortMillis-solvencySeconds*1000; {
		if row = c.counts("btc", c.asked("btc"), less(have, took)); row.Halt != "" {
			t.Fatalf("too early: %+v", row)
		}
	}
	if row = c.counts("btc", c.asked("btc"), less(have, took)); row.Halt == "" {
		t.Errorf("five minutes: %+v", row)
	}
}

// A payment mined above the block of a balance is still in it.
func TestSolvencyPaymentAboveTheBlock(t *testing.T) {
	c, _, _, b := planned(t)
	k := c.asked("btc")
	c.all(KindSpent, c.spentFact(b)) // at the height after k's
	row := c.counts("btc", k, less("100000000", 40_000_000))
	if row.Short == 0 || !row.Newest.Leaving.IsZero() {
		t.Errorf("mined above the block: %+v", row)
	}
	// Final by the time the balance counts: the books of then are the ones to cover.
	k = c.asked("btc")
	c.mine(Bitcoin, 12)
	f := c.finalFact(b, OutcomePaid)
	f.Height = k.Height + 1
	c.all(KindFinal, f)
	if got := c.s.Books("btc"); got != n("60000000") {
		t.Fatalf("books %s", got)
	}
	row = c.counts("btc", k, "100000000")
	if row.Good != k.Asked || row.Newest.Books != n("100000000") {
		t.Errorf("books of the block: %+v", row)
	}
	k = c.asked("btc")
	if row = c.counts("btc", k, "60000000"); row.Good != k.Asked {
		t.Errorf("afterwards: %+v", row)
	}
	if c.s.Moves.len() > 1 {
		t.Errorf("%d moves are kept", c.s.Moves.len())
	}
}

// A deposit above the block is not missed in it; one below the block that a member
// may not have known, or that another branch may lack, is not held against custody
// either, and a final one is. Seen failing without Moves ("above the block"), without
// Late ("counted while members looked") and with Late as unsure ("hides as much").
func TestSolvencyOfDeposits(t *testing.T) {
	c, _, w := lent(t)
	id := accountOf(c, w)
	c.mine(Bitcoin, 20)
	k := c.asked("btc")
	above := c.inflowTo(id, "btc", PurposeSupply, "70000000")
	above.Height = k.Height + 1
	c.all(KindInflow, above)
	row := c.counts("btc", k, "100000000")
	if row.Good != k.Asked {
		t.Fatalf("above the block: %+v", row)
	}
	c.mine(Bitcoin, 20)
	k = c.asked("btc")
	late := c.inflowTo(id, "btc", PurposeSupply, "30000000")
	late.Height = k.Height - 19
	c.all(KindInflow, late)
	before := c.s.View()
	if row = c.counts("btc", k, "170000000"); row.Good != k.Asked || row.Newest.Books != n("170000000") {
		t.Fatalf("counted while members looked: %+v", row)
	}
	c.s = before.View() // as much is gone beside it
	if row = c.counts("btc", k, "140000000"); row.Halt == "" {
		t.Fatalf("what was counted while members looked hides as much: %+v", row)
	}
	c.s = before
	k = c.asked("btc")
	if row = c.counts("btc", k, "200000000"); row.Good != k.Asked || row.Short != 0 {
		t.Fatalf("a minute later: %+v", row)
	}
	fresh := c.inflowTo(id, "btc", PurposeSupply, "5000000")
	c.all(KindInflow, fresh)
	row = c.counts("btc", c.asked("btc"), "200000000")
	if row.Halt != "" || row.Short == 0 {
		t.Fatalf("another branch: %+v", row)
	}
	c.all(KindReversed, ReversedFact{ID: fresh.ID, Block: fresh.Block})
	k = c.asked("btc")
	if row = c.counts("btc", k, "200000000"); row.Good != k.Asked {
		t.Fatalf("taken back: %+v", row)
	}
	if row = c.counts("btc", c.asked("btc"), "170000000"); row.Halt == "" {
		t.Error("a final deposit is gone")
	}
}

// The pool vault's float is reserve once it is booked, boosted payouts and what the
// minter owes for them included.
func TestSolvencyOfTheFloat(t *testing.T) {
	c, w := tiers(t, 4)
	k := c.asked("btc")
	row := c.counts("btc", k, "301000000")
	if row.Good != k.Asked || row.Newest.Books != n("301000000") {
		t.Fatalf("%+v", row)
	}
	at := c.small(w, "40000", 1, "10000")
	c.round()
	b := c.batchOf(at)
	spent := c.spentFact(b)
	spent.Height--
	c.all(KindSpent, spent)
	k = c.asked("btc")
	if row = c.counts("btc", k, "300960000"); row.Good != k.Asked || row.Newest.Leaving != n("40000") {
		t.Fatalf("fronted: %+v", row)
	}
	if row = c.counts("btc", c.asked("btc"), "300959999"); row.Halt == "" {
		t.Errorf("a satoshi of the float: %+v", row)
	}
}

// Tokens that wait at deposit addresses are looked at there, as many addresses as one
// balance may name, the others in the following minutes. Seen failing with the
// deposits left out of Owed ("gone from its deposit address").
func TestSolvencyOfDepositsThatWait(t *testing.T) {
	c, _, w := lent(t)
	id := accountOf(c, w)
	f := c.inflowTo(id, "usdt.eth", PurposeSupply, "500000") // not worth a sweep
	c.all(KindInflow, f)
	c.tick(1000)
	k := c.asked("usdt.eth")
	if !slices.Equal(k.At, []string{f.Address}) || k.Owed != n("500000") {
		t.Fatalf("asked for %+v", k)
	}
	if row := c.counts("usdt.eth", k, "100000500000"); row.Good != k.Asked || row.Newest.Books != n("100000500000") {
		t.Fatalf("%+v", row)
	}
	if at := c.asked("btc").At; len(at) != 0 {
		t.Errorf("Bitcoin is asked for %v", at)
	}
	if row := c.counts("usdt.eth", *c.s.Solvency.at("usdt.eth").Open, "100000000000"); row.Halt == "" {
		t.Error("gone from its deposit address")
	}
	if c.s.HaltOf("eth") != "" || c.s.HaltOf("btc") != "" {
		t.Error("another asset is halted")
	}

	x := &execution{s: c.s.View()}
	for i := range 2*maxSolvencyAt + 10 {
		in := Inflow{ID: fmt.Sprint("many", i), Amount: fixed.New(uint64(i + 1)), Height: 1}
		x.s.Inflows.put(in.ID, in)
		x.s.Waiting.put(fmt.Sprintf("0xmany%04d/usdt.eth", i), []string{in.ID})
		x.s.Waiting.put(fmt.Sprintf("0xmany%04d/other", i), []string{in.ID})
	}
	seen, last := map[string]int{}, ""
	for range 4 {
		k := Check{Height: 1000}
		last = x.s.waitingAt(AssetParam{ID: "usdt.eth"}, &k, last)
		if len(k.At) > maxSolvencyAt || !slices.IsSorted(k.At) {
			t.Fatalf("%d addresses", len(k.At))
		}
		for _, a := range k.At {
			seen[a]++
		}
		if last == "" {
			break
		}
	}
	if len(seen) != 2*maxSolvencyAt+11 || last != "" {
		t.Errorf("%d addresses were looked at in turn, then from %q", len(seen), last)
	}
	for a, n := range seen {
		if n != 1 {
			t.Errorf("%s was looked at %d times", a, n)
		}
	}
}

// Tokens that a sweep or a payout moved are looked for in the block in which they
// were. Ether is what hot and gas must hold; a breach of it halts every asset of its
// chain, since all pay their fees with it, and no other chain's.
func TestSolvencyOfEthereum(t *testing.T) {
	c, w, o, b := borrowed(t)
	const have = "100000000000"
	k := c.asked("usdt.eth")
	if row := c.counts("usdt.eth", k, have); row.Good != k.Asked {
		t.Fatalf("%+v", row)
	}
	k = c.asked("usdt.eth")
	if row := c.counts("usdt.eth", k, must(fixed.Sub(n(have), o.Net)).String()); row.Halt != "" || row.Short == 0 {
		t.Fatalf("mined, its end not known: %+v", row)
	}
	k = c.asked("usdt.eth")
	ether := *c.s.Solvency.at("eth").Open
	before := c.s.Books("eth")
	f := c.finalFact(b, OutcomePaid)
	f.Height = k.Height // in the block itself
	c.all(KindFinal, f)
	if got := c.s.Books("eth"); must(fixed.Sub(before, got)) != f.Fee {
		t.Fatalf("ether %s, was %s", got, before)
	}
	if row := c.counts("usdt.eth", k, must(fixed.Sub(n(have), o.Net)).String()); row.Good != k.Asked || row.Short != 0 {
		t.Fatalf("paid: %+v", row)
	}
	if row := c.counts("eth", ether, must(fixed.Sub(before, f.Fee)).String()); row.Good != ether.Asked {
		t.Fatalf("ether: %+v", row)
	}
	// A deposit whose sweep is final above the block is not at hot in it.
	in := c.inflowTo(accountOf(c, w), "usdt.eth", PurposeRepay, "600000000")
	c.feeRate(Ethereum, gweiCore, gweiCore)
	c.refresh()
	c.all(KindInflow, in)
	k = c.asked("usdt.eth")
	for range 3 {
		c.tick(1000)
		for _, b := range c.payments() {
			c.pay(b)
		}
	}
	if c.s.Inflows.at(in.ID).State != InflowCredited {
		t.Fatalf("inflow %+v", c.s.Inflows.at(in.ID))
	}
	if row := c.counts("usdt.eth", k, must(fixed.Sub(n(have), o.Net)).String()); row.Good != k.Asked {
		t.Fatalf("swept above the block: %+v", row)
	}
	k = c.asked("eth")
	if row := c.counts("eth", k, must(fixed.Sub(c.s.Books("eth"), fixed.New(1))).String()); row.Halt == "" {
		t.Fatalf("a wei is gone: %+v", row)
	}
	if c.s.HaltOf("usdt.eth") == "" || c.s.HaltOf("btc") != "" {
		t.Errorf("halted: usdt %q, btc %q", c.s.HaltOf("usdt.eth"), c.s.HaltOf("btc"))
	}
}

// A member whose own chain shows less than what counted, and too little, does not
// approve (spec: consensus R3). Only of the same block, and only then.
func TestSolvencyDisputed(t *testing.T) {
	c, _, _ := lent(t)
	k := c.asked("btc")
	c.counts("btc", k, "100000001")
	own := BalanceFact{Asset: "btc", Asked: k.Asked, Height: k.Height, Block: "block-s", Amount: n("99999999")}
	if !c.s.Disputed(own) {
		t.Error("less than the books")
	}
	for name, f := range map[string]func(*BalanceFact){
		"covers":        func(f *BalanceFact) { f.Amount = n("100000000") },
		"more":          func(f *BalanceFact) { f.Amount = n("100000002") },
		"another block": func(f *BalanceFact) { f.Block = "other" },
		"another check": func(f *BalanceFact) { f.Asked-- },
		"another asset": func(f *BalanceFact) { f.Asset = "eth" },
	} {
		g := own
		f(&g)
		if c.s.Disputed(g) {
			t.Errorf("%s: disputed", name)
		}
	}
}

// What is checked of the tables, each broken once.
func TestSolvencyInvariants(t *testing.T) {
	c, _, _ := lent(t)
	c.asked("btc")
	c.say(0, KindBalance, BalanceFact{Asset: "btc", Asked: c.s.Millis, Height: c.s.Tips.at(Bitcoin).Height, Block: "b"})
	c.say(1, KindBalance, BalanceFact{Asset: "btc", Asked: c.s.Millis, Height: c.s.Tips.at(Bitcoin).Height, Block: "b"})
	row := c.s.Solvency.at("btc")
	put := func(f func(*Solvency)) func(*State) {
		return func(s *State) { r := row; k := *row.Open; r.Open = &k; f(&r); s.Solvency.put("btc", r) }
	}
	for name, spoil := range map[string]func(*State){
		"no asset":         func(s *State) { s.Solvency.put("doge", Solvency{}) },
		"halted and good":  put(func(r *Solvency) { r.Halt, r.Good, r.Newest.Asked = "x", 1, 1 }),
		"good, none asked": put(func(r *Solvency) { r.Good = r.Newest.Asked + 1 }),
		"short to come":    put(func(r *Solvency) { r.Short = c.s.Millis + 1 }),
		"asked to come":    put(func(r *Solvency) { r.Open.Asked = c.s.Millis + 1 }),
		"words doubled":    put(func(r *Solvency) { r.Open.Words = append(slices.Clone(r.Open.Words), r.Open.Words[1]) }),
		"words unsorted": put(func(r *Solvency) {
			r.Open.Words = slices.Clone(r.Open.Words)
			slices.Reverse(r.Open.Words)
		}),
		"addresses unsorted": put(func(r *Solvency) { r.Open.At = []string{"b", "a"} }),
		"an empty move":      func(s *State) { s.Moves.put(moveKey("btc", 7), Move{}) },
		"a move of nothing":  func(s *State) { s.Moves.put("btc/7", Move{In: fixed.New(1)}) },
	} {
		v := c.s.View()
		spoil(v)
		if v.Check() == nil {
			t.Errorf("%s: not found", name)
		}
	}
}

// A payout on HOLD has halted every payment already, and its contradiction is for
// people to read: what its transactions may have taken counts as left, so that the
// asset is not halted for the same coins a second time; a satoshi more is a breach.
// Once the vote names the outcome, the books tell it. Seen failing without OnHold
// in leaving ("halted for what is on HOLD").
func TestSolvencyOfAHold(t *testing.T) {
	c, _, _, b := foreignHold(t)
	taken := c.s.taken(b.Newest(), must2(c.s.Genesis.Asset("btc")))
	books := c.s.Books("btc")
	left := must(fixed.Sub(books, taken))
	k := c.asked("btc")
	row := c.counts("btc", k, left.String())
	if row.Halt != "" || row.Good != k.Asked || row.Newest.Leaving != taken {
		t.Fatalf("halted for what is on HOLD: %+v", row)
	}
	before := c.s.View()
	if row = c.counts("btc", c.asked("btc"), less(left.String(), 1)); row.Halt == "" {
		t.Errorf("a satoshi more: %+v", row)
	}
	c.s = before
	c.agreed(ProposeLeaveHold, OutflowAct{Batch: b.ID, Outcome: VotePaid, TxID: "thief"})
	if c.s.OnHold.len() != 0 {
		t.Fatalf("%d batches on HOLD", c.s.OnHold.len())
	}
	// Its input was booked as lost, change and all; what chains show has to cover no more.
	k = c.asked("btc")
	if row = c.counts("btc", k, c.s.Books("btc").String()); row.Good != k.Asked || !row.Newest.Leaving.IsZero() {
		t.Errorf("after the vote: %+v", row)
	}
}

func must2[T any](v T, ok bool) T {
	if !ok {
		panic("not there")
	}
	return v
}

// A payment that waits for a balance has one asked for at once, and not more often
// than every ten seconds; nobody asks for what is halted, good, or being looked at.
// Seen failing without the ten seconds ("asked again at once") and without the halt
// ("of a halted asset").
func TestSolvencyBalanceWanted(t *testing.T) {
	c, _, _, _ := planned(t)
	row := func() Solvency { return c.s.Solvency.at("btc") }
	wanted := func(what string, want bool) {
		t.Helper()
		if got := c.s.BalanceWanted("btc"); got != want {
			t.Fatalf("%s: wanted %v, %+v at %d", what, got, row(), c.s.Millis)
		}
	}
	s := row()
	s.Open = nil
	c.s.Solvency.put("btc", s)
	wanted("nothing was ever asked for", true)
	if c.s.BalanceWanted("usdt.eth") || c.s.BalanceWanted("doge") {
		t.Error("of an asset that nothing waits for")
	}
	c.say(0, KindBalance, BalanceFact{Asset: "btc"})
	k := *row().Open
	wanted("it is asked for", false)
	c.tick(11_000)
	wanted("members have not answered yet", false)
	k = *row().Open // a minute may have begun
	c.tick(11_000 - min(c.s.Millis-k.Asked, 11_000))
	k = *row().Open
	for i := range 3 {
		c.say(i, KindBalance, BalanceFact{Asset: "btc", Asked: k.Asked, Height: k.Height, Block: fmt.Sprint("fork ", i), Amount: n("1")})
	}
	wanted("they disagree", true)
	c.say(0, KindBalance, BalanceFact{Asset: "btc"})
	c.counts("btc", *row().Open, less("100000000", 30_000_000)) // may be under way
	wanted("asked again at once", false)
	c.tick(11_000)
	if row().Open == nil {
		wanted("ten seconds later", true)
	}
	c.say(0, KindBalance, BalanceFact{Asset: "btc"})
	c.counts("btc", *row().Open, "100000000")
	c.tick(11_000)
	wanted("good", false)
	c.s.setHalt("btc", "a test")
	wanted("of a halted asset", false)
}

// A float is booked by a fact without a height, and members may have seen it above
// the agreed tip: custody at the tip is not held to it. Nor may a traitor push it out
// of the books by a height that is none. Seen failing with the float held to lie
// below every block ("custody is held to what came later"), which halted the chain of
// a new cluster, and with the highest height of all ("a traitor's height").
func TestSolvencyOfAFloatAboveTheTip(t *testing.T) {
	c := newCluster(t)
	c.tick(1000)
	c.tick(1000)
	c.keygen()
	c.flip()
	c.some(3, KindHeight, []HeightReport{{Chain: Ethereum, Height: 100, Hash: "e"}})
	for i := range 2 {
		c.say(i, KindHeight, []HeightReport{{Chain: Ethereum, Height: 103, Hash: "f"}})
	}
	c.say(3, KindHeight, []HeightReport{{Chain: Ethereum, Height: 1 << 40, Hash: "x"}})
	if tip := c.s.Tips.at(Ethereum).Height; tip != 103 {
		t.Fatalf("tip %d", tip)
	}
	c.say(2, KindHeight, []HeightReport{{Chain: Ethereum, Height: 108, Hash: "g"}})
	k := c.asked("eth")
	if k.Height != 103 {
		t.Fatalf("asked at %d", k.Height)
	}
	c.some(3, KindFloat, FloatFact{Chain: Ethereum, Address: c.hot().Address, Amount: etherCore})
	before := c.s.View()
	if row := c.counts("eth", k, "0"); row.Halt != "" || row.Good != k.Asked {
		t.Fatalf("custody is held to what came later: %+v", row)
	}
	c.s = before
	for i := range 3 {
		c.say(i, KindHeight, []HeightReport{{Chain: Ethereum, Height: 109, Hash: "h"}})
	}
	if row := c.counts("eth", c.asked("eth"), less(etherCore.String(), 1)); row.Halt == "" {
		t.Errorf("a traitor's height keeps the float out of the books: %+v", row)
	}
}

// A sweep stays in custody but for its gas, which native coins at a deposit address
// are missing while its end is not known. Seen failing with no gas of sweeps ("takes 0
// of eth"): a check between a sweep's block and the fact of it would have halted the
// chain.
func TestSolvencyOfASweepsGas(t *testing.T) {
	c, _, w := lent(t)
	in := c.inflowTo(accountOf(c, w), "usdt.eth", PurposeSupply, "600000000")
	at := Attempt{Ethereum: &EthereumTx{From: in.Address, To: c.hot().Address, Gas: 21_000, FeeCap: 3, Value: n("7")}}
	for asset, want := range map[string]string{"eth": "63000", "usdt.eth": "0"} {
		if got := c.s.taken(at, must2(c.s.Genesis.Asset(asset))); got != n(want) {
			t.Errorf("takes %s of %s, want %s", got, asset, want)
		}
	}
}
