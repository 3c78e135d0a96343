package client

import (
	"context"
	"fmt"
	"net/url"
	"strconv"

	"github.com/coffer-network/coffer/ledger/address"
)

// Liquidation is what Liquidate asks for. Amounts are base units.
type Liquidation struct {
	Borrower       string // account id
	Debt           string // pool whose debt is repaid
	Amount         string // most to repay; "max" for all that may be
	Collateral     string // pool whose supply is taken
	AutoWithdrawTo string // CAIP-10, or an address of the collateral's chain; "": what is gained stays supplied
	MaxFee         string // of that withdrawal, in the collateral; "": what the node suggests now
}

// PrepareLiquidation prepares a Liquidate. account "" is the one that the signer
// opens.
func (c *Client) PrepareLiquidation(ctx context.Context, signer address.CAIP10, account string, l Liquidation) (Action, error) {
	g, err := c.Grammar(ctx)
	if err != nil {
		return Action{}, err
	}
	if l.AutoWithdrawTo != "" && l.MaxFee == "" {
		quote, err := c.payoutFee(ctx, l.Collateral)
		if err != nil {
			return Action{}, err
		}
		l.MaxFee = quote.Suggested
	}
	cmd, err := l.command(g, signer)
	if err != nil {
		return Action{}, err
	}
	return c.prepareFor(ctx, account, cmd)
}

// command is the Liquidate that l asks for, without account, nonce and expiry.
func (l Liquidation) command(g *address.Grammar, signer address.CAIP10) (address.Command, error) {
	cmd := address.Command{Action: address.ActionLiquidate, Pool: l.Debt, CollateralPool: l.Collateral, Signer: signer}
	coll, ok := g.Pools[l.Collateral]
	if _, known := g.Pools[l.Debt]; !ok || !known {
		return cmd, fmt.Errorf("pools %q and %q: not both are pools", l.Debt, l.Collateral)
	}
	var err error
	if cmd.Borrower, err = ParseAccount(l.Borrower); err != nil {
		return cmd, err
	}
	if cmd.Amount = g.Amount(l.Debt, l.Amount); l.Amount == "max" {
		cmd.Amount = g.MaxAmount(l.Debt)
	}
	fee := "0"
	if l.AutoWithdrawTo != "" {
		if cmd.AutoWithdrawTo, err = destination(l.AutoWithdrawTo, coll); err != nil {
			return cmd, err
		}
		fee = l.MaxFee
	}
	cmd.MaxFee = g.Amount(l.Collateral, fee)
	return cmd, nil
}

// PrepareCover prepares a Cover deficit of amount base units, which only an
// insurance account may ask for.
func (c *Client) PrepareCover(ctx context.Context, signer address.CAIP10, account, pool, amount string) (Action, error) {
	g, err := c.Grammar(ctx)
	if err != nil {
		return Action{}, err
	}
	if _, ok := g.Pools[pool]; !ok {
		return Action{}, fmt.Errorf("no pool %q", pool)
	}
	return c.prepareFor(ctx, account, address.Command{
		Action: address.ActionCoverDeficit, Pool: pool, Amount: g.Amount(pool, amount), Signer: signer,
	})
}

func (c *Client) prepareFor(ctx context.Context, account string, cmd address.Command) (Action, error) {
	if account != "" {
		var err error
		if cmd.Account, err = ParseAccount(account); err != nil {
			return Action{}, err
		}
	}
	return c.Prepare(ctx, cmd)
}

// AtRisk reads a page of the accounts below health factor 1, at most limit of
// them behind the cursor, which is next of the page before.
func (c *Client) AtRisk(ctx context.Context, cursor string, limit int) (*AtRisk, error) {
	q := url.Values{"limit": {strconv.Itoa(limit)}}
	if cursor != "" {
		q.Set("cursor", cursor)
	}
	out := new(AtRisk)
	if err := c.Get(ctx, "/v1/liquidations", q, out); err != nil {
		return nil, err
	}
	return out, nil
}
