package ledger

import (
	"slices"
	"testing"

	"github.com/coffer-network/coffer/ledger/fixed"
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
// The suspect one is the newest that jumped; the ten minutes run from the first.
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
		"not confirmed while it moves":    {{15_000, "4000000000000", true, "a fall"}, {75_000, "4100000000000", true, "2.5 % further"}, {15_000, "4101000000000", true, "calm, and not what it jumped to"}, {15_000, "4040000000000", false, "exactly 1 % from that"}},
		"not by small steps":              {{15_000, "4000000000000", true, "a fall"}, {75_000, "4040000000001", true, "a unit above 1 %"}, {15_000, "4060000000000", true, "0.5 % on"}, {15_000, "3959999999999", true, "a unit below"}, {15_000, "3960000000000", false, "1 % below"}},
		"a minute at least":               {{15_000, "4000000000000", true, "a fall"}, {59_999, "4000000000000", true, "a millisecond short"}, {15_000, "4000000000000", false, "75 s"}},
		"a second jump is confirmed anew": {{15_000, "4000000000000", true, "a fall"}, {75_000, "5000000000000", true, "back"}, {45_000, "5000000000000", true, "45 s"}, {15_000, "5000000000000", false, "a minute after it came back"}},
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

// Plants absurd fees of two members of four, 0 and 2¹⁷ gwei (spec: outflows §10, 15).
// Fee rates: the upper middle of at least 2f+1 fresh ones, between floor and
// cap, at most doubled or halved per ten minutes (spec: outflows §7).
func TestFault15_AbsurdFees(t *testing.T) {
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

// Reports that cannot count are dropped one by one; the others of the same word
// count. Two different words of one member for one round are evidence, and the
// first counts (spec: lending §12.2, §12.3).
func TestDroppedReports(t *testing.T) {
	c := running(t)
	c.tick(60_000) // so that something can be a minute old
	r := c.nextRound()
	now := c.s.Millis
	eth := PriceReport{Asset: "eth", Round: r, Price: n("250000000000"), Observed: now}
	btc := func(round, observed uint64, price string) PriceReport {
		return PriceReport{Asset: "btc", Round: round, Price: n(price), Observed: observed}
	}
	for name, bad := range map[string]PriceReport{
		"zero":                   btc(r, now, "0"),
		"older than a minute":    btc(r, now-60_001, "5000000000000"),
		"observed in time ahead": btc(r, now+1, "5000000000000"),
		"of a round to come":     btc(r+1, now, "5000000000000"),
		"of an unknown asset":    {Asset: "doge", Round: r, Price: n("1"), Observed: now},
	} {
		w := *c
		w.s = c.s.View()
		before := w.s.Prices.at("btc")
		for i := range w.keys {
			if code := w.say(i, KindPrice, []PriceReport{bad, eth}); code != OK {
				t.Errorf("%s, beside a good one: %s", name, code)
			}
		}
		if w.s.Prices.at("btc") != before || w.s.Prices.at("eth").Round != r {
			t.Errorf("%s: btc %+v, eth of round %d", name, w.s.Prices.at("btc"), w.s.Prices.at("eth").Round)
		}
		if code := w.say(0, KindPrice, []PriceReport{bad}); code != Malformed {
			t.Errorf("%s, alone: %s", name, code)
		}
	}
	w := *c
	w.s = c.s.View()
	for i := range w.keys { // a minute old to the millisecond counts
		w.say(i, KindPrice, []PriceReport{btc(r, now-60_000, "5000000000000")})
	}
	if w.s.Prices.at("btc").Round != r {
		t.Error("a minute is too old")
	}
}

func (c *cluster) events(member int, body any) []Event {
	c.t.Helper()
	c.seq++
	res := c.s.Execute(Marshal(Command{Attestation: NewAttestation(c.keys[member], c.s.Cluster, c.seq, KindPrice, body)}))
	if res.Code != OK {
		c.t.Fatal(res.Code)
	}
	return res.Events
}

func TestTwoWordsAreEvidence(t *testing.T) {
	c := running(t)
	r := c.nextRound()
	first := []PriceReport{{Asset: "btc", Round: r, Price: n("5000000000000"), Observed: c.s.Millis}}
	if e := c.events(1, first); len(e) != 0 {
		t.Fatalf("a first word: %+v", e)
	}
	if e := c.events(1, first); len(e) != 0 {
		t.Errorf("the same word again is no evidence: %+v", e)
	}
	for name, change := range map[string]func(*PriceReport){
		"another price": func(p *PriceReport) { p.Price = n("5000000000001") },
		"another time":  func(p *PriceReport) { p.Observed-- },
	} {
		second := first[0]
		change(&second)
		e := c.events(1, []PriceReport{second})
		if len(e) != 1 || e[0].Name != "evidence-e1" || e[0].Asset != "btc" || e[0].Note != reportNote(idOf(c.keys[1]), second) {
			t.Errorf("%s: %+v", name, e)
		}
	}
	if got := c.s.Seats.at(idOf(c.keys[1]).String()).Reports; got[0] != first[0] {
		t.Errorf("the first word is %+v", got[0])
	}
}

// "The price log is public and signed; every liquidation can be recomputed from
// it": a closed round says which reports made it, and they make it again.
func TestPriceLog(t *testing.T) {
	c := running(t)
	r := c.nextRound()
	var events []Event
	for i, p := range []string{"5000000000000", "5030000000000", "5010000000000"} {
		events = c.events(i, []PriceReport{{Asset: "btc", Round: r, Price: n(p), Observed: c.s.Millis - uint64(i)}})
	}
	if len(events) != 4 || events[0].Name != "price" || events[0].Amount != "5010000000000" || events[0].Note != "5010000000000" {
		t.Fatalf("events %+v", events)
	}
	kept := c.s.Rounds.at("btc").Reports
	var ps []fixed.Int
	said := map[string]string{}
	for _, e := range events[1:] {
		if e.Name != "price-report" || e.Asset != "btc" {
			t.Errorf("event %+v", e)
		}
		ps, said[e.Note] = append(ps, n(e.Amount)), e.Amount
	}
	if len(kept) != 3 {
		t.Fatalf("kept %+v", kept)
	}
	for _, k := range kept {
		if said[reportNote(k.Member, PriceReport{Round: r, Observed: k.Observed})] != k.Price.String() {
			t.Errorf("kept %+v, said %v", k, said)
		}
	}
	slices.SortFunc(ps, fixed.Int.Cmp)
	if p := c.s.Prices.at("btc"); ps[1] != p.Low || ps[1] != p.High {
		t.Errorf("reports %v make %+v", ps, p)
	}
}

// The ages of spec lending §12: at the second it still counts, past it not.
func TestPriceAges(t *testing.T) {
	for name, tc := range map[string]struct {
		age  uint64
		want Code
	}{"a borrow, of its age": {120_000, OK}, "a borrow, older": {120_001, PriceStale}, "a liquidation, of its age": {900_000, OK}, "a liquidation, older": {900_001, PriceStale}} {
		s := lendingState(t)
		supplied(t, s, "alice", "btc", "100000000")
		limit := s.Params.PriceMaxAge
		if tc.age > 200_000 {
			limit = s.Params.LiquidationAge
		}
		s.Millis = s.Prices.at("btc").Millis + tc.age
		if code := s.fresh(s.Accounts.at("alice"), limit); code != tc.want {
			t.Errorf("%s: %s, want %s", name, code, tc.want)
		}
	}
}
