package main

import (
	"context"
	"fmt"

	"github.com/coffer-network/coffer/node/api/client"
	"github.com/spf13/cobra"
)

func newWalletCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "wallet", Short: "A test network wallet: one Bitcoin and one Ethereum key in a file",
		Example: "  coffer wallet new --api http://127.0.0.1:7001\n  coffer wallet show",
		Args:    args(cobra.NoArgs),
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		clientCmd(&cobra.Command{
			Use: "new", Short: "Make keys, and pin the cluster they are for",
			Long: `Makes keys for a test network and pins the cluster of the node asked: its name,
genesis hash and master public keys. A node that later names others is refused.
Compare what is printed with what the cluster's operators publish. The file is
never overwritten, and its keys are not encrypted: no coins of value.`,
			Example: "  coffer wallet new --api http://127.0.0.1:7001\n  coffer wallet new --dir /tmp/coffer --file ./wallet.json --json",
			Args:    args(cobra.NoArgs),
		}, true, walletNew),
		clientCmd(&cobra.Command{
			Use: "show", Short: "Print the wallet's addresses and its pin, never its keys",
			Example: "  coffer wallet show\n  coffer wallet show --file ./wallet.json --json",
			Args:    args(cobra.NoArgs),
		}, true, walletShow),
	)
	return cmd
}

// walletReport is what is shown of a wallet.
type walletReport struct {
	File    string      `json:"file"`
	BTC     string      `json:"btc"`
	P2TR    string      `json:"p2tr"`
	ETH     string      `json:"eth"`
	Account string      `json:"account"` // that the Bitcoin wallet opens
	Pin     *client.Pin `json:"pin"`
}

func walletNew(ctx context.Context, s *session, _ []string) error {
	c, err := s.client(nil)
	if err != nil {
		return err
	}
	file, err := s.walletFile()
	if err != nil {
		return err
	}
	cl, err := c.Cluster(ctx)
	if err != nil {
		return err
	}
	pin, err := client.NewPin(cl)
	if err != nil {
		return err
	}
	w, err := client.NewWallet(pin)
	if err != nil {
		return err
	}
	if err := w.Save(file); err != nil {
		return err
	}
	return s.showWallet(file, w)
}

func walletShow(_ context.Context, s *session, _ []string) error {
	file, err := s.walletFile()
	if err != nil {
		return err
	}
	w, err := client.LoadWallet(file)
	if err != nil {
		return err
	}
	return s.showWallet(file, w)
}

func (s *session) showWallet(file string, w *client.Wallet) error {
	pin := w.Pin()
	r := walletReport{
		File: file, BTC: w.SignerBTC().ID().String(), P2TR: w.SignerP2TR().ID().String(), ETH: w.SignerETH().ID().String(),
		Account: pin.AccountOf(w.SignerBTC().ID()), Pin: pin,
	}
	return s.show(r, func(p *printer) {
		p.row("wallet", file)
		p.row("btc", r.BTC)
		p.row("p2tr", r.P2TR)
		p.row("eth", r.ETH)
		p.row("account", r.Account)
		p.row("cluster", pin.Cluster)
		p.row("genesis", pin.Genesis)
		for _, k := range pin.Keys {
			p.row("key "+k.Key, fmt.Sprintf("%s %s", k.Scheme, k.MasterPub))
		}
	})
}
