package api

import (
	"strconv"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/ledger/fixed"
)

// numbers are the bound that a refused command hit and what was found against
// it, as far as the view tells: a refusal left nothing but the Intent nonce, so
// the view after it is the one it was judged on. ahead: the nonce is not due
// yet and will be.
func (v view) numbers(c *address.Command, code ledger.Code) (limit, found string, ahead bool) {
	amount, _ := fixed.Parse(c.Amount.Units)
	pool, _ := v.Pools.Get(c.Pool)
	account := accountID(c)
	acc, _ := v.account(account)
	switch code {
	case ledger.WrongCluster:
		return v.Genesis.ClusterName(), c.Cluster, false
	case ledger.Expired:
		return stamp(int64(v.Time())), stamp(c.Expires), false
	case ledger.ExpiryTooFar:
		return stamp(int64(v.Time() + v.Params.ExpirySeconds)), stamp(c.Expires), false
	case ledger.BadNonce:
		return strconv.FormatUint(acc.Nonce, 10), strconv.FormatUint(c.Nonce, 10), c.Nonce > acc.Nonce
	case ledger.BelowMin:
		if c.Action == address.ActionWithdraw {
			return pool.Param.MinWithdraw.String(), amount.String(), false
		}
		return pool.Param.MinBorrow.String(), amount.String(), false
	case ledger.NoLiquidity:
		return pool.Cash.String(), amount.String(), false
	case ledger.BorrowCap:
		m, _ := v.Market(c.Pool)
		return pool.Param.BorrowCap.String(), sum(m.Borrowed, amount), false
	case ledger.SupplyCap:
		m, _ := v.Market(c.Pool)
		return pool.Param.SupplyCap.String(), sum(m.Supplied, amount), false
	case ledger.InsufficientBalance:
		return v.supplied(account, c.Pool).String(), amount.String(), false
	case ledger.HealthFactor, ledger.MaxLTV, ledger.NoCollateral:
		return v.gateNumbers(c, code, amount)
	case ledger.PriceStale:
		limit = strconv.FormatUint(v.Params.PriceMaxAge, 10)
		oldest := uint64(0)
		for asset := range v.Pools.All() {
			if p, ok := v.Prices.Get(asset); ok {
				oldest = max(oldest, v.age(p.Millis))
			}
		}
		return limit, strconv.FormatUint(oldest, 10), false
	case ledger.FeeTooHigh:
		fee, _, code := v.quote(c.Pool, c.To.Address, amount)
		if code == ledger.OK {
			found = fee.String()
		}
		return c.MaxFee.Units, found, false
	case ledger.OutflowCap:
		return strconv.Itoa(ledger.MaxAccountOpen), strconv.FormatUint(acc.Outflows, 10), false
	case ledger.Limit:
		return strconv.Itoa(ledger.MaxOpenOutflows), strconv.Itoa(v.Queue.Len() + v.Live.Len()), false
	}
	return "", "", false
}

// gateNumbers say where health would be: for a loan the WAD health factor
// against 1 or the LTV in bps against its limit, as if it had been given.
func (v view) gateNumbers(c *address.Command, code ledger.Code, amount fixed.Int) (limit, found string, ahead bool) {
	h, ok := v.wouldBe(c, amount)
	if !ok {
		return "", "", false
	}
	switch {
	case code == ledger.MaxLTV:
		limit = h.maxLTV
		found = h.ltv
	case code == ledger.HealthFactor:
		limit = fixed.Wad.String()
		found = h.hf
	}
	return limit, found, false
}

type weighed struct{ hf, ltv, maxLTV string }

// wouldBe weighs the account as the refused command would have left it, at the
// newest closed prices.
func (v view) wouldBe(c *address.Command, amount fixed.Int) (weighed, bool) {
	account := accountID(c)
	h, code := v.Health(account)
	price, priced := v.Prices.Get(c.Pool)
	pool, known := v.Pools.Get(c.Pool)
	if code != ledger.OK || !priced || !known {
		return weighed{}, false
	}
	var calc fixed.Calc
	coll, debt, lt, ltv := h.CollValue, h.DebtValue, h.SumLT, h.SumLTV
	switch c.Action {
	case address.ActionBorrow:
		debt = calc.Add(debt, calc.MulDivCeil(amount, price.High, calc.Pow10(pool.Decimals)))
	case address.ActionWithdraw:
		if c.Amount.Max {
			amount = v.supplied(account, c.Pool)
		}
		worth := calc.MulDivFloor(amount, price.Low, calc.Pow10(pool.Decimals)).Min(coll)
		coll = calc.Sub(coll, worth)
		lt = calc.Wide(lt.Sub(fixed.Product(worth, fixed.New(pool.Param.LT))))
		ltv = calc.Wide(ltv.Sub(fixed.Product(worth, fixed.New(pool.Param.LTV))))
	}
	if calc.Err() != nil || debt.IsZero() {
		return weighed{}, false
	}
	one := fixed.New(1).Wide()
	out := weighed{
		hf:  calc.Narrow(fixed.WideFloor(lt, fixed.Wad.Wide(), fixed.Product(debt, fixed.Bps))).String(),
		ltv: "none", maxLTV: "0",
	}
	if !coll.IsZero() {
		out.ltv = calc.MulDivCeil(debt, fixed.Bps, coll).String()
		out.maxLTV = calc.Narrow(fixed.WideFloor(ltv, one, coll.Wide())).String()
	}
	return out, calc.Err() == nil
}

func (v view) supplied(account ledger.AccountID, pool string) fixed.Int {
	positions, _ := v.PositionOf(account)
	for _, p := range positions {
		if p.Pool == pool {
			return p.Supplied
		}
	}
	return fixed.Int{}
}

func sum(a, b fixed.Int) string {
	n, err := fixed.Add(a, b)
	if err != nil {
		return fixed.Max.String()
	}
	return n.String()
}

// stamp is Unix seconds as request texts write them.
func stamp(unix int64) string { return at(uint64(unix) * 1000).Format("2006-01-02T15:04:05Z") }
