package ledger

import (
	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/ledger/fixed"
)

// A simple loan is one signed request and then coins only (spec: lending F1):
//
//	Open loan ──► WAITING ──collateral final, terms hold──► GRANTED
//	                 │ window over
//	                 ▼
//	               OVER ──what came in goes to Refund to──► RETURNED
//	                 ▲                                          │
//	                 └────────────────a late coin───────────────┘
//
// Its account is an ordinary one of the signer's wallet. A loan is looked at
// when coins are credited to it, and then at every accrual: prices close and
// blocks become final at about that beat.
type LoanPhase uint8

const (
	LoanWaiting  LoanPhase = 1 // the borrow is applied as soon as the collateral allows
	LoanGranted  LoanPhase = 2 // the borrow was applied
	LoanOver     LoanPhase = 3 // the window passed; what is there is to go back
	LoanReturned LoanPhase = 4 // it went, or nothing that can be sent is there
)

func (p LoanPhase) String() string {
	return [...]string{"", "WAITING", "GRANTED", "OVER", "RETURNED"}[p]
}

// Loan are the terms that one request fixed, and how far it came.
type Loan struct {
	Signer         string    `cbor:"1,keyasint"` // CAIP-10: the account's first wallet
	Collateral     fixed.Int `cbor:"2,keyasint"` // the least to be supplied
	CollateralPool string    `cbor:"3,keyasint"`
	Amount         fixed.Int `cbor:"4,keyasint"` // to be borrowed
	Pool           string    `cbor:"5,keyasint"`
	To             string    `cbor:"6,keyasint"`  // CAIP-10
	MaxFee         fixed.Int `cbor:"7,keyasint"`  // of the payout, in the borrowed asset
	RefundTo       string    `cbor:"8,keyasint"`  // CAIP-10
	RefundFee      fixed.Int `cbor:"9,keyasint"`  // most that giving back may cost, in the collateral's asset
	LTV            uint64    `cbor:"10,keyasint"` // bps at signing, rounded up
	Until          uint64    `cbor:"11,keyasint"` // ledger time, ms: end of the window
	Phase          LoanPhase `cbor:"12,keyasint"`
	Outflow        uint64    `cbor:"13,keyasint"` // of the borrow; 0: none
	Code           Code      `cbor:"14,keyasint"` // why the last look at it changed nothing; "": not looked at, or it did
}

const (
	// maxLoansLooked bounds the work of one beat: each look is an attempt to borrow,
	// some 50 µs. With more than this many, they take turns.
	maxLoansLooked = 512
	// loanRounding is how many SupplyShares may be missing from the collateral: one
	// for the rounding of each of as many deposits.
	loanRounding = maxUnfinal
	// loanRefundBps of the collateral may be spent on giving it back even where the
	// signed Max fee is worth less: that was signed for another chain.
	loanRefundBps = 100
)

// openLoan fixes terms and opens their account. They must hold now, as if the
// collateral were there: the borrow is tried on a copy that is dropped, by
// the code that grants it later. Nothing is kept of a refusal; the same text may
// be sent again until it expires, and moves nothing until coins come.
//
// Codes, in this order: UNKNOWN_POOL; DESTINATION_REFUSED for Refund to; why the
// collateral would go to suspense; the codes of Borrow; FEE_TOO_HIGH or
// BELOW_MIN where the collateral could not be given back.
func (x *execution) openLoan(r request) Code {
	s := x.s
	if !s.Pools.has(r.CollateralPool) || !s.Pools.has(r.Pool) {
		return UnknownPool
	}
	if r.refused || s.refusedDestination(r.account, r.RefundTo) {
		return DestinationRefused
	}
	var c fixed.Calc
	l := Loan{
		Signer: r.Signer.String(), CollateralPool: r.CollateralPool, Pool: r.Pool, To: r.To.String(), RefundTo: r.RefundTo.String(),
		Collateral: c.Int(fixed.Parse(r.Collateral.Units)), Amount: c.Int(fixed.Parse(r.Amount.Units)), MaxFee: c.Int(fixed.Parse(r.MaxFee.Units)),
		Until: s.Millis + s.Params.LoanWindowSeconds*1000, Phase: LoanWaiting,
	}
	if c.Err() != nil {
		return Malformed
	}
	acc := x.reopen(r)
	trial := x.trial()
	trial.s.Accounts.put(acc.ID, Account{ID: acc.ID, Wallets: acc.Wallets}) // coins that came after it was pruned are no part of the terms
	var code Code
	if l, code = trial.tryTerms(r.account, l); code != OK {
		return code
	}
	s.Loans.put(r.account, l)
	s.putActive(acc)
	if acc.Credited {
		s.LoansReady.put(r.account, l.Until)
	}
	x.emit(Event{Name: "loan-opened", Account: r.account, Asset: l.CollateralPool, Amount: l.Collateral.String(), Note: l.Signer})
	return OK
}

// tryTerms supplies the collateral and borrows, on a state that will be dropped,
// and fills in what follows from the prices of this moment.
func (x *execution) tryTerms(id AccountID, l Loan) (Loan, Code) {
	s := x.s
	if reason, code := s.supply(id, l.CollateralPool, l.Collateral); code != OK {
		return l, code
	} else if reason != "" {
		return l, Code(reason)
	}
	if _, code := x.payOut(l.borrow(id)); code != OK {
		return l, code
	}
	s = x.s
	h, code := s.weighAccount(s.Accounts.at(id), cautious)
	if code != OK {
		return l, code
	}
	debt, _ := s.Pools.get(l.Pool)
	coll, _ := s.Pools.get(l.CollateralPool)
	var c fixed.Calc
	ltv, ok := c.MulDivCeil(h.DebtValue, fixed.Bps, h.CollValue).Uint64()
	worth := c.MulDivFloor(l.MaxFee, s.Prices.at(l.Pool).Low, c.Pow10(debt.Decimals))
	fee := c.MulDivFloor(worth, c.Pow10(coll.Decimals), s.Prices.at(l.CollateralPool).High)
	fee = fee.Max(c.MulDivFloor(l.Collateral, fixed.New(loanRefundBps), fixed.Bps))
	if c.Err() != nil || !ok {
		return l, Arith
	}
	l.LTV, l.RefundFee = ltv, fee
	to := must(address.SplitCAIP10(l.RefundTo))
	return l, s.affordable(Outflow{Asset: l.CollateralPool, To: to.Address, Gross: l.Collateral, MaxFee: l.RefundFee})
}

// borrow is the payment that the terms ask for.
func (l Loan) borrow(id AccountID) payment {
	return payment{
		kind: OutflowBorrow, account: id, pool: l.Pool, amount: l.Amount, maxFee: l.MaxFee, to: must(address.SplitCAIP10(l.To)),
	}
}

// needs is the collateral in SupplyShares of its pool; loanRounding of them may
// be missing.
func (l Loan) needs(c *fixed.Calc, p Pool) fixed.Int {
	return c.MulDivFloor(l.Collateral, fixed.Ray, p.SupplyIndex)
}

// loanCoins: coins were credited to an account, which may be a loan's.
func (x *execution) loanCoins(id AccountID) {
	s := x.s
	l, ok := s.Loans.get(id)
	if !ok || l.Phase == LoanGranted {
		return
	}
	if l.Phase == LoanReturned {
		l.Phase = LoanOver
		s.Loans.put(id, l)
	}
	s.LoansReady.put(id, l.Until)
	if !s.Catching && s.Opening == nil {
		x.lookAtLoan(id)
	}
}

// lookAtLoans looks at those that hold coins and wait for something else. A loan
// without a coin costs nothing: whether its window is over is seen when one
// comes.
func (x *execution) lookAtLoans() {
	ids := x.s.LoansReady.keys()
	start := 0
	if len(ids) > maxLoansLooked {
		start = int(x.s.LastTick * maxLoansLooked % uint64(len(ids)))
	}
	for i := range min(len(ids), maxLoansLooked) {
		x.lookAtLoan(ids[(start+i)%len(ids)])
	}
}

func (x *execution) lookAtLoan(id AccountID) {
	l := x.s.Loans.at(id)
	if l.Phase == LoanWaiting && x.s.Millis > l.Until {
		l.Phase = LoanOver
		x.s.Loans.put(id, l)
		x.emit(Event{Name: "loan-over", Account: id, Note: string(l.Code)})
	}
	step := (*execution).grantLoan
	if l.Phase == LoanOver {
		step = (*execution).returnLoan
	}
	code := x.try(func(x *execution) Code { return step(x, id, l) })
	if code != OK && code != l.Code {
		l.Code = code
		x.s.Loans.put(id, l)
	}
}

// grantLoan applies the borrow as if it were signed now, while the LTV is within
// the slippage of what was signed. INSUFFICIENT_BALANCE: collateral is missing
// or not final yet.
func (x *execution) grantLoan(id AccountID, l Loan) Code {
	s := x.s
	s.sync()
	acc := s.Accounts.at(id)
	var c fixed.Calc
	need := l.needs(&c, s.Pools.at(l.CollateralPool))
	have := c.Add(s.collateral(acc, acc.position(l.CollateralPool)), fixed.New(loanRounding))
	if c.Err() != nil {
		return Arith
	}
	if have.Less(need) {
		return InsufficientBalance
	}
	o, code := x.payOut(l.borrow(id))
	if code != OK {
		return code
	}
	s = x.s
	h, code := s.weighAccount(s.Accounts.at(id), cautious)
	if code != OK {
		return code
	}
	if fixed.Product(h.CollValue, fixed.New(l.LTV+s.Params.LoanSlippageBps)).Less(h.debt()) {
		return MaxLTV
	}
	l.Phase, l.Outflow, l.Code = LoanGranted, o.ID, ""
	s.Loans.put(id, l)
	s.LoansReady.delete(id)
	x.emit(Event{Name: "loan-granted", Account: id, Asset: l.Pool, Amount: l.Amount.String(), Outflow: o.ID})
	return OK
}

// returnLoan gives back what came in of the collateral's asset, supplied or in
// suspense. What is too little to be sent stays the wallet's to withdraw or
// claim. Once sent, it is not sent again if the payment fails: never an
// automatic second payment (spec: lending §11.4).
func (x *execution) returnLoan(id AccountID, l Loan) Code {
	to := must(address.SplitCAIP10(l.RefundTo))
	x.s.sync()
	pool := x.s.Pools.at(l.CollateralPool)
	supplied, err := fixed.MulDivFloor(x.s.supplyShares(id, l.CollateralPool), pool.SupplyIndex, fixed.Ray)
	if err != nil {
		return Arith
	}
	for _, part := range []struct {
		kind OutflowKind
		held fixed.Int
	}{{OutflowWithdraw, supplied}, {OutflowRefund, x.s.Suspense.at(id + "/" + l.CollateralPool).Amount}} {
		if part.held.IsZero() {
			continue
		}
		half := must(fixed.MulDivFloor(part.held, fixed.New(1), fixed.New(2)))
		code := x.try(func(x *execution) Code {
			_, code := x.payOut(payment{
				kind: part.kind, account: id, pool: l.CollateralPool, max: true, maxFee: l.RefundFee.Min(half), to: to,
			})
			return code
		})
		if code != OK && code != BelowMin {
			return code
		}
	}
	l.Phase, l.Code = LoanReturned, ""
	x.s.Loans.put(id, l)
	x.s.LoansReady.delete(id)
	x.emit(Event{Name: "loan-returned", Account: id, Asset: l.CollateralPool})
	return OK
}
