package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/node"
	"github.com/pelletier/go-toml/v2"
	"github.com/spf13/cobra"
)

// newNodeGenesisCmd shows a genesis as TOML, and makes one from it. Operators
// agree on the file, each makes it, and compares the cluster string.
func newNodeGenesisCmd() *cobra.Command {
	var dir, from string
	var asJSON bool
	cmd := &cobra.Command{
		Use: "genesis", Short: "Show a genesis, or make one from an edited text",
		Long: `Without --from it prints the genesis of --dir as TOML: the one of a testnet is
the model to edit (members, m, f, chains, assets, pools, parameters). With --from
it checks such a text and writes genesis.cbor into --dir; a pool without an outflow
cap gets 5 % of custody an hour and 20 % a day. Every operator makes
the same file: the printed cluster string must be equal everywhere.`,
		Example: "  coffer node genesis --dir ./net/node-1 > genesis.toml\n  coffer node genesis --from genesis.toml --dir ./n1",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if from == "" {
				g, err := node.LoadGenesis(dir)
				if err != nil {
					return err
				}
				if asJSON {
					return json.NewEncoder(cmd.OutOrStdout()).Encode(g)
				}
				return toml.NewEncoder(cmd.OutOrStdout()).SetIndentTables(true).Encode(g)
			}
			g, err := readGenesis(from)
			if err != nil {
				return err
			}
			if err := node.SaveGenesis(dir, g); err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(map[string]any{"ok": true, "cluster": g.ClusterName(), "genesis": g.Hash()})
			}
			describeEpoch(cmd.OutOrStdout(), g)
			return nil
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", "the node's directory")
	cmd.Flags().StringVar(&from, "from", "", "TOML file to make the genesis from")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	_ = cmd.MarkFlagRequired("dir") // the flag exists: it was bound above
	return cmd
}

func readGenesis(path string) (ledger.Genesis, error) {
	var g ledger.Genesis
	f, err := os.Open(path)
	if err != nil {
		return g, fmt.Errorf("read genesis: %w", err)
	}
	defer f.Close()
	err = toml.NewDecoder(f).DisallowUnknownFields().Decode(&g)
	var strict *toml.StrictMissingError
	if errors.As(err, &strict) {
		return g, fmt.Errorf("read %s: unknown key:\n%s", path, strict.String())
	}
	if err != nil {
		return g, fmt.Errorf("read %s: %w", path, err)
	}
	for i := range g.Pools {
		p := &g.Pools[i]
		if p.CapHourBps == 0 && p.CapDayBps == 0 && p.CapHour.IsZero() && p.CapDay.IsZero() {
			p.CapHourBps, p.CapDayBps = ledger.DefaultCapHourBps, ledger.DefaultCapDayBps
		}
	}
	// The order is a rule of the encoding, not something to be edited by hand.
	slices.SortFunc(g.Epoch.Members, func(a, b ledger.Member) int { return slices.Compare(a.ID[:], b.ID[:]) })
	return g, nil
}

// describeEpoch says in words who must sign and who may fail.
func describeEpoch(out io.Writer, g ledger.Genesis) {
	e := g.Epoch
	fmt.Fprintf(out, "cluster  %s\n", g.ClusterName())
	fmt.Fprintf(out, "members  %d; %d must sign together, %d may be traitors, %d may be silent while outflows go on\n", e.N(), e.M, e.F, e.C())
	for _, m := range e.Members {
		fmt.Fprintf(out, "         %s  %s  %s\n", m.Name, m.ID.String()[:16], m.Addr)
	}
	for _, p := range g.Pools {
		fmt.Fprintf(out, "caps     %s: %s may leave in an hour, %s in a day\n", p.Asset, capOf(p.CapHourBps, p.CapHour.String()), capOf(p.CapDayBps, p.CapDay.String()))
	}
}

// capOf is an outflow cap in words.
func capOf(bps uint64, most string) string {
	share := fmt.Sprintf("%d.%02d %% of custody", bps/100, bps%100)
	switch {
	case bps == 0 && most == "0":
		return "everything"
	case bps == 0:
		return most + " base units"
	case most == "0":
		return share
	}
	return share + ", at most " + most + " base units,"
}
