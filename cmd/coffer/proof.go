package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/node/api/client"
	"github.com/spf13/cobra"
)

// maxProof is above any proof that Verify takes.
const maxProof = 64 << 20

func newProofCmd() *cobra.Command {
	var w who
	cmd := clientCmd(&cobra.Command{
		Use: "proof", Short: "Prove that the account is among what the cluster owes",
		Long: `Prints, as JSON, the account's leaf and path in the Merkle-sum tree of all accounts,
with the certificate over its root and the members since the genesis. Keep the
file: coffer verify-proof checks it without any node.`,
		Example: "  coffer proof > proof.json\n  coffer proof --account 5f0c9a1e7b3d2c445f0c9a1e7b3d2c44 > proof.json",
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
		p, err := c.Proof(ctx, id)
		if err != nil {
			return err
		}
		return json.NewEncoder(s.cmd.OutOrStdout()).Encode(p)
	})
	w.flags(cmd)
	return cmd
}

func newVerifyProofCmd() *cobra.Command {
	var genesis, wallet, account string
	var asJSON bool
	cmd := &cobra.Command{
		Use: "verify-proof FILE", Short: "Check a proof of coffer proof without any node",
		Long: `Checks everything in the file down from the genesis hash: the members of each epoch,
the signatures of the certificate, every hash and sum from the account to the
root, and that the sums are what the ledger says it owes; with --file, that the
account is one that a key of that wallet opens, or the one that --account names
where a key was linked to it. It shows that the account is counted, not that no
other is hidden, nor what lies on a chain.`,
		Example: "  coffer verify-proof proof.json --file wallet.json\n  coffer verify-proof proof.json --genesis HASH",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			pinned, whose, err := pinned(genesis, wallet, account)
			if err != nil {
				return err
			}
			p, err := readProof(a[0])
			if err != nil {
				return err
			}
			got, err := p.Verify(pinned)
			if err != nil {
				return fmt.Errorf("%s proves nothing: %w", a[0], err)
			}
			if err := whose(got.Account); err != nil {
				return fmt.Errorf("%s is of account %s, %w", a[0], got.Account, err)
			}
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(map[string]any{"ok": true, "proven": got})
			}
			showProven(cmd, got, p.Genesis)
			return nil
		},
	}
	cmd.Flags().StringVar(&genesis, "genesis", "", "the cluster's genesis hash, 64 hex digits")
	cmd.Flags().StringVar(&wallet, "file", "", "a wallet file whose pinned genesis counts, and whose account it has to be")
	cmd.Flags().StringVar(&account, "account", "", "the account it has to be of")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	return cmd
}

// pinned are the genesis and the account that count: they come from the reader,
// never from the proof.
func pinned(text, wallet, account string) (h ledger.Hash, whose func(ledger.AccountID) error, err error) {
	if (text == "") == (wallet == "") {
		return h, nil, usagef("whose genesis counts? Say --genesis or --file, one of them")
	}
	whose = func(ledger.AccountID) error { return nil }
	if wallet != "" {
		w, err := client.LoadWallet(wallet)
		if err != nil {
			return h, nil, err
		}
		text = w.Pin().Genesis
		whose = func(got ledger.AccountID) error {
			for _, s := range []client.Signer{w.SignerBTC(), w.SignerP2TR(), w.SignerETH()} {
				if w.Pin().AccountOf(s.ID()) == got {
					return nil
				}
			}
			return fmt.Errorf("which no key of %s opens: name it with --account if one was linked to it", wallet)
		}
	}
	if account != "" {
		if _, err := client.ParseAccount(account); err != nil {
			return h, nil, &exitError{exitUsage, err}
		}
		whose = func(got ledger.AccountID) error {
			if got != account {
				return fmt.Errorf("not of %s", account)
			}
			return nil
		}
	}
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != len(h) {
		return h, nil, usagef("genesis %q: want 64 hex digits", text)
	}
	return ledger.Hash(b), whose, nil
}

func readProof(name string) (p ledger.AccountProof, err error) {
	info, err := os.Stat(name)
	if err != nil {
		return p, fmt.Errorf("read proof: %w", err)
	}
	if info.Size() > maxProof {
		return p, fmt.Errorf("read proof: %s has %d bytes, at most %d", name, info.Size(), maxProof)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return p, fmt.Errorf("read proof: %w", err)
	}
	var file client.Proof
	if err := json.Unmarshal(b, &file); err != nil {
		return p, fmt.Errorf("read proof %s: %w", name, err)
	}
	raw, err := hex.DecodeString(file.Proof)
	if err != nil {
		return p, fmt.Errorf("read proof %s: %w", name, err)
	}
	if err := ledger.Unmarshal(raw, &p); err != nil {
		return p, fmt.Errorf("read proof %s: %w", name, err)
	}
	return p, nil
}

func showProven(cmd *cobra.Command, got ledger.Proven, g ledger.Genesis) {
	out := cmd.OutOrStdout()
	fmt.Fprintf(out, "Account %s is one of %d that cluster %s counts at LogIndex %d.\n", got.Account, got.Accounts, g.ClusterName(), got.RootHeight)
	for _, x := range got.Pools {
		units := func(v string) string { return human(v, x.Decimals, x.Pool) }
		fmt.Fprintf(out, "%s: it is owed %s", x.Pool, units(x.Supplied.String()))
		if !x.Suspended.IsZero() {
			fmt.Fprintf(out, " and %s to be claimed", units(x.Suspended.String()))
		}
		fmt.Fprintf(out, ", included in liabilities of %s\n", units(x.Total.String()))
	}
	fmt.Fprintf(out, "Certified at LogIndex %d, head %s, by %d members of epoch %d.\n", got.Height, got.Head, got.Signers, got.Epoch)
}
