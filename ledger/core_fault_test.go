package ledger

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/ledger/fixed"
)

// Rows of the fault table (spec: outflows §10) that no other file has by number;
// testnet/FAULTS.md says where each row is.

// Plants a traitor who offers the third transaction of A{u1} → A′{u1,u2} → A″{u2}:
// it replaces A′ by the chain's rules and lets A confirm beside it. A″ spends what
// the batch holds and pays what is owed; it lacks the anchor, and is refused for
// that alone. Seen failing with VerifySpend not asking for the anchor.
func TestFault02_ReplacementWithoutTheAnchor(t *testing.T) {
	c, _, w := lent(t)
	id := accountOf(c, w)
	c.withdrawBTC(w, "99999000") // of a coin of 100,000,000
	c.tick(1000)
	b := c.payment()
	c.deposit(id, "btc", PurposeSupply, "300000000")
	c.refresh()
	c.feeRate(Bitcoin, 18_000, 0)
	c.mine(Bitcoin, firstBumpBlocks)
	c.tick(1000)
	now, a := c.newest(b)
	if len(b.Newest().Bitcoin.Inputs) != 1 || len(a.Bitcoin.Inputs) != 2 || a.Bitcoin.Inputs[0].Outpoint != b.Anchor {
		t.Fatalf("A %+v, A′ %+v", b.Newest().Bitcoin, a.Bitcoin)
	}
	u2 := a.Bitcoin.Inputs[1]
	vault, _ := c.s.Vault(Bitcoin, address.RoleMinter)
	owed := a.Bitcoin.payments()[0]
	pays := []Payment{
		{Asset: "btc", To: owed.Address, Amount: fixed.New(owed.Sats)},
		{Asset: "btc", To: vault.Address, Amount: fixed.New(u2.Sats - owed.Sats - 2*a.Bitcoin.Fee)},
	}
	err := c.s.VerifySpend(b.ID, a.K, []string{u2.Outpoint}, pays)
	if err == nil || !strings.Contains(err.Error(), "does not consume its anchor "+b.Anchor) {
		t.Errorf("A″: %v", err)
	}
	spends, pays := reads(c, now)
	if err := c.s.VerifySpend(b.ID, a.K, spends, pays); err != nil {
		t.Errorf("A′: %v", err)
	}
}

// Plants an estimator that says 0.142 sat/vB to everybody: the floor applies to
// the plan, and a later bump works. Seen failing without the floor of the agreed
// rate.
func TestFault16_RateBelowTheFloor(t *testing.T) {
	c, _, w := lent(t)
	for range 4 {
		c.tick(600_001)
		c.all(KindFee, []FeeReport{{Chain: Bitcoin, Rate: 142}, {Chain: Ethereum, Rate: gweiCore, Tip: gweiCore}})
	}
	chain, _ := c.s.Genesis.Chain(Bitcoin)
	if got := c.s.Rates.at(Bitcoin).Rate; got != chain.MinRate {
		t.Fatalf("agreed on %d sat/kvB", got)
	}
	c.refresh()
	o := c.withdrawBTC(w, "40000000")
	c.tick(1000)
	b := c.payment()
	if got := b.Newest().rate(); got < chain.MinRate {
		t.Fatalf("planned at %d sat/kvB", got)
	}
	c.mine(Bitcoin, firstBumpBlocks)
	c.tick(1000)
	now, a := c.newest(b)
	if a.Kind != AttemptBump || a.rate() < chain.MinRate*5/4 {
		t.Fatalf("attempt %+v at %d", a, a.rate())
	}
	c.pay(now)
	if got := c.s.Outflows.at(o.ID).State; got != Paid {
		t.Errorf("outflow %s", got)
	}
}

// Plants a parent that is mined, taken back and mined bumped, with a second
// payout waiting for a coin all the while: change is no coin before its
// transaction is final, so nothing is ever built on the parent that loses. Seen
// failing with the change credited when the spend was attested.
func TestFault18_NothingIsBuiltOnUnconfirmedChange(t *testing.T) {
	c, w, _, b := planned(t)
	next := c.withdrawBTC(w, "1000000")
	waits := func(when string) {
		t.Helper()
		c.tick(1000)
		if got := c.s.Outflows.at(next.ID); got.State != Queued {
			t.Fatalf("%s the second payout is %s in %+v", when, got.State, c.batchOf(next.ID).Newest().Bitcoin)
		}
		for _, k := range c.s.Coins.all() {
			if k.Outpoint != b.Anchor {
				t.Fatalf("%s there is a coin %+v", when, k)
			}
		}
	}
	waits("planned:")
	first := c.spentFact(b)
	c.all(KindSpent, first)
	waits("mined:")
	c.all(KindUnmined, UnminedFact{Batch: b.ID, Block: first.Block})
	waits("taken back:")
	c.mine(Bitcoin, firstBumpBlocks)
	c.tick(1000)
	now, a := c.newest(b)
	if a.Kind != AttemptBump {
		t.Fatalf("attempt %+v", a)
	}
	again := c.spentFact(now)
	again.Block = "block-3"
	c.all(KindSpent, again)
	waits("mined, bumped:")
	f := c.finalFact(now, OutcomePaid)
	f.Block = again.Block
	c.all(KindFinal, f)
	c.mine(Bitcoin, 6)
	c.tick(1000)
	child := c.batchOf(next.ID)
	if child.ID == 0 {
		t.Fatal("with the bump final the second payout is not planned")
	}
	for _, in := range child.Newest().Bitcoin.Inputs {
		if !strings.HasPrefix(in.Outpoint, f.TxID) {
			t.Errorf("it spends %s, the final change is of %s", in.Outpoint, f.TxID)
		}
	}
}

// Plants two payouts of one amount to one address in one batch: two outputs, and
// a transaction with one of them, or with their sum, is refused. Seen failing
// with VerifySpend finding both payouts in one output.
func TestFault23_SameAddressTwice(t *testing.T) {
	c, w := tiers(t, 4)
	ids := []uint64{c.small(w, "30000", 1, "5000"), c.small(w, "30000", 1, "5000")}
	c.round()
	b := c.batchOf(ids[0])
	if c.batchOf(ids[1]).ID != b.ID || len(b.Newest().Bitcoin.payments()) != 2 {
		t.Fatalf("payments %+v", b.Newest().Bitcoin.payments())
	}
	spends, pays := reads(c, b)
	if err := c.s.VerifySpend(b.ID, 0, spends, pays); err != nil {
		t.Fatal(err)
	}
	sum := must(fixed.Add(pays[0].Amount, pays[1].Amount))
	kept := slices.Clone(pays[1:]) // and what the other would have had with the change
	kept[len(kept)-1].Amount = must(fixed.Add(kept[len(kept)-1].Amount, pays[0].Amount))
	for name, ps := range map[string][]Payment{
		"one of them": kept,
		"their sum":   append([]Payment{{Asset: "btc", To: payeeBTC(1), Amount: sum}}, pays[2:]...),
	} {
		if c.s.VerifySpend(b.ID, 0, spends, ps) == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	c.pay(b)
	for _, id := range ids {
		if got := c.s.Outflows.at(id).State; got != Paid {
			t.Errorf("outflow %d is %s", id, got)
		}
	}
	c.backed()
}

// refusedPayouts asks for payouts that must be refused before anything moves: no
// outflow, no debit, nothing accrued.
func refusedPayouts(t *testing.T, c *cluster, w wallet, want Code, asks map[string]address.Command) {
	t.Helper()
	id := accountOf(c, w)
	for name, cmd := range asks {
		before := frame(c.s, apartFrom(id))
		if code := c.ask(w, cmd); code != want {
			t.Errorf("%s: %s, want %s", name, code, want)
		}
		if frame(c.s, apartFrom(id)) != before {
			t.Errorf("%s: the refusal moved something", name)
		}
	}
}

// Plants every address of ours as a destination. Seen failing without the look at
// the addresses that the ledger watches.
func TestFault24_PayoutToOurselves(t *testing.T) {
	c, w := tiers(t, 4)
	id := accountOf(c, w)
	other := c.open(ethWallet(41))
	asks := map[string]address.Command{}
	for who, account := range map[string]AccountID{"own": id, "another's": other} {
		for _, p := range []Purpose{PurposeSupply, PurposeRepay} {
			a, ok := c.s.AddressOf(account, Bitcoin, p)
			if !ok {
				t.Fatal("no address")
			}
			asks[fmt.Sprint(who, " ", p)] = c.payout(address.ActionWithdraw, "btc", "1000000", a.Address, "10000")
		}
	}
	for _, role := range []string{address.RoleMinter, address.RolePool} {
		v, ok := c.s.Vault(Bitcoin, role)
		if !ok {
			t.Fatalf("no %s", role)
		}
		asks[role] = c.payout(address.ActionWithdraw, "btc", "1000000", v.Address, "10000")
	}
	refusedPayouts(t, c, w, DestinationRefused, asks)
}

// Plants destinations of another network and of witness programs nobody can spend
// from. Seen failing with payOut not minding what the address check said.
func TestFault25_WrongNetworkOrWitnessVersion(t *testing.T) {
	c, w := tiers(t, 4)
	asks := map[string]address.Command{}
	for name, to := range map[string]string{
		"main network":        "bc1q9vza2e8x573nczrlzms0wvx3gsqjx7vavgkx0l",
		"witness version 2":   "bcrt1z0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqs635n3",
		"version 1, 20 bytes": "bcrt1pw508d6qejxtdg4y5r3zarvary0c5xw7k62vg0x",
		"version 0, 16 bytes": "bcrt1qw508d6qejxtdg4y5r3zarvaryv9c64yu",
		"a key of no point":   "bcrt1pam775nxmvam4pfpqlm5q06k0y84e3x9w0xuhdpmxuna2qj3dfg6qfntxll",
	} {
		asks[name] = c.payout(address.ActionWithdraw, "btc", "1000000", to, "10000")
	}
	refusedPayouts(t, c, w, DestinationRefused, asks)
}

// Plants payouts of both tiers whose net at the signed Max fee is one satoshi
// below what a chain relays: refused, and nothing is burnt or accrued; one more
// satoshi and it is accepted. Seen failing with a limit of one satoshi less.
func TestFault26_DustAfterTheFee(t *testing.T) {
	c, w := tiers(t, 4)
	refusedPayouts(t, c, w, BelowMin, map[string]address.Command{
		"boosted":  c.payout(address.ActionWithdraw, "btc", "10000", payeeBTC(1), "9455"),
		"standard": c.payout(address.ActionWithdraw, "btc", "60000", payeeBTC(1), "59455"),
	})
	if c.s.Two.Boost != 0 || c.s.Two.Pending != 0 {
		t.Errorf("book %+v", c.s.Two)
	}
	c.small(w, "10000", 1, "9454")
	c.small(w, "60000", 1, "59454")
}

// Plants ten thousand deposits of one satoshi: none is a coin, a balance or an
// open question, so none is ever spent or planned for. Seen failing with the limit
// of min_coin at 1.
func TestFault29_TenThousandDepositsOfOneSat(t *testing.T) {
	c, w := tiers(t, 0)
	id := accountOf(c, w)
	f := c.inflowTo(id, "btc", PurposeSupply, "1")
	coins, shares, cash := c.s.Coins.len(), c.s.supplyShares(id, "btc"), c.s.Pools.at("btc").Cash
	for i := range 10_000 {
		f.ID = outpoint(fmt.Sprintf("%064x", i), 0)
		for m := range 3 { // through Apply, without fold and checks: it is the bounds that are looked at
			c.seq++
			if code := c.s.Apply(Command{Attestation: NewAttestation(c.keys[m], c.s.Cluster, c.seq, KindInflow, f)}); code != OK {
				t.Fatalf("deposit %d: %s", i, code)
			}
		}
	}
	c.mine(Bitcoin, 12)
	c.tick(1000)
	if c.s.Coins.len() != coins || c.s.supplyShares(id, "btc") != shares || c.s.Pools.at("btc").Cash != cash || c.s.Suspense.len() != 0 {
		t.Errorf("%d coins, were %d; %d in suspense", c.s.Coins.len(), coins, c.s.Suspense.len())
	}
	if c.s.Tally.len() != 0 || c.s.Seen.len() != 0 || c.s.Queue.len() != 0 || len(c.payments()) != 0 {
		t.Errorf("%d tallies, %d seen, %d queued", c.s.Tally.len(), c.s.Seen.len(), c.s.Queue.len())
	}
}

// Plants a hundred reverts in a row, each at another address: each is refunded
// once, gross less gas, no treasury pays for it, and every sequence is consumed.
// Seen failing with all of it refunded.
func TestFault33_HundredReverts(t *testing.T) {
	c, _, w := lent(t)
	id := accountOf(c, w)
	before := c.s.Pools.at("usdt.eth")
	for i := range 100 {
		if i%10 == 0 {
			c.feeRate(Ethereum, gweiCore, gweiCore)
			c.refresh()
		}
		o := c.s.NextOutflow
		to := ethWallet(500 + i).id.Address
		if code := c.ask(w, c.payout(address.ActionBorrow, "usdt.eth", "100000000", to, "10000000")); code != OK {
			t.Fatalf("borrow %d: %s", i, code)
		}
		c.tick(1000)
		b := c.payment()
		if got := b.Newest().Ethereum.Sequence; got != uint64(i) {
			t.Fatalf("sequence %d, want %d", got, i)
		}
		c.some(3, KindFinal, c.finalFact(b, OutcomeReverted))
		if got := c.s.Outflows.at(o); got.State != Refunded || got.Binding != 0 {
			t.Fatalf("outflow %+v", got)
		}
	}
	after := c.s.Pools.at("usdt.eth")
	if after.TreasuryShares.Less(before.TreasuryShares) || !after.Deficit.IsZero() || !after.Reserved.IsZero() {
		t.Errorf("pool %+v, was %+v", after, before)
	}
	// A hundred times 50,000 gwei at 2,500 USD, and a little interest.
	debt := c.s.Accounts.at(id).position("usdt.eth").Debt
	if debt.Less(n("12490000")) || n("12510000").Less(debt) || c.s.Accounts.at(id).Outflows != 0 {
		t.Errorf("debt %s, %d open", debt, c.s.Accounts.at(id).Outflows)
	}
}

// Plants a chain whose finality stalls, over a payment that is mined and one that
// is not: however long it takes nothing is PAID, nothing has another anchor or
// attempt once it is mined, and what is not mined is bumped as ever. Seen failing
// with the retry of what is seen spent.
func TestFault37_FinalityStalls(t *testing.T) {
	c, w, first, mined := borrowed(t)
	if code := c.ask(w, c.borrowUSDT("100000000")); code != OK {
		t.Fatal(code)
	}
	c.tick(1000)
	open := c.payments()[1]
	second := open.Outflows[0]
	c.all(KindSpent, c.spentFact(mined))
	bumps := 0
	for range 12 {
		c.feeRate(Ethereum, gweiCore, gweiCore)
		c.refresh()
		c.tick(c.s.Params.AttemptMillis)
		bumps = len(c.s.Batches.at(open.ID).Attempts) - 1
	}
	a, b := c.s.Outflows.at(first.ID), c.s.Outflows.at(second)
	if a.State != Mined || a.Binding != 0 || c.s.Batches.at(mined.ID).Anchor != mined.Anchor || c.s.Batches.at(mined.ID).Newest().K != 0 {
		t.Errorf("what is mined became %+v", a)
	}
	if b.State != Planned || b.Binding != 0 || c.s.Batches.at(open.ID).Anchor != open.Anchor || bumps < 3 {
		t.Errorf("what is not mined became %+v with %d bumps", b, bumps)
	}
	if s := c.s.Senders.at(c.hot().Address); s.Next != 2 || s.Open != 2 || len(c.payments()) != 2 {
		t.Errorf("sender %+v, %d payments", s, len(c.payments()))
	}
	c.all(KindFinal, c.finalFact(mined, OutcomePaid))
	if got := c.s.Outflows.at(first.ID).State; got != Paid {
		t.Errorf("with finality back it is %s", got)
	}
}

// Plants one payout that fits no transaction in front of a hundred others: it
// waits, and the hundred are paid, in the order in which they were asked for. Seen
// failing with the planner giving up at the first that waits.
func TestFault58_OneThatNeverFits(t *testing.T) {
	c, w := tiers(t, 4)
	wallets := []wallet{w}
	for i := range 6 { // sixteen open payouts to an account
		other := btcWallet(30 + i)
		c.deposit(c.open(other), "btc", PurposeSupply, "2000000")
		wallets = append(wallets, other)
	}
	c.mine(Bitcoin, 12)
	c.refresh()
	stuck := c.small(w, "5100", 900, "560") // enough for the quote, not for what the rate will be
	var ids []uint64
	for i := range 100 {
		ids = append(ids, c.small(wallets[(i+1)%7], "5100", i, "4500"))
	}
	c.tick((c.s.Params.BoostSeconds - c.s.Time()%c.s.Params.BoostSeconds - 1) * 1000)
	c.feeRate(Bitcoin, 20_000, 0)
	c.tick(1000)
	batches := slices.DeleteFunc(c.payments(), func(b Batch) bool { return b.Vault != address.RolePool })
	var planned []uint64
	for _, b := range batches {
		planned = append(planned, b.Outflows...)
	}
	if got := c.s.Outflows.at(stuck).State; got != Queued || !slices.Equal(planned, ids) {
		t.Fatalf("the one in front is %s, planned %v for %v", got, planned, ids)
	}
	for _, b := range batches {
		c.pay(b)
	}
	for _, id := range ids {
		if got := c.s.Outflows.at(id).State; got != Paid {
			t.Errorf("outflow %d is %s", id, got)
		}
	}
	c.backed()
}

// Plants a crash in the command that brings a final spend to its quorum, and one
// after it: the replica comes back from a snapshot of before, applies what the log
// has, and stands byte by byte where the others stand; the fact counts once. Seen
// failing with open tallies left out of the snapshot.
func TestCrashC07_QuorumReachedAgainAtReplay(t *testing.T) {
	c, _, o, b := planned(t)
	f := c.finalFact(b, OutcomePaid)
	c.all(KindSpent, c.spentFact(b))
	c.some(2, KindFinal, f)
	var file bytes.Buffer
	if err := c.s.Encode(&file); err != nil {
		t.Fatal(err)
	}
	behind := len(c.log)
	c.say(2, KindFinal, f) // Q
	c.say(3, KindFinal, f)
	c.raw(c.log[behind]) // raft may bring a command twice
	if got := c.s.Outflows.at(o.ID).State; got != Paid {
		t.Fatalf("outflow %s", got)
	}
	r, err := ReadState(&file)
	if err != nil {
		t.Fatal(err)
	}
	if got := r.Outflows.at(o.ID).State; got != Mined {
		t.Fatalf("before the replay it is %s", got)
	}
	paid := 0
	for _, raw := range c.log[behind:] {
		for _, e := range r.Execute(raw).Events {
			if e.Name == "outflow-state" && e.Note == Paid.String() {
				paid++
			}
		}
	}
	if paid != 1 || !bytes.Equal(Marshal(r), Marshal(c.s)) || r.Head != c.s.Head {
		t.Errorf("paid %d times, heads %x and %x", paid, r.Head[:4], c.s.Head[:4])
	}
	if err := r.Check(); err != nil {
		t.Error(err)
	}
}
