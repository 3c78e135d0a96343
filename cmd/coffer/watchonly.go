package main

import (
	"context"
	"fmt"

	"github.com/coffer-network/coffer/node/api/client"
	"github.com/spf13/cobra"
)

// found is what show prints: what the query stands for, and the one account
// that all of it belongs to.
type found struct {
	Finds   []client.Find   `json:"finds"`
	Account *client.Account `json:"account,omitempty"`
}

func newShowCmd() *cobra.Command {
	return clientCmd(&cobra.Command{
		Use: "show QUERY", Short: "Look at an account, deposit or payout by id, address, wallet or txid; no wallet needed",
		Long: `What an address, wallet, txid, text hash, account, outflow number or member name
stands for, and the account it belongs to. It only looks: nothing is signed, and
no address is printed to pay to (coffer deposit-address derives and checks one).`,
		Example: "  coffer show 5f0c9a1e7b3d2c445f0c9a1e7b3d2c44\n  coffer show bcrt1q9vza2e8x573nczrlzms0wvx3gsqjx7vavgkx0l --json\n  coffer show 17",
		Args:    args(cobra.ExactArgs(1)),
	}, false, func(ctx context.Context, s *session, a []string) error {
		c, err := s.client(nil)
		if err != nil {
			return err
		}
		f, err := c.Search(ctx, a[0])
		if err != nil {
			return err
		}
		if len(f.Finds) == 0 {
			return fmt.Errorf("%s: this node knows nothing by that name", a[0])
		}
		out := found{Finds: f.Finds}
		if id := f.Finds[0].Account; id != "" {
			if out.Account, err = c.Account(ctx, id); err != nil {
				return err
			}
			out.Account.Addresses = nil // not checked against pinned keys
		}
		return s.show(out, func(p *printer) {
			for _, x := range f.Finds {
				if out.Account == nil || x.Kind != "account" || x.ID != out.Account.ID { // that one begins the rows below
					p.row(x.Kind, x.ID)
				}
			}
			if out.Account != nil {
				accountRows(p, out.Account)
			}
		})
	})
}

func accountRows(p *printer, a *client.Account) {
	p.row("account", a.ID)
	hf := "no debt"
	if a.Health.HealthFactorShown != nil {
		hf = *a.Health.HealthFactorShown
	}
	p.row("health factor", hf)
	if a.Health.LTV != nil {
		p.row("LTV", fmt.Sprintf("%s, at most %s, liquidation at %s", bps(*a.Health.LTV), bps(a.Health.MaxLTV), bps(a.Health.LiquidationLTV)))
	}
	if a.Health.Warning {
		p.row("warning", "LTV is at 80 % of the limit or above")
	}
	for _, x := range a.Health.Positions {
		if x.Supplied != "0" {
			p.row("supplied", human(x.Supplied, x.Decimals, x.Symbol))
		}
		if x.Owed != "0" {
			p.row("owed", human(x.Owed, x.Decimals, x.Symbol))
		}
		if x.LiquidationPrice != "" {
			p.row("liquidation at", x.Symbol+" "+usd(x.LiquidationPrice))
		}
		if x.Suspense != nil {
			p.row("claimable", human(x.Suspense.Amount, x.Decimals, x.Symbol)+" ("+x.Suspense.Reason+"): coffer claim "+x.Pool)
		}
	}
	p.row("open payouts", a.Outflows)
}
