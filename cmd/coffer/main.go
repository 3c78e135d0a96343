package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/coffer-network/coffer/node/api/client"
	"github.com/spf13/cobra"
)

const (
	exitFailed  = 1
	exitUsage   = 2
	exitUnknown = 4 // 3 is a wrong passphrase, of node start
	exitSignal  = 130
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := newRootCmd()
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	code := exitCode(ctx, err)
	var shown *shownError
	if asJSON, _ := cmd.Flags().GetBool("json"); asJSON && code != exitUsage && !errors.As(err, &shown) {
		printJSONError(cmd, err)
	}
	fmt.Fprintln(cmd.ErrOrStderr(), "coffer:", err)
	if code == exitUsage {
		fmt.Fprintf(cmd.ErrOrStderr(), "Try '%s --help'.\n", cmd.CommandPath())
	}
	return code
}

// exitError is an error that chooses its exit code.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

// shownError is an error whose JSON document is on standard output already.
type shownError struct{ err error }

func (e *shownError) Error() string { return e.err.Error() }
func (e *shownError) Unwrap() error { return e.err }

// usagef is an error in how a command was called.
func usagef(format string, args ...any) error {
	return &exitError{exitUsage, fmt.Errorf(format, args...)}
}

func exitCode(ctx context.Context, err error) int {
	var e *exitError
	switch {
	case errors.As(err, &e):
		return e.code
	case ctx.Err() != nil:
		return exitSignal
	}
	return exitFailed
}

// printJSONError is the last line of standard output of a failed command.
func printJSONError(cmd *cobra.Command, err error) {
	var p *client.Problem
	if !errors.As(err, &p) {
		p = &client.Problem{Title: err.Error()}
	}
	json.NewEncoder(cmd.OutOrStdout()).Encode(map[string]any{"ok": false, "error": p}) // stdout gone: nothing to do
}

func newRootCmd() *cobra.Command {
	root := &cobra.Command{
		Use:   "coffer",
		Short: "Lend and borrow across native chains, without one keyholder",
		Long: `Coffer lends across native chains. A committee of nodes holds key shares; m of n
of them must each decide, from their own copy of the ledger, that a payment is
owed before a signature for it can exist.

Exit codes: 0 done; 1 refused or failed; 2 used wrongly; 4 posted, outcome not
known yet (send it again: a request counts once); 130 interrupted.

Environment: COFFER_API is the default of --api, COFFER_WALLET of --file.`,
		Example: `  coffer testnet --demo
  coffer wallet new --api http://127.0.0.1:7001
  coffer account open
  coffer deposit-address btc
  coffer borrow 15000 usdt.eth --to 0x71C7656EC7ab88b098defB751B7401B5f6d8976F`,
		SilenceErrors: true, SilenceUsage: true,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &exitError{exitUsage, err} })
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(
		newWalletCmd(), newAccountCmd(), newDepositAddressCmd(),
		newBorrowCmd(), newWithdrawCmd(), newClaimCmd(), newRepayFromSupplyCmd(), newOpenLoanCmd(), newCancelCmd(), newPayoutListCmd(),
		newLiquidateCmd(), newLiquidatorCmd(), newCoverDeficitCmd(),
		newPositionCmd(), newMarketsCmd(), newOutflowCmd(), newInflowCmd(), newRequestCmd(), newExplainCmd(), newStatusCmd(),
		newActivitiesCmd(), newHistoryCmd(), newWatchCmd(), newShowCmd(), newProofCmd(), newVerifyProofCmd(),
		newVotesCmd(), newVoteCmd(), newPauseCmd(), newResumeCmd(), newWeighCmd(), newDrilledCmd(), newKeyCmd(),
		newNodeCmd(), newTestnetCmd(), newBenchCmd(), newChaosCmd(),
	)
	return root
}

// args makes a wrong number of arguments a usage error.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, a []string) error {
		if err := check(cmd, a); err != nil {
			return &exitError{exitUsage, err}
		}
		return nil
	}
}
