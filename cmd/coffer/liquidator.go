package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/coffer-network/coffer/node/api/client"
	"github.com/spf13/cobra"
)

const liquidatorHelp = `Watches for borrowers below health factor 1 and repays their debt out of what the
account supplies, wherever the collateral it takes is worth more at the oracle's
prices, the most profitable first. It signs without asking. Fund it first: supply
what is borrowed, such as USDT, to the addresses that --fund shows. Nothing moves
on a chain, unless --withdraw-to says where an asset leaves to once it is gained.

It runs until it is interrupted. A node that does not answer is an event, and is
asked again; so is a borrower who is left alone, with the ledger's code, once
until the reason changes. --timeout bounds one round. With --json every line of
standard output is one event: watching, fund, liquidated, skipped, error, stopped.`

// botEvent is one line of the liquidator. Kind says which of the rest is there.
type botEvent struct {
	Event string    `json:"event"`
	Time  time.Time `json:"time"` // of this machine

	Account    string             `json:"account,omitempty"`
	Supplied   []botSupply        `json:"supplied,omitempty"`  // watching
	Addresses  []botAddress       `json:"addresses,omitempty"` // fund
	Liquidated *client.Liquidated `json:"liquidated,omitempty"`
	Skipped    *client.Skipped    `json:"skipped,omitempty"`
	Error      string             `json:"error,omitempty"`
}

// botSupply is what one pool holds for the account, in base units.
type botSupply struct {
	Pool   string `json:"pool"`
	Amount string `json:"amount"`
}

// botAddress is where an asset is supplied to, derived here.
type botAddress struct {
	Asset   string `json:"asset"`
	Address string `json:"address"`
}

// bot is the liquidator at work.
type bot struct {
	*session
	client.Liquidator
	every  time.Duration
	once   bool
	to     []string // --withdraw-to
	assets map[string]client.Asset

	watching bool   // said so, and the last round was good
	unfed    bool   // said where to supply
	failed   string // error last said; "": the last round was good
	lost     error  // of standard output
}

func newLiquidatorCmd() *cobra.Command {
	var w who
	b := &bot{}
	var fund bool
	var least string
	cmd := clientCmd(&cobra.Command{
		Use: "liquidator", Short: "Watch for unhealthy loans and liquidate them for profit", Long: liquidatorHelp,
		Example: "  coffer liquidator --fund --file bot.json\n  coffer liquidator --file bot.json --least 5 --json\n  coffer liquidator --file bot.json --withdraw-to btc=bcrt1q… --every 2s",
		Args:    args(cobra.NoArgs),
	}, true, func(ctx context.Context, s *session, _ []string) error {
		b.session = s
		if b.every < time.Second {
			return usagef("--every %s: want at least 1s", b.every)
		}
		usd, err := units(least, client.Asset{Symbol: "USD", Decimals: 8})
		if err != nil {
			return usagef("--least: %w", err)
		}
		b.Least, _ = new(big.Int).SetString(usd, 10)
		for _, x := range b.to {
			if asset, to, ok := strings.Cut(x, "="); !ok || asset == "" || to == "" {
				return usagef("--withdraw-to %q: want ASSET=ADDRESS", x)
			}
		}
		wallet, c, err := s.wallet()
		if err != nil {
			return err
		}
		if b.Signer, b.Account, err = w.resolve(wallet); err != nil {
			return err
		}
		b.Client = c
		if fund {
			if err := b.learn(ctx); err != nil {
				return err
			}
			return b.fund(ctx)
		}
		return b.run()
	})
	f := cmd.Flags()
	w.flags(cmd)
	f.DurationVar(&b.every, "every", 3*time.Second, "pause between rounds, at least 1s")
	f.BoolVar(&b.once, "once", false, "look once and end")
	f.BoolVar(&fund, "fund", false, "show where to supply what it repays with, and end")
	f.StringVar(&least, "least", "0.01", "least profit of a liquidation, in USD")
	f.StringArrayVar(&b.to, "withdraw-to", nil, "ASSET=ADDRESS where what is gained in an asset leaves to at once; once for each asset")
	f.Lookup("timeout").Usage = "how long one round may take"
	return cmd
}

// run goes round until it is interrupted. Only what asking again cannot mend
// ends it before.
func (b *bot) run() error {
	base := b.cmd.Context()
	for {
		ctx, cancel := context.WithTimeout(base, b.timeout)
		err := b.round(ctx)
		cancel()
		switch {
		case b.lost != nil:
			return b.lost
		case base.Err() != nil:
			b.say(botEvent{Event: "stopped", Account: b.Account})
			return &shownError{errors.New("interrupted")}
		case exitCode(base, err) == exitUsage:
			return err
		case err != nil && (b.once || hopeless(err)):
			b.say(botEvent{Event: "error", Error: err.Error()})
			return &shownError{err}
		case err != nil && !errors.Is(err, client.ErrNothingSupplied):
			if b.watching = false; b.failed != err.Error() {
				b.say(botEvent{Event: "error", Error: err.Error()})
			}
			b.failed = err.Error()
		case b.once:
			return nil
		default:
			b.failed = ""
		}
		select {
		case <-base.Done():
		case <-time.After(b.every):
		}
	}
}

// hopeless errors stay however often the node is asked.
func hopeless(err error) bool {
	var pin *client.PinError
	var address *client.MismatchError
	return errors.As(err, &pin) || errors.As(err, &address) ||
		errors.Is(err, client.ErrNotController) || client.IsCode(err, "UNKNOWN_ACCOUNT")
}

func (b *bot) round(ctx context.Context) error {
	if b.assets == nil {
		if err := b.learn(ctx); err != nil {
			return err
		}
	}
	if !b.watching {
		a, err := b.Client.Account(ctx, b.Account)
		if client.IsCode(err, "UNKNOWN_ACCOUNT") {
			return fmt.Errorf("%w: coffer account open opens it", err)
		}
		if err != nil {
			return err
		}
		var has []botSupply
		for _, p := range a.Health.Positions {
			if p.Supplied != "0" {
				has = append(has, botSupply{p.Pool, p.Supplied})
			}
		}
		if b.watching = len(has) > 0; b.watching {
			b.say(botEvent{Event: "watching", Account: b.Account, Supplied: has})
		}
	}
	err := b.Round(ctx,
		func(l client.Liquidated) { b.say(botEvent{Event: "liquidated", Liquidated: &l}) },
		func(s client.Skipped) { b.say(botEvent{Event: "skipped", Skipped: &s}) })
	if !errors.Is(err, client.ErrNothingSupplied) {
		b.unfed = false
		return err
	}
	if b.watching = false; !b.unfed {
		if err := b.fund(ctx); err != nil {
			return err
		}
		b.unfed = true
	}
	return err
}

// learn reads what assets there are, and where they may leave to.
func (b *bot) learn(ctx context.Context) error {
	assets, err := b.Client.Assets(ctx)
	if err != nil {
		return err
	}
	to := map[string]string{}
	for _, x := range b.to {
		name, addr, _ := strings.Cut(x, "=")
		asset, err := b.Client.AssetNamed(ctx, name)
		if err != nil {
			return usagef("--withdraw-to %s: %w", x, err)
		}
		if to[asset.ID] != "" {
			return usagef("--withdraw-to %s: %s is named twice", x, asset.ID)
		}
		if to[asset.ID], err = payTo(addr, asset); err != nil {
			return usagef("--withdraw-to %s: %w", x, err)
		}
	}
	b.WithdrawTo, b.assets = to, assets
	return nil
}

// fund says where to supply what the account repays debt with.
func (b *bot) fund(ctx context.Context) error {
	e := botEvent{Event: "fund", Account: b.Account}
	for _, id := range slices.Sorted(maps.Keys(b.assets)) {
		if !b.assets[id].Pool {
			continue
		}
		a, err := b.Client.DepositAddress(ctx, b.Account, b.assets[id], client.Supply)
		if err != nil {
			return err
		}
		e.Addresses = append(e.Addresses, botAddress{id, a.Address})
	}
	b.say(e)
	return b.lost
}

// say prints an event: as a JSON line, or as lines for people.
func (b *bot) say(e botEvent) {
	if b.lost != nil {
		return
	}
	e.Time = time.Now().UTC().Truncate(time.Millisecond)
	if out := b.cmd.OutOrStdout(); b.json {
		b.lost = json.NewEncoder(out).Encode(e)
	} else {
		_, b.lost = fmt.Fprintln(out, e.Time.Format(time.RFC3339), b.words(e))
	}
}

// words tell an event to people.
func (b *bot) words(e botEvent) string {
	amount := func(pool, n string) string { return human(n, b.assets[pool].Decimals, b.assets[pool].Symbol) }
	switch e.Event {
	case "watching":
		has := make([]string, len(e.Supplied))
		for i, x := range e.Supplied {
			has[i] = amount(x.Pool, x.Amount)
		}
		return "watching with " + strings.Join(has, ", ") + " of account " + e.Account
	case "fund":
		s := "supply what is borrowed, for account " + e.Account + ":"
		for _, x := range e.Addresses {
			s += "\n  " + x.Asset + "  " + x.Address
		}
		return s
	case "liquidated":
		l := e.Liquidated
		s := fmt.Sprintf("liquidated %s: repaid %s, gained %s, profit %s", l.Borrower, amount(l.Debt, l.Repaid), amount(l.Collateral, l.Gained), usd(l.Profit))
		if l.Outflow != 0 {
			s += fmt.Sprintf("; outflow %d withdraws it, for %s at most", l.Outflow, amount(l.Collateral, l.MaxFee))
		}
		if l.Kept != "" {
			s += "; it stays supplied: " + l.Kept
		}
		return s
	case "skipped":
		return strings.TrimSpace("left alone " + e.Skipped.Borrower + ": " + e.Skipped.Code + " " + e.Skipped.Detail)
	case "error":
		return e.Error
	}
	return e.Event
}
