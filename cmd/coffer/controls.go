package main

import (
	"context"
	"strconv"

	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/node/api/client"
	"github.com/spf13/cobra"
)

// Requests about the account itself: who controls it and where its coins may go.

// control is what they have in common.
type control struct {
	who
	yes bool
}

func (o *control) flags(cmd *cobra.Command) {
	o.who.flags(cmd)
	cmd.Flags().BoolVar(&o.yes, "yes", false, "do not ask before signing")
}

// run shows, signs and posts one request. co also signs, if it is not nil.
func (o *control) run(ctx context.Context, s *session, cmd address.Command, co func(*client.Wallet) (client.Signer, error)) error {
	wallet, c, err := s.wallet()
	if err != nil {
		return err
	}
	signer, account, err := o.resolve(wallet)
	if err != nil {
		return err
	}
	var second client.Signer
	if co != nil {
		if second, err = co(wallet); err != nil {
			return err
		}
		cmd.NewWallet = second.ID()
	}
	cmd.Signer = signer.ID()
	if cmd.Account, err = client.ParseAccount(account); err != nil {
		return &exitError{exitUsage, err}
	}
	action, err := c.Prepare(ctx, cmd)
	if err != nil {
		return err
	}
	s.note("%s\n", action.Text)
	if err := s.confirm(o.yes); err != nil {
		return err
	}
	r, err := c.SubmitCosigned(ctx, signer, second, action)
	if err != nil {
		return later(err)
	}
	return s.showRequest(r)
}

func newAccountLinkCmd() *cobra.Command {
	var o control
	var file string
	cmd := clientCmd(&cobra.Command{
		Use: "link KEY", Short: "Make a second key a controller of the account; both sign",
		Long: `KEY is btc, p2tr or eth of this wallet, or of another wallet file with --new-file.
The account must have been credited once.`,
		Example: "  coffer account link eth\n  coffer account link btc --with eth --new-file spare.json --json",
		Args:    args(cobra.ExactArgs(1)),
	}, true, func(ctx context.Context, s *session, a []string) error {
		return o.run(ctx, s, address.Command{Action: address.ActionLinkWallet}, func(w *client.Wallet) (client.Signer, error) {
			if file != "" {
				var err error
				if w, err = client.LoadWallet(file); err != nil {
					return nil, err
				}
			}
			signer, err := w.Signer(a[0])
			if err != nil {
				return nil, &exitError{exitUsage, err}
			}
			return signer, nil
		})
	})
	o.flags(cmd)
	cmd.Flags().StringVar(&file, "new-file", "", "wallet file that holds the new key (default: this wallet's)")
	return cmd
}

func newAccountUnlinkCmd() *cobra.Command {
	var o control
	cmd := clientCmd(&cobra.Command{
		Use: "unlink WALLET", Short: "Remove a controller (CAIP-10, as coffer account shows it); never the last one",
		Example: "  coffer account unlink eip155:1337:0x71C7656EC7ab88b098defB751B7401B5f6d8976F",
		Args:    args(cobra.ExactArgs(1)),
	}, true, func(ctx context.Context, s *session, a []string) error {
		id, err := address.ParseCAIP10(a[0])
		if err != nil {
			return usagef("wallet %s: %w", a[0], err)
		}
		return o.run(ctx, s, address.Command{Action: address.ActionUnlinkWallet, Wallet: id}, nil)
	})
	o.flags(cmd)
	return cmd
}

func newPayoutListCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "payout-list", Short: "Say to which addresses the account's coins may go",
		Long: `With the list required, every coin that leaves the account goes only to listed
addresses. Adding one takes effect after a delay (24 hours by default), and so
does turning the list off; removing is at once. coffer account shows the list
with what is pending.`,
		Example: "  coffer payout-list add eip155:1337:0x71C7656EC7ab88b098defB751B7401B5f6d8976F\n  coffer payout-list require yes",
	}
	for _, x := range []struct{ use, short, action string }{
		{"add ADDRESS", "List an address (CAIP-10); it may be paid after the delay", address.ActionAddPayoutAddress},
		{"remove ADDRESS", "Take an address (CAIP-10) off the list at once", address.ActionRemovePayoutAddress},
	} {
		var o control
		verb := x.use[:len(x.use)-len(" ADDRESS")]
		sub := clientCmd(&cobra.Command{
			Use: x.use, Short: x.short, Args: args(cobra.ExactArgs(1)),
			Example: "  coffer payout-list " + verb + " eip155:1337:0x71C7656EC7ab88b098defB751B7401B5f6d8976F --yes --json",
		}, true, func(ctx context.Context, s *session, a []string) error {
			to, err := address.ParseCAIP10(a[0])
			if err != nil {
				return usagef("address %s: %w", a[0], err)
			}
			return o.run(ctx, s, address.Command{Action: x.action, To: to}, nil)
		})
		o.flags(sub)
		cmd.AddCommand(sub)
	}
	var o control
	require := clientCmd(&cobra.Command{
		Use: "require yes|no", Short: "Pay only listed addresses, from now; or no longer, after the delay",
		Example: "  coffer payout-list require yes\n  coffer payout-list require no --json",
		Args:    args(cobra.ExactArgs(1)), ValidArgs: []string{"yes", "no"},
	}, true, func(ctx context.Context, s *session, a []string) error {
		if a[0] != "yes" && a[0] != "no" {
			return usagef("%q: want yes or no", a[0])
		}
		return o.run(ctx, s, address.Command{Action: address.ActionRequirePayoutList, On: a[0] == "yes"}, nil)
	})
	o.flags(require)
	cmd.AddCommand(require)
	return cmd
}

func newCancelCmd() *cobra.Command {
	var o control
	cmd := clientCmd(&cobra.Command{
		Use: "cancel [OUTFLOW]", Short: "Take back a payout that is still queued, or just use up the next nonce",
		Long: `With a number, cancels that outflow while it is queued and was never planned. Without,
signs a request that does nothing but use up the account's next nonce, so that
one that was signed and not posted can no longer be applied.`,
		Example: "  coffer cancel 17\n  coffer cancel --yes --json",
		Args:    args(cobra.MaximumNArgs(1)),
	}, true, func(ctx context.Context, s *session, a []string) error {
		cmd := address.Command{Action: address.ActionCancel}
		if len(a) == 1 {
			n, err := strconv.ParseUint(a[0], 10, 64)
			if err != nil || n == 0 {
				return usagef("outflow %q: want its number", a[0])
			}
			cmd = address.Command{Action: address.ActionCancelOutflow, Outflow: n}
		}
		return o.run(ctx, s, cmd, nil)
	})
	o.flags(cmd)
	return cmd
}

func newRepayFromSupplyCmd() *cobra.Command {
	var o control
	cmd := clientCmd(&cobra.Command{
		Use: "repay-from-supply AMOUNT|max ASSET", Short: "Repay debt with the account's own supply of the same asset",
		Long:    "No coin moves, so no fee is taken. max repays as much as debt and supply allow.",
		Example: "  coffer repay-from-supply max usdt.eth\n  coffer repay-from-supply 250.50 usdt.eth --yes --json",
		Args:    args(cobra.ExactArgs(2)),
	}, true, func(ctx context.Context, s *session, a []string) error {
		_, c, err := s.wallet()
		if err != nil {
			return err
		}
		asset, err := c.AssetNamed(ctx, a[1])
		if err != nil {
			return err
		}
		g, err := c.Grammar(ctx)
		if err != nil {
			return err
		}
		cmd := address.Command{Action: address.ActionRepayFromSupply, Pool: asset.ID, Amount: g.MaxAmount(asset.ID)}
		if a[0] != "max" {
			n, err := units(a[0], asset)
			if err != nil {
				return err
			}
			cmd.Amount = g.Amount(asset.ID, n)
		}
		return o.run(ctx, s, cmd, nil)
	})
	o.flags(cmd)
	return cmd
}
