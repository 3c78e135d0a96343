package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/coffer-network/coffer/node/api/client"
	"github.com/spf13/cobra"
)

// errKeyAudit has an audit that found something end with exit code 1.
var errKeyAudit = errors.New("a KeyShare is missing or unsound")

func newKeyCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "key", Short: "The KeyShares of your node",
		Example: "  coffer key list --dir ./n1\n  coffer key audit --dir ./n1",
		Args:    args(cobra.NoArgs),
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	list := controlCmd(&cobra.Command{
		Use: "list", Short: "List the KeyShares of your running node: key, epoch, state, holders",
		Example: "  coffer key list --dir ./n1",
		Args:    args(cobra.NoArgs),
	}, func(ctx context.Context, s *session, c *client.Control, _ []string) error {
		k, err := c.KeyShares(ctx, false)
		if err != nil {
			return err
		}
		return s.showKeys(k)
	})
	audit := controlCmd(&cobra.Command{
		Use: "audit", Short: "Check each KeyShare of your running node against its public commitments",
		Long: `Opens each KeyShare of your running node and checks that all public shares lie on
one polynomial whose value at 0 is the key that the ledger knows, that the secret
belongs to your own, and that the Paillier and ring moduli of all holders are
sound. Compare the transcript with other operators': it is the same at every
honest holder. Up to a second for each share. Exit code 1: something is wrong.`,
		Example: "  coffer key audit --dir ./n1 --json",
		Args:    args(cobra.NoArgs),
	}, func(ctx context.Context, s *session, c *client.Control, _ []string) error {
		k, err := c.KeyShares(ctx, true)
		if err != nil {
			return err
		}
		if err := s.showKeys(k); err != nil {
			return err
		}
		if !sound(k) {
			return &shownError{errKeyAudit}
		}
		return nil
	})
	cmd.AddCommand(list, audit)
	return cmd
}

func sound(k *client.KeyShares) bool {
	for _, x := range k.Shares {
		if x.State != "wiped" && x.Audit != client.KeyShareSound {
			return false
		}
	}
	return len(k.Missing) == 0
}

func (s *session) showKeys(k *client.KeyShares) error {
	return s.show(k, func(p *printer) {
		for _, x := range k.Shares {
			p.row(x.Key, fmt.Sprintf("epoch %d try %d, %s", x.Epoch, x.Try, x.State))
			if x.PublicKey != "" {
				p.row("", fmt.Sprintf("%s, %d of %d: %s", x.Curve, x.Needed, len(x.Holders), strings.Join(x.Holders, ", ")))
				p.row("", "public key "+x.PublicKey)
				p.row("", "transcript "+x.Transcript)
			}
			if x.Kept != "" {
				p.row("", "kept: "+x.Kept)
			}
			if x.Audit != "" {
				p.row("", "audit: "+x.Audit)
			}
		}
		for _, m := range k.Missing {
			p.row("MISSING", m)
		}
	})
}
