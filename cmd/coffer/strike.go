package main

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/coffer-network/coffer/node"
	"github.com/coffer-network/coffer/tss/keystore"
	"github.com/spf13/cobra"
)

func newNodeStrikeCmd() *cobra.Command {
	var f nodeFlags
	cmd := &cobra.Command{
		Use: "strike HEIGHT:SHA256", Short: "Sign that a command which ends every node is not to be executed",
		Long: `The last resort where a command of the log ends every process that applies it, so that
no node comes up again. The node says at its start which command it did not finish;
compare it with other operators', since all nodes end at the same one.

Prints this operator's signature. With those of Q members node.toml of every node gets

    [[strike]]
    command = "HEIGHT:SHA256"
    signatures = ["MEMBER:SIGNATURE", …]

and the nodes start again: the command comes to BROKEN, it changes nothing, and payouts
halt until a vote. Keep the lines: a node that replays the log needs them again.`,
		Example: "  coffer node strike --dir ./n1 4711:9f2c…",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			pass, err := f.read(false)
			if err != nil {
				return err
			}
			defer clear(pass)
			line, err := node.SignStrike(f.dir, pass, a[0])
			if errors.Is(err, keystore.ErrPassphrase) {
				return &exitError{exitPassphrase, err}
			}
			if err != nil {
				return err
			}
			if f.json {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(map[string]any{"ok": true, "command": a[0], "signature": line})
			}
			fmt.Fprintln(cmd.OutOrStdout(), line)
			return nil
		},
	}
	f.bind(cmd)
	return cmd
}
