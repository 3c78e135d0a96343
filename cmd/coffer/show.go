package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coffer-network/coffer/node/api/client"
	"github.com/spf13/cobra"
)

func newMarketsCmd() *cobra.Command {
	return clientCmd(&cobra.Command{
		Use: "markets", Short: "Pools: prices, rates, liquidity, fees",
		Example: "  coffer markets\n  coffer markets --api http://127.0.0.1:7002 --json",
		Args:    args(cobra.NoArgs),
	}, false, func(ctx context.Context, s *session, _ []string) error {
		c, err := s.client(nil)
		if err != nil {
			return err
		}
		pools, err := c.Pools(ctx)
		if err != nil {
			return err
		}
		return s.show(pools, func(p *printer) {
			p.row("POOL", "PRICE", "SUPPLIED", "BORROWED", "USED", "SUPPLY APY", "BORROW APY", "MAX LTV", "LIQUIDATION", "PAYOUT FEE")
			for _, x := range pools.Pools {
				price := "none yet"
				if x.Price != nil {
					price = usd(x.Price.Low)
					if x.Price.Stale {
						price += " (old)"
					}
				}
				fee := "no quote: " + x.PayoutFee.Unknown
				if x.PayoutFee.Unknown == "" {
					fee = human(x.PayoutFee.Fee, x.Decimals, x.Symbol)
				}
				p.row(x.ID, price, human(x.Supplied, x.Decimals, x.Symbol), human(x.Borrowed, x.Decimals, x.Symbol),
					percent(x.Utilisation), percent(x.SupplyAPY), percent(x.BorrowAPY), bps(x.LTV), bps(x.LT), fee)
			}
			for _, x := range pools.Pools {
				for _, b := range x.Blocks {
					p.row(x.ID, "no "+b.Operation+" now: "+b.Code)
				}
				if x.Queued > 0 {
					p.row(x.ID, fmt.Sprintf("%d payouts queued, %s in all", x.Queued, human(x.QueuedAmount, x.Decimals, x.Symbol)))
				}
			}
		})
	})
}

func newOutflowCmd() *cobra.Command {
	var why bool
	cmd := clientCmd(&cobra.Command{
		Use: "outflow ID", Short: "A payout: state, fee, attempts, who signed, transaction",
		Example: "  coffer outflow 17\n  coffer outflow 17 --why",
		Args:    args(cobra.ExactArgs(1)),
	}, false, func(ctx context.Context, s *session, a []string) error {
		id, err := strconv.ParseUint(a[0], 10, 64)
		if err != nil {
			return usagef("outflow %q: want its number", a[0])
		}
		c, err := s.client(nil)
		if err != nil {
			return err
		}
		if why {
			w, err := c.Why(ctx, id)
			if err != nil {
				return err
			}
			return s.show(w, func(p *printer) { whyRows(p, w) })
		}
		o, err := c.Outflow(ctx, id)
		if err != nil {
			return err
		}
		return s.showOutflow(o)
	})
	cmd.Flags().BoolVar(&why, "why", false, "say what it waits for")
	return cmd
}

func whyRows(p *printer, w *client.Why) {
	p.row("state", w.State)
	waitingRows(p, w.WaitingFor)
	if len(w.PassedOver) > 0 {
		p.row("passed over", strings.Join(w.PassedOver, ", ")+": last in the roster for what was proven against it, see coffer status")
	}
	if w.Next != nil {
		p.row("next", fmt.Sprintf("%s at %s", w.Next.What, w.Next.At.Format(time.RFC3339)))
	}
}

func waitingRows(p *printer, list []client.Waiting) {
	if len(list) == 0 {
		p.row("waits for", "nothing")
	}
	for _, x := range list {
		what := x.What
		if x.Peer != "" {
			what += " of " + x.Peer
		}
		if x.Have != "" {
			what += ": " + x.Have
		}
		if x.Need != "" {
			what += ", needs " + x.Need
		}
		p.row("waits for", what)
	}
}

func (s *session) showOutflow(o *client.OutflowDetail) error {
	return s.show(o, func(p *printer) {
		p.row("outflow", o.ID)
		p.row("state", fmt.Sprintf("%s (%s)", o.State, o.Status))
		p.row("kind", o.Kind)
		p.row("to", o.To)
		p.row("gross", human(o.Gross, o.Decimals, o.Symbol))
		p.row("max fee", human(o.MaxFee, o.Decimals, o.Symbol))
		p.row("fee", human(o.Fee, o.Decimals, o.Symbol))
		p.row("net", human(o.Net, o.Decimals, o.Symbol))
		if o.Batch != 0 {
			p.row("batch", fmt.Sprintf("%d, binding %d", o.Batch, o.Binding))
			p.row("anchor", o.Anchor)
		}
		for _, a := range o.Attempts {
			p.row("attempt "+strconv.FormatUint(a.Attempt, 10), fmt.Sprintf("%s; first to sign: %s", a.Kind, strings.Join(a.Roster[:min(a.M, len(a.Roster))], ", ")))
		}
		for _, x := range o.Local.Signed {
			p.row("signed", fmt.Sprintf("attempt %d input %d turn %d by %s", x.Attempt, x.Input, x.Turn, strings.Join(x.Parties, ", ")))
		}
		p.row("transaction", orDash(o.TxID))
		if o.State == "MINED" {
			p.row("confirmations", fmt.Sprintf("%d of %d", o.Confirmations, o.Required))
		}
	})
}

func newRequestCmd() *cobra.Command {
	var why bool
	var account string
	var wait time.Duration
	cmd := clientCmd(&cobra.Command{
		Use: "request ID", Short: "What became of a signed request, by the hash of its text",
		Example: "  coffer request 3b1f0c52d1e14c0f5f7a0f6bb5d2f7f3c0a1b2c3d4e5f60718293a4b5c6d7e8f\n  coffer request 3b1f0c52d1e14c0f5f7a0f6bb5d2f7f3c0a1b2c3d4e5f60718293a4b5c6d7e8f --wait 20s\n  coffer request 3b1f0c52d1e14c0f5f7a0f6bb5d2f7f3c0a1b2c3d4e5f60718293a4b5c6d7e8f --why",
		Args:    args(cobra.ExactArgs(1)),
	}, false, func(ctx context.Context, s *session, a []string) error {
		c, err := s.client(nil)
		if err != nil {
			return err
		}
		if why && wait > 0 {
			return usagef("--why and --wait: want one of them")
		}
		if why {
			return s.requestWhy(ctx, c, a[0], account)
		}
		r, err := c.Request(ctx, a[0], account, wait)
		if err != nil {
			return err
		}
		return s.showRequest(r)
	})
	cmd.Flags().BoolVar(&why, "why", false, "say why it came to that, and what would have been accepted")
	cmd.Flags().StringVar(&account, "account", "", "whose request it is, where the node has not seen it since its start")
	cmd.Flags().DurationVar(&wait, "wait", 0, "wait this long for it to be applied, up to 30s")
	return cmd
}

func (s *session) showRequest(r *client.Request) error {
	return s.show(r, func(p *printer) {
		p.row("request", r.ID)
		if r.Phase != "applied" {
			p.row("state", "not applied yet")
			return
		}
		p.row("result", fmt.Sprintf("%s at LogIndex %d", r.Code, r.LogIndex))
		if r.Outflow != 0 {
			p.row("outflow", fmt.Sprintf("%d (%s): coffer outflow %d shows it", r.Outflow, r.Status, r.Outflow))
		}
	})
}

func newStatusCmd() *cobra.Command {
	return clientCmd(&cobra.Command{
		Use: "status", Short: "A node and its cluster: leader, lag, members, chains, prices, halts",
		Example: "  coffer status\n  coffer status --api http://127.0.0.1:7003 --json",
		Args:    args(cobra.NoArgs),
	}, false, func(ctx context.Context, s *session, _ []string) error {
		c, err := s.client(nil)
		if err != nil {
			return err
		}
		st, err := c.Status(ctx)
		if err != nil {
			return err
		}
		assets, _ := c.Assets(ctx) // without them amounts are in base units
		return s.show(st, func(p *printer) { statusRows(p, st, assets) })
	})
}

func statusRows(p *printer, st *client.Status, assets map[string]client.Asset) {
	amount := func(asset, units string) string {
		a, ok := assets[asset]
		if !ok {
			return units
		}
		return human(units, a.Decimals, a.Symbol)
	}
	p.row("node", fmt.Sprintf("%s (%s), version %s", st.Name, st.Role, orDash(st.Version)))
	p.row("leader", orDash(st.Leader))
	p.row("applied", fmt.Sprintf("LogIndex %d, %d behind", st.Applied, st.Lag))
	p.row("cluster", st.Cluster)
	p.row("checkpoint", orDash(st.Checkpoint))
	p.row("committee", fmt.Sprintf("epoch %d: %d of %d must sign, %d may be down, %d may be traitors", st.Epoch, st.M, st.N, st.N-st.M, st.F))
	switch {
	case st.MaySpare > 0:
		p.row("may still fail", fmt.Sprintf("%d before payouts wait", st.MaySpare))
	case st.MaySpare == 0:
		p.row("may still fail", "none: one more, and payouts wait")
	default:
		p.row("payouts wait", fmt.Sprintf("%d members too few are heard from", -st.MaySpare))
	}
	p.row("ledger time", st.LedgerTime.Format(time.RFC3339))
	for _, m := range st.Members {
		state := "active"
		if !m.Present {
			state = "MISSING"
		}
		for _, x := range st.Seats {
			if x.Member == m.ID && x.State != "active" {
				state += ", " + x.State
			}
			if x.Member == m.ID && x.Until != nil {
				state += ", in quarantine until " + x.Until.Format(time.RFC3339)
			}
		}
		p.row("member "+m.Name, state+", heard "+ago(m.LastHeard, st.LedgerTime))
		if b := m.Blamed; b != nil {
			text := fmt.Sprintf("proven to break the signing protocol %d times, newest %s (check %s, round %d, batch %d, evidence %.8s)",
				b.Proofs, ago(&b.At, st.LedgerTime), b.Check, b.Round, b.Batch, b.Evidence)
			if b.LastUntil != nil {
				text += "; signs last until " + b.LastUntil.Format(time.RFC3339)
			}
			p.row("", text)
		}
	}
	committeeRows(p, st)
	for _, c := range st.Chains {
		text := fmt.Sprintf("height %d, reached %s", c.Height, ago(c.Reached, st.LedgerTime))
		if l := c.Local; l != nil {
			text += fmt.Sprintf("; this node read %d %s", l.Height, ago(&l.Read, st.LedgerTime))
			if l.Failing != "" {
				text += ": " + l.Failing
			}
		}
		p.row("chain "+c.Name, text)
	}
	for _, id := range slices.Sorted(maps.Keys(st.Prices)) {
		if x := st.Prices[id]; x != nil {
			text := fmt.Sprintf("%s, %d s old", usd(x.Low), x.Age)
			if x.Stale {
				text += ", too old"
			}
			if x.Suspect {
				text += ", suspect"
			}
			p.row("price "+id, text)
		}
	}
	for _, state := range slices.Sorted(maps.Keys(st.Open)) {
		text := fmt.Sprint(st.Open[state])
		if t, ok := st.OpenSince[state]; ok {
			text += ", the oldest of " + ago(&t, st.LedgerTime)
		}
		p.row("outflows "+state, text)
	}
	for _, x := range st.Caps {
		p.row("may leave "+x.Asset, fmt.Sprintf("%s of %s this %s", amount(x.Asset, x.Left), amount(x.Asset, x.Capacity), x.Window))
	}
	for _, x := range st.Custody {
		text := "no balance attested yet"
		if x.Height > 0 {
			text = fmt.Sprintf("%s and %s leaving at block %d, the books have %s", amount(x.Asset, x.Amount), amount(x.Asset, x.Leaving), x.Height, amount(x.Asset, x.Books))
		}
		if x.Nobodys != "0" {
			text += ", " + amount(x.Asset, x.Nobodys) + " more are nobody's"
			if x.AtGas != "0" {
				text += ", " + amount(x.Asset, x.AtGas) + " of it at the gas address"
			}
		}
		if x.Missing != "0" {
			text += ": " + amount(x.Asset, x.Missing) + " MISSING"
		}
		if x.Good != nil {
			text += ", covered " + ago(x.Good, st.LedgerTime)
		}
		p.row("custody "+x.Asset, text)
		if x.Halted != "" {
			p.row("halted "+x.Asset, x.Halted)
		}
	}
	p.row("this node", fmt.Sprintf("%d sessions under way, %d pre-parameter sets, key shares of %s", st.Local.Sessions, st.Local.PreParams, orDash(strings.Join(st.Local.Keys, ", "))))
	if st.DrillDue != nil {
		p.row("last drill", lastDrill(st))
	}
	if st.BorrowOff {
		p.row("borrowing", "off")
	}
	for _, why := range st.NotReady {
		p.row("not ready", why)
	}
	if st.Paused != nil {
		p.row("outflows paused", fmt.Sprintf("by %s until %s", st.Paused.By, st.Paused.Until.Format(time.RFC3339)))
	}
	if st.CatchingUp {
		p.row("catching up", "requests wait")
	}
	for _, halt := range []string{st.Halted, st.Local.Halted} {
		if halt != "" {
			p.row("halted", halt)
		}
	}
}

// committeeRows says how the committee is changing, and on whom that waits.
func committeeRows(p *printer, st *client.Status) {
	for _, x := range st.Seats {
		switch x.State {
		case "candidate":
			p.row("candidate "+x.Name, "voted on until "+x.Until.Format(time.RFC3339))
		case "admitted", "resharing":
			p.row(x.State+" "+x.Name, "holds no key share that counts")
		case "retired":
			p.row("retired "+x.Name, fmt.Sprintf("last in epoch %d", x.Epoch))
		}
	}
	for _, c := range st.Changes {
		p.row("change "+c.Kind, strings.TrimSpace(orDash(c.In)+" in, "+orDash(c.Out)+" out, then "+c.After))
		why := c.Why
		if len(c.For) > 0 {
			why += ": " + strings.Join(c.For, ", ")
		}
		if why != "" {
			p.row("  waits", why)
		}
	}
	if n := st.Next; n != nil {
		text := fmt.Sprintf("%s; then %s", n.Kind, n.After)
		if n.Deadline != nil {
			text += "; dropped at " + n.Deadline.Format(time.RFC3339)
		}
		p.row(fmt.Sprintf("epoch %d", n.Number), text)
		p.row("  waits for", n.Why)
		for _, k := range n.Keys {
			text := fmt.Sprintf("%s, try %d", k.Stage, k.Try)
			if k.Tries != 0 {
				text += fmt.Sprintf(" of %d", k.Tries)
			}
			if k.Tests != "" {
				text += ", " + k.Tests + " attested by all"
			}
			if len(k.Missing) > 0 {
				text += "; not ready: " + strings.Join(k.Missing, ", ")
			}
			if len(k.Blamed) > 0 {
				text += "; blamed: " + strings.Join(k.Blamed, ", ")
			}
			p.row("  key "+k.Key, text)
		}
	}
	if d := st.Dropped; d != nil {
		text := fmt.Sprintf("%s, dropped by %s at %s", d.Kind, d.How, d.Time.Format(time.RFC3339))
		if len(d.Missing) > 0 {
			text += "; not ready: " + strings.Join(d.Missing, ", ")
		}
		p.row(fmt.Sprintf("epoch %d led to nothing", d.Number), text)
	}
}

// lastDrill says when backups were last proven to sign.
func lastDrill(st *client.Status) string {
	text := "none of the key shares in force"
	if st.Drilled != nil {
		text = ago(st.Drilled, st.LedgerTime)
	}
	if st.DrillDue.Before(st.LedgerTime) {
		text += ", OVERDUE since " + st.DrillDue.Format(time.DateOnly)
	}
	return text
}
