package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/node"
	"github.com/coffer-network/coffer/tss/keystore"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// exitPassphrase: the passphrase does not open the keystore. No retry loop.
const exitPassphrase = 3

func newNodeCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "node", Short: "Run one member of a cluster",
		Example: "  coffer node init --dir ./n1\n  coffer node start --dir ./n1 --check",
		Args:    args(cobra.NoArgs),
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newNodeInitCmd(), newNodeGenesisCmd(), newNodeStartCmd(), newNodeBackupCmd(), newNodeRestoreCmd(), newNodeDrillCmd(), newNodeJoinCmd(), newNodeLeaveCmd(), newNodeStrikeCmd())
	return cmd
}

type nodeFlags struct {
	dir, passphrase string
	json            bool
}

func (f *nodeFlags) bind(cmd *cobra.Command) {
	f.bindOptional(cmd)
	_ = cmd.MarkFlagRequired("dir") // the flag exists: it was bound above
}

func (f *nodeFlags) bindOptional(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.dir, "dir", "", "the node's directory")
	cmd.Flags().StringVar(&f.passphrase, "passphrase-file", "", "file with the keystore's passphrase, mode 0600 (else asked on the terminal)")
	cmd.Flags().BoolVar(&f.json, "json", false, "print one JSON document")
}

func newNodeInitCmd() *cobra.Command {
	var f nodeFlags
	cmd := &cobra.Command{
		Use: "init", Short: "Make this machine's identity and keystore",
		Long: `Makes the identity key and the encrypted keystore of a new node and prints its
member id, which goes into the genesis. The passphrase is asked twice, or read
from --passphrase-file; it is never a flag and never in the environment.`,
		Example: "  coffer node init --dir ./n1",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			pass, err := f.read(true)
			if err != nil {
				return err
			}
			defer clear(pass)
			id, err := node.Init(f.dir, pass)
			if err != nil {
				return err
			}
			if f.json {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(map[string]any{"ok": true, "member": id.String(), "dir": f.dir})
			}
			fmt.Fprintln(cmd.OutOrStdout(), "member", id)
			return nil
		},
	}
	f.bind(cmd)
	return cmd
}

func newNodeStartCmd() *cobra.Command {
	var f nodeFlags
	var check, debug bool
	var traitorOf string
	cmd := &cobra.Command{
		Use: "start", Short: "Run the node in --dir",
		Long: `Runs the node whose directory holds node.toml, genesis.cbor and the keystore,
until SIGTERM or Ctrl-C. --check prints the effective configuration and what the
genesis says, and runs nothing. Exit code 3: wrong passphrase.`,
		Example: "  coffer node start --dir ./n1 --passphrase-file ./pass",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := node.LoadConfig(f.dir)
			if err != nil {
				return err
			}
			g, err := node.LoadGenesis(f.dir)
			if err != nil {
				return err
			}
			if err := cfg.Validate(g); err != nil {
				return fmt.Errorf("configuration: %w", err)
			}
			cfg.TraitorOf = traitorOf
			if check {
				return printCheck(cmd, cfg, g, f.json)
			}
			pass, err := f.read(false)
			if err != nil {
				return err
			}
			level := slog.LevelInfo
			if debug {
				level = slog.LevelDebug
			}
			log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: level}))
			n, err := node.Open(cfg, g, pass, log)
			clear(pass)
			if errors.Is(err, keystore.ErrPassphrase) {
				return &exitError{exitPassphrase, err}
			}
			if err != nil {
				return err
			}
			err = n.Run(cmd.Context())
			return errors.Join(err, n.Close())
		},
	}
	f.bind(cmd)
	cmd.Flags().BoolVar(&check, "check", false, "print the effective configuration and stop")
	cmd.Flags().BoolVar(&debug, "debug", false, "log more")
	cmd.Flags().StringVar(&traitorOf, "traitor-of", "", "genesis hash of the test network to betray")
	_ = cmd.Flags().MarkHidden("traitor-of") // for coffer chaos; refused anywhere but on test networks
	return cmd
}

func printCheck(cmd *cobra.Command, cfg node.Config, g ledger.Genesis, asJSON bool) error {
	for i := range cfg.Chains { // the operator knows his password; a terminal need not
		if cfg.Chains[i].Password != "" {
			cfg.Chains[i].Password = "(set)"
		}
	}
	if asJSON {
		return json.NewEncoder(cmd.OutOrStdout()).Encode(map[string]any{"ok": true, "config": cfg, "genesis": g, "cluster": g.ClusterName()})
	}
	out := cmd.OutOrStdout()
	describeEpoch(out, g)
	for _, c := range g.Chains {
		fmt.Fprintf(out, "chain    %s %s from height %d, final after %d blocks (0: as the chain says), fee %d to %d\n", c.Name, c.CAIP2, c.Start, c.Final, c.MinRate, c.MaxRate)
	}
	for _, c := range cfg.Chains {
		fmt.Fprintf(out, "endpoint %s %s\n", c.Name, c.URL)
	}
	for _, v := range slices.Concat(cfg.Venues, cfg.Prices) {
		fmt.Fprintf(out, "venue    %s\n", v)
	}
	for _, p := range g.Pools {
		fmt.Fprintf(out, "pool     %s ltv %d bps, liquidation threshold %d bps, minimums supply %s borrow %s withdraw %s\n", p.Asset, p.LTV, p.LT, p.MinSupply, p.MinBorrow, p.MinWithdraw)
	}
	free, err := node.FreeDisk(cfg.Dir)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "disk     %d MiB free; %s\n", free>>20, cfg.Disk)
	fmt.Fprintf(out, "listen   peers %s, api %s, operator %s\n", cfg.Listen, cfg.API, cfg.Operator)
	return nil
}

// read returns the passphrase; the caller clears it.
func (f *nodeFlags) read(twice bool) ([]byte, error) {
	return passphraseFrom(f.passphrase, "coffer-passphrase", "Passphrase: ", "--passphrase-file", twice)
}

// passphraseFrom reads a passphrase from a file, a systemd credential or the
// terminal.
func passphraseFrom(file, credential, prompt, flag string, twice bool) ([]byte, error) {
	if file != "" {
		return readPassphraseFile(file)
	}
	if d := os.Getenv("CREDENTIALS_DIRECTORY"); d != "" { // a systemd credential
		if p := filepath.Join(d, credential); fileExists(p) {
			return readPassphraseFile(p)
		}
	}
	fd := int(os.Stdin.Fd())
	if !term.IsTerminal(fd) {
		return nil, usagef("no terminal to ask for the passphrase: give %s", flag)
	}
	fmt.Fprint(os.Stderr, prompt)
	p, err := term.ReadPassword(fd)
	fmt.Fprintln(os.Stderr)
	if err != nil || !twice {
		return p, err
	}
	fmt.Fprint(os.Stderr, "Again: ")
	q, err := term.ReadPassword(fd)
	fmt.Fprintln(os.Stderr)
	if err != nil {
		return nil, err
	}
	defer clear(q)
	if string(p) != string(q) {
		return nil, errors.New("the two differ")
	}
	return p, nil
}

func fileExists(p string) bool { _, err := os.Stat(p); return err == nil }

func readPassphraseFile(path string) ([]byte, error) {
	b, err := readSecretFile(path)
	if err != nil {
		return nil, fmt.Errorf("read passphrase: %w", err)
	}
	return []byte(strings.TrimRight(string(b), "\r\n")), nil
}
