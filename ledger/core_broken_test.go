package ledger

import (
	"strings"
	"testing"

	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/ledger/fixed"
)

// spoilRates plants a mistake that only shows when time has passed: a pool that
// credits its suppliers a hundred per cent a year that no debtor pays.
func spoilRates(c *cluster) {
	p := c.s.Pools.at("usdt.eth")
	p.SupplyRate = fixed.Ray
	c.s.Pools.put("usdt.eth", p)
	c.broken = true
}

// An Intent that breaks the books: BROKEN is folded, all is as it was,
// outflows halt, and time goes on (spec: consensus §1).
func TestBrokenIntent(t *testing.T) {
	c, lender, borrower := lent(t)
	if code := c.ask(borrower, c.borrowUSDT("1000000000")); code != OK {
		t.Fatal(code)
	}
	// Within one accrual period, so that the command and no tick is the first.
	c.tick(15_000 - c.s.Millis%15_000 + 1000)
	spoilRates(c)
	c.all(KindClock, Clock{Millis: c.s.Millis + 5000})
	if c.s.OutflowsHalt != "" {
		t.Fatal("a tick was first: the test proves nothing")
	}
	before := frame(c.s, func(s *State) { s.OutflowsHalt = "" })
	head, height := c.s.Head, c.s.Height
	in := Command{Intent: lender.sign(c.text(lender, c.payout(address.ActionWithdraw, "usdt.eth", "1000000000", payeeETH, "10000000")))}
	if code := c.run(in); code != Broken {
		t.Fatalf("%s, want %s", code, Broken)
	}
	if !strings.HasPrefix(c.s.OutflowsHalt, string(Broken)) || len(c.last.Events) != 1 || c.last.Events[0].Name != "broken" {
		t.Errorf("halt %q, events %+v", c.s.OutflowsHalt, c.last.Events)
	}
	if frame(c.s, func(s *State) { s.OutflowsHalt = "" }) != before {
		t.Error("something was kept")
	}
	if c.s.Height != height+1 || c.s.Head != headOf(head, height+1, Marshal(in), Broken, c.last.Events, Hash{}) {
		t.Error("BROKEN is not under the head")
	}
	// Time goes on; nothing is planned, no tick makes it worse.
	now := c.s.Millis
	c.tick(60_000)
	if c.s.Millis != now+60_000 || len(c.payments()) != 1 {
		t.Errorf("time moved by %d, %d payments", c.s.Millis-now, len(c.payments()))
	}
	if code := c.ask(borrower, c.borrowUSDT("1000000000")); code != Halted {
		t.Errorf("a borrow while halted: %s", code)
	}
	spends, pays := reads(c, c.payment())
	if err := c.s.VerifySpend(c.payment().ID, c.payment().Newest().K, spends, pays); err == nil {
		t.Error("what was planned may still be signed")
	}
}

// A timer that breaks costs itself alone: the clock's word is OK, time has
// advanced, the other tasks of the tick ran.
func TestBrokenTick(t *testing.T) {
	c, _, borrower := lent(t)
	c.tick(15_000 - c.s.Millis%15_000 + 1000)
	spoilRates(c)
	c.all(KindClock, Clock{Millis: c.s.Millis + 5000})
	if code := c.ask(borrower, c.payout(address.ActionWithdraw, "btc", "1000000", payeeBTC(1), "10000")); code != OK && code != Broken {
		t.Fatal(code)
	}
	c.s.OutflowsHalt = ""
	now, index := c.s.Millis, c.s.Pools.at("usdt.eth").SupplyIndex
	c.tick(30_000)
	if c.s.Millis != now+30_000 {
		t.Errorf("time moved by %d", c.s.Millis-now)
	}
	if !strings.Contains(c.s.OutflowsHalt, "accrue") {
		t.Errorf("halt %q", c.s.OutflowsHalt)
	}
	if got := c.s.Pools.at("usdt.eth").SupplyIndex; got != index {
		t.Errorf("the broken accrual was kept: index %s", got)
	}
}

// A fact whose settlement panics is undone whole: neither paid nor half booked.
func TestBrokenFact(t *testing.T) {
	c, _, o, b := planned(t)
	c.broken = true
	// The batch is settled by Q, yet its outflow stands where no arrow leads on.
	bad := c.s.Outflows.at(o.ID)
	bad.State = Refunded
	c.s.Outflows.put(o.ID, bad)
	f := c.finalFact(b, OutcomePaid)
	c.some(2, KindFinal, f)
	before := frame(c.s)
	if code := c.say(2, KindFinal, f); code != Broken {
		t.Fatalf("%s, want %s", code, Broken)
	}
	if c.s.Batches.at(b.ID).Done || c.s.Coins.at(b.Anchor).State != CoinFrozen || !c.s.Coins.has(b.Anchor) {
		t.Error("the batch is half settled")
	}
	if !strings.HasPrefix(c.s.OutflowsHalt, string(Broken)) {
		t.Errorf("halt %q", c.s.OutflowsHalt)
	}
	c.s.OutflowsHalt = ""
	if frame(c.s) != before {
		t.Error("something was kept")
	}
	// The same on every replica: the same bytes break the same way again.
	if code := c.say(2, KindFinal, f); code != Broken {
		t.Errorf("again: %s", code)
	}
	c.tick(1000)
}

// Books that hold in a state from elsewhere are not taken on trust.
func TestBrokenSnapshotIsRefused(t *testing.T) {
	c, _, borrower := lent(t)
	if code := c.ask(borrower, c.borrowUSDT("1000000000")); code != OK {
		t.Fatal(code)
	}
	for name, spoil := range map[string]func(*Pool){
		"claims above assets": func(p *Pool) { p.Cash = must(fixed.Sub(p.Cash, fixed.New(10_000_000))) },
		"debt from nowhere":   func(p *Pool) { p.DebtShares = must(fixed.Add(p.DebtShares, fixed.New(1))) },
		"reserved twice":      func(p *Pool) { p.Reserved = must(fixed.Add(p.Reserved, p.Reserved)) },
	} {
		v := c.s.View()
		p := v.Pools.at("usdt.eth")
		spoil(&p)
		v.Pools.put("usdt.eth", p)
		if _, err := DecodeState(Marshal(v)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// "those marked ● also in production by Check() of what a command touched": I2,
// I3 and I5 are broken by what happens on one side only, without a walk and
// wherever it happens (spec: lending §14).
func TestBrokenSums(t *testing.T) {
	c, lender, borrower := lent(t)
	if code := c.ask(borrower, c.borrowUSDT("1000000000")); code != OK {
		t.Fatal(code)
	}
	one := fixed.New(1)
	pool := func(change func(*Pool)) func(*State) {
		return func(s *State) {
			p := s.Pools.at("usdt.eth")
			change(&p)
			s.Pools.put("usdt.eth", p)
		}
	}
	position := func(who wallet, pool string, change func(*Position)) func(*State) {
		return func(s *State) {
			a := s.Accounts.at(accountOf(c, who))
			at := a.position(pool)
			change(&at)
			s.Accounts.put(a.ID, a.withPosition(at))
		}
	}
	outflow := func(change func(*Outflow)) func(*State) {
		return func(s *State) {
			o := s.Outflows.at(c.s.NextOutflow - 1)
			change(&o)
			s.Outflows.put(o.ID, o)
		}
	}
	for name, spoil := range map[string]func(*State){
		"I2, a share less": position(lender, "usdt.eth", func(p *Position) { p.Supply = must(fixed.Sub(p.Supply, one)) }),
		"I2, a share more": position(lender, "usdt.eth", func(p *Position) { p.Supply = must(fixed.Add(p.Supply, one)) }),
		"I2, shares of nobody": pool(func(p *Pool) {
			p.SupplyShares, p.Cash = must(fixed.Add(p.SupplyShares, one)), must(fixed.Add(p.Cash, one))
		}),
		"I2, an account gone":     func(s *State) { s.Accounts.delete(accountOf(c, lender)) },
		"I3, a debt forgotten":    position(borrower, "usdt.eth", func(p *Position) { p.Debt = must(fixed.Sub(p.Debt, one)) }),
		"I3, a debt of nobody":    pool(func(p *Pool) { p.DebtShares = must(fixed.Add(p.DebtShares, one)) }),
		"I3, a debt elsewhere":    position(lender, "btc", func(p *Position) { p.Debt = one }),
		"I5, reserved for nobody": pool(func(p *Pool) { p.Reserved = must(fixed.Add(p.Reserved, one)) }),
		"I5, paid and reserved":   outflow(func(o *Outflow) { o.State = Paid }),
		"I5, another amount":      outflow(func(o *Outflow) { o.Gross = must(fixed.Add(o.Gross, one)) }),
		"I5, an outflow gone":     func(s *State) { s.Outflows.delete(c.s.NextOutflow - 1) },
	} {
		s := c.s.View()
		before := Marshal(s)
		x := &execution{s: s}
		if code := x.guard("test", func(x *execution) Code { spoil(x.s); return OK }); code != Broken {
			t.Errorf("%s: %s", name, code)
		}
		if !strings.HasPrefix(x.s.OutflowsHalt, string(Broken)) {
			t.Errorf("%s: outflows go on", name)
		}
		if x.s.OutflowsHalt = ""; string(Marshal(x.s)) != string(before) {
			t.Errorf("%s: something was kept", name)
		}
	}
	x := &execution{s: c.s.View()}
	if code := x.guard("test", func(x *execution) Code { return OK }); code != OK {
		t.Errorf("nothing: %s", code)
	}
}
