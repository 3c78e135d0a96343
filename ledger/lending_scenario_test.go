package ledger

import (
	"encoding/json"
	"testing"

	"github.com/coffer-network/coffer/ledger/fixed"
)

// scenario drives the operations as Apply does, below prelude and policy: one
// price, no clock clamp, the Intent nonce kept around the operation.
type scenario struct {
	t *testing.T
	s *State
}

func newScenario(t *testing.T, in fields) *scenario {
	in.t = t
	var ps Params
	if in.has("options") {
		o := in.sub("options")
		ps.PriceMaxAge, ps.LiquidationAge = o.u64("stale"), o.u64("stale_liq")
	}
	s := &State{Millis: in.u64("genesis_ts") * 1000, NextOutflow: 1}
	s.Params = ps
	for _, p := range in.list("pools") {
		param := paramOf(p.sub("params"))
		param.Asset = p.str("pool")
		if err := param.Validate(); err != nil {
			t.Fatalf("pool %s: %v", param.Asset, err)
		}
		asset := AssetParam{ID: param.Asset, Decimals: uint8(p.u64("decimals"))}
		s.Genesis.Assets = append(s.Genesis.Assets, asset)
		s.Genesis.Pools = append(s.Genesis.Pools, param)
		s.Pools.put(param.Asset, newPool(param, asset, s.Time()))
	}
	return &scenario{t: t, s: s}
}

func runScenario(t *testing.T, v vector) {
	sc := newScenario(t, v.In)
	var out struct {
		Steps []struct {
			Op     string
			Now    fixed.Int
			Args   fields
			Expect map[string]json.RawMessage
		}
	}
	if err := json.Unmarshal(v.Out, &out); err != nil {
		t.Fatal(err)
	}
	for i, step := range out.Steps {
		step.Args.t = t
		before := Marshal(sc.s)
		w := sc.s.View()
		now, _ := step.Now.Uint64()
		w.Millis = now * 1000
		ok, code := (&scenario{t: t, s: w}).do(step.Op, now, step.Args)
		if code == OK {
			w.refreshRates()
			sc.s = w
		} else if string(before) != string(Marshal(sc.s)) {
			t.Errorf("step %d %s: a refusal changed the state", i, step.Op) // I28
		}
		what := v.ID + " step " + fixed.New(uint64(i)).String() + " " + step.Op
		if code == OK {
			same(t, what, answer{"ok": ok}, wrap(step.Expect))
		} else {
			same(t, what, answer{"err": code}, wrap(step.Expect))
		}
		same(t, what+" state", sc.snapshot(), step.Expect["state"])
		same(t, what+" health", sc.health(), step.Expect["health"])
		if err := sc.s.checkLending(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if t.Failed() {
			return
		}
	}
	t.Logf("%d steps", len(out.Steps))
}

// wrap is the expected result without state and health.
func wrap(expect map[string]json.RawMessage) json.RawMessage {
	m := map[string]json.RawMessage{}
	for _, k := range []string{"ok", "err"} {
		if v, ok := expect[k]; ok {
			m[k] = v
		}
	}
	b, _ := json.Marshal(m)
	return b
}

func (sc *scenario) do(op string, now uint64, f fields) (any, Code) {
	s := sc.s
	switch op { // facts and ticks
	case "price":
		s.Prices.put(f.str("pool"), Price{Low: f.int("price"), High: f.int("price"), Millis: s.Millis})
		s.sync()
		return answer{}, OK
	case "tick":
		s.sync()
		return answer{}, OK
	case "set":
		var n poolChange
		for k, to := range map[string]**bool{"paused": &n.Paused, "frozen": &n.Frozen, "borrow_enabled": &n.BorrowEnabled} {
			if f.has(k) {
				b := f.flag(k)
				*to = &b
			}
		}
		return answer{}, s.setPool(f.str("pool"), n)
	case "supply", "repay":
		return sc.inflow(op, f)
	case "outflow_done", "outflow_fail":
		return sc.settle(op, f)
	case "socialise":
		code := s.socialise(f.str("pool"))
		return answer{"liquidity_index": s.Pools.at(f.str("pool")).SupplyIndex}, code
	}

	user := f.str("user") // Intents
	a, ok := s.Accounts.get(user)
	switch {
	case !ok:
		return nil, UnknownAccount
	case f.has("expiry") && f.u64("expiry") < now:
		return nil, Expired
	case f.has("expiry") && f.u64("expiry") > now+600:
		return nil, ExpiryTooFar
	case f.has("nonce") && f.u64("nonce") != a.Nonce:
		return nil, BadNonce
	case f.has("pool") && !s.Pools.has(f.str("pool")):
		return nil, UnknownPool
	}
	out, code := sc.intent(op, user, f)
	if code == OK && f.has("nonce") {
		a = s.Accounts.at(user)
		a.Nonce++
		s.Accounts.put(user, a)
	}
	return out, code
}

func (sc *scenario) intent(op, user string, f fields) (any, Code) {
	s := sc.s
	all := f.has("amount") && string(f.m["amount"]) == `"max"`
	var amount fixed.Int
	if f.has("amount") && !all {
		amount = f.int("amount")
	}
	switch op {
	case "borrow":
		minted, code := s.borrow(user, f.str("pool"), amount)
		return sc.outflow(Outflow{Kind: OutflowBorrow, Account: user, Asset: f.str("pool"), Gross: amount, Minted: minted}, minted), code
	case "withdraw":
		held := s.supplyShares(user, f.str("pool"))
		gross, code := s.withdraw(user, f.str("pool"), amount, all)
		if code != OK {
			return nil, code
		}
		burnt := must(fixed.Sub(held, s.supplyShares(user, f.str("pool"))))
		return sc.outflow(Outflow{Kind: OutflowWithdraw, Account: user, Asset: f.str("pool"), Gross: gross}, burnt), OK
	case "claim":
		gross, code := s.claim(user, f.str("pool"))
		return sc.outflow(Outflow{Kind: OutflowRefund, Account: user, Asset: f.str("pool"), Gross: gross}, fixed.Int{}), code
	case "liquidate":
		if all {
			amount = fixed.Max
		}
		l, code := s.liquidate(user, f.str("borrower"), f.str("debt_pool"), f.str("coll_pool"), amount)
		if code != OK {
			return nil, code
		}
		bad := answer{}
		for _, b := range l.BadDebt {
			bad[b.Pool] = answer{"bad_debt": b.Debt, "covered_by_treasury": b.Covered}
		}
		return answer{
			"close_factor_bps": fixed.New(l.CloseFactor), "debt_repaid": l.Repaid, "coll_total": l.Seized, "fee": l.Fee,
			"coll_to_liquidator":       must(fixed.Sub(l.Seized, l.Fee)),
			"liquidator_shares_burned": l.LiquidatorBurnt, "debt_shares_burned": l.DebtBurnt,
			"coll_shares_seized": l.SharesSeized, "coll_shares_to_liquidator": l.SharesToActor, "bad_debt": bad,
		}, OK
	case "cover_deficit":
		held := s.supplyShares(user, f.str("pool"))
		covered, code := s.coverDeficit(user, f.str("pool"), amount)
		if code != OK {
			return nil, code
		}
		return answer{"covered": covered, "shares": must(fixed.Sub(held, s.supplyShares(user, f.str("pool"))))}, OK
	}
	sc.t.Fatalf("unknown operation %q", op)
	return nil, ""
}

// outflow does what the command does after the operation: it creates the
// outflow.
func (sc *scenario) outflow(o Outflow, shares fixed.Int) any {
	o.ID, o.State = sc.s.NextOutflow, Queued
	sc.s.NextOutflow++
	sc.s.Outflows.put(o.ID, o)
	return answer{"outflow": fixed.New(o.ID), "amount": o.Gross, "shares": shares}
}

func (sc *scenario) inflow(op string, f fields) (any, Code) {
	s, user, pool, amount := sc.s, f.str("user"), f.str("pool"), f.int("amount")
	if f.has("inflow") {
		if s.Inflows.has(f.str("inflow")) {
			return nil, DuplicateInflow
		}
		s.Inflows.put(f.str("inflow"), Inflow{})
	}
	held := s.supplyShares(user, pool)
	credit := func(amount fixed.Int, reason string) answer {
		if reason != "" {
			return answer{"suspense": amount, "reason": reason}
		}
		return answer{"shares": must(fixed.Sub(s.supplyShares(user, pool), held))}
	}
	if op == "supply" {
		reason, code := s.supply(user, pool, amount)
		if code != OK {
			return nil, code
		}
		return credit(amount, reason), OK
	}
	w := s.View()
	w.sync()
	burnt, paid, _ := w.payDebt(user, pool, amount)
	reason, code := s.repay(user, pool, amount)
	if code != OK {
		return nil, code
	}
	out := answer{"repaid": paid, "shares": burnt}
	if excess := must(fixed.Sub(amount, paid)); !excess.IsZero() {
		out["excess"], out["excess_credit"] = excess, credit(excess, reason)
	}
	return out, OK
}

func (sc *scenario) settle(op string, f fields) (any, Code) {
	s := sc.s
	o, ok := s.Outflows.get(f.u64("outflow"))
	if !ok || o.State == Paid || o.State == Refunded {
		return nil, UnknownOutflow
	}
	if op == "outflow_done" {
		code := s.outflowDone(o.Asset, o.Gross)
		o.State = Paid
		s.Outflows.put(o.ID, o)
		return answer{}, code
	}
	r, _ := s.View().refund(o, fixed.Int{}, true)
	code := s.outflowFail(o)
	o.State = Refunded
	s.Outflows.put(o.ID, o)
	out := answer{}
	switch o.Kind {
	case OutflowWithdraw:
		out["refund_shares"] = r.Minted
	case OutflowBorrow:
		out["burned_debt_shares"], out["interest_waived"] = r.Burnt, r.Waived
		if !r.Minted.IsZero() {
			out["excess_supply_shares"] = r.Minted
		}
	}
	return out, code
}

func (sc *scenario) snapshot() any {
	s := sc.s
	pools, users, suspense := answer{}, answer{}, answer{}
	for id, p := range s.Pools.all() {
		pools[id] = answer{
			"cash": p.Cash, "reserved": p.Reserved, "deficit": p.Deficit, "supply_shares": p.SupplyShares,
			"treasury_shares": p.TreasuryShares, "debt_shares": p.DebtShares, "liquidity_index": p.SupplyIndex,
			"borrow_index": p.BorrowIndex, "supply_rate": p.SupplyRate, "borrow_rate": p.BorrowRate, "ts": fixed.New(p.LastSync),
		}
	}
	for id, a := range s.Accounts.all() {
		supply, debt := answer{}, answer{}
		for _, p := range a.Positions {
			if !p.Supply.IsZero() {
				supply[p.Pool] = p.Supply
			}
			if !p.Debt.IsZero() {
				debt[p.Pool] = p.Debt
			}
		}
		users[id] = answer{"nonce": fixed.New(a.Nonce), "supply_shares": supply, "debt_shares": debt}
	}
	for key, e := range s.Suspense.all() {
		suspense[key] = e.Amount
	}
	return answer{"now": fixed.New(s.Time()), "pools": pools, "users": users, "suspense": suspense}
}

func (sc *scenario) health() any {
	out := answer{}
	for id := range sc.s.Accounts.all() {
		h, code := sc.s.Health(id)
		if code != OK {
			sc.t.Errorf("health of %s: %s", id, code)
		}
		out[id] = answer{"coll_value": h.CollValue, "debt_value": h.DebtValue, "hf": h.HF}
	}
	return out
}
