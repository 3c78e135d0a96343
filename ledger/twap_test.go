package ledger

import (
	"testing"

	"github.com/coffer-network/coffer/ledger/fixed"
	"pgregory.net/rapid"
)

func TestTWAP(t *testing.T) {
	const start = 1_700_000_000_000
	for name, tc := range map[string]struct {
		past []PastRound
		now  uint64
		want string // empty: none
	}{
		"no round":                       {nil, start, ""},
		"no time under the first":        {[]PastRound{{start, n("5")}}, start, ""},
		"one price":                      {[]PastRound{{start, n("5")}}, start + 1, "5"},
		"weighted by time, rounded down": {[]PastRound{{start, n("10")}, {start + 1000, n("20")}}, start + 4000, "17"}, // 70/4
		"only thirty minutes count":      {[]PastRound{{start, n("1000")}, {start + 60_000, n("7")}}, start + 60_000 + twapMillis, "7"},
		"the one it began with counts":   {[]PastRound{{start, n("1800")}, {start + 60_000, n("0")}}, start + twapMillis + 59_000, "1"},
		"the largest price":              {[]PastRound{{start, fixed.MustParse("340282366920938463463374607431768211455")}}, start + 2*twapMillis, "340282366920938463463374607431768211455"},
	} {
		got, ok := twap(tc.past, tc.now)
		if ok != (tc.want != "") || ok && got != n(tc.want) {
			t.Errorf("%s: %s %v, want %q", name, got, ok, tc.want)
		}
	}
}

// What is kept gives the same average as everything would, as long as rounds
// are 15 s or longer, and never grows past its bound.
func TestTWAPForgetsNothingItNeeds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := uint64(1_700_000_000_000)
		var kept, all []PastRound
		for range rapid.IntRange(1, 300).Draw(t, "rounds") {
			now += rapid.Uint64Range(15_130, 400_000).Draw(t, "gap")
			p := Price{Low: fixed.New(rapid.Uint64Range(1, 1<<40).Draw(t, "price")), Millis: now}
			kept, all = keepRound(kept, p), append(all, PastRound{now, p.Low})
			at := now + rapid.Uint64Range(0, 20_000).Draw(t, "then")
			a, ok := twap(kept, at)
			b, okAll := twap(all, at)
			if a != b || ok != okAll || len(kept) > maxPastRounds {
				t.Fatalf("%s %v of %d kept, %s %v of all", a, ok, len(kept), b, okAll)
			}
		}
	})
}

// A price that is led away in small steps raises no suspicion and an alert, and
// the alert changes nothing else (spec: lending §12.5).
func TestTWAPAlert(t *testing.T) {
	c := running(t)
	step := func(price string) (alerts int) {
		r := c.nextRound()
		for i := range 3 {
			for _, e := range c.events(i, []PriceReport{{Asset: "btc", Round: r, Price: n(price), Observed: c.s.Millis}}) {
				if e.Name == "price-alert" {
					alerts++
				}
			}
		}
		return alerts
	}
	at := func() Price { return c.s.Prices.at("btc") }
	for range 130 {
		if step("5000000000000") != 0 {
			t.Fatal("an alert at rest")
		}
	}
	if got := len(c.s.Rounds.at("btc").Past); got != maxPastRounds {
		t.Fatalf("%d rounds kept", got)
	}
	if step("4875000000000") != 0 || at().TWAP != n("5000000000000") {
		t.Fatalf("2.5 %% to the unit is an alert: %+v", at())
	}
	if bps, ok := at().FromTWAP(); !ok || bps != 250 {
		t.Errorf("%d bps from the average", bps)
	}
	if step("4857500000000") != 1 || at().Alert != c.s.Millis { // 2.85 %, as on 2026-03-10
		t.Fatalf("no alert: %+v", at())
	}
	since := at().Alert
	if step("4857500000000") != 0 || at().Alert != since {
		t.Errorf("an alert that goes on is said once: %+v", at())
	}
	if p := at(); p.Suspect != 0 || p.Low != n("4857500000000") {
		t.Errorf("an alert changed the price: %+v", p)
	}
	if step("5000000000000") != 0 || at().Alert != 0 {
		t.Errorf("an alert that is over: %+v", at())
	}
	c.s.Params.TWAPAlertBps = 0
	if step("4760000000000") != 0 || at().Alert != 0 {
		t.Error("an alert that is switched off")
	}
	if err := c.s.Check(); err != nil {
		t.Error(err)
	}
}
