package ledger

import (
	"slices"
	"strings"
	"testing"

	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/ledger/fixed"
)

// feeRate sets a chain's agreed rate, as fresh as it can be.
func (c *cluster) feeRate(chain string, rate, tip uint64) {
	r := c.s.Rates.at(chain)
	r.Rate, r.Tip, r.Millis = rate, tip, c.s.Millis
	r.BaseRate, r.BaseTip, r.BaseMillis = rate, tip, c.s.Millis
	c.s.Rates.put(chain, r)
}

// newest is a batch as it stands, with the attempt that may be signed.
func (c *cluster) newest(b Batch) (Batch, Attempt) {
	b = c.s.Batches.at(b.ID)
	return b, b.Newest()
}

// Plants a replacement below what nodes demand: each bump is dearer than every
// attempt ever planned by a quarter, and pays for its own relay on top; anchor
// and payments stay, the pool bears the difference. Seen failing with
// the rate of the newest attempt alone.
func TestFault17_BumpRule(t *testing.T) {
	c, _, o, b := planned(t)
	first := b.Newest().Bitcoin
	if c.mine(Bitcoin, firstBumpBlocks-1); c.s.Millis > b.Newest().Deadline {
		t.Fatal("the deadline interferes")
	}
	c.tick(1000)
	if _, a := c.newest(b); a.K != 0 {
		t.Fatalf("attempt %d after five blocks", a.K)
	}
	var rates, fees []uint64
	rates, fees = append(rates, b.Newest().rate()), append(fees, first.Fee)
	for i, blocks := range []uint64{1, nextBumpBlocks, nextBumpBlocks} {
		c.mine(Bitcoin, blocks)
		c.tick(1000)
		now, a := c.newest(b)
		if a.Kind != AttemptBump || a.Body != uint64(i+1) || len(now.Attempts) != i+2 {
			t.Fatalf("attempt %+v", a)
		}
		tx := a.Bitcoin
		if tx.Inputs[0].Outpoint != b.Anchor || !slices.Equal(tx.payments(), first.payments()) {
			t.Fatalf("bump %d pays or spends something else: %+v", i, tx)
		}
		if tx.Rate < slices.Max(rates)*5/4 || tx.Fee < slices.Max(fees)+tx.vsize() {
			t.Errorf("bump %d: %d sats at %d, after %v at %v", i, tx.Fee, tx.Rate, fees, rates)
		}
		rates, fees = append(rates, a.rate()), append(fees, tx.Fee)
	}
	if err := c.s.Check(); err != nil {
		t.Fatal(err)
	}
	// The last one confirms: the client's fee is what he was shown, the rest is a loss.
	was := c.s.Pools.at("btc")
	_, a := c.newest(b)
	c.pay(c.s.Batches.at(b.ID))
	got, pool := c.s.Outflows.at(o.ID), c.s.Pools.at("btc")
	if got.State != Paid || got.Net != o.Net {
		t.Fatalf("outflow %+v", got)
	}
	if loss := must(fixed.Sub(pool.FeeLosses, was.FeeLosses)); loss != must(fixed.Sub(fixed.New(a.Bitcoin.Fee), o.Fee)) {
		t.Errorf("loss of %s for %d, the client paid %s", loss, a.Bitcoin.Fee, o.Fee)
	}
}

// Plants a market above the cap: the batch waits there, says so once, and goes
// on with the same bytes.
func TestFault14_BumpWaitsAtTheCap(t *testing.T) {
	c, _, _, b := planned(t)
	chain, _ := c.s.Genesis.Chain(Bitcoin)
	stuck := 0
	for range 40 {
		c.feeRate(Bitcoin, chain.MaxRate, 0)
		c.mine(Bitcoin, firstBumpBlocks)
		c.tick(1000)
	}
	for _, e := range c.emitted {
		if e.Name == "batch" && e.Note == "stuck-at-cap" {
			stuck++
		}
	}
	now, a := c.newest(b)
	if len(now.Attempts) != 2 || a.rate() > chain.MaxRate+1 || now.Stuck == 0 || stuck != 1 {
		t.Errorf("%d transactions at %d of %d, stuck %d, said %d times", len(now.Attempts), a.rate(), chain.MaxRate, now.Stuck, stuck)
	}
}

// Plants a plan whose change cannot pay for a dearer one: a further coin joins,
// and is free again when the first transaction confirms after all.
func TestCrashC08_OldAttemptConfirmsAfterABump(t *testing.T) {
	c, _, w := lent(t)
	id := accountOf(c, w)
	c.deposit(id, "btc", PurposeSupply, "5000000")
	c.mine(Bitcoin, 6)
	c.refresh()
	o := c.withdrawBTC(w, "99999000") // of a coin of 100,000,000
	c.tick(1000)
	b := c.payment()
	if len(b.Newest().Bitcoin.Inputs) != 1 {
		t.Fatalf("%+v", b.Newest().Bitcoin)
	}
	c.feeRate(Bitcoin, 18_000, 0)
	c.mine(Bitcoin, firstBumpBlocks)
	c.tick(1000)
	now, a := c.newest(b)
	if a.Kind != AttemptBump || len(a.Bitcoin.Inputs) != 2 || a.Bitcoin.Inputs[0].Outpoint != b.Anchor {
		t.Fatalf("attempt %+v", a.Bitcoin)
	}
	further := a.Bitcoin.Inputs[1].Outpoint
	if k := c.s.Coins.at(further); k.State != CoinFrozen || k.Batch != b.ID {
		t.Fatalf("further coin %+v", k)
	}
	spends, pays := reads(c, now)
	if err := c.s.VerifySpend(b.ID, a.K, spends, pays); err != nil {
		t.Fatal(err)
	}
	spends, pays = reads(c, b)
	if err := c.s.VerifySpend(b.ID, 0, spends, pays); err == nil {
		t.Error("an attempt that is not the newest may be signed")
	}
	c.pay(b) // body 0
	if got := c.s.Outflows.at(o.ID); got.State != Paid {
		t.Fatalf("outflow %s", got.State)
	}
	if k := c.s.Coins.at(further); k.State != CoinAvailable || k.Batch != 0 {
		t.Errorf("the coin of the dead attempt is %+v", k)
	}
	c.all(KindFinal, c.finalFact(now, OutcomePaid)) // too late, and another transaction
	if c.s.Coins.at(further).State != CoinAvailable {
		t.Error("a second final fact spent it")
	}
}

// Plants a fall of the price between a plan and its signature: the payment is
// cancelled on the chain and refunded with proof, never before, and the account
// bears what that cost (spec: outflows R-12). Seen failing with a retry in place
// of the cancel.
func TestFault59_GatesFailAfterThePlan(t *testing.T) {
	c, _, w := lent(t)
	id := accountOf(c, w)
	if code := c.ask(w, c.borrowUSDT("10000000000")); code != OK {
		t.Fatal(code)
	}
	c.tick(1000)
	c.pay(c.payment())
	o := c.withdrawBTC(w, "70000000")
	c.tick(1000)
	b := c.payment()
	price := func(btc string) {
		for asset, v := range map[string]string{"btc": btc, "eth": "200000000000", "usdt.eth": "100000000"} {
			p := c.s.Prices.at(asset)
			p.Low, p.High, p.Millis, p.Suspect = n(v), n(v), c.s.Millis, 0
			c.s.Prices.put(asset, p)
		}
	}
	over := func() {
		c.s.Millis = c.s.Batches.at(b.ID).Newest().Deadline
		c.s.LastTick = c.s.Time() / accrualSeconds
	}
	over()
	price("4000000000000")
	c.feeRate(Bitcoin, 10_000, 0)
	c.tick(1000)
	now, a := c.newest(b)
	if a.Kind != AttemptCancel || c.s.Outflows.at(o.ID).State != Cancelling {
		t.Fatalf("attempt %+v, outflow %s", a, c.s.Outflows.at(o.ID).State)
	}
	out := a.Bitcoin.Outputs
	vault, _ := c.s.Vault(Bitcoin, address.RoleMinter)
	if len(out) != 1 || out[0].Heir != o.ID || out[0].Address != vault.Address || out[0].Sats != 100_000_000-a.Bitcoin.Fee {
		t.Fatalf("cancel %+v", a.Bitcoin)
	}
	spends, pays := reads(c, now)
	if err := c.s.VerifySpend(b.ID, a.K, spends, pays); err != nil {
		t.Fatal(err)
	}
	_, paying := reads(c, b)
	if err := c.s.VerifySpend(b.ID, a.K, spends, paying); err == nil || !strings.Contains(err.Error(), "nobody is owed") {
		t.Errorf("the payment passes as a cancel: %v", err)
	}
	// The price recovers, and it stays a cancel: dearer, and the same bytes again.
	over()
	price("10000000000000")
	c.mine(Bitcoin, firstBumpBlocks)
	c.tick(1000)
	if now, a = c.newest(b); !a.Cancels() || a.Body != 2 {
		t.Fatalf("attempt %+v", a)
	}
	// Mined and undone: it is being cancelled still.
	spent := c.spentFact(now)
	c.all(KindSpent, spent)
	if got := c.s.Outflows.at(o.ID).State; got != Mined {
		t.Fatalf("mined: %s", got)
	}
	c.all(KindUnmined, UnminedFact{Batch: b.ID, Block: spent.Block})
	if got := c.s.Outflows.at(o.ID).State; got != Cancelling {
		t.Fatalf("unmined: %s", got)
	}
	// Final while the gates fail: refunded, less what it cost.
	price("4000000000000")
	before, pool := c.s.supplyShares(id, "btc"), c.s.Pools.at("btc")
	for i := range 4 {
		if code := c.say(i, KindFinal, c.finalFact(now, OutcomePaid)); code != Malformed {
			t.Fatalf("a cancel said to pay: %s", code)
		}
	}
	c.all(KindFinal, c.finalFact(now, OutcomeSelf))
	got := c.s.Outflows.at(o.ID)
	if got.State != Refunded || got.Heir != "" {
		t.Fatalf("outflow %+v", got)
	}
	if !before.Less(c.s.supplyShares(id, "btc")) {
		t.Error("the supply did not come back")
	}
	if loss := must(fixed.Sub(c.s.Pools.at("btc").FeeLosses, pool.FeeLosses)); loss != fixed.New(a.Bitcoin.Fee) {
		t.Errorf("the chain took %d, booked as lost %s", a.Bitcoin.Fee, loss)
	}
	c.backed()
}

// backed: the coins of custody are what the book says it owes and holds.
func (c *cluster) backed() {
	c.t.Helper()
	var coins uint64
	for _, k := range c.s.Coins.all() {
		if k.State != CoinSpent {
			coins += k.Sats
		}
	}
	var calc fixed.Calc
	p := c.s.Pools.at("btc")
	if want := calc.Add(calc.Add(calc.Add(p.Cash, p.Reserved), p.Suspended), fixed.New(c.s.Two.Float)); calc.Add(fixed.New(coins), p.Missing) != want || calc.Err() != nil {
		c.t.Errorf("custody holds %d sats, the book says %s", coins, want)
	}
	if err := c.s.Check(); err != nil {
		c.t.Error(err)
	}
}

// Plants a cancel of what is still owed: it is paid again on the heir, an output
// of the transaction that spent the old anchor, so that no reorganisation can
// hold both (spec: outflows §3.4). Seen failing with the largest coin as anchor.
func TestFault55_PaidAgainOnTheHeir(t *testing.T) {
	c, w, o, b := planned(t)
	c.deposit(accountOf(c, w), "btc", PurposeSupply, "900000000")
	c.mine(Bitcoin, 6)
	c.refresh()
	x := &execution{s: c.s}
	if !x.replace(b, AttemptCancel) {
		t.Fatal("no cancel")
	}
	c.s = x.s
	b, _ = c.newest(b)
	c.all(KindSpent, c.spentFact(b))
	c.all(KindFinal, c.finalFact(b, OutcomeSelf))
	got := c.s.Outflows.at(o.ID)
	heir := outpoint(c.finalFact(b, OutcomeSelf).TxID, 0)
	if got.State != Queued || got.Binding != 1 || got.Heir != heir || c.s.Coins.at(heir).State != CoinHeir {
		t.Fatalf("outflow %+v", got)
	}
	c.backed()
	// Nobody else may have it meanwhile.
	other := c.withdrawBTC(w, "50000000")
	c.tick(1000)
	var again, its Batch
	for _, p := range c.payments() {
		if slices.Contains(p.Outflows, o.ID) {
			again = p
		} else if slices.Contains(p.Outflows, other.ID) {
			its = p
		}
	}
	if again.Anchor != heir || its.ID == 0 || its.Anchor == heir || slices.ContainsFunc(its.Newest().Bitcoin.Inputs, func(in BitcoinIn) bool { return in.Outpoint == heir }) {
		t.Fatalf("paid again by %+v, the other by %+v", again, its)
	}
	if got := c.s.Outflows.at(o.ID); got.State != Planned || got.Heir != "" {
		t.Errorf("outflow %+v", got)
	}
	c.pay(again)
	c.pay(its)
	if c.s.Outflows.at(o.ID).State != Paid || c.s.Outflows.at(other.ID).State != Paid {
		t.Error("not both are paid")
	}
	c.backed()
}

// Plants a market that fell tenfold between plan and signature: f+1 members say
// so, the agreed rate follows, and the payment is planned at today's fee. One
// member alone cannot. Seen failing with a quorum of one.
func TestFault56_FeeAbsurd(t *testing.T) {
	for _, chain := range []string{Bitcoin, Ethereum} {
		c, btc, eth := spending(t)
		b := btc
		if chain == Ethereum {
			b = eth
		}
		body := uint64(0)
		if chain == Bitcoin { // the test's first rate is near the floor
			c.feeRate(chain, 18_000, 0)
			c.mine(chain, firstBumpBlocks)
			c.tick(1000)
			body = 1
		}
		_, a := c.newest(b)
		was := a.rate()
		p, _ := c.s.Genesis.Chain(chain)
		if a.Body != body || !c.s.FeeIsAbsurd(chain, a, FeeReport{Chain: chain, Rate: p.MinRate, Tip: 1}) && chain == Bitcoin {
			t.Fatalf("%s: %d at %d, and the floor is not absurd", chain, a.Body, was)
		}
		if c.s.FeeIsAbsurd(chain, a, FeeReport{Chain: chain, Rate: was / 2}) {
			t.Errorf("%s: half of it is absurd", chain)
		}
		if chain == Bitcoin {
			c.feeRate(chain, p.MinRate, 0)
		} else {
			c.feeRate(chain, 1, 1)
		}
		f := FeeAbsurd{Batch: b.ID, Body: body}
		for range 3 {
			c.say(0, KindFeeAbsurd, f)
			c.tick(1)
		}
		if _, a := c.newest(b); a.Body != body {
			t.Fatalf("%s: one member had it repriced", chain)
		}
		c.some(2, KindFeeAbsurd, f)
		c.tick(1)
		now, a := c.newest(b)
		if a.Body != body+1 || a.rate() >= was || a.Kind != AttemptReprice {
			t.Fatalf("%s: attempt %+v at %d after %d", chain, a, a.rate(), was)
		}
		spends, pays := reads(c, now)
		if err := c.s.VerifySpend(b.ID, a.K, spends, pays); err != nil {
			t.Error(err)
		}
		c.pay(now)
		if c.s.Outflows.at(b.Outflows[0]).State != Paid {
			t.Errorf("%s: not paid", chain)
		}
	}
}

// Plants bumps up to the limit and then a block with the very first of them: PAID
// through either (spec: outflows §10, 31). Ethereum's bump: the same sequence and
// call, both fees at least a tenth above all before, every three minutes, at most
// five times the first (spec: §4.1).
func TestFault31_FirstMinesAfterBumps(t *testing.T) {
	c, _, o, b := borrowed(t)
	first := *b.Newest().Ethereum
	for i := range 40 {
		was, a := c.newest(b)
		for c.s.Batches.at(b.ID).Stuck == 0 && len(c.s.Batches.at(b.ID).Attempts) == len(was.Attempts) {
			c.feeRate(Ethereum, gweiCore, gweiCore)
			c.prices("5000000000000", "250000000000", "100000000")
			c.tick(5_000)
		}
		now, next := c.newest(b)
		if now.Stuck != 0 {
			break
		}
		if waited := now.Planned - was.Planned; waited < bumpMillis || waited > bumpMillis+30_000 {
			t.Fatalf("bump %d after %d ms", i, waited)
		}
		old, tx := a.Ethereum, next.Ethereum
		if next.Body != a.Body+1 || tx.Sequence != first.Sequence || tx.To != first.To || string(tx.Data) != string(first.Data) {
			t.Fatalf("bump %d: %+v", i, next)
		}
		if tx.FeeCap*100 < old.FeeCap*110 || tx.Tip*100 < old.Tip*110 || tx.FeeCap > maxFeeMultiple*first.FeeCap {
			t.Errorf("bump %d: %d and %d after %d and %d", i, tx.FeeCap, tx.Tip, old.FeeCap, old.Tip)
		}
	}
	now, a := c.newest(b)
	if now.Stuck == 0 || a.Ethereum.FeeCap <= 4*first.FeeCap {
		t.Fatalf("after %d transactions it is at %d of %d, stuck %d", len(now.Attempts), a.Ethereum.FeeCap, first.FeeCap, now.Stuck)
	}
	// The first mines after all the bumps (spec: outflows §10, 31).
	c.pay(b)
	if got := c.s.Outflows.at(o.ID); got.State != Paid || got.TxID == "" {
		t.Errorf("outflow %+v", got)
	}
	if s := c.s.Senders.at(c.hot().Address); s.Open != 0 {
		t.Errorf("sender %+v", s)
	}
}

// Plants a lost sequence whose payment has to wait: it is cancelled so that the
// later ones flow, and paid again under the next sequence once the cancel is
// final (spec: outflows §4.2). Seen failing with the outflow queued as soon as the
// cancel was planned.
func TestFault32_GapIsCancelled(t *testing.T) { gap(t, false) }

// Plants a payment that is mined after its cancel was planned: the outcome of the
// anchor at finality decides, and nothing is paid again (spec: outflows §10, 35).
func TestFault35_PaymentBeatsTheCancel(t *testing.T) { gap(t, true) }

func gap(t *testing.T, paymentWins bool) {
	c, _, o, b := borrowed(t)
	pool := c.s.Pools.at("usdt.eth")
	pool.Paused = true
	c.s.Pools.put("usdt.eth", pool)
	c.tick(c.s.Params.AttemptMillis + 1000)
	if _, a := c.newest(b); a.Cancels() {
		t.Fatal("cancelled within one deadline")
	}
	c.feeRate(Ethereum, gweiCore, gweiCore)
	c.tick(c.s.Params.AttemptMillis + 1000)
	now, a := c.newest(b)
	if !a.Cancels() || a.Ethereum.Gas != transferGas || a.Ethereum.Sequence != b.Newest().Ethereum.Sequence {
		t.Fatalf("attempt %+v", a)
	}
	spends, _ := reads(c, now)
	if err := c.s.VerifySpend(b.ID, a.K, spends, nil); err != nil {
		t.Fatal(err)
	}
	pool = c.s.Pools.at("usdt.eth")
	pool.Paused = false
	c.s.Pools.put("usdt.eth", pool)
	c.refresh()
	c.feeRate(Ethereum, gweiCore, gweiCore)
	c.tick(1000)
	if got := c.s.Outflows.at(o.ID); got.State != Cancelling || got.Batch != b.ID {
		t.Fatalf("before proof it is %+v", got)
	}
	if paymentWins {
		c.all(KindFinal, c.finalFact(b, OutcomePaid))
		if got := c.s.Outflows.at(o.ID); got.State != Paid {
			t.Errorf("the payment won, and it is %s", got.State)
		}
		return
	}
	c.all(KindFinal, c.finalFact(now, OutcomeSelf))
	if got := c.s.Outflows.at(o.ID); got.State != Queued || got.Binding != 1 {
		t.Fatalf("the cancel won, and it is %+v", got)
	}
	c.refresh()
	c.tick(1000)
	again := c.payment()
	if again.Anchor == b.Anchor || !slices.Contains(again.Outflows, o.ID) {
		t.Fatalf("planned again in %+v", again)
	}
	c.pay(again)
	if got := c.s.Outflows.at(o.ID); got.State != Paid {
		t.Errorf("it is %s", got.State)
	}
}

// The case in which fee_max decides and not the rate: the dearest attempt had many
// inputs, their deposits were undone, and its successor is so small that a rate a
// quarter higher pays less than what nodes ask of it. A deposit that was undone may
// come back, so the old attempt still has to be outbid. Planted: least = 0. Seen:
// "fee 627 at 3000 for 209 vB, want 1035".
func TestFault17_FeeMaxDecides(t *testing.T) {
	c, _, w := lent(t)
	for range 4 {
		c.deposit(accountOf(c, w), "btc", PurposeSupply, "10000000")
	}
	var fs []InflowFact
	other := c.open(btcWallet(7))
	for range 4 {
		fs = append(fs, c.deposit(other, "btc", PurposeSupply, "12000000"))
	}
	c.feeRate(Bitcoin, 2_000, 0)
	c.refresh()
	o := c.withdrawBTC(w, "139000000")
	c.tick(1_000)
	b := c.payment()
	first := b.Newest().Bitcoin
	if len(first.Inputs) != 5 {
		t.Fatalf("%d inputs", len(first.Inputs))
	}
	f := c.inflowTo(c.open(btcWallet(8)), "btc", PurposeSupply, "200000000")
	c.all(KindInflow, f)
	for _, f := range fs {
		c.undo(f)
	}
	c.tick(1_000)
	_, a := c.newest(b)
	tx := a.Bitcoin
	if a.Body != 1 || len(tx.Inputs) != 2 || tx.Inputs[0].Outpoint != b.Anchor || c.s.Outflows.at(o.ID).State != Planned {
		t.Fatalf("attempt %+v", a)
	}
	if want := first.Fee + tx.vsize(); tx.Fee != want || (tx.vsize()*tx.Rate+999)/1000 >= want {
		t.Errorf("fee %d at %d for %d vB, want %d", tx.Fee, tx.Rate, tx.vsize(), want)
	}
	c.backed()
}

// A batch that was bumped as often as it may be is still cancelled: some of its
// transactions are kept for that. Planted: full without cancelBodies. Seen: "64
// transactions, and no cancel".
func TestCancelAtTheBodyLimit(t *testing.T) {
	c, _, o, b := planned(t)
	b = c.s.Batches.at(b.ID)
	for b.bodies() < maxBodies { // as if every bump had found room below the cap
		next := b.Newest()
		next.K, next.Body, next.Kind = next.K+1, next.Body+1, AttemptBump
		if b.full(false) {
			break
		}
		b.Attempts = append(b.Attempts, next)
	}
	c.s.Batches.put(b.ID, b)
	c.mine(Bitcoin, firstBumpBlocks)
	c.tick(c.s.Params.AttemptMillis * 4)
	if now, _ := c.newest(b); now.bodies() != b.bodies() {
		t.Fatalf("bumped beyond the limit: %d", now.bodies())
	}
	c.feeRate(Bitcoin, 2_000, 0)
	c.refresh()
	c.agreed(ProposeCancel, OutflowAct{Batch: b.ID, Outcome: VoteRefund})
	now, a := c.newest(b)
	if !a.Cancels() {
		t.Fatalf("%d transactions, and no cancel", now.bodies())
	}
	c.all(KindFinal, c.finalFact(now, OutcomeSelf))
	if got := c.s.Outflows.at(o.ID).State; got != Refunded {
		t.Errorf("outflow %s", got)
	}
	c.backed()
}

// Plants fat children upon an attempt: "bump counts them or waits at the cap with
// alarm" (spec: outflows §10, 57; §3.2). A replacement pays what they pay on top of
// what it outbids anyway; f members move nothing, fewer than 2f+1 words are none, and
// old ones neither. Seen failing without the fees in least ("outbids 0"), with the
// largest word in place of the median, with two words enough, and with words of any age.
func TestFault57_DescendantsAreOutbid(t *testing.T) {
	// The next bump's fee when members say this, and how long before.
	bump := func(age uint64, said ...uint64) (fee, vsize uint64, stuck bool) {
		c, _, _, b := planned(t)
		for i, sats := range said {
			c.say(i, KindDescendants, Descendants{Batch: b.ID, Sats: sats})
		}
		c.tick(age)
		c.feeRate(Bitcoin, 2_000, 0)
		c.mine(Bitcoin, firstBumpBlocks)
		c.tick(1000)
		now, a := c.newest(b)
		if a.Body == 0 {
			return 0, 0, now.Stuck != 0
		}
		for _, p := range a.Bitcoin.payments() {
			if !slices.Contains(b.Newest().Bitcoin.payments(), p) {
				t.Errorf("a payee pays: %+v", p)
			}
		}
		return a.Bitcoin.Fee, a.Bitcoin.vsize(), now.Stuck != 0
	}
	plain, vsize, _ := bump(0)
	if plain == 0 {
		t.Fatal("no bump at all")
	}
	_, _, _, b := planned(t)
	first := b.Newest().Bitcoin.Fee
	want := func(desc uint64) uint64 { return max(plain, first+desc+vsize) }
	for _, tc := range []struct {
		name string
		age  uint64
		said []uint64
		desc uint64
	}{
		{"all see it", 0, []uint64{1_000, 1_000, 1_000, 1_000}, 1_000},
		{"the upper middle of four", 0, []uint64{0, 900, 1_000, 5_000}, 1_000},
		{"one liar high", 0, []uint64{1_000, 1_000, 1_000, maxDescendantSats}, 1_000},
		{"one liar low", 0, []uint64{1_000, 1_000, 1_000, 0}, 1_000},
		{"two words are none", 0, []uint64{1_000, 1_000}, 0},
		{"it was long ago", 601_000, []uint64{1_000, 1_000, 1_000, 1_000}, 0},
	} {
		if got, _, _ := bump(tc.age, tc.said...); tc.age == 0 && got != want(tc.desc) || tc.age > 0 && got >= want(1_000) && got != 0 {
			t.Errorf("%s: %d sats, want %d", tc.name, got, want(tc.desc))
		}
	}
	if fee, _, stuck := bump(0, 100_000, 100_000, 100_000); fee != 0 || !stuck {
		t.Errorf("beyond the cap: %d sats, alarm %v", fee, stuck)
	}
}

// A word is kept of an open batch alone, one of each member, and is gone with it.
func TestDescendantWords(t *testing.T) {
	c, _, _, b := planned(t)
	id := idOf(c.keys[0])
	some, none := Descendants{b.ID, 700}, Descendants{b.ID, 0}
	if c.s.WantsDescendants(id, none) || !c.s.WantsDescendants(id, some) || c.s.WantsDescendants(id, Descendants{b.ID + 1, 700}) {
		t.Error("what is worth a first word")
	}
	c.say(0, KindDescendants, some)
	if c.s.WantsDescendants(id, some) || c.s.WantsDescendants(id, none) || !c.s.WantsDescendants(idOf(c.keys[1]), none) {
		t.Error("what is worth a second word at once")
	}
	c.tick(descendantsEvery)
	if !c.s.WantsDescendants(id, none) || c.s.WantsDescendants(id, some) {
		t.Error("what is worth a second word later")
	}
	c.say(0, KindDescendants, none)
	if w := c.s.Children.at(b.ID); len(w) != 1 || w[0].Sats != 0 {
		t.Errorf("words %+v", w)
	}
	if code := c.say(0, KindDescendants, Descendants{b.ID, maxDescendantSats + 1}); code != Malformed {
		t.Errorf("more than there is: %s", code)
	}
	c.pay(b)
	c.say(1, KindDescendants, some)
	if c.s.Children.len() != 0 {
		t.Error("words about a batch that is done")
	}
}
