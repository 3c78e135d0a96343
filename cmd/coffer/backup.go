package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"filippo.io/age"
	"github.com/coffer-network/coffer/node"
	"github.com/coffer-network/coffer/node/api/client"
	"github.com/coffer-network/coffer/tss/keystore"
	"github.com/spf13/cobra"
)

// backupKeys is how a backup is opened.
type backupKeys struct{ passphrase, identity string }

func (f *backupKeys) bind(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.passphrase, "backup-passphrase-file", "", "file or descriptor with the backup's passphrase, mode 0600 (else asked on the terminal)")
	cmd.Flags().StringVar(&f.identity, "identity-file", "", "age identity file, mode 0600, instead of a passphrase")
}

func (f *backupKeys) read(twice bool) ([]byte, error) {
	return passphraseFrom(f.passphrase, "coffer-backup-passphrase", "Passphrase of the backup: ", "--backup-passphrase-file", twice)
}

// identities opens a backup.
func (f *backupKeys) identities() ([]age.Identity, error) {
	if f.identity != "" {
		b, err := readSecretFile(f.identity)
		if err != nil {
			return nil, fmt.Errorf("read identity: %w", err)
		}
		defer clear(b)
		ids, err := age.ParseIdentities(bytes.NewReader(b))
		if err != nil {
			return nil, errors.New("read identity: not an age identity file")
		}
		return ids, nil
	}
	pass, err := f.read(false)
	if err != nil {
		return nil, err
	}
	defer clear(pass)
	id, err := age.NewScryptIdentity(string(pass))
	if err != nil {
		return nil, usagef("the backup's passphrase is empty")
	}
	return []age.Identity{id}, nil
}

// backupError gives a wrong key its exit code.
func backupError(err error) error {
	if errors.Is(err, node.ErrBackupKey) || errors.Is(err, keystore.ErrPassphrase) {
		return &exitError{exitPassphrase, err}
	}
	return err
}

func newNodeBackupCmd() *cobra.Command {
	var f nodeFlags
	var keys backupKeys
	var out, verify string
	var recipients []string
	cmd := &cobra.Command{
		Use: "backup", Short: "Write or verify the encrypted backup of a node",
		Long: `Writes one file with the node's identity, its KeyShares in force and those before
them or staged for the next epoch, the sessions it joined, genesis and
configuration, encrypted with a passphrase of its own or to age recipients. The
node must be stopped; which KeyShares are in force it noted while it ran, and the
output says since which height. --verify decrypts a file and checks each KeyShare
against the public commitments of its epoch; it starts nothing and needs no --dir.
Exit code 3: wrong passphrase.

Keep one operator's backup in one place only: m of them together are the coins.`,
		Example: "  coffer node backup --dir ./n1 --out ./n1.backup\n  coffer node backup --verify ./n1.backup",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if verify != "" {
				ids, err := keys.identities()
				if err != nil {
					return err
				}
				h, err := node.VerifyBackup(verify, ids...)
				if err != nil {
					return backupError(err)
				}
				return printBackup(cmd, "verified", verify, h, f.json)
			}
			if f.dir == "" || out == "" {
				return usagef("want --dir and --out, or --verify")
			}
			to, err := recipientsOf(recipients, keys)
			if err != nil {
				return err
			}
			pass, err := f.read(false)
			if err != nil {
				return err
			}
			defer clear(pass)
			h, err := node.Backup(f.dir, out, pass, to...)
			if err != nil {
				return backupError(err)
			}
			return printBackup(cmd, "written", out, h, f.json)
		},
	}
	f.bindOptional(cmd)
	keys.bind(cmd)
	cmd.Flags().StringVar(&out, "out", "", "file to write; must not exist")
	cmd.Flags().StringVar(&verify, "verify", "", "backup to check")
	cmd.Flags().StringSliceVar(&recipients, "recipient", nil, "age public key; repeat for several (else a passphrase)")
	return cmd
}

func recipientsOf(texts []string, keys backupKeys) ([]age.Recipient, error) {
	var to []age.Recipient
	for _, t := range texts {
		r, err := age.ParseX25519Recipient(t)
		if err != nil {
			return nil, usagef("recipient %q is no age public key", t)
		}
		to = append(to, r)
	}
	if len(to) > 0 {
		return to, nil
	}
	pass, err := keys.read(true)
	if err != nil {
		return nil, err
	}
	defer clear(pass)
	if len(pass) < minBackupPassphrase {
		return nil, usagef("the backup's passphrase has %d bytes, want at least %d", len(pass), minBackupPassphrase)
	}
	r, err := age.NewScryptRecipient(string(pass))
	if err != nil {
		return nil, err
	}
	return []age.Recipient{r}, nil
}

// minBackupPassphrase: a backup lies where anybody may try at leisure.
const minBackupPassphrase = 12

func newNodeRestoreCmd() *cobra.Command {
	var f nodeFlags
	var keys backupKeys
	var from string
	var urls []string
	var alone bool
	cmd := &cobra.Command{
		Use: "restore", Short: "Bring a seat back from its backup, as a learner",
		Long: `Makes the node of a backup in an empty directory, under a new passphrase. Asks
the nodes named with --node first and refuses if one of them heard of this
identity seconds ago, or if the ledger is past the epoch after the backup's.

The seat comes back as a learner: what it joined and promised since the backup is
forgotten, so it neither signs, approves nor votes until the next resharing has
made it new KeyShares. Propose one: coffer vote refresh. --no-cluster states that
no node of the cluster answers. Exit code 3: wrong passphrase.`,
		Example: "  coffer node restore --dir ./n1 --from ./n1.backup --node http://127.0.0.1:8002",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if alone == (len(urls) > 0) {
				return usagef("want --node, or --no-cluster if no node of the cluster answers")
			}
			h, err := node.ReadBackupHeader(from)
			if err != nil {
				return err
			}
			o := node.RestoreOptions{Dir: f.dir, Alone: alone}
			for _, u := range urls {
				w, err := askWitness(cmd.Context(), u, h)
				if err != nil {
					return fmt.Errorf("restore: ask %s: %w", u, err)
				}
				o.Witnesses = append(o.Witnesses, w)
			}
			ids, err := keys.identities()
			if err != nil {
				return err
			}
			if o.Passphrase, err = f.read(true); err != nil {
				return err
			}
			defer clear(o.Passphrase)
			if h, err = node.Restore(from, o, ids...); err != nil {
				return backupError(err)
			}
			if err := printBackup(cmd, "restored", from, h, f.json); err != nil || f.json {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), "learner  signs, approves and votes again after the next resharing: coffer vote refresh")
			return nil
		},
	}
	f.bind(cmd)
	keys.bind(cmd)
	cmd.Flags().StringVar(&from, "from", "", "the backup")
	_ = cmd.MarkFlagRequired("from")
	cmd.Flags().StringSliceVar(&urls, "node", nil, "API of another node of the cluster, to be asked first; repeat for several")
	cmd.Flags().BoolVar(&alone, "no-cluster", false, "state that no node of the cluster answers")
	return cmd
}

const witnessWait = 10 * time.Second

func askWitness(ctx context.Context, url string, h node.BackupHeader) (node.Witness, error) {
	w := node.Witness{From: url}
	c, err := client.New(url, nil)
	if err != nil {
		return w, err
	}
	ctx, cancel := context.WithTimeout(ctx, witnessWait)
	defer cancel()
	s, err := c.Status(ctx)
	if err != nil {
		return w, err
	}
	w.Cluster, w.Epoch = s.Cluster, s.Epoch
	for _, m := range s.Members {
		w.Live = w.Live || m.ID == h.Node.String() && m.Present
	}
	w.Live = w.Live || s.Member == h.Node.String()
	return w, nil
}

func printBackup(cmd *cobra.Command, done, path string, h node.BackupHeader, asJSON bool) error {
	out := cmd.OutOrStdout()
	if asJSON {
		type key struct {
			Key     string `json:"key"`
			Epoch   uint64 `json:"epoch"`
			M       uint64 `json:"m"`
			N       uint64 `json:"n"`
			Pub     string `json:"pub"`
			InForce bool   `json:"in_force"`
		}
		keys := []key{}
		for _, k := range h.Keys {
			keys = append(keys, key{k.Key, k.Epoch, k.M, k.N, fmt.Sprintf("%x", k.Pub), k.InForce})
		}
		return json.NewEncoder(out).Encode(map[string]any{"ok": true, "file": path, "cluster": h.Name, "node": h.Node.String(), "epoch": h.Epoch,
			"height": h.Height, "created": time.UnixMilli(int64(h.Millis)).UTC(), "keys": keys})
	}
	since := fmt.Sprintf("in force since height %d, as the node's own ledger has it", h.Height)
	if h.Height == 0 {
		since = "of the newest key shares: the node has no note of which are in force. After a rollback these are not: start it once"
	}
	fmt.Fprintf(out, "%-8s %s\ncluster  %s\nnode     %s\nepoch    %d, %s\ncreated  %s\n", done, path, h.Name, h.Node, h.Epoch, since, time.UnixMilli(int64(h.Millis)).UTC().Format(time.RFC3339))
	for _, k := range h.Keys {
		why := "kept in case a vote goes back to it"
		switch {
		case k.InForce:
			why = "in force"
		case k.Epoch > h.Epoch:
			why = "staged"
		}
		fmt.Fprintf(out, "key      %s epoch %d, %s, %d of %d sign, %x\n", k.Key, k.Epoch, why, k.M, k.N, k.Pub)
	}
	return nil
}

func readSecretFile(path string) ([]byte, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if st.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s is readable by others (mode %o), want 0600", path, st.Mode().Perm())
	}
	return os.ReadFile(path)
}
