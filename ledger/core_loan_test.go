package ledger

import (
	"encoding/hex"
	"testing"

	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/ledger/fixed"
)

// loanText asks for 20,000 USDT against 1 BTC, refunds to Bitcoin. LTV 40 %.
func (c *cluster) loanText(w wallet, nonce uint64, change ...func(*address.Command)) string {
	g := c.s.Grammar()
	cmd := address.Command{
		Action: address.ActionOpenLoan, Collateral: g.Amount("btc", "100000000"), CollateralPool: "btc",
		Amount: g.Amount("usdt.eth", "20000000000"), Pool: "usdt.eth", To: payee(payeeETH), MaxFee: g.Amount("usdt.eth", "10000000"),
		RefundTo: must(address.SplitCAIP10(btcCAIP2 + ":" + payeeBTC(7))),
	}
	return c.text(w, cmd, append([]func(*address.Command){func(a *address.Command) {
		a.Nonce, a.Account = nonce, address.LoanID(c.s.Genesis.ClusterName(), w.id, nonce)
	}}, change...)...)
}

func loanOf(c *cluster, w wallet, nonce uint64) AccountID {
	id := address.LoanID(c.s.Genesis.ClusterName(), w.id, nonce)
	return hex.EncodeToString(id[:])
}

func (c *cluster) openLoan(w wallet, nonce uint64) AccountID {
	c.t.Helper()
	if code := c.run(Command{Intent: w.sign(c.loanText(w, nonce))}); code != OK {
		c.t.Fatalf("open loan: %s", code)
	}
	return loanOf(c, w, nonce)
}

func (c *cluster) loan(id AccountID) Loan { return c.s.Loans.at(id) }

// beat lets ledger time pass the next accrual.
func (c *cluster) beat() { c.t.Helper(); c.tick(15_000) }

// send has a Bitcoin deposit attested, not final yet.
func (c *cluster) send(id AccountID, sats string) {
	c.t.Helper()
	c.all(KindInflow, c.inflowTo(id, "btc", PurposeSupply, sats))
}

// "Opens a fresh account; when the collateral is credited within 24 h the borrow
// is applied as if signed then." One wallet has any number of them.
func TestSimpleLoan(t *testing.T) {
	c, _, _ := lent(t)
	w := btcWallet(50)
	in := w.sign(c.loanText(w, 7))
	if code := c.run(Command{Intent: in}); code != OK {
		t.Fatal(code)
	}
	id := loanOf(c, w, 7)
	if a := c.s.Accounts.at(id); a.Nonce != 8 || len(a.Wallets) != 1 || c.s.LoansReady.len() != 0 {
		t.Fatalf("account %+v, %d ready", a, c.s.LoansReady.len())
	}
	before := frame(c.s)
	if code := c.run(Command{Intent: in}); code != OK || frame(c.s) != before {
		t.Errorf("the same text again: %s", code)
	}
	again := w.sign(c.loanText(w, 7, func(a *address.Command) { a.Expires-- }))
	if code := c.run(Command{Intent: again}); code != AccountExists || frame(c.s) != before {
		t.Errorf("another text of that nonce: %s", code)
	}
	if other := c.openLoan(w, 8); other == id {
		t.Fatal("two loans, one account")
	}
	// In two deposits, each rounded; the second makes it enough, and only when it is
	// final.
	c.send(id, "33333333")
	c.send(id, "66666667")
	if l := c.loan(id); l.Phase != LoanWaiting || l.Code != InsufficientBalance || c.s.LoansReady.len() != 1 {
		t.Fatalf("before finality: %+v", l)
	}
	c.mine(Bitcoin, 12)
	c.refresh()
	c.beat()
	l := c.loan(id)
	if l.Phase != LoanGranted || l.Outflow == 0 || c.s.LoansReady.len() != 0 {
		t.Fatalf("after finality: %+v", l)
	}
	o := c.s.Outflows.at(l.Outflow)
	if o.Kind != OutflowBorrow || o.Gross != n("20000000000") || o.To != payeeETH || o.Account != id {
		t.Errorf("outflow %+v", o)
	}
	// From here it is an ordinary account of the wallet.
	if code := c.ask(w, address.Command{Action: address.ActionCancel}, func(a *address.Command) {
		a.Account, a.Nonce = address.LoanID(c.s.Genesis.ClusterName(), w.id, 7), 8
	}); code != OK {
		t.Errorf("an ordinary request: %s", code)
	}
}

// "Otherwise the coin goes to Refund to": too little, or too late, or both.
func TestLoanGivesBack(t *testing.T) {
	for name, sats := range map[string]string{"a shortfall": "99000000", "below the minimum of the pool": "5000"} {
		t.Run(name, func(t *testing.T) {
			c, _, _ := lent(t)
			c.s.Params.LoanWindowSeconds = 600
			id := c.openLoan(btcWallet(50), 0)
			c.send(id, sats)
			c.mine(Bitcoin, 12)
			c.beat()
			if l := c.loan(id); l.Phase != LoanWaiting || l.Code != InsufficientBalance {
				t.Fatalf("in the window: %+v", l)
			}
			c.wait(601)
			c.beat()
			if l := c.loan(id); l.Phase != LoanReturned || c.s.LoansReady.len() != 0 {
				t.Fatalf("after the window: %+v", l)
			}
			c.paysBack(id)
			// A late coin goes the same way, in a payment of its own.
			c.send(id, sats)
			if l := c.loan(id); l.Phase != LoanReturned {
				t.Fatalf("a late coin: %+v", l)
			}
			c.paysBack(id)
		})
	}
}

// paysBack checks that the account's newest outflow empties it to Refund to.
func (c *cluster) paysBack(id AccountID) {
	c.t.Helper()
	o := c.s.Outflows.at(c.s.NextOutflow - 1)
	if o.Account != id || o.Asset != "btc" || o.To != payeeBTC(7) || o.Kind == OutflowBorrow {
		c.t.Fatalf("outflow %+v", o)
	}
	if a := c.s.Accounts.at(id); len(a.Positions) != 0 || c.s.Suspense.has(id+"/btc") {
		c.t.Errorf("left behind: %+v", a.Positions)
	}
}

// A refund that failed is not repeated by itself, and the coins stay the
// wallet's: "Never an automatic second payment after a revert."
func TestLoanRefundFails(t *testing.T) {
	c, _, _ := lent(t)
	c.s.Params.LoanWindowSeconds = 600
	w := btcWallet(50)
	id := c.openLoan(w, 0)
	c.send(id, "50000000")
	c.mine(Bitcoin, 12)
	c.wait(601)
	for p, k := range c.s.Coins.all() { // so that the refund cannot be planned
		k.Height = 1 << 30
		c.s.Coins.put(p, k)
	}
	c.beat()
	open := c.s.NextOutflow
	o := c.s.Outflows.at(open - 1)
	if o.State != Queued || o.Account != id {
		t.Fatalf("refund %+v", o)
	}
	o.Created = 1
	c.s.Outflows.put(o.ID, o)
	c.beat()
	if got := c.s.Outflows.at(o.ID).State; got != Refunded {
		t.Fatalf("it is %s", got)
	}
	c.beat()
	c.beat()
	if l := c.loan(id); c.s.NextOutflow != open || l.Phase != LoanReturned || c.s.supplyShares(id, "btc").IsZero() {
		t.Errorf("%+v, next outflow %d, want %d", l, c.s.NextOutflow, open)
	}
}

// "Within 500 bps of the LTV signed": at 40 % signed, 45 % is granted still.
func TestLoanSlippage(t *testing.T) {
	for price, want := range map[string]LoanPhase{"4450000000000": LoanGranted, "4440000000000": LoanWaiting, "6000000000000": LoanGranted} {
		c, _, _ := lent(t)
		id := c.openLoan(btcWallet(50), 0)
		if l := c.loan(id); l.LTV != 4000 {
			t.Fatalf("LTV at signing %d", l.LTV)
		}
		c.prices(price, "250000000000", "100000000")
		for _, a := range []string{"btc", "usdt.eth", "eth"} { // the jump is no matter of this test
			p := c.s.Prices.at(a)
			p.Suspect = 0
			c.s.Prices.put(a, p)
		}
		c.send(id, "100000000")
		c.mine(Bitcoin, 12)
		c.beat()
		l := c.loan(id)
		if l.Phase != want || want == LoanWaiting && l.Code != MaxLTV {
			t.Errorf("BTC at %s: %s %s, want %s", price, l.Phase, l.Code, want)
		}
		if want == LoanWaiting { // and as soon as the price is back
			c.prices("5000000000000", "250000000000", "100000000")
			for _, a := range []string{"btc", "usdt.eth", "eth"} {
				p := c.s.Prices.at(a)
				p.Suspect = 0
				c.s.Prices.put(a, p)
			}
			c.beat()
			if l := c.loan(id); l.Phase != LoanGranted {
				t.Errorf("price back: %+v", l)
			}
		}
	}
}

// A refused Open loan leaves nothing at all.
func TestOpenLoanRefusals(t *testing.T) {
	c, _, borrower := lent(t)
	w := btcWallet(50)
	own, _ := c.s.AddressOf(accountOf(c, borrower), Bitcoin, PurposeSupply)
	hot, _ := c.s.Vault(Ethereum, address.RoleHot)
	bitcoin := func(addr string) address.CAIP10 { return must(address.SplitCAIP10(btcCAIP2 + ":" + addr)) }
	for name, tc := range map[string]struct {
		change func(*address.Command)
		spoil  func(*State)
		code   Code
	}{
		"another's name":          {change: func(a *address.Command) { a.Account[0]++ }, code: Malformed},
		"another nonce":           {change: func(a *address.Command) { a.Nonce++ }, code: Malformed},
		"an unknown pool":         {change: func(a *address.Command) { a.Pool = "doge" }, code: UnknownPool},
		"an unknown collateral":   {change: func(a *address.Command) { a.CollateralPool = "doge" }, code: UnknownPool},
		"paid to an address ours": {change: func(a *address.Command) { a.To = payee(hot.Address) }, code: DestinationRefused},
		"refund to one of ours":   {change: func(a *address.Command) { a.RefundTo = bitcoin(own.Address) }, code: DestinationRefused},
		"refund on another chain": {change: func(a *address.Command) { a.RefundTo = payee(payeeETH) }, code: DestinationRefused},
		"little collateral":       {change: func(a *address.Command) { a.Collateral.Units = "5099" }, code: BelowMin},
		"a little loan":           {change: func(a *address.Command) { a.Amount.Units = "999999" }, code: BelowMin},
		"too large a loan":        {change: func(a *address.Command) { a.Amount.Units = "41000000000" }, code: HealthFactor},
		"above the LTV":           {change: func(a *address.Command) { a.Amount.Units = "38000000000" }, code: MaxLTV},
		"more than there is":      {change: func(a *address.Command) { a.Amount.Units = "100000000001" }, code: NoLiquidity},
		"a fee too low":           {change: func(a *address.Command) { a.MaxFee.Units = "1" }, code: FeeTooHigh},
		"no price":                {spoil: func(s *State) { s.Prices.delete("btc") }, code: PriceStale},
		"halted":                  {spoil: func(s *State) { s.OutflowsHalt = "test" }, code: Halted},
		"paused collateral": {spoil: func(s *State) {
			p := s.Pools.at("btc")
			p.Paused = true
			s.Pools.put("btc", p)
		}, code: Paused},
		"a ledger full of outflows": {spoil: func(s *State) {
			for i := range uint64(MaxOpenOutflows) {
				s.Live.put(1<<40+i, 1)
			}
		}, code: Limit},
	} {
		t.Run(name, func(t *testing.T) {
			v := *c
			v.t, v.s, v.broken = t, c.s.View(), true
			if tc.change == nil {
				tc.change = func(*address.Command) {}
			}
			text := v.loanText(w, 3, tc.change)
			if tc.spoil != nil {
				tc.spoil(v.s)
			}
			before := frame(v.s)
			if code := v.run(Command{Intent: w.sign(text)}); code != tc.code || frame(v.s) != before {
				t.Errorf("%s, want %s; changed: %v", code, tc.code, frame(v.s) != before)
			}
		})
	}
	// And the preview says so beforehand, and changes nothing.
	before := frame(c.s)
	if after, code := c.s.Preview(c.loanText(w, 3)); code != OK || after.Loans.len() != 1 || frame(c.s) != before {
		t.Errorf("preview: %s", code)
	}
}

// A loan waits while something else stands in its way, and each beat looks at no
// more than its share.
func TestLoanWaits(t *testing.T) {
	c, _, _ := lent(t)
	id := c.openLoan(btcWallet(50), 0)
	set := func(paused bool) {
		p := c.s.Pools.at("usdt.eth")
		p.Paused = paused
		c.s.Pools.put("usdt.eth", p)
	}
	set(true)
	c.deposit(id, "btc", PurposeSupply, "100000000")
	c.beat()
	if l := c.loan(id); l.Phase != LoanWaiting || l.Code != Paused {
		t.Fatalf("paused: %+v", l)
	}
	set(false)
	c.refresh()
	c.beat()
	if l := c.loan(id); l.Phase != LoanGranted || l.Code != "" {
		t.Fatalf("no longer paused: %+v", l)
	}
	if h, code := c.s.Health(id); code != OK || !h.WithinLTV() || h.DebtValue.Less(fixed.New(1)) {
		t.Errorf("health %+v, %s", h, code)
	}
}
