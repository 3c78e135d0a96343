package main

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"time"

	"github.com/coffer-network/coffer/node/api/client"
	"github.com/spf13/cobra"
)

var requestID = regexp.MustCompile(`^[0-9a-f]{64}$`)

func newExplainCmd() *cobra.Command {
	var account string
	cmd := clientCmd(&cobra.Command{
		Use: "explain ID", Short: "A liquidation computed again, or why a request was refused",
		Long: `A number is a liquidation's, 64 hex digits are a request's. A liquidation is
computed again from the record that the log keeps of it, and every number is said
with how it follows; where one does not follow, the exit code is 1. A request is
told with its code, the numbers that decided and what would have been accepted.`,
		Example: "  coffer explain 4711\n  coffer explain 3b1f0c52d1e14c0f5f7a0f6bb5d2f7f3c0a1b2c3d4e5f60718293a4b5c6d7e8f --json",
		Args:    args(cobra.ExactArgs(1)),
	}, false, func(ctx context.Context, s *session, a []string) error {
		c, err := s.client(nil)
		if err != nil {
			return err
		}
		if requestID.MatchString(a[0]) {
			return s.requestWhy(ctx, c, a[0], account)
		}
		id, err := strconv.ParseUint(a[0], 10, 64)
		if err != nil {
			return usagef("explain %q: want a liquidation's number, or the 64 hex digits of a request", a[0])
		}
		x, err := c.Explain(ctx, id)
		if err != nil {
			return err
		}
		if err := s.show(x, func(p *printer) { explainRows(p, x) }); err != nil || x.Agrees {
			return err
		}
		return &shownError{fmt.Errorf("liquidation %d: the log's numbers do not follow from its facts: %s", id, x.Differs)}
	})
	cmd.Flags().StringVar(&account, "account", "", "whose request it is, where the node does not remember it")
	return cmd
}

func explainRows(p *printer, x *client.Explanation) {
	l := x.Liquidation
	p.row("liquidation", fmt.Sprintf("%d at %s", l.ID, l.Time.Format(time.RFC3339)))
	p.row("borrower", l.Borrower)
	p.row("liquidator", l.Liquidator)
	for _, g := range x.Legs {
		p.row("position "+g.Pool, fmt.Sprintf("%s counting as collateral (%s at %s), %s owed (%s at %s); liquidation threshold %s",
			human(g.Collateral, g.Decimals, g.Symbol), usd(g.CollateralValue), usd(g.Low), human(g.Debt, g.Decimals, g.Symbol), usd(g.DebtValue), usd(g.High), bps(g.LT)))
		p.row("price "+g.Pool, fmt.Sprintf("round %d, closed %s", g.Round, g.Closed.Format(time.RFC3339)))
	}
	for _, st := range x.Steps {
		words := st.Words
		if !st.Agrees {
			words += fmt.Sprintf(" – BUT THE LOG HAS %s, NOT %s", st.Recorded, st.Computed)
		}
		p.row(st.What, words)
	}
	if l.Outflow != 0 {
		p.row("outflow", fmt.Sprintf("%d sends the liquidator his gain", l.Outflow))
	}
	if x.Agrees {
		p.row("agrees", "yes: every number of the log follows from its prices, indices, claims and request")
	} else {
		p.row("agrees", "NO: "+x.Differs)
	}
}

// requestWhy shows why a request came to what it came to.
func (s *session) requestWhy(ctx context.Context, c *client.Client, id, account string) error {
	w, err := c.RequestWhy(ctx, id, account)
	if err != nil {
		return err
	}
	return s.show(w, func(p *printer) {
		p.row("request", w.Request)
		p.row("state", w.State)
		if w.Action != "" {
			what := w.Action
			switch {
			case w.Amount == "max":
				what += " max " + w.Symbol
			case w.Symbol != "":
				what += " " + human(w.Amount, w.Decimals, w.Symbol)
			}
			p.row("asked for", what)
		}
		if w.Code != "" {
			p.row("result", fmt.Sprintf("%s at LogIndex %d", w.Code, w.LogIndex))
		}
		p.row("meaning", w.Detail)
		if w.Limit != "" || w.Found != "" {
			p.row("numbers", fmt.Sprintf("limit %s, found %s", orDash(w.Limit), orDash(w.Found)))
		}
		if w.Accepted != "" {
			p.row("would have done", w.Accepted)
		}
		if w.MostNow != "" {
			p.row("most now", human(w.MostNow, w.Decimals, w.Symbol))
		}
		if w.State == "refused" {
			if w.NonceUsed {
				p.row("next nonce", fmt.Sprintf("%d: sign a new text", w.NextNonce))
			} else {
				p.row("next nonce", fmt.Sprintf("%d: this text used none up", w.NextNonce))
			}
		}
		if w.Outflow != nil {
			p.row("outflow", w.Outflow.Outflow)
			whyRows(p, w.Outflow)
		}
	})
}

func newInflowCmd() *cobra.Command {
	var why bool
	var account string
	cmd := clientCmd(&cobra.Command{
		Use: "inflow ID", Short: "A deposit: seen, confirmations, credited or suspended, and what it lacks",
		Long: `ID is the outpoint on Bitcoin (transaction:output) and transaction:position
elsewhere, as coffer show finds it by its transaction. With --account, what only
the node asked has seen is found as well.`,
		Example: "  coffer inflow 9f0c…:0\n  coffer inflow 9f0c…:0 --why --account 5f0c9a1e7b3d2c445f0c9a1e7b3d2c44 --json",
		Args:    args(cobra.ExactArgs(1)),
	}, false, func(ctx context.Context, s *session, a []string) error {
		c, err := s.client(nil)
		if err != nil {
			return err
		}
		f, err := c.Inflow(ctx, a[0], account)
		if err != nil {
			return err
		}
		asset := client.Asset{Symbol: f.Asset}
		if all, err := c.Assets(ctx); err == nil { // for decimals only
			if x, ok := all[f.Asset]; ok {
				asset = x
			}
		}
		amount := func(units string) string { return human(units, asset.Decimals, asset.Symbol) }
		if why {
			w, err := c.InflowWhy(ctx, a[0], account)
			if err != nil {
				return err
			}
			return s.show(w, func(p *printer) {
				p.row("state", fmt.Sprintf("%s (%s)", w.State, w.Status))
				p.row("confirmations", fmt.Sprintf("%d of %d", w.Confirmations, w.Required))
				p.row("meaning", w.Detail)
				shortRows(p, w.Shortfall, amount)
				waitingRows(p, w.WaitingFor)
				if w.Sweep != nil {
					p.row("carried by outflow", w.Sweep.Outflow)
					whyRows(p, w.Sweep)
				}
			})
		}
		return s.show(f, func(p *printer) {
			p.row("inflow", f.ID)
			p.row("account", f.Account)
			p.row("purpose", orDash(f.Purpose))
			p.row("amount", amount(f.Amount))
			p.row("state", fmt.Sprintf("%s (%s)", f.State, f.Status))
			p.row("confirmations", fmt.Sprintf("%d of %d", f.Confirmations, f.Required))
			for _, x := range f.Credits {
				if x.Reason == "" {
					p.row("credited", fmt.Sprintf("at LogIndex %d, %s", x.LogIndex, x.Time.Format(time.RFC3339)))
				} else {
					p.row("suspended", fmt.Sprintf("%s at LogIndex %d, %s", x.Reason, x.LogIndex, x.Time.Format(time.RFC3339)))
				}
			}
			shortRows(p, f.Shortfall, amount)
		})
	})
	cmd.Flags().BoolVar(&why, "why", false, "say what it waits for")
	cmd.Flags().StringVar(&account, "account", "", "whose it is, to find what only this node has seen")
	return cmd
}

func shortRows(p *printer, x *client.Short, amount func(string) string) {
	if x == nil {
		return
	}
	how := "each deposit counts by itself, so the next must be the minimum"
	if x.TopUp {
		how = "send it to the same address, and all of it counts"
	}
	p.row("missing", fmt.Sprintf("%s to the minimum of %s: %s", amount(x.Missing), amount(x.Minimum), how))
}
