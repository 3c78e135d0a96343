package api

import (
	"context"
	"fmt"
	"strconv"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/ledger/fixed"
	"github.com/coffer-network/coffer/node/api/client"
	"github.com/coffer-network/coffer/node/api/history"
)

type liquidationInput struct {
	ReadInput
	ID uint64 `path:"id" doc:"LogIndex of the command that did it"`
}

type pastInput struct {
	ReadInput
	Cursor string `query:"cursor" doc:"next of the page before"`
	Limit  int    `query:"limit" minimum:"1" maximum:"200" default:"50"`
}

// recorded is a liquidation as this node remembers it, with the request that
// asked for it.
type recorded struct {
	ledger.LiquidationRecord
	request string
}

// recordedIn are the liquidations of a record: one, for a command does one.
func recordedIn(r history.Record) (out []recorded) {
	for _, e := range r.Entries {
		if e.Event.Name != ledger.EventLiquidated {
			continue
		}
		if x, err := ledger.ParseLiquidation(e.Event.Note); err == nil { // else of another version: nobody can compute it
			out = append(out, recorded{x, r.Request.String()})
		}
	}
	return out
}

func (s *server) pastLiquidations(_ context.Context, v view, in *pastInput) (*client.PastLiquidations, error) {
	below := uint64(0)
	if in.Cursor != "" {
		n, err := strconv.ParseUint(in.Cursor, 10, 63)
		if err != nil || n == 0 {
			return nil, s.problem(ledger.Malformed, "cursor")
		}
		below = n
	}
	limit := min(max(in.Limit, 1), maxPage)
	rs, err := s.history.Find(history.ByName(ledger.EventLiquidated), below, limit+1)
	if err != nil {
		return nil, s.noHistory(err)
	}
	out := &client.PastLiquidations{Since: s.history.Since(), Liquidations: []client.PastLiquidation{}}
	for i, r := range rs {
		if i == limit {
			out.Next = strconv.FormatUint(rs[i-1].Height, 10)
			break
		}
		for _, x := range recordedIn(r) {
			out.Liquidations = append(out.Liquidations, v.pastLiquidation(x))
		}
	}
	return out, nil
}

func (s *server) findLiquidation(id uint64) (recorded, error) {
	if id < 1<<63 {
		rs, err := s.history.Find(history.ByName(ledger.EventLiquidated), id+1, 1)
		if err != nil {
			return recorded{}, s.noHistory(err)
		}
		if len(rs) == 1 && rs[0].Height == id {
			if all := recordedIn(rs[0]); len(all) == 1 {
				return all[0], nil
			}
		}
	}
	p := s.problem(unknownLiquidation, strconv.FormatUint(id, 10))
	p.Limit, p.Found = strconv.FormatUint(s.history.Since(), 10), strconv.FormatUint(id, 10) // remembered from, asked for
	return recorded{}, p
}

func (s *server) liquidation(_ context.Context, v view, in *liquidationInput) (*client.LiquidationDetail, error) {
	r, err := s.findLiquidation(in.ID)
	if err != nil {
		return nil, err
	}
	return &client.LiquidationDetail{PastLiquidation: v.pastLiquidation(r)}, nil
}

func (s *server) explainLiquidation(_ context.Context, v view, in *liquidationInput) (*client.Explanation, error) {
	r, err := s.findLiquidation(in.ID)
	if err != nil {
		return nil, err
	}
	return v.explain(r), nil
}

func (v view) pastLiquidation(r recorded) client.PastLiquidation {
	debt, _ := v.Genesis.Asset(r.DebtPool)
	coll, _ := v.Genesis.Asset(r.CollPool)
	out := client.PastLiquidation{
		ID: r.ID, Time: at(r.Millis), Request: r.request, Liquidator: r.Liquidator, Borrower: r.Borrower,
		DebtPool: r.DebtPool, DebtSymbol: debt.Symbol, DebtDecimals: debt.Decimals,
		CollateralPool: r.CollPool, CollateralSymbol: coll.Symbol, CollateralDecimals: coll.Decimals,
		Requested: r.Requested.String(), Repaid: r.Seizure.Repaid.String(), Seized: r.Seizure.Seized.String(), Fee: r.Seizure.Fee.String(),
		HFBefore: r.HFBefore.String(), HFBeforeShown: ledger.DisplayHF(&r.HFBefore), HFAfterShown: ledger.DisplayHF(r.HFAfter),
		BadDebt: []client.Loss{}, Outflow: r.Outflow,
	}
	if r.Requested == fixed.Max {
		out.Requested = maxWord
	}
	if r.HFAfter != nil {
		after := r.HFAfter.String()
		out.HFAfter = &after
	}
	for _, b := range r.BadDebt {
		out.BadDebt = append(out.BadDebt, client.Loss{Pool: b.Pool, Debt: b.Debt.String(), Covered: b.Covered.String()})
	}
	return out
}

const maxWord = "max"

// weighedLeg is a recorded position with what its claims were worth.
type weighedLeg struct {
	ledger.LegRecord
	symbol                           string
	coll, debt, collValue, debtValue fixed.Int
}

// weighLegs turns claims into amounts and values, and sums them up: the health
// factor is nil without debt. Why not the ledger's own function alone: this is
// the same arithmetic written a second time, so that a step shown here agrees
// with the record because the numbers do.
func (v view) weighLegs(legs []ledger.LegRecord) (out []weighedLeg, debt fixed.Int, counts fixed.Wide, hf *fixed.Int, err error) {
	var c fixed.Calc
	for _, g := range legs {
		a, _ := v.Genesis.Asset(g.Pool)
		x := weighedLeg{LegRecord: g, symbol: a.Symbol}
		x.coll = c.MulDivFloor(g.Collateral, g.SupplyIndex, fixed.Ray)
		x.debt = c.MulDivCeil(g.Debt, g.BorrowIndex, fixed.Ray)
		x.collValue = c.MulDivFloor(x.coll, g.Low, c.Pow10(g.Decimals))
		x.debtValue = c.MulDivCeil(x.debt, g.High, c.Pow10(g.Decimals))
		debt = c.Add(debt, x.debtValue)
		counts = c.AddMul(counts, x.collValue, fixed.New(g.LT))
		out = append(out, x)
	}
	if !debt.IsZero() {
		n := c.Narrow(fixed.WideFloor(counts, fixed.Wad.Wide(), fixed.Product(debt, fixed.Bps)))
		hf = &n
	}
	return out, debt, counts, hf, c.Err()
}

// amount and dollars are for people, all decimals.
func (g weighedLeg) amount(n fixed.Int) string {
	return address.Amount{Units: n.String(), Decimals: g.Decimals, Symbol: g.symbol}.String()
}

func dollars(n fixed.Int) string {
	return address.Amount{Units: n.String(), Decimals: 8, Symbol: "USD"}.String()
}

func percent(bps uint64) string { return fmt.Sprintf("%d.%02d %%", bps/100, bps%100) }

// Bounds of the close factor as lending §13 states them, for the words only:
// the number itself is the ledger's.
var (
	closeAllBelow = fixed.New(2_000 * 100_000_000)             // USD · 10⁸
	closeAllAt    = fixed.New(950_000_000_000_000_000)         // WAD
	spelling      = map[bool]string{true: "up", false: "down"} // of a rounding
)

// explain computes a liquidation again, by the ledger's own function and the
// weighing a second time here, and says each number in words.
func (v view) explain(r recorded) *client.Explanation {
	out := &client.Explanation{Liquidation: v.pastLiquidation(r), Legs: []client.ExplainLeg{}, Steps: []client.ExplainStep{}, Record: r.Note()}
	z, err := ledger.ExplainLiquidation(r.LiquidationRecord)
	legs, total, counts, hf, werr := v.weighLegs(r.Legs)
	for _, g := range legs {
		out.Legs = append(out.Legs, client.ExplainLeg{
			Pool: g.Pool, Symbol: g.symbol, Decimals: g.Decimals, Low: g.Low.String(), High: g.High.String(), Round: g.Round, Closed: at(g.Closed),
			SupplyIndex: g.SupplyIndex.String(), BorrowIndex: g.BorrowIndex.String(), CollateralShares: g.LegRecord.Collateral.String(),
			DebtShares: g.LegRecord.Debt.String(), LT: g.LT, Collateral: g.coll.String(), CollateralValue: g.collValue.String(),
			Debt: g.debt.String(), DebtValue: g.debtValue.String(),
		})
	}
	same := true
	step := func(what, computed, recorded, words string, a ...any) {
		x := client.ExplainStep{What: what, Words: fmt.Sprintf(words, a...), Computed: computed, Recorded: recorded, Agrees: computed == recorded}
		same = same && x.Agrees
		out.Steps = append(out.Steps, x)
	}
	var debt, coll *weighedLeg
	for i := range legs {
		if legs[i].Pool == r.DebtPool {
			debt = &legs[i]
		}
		if legs[i].Pool == r.CollPool {
			coll = &legs[i]
		}
	}
	if debt != nil && coll != nil && hf != nil && werr == nil {
		counted, _ := fixed.WideFloor(counts, fixed.New(1).Wide(), fixed.Bps.Wide())
		countedUSD, _ := counted.Int() // shown only
		step("health factor before", hf.String(), r.HFBefore.String(),
			"the collateral counts %s at its liquidation thresholds, the debt weighs %s: their ratio is %s, below 1",
			dollars(countedUSD), dollars(total), ledger.DisplayHF(hf))
		v.explainSeizure(step, r, z, *debt, *coll, total, *hf)
		v.explainAfter(step, r, z)
	}
	switch {
	case err != nil:
		out.Differs = err.Error()
	case werr != nil:
		out.Differs = werr.Error()
	case debt == nil || coll == nil || hf == nil:
		out.Differs = "the record has no position in one of the pools, or no debt"
	case !same:
		out.Differs = "see the steps"
	}
	out.Agrees = out.Differs == ""
	return out
}

type stepper func(what, computed, recorded, words string, a ...any)

func (v view) explainSeizure(step stepper, r recorded, z ledger.Seizure, debt, coll weighedLeg, total, hf fixed.Int) {
	var c fixed.Calc
	why := fmt.Sprintf("both legs are worth %s or more and the health factor is above 0.95, so %s of the whole debt of %s may be repaid",
		dollars(closeAllBelow), percent(z.CloseFactor), dollars(total))
	switch {
	case coll.collValue.Less(closeAllBelow):
		why = fmt.Sprintf("the collateral is worth %s, below %s, so all of the debt may be repaid", dollars(coll.collValue), dollars(closeAllBelow))
	case debt.debtValue.Less(closeAllBelow):
		why = fmt.Sprintf("the debt is worth %s, below %s, so all of it may be repaid", dollars(debt.debtValue), dollars(closeAllBelow))
	case !closeAllAt.Less(hf):
		why = fmt.Sprintf("the health factor of %s is not above 0.95, so all of the debt may be repaid", ledger.DisplayHF(&hf))
	}
	if !r.Rules.Covered.IsZero() {
		why += fmt.Sprintf("; repayments of %s on their way protect their part where health is 0.95 or better", debt.amount(r.Rules.Covered))
	}
	step("most that may be repaid", z.MaxDebt.String(), r.Seizure.MaxDebt.String(), "%s: at most %s at a price of %s", why, debt.amount(z.MaxDebt), dollars(debt.High))

	asked := "as much as may be was asked for"
	if r.Requested != fixed.Max {
		asked = debt.amount(r.Requested) + " were asked for"
	}
	all := z.Seized == coll.coll
	if all && z.Repaid.Less(r.Requested.Min(z.MaxDebt)) {
		asked += ", and the collateral pays for no more"
	}
	step("repaid", z.Repaid.String(), r.Seizure.Repaid.String(), "%s, so %s are repaid", asked, debt.amount(z.Repaid))

	worth := c.MulDivCeil(z.Repaid, debt.High, c.Pow10(debt.Decimals))
	take := fmt.Sprintf("at %s each and %s for the liquidator's trouble", dollars(coll.Low), percent(r.Rules.Bonus-min(r.Rules.Bonus, 10_000)))
	if all {
		take += ", all that there is"
	}
	step("seized", z.Seized.String(), r.Seizure.Seized.String(), "what is repaid is worth %s: %s, that is %s", dollars(worth), take, coll.amount(z.Seized))
	part := c.Int(fixed.Sub(z.Seized, c.MulDivFloor(z.Seized, fixed.Bps, fixed.New(r.Rules.Bonus))))
	step("fee", z.Fee.String(), r.Seizure.Fee.String(), "%s of the bonus part of %s goes to the treasury: %s", percent(r.Rules.Fee), coll.amount(part), coll.amount(z.Fee))

	claim := func(what string, n, index fixed.Int, up bool) string {
		return fmt.Sprintf("%s at an index of %s, rounded %s: %s claims", what, index, spelling[up], n)
	}
	whole := func(what string, n fixed.Int) string { return fmt.Sprintf("all claims of the %s: %s", what, n) }
	burnt := whole("debt", z.DebtBurnt)
	if z.Repaid != debt.debt {
		burnt = claim(debt.amount(z.Repaid), z.DebtBurnt, debt.BorrowIndex, false)
	}
	taken := whole("collateral", z.SharesSeized)
	if !all {
		taken = claim(coll.amount(z.Seized), z.SharesSeized, r.CollIndex, true)
	}
	step("SupplyShares the liquidator paid with", z.LiquidatorBurnt.String(), r.Seizure.LiquidatorBurnt.String(), "%s", claim(debt.amount(z.Repaid), z.LiquidatorBurnt, r.DebtIndex, true))
	step("DebtShares the borrower lost", z.DebtBurnt.String(), r.Seizure.DebtBurnt.String(), "%s", burnt)
	step("SupplyShares the borrower lost", z.SharesSeized.String(), r.Seizure.SharesSeized.String(), "%s", taken)
	step("SupplyShares the liquidator got", z.SharesToActor.String(), r.Seizure.SharesToActor.String(), "%s",
		claim(coll.amount(c.Int(fixed.Sub(z.Seized, z.Fee)))+" without the fee", z.SharesToActor, r.CollIndex, false))
	step("TreasuryShares", z.SharesToFee.String(), r.Seizure.SharesToFee.String(), "the rest of the %s seized claims: %s", z.SharesSeized, z.SharesToFee)
}

// explainAfter is what the borrower was left with.
func (v view) explainAfter(step stepper, r recorded, z ledger.Seizure) {
	var c fixed.Calc
	left := make([]ledger.LegRecord, len(r.Legs))
	copy(left, r.Legs)
	for i, g := range left {
		if g.Pool == r.DebtPool {
			left[i].Debt = c.Sub(left[i].Debt, z.DebtBurnt)
		}
		if g.Pool == r.CollPool {
			left[i].Collateral = c.Sub(left[i].Collateral, z.SharesSeized)
		}
	}
	if c.Err() != nil {
		return // the ledger's function has said so
	}
	legs, _, _, _, err := v.weighLegs(left)
	if err != nil {
		return
	}
	for _, b := range r.BadDebt {
		for i, g := range legs {
			if g.Pool == b.Pool {
				step("bad debt of "+b.Pool, g.debt.String(), b.Debt.String(), "no collateral is left, so the %s still owed are written off; the treasury covers %s of them", g.amount(g.debt), g.amount(b.Covered))
				left[i].Debt = fixed.Int{}
			}
		}
	}
	_, debt, _, hf, err := v.weighLegs(left)
	if err != nil {
		return
	}
	const none = "none"
	after, before := none, none
	if hf != nil {
		after = hf.String()
	}
	if r.HFAfter != nil {
		before = r.HFAfter.String()
	}
	if hf == nil {
		step("health factor after", after, before, "nothing is owed any more")
		return
	}
	step("health factor after", after, before, "with %s still owed the health factor is %s", dollars(debt), ledger.DisplayHF(hf))
}
