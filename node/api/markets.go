package api

import (
	"context"

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
	readInput
	ID string `path:"id"`
}

func (s *server) pools(_ context.Context, v view, _ *readInput) (*client.Pools, error) {
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
	return out, ledger.OK
}

func (s *server) assets(_ context.Context, v view, _ *readInput) (*client.Assets, error) {
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
