package ledger

import (
	"encoding/json"
	"slices"
	"strconv"

	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/ledger/fixed"
)

// EventRefused is the name of the event of an Intent that used up its nonce and
// was then refused. Its Account is the one that asked, its Asset the pool, its
// Note a RefusalRecord. The state keeps nothing of it but the stored result.
const EventRefused = "refused"

// RefusalRecord says why an Intent was refused: which bound, and what was found
// against it in the state it was judged on. Amounts are base units, health
// factors WAD, ratios bps, times seconds; empty where no number decides.
type RefusalRecord struct {
	ID     Hash   `json:"id"` // of the request
	Action string `json:"action"`
	Nonce  uint64 `json:"nonce"`
	Code   Code   `json:"code"`
	Limit  string `json:"limit,omitempty"`
	Found  string `json:"found,omitempty"`
}

// refuse emits why r was refused. It must not change what was refused: numbers
// that cannot be had are left out, however that comes.
func (x *execution) refuse(r request, code Code) {
	rec := RefusalRecord{ID: r.id, Action: r.Action, Nonce: r.Nonce, Code: code}
	rec.Limit, rec.Found = x.s.RefusalNumbers(r.Command, code)
	x.emit(Event{Name: EventRefused, Account: r.account, Asset: r.Pool, Note: string(must(json.Marshal(rec)))})
}

// RefusalNumbers are the bound that a command of this state was refused for and
// what was found against it. s is not changed: a refusal left nothing but the
// Intent nonce, so the state after it is the one it was judged on.
func (s *State) RefusalNumbers(c *address.Command, code Code) (limit, found string) {
	amount := s.asked(c)
	account, pool := hex16(c.Account), s.Pools.at(c.Pool)
	acc := s.Accounts.at(account)
	switch code {
	case BelowMin:
		return s.minimumNumbers(c, amount)
	case NoLiquidity:
		return pool.Cash.String(), amount.String()
	case BorrowCap:
		m, _ := s.Market(c.Pool)
		return pool.Param.BorrowCap.String(), sumText(m.Borrowed, amount)
	case SupplyCap: // of a simple loan: an inflow is not refused
		coll, _ := fixed.Parse(c.Collateral.Units)
		m, _ := s.Market(c.CollateralPool)
		return s.Pools.at(c.CollateralPool).Param.SupplyCap.String(), sumText(m.Supplied, coll)
	case SameAsset:
		return pool.Param.SameAssetDust.String(), s.suppliedIn(account, c.Pool).String()
	case InsufficientBalance:
		if c.Action == address.ActionClaim || c.Action == address.ActionLinkWallet {
			return "1", "0" // something in suspense; one deposit credited
		}
		return s.suppliedIn(account, c.Pool).String(), amount.String()
	case DeficitLimit:
		v := s.synced(account)
		left, _ := v.mayWithdraw(v.Accounts.at(account), v.Pools.at(c.Pool))
		return left.String(), amount.String()
	case HealthFactor, MaxLTV, NoCollateral:
		return s.gateNumbers(c, code, amount)
	case Healthy:
		if h, code := s.Health(hex16(c.Borrower)); code == OK && h.HF != nil {
			found = h.HF.String()
		}
		return fixed.Wad.String(), found
	case Grace:
		if d, ok := s.Dips.get(hex16(c.Borrower)); ok {
			found = strconv.FormatUint((s.Millis-d.Since)/1000, 10)
		}
		return strconv.FormatUint(s.Params.FirstDipSeconds, 10), found
	case Dust, NotClosing:
		return s.seizureNumbers(c, code, amount)
	case HasDebt:
		if h, code := s.Health(account); code == OK {
			found = h.DebtValue.String()
		}
		return "0", found
	case PriceSuspect:
		return strconv.FormatUint(s.Params.DeviationBps, 10), strconv.FormatUint(s.jumped(), 10)
	case PriceStale:
		limit = strconv.FormatUint(s.Params.PriceMaxAge, 10)
		if c.Action == address.ActionLiquidate {
			limit = strconv.FormatUint(s.Params.LiquidationAge, 10)
		}
		oldest := uint64(0)
		for asset := range s.Pools.All() {
			if p, ok := s.Prices.get(asset); ok && p.Millis < s.Millis {
				oldest = max(oldest, (s.Millis-p.Millis)/1000)
			}
		}
		return limit, strconv.FormatUint(oldest, 10)
	case OutflowCap:
		if acc.Outflows < MaxAccountOpen {
			return s.capNumbers(c, amount)
		}
		return strconv.Itoa(MaxAccountOpen), strconv.FormatUint(acc.Outflows, 10)
	case Limit:
		switch c.Action {
		case address.ActionOpenAccount:
			return strconv.Itoa(maxIdle), strconv.Itoa(s.Idle.len())
		case address.ActionOpenLoan:
			if s.LoansReady.len() >= MaxOpenLoans {
				return strconv.Itoa(MaxOpenLoans), strconv.Itoa(s.LoansReady.len())
			} else if s.IdleLoans.len() >= maxIdle {
				return strconv.Itoa(maxIdle), strconv.Itoa(s.IdleLoans.len())
			}
		}
		return strconv.Itoa(MaxOpenOutflows), strconv.Itoa(s.Queue.len() + s.Live.len())
	case FeeTooHigh:
		asset, to := c.Pool, c.To.Address
		if c.Action == address.ActionLiquidate {
			asset, to, amount = c.CollateralPool, c.AutoWithdrawTo.Address, fixed.New(1)
		}
		if fee, _, code := s.Quote(asset, to, amount); code == OK {
			found = fee.String()
		}
		return c.MaxFee.Units, found
	}
	return "", ""
}

// asked is how much a command asked for; "max" is what it stood for: all that
// the account supplies, no more of it than it owes where it repays its own debt,
// and all that the borrower owes where a debt is liquidated.
func (s *State) asked(c *address.Command) fixed.Int {
	if !c.Amount.Max {
		amount, _ := fixed.Parse(c.Amount.Units)
		return amount
	}
	account := hex16(c.Account)
	switch c.Action {
	case address.ActionLiquidate:
		return s.owedIn(hex16(c.Borrower), c.Pool)
	case address.ActionRepayFromSupply:
		return s.suppliedIn(account, c.Pool).Min(s.owedIn(account, c.Pool))
	}
	return s.suppliedIn(account, c.Pool)
}

// minimumNumbers are the least that a command could have asked for and what it
// asked for. Beyond the pool's minimum it is what the largest fee must leave.
func (s *State) minimumNumbers(c *address.Command, amount fixed.Int) (limit, found string) {
	pool, least := s.Pools.at(c.Pool).Param, fixed.New(1)
	switch c.Action {
	case address.ActionWithdraw, address.ActionRepayFromSupply:
		least = pool.MinWithdraw
	case address.ActionBorrow:
		least = pool.MinBorrow
	case address.ActionOpenLoan:
		least = pool.MinBorrow
		coll, _ := fixed.Parse(c.Collateral.Units)
		if min := s.Pools.at(c.CollateralPool).Param.MinSupply; coll.Less(min) {
			return min.String(), coll.String()
		}
	}
	switch { // all there is has no least but what the fee must leave
	case c.Action == address.ActionClaim:
		amount = s.Suspense.at(hex16(c.Account) + "/" + c.Pool).Amount
	case !c.Amount.Max && amount.Less(least):
		return least.String(), amount.String()
	}
	keep := fixed.New(1)
	if c.Pool == Bitcoin {
		keep = fixed.New(dustSats)
	}
	fee, _ := fixed.Parse(c.MaxFee.Units)
	return sumText(fee, keep), amount.String()
}

// seizureNumbers are why a part of a debt may not be liquidated: the value that
// must be left of both legs against the smaller that would be, or the health
// factor below which a part lowers it against the borrower's.
func (s *State) seizureNumbers(c *address.Command, code Code, amount fixed.Int) (limit, found string) {
	v := s.synced(hex16(c.Borrower))
	debtor := v.Accounts.at(hex16(c.Borrower))
	legs, ok := v.legs(debtor, asClosed)
	h, err := weigh(legs)
	p := v.Pools.at(c.CollateralPool).Param
	coll := slices.IndexFunc(legs, func(g leg) bool { return g.Pool == c.CollateralPool })
	debt := slices.IndexFunc(legs, func(g leg) bool { return g.Pool == c.Pool })
	if ok != OK || err != nil || coll < 0 || debt < 0 || h.HF == nil {
		return "", ""
	}
	var calc fixed.Calc
	if code == NotClosing {
		limit := calc.MulDivFloor(fixed.New(p.LT*p.Bonus), fixed.Wad, calc.Mul(fixed.Bps, fixed.Bps))
		return limit.String(), h.HF.String()
	}
	z, _ := seize(legs, coll, debt, amount, seizeRules{
		Bonus: p.Bonus, Fee: p.LiqFee, Target: v.Params.TargetHF, Closing: v.Params.NotClosing, Covered: v.onTheWay(debtor.ID, c.Pool),
	})
	left := calc.Int(legs[debt].debtValue(calc.Sub(legs[debt].Debt, z.Repaid)))
	rest := calc.Int(legs[coll].collValue(calc.Sub(legs[coll].Collateral, z.Seized)))
	if calc.Err() != nil {
		return minLeftover.String(), ""
	}
	return minLeftover.String(), left.Min(rest).String()
}

// jumped is by how many bps of the price before the farthest suspect price
// jumped, rounded down.
func (s *State) jumped() (bps uint64) {
	for asset := range s.Pools.All() {
		p := s.Prices.at(asset)
		if !s.Suspected(p) {
			continue
		}
		for _, x := range [][2]fixed.Int{{p.SusLow, p.JumpLow}, {p.SusHigh, p.JumpHigh}} {
			far, near := x[0].Max(x[1]), x[0].Min(x[1])
			var c fixed.Calc
			n, ok := c.MulDivFloor(c.Sub(far, near), fixed.Bps, x[0]).Uint64()
			if c.Err() == nil && ok {
				bps = max(bps, n)
			}
		}
	}
	return bps
}

// gateNumbers say where health would be if the command had been done: the WAD
// health factor against 1, or the LTV in bps against its limit.
func (s *State) gateNumbers(c *address.Command, code Code, amount fixed.Int) (limit, found string) {
	h, ok := s.wouldBe(c, amount)
	switch {
	case !ok:
		return "", ""
	case code == MaxLTV:
		return h.maxLTV, h.ltv
	case code == HealthFactor:
		return fixed.Wad.String(), h.hf
	}
	return "", ""
}

type wouldWeigh struct{ hf, ltv, maxLTV string }

// wouldBe weighs the account as the refused command would have left it, at the
// newest closed prices.
func (s *State) wouldBe(c *address.Command, amount fixed.Int) (wouldWeigh, bool) {
	if c.Action == address.ActionOpenLoan {
		return s.loanWouldBe(c, amount)
	}
	account := hex16(c.Account)
	h, code := s.Health(account)
	price, priced := s.Prices.get(c.Pool)
	pool, known := s.Pools.get(c.Pool)
	if code != OK || !priced || !known {
		return wouldWeigh{}, false
	}
	var calc fixed.Calc
	coll, debt, lt, ltv := h.CollValue, h.DebtValue, h.SumLT, h.SumLTV
	switch c.Action {
	case address.ActionBorrow:
		debt = calc.Add(debt, calc.MulDivCeil(amount, price.High, calc.Pow10(pool.Decimals)))
	case address.ActionWithdraw:
		amount = amount.Min(s.suppliedIn(account, c.Pool))
		worth := calc.MulDivFloor(amount, price.Low, calc.Pow10(pool.Decimals)).Min(coll)
		coll = calc.Sub(coll, worth)
		lt = calc.Wide(lt.Sub(fixed.Product(worth, fixed.New(pool.Param.LT))))
		ltv = calc.Wide(ltv.Sub(fixed.Product(worth, fixed.New(pool.Param.LTV))))
	}
	return weighWould(&calc, coll, debt, lt, ltv)
}

// loanWouldBe weighs a simple loan with its collateral there: its account holds
// nothing else.
func (s *State) loanWouldBe(c *address.Command, amount fixed.Int) (wouldWeigh, bool) {
	units, _ := fixed.Parse(c.Collateral.Units)
	pc, ok1 := s.Prices.get(c.CollateralPool)
	pd, ok2 := s.Prices.get(c.Pool)
	cp, ok3 := s.Pools.get(c.CollateralPool)
	dp, ok4 := s.Pools.get(c.Pool)
	if !ok1 || !ok2 || !ok3 || !ok4 {
		return wouldWeigh{}, false
	}
	var calc fixed.Calc
	coll := calc.MulDivFloor(units, pc.Low, calc.Pow10(cp.Decimals))
	debt := calc.MulDivCeil(amount, pd.High, calc.Pow10(dp.Decimals))
	return weighWould(&calc, coll, debt, fixed.Product(coll, fixed.New(cp.Param.LT)), fixed.Product(coll, fixed.New(cp.Param.LTV)))
}

func weighWould(calc *fixed.Calc, coll, debt fixed.Int, lt, ltv fixed.Wide) (wouldWeigh, bool) {
	if calc.Err() != nil || debt.IsZero() {
		return wouldWeigh{}, false
	}
	one := fixed.New(1).Wide()
	out := wouldWeigh{
		hf:  calc.Narrow(fixed.WideFloor(lt, fixed.Wad.Wide(), fixed.Product(debt, fixed.Bps))).String(),
		ltv: "none", maxLTV: "0",
	}
	if !coll.IsZero() {
		out.ltv = calc.MulDivCeil(debt, fixed.Bps, coll).String()
		out.maxLTV = calc.Narrow(fixed.WideFloor(ltv, one, coll.Wide())).String()
	}
	return out, calc.Err() == nil
}

// suppliedIn is an account's supply in a pool at ledger time, rounded down.
func (s *State) suppliedIn(account AccountID, pool string) fixed.Int {
	v := s.synced(account)
	n, err := fixed.MulDivFloor(v.supplyShares(account, pool), v.Pools.at(pool).SupplyIndex, fixed.Ray)
	if err != nil {
		return fixed.Int{}
	}
	return n
}

// owedIn is an account's debt in a pool at ledger time, rounded up.
func (s *State) owedIn(account AccountID, pool string) fixed.Int {
	v := s.synced(account)
	n, err := fixed.MulDivCeil(v.Accounts.at(account).position(pool).Debt, v.Pools.at(pool).BorrowIndex, fixed.Ray)
	if err != nil {
		return fixed.Int{}
	}
	return n
}

func sumText(a, b fixed.Int) string {
	n, err := fixed.Add(a, b)
	if err != nil {
		return fixed.Max.String()
	}
	return n.String()
}
