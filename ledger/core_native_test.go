package ledger

import (
	"testing"

	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/ledger/fixed"
)

// ethers is a cluster with a pool of ETH, and what the chain itself holds at every
// address, kept apart from the ledger's books.
type ethers struct {
	*cluster
	wei map[string]fixed.Int
}

func newEthers(t testing.TB) *ethers {
	t.Helper()
	c := running(t, func(g *Genesis) {
		p := g.Pools[0]
		p.Asset, p.MinSupply, p.MinBorrow, p.MinWithdraw = "eth", fixed.New(gweiCore), fixed.New(gweiCore), fixed.New(gweiCore)
		g.Pools = []PoolParam{g.Pools[0], p, g.Pools[1]}
	})
	e := &ethers{c, map[string]fixed.Int{}}
	for _, role := range gasRoles {
		w, _ := c.s.Vault(Ethereum, role)
		e.wei[w.Address] = etherCore
	}
	return e
}

func (e *ethers) give(to, wei string) { e.wei[to] = must(fixed.Add(e.wei[to], n(wei))) }

// at is where an account's ETH goes.
func (e *ethers) at(id AccountID, p Purpose) string {
	w, ok := e.s.AddressOf(id, Ethereum, p)
	if !ok {
		e.t.Fatal("no address")
	}
	return w.Address
}

// word is what members say of an address at the newest final height.
func (e *ethers) word(addr string) (InflowFact, NativeWord) {
	e.mine(Ethereum, 32)
	h := e.s.Tips.at(Ethereum).Height
	total, word := e.s.NativeReceived(addr, h, e.wei[addr])
	return InflowFact{
		Chain: Ethereum, ID: NativeID(addr, h), Address: addr, Asset: "eth", Amount: total, Height: h, Block: "final",
	}, word
}

// counts has what an address received counted.
func (e *ethers) counts(addr string) InflowFact {
	e.t.Helper()
	f, word := e.word(addr)
	if word != NativeMore {
		e.t.Fatalf("%s: word %d of %s", addr, word, e.wei[addr])
	}
	e.all(KindInflow, f)
	return f
}

// lands has the newest transaction of a batch confirm, at the test's usual fee.
func (e *ethers) lands(b Batch, how Outcome) {
	e.t.Helper()
	b = e.s.Batches.at(b.ID)
	tx, f := b.Newest().Ethereum, e.finalFact(b, how)
	took := f.Fee
	if how == OutcomePaid && len(tx.Data) == 0 {
		took = must(fixed.Add(took, tx.Value))
		e.wei[tx.To] = must(fixed.Add(e.wei[tx.To], tx.Value))
	}
	e.wei[tx.From] = must(fixed.Sub(e.wei[tx.From], took))
	e.all(KindSpent, e.spentFact(b))
	e.mine(Ethereum, 32)
	f.Height = e.s.Tips.at(Ethereum).Height
	e.all(KindFinal, f)
}

// exact: vaults hold what the books say, to the wei, and so does an address.
func (e *ethers) exact(addrs ...string) {
	e.t.Helper()
	vaults := fixed.Int{}
	for _, role := range gasRoles {
		w, _ := e.s.Vault(Ethereum, role)
		vaults = must(fixed.Add(vaults, e.wei[w.Address]))
	}
	if got := e.s.Books("eth"); got != vaults {
		e.t.Errorf("vaults hold %s, the books %s", vaults, got)
	}
	for _, a := range addrs {
		f := e.s.Senders.at(a)
		if got := must(fixed.Add(f.Unswept, f.Float)); got != e.wei[a] || !f.Due.IsZero() {
			e.t.Errorf("%s holds %s, its row is %+v", a, e.wei[a], f)
		}
	}
}

const oneEther = "1000000000000000000"

// "Native ETH: on the cumulative received amount at a finalized height; credit the
// increase. Liquidity counts after the sweep" (spec: outflows §8.4). Every wei is
// where the books say, before and after; the float bears the sweep.
// Seen failing without the increase (all that was ever received is credited again),
// with the sweep's gas left to the pool, with unswept coin paid out, and with the
// payout's gas taken from the float.
func TestNativeDeposit(t *testing.T) {
	e := newEthers(t)
	w := ethWallet(5)
	id := e.open(w)
	addr := e.at(id, PurposeSupply)
	e.give(addr, oneEther)
	f, _ := e.word(addr)
	e.some(2, KindInflow, f)
	if e.s.Counted(f.ID) {
		t.Fatal("two words are enough")
	}
	e.all(KindInflow, f)
	supplied := func() fixed.Int { return e.s.supplyShares(id, "eth") }
	if supplied() != n(oneEther) {
		t.Fatalf("credited %s", supplied())
	}
	e.exact(addr)
	// The same again, at another height, counts nothing.
	if f, word := e.word(addr); word != NativeNothing || e.say(0, KindInflow, f) != DuplicateInflow {
		t.Errorf("word %d of what is counted", word)
	}
	// Accepted at once, and not paid before the sweep.
	if code := e.ask(w, e.payout(address.ActionWithdraw, "eth", "400000000000000000", payeeETH, "1000000000000000")); code != OK {
		t.Fatal(code)
	}
	e.tick(1000)
	sweep := e.payment()
	tx := sweep.Newest().Ethereum
	if o := e.s.Outflows.at(sweep.Outflows[0]); o.Kind != OutflowSweep || tx.From != addr || tx.To != e.hot().Address || len(tx.Data) != 0 ||
		must(fixed.Add(tx.Value, fixed.New(tx.Gas*tx.FeeCap))) != n(oneEther) {
		t.Fatalf("not the sweep: %+v", tx)
	}
	// What arrives meanwhile is not mistaken for anything.
	e.give(addr, "300000000000000000")
	if late, word := e.word(addr); word != NativeLater || e.say(0, KindInflow, late) == OK {
		t.Errorf("word %d while a sweep is under way", word)
	}
	e.lands(sweep, OutcomePaid)
	e.wei[addr] = must(fixed.Sub(e.wei[addr], n("300000000000000000")))
	e.exact(addr)
	e.give(addr, "300000000000000000")
	e.counts(addr)
	if supplied() != n("900000000000000000") {
		t.Errorf("supplied %s", supplied())
	}
	e.tick(1000)
	for range 3 {
		for _, b := range e.payments() {
			e.lands(b, OutcomePaid)
		}
		e.tick(1000)
	}
	if len(e.payments()) != 0 || e.s.Queue.len() != 0 {
		t.Fatalf("%d under way, %d queued", len(e.payments()), e.s.Queue.len())
	}
	e.exact(addr)
	// The client paid the fee of the plan, the chain took less: the pool's gain.
	if paid := e.wei[payeeETH]; paid != n("399937000000000000") {
		t.Errorf("paid %s", paid)
	}
	p := e.s.Pools.at("eth")
	if want := n("13000000000000"); p.FeeGains != want || !p.FeeLosses.IsZero() {
		t.Errorf("the pool gained %s and lost %s", p.FeeGains, p.FeeLosses)
	}
	if float := e.s.Senders.at(e.hot().Address).Float; float != must(fixed.Sub(etherCore, fixed.New(2*50_000*gweiCore))) {
		t.Errorf("float %s: it bears two sweeps", float)
	}
}

// Gas that we send for a token's sweep is no deposit, before, while and after it is
// spent; nor is a deposit gas. Seen failing without Gas in NativeReceived, and
// with balances of any height (Settled).
func TestNativeBesideTokens(t *testing.T) {
	e := newEthers(t)
	id := e.open(ethWallet(5))
	addr := e.at(id, PurposeSupply)
	e.all(KindInflow, e.inflowTo(id, "usdt.eth", PurposeSupply, "500000000"))
	e.tick(1000)
	gas := e.payment()
	tx := gas.Newest().Ethereum
	e.give(addr, tx.Value.String()) // on the chain before any fact about it
	if f, word := e.word(addr); word != NativeLater {
		t.Errorf("word %d of %s while gas is under way", word, f.Amount)
	}
	e.wei[addr] = must(fixed.Sub(e.wei[addr], tx.Value))
	e.lands(gas, OutcomePaid)
	e.give(addr, oneEther)
	if _, word := e.word(addr); word != NativeLater {
		t.Errorf("word %d while the sweep waits", word)
	}
	e.tick(1000)
	e.lands(e.payment(), OutcomePaid)
	f := e.counts(addr)
	if f.Amount != n(oneEther) || e.s.supplyShares(id, "eth") != n(oneEther) {
		t.Fatalf("received %s, credited %s", f.Amount, e.s.supplyShares(id, "eth"))
	}
	e.exact(addr)
	e.tick(1000)
	e.lands(e.payment(), OutcomePaid)
	e.exact(addr)
	if e.s.Senders.at(addr).Float.IsZero() {
		t.Error("the sweep of the coin took what was sent for tokens")
	}
	// A height before the last transaction tells of other times.
	old := f
	old.Amount, old.Height = n("2000000000000000000"), f.Height+1
	old.ID = NativeID(addr, old.Height)
	if code := e.say(0, KindInflow, old); code != Halted {
		t.Errorf("a balance from before the sweep: %s", code)
	}
}

// Less than ten sweeps' worth waits at its address until more arrives, and counts
// then as one deposit; what repays goes to the repay address. Seen failing without
// the minimum.
func TestNativeWaitsForMore(t *testing.T) {
	e := newEthers(t)
	id := e.open(ethWallet(5))
	addr := e.at(id, PurposeSupply)
	e.give(addr, "629999999999999") // ten times 21,000 gas at 3 gwei, less one
	if f, word := e.word(addr); word != NativeNothing || e.say(0, KindInflow, f) != BelowMin {
		t.Fatalf("word %d", word)
	}
	e.give(addr, "1")
	f := e.counts(addr)
	if in := e.s.Inflows.at(f.ID); in.State != InflowCredited || in.Amount != n("630000000000000") {
		t.Errorf("inflow %+v", in)
	}
	bad := f
	bad.ID = NativeID(addr, f.Height+1)
	if code := e.say(0, KindInflow, bad); code != Malformed {
		t.Errorf("a name of another height: %s", code)
	}
	if f, word := e.word(e.hot().Address); word != NativeNothing || e.say(0, KindInflow, f) == OK {
		t.Error("a vault's balance counts as a deposit")
	}
	// Gas became dearer: the sweep waits, and nothing is lost.
	e.feeRate(Ethereum, 5*gweiCore, gweiCore)
	if e.tick(1000); len(e.payments()) != 0 {
		t.Error("a sweep is planned that costs more than a tenth")
	}
	e.feeRate(Ethereum, gweiCore, gweiCore)
	if e.tick(1000); len(e.payments()) != 1 {
		t.Error("it is not planned when gas is cheap again")
	}
}

// A payout that reverts takes gas and nothing else: the client gets the rest, and
// the books stay those of the chain. A sweep that is dearer than what it left for
// gas is sent more. Seen failing with the revert's gas booked as nobody's.
func TestNativeRevertAndBump(t *testing.T) {
	e := newEthers(t)
	w := ethWallet(5)
	id := e.open(w)
	addr := e.at(id, PurposeSupply)
	e.give(addr, oneEther)
	e.counts(addr)
	e.tick(1000)
	sweep := e.payment()
	e.feeRate(Ethereum, 3*gweiCore, 2*gweiCore)
	e.tick(bumpMillis + 1000)
	e.feeRate(Ethereum, 3*gweiCore, 2*gweiCore)
	e.refresh()
	for range 3 {
		e.tick(1000)
		for _, b := range e.payments() {
			if b.ID != sweep.ID {
				e.lands(b, OutcomePaid) // gas
			}
		}
	}
	if sweep = e.s.Batches.at(sweep.ID); len(sweep.Attempts) != 2 {
		t.Fatalf("%d transactions: no bump", len(sweep.Attempts))
	}
	e.lands(sweep, OutcomePaid)
	e.exact(addr)
	e.refresh()
	e.feeRate(Ethereum, gweiCore, gweiCore)
	held := e.s.supplyShares(id, "eth")
	if code := e.ask(w, e.payout(address.ActionWithdraw, "eth", "400000000000000000", payeeETH, "1000000000000000")); code != OK {
		t.Fatal(code)
	}
	e.tick(1000)
	e.lands(e.payment(), OutcomeReverted)
	e.exact(addr)
	if lost := must(fixed.Sub(held, e.s.supplyShares(id, "eth"))); lost != fixed.New(50_000*gweiCore) {
		t.Errorf("the client lost %s, want the gas", lost)
	}
}

// Gas that was sent for a dearer sweep is no deposit, though the cheaper one was
// final first. Seen failing without GasOpen in settled.
func TestNativeGasAfterTheSweep(t *testing.T) {
	e := newEthers(t)
	addr := e.at(e.open(ethWallet(5)), PurposeSupply)
	e.give(addr, oneEther)
	e.counts(addr)
	e.tick(1000)
	sweep := e.payment()
	e.feeRate(Ethereum, 3*gweiCore, 2*gweiCore)
	e.tick(bumpMillis + 1000)
	e.feeRate(Ethereum, 3*gweiCore, 2*gweiCore)
	e.refresh()
	e.tick(1000)
	if len(e.payments()) != 2 {
		t.Fatalf("%d under way, want the sweep and its gas", len(e.payments()))
	}
	gas := e.payments()[1]
	e.lands(sweep, OutcomePaid)
	value := gas.Newest().Ethereum.Value.String()
	e.give(addr, value)
	if f, word := e.word(addr); word != NativeLater {
		t.Errorf("word %d of %s", word, f.Amount)
	}
	e.wei[addr] = must(fixed.Sub(e.wei[addr], n(value)))
	e.lands(gas, OutcomePaid)
	if f, word := e.word(addr); word != NativeNothing || f.Amount != n(oneEther) {
		t.Errorf("word %d of %s", word, f.Amount)
	}
	e.exact(addr)
}

// A balance of custody counts what lies at deposit addresses and is credited.
// Seen failing without them (nothing is asked about, and 20 of 21 ETH would pass).
func TestNativeSolvency(t *testing.T) {
	e := newEthers(t)
	addr := e.at(e.open(ethWallet(5)), PurposeSupply)
	e.give(addr, oneEther)
	e.counts(addr)
	e.s.setHalt("eth", "so that no sweep is planned")
	for units, missing := range map[string]string{"21000000000000000000": "0", "20000000000000000000": oneEther} {
		k := e.asked("eth")
		if len(k.At) != 1 || k.At[0] != addr || k.Owed != n(oneEther) {
			t.Fatalf("asked about %v, owed %s", k.At, k.Owed)
		}
		if row := e.cluster.counts("eth", k, units); row.Newest.Missing() != n(missing) {
			t.Errorf("of %s: %+v", units, row)
		}
	}
}

// ETH is lent against BTC: the borrower's address has what was asked for less the fee,
// to the wei, the gas is the pool's to pay out of that fee and the float's never, and
// what arrives at the repay address ends the debt and is supply beyond it, swept once.
// Seen failing with the payout's gas taken from the float ("vaults hold …, the books
// …") and with the repay address's deposits taken for supply ("owes 900000000000000001").
func TestNativeBorrow(t *testing.T) {
	e := newEthers(t)
	lender, borrower := ethWallet(5), btcWallet(2)
	l, id := e.open(lender), e.open(borrower)
	e.deposit(id, "btc", PurposeSupply, "100000000")
	supply := e.at(l, PurposeSupply)
	e.give(supply, "2000000000000000000")
	e.counts(supply)
	ask := func(units string) Code {
		return e.ask(borrower, e.payout(address.ActionBorrow, "eth", units, payeeETH, "1000000000000000"))
	}
	e.refresh()
	if code := ask("900000000000000001"); code != OK {
		t.Fatalf("lent before the sweep: %s", code) // accepted against what is credited, paid when it is swept
	}
	settle := func() {
		t.Helper()
		for range 4 {
			e.tick(1000)
			for _, b := range e.payments() {
				e.lands(b, OutcomePaid)
			}
		}
		if len(e.payments())+e.s.Queue.len() != 0 {
			t.Fatalf("%d under way, %d queued", len(e.payments()), e.s.Queue.len())
		}
	}
	settle()
	o := e.s.Outflows.at(e.s.NextOutflow - 1)
	if o.Kind != OutflowBorrow || o.State != Paid || e.wei[payeeETH] != o.Net || must(fixed.Add(o.Net, o.Fee)) != n("900000000000000001") {
		t.Fatalf("%s has %s: %+v", payeeETH, e.wei[payeeETH], o)
	}
	owed := func() fixed.Int { return e.s.synced(id).Accounts.at(id).position("eth").Debt }
	if got := owed(); got.Less(n("900000000000000001")) {
		t.Fatalf("owes %s", got)
	}
	p := e.s.Pools.at("eth")
	if want := must(fixed.Sub(o.Fee, fixed.New(50_000*gweiCore))); p.FeeGains != want || !p.FeeLosses.IsZero() {
		t.Errorf("the pool gained %s of a fee of %s", p.FeeGains, o.Fee)
	}
	if float := e.s.Senders.at(e.hot().Address).Float; float != must(fixed.Sub(etherCore, fixed.New(50_000*gweiCore))) {
		t.Errorf("float %s: it bears the sweep alone", float)
	}
	e.exact(supply)
	if code := ask("60000000000000000000"); code != NoLiquidity {
		t.Errorf("more than there is: %s", code)
	}
	repay := e.at(id, PurposeRepay)
	e.give(repay, "1000000000000000000")
	e.counts(repay)
	if got := owed(); !got.IsZero() {
		t.Errorf("owes %s", got)
	}
	if got := e.s.suppliedIn(id, "eth"); got.Less(n("99999000000000000")) || !got.Less(n("100000000000000000")) {
		t.Errorf("supplied %s, want what was beyond 0.9 and its interest", got)
	}
	settle()
	e.exact(supply, repay)
	have := e.s.suppliedIn(id, "eth")
	e.refresh()
	if code := e.ask(borrower, e.payout(address.ActionWithdraw, "eth", have.String(), payeeETH, "1000000000000000")); code != OK {
		t.Fatalf("the excess is not to be had: %s", code)
	}
	settle()
	if got := e.wei[payeeETH]; got != must(fixed.Add(o.Net, e.s.Outflows.at(e.s.NextOutflow-1).Net)) {
		t.Errorf("%s has %s", payeeETH, got)
	}
	e.exact(supply, repay)
}
