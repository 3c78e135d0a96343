package main

import (
	"encoding/json"
	"fmt"

	"github.com/coffer-network/coffer/testnet"
	"github.com/spf13/cobra"
)

func newBenchCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "bench", Short: "Measure, both sides in one run",
		Example: "  coffer bench sign --json\n  coffer bench requests --json",
		Args:    args(cobra.NoArgs),
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newBenchSignCmd(), newBenchRequestsCmd())
	return cmd
}

func newBenchSignCmd() *cobra.Command {
	var b testnet.SignBench
	var asJSON bool
	cmd := &cobra.Command{
		Use: "sign", Short: "Compare a cluster's signature and pre-parameters with the library alone",
		Long: `Measures, in turn in one run: an ECDSA signature of m members over loopback with
everything a node does for it, a child process for each member's session
included, against the same without child processes and against the same signing
by tss-lib alone in one process; pre-parameters made here against the library's
generator; and, where members are left for another turn, what a member that dies
adds to a signature. Ratios below 1.15 (CPU), 1.5 (wall) and 0.25 (pre-parameters)
are the goals, and less than 2 s for a dead member.`,
		Example: "  coffer bench sign --json\n  coffer bench sign --rounds 10 --library 2",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			b.Progress = testnet.NewProgress(cmd.ErrOrStderr())
			f, err := b.Run(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(f)
			}
			out := cmd.OutOrStdout()
			fmt.Fprintf(out, "%d of %d members, %d cores, %d rounds in turn\n", f.M, f.N, f.Cores, f.Rounds)
			fmt.Fprintf(out, "signature      cluster %.2f s CPU, library %.2f s CPU, ratio %.2f (goal 1.15)\n", mean(f.ClusterCPU), mean(f.LibraryCPU), f.CPURatio)
			fmt.Fprintf(out, "               cluster %.2f s wall, library %.2f s wall, ratio %.2f (goal 1.5)\n", mean(f.ClusterWall), mean(f.LibraryWall), f.WallRatio)
			fmt.Fprintf(out, "child process  %.2f s CPU without, ratio %.2f; %.2f s wall without, ratio %.2f\n", mean(f.InProcessCPU), f.ChildCPURatio, mean(f.InProcessWall), f.ChildWallRatio)
			if len(f.MuteAdds) > 0 {
				fmt.Fprintf(out, "a dead member  adds %.2f s where it joins nothing, %.2f s where it is killed in mid-session (goal 2)\n", mean(f.MuteAdds), mean(f.KilledAdds))
			}
			if b.Library > 0 {
				fmt.Fprintf(out, "pre-parameters ours %.1f s CPU, library %.1f s CPU, ratio %.2f (goal 0.25)\n", mean(f.PreParams), mean(f.PreParamsOther), f.PreParamsRatio)
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.IntVar(&b.N, "nodes", 4, "members")
	f.IntVar(&b.M, "threshold", 3, "members that sign together")
	f.IntVar(&b.Rounds, "rounds", 5, "signatures of each side")
	f.IntVar(&b.Library, "library", 2, "sets of pre-parameters by the library's generator (about 50 CPU seconds each; 0: none)")
	f.BoolVar(&asJSON, "json", false, "print one JSON document on the last line")
	return cmd
}

func mean(xs []float64) float64 {
	var s float64
	for _, x := range xs {
		s += x
	}
	return s / float64(max(len(xs), 1))
}
