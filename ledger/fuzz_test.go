package ledger

import (
	"encoding/hex"
	"testing"

	"github.com/coffer-network/coffer/ledger/address"
)

// FuzzCommandDecode: what decodes is canonical, so that one fact has one hash,
// and nothing that arrives panics the codec.
func FuzzCommandDecode(f *testing.F) {
	c, _, borrower := lent(f)
	f.Add(Marshal(Command{Intent: borrower.sign(c.text(borrower, c.borrowUSDT("1000000")))}))
	for _, raw := range c.log[len(c.log)-40:] {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var cmd Command
		if err := Unmarshal(raw, &cmd); err != nil {
			return
		}
		if again := Marshal(cmd); string(again) != string(raw) {
			t.Fatalf("%x decodes and encodes to %x", raw, again)
		}
		c.s.SignatureChecks(raw)
	})
}

// FuzzApply: whatever bytes are in the log, Execute answers with a code that is
// no BROKEN, the books hold, and a refusal leaves at most a used number behind.
// Every signature counts as good, so that the bytes get past it.
func FuzzApply(f *testing.F) {
	c, lender, borrower := lent(f)
	stages := []*State{c.s.Frozen()}
	c.ask(borrower, c.borrowUSDT("1000000000"))
	stages = append(stages, c.s.Frozen())
	c.tick(60_000)
	stages = append(stages, c.s.Frozen())
	for stage, s := range stages {
		v := *c
		v.s = s.View()
		for _, cmd := range []address.Command{
			{Action: address.ActionCancel},
			c.borrowUSDT("1000000"),
			c.payout(address.ActionWithdraw, "btc", "100000", payeeBTC(1), "10000"),
			{Action: address.ActionClaim, Pool: "btc", To: c.payout("", "btc", "1", payeeBTC(1), "1").To, MaxFee: c.s.Grammar().Amount("btc", "10000")},
			{Action: address.ActionCancelOutflow, Outflow: 1},
			{Action: address.ActionRepayFromSupply, Pool: "usdt.eth", Amount: c.s.Grammar().MaxAmount("usdt.eth")},
			{Action: address.ActionCoverDeficit, Pool: "usdt.eth", Amount: c.s.Grammar().Amount("usdt.eth", "1")},
		} {
			f.Add(Marshal(Command{Intent: borrower.sign(v.text(borrower, cmd))}), uint8(stage))
			f.Add(Marshal(Command{Intent: lender.sign(v.text(lender, cmd))}), uint8(stage))
		}
		for _, fact := range []struct {
			kind Kind
			body any
		}{
			{KindClock, Clock{Millis: s.Millis + 5000}},
			{KindPrice, []PriceReport{{Asset: "btc", Round: s.Time()/15 + 1, Price: n("1"), Observed: s.Millis}}},
			{KindFee, []FeeReport{{Chain: Bitcoin, Rate: 3000}}},
			{KindHeight, []HeightReport{{Chain: Bitcoin, Height: 300, Hash: "x"}}},
			{KindInflow, InflowFact{Chain: Bitcoin, ID: "x:0", Address: "x", Asset: "btc", Amount: n("5"), Height: 1, Block: "b"}},
			{KindSpent, SpentFact{Batch: 1, Height: 1, Block: "b"}},
			{KindUnmined, UnminedFact{Batch: 1, Block: "b"}},
			{KindFinal, FinalFact{Batch: 1, Outcome: OutcomePaid, TxID: "x", Fee: n("5"), Height: 1, Block: "b"}},
			{KindFloat, FloatFact{Chain: Ethereum, Address: "x", Amount: n("5")}},
			{KindGaveUp, GaveUp{Batch: 1, Attempt: 1}},
		} {
			f.Add(Marshal(Command{Attestation: NewAttestation(c.keys[0], s.Cluster, 1<<40, fact.kind, fact.body)}), uint8(stage))
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte, stage uint8) {
		was := stages[int(stage)%len(stages)]
		s, again := was.View(), was.View()
		r := s.ExecuteWith(raw, always(true))
		if other := again.ExecuteWith(raw, always(true)); other.Header != r.Header || s.Head != again.Head {
			t.Fatalf("two answers: %s and %s", r.Code, other.Code)
		}
		if r.Code == Broken || s.OutflowsHalt != was.OutflowsHalt {
			t.Fatalf("%s: outflows halt: %q", r.Code, s.OutflowsHalt)
		}
		if err := s.Check(); err != nil {
			t.Fatalf("after %s: %v", r.Code, err)
		}
		if s.Height != was.Height+1 {
			t.Fatalf("height %d after %d", s.Height, was.Height)
		}
		if r.Code == OK {
			return
		}
		// A refusal: at most the nonce or the number is used up.
		var cmd Command
		nonce := func(*State) {}
		if len(raw) <= MaxCommand && Unmarshal(raw, &cmd) == nil && cmd.Intent != nil {
			if c, _ := s.Grammar().Parse(cmd.Intent.Text); c != nil {
				nonce = apartFrom(hex.EncodeToString(c.Account[:]))
			}
		}
		if frame(s, nonce) != frame(was, nonce) {
			t.Fatalf("%s changed more than a number", r.Code)
		}
	})
}
