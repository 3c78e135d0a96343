package ledger

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/ledger/fixed"
)

const testFloat = 1_000_000 // sats of P

// tiers is a cluster whose pool vault has its float in a number of coins, with
// one account that has 3 BTC in three coins of the minter.
func tiers(t testing.TB, coins int) (c *cluster, w wallet) {
	t.Helper()
	c = running(t, func(g *Genesis) { g.Chains[0].Float = fixed.New(testFloat) })
	pool, ok := c.s.Vault(Bitcoin, address.RolePool)
	if !ok {
		t.Fatal("no pool vault")
	}
	for i := range coins {
		f := InflowFact{
			Chain: Bitcoin, ID: outpoint(fmt.Sprintf("%064x", 7000+i), 0), Address: pool.Address, Asset: "btc",
			Amount: fixed.New(testFloat / uint64(coins)), Height: c.s.Tips.at(Bitcoin).Height, Block: "block-f",
		}
		c.some(3, KindInflow, f)
	}
	if coins > 0 && (!c.s.Two.Booked || c.s.Two.Float != testFloat) {
		t.Fatalf("float %+v", c.s.Two)
	}
	w = btcWallet(2)
	id := c.open(w)
	for range 3 {
		c.deposit(id, "btc", PurposeSupply, "100000000")
	}
	c.mine(Bitcoin, 12)
	c.refresh()
	return c, w
}

func (c *cluster) small(w wallet, sats string, to int, maxFee string) uint64 {
	c.t.Helper()
	id := c.s.NextOutflow
	if code := c.ask(w, c.payout(address.ActionWithdraw, "btc", sats, payeeBTC(to), maxFee)); code != OK {
		c.t.Fatalf("withdraw %s: %s", sats, code)
	}
	return id
}

// round lets the next 300 s mark pass, with the rate as fresh as it must be.
func (c *cluster) round() {
	c.t.Helper()
	c.tick((c.s.Params.BoostSeconds - c.s.Time()%c.s.Params.BoostSeconds) * 1000)
	c.feeRate(Bitcoin, 2_000, 0)
	c.refresh()
}

func (c *cluster) batchOf(id uint64) Batch { return c.s.Batches.at(c.s.Outflows.at(id).Batch) }

// Exactly 50,000 is boosted, 50,001 is not; the boosted one waits for the mark
// even if it is alone, the standard one does not (spec: outflows §6.2).
func TestFault20_TiersAtTheLimit(t *testing.T) {
	c, w := tiers(t, 4)
	at, above := c.small(w, "50000", 1, "10000"), c.small(w, "50001", 2, "10000")
	if a, b := c.s.Outflows.at(at), c.s.Outflows.at(above); !a.Boosted || b.Boosted {
		t.Fatalf("50,000 boosted %v, 50,001 boosted %v", a.Boosted, b.Boosted)
	}
	if c.s.Two.Boost != 50_000 || c.s.Two.Pending != 50_000 {
		t.Errorf("book %+v", c.s.Two)
	}
	c.tick(1000)
	if a, b := c.s.Outflows.at(at), c.s.Outflows.at(above); a.State != Queued || b.State != Planned || c.batchOf(above).Vault != address.RoleMinter {
		t.Fatalf("at once: %s and %s", a.State, b.State)
	}
	// 50,000 of Boost are not paid back, 50,001 would be: whatever the time.
	c.tick(burnSeconds * 1000)
	if c.s.Two.Boost != 50_000 || c.s.Two.Recoup != 0 {
		t.Errorf("burnt at exactly 50,000: %+v", c.s.Two)
	}
	c.round()
	b := c.batchOf(at)
	if c.s.Outflows.at(at).State != Planned || b.Vault != address.RolePool || len(b.Outflows) != 1 {
		t.Fatalf("after the mark: %+v", c.s.Outflows.at(at))
	}
	pool, _ := c.s.Vault(Bitcoin, address.RolePool)
	for _, in := range b.Newest().Bitcoin.Inputs {
		if c.s.Coins.at(in.Outpoint).Address != pool.Address {
			t.Errorf("P pays with a coin of M: %+v", in)
		}
	}
	c.pay(b)
	if got := c.s.Two; got.Pending != 0 || got.Fronted != 50_000 || got.Gained != sats(c.s.Outflows.at(at).Fee) {
		t.Errorf("book %+v", got)
	}
	c.small(w, "5100", 3, "4000")
	c.tick(burnSeconds * 1000)
	if c.s.Two.Boost != 0 || c.s.Two.Recoup != 55_100 {
		t.Errorf("not burnt at 55,100: %+v", c.s.Two)
	}
}

// Plants a burn task that runs again and again, with another leader's clock in
// between: one burn, one recoup, one payment, and the book of P fits (spec:
// outflows W8). Seen failing with Boost left as it was after the burn.
func TestFault21_BurnOnce(t *testing.T) {
	c, w := tiers(t, 4)
	for i := range 3 {
		c.small(w, "40000", i, "10000")
	}
	recoups := func() (ids []uint64) {
		for id, o := range c.s.Outflows.all() {
			if o.Kind == OutflowRecoup {
				ids = append(ids, id)
			}
		}
		return ids
	}
	c.tick(burnSeconds * 1000)
	for range 5 {
		x := &execution{s: c.s}
		x.burnBoost()
		c.s.Accounts.fold()
		c.tick(1000)
	}
	ids := recoups()
	if len(ids) != 1 || c.s.Outflows.at(ids[0]).Gross != fixed.New(120_000) {
		t.Fatalf("recoups %v", ids)
	}
	b := c.batchOf(ids[0])
	if b.Vault != address.RoleMinter {
		t.Fatalf("the recoup is paid by %s", b.Vault)
	}
	pool, _ := c.s.Vault(Bitcoin, address.RolePool)
	sum := func() (n uint64) {
		for _, k := range c.s.Coins.all() {
			if k.Address == pool.Address {
				n += k.Sats
			}
		}
		return n
	}
	before := sum()
	c.pay(b)
	o := c.s.Outflows.at(ids[0])
	if o.State != Paid || sum() != before+sats(o.Net) || c.s.Two.Recoup != 0 {
		t.Errorf("outflow %+v, P went from %d to %d, %+v", o, before, sum(), c.s.Two)
	}
	c.round()
	for _, b := range c.payments() {
		c.pay(b)
	}
	if c.s.Two.Fronted != 120_000 || c.s.Two.Pending != 0 {
		t.Errorf("book %+v", c.s.Two)
	}
	c.backed()
}

// Plants a hundred and one pending payouts, two of them to one address: two
// transactions of disjoint inputs, every output there, each payout once (spec:
// outflows W5, W6; §10, 22 and 23). Seen failing with outputs merged by address.
func TestFault22_HundredAndOne(t *testing.T) {
	c, w := tiers(t, 4)
	wallets := []wallet{w}
	for i := range 6 { // sixteen open payouts to an account
		other := btcWallet(30 + i)
		c.deposit(c.open(other), "btc", PurposeSupply, "2000000")
		wallets = append(wallets, other)
	}
	c.mine(Bitcoin, 12)
	c.refresh()
	var ids []uint64
	for i := range 101 {
		ids = append(ids, c.small(wallets[i%7], "5100", i/2*2, "3000"))
	}
	c.round()
	var used []string
	paid := map[string]int{}
	batches := c.payments()
	batches = slices.DeleteFunc(batches, func(b Batch) bool { return b.Vault != address.RolePool })
	if len(batches) != 2 || len(batches[0].Outflows) != maxBatchOutflows || len(batches[1].Outflows) != 1 {
		t.Fatalf("%d batches", len(batches))
	}
	for _, b := range batches {
		tx := b.Newest().Bitcoin
		for _, in := range tx.Inputs {
			used = append(used, in.Outpoint)
		}
		var least, most uint64
		for i, out := range tx.payments() {
			o := c.s.Outflows.at(out.Outflow)
			if out.Address != o.To || out.Sats != sats(o.Net) || b.Outflows[i] != o.ID {
				t.Fatalf("output %+v for %+v", out, o)
			}
			paid[out.Address]++
			fee := sats(o.Fee)
			if i == 0 || fee < least {
				least = fee
			}
			most = max(most, fee)
		}
		if most-least >= uint64(len(b.Outflows)) {
			t.Errorf("parts of the fee from %d to %d", least, most)
		}
		spends, pays := reads(c, b)
		if err := c.s.VerifySpend(b.ID, 0, spends, pays); err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(used)
	if len(slices.Compact(slices.Clone(used))) != len(used) {
		t.Errorf("inputs %v are not disjoint", used)
	}
	if paid[payeeBTC(0)] != 2 {
		t.Errorf("the address asked for twice is paid %d times", paid[payeeBTC(0)])
	}
	for _, b := range batches {
		c.pay(b)
	}
	for _, id := range ids {
		if c.s.Outflows.at(id).State != Paid {
			t.Errorf("outflow %d is %s", id, c.s.Outflows.at(id).State)
		}
	}
	c.backed()
}

// Plants a bump of a batch of five: all five outputs stay as they were, whoever
// would rather have his coins back (spec: outflows B3; §10, 4).
// Seen failing with the last output dropped from a bump.
func TestFault04_BumpKeepsEveryOutput(t *testing.T) {
	c, w := tiers(t, 4)
	var ids []uint64
	for i := range 5 {
		ids = append(ids, c.small(w, "30000", i, "5000"))
	}
	c.round()
	b := c.batchOf(ids[0])
	if code := c.ask(w, address.Command{Action: address.ActionCancelOutflow, Outflow: ids[3]}); code == OK {
		t.Error("a planned payout was cancelled")
	}
	c.mine(Bitcoin, firstBumpBlocks)
	c.tick(1000)
	now, a := c.newest(b)
	if a.Kind != AttemptBump || !slices.Equal(a.Bitcoin.payments(), b.Newest().Bitcoin.payments()) || len(a.Bitcoin.payments()) != 5 {
		t.Fatalf("attempt %+v", a.Bitcoin)
	}
	c.pay(now)
	for _, id := range ids {
		if c.s.Outflows.at(id).State != Paid {
			t.Errorf("outflow %d is %s", id, c.s.Outflows.at(id).State)
		}
	}
	c.backed()
}

// Plants a pool that is empty, and one whose only coin is frozen: boosted payouts
// wait and nobody is failed; change is split so that it need not happen again
// (spec: outflows W9, U5; §10, 19).
func TestFault19_PoolWithoutCoins(t *testing.T) {
	c, w := tiers(t, 0)
	id := c.small(w, "20000", 1, "5000")
	c.round()
	c.round()
	if got := c.s.Outflows.at(id).State; got != Queued {
		t.Fatalf("with an empty pool it is %s", got)
	}
	c, w = tiers(t, 1)
	first := c.small(w, "20000", 1, "5000")
	c.round()
	second := c.small(w, "20000", 2, "5000")
	c.round()
	if a, b := c.s.Outflows.at(first).State, c.s.Outflows.at(second).State; a != Planned || b != Queued {
		t.Fatalf("%s and %s", a, b)
	}
	b := c.batchOf(first)
	if outs := b.Newest().Bitcoin.Outputs; len(outs) != 1+changePartsMost {
		t.Errorf("change of %v", outs)
	}
	c.pay(b)
	c.round()
	if got := c.s.Outflows.at(second).State; got != Planned {
		t.Errorf("with the change final it is %s", got)
	}
}

// One whose part of the fee is more than he signed waits, and the others do not
// wait for him (spec: outflows W7). A refund takes back what accrued (W10).
func TestBoostedFeeAndRefund(t *testing.T) {
	c, w := tiers(t, 4)
	dear := c.small(w, "20000", 1, "560") // enough for the quote, not for what the rate will be
	cheap := c.small(w, "20000", 2, "5000")
	c.tick((c.s.Params.BoostSeconds - c.s.Time()%c.s.Params.BoostSeconds - 1) * 1000)
	c.feeRate(Bitcoin, 8_000, 0)
	c.tick(1000)
	if a, b := c.s.Outflows.at(dear).State, c.s.Outflows.at(cheap).State; a != Queued || b != Planned {
		t.Fatalf("%s and %s", a, b)
	}
	book := c.s.Two
	if code := c.ask(w, address.Command{Action: address.ActionCancelOutflow, Outflow: dear}); code != OK {
		t.Fatalf("cancel: %s", code)
	}
	if got := c.s.Two; got.Pending != book.Pending-20_000 || got.Boost+book.Over+20_000 != book.Boost+got.Over {
		t.Errorf("book %+v after %+v", got, book)
	}
	c.pay(c.batchOf(cheap))
	c.backed()
}

// Plants the naive clean-up of a coin that is frozen for more than twelve hours:
// what is no anchor may serve others, the anchor is only bound anew, and the old
// transaction that confirms after all pays once (spec: outflows §3.7; §10, 1).
// Seen failing with every frozen coin made available.
func TestFault01_TwelveHourCleanup(t *testing.T) {
	c, w := tiers(t, 4)
	big := c.small(w, "250000000", 1, "10000") // of three coins of 1 BTC
	c.tick(1000)
	old := c.batchOf(big)
	var further []string
	for _, in := range old.Newest().Bitcoin.Inputs[1:] {
		further = append(further, in.Outpoint)
	}
	if len(further) != 2 {
		t.Fatalf("inputs %+v", old.Newest().Bitcoin.Inputs)
	}
	c.s.Millis += 13 * 3_600_000
	c.s.Raw = c.s.Millis
	c.s.LastTick = c.s.Time() / accrualSeconds
	c.feeRate(Bitcoin, 2_000, 0)
	x := &execution{s: c.s}
	x.reuseCoins()
	c.s.Accounts.fold()
	if err := c.s.Check(); err != nil {
		t.Fatal(err)
	}
	now, a := c.newest(old)
	if now.Anchor != old.Anchor || a.Body != 1 || a.Bitcoin.Inputs[0].Outpoint != old.Anchor || c.s.Coins.at(old.Anchor).Frozen != c.s.Millis {
		t.Fatalf("rebound: %+v", a)
	}
	for _, p := range further {
		if k := c.s.Coins.at(p); k.State != CoinFrozen && k.State != CoinReusable {
			t.Errorf("coin %s of a transaction that may confirm is %+v", p, k)
		}
	}
	// The withheld one confirms: paid once, and its coins are gone for everybody.
	c.pay(old)
	if got := c.s.Outflows.at(big); got.State != Paid {
		t.Fatalf("outflow %s", got.State)
	}
	for _, p := range append(further, old.Anchor) {
		if c.s.Coins.has(p) {
			t.Errorf("coin %s is still there", p)
		}
	}
	c.backed()
}

// Plants a coin that serves another batch and is then spent by the old
// transaction: the other is not unpaid by that, its anchor lives; it is planned
// anew without the coin and paid once (spec: outflows §10, 53).
func TestFault53_AFurtherInputIsSpent(t *testing.T) {
	c, w := tiers(t, 4)
	c.deposit(c.open(btcWallet(9)), "btc", PurposeSupply, "40000000")
	c.mine(Bitcoin, 12)
	c.refresh()
	big := c.small(w, "250000000", 1, "10000")
	c.tick(1000)
	old := c.batchOf(big)
	e := old.Newest().Bitcoin.Inputs[1].Outpoint
	// What the clean-up does to e, and a second payout that needs it.
	k := c.s.Coins.at(e)
	k.State, k.Batch, k.Frozen = CoinReusable, 0, 0
	c.s.Coins.put(e, k)
	second := c.small(w, "45000000", 2, "10000")
	c.tick(1000)
	b := c.batchOf(second)
	if b.Anchor == e {
		t.Fatal("a coin that others may spend is an anchor")
	}
	if !slices.ContainsFunc(b.Newest().Bitcoin.Inputs, func(in BitcoinIn) bool { return in.Outpoint == e }) {
		t.Fatalf("the second payout does not use the coin: %+v", b.Newest().Bitcoin.Inputs)
	}
	c.pay(old)
	if c.s.Coins.has(e) {
		t.Fatal("the coin is still there")
	}
	if got := c.s.Outflows.at(second); got.State != Planned {
		t.Fatalf("the second payout is %s", got.State)
	}
	spends, pays := reads(c, c.s.Batches.at(b.ID))
	if err := c.s.VerifySpend(b.ID, c.s.Batches.at(b.ID).Newest().K, spends, pays); err == nil {
		t.Error("a transaction of a spent coin may be signed")
	}
	c.feeRate(Bitcoin, 2_000, 0)
	c.refresh()
	c.mine(Bitcoin, firstBumpBlocks)
	c.tick(1000)
	now, a := c.newest(b)
	if slices.ContainsFunc(a.Bitcoin.Inputs, func(in BitcoinIn) bool { return in.Outpoint == e }) || a.Bitcoin.Inputs[0].Outpoint != b.Anchor {
		t.Fatalf("planned anew: %+v", a.Bitcoin)
	}
	c.pay(now)
	if got := c.s.Outflows.at(second); got.State != Paid {
		t.Errorf("the second payout is %s", got.State)
	}
	c.backed()
}

// An attempt at the cap that can never confirm, since a further input of it is
// final elsewhere, does not have to be outbid. Planted: replaceBitcoin without
// dead. Seen: "stuck behind a dead attempt".
func TestDeadAttemptIsNotOutbid(t *testing.T) {
	c, w := tiers(t, 4)
	c.deposit(c.open(btcWallet(9)), "btc", PurposeSupply, "40000000")
	c.mine(Bitcoin, 12)
	c.refresh()
	big := c.small(w, "250000000", 1, "10000")
	c.tick(1000)
	old := c.batchOf(big)
	e := old.Newest().Bitcoin.Inputs[1].Outpoint
	k := c.s.Coins.at(e)
	k.State, k.Batch, k.Frozen = CoinReusable, 0, 0
	c.s.Coins.put(e, k)
	second := c.small(w, "45000000", 2, "10000")
	c.tick(1000)
	b := c.batchOf(second)
	chain, _ := c.s.Genesis.Chain(Bitcoin)
	tx := *b.Attempts[0].Bitcoin // as if it had been bumped up to the cap
	tx.Rate = chain.MaxRate
	b.Attempts = slices.Clone(b.Attempts)
	b.Attempts[0].Bitcoin = &tx
	c.s.Batches.put(b.ID, b)
	if c.s.dead(tx) {
		t.Fatal("dead while its input is there")
	}
	c.pay(old) // takes e
	if !c.s.dead(tx) {
		t.Fatal("not dead")
	}
	c.feeRate(Bitcoin, 2_000, 0)
	c.refresh()
	c.mine(Bitcoin, firstBumpBlocks)
	c.tick(1000)
	now, a := c.newest(b)
	if a.Body == 0 || a.Bitcoin.Inputs[0].Outpoint != b.Anchor {
		t.Fatalf("stuck behind a dead attempt since %d", now.Stuck)
	}
	c.pay(now)
	c.backed()
}

// Plants a payout that would need more than a hundred inputs: it waits, the small
// coins are merged, and then it is paid (spec: outflows U6; §10, 27).
// Seen failing without the limit of inputs.
func TestFault27_ManySmallCoins(t *testing.T) {
	c := running(t)
	w := btcWallet(2)
	id := c.open(w)
	for range 150 {
		c.some(3, KindInflow, c.inflowTo(id, "btc", PurposeSupply, "10000"))
	}
	c.mine(Bitcoin, 12)
	c.refresh()
	o := c.small(w, "1200000", 1, "100000")
	for range 6 {
		c.tick(1000)
		for _, b := range c.payments() {
			if n := len(b.Newest().Bitcoin.Inputs); n > maxInputs {
				t.Fatalf("%d inputs", n)
			}
			c.pay(b)
			c.backed()
		}
	}
	if got := c.s.Outflows.at(o); got.State != Paid {
		t.Errorf("outflow %+v", got)
	}
	merges := 0
	for _, o := range c.s.Outflows.all() {
		if o.Kind == OutflowMerge && o.State == Paid {
			merges++
		}
	}
	if merges != 1 {
		t.Errorf("%d merges", merges)
	}
}

// The float is what genesis promised, once; coins sent to the vaults by
// strangers are nobody's.
func TestPoolFloat(t *testing.T) {
	c, _ := tiers(t, 2)
	for _, role := range []string{address.RolePool, address.RoleMinter} {
		v, _ := c.s.Vault(Bitcoin, role)
		before := c.s.Coins.len()
		for i := range 4 {
			c.say(i, KindInflow, InflowFact{Chain: Bitcoin, ID: outpoint(fmt.Sprintf("%064x", 9999), 0), Address: v.Address, Asset: "btc", Amount: fixed.New(100_000), Height: 1, Block: "b"})
		}
		if c.s.Coins.len() != before || c.s.Two.Float != testFloat {
			t.Errorf("a stranger's coin at %s is counted: %+v", role, c.s.Two)
		}
	}
}

// "Same address, same number; numbers grow, never reused", also after a snapshot
// (spec: outflows S4).
func TestMappedAddresses(t *testing.T) {
	c, w := tiers(t, 4)
	var ids []uint64
	for _, to := range []int{1, 2, 1, 3} {
		ids = append(ids, c.small(w, "20000", to, "5000"))
	}
	if code := c.ask(w, address.Command{Action: address.ActionCancelOutflow, Outflow: ids[3]}); code != OK {
		t.Fatal(code)
	}
	c.s = restored(t, c.s)
	ids = append(ids, c.small(w, "20000", 4, "5000"), c.small(w, "20000", 3, "5000"))
	var numbers []uint64
	for _, id := range ids {
		o := c.s.Outflows.at(id)
		numbers = append(numbers, o.Mapped)
		sub, ok := o.MappedSubaccount()
		raw, err := sub.Encode()
		if !ok || err != nil || raw[0] != 3 || raw[31] != byte(o.Mapped) || c.s.MappedTo.at(o.Mapped) != o.To {
			t.Errorf("outflow %d to %s: %x of %d", id, o.To, raw, o.Mapped)
		}
	}
	if !slices.Equal(numbers, []uint64{1, 2, 1, 3, 4, 3}) {
		t.Errorf("numbers %v", numbers)
	}
}

// restored is the state as another replica reads it from a snapshot.
func restored(t testing.TB, s *State) *State {
	t.Helper()
	var b bytes.Buffer
	if err := s.Frozen().Encode(&b); err != nil {
		t.Fatal(err)
	}
	again, err := ReadState(&b)
	if err != nil {
		t.Fatal(err)
	}
	return again
}

// The clean-up after twelve hours plans a payment like every other plan: not while
// its gates cannot be evaluated (spec: outflows R-12). Whoever orders the log
// could otherwise hold a plan back for half a day and have it signed at an old price.
func TestCleanupAsksTheGates(t *testing.T) {
	c, w := tiers(t, 4)
	if code := c.ask(w, c.payout(address.ActionWithdraw, "btc", "250000000", payeeBTC(1), "10000")); code != OK {
		t.Fatal(code)
	}
	c.tick(1000)
	b := c.payment()
	pool := c.s.Pools.at("btc")
	pool.Paused = true
	c.s.Pools.put("btc", pool)
	c.s.Millis += 13 * 3_600_000
	c.s.Raw, c.s.LastTick = c.s.Millis, c.s.Time()/accrualSeconds
	c.feeRate(Bitcoin, 2_000, 0)
	x := &execution{s: c.s}
	x.reuseCoins()
	c.s.Accounts.fold()
	if now, a := c.newest(b); a.Body != 0 || len(now.Attempts) != 1 {
		t.Errorf("while its pool is paused, attempt %+v is planned", a)
	}
	pool.Paused = false
	c.s.Pools.put("btc", pool)
	c.s.Millis += 13 * 3_600_000
	c.feeRate(Bitcoin, 2_000, 0)
	x = &execution{s: c.s}
	x.reuseCoins()
	c.s.Accounts.fold()
	if _, a := c.newest(b); a.Kind != AttemptBump {
		t.Errorf("with the gates open, attempt %+v", a)
	}
}

// A merge of coins is anchored by none that an old transaction may still spend,
// and one that is cancelled gives its coins back to the vault.
func TestMergeAnchorAndCancel(t *testing.T) {
	c, _ := tiers(t, 4)
	minter, _ := c.s.Vault(Bitcoin, address.RoleMinter)
	coins := c.s.spareCoins(minter.Address)
	lent := coins[0]
	lent.State = CoinReusable
	c.s.Coins.put(lent.Outpoint, lent)
	x := &execution{s: c.s}
	if code := x.try(func(x *execution) Code { return x.planMerge(minter, x.s.spareCoins(minter.Address)) }); code != OK {
		t.Fatal(code)
	}
	c.s.Accounts.fold()
	b := c.payment()
	if b.Anchor == lent.Outpoint {
		t.Error("a coin that an old transaction may spend is an anchor")
	}
	x = &execution{s: c.s}
	if !x.replace(b, AttemptCancel) {
		t.Fatal("no cancel")
	}
	c.s.Accounts.fold()
	now, _ := c.newest(b)
	c.all(KindFinal, c.finalFact(now, OutcomeSelf))
	if got := c.s.Outflows.at(b.Outflows[0]); got.State != Refunded || got.Heir != "" {
		t.Errorf("merge %+v", got)
	}
	for p, k := range c.s.Coins.all() {
		if k.State != CoinAvailable {
			t.Errorf("coin %s is in state %d", p, k.State)
		}
	}
	c.backed()
}

// A hundred payouts whose clients signed too low a fee hold up nobody behind them
// (spec: outflows R-11, W7).
func TestDearPayoutsHoldUpNobody(t *testing.T) {
	c, w := tiers(t, 4)
	wallets := []wallet{w}
	for i := range 6 {
		other := btcWallet(30 + i)
		c.deposit(c.open(other), "btc", PurposeSupply, "2000000")
		wallets = append(wallets, other)
	}
	c.mine(Bitcoin, 12)
	c.refresh()
	for i := range maxBatchOutflows {
		c.small(wallets[i%7], "5100", i, "560")
	}
	last := c.small(wallets[6], "5100", 200, "4000")
	c.tick((c.s.Params.BoostSeconds - c.s.Time()%c.s.Params.BoostSeconds - 1) * 1000)
	c.feeRate(Bitcoin, 18_000, 0)
	c.tick(1000)
	if got := c.s.Outflows.at(last).State; got != Planned {
		t.Errorf("behind a hundred that wait it is %s", got)
	}
}

// A batch that is cancelled gives each payout an heir of its own, from which it is
// paid again, out of the pool (spec: outflows §3.4).
func TestBoostedBatchIsCancelled(t *testing.T) {
	c, w := tiers(t, 4)
	ids := []uint64{c.small(w, "30000", 1, "5000"), c.small(w, "40000", 2, "5000"), c.small(w, "20000", 3, "5000")}
	c.round()
	b := c.batchOf(ids[0])
	x := &execution{s: c.s}
	if !x.replace(b, AttemptCancel) {
		t.Fatal("no cancel")
	}
	c.s.Accounts.fold()
	now, a := c.newest(b)
	spends, pays := reads(c, now)
	if err := c.s.VerifySpend(b.ID, a.K, spends, pays); err != nil {
		t.Fatal(err)
	}
	if len(a.Bitcoin.Outputs) != 3 || len(now.Outflows) != 3 {
		t.Fatalf("cancel %+v", a.Bitcoin)
	}
	c.all(KindFinal, c.finalFact(now, OutcomeSelf))
	c.backed()
	c.round()
	for _, id := range ids {
		o := c.s.Outflows.at(id)
		again := c.batchOf(id)
		if o.State != Planned || o.Binding != 1 || again.Vault != address.RolePool || again.Anchor == b.Anchor {
			t.Fatalf("%+v in %+v", o, again)
		}
		c.pay(again)
		if got := c.s.Outflows.at(id).State; got != Paid {
			t.Errorf("outflow %d is %s", id, got)
		}
	}
	if c.s.Two.Pending != 0 {
		t.Errorf("book %+v", c.s.Two)
	}
	c.backed()
}
