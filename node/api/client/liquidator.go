package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"

	"github.com/coffer-network/coffer/ledger/address"
)

const (
	// lookAt bounds the borrowers of one round. The next round goes on behind
	// them, so a crowd that is not worth it hides nobody.
	lookAt = 50
	// maxPairs bounds the pairs of debt and collateral tried for one borrower,
	// the largest first: each costs the node a preview.
	maxPairs = 9
	// restAfter is how long, in ledger time, a borrower is left alone whose
	// liquidation was previewed as good and then refused: a refusal costs a place
	// in the log.
	restAfter = time.Minute
)

// Why a borrower is left alone that is no code of the ledger.
const (
	SkipNoSupply     = "NO_SUPPLY"    // nothing supplied in a pool where he owes
	SkipUnprofitable = "UNPROFITABLE" // gains less than the least asked for
)

// ErrNothingSupplied: a liquidator repays out of what its account supplies.
var ErrNothingSupplied = errors.New("the account supplies nothing to repay debt with")

// ErrNotController: the signer may not act for the account.
var ErrNotController = errors.New("the signing key does not control the account")

// Liquidator liquidates whoever is below health factor 1, for profit, out of
// what one account supplies (spec: lending §8.3). What a pair gains is what the
// node's preview says, which is the code that will decide; that no liquidation
// can cost more than it takes is the ledger's rule, so a node that lies can
// make it do less, or with less profit, and no more. Not safe for concurrent
// use.
type Liquidator struct {
	Client     *Client
	Signer     Signer
	Account    string            // that supplies, and that the signer controls
	Least      *big.Int          // USD · 10⁸ that a liquidation must gain; nil: one cent
	WithdrawTo map[string]string // collateral pool to CAIP-10 where what is gained leaves to; others: it stays supplied

	cursor    string               // where the next round goes on in the list; "": a new sweep
	said, now map[string]string    // code last found of a borrower: in the sweep before, in this one
	resting   map[string]time.Time // ledger time until which a borrower is left alone
}

// Liquidated is a liquidation that was applied. Amounts are base units, as
// previewed right before it was signed.
type Liquidated struct {
	Borrower   string `json:"borrower"`
	Debt       string `json:"debt"`
	Collateral string `json:"collateral"`
	Repaid     string `json:"repaid"`
	Gained     string `json:"gained"`
	Profit     string `json:"profit"` // USD · 10⁸ at the oracle's prices, less MaxFee
	Request    string `json:"request"`
	LogIndex   uint64 `json:"logIndex"`
	Outflow    uint64 `json:"outflow,omitempty"` // that withdraws what was gained
	MaxFee     string `json:"maxFee,omitempty"`  // of that, in the collateral
	Kept       string `json:"kept,omitempty"`    // code that kept what was gained from leaving at once
}

// Skipped is a borrower who is left alone, and why: a code of the ledger, or one
// of the Skip constants.
type Skipped struct {
	Borrower string `json:"borrower"`
	Code     string `json:"code"`
	Detail   string `json:"detail,omitempty"`
}

// offer is the best liquidation of one borrower.
type offer struct {
	Liquidation
	repaid, gained *big.Int // base units
	profit         *big.Int // USD · 10⁸
	unit           *big.Rat // value of a base unit of the collateral, USD · 10⁸
	fresh          bool     // weighed since the last liquidation
}

// round is what one round reads once.
type round struct {
	*Liquidator
	cluster *Cluster
	grammar *address.Grammar
	pools   []Pool
}

// Round looks at up to 50 borrowers and liquidates, the most profitable first,
// until nothing gains the least asked for. Each liquidation goes to took. A
// borrower who is left alone goes to skipped, again only when the reason
// changed. An error is the node's or the network's, and the round may be tried
// again; ErrNothingSupplied and ErrNotController say what is missing.
func (l *Liquidator) Round(ctx context.Context, took func(Liquidated), skipped func(Skipped)) error {
	own, err := l.Client.Account(ctx, l.Account)
	if err != nil {
		return err
	}
	if !slices.Contains(own.Controllers, l.Signer.ID().String()) {
		return fmt.Errorf("%s and account %s: %w", l.Signer.ID(), l.Account, ErrNotController)
	}
	if !slices.ContainsFunc(own.Health.Positions, func(p Position) bool { return number(p.Supplied).Sign() > 0 }) {
		return ErrNothingSupplied
	}
	r := &round{Liquidator: l}
	if r.grammar, err = l.Client.Grammar(ctx); err != nil {
		return err
	}
	if r.cluster, err = l.Client.Cluster(ctx); err != nil {
		return err
	}
	pools, err := l.Client.Pools(ctx)
	if err != nil {
		return err
	}
	r.pools = pools.Pools
	page, err := l.Client.AtRisk(ctx, l.cursor, lookAt)
	if err != nil {
		return err
	}
	offers, err := r.offers(ctx, page.Accounts, skipped)
	if err == nil {
		err = r.takeAll(ctx, offers, took, skipped)
	}
	if err != nil {
		return err
	}
	if l.cursor = page.Next; l.cursor == "" { // who was not met any more is forgotten
		l.said, l.now = l.now, nil
	}
	return nil
}

// skip reports a borrower who is left alone, where the reason is news.
func (l *Liquidator) skip(s Skipped, report func(Skipped)) {
	if s.Code == "" {
		return
	}
	if s.Code != cmp.Or(l.now[s.Borrower], l.said[s.Borrower]) {
		report(s)
	}
	if l.now == nil {
		l.now = map[string]string{}
	}
	l.now[s.Borrower] = s.Code
}

// offers weighs the borrowers of a page.
func (r *round) offers(ctx context.Context, list []AtRiskAccount, skipped func(Skipped)) (offers []offer, err error) {
	for id, until := range r.resting {
		if r.cluster.LedgerTime.After(until) {
			delete(r.resting, id)
		}
	}
	for _, a := range list {
		code, o := a.Code, offer{}
		_, resting := r.resting[a.ID]
		switch {
		case resting:
			code = cmp.Or(r.now[a.ID], r.said[a.ID])
		case a.ID == r.Account:
			code = "SELF_LIQUIDATION"
		case code == "HEALTHY": // since the ledger's last look
			code = ""
		case code == "OK":
			if o, code, err = r.weigh(ctx, a.ID); err != nil {
				return nil, err
			}
		}
		if code != "OK" {
			r.skip(Skipped{Borrower: a.ID, Code: code}, skipped)
			continue
		}
		offers = append(offers, o)
	}
	return offers, nil
}

// takeAll liquidates, the most profitable first. Each liquidation uses up
// supply, so an offer is weighed anew before it is taken. Where what was gained
// can repay another debt, the next round sees it.
func (r *round) takeAll(ctx context.Context, offers []offer, took func(Liquidated), skipped func(Skipped)) error {
	for len(offers) > 0 {
		i := best(offers)
		o := offers[i]
		if !o.fresh {
			again, code, err := r.weigh(ctx, o.Borrower)
			if err != nil {
				return err
			}
			if offers[i] = again; code != "OK" {
				offers = slices.Delete(offers, i, i+1)
				r.skip(Skipped{Borrower: o.Borrower, Code: code}, skipped)
			}
			continue
		}
		done, err := r.take(ctx, o)
		var refused *Problem
		if errors.As(err, &refused) && refused.LogIndex != 0 {
			offers = slices.Delete(offers, i, i+1)
			r.skip(Skipped{Borrower: o.Borrower, Code: refused.Code, Detail: refused.Detail}, skipped)
			if r.resting == nil {
				r.resting = map[string]time.Time{}
			}
			r.resting[o.Borrower] = r.cluster.LedgerTime.Add(restAfter)
			continue
		}
		if err != nil {
			return err
		}
		took(done)
		delete(r.now, o.Borrower)
		delete(r.said, o.Borrower)
		for i := range offers { // his own too: he may have a second pair
			offers[i].fresh = false
		}
	}
	return nil
}

// best is the index of the most profitable offer.
func best(offers []offer) int {
	at := 0
	for i := range offers {
		if offers[i].profit.Cmp(offers[at].profit) > 0 {
			at = i
		}
	}
	return at
}

// weigh finds the most profitable liquidation of a borrower. code is OK, or why
// there is none: the refusal of his largest pair; empty where none is needed.
func (r *round) weigh(ctx context.Context, borrower string) (found offer, code string, err error) {
	own, err := r.Client.Account(ctx, r.Account)
	if err != nil {
		return found, "", err
	}
	his, err := r.Client.Account(ctx, borrower)
	if err != nil {
		return found, "", err
	}
	pairs, code := pairsOf(own.Health.Positions, his.Health.Positions)
	for _, p := range pairs {
		o, refused, err := r.try(ctx, Liquidation{Borrower: borrower, Debt: p.debt.Pool, Collateral: p.coll.Pool, Amount: p.amount()})
		if err != nil {
			return found, "", err
		}
		if units := p.leaving(r.pool(p.coll.Pool).Bonus); refused == "DUST" && units != "0" {
			o, refused, err = r.try(ctx, Liquidation{Borrower: borrower, Debt: p.debt.Pool, Collateral: p.coll.Pool, Amount: units})
			if err != nil {
				return found, "", err
			}
		}
		if refused == "OK" && o.profit.Cmp(r.least()) < 0 {
			refused = SkipUnprofitable
		}
		switch {
		case refused == "OK" && (found.profit == nil || o.profit.Cmp(found.profit) > 0):
			found, code = o, "OK"
		case refused != "OK":
			code = cmp.Or(code, refused)
		}
	}
	if code == "HEALTHY" { // recovered since he was listed, or cured by us
		code = ""
	}
	return found, code, nil
}

func (l *Liquidator) least() *big.Int {
	if l.Least == nil {
		return big.NewInt(1_000_000)
	}
	return l.Least
}

func (r *round) pool(id string) Pool {
	i := slices.IndexFunc(r.pools, func(p Pool) bool { return p.ID == id })
	if i < 0 {
		return Pool{}
	}
	return r.pools[i]
}

// try previews a liquidation and says what it would gain.
func (r *round) try(ctx context.Context, ask Liquidation) (o offer, code string, err error) {
	p, err := r.preview(ctx, ask)
	if err != nil || p.Code != "OK" {
		return o, p.Code, err
	}
	o = offer{Liquidation: ask, fresh: true, repaid: new(big.Int), gained: new(big.Int), profit: new(big.Int), unit: new(big.Rat)}
	before := map[string]Position{}
	for _, x := range p.Before.Positions {
		before[x.Pool] = x
	}
	for _, x := range p.After.Positions {
		moved := new(big.Int).Sub(number(x.Supplied), number(before[x.Pool].Supplied))
		o.profit.Add(o.profit, number(x.SuppliedValue))
		o.profit.Sub(o.profit, number(before[x.Pool].SuppliedValue))
		switch x.Pool {
		case ask.Debt:
			o.repaid.Neg(moved)
		case ask.Collateral:
			o.gained = moved
			if has := number(x.Supplied); has.Sign() > 0 {
				o.unit.SetFrac(number(x.SuppliedValue), has)
			}
		}
	}
	return o, "OK", nil
}

// preview asks what ask would do. A node that is busy is asked again.
func (r *round) preview(ctx context.Context, ask Liquidation) (Preview, error) {
	cmd, err := ask.command(r.grammar, r.Signer.ID())
	if err != nil {
		return Preview{}, err
	}
	// A preview minds neither nonce nor expiry: what is signed is prepared anew.
	cmd.Cluster, cmd.Nonce, cmd.Expires = r.cluster.Cluster, 1, r.cluster.LedgerTime.Add(lifetime).Unix()
	if cmd.Account, err = ParseAccount(r.Account); err != nil {
		return Preview{}, err
	}
	text := r.grammar.Render(&cmd)
	for {
		p, err := r.Client.Preview(ctx, Action{Text: text})
		var busy *Problem
		if errors.As(err, &busy) && busy.Code == "OVERLOADED" {
			if err := sleep(ctx, time.Duration(max(1, busy.After))*time.Second); err != nil {
				return Preview{}, fmt.Errorf("preview: %w: %w", err, busy)
			}
			continue
		}
		if err == nil && p.Code == "OK" && (p.Before == nil || p.After == nil) {
			err = fmt.Errorf("node %s previews a liquidation without what it would leave", r.Client.base)
		}
		return *p, err
	}
}

// take signs and sends an offer, with the withdrawal of what it gains where that
// is wanted, possible, and leaves the least asked for even at its largest fee.
func (r *round) take(ctx context.Context, o offer) (done Liquidated, err error) {
	done = Liquidated{
		Borrower: o.Borrower, Debt: o.Debt, Collateral: o.Collateral, Repaid: o.repaid.String(), Gained: o.gained.String(),
	}
	ask, profit := o.Liquidation, o.profit
	if to := r.WithdrawTo[o.Collateral]; to != "" {
		quote := r.pool(o.Collateral).PayoutFee
		with := ask
		with.AutoWithdrawTo, with.MaxFee = to, quote.Suggested
		if done.Kept = quote.Unknown; done.Kept == "" {
			fee := new(big.Rat).Mul(o.unit, new(big.Rat).SetInt(number(quote.Suggested)))
			net := new(big.Int).Sub(profit, ceil(fee))
			p, err := r.preview(ctx, with)
			switch {
			case err != nil:
				return done, err
			case p.Code != "OK":
				done.Kept = p.Code
			case net.Cmp(r.least()) < 0:
				done.Kept = SkipUnprofitable
			default:
				ask, profit, done.MaxFee = with, net, with.MaxFee
			}
		}
	}
	done.Profit = profit.String()
	a, err := r.Client.PrepareLiquidation(ctx, r.Signer.ID(), r.Account, ask)
	if err != nil {
		return done, err
	}
	q, err := r.Client.Submit(ctx, r.Signer, a)
	if err != nil {
		return done, err
	}
	done.Request, done.LogIndex, done.Outflow = q.ID, q.LogIndex, q.Outflow
	return done, nil
}

// pair is a debt of the borrower that the account can repay, and a collateral.
type pair struct {
	own, debt, coll Position // own: of the account, in the debt's pool
}

// pairsOf lists a borrower's pairs, the largest first. Without any, code says
// what is missing; it is empty where he owes nothing.
func pairsOf(own, his []Position) (pairs []pair, code string) {
	for _, d := range his {
		if number(d.Owed).Sign() == 0 {
			continue
		}
		i := slices.IndexFunc(own, func(p Position) bool { return p.Pool == d.Pool })
		if i < 0 || number(own[i].Supplied).Sign() == 0 {
			code = cmp.Or(code, SkipNoSupply)
			continue
		}
		code = "NO_COLLATERAL"
		for _, c := range his {
			if number(c.Collateral).Sign() > 0 {
				pairs = append(pairs, pair{own[i], d, c})
			}
		}
	}
	if len(pairs) > 0 {
		code = ""
	}
	slices.SortStableFunc(pairs, func(a, b pair) int { return b.size().Cmp(a.size()) })
	return pairs[:min(len(pairs), maxPairs)], code
}

// size is the value that can change hands.
func (p pair) size() *big.Int { return lesser(number(p.debt.OwedValue), p.collateral()) }

// collateral is the value of what can be taken.
func (p pair) collateral() *big.Int {
	return proportion(number(p.coll.SuppliedValue), number(p.coll.Collateral), number(p.coll.Supplied))
}

// amount is all of the debt, or all that there is to repay it with.
func (p pair) amount() string {
	if has := number(p.own.Supplied); has.Cmp(number(p.debt.Owed)) < 0 {
		return has.String()
	}
	return "max"
}

// leftover is what both legs must keep, USD · 10⁸, where neither is cleared: the
// ledger's 1,000 and a dollar for what moves meanwhile (spec: lending §8.2).
var leftover = big.NewInt(1_001 * 100_000_000)

// leaving is the most to repay that leaves no dust on either leg, in base units;
// 0 if there is no such amount. bonus in bps.
func (p pair) leaving(bonus uint64) string {
	owedValue := number(p.debt.OwedValue)
	taken := proportion(new(big.Int).Sub(p.collateral(), leftover), big.NewInt(10_000), new(big.Int).SetUint64(bonus))
	value := lesser(new(big.Int).Sub(owedValue, leftover), taken)
	if value.Sign() <= 0 {
		return "0"
	}
	return lesser(proportion(number(p.debt.Owed), value, owedValue), number(p.own.Supplied)).String()
}

// number reads an amount of an answer; what is none counts as nothing.
func number(s string) *big.Int {
	n, ok := new(big.Int).SetString(s, 10)
	if !ok {
		return new(big.Int)
	}
	return n
}

func lesser(a, b *big.Int) *big.Int {
	if a.Cmp(b) < 0 {
		return a
	}
	return b
}

// proportion is a·b/c, rounded down; 0 where c is.
func proportion(a, b, c *big.Int) *big.Int {
	if c.Sign() == 0 {
		return new(big.Int)
	}
	n := new(big.Int).Mul(a, b)
	return n.Div(n, c)
}

// ceil is r rounded up.
func ceil(r *big.Rat) *big.Int {
	n := new(big.Int).Add(r.Num(), new(big.Int).Sub(r.Denom(), big.NewInt(1)))
	return n.Div(n, r.Denom())
}
