package client

import (
	"context"
	"net/url"
	"strconv"
	"time"
)

// PastLiquidation is a liquidation that was done. Amounts are base units.
type PastLiquidation struct {
	ID                 uint64    `json:"id" doc:"LogIndex of the command"`
	Time               time.Time `json:"time"`
	Request            string    `json:"request,omitempty" doc:"that asked for it"`
	Liquidator         string    `json:"liquidator"`
	Borrower           string    `json:"borrower"`
	DebtPool           string    `json:"debtPool"`
	DebtSymbol         string    `json:"debtSymbol"`
	DebtDecimals       uint8     `json:"debtDecimals"`
	CollateralPool     string    `json:"collateralPool"`
	CollateralSymbol   string    `json:"collateralSymbol"`
	CollateralDecimals uint8     `json:"collateralDecimals"`
	Requested          string    `json:"requested" doc:"most to repay, or max"`
	Repaid             string    `json:"repaid"`
	Seized             string    `json:"seized" doc:"fee included"`
	Fee                string    `json:"fee" doc:"of the seized, to the treasury"`
	HFBefore           string    `json:"healthFactorBefore" doc:"WAD"`
	HFBeforeShown      string    `json:"healthFactorBeforeShown" example:"0.97"`
	HFAfter            *string   `json:"healthFactorAfter" doc:"WAD; null without debt"`
	HFAfterShown       string    `json:"healthFactorAfterShown" example:"1.07"`
	BadDebt            []Loss    `json:"badDebt" doc:"what nothing was left to pay, by pool"`
	Outflow            uint64    `json:"outflow,omitempty" doc:"that sends the liquidator his gain"`
}

// Loss is bad debt of one pool.
type Loss struct {
	Pool    string `json:"pool"`
	Debt    string `json:"debt"`
	Covered string `json:"coveredByTreasury"`
}

// LiquidationDetail is one of them.
type LiquidationDetail struct {
	Meta
	PastLiquidation
}

// PastLiquidations is a page of them, newest first.
type PastLiquidations struct {
	Meta
	Since        uint64            `json:"since" doc:"from this LogIndex on nothing is missing"`
	Liquidations []PastLiquidation `json:"liquidations"`
	Next         string            `json:"next,omitempty" doc:"cursor of the next page"`
}

// Explanation is a liquidation computed again from its record.
type Explanation struct {
	Meta
	Liquidation PastLiquidation `json:"liquidation"`
	Legs        []ExplainLeg    `json:"legs" doc:"the borrower's positions as they were weighed"`
	Steps       []ExplainStep   `json:"steps"`
	Agrees      bool            `json:"agrees" doc:"every number of the record follows from its prices, indices, claims and request"`
	Differs     string          `json:"differs,omitempty" doc:"first number that does not"`
	Record      string          `json:"record" doc:"the record as the command's effect carries it: JSON from which anybody can compute the rest"`
}

// ExplainLeg is one position before the liquidation. Prices and values are
// USD · 10⁸, indices RAY.
type ExplainLeg struct {
	Pool             string    `json:"pool"`
	Symbol           string    `json:"symbol"`
	Decimals         uint8     `json:"decimals"`
	Low              string    `json:"low" doc:"price of collateral"`
	High             string    `json:"high" doc:"price of debt"`
	Round            uint64    `json:"round" doc:"price round"`
	Closed           time.Time `json:"closed" doc:"when that round closed"`
	SupplyIndex      string    `json:"supplyIndex"`
	BorrowIndex      string    `json:"borrowIndex"`
	CollateralShares string    `json:"collateralShares" doc:"SupplyShares that counted: final deposits"`
	DebtShares       string    `json:"debtShares"`
	LT               uint64    `json:"liquidationThresholdBps"`
	Collateral       string    `json:"collateral" doc:"balance that counted"`
	CollateralValue  string    `json:"collateralValue"`
	Debt             string    `json:"debt"`
	DebtValue        string    `json:"debtValue"`
}

// ExplainStep is one number and how it follows from those before.
type ExplainStep struct {
	What     string `json:"what" example:"repaid"`
	Words    string `json:"words" doc:"how it follows, with the numbers"`
	Computed string `json:"computed" doc:"as it follows now; exact"`
	Recorded string `json:"recorded" doc:"as the log has it"`
	Agrees   bool   `json:"agrees"`
}

// RequestWhy says why a request came to what it came to.
type RequestWhy struct {
	Meta
	Request   string     `json:"request"`
	Account   string     `json:"account"`
	Action    string     `json:"action,omitempty" doc:"absent where only the stored result is left"`
	Pool      string     `json:"pool,omitempty"`
	Symbol    string     `json:"symbol,omitempty"`
	Decimals  uint8      `json:"decimals,omitempty"`
	Amount    string     `json:"amount,omitempty" doc:"asked for; base units, or max"`
	Nonce     uint64     `json:"nonce"`
	State     string     `json:"state" enum:"pending,accepted,refused"`
	Code      string     `json:"code,omitempty"`
	LogIndex  uint64     `json:"logIndex,omitempty" doc:"that applied it"`
	Time      *time.Time `json:"time,omitempty"`
	Detail    string     `json:"detail,omitempty" doc:"what the code means and what to do"`
	Limit     string     `json:"limit,omitempty" doc:"bound that refused it, as the log has it"`
	Found     string     `json:"found,omitempty" doc:"what was found against it"`
	Accepted  string     `json:"accepted,omitempty" doc:"what would have been accepted, in words"`
	MostNow   string     `json:"mostNow,omitempty" doc:"most that this action would be accepted for at asOf; base units"`
	NextNonce uint64     `json:"nextNonce" doc:"of the account at asOf: what the next text must carry"`
	NonceUsed bool       `json:"nonceUsed" doc:"the text is answered for good; otherwise it may be sent again until it expires"`
	Outflow   *Why       `json:"outflow,omitempty" doc:"that it created, and what that waits for"`
}

// InflowDetail is one deposit.
type InflowDetail struct {
	Meta
	Inflow
	Account string    `json:"account"`
	Credits []Credit  `json:"credits" doc:"how it was booked, as far as this node remembers"`
	Local   *Sighting `json:"local,omitempty" doc:"where no quorum attested it yet: what this node saw"`
}

// Credit is the booking of a deposit.
type Credit struct {
	LogIndex uint64    `json:"logIndex"`
	Time     time.Time `json:"time"`
	Reason   string    `json:"reason,omitempty" doc:"why it went to suspense; absent: it was credited"`
}

// InflowWhy says what a deposit waits for.
type InflowWhy struct {
	Meta
	Inflow        string    `json:"inflow"`
	Account       string    `json:"account"`
	State         string    `json:"state"`
	Status        string    `json:"status" doc:"status word"`
	Confirmations uint64    `json:"confirmations"`
	Required      uint64    `json:"requiredConfirmations"`
	Detail        string    `json:"detail" doc:"what became of it and what to do"`
	Shortfall     *Short    `json:"shortfall,omitempty"`
	WaitingFor    []Waiting `json:"waiting_for"`
	Sweep         *Why      `json:"sweep,omitempty" doc:"what the outflow that carries it waits for"`
}

// Short is what a deposit lacks. Amounts are base units of its asset.
type Short struct {
	Minimum string `json:"minimum"`
	Found   string `json:"found"`
	Missing string `json:"missing"`
	TopUp   bool   `json:"topUp" doc:"sending what is missing to the same address completes it; otherwise each deposit counts by itself, and the next must be the minimum"`
}

// PastLiquidations reads a page of those done; cursor "" is the newest.
func (c *Client) PastLiquidations(ctx context.Context, cursor string, limit int) (*PastLiquidations, error) {
	q := url.Values{"limit": {strconv.Itoa(limit)}}
	if cursor != "" {
		q.Set("cursor", cursor)
	}
	out := new(PastLiquidations)
	if err := c.Get(ctx, "/v1/liquidations/past", q, out); err != nil {
		return nil, err
	}
	return out, nil
}

// Liquidation reads one by its id.
func (c *Client) Liquidation(ctx context.Context, id uint64) (*LiquidationDetail, error) {
	return get[LiquidationDetail](ctx, c, "/v1/liquidations/"+strconv.FormatUint(id, 10))
}

// Explain has a liquidation computed again.
func (c *Client) Explain(ctx context.Context, id uint64) (*Explanation, error) {
	return get[Explanation](ctx, c, "/v1/liquidations/"+strconv.FormatUint(id, 10)+"/explain")
}

// RequestWhy asks why a request came to what it came to. account "" where the
// node has seen it itself.
func (c *Client) RequestWhy(ctx context.Context, id, account string) (*RequestWhy, error) {
	out := new(RequestWhy)
	return out, c.Get(ctx, "/v1/requests/"+url.PathEscape(id)+"/why", ofAccount(account), out)
}

// Inflow reads one deposit. account "" finds only what a quorum attested.
func (c *Client) Inflow(ctx context.Context, id, account string) (*InflowDetail, error) {
	out := new(InflowDetail)
	return out, c.Get(ctx, "/v1/inflows/"+url.PathEscape(id), ofAccount(account), out)
}

// InflowWhy asks what a deposit waits for.
func (c *Client) InflowWhy(ctx context.Context, id, account string) (*InflowWhy, error) {
	out := new(InflowWhy)
	return out, c.Get(ctx, "/v1/inflows/"+url.PathEscape(id)+"/why", ofAccount(account), out)
}

func ofAccount(id string) url.Values {
	if id == "" {
		return nil
	}
	return url.Values{"account": {id}}
}
