package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/node"
	"github.com/coffer-network/coffer/node/api/client"
	"github.com/spf13/cobra"
)

func newNodeJoinCmd() *cobra.Command {
	var f nodeFlags
	var o node.JoinOptions
	var from []string
	var hash, operator, addr string
	cmd := &cobra.Command{
		Use: "join", Short: "Make a node that is to join a running cluster",
		Long: `Gets the genesis from a running node, checks it against the hash that another
operator told you (sha256sum genesis.cbor in the directory of his node; ask more
than one), makes identity and keystore, and prints the line that Q operators have to vote for:
coffer vote admit, or coffer vote replace for a dead node.

--checkpoint pins the cluster's history: ask f+1 operators what coffer status shows
as checkpoint, and give each. From the genesis alone a node believes one committee
after the other by its signatures, and members who left long ago may have sold their
keys. Until it has reached all of them the node vouches for nothing, and where one
differs it refuses what it is sent, or stops.

The node starts as a follower: it gets the log, holds no key share, and what it
says does not count. Once the vote has passed and its first quarantine is over, the
keys are reshared to the members with it, and no address changes.

--config names a node.toml with your chain endpoints and price venues; without it
one is written for you to fill in.`,
		Example: "  coffer node join --dir ./n5 --from http://127.0.0.1:7001 --genesis 9f2c… --name node-5 --operator 'Eve' --listen /ip4/10.0.0.5/tcp/7105 --api 127.0.0.1:7005",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			hash = strings.ToLower(hash)
			if b, err := hex.DecodeString(hash); err != nil || len(b) != 32 {
				return usagef("--genesis %q: want the SHA-256 of genesis.cbor in hex, as another operator told you", hash)
			}
			if err := o.Check(); err != nil {
				return usagef("%w", err)
			}
			if addr == "" {
				addr = o.Listen
			}
			line := client.Newcomer{Name: o.Name, Operator: operator, Addr: addr}
			genesis, peers, err := genesisFrom(cmd.Context(), from, hash)
			if err != nil {
				return err
			}
			if o.Passphrase, err = f.read(true); err != nil {
				return err
			}
			defer clear(o.Passphrase)
			o.Dir, o.Genesis, o.Peers = f.dir, genesis, peers
			id, cluster, err := node.Join(o)
			if err != nil {
				return err
			}
			line.ID = id.String()
			if f.json {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(map[string]any{"ok": true, "seat": line, "genesis": cluster.String(), "dir": f.dir})
			}
			out := cmd.OutOrStdout()
			fmt.Fprintln(out, "member ", id)
			fmt.Fprintln(out, "genesis", cluster)
			fmt.Fprintf(out, "vote    coffer vote admit %s --name %s --operator %s --addr %s --text 'why' --dir ./n1\n", id, quoted(line.Name), quoted(line.Operator), line.Addr)
			fmt.Fprintf(out, "next    coffer node start --dir %s --check, then without --check; give the vote line to the other operators\n", f.dir)
			return nil
		},
	}
	f.bind(cmd)
	fs := cmd.Flags()
	fs.StringArrayVar(&from, "from", nil, "API address of a running node; more than one: the first that answers")
	fs.StringVar(&hash, "genesis", "", "SHA-256 of the genesis in hex, told by another operator")
	fs.StringArrayVar(&o.Checkpoints, "checkpoint", nil, "HEIGHT:HEAD from the coffer status of another operator's node; more than one: all must hold")
	fs.StringVar(&o.Name, "name", "", "name of the new member, for people")
	fs.StringVar(&operator, "operator", "", "who runs it: one operator holds one seat")
	fs.StringVar(&o.Listen, "listen", "", "multiaddr of its peer port, such as /ip4/10.0.0.5/tcp/7105")
	fs.StringVar(&addr, "addr", "", "multiaddr where the others reach it (default --listen)")
	fs.StringVar(&o.API, "api", "127.0.0.1:7001", "host:port of its public API")
	fs.StringVar(&o.Model, "config", "", "a node.toml with chain endpoints and price venues")
	for _, name := range []string{"from", "genesis", "name", "operator", "listen"} {
		_ = cmd.MarkFlagRequired(name)
	}
	return cmd
}

func genesisFrom(ctx context.Context, from []string, hash string) (genesis []byte, peers []ledger.Member, err error) {
	var errs []error
	for _, base := range from {
		c, err := client.New(base, nil)
		if err != nil {
			return nil, nil, err
		}
		cbor, lines, err := c.Genesis(ctx, hash)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, l := range lines {
			m := ledger.Member{Name: l.Name, Operator: l.Operator, Addr: l.Addr}
			if err := m.ID.UnmarshalText([]byte(l.ID)); err != nil {
				return nil, nil, fmt.Errorf("member of %s: %w", base, err)
			}
			peers = append(peers, m)
		}
		return cbor, peers, nil
	}
	return nil, nil, errors.Join(errs...)
}

// quoted is a word for a shell, quoted where it needs to be.
func quoted(s string) string {
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_.:/@+", r))
	}) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

func newNodeLeaveCmd() *cobra.Command {
	return controlCmd(&cobra.Command{
		Use: "leave", Short: "Give up this node's seat",
		Long: `Has the running node in --dir say that it leaves. The keys are reshared to the
others, with this node's help, and only then it is out: let it run until
coffer status says that it holds no seat. n falls by one; where m or f would have to
fall too, the others vote to evict it instead.`,
		Example: "  coffer node leave --dir ./n1",
		Args:    args(cobra.NoArgs),
	}, func(ctx context.Context, s *session, c *client.Control, _ []string) error {
		said, err := c.Leave(ctx)
		if err != nil {
			return err
		}
		return s.showSaid(said)
	})
}
