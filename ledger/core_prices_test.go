package ledger

import (
	"testing"
)

// report is one member's price of btc for a round, observed now.
func (c *cluster) report(member int, round uint64, price string) Code {
	c.t.Helper()
	return c.say(member, KindPrice, []PriceReport{{Asset: "btc", Round: round, Price: n(price), Observed: c.s.Millis}})
}

// nextRound moves ledger time into a round of its own and returns it.
func (c *cluster) nextRound() uint64 {
	c.t.Helper()
	c.tick(15_000)
	return c.s.Time() / 15
}

// "When at least 2f+1 remain the round may close and all of them count: low is
// the lower and high the upper middle, no mean" (spec: lending §12.2).
func TestPriceRounds(t *testing.T) {
	c := running(t)
	at := func() Price { return c.s.Prices.at("btc") }
	old := at()
	r := c.nextRound()
	for i, p := range []string{"5000000000000", "5001000000000"} {
		if code := c.report(i, r, p); code != OK || at() != old {
			t.Fatalf("word %d: %s, %+v: closed below 2f+1", i, code, at())
		}
	}
	// A second report of one member for a round never counts.
	for range 3 {
		if c.report(1, r, "5009000000000"); at() != old {
			t.Fatal("one member closed a round by speaking twice")
		}
	}
	c.report(2, r, "4000000000000")
	if p := at(); p.Low != n("5000000000000") || p.High != p.Low || p.Round != r || p.Millis != c.s.Millis {
		t.Fatalf("closed at %+v, want the middle of three", p)
	}
	// Late: the round is closed, what comes changes nothing.
	closed := at()
	if c.report(3, r, "5002000000000"); at() != closed {
		t.Errorf("a late report changed the price to %+v", at())
	}
	// An older round never opens again.
	if c.report(0, r-1, "1"); at() != closed {
		t.Errorf("an old round changed the price to %+v", at())
	}

	// One liar of three stays outside; and it is the first report that counts.
	r = c.nextRound()
	c.report(0, r, "5000000000000")
	c.report(1, r, "5010000000000")
	c.report(1, r, "1")
	c.report(2, r, "9999000000000")
	if p := at(); p.Low != n("5010000000000") || p.High != p.Low {
		t.Errorf("one liar of three: %+v", p)
	}
}

// closeRound sees all fresh reports of a round: with an even count there are
// two middles.
func TestPriceMiddles(t *testing.T) {
	c := running(t)
	r := c.nextRound()
	x := &execution{s: c.s.View()}
	for i, p := range []string{"5000000000000", "5030000000000", "5010000000000", "5020000000000"} {
		seat := x.s.Seats.at(idOf(c.keys[i]).String())
		seat.Reports = []PriceReport{{Asset: "btc", Round: r, Price: n(p), Observed: x.s.Millis}}
		x.s.Seats.put(idOf(c.keys[i]).String(), seat)
	}
	x.closeRound("btc", r)
	if p := x.s.Prices.at("btc"); p.Low != n("5010000000000") || p.High != n("5020000000000") {
		t.Errorf("middles %s and %s", p.Low, p.High)
	}
	// Reports older than a minute are none.
	x.s.Millis += 60_001
	x.closeRound("btc", r+1)
	if p := x.s.Prices.at("btc"); p.Round != r {
		t.Errorf("stale reports closed round %d", p.Round)
	}
}

// "|new − old|·10⁴ > 500·old makes the price SUSPECT. It ends when a second
// round at least 60 s later is within 1 % of the suspect one, or after 10 min."
func TestSuspectPrices(t *testing.T) {
	type step struct {
		after   uint64 // ms
		price   string
		suspect bool
		why     string
	}
	for name, steps := range map[string][]step{
		"five per cent is no jump":        {{15_000, "5250000000000", false, "exactly 500 bps"}},
		"more is":                         {{15_000, "5250000000001", true, "a unit more"}},
		"down as well":                    {{15_000, "4749999999999", true, "a unit more"}},
		"confirmed after a minute":        {{15_000, "4000000000000", true, "a fall"}, {30_000, "4000000000000", true, "30 s"}, {45_000, "4010000000000", false, "75 s, within 1 %"}},
		"not confirmed while it moves":    {{15_000, "4000000000000", true, "a fall"}, {75_000, "4100000000000", true, "2.5 % further"}, {15_000, "4101000000000", false, "calm"}},
		"for ten minutes at most":         {{15_000, "4000000000000", true, "a fall"}, {300_000, "4400000000000", true, "moving"}, {285_000, "4000000000000", true, "still moving"}, {15_000, "4400000000000", false, "ten minutes"}},
		"back where it was, yet a second": {{15_000, "4000000000000", true, "a fall"}, {15_000, "5000000000000", true, "back"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := running(t)
			before := c.s.Prices.at("btc").Low
			for _, s := range steps {
				c.tick(s.after)
				c.prices(s.price, "250000000000", "100000000")
				p := c.s.Prices.at("btc")
				if got := p.Suspect != 0; got != s.suspect {
					t.Fatalf("%s: suspect %v, want %v", s.why, got, s.suspect)
				}
				if s.suspect && (p.SusLow != before || p.SusHigh != before) {
					t.Fatalf("%s: the price before is %s, want %s", s.why, p.SusLow, before)
				}
				if p.Low != n(s.price) {
					t.Fatalf("%s: the price itself is %s", s.why, p.Low)
				}
			}
		})
	}
}

func (c *cluster) fee(member int, rate, tip uint64) {
	c.t.Helper()
	if code := c.say(member, KindFee, []FeeReport{{Chain: Ethereum, Rate: rate, Tip: tip}}); code != OK {
		c.t.Fatal(code)
	}
}

// Fee rates: the upper middle of at least 2f+1 fresh ones, between floor and
// cap, at most doubled or halved per ten minutes (spec: outflows §7).
func TestFeeRates(t *testing.T) {
	c := running(t)
	at := func() FeeRate { return c.s.Rates.at(Ethereum) }
	say := func(rates ...uint64) {
		for i, r := range rates {
			c.fee(i, r*gweiCore, gweiCore)
		}
	}
	if say(100, 100, 100, 100); at().Rate != 2*gweiCore {
		t.Fatalf("from 1 to %d: more than doubled in a window", at().Rate)
	}
	for range 5 {
		c.tick(600_001)
		say(8, 8, 8, 8)
	}
	for i, tc := range []struct {
		rates []uint64
		want  uint64
		why   string
	}{
		{[]uint64{8, 8, 0, 1 << 17}, 8, "one liar low, one high"},
		{[]uint64{8, 8, 9, 10}, 9, "an even count takes the upper middle"},
		{[]uint64{1, 1, 1, 1}, 4, "halved at most"},
		{[]uint64{100, 100, 100, 100}, 16, "doubled at most, from where the window began"},
		{[]uint64{8, 8, 8, 8}, 8, "back"},
	} {
		if say(tc.rates...); at().Rate != tc.want*gweiCore {
			t.Errorf("%d, %s: %d, want %d gwei", i, tc.why, at().Rate, tc.want)
		}
	}
	for range 4 { // three windows on it is at the cap, and stays
		c.tick(600_000)
		say(100, 100, 100, 100)
	}
	if at().Rate != 20*gweiCore {
		t.Errorf("rate %d, want the cap", at().Rate)
	}
	for range 8 {
		c.tick(600_000)
		say(0, 0, 0, 0)
	}
	if at().Rate != gweiCore || at().Tip != gweiCore {
		t.Errorf("rate %d, want the floor", at().Rate)
	}
	// Below 2f+1 fresh ones there is no new rate, and the old one goes stale.
	c.tick(600_001)
	was := at()
	c.fee(0, 2*gweiCore, gweiCore)
	c.fee(1, 2*gweiCore, gweiCore)
	if at() != was {
		t.Error("two members made a rate")
	}
	if _, ok := c.s.freshRate(Ethereum); ok {
		t.Error("an old rate counts as fresh")
	}
	if _, _, code := c.s.Quote("usdt.eth", payeeETH, n("1000000000")); code != Halted {
		t.Errorf("a quote without a rate: %s", code)
	}
	c.fee(2, 2*gweiCore, gweiCore)
	if _, ok := c.s.freshRate(Ethereum); !ok {
		t.Error("three members make no rate")
	}
}
