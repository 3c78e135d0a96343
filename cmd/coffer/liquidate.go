package main

import (
	"context"

	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/node/api/client"
	"github.com/spf13/cobra"
)

const liquidateHelp = `Repays debt of a borrower below health factor 1 out of what the account supplies
in the debt's asset, and takes his collateral at the pool's bonus. Nothing moves
on a chain, so supply the debt's asset first. With --to, what is gained leaves in
the same request, as a withdrawal would, or nothing happens at all. The request
is shown before it is signed; on a terminal it asks first, unless --yes.`

func newLiquidateCmd() *cobra.Command {
	o := &payout{action: address.ActionLiquidate}
	cmd := clientCmd(&cobra.Command{
		Use: "liquidate AMOUNT|max DEBT-ASSET COLLATERAL-ASSET BORROWER", Short: "Repay an unhealthy loan for its collateral", Long: liquidateHelp,
		Example: "  coffer liquidate max usdt.eth btc 5f1c…e2 --yes --json\n  coffer liquidate 2500 usdt.eth btc 5f1c…e2 --to bcrt1q… --max-fee 0.0002",
		Args:    args(cobra.ExactArgs(4)),
	}, true, func(ctx context.Context, s *session, a []string) error { return o.liquidate(ctx, s, a) })
	o.flags(cmd)
	return cmd
}

func (o *payout) liquidate(ctx context.Context, s *session, a []string) error {
	wallet, c, err := s.wallet()
	if err != nil {
		return err
	}
	signer, account, err := o.resolve(wallet)
	if err != nil {
		return err
	}
	debt, err := c.AssetNamed(ctx, a[1])
	if err != nil {
		return err
	}
	coll, err := c.AssetNamed(ctx, a[2])
	if err != nil {
		return err
	}
	l := client.Liquidation{Borrower: a[3], Debt: debt.ID, Collateral: coll.ID, Amount: a[0]}
	if _, err := client.ParseAccount(l.Borrower); err != nil {
		return &exitError{exitUsage, err}
	}
	if l.Amount != "max" {
		if l.Amount, err = units(l.Amount, debt); err != nil {
			return err
		}
	}
	switch {
	case o.to != "":
		if l.AutoWithdrawTo, err = payTo(o.to, coll); err != nil {
			return err
		}
		if o.maxFee != "" {
			if l.MaxFee, err = units(o.maxFee, coll); err != nil {
				return err
			}
		}
	case o.maxFee != "" || o.paid:
		return usagef("--max-fee and --until-paid are of a withdrawal: say where with --to")
	}
	action, err := c.PrepareLiquidation(ctx, signer.ID(), account, l)
	if err != nil {
		return err
	}
	return o.ask(ctx, s, c, signer, action, coll, debt)
}

func newCoverDeficitCmd() *cobra.Command {
	o := &payout{action: address.ActionCoverDeficit}
	cmd := clientCmd(&cobra.Command{
		Use: "cover-deficit AMOUNT ASSET", Short: "Burn an insurance account's supply against a pool's deficit",
		Long: `Only for the insurance accounts of the cluster's parameters: burns what the
account supplies in the pool against its deficit, at most as much as that is.`,
		Example: "  coffer cover-deficit 1200 usdt.eth\n  coffer cover-deficit 0.05 btc --with eth --yes --json",
		Args:    args(cobra.ExactArgs(2)),
	}, true, func(ctx context.Context, s *session, a []string) error { return o.cover(ctx, s, a[0], a[1]) })
	o.who.flags(cmd)
	cmd.Flags().BoolVar(&o.yes, "yes", false, "do not ask before signing")
	return cmd
}

func (o *payout) cover(ctx context.Context, s *session, amount, assetName string) error {
	wallet, c, err := s.wallet()
	if err != nil {
		return err
	}
	signer, account, err := o.resolve(wallet)
	if err != nil {
		return err
	}
	asset, err := c.AssetNamed(ctx, assetName)
	if err != nil {
		return err
	}
	if amount, err = units(amount, asset); err != nil {
		return err
	}
	action, err := c.PrepareCover(ctx, signer.ID(), account, asset.ID, amount)
	if err != nil {
		return err
	}
	return o.ask(ctx, s, c, signer, action, asset, asset)
}
