package main

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"text/tabwriter"
	"time"

	"github.com/coffer-network/coffer/testnet"
	"github.com/spf13/cobra"
)

func newBenchRequestsCmd() *cobra.Command {
	var b testnet.RequestBench
	var asJSON bool
	cmd := &cobra.Command{
		Use: "requests", Short: "Compare signed requests a second with etcd, rqlite and raft alone",
		Long: `Measures, in turn in one run and each with the machine to itself: signed requests
through the public port of a cluster of three nodes; puts of as many bytes into
etcd (its own client, gRPC) and rqlite (HTTP), three members each; and raft with
commands that do nothing, on the node's store. Clients wait for each answer.

The request is "Require payout list", yes and no in turn, one account a client:
it is accepted and changes the ledger each time. Wallets (Solana's, unless
--wallet says otherwise: what checking a signature costs three nodes is a large
part of the whole) sign before the clock runs. etcd and rqlite are built once, at pinned versions, which takes minutes.

Goals at 64 clients: 1.0 of etcd, 2 of rqlite, 0.6 of raft.`,
		Example: "  coffer bench requests --json\n  coffer bench requests --duration 1s --rounds 1 --clients 1,64 --without rqlite",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if b.Self, err = os.Executable(); err != nil {
				return err
			}
			b.Progress = testnet.NewProgress(cmd.ErrOrStderr())
			b.Log = slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelWarn}))
			f, err := b.Run(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(f)
			}
			t := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 4, 2, ' ', 0)
			fmt.Fprintf(t, "CLIENTS\tCOFFER/S\tETCD/S\tRQLITE/S\tRAFT/S\n")
			for _, r := range f.Rows {
				fmt.Fprintf(t, "%d\t%.0f\t%.0f\t%.0f\t%.0f\n", r.Clients, r.Coffer, r.Etcd, r.Rqlite, r.Raft)
			}
			return t.Flush()
		},
	}
	f := cmd.Flags()
	f.IntSliceVar(&b.Clients, "clients", []int{1, 64, 256}, "clients at once, one row each")
	f.DurationVar(&b.Duration, "duration", 5*time.Second, "of one measurement")
	f.IntVar(&b.Rounds, "rounds", 3, "rounds of all measurements; the median counts")
	f.StringVar(&b.Wallet, "wallet", "solana", "which wallet signs: solana (Ed25519), eth (EIP-191), btc or p2tr (BIP-322)")
	f.StringSliceVar(&b.Without, "without", nil, "leave out etcd or rqlite")
	f.BoolVar(&asJSON, "json", false, "print one JSON document on the last line")
	return cmd
}
