package main

import (
	"strconv"
	"strings"

	"github.com/coffer-network/coffer/node/api/client"
	"github.com/spf13/cobra"
)

// What operators propose about payouts and coins (spec: committee §9).

func newVoteHoldCmd() *cobra.Command {
	var p client.Proposal
	cmd := proposeCmd(&cobra.Command{
		Use: "leave-hold BATCH paid|refund|requeue|resume", Short: "Propose what a batch on HOLD came to",
		Long: `A batch on HOLD leaves it by Q members who name the outcome; it waits an hour.

paid     it was paid: --txid says by what; --body and --height which of the
         batch's own transactions and in which block, where it was one of them
refund   it was not, and never can be: --txid is what consumed its anchor
requeue  the same, and it is paid again, from another anchor
resume   nothing is known: it goes on under the anchor that it has

Refund and requeue are possible only where the anchor is gone for good; the
ledger knows why the batch is held, and refuses the others.`,
		Example: "  coffer vote leave-hold 17 requeue --txid 9f2c… --text 'see the incident report' --dir ./n1",
		Args:    args(cobra.ExactArgs(2)),
	}, false, func(_ string, a []string) (client.Proposal, error) {
		p.Kind, p.Outcome = "leave-hold", a[1]
		return batchOf(p, a[0])
	})
	f := cmd.Flags()
	f.Uint64Var(&p.Outflow, "outflow", 0, "only this payout of the batch")
	f.StringVar(&p.TxID, "txid", "", "the transaction that decides")
	f.Uint64Var(&p.Body, "body", 0, "paid: which of the batch's transactions, as coffer outflow shows it")
	f.Uint64Var(&p.Height, "height", 0, "paid, on Bitcoin: the block of that transaction")
	f.StringVar(&p.Fee, "fee", "", "on Ethereum: wei that the chain took of our sender")
	return cmd
}

func newVoteCancelCmd() *cobra.Command {
	return proposeCmd(&cobra.Command{
		Use: "cancel BATCH refund|requeue", Short: "Propose to spend a batch's anchor back to the vault",
		Long: `The cancel and the payment spend the same coin, so one of them stands. If it is the
cancel, the payouts are given back, or queued again; if it is the payment, they
are paid.`,
		Example: "  coffer vote cancel 17 refund --text 'the payee cannot be paid' --dir ./n1",
		Args:    args(cobra.ExactArgs(2)),
	}, false, func(_ string, a []string) (client.Proposal, error) {
		return batchOf(client.Proposal{Kind: "cancel", Outcome: a[1]}, a[0])
	})
}

func batchOf(p client.Proposal, text string) (client.Proposal, error) {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil || n == 0 {
		return p, usagef("batch %q: want a number", text)
	}
	p.Batch = n
	return p, nil
}

func newVoteTopUpCmd() *cobra.Command {
	return proposeCmd(&cobra.Command{
		Use: "top-up SATS", Short: "Propose that the minter advances coins to the pool vault",
		Long: `Moves coins between our own vaults, in advance of what the pool vault will front:
its next payouts are paid back already.`,
		Example: "  coffer vote top-up 2000000 --text 'small payouts wait' --dir ./n1",
		Args:    args(cobra.ExactArgs(1)),
	}, false, func(_ string, a []string) (client.Proposal, error) {
		return client.Proposal{Kind: "top-up", Amount: a[0]}, nil
	})
}

func newVoteFloatCmd() *cobra.Command {
	return proposeCmd(&cobra.Command{
		Use: "float btc TXID:VOUT SATS | float gas ADDRESS WEI", Short: "Propose to book what operators brought",
		Long: `A coin at the pool vault's address becomes its float once a quorum sees it final;
it must be less than a week old. Wei at a vault's address become gas once they have arrived: before members have
seen them in a final block ("nobody's" in coffer status) the vote is NOT_ARRIVED.`,
		Example: "  coffer vote float btc 3b1f…:0 5000000 --text 'float of May' --dir ./n1\n  coffer vote float gas 0x71C7… 1000000000000000000 --text 'gas of May' --dir ./n1",
		Args:    args(cobra.ExactArgs(3)),
	}, false, func(_ string, a []string) (client.Proposal, error) {
		switch a[0] {
		case "btc":
			return client.Proposal{Kind: "btc-float", Coin: a[1], Amount: a[2]}, nil
		case "gas":
			return client.Proposal{Kind: "gas-float", Address: a[1], Amount: a[2]}, nil
		}
		return client.Proposal{}, usagef("%q: want btc or gas", a[0])
	})
}

func newVoteBookCmd() *cobra.Command {
	return proposeCmd(&cobra.Command{
		Use: "book TXID:VOUT SATS | book ASSET UNITS", Short: "Propose to book what a stranger sent to a vault",
		Long: `Members agree twice, a day apart; a day after that the coin becomes the treasury's,
once a quorum sees it final at a vault's address. On Ethereum, where coins have no
names, ASSET is one of the pools, and at most as much as coffer status shows to be
nobody's becomes the treasury's; ETH at the gas vault is better booked as a float.`,
		Example: "  coffer vote book 3b1f…:1 120000 --text 'sent by mistake, unclaimed for a month' --dir ./n1",
		Args:    args(cobra.ExactArgs(2)),
	}, false, func(_ string, a []string) (client.Proposal, error) {
		if !strings.Contains(a[0], ":") {
			return client.Proposal{Kind: "book", Asset: a[0], Amount: a[1]}, nil
		}
		return client.Proposal{Kind: "book", Coin: a[0], Amount: a[1]}, nil
	})
}
