package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/node/api/client"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// payout is what borrow, withdraw and claim have in common.
type payout struct {
	who
	action string
	to     string
	maxFee string
	yes    bool
	paid   bool
}

func (o *payout) flags(cmd *cobra.Command) {
	o.who.flags(cmd)
	f := cmd.Flags()
	f.StringVar(&o.to, "to", "", "address on the asset's own chain")
	f.StringVar(&o.maxFee, "max-fee", "", "most that the payout may cost, in the asset (default: what the node suggests)")
	f.BoolVar(&o.yes, "yes", false, "do not ask before signing")
	f.BoolVar(&o.paid, "until-paid", false, "wait until the payout is final on its chain (see --timeout)")
}

const payoutHelp = `Renders the request here, shows it with the fee quote, signs it with the wallet
(BIP-322, or EIP-191 with --with eth), posts it and waits until it is applied. On
a terminal it asks first, unless --yes. The fee is taken from the amount.`

func newBorrowCmd() *cobra.Command {
	o := &payout{action: address.ActionBorrow}
	cmd := clientCmd(&cobra.Command{
		Use: "borrow AMOUNT ASSET", Short: "Borrow against what the account supplies", Long: payoutHelp,
		Example: "  coffer borrow 15000 usdt.eth --to 0x71C7656EC7ab88b098defB751B7401B5f6d8976F\n  coffer borrow 0.1 btc --to bcrt1q… --with eth --yes --json",
		Args:    args(cobra.ExactArgs(2)),
	}, true, func(ctx context.Context, s *session, a []string) error { return o.run(ctx, s, a[0], a[1]) })
	o.flags(cmd)
	return cmd
}

func newWithdrawCmd() *cobra.Command {
	o := &payout{action: address.ActionWithdraw}
	cmd := clientCmd(&cobra.Command{
		Use: "withdraw AMOUNT|max ASSET", Short: "Withdraw what the account supplies", Long: payoutHelp,
		Example: "  coffer withdraw max btc --to bcrt1q…\n  coffer withdraw 250.50 usdt.eth --to 0x71C7656EC7ab88b098defB751B7401B5f6d8976F --max-fee 3",
		Args:    args(cobra.ExactArgs(2)),
	}, true, func(ctx context.Context, s *session, a []string) error { return o.run(ctx, s, a[0], a[1]) })
	o.flags(cmd)
	return cmd
}

func newClaimCmd() *cobra.Command {
	o := &payout{action: address.ActionClaim}
	cmd := clientCmd(&cobra.Command{
		Use: "claim ASSET", Short: "Send back coins that could not be credited", Long: payoutHelp,
		Example: "  coffer claim usdt.eth --to 0x71C7656EC7ab88b098defB751B7401B5f6d8976F",
		Args:    args(cobra.ExactArgs(1)),
	}, true, func(ctx context.Context, s *session, a []string) error { return o.run(ctx, s, "", a[0]) })
	o.flags(cmd)
	return cmd
}

func (o *payout) run(ctx context.Context, s *session, amount, assetName string) error {
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
	p := client.Payout{Pool: asset.ID}
	if p.To, err = payTo(o.to, asset); err != nil {
		return err
	}
	if amount != "" {
		if p.Amount = amount; amount != "max" || o.action != address.ActionWithdraw {
			if p.Amount, err = units(amount, asset); err != nil {
				return err
			}
		}
	}
	if o.maxFee != "" {
		if p.MaxFee, err = units(o.maxFee, asset); err != nil {
			return err
		}
	}
	action, err := c.PreparePayout(ctx, o.action, signer.ID(), account, p)
	if err != nil {
		return err
	}
	return o.ask(ctx, s, c, signer, action, asset, asset)
}

// ask shows a prepared request, and signs and sends it once it is agreed to.
// paid is the asset that leaves, stated the one that the amount is in.
func (o *payout) ask(ctx context.Context, s *session, c *client.Client, signer client.Signer, action client.Action, paid, stated client.Asset) error {
	preview, err := c.Preview(ctx, action)
	if err != nil {
		return err
	}
	s.note("%s\n", action.Text)
	s.showPreview(preview, paid)
	if err := s.confirm(o.yes); err != nil {
		return err
	}
	r, err := c.Submit(ctx, signer, action)
	if err != nil {
		return later(explain(err, stated))
	}
	if !o.paid {
		return s.showRequest(r)
	}
	d, err := c.WaitOutflow(ctx, r.Outflow, time.Second, client.Settled)
	if err != nil {
		return later(err)
	}
	if err := s.showOutflow(d); err != nil {
		return err
	}
	if d.State != "PAID" {
		return fmt.Errorf("outflow %d is %s", d.ID, d.State)
	}
	return nil
}

// showPreview tells what signing would do, before it is signed.
func (s *session) showPreview(p *client.Preview, a client.Asset) {
	if p.Code != "OK" {
		s.note("As things stand this will be refused: %s", explain(&client.Problem{Code: p.Code, Limit: p.Limit, Found: p.Found}, a))
		return
	}
	if p.Fee != "" {
		s.note("Fee now      %s\nYou receive  %s", human(p.Fee, a.Decimals, a.Symbol), human(p.Net, a.Decimals, a.Symbol))
	}
	if p.Before != nil && p.After != nil {
		s.note("Health       %s → %s", shownHealth(p.Before), shownHealth(p.After))
	}
}

func shownHealth(h *client.Health) string {
	if h.HealthFactorShown == nil {
		return "∞"
	}
	return *h.HealthFactorShown
}

// explain adds what the refusal's numbers mean to people.
func explain(err error, a client.Asset) error {
	var p *client.Problem
	if !errors.As(err, &p) || p.Found == "" {
		return err
	}
	switch p.Code {
	case "HEALTH_FACTOR":
		return fmt.Errorf("%w: the health factor would be %s", err, scaled(p.Found, 18, 2))
	case "FEE_TOO_HIGH", "NO_LIQUIDITY", "BELOW_MIN", "INSUFFICIENT_BALANCE", "BORROW_CAP":
		return fmt.Errorf("%w: limit %s, found %s", err, human(p.Limit, a.Decimals, a.Symbol), human(p.Found, a.Decimals, a.Symbol))
	}
	return err
}

// confirm asks on a terminal. Elsewhere a command that was typed was meant.
func (s *session) confirm(yes bool) error {
	in, ok := s.cmd.InOrStdin().(*os.File)
	if yes || s.json || !ok || !term.IsTerminal(int(in.Fd())) {
		return nil
	}
	fmt.Fprint(s.cmd.OutOrStdout(), "\nSign and send? [y/N] ")
	line, err := bufio.NewReader(in).ReadString('\n')
	if answer := strings.ToLower(strings.TrimSpace(line)); err != nil || answer != "y" && answer != "yes" {
		return errors.New("not signed")
	}
	return nil
}
