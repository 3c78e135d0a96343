package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/node"
	"github.com/coffer-network/coffer/node/api/client"
	"github.com/coffer-network/coffer/node/p2p"
	"github.com/spf13/cobra"
)

// drillOutput is what coffer node drill --json prints and coffer drilled reads.
type drillOutput struct {
	OK    bool             `json:"ok"`
	Drill node.DrillResult `json:"drill"`
}

func newNodeDrillCmd() *cobra.Command {
	var keys backupKeys
	var o node.DrillOptions
	var file string
	var peers []string
	var asJSON bool
	cmd := &cobra.Command{
		Use: "drill", Short: "Prove with m-1 other operators that backups can sign",
		Long: `Loads the KeyShares of a backup, not of the running node, and makes a test
signature of every key together with the operators named. All m of them run this
at the same time, each on a machine of his own with his own backup, and give the
drill the same name, never used before: one that failed needs another. What is signed begins with words
that no chain understands. Exit code 3: wrong passphrase. One of them then has his
node tell the ledger, with coffer drilled: until the next is due, status and alerts
are quiet.`,
		Example: `  coffer node drill --backup ./n1.backup --name 2026-05-01 --listen /ip4/127.0.0.1/tcp/9101 \
    --peer 8f…c2=/ip4/127.0.0.1/tcp/9102 --peer 41…0d=/ip4/127.0.0.1/tcp/9103`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, p := range peers {
				id, addr, ok := strings.Cut(p, "=")
				m, err := hex.DecodeString(id)
				if !ok || err != nil || len(m) != len(ledger.MemberID{}) {
					return usagef("peer %q: want MEMBER=MULTIADDR", p)
				}
				o.Peers = append(o.Peers, p2p.Peer{ID: p2p.ID(m), Addr: addr, Role: p2p.Member})
			}
			ids, err := keys.identities()
			if err != nil {
				return err
			}
			o.Log = slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelWarn}))
			res, err := node.Drill(cmd.Context(), file, o, ids...)
			if err != nil {
				return backupError(err)
			}
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(drillOutput{OK: true, Drill: res})
			}
			out := cmd.OutOrStdout()
			fmt.Fprintf(out, "quorum recoverable, epoch %d, %d of %d proven\ncluster  %s\ndrill    %s\n", res.Epoch, len(res.Took), res.N, res.Cluster, res.Name)
			for _, m := range res.Took {
				fmt.Fprintf(out, "node     %s\n", m)
			}
			for _, k := range res.Keys {
				fmt.Fprintf(out, "key      %s epoch %d signed %s: %s\n", k.Key, k.Epoch, k.Message, k.Signature)
			}
			return nil
		},
	}
	keys.bind(cmd)
	cmd.Flags().StringVar(&file, "backup", "", "the backup")
	cmd.Flags().StringVar(&o.Name, "name", "", "name of the drill, agreed and never used before")
	cmd.Flags().StringVar(&o.Listen, "listen", "", "multiaddr to be reached at by the others")
	cmd.Flags().StringSliceVar(&peers, "peer", nil, "MEMBER=MULTIADDR of another operator; repeat for all")
	cmd.Flags().DurationVar(&o.Wait, "wait", 2*time.Minute, "how long to wait for the others")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	for _, f := range []string{"backup", "name", "listen", "peer"} {
		_ = cmd.MarkFlagRequired(f)
	}
	return cmd
}

func newDrilledCmd() *cobra.Command {
	return controlCmd(&cobra.Command{
		Use: "drilled FILE", Short: "Have your node tell the ledger of a drill that was held",
		Long: `FILE is what coffer node drill --json printed, of any who took part. The ledger
checks the signatures in it against its keys and takes nobody's word: it refuses a
drill of key shares that are not in force, and one that it was told of before.`,
		Example: "  coffer node drill --backup ./n1.backup --name 2026-05-01 --json … > drill.json\n  coffer drilled drill.json --dir ./n1",
		Args:    args(cobra.ExactArgs(1)),
	}, func(ctx context.Context, s *session, c *client.Control, a []string) error {
		b, err := os.ReadFile(a[0])
		if err != nil {
			return usagef("drill: %v", err)
		}
		var held drillOutput
		if err := json.Unmarshal(b, &held); err != nil || held.Drill.Name == "" {
			return usagef("%s: not what coffer node drill --json prints", a[0])
		}
		d := client.Drilled{Name: held.Drill.Name, Signatures: map[string]string{}}
		for _, k := range held.Drill.Keys {
			d.Signatures[k.Key] = k.Signature
		}
		said, err := c.Drilled(ctx, d)
		if err != nil {
			return err
		}
		return s.showSaid(said)
	})
}
