package ledger

import (
	"slices"
	"strings"

	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/ledger/fixed"
)

// maxPayees bounds an account's payout list: every payment looks through it.
const maxPayees = 64

// Payouts are an account's rules about where its coins may go (spec: requests
// §4.3).
type Payouts struct {
	Required bool    `cbor:"1,keyasint"` // only listed addresses are paid
	Off      uint64  `cbor:"2,keyasint"` // ledger time, ms, from which Required ends; 0: no end is asked for
	Payees   []Payee `cbor:"3,keyasint"` // sorted by To
}

// Payee is a listed address.
type Payee struct {
	To   string `cbor:"1,keyasint"` // CAIP-10
	From uint64 `cbor:"2,keyasint"` // ledger time, ms, from which it may be paid
}

// Requires reports whether only listed addresses may be paid at ledger time
// millis.
func (p Payouts) Requires(millis uint64) bool {
	return p.Required && (p.Off == 0 || millis < p.Off)
}

// allows reports whether coins may go to an address at ledger time millis.
func (p Payouts) allows(to string, millis uint64) bool {
	if !p.Requires(millis) {
		return true
	}
	i := p.find(to)
	return i >= 0 && p.Payees[i].From <= millis
}

func (p Payouts) find(to string) int {
	return slices.IndexFunc(p.Payees, func(e Payee) bool { return e.To == to })
}

// putPayouts stores rules, and none where there are none, so that snapshots are
// canonical.
func (s *State) putPayouts(id AccountID, p Payouts) {
	if !p.Required && len(p.Payees) == 0 {
		s.Payouts.delete(id)
		return
	}
	s.Payouts.put(id, p)
}

// addPayee lists an address, which may be paid after the delay: whoever stole a
// key is seen before he is paid. One that is listed keeps its time. Codes:
// DESTINATION_REFUSED as for a payment, NOT_ALLOWED beyond 64.
func (x *execution) addPayee(r request) Code {
	s, to := x.s, r.To.String()
	if r.refused || s.refusedDestination(r.account, r.To) {
		return DestinationRefused
	}
	p := s.Payouts.at(r.account)
	if p.find(to) >= 0 {
		return OK
	}
	if len(p.Payees) >= maxPayees {
		return NotAllowed
	}
	p.Payees = append(slices.Clone(p.Payees), Payee{To: to, From: s.Millis + s.Params.PayoutDelaySeconds*1000})
	slices.SortFunc(p.Payees, func(a, b Payee) int { return strings.Compare(a.To, b.To) })
	s.putPayouts(r.account, p)
	x.emit(Event{Name: "payee-added", Account: r.account, Note: to})
	return OK
}

// removePayee takes an address off the list at once. DESTINATION_NOT_LISTED if
// it is not on it.
func (x *execution) removePayee(r request) Code {
	s, to := x.s, r.To.String()
	p := s.Payouts.at(r.account)
	i := p.find(to)
	if i < 0 {
		return DestinationNotList
	}
	p.Payees = slices.Delete(slices.Clone(p.Payees), i, i+1)
	s.putPayouts(r.account, p)
	x.emit(Event{Name: "payee-removed", Account: r.account, Note: to})
	return OK
}

// requirePayees turns the list on at once, or off after the delay. Saying the
// same again changes nothing: a pending end keeps its time, and "yes" takes it
// back.
func (x *execution) requirePayees(r request) Code {
	s := x.s
	p := s.Payouts.at(r.account)
	note := "yes"
	switch on := p.Requires(s.Millis); {
	case r.On:
		p.Required, p.Off = true, 0
	case !on:
		p.Required, p.Off, note = false, 0, "no"
	case p.Off == 0:
		p.Off, note = s.Millis+s.Params.PayoutDelaySeconds*1000, "no"
	}
	s.putPayouts(r.account, p)
	x.emit(Event{Name: "payout-list", Account: r.account, Note: note})
	return OK
}

// payment is coins that are to leave for an account.
type payment struct {
	kind    OutflowKind // OutflowBorrow, OutflowWithdraw or OutflowRefund, which takes the whole suspense
	account AccountID
	pool    string
	amount  fixed.Int
	max     bool // OutflowWithdraw: all there is
	maxFee  fixed.Int
	to      address.CAIP10
	refused bool // to is no address that can be paid, as Parse found
}

// payment is what a request asks to be paid.
func (r request) payment(kind OutflowKind) (payment, Code) {
	p := payment{kind: kind, account: r.account, pool: r.Pool, to: r.To, refused: r.refused, max: r.Amount.Max}
	var err error
	if p.maxFee, err = fixed.Parse(r.MaxFee.Units); err != nil {
		return p, Malformed
	}
	if kind != OutflowRefund && !p.max {
		if p.amount, err = fixed.Parse(r.Amount.Units); err != nil {
			return p, Malformed
		}
	}
	return p, OK
}

// payOut is the only way coins begin to leave for an account, whoever asks: a
// request, a liquidation, a loan that gives back. First the flags and the
// minimum, then where the coins go and whether there is room and fee enough,
// then the operation (spec: lending §6.3–6.5, §8.4).
func (x *execution) payOut(p payment) (Outflow, Code) {
	s := x.s
	o := Outflow{Kind: p.kind, Account: p.account, Asset: p.pool, Gross: p.amount, MaxFee: p.maxFee, To: p.to.Address}
	pool, ok := s.Pools.get(p.pool)
	if !ok {
		return o, UnknownPool
	}
	if code := s.mayPay(p, pool); code != OK {
		return o, code
	}
	if p.refused || s.refusedDestination(p.account, p.to) {
		return o, DestinationRefused
	}
	if !s.Payouts.at(p.account).allows(p.to.String(), s.Millis) {
		return o, DestinationNotList
	}
	if s.OutflowsHalt != "" || s.HaltOf(p.pool) != "" {
		return o, Halted
	}
	if s.Accounts.at(p.account).Outflows >= MaxAccountOpen {
		return o, OutflowCap
	}
	known := p.kind != OutflowRefund && !p.max // else only the operation says how much it is
	if known {
		if code := s.affordable(o); code != OK {
			return o, code
		}
	}
	var code Code
	switch p.kind {
	case OutflowBorrow:
		o.Minted, code = s.borrow(p.account, p.pool, p.amount)
	case OutflowWithdraw:
		o.Gross, code = s.withdraw(p.account, p.pool, p.amount, p.max)
	case OutflowRefund:
		most, _ := s.Capacities(p.pool)
		if most.IsZero() {
			most = fixed.Max
		}
		o.Gross, code = s.claimUpTo(p.account, p.pool, most)
	}
	if code != OK {
		return o, code
	}
	if !known {
		if code := s.affordable(o); code != OK {
			return o, code
		}
	}
	o = x.newOutflow(o) // before the rates: its id is older than a freeze that it brings about
	s.refreshRates()
	return o, OK
}

// mayPay are the operation's first checks, which come before the destination's.
func (s *State) mayPay(p payment, pool Pool) Code {
	switch p.kind {
	case OutflowBorrow:
		return s.borrowable(pool, p.amount)
	case OutflowWithdraw:
		return withdrawable(pool, p.amount, p.max)
	}
	return OK
}

// affordable: the quote is within the most that the client pays, and what that
// leaves is worth sending.
func (s *State) affordable(o Outflow) Code {
	if s.overHour(o.Asset, o.Gross) {
		return OutflowCap
	}
	fee, _, code := s.Quote(o.Asset, o.To, o.Gross)
	switch {
	case code != OK:
		return code
	case o.MaxFee.Less(fee):
		return FeeTooHigh
	case !s.paysEnough(o.Asset, o.Gross, o.MaxFee):
		return BelowMin
	}
	return OK
}

// paysEnough: what is left after the largest fee must be worth sending.
func (s *State) paysEnough(asset string, gross, maxFee fixed.Int) bool {
	left, err := fixed.Sub(gross, maxFee)
	if err != nil || left.IsZero() {
		return false
	}
	return asset != Bitcoin || !left.Less(fixed.New(dustSats))
}

// refusedDestination: an address of ours, a token's contract, or one that
// reverted a payout of the account lately.
func (s *State) refusedDestination(id AccountID, to address.CAIP10) bool {
	for _, c := range s.Genesis.Chains {
		if c.CAIP2 != to.Chain() {
			continue
		}
		if _, token := s.Genesis.TokenAsset(c.Name, to.Address); token || s.Watched.has(c.Name+"/"+to.Address) {
			return true
		}
	}
	if s.Senders.has(to.Address) {
		return true
	}
	return slices.ContainsFunc(s.Accounts.at(id).Refused, func(f Refused) bool {
		return f.To == to.Address && s.Millis-f.Millis < refusedDestinationMillis
	})
}
