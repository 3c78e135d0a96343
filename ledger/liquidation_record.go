package ledger

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/coffer-network/coffer/ledger/fixed"
)

// EventLiquidated is the name of the event whose Note is a LiquidationRecord.
// Its Account is the borrower, its Asset the debt, its Amount what was repaid.
// EventLiquidates, beside it, tells the same to the liquidator: Asset is the
// collateral, Amount what he got of it, Note the record's id.
const (
	EventLiquidated = "liquidated"
	EventLiquidates = "liquidates"
)

// LiquidationRecord is everything from which a liquidation can be computed
// again. The Note of its event is its JSON: fields in this order, amounts as
// decimal strings, no spaces, so that equal records are equal bytes. Amounts are
// base units, prices USD · 10⁸ per whole token, indices RAY, ratios bps, health
// factors WAD.
type LiquidationRecord struct {
	ID         uint64      `json:"id"`     // LogIndex of the command
	Millis     uint64      `json:"millis"` // ledger time
	Liquidator AccountID   `json:"liquidator"`
	Borrower   AccountID   `json:"borrower"`
	DebtPool   string      `json:"debtPool"`
	CollPool   string      `json:"collateralPool"`
	Requested  fixed.Int   `json:"requested"` // most to repay; 2¹²⁸ − 1 for max
	Rules      seizeRules  `json:"rules"`
	Legs       []LegRecord `json:"legs"`      // of the borrower before, ascending by pool
	DebtIndex  fixed.Int   `json:"debtIndex"` // SupplyIndex of the debt pool, for the liquidator's claims
	CollIndex  fixed.Int   `json:"collateralIndex"`
	Seizure    Seizure     `json:"seizure"`
	BadDebt    []BadDebt   `json:"badDebt,omitempty"` // ascending by pool
	HFBefore   fixed.Int   `json:"hfBefore"`
	HFAfter    *fixed.Int  `json:"hfAfter"`           // null: owes nothing any more
	Outflow    uint64      `json:"outflow,omitempty"` // of Auto-withdraw to
}

// LegRecord is one position of the borrower as it was weighed.
type LegRecord struct {
	Pool        string    `json:"pool"`
	Decimals    uint8     `json:"decimals"`
	Low         fixed.Int `json:"low"`  // what its collateral was weighed at
	High        fixed.Int `json:"high"` // what its debt was weighed at
	Round       uint64    `json:"round"`
	Closed      uint64    `json:"closed"` // ledger time of the round, ms
	SupplyIndex fixed.Int `json:"supplyIndex"`
	BorrowIndex fixed.Int `json:"borrowIndex"`
	Supply      fixed.Int `json:"supplyShares"`
	Collateral  fixed.Int `json:"collateralShares"` // the part that is final
	Debt        fixed.Int `json:"debtShares"`
	LT          uint64    `json:"lt"`
	LTV         uint64    `json:"ltv"`
}

// Seizure is what a liquidation moved: amounts, and the claims for them.
type Seizure struct {
	CloseFactor     uint64    `json:"closeFactorBps"`
	MaxDebt         fixed.Int `json:"maxDebt"`
	Repaid          fixed.Int `json:"repaid"`
	Seized          fixed.Int `json:"seized"` // fee included
	Fee             fixed.Int `json:"fee"`
	LiquidatorBurnt fixed.Int `json:"liquidatorSharesBurnt"` // SupplyShares in the debt pool
	DebtBurnt       fixed.Int `json:"debtSharesBurnt"`
	SharesSeized    fixed.Int `json:"sharesSeized"` // SupplyShares of the borrower in the collateral pool
	SharesToActor   fixed.Int `json:"sharesToLiquidator"`
	SharesToFee     fixed.Int `json:"sharesToTreasury"`
}

// record writes down a liquidation. l is what s.liquidate returned; before is
// the state it began with, synced.
func (l liquidation) record(before, after *State, actor, borrower AccountID, debtPool, collPool string, amount fixed.Int) (LiquidationRecord, Code) {
	r := LiquidationRecord{
		ID: before.Height + 1, Millis: before.Millis, Liquidator: actor, Borrower: borrower,
		DebtPool: debtPool, CollPool: collPool, Requested: amount, Rules: l.rules,
		DebtIndex: before.Pools.at(debtPool).SupplyIndex, CollIndex: before.Pools.at(collPool).SupplyIndex,
		BadDebt: l.BadDebt, HFBefore: l.HF, Seizure: l.claims(),
	}
	a := before.Accounts.at(borrower)
	for i, at := range a.Positions {
		p, price := before.Pools.at(at.Pool), before.Prices.at(at.Pool)
		r.Legs = append(r.Legs, LegRecord{
			Pool: at.Pool, Decimals: p.Decimals, Low: l.legs[i].Low, High: l.legs[i].High, Round: price.Round, Closed: price.Millis,
			SupplyIndex: p.SupplyIndex, BorrowIndex: p.BorrowIndex,
			Supply: at.Supply, Collateral: before.collateral(a, at), Debt: at.Debt, LT: l.legs[i].LT, LTV: l.legs[i].LTV,
		})
	}
	h, code := after.weighAccount(after.Accounts.at(borrower), asClosed)
	r.HFAfter = h.HF
	return r, code
}

// claims is the seizure as it is recorded.
func (l liquidation) claims() Seizure {
	return Seizure{
		CloseFactor: l.CloseFactor, MaxDebt: l.MaxDebt, Repaid: l.Repaid, Seized: l.Seized, Fee: l.Fee,
		LiquidatorBurnt: l.LiquidatorBurnt, DebtBurnt: l.DebtBurnt, SharesSeized: l.SharesSeized,
		SharesToActor: l.SharesToActor, SharesToFee: must(fixed.Sub(l.SharesSeized, l.SharesToActor)),
	}
}

// Note is the record as its event carries it.
func (r LiquidationRecord) Note() string { return string(must(json.Marshal(r))) }

// ParseLiquidation reads the Note of a "liquidated" event: exactly what Note
// writes.
func ParseLiquidation(note string) (LiquidationRecord, error) {
	var r LiquidationRecord
	if err := json.Unmarshal([]byte(note), &r); err != nil {
		return r, fmt.Errorf("liquidation record: %w", err)
	}
	if r.Note() != note {
		return r, errors.New("liquidation record: not in its own spelling")
	}
	return r, nil
}

// ErrExplained is the root of a record whose numbers do not follow from its own
// facts.
var ErrExplained = errors.New("the record does not follow from its facts")

// ExplainLiquidation computes a recorded liquidation again from its prices,
// indices, claims and request, by the functions that Apply uses, and compares.
// It returns the seizure that follows; the error names the first number that
// the record has otherwise.
func ExplainLiquidation(r LiquidationRecord) (Seizure, error) {
	legs, coll, debt := make([]leg, len(r.Legs)), -1, -1
	var c fixed.Calc
	for i, g := range r.Legs {
		legs[i] = leg{
			Pool: g.Pool, Decimals: g.Decimals, Low: g.Low, High: g.High, LT: g.LT, LTV: g.LTV,
			Supply:     c.MulDivFloor(g.Supply, g.SupplyIndex, fixed.Ray),
			Collateral: c.MulDivFloor(g.Collateral, g.SupplyIndex, fixed.Ray),
			Debt:       c.MulDivCeil(g.Debt, g.BorrowIndex, fixed.Ray),
		}
		if g.Pool == r.CollPool {
			coll = i
		}
		if g.Pool == r.DebtPool {
			debt = i
		}
	}
	if c.Err() != nil {
		return Seizure{}, fmt.Errorf("%w: balances: %w", ErrExplained, c.Err())
	}
	z, code := seize(legs, coll, debt, r.Requested, r.Rules)
	if code != OK {
		return Seizure{}, fmt.Errorf("%w: it would have been refused: %s", ErrExplained, code)
	}
	got := liquidation{seizure: z}
	if err := got.convert(legs[coll], legs[debt], r.Legs[coll].Collateral, r.Legs[debt].Debt, r.DebtIndex, r.Legs[debt].BorrowIndex, r.CollIndex); err != nil {
		return Seizure{}, fmt.Errorf("%w: claims: %w", ErrExplained, err)
	}
	out := got.claims()
	after, err := r.after(legs, coll, debt, out)
	switch {
	case out != r.Seizure:
		return out, fmt.Errorf("%w: seizure %+v, recorded %+v", ErrExplained, out, r.Seizure)
	case z.HF != r.HFBefore:
		return out, fmt.Errorf("%w: HF before %s, recorded %s", ErrExplained, z.HF, r.HFBefore)
	case err != nil:
		return out, fmt.Errorf("%w: %w", ErrExplained, err)
	case (after == nil) != (r.HFAfter == nil) || after != nil && *after != *r.HFAfter:
		return out, fmt.Errorf("%w: HF after %v, recorded %v", ErrExplained, after, r.HFAfter)
	}
	return out, nil
}

// after is the borrower's HF once the claims have moved, with the bad debt
// checked against what he still owed.
func (r LiquidationRecord) after(legs []leg, coll, debt int, z Seizure) (*fixed.Int, error) {
	var c fixed.Calc
	left := make([]LegRecord, len(r.Legs))
	copy(left, r.Legs)
	left[debt].Debt = c.Sub(left[debt].Debt, z.DebtBurnt)
	left[coll].Supply = c.Sub(left[coll].Supply, z.SharesSeized)
	left[coll].Collateral = c.Sub(left[coll].Collateral, z.SharesSeized)
	lost := map[string]fixed.Int{}
	for _, b := range r.BadDebt {
		lost[b.Pool] = b.Debt
	}
	for i, g := range left {
		legs[i].Collateral = c.MulDivFloor(g.Collateral, g.SupplyIndex, fixed.Ray)
		legs[i].Debt = c.MulDivCeil(g.Debt, g.BorrowIndex, fixed.Ray)
		if bad, ok := lost[g.Pool]; ok {
			if bad != legs[i].Debt {
				return nil, fmt.Errorf("bad debt of %s is %s, recorded %s", g.Pool, legs[i].Debt, bad)
			}
			legs[i].Debt = fixed.Int{}
		}
	}
	h, err := weigh(legs)
	if err != nil || c.Err() != nil {
		return nil, errors.Join(err, c.Err())
	}
	return h.HF, nil
}

// liquidate is the request of any account against a borrower below HF 1 (spec:
// lending §6.6). With an address to withdraw to, what was gained leaves by the
// outflow that a Withdraw would have made, under the same checks, in the same
// command or not at all.
func (x *execution) liquidate(r request) Code {
	amount := fixed.Max
	if !r.Amount.Max {
		var err error
		if amount, err = fixed.Parse(r.Amount.Units); err != nil {
			return Malformed
		}
		if amount.IsZero() {
			return BelowMin
		}
	}
	borrower := hex16(r.Borrower)
	before := x.s.View()
	before.sync()
	s := x.s
	l, code := s.liquidate(r.account, borrower, r.Pool, r.CollateralPool, amount)
	if code != OK {
		return code
	}
	rec, code := l.record(before, s, r.account, borrower, r.Pool, r.CollateralPool, amount)
	if code != OK {
		return code
	}
	a := s.Accounts.at(r.account)
	a.Liquidated = s.Millis
	s.Accounts.put(a.ID, a)
	s.refreshRates()
	if r.AutoWithdrawTo.Address != "" {
		rec.Outflow = s.NextOutflow
		if code := x.autoWithdraw(r, l); code != OK {
			return code
		}
	}
	x.emit(Event{Name: EventLiquidated, Account: borrower, Asset: r.Pool, Amount: l.Repaid.String(), Outflow: rec.Outflow, Note: rec.Note()})
	x.emit(Event{
		Name: EventLiquidates, Account: r.account, Asset: r.CollateralPool, Outflow: rec.Outflow,
		Amount: must(fixed.Sub(l.Seized, l.Fee)).String(), Note: fmt.Sprint(rec.ID),
	})
	return OK
}

// autoWithdraw sends the collateral that a liquidation gained, as a Withdraw of
// that amount would. Of what is above the hourly capacity it sends as much as may
// be asked for; the rest stays supplied, for a Withdraw of later.
//
// Why the request is not refused then, as a Withdraw is (spec: outflows R-11): its
// text names no amount to be sent, and a debt that is too large to be liquidated in
// one request for that reason alone would stay. What no smaller amount mends, a fee
// or a destination, refuses the whole.
func (x *execution) autoWithdraw(r request, l liquidation) Code {
	gained, err := fixed.MulDivFloor(l.SharesToActor, x.s.Pools.at(r.CollateralPool).SupplyIndex, fixed.Ray)
	if err != nil {
		return Arith
	}
	maxFee, err := fixed.Parse(r.MaxFee.Units)
	if err != nil {
		return Malformed
	}
	if most, _ := x.s.Capacities(r.CollateralPool); !most.IsZero() {
		gained = lesser(gained, most)
	}
	_, code := x.payOut(payment{
		kind: OutflowWithdraw, account: r.account, pool: r.CollateralPool, amount: gained, maxFee: maxFee, to: r.AutoWithdrawTo, refused: r.refused,
	})
	return code
}
