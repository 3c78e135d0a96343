package ledger

import (
	"slices"
	"testing"

	"github.com/coffer-network/coffer/ledger/address"
)

// "at most ×2 or ÷2 per 10 min" (spec: outflows §7). attest.go, closeFee: the
// window's end takes the rate that was already doubled as the next base, so the
// next word doubles again in the same millisecond.
func TestRegressionFeeQuadruplesAtAWindowsEnd(t *testing.T) {
	c := running(t)
	c.tick(600_001)
	for i := range 4 {
		c.fee(i, 4*gweiCore, gweiCore)
	}
	if r := c.s.Rates.at(Ethereum); r.Rate > 2*gweiCore {
		t.Errorf("from 1 to %d gwei within one millisecond", r.Rate/gweiCore)
	}
}

// "A single attestation more than 60 s beyond raw is not shown as presence"
// (spec: consensus §7). tick.go, roster: it is, for as long as it lies ahead.
func TestRegressionFarClockIsPresence(t *testing.T) {
	c := running(t)
	c.say(3, KindClock, Clock{Millis: maxClockMillis})
	for range 60 {
		for i := range 3 {
			c.say(i, KindClock, Clock{Millis: c.s.Millis + 1000})
		}
	}
	liar := idOf(c.keys[3])
	for k := range uint64(16) {
		if got := slices.Index(c.s.roster(c.s.Epoch(), 77, k), liar); got != 3 {
			t.Fatalf("silent for a minute after one absurd clock, it stands at %d of 0 to 3", got)
		}
	}
}

// settle.go, spent: the fourth member's word comes after the count and opens a
// tally that nothing ever closes.
func TestRegressionLateSpentLeavesATally(t *testing.T) {
	c, _, _, b := planned(t)
	c.pay(b)
	if got := c.s.Tally.len(); got != 0 {
		t.Errorf("%d open tallies after everything is settled", got)
	}
}

// intent.go, prelude: with a full ledger a client cannot even cancel.
func TestRegressionFullLedgerRefusesCancel(t *testing.T) {
	c, _, w := lent(t)
	id := c.s.NextOutflow
	if code := c.ask(w, c.borrowUSDT("1000000000")); code != OK {
		t.Fatal(code)
	}
	for i := uint64(0); c.s.Live.len()+c.s.Queue.len() < MaxOpenOutflows; i++ {
		c.s.Live.put(1<<40+i, 1)
	}
	in := w.sign(c.text(w, address.Command{Action: address.ActionCancelOutflow, Outflow: id}))
	if code := c.s.Apply(Command{Intent: in}); code != OK {
		t.Errorf("Cancel outflow: %s", code)
	}
}

// check.go: rows of Queue and Live that no outflow or batch stands behind pass
// Check and DecodeState, and break every later tick.
func TestRegressionCheckMissesOrphans(t *testing.T) {
	c := running(t)
	for name, spoil := range map[string]func(*State){
		"a live batch that is none":     func(s *State) { s.Live.put(99_999, 1) },
		"a queued outflow that is none": func(s *State) { s.Queue.put(99_999, 1) },
		"a waiting inflow that is none": func(s *State) { s.Waiting.put(payeeETH+"/usdt.eth", []string{"x"}) },
	} {
		v := c.s.View()
		spoil(v)
		if _, err := DecodeState(Marshal(v)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
