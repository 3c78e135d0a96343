package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/node/api/client"
	"github.com/spf13/cobra"
)

// who adds the flags that choose signer and account.
type who struct{ with, account string }

func (w *who) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&w.with, "with", "btc", "which key signs: btc (P2WPKH), p2tr, eth, or eip712 (eth with typed data)")
	cmd.Flags().StringVar(&w.account, "account", "", "account id (default: the one this key opens)")
}

// resolve gives the signer and the account.
func (w *who) resolve(wallet *client.Wallet) (client.Signer, string, error) {
	signer, err := wallet.Signer(w.with)
	if err != nil {
		return nil, "", &exitError{exitUsage, err}
	}
	if w.account == "" {
		return signer, wallet.Pin().AccountOf(signer.ID()), nil
	}
	if _, err := client.ParseAccount(w.account); err != nil {
		return nil, "", &exitError{exitUsage, err}
	}
	return signer, w.account, nil
}

func newAccountCmd() *cobra.Command {
	var w who
	cmd := clientCmd(&cobra.Command{
		Use: "account", Short: "Show the wallet's account: controllers, addresses, positions",
		Example: "  coffer account open\n  coffer account\n  coffer account --with eth --json",
		Args:    args(cobra.NoArgs),
	}, true, func(ctx context.Context, s *session, _ []string) error {
		wallet, c, err := s.wallet()
		if err != nil {
			return err
		}
		_, id, err := w.resolve(wallet)
		if err != nil {
			return err
		}
		a, err := c.Account(ctx, id)
		if client.IsCode(err, "UNKNOWN_ACCOUNT") {
			return fmt.Errorf("%w: coffer account open opens it", err)
		}
		if err != nil {
			return err
		}
		return s.showAccount(ctx, c, a)
	})
	w.flags(cmd)
	cmd.AddCommand(newAccountOpenCmd(), newAccountLinkCmd(), newAccountUnlinkCmd())
	return cmd
}

func newAccountOpenCmd() *cobra.Command {
	var w who
	cmd := clientCmd(&cobra.Command{
		Use: "open", Short: "Open the wallet's account; its deposit addresses are watched from then on",
		Example: "  coffer account open\n  coffer account open --with eth",
		Args:    args(cobra.NoArgs),
	}, true, func(ctx context.Context, s *session, _ []string) error {
		wallet, c, err := s.wallet()
		if err != nil {
			return err
		}
		signer, err := wallet.Signer(w.with)
		if err != nil {
			return &exitError{exitUsage, err}
		}
		a, err := c.Open(ctx, signer)
		if err != nil {
			return later(err)
		}
		return s.showAccount(ctx, c, a)
	})
	cmd.Flags().StringVar(&w.with, "with", "btc", "which key opens and controls it: btc (P2WPKH), p2tr, eth, or eip712 (eth with typed data)")
	return cmd
}

// showAccount shows the addresses only if each is the one derived here.
func (s *session) showAccount(ctx context.Context, c *client.Client, a *client.Account) error {
	if err := c.CheckAddresses(ctx, a); err != nil {
		return err
	}
	return s.show(a, func(p *printer) {
		p.row("account", a.ID)
		for _, w := range a.Controllers {
			p.row("controller", w)
		}
		p.row("next nonce", a.NextNonce)
		for _, x := range a.Addresses {
			p.row(x.Purpose+" on "+x.Chain, x.Address)
		}
		if l := a.PayoutList; l != nil {
			rule := "not required"
			switch {
			case l.Ends != nil:
				rule = "required until " + l.Ends.Format("2006-01-02T15:04:05Z")
			case l.Required:
				rule = "required"
			}
			p.row("payout list", rule)
			for _, x := range l.Addresses {
				to := x.To
				if x.Pending {
					to += " from " + x.From.Format("2006-01-02T15:04:05Z")
				}
				p.row("  may be paid", to)
			}
		}
		loanRows(p, a)
		healthRows(p, a.Health)
	})
}

func newDepositAddressCmd() *cobra.Command {
	var w who
	var purpose string
	var also []string
	cmd := clientCmd(&cobra.Command{
		Use: "deposit-address ASSET", Short: "Where to send coins, derived here and compared with the node",
		Long: `Derives the account's address from the pinned master key and compares it with what
the node names. If they differ it exits 1 and prints no address: do not use that
node. Coins sent to the supply address are supplied, coins sent to the repay
address repay debt; neither needs a signed request.`,
		Example: "  coffer deposit-address btc\n  coffer deposit-address usdt.eth --purpose repay\n  coffer deposit-address btc --also http://127.0.0.1:7002",
		Args:    args(cobra.ExactArgs(1)),
	}, true, func(ctx context.Context, s *session, a []string) error {
		if purpose != client.Supply && purpose != client.Repay {
			return usagef("--purpose %q: want %s or %s", purpose, client.Supply, client.Repay)
		}
		wallet, c, err := s.wallet()
		if err != nil {
			return err
		}
		_, id, err := w.resolve(wallet)
		if err != nil {
			return err
		}
		asset, err := c.AssetNamed(ctx, a[0])
		if err != nil {
			return err
		}
		others := make([]*client.Client, len(also))
		for i, url := range also {
			if others[i], err = client.New(url, wallet.Pin()); err != nil {
				return &exitError{exitUsage, err}
			}
		}
		at, err := c.DepositAddress(ctx, id, asset, purpose, others...)
		if errors.Is(err, client.ErrNoAddress) {
			return fmt.Errorf("%w: the cluster has no keys in force yet", err)
		}
		if err != nil {
			return err
		}
		return s.show(at, func(p *printer) { p.row(at.Address) })
	})
	w.flags(cmd)
	cmd.Flags().StringVar(&purpose, "purpose", client.Supply, "supply or repay")
	cmd.Flags().StringSliceVar(&also, "also", nil, "further nodes that must name the same address")
	return cmd
}

func newPositionCmd() *cobra.Command {
	var w who
	cmd := clientCmd(&cobra.Command{
		Use: "position", Short: "Balances, health, and what can be borrowed, withdrawn and repaid",
		Example: "  coffer position\n  coffer position --account 5f0c9a1e7b3d2c445f0c9a1e7b3d2c44 --json",
		Args:    args(cobra.NoArgs),
	}, true, func(ctx context.Context, s *session, _ []string) error {
		wallet, c, err := s.wallet()
		if err != nil {
			return err
		}
		_, id, err := w.resolve(wallet)
		if err != nil {
			return err
		}
		if _, err := c.Cluster(ctx); err != nil {
			return err
		}
		a, err := c.Account(ctx, id)
		if err != nil {
			return err
		}
		return s.show(a.Health, func(p *printer) { healthRows(p, a.Health) })
	})
	w.flags(cmd)
	return cmd
}

func healthRows(p *printer, h client.Health) {
	hf := "∞ (no debt)"
	switch {
	case h.Unknown != "":
		hf = "unknown: " + h.Unknown
	case h.HealthFactorShown != nil:
		hf = *h.HealthFactorShown
	}
	p.row("health factor", hf)
	if h.LTV != nil {
		p.row("LTV", fmt.Sprintf("%s of at most %s", bps(*h.LTV), bps(h.MaxLTV)))
	}
	p.row("collateral", usd(h.Collateral))
	p.row("debt", usd(h.Debt))
	if h.Warning {
		p.row("warning", "the LTV is at 80 % of its limit or above")
	}
	for _, x := range h.Positions {
		show := func(label, units string) {
			if units != "" && strings.Trim(units, "0") != "" {
				p.row("  "+x.Pool+" "+label, human(units, x.Decimals, x.Symbol))
			}
		}
		show("supplied", x.Supplied)
		if x.Collateral != x.Supplied {
			show("counting as collateral", x.Collateral)
		}
		show("owed", x.Owed)
		show("to repay in full", x.FullRepay)
		show("can be borrowed", x.MaxBorrow)
		show("can be withdrawn", x.MaxWithdraw)
		if x.LiquidationPrice != "" {
			p.row("  "+x.Pool+" liquidation price", usd(x.LiquidationPrice))
		}
		if x.Suspense != nil {
			show("to claim ("+x.Suspense.Reason+")", x.Suspense.Amount)
		}
	}
}

// payTo completes an address with the chain of a pool.
func payTo(to string, a client.Asset) (string, error) {
	if to == "" {
		return "", usagef("pay to which address? Say --to")
	}
	full := to
	if _, err := address.SplitCAIP10(to); err != nil {
		full = a.CAIP2 + ":" + to
	}
	id, err := address.ParseCAIP10(full)
	if err != nil {
		return "", usagef("--to %s: %w", to, err)
	}
	return id.String(), nil
}
