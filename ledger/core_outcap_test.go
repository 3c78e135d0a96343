package ledger

import (
	"fmt"
	"math/big"
	"strconv"
	"strings"
	"testing"

	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/ledger/fixed"
	"pgregory.net/rapid"
)

// capped is a cluster with lenders of 25,000 USDT each, of which 10 % may leave
// in an hour and 20 % in a day: 10,000 and 20,000 USDT of four lenders' custody.
func capped(t testing.TB, lenders int, change ...func(*PoolParam)) (c *cluster, ws []wallet) {
	t.Helper()
	c = running(t, func(g *Genesis) {
		for i := range g.Pools {
			if g.Pools[i].Asset == "usdt.eth" {
				g.Pools[i].CapHourBps, g.Pools[i].CapDayBps = 1_000, 2_000
				for _, f := range change {
					f(&g.Pools[i])
				}
			}
		}
	})
	for i := range lenders {
		w := ethWallet(50 + i)
		id := c.open(w)
		c.deposit(id, "usdt.eth", PurposeSupply, "25000000000")
		if c.s.supplyShares(id, "usdt.eth").IsZero() {
			t.Fatal("a deposit was not credited")
		}
		ws = append(ws, w)
	}
	c.refresh()
	return c, ws
}

// leave has a wallet withdraw whole USDT and returns the outflow's id.
func (c *cluster) leave(w wallet, usdt int, maxFee ...string) uint64 {
	c.t.Helper()
	fee := "10000000"
	if len(maxFee) > 0 {
		fee = maxFee[0]
	}
	id := c.s.NextOutflow
	if code := c.ask(w, c.payout(address.ActionWithdraw, "usdt.eth", strconv.Itoa(usdt)+"000000", payeeETH, fee)); code != OK {
		c.t.Fatalf("withdraw %d: %s", usdt, code)
	}
	return id
}

// live moves ledger time on and keeps what the plans need fresh.
func (c *cluster) live(ms uint64) {
	c.t.Helper()
	for ms > 0 {
		step := min(ms, 60_000)
		c.tick(step)
		c.refreshFees()
		ms -= step
	}
}

func (c *cluster) refreshFees() {
	c.t.Helper()
	c.all(KindFee, []FeeReport{{Chain: Bitcoin, Rate: 2_000}, {Chain: Ethereum, Rate: gweiCore, Tip: gweiCore}})
	c.refresh()
}

func (c *cluster) state(id uint64) OutflowState { return c.s.Outflows.at(id).State }

// Row 58 of the fault table, its first part: an amount above the hourly capacity
// is refused before anything moves, with both numbers. Planted: affordable
// without overHour. Seen: "OK, want OUTFLOW_CAP".
func TestFault58_AboveTheHourlyCapacity(t *testing.T) {
	c, ws := capped(t, 4)
	hour, day := c.s.Capacities("usdt.eth")
	if hour != n("10000000000") || day != n("20000000000") {
		t.Fatalf("capacities %s and %s", hour, day)
	}
	id := accountOf(c, ws[0])
	before := frame(c.s, apartFrom(id))
	if code := c.ask(ws[0], c.payout(address.ActionWithdraw, "usdt.eth", "10000000001", payeeETH, "10000000")); code != OutflowCap {
		t.Fatalf("%s, want OUTFLOW_CAP", code)
	}
	if frame(c.s, apartFrom(id)) != before {
		t.Error("a refusal changed more than a nonce")
	}
	note := c.last.Events[len(c.last.Events)-1].Note
	if !strings.Contains(note, `"limit":"10000000000","found":"10000000001"`) {
		t.Errorf("refusal %s does not say the numbers", note)
	}
	if code := c.ask(ws[0], c.payout(address.ActionWithdraw, "usdt.eth", "0", payeeETH, "10000000"), func(cmd *address.Command) {
		cmd.Amount = address.Amount{Max: true, Symbol: cmd.Amount.Symbol}
	}); code != OutflowCap {
		t.Errorf("all of 25,000: %s, want OUTFLOW_CAP", code)
	}
	if code := c.ask(ws[0], c.payout(address.ActionWithdraw, "usdt.eth", "10000000000", payeeETH, "10000000")); code != OK {
		t.Errorf("exactly the capacity: %s", code)
	}
}

// What does not fit waits in order, until exactly the time that WaitsForCap says;
// nobody younger passes it, and custody's own movements draw on nothing. Planted:
// capTurn.next without CapsLet. Seen: "outflows are PLANNED and PLANNED".
// Planted: capTurn.next without blocked. Seen: "a younger one passed it".
// Planted: a plan that is not drawn. Seen: "planned and not drawn".
func TestOutflowCapWaitsInOrder(t *testing.T) {
	c, ws := capped(t, 4)
	if c.s.Buckets.len() != 0 || c.s.Draws.len() != 0 {
		t.Fatal("sweeps of deposits drew on the caps")
	}
	a := c.leave(ws[0], 6_000)
	c.tick(1_000)
	b := c.leave(ws[1], 5_000)
	small := c.leave(ws[2], 100)
	c.tick(1_000)
	if c.state(a) != Planned || c.state(b) != Queued {
		t.Fatalf("outflows are %s and %s", c.state(a), c.state(b))
	}
	w, waits := c.s.WaitsForCap(c.s.Outflows.at(b))
	if !waits || w.Window != "hour" || w.Share || w.Capacity != n("10000000000") {
		t.Fatalf("waits %v for %+v", waits, w)
	}
	// 6,000 were drawn, 5,000 must be there: 1,000 of 10,000 an hour is six minutes.
	if got := w.Until - c.s.Outflows.at(a).Drew; got != 360_000 {
		t.Errorf("until %d ms after the draw, want 360,000", got)
	}
	c.live(w.Until - c.s.Millis - 1_000)
	if c.state(b) != Queued {
		t.Fatalf("outflow %d is %s before its time", b, c.state(b))
	}
	if c.state(small) != Queued {
		t.Fatal("a younger one passed it")
	}
	c.tick(1_000)
	if c.state(b) != Planned || c.s.Outflows.at(b).Drew != w.Until {
		t.Fatalf("outflow %d is %s, drew at %d, want %d", b, c.state(b), c.s.Outflows.at(b).Drew, w.Until)
	}
	if c.state(small) != Queued {
		t.Error("the bucket is empty, and a payout was planned")
	}
	c.live(60_000)
	if c.state(small) != Planned {
		t.Errorf("the small one is %s", c.state(small))
	}
	for _, b := range c.payments() {
		if err := c.s.CapsKept(b.ID); err != nil {
			t.Error(err)
		}
	}
}

// One that waits for its own reason never blocks those behind it, however much it
// wants of the bucket. Planted: next blocks without asking could. Seen: "the
// second is QUEUED".
func TestOutflowCapOwnReasonBlocksNobody(t *testing.T) {
	c, ws := capped(t, 4)
	first := c.leave(ws[0], 6_000)
	c.tick(1_000)
	fee, _, code := c.s.Quote("usdt.eth", payeeETH, n("9000000000"))
	if code != OK {
		t.Fatal(code)
	}
	dear := c.leave(ws[1], 9_000, fee.String())
	c.all(KindFee, []FeeReport{{Chain: Ethereum, Rate: 2 * gweiCore, Tip: gweiCore}})
	second := c.leave(ws[2], 1_000)
	c.tick(1_000)
	if c.state(first) != Planned || c.state(dear) != Queued || c.state(second) != Planned {
		t.Errorf("the first is %s, the dear one %s, the second is %s", c.state(first), c.state(dear), c.state(second))
	}
}

// One account takes at most a quarter of a bucket while others wait, and all of
// it when nobody does. Planted: next without share. Seen: "7000 USDT for one
// account while another waits, want 2000 of 10,000".
func TestOutflowCapQuarter(t *testing.T) {
	c, ws := capped(t, 4)
	var greedy []uint64
	for range 7 {
		greedy = append(greedy, c.leave(ws[0], 1_000))
	}
	var other []uint64
	for range 4 {
		other = append(other, c.leave(ws[1], 1_000))
	}
	c.tick(1_000)
	count := func(ids []uint64) (n int) {
		for _, id := range ids {
			if c.state(id) != Queued {
				n++
			}
		}
		return n
	}
	if got := count(greedy); got != 2 {
		t.Errorf("%d000 USDT for one account while another waits, want 2000 of 10,000", got)
	}
	if got := count(other); got != 2 {
		t.Errorf("the other had %d, want 2", got)
	}
	for _, id := range other[2:] { // it goes away
		if code := c.ask(ws[1], address.Command{Action: address.ActionCancelOutflow, Outflow: id}); code != OK {
			t.Fatalf("cancel %d: %s", id, code)
		}
	}
	c.tick(1_000)
	if got := count(greedy); got != 7 {
		t.Errorf("nobody waits, and it had %d of 7", got)
	}
}

// An accepted one fits some day, also when the capacity has shrunk below it since:
// the level goes negative. What no bucket lets through for a day is refunded.
// Planted: lets without min(gross, capacity). Seen: "the large one is QUEUED".
func TestOutflowCapShrinks(t *testing.T) {
	c, ws := capped(t, 4)
	big := c.leave(ws[0], 9_000)
	p := c.s.Pools.at("usdt.eth")
	p.Param.CapHourBps, p.Param.CapDayBps = 500, 2_000 // 5,000 an hour
	c.s.Pools.put("usdt.eth", p)
	c.tick(1_000)
	if c.state(big) != Planned {
		t.Fatalf("the large one is %s", c.state(big))
	}
	if hour, _ := c.s.caps("usdt.eth"); hour.Drawn != n("9000000000") {
		t.Errorf("%s drawn", hour.Drawn)
	}
	next := c.leave(ws[1], 1_000)
	c.tick(1_000)
	w, waits := c.s.WaitsForCap(c.s.Outflows.at(next))
	if !waits || w.Until-c.s.Outflows.at(big).Drew != 3_600_000 { // 5,000 of them
		t.Errorf("waits %v until %d ms after the draw", waits, w.Until-c.s.Outflows.at(big).Drew)
	}
	before := c.s.supplyShares(accountOf(c, ws[1]), "usdt.eth")
	p = c.s.Pools.at("usdt.eth")
	p.Param.CapHourBps, p.Param.CapHour, p.Param.CapDay = 0, n("1000000"), n("1000000") // one USDT an hour: it waits for months
	c.s.Pools.put("usdt.eth", p)
	c.s.Params.QueueSeconds = 600
	c.live(700_000)
	if c.state(next) != Refunded || !before.Less(c.s.supplyShares(accountOf(c, ws[1]), "usdt.eth")) {
		t.Errorf("after its time it is %s", c.state(next))
	}
}

// A signer refuses what the ledger should not have planned: a payout without a
// draw, one that the bucket did not let, and a sum that no bucket can let
// through. Each is planted in a state; each was seen signed ("want a refusal")
// with its check removed from CapsKept.
func TestCapsKept(t *testing.T) {
	c, ws := capped(t, 4)
	for i := range 3 {
		c.leave(ws[i], 2_500)
	}
	c.tick(1_000)
	bs := c.payments()
	if len(bs) != 3 {
		t.Fatalf("%d payouts planned", len(bs))
	}
	last := bs[2]
	o := c.s.Outflows.at(last.Outflows[0])
	key := drawKey(o.Asset, o.Drew, o.ID)
	for name, plant := range map[string]func(*State){
		"not drawn": func(s *State) { s.Draws.delete(key) },
		"another amount": func(s *State) {
			d := s.Draws.at(key)
			d.Gross = n("1")
			s.Draws.put(key, d)
		},
		"beyond the level": func(s *State) {
			d := s.Draws.at(key)
			d.Hour.Drawn = n("7500000001")
			s.Draws.put(key, d)
		},
		"beyond the day's level": func(s *State) {
			d := s.Draws.at(key)
			d.Day.Drawn = n("17500000001")
			s.Draws.put(key, d)
		},
		"more than refills": func(s *State) { // as if buckets had never been drawn on
			for i := range uint64(6) {
				s.Draws.put(drawKey(o.Asset, o.Drew-i, 1_000+i), Draw{Outflow: 1_000 + i, Gross: n("2500000000"), Hour: s.Draws.at(key).Hour, Day: s.Draws.at(key).Day})
			}
		},
	} {
		v := c.s.View()
		if err := v.CapsKept(last.ID); err != nil {
			t.Fatal(err)
		}
		plant(v)
		if err := v.CapsKept(last.ID); err == nil {
			t.Errorf("%s: signed, want a refusal", name)
		} else if !strings.Contains(err.Error(), "outflow cap") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A claim takes what the hourly capacity lets leave at once; the rest stays
// claimable. Planted: claim of all. Seen: "OUTFLOW_CAP".
func TestClaimInParts(t *testing.T) {
	c, ws := capped(t, 4)
	id := accountOf(c, ws[0])
	p := c.s.Pools.at("usdt.eth")
	p.Frozen = true
	c.s.Pools.put("usdt.eth", p)
	c.deposit(id, "usdt.eth", PurposeSupply, "25000000000")
	if got := c.s.Suspense.at(id + "/usdt.eth").Amount; got != n("25000000000") {
		t.Fatalf("%s in suspense", got)
	}
	hour, _ := c.s.Capacities("usdt.eth") // of 125,000
	cmd := c.payout(address.ActionClaim, "usdt.eth", "0", payeeETH, "10000000")
	cmd.Amount = address.Amount{}
	if code := c.ask(ws[0], cmd); code != OK {
		t.Fatalf("claim: %s", code)
	}
	o := c.s.Outflows.at(c.s.NextOutflow - 1)
	if left := c.s.Suspense.at(id + "/usdt.eth").Amount; o.Gross != hour || left != n("12500000000") {
		t.Errorf("%s are claimed of %s an hour, %s left", o.Gross, hour, left)
	}
}

// The buckets against a model in fractions: whatever is drawn, whenever, and
// however capacity moves, a payout is let through exactly when the model's level
// suffices, up to what is less than a base unit, and CapsKept agrees with all
// that was let. Planted: refill at dt+1. Seen: "drawn …, model …". Planted: a
// window of two hours. Seen the same.
func TestOutflowCapModel(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		s := &State{Millis: coreStart}
		pool := Pool{Param: PoolParam{Asset: "x", CapHourBps: 1_000, CapDayBps: 3_000, MinWithdraw: n("1")}}
		custody := func() {
			pool.Cash = fixed.New(rapid.Uint64Range(0, 5_000_000).Draw(r, "custody"))
			s.Pools.put("x", pool)
		}
		custody()
		drawn := []*big.Rat{new(big.Rat), new(big.Rat)}
		spans := []uint64{hourMillis, dayMillis}
		caps := func() []*big.Rat {
			h, d := s.Capacities("x")
			hv, _ := h.Uint64()
			dv, _ := d.Uint64()
			return []*big.Rat{new(big.Rat).SetUint64(hv), new(big.Rat).SetUint64(dv)}
		}
		one := big.NewRat(1, 1)
		for id := uint64(1); id < 60; id++ {
			dt := rapid.SampledFrom([]uint64{0, 1, 999, 15_000, 300_001, 3_600_000, 40_000_000}).Draw(r, "dt")
			s.Millis += dt
			cs := caps()
			for i, d := range drawn {
				d.Sub(d, new(big.Rat).Mul(cs[i], new(big.Rat).SetFrac(new(big.Int).SetUint64(dt), new(big.Int).SetUint64(spans[i]))))
				if d.Sign() < 0 {
					d.SetInt64(0)
				}
			}
			x := &execution{s: s}
			x.refillCaps()
			hour, day := s.caps("x")
			for i, c := range []Cap{hour, day} {
				got, _ := c.Drawn.Uint64()
				diff := new(big.Rat).Sub(new(big.Rat).SetUint64(got), drawn[i])
				if diff.Sign() < 0 || diff.Cmp(one) >= 0 {
					r.Fatalf("step %d: drawn %s, model %s", id, c.Drawn, drawn[i].FloatString(4))
				}
				if got == 0 {
					drawn[i].SetInt64(0) // what is less than a unit of a full bucket
				}
			}
			gross := rapid.Uint64Range(1, 200_000).Draw(r, "gross")
			o := Outflow{ID: id, Account: fmt.Sprint("a", id%3), Asset: "x", Gross: fixed.New(gross), State: Queued}
			fits := true
			for i := range drawn {
				g := new(big.Rat).SetUint64(gross)
				if cs[i].Cmp(g) < 0 {
					g = cs[i]
				}
				level := new(big.Rat).Sub(cs[i], drawn[i])
				if level.Cmp(g) < 0 {
					fits = false
				}
			}
			if s.CapsLet(o) && !fits {
				r.Fatalf("step %d: %d let through with %v drawn of %v", id, gross, drawn, cs)
			}
			if w, waits := s.WaitsForCap(o); waits != !s.CapsLet(o) && !w.Share {
				r.Fatalf("step %d: waits %v, let %v", id, waits, s.CapsLet(o))
			} else if waits && !w.Share {
				for i, ms := range []uint64{w.Until - 1, w.Until} {
					v := s.View()
					if v.Millis = ms; v.CapsLet(o) != (i == 1) {
						r.Fatalf("step %d: until %d is early or late: at %d let %v", id, w.Until, ms, v.CapsLet(o))
					}
				}
			}
			if s.CapsLet(o) {
				o = s.draw(o)
				o.State, o.Batch = Planned, id
				s.Outflows.put(id, o)
				s.Batches.put(id, Batch{ID: id, Kind: BatchPay, Outflows: []uint64{id}, Attempts: []Attempt{{}}})
				for i := range drawn {
					drawn[i].Add(drawn[i], new(big.Rat).SetUint64(gross))
				}
				if err := s.CapsKept(id); err != nil {
					r.Fatal(err)
				}
			}
			if rapid.Bool().Draw(r, "moves") {
				custody()
			}
		}
	})
}

// A capacity is at least one minimum withdrawal, at most its amount, and a part
// of it while a divisor says so.
func TestCapacity(t *testing.T) {
	p := Pool{Param: PoolParam{MinWithdraw: n("50")}, Cash: n("10000"), Reserved: n("500"), Suspended: n("500")}
	for _, tc := range []struct {
		bps     uint64
		most    string
		divisor uint64
		want    string
	}{
		{0, "0", 1, "0"}, {500, "0", 1, "550"}, {500, "0", 4, "137"}, {500, "200", 1, "200"}, {500, "200", 4, "50"},
		{10, "0", 1, "50"}, {0, "300", 1, "300"}, {0, "300", 4, "75"}, {0, "7", 1, "50"}, {1_000_000, "0", 1, "1100000"},
	} {
		if got := p.capacity(tc.bps, n(tc.most), tc.divisor); got != n(tc.want) {
			t.Errorf("%d bps, at most %s, by %d: %s, want %s", tc.bps, tc.most, tc.divisor, got, tc.want)
		}
	}
}
