package ledger

import (
	"testing"

	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/ledger/fixed"
)

func payee(to string) address.CAIP10 { return must(address.SplitCAIP10(ethCAIP2 + ":" + to)) }

func (c *cluster) payees(w wallet, action string, to address.CAIP10) Code {
	c.t.Helper()
	return c.ask(w, address.Command{Action: action, To: to})
}

func (c *cluster) require(w wallet, on bool) Code {
	c.t.Helper()
	return c.ask(w, address.Command{Action: address.ActionRequirePayoutList, On: on})
}

// wait lets the delay of payout lists pass; prices are fresh afterwards.
func (c *cluster) wait(seconds uint64) {
	c.t.Helper()
	c.s.Millis += seconds * 1000
	c.s.Raw = c.s.Millis
	c.tick(1000)
	c.all(KindFee, []FeeReport{{Chain: Bitcoin, Rate: 2_000}, {Chain: Ethereum, Rate: gweiCore, Tip: gweiCore}})
	c.refresh()
}

// given books coins that came from nowhere, so that the accounts hold together.
func (c *cluster) given(pool string, amount fixed.Int) {
	p := c.s.Pools.at(pool)
	p.Credited = must(fixed.Add(p.Credited, amount))
	c.s.Pools.put(pool, p)
	c.s.refreshRates()
	if pool == "btc" {
		giveCoin(c.s, sats(amount))
	}
}

// giveCoin puts the coin that a direct booking stands for into custody.
func giveCoin(s *State, sats uint64) {
	at := outpoint("given", s.Coins.len())
	s.Coins.put(at, Coin{Outpoint: at, Sats: sats, State: CoinAvailable})
}

// "With Require payout list: yes, every coin that leaves for the account goes
// only to listed addresses; adding one takes effect after a delay, removing at
// once, and turning the list off has the same delay."
func TestPayoutList(t *testing.T) {
	c, lender, borrower := lent(t)
	c.s.Params.PayoutDelaySeconds = 3600
	id := accountOf(c, borrower)
	borrow := c.borrowUSDT("1000000000")
	if code := c.require(borrower, true); code != OK {
		t.Fatal(code)
	}
	if code := c.ask(borrower, borrow); code != DestinationNotList {
		t.Fatalf("to an address not listed: %s", code)
	}
	if code := c.payees(borrower, address.ActionAddPayoutAddress, payee(payeeETH)); code != OK {
		t.Fatal(code)
	}
	if code := c.ask(borrower, borrow); code != DestinationNotList {
		t.Errorf("before the delay: %s", code)
	}
	// Asked for again, it keeps its time.
	from := c.s.Payouts.at(id).Payees[0].From
	c.tick(10_000)
	if code := c.payees(borrower, address.ActionAddPayoutAddress, payee(payeeETH)); code != OK || c.s.Payouts.at(id).Payees[0].From != from {
		t.Errorf("added twice: %s, from %d, want %d", code, c.s.Payouts.at(id).Payees[0].From, from)
	}
	c.wait(3600)
	if code := c.ask(borrower, borrow); code != OK {
		t.Fatalf("after the delay: %s", code)
	}
	// Each way out asks the list.
	c.s.suspend(id, "btc", fixed.New(50_000), "PAUSED")
	c.given("btc", fixed.New(50_000))
	for _, cmd := range []address.Command{
		c.payout(address.ActionWithdraw, "btc", "100000", payeeBTC(1), "10000"),
		c.payout(address.ActionClaim, "btc", "0", payeeBTC(1), "10000"),
	} {
		if code := c.ask(borrower, cmd); code != DestinationNotList {
			t.Errorf("%s: %s", cmd.Action, code)
		}
	}
	if code := c.ask(lender, c.payout(address.ActionWithdraw, "usdt.eth", "100000000", payeeETH, "10000000")); code != OK {
		t.Errorf("another account: %s", code)
	}
	// Off only after the delay; saying it again does not put it off, "yes" takes
	// it back.
	if code := c.require(borrower, false); code != OK {
		t.Fatal(code)
	}
	off := c.s.Payouts.at(id).Off
	c.tick(10_000)
	if code := c.require(borrower, false); code != OK || c.s.Payouts.at(id).Off != off {
		t.Errorf("asked to end twice: %s, %d, want %d", code, c.s.Payouts.at(id).Off, off)
	}
	bitcoin := c.payout(address.ActionWithdraw, "btc", "100000", payeeBTC(1), "10000")
	if code := c.ask(borrower, bitcoin); code != DestinationNotList {
		t.Errorf("while the end is pending: %s", code)
	}
	if code := c.require(borrower, true); code != OK || c.s.Payouts.at(id).Off != 0 {
		t.Errorf("%s: the end is still pending", code)
	}
	if code := c.payees(borrower, address.ActionRemovePayoutAddress, payee(payeeETH)); code != OK {
		t.Fatal(code)
	}
	if code := c.ask(borrower, borrow); code != DestinationNotList {
		t.Errorf("to a removed address: %s", code)
	}
	if code := c.require(borrower, false); code != OK {
		t.Fatal(code)
	}
	c.wait(3600)
	if code := c.ask(borrower, bitcoin); code != OK {
		t.Errorf("after the list ended: %s", code)
	}
	if code := c.require(borrower, false); code != OK || c.s.Payouts.len() != 0 {
		t.Errorf("%s: rules of nothing are kept: %+v", code, c.s.Payouts.at(id))
	}
}

func TestPayoutListRefusals(t *testing.T) {
	c, _, borrower := lent(t)
	id := accountOf(c, borrower)
	hot, _ := c.s.Vault(Ethereum, address.RoleHot)
	own, _ := c.s.AddressOf(id, Bitcoin, PurposeSupply)
	full := *c
	full.s = c.s.View()
	for i := range maxPayees {
		if code := full.payees(borrower, address.ActionAddPayoutAddress, ethWallet(200+i).id); code != OK {
			t.Fatal(code)
		}
	}
	for name, tc := range map[string]struct {
		at     *cluster
		action string
		to     string
		code   Code
	}{
		"add our hot address":      {action: address.ActionAddPayoutAddress, to: ethCAIP2 + ":" + hot.Address, code: DestinationRefused},
		"add an own deposit":       {action: address.ActionAddPayoutAddress, to: btcCAIP2 + ":" + own.Address, code: DestinationRefused},
		"add a token's contract":   {action: address.ActionAddPayoutAddress, to: ethCAIP2 + ":" + coreToken, code: DestinationRefused},
		"add on another network":   {action: address.ActionAddPayoutAddress, to: "eip155:1:" + payeeETH, code: DestinationRefused},
		"add a 65th":               {at: &full, action: address.ActionAddPayoutAddress, to: ethCAIP2 + ":" + payeeETH, code: NotAllowed},
		"remove what is not there": {action: address.ActionRemovePayoutAddress, to: ethCAIP2 + ":" + payeeETH, code: DestinationNotList},
	} {
		t.Run(name, func(t *testing.T) {
			c := c
			if tc.at != nil {
				c = tc.at
			}
			v := *c
			v.t, v.s = t, c.s.View()
			before, nonce := frame(v.s, apartFrom(id)), v.s.Accounts.at(id).Nonce
			code := v.payees(borrower, tc.action, must(address.SplitCAIP10(tc.to)))
			if code != tc.code || frame(v.s, apartFrom(id)) != before || v.s.Accounts.at(id).Nonce != nonce+1 {
				t.Errorf("%s, want %s; changed: %v", code, tc.code, frame(v.s, apartFrom(id)) != before)
			}
		})
	}
	// What one may no longer be paid to can still be taken off the list.
	c.s.Payouts.put(id, Payouts{Payees: []Payee{{To: ethCAIP2 + ":" + hot.Address}}})
	if code := c.payees(borrower, address.ActionRemovePayoutAddress, payee(hot.Address)); code != OK || c.s.Payouts.len() != 0 {
		t.Errorf("%s, %d rules", code, c.s.Payouts.len())
	}
}

// Each check of a payment answers before the one below it (spec: lending §6.4,
// §6.5, and §8.4 for where the policy layer stands among them).
func TestPaymentOrder(t *testing.T) {
	c, _, borrower := lent(t)
	id := accountOf(c, borrower)
	hot, _ := c.s.Vault(Ethereum, address.RoleHot)
	pool := func(f func(*Pool)) func() {
		return func() { p := c.s.Pools.at("usdt.eth"); f(&p); c.s.Pools.put("usdt.eth", p) }
	}
	cmd := c.payout(address.ActionBorrow, "usdt.eth", "90000000000", payeeETH, "10000000")
	for _, r := range []struct {
		code  Code
		spoil func()
	}{
		{HealthFactor, func() {}},
		{NoLiquidity, pool(func(p *Pool) { p.Deficit, p.Cash = p.Cash, fixed.Int{} })},
		{PriceStale, func() { p := c.s.Prices.at("btc"); p.Millis -= 121_000; c.s.Prices.put("btc", p) }},
		{FeeTooHigh, func() { cmd.MaxFee.Units = "1" }},
		{OutflowCap, func() { a := c.s.Accounts.at(id); a.Outflows = MaxAccountOpen; c.s.Accounts.put(id, a) }},
		{Halted, func() { c.s.OutflowsHalt = "test" }},
		{DestinationNotList, func() { c.s.Payouts.put(id, Payouts{Required: true}) }},
		{DestinationRefused, func() { cmd.To = payee(hot.Address) }},
		{BelowMin, func() { cmd.Amount.Units = "1" }},
		{BorrowDisabled, func() { c.s.BorrowOff = true }},
		{Frozen, pool(func(p *Pool) { p.Frozen = true })},
		{Paused, pool(func(p *Pool) { p.Paused = true })},
		{UnknownPool, func() { cmd.Pool = "doge" }},
	} {
		r.spoil()
		if code := c.s.View().Apply(Command{Intent: borrower.sign(c.text(borrower, cmd))}); code != r.code {
			t.Fatalf("%s, want %s", code, r.code)
		}
	}
}

// "Repay from own supply balance of the same asset: repay and withdraw in one
// Apply, no outflow."
func TestRepayFromSupply(t *testing.T) {
	c, lender, borrower := lent(t)
	id := accountOf(c, borrower)
	if code := c.ask(borrower, c.borrowUSDT("20000000000")); code != OK {
		t.Fatal(code)
	}
	c.tick(1000)
	c.pay(c.payment())
	// Supply beside the debt: what a repayment had too much, or a refund.
	c.s.mint(id, "usdt.eth", fixed.New(5_000_000_000))
	c.given("usdt.eth", fixed.New(5_000_000_000))
	c.wait(30 * 86_400)
	request := func(units string) address.Command {
		cmd := address.Command{Action: address.ActionRepayFromSupply, Pool: "usdt.eth", Amount: c.s.Grammar().Amount("usdt.eth", units)}
		if units == "max" {
			cmd.Amount = c.s.Grammar().MaxAmount("usdt.eth")
		}
		return cmd
	}
	// All of the cash is lent out: it does not matter.
	p := c.s.Pools.at("usdt.eth")
	p.Deficit, p.FeeLosses, p.Cash = p.Cash, must(fixed.Add(p.FeeLosses, p.Cash)), fixed.Int{}
	c.s.Params.FreezeDeficitBps = 0
	c.s.Pools.put("usdt.eth", p)
	health := func() fixed.Int {
		h, code := c.s.Health(id)
		if code != OK || h.HF == nil {
			t.Fatalf("health: %s", code)
		}
		return *h.HF
	}
	was, before := health(), c.s.Accounts.at(id).position("usdt.eth")
	if code := c.ask(borrower, request("1000000000")); code != OK {
		t.Fatal(code)
	}
	if q := c.s.Pools.at("usdt.eth"); q.Cash != p.Cash || q.Credited != p.Credited || q.Reserved != p.Reserved {
		t.Errorf("cash %s, credited %s, reserved %s; before %s, %s, %s", q.Cash, q.Credited, q.Reserved, p.Cash, p.Credited, p.Reserved)
	}
	at := c.s.Accounts.at(id).position("usdt.eth")
	if !at.Supply.Less(before.Supply) || !at.Debt.Less(before.Debt) || c.s.Outflows.len() != int(c.s.NextOutflow-1) {
		t.Errorf("position %+v, before %+v", at, before)
	}
	if now := health(); !was.Less(now) {
		t.Errorf("HF %s, before %s", now, was)
	}
	if code := c.ask(borrower, request("4100000000")); code != InsufficientBalance {
		t.Errorf("more than is supplied: %s", code)
	}
	if code := c.ask(borrower, request("max")); code != OK {
		t.Fatal(code)
	}
	if at := c.s.Accounts.at(id).position("usdt.eth"); !at.Supply.IsZero() || at.Debt.IsZero() {
		t.Errorf("max with less supply than debt leaves %+v", at)
	}
	if code := c.ask(borrower, request("max")); code != InsufficientBalance {
		t.Errorf("without supply: %s", code)
	}
	// More supply than debt: the debt ends, the rest stays, nothing is lost to it.
	c.s.mint(id, "usdt.eth", fixed.New(50_000_000_000))
	c.given("usdt.eth", fixed.New(50_000_000_000))
	if code := c.ask(borrower, request("50000000000")); code != OK {
		t.Fatal(code)
	}
	at = c.s.Accounts.at(id).position("usdt.eth")
	if !at.Debt.IsZero() || at.Supply.IsZero() {
		t.Errorf("position %+v", at)
	}
	for name, tc := range map[string]struct {
		by    wallet
		cmd   address.Command
		spoil func(*Pool)
		code  Code
	}{
		"no debt":         {by: borrower, cmd: request("1000000"), code: NoDebt},
		"a lender":        {by: lender, cmd: request("max"), code: NoDebt},
		"nothing":         {by: borrower, cmd: request("0"), code: BelowMin},
		"below a minimum": {by: borrower, cmd: request("999999"), code: BelowMin},
		"an unknown pool": {by: borrower, cmd: func() address.Command { r := request("1"); r.Pool = "doge"; return r }(), code: UnknownPool},
		"a paused pool":   {by: borrower, cmd: request("0"), spoil: func(p *Pool) { p.Paused = true }, code: Paused},
	} {
		v := *c
		v.s = c.s.View()
		if tc.spoil != nil {
			p := v.s.Pools.at("usdt.eth")
			tc.spoil(&p)
			v.s.Pools.put("usdt.eth", p)
		}
		of := accountOf(&v, tc.by)
		before := frame(v.s, apartFrom(of))
		if code := v.ask(tc.by, tc.cmd); code != tc.code || frame(v.s, apartFrom(of)) != before {
			t.Errorf("%s: %s, want %s; changed: %v", name, code, tc.code, frame(v.s, apartFrom(of)) != before)
		}
	}
}

// An account that passes its gates passes them still, at whatever prices and
// amounts, and nobody else is worse off: I1, I2 and I3 hold.
func TestRepayFromSupplyKeepsHealth(t *testing.T) {
	c, _, borrower := lent(t)
	id := accountOf(c, borrower)
	if code := c.ask(borrower, c.borrowUSDT("30000000000")); code != OK {
		t.Fatal(code)
	}
	c.tick(1000)
	c.pay(c.payment())
	c.s.mint(id, "usdt.eth", fixed.New(7_777_777_777))
	c.given("usdt.eth", fixed.New(7_777_777_777))
	c.wait(86_400 * 77)
	for _, units := range []uint64{1_000_000, 1_000_003, 77_777_777, 5_000_000_000} {
		for _, stable := range []string{"97000000", "100000000", "103000000"} {
			v := *c
			v.t, v.s = t, c.s.View()
			v.prices("5000000000000", "250000000000", stable)
			before, code := v.s.Health(id)
			if code != OK {
				t.Fatal(code)
			}
			if _, code := v.s.repayFromSupply(id, "usdt.eth", fixed.New(units), false); code != OK {
				t.Fatalf("%d: %s", units, code)
			}
			after, code := v.s.Health(id)
			if code != OK || before.Healthy() && after.HF.Less(*before.HF) {
				t.Errorf("repay %d at %s: HF %s, before %s", units, stable, after.HF, before.HF)
			}
			if err := v.s.Check(); err != nil {
				t.Errorf("repay %d: %v", units, err)
			}
		}
	}
}

// What would leave an impaired pool by a withdrawal does not leave it by a
// repayment either: "so that the first to run gains nothing" (spec: lending §8.4).
func TestRepayFromSupplyOfAnImpairedPool(t *testing.T) {
	c, _, borrower := lent(t)
	id := accountOf(c, borrower)
	if code := c.ask(borrower, c.borrowUSDT("20000000000")); code != OK {
		t.Fatal(code)
	}
	c.tick(1000)
	c.pay(c.payment())
	c.s.mint(id, "usdt.eth", fixed.New(5_000_000_000))
	c.given("usdt.eth", fixed.New(5_000_000_000))
	p := c.s.Pools.at("usdt.eth")
	p.Deficit, p.FeeLosses, p.Cash = p.Cash, must(fixed.Add(p.FeeLosses, p.Cash)), fixed.Int{}
	c.s.Pools.put("usdt.eth", p)
	c.refresh()
	c.beat()
	if !c.s.Pools.at("usdt.eth").Impaired.Open {
		t.Fatal("the pool is not impaired")
	}
	cmd := address.Command{Action: address.ActionRepayFromSupply, Pool: "usdt.eth", Amount: c.s.Grammar().MaxAmount("usdt.eth")}
	before := frame(c.s, apartFrom(id))
	if code := c.ask(borrower, cmd); code != DeficitLimit || frame(c.s, apartFrom(id)) != before {
		t.Fatalf("all of it: %s", code)
	}
	cmd.Amount = c.s.Grammar().Amount("usdt.eth", "1000000")
	if code := c.ask(borrower, cmd); code != OK {
		t.Fatalf("within the limit: %s", code)
	}
	if h := c.s.Accounts.at(id).held(c.s.Pools.at("usdt.eth")); h.Withdrawn != n("1000000") {
		t.Errorf("counted %s against the limit", h.Withdrawn)
	}
}
