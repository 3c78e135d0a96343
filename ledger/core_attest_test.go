package ledger

import (
	"crypto/ed25519"
	"fmt"
	"strings"
	"testing"
)

// Each refusal of an attestation has its name and changes nothing, the number
// apart once the signature is the member's (spec: consensus §7).
func TestAttestationRefusals(t *testing.T) {
	c := running(t)
	const fresh = 1 << 40
	clock := Clock{Millis: coreStart + 1}
	stranger := memberKey(99)
	sign := func(change func(*Attestation), key ed25519.PrivateKey) *Attestation {
		a := NewAttestation(key, c.s.Cluster, fresh, KindClock, clock)
		change(a)
		a.Sig = Sign(key, attestationDomain, a.signed())
		return a
	}
	body := func(kind Kind, body any) *Attestation {
		return sign(func(a *Attestation) { a.Kind, a.Body = kind, Marshal(body) }, c.keys[1])
	}
	seat := c.s.Seats.at(idOf(c.keys[1]).String()).Seq
	price := func(change func(*PriceReport)) []PriceReport {
		r := PriceReport{Asset: "btc", Round: c.s.Time() / 15, Price: n("1"), Observed: c.s.Millis}
		change(&r)
		return []PriceReport{r}
	}
	deposit := c.inflowTo(c.open(btcWallet(1)), "btc", PurposeSupply, "100000")
	inflow := func(change func(*InflowFact)) *Attestation {
		f := deposit
		change(&f)
		return body(KindInflow, f)
	}
	long := strings.Repeat("x", maxTextInFacts+1)
	for name, tc := range map[string]struct {
		a    *Attestation
		code Code
		used bool // whether the number is used up
	}{
		"another cluster":       {sign(func(a *Attestation) { a.Cluster[0]++ }, c.keys[1]), WrongCluster, false},
		"a stranger":            {sign(func(*Attestation) {}, stranger), NotAllowed, false},
		"in a member's name":    {sign(func(a *Attestation) { a.Member = idOf(c.keys[2]) }, c.keys[1]), BadSignature, false},
		"signed for less":       {func() *Attestation { a := sign(func(*Attestation) {}, c.keys[1]); a.Seq++; return a }(), BadSignature, false},
		"an equal number":       {sign(func(a *Attestation) { a.Seq = seat }, c.keys[1]), BadNonce, false},
		"a lower number":        {sign(func(a *Attestation) { a.Seq = seat - 1 }, c.keys[1]), BadNonce, false},
		"number 0":              {sign(func(a *Attestation) { a.Seq = 0 }, c.keys[1]), BadNonce, false},
		"an unknown kind":       {sign(func(a *Attestation) { a.Kind = 99 }, c.keys[1]), Malformed, true},
		"kind 0":                {sign(func(a *Attestation) { a.Kind = 0 }, c.keys[1]), Malformed, true},
		"another kind's body":   {sign(func(a *Attestation) { a.Kind = KindPrice }, c.keys[1]), Malformed, true},
		"no body":               {sign(func(a *Attestation) { a.Body = nil }, c.keys[1]), Malformed, true},
		"a body with more":      {sign(func(a *Attestation) { a.Body = append(a.Body, 0) }, c.keys[1]), Malformed, true},
		"a clock beyond reason": {body(KindClock, Clock{Millis: maxClockMillis + 1}), Malformed, true},

		"no prices":               {body(KindPrice, []PriceReport{}), Malformed, true},
		"too many prices":         {body(KindPrice, make([]PriceReport, maxReports+1)), Malformed, true},
		"a price of 0":            {body(KindPrice, price(func(r *PriceReport) { r.Price = n("0") })), Malformed, true},
		"a price of the future":   {body(KindPrice, price(func(r *PriceReport) { r.Observed++ })), Malformed, true},
		"a price too old":         {body(KindPrice, price(func(r *PriceReport) { r.Observed -= 60_001 })), Malformed, true},
		"a round of the future":   {body(KindPrice, price(func(r *PriceReport) { r.Round++ })), Malformed, true},
		"a price of no asset":     {body(KindPrice, price(func(r *PriceReport) { r.Asset = "doge" })), Malformed, true},
		"a fee of no chain":       {body(KindFee, []FeeReport{{Chain: "doge", Rate: 1}}), Malformed, true},
		"a fee with a time":       {body(KindFee, []FeeReport{{Chain: "btc", Rate: 1, Millis: 1}}), Malformed, true},
		"a fee beyond reason":     {body(KindFee, []FeeReport{{Chain: "btc", Rate: maxClockMillis + 1}}), Malformed, true},
		"a height of no chain":    {body(KindHeight, []HeightReport{{Chain: "doge", Height: 1}}), Malformed, true},
		"a height beyond reason":  {body(KindHeight, []HeightReport{{Chain: "btc", Height: maxClockMillis + 1}}), Malformed, true},
		"a block hash too long":   {body(KindHeight, []HeightReport{{Chain: "btc", Height: 1, Hash: long}}), Malformed, true},
		"an inflow of nothing":    {inflow(func(f *InflowFact) { f.Amount = n("0") }), Malformed, true},
		"an inflow's id too long": {inflow(func(f *InflowFact) { f.ID = long }), Malformed, true},
		"an unlisted asset":       {inflow(func(f *InflowFact) { f.Asset = "shib.eth" }), UnknownPool, true},
		"an asset without a pool": {inflow(func(f *InflowFact) { f.Asset, f.Chain = "eth", "eth" }), UnknownPool, true},
		"an asset elsewhere":      {inflow(func(f *InflowFact) { f.Chain = "eth" }), UnknownPool, true},
		"an unknown address":      {inflow(func(f *InflowFact) { f.Address = payeeBTC(1) }), NotAllowed, true},
		"the vault's own address": {inflow(func(f *InflowFact) { w, _ := c.s.Vault(Bitcoin, "minter"); f.Address = w.Address }), NotAllowed, true},
		"a float that is none":    {body(KindFloat, FloatFact{Chain: Ethereum, Address: payeeETH, Amount: etherCore}), NotAllowed, true},
		"a share nobody planned":  {body(KindShareReady, ShareReady{Key: KeyECDSA1, Epoch: 2, Try: 1}), NotAllowed, true},
		"an outcome of no name":   {body(KindFinal, FinalFact{Batch: 1, Body: 0, Outcome: 9, TxID: long}), Malformed, true},
	} {
		t.Run(name, func(t *testing.T) {
			c := *c
			c.t, c.s = t, c.s.View()
			before, seq := frame(c.s), c.s.Seats.at(tc.a.Member.String()).Seq
			if code := c.run(Command{Attestation: tc.a}); code != tc.code {
				t.Fatalf("%s, want %s", code, tc.code)
			}
			if frame(c.s) != before {
				t.Error("a refusal changed the state")
			}
			if used := c.s.Seats.at(tc.a.Member.String()).Seq != seq; used != tc.used {
				t.Errorf("number used up: %v, want %v", used, tc.used)
			}
		})
	}
}

// "seq strictly grows per seat (gaps allowed); an old attestation cannot be
// replayed."
func TestAttestationIsNotReplayed(t *testing.T) {
	c := newCluster(t)
	first := Command{Attestation: NewAttestation(c.keys[0], c.s.Cluster, 5, KindClock, Clock{Millis: coreStart + 9_000})}
	second := Command{Attestation: NewAttestation(c.keys[0], c.s.Cluster, 500, KindClock, Clock{Millis: coreStart + 1_000})}
	for i, tc := range []struct {
		cmd  Command
		code Code
	}{{first, OK}, {first, BadNonce}, {second, OK}, {first, BadNonce}, {second, BadNonce}} {
		if code := c.run(tc.cmd); code != tc.code {
			t.Errorf("%d: %s, want %s", i, code, tc.code)
		}
	}
	// "A seat may correct its clock downwards; time itself never falls."
	if seat := c.s.Seats.at(idOf(c.keys[0]).String()); seat.Millis != coreStart+1_000 || seat.Seq != 500 {
		t.Errorf("seat %+v", seat)
	}
}

// "A fact counts once, as soon as at least its quorum of current members has
// said the same." Three of four here; two never suffice.
func TestFactCountsAtQuorumOnce(t *testing.T) {
	c := running(t)
	id := c.open(btcWallet(1))
	f := c.inflowTo(id, "btc", PurposeSupply, "100000000")
	for i, tc := range []struct {
		member int
		code   Code
		shares string
	}{
		{0, OK, "0"},
		{0, OK, "0"}, // the same member again adds nothing
		{0, OK, "0"},
		{1, OK, "0"},
		{1, OK, "0"},
		{3, OK, "100000000"},
		{2, DuplicateInflow, "100000000"},
		{0, DuplicateInflow, "100000000"},
	} {
		if code := c.say(tc.member, KindInflow, f); code != tc.code {
			t.Fatalf("word %d: %s, want %s", i, code, tc.code)
		}
		if got := c.s.supplyShares(id, "btc"); got.String() != tc.shares {
			t.Fatalf("after word %d: %s shares, want %s", i, got, tc.shares)
		}
	}
	if c.s.Tally.len() != 0 {
		t.Errorf("%d tallies stay open", c.s.Tally.len())
	}
	for i := range c.keys {
		if seat := c.s.Seats.at(idOf(c.keys[i]).String()); seat.Raised != 0 {
			t.Errorf("member %d still answers for %d open tallies", i, seat.Raised)
		}
	}
	if coin, ok := c.s.Coins.get(f.ID); !ok || coin.Sats != 100_000_000 || coin.State != CoinAvailable {
		t.Errorf("coin %+v", coin)
	}
}

// Plants a cluster split evenly over two tips: neither counts (spec: outflows §10,
// 48), and who tells both stories makes neither true alone.
func TestFault48_SplitOverTwoTips(t *testing.T) {
	c := running(t)
	id := c.open(btcWallet(1))
	a := c.inflowTo(id, "btc", PurposeSupply, "100000000")
	b, d := a, a
	b.Block = "block-1b"
	d.Amount = n("100000001")
	for _, tc := range []struct {
		member int
		f      InflowFact
	}{{0, a}, {1, a}, {2, b}, {3, b}, {2, d}, {3, d}} {
		if code := c.say(tc.member, KindInflow, tc.f); code != OK {
			t.Fatal(code)
		}
		if c.s.Inflows.len() != 0 {
			t.Fatal("a fact counted without its quorum")
		}
	}
	if !c.s.Heard(idOf(c.keys[0]), KindInflow, a) || c.s.Heard(idOf(c.keys[0]), KindInflow, b) {
		t.Error("Heard does not say who spoke for what")
	}
	// A traitor on both sides completes one of them; the other can never follow.
	if code := c.say(2, KindInflow, a); code != OK || c.s.Inflows.len() != 1 {
		t.Fatalf("%s, %d inflows", code, c.s.Inflows.len())
	}
	if code := c.say(0, KindInflow, b); code != DuplicateInflow {
		t.Errorf("the other story: %s", code)
	}
	if got := c.s.supplyShares(id, "btc"); got != n("100000000") {
		t.Errorf("credited %s", got)
	}
}

// Plants a credited deposit that is mined again in another block: one credit (spec:
// outflows §10, 13).
func TestFault13_InflowMinedAgain(t *testing.T) {
	c := running(t)
	id := c.open(btcWallet(1))
	a := c.inflowTo(id, "btc", PurposeSupply, "100000000")
	c.some(3, KindInflow, a)
	a.Block, a.Height = "block-9", a.Height+3
	for i := range c.keys {
		if code := c.say(i, KindInflow, a); code != DuplicateInflow {
			t.Errorf("member %d: %s", i, code)
		}
	}
	if got := c.s.supplyShares(id, "btc"); got != n("100000000") {
		t.Errorf("credited %s", got)
	}
}

// "At most 4,096 open tallies are kept that one member raised first, the oldest
// dropped; what was dropped may be raised again."
func TestOpenTalliesAreBounded(t *testing.T) {
	c := running(t)
	id := c.open(btcWallet(1))
	honest := c.inflowTo(id, "btc", PurposeSupply, "100000000")
	c.some(1, KindInflow, honest)
	flood := honest
	// Through Apply, without fold and checks: it is the bound that is looked at.
	const liar = 3
	raise := func(i int) {
		flood.ID = fmt.Sprintf("%064x:0", i)
		c.seq++
		if code := c.s.Apply(Command{Attestation: NewAttestation(c.keys[liar], c.s.Cluster, c.seq, KindInflow, flood)}); code != OK {
			t.Fatalf("%d: %s", i, code)
		}
		c.s.Height++
	}
	for i := range maxOpenRaised + 10 {
		raise(i)
	}
	if got := c.s.Tally.len(); got != maxOpenRaised+1 {
		t.Errorf("%d open tallies, want %d and the honest one", got, maxOpenRaised)
	}
	if seat := c.s.Seats.at(idOf(c.keys[liar]).String()); seat.Raised != maxOpenRaised {
		t.Errorf("the liar answers for %d", seat.Raised)
	}
	flood.ID = fmt.Sprintf("%064x:0", 0)
	if c.s.Heard(idOf(c.keys[liar]), KindInflow, flood) {
		t.Error("the oldest was kept")
	}
	flood.ID = fmt.Sprintf("%064x:0", maxOpenRaised)
	if !c.s.Heard(idOf(c.keys[liar]), KindInflow, flood) {
		t.Error("a newer one was dropped")
	}
	raise(0)
	flood.ID = fmt.Sprintf("%064x:0", 0)
	if !c.s.Heard(idOf(c.keys[liar]), KindInflow, flood) {
		t.Error("what was dropped cannot be raised again")
	}
	// The flood cost nobody else anything.
	for i := 1; i <= 2; i++ {
		if code := c.say(i, KindInflow, honest); code != OK {
			t.Fatal(code)
		}
	}
	if c.s.supplyShares(id, "btc").IsZero() {
		t.Error("an honest fact was lost in the flood")
	}
}

// Chain heights: the FactQuorum-th largest, never back.
func TestHeights(t *testing.T) {
	c := running(t)
	at := func() uint64 { return c.s.Tips.at(Bitcoin).Height }
	for i, tc := range []struct {
		member int
		height uint64
		want   uint64
	}{
		{0, 210, 200}, {1, 1 << 40, 200}, // a liar's tip needs honest company
		{2, 205, 205}, {3, 220, 210},
		{0, 100, 210}, {2, 100, 210}, {3, 100, 210}, // it never falls
	} {
		if code := c.say(tc.member, KindHeight, []HeightReport{{Chain: Bitcoin, Height: tc.height, Hash: "x"}}); code != OK {
			t.Fatal(code)
		}
		if at() != tc.want {
			t.Errorf("word %d: tip %d, want %d", i, at(), tc.want)
		}
	}
}
