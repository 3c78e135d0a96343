package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/coffer-network/coffer/testnet"
	"github.com/spf13/cobra"
)

func newChaosCmd() *cobra.Command {
	var c testnet.Chaos
	var asJSON bool
	cmd := &cobra.Command{
		Use: "chaos", Short: "Try a local cluster with crashes, partitions, a full disk and a traitor",
		Long: `Runs four nodes on real chain nodes under signed requests, borrows and
withdrawals among them, and does to one node at a time what may befall it:
SIGKILL, SIGSTOP, restart, a leader's handing over, a cut network, a full disk, a member that lies. What
needs root is skipped without it, with the reason.

The verdict rests on the chains themselves and on what all nodes say at rest:
no acknowledged request lost, no payment twice or unowed, one chain of heads,
custody not below what is owed, a linearizable history. Exit code 1 on a breach;
with --json the last line is the report (spec: consensus §13). The same seed
plans the same faults; when they hit what is the machine's.`,
		Example: "  coffer chaos --seed 7 --duration 5m --json\n  coffer chaos --duration 60s --untimed",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			out := cmd.OutOrStdout()
			c.Say = io.Writer(out)
			if asJSON {
				c.Say = cmd.ErrOrStderr()
			}
			if c.Self, err = os.Executable(); err != nil {
				return err
			}
			c.Progress = testnet.NewProgress(cmd.ErrOrStderr())
			c.Log = slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelError}))
			r, err := c.Run(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				err = json.NewEncoder(out).Encode(r)
			} else {
				err = printChaos(out, r)
			}
			if err == nil && !r.OK {
				err = &shownError{errors.New("chaos: a goal is missed, see the report")}
			}
			return err
		},
	}
	f := cmd.Flags()
	f.Uint64Var(&c.Seed, "seed", 1, "what the faults are planned from")
	f.DurationVar(&c.Duration, "duration", 2*time.Minute, "of load and faults")
	f.IntVar(&c.RaftMillis, "raft-millis", 300, "heartbeat and election timeout of the nodes")
	f.BoolVar(&c.Untimed, "untimed", false, "report times without judging them: the machine has other work")
	f.BoolVar(&asJSON, "json", false, "print the report as one JSON document on the last line")
	return cmd
}

func printChaos(w io.Writer, r testnet.ChaosReport) error {
	kinds := make([]string, 0, len(r.Faults))
	for k, n := range r.Faults {
		kinds = append(kinds, fmt.Sprintf("%s %d", k, n))
	}
	slices.Sort(kinds)
	_, err := fmt.Fprintf(w, `
faults                 %v, skipped %v
acknowledged           %d, lost %d
double payments        %d
diverging heads        %d of %d compared
solvent                %v
leader kill            p50 %.0f ms, max %.0f ms
leader hands over      p50 %.0f ms, max %.0f ms
payouts signed         %.0f %%, p99 %.1f s
linearizable           %v
leaks                  %d
ok                     %v
`, kinds, r.Detail.Skipped, r.Acknowledged, r.AcknowledgedLost, r.DoublePayments, r.HeadDivergence, r.Detail.Compared, r.Solvent,
		r.LeaderKillMS.P50, r.LeaderKillMS.Max, r.Detail.HandoverMS.P50, r.Detail.HandoverMS.Max, r.SignCompletedPercent, r.SignP99Seconds, r.Linearizable, r.Leaks, r.OK)
	return err
}
