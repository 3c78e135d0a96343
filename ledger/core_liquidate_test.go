package ledger

import (
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/ledger/fixed"
)

// dipped is a running cluster whose borrower owes 37,000 USDT on 1 BTC, with BTC
// at a price that one round brought about, below HF 1. Jumps are no concern of
// these tests.
func dipped(t testing.TB, btc string) (c *cluster, lender, borrower wallet) {
	t.Helper()
	c, lender, borrower = lent(t)
	c.s.Params.DeviationBps = 10_000
	if code := c.ask(borrower, c.borrowUSDT("37000000000")); code != OK {
		t.Fatal(code)
	}
	c.tick(1000)
	for _, b := range c.payments() {
		c.pay(b)
	}
	c.prices(btc, "250000000000", "100000000")
	return c, lender, borrower
}

func (c *cluster) liquidate(borrower wallet, units, to, maxFee string) address.Command {
	g := c.s.Grammar()
	cmd := address.Command{
		Action: address.ActionLiquidate, Pool: "usdt.eth", CollateralPool: "btc", Amount: g.Amount("usdt.eth", units), MaxFee: g.Amount("btc", maxFee),
		Borrower: address.AccountID(c.s.Genesis.ClusterName(), borrower.id),
	}
	if units == "max" {
		cmd.Amount = g.MaxAmount("usdt.eth")
	}
	if to != "" {
		cmd.AutoWithdrawTo = must(address.SplitCAIP10(btcCAIP2 + ":" + to))
	}
	return cmd
}

func (c *cluster) event(name string) (Event, bool) {
	i := slices.IndexFunc(c.last.Events, func(e Event) bool { return e.Name == name })
	if i < 0 {
		return Event{}, false
	}
	return c.last.Events[i], true
}

// "liquidation answers GRACE until one further price round (at least 15 s, at
// most 60 s) after HF first fell below 1, if HF > 0.95" (spec: lending §8.4).
func TestFirstDipGrace(t *testing.T) {
	c, lender, borrower := dipped(t, "4500000000000")
	id := accountOf(c, borrower)
	since := c.s.Millis
	if d := c.s.Dips.at(id); d.Since != since || c.s.Dips.len() != 1 || d.Round != c.s.Prices.at("btc").Round {
		t.Fatalf("dip %+v at %d", d, since)
	}
	ask := func(c *cluster) Code { return c.ask(lender, c.liquidate(borrower, "5000000000", "", "0")) }
	if code := ask(c); code != Grace {
		t.Fatalf("at once: %s", code)
	}
	at := func(ms uint64, more func(*cluster)) *cluster {
		w := *c
		w.s = c.s.View()
		w.tick(ms)
		more(&w)
		return &w
	}
	no := func(*cluster) {}
	round := func(c *cluster) { c.refresh() }
	for name, tc := range map[string]struct {
		c    *cluster
		code Code
	}{
		"15 s without a round":     {at(15_000, no), Grace},
		"59.999 s without a round": {at(59_999-(c.s.Millis-since), no), Grace},
		"60 s without a round":     {at(60_000, no), OK},
		"a further round":          {at(15_000, round), OK},
		"a further round of one pool": {at(15_000, func(c *cluster) {
			c.all(KindPrice, []PriceReport{{Asset: "btc", Round: c.s.Time() / 15, Price: n("4500000000000"), Observed: c.s.Millis}})
		}), Grace},
		"a round that ends it": {at(15_000, func(c *cluster) { c.prices("5000000000000", "250000000000", "100000000") }), Healthy},
		"the rule off":         {at(0, func(c *cluster) { c.s.Params.FirstDipSeconds = 0 }), OK},
		"HF 0.95 and below":    {at(0, func(c *cluster) { c.prices("4390000000000", "250000000000", "100000000") }), OK},
	} {
		if code := ask(tc.c); code != tc.code {
			t.Errorf("%s: %s, want %s", name, code, tc.code)
		}
	}
	if w := at(15_000, func(c *cluster) { c.prices("5000000000000", "250000000000", "100000000") }); w.s.Dips.len() != 0 {
		t.Error("a healthy account is in Dips")
	}
}

// A liquidation through the log: claims move, cash does not, the gain leaves in
// the same command, and the event says all that is needed to compute it again.
func TestLiquidateRequest(t *testing.T) {
	c, lender, borrower := dipped(t, "4300000000000")
	l, b := accountOf(c, lender), accountOf(c, borrower)
	usdt, btc := c.s.Pools.at("usdt.eth"), c.s.Pools.at("btc")
	if code := c.ask(lender, c.liquidate(borrower, "10000000000", payeeBTC(1), "20000")); code != OK {
		t.Fatal(code)
	}
	e, ok := c.event(EventLiquidated)
	other, ok2 := c.event(EventLiquidates)
	if !ok || !ok2 || e.Account != b || e.Asset != "usdt.eth" || e.Amount != "10000000000" || other.Account != l || other.Asset != "btc" {
		t.Fatalf("events %+v", c.last.Events)
	}
	r, err := ParseLiquidation(e.Note)
	if err != nil {
		t.Fatal(err)
	}
	if r.ID != c.s.Height || r.Liquidator != l || r.Outflow == 0 || e.Outflow != r.Outflow || other.Note != decimal(r.ID) {
		t.Errorf("record %+v", r)
	}
	got, err := ExplainLiquidation(r)
	if err != nil {
		t.Fatal(err)
	}
	// 10,000 USDT at 1 USD buy 10000/43000 BTC and 5 %; a tenth of the 5 % is the fee
	if got.Seized != n("24418603") || got.Repaid != n("10000000000") || got.Fee != n("116280") {
		t.Errorf("seizure %+v", got)
	}
	o := c.s.Outflows.at(r.Outflow)
	if o.Account != l || o.Kind != OutflowWithdraw || o.Asset != "btc" || !o.Gross.Less(n("24302325")) || o.Gross.Less(n("24302323")) {
		t.Errorf("outflow %+v", o)
	}
	if p := c.s.Pools.at("usdt.eth"); p.Cash != usdt.Cash {
		t.Errorf("cash of the debt pool from %s to %s", usdt.Cash, p.Cash)
	}
	if p := c.s.Pools.at("btc"); must(fixed.Add(p.Cash, o.Gross)) != btc.Cash || p.Reserved != o.Gross {
		t.Errorf("cash of the collateral pool from %s to %s, reserved %s", btc.Cash, p.Cash, p.Reserved)
	}
	if h, _ := c.s.Health(b); r.HFAfter == nil || *h.HF != *r.HFAfter {
		t.Errorf("HF after %v, recorded %v", h.HF, r.HFAfter)
	}
	if c.s.Accounts.at(l).Liquidated != c.s.Millis {
		t.Error("the liquidator is not marked")
	}

	// Whatever is changed in a record, it does not follow any more.
	one := fixed.New(1)
	for name, spoil := range map[string]func(*LiquidationRecord){
		"price":       func(r *LiquidationRecord) { r.Legs[0].Low = must(fixed.Add(r.Legs[0].Low, fixed.New(1_000_000))) },
		"repaid":      func(r *LiquidationRecord) { r.Seizure.Repaid = must(fixed.Add(r.Seizure.Repaid, one)) },
		"seized":      func(r *LiquidationRecord) { r.Seizure.Seized = must(fixed.Add(r.Seizure.Seized, one)) },
		"fee":         func(r *LiquidationRecord) { r.Seizure.Fee = fixed.Int{} },
		"claims":      func(r *LiquidationRecord) { r.Seizure.SharesToActor = must(fixed.Add(r.Seizure.SharesToActor, one)) },
		"HF before":   func(r *LiquidationRecord) { r.HFBefore = must(fixed.Add(r.HFBefore, one)) },
		"HF after":    func(r *LiquidationRecord) { r.HFAfter = nil },
		"request":     func(r *LiquidationRecord) { r.Requested = one },
		"bonus":       func(r *LiquidationRecord) { r.Rules.Bonus++ },
		"healthy":     func(r *LiquidationRecord) { r.Legs[0].LT = 10_000 },
		"no debt leg": func(r *LiquidationRecord) { r.DebtPool = "eth" },
		"bad debt":    func(r *LiquidationRecord) { r.BadDebt = []BadDebt{{Pool: "usdt.eth", Debt: one}} },
	} {
		bad := r
		bad.Legs = slices.Clone(r.Legs)
		spoil(&bad)
		if _, err := ExplainLiquidation(bad); !errors.Is(err, ErrExplained) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := ParseLiquidation(strings.Replace(e.Note, ",", ", ", 1)); err == nil {
		t.Error("a record in another spelling was read")
	}
}

func decimal(n uint64) string { return fixed.New(n).String() }

// The auto-withdrawal is a withdrawal under its checks: where it is refused, so
// is the whole request, and nothing but the nonce has moved.
func TestAutoWithdrawIsAWithdraw(t *testing.T) {
	for name, tc := range map[string]struct {
		units, to, fee string
		spoil          func(*cluster, wallet)
		code           Code
	}{
		"a fee too low":          {"10000000000", payeeBTC(1), "1", nil, FeeTooHigh},
		"below the minimum":      {"1000000", payeeBTC(1), "100", nil, BelowMin},
		"an address of ours":     {"10000000000", "", "0", nil, DestinationRefused},
		"16 outflows open":       {"10000000000", payeeBTC(1), "20000", func(c *cluster, w wallet) { openOutflows(c, w) }, OutflowCap},
		"outflows halted":        {"10000000000", payeeBTC(1), "20000", func(c *cluster, w wallet) { c.s.OutflowsHalt = "a test" }, Halted},
		"without, halted or not": {"10000000000", "none", "0", func(c *cluster, w wallet) { c.s.OutflowsHalt = "a test" }, OK},
	} {
		t.Run(name, func(t *testing.T) {
			c, lender, borrower := dipped(t, "4300000000000")
			c.broken = true // outflows that a test makes up
			if tc.spoil != nil {
				tc.spoil(c, lender)
			}
			to, fee := tc.to, tc.fee
			switch to {
			case "":
				w, _ := c.s.Vault(Bitcoin, address.RoleMinter)
				to, fee = w.Address, "20000"
			case "none":
				to = ""
			}
			id := accountOf(c, lender)
			before := frame(c.s, apartFrom(id))
			if code := c.ask(lender, c.liquidate(borrower, tc.units, to, fee)); code != tc.code {
				t.Fatalf("%s, want %s", code, tc.code)
			}
			if same := frame(c.s, apartFrom(id)) == before; same == (tc.code == OK) {
				t.Errorf("%s, state unchanged: %v", tc.code, same)
			}
		})
	}
}

// Plants a gain above what may leave in an hour: the debt is repaid, as much leaves
// as one request may ask for, and the rest stays the liquidator's supply. Seen
// failing with the whole gain asked for (OUTFLOW_CAP, and the debt stayed).
func TestAutoWithdrawAboveTheHourlyCapacity(t *testing.T) {
	c, lender, borrower := dipped(t, "4300000000000")
	p := c.s.Pools.at("btc")
	p.Param.CapHour, p.Param.CapDay = fixed.New(1_000_000), fixed.New(4_000_000)
	c.s.Pools.put("btc", p)
	id := c.s.NextOutflow
	if code := c.ask(lender, c.liquidate(borrower, "10000000000", payeeBTC(1), "20000")); code != OK {
		t.Fatal(code)
	}
	if o := c.s.Outflows.at(id); o.Kind != OutflowWithdraw || o.Gross != fixed.New(1_000_000) || o.To != payeeBTC(1) {
		t.Errorf("outflow %+v", o)
	}
	seized, _ := c.event(EventLiquidates)
	p = c.s.Pools.at("btc")
	left := must(fixed.MulDivFloor(c.s.supplyShares(accountOf(c, lender), "btc"), p.SupplyIndex, fixed.Ray))
	gone := must(fixed.Sub(n(seized.Amount), left))
	if gone.Less(fixed.New(999_998)) || fixed.New(1_000_002).Less(gone) {
		t.Errorf("of %s seized %s is left", seized.Amount, left)
	}
}

func openOutflows(c *cluster, w wallet) {
	a := c.s.Accounts.at(accountOf(c, w))
	a.Outflows = MaxAccountOpen
	c.s.Accounts.put(a.ID, a)
}

// "Planning any attempt … of one that liquidated in the last 24 h, evaluates
// again … price ages" (spec: outflows R-12).
func TestLiquidatorsOutflowsWaitForPrices(t *testing.T) {
	c, lender, borrower := dipped(t, "4300000000000")
	if code := c.ask(lender, c.liquidate(borrower, "10000000000", payeeBTC(1), "20000")); code != OK {
		t.Fatal(code)
	}
	id := c.s.NextOutflow - 1
	wait := *c
	wait.s = c.s.View()
	a := wait.s.Prices.at("btc")
	a.Millis -= 121_000
	wait.s.Prices.put("btc", a)
	wait.tick(1000)
	if o := wait.s.Outflows.at(id); o.State != Queued {
		t.Errorf("%s with a stale price", o.State)
	}
	late := wait
	late.s = wait.s.View()
	acc := late.s.Accounts.at(accountOf(c, lender))
	acc.Liquidated = late.s.Millis - 86_400_000
	late.s.Accounts.put(acc.ID, acc)
	late.tick(1000)
	if o := late.s.Outflows.at(id); o.State != Planned {
		t.Errorf("%s, a day after the liquidation", o.State)
	}
	wait.refresh()
	wait.tick(1000)
	if o := wait.s.Outflows.at(id); o.State != Planned {
		t.Errorf("%s with fresh prices", o.State)
	}
}

// Refusals of the request itself; the operation's stand in liquidation_test.go.
func TestLiquidateRequestRefusals(t *testing.T) {
	c, lender, borrower := dipped(t, "4300000000000")
	for name, tc := range map[string]struct {
		change func(*address.Command)
		code   Code
	}{
		"nothing":        {func(a *address.Command) { a.Amount.Units = "0" }, BelowMin},
		"an unknown one": {func(a *address.Command) { a.Borrower[0]++ }, UnknownAccount},
		"himself":        {func(a *address.Command) { a.Borrower = a.Account }, SelfLiquidation},
		"no debt there":  {func(a *address.Command) { a.Pool, a.Amount = "btc", c.s.Grammar().MaxAmount("btc") }, NoDebt},
		"no collateral": {func(a *address.Command) {
			a.CollateralPool, a.MaxFee = "usdt.eth", c.s.Grammar().Amount("usdt.eth", "0")
		}, NoCollateral},
		"a dusty leftover": {func(a *address.Command) { a.Amount = c.s.Grammar().Amount("usdt.eth", "36900000000") }, Dust},
	} {
		w := *c
		w.s = c.s.View()
		if code := w.ask(lender, w.liquidate(borrower, "10000000000", "", "0"), tc.change); code != tc.code {
			t.Errorf("%s: %s, want %s", name, code, tc.code)
		}
	}
}

// Only the insurance accounts of the parameters cover deficits.
func TestCoverDeficitRequest(t *testing.T) {
	c, lender, borrower := dipped(t, "3000000000000") // the collateral does not cover the debt
	cover := func(units string) address.Command {
		return address.Command{Action: address.ActionCoverDeficit, Pool: "usdt.eth", Amount: c.s.Grammar().Amount("usdt.eth", units)}
	}
	if code := c.ask(lender, cover("1000000")); code != NotAllowed {
		t.Fatalf("not insurance: %s", code)
	}
	c.s.Params.Insurance = []AccountID{accountOf(c, lender)}
	if code := c.ask(lender, cover("1000000")); code != NoDeficit {
		t.Fatalf("without a deficit: %s", code)
	}
	if code := c.ask(lender, c.liquidate(borrower, "max", "", "0")); code != OK {
		t.Fatal(code)
	}
	e, _ := c.event(EventLiquidated)
	if r, err := ParseLiquidation(e.Note); err != nil || len(r.BadDebt) != 1 || r.HFAfter != nil {
		t.Fatalf("record %+v: %v", r, err)
	} else if _, err := ExplainLiquidation(r); err != nil {
		t.Error(err)
	}
	p := c.s.Pools.at("usdt.eth")
	if p.Deficit.IsZero() || !p.Frozen || !p.Impaired.Open {
		t.Fatalf("deficit %s, frozen %v, %+v", p.Deficit, p.Frozen, p.Impaired)
	}
	for units, code := range map[string]Code{"0": BelowMin, "90000000000000": OK} {
		w := *c
		w.s = c.s.View()
		if got := w.ask(lender, cover(units)); got != code {
			t.Errorf("%s: %s, want %s", units, got, code)
		}
		if p := w.s.Pools.at("usdt.eth"); code == OK && (!p.Deficit.IsZero() || p.Impaired.Open || !p.Frozen) {
			t.Errorf("after the cover: deficit %s, %+v, frozen %v", p.Deficit, p.Impaired, p.Frozen)
		}
	}
	if code := c.ask(lender, cover("1000000"), func(a *address.Command) { a.Pool, a.Amount = "btc", c.s.Grammar().Amount("btc", "1") }); code != NoDeficit {
		t.Errorf("another pool: %s", code)
	}
}

// A fifth of what the reserve factor earned goes to the insurance account, at
// par: no claim is made or lost (spec: lending §9).
func TestInsuranceSweep(t *testing.T) {
	c, lender, borrower := lent(t)
	if code := c.ask(borrower, c.borrowUSDT("37000000000")); code != OK {
		t.Fatal(code)
	}
	ins := ethWallet(9)
	id := c.open(ins)
	c.s.Params.Insurance = []AccountID{id}
	c.tick(60_000)
	for _, b := range c.payments() {
		c.pay(b)
	}
	c.tick(15_000)
	p := c.s.Pools.at("usdt.eth")
	earned := p.Uninsured
	if earned.IsZero() || p.TreasuryShares.Less(earned) {
		t.Fatalf("earned %s of %s", earned, p.TreasuryShares)
	}
	sweep := func(spoil func(*State)) *State {
		x := &execution{s: c.s.View()}
		spoil(x.s)
		x.sweepInsurance()
		if err := x.s.Check(); err != nil {
			t.Fatal(err)
		}
		return x.s
	}
	s := sweep(func(*State) {})
	q, want := s.Pools.at("usdt.eth"), must(fixed.MulDivFloor(earned, fixed.New(2_000), fixed.Bps))
	if got := s.supplyShares(id, "usdt.eth"); got != want || must(fixed.Sub(p.TreasuryShares, want)) != q.TreasuryShares || !q.Uninsured.IsZero() {
		t.Errorf("swept %s, want %s; treasury %s; uninsured %s", got, want, q.TreasuryShares, q.Uninsured)
	}
	if must(fixed.Add(p.SupplyShares, p.TreasuryShares)) != must(fixed.Add(q.SupplyShares, q.TreasuryShares)) || p.SupplyIndex != q.SupplyIndex {
		t.Error("a sweep made or lost claims")
	}
	pool := func(change func(*Pool)) func(*State) {
		return func(s *State) { p := s.Pools.at("usdt.eth"); change(&p); s.Pools.put("usdt.eth", p) }
	}
	for name, spoil := range map[string]func(*State){
		"frozen":       pool(func(p *Pool) { p.Frozen = true }),
		"paused":       pool(func(p *Pool) { p.Paused = true }),
		"impaired":     pool(func(p *Pool) { p.Deficit = fixed.New(1) }),
		"switched off": func(s *State) { s.Params.InsuranceBps = 0 },
		"not opened":   func(s *State) { s.Params.Insurance = []AccountID{strings.Repeat("ab", 16)} },
		"indebted":     func(s *State) { s.Params.Insurance = []AccountID{accountOf(c, borrower)} },
	} {
		if s := sweep(spoil); s.Pools.at("usdt.eth").Uninsured != earned {
			t.Errorf("%s: swept", name)
		}
	}
	_ = lender
	// The timer does it.
	mark := c.s.Time() / insuranceSeconds
	c.s.Millis = (mark+1)*insuranceSeconds*1000 - 1000
	c.s.LastTick = c.s.Time() / accrualSeconds
	c.tick(2000)
	if c.s.LastInsured != mark+1 || c.s.supplyShares(id, "usdt.eth").IsZero() {
		t.Errorf("mark %d, want %d; %s held", c.s.LastInsured, mark+1, c.s.supplyShares(id, "usdt.eth"))
	}
}

// A repayment that is seen protects its own amount, once, for a while (spec:
// lending §8.4, repay grace).
func TestRepayGrace(t *testing.T) {
	c, lender, borrower := dipped(t, "4500000000000")
	c.tick(60_000) // beyond the first-dip grace
	id := accountOf(c, borrower)
	f := c.inflowTo(id, "usdt.eth", PurposeRepay, "20000000000")
	seen := RepaySeenFact{Chain: f.Chain, ID: f.ID, Address: f.Address, Asset: f.Asset, Amount: f.Amount}
	if code := c.say(0, KindRepaySeen, seen); code != NotAllowed {
		t.Fatalf("while the rule is off: %s", code)
	}
	c.s.Params.RepayGraceSec = 1800
	c.some(2, KindRepaySeen, seen)
	if c.s.Seen.len() != 0 {
		t.Fatal("a window below quorum")
	}
	c.some(3, KindRepaySeen, seen)
	if got := c.s.onTheWay(id, "usdt.eth"); got != n("20000000000") {
		t.Fatalf("%s on the way", got)
	}
	if code := c.say(3, KindRepaySeen, seen); code != DuplicateInflow {
		t.Errorf("a second window for one inflow: %s", code)
	}
	wrong := seen
	wrong.Address = c.inflowTo(id, "usdt.eth", PurposeSupply, "1").Address
	if code := c.say(0, KindRepaySeen, wrong); code != NotAllowed {
		t.Errorf("a supply address: %s", code)
	}

	repaid := func(c *cluster) fixed.Int {
		if code := c.ask(lender, c.liquidate(borrower, "max", "", "0")); code != OK {
			return fixed.Int{}
		}
		e, _ := c.event(EventLiquidated)
		r := must(ParseLiquidation(e.Note))
		if _, err := ExplainLiquidation(r); err != nil {
			t.Error(err)
		}
		return r.Seizure.Repaid
	}
	view := func(change func(*cluster)) *cluster {
		w := *c
		w.s = c.s.View()
		change(&w)
		return &w
	}
	debt := must(c.s.View().fullDebt(id))
	half := must(fixed.DivFloor(debt, fixed.New(2)))
	if got := repaid(view(func(*cluster) {})); got != must(fixed.Sub(debt, seen.Amount)) {
		t.Errorf("repaid %s of %s, want what is uncovered", got, debt)
	}
	for name, change := range map[string]func(*cluster){
		"off": func(c *cluster) { c.s.Params.RepayGraceSec = 0 },
		"over": func(c *cluster) {
			w := c.s.Seen.at(seenKey(id, f.ID))
			w.Until = c.s.Millis
			c.s.Seen.put(seenKey(id, f.ID), w)
		},
		"worth dust": func(c *cluster) {
			w := c.s.Seen.at(seenKey(id, f.ID))
			w.Amount = n("999999999")
			c.s.Seen.put(seenKey(id, f.ID), w)
		},
	} {
		if got := repaid(view(change)); got.Less(half) || must(fixed.Add(half, fixed.New(1))).Less(got) {
			t.Errorf("%s: repaid %s, want half of %s", name, got, debt)
		}
	}
	if got := repaid(view(func(c *cluster) { c.prices("4390000000000", "250000000000", "100000000") })); got != must(c.s.View().fullDebt(id)) {
		t.Errorf("below HF 0.95: repaid %s of %s", got, debt)
	}
	all := view(func(c *cluster) {
		w := c.s.Seen.at(seenKey(id, f.ID))
		w.Amount = debt
		c.s.Seen.put(seenKey(id, f.ID), w)
	})
	if code := all.ask(lender, all.liquidate(borrower, "max", "", "0")); code != Grace {
		t.Errorf("all of it on the way: %s", code)
	}

	// Credited, it is money, and no evidence any more; forgotten a day after.
	done := view(func(c *cluster) {
		c.all(KindInflow, f)
		c.tick(1000)
		for range 3 {
			for _, b := range c.payments() {
				c.pay(b)
			}
			c.tick(1000)
		}
	})
	if done.s.Seen.len() != 0 || done.s.Inflows.at(f.ID).State != InflowCredited {
		t.Errorf("%d windows, inflow in state %d", done.s.Seen.len(), done.s.Inflows.at(f.ID).State)
	}
	if code := done.say(0, KindRepaySeen, seen); code != DuplicateInflow {
		t.Errorf("after the credit: %s", code)
	}
	old := view(func(c *cluster) { c.s.Millis += 1_800_000 + seenKeptMillis + 1; c.s.forgetSeen() })
	if old.s.Seen.len() != 0 {
		t.Error("kept for ever")
	}
	full := view(func(c *cluster) { // of others: no window more, whoever asks
		for i := 0; c.s.Seen.len() < maxSeen; i++ {
			c.s.Seen.put(seenKey(scaleID(i), "x"), SeenRepay{Asset: "btc", Until: c.s.Millis})
		}
		late := seen
		late.ID = hex.EncodeToString(seedOf("late", 0)) + ":0"
		c.some(3, KindRepaySeen, late)
	})
	if got := full.s.Seen.len(); got != maxSeen {
		t.Errorf("%d windows, want %d", got, maxSeen)
	}
	for i := range 2 * maxSeenOfAccount { // a list that stays short
		many := seen
		many.ID = hex.EncodeToString(seedOf("seen", i)) + ":0"
		c.some(3, KindRepaySeen, many)
	}
	if got := len(c.s.seen(id)); got != maxSeenOfAccount {
		t.Errorf("%d windows of one account", got)
	}
}

// fullDebt is what an account owes of USDT at this moment.
func (s *State) fullDebt(id AccountID) (fixed.Int, error) {
	s.sync()
	return fixed.MulDivCeil(s.Accounts.at(id).position("usdt.eth").Debt, s.Pools.at("usdt.eth").BorrowIndex, fixed.Ray)
}
