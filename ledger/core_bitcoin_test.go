package ledger

import (
	"slices"
	"testing"

	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/ledger/fixed"
)

func (c *cluster) withdrawBTC(w wallet, sats string) Outflow {
	c.t.Helper()
	id := c.s.NextOutflow
	if code := c.ask(w, c.payout(address.ActionWithdraw, "btc", sats, payeeBTC(1), "10000")); code != OK {
		c.t.Fatalf("withdraw: %s", code)
	}
	return c.s.Outflows.at(id)
}

// planned is a cluster with a withdrawal of 0.4 BTC planned in one batch.
func planned(t testing.TB) (c *cluster, w wallet, o Outflow, b Batch) {
	t.Helper()
	c, _, w = lent(t)
	o = c.withdrawBTC(w, "40000000")
	c.tick(1000)
	return c, w, c.s.Outflows.at(o.ID), c.payment()
}

// The plan fixes the transaction to the byte: anchor first, everything in is
// out or fee, change comes back to the vault (spec: outflows §2.2, §3.1).
func TestBitcoinPlan(t *testing.T) {
	c, w, o, b := planned(t)
	a := b.Newest()
	tx := a.Bitcoin
	vault, _ := c.s.Vault(Bitcoin, address.RoleMinter)
	if o.State != Planned || o.Batch != b.ID || b.Key != KeyECDSA1 || a.K != 0 || a.Kind != AttemptFirst || a.Height != c.s.PlannedAt {
		t.Fatalf("outflow %+v in batch %+v", o, b)
	}
	if len(tx.Inputs) != 1 || b.Anchor != tx.Inputs[0].Outpoint || tx.Inputs[0].Sats != 100_000_000 || len(tx.Outputs) != 2 {
		t.Fatalf("transaction %+v", tx)
	}
	if tx.Outputs[0] != (BitcoinOut{Address: payeeBTC(1), Sats: 40_000_000 - tx.Fee, Outflow: o.ID}) {
		t.Errorf("payment %+v", tx.Outputs[0])
	}
	if tx.Outputs[1] != (BitcoinOut{Address: vault.Address, Sats: 60_000_000}) {
		t.Errorf("change %+v", tx.Outputs[1])
	}
	if o.Fee != fixed.New(tx.Fee) || o.Net != fixed.New(40_000_000-tx.Fee) || tx.Fee < 200 || tx.Fee > 400 {
		t.Errorf("fee %d at %d sat/kvB, booked %s and %s", tx.Fee, tx.Rate, o.Fee, o.Net)
	}
	if k := c.s.Coins.at(b.Anchor); k.State != CoinFrozen || k.Batch != b.ID {
		t.Errorf("coin %+v", k)
	}
	child := must(address.Derive(address.KeyECDSA, KeyECDSA1, c.ecdsa.PubKey().SerializeCompressed(), tx.Inputs[0].Path))
	if string(child.Pub) != string(tx.Inputs[0].Pub) {
		t.Error("the input's key is not the one its path derives")
	}
	if len(a.Roster) != 4 || a.M != 3 || a.Epoch != 1 || a.Deadline != a.Millis+c.s.Params.AttemptMillis {
		t.Errorf("attempt %+v", a)
	}
	// The only coin is frozen: what comes next waits, and fails nothing.
	next := c.withdrawBTC(w, "1000000")
	c.tick(10_000)
	if o := c.s.Outflows.at(next.ID); o.State != Queued || len(c.payments()) != 1 {
		t.Errorf("second outflow %s, %d payments", o.State, len(c.payments()))
	}
	c.pay(b)
	c.tick(1000)
	if o := c.s.Outflows.at(next.ID); o.State != Planned {
		t.Errorf("with the change final the second outflow is %s", o.State)
	}
}

// Plants a coin that a reorganisation can still take away as the only one there
// is: "a coin with < F_btc is never chosen as anchor" (spec: outflows §10, 54).
func TestFault54_AnchorDepth(t *testing.T) {
	c := running(t)
	w := btcWallet(2)
	id := c.open(w)
	f := c.inflowTo(id, "btc", PurposeSupply, "100000000")
	c.some(3, KindInflow, f)
	o := c.withdrawBTC(w, "40000000")
	for depth := uint64(1); depth < 6; depth++ {
		if c.tick(1000); c.s.Outflows.at(o.ID).State != Queued {
			t.Fatalf("planned on a coin of %d confirmations", depth)
		}
		c.mine(Bitcoin, 1)
	}
	c.tick(1000)
	if got := c.s.Outflows.at(o.ID).State; got != Planned {
		t.Errorf("with six confirmations it is %s", got)
	}
}

// Plants five committees after each other for the first outflow of a fresh vault,
// none of which is heard of again: "same bytes, next committee, new deadline", so
// it does not matter which of them signed (spec: outflows §10, 3). The deadline
// doubles up to an hour, and only the newest attempt is stored.
func TestFault03_RetryHasTheSameBytes(t *testing.T) {
	c, _, o, b := planned(t)
	first := b.Newest()
	body := Marshal(first.Bitcoin)
	span := c.s.Params.AttemptMillis
	moved := false
	for k := uint64(1); k <= 5; k++ {
		was := c.s.Batches.at(b.ID).Newest()
		if c.tick(was.Deadline - c.s.Millis); c.s.Batches.at(b.ID).Newest().K != was.K {
			t.Fatalf("attempt %d before the deadline of %d", k, was.K)
		}
		c.tick(1000)
		now := c.s.Batches.at(b.ID)
		a := now.Newest()
		span = min(2*span, maxAttemptMillis)
		if a.K != k || a.Kind != AttemptRetry || a.Body != first.Body || len(now.Attempts) != 1 {
			t.Fatalf("attempt %d: %+v", k, a)
		}
		if string(Marshal(a.Bitcoin)) != string(body) || now.Anchor != b.Anchor {
			t.Fatalf("attempt %d has other bytes or another anchor", k)
		}
		if a.Deadline != a.Millis+span {
			t.Errorf("attempt %d: %d ms, want %d", k, a.Deadline-a.Millis, span)
		}
		if a.At == was.At || a.Height != c.s.PlannedAt {
			t.Errorf("attempt %d stands where the last one stood", k)
		}
		moved = moved || !slices.Equal(a.Roster, was.Roster) // each by itself may come out the same
	}
	if !moved {
		t.Error("five attempts, one roster")
	}
	if got := c.s.Outflows.at(o.ID); got.State != Planned || got.Binding != 0 {
		t.Errorf("outflow %+v", got)
	}
}

// "GaveUp from f+1 members plans the next attempt": one member, however often,
// is not enough, and culprits come last.
func TestGaveUp(t *testing.T) {
	c, _, _, b := planned(t)
	word := GaveUp{Batch: b.ID, Attempt: 0}
	for range 3 {
		if code := c.say(0, KindGaveUp, word); code != OK || c.s.Batches.at(b.ID).Newest().K != 0 {
			t.Fatalf("%s: one member ended an attempt", code)
		}
	}
	for name, w := range map[string]GaveUp{"an attempt to come": {Batch: b.ID, Attempt: 1}, "a batch to come": {Batch: b.ID + 9}} {
		if code := c.say(1, KindGaveUp, w); code != OK || len(c.s.Batches.at(b.ID).Newest().Gave) != 1 {
			t.Errorf("%s: %s", name, code)
		}
	}
	if code := c.say(1, KindGaveUp, GaveUp{Batch: b.ID, Blamed: make([]MemberID, maxReports+1)}); code != Malformed {
		t.Errorf("blaming everybody: %s", code)
	}
	c.say(1, KindGaveUp, word)
	a := c.s.Batches.at(b.ID).Newest()
	if a.K != 1 || a.Kind != AttemptRetry || len(a.Gave) != 0 || string(Marshal(a.Bitcoin)) != string(Marshal(b.Newest().Bitcoin)) {
		t.Fatalf("after f+1 words %+v", a)
	}
	end := []MemberID{a.Roster[2], a.Roster[3]}
	if !slices.Contains(end, idOf(c.keys[0])) || !slices.Contains(end, idOf(c.keys[1])) {
		t.Error("those who gave up do not come last")
	}
	// Words about attempt 0 come too late.
	c.say(2, KindGaveUp, word)
	c.say(3, KindGaveUp, word)
	if c.s.Batches.at(b.ID).Newest().K != 1 {
		t.Error("late words ended the next attempt")
	}
}

// Plants a reorganisation below F under an outflow: PLANNED → MINED at Q, back at
// Q words that the block left, never by less; nothing is released, and what is
// mined again elsewhere pays once (spec: outflows §10, 10).
func TestFault10_MinedAndUnmined(t *testing.T) {
	c, _, o, b := planned(t)
	state := func() OutflowState { return c.s.Outflows.at(o.ID).State }
	f := c.spentFact(b)
	c.some(2, KindSpent, f)
	other := f
	other.Block = "block-2b"
	c.say(2, KindSpent, other)
	c.say(3, KindSpent, other)
	if state() != Planned {
		t.Fatal("mined by fewer than Q with one block hash")
	}
	c.say(2, KindSpent, f)
	if got := c.s.Batches.at(b.ID); state() != Mined || got.Spent == nil || got.Spent.Block != f.Block {
		t.Fatalf("outflow %s, %+v", state(), got.Spent)
	}
	// While it is mined nothing is tried again.
	c.tick(c.s.Params.AttemptMillis + 2000)
	c.say(0, KindGaveUp, GaveUp{Batch: b.ID})
	c.say(1, KindGaveUp, GaveUp{Batch: b.ID})
	if c.s.Batches.at(b.ID).Newest().K != 0 {
		t.Fatal("a mined batch was planned again")
	}
	left := UnminedFact{Batch: b.ID, Block: f.Block}
	for i := range 4 { // of another block: nothing to say
		c.say(i, KindUnmined, UnminedFact{Batch: b.ID, Block: "block-7"})
	}
	c.some(2, KindUnmined, left)
	if state() != Mined {
		t.Fatal("unmined by fewer than Q")
	}
	c.say(3, KindUnmined, left)
	if got := c.s.Batches.at(b.ID); state() != Planned || got.Spent != nil {
		t.Fatalf("outflow %s, %+v", state(), got.Spent)
	}
	c.tick(1000) // its deadline passed meanwhile: the same bytes again
	again := c.s.Batches.at(b.ID)
	if a := again.Newest(); a.K != 1 || a.Body != 0 || again.Anchor != b.Anchor || string(Marshal(a.Bitcoin)) != string(Marshal(b.Newest().Bitcoin)) {
		t.Fatalf("after the reorganisation %+v", a)
	}
	if k := c.s.Coins.at(b.Anchor); k.State != CoinFrozen {
		t.Error("the anchor was released by a reorganisation")
	}
	// Mined again elsewhere and final there: paid once.
	f.Block, f.Height = "block-3", f.Height+1
	c.some(3, KindSpent, f)
	final := c.finalFact(again, OutcomePaid)
	final.Block = f.Block
	c.some(3, KindFinal, final)
	if state() != Paid {
		t.Errorf("outflow %s", state())
	}
}

// Plants every fact about a final spend a second time, and another story with it:
// it settles once, inputs burnt, change credited, fee booked, reservation closed,
// and said again it changes nothing (spec: outflows §10, 49).
func TestFault49_FinalPaysOnce(t *testing.T) {
	c, w, o, b := planned(t)
	id := accountOf(c, w)
	tx := b.Newest().Bitcoin
	pool := c.s.Pools.at("btc")
	if pool.Reserved != n("40000000") {
		t.Fatalf("reserved %s", pool.Reserved)
	}
	c.all(KindSpent, c.spentFact(b))
	f := c.finalFact(b, OutcomePaid)
	liar := f
	liar.Outcome = OutcomeReverted
	c.some(2, KindFinal, f)
	c.say(2, KindFinal, liar)
	c.say(3, KindFinal, liar)
	if c.s.Outflows.at(o.ID).State != Mined {
		t.Fatal("settled by fewer than Q with one story")
	}
	c.say(2, KindFinal, f)
	got := c.s.Outflows.at(o.ID)
	if got.State != Paid || got.TxID != f.TxID || got.Closed != c.s.Millis || c.s.Accounts.at(id).Outflows != 0 {
		t.Fatalf("outflow %+v", got)
	}
	if c.s.Coins.has(b.Anchor) {
		t.Error("the spent coin is still ours")
	}
	change := c.s.Coins.at(f.TxID + ":1")
	if change.Sats != tx.Outputs[1].Sats || change.State != CoinAvailable || change.Height != f.Height {
		t.Errorf("change %+v", change)
	}
	after := c.s.Pools.at("btc")
	if !after.Reserved.IsZero() || after.Cash != n("60000000") || after.TreasuryShares != pool.TreasuryShares {
		t.Errorf("pool %+v", after)
	}
	before := frame(c.s)
	for i := range c.keys {
		if code := c.say(i, KindFinal, f); code != OK {
			t.Error(code)
		}
		c.say(i, KindSpent, c.spentFact(b))
		c.say(i, KindFinal, liar)
	}
	if frame(c.s) != before {
		t.Error("facts about a settled batch changed something")
	}
	for i := range c.keys {
		if code := c.say(i, KindFinal, FinalFact{Batch: b.ID + 1, Outcome: OutcomeSelf}); code != OK {
			t.Errorf("a fact about no batch: %s", code)
		}
	}
}

// Only a planned transaction settles: an outcome this release never plans, or a
// body it does not know, moves nothing.
func TestFinalOfWhatIsNotPlanned(t *testing.T) {
	c, _, o, b := planned(t)
	self := c.finalFact(b, OutcomeSelf)
	unknown := c.finalFact(b, OutcomePaid)
	unknown.Body = 7
	for i := range c.keys {
		if code := c.say(i, KindFinal, self); code != Malformed {
			t.Errorf("a cancel nobody planned: %s", code)
		}
		if code := c.say(i, KindFinal, unknown); code != OK {
			t.Errorf("an unknown body: %s", code)
		}
	}
	if c.s.Outflows.at(o.ID).State != Planned {
		t.Errorf("outflow %s", c.s.Outflows.at(o.ID).State)
	}
}

// "unknown tx spends a pool coin: signing on the vault halts" (spec: outflows
// §10, 28): HOLD, and nothing leaves it by itself.
func TestForeignSpendHolds(t *testing.T) {
	c, w, o, b := planned(t)
	f := SpentFact{Batch: b.ID, Foreign: true, Height: c.s.Tips.at(Bitcoin).Height, Block: "block-2"}
	c.some(2, KindSpent, f)
	if c.s.OutflowsHalt != "" {
		t.Fatal("two members halted everything")
	}
	c.say(3, KindSpent, f)
	if c.s.Outflows.at(o.ID).State != Hold || c.s.OutflowsHalt == "" || !c.s.Batches.at(b.ID).Done {
		t.Fatalf("outflow %s, halt %q", c.s.Outflows.at(o.ID).State, c.s.OutflowsHalt)
	}
	if code := c.ask(w, c.payout(address.ActionWithdraw, "btc", "1000000", payeeBTC(2), "10000")); code != Halted {
		t.Errorf("a withdrawal while halted: %s", code)
	}
	// Time and deposits go on; the held outflow does not move by itself.
	c.deposit(accountOf(c, w), "btc", PurposeSupply, "5000000")
	c.tick(700_000)
	for i := range c.keys {
		c.say(i, KindFinal, c.finalFact(b, OutcomePaid))
		c.say(i, KindGaveUp, GaveUp{Batch: b.ID})
	}
	if c.s.Outflows.at(o.ID).State != Hold || len(c.payments()) != 0 || c.s.Pools.at("btc").Reserved != n("40000000") {
		t.Errorf("outflow %s, %d payments", c.s.Outflows.at(o.ID).State, len(c.payments()))
	}
	if err := c.s.VerifySpend(b.ID, 0, []string{b.Anchor}, nil); err == nil {
		t.Error("a held batch may be signed")
	}
}

// A deposit below min_supply is claimable and not lost; one below min_coin is
// worth less than its spending and counts nowhere.
func TestFault29_SmallDeposits(t *testing.T) {
	c, _, w := lent(t)
	id := accountOf(c, w)
	dust := c.inflowTo(id, "btc", PurposeSupply, "545")
	c.all(KindInflow, dust)
	if in := c.s.Inflows.at(dust.ID); in.State != InflowSmall || c.s.Coins.has(dust.ID) || c.s.Suspense.len() != 0 {
		t.Errorf("dust %+v", in)
	}
	small := c.inflowTo(id, "btc", PurposeSupply, "5099")
	shares := c.s.supplyShares(id, "btc")
	c.all(KindInflow, small)
	c.mine(Bitcoin, 12)
	in := c.s.Inflows.at(small.ID)
	if in.State != InflowSuspense || in.Reason != string(BelowMin) || c.s.supplyShares(id, "btc") != shares {
		t.Fatalf("small deposit %+v", in)
	}
	if e := c.s.Suspense.at(id + "/btc"); e.Amount != n("5099") || e.Reason != string(BelowMin) {
		t.Fatalf("suspense %+v", e)
	}
	claim := func(maxFee string) address.Command {
		cmd := c.payout(address.ActionClaim, "btc", "0", payeeBTC(3), maxFee)
		cmd.Amount = address.Amount{}
		return cmd
	}
	if code := c.ask(w, claim("4600")); code != BelowMin {
		t.Errorf("a claim that would leave dust: %s", code)
	}
	if e := c.s.Suspense.at(id + "/btc"); e.Amount != n("5099") {
		t.Fatalf("a refused claim left %s", e.Amount)
	}
	oid := c.s.NextOutflow
	if code := c.ask(w, claim("4000")); code != OK {
		t.Fatal(code)
	}
	if c.s.Suspense.has(id + "/btc") {
		t.Error("claimed and still in suspense")
	}
	if code := c.ask(w, claim("4000")); code != InsufficientBalance {
		t.Errorf("claimed twice: %s", code)
	}
	c.tick(1000)
	c.pay(c.payment())
	if o := c.s.Outflows.at(oid); o.State != Paid || o.Kind != OutflowRefund || o.Gross != n("5099") {
		t.Errorf("claim %+v", o)
	}
}

// Confirmations grow with what a block brings (spec: outflows §8.2).
func TestInflowDepth(t *testing.T) {
	g, _ := coreGenesis()
	for sats, want := range map[uint64]uint64{
		0: 1, 99_999: 1, 100_000: 2, 160_000_000: 2, 160_000_001: 3, 320_000_000: 4, 960_000_000: 12, 1 << 50: 12,
	} {
		if got := g.InflowDepth(Bitcoin, sats); got != want {
			t.Errorf("%d sats: %d confirmations, want %d", sats, got, want)
		}
	}
	if got := g.InflowDepth(Ethereum, 1<<60); got != 2 {
		t.Errorf("to be swept: %d", got)
	}
}
