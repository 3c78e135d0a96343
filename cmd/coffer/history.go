package main

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/coffer-network/coffer/node/api/client"
	"github.com/spf13/cobra"
)

func newHistoryCmd() *cobra.Command {
	var asCSV bool
	var account, cursor string
	var limit int
	cmd := clientCmd(&cobra.Command{
		Use: "history", Short: "All that happened to an account, newest first, with prices and fees",
		Long: `All that happened to an account as the node asked remembers it, newest first. The
first column of a page is its LogIndex; --cursor goes on where a page ended.`,
		Example: "  coffer history\n  coffer history --account 5f0c9a1e7b3d2c445f0c9a1e7b3d2c44 --csv > history.csv\n  coffer history --limit 10 --json",
		Args:    args(cobra.NoArgs),
	}, true, func(ctx context.Context, s *session, _ []string) error {
		if asCSV && s.json {
			return usagef("--csv and --json: want one of them")
		}
		c, id, err := s.accountOrOwn(account)
		if err != nil {
			return err
		}
		h, err := c.History(ctx, id, cursor, limit)
		if err != nil {
			return err
		}
		if asCSV {
			return s.historyCSV(h)
		}
		return s.show(h, func(p *printer) {
			p.row("LOGINDEX", "TIME", "WHAT", "AMOUNT", "PRICE", "FEE", "STATE", "REFERENCE")
			for _, x := range h.Rows {
				p.row(x.LogIndex, x.Time.Format(time.RFC3339), what(x), human(x.Amount, x.Decimals, x.Symbol), price(x.Price),
					human(x.Fee, x.Decimals, x.Symbol), orDash(x.State), reference(x))
			}
			if h.Next != "" {
				p.row("more with --cursor " + h.Next)
			}
			if h.Since > 1 {
				p.row(fmt.Sprintf("this node remembers everything from LogIndex %d on", h.Since))
			}
		})
	})
	cmd.Flags().BoolVar(&asCSV, "csv", false, "print CSV with amounts in base units")
	cmd.Flags().StringVar(&account, "account", "", "whose (default: the wallet's)")
	cmd.Flags().StringVar(&cursor, "cursor", "", "where the page before ended")
	cmd.Flags().IntVar(&limit, "limit", 50, "rows, at most 200")
	return cmd
}

// accountOrOwn is a client and an account: the named one, or the wallet's.
func (s *session) accountOrOwn(account string) (*client.Client, string, error) {
	if account != "" {
		c, err := s.client(nil)
		return c, account, err
	}
	w, c, err := s.wallet()
	if err != nil {
		return nil, "", err
	}
	return c, w.Pin().AccountOf(w.SignerBTC().ID()), nil
}

func what(x client.HistoryRow) string {
	if x.Kind == "request" || x.Kind == "suspense" {
		out := x.Kind + " " + x.Note
		if x.Kind == "request" && x.Code != "OK" {
			out += ": " + x.Code
		}
		return out
	}
	return x.Kind
}

func price(p string) string {
	if p == "" {
		return "–"
	}
	return usd(p)
}

func reference(x client.HistoryRow) string {
	switch {
	case x.TxID != "":
		return x.TxID
	case x.Outflow != 0:
		return "outflow " + strconv.FormatUint(x.Outflow, 10)
	case x.Request != "":
		return x.Request
	}
	return orDash(x.Inflow)
}

// historyCSV writes the page with the columns of the HTTP form.
func (s *session) historyCSV(h *client.History) error {
	w := csv.NewWriter(s.cmd.OutOrStdout())
	w.Write(client.HistoryColumns) // Error below tells
	for _, x := range h.Rows {
		w.Write(x.Columns())
	}
	w.Flush()
	return w.Error()
}

// watchFor is how long a stream goes on where nobody says how long.
const watchFor = 24 * time.Hour

func newWatchCmd() *cobra.Command {
	var after uint64
	var nodes []string
	cmd := &cobra.Command{
		Use: "watch [TOPIC…]", Short: "Events as they happen, going on at another node when one is gone",
		Long: `Topics are account:ID, request:ID, outflow:N, markets, cluster and sessions; without
any, markets and cluster. --other may be given several times: the stream goes on at
the next node by LogIndex, without a gap and without doubles. Ctrl-C ends it, and
so does the end of a --timeout that was asked for: exit code 0, unless no node
answered until then.`,
		Example: "  coffer watch markets cluster\n  coffer watch outflow:17 --after 4711 --json\n  coffer watch account:5f0c9a1e7b3d2c445f0c9a1e7b3d2c44 --other http://127.0.0.1:7002 --other http://127.0.0.1:7003",
		Args:    args(cobra.MaximumNArgs(64)),
	}
	cmd = clientCmd(cmd, false, func(ctx context.Context, s *session, topics []string) error {
		c, err := s.client(nil)
		if err != nil {
			return err
		}
		all := []*client.Client{c}
		for _, n := range nodes {
			other, err := client.New(n, nil)
			if err != nil {
				return &exitError{exitUsage, err}
			}
			all = append(all, other)
		}
		asked := s.cmd.Flags().Changed("timeout")
		if len(topics) == 0 {
			topics = []string{"markets", "cluster"}
		}
		err = client.Watch(ctx, all, topics, after, s.showFrame)
		if errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, client.ErrNoAnswer) && asked {
			return nil // as long as was asked for
		}
		return err
	})
	cmd.Flags().Uint64Var(&after, "after", 0, "LogIndex to begin after (default: now)")
	cmd.Flags().StringSliceVar(&nodes, "other", nil, "another node to go on at")
	f := cmd.Flags().Lookup("timeout")
	f.DefValue = watchFor.String()
	f.Value.Set(f.DefValue) // not through the flags: they would take it for the user's
	return cmd
}

// showFrame prints one frame: as a JSON line, or as lines for people.
func (s *session) showFrame(f client.Frame) error {
	out := s.cmd.OutOrStdout()
	if s.json {
		return json.NewEncoder(out).Encode(map[string]any{"frame": f.Kind, "id": f.ID, "node": f.Node, "data": f.Data})
	}
	switch f.Kind {
	case client.FrameLedger:
		var x client.LedgerFrame
		if err := json.Unmarshal(f.Data, &x); err != nil {
			return fmt.Errorf("frame of %s: %w", f.Node, err)
		}
		if x.Request != "" {
			fmt.Fprintf(out, "%d  %s  %s %s: %s\n", x.LogIndex, x.Time.Format(time.RFC3339), x.Action, x.Request[:12], x.Code)
		}
		for _, e := range x.Events {
			parts := []string{e.Name, e.Kind, e.Amount, e.Asset, e.Note}
			if e.Outflow != 0 {
				parts = append(parts, fmt.Sprintf("outflow %d", e.Outflow))
			}
			fmt.Fprintf(out, "%d  %s  %s\n", x.LogIndex, x.Time.Format(time.RFC3339), strings.Join(strings.Fields(strings.Join(parts, " ")), " "))
		}
	case client.FrameReset:
		fmt.Fprintf(out, "events are missing here (%s)\n", f.Data)
	case client.FrameLocal:
		fmt.Fprintf(out, "%s alone saw %s\n", f.Node, f.Data)
	}
	return nil
}
