package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/coffer-network/coffer/node/api/client"
	"github.com/spf13/cobra"
)

// session is what every client command has: where the node is, which wallet,
// how to print.
type session struct {
	cmd     *cobra.Command
	api     string
	dir     string
	file    string
	json    bool
	timeout time.Duration
}

// clientCmd gives cmd the flags of a client command and runs it with a session.
func clientCmd(cmd *cobra.Command, wallet bool, do func(ctx context.Context, s *session, args []string) error) *cobra.Command {
	s := &session{cmd: cmd}
	f := cmd.Flags()
	f.StringVar(&s.api, "api", "", "node to ask (default $COFFER_API, else the first node of --dir's network.json)")
	f.StringVar(&s.dir, "dir", "", "folder of a running testnet")
	f.BoolVar(&s.json, "json", false, "print one JSON document")
	f.DurationVar(&s.timeout, "timeout", time.Minute, "how long to wait in all")
	if wallet {
		f.StringVar(&s.file, "file", "", "wallet file (default $COFFER_WALLET, else wallet.json in --dir or in the user's configuration)")
	}
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		if s.timeout <= 0 {
			return usagef("--timeout %s: want more than 0", s.timeout)
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), s.timeout)
		defer cancel()
		return do(ctx, s, a)
	}
	return cmd
}

// testnetFile is what a running testnet leaves for clients.
type testnetFile struct {
	API     []string `json:"api"`
	Control string   `json:"control"`
}

// url finds the node to ask.
func (s *session) url() (string, error) {
	if s.api != "" {
		return s.api, nil
	}
	if s.dir == "" {
		if env := os.Getenv("COFFER_API"); env != "" {
			return env, nil
		}
		return "", usagef("which node? Say --api http://host:port, set COFFER_API, or give a testnet's --dir")
	}
	name := filepath.Join(s.dir, "network.json")
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("no testnet runs in %s: start one with coffer testnet --dir %s", s.dir, s.dir)
	}
	if err != nil {
		return "", fmt.Errorf("find the testnet's nodes: %w", err)
	}
	var t testnetFile
	if err := json.Unmarshal(b, &t); err != nil || len(t.API) == 0 {
		return "", fmt.Errorf("%s names no node", name)
	}
	return t.API[0], nil
}

// client asks the node, with a wallet's pin or without one.
func (s *session) client(pin *client.Pin) (*client.Client, error) {
	url, err := s.url()
	if err != nil {
		return nil, err
	}
	c, err := client.New(url, pin)
	if err != nil {
		return nil, &exitError{exitUsage, err}
	}
	return c, nil
}

func (s *session) walletFile() (string, error) {
	if s.file != "" {
		return s.file, nil
	}
	if env := os.Getenv("COFFER_WALLET"); env != "" {
		return env, nil
	}
	if s.dir != "" {
		return filepath.Join(s.dir, "wallet.json"), nil
	}
	home, err := os.UserConfigDir()
	if err != nil {
		return "", usagef("where is the wallet? Say --file (%w)", err)
	}
	return filepath.Join(home, "coffer", "wallet.json"), nil
}

// wallet loads the wallet and a client that follows its pin.
func (s *session) wallet() (*client.Wallet, *client.Client, error) {
	name, err := s.walletFile()
	if err != nil {
		return nil, nil, err
	}
	w, err := client.LoadWallet(name)
	if err != nil {
		return nil, nil, err
	}
	c, err := s.client(w.Pin())
	return w, c, err
}

// show prints v as JSON, or what text writes.
func (s *session) show(v any, text func(p *printer)) error {
	if s.json {
		return json.NewEncoder(s.cmd.OutOrStdout()).Encode(v)
	}
	p := newPrinter(s.cmd.OutOrStdout())
	text(p)
	return p.flush()
}

// note prints to people only.
func (s *session) note(format string, args ...any) {
	if !s.json {
		fmt.Fprintf(s.cmd.OutOrStdout(), format+"\n", args...)
	}
}

// later marks an error after which the outcome is not known.
func later(err error) error {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return &exitError{exitUnknown, err}
	}
	return err
}
