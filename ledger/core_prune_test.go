package ledger

import (
	"fmt"
	"testing"

	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/ledger/fixed"
	"pgregory.net/rapid"
)

// later lets time pass without a word of anybody, and then a beat.
func (c *cluster) later(ms uint64) {
	c.t.Helper()
	c.s.Millis += ms
	c.s.Raw = c.s.Millis
	c.tick(15_000)
}

func (c *cluster) openAgain(w wallet) Code {
	c.t.Helper()
	return c.ask(w, address.Command{Action: address.ActionOpenAccount}, func(a *address.Command) { a.Nonce = 0 })
}

// "An account without value … is dropped after 48 h without activity. Its
// addresses stay watched; what arrives is credited to the id, and Open account by
// the same wallet takes it up again" (spec: lending §3).
func TestPruning(t *testing.T) {
	c, _, borrower := lent(t)
	w := ethWallet(31)
	id := c.open(w)
	if code := c.payees(w, address.ActionAddPayoutAddress, payee(payeeETH)); code != OK {
		t.Fatal(code)
	}
	c.later(pruneMillis - 20_000)
	if code := c.ask(w, address.Command{Action: address.ActionCancel}); code != OK {
		t.Fatalf("before its time: %s", code)
	}
	c.later(pruneMillis - 20_000)
	if !c.s.Accounts.has(id) {
		t.Fatal("dropped although it was active")
	}
	others, watched, log := c.s.Accounts.len()-1, c.s.Watched.Len(), c.s.Watched.Len()
	c.later(60_000)
	if c.s.Accounts.has(id) || c.s.Payouts.has(id) || c.s.Idle.len() != 0 {
		t.Fatalf("not dropped: %+v, %d idle", c.s.Accounts.at(id), c.s.Idle.len())
	}
	if c.s.Accounts.len() != others || !c.s.Accounts.has(accountOf(c, borrower)) {
		t.Error("somebody else was dropped")
	}
	if c.s.Watched.Len() != watched || c.s.Watched.Len() != log {
		t.Error("its addresses are not watched any more")
	}
	if code := c.ask(w, address.Command{Action: address.ActionCancel}); code != UnknownAccount {
		t.Errorf("a request for it: %s", code)
	}

	// A late deposit is found, and credited to the id.
	c.all(KindFee, []FeeReport{{Chain: Bitcoin, Rate: 2_000}, {Chain: Ethereum, Rate: gweiCore, Tip: gweiCore}})
	c.deposit(id, "btc", PurposeSupply, "100000000")
	if c.s.supplyShares(id, "btc").IsZero() {
		t.Fatal("the late deposit is not the account's")
	}
	if code := c.ask(w, address.Command{Action: address.ActionCancel}); code != SignerNotLinked {
		t.Errorf("before it is open again: %s", code)
	}
	c.later(pruneMillis + 60_000)
	if c.s.supplyShares(id, "btc").IsZero() {
		t.Fatal("coins without a wallet were dropped")
	}
	if code := c.openAgain(w); code != OK {
		t.Fatal(code)
	}
	c.tick(1000) // so that it is another text
	if code := c.openAgain(w); code != AccountExists {
		t.Errorf("opened twice: %s", code)
	}
	if c.s.Watched.Len() != watched || c.s.Watched.Len() != log {
		t.Error("its addresses are registered twice")
	}
	c.later(pruneMillis + 60_000)
	c.all(KindFee, []FeeReport{{Chain: Bitcoin, Rate: 2_000}, {Chain: Ethereum, Rate: gweiCore, Tip: gweiCore}})
	c.refresh()
	if code := c.ask(w, c.payout(address.ActionWithdraw, "btc", "50000000", payeeBTC(1), "10000")); code != OK {
		t.Errorf("a withdrawal from the account taken up again: %s", code)
	}
}

// A late deposit may go to suspense: it can be claimed after opening again.
func TestPrunedSuspense(t *testing.T) {
	c, _, _ := lent(t)
	w := ethWallet(31)
	id := c.open(w)
	c.later(pruneMillis + 60_000)
	c.all(KindFee, []FeeReport{{Chain: Bitcoin, Rate: 2_000}, {Chain: Ethereum, Rate: gweiCore, Tip: gweiCore}})
	p := c.s.Pools.at("btc")
	p.Frozen = true
	c.s.Pools.put("btc", p)
	c.deposit(id, "btc", PurposeSupply, "100000000")
	if got := c.s.Suspense.at(id + "/btc"); got.Amount != n("100000000") {
		t.Fatalf("in suspense %+v", got)
	}
	c.later(pruneMillis + 60_000)
	c.all(KindFee, []FeeReport{{Chain: Bitcoin, Rate: 2_000}, {Chain: Ethereum, Rate: gweiCore, Tip: gweiCore}})
	if code := c.openAgain(w); code != OK {
		t.Fatal(code)
	}
	if code := c.ask(w, c.payout(address.ActionClaim, "btc", "0", payeeBTC(1), "10000")); code != OK {
		t.Errorf("claim: %s", code)
	}
}

// No text that was signed for an account fits the one opened after it was
// pruned, though nothing is kept of it: "Cancel" at a nonce is for ever.
func TestPrunedTextsStayDead(t *testing.T) {
	c, _, _ := lent(t)
	w := btcWallet(31)
	id := c.open(w)
	var live []*Intent // of the old account, good for the time after it is gone
	for nonce := range uint64(6) {
		cmd := c.payout(address.ActionWithdraw, "btc", "1000000", payeeBTC(1), "10000")
		live = append(live, w.sign(c.text(w, cmd, func(a *address.Command) {
			a.Nonce, a.Expires = nonce+1, int64((c.s.Millis+pruneMillis+400_000)/1000)
		})))
	}
	for range 3 {
		if code := c.ask(w, address.Command{Action: address.ActionCancel}); code != OK {
			t.Fatal(code)
		}
	}
	c.later(pruneMillis + 20_000)
	c.all(KindFee, []FeeReport{{Chain: Bitcoin, Rate: 2_000}, {Chain: Ethereum, Rate: gweiCore, Tip: gweiCore}})
	c.deposit(id, "btc", PurposeSupply, "100000000")
	if code := c.openAgain(w); code != OK {
		t.Fatal(code)
	}
	replay := func() {
		t.Helper()
		for i, in := range live {
			before := frame(c.s)
			if code := c.run(Command{Intent: in}); code != BadNonce || frame(c.s) != before {
				t.Errorf("nonce %d signed for the old account: %s", i+1, code)
			}
		}
	}
	replay()
	first := c.s.Accounts.at(id).Nonce
	if code := c.ask(w, c.payout(address.ActionWithdraw, "btc", "1000000", payeeBTC(1), "10000")); code != OK || c.s.Accounts.at(id).Nonce != first+1 {
		t.Errorf("a text of the new one: %s", code)
	}
	replay()
}

// A simple loan nobody paid into goes two days after its window, not before, and
// its id may be opened again.
func TestPrunedLoans(t *testing.T) {
	c, _, _ := lent(t)
	w := btcWallet(50)
	id := c.openLoan(w, 7)
	c.later(c.s.Params.LoanWindowSeconds*1000 + pruneMillis - 60_000)
	if !c.s.Loans.has(id) {
		t.Fatal("dropped before its time")
	}
	c.later(120_000)
	if c.s.Loans.has(id) || c.s.Accounts.has(id) || c.s.IdleLoans.len() != 0 {
		t.Fatal("not dropped")
	}
	c.all(KindFee, []FeeReport{{Chain: Bitcoin, Rate: 2_000}, {Chain: Ethereum, Rate: gweiCore, Tip: gweiCore}})
	c.refresh()
	c.deposit(id, "btc", PurposeSupply, "100000000")
	c.later(pruneMillis + 60_000)
	c.all(KindFee, []FeeReport{{Chain: Bitcoin, Rate: 2_000}, {Chain: Ethereum, Rate: gweiCore, Tip: gweiCore}})
	c.refresh()
	refused := w.sign(c.loanText(w, 7, func(a *address.Command) { a.MaxFee.Units = "1" }))
	before := frame(c.s)
	if code := c.run(Command{Intent: refused}); code != FeeTooHigh || frame(c.s) != before {
		t.Errorf("refused terms: %s; changed: %v", code, frame(c.s) != before)
	}
	c.openLoan(w, 7)
	if a := c.s.Accounts.at(id); a.Nonce <= 8 || len(a.Wallets) != 1 || !c.s.LoansReady.has(id) {
		t.Errorf("opened again: %+v", a)
	}
	c.beat()
	if c.loan(id).Phase != LoanGranted {
		t.Errorf("collateral that was there before: %s, %s", c.loan(id).Phase, c.loan(id).Code)
	}
}

// The cap of accounts never credited: the idlest makes room once its answers are
// not wanted any more; until then LIMIT, and the text may be sent again.
func TestIdleLimit(t *testing.T) {
	c, _, borrower := lent(t)
	c.broken = true // Check walks all of them
	fill := func(in *table[string, AccountID], key func(AccountID) string) {
		for i := 0; in.len() < maxIdle; i++ {
			id := fmt.Sprintf("%032x", i)
			c.s.Accounts.put(id, Account{ID: id, Wallets: []string{"w"}, Nonce: 1, Opened: c.s.Millis, Active: c.s.Millis})
			in.put(key(id), id)
		}
		c.s.Accounts.fold()
	}
	fill(&c.s.Idle, func(id AccountID) string { return idleKey(c.s.Millis, id) })
	all := c.s.Accounts.len()
	w := ethWallet(31)
	in := Command{Intent: w.sign(c.text(w, address.Command{Action: address.ActionOpenAccount}))}
	before := c.s.root()
	if code := c.s.Apply(in); code != Limit || c.s.root() != before {
		t.Fatalf("with %d idle: %s, changed: %v", maxIdle, code, c.s.root() != before)
	}
	c.s.Millis += c.s.Params.ExpirySeconds*1000 + 1
	in = Command{Intent: w.sign(c.text(w, address.Command{Action: address.ActionOpenAccount}))}
	if code := c.s.Apply(in); code != OK || c.s.Accounts.len() != all || c.s.Idle.len() != maxIdle {
		t.Errorf("when the idlest may go: %s, %d accounts, %d idle", code, c.s.Accounts.len(), c.s.Idle.len())
	}
	if c.s.Accounts.has(fmt.Sprintf("%032x", 0)) || !c.s.Accounts.has(accountOf(c, borrower)) {
		t.Error("not the idlest was dropped")
	}
	c.s.Millis += pruneMillis
	x := &execution{s: c.s}
	x.pruneIdle()
	c.s.Accounts.fold()
	if got := maxIdle - c.s.Idle.len(); got != maxPruned {
		t.Errorf("%d dropped in one beat, want %d", got, maxPruned)
	}

	l, _, _ := lent(t)
	l.broken = true
	loan := Command{Intent: btcWallet(50).sign(l.loanText(btcWallet(50), 1))}
	for i := range uint64(MaxOpenLoans) {
		l.s.LoansReady.put(fmt.Sprintf("%032x", i), 1)
	}
	if code := l.s.Apply(loan); code != Limit {
		t.Errorf("with %d loans that hold coins: %s", MaxOpenLoans, code)
	}
	l.s.LoansReady.delete(fmt.Sprintf("%032x", 1))
	for i := range maxIdle {
		l.s.IdleLoans.put(fmt.Sprint(i), "x")
	}
	if code := l.s.Apply(loan); code != Limit {
		t.Errorf("with %d loans without a coin: %s", maxIdle, code)
	}
	l.s.IdleLoans.delete("1")
	if code := l.s.Apply(loan); code != OK {
		t.Errorf("the same text with one less of each: %s", code)
	}
}

// Whatever accounts hold, only those with nothing are dropped, and the indexes
// have exactly those never credited.
func TestNoValueIsPruned(t *testing.T) {
	base, _, _ := lent(t)
	pruned, spared := 0, 0
	rapid.Check(t, func(r *rapid.T) {
		c := *base
		c.t, c.s = t, base.s.View()
		holds := map[AccountID]string{}
		for i := range rapid.IntRange(1, 6).Draw(r, "accounts") {
			w := ethWallet(60 + i)
			id := c.open(w)
			s := c.s
			switch what := rapid.SampledFrom([]string{"nothing", "nothing", "supply", "suspense", "outflow", "late"}).Draw(r, "holds"); what {
			case "supply": // without credit, as if something else had given it
				if _, code := s.supply(id, "btc", n("100000")); code != OK {
					r.Fatal(code)
				}
				giveCoin(s, 100_000)
				c.s.refreshRates()
				holds[id] = what
			case "suspense":
				s.suspend(id, "btc", fixed.New(50_000), "PAUSED")
				c.given("btc", fixed.New(50_000))
				holds[id] = what
			case "outflow":
				s.supply(id, "btc", n("200000"))
				giveCoin(s, 200_000)
				x := &execution{s: s}
				if _, code := x.payOut(payment{kind: OutflowWithdraw, account: id, pool: "btc", max: true, maxFee: fixed.New(20_000), to: must(address.SplitCAIP10(btcCAIP2 + ":" + payeeBTC(1)))}); code != OK {
					r.Fatal(code)
				}
				c.s = x.s
				holds[id] = what
			case "late": // a deposit while it waits
				c.deposit(id, "btc", PurposeSupply, "100000")
				holds[id] = what
			}
			c.s.Accounts.fold()
			c.s.Millis += rapid.Uint64Range(0, 1000).Draw(r, "ms")
		}
		was := c.s.Accounts.keys()
		c.later(pruneMillis + 30_000)
		for _, id := range was {
			if what := holds[id]; what != "" && !c.s.Accounts.has(id) {
				r.Fatalf("dropped, with %s", what)
			} else if c.s.Accounts.has(id) {
				spared++
			} else {
				pruned++
			}
		}
		if err := c.s.Check(); err != nil {
			r.Fatal(err)
		}
		if c.s.Idle.len() != 0 {
			r.Fatalf("%d left in the index", c.s.Idle.len())
		}
	})
	if least := enough(50); pruned < least || spared < least {
		t.Errorf("%d dropped, %d spared: the test proves nothing", pruned, spared)
	}
}
