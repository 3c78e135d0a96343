package ledger

import (
	"slices"

	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/ledger/fixed"
)

// insuranceSeconds: a part of the reserve-factor income goes to the insurance
// account whenever ledger time passes a multiple of it. Half a day: the sum
// moves at par, so nothing is lost by waiting, and each sweep is one more event
// to read.
const insuranceSeconds = 43_200

// insures reports whether an account may cover deficits.
func (s *State) insures(id AccountID) bool { return slices.Contains(s.Params.Insurance, id) }

// sweepInsurance moves InsuranceBps of the TreasuryShares that the reserve
// factor earned since the last sweep to the insurance account (spec: lending
// §9). Shares change hands at par: no value is made. Where it cannot be done the
// income goes on counting: no such account opened yet, or it owes something, so
// that it could not cover; the pool paused or frozen, or with a Deficit, which
// TreasuryShares bear first.
func (x *execution) sweepInsurance() {
	s := x.s
	if s.Params.InsuranceBps == 0 || len(s.Params.Insurance) == 0 {
		return
	}
	id := s.Params.Insurance[0]
	if a, ok := s.Accounts.get(id); !ok || a.indebted() {
		return
	}
	for _, pool := range s.Pools.keys() {
		p := s.Pools.at(pool)
		if p.Paused || p.Frozen || !p.Deficit.IsZero() {
			continue
		}
		var c fixed.Calc
		part := c.MulDivFloor(p.Uninsured, fixed.New(s.Params.InsuranceBps), fixed.Bps).Min(p.TreasuryShares)
		if c.Err() != nil || part.IsZero() {
			continue
		}
		a := s.Accounts.at(id)
		at := a.position(pool)
		at.Supply = c.Add(at.Supply, part)
		p.SupplyShares = c.Add(p.SupplyShares, part)
		p.TreasuryShares = c.Sub(p.TreasuryShares, part)
		p.Uninsured = fixed.Int{}
		if code := s.store(&c, a, at, p); code != OK {
			panic("insurance sweep: " + string(code))
		}
		x.emit(Event{Name: "insured", Account: id, Asset: pool, Amount: part.String(), Note: "SupplyShares"})
	}
}

// cover is the request of an insurance account to burn claims of its own
// against a pool's Deficit (spec: lending §6.7).
func (x *execution) cover(r request) Code {
	s := x.s
	if !s.Pools.has(r.Pool) {
		return UnknownPool
	}
	if !s.insures(r.account) {
		return NotAllowed
	}
	amount, err := fixed.Parse(r.Amount.Units)
	if err != nil {
		return Malformed
	}
	if amount.IsZero() {
		return BelowMin
	}
	covered, code := s.coverDeficit(r.account, r.Pool, amount)
	if code != OK {
		return code
	}
	s.refreshRates()
	x.emit(Event{Name: "covered", Account: r.account, Asset: r.Pool, Amount: covered.String(), Note: address.ActionCoverDeficit})
	return OK
}

// socialise runs what a two-step vote decided: every claim in the pool bears its
// part of the Deficit (spec: lending §9). The caller refreshes the rates.
func (x *execution) socialise(pool string) Code {
	s := x.s
	deficit := s.Pools.at(pool).Deficit
	if code := s.socialise(pool); code != OK {
		return code
	}
	x.emit(Event{Name: "socialised", Asset: pool, Amount: deficit.String(), Note: s.Pools.at(pool).SupplyIndex.String()})
	return OK
}
