package ledger

import (
	"slices"

	"github.com/coffer-network/coffer/ledger/fixed"
)

// Impairment is the moment when a pool's Deficit grew beyond FreezeDeficitBps of
// its claims. Until cover or socialise each account may withdraw from the pool,
// of the balance it held at that moment, only the part that the Deficit leaves:
// the first to run gains nothing (spec: lending §8.4, DEFICIT_LIMIT).
//
// No account is touched at that moment. What an account held then is what it
// holds until its SupplyShares first change, so the change notes it (see
// noteHeld).
type Impairment struct {
	Epoch  uint64    `cbor:"1,keyasint"` // counts impairments of the pool
	Open   bool      `cbor:"2,keyasint"` // withdrawals are limited
	Claims fixed.Int `cbor:"3,keyasint"` // of suppliers and treasury at that moment, base units, rounded down
	Index  fixed.Int `cbor:"4,keyasint"` // SupplyIndex then, RAY
	First  uint64    `cbor:"5,keyasint"` // outflows from this id on were withdrawn under the limit
}

// Held is what an account held in a pool when it became impaired.
type Held struct {
	Pool      string    `cbor:"1,keyasint"`
	Epoch     uint64    `cbor:"2,keyasint"` // of the impairment it is about
	Shares    fixed.Int `cbor:"3,keyasint"` // SupplyShares
	Withdrawn fixed.Int `cbor:"4,keyasint"` // since then, refunds taken off, base units
}

// overDeficit reports Deficit·10⁴ > bps·⌊claims⌋. Overflow counts as no.
func (p Pool) overDeficit(bps uint64) (claims fixed.Int, over bool) {
	var c fixed.Calc
	claims = c.MulDivFloor(c.Add(p.SupplyShares, p.TreasuryShares), p.SupplyIndex, fixed.Ray)
	if c.Err() != nil {
		return fixed.Int{}, false
	}
	return claims, fixed.Product(fixed.New(bps), claims).Less(fixed.Product(p.Deficit, fixed.Bps))
}

// impair freezes a pool whose Deficit has grown too large. next is the id of the
// next outflow.
func (p Pool) impair(bps, next uint64) Pool {
	if bps == 0 || p.Impaired.Open || p.Deficit.IsZero() {
		return p
	}
	if claims, over := p.overDeficit(bps); over {
		p.Frozen = true
		p.Impaired = Impairment{Epoch: p.Impaired.Epoch + 1, Open: true, Claims: claims, Index: p.SupplyIndex, First: next}
	}
	return p
}

// mend ends the limit once a cover or socialise brought the Deficit below the
// bound. The pool stays frozen: only a vote lifts that.
func (p Pool) mend(bps uint64) Pool {
	if _, over := p.overDeficit(bps); !over || p.Deficit.IsZero() {
		p.Impaired.Open = false
	}
	return p
}

// held returns what the account held when p became impaired, given its present
// position.
func (a Account) held(p Pool) Held {
	for _, h := range a.Held {
		if h.Pool == p.Param.Asset && h.Epoch == p.Impaired.Epoch {
			return h
		}
	}
	return Held{Pool: p.Param.Asset, Epoch: p.Impaired.Epoch, Shares: a.position(p.Param.Asset).Supply}
}

// noteHeld keeps what a held before its SupplyShares in p become supply, and
// forgets what is about an impairment that is over. a is the account as before.
func (a Account) noteHeld(p Pool, supply fixed.Int) Account {
	if !p.Impaired.Open {
		if i := slices.IndexFunc(a.Held, func(h Held) bool { return h.Pool == p.Param.Asset }); i >= 0 {
			return a.withHeld(slices.Delete(slices.Clone(a.Held), i, i+1))
		}
		return a
	}
	if supply == a.position(p.Param.Asset).Supply {
		return a
	}
	return a.withHeld(upsert(a.Held, a.held(p), func(h Held) string { return h.Pool }))
}

func (a Account) withHeld(list []Held) Account {
	if a.Held = list; len(list) == 0 {
		a.Held = nil
	}
	return a
}

// mayWithdraw is how much more a may withdraw from p under the limit. ok is
// false where none holds.
//
// Claims that come to an account later, by a liquidation or a refund of older
// outflows, do not raise it, and those it gives up do not lower it: all limits
// together never exceed what the Deficit leaves of the claims of that moment.
func (s *State) mayWithdraw(a Account, p Pool) (left fixed.Int, ok bool) {
	if !p.Impaired.Open || s.Params.FreezeDeficitBps == 0 {
		return fixed.Int{}, false
	}
	m, h := p.Impaired, a.held(p)
	var c fixed.Calc
	if p.Deficit.Less(m.Claims) {
		balance := c.MulDivFloor(h.Shares, m.Index, fixed.Ray)
		left = c.MulDivFloor(balance, c.Sub(m.Claims, p.Deficit), m.Claims)
	}
	if left.Less(h.Withdrawn) || c.Err() != nil {
		return fixed.Int{}, true
	}
	return c.Sub(left, h.Withdrawn), true
}

// withdrew counts an amount against the limit of p.
func (a Account) withdrew(p Pool, amount fixed.Int) (Account, error) {
	if !p.Impaired.Open {
		return a, nil
	}
	h := a.held(p)
	var err error
	if h.Withdrawn, err = fixed.Add(h.Withdrawn, amount); err != nil {
		return a, err
	}
	return a.withHeld(upsert(a.Held, h, func(h Held) string { return h.Pool })), nil
}

// returned takes a refunded withdrawal off what counts against the limit, if it
// was made under it.
func (s *State) returned(o Outflow, amount fixed.Int) {
	p := s.Pools.at(o.Asset)
	if !p.Impaired.Open || o.ID < p.Impaired.First {
		return
	}
	a := s.Accounts.at(o.Account)
	h := a.held(p)
	h.Withdrawn = must(fixed.Sub(h.Withdrawn, amount.Min(h.Withdrawn)))
	s.Accounts.put(a.ID, a.withHeld(upsert(a.Held, h, func(h Held) string { return h.Pool })))
}
