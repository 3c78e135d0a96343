package api

import (
	"context"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/node/api/client"
	"github.com/danielgtaylor/huma/v2"
)

func (s *server) liquidations(api huma.API) {
	route(s, api, "get-liquidations", "/v1/liquidations", "Accounts below health factor 1, by account id", s.atRisk)
	route(s, api, "get-past-liquidations", "/v1/liquidations/past", "Liquidations that were done, newest first", s.pastLiquidations)
	route(s, api, "get-liquidation", "/v1/liquidations/{id}", "A liquidation: who repaid what, what was seized, health before and after", s.liquidation)
	route(s, api, "explain-liquidation", "/v1/liquidations/{id}/explain", "A liquidation computed again from its record, number by number", s.explainLiquidation)
}

type atRiskInput struct {
	ReadInput
	Cursor string `query:"cursor" doc:"next of the page before"`
	Limit  int    `query:"limit" minimum:"1" maximum:"200" default:"50"`
}

// atRisk pages through what the ledger's last evaluation found, each weighed
// anew at ledger time. By account and not by health, so that a page costs what
// it shows and a cursor stays true while prices move.
func (s *server) atRisk(_ context.Context, v view, in *atRiskInput) (*client.AtRisk, error) {
	if in.Cursor != "" {
		if _, err := client.ParseAccount(in.Cursor); err != nil {
			return nil, s.problem(ledger.Malformed, "cursor: "+err.Error())
		}
	}
	n := min(max(in.Limit, 1), maxPage)
	list := v.AtRisk(in.Cursor, n+1)
	out := &client.AtRisk{Accounts: []client.AtRiskAccount{}}
	if len(list) > n {
		list = list[:n]
		out.Next = list[n-1].Account
	}
	for _, r := range list {
		a := client.AtRiskAccount{
			ID: r.Account, Debt: r.DebtValue.String(), Collateral: r.CollValue.String(), Since: at(r.Since), Code: string(r.Code),
		}
		if r.HF != nil {
			exact, shown := r.HF.String(), ledger.DisplayHF(r.HF)
			a.HealthFactor, a.HealthFactorShown = &exact, &shown
		}
		out.Accounts = append(out.Accounts, a)
	}
	return out, nil
}
