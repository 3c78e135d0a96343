package client

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"time"

	"github.com/coffer-network/coffer/ledger/address"
)

// Lifetime of a request: half of what the ledger allows, so that a ledger time
// read a little late is still good (spec: requests §4.1).
const lifetime = 5 * time.Minute

// Signer signs requests as one controller of an account. What it signs is
// address.Grammar.Message: the text, but for eip712.
type Signer interface {
	ID() address.CAIP10
	Scheme() string
	Sign(message string) (signature string, err error)
}

// Action is a request, rendered here, before it is signed.
type Action struct {
	Command address.Command
	Text    string
	ID      string // SHA-256 of Text

	grammar *address.Grammar // that rendered it
}

// Payout is what Borrow, Withdraw and Claim ask for. Amounts are base units.
type Payout struct {
	Pool   string
	Amount string // "max" for all there is (Withdraw); unused by Claim
	To     string // CAIP-10, or an address of the pool's chain
	MaxFee string // "": what the node suggests now
}

// AccountOf is the account that a signer opens in the cluster of this client.
func (c *Client) AccountOf(ctx context.Context, signer address.CAIP10) (string, error) {
	cl, err := c.Cluster(ctx)
	if err != nil {
		return "", err
	}
	return (&Pin{Cluster: cl.Cluster}).AccountOf(signer), nil
}

// Prepare completes cmd with account, cluster, nonce and expiry, and renders
// it. The nonce is the account's next as of this client's last write. With an
// error that is address.ErrDestination the Action is complete all the same: the
// ledger will refuse where it pays to.
func (c *Client) Prepare(ctx context.Context, cmd address.Command) (Action, error) {
	g, err := c.Grammar(ctx)
	if err != nil {
		return Action{}, err
	}
	cl, err := c.Cluster(ctx)
	if err != nil {
		return Action{}, err
	}
	cmd.Cluster = cl.Cluster
	cmd.Expires = cl.LedgerTime.Add(lifetime).Unix()
	if cmd.Action == address.ActionOpenLoan {
		if err := c.freeLoan(ctx, &cmd); err != nil {
			return Action{}, err
		}
	} else if cmd.Account == ([16]byte{}) {
		cmd.Account = address.AccountID(cl.Cluster, cmd.Signer)
	}
	if cmd.Action != address.ActionOpenAccount && cmd.Action != address.ActionOpenLoan {
		a, err := c.Account(ctx, hex.EncodeToString(cmd.Account[:]))
		if err != nil {
			return Action{}, err
		}
		cmd.Nonce = a.NextNonce
	}
	text := g.Render(&cmd)
	_, err = g.Parse(text)
	return Action{Command: cmd, Text: text, ID: TextID(text), grammar: g}, err
}

// TextID is the id of a request.
func TextID(text string) string {
	h := sha256.Sum256([]byte(text))
	return hex.EncodeToString(h[:])
}

// PreparePayout prepares one of Borrow, Withdraw and Claim. account "" is the
// one that the signer opens.
func (c *Client) PreparePayout(ctx context.Context, action string, signer address.CAIP10, account string, p Payout) (Action, error) {
	g, err := c.Grammar(ctx)
	if err != nil {
		return Action{}, err
	}
	pool, ok := g.Pools[p.Pool]
	if !ok {
		return Action{}, fmt.Errorf("no pool %q", p.Pool)
	}
	to, err := destination(p.To, pool)
	if err != nil {
		return Action{}, err
	}
	fee := p.MaxFee
	if fee == "" {
		quote, err := c.payoutFee(ctx, p.Pool)
		if err != nil {
			return Action{}, err
		}
		fee = quote.Suggested
		if action == address.ActionClaim {
			if fee, err = c.claimFee(ctx, account, signer, p.Pool, quote); err != nil {
				return Action{}, err
			}
		}
	}
	cmd := address.Command{Action: action, Pool: p.Pool, To: to, MaxFee: g.Amount(p.Pool, fee), Signer: signer}
	switch {
	case action == address.ActionClaim:
	case p.Amount == "max":
		cmd.Amount = g.MaxAmount(p.Pool)
	default:
		cmd.Amount = g.Amount(p.Pool, p.Amount)
	}
	if account != "" {
		if cmd.Account, err = ParseAccount(account); err != nil {
			return Action{}, err
		}
	}
	return c.Prepare(ctx, cmd)
}

// destination reads an address in full, or one of the pool's chain.
func destination(to string, pool address.Asset) (address.CAIP10, error) {
	id, err := address.SplitCAIP10(to)
	if err != nil {
		if id, err = address.SplitCAIP10(pool.Chain + ":" + to); err != nil {
			return id, fmt.Errorf("pay to %q: %w", to, err)
		}
	}
	return id, nil
}

func (c *Client) payoutFee(ctx context.Context, pool string) (FeeQuote, error) {
	d, err := c.Pool(ctx, pool)
	if err != nil {
		return FeeQuote{}, err
	}
	if d.PayoutFee.Unknown != "" {
		return FeeQuote{}, fmt.Errorf("no fee quote for %s now (%s): try again, or say --max-fee", pool, d.PayoutFee.Unknown)
	}
	return d.PayoutFee, nil
}

// LoanTerms are what a simple loan fixes. Amounts are base units.
type LoanTerms struct {
	Collateral     string // the least that will be sent
	CollateralPool string
	Amount         string
	Pool           string
	To             string // CAIP-10, or an address of the pool's chain
	MaxFee         string // of the payout, in the borrowed asset; "": what the node suggests now
	RefundTo       string // CAIP-10, or an address of the collateral's chain
}

// PrepareLoan prepares Open loan for the signer's next free loan.
func (c *Client) PrepareLoan(ctx context.Context, signer address.CAIP10, t LoanTerms) (Action, error) {
	g, err := c.Grammar(ctx)
	if err != nil {
		return Action{}, err
	}
	for _, pool := range []string{t.Pool, t.CollateralPool} {
		if _, ok := g.Pools[pool]; !ok {
			return Action{}, fmt.Errorf("no pool %q", pool)
		}
	}
	if t.MaxFee == "" {
		quote, err := c.payoutFee(ctx, t.Pool)
		if err != nil {
			return Action{}, err
		}
		t.MaxFee = quote.Suggested
	}
	cmd := address.Command{
		Action: address.ActionOpenLoan, Signer: signer,
		Collateral: g.Amount(t.CollateralPool, t.Collateral), CollateralPool: t.CollateralPool,
		Amount: g.Amount(t.Pool, t.Amount), Pool: t.Pool, MaxFee: g.Amount(t.Pool, t.MaxFee),
	}
	if cmd.To, err = destination(t.To, g.Pools[t.Pool]); err != nil {
		return Action{}, err
	}
	if cmd.RefundTo, err = destination(t.RefundTo, g.Pools[t.CollateralPool]); err != nil {
		return Action{}, err
	}
	return c.Prepare(ctx, cmd)
}

// maxLoans bounds the search for a loan without an account.
const maxLoans = 10_000

// freeLoan names the first of a signer's loans that has no account. Nonces that
// count up from 0 let a wallet find its loans again from nothing.
func (c *Client) freeLoan(ctx context.Context, cmd *address.Command) error {
	for ; cmd.Nonce < maxLoans; cmd.Nonce++ {
		cmd.Account = address.LoanID(cmd.Cluster, cmd.Signer, cmd.Nonce)
		_, err := c.Account(ctx, hex.EncodeToString(cmd.Account[:]))
		if IsCode(err, "UNKNOWN_ACCOUNT") {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return fmt.Errorf("%s has opened %d loans: name another nonce", cmd.Signer, maxLoans)
}

// claimFee is the most to offer for a claim: what is claimed may be little, and
// an offer that could eat it up is refused before anything moves.
func (c *Client) claimFee(ctx context.Context, account string, signer address.CAIP10, pool string, q FeeQuote) (string, error) {
	if account == "" {
		var err error
		if account, err = c.AccountOf(ctx, signer); err != nil {
			return "", err
		}
	}
	a, err := c.Account(ctx, account)
	if err != nil {
		return "", err
	}
	suggested, ok1 := new(big.Int).SetString(q.Suggested, 10)
	now, ok2 := new(big.Int).SetString(q.Fee, 10)
	for _, p := range a.Health.Positions {
		if p.Pool != pool || p.Suspense == nil || !ok1 || !ok2 {
			continue
		}
		most, ok := new(big.Int).SetString(p.Suspense.Amount, 10)
		if !ok {
			continue
		}
		if most.Sub(most, big.NewInt(address.BitcoinDust)); most.Cmp(suggested) < 0 && most.Cmp(now) >= 0 {
			return most.String(), nil
		}
	}
	return q.Suggested, nil
}

// ParseAccount reads an account id.
func ParseAccount(s string) (id [16]byte, err error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(id) || hex.EncodeToString(b) != s {
		return id, fmt.Errorf("account %q: want 32 lower-case hex digits", s)
	}
	return [16]byte(b), nil
}

// Submit signs a and waits until it is applied. A refusal is a *Problem.
func (c *Client) Submit(ctx context.Context, s Signer, a Action) (*Request, error) {
	return c.SubmitCosigned(ctx, s, nil, a)
}

// SubmitCosigned is Submit for a text that a second wallet signs as well, which
// is Link wallet. co nil: nobody does.
func (c *Client) SubmitCosigned(ctx context.Context, s, co Signer, a Action) (*Request, error) {
	signed, err := sign(s, a)
	if err != nil {
		return nil, err
	}
	out := Submission{Text: a.Text, Signed: signed}
	if co != nil {
		second, err := sign(co, a)
		if err != nil {
			return nil, err
		}
		out.CoSignature = &second
	}
	return c.SubmitText(ctx, out, hex.EncodeToString(a.Command.Account[:]))
}

// sign has a wallet sign and checks what it gave.
func sign(s Signer, a Action) (Signed, error) {
	message, ok := a.grammar.Message(s.Scheme(), s.ID(), &a.Command)
	if !ok {
		return Signed{}, fmt.Errorf("sign request %s: %s cannot sign as %s", a.ID, s.ID(), s.Scheme())
	}
	sig, err := s.Sign(string(message))
	if err != nil {
		return Signed{}, fmt.Errorf("sign request %s: %w", a.ID, err)
	}
	if !address.VerifySigner(s.Scheme(), s.ID(), message, sig, address.Extras{}) {
		return Signed{}, fmt.Errorf("sign request %s: the wallet's %s signature does not verify for %s", a.ID, s.Scheme(), s.ID())
	}
	return Signed{Scheme: s.Scheme(), Signature: sig}, nil
}

// maxBusySeconds bounds what a node may have a client wait; an honest one asks for a minute at most.
const maxBusySeconds = 60

// ErrPending: the node took the request and does not know yet what becomes of it.
var ErrPending = errors.New("not applied yet")

// Post posts a signed text once. After any error that Retryable names, the same text may be posted again, here or
// elsewhere: it counts once.
func (c *Client) Post(ctx context.Context, s Submission) (*Request, error) {
	var r Request
	status, err := c.post(ctx, "/v1/requests?wait="+askWait.String(), s, &r)
	switch {
	case err == nil && status == http.StatusOK:
		c.SawWrite(r.LogIndex)
		return &r, nil
	case err == nil:
		return nil, ErrPending
	}
	var p *Problem
	if errors.As(err, &p) && !p.Retryable {
		c.SawWrite(p.LogIndex)
	}
	return nil, err
}

// Retryable reports whether the call that failed with err may be made again as it was.
func Retryable(err error) bool { return errors.Is(err, ErrPending) || retryable(err) }

// SubmitText posts a signed text until it is known to be applied or refused, or
// the context ends. Posting it again is safe: a text counts once.
func (c *Client) SubmitText(ctx context.Context, s Submission, account string) (*Request, error) {
	id := TextID(s.Text)
	pause := 50 * time.Millisecond // an election takes about a second
	for {
		r, err := c.Post(ctx, s)
		if err == nil || !Retryable(err) {
			return r, err
		}
		if werr := sleep(ctx, max(pause, busyFor(err))); werr != nil {
			return nil, fmt.Errorf("request %s of account %s: %w: %w", id, account, werr, err)
		}
		pause = min(2*pause, 2*time.Second)
	}
}

// busyFor is how long an overloaded node asks to be left alone. Other refusals name a
// second as well, and an election is often over sooner.
func busyFor(err error) time.Duration {
	var p *Problem
	if !errors.As(err, &p) || p.Code != "OVERLOADED" {
		return 0
	}
	return time.Duration(min(max(p.After, 0), maxBusySeconds)) * time.Second
}

// Open opens the account of a signer, or returns the one it has.
func (c *Client) Open(ctx context.Context, s Signer) (*Account, error) {
	id, err := c.AccountOf(ctx, s.ID())
	if err != nil {
		return nil, err
	}
	a, err := c.Account(ctx, id)
	if err == nil || !IsCode(err, "UNKNOWN_ACCOUNT") {
		return a, err
	}
	action, err := c.Prepare(ctx, address.Command{Action: address.ActionOpenAccount, Signer: s.ID()})
	if err != nil {
		return nil, err
	}
	if _, err := c.Submit(ctx, s, action); err != nil && !IsCode(err, "ACCOUNT_EXISTS") {
		return nil, err
	}
	return c.Account(ctx, id)
}

// Borrow, Withdraw and Claim render, sign, post and wait.

func (c *Client) Borrow(ctx context.Context, s Signer, account string, p Payout) (*Request, error) {
	return c.payout(ctx, address.ActionBorrow, s, account, p)
}

func (c *Client) Withdraw(ctx context.Context, s Signer, account string, p Payout) (*Request, error) {
	return c.payout(ctx, address.ActionWithdraw, s, account, p)
}

func (c *Client) Claim(ctx context.Context, s Signer, account string, p Payout) (*Request, error) {
	return c.payout(ctx, address.ActionClaim, s, account, p)
}

func (c *Client) payout(ctx context.Context, action string, s Signer, account string, p Payout) (*Request, error) {
	a, err := c.PreparePayout(ctx, action, s.ID(), account, p)
	if err != nil {
		return nil, err
	}
	return c.Submit(ctx, s, a)
}

// Preview asks what a would do now.
func (c *Client) Preview(ctx context.Context, a Action) (*Preview, error) {
	var p Preview
	_, err := c.post(ctx, "/v1/requests/preview", PreviewRequest{Text: a.Text}, &p)
	return &p, err
}

// IsCode reports whether err is a refusal with this code.
func IsCode(err error, code string) bool {
	var p *Problem
	return errors.As(err, &p) && p.Code == code
}
