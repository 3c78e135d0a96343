package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"

	"github.com/coffer-network/coffer/testnet"
	"github.com/spf13/cobra"
)

func newTestnetCmd() *cobra.Command {
	var o testnet.Options
	var demo, asJSON bool
	cmd := &cobra.Command{
		Use: "testnet", Short: "Run a local network on real chain nodes",
		Long: `Starts, each as a process of its own and on loopback alone: the Coffer nodes, a
Bitcoin node on regtest and an Ethereum node in dev mode; mines Bitcoin blocks,
serves the price feed, and waits until the cluster can lend. Ctrl-C stops all of
it and keeps --dir, with which the network goes on where it stopped. Nodes may be
killed and started again meanwhile: see stop and start.

--demo then carries the worked example, deposit to withdrawal, and exits 0 only
if every step was seen on the chains themselves.`,
		Example: `  coffer testnet
  coffer testnet --demo --json
  coffer testnet --dir ./net --nodes 4 --threshold 3 --traitors 1`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			out := cmd.OutOrStdout()
			say := io.Writer(out)
			if asJSON {
				say = cmd.ErrOrStderr()
			}
			if o.Self, err = os.Executable(); err != nil {
				return err
			}
			if o.Dir == "" {
				if o.Dir, err = os.MkdirTemp("", "coffer-testnet-"); err != nil {
					return err
				}
			}
			o.Progress = testnet.NewProgress(cmd.ErrOrStderr())
			o.Log = slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelWarn}))
			n, err := testnet.Start(cmd.Context(), o)
			if err != nil {
				return err
			}
			defer func() {
				n.Stop()
				fmt.Fprintf(cmd.ErrOrStderr(), "stopped; go on with: coffer testnet --dir %s\n", n.Dir)
			}()
			if !demo {
				n.Describe(say)
				return n.Wait(cmd.Context(), cmd.ErrOrStderr())
			}
			r, err := n.Demo(cmd.Context(), say)
			r.OK = err == nil
			if !asJSON {
				r.Print(out)
			} else if e := json.NewEncoder(out).Encode(r); e != nil {
				return e
			}
			if err != nil {
				return &shownError{fmt.Errorf("demo: %w", err)}
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Dir, "dir", "", "data directory, resumed if it holds a network (default a fresh temporary folder)")
	f.IntVar(&o.N, "nodes", 4, "number of nodes")
	f.IntVar(&o.M, "threshold", 3, "members that must sign together")
	f.IntVar(&o.F, "traitors", 1, "members that may be traitors")
	f.BoolVar(&o.NoFaultTolerance, "no-fault-tolerance", false, "allow a threshold of all nodes")
	f.IntVar(&o.APIPort, "api-port", 0, "port of the first node's API, the others follow (0: any)")
	f.BoolVar(&demo, "demo", false, "carry the worked example and stop")
	f.BoolVar(&asJSON, "json", false, "with --demo: print the result as one JSON document on the last line")
	cmd.AddCommand(newFaucetCmd(), newPriceCmd(), newMineCmd(), newStopCmd(), newStartCmd(), newEthNodeCmd())
	return cmd
}

// newEthNodeCmd is the testnet's Ethereum node, a process of its own.
func newEthNodeCmd() *cobra.Command {
	return &cobra.Command{
		Use: "ethnode", Hidden: true, DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, a []string) error { return testnet.EthNodeMain(cmd.Context(), a) },
	}
}

type controlFlags struct {
	dir  string
	json bool
}

func (c *controlFlags) bind(cmd *cobra.Command) {
	cmd.Flags().StringVar(&c.dir, "dir", "", "directory of the running testnet, as it printed")
	cmd.Flags().BoolVar(&c.json, "json", false, "print one JSON document")
	_ = cmd.MarkFlagRequired("dir")
}

func (c *controlFlags) print(cmd *cobra.Command, text string, doc map[string]any) error {
	if c.json {
		doc["ok"] = true
		return json.NewEncoder(cmd.OutOrStdout()).Encode(doc)
	}
	_, err := fmt.Fprintln(cmd.OutOrStdout(), text)
	return err
}

func newFaucetCmd() *cobra.Command {
	var c controlFlags
	cmd := &cobra.Command{
		Use: "faucet ASSET ADDRESS AMOUNT", Short: "Send test coins",
		Example: "  coffer testnet faucet BTC bcrt1q… 1 --dir ./net\n  coffer testnet faucet USDT 0x71C7… 50000 --dir ./net",
		Args:    args(cobra.ExactArgs(3)),
		RunE: func(cmd *cobra.Command, a []string) error {
			ctl, err := testnet.DialControl(c.dir)
			if err != nil {
				return err
			}
			tx, err := ctl.Faucet(cmd.Context(), testnet.FaucetRequest{Asset: a[0], Address: a[1], Amount: a[2]})
			if err != nil {
				return err
			}
			return c.print(cmd, "sent in "+tx, map[string]any{"txid": tx})
		},
	}
	c.bind(cmd)
	return cmd
}

func newPriceCmd() *cobra.Command {
	var c controlFlags
	cmd := &cobra.Command{
		Use: "price ASSET USD", Short: "Set a price of the feed",
		Example: "  coffer testnet price BTC 30000 --dir ./net",
		Args:    args(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, a []string) error {
			ctl, err := testnet.DialControl(c.dir)
			if err != nil {
				return err
			}
			if err := ctl.SetPrice(cmd.Context(), a[0], a[1]); err != nil {
				return err
			}
			return c.print(cmd, a[0]+" is "+a[1]+" USD in the next price round", map[string]any{"asset": a[0], "price": a[1]})
		},
	}
	c.bind(cmd)
	return cmd
}

func newStopCmd() *cobra.Command {
	var c controlFlags
	var kill bool
	cmd := &cobra.Command{
		Use: "stop NODE", Short: "End a node; the others go on",
		Example: "  coffer testnet stop node-4 --dir ./net\n  coffer testnet stop node-4 --kill --dir ./net",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			ctl, err := testnet.DialControl(c.dir)
			if err != nil {
				return err
			}
			if err := ctl.StopNode(cmd.Context(), a[0], kill); err != nil {
				return err
			}
			return c.print(cmd, a[0]+" has ended", map[string]any{"node": a[0], "killed": kill})
		},
	}
	c.bind(cmd)
	cmd.Flags().BoolVar(&kill, "kill", false, "with SIGKILL, as a crash would")
	return cmd
}

func newStartCmd() *cobra.Command {
	var c controlFlags
	cmd := &cobra.Command{
		Use: "start NODE", Short: "Start a node that ended",
		Example: "  coffer testnet start node-4 --dir ./net",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			ctl, err := testnet.DialControl(c.dir)
			if err != nil {
				return err
			}
			if err := ctl.StartNode(cmd.Context(), a[0]); err != nil {
				return err
			}
			return c.print(cmd, a[0]+" answers", map[string]any{"node": a[0]})
		},
	}
	c.bind(cmd)
	return cmd
}

func newMineCmd() *cobra.Command {
	var c controlFlags
	cmd := &cobra.Command{
		Use: "mine [BLOCKS]", Short: "Mine Bitcoin blocks now",
		Example: "  coffer testnet mine 6 --dir ./net",
		Args:    args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			blocks := 1
			if len(a) == 1 {
				var err error
				if blocks, err = strconv.Atoi(a[0]); err != nil {
					return usagef("%q is no number of blocks", a[0])
				}
			}
			ctl, err := testnet.DialControl(c.dir)
			if err != nil {
				return err
			}
			h, err := ctl.Mine(cmd.Context(), blocks)
			if err != nil {
				return err
			}
			return c.print(cmd, fmt.Sprintf("height %d", h), map[string]any{"height": h})
		},
	}
	c.bind(cmd)
	return cmd
}
