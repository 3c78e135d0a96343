package ledger

import (
	"bytes"
	"testing"

	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/ledger/fixed"
)

// borrowed is a cluster with a borrow of 1,000 USDT planned.
func borrowed(t testing.TB) (c *cluster, w wallet, o Outflow, b Batch) {
	t.Helper()
	c, _, w = lent(t)
	id := c.s.NextOutflow
	if code := c.ask(w, c.borrowUSDT("1000000000")); code != OK {
		t.Fatal(code)
	}
	c.tick(1000)
	return c, w, c.s.Outflows.at(id), c.payment()
}

func (c *cluster) hot() Watch {
	c.t.Helper()
	w, ok := c.s.Vault(Ethereum, address.RoleHot)
	if !ok {
		c.t.Fatal("no hot address")
	}
	return w
}

// The ledger owns the sequence: contiguous, one anchor each, and the token
// transfer pays the net amount to the address that was signed.
func TestEthereumPlan(t *testing.T) {
	c, w, o, b := borrowed(t)
	tx := b.Newest().Ethereum
	hot := c.hot()
	if tx.From != hot.Address || tx.Sequence != 0 || b.Anchor != EthereumAnchor(hot.Address, 0) || tx.ChainID != 1337 || tx.To != coreToken {
		t.Fatalf("transaction %+v under %s", tx, b.Anchor)
	}
	payee := must(address.ParseEthereum(payeeETH))
	want := append([]byte{0xa9, 0x05, 0x9c, 0xbb}, make([]byte, 12)...)
	want = append(want, payee[:]...)
	net := o.Net.Bytes()
	want = append(want, make([]byte, 32-len(net))...)
	want = append(want, net...)
	if !bytes.Equal(tx.Data, want) || !tx.Value.IsZero() {
		t.Errorf("data %x, want %x", tx.Data, want)
	}
	// 100,000 gas at 2·base + tip = 3 gwei, ETH at 2,500: 0.75 USDT.
	if tx.FeeCap != 3*gweiCore || tx.Gas != 100_000 || o.Fee != n("750000") || o.Net != n("999250000") {
		t.Errorf("fee cap %d, fee %s, net %s", tx.FeeCap, o.Fee, o.Net)
	}
	for i := range uint64(3) {
		if code := c.ask(w, c.borrowUSDT("100000000")); code != OK {
			t.Fatal(code)
		}
		c.tick(1000)
		bs := c.payments()
		last := bs[len(bs)-1]
		if got := last.Newest().Ethereum.Sequence; got != i+1 || last.Anchor != EthereumAnchor(hot.Address, i+1) {
			t.Errorf("sequence %d under %s", got, last.Anchor)
		}
	}
	if s := c.s.Senders.at(hot.Address); s.Next != 4 || s.Open != 4 {
		t.Errorf("sender %+v", s)
	}
}

// Sixteen in flight per sender: the next waits and comes when one is final.
func TestEthereumInFlight(t *testing.T) {
	c, lender, borrower := lent(t)
	for range MaxAccountOpen {
		if code := c.ask(borrower, c.borrowUSDT("10000000"), func(a *address.Command) { a.MaxFee = c.s.Grammar().Amount("usdt.eth", "5000000") }); code != OK {
			t.Fatal(code)
		}
	}
	if code := c.ask(lender, c.payout(address.ActionWithdraw, "usdt.eth", "10000000", payeeETH, "5000000")); code != OK {
		t.Fatal(code)
	}
	c.tick(1000)
	if got := len(c.payments()); got != maxSenderInFlight || c.s.Queue.len() != 1 {
		t.Fatalf("%d in flight, %d waiting", got, c.s.Queue.len())
	}
	c.pay(c.payments()[0])
	c.tick(1000)
	if got := len(c.payments()); got != maxSenderInFlight || c.s.Queue.len() != 0 {
		t.Errorf("%d in flight, %d waiting", got, c.s.Queue.len())
	}
}

// Paid: the client's fee is the pool's, the gas came from the float.
func TestEthereumPaid(t *testing.T) {
	c, w, o, b := borrowed(t)
	pool, float := c.s.Pools.at("usdt.eth"), c.s.Senders.at(c.hot().Address).Float
	f := c.finalFact(b, OutcomePaid)
	c.pay(b)
	after := c.s.Pools.at("usdt.eth")
	if got := c.s.Outflows.at(o.ID); got.State != Paid {
		t.Fatalf("outflow %+v", got)
	}
	if gain := must(fixed.Sub(after.Cash, pool.Cash)); gain != o.Fee || !pool.TreasuryShares.Less(after.TreasuryShares) {
		t.Errorf("the pool gained %s of the fee %s", gain, o.Fee)
	}
	s := c.s.Senders.at(c.hot().Address)
	if want := must(fixed.Sub(float, f.Fee)); s.Float != want || s.Open != 0 {
		t.Errorf("float %s, want %s", s.Float, want)
	}
	if debt := c.s.Accounts.at(accountOf(c, w)).position("usdt.eth").Debt; debt.Less(n("999999000")) {
		t.Errorf("debt %s: the whole amount is owed", debt)
	}
}

// "ETH outflow reverts: sequence consumed; UNPAID_PROVEN at finalized; refunded
// once, gross − gas; no retry; destination refused 24 h" (spec: outflows §10, 33).
func TestFault33_EthereumReverts(t *testing.T) {
	c, w, o, b := borrowed(t)
	id := accountOf(c, w)
	f := c.finalFact(b, OutcomeReverted)
	c.all(KindSpent, c.spentFact(b))
	c.some(3, KindFinal, f)
	got := c.s.Outflows.at(o.ID)
	if got.State != Refunded || !c.s.Batches.at(b.ID).Done || c.s.Accounts.at(id).Outflows != 0 {
		t.Fatalf("outflow %+v", got)
	}
	// 50,000 gwei at 2,500 USD: 0.125 USDT stay owed, and a little interest.
	debt := c.s.Accounts.at(id).position("usdt.eth").Debt
	if debt.Less(n("124000")) || n("126000").Less(debt) {
		t.Errorf("debt after the refund %s shares, want the gas alone", debt)
	}
	if s := c.s.Senders.at(c.hot().Address); s.Next != 1 || s.Open != 0 {
		t.Errorf("sender %+v: the sequence is consumed", s)
	}
	before := frame(c.s)
	for i := range c.keys {
		c.say(i, KindFinal, f)
	}
	if frame(c.s) != before {
		t.Error("refunded twice")
	}
	c.tick(1000)
	if len(c.payments()) != 0 || c.s.Queue.len() != 0 {
		t.Error("a reverted payout is tried again")
	}
	reverted := c.s.Millis
	if code := c.ask(w, c.borrowUSDT("1000000000")); code != DestinationRefused {
		t.Errorf("the same destination: %s", code)
	}
	// For a day, and for this account alone. The day is a jump here: the ledger
	// compares nothing but its own time.
	for after, want := range map[uint64]Code{refusedDestinationMillis - 10_000: DestinationRefused, refusedDestinationMillis + 1: OK} {
		v := *c
		v.s = c.s.View()
		v.s.Millis = reverted + after
		for _, a := range []string{"btc", "eth", "usdt.eth"} {
			p := v.s.Prices.at(a)
			p.Millis = v.s.Millis
			v.s.Prices.put(a, p)
		}
		r := v.s.Rates.at(Ethereum)
		r.Millis = v.s.Millis
		v.s.Rates.put(Ethereum, r)
		if code := v.s.Apply(Command{Intent: w.sign(v.text(w, v.borrowUSDT("1000000000")))}); code != want {
			t.Errorf("%d ms later: %s, want %s", after, code, want)
		}
	}
}

// Plants a token that succeeds and moves nothing: "ERC-20 status 1, no Transfer
// log: HOLD; not paid again" (spec: outflows §10, 34).
func TestFault34_SuccessWithoutLog(t *testing.T) {
	c, _, o, b := borrowed(t)
	c.all(KindSpent, c.spentFact(b))
	c.some(3, KindFinal, c.finalFact(b, OutcomeUnclear))
	if c.s.Outflows.at(o.ID).State != Hold || c.s.OutflowsHalt == "" {
		t.Fatalf("outflow %s, halt %q", c.s.Outflows.at(o.ID).State, c.s.OutflowsHalt)
	}
	c.tick(700_000)
	if len(c.payments()) != 0 || c.s.Pools.at("usdt.eth").Reserved != o.Gross {
		t.Error("what is held was paid again or given back")
	}
}

// Plants a rate above what was signed: "if the rate rises later the outflow waits, without holding up others, and is
// refunded after 24 h" (spec: outflows R-11; §10, 58).
func TestFault58_FeeRisesAboveMaxFee(t *testing.T) {
	c, lender, _ := lent(t)
	cheap := c.s.NextOutflow
	if code := c.ask(lender, c.payout(address.ActionWithdraw, "usdt.eth", "100000000", payeeETH, "750000")); code != OK {
		t.Fatal(code)
	}
	rate := c.s.Rates.at(Ethereum)
	rate.Rate = 2 * gweiCore
	rise := func() {
		rate.Millis = c.s.Millis
		c.s.Rates.put(Ethereum, rate)
	}
	rise()
	dear := c.s.NextOutflow
	if code := c.ask(lender, c.payout(address.ActionWithdraw, "usdt.eth", "100000000", payeeETH, "10000000")); code != OK {
		t.Fatal(code)
	}
	shares := c.s.supplyShares(accountOf(c, lender), "usdt.eth")
	c.tick(1000)
	if a, b := c.s.Outflows.at(cheap).State, c.s.Outflows.at(dear).State; a != Queued || b != Planned {
		t.Fatalf("the cheap one is %s, the one behind it %s", a, b)
	}
	limit := c.s.Params.QueueSeconds * 1000
	c.s.Millis = c.s.Outflows.at(cheap).Created + limit
	c.s.LastTick = c.s.Time() / accrualSeconds
	rise()
	(&execution{s: c.s}).expireQueue()
	if got := c.s.Outflows.at(cheap).State; got != Queued {
		t.Fatalf("at the limit it is %s", got)
	}
	c.tick(1)
	if got := c.s.Outflows.at(cheap).State; got != Refunded {
		t.Errorf("after 24 h it is %s", got)
	}
	if got := c.s.supplyShares(accountOf(c, lender), "usdt.eth"); !shares.Less(got) {
		t.Error("the supply did not come back")
	}
}

// Gates at every plan: whoever orders the log cannot hold a borrow back and
// enter it at the old price (spec: outflows R-12, and §10, 59).
// Seen failing with a retry in place of the cancel.
func TestFault59_GatesAtEveryPlan(t *testing.T) {
	c, _, w := lent(t)
	ask := func(units string) uint64 {
		t.Helper()
		id := c.s.NextOutflow
		if code := c.ask(w, c.borrowUSDT(units)); code != OK {
			t.Fatal(code)
		}
		return id
	}
	id := accountOf(c, w)
	first := ask("30000000000")
	set := func(btc string) { // between two ticks: a price, and no time
		p := c.s.Prices.at("btc")
		p.Low, p.High, p.Millis = n(btc), n(btc), c.s.Millis
		c.s.Prices.put("btc", p)
	}
	// Cannot be evaluated: it waits.
	p := c.s.Prices.at("btc")
	stale := p
	stale.Millis -= 200_000
	c.s.Prices.put("btc", stale)
	if c.tick(1000); c.s.Outflows.at(first).State != Queued {
		t.Fatalf("with a stale price it is %s", c.s.Outflows.at(first).State)
	}
	// Fails before any plan: refunded, nothing paid, nothing owed.
	set("3000000000000")
	if c.tick(1000); c.s.Outflows.at(first).State != Refunded {
		t.Fatalf("after the fall it is %s", c.s.Outflows.at(first).State)
	}
	if a := c.s.Accounts.at(id); a.Outflows != 0 || n("1000000").Less(a.position("usdt.eth").Debt) {
		t.Errorf("account %+v", a)
	}
	// Fails after a plan: cancelled on the chain, and not given back without proof.
	set("5000000000000")
	second := ask("30000000000")
	c.tick(1000)
	b := c.payment()
	set("3000000000000")
	c.s.Millis = b.Newest().Deadline
	c.s.LastTick = c.s.Time() / accrualSeconds
	for _, a := range []string{"btc", "eth", "usdt.eth"} {
		p := c.s.Prices.at(a)
		p.Millis = c.s.Millis
		c.s.Prices.put(a, p)
	}
	c.tick(1000)
	b = c.s.Batches.at(b.ID)
	if a := b.Newest(); a.Kind != AttemptCancel || !a.Cancels() || a.Ethereum.Sequence != b.Attempts[0].Ethereum.Sequence || c.s.Outflows.at(second).State != Cancelling {
		t.Fatalf("attempt %+v, outflow %s", a, c.s.Outflows.at(second).State)
	}
	c.all(KindFinal, c.finalFact(b, OutcomeSelf))
	if got := c.s.Outflows.at(second); got.State != Refunded || got.Binding != 0 {
		t.Errorf("with the cancel final it is %+v", got)
	}
	set("5000000000000")
	// A paused pool stops the plan and refunds nothing.
	third := ask("20000000")
	pool := c.s.Pools.at("usdt.eth")
	pool.Paused = true
	c.s.Pools.put("usdt.eth", pool)
	if c.tick(1000); c.s.Outflows.at(third).State != Queued {
		t.Errorf("while paused it is %s", c.s.Outflows.at(third).State)
	}
}

// A token deposit is credited when its sweep is final, and not before.
func TestSweep(t *testing.T) {
	c := running(t)
	w := ethWallet(5)
	id := c.open(w)
	f := c.inflowTo(id, "usdt.eth", PurposeSupply, "500000000")
	c.all(KindInflow, f)
	credited := func() bool { return !c.s.supplyShares(id, "usdt.eth").IsZero() }
	if in := c.s.Inflows.at(f.ID); in.State != InflowWaiting || credited() {
		t.Fatalf("inflow %+v", in)
	}
	c.tick(1000)
	gas := c.payment()
	og := c.s.Outflows.at(gas.Outflows[0])
	if og.Kind != OutflowGas || og.To != f.Address || og.Account != "" || gas.Newest().Ethereum.Value != og.Net || len(gas.Newest().Ethereum.Data) != 0 {
		t.Fatalf("first %+v", og)
	}
	if c.tick(10_000); len(c.payments()) != 1 {
		t.Fatal("the sweep is planned before its gas is final")
	}
	c.pay(gas)
	if got := c.s.Senders.at(f.Address).Float; got != og.Net || credited() {
		t.Fatalf("float of the deposit address %s", got)
	}
	c.tick(1000)
	sweep := c.payment()
	os, tx := c.s.Outflows.at(sweep.Outflows[0]), sweep.Newest().Ethereum
	if os.Kind != OutflowSweep || tx.From != f.Address || tx.To != coreToken || os.To != c.hot().Address || os.Net != f.Amount {
		t.Fatalf("second %+v with %+v", os, tx)
	}
	if max := must(fixed.Mul(fixed.New(tx.Gas), fixed.New(tx.FeeCap))); og.Net.Less(max) {
		t.Errorf("the sweep may cost %s, its address has %s", max, og.Net)
	}
	c.all(KindSpent, c.spentFact(sweep))
	if credited() {
		t.Fatal("credited before the sweep is final")
	}
	// What arrives meanwhile waits for a sweep of its own.
	later := c.inflowTo(id, "usdt.eth", PurposeSupply, "700000000")
	c.all(KindInflow, later)
	if c.tick(10_000); len(c.payments()) != 1 {
		t.Fatal("two sweeps of one address at once")
	}
	c.some(3, KindFinal, c.finalFact(sweep, OutcomePaid))
	if got := c.s.supplyShares(id, "usdt.eth"); got != n("500000000") {
		t.Fatalf("credited %s", got)
	}
	if in := c.s.Inflows.at(f.ID); in.State != InflowCredited {
		t.Errorf("inflow %+v", in)
	}
	for range 2 {
		c.tick(1000)
		c.pay(c.payment())
	}
	if got := c.s.supplyShares(id, "usdt.eth"); got != n("1200000000") {
		t.Errorf("with the second deposit %s", got)
	}
	if in := c.s.Inflows.at(later.ID); in.State != InflowCredited {
		t.Errorf("second inflow %+v", in)
	}
}

// A reverted sweep credits nothing and is tried again.
func TestSweepReverted(t *testing.T) {
	c := running(t)
	id := c.open(ethWallet(5))
	f := c.inflowTo(id, "usdt.eth", PurposeSupply, "500000000")
	c.all(KindInflow, f)
	c.tick(1000)
	c.pay(c.payment())
	c.tick(1000)
	sweep := c.payment()
	c.some(3, KindFinal, c.finalFact(sweep, OutcomeReverted))
	if in := c.s.Inflows.at(f.ID); in.State != InflowWaiting || in.Outflow != 0 || !c.s.supplyShares(id, "usdt.eth").IsZero() {
		t.Fatalf("inflow %+v", in)
	}
	for range 2 { // gas for what the revert took, then the sweep
		c.tick(1000)
		for _, b := range c.payments() {
			if o := c.s.Outflows.at(b.Outflows[0]); o.Kind == OutflowSweep && b.Newest().Ethereum.Sequence != 1 {
				t.Errorf("the second sweep has sequence %d", b.Newest().Ethereum.Sequence)
			}
			c.pay(b)
		}
	}
	if got := c.s.supplyShares(id, "usdt.eth"); got != n("500000000") {
		t.Errorf("credited %s", got)
	}
}

// A deposit worth less than ten times its sweep waits at its address until
// more arrives, and then all of it is credited.
func TestSweepWaitsForMore(t *testing.T) {
	c := running(t)
	id := c.open(ethWallet(5))
	a := c.inflowTo(id, "usdt.eth", PurposeSupply, "7000000") // ten sweeps cost 7.5 USDT
	c.all(KindInflow, a)
	if c.tick(60_000); len(c.payments()) != 0 || c.s.Queue.len() != 0 || c.s.Inflows.at(a.ID).State != InflowWaiting {
		t.Fatal("a sweep is planned that costs more than a tenth of what it brings")
	}
	c.refresh()
	b := c.inflowTo(id, "usdt.eth", PurposeSupply, "900000")
	c.all(KindInflow, b)
	for range 2 {
		c.tick(1000)
		c.pay(c.payment())
	}
	// 0.9 USDT alone is below min_supply: claimable, never lost.
	if got := c.s.supplyShares(id, "usdt.eth"); got != n("7000000") {
		t.Errorf("credited %s", got)
	}
	if e := c.s.Suspense.at(id + "/usdt.eth"); e.Amount != n("900000") || e.Reason != string(BelowMin) {
		t.Errorf("suspense %+v", e)
	}
}

// Repaying: the debt falls by what arrived, what is beyond becomes supply.
func TestRepayment(t *testing.T) {
	c, w, _, b := borrowed(t)
	id := accountOf(c, w)
	c.pay(b)
	c.deposit(id, "usdt.eth", PurposeRepay, "400000000")
	debt, code := c.s.FullRepay(id, "usdt.eth", 0)
	if code != OK || debt.Less(n("600000000")) || n("600100000").Less(debt) {
		t.Fatalf("owed %s, %s", debt, code)
	}
	c.refresh()
	c.deposit(id, "usdt.eth", PurposeRepay, "700000000")
	p := c.s.Accounts.at(id).position("usdt.eth")
	if !p.Debt.IsZero() || p.Supply.Less(n("99000000")) {
		t.Errorf("position %+v", p)
	}
}

// The genesis float is booked once, at Q, when all of it is there.
func TestFloats(t *testing.T) {
	c := newCluster(t)
	c.tick(1000)
	c.tick(1000)
	c.keygen()
	c.flip()
	hot := c.hot()
	short := FloatFact{Chain: Ethereum, Address: hot.Address, Amount: must(fixed.Sub(etherCore, fixed.New(1)))}
	c.all(KindFloat, short)
	f := FloatFact{Chain: Ethereum, Address: hot.Address, Amount: etherCore}
	c.some(2, KindFloat, f)
	if s := c.s.Senders.at(hot.Address); s.Booked || !s.Float.IsZero() {
		t.Fatalf("sender %+v", s)
	}
	c.say(2, KindFloat, f)
	c.all(KindFloat, f)
	if s := c.s.Senders.at(hot.Address); !s.Booked || s.Float != etherCore {
		t.Errorf("sender %+v", s)
	}
}
