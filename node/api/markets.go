package api

import (
	"context"
	"strconv"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/ledger/fixed"
	"github.com/coffer-network/coffer/node/api/client"
	"github.com/danielgtaylor/huma/v2"
)

func (s *server) markets(api huma.API) {
	route(s, api, "get-pools", "/v1/pools", "All pools: rates, liquidity, caps, prices, fee quotes", s.pools)
	route(s, api, "get-pool", "/v1/pools/{id}", "One pool", s.pool)
	route(s, api, "get-assets", "/v1/assets", "All assets", s.assets)
}

type poolInput struct {
	ReadInput
	ID string `path:"id"`
}

func (s *server) pools(_ context.Context, v view, _ *ReadInput) (*client.Pools, error) {
	out := &client.Pools{Pools: []client.Pool{}}
	for id := range v.Pools.All() {
		p, code := v.pool(id)
		if code != ledger.OK {
			return nil, s.problem(code, id)
		}
		out.Pools = append(out.Pools, p)
	}
	return out, nil
}

func (s *server) pool(_ context.Context, v view, in *poolInput) (*client.PoolDetail, error) {
	p, code := v.pool(in.ID)
	if code != ledger.OK {
		return nil, s.problem(code, in.ID)
	}
	return &client.PoolDetail{Pool: p}, nil
}

func (v view) pool(id string) (client.Pool, ledger.Code) {
	m, code := v.Market(id)
	if code != ledger.OK {
		return client.Pool{}, code
	}
	a, _ := v.Genesis.Asset(id)
	p, par := m.Pool, m.Pool.Param
	out := client.Pool{
		ID: id, Symbol: a.Symbol, Decimals: a.Decimals, Chain: a.Chain,
		Cash: p.Cash.String(), Reserved: p.Reserved.String(), Deficit: p.Deficit.String(),
		Supplied: m.Supplied.String(), Borrowed: m.Borrowed.String(), Utilisation: m.Utilisation.String(),
		SupplyRate: p.SupplyRate.String(), BorrowRate: p.BorrowRate.String(),
		SupplyAPY: m.SupplyAPY.String(), BorrowAPY: m.BorrowAPY.String(),
		LTV: par.LTV, LT: par.LT, Bonus: par.Bonus, ReserveFactor: par.RF,
		SupplyCap: par.SupplyCap.String(), BorrowCap: par.BorrowCap.String(),
		MinSupply: par.MinSupply.String(), MinBorrow: par.MinBorrow.String(), MinWithdraw: par.MinWithdraw.String(),
		Active: p.Active, Paused: p.Paused, Frozen: p.Frozen, BorrowEnabled: p.BorrowEnabled,
		Price: v.price(id),
	}
	// The quote is for the least that may leave: a larger Bitcoin payout may
	// need more inputs and is quoted by preview.
	least := par.MinWithdraw.Max(par.MinBorrow).Max(fixed.New(1))
	fee, suggested, code := v.quote(id, "", least)
	if code != ledger.OK {
		out.PayoutFee.Unknown = string(code)
	} else {
		out.PayoutFee.Fee, out.PayoutFee.Suggested = fee.String(), suggested.String()
	}
	if r, ok := v.Rates.Get(a.Chain); ok {
		out.PayoutFee.Age = v.age(r.Millis)
	}
	v.limits(&out, m)
	return out, ledger.OK
}

// figures are what an action moves in a pool; nil: no such pool.
func (v view) figures(id string) *client.PoolFigures {
	m, code := v.Market(id)
	if code != ledger.OK {
		return nil
	}
	return &client.PoolFigures{
		Pool: id, Cash: m.Pool.Cash.String(), Utilisation: m.Utilisation.String(), SupplyRate: m.Pool.SupplyRate.String(),
		BorrowRate: m.Pool.BorrowRate.String(), SupplyAPY: m.SupplyAPY.String(), BorrowAPY: m.BorrowAPY.String(),
	}
}

// limits fills in what the caps leave, what is queued, and what blocks: in the
// order in which the operations check (spec: lending §6).
func (v view) limits(out *client.Pool, m ledger.MarketView) {
	p, par := m.Pool, m.Pool.Param
	room := func(limit, used fixed.Int) *string {
		if limit.IsZero() {
			return nil
		}
		left := minus(limit, used).String()
		return &left
	}
	out.SupplyRoom, out.BorrowRoom = room(par.SupplyCap, m.Supplied), room(par.BorrowCap, m.Borrowed)
	out.ClearingRate = fixed.Ray.String()
	if r, err := fixed.MulDivFloor(fixed.Ray, fixed.New(par.Base+par.S1+par.S2), fixed.Bps); err == nil {
		out.ClearingRate = r.String()
	}
	queued := fixed.Int{}
	for id := range v.Queue.All() { // at most the open outflows' bound
		if o, ok := v.Outflows.Get(id); ok && o.Asset == out.ID {
			out.Queued++
			if sum, err := fixed.Add(queued, o.Gross); err == nil {
				queued = sum
			}
		}
	}
	out.QueuedAmount = queued.String()
	out.Blocks = []client.Block{}
	block := func(operation string, code ledger.Code, limit, found string) {
		out.Blocks = append(out.Blocks, client.Block{Operation: operation, Code: string(code), Limit: limit, Found: found})
	}
	price := v.price(out.ID)
	leastBorrow, leastWithdraw := par.MinBorrow.Max(fixed.New(1)), par.MinWithdraw.Max(fixed.New(1))
	switch {
	case p.Paused:
		block("supply", ledger.Paused, "", "")
	case p.Frozen:
		block("supply", ledger.Frozen, "", "")
	case out.SupplyRoom != nil && !m.Supplied.Less(par.SupplyCap):
		block("supply", ledger.SupplyCap, par.SupplyCap.String(), m.Supplied.String())
	}
	switch {
	case v.Catching:
		block("withdraw", ledger.CatchingUp, "", "")
	case v.halted(p.Param.Asset) != "":
		block("withdraw", ledger.Halted, "", v.halted(p.Param.Asset))
	case p.Paused:
		block("withdraw", ledger.Paused, "", "")
	case p.Cash.Less(leastWithdraw):
		block("withdraw", ledger.NoLiquidity, p.Cash.String(), leastWithdraw.String())
	}
	switch {
	case v.Catching:
		block("borrow", ledger.CatchingUp, "", "")
	case v.halted(p.Param.Asset) != "":
		block("borrow", ledger.Halted, "", v.halted(p.Param.Asset))
	case p.Paused:
		block("borrow", ledger.Paused, "", "")
	case p.Frozen:
		block("borrow", ledger.Frozen, "", "")
	case !p.BorrowEnabled || v.BorrowOff:
		block("borrow", ledger.BorrowDisabled, "", "")
	case price == nil || price.Stale:
		found := ""
		if price != nil {
			found = strconv.FormatUint(price.Age, 10)
		}
		block("borrow", ledger.PriceStale, strconv.FormatUint(v.Params.PriceMaxAge, 10), found)
	case price.Suspect:
		block("borrow", ledger.PriceSuspect, "", "")
	case p.Cash.Less(leastBorrow):
		block("borrow", ledger.NoLiquidity, p.Cash.String(), leastBorrow.String())
	case out.BorrowRoom != nil && par.BorrowCap.Less(plus(m.Borrowed, leastBorrow)):
		block("borrow", ledger.BorrowCap, par.BorrowCap.String(), m.Borrowed.String())
	}
}

func (s *server) assets(_ context.Context, v view, _ *ReadInput) (*client.Assets, error) {
	out := &client.Assets{Assets: []client.Asset{}}
	for _, a := range v.Genesis.Assets {
		c, _ := v.Genesis.Chain(a.Chain)
		_, pool := v.Pools.Get(a.ID)
		out.Assets = append(out.Assets, client.Asset{
			ID: a.ID, Symbol: a.Symbol, Decimals: a.Decimals, Chain: a.Chain, CAIP2: c.CAIP2, Token: a.Token,
			Pool: pool, Price: v.price(a.ID),
		})
	}
	return out, nil
}
