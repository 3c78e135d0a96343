package ethereum

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/rpc"

	"github.com/coffer-network/coffer/chains"
	"github.com/coffer-network/coffer/chains/internal/erc20"
	"github.com/coffer-network/coffer/chains/internal/follow"
	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/ledger/fixed"
)

const (
	// stepBlocks bounds one step, chunkBlocks one request of whole blocks: well
	// below the 25 MB at which geth cuts a batch's answer.
	stepBlocks  = 64
	chunkBlocks = 16

	// callTimeout is for a batch from a busy node on the same host.
	callTimeout = 30 * time.Second
	// maxAnswer bounds what a node can make us hold.
	maxAnswer = 32 << 20

	// minTip is the least priority fee attested, in wei.
	minTip = 1_000_000_000
)

// Config is a member's own node and what the ledger lists on the chain.
type Config struct {
	Chain  ledger.ChainParam // CAIP-2 names the chain id
	Assets []ledger.AssetParam
	URL    string // HTTP
}

// Chain is Ethereum. It implements chains.Chain.
type Chain struct {
	name    string
	param   ledger.ChainParam
	chainID uint64
	signer  types.Signer
	tokens  map[string]string // contract → asset id
	native  string            // asset id; empty: none is listed
	rpc     *rpc.Client
	known   atomic.Bool // the node is of this chain
}

// New returns the adapter for a node reached by HTTP; it talks to nobody yet.
func New(cfg Config) (*Chain, error) {
	hc := &http.Client{Timeout: callTimeout, Transport: limited{http.DefaultTransport}}
	if !strings.HasPrefix(cfg.URL, "http://") && !strings.HasPrefix(cfg.URL, "https://") {
		return nil, fmt.Errorf("ethereum: node address %.100q is not http", cfg.URL)
	}
	client, err := rpc.DialOptions(context.Background(), cfg.URL, rpc.WithHTTPClient(hc))
	if err != nil {
		return nil, fmt.Errorf("ethereum: %w", err)
	}
	return newChain(cfg, client)
}

func newChain(cfg Config, client *rpc.Client) (*Chain, error) {
	reference, _ := strings.CutPrefix(cfg.Chain.CAIP2, address.NamespaceEthereum+":")
	id, err := strconv.ParseUint(reference, 10, 64)
	if err != nil || address.NamespaceEthereum+":"+strconv.FormatUint(id, 10) != cfg.Chain.CAIP2 {
		return nil, fmt.Errorf("ethereum: chain %.40q is not of namespace %s", cfg.Chain.CAIP2, address.NamespaceEthereum)
	}
	c := &Chain{
		name: cfg.Chain.Name, param: cfg.Chain, chainID: id, rpc: client, tokens: map[string]string{},
		signer: types.LatestSignerForChainID(new(big.Int).SetUint64(id)),
	}
	for _, a := range cfg.Assets {
		if a.Chain != cfg.Chain.Name {
			continue
		}
		if a.Token == "" {
			c.native = a.ID
			continue
		}
		if _, err := address.ParseEthereum(a.Token); err != nil {
			return nil, fmt.Errorf("ethereum: token of %s: %w", a.ID, err)
		}
		if other, ok := c.tokens[a.Token]; ok {
			return nil, fmt.Errorf("ethereum: %s and %s are the same token", other, a.ID)
		}
		c.tokens[a.Token] = a.ID
	}
	return c, nil
}

// Watch implements chains.Chain.
func (c *Chain) Watch(ctx context.Context, v chains.View, cur chains.Cursor) (chains.Observations, chains.Cursor, error) {
	o, next, err := c.watch(ctx, v, cur)
	if err != nil {
		return chains.Observations{}, cur, fmt.Errorf("watch %s: %w", c.name, err)
	}
	return o, next, nil
}

func (c *Chain) watch(ctx context.Context, v chains.View, cur chains.Cursor) (o chains.Observations, _ chains.Cursor, err error) {
	s, err := follow.Load(cur, c.param.CAIP2, c.param.Start)
	if err != nil {
		return o, nil, err
	}
	if err := c.checkChain(ctx); err != nil {
		return o, nil, err
	}
	behind, err := s.Step(ctx, v, c, follow.Limits{Start: c.param.Start, Steps: stepBlocks, Chunk: chunkBlocks})
	if err != nil {
		return o, nil, err
	}
	if err := c.finalize(ctx, s); err != nil {
		return o, nil, fmt.Errorf("finalized block: %w", err)
	}
	anchors := map[string]bool{}
	for _, a := range v.Anchors {
		anchors[a.Name] = true
	}
	unplanned := func(p follow.Spend) bool { return beyond(v.Sequence, p.Resource) }
	s.Prune(v, s.Final, func(p follow.Spend) bool { return anchors[p.Resource] || unplanned(p) })

	o = s.Observe(c.name, behind)
	if hash := s.Hash(s.Final); hash != "" && s.Final > 0 {
		o.Tip = ledger.HeightReport{Chain: c.name, Height: s.Final, Hash: hash}
	}
	o.Spends, err = s.Match(v, c.payload, func(seen *chains.SeenSpend, p follow.Spend, by *ledger.Attempt) error {
		return c.conclude(ctx, s, seen, p, by)
	}, unplanned)
	if err != nil {
		return o, nil, err
	}
	if o.Fee, err = c.fee(ctx, s, behind); err != nil {
		return o, nil, fmt.Errorf("fee: %w", err)
	}
	if o.Floats, err = c.floats(ctx, v, o.Tip, behind); err != nil {
		return o, nil, fmt.Errorf("balance: %w", err)
	}
	if behind == 0 {
		more, err := c.natives(ctx, s, v, o.Tip)
		if err != nil {
			return o, nil, fmt.Errorf("native deposits: %w", err)
		}
		o.Inflows = append(o.Inflows, more...)
	}
	return o, s.Cursor(), nil
}

// Rescan implements chains.Chain.
func (c *Chain) Rescan(cur chains.Cursor, height uint64) (chains.Cursor, error) {
	return follow.Again(cur, c.param.CAIP2, c.param.Start, height)
}

// beyond reports whether a resource is a sequence that the ledger has not
// assigned yet: whoever used it was not we.
func beyond(next func(string) (uint64, bool), name string) bool {
	if next == nil {
		return false
	}
	from, n, _ := strings.Cut(name, ":")
	first, ours := next(from)
	sequence, err := strconv.ParseUint(n, 10, 64)
	return ours && err == nil && sequence >= first
}

// payload: what is signed. Two signatures of one payload give two transaction
// ids and are one attempt (spec: outflows §4.3).
func (c *Chain) payload(a ledger.Attempt) (string, error) {
	u, err := c.Build(a)
	if err != nil {
		return "", err
	}
	return hexutil.Encode(u.Inputs[0].Digest[:]), nil
}

// finalize moves Final, and checks that our chain goes through it.
func (c *Chain) finalize(ctx context.Context, s *follow.State) error {
	var b *struct {
		Number hexutil.Uint64 `json:"number"`
		Hash   common.Hash    `json:"hash"`
	}
	err := c.rpc.CallContext(ctx, &b, "eth_getBlockByNumber", "finalized", false)
	if asRPC(err) || err == nil && b == nil {
		return nil // nothing is final yet
	}
	if err != nil {
		return transport(err)
	}
	head, ok := s.Head()
	if !ok {
		return nil
	}
	height := uint64(b.Number)
	if ours := s.Hash(height); ours != "" && ours != b.Hash.Hex() {
		return fmt.Errorf("%w: %d is %s, ours is %s", chains.ErrEndpoint, height, b.Hash, ours)
	}
	// The node's canonical chain was ours up to the head at this step's start,
	// and is final up to height: so is what is below both.
	s.Final = max(s.Final, min(height, head.Height))
	return nil
}

// conclude tells a spend's end once it is final, from its receipt; asked once.
func (c *Chain) conclude(ctx context.Context, s *follow.State, seen *chains.SeenSpend, p follow.Spend, by *ledger.Attempt) error {
	if p.Height > s.Final {
		return nil
	}
	seen.Final = true
	if by == nil {
		return nil
	}
	if p.Outcome == 0 {
		r, err := c.receipt(ctx, p.TxID, p.Block)
		if err != nil {
			return err
		}
		if p.Outcome, err = c.outcome(r, by.Ethereum); err != nil {
			return err
		}
		if p.Fee, err = cost(r); err != nil {
			return err
		}
		s.Spends[p.Resource] = p
	}
	seen.Outcome, seen.Fee = p.Outcome, p.Fee
	return nil
}

// outcome judges a receipt by what the transaction was to do. Status 1 without
// the log is no payment and no proof of none (spec: outflows §4.6).
func (c *Chain) outcome(r *types.Receipt, tx *ledger.EthereumTx) (ledger.Outcome, error) {
	switch {
	case r.Status != types.ReceiptStatusSuccessful:
		return ledger.OutcomeReverted, nil
	case len(tx.Data) == 0 && tx.Value.IsZero() && tx.To == tx.From:
		return ledger.OutcomeSelf, nil
	case len(tx.Data) == 0:
		return ledger.OutcomePaid, nil
	}
	to, amount, err := erc20.ParseCall(tx.Data)
	if err != nil {
		return 0, err
	}
	for _, l := range r.Logs {
		t, ok := parseTransfer(l)
		if ok && t.token == tx.To && t.from == tx.From && t.to == to && t.fits && t.amount == amount {
			return ledger.OutcomePaid, nil
		}
	}
	return ledger.OutcomeUnclear, nil
}

func cost(r *types.Receipt) (fixed.Int, error) {
	if r.EffectiveGasPrice == nil {
		return fixed.Int{}, fmt.Errorf("%w: receipt without a gas price", chains.ErrEndpoint)
	}
	wei := new(big.Int).Mul(new(big.Int).SetUint64(r.GasUsed), r.EffectiveGasPrice)
	return fixed.FromBytes(wei.Bytes())
}

func (c *Chain) fee(ctx context.Context, s *follow.State, behind uint64) (*ledger.FeeReport, error) {
	head, ok := s.Head()
	if !ok || behind > 0 {
		return nil, nil
	}
	var tip hexutil.Big
	if err := c.rpc.CallContext(ctx, &tip, "eth_maxPriorityFeePerGas"); err != nil {
		return nil, transport(err)
	}
	if !tip.ToInt().IsUint64() {
		return nil, fmt.Errorf("%w: tip %s", chains.ErrEndpoint, tip.ToInt())
	}
	return &ledger.FeeReport{Chain: c.name, Rate: head.Rate, Tip: max(minTip, tip.ToInt().Uint64())}, nil
}

// floats asks at the finalized height, so that all members say the same. A node
// that has no state of that height any more says nothing: it must not keep the
// rest of the picture from being seen.
func (c *Chain) floats(ctx context.Context, v chains.View, tip ledger.HeightReport, behind uint64) ([]ledger.FloatFact, error) {
	if tip.Hash == "" || behind > 0 {
		return nil, nil
	}
	var out []ledger.FloatFact
	for _, a := range v.Floats {
		var wei hexutil.Big
		err := c.rpc.CallContext(ctx, &wei, "eth_getBalance", a, hexutil.EncodeUint64(tip.Height))
		if asRPC(err) {
			continue
		}
		if err != nil {
			return nil, transport(err)
		}
		amount, err := fixed.FromBytes(wei.ToInt().Bytes())
		if err != nil {
			return nil, fmt.Errorf("%w: balance of %s: %w", chains.ErrEndpoint, a, err)
		}
		out = append(out, ledger.FloatFact{Chain: c.name, Address: a, Amount: amount})
	}
	return out, nil
}

// checkChain asks once per process that the node is of our chain.
func (c *Chain) checkChain(ctx context.Context) error {
	if c.known.Load() {
		return nil
	}
	var id hexutil.Uint64
	if err := c.rpc.CallContext(ctx, &id, "eth_chainId"); err != nil {
		return fmt.Errorf("chain id: %w", transport(err))
	}
	if uint64(id) != c.chainID {
		return fmt.Errorf("%w: it is of chain %d, not %d", chains.ErrEndpoint, uint64(id), c.chainID)
	}
	c.known.Store(true)
	return nil
}

// asRPC reports whether the node answered with a refusal, as against not at all.
func asRPC(err error) bool {
	var e rpc.Error
	return errors.As(err, &e)
}

func transport(err error) error {
	if err == nil || asRPC(err) {
		return err
	}
	return fmt.Errorf("%w: %w", chains.ErrTransport, err)
}

// limited keeps a node from sending more than we are ready to hold.
type limited struct{ http.RoundTripper }

func (l limited) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := l.RoundTripper.RoundTrip(req)
	if err == nil {
		resp.Body = http.MaxBytesReader(nil, resp.Body, maxAnswer)
	}
	return resp, err
}
