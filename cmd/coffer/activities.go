package main

import (
	"context"
	"fmt"
	"time"

	"github.com/coffer-network/coffer/node/api/client"
	"github.com/spf13/cobra"
)

func newActivitiesCmd() *cobra.Command {
	var account, cursor string
	var limit int
	cmd := clientCmd(&cobra.Command{
		Use: "activities", Short: "What an account did, how far each came, and what is to be done",
		Long: `Supplies, repayments, borrows, withdrawals, claims, liquidations and simple loans,
newest first, each with its state (action_required, processing, confirming, active,
completed, failed, expired), its confirmations, and what a deposit is short of.`,
		Example: "  coffer activities\n  coffer activities --account 5f0c9a1e7b3d2c445f0c9a1e7b3d2c44 --json",
		Args:    args(cobra.NoArgs),
	}, true, func(ctx context.Context, s *session, _ []string) error {
		c, id, err := s.accountOrOwn(account)
		if err != nil {
			return err
		}
		l, err := c.Activities(ctx, id, cursor, limit)
		if err != nil {
			return err
		}
		return s.show(l, func(p *printer) {
			p.row("TIME", "WHAT", "AMOUNT", "STATE", "CONFIRMATIONS", "REFERENCE", "TO DO")
			for _, x := range append(l.Local, l.Activities...) {
				activityRow(p, x)
			}
			if l.Next != "" {
				p.row("more with --cursor " + l.Next)
			}
			if l.Since > 1 {
				p.row(fmt.Sprintf("this node remembers everything from LogIndex %d on", l.Since))
			}
		})
	})
	cmd.Flags().StringVar(&account, "account", "", "whose (default: the wallet's)")
	cmd.Flags().StringVar(&cursor, "cursor", "", "where the page before ended")
	cmd.Flags().IntVar(&limit, "limit", 50, "rows, at most 200")
	return cmd
}

func activityRow(p *printer, x client.Activity) {
	confirmations := "–"
	if x.Required > 0 {
		confirmations = fmt.Sprintf("%d/%d", x.Confirmations, x.Required)
	}
	reference := x.TxID
	switch {
	case x.Liquidation != 0:
		reference = fmt.Sprintf("liquidation %d", x.Liquidation)
	case x.Outflow != 0 && x.Inflow == "":
		reference = fmt.Sprintf("outflow %d", x.Outflow)
	case x.Inflow != "":
		reference = x.Inflow
	}
	todo := x.Detail
	if x.Shortfall != nil {
		decimals, symbol := x.Decimals, x.Symbol
		if x.Kind == "loan" { // of the collateral, which Detail names
			decimals, symbol = 0, "base units"
		}
		todo = fmt.Sprintf("%s missing to %s: %s", human(x.Shortfall.Missing, decimals, symbol), human(x.Shortfall.Minimum, decimals, symbol), todo)
	}
	p.row(x.Time.Format(time.RFC3339), x.Kind, human(x.Amount, x.Decimals, x.Symbol), x.Status, confirmations, orDash(reference), orDash(todo))
}
