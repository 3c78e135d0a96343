package ledger

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"reflect"
	"slices"
	"testing"

	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/ledger/fixed"
)

// go test ./ledger -run TestLendingVectors -v -args -vectors FILE
var vectorsFile = flag.String("vectors", "testdata/lending.json", "lending vectors")

type vector struct {
	ID, Kind string
	In       fields
	Out      json.RawMessage
}

// TestLendingVectors demands every published number, with exact equality of
// the whole answer: no tolerance, no skip list (spec: lending §16).
func TestLendingVectors(t *testing.T) {
	raw, err := os.ReadFile(*vectorsFile)
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Format  string
		Count   int
		Vectors []vector
	}
	if err := json.Unmarshal(raw, &file); err != nil {
		t.Fatal(err)
	}
	if file.Format != "coffer-lending-vectors/1" || len(file.Vectors) == 0 || len(file.Vectors) != file.Count {
		t.Fatalf("format %q with %d vectors of %d", file.Format, len(file.Vectors), file.Count)
	}
	ran := 0
	for _, v := range file.Vectors {
		ran++
		if v.Kind == "scenario" {
			t.Run(v.ID, func(t *testing.T) { runScenario(t, v) })
			continue
		}
		answer, ok := vectorKinds[v.Kind]
		if !ok {
			t.Errorf("%s: unknown kind %q", v.ID, v.Kind)
			continue
		}
		v.In.t = t
		same(t, v.ID+" "+v.Kind, answer(v.In), v.Out)
	}
	t.Logf("ran %d vectors", ran)
}

// same compares an answer with the expected JSON, all of it.
func same(t *testing.T, what string, got any, want json.RawMessage) {
	t.Helper()
	b, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	var g, w any
	if err := errors.Join(json.Unmarshal(b, &g), json.Unmarshal(want, &w)); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(g, w) {
		t.Errorf("%s:\n got %s\nwant %s", what, b, compact(want))
	}
}

func compact(b json.RawMessage) string {
	var out bytes.Buffer
	if json.Compact(&out, b) != nil {
		return string(b)
	}
	return out.String()
}

// fields are the inputs of a vector. A field that is read must be there.
type fields struct {
	t *testing.T
	m map[string]json.RawMessage
}

func (f *fields) UnmarshalJSON(b []byte) error { return json.Unmarshal(b, &f.m) }

func (f fields) has(k string) bool {
	v, ok := f.m[k]
	return ok && string(v) != "null"
}

func (f fields) read(k string, into any) {
	f.t.Helper()
	if err := json.Unmarshal(f.m[k], into); err != nil {
		f.t.Fatalf("field %q: %v", k, err)
	}
}

func (f fields) str(k string) (s string)    { f.t.Helper(); f.read(k, &s); return s }
func (f fields) flag(k string) (b bool)     { f.t.Helper(); f.read(k, &b); return b }
func (f fields) int(k string) (n fixed.Int) { f.t.Helper(); f.read(k, &n); return n }

func (f fields) u64(k string) uint64 {
	f.t.Helper()
	n, ok := f.int(k).Uint64()
	if !ok {
		f.t.Fatalf("field %q does not fit 64 bits", k)
	}
	return n
}

func (f fields) wide(k string) fixed.Wide {
	f.t.Helper()
	w, err := fixed.ParseWide(f.str(k))
	if err != nil {
		f.t.Fatal(err)
	}
	return w
}

func (f fields) list(k string) []fields {
	f.t.Helper()
	var l []fields
	f.read(k, &l)
	for i := range l {
		l[i].t = f.t
	}
	return l
}

func (f fields) sub(k string) fields {
	f.t.Helper()
	var s fields
	f.read(k, &s)
	s.t = f.t
	return s
}

type answer = map[string]any

// arithErr is how the vectors name an error of arithmetic.
func arithErr(err error) answer {
	switch {
	case errors.Is(err, fixed.ErrOverflow):
		return answer{"err": "overflow"}
	case errors.Is(err, fixed.ErrDivZero):
		return answer{"err": "div0"}
	}
	return answer{"err": err.Error()}
}

// step3 is one step a·b/d. Where all of it fits, the Int function that the
// ledger uses must say the same as the wide one.
func step3(wide func(a, b, d fixed.Wide) (fixed.Wide, error), narrow func(a, b, d fixed.Int) (fixed.Int, error), args func(fields) (a, b, d fixed.Wide)) func(fields) any {
	return func(f fields) any {
		a, b, d := args(f)
		r, err := wide(a, b, d)
		x, ex := a.Int()
		y, ey := b.Int()
		z, ez := d.Int()
		if ex == nil && ey == nil && ez == nil {
			n, e := narrow(x, y, z)
			if (e == nil) != (err == nil) || e == nil && n.Wide() != r {
				f.t.Errorf("narrow says %v, %v; wide says %v, %v", n, e, r, err)
			}
		}
		if err != nil {
			return arithErr(err)
		}
		return answer{"r": r.String()}
	}
}

func mulBy(second string, scale fixed.Int) func(fields) (a, b, d fixed.Wide) {
	return func(f fields) (a, b, d fixed.Wide) { return f.wide("a"), f.wide(second), scale.Wide() }
}

func divBy(second string, scale fixed.Int) func(fields) (a, b, d fixed.Wide) {
	return func(f fields) (a, b, d fixed.Wide) { return f.wide("a"), scale.Wide(), f.wide(second) }
}

func three(f fields) (a, b, d fixed.Wide) { return f.wide("a"), f.wide("b"), f.wide("d") }

// named lets a rounding's own function stand for the general one.
func named(op func(a, b fixed.Int) (fixed.Int, error), second bool) func(a, b, d fixed.Int) (fixed.Int, error) {
	return func(a, b, d fixed.Int) (fixed.Int, error) {
		if second {
			return op(a, d)
		}
		return op(a, b)
	}
}

// one value computed by one conversion between amounts and shares.
func convert(out string, op func(a, b, d fixed.Int) (fixed.Int, error), from string, byIndex bool) func(fields) any {
	return func(f fields) any {
		mul, div := f.int("index"), fixed.Ray
		if !byIndex {
			mul, div = div, mul
		}
		n, err := op(f.int(from), mul, div)
		if err != nil {
			return arithErr(err)
		}
		return answer{out: n}
	}
}

var vectorKinds map[string]func(fields) any

func init() {
	half, floor, ceil := fixed.WideHalfUp, fixed.WideFloor, fixed.WideCeil
	iFloor, iCeil := fixed.MulDivFloor, fixed.MulDivCeil
	vectorKinds = map[string]func(fields) any{
		"ray_mul":       step3(half, named(fixed.RayMul, false), mulBy("b", fixed.Ray)),
		"ray_mul_floor": step3(floor, iFloor, mulBy("b", fixed.Ray)),
		"ray_mul_ceil":  step3(ceil, iCeil, mulBy("b", fixed.Ray)),
		"ray_div":       step3(half, named(fixed.RayDiv, true), divBy("b", fixed.Ray)),
		"ray_div_floor": step3(floor, iFloor, divBy("b", fixed.Ray)),
		"ray_div_ceil":  step3(ceil, iCeil, divBy("b", fixed.Ray)),
		"wad_div":       step3(half, named(fixed.WadDiv, true), divBy("b", fixed.Wad)),
		"pct_mul":       step3(half, named(fixed.PctMul, false), mulBy("p", fixed.Bps)),
		"pct_mul_floor": step3(floor, iFloor, mulBy("p", fixed.Bps)),
		"pct_mul_ceil":  step3(ceil, iCeil, mulBy("p", fixed.Bps)),
		"pct_div":       step3(half, named(fixed.PctDiv, true), divBy("p", fixed.Bps)),
		"pct_div_floor": step3(floor, iFloor, divBy("p", fixed.Bps)),
		"pct_div_ceil":  step3(ceil, iCeil, divBy("p", fixed.Bps)),
		"md_floor":      step3(floor, iFloor, three),
		"md_ceil":       step3(ceil, iCeil, three),

		"supply_mint":    convert("shares", iFloor, "amount", false),
		"supply_burn":    convert("shares", iCeil, "amount", false),
		"supply_balance": convert("amount", iFloor, "shares", true),
		"debt_mint":      convert("shares", iCeil, "amount", false),
		"debt_burn":      convert("shares", iFloor, "amount", false),
		"debt_balance":   convert("amount", iCeil, "shares", true),

		"interest_owed":         interestOwedVector,
		"rates":                 ratesVector,
		"linear_factor":         linearVector,
		"compound_factor":       compoundVector,
		"accrue":                accrueVector,
		"apy_estimate":          apyVector,
		"health":                healthVector,
		"max_borrow":            func(f fields) any { return most(f, mostBorrow) },
		"max_withdraw":          func(f fields) any { return most(f, mostWithdraw) },
		"liquidation_price":     liquidationPriceVector,
		"liquidation":           liquidationVector,
		"target_hf_repay_value": targetVector,
		"price_guard":           priceGuardVector,

		// Facts about other systems that no operation of the ledger uses. They
		// are computed here, where they are tested, and nowhere else.
		"price_median":              priceMedianVector,
		"liquidation_bot_amounts":   botVector,
		"withdraw_route":            routeVector,
		"utxo_select_largest_first": selectVector,
		"frozen_cleanup":            cleanupVector,

		"subaccount_inflow": subaccountInflowVector,
		"subaccount_mapped": subaccountMappedVector,
		"subaccount_boost": func(f fields) any {
			return subaccountAnswer(f, address.Subaccount{Kind: address.SubBoost})
		},
	}
}

func interestOwedVector(f fields) any {
	var c fixed.Calc
	p := f.int("principal")
	shares := c.MulDivCeil(p, fixed.Ray, f.int("borrow_index_then"))
	owed := c.Sub(c.MulDivCeil(shares, f.int("borrow_index_now"), fixed.Ray), p)
	return answer{"interest": owed}
}

func paramOf(f fields) PoolParam {
	p := PoolParam{Base: f.u64("base"), Opt: f.u64("opt"), S1: f.u64("s1"), S2: f.u64("s2"), RF: f.u64("rf")}
	if !f.has("ltv") {
		return p
	}
	p.LTV, p.LT, p.Bonus, p.LiqFee = f.u64("ltv"), f.u64("lt"), f.u64("bonus"), f.u64("liq_fee")
	p.SupplyCap, p.BorrowCap = f.int("supply_cap"), f.int("borrow_cap")
	p.SameAsset, p.SameAssetDust = f.flag("same_asset"), f.int("same_asset_dust")
	p.MinSupply, p.MinBorrow, p.MinWithdraw = f.int("min_supply"), f.int("min_borrow"), f.int("min_withdraw")
	return p
}

func poolOf(f fields) Pool {
	p := newPool(paramOf(f.sub("params")), AssetParam{}, 0)
	for k, to := range map[string]*fixed.Int{
		"cash": &p.Cash, "deficit": &p.Deficit, "supply_shares": &p.SupplyShares, "debt_shares": &p.DebtShares,
		"treasury_shares": &p.TreasuryShares, "liquidity_index": &p.SupplyIndex, "borrow_index": &p.BorrowIndex,
	} {
		if f.has(k) {
			*to = f.int(k)
		}
	}
	return p
}

func ratesVector(f fields) any {
	p := poolOf(f)
	u, err := p.utilisation()
	borrow, supply, err2 := p.rates()
	if err := errors.Join(err, err2); err != nil {
		return arithErr(err)
	}
	return answer{"utilization": u, "borrow_rate": borrow, "supply_rate": supply}
}

func linearVector(f fields) any {
	n, err := linearFactor(f.int("rate"), f.u64("dt"))
	if err != nil {
		return arithErr(err)
	}
	return answer{"factor": n}
}

func compoundVector(f fields) any {
	w, err := compoundFactor(f.int("rate"), f.u64("dt"))
	if err != nil {
		return arithErr(err)
	}
	return answer{"factor": w.String()}
}

func accrueVector(f fields) any {
	p := poolOf(f)
	var c fixed.Calc
	rate := func() (borrow, supply fixed.Int) {
		b, s, err := p.rates()
		return c.Int(b, err), s
	}
	p.BorrowRate, p.SupplyRate = rate()
	out := answer{"borrow_rate_before": p.BorrowRate, "supply_rate_before": p.SupplyRate}
	p = p.accrue(f.u64("dt"))
	if p.Frozen {
		f.t.Error("the pool froze")
	}
	again := p.accrue(p.LastSync)
	if again != p { // I23
		f.t.Error("a second sync at one time changed the pool")
	}
	out["borrow_rate_after"], out["supply_rate_after"] = rate()
	out["liquidity_index"], out["borrow_index"], out["treasury_shares"] = p.SupplyIndex, p.BorrowIndex, p.TreasuryShares
	out["total_supply"] = c.MulDivFloor(c.Add(p.SupplyShares, p.TreasuryShares), p.SupplyIndex, fixed.Ray)
	out["total_debt"] = c.MulDivCeil(p.DebtShares, p.BorrowIndex, fixed.Ray)
	if c.Err() != nil {
		return arithErr(c.Err())
	}
	return out
}

func apyVector(f fields) any {
	n, err := yearlyYield(f.int("apr"), f.u64("interval_seconds"))
	if err != nil {
		return arithErr(err)
	}
	return answer{"apy": n}
}

func legsOf(f fields) []leg {
	var legs []leg
	for _, p := range f.list("positions") {
		legs = append(legs, leg{
			Decimals: uint8(p.u64("decimals")), Low: p.int("price"), High: p.int("price"),
			Supply: p.int("supply"), Collateral: p.int("supply"), Debt: p.int("debt"), LT: p.u64("lt"), LTV: p.u64("ltv"),
		})
	}
	return legs
}

func healthVector(f fields) any {
	h, err := weigh(legsOf(f))
	if err != nil {
		return arithErr(err)
	}
	v, err := h.view()
	if err != nil {
		return arithErr(err)
	}
	out := answer{
		"coll_value": v.CollValue, "debt_value": v.DebtValue, "sum_lt": h.SumLT.String(), "sum_ltv": h.SumLTV.String(),
		"hf": v.HF, "hf_milli": nil, "healthy": v.Healthy, "ltv_ok": v.WithinLTV, "borrowable_value": v.Borrowable,
		"avg_lt_bps": v.LiquidationLTV, "avg_ltv_bps": v.MaxLTV, "ltv_bps": v.LTV,
	}
	if v.HF != nil {
		out["hf_milli"], _ = fixed.DivFloor(*v.HF, fixed.New(1_000_000_000_000_000))
	}
	return out
}

func most(f fields, of func([]leg, int, fixed.Int) fixed.Int) any {
	limit := fixed.Max
	if f.has("cash") {
		limit = f.int("cash")
	}
	return answer{"amount": of(legsOf(f), int(f.u64("index")), limit)}
}

func liquidationPriceVector(f fields) any {
	return answer{"price": liquidationPrice(legsOf(f), int(f.u64("index")))}
}

func liquidationVector(f fields) any {
	if f.int("min_max_close_factor_value") != closeFully || f.int("min_leftover_value") != minLeftover {
		f.t.Error("other limits than ours")
	}
	legs, coll, debt := legsOf(f), int(f.u64("coll")), int(f.u64("debt"))
	r, code := seize(legs, coll, debt, f.int("to_cover"), seizeRules{Bonus: f.u64("bonus_bps"), Fee: f.u64("fee_bps")})
	if code != OK {
		return answer{"err": code}
	}
	var c fixed.Calc
	legs[coll].Collateral = c.Sub(legs[coll].Collateral, r.Seized)
	legs[debt].Debt = c.Sub(legs[debt].Debt, r.Repaid)
	after, err := weigh(legs)
	if err := errors.Join(err, c.Err()); err != nil {
		return arithErr(err)
	}
	return answer{
		"close_factor_bps": fixed.New(r.CloseFactor), "max_debt": r.MaxDebt, "debt_repaid": r.Repaid,
		"coll_total": r.Seized, "fee": r.Fee, "coll_to_liquidator": c.Sub(r.Seized, r.Fee),
		"hf_before": r.HF, "hf_after": after.HF, "coll_value_after": after.CollValue, "debt_value_after": after.DebtValue,
	}
}

func targetVector(f fields) any {
	n, ok, err := targetRepay(f.int("debt_value"), f.wide("sum_lt"), f.u64("lt_bps"), f.u64("bonus_bps"), f.int("target_hf"))
	switch {
	case err != nil:
		return arithErr(err)
	case !ok:
		return answer{"repay_value": nil}
	}
	return answer{"repay_value": n}
}

func priceGuardVector(f fields) any {
	old, next := f.int("old"), f.int("new")
	var c fixed.Calc
	gap := c.Sub(old.Max(next), old.Min(next))
	return answer{
		"accept":              !deviates(old, next, f.u64("max_deviation_bps")),
		"deviation_bps_floor": c.MulDivFloor(gap, fixed.Bps, old),
	}
}

func priceMedianVector(f fields) any {
	var prices []fixed.Int
	for _, r := range f.list("reports") {
		at, now := r.u64("observed_at"), f.u64("now")
		if p := r.int("price"); !p.IsZero() && at <= now && now-at <= f.u64("max_age") {
			prices = append(prices, p)
		}
	}
	n := len(prices)
	if uint64(n) < f.u64("quorum") {
		return answer{"err": "NO_QUORUM"}
	}
	slices.SortFunc(prices, fixed.Int.Cmp)
	var c fixed.Calc
	return answer{
		"price": c.DivFloor(c.Add(prices[(n-1)/2], prices[n/2]), fixed.New(2)),
		"used":  fixed.New(uint64(n)),
	}
}

func botVector(f fields) any {
	var c fixed.Calc
	pow := func(k string) fixed.Int { return c.Pow10(uint8(f.u64(k))) }
	value := c.Mul(c.Mul(f.int("repay"), f.int("debt_price_usd")), pow("coll_dec"))
	base := c.DivFloor(value, c.Mul(f.int("coll_price_usd"), pow("debt_dec")))
	extra := c.MulDivFloor(base, f.int("bonus_bps"), fixed.Bps)
	return answer{"seized": base, "fee": c.MulDivFloor(extra, f.int("fee_bps"), fixed.Bps)}
}

func routeVector(f fields) any {
	if f.int("threshold_sats").Less(f.int("amount_sats")) {
		return answer{"route": "standard"}
	}
	return answer{"route": "boosted"}
}

func selectVector(f fields) any {
	var frozen []string
	f.read("frozen", &frozen)
	coins := slices.DeleteFunc(f.list("utxos"), func(u fields) bool { return slices.Contains(frozen, u.str("id")) })
	slices.SortFunc(coins, func(a, b fields) int {
		if d := b.int("value").Cmp(a.int("value")); d != 0 {
			return d
		}
		return bytes.Compare([]byte(a.str("id")), []byte(b.str("id")))
	})
	var c fixed.Calc
	total, ids := fixed.Int{}, []string{}
	for _, u := range coins {
		if !total.Less(f.int("target_incl_fee")) {
			break
		}
		total, ids = c.Add(total, u.int("value")), append(ids, u.str("id"))
	}
	if total.Less(f.int("target_incl_fee")) {
		return answer{"err": "INSUFFICIENT_UTXOS"}
	}
	return answer{"selected": ids, "total": total}
}

// cleanupVector is the rule that custody does not have: see spec lending §11.3.
func cleanupVector(f fields) any {
	const holdSeconds = 12 * 3600
	released, kept := []string{}, []string{}
	for _, u := range f.list("frozen") {
		if f.u64("now")-u.u64("frozen_at") > holdSeconds {
			released = append(released, u.str("id"))
		} else {
			kept = append(kept, u.str("id"))
		}
	}
	return answer{"released": released, "kept": kept}
}

func subaccountAnswer(f fields, s address.Subaccount) any {
	b, err := s.Encode()
	if err != nil {
		f.t.Error(err)
	}
	return answer{"subaccount_hex": hex.EncodeToString(b[:])}
}

func subaccountInflowVector(f fields) any {
	id, err := hex.DecodeString(f.str("principal_hex"))
	if err != nil {
		f.t.Fatal(err)
	}
	kinds := map[string]address.SubaccountKind{"deposit": address.SubDeposit, "repay": address.SubRepay}
	return subaccountAnswer(f, address.Subaccount{Kind: kinds[f.str("type")], ID: id})
}

func subaccountMappedVector(f fields) any {
	s := address.Subaccount{Kind: address.SubMapped}
	b := f.int("index").Bytes()
	copy(s.Number[len(s.Number)-len(b):], b)
	return subaccountAnswer(f, s)
}
