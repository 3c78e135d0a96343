package main

import (
	"context"

	"github.com/coffer-network/coffer/node/api/client"
	"github.com/spf13/cobra"
)

// openedLoan is what a borrower needs from here on: where to send what.
type openedLoan struct {
	Account string         `json:"account"`
	Supply  client.Address `json:"supply"`
	Repay   client.Address `json:"repay"`
	Refund  string         `json:"refundTo"`
	Loan    *client.Loan   `json:"loan"`
}

func newOpenLoanCmd() *cobra.Command {
	var with, against, collateralAsset, to, maxFee, refundTo string
	var yes bool
	cmd := clientCmd(&cobra.Command{
		Use: "open-loan AMOUNT ASSET", Short: "Fix a loan in one signed request; afterwards coins only",
		Long: `Opens a fresh account whose terms are in the request. Send the collateral to the supply
address it prints within the window (24 hours by default): when it is final, the
loan is paid to --to, unless the LTV has risen by more than 500 bps since. Too
little, or too late, and what came in goes to --refund-to. Send what is owed to
the repay address. The addresses are derived here and compared with the node.`,
		Example: "  coffer open-loan 15000 usdt.eth --collateral 0.5 --collateral-asset btc --to 0x71C7656EC7ab88b098defB751B7401B5f6d8976F --refund-to bcrt1q…",
		Args:    args(cobra.ExactArgs(2)),
	}, true, func(ctx context.Context, s *session, a []string) error {
		wallet, c, err := s.wallet()
		if err != nil {
			return err
		}
		signer, err := wallet.Signer(with)
		if err != nil {
			return &exitError{exitUsage, err}
		}
		asset, err := c.AssetNamed(ctx, a[1])
		if err != nil {
			return err
		}
		collateral, err := c.AssetNamed(ctx, collateralAsset)
		if err != nil {
			return err
		}
		t := client.LoanTerms{Pool: asset.ID, CollateralPool: collateral.ID}
		if t.Amount, err = units(a[0], asset); err != nil {
			return err
		}
		if t.Collateral, err = units(against, collateral); err != nil {
			return err
		}
		if t.To, err = payTo(to, asset); err != nil {
			return err
		}
		if refundTo == "" {
			return usagef("where should the collateral go back to, should the loan not come about? Say --refund-to")
		}
		if t.RefundTo, err = payTo(refundTo, collateral); err != nil {
			return err
		}
		if maxFee != "" {
			if t.MaxFee, err = units(maxFee, asset); err != nil {
				return err
			}
		}
		action, err := c.PrepareLoan(ctx, signer.ID(), t)
		if err != nil {
			return err
		}
		preview, err := c.Preview(ctx, action)
		if err != nil {
			return err
		}
		s.note("%s\n", action.Text)
		s.showPreview(preview, asset)
		if err := s.confirm(yes); err != nil {
			return err
		}
		r, err := c.Submit(ctx, signer, action)
		if err != nil {
			return later(explain(err, asset))
		}
		acc, err := c.Account(ctx, r.Account)
		if err != nil {
			return later(err)
		}
		out := openedLoan{Account: r.Account, Refund: t.RefundTo, Loan: acc.Loan}
		if out.Supply, err = c.DepositAddress(ctx, r.Account, collateral, client.Supply); err != nil {
			return err
		}
		if out.Repay, err = c.DepositAddress(ctx, r.Account, asset, client.Repay); err != nil {
			return err
		}
		return s.show(out, func(p *printer) {
			p.row("account", out.Account)
			p.row("send collateral to", out.Supply.Address)
			p.row("send repayments to", out.Repay.Address)
			p.row("refunds go to", out.Refund)
			loanRows(p, acc)
		})
	})
	f := cmd.Flags()
	f.StringVar(&with, "with", "btc", "which key signs: btc (P2WPKH), p2tr, eth, or eip712 (eth with typed data)")
	f.StringVar(&against, "collateral", "", "least amount of collateral that will be sent")
	f.StringVar(&collateralAsset, "collateral-asset", "btc", "asset of the collateral")
	f.StringVar(&to, "to", "", "where the loan is paid")
	f.StringVar(&refundTo, "refund-to", "", "where the collateral goes if the loan does not come about")
	f.StringVar(&maxFee, "max-fee", "", "most that the payout may cost, in the borrowed asset (default: what the node suggests)")
	f.BoolVar(&yes, "yes", false, "do not ask before signing")
	return cmd
}

// loanRows show how far a simple loan came.
func loanRows(p *printer, a *client.Account) {
	if a.Loan == nil {
		return
	}
	p.row("loan", a.Loan.Phase+" ("+a.Loan.Status+")")
	p.row("collateral until", a.Loan.Until.Format("2006-01-02T15:04:05Z"))
	if a.Loan.Missing != "" {
		for _, x := range a.Health.Positions {
			if x.Pool == a.Loan.CollateralPool {
				p.row("collateral missing", human(a.Loan.Missing, x.Decimals, x.Symbol))
			}
		}
	}
	if a.Loan.Waits != "" {
		p.row("loan waits for", a.Loan.Waits)
	}
}
