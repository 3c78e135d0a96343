package testnet

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"math/rand/v2"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/node/api/client"
	"github.com/ethereum/go-ethereum/common"
)

const (
	actionOpen = address.ActionOpenAccount

	togglers     = 8 // accounts that say all the time what is cheap
	toggleEvery  = 700 * time.Millisecond
	payoutEvery  = 10 * time.Second
	bitcoinEach  = 25 * time.Second
	readEvery    = 400 * time.Millisecond
	attemptTime  = time.Second // of one node; then the next is asked
	retryPause   = 50 * time.Millisecond
	requestLife  = 5 * time.Minute
	borrowUnits  = 100 * usdt
	bitcoinUnits = 200_000
)

// chaosLoad is the clients. They know nothing of the faults: a node that does not answer costs them an attempt.
type chaosLoad struct {
	net     *Network
	pin     *client.Pin
	cluster string
	rules   *address.Grammar
	clients []*client.Client // one of each node; shared, so none of them waits for a write it saw elsewhere

	mu    sync.Mutex
	reqs  []posted
	reads []readDone
	fees  map[string]string // suggested, by pool
	paid  map[uint64]time.Time
}

// payer is an account and who signs for it.
type payer struct {
	name    string
	signer  client.Signer
	account [16]byte
	nonce   uint64
	node    int
}

func (p *payer) id() string { return accountHex(p.account) }

func newChaosLoad(ctx context.Context, n *Network) (*chaosLoad, error) {
	cl, err := n.Nodes[0].Client.Cluster(ctx)
	if err != nil {
		return nil, err
	}
	l := &chaosLoad{net: n, cluster: cl.Cluster, fees: map[string]string{}, paid: map[uint64]time.Time{}}
	if l.pin, err = client.NewPin(cl); err != nil {
		return nil, err
	}
	if l.rules, err = n.Nodes[0].Client.Grammar(ctx); err != nil {
		return nil, err
	}
	for _, np := range n.Nodes {
		c, err := client.New(np.API, l.pin)
		if err != nil {
			return nil, err
		}
		l.clients = append(l.clients, c)
	}
	return l, nil
}

func (l *chaosLoad) newPayer(ctx context.Context, name string, node int, signer func(*client.Wallet) client.Signer) (*payer, error) {
	w, err := client.NewWallet(l.pin)
	if err != nil {
		return nil, err
	}
	p := &payer{name: name, signer: signer(w), node: node}
	p.account = address.AccountID(l.cluster, p.signer.ID())
	r := l.post(ctx, p, address.Command{Action: actionOpen}, nil)
	if r.Code != "OK" {
		return nil, fmt.Errorf("open the account of %s: %q", name, r.Code)
	}
	return p, nil
}

// post signs one request and posts it, at one node after the other, until it is known what became of it or ctx ends.
func (l *chaosLoad) post(ctx context.Context, p *payer, cmd address.Command, gross *big.Int) posted {
	cmd.Account, cmd.Cluster, cmd.Signer, cmd.Nonce = p.account, l.cluster, p.signer.ID(), p.nonce
	cmd.Expires = time.Now().Add(requestLife).Unix()
	text := l.rules.Render(&cmd)
	r := posted{ID: client.TextID(text), Account: p.id(), Nonce: p.nonce, Kind: cmd.Action, Asset: cmd.Pool, Gross: gross, Call: time.Now()}
	if gross != nil {
		r.To = cmd.To.Address
	}
	sig, err := p.signer.Sign(text)
	if err != nil {
		r.Code = err.Error()
		return r
	}
	s := client.Submission{Text: text, Signed: client.Signed{Scheme: p.signer.Scheme(), Signature: sig}}
	for ctx.Err() == nil {
		attempt, cancel := context.WithTimeout(ctx, attemptTime)
		begun := time.Now()
		a, err := l.clients[p.node].Post(attempt, s)
		cancel()
		var refused *client.Problem
		switch {
		case err == nil:
			r.Ret, r.Code, r.LogIndex, r.Outflow = time.Now(), a.Code, a.LogIndex, a.Outflow
		case errors.As(err, &refused) && refused.LogIndex > 0 && !refused.Retryable:
			r.Ret, r.Code, r.LogIndex = time.Now(), refused.Code, refused.LogIndex
		case errors.As(err, &refused) && !refused.Retryable:
			// Refused before it was ordered: by this node's own view, so it is asked again elsewhere before it is believed.
			r.Code = refused.Code
			if r.Retries > 2*len(l.clients) {
				l.note(r)
				return r
			}
		}
		if r.acked() {
			r.Attempt = begun
			break
		}
		r.Retries++
		p.node = (p.node + 1) % len(l.clients)
		time.Sleep(retryPause)
	}
	if r.acked() {
		p.nonce++
	}
	l.note(r)
	return r
}

func (l *chaosLoad) note(r posted) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reqs = append(l.reqs, r)
}

// every calls f until ctx ends, at most that often.
func every(ctx context.Context, d time.Duration, f func()) {
	tick := time.NewTicker(d)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			f()
		}
	}
}

// toggle says "Require payout list", yes and no in turn.
func (l *chaosLoad) toggle(ctx, grace context.Context, p *payer) {
	every(ctx, toggleEvery, func() {
		l.post(grace, p, address.Command{Action: address.ActionRequirePayoutList, On: p.nonce%2 == 1}, nil)
	})
}

// pay asks for payouts to addresses that nobody else has.
func (l *chaosLoad) pay(ctx, grace context.Context, p *payer, action, pool string, units int64, d time.Duration) {
	every(ctx, d, func() {
		to, err := l.fresh(pool)
		if err != nil {
			return
		}
		fee := l.fee(grace, pool, p.node)
		if fee == "" {
			p.node = (p.node + 1) % len(l.clients)
			return
		}
		amount := strconv.FormatInt(units, 10)
		l.post(grace, p, address.Command{
			Action: action, Pool: pool, Amount: l.rules.Amount(pool, amount), To: to, MaxFee: l.rules.Amount(pool, fee),
		}, big.NewInt(units))
	})
}

func (l *chaosLoad) fresh(pool string) (address.CAIP10, error) {
	w, err := client.NewWallet(l.pin)
	if err != nil {
		return address.CAIP10{}, err
	}
	if pool == btcPool {
		return w.SignerBTC().ID(), nil
	}
	return w.SignerETH().ID(), nil
}

// fee is what the node suggests, or what one suggested last.
func (l *chaosLoad) fee(ctx context.Context, pool string, node int) string {
	ctx, cancel := context.WithTimeout(ctx, attemptTime)
	defer cancel()
	d, err := l.clients[node].Pool(ctx, pool)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil && d.PayoutFee.Suggested != "" {
		l.fees[pool] = d.PayoutFee.Suggested
	}
	return l.fees[pool]
}

// read looks at accounts through nodes by chance, each time asking for an answer as new as the question.
func (l *chaosLoad) read(ctx context.Context, ps []*payer, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 1))
	var fresh []*client.Client
	for _, c := range l.clients { // that saw no write, so that nothing but the question makes the answer new
		if n, err := client.New(c.URL(), nil); err == nil {
			fresh = append(fresh, n)
		}
	}
	every(ctx, readEvery, func() {
		p, c := ps[r.IntN(len(ps))], fresh[r.IntN(len(fresh))]
		call := time.Now()
		var a client.Account
		asked, cancel := context.WithTimeout(ctx, 2*attemptTime)
		defer cancel()
		err := c.Get(asked, "/v1/accounts/"+p.id(), url.Values{"consistency": {"linearizable"}}, &a)
		if err != nil {
			return
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		l.reads = append(l.reads, readDone{p.id(), a.NextNonce, call, time.Now()})
	})
}

// watch notes when each acknowledged payout is signed, as seen at any node.
func (l *chaosLoad) watch(ctx context.Context) {
	node := 0
	every(ctx, 300*time.Millisecond, func() {
		for _, r := range l.requests() {
			if r.Outflow == 0 || !l.signedAt(r.Outflow).IsZero() {
				continue
			}
			asked, cancel := context.WithTimeout(ctx, attemptTime)
			o, err := l.clients[node].Outflow(asked, r.Outflow)
			cancel()
			if err != nil {
				node = (node + 1) % len(l.clients)
				return
			}
			if o.State != "QUEUED" && (o.State != "PLANNED" || len(o.Local.Signed) > 0) {
				l.mu.Lock()
				l.paid[r.Outflow] = time.Now()
				l.mu.Unlock()
			}
		}
	})
}

func (l *chaosLoad) signedAt(id uint64) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.paid[id]
}

func (l *chaosLoad) requests() []posted {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.reqs)
}

// firstAfter is the answer that came first of those whose attempt was begun after t.
func firstAfter(reqs []posted, t time.Time) (ms int64, ok bool) {
	for _, r := range reqs {
		if r.acked() && r.Attempt.After(t) {
			if d := r.Ret.Sub(t).Milliseconds(); !ok || d < ms {
				ms, ok = d, true
			}
		}
	}
	return ms, ok
}

// fund gives the payers what they will ask for and waits until the cluster counts it.
func (l *chaosLoad) fund(ctx context.Context, lender, borrower, saver *payer) ([]string, error) {
	deposit := func(p *payer, asset string) (string, error) {
		c := l.clients[0]
		a, err := c.AssetNamed(ctx, asset)
		if err != nil {
			return "", err
		}
		at, err := c.DepositAddress(ctx, p.id(), a, "supply")
		return at.Address, err
	}
	usd, err := deposit(lender, usdtPool)
	if err != nil {
		return nil, err
	}
	if _, err := l.net.Ethereum.FundToken(ctx, common.HexToAddress(usd), big.NewInt(50_000*usdt)); err != nil {
		return nil, err
	}
	at := []string{usd}
	for _, p := range []*payer{borrower, saver} {
		b, err := deposit(p, btcPool)
		if err != nil {
			return nil, err
		}
		if _, err := l.net.Bitcoin.Fund(ctx, b, oneBTC); err != nil {
			return nil, err
		}
		at = append(at, b)
	}
	if _, err := l.net.Bitcoin.Mine(ctx, 7); err != nil {
		return nil, err
	}
	for p, pool := range map[*payer]string{lender: usdtPool, borrower: btcPool, saver: btcPool} {
		err := poll(ctx, func() (bool, error) {
			a, err := l.clients[0].Account(ctx, p.id())
			return err == nil && slices.ContainsFunc(a.Health.Positions, func(x client.Position) bool {
				return x.Pool == pool && x.Collateral != "" && strings.Trim(x.Collateral, "0") != ""
			}), nil
		})
		if err != nil {
			return nil, fmt.Errorf("%s's deposit is not collateral: %w", p.name, err)
		}
	}
	return at, nil
}
