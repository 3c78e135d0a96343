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
	coll, ok := g.Pools[l.Collateral]
	if _, known := g.Pools[l.Debt]; !ok || !known {
		return Action{}, fmt.Errorf("pools %q and %q: not both are pools", l.Debt, l.Collateral)
	}
	cmd := address.Command{Action: address.ActionLiquidate, Pool: l.Debt, CollateralPool: l.Collateral, Signer: signer}
	if cmd.Borrower, err = ParseAccount(l.Borrower); err != nil {
		return Action{}, err
	}
	if cmd.Amount = g.Amount(l.Debt, l.Amount); l.Amount == "max" {
		cmd.Amount = g.MaxAmount(l.Debt)
	}
	fee := "0"
	if l.AutoWithdrawTo != "" {
		if cmd.AutoWithdrawTo, err = address.SplitCAIP10(l.AutoWithdrawTo); err != nil {
			if cmd.AutoWithdrawTo, err = address.SplitCAIP10(coll.Chain + ":" + l.AutoWithdrawTo); err != nil {
				return Action{}, fmt.Errorf("withdraw to %q: %w", l.AutoWithdrawTo, err)
			}
		}
		if fee = l.MaxFee; fee == "" {
			d, err := c.Pool(ctx, l.Collateral)
			if err != nil {
				return Action{}, err
			}
			if d.PayoutFee.Unknown != "" {
				return Action{}, fmt.Errorf("no fee quote for %s now (%s): try again, or say the most it may cost", l.Collateral, d.PayoutFee.Unknown)
			}
			fee = d.PayoutFee.Suggested
		}
	}
	cmd.MaxFee = g.Amount(l.Collateral, fee)
	return c.prepareFor(ctx, account, cmd)
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
