package bitcoin

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/btcsuite/btcd/blockchain"
	"github.com/btcsuite/btcd/btcutil"
	"github.com/btcsuite/btcd/chaincfg"
	"github.com/btcsuite/btcd/chaincfg/chainhash"
	"github.com/btcsuite/btcd/txscript"
	"github.com/btcsuite/btcd/wire"

	"github.com/coffer-network/coffer/chains"
	"github.com/coffer-network/coffer/chains/internal/follow"
	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/ledger/fixed"
)

const (
	// stepBlocks bounds one step: about two seconds of full blocks.
	stepBlocks = 32
	// feeBlocks of own data make a fee estimate (spec: outflows §7).
	feeBlocks = 6
	// retargetBlocks have one target.
	retargetBlocks = 2016
)

// Config is a member's own node.
type Config struct {
	Chain          ledger.ChainParam // CAIP-2 names the network
	URL            string
	User, Password string
}

// Chain is Bitcoin. It implements chains.Chain.
type Chain struct {
	name    string
	param   ledger.ChainParam
	network string
	params  *chaincfg.Params
	rpc     *client
	known   atomic.Bool // the node is of this network

	poolMu    sync.Mutex
	poolAsked time.Time
	pool      map[uint64]uint64 // of Observations.Descendants, never written to
	ours      programs
}

// New returns the adapter for one of Bitcoin's networks; it talks to nobody yet.
func New(cfg Config) (*Chain, error) {
	reference, ok := strings.CutPrefix(cfg.Chain.CAIP2, address.NamespaceBitcoin+":")
	if !ok {
		return nil, fmt.Errorf("bitcoin: chain %q is not of namespace %s", cfg.Chain.CAIP2, address.NamespaceBitcoin)
	}
	network, err := address.BitcoinNetwork(reference)
	if err != nil {
		return nil, fmt.Errorf("bitcoin: %w", err)
	}
	c := &Chain{
		name: cfg.Chain.Name, param: cfg.Chain, network: network,
		rpc: newClient(cfg.URL, cfg.User, cfg.Password),
	}
	switch network {
	case address.Mainnet:
		c.params = &chaincfg.MainNetParams
	case address.Testnet:
		c.params = &chaincfg.TestNet3Params
	default:
		c.params = &chaincfg.RegressionNetParams
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

func (c *Chain) watch(ctx context.Context, v chains.View, cur chains.Cursor) (chains.Observations, chains.Cursor, error) {
	s, err := follow.Load(cur, c.param.CAIP2, c.param.Start)
	if err != nil {
		return chains.Observations{}, nil, err
	}
	if err := c.checkNetwork(ctx); err != nil {
		return chains.Observations{}, nil, err
	}
	c.ours.update(c.network, v.Watched)
	behind, err := s.Step(ctx, v, c, follow.Limits{
		Start: c.param.Start, Steps: stepBlocks, Chunk: 1, Longest: true, Fits: c.fits,
	})
	if err != nil {
		return chains.Observations{}, nil, err
	}
	anchors := map[string]bool{}
	for _, a := range v.Anchors {
		anchors[a.Name] = true
	}
	coin := func(p follow.Spend) bool { return v.Coin != nil && v.Coin(p.Resource) }
	s.Prune(v, s.Next, func(p follow.Spend) bool { return anchors[p.Resource] || coin(p) })

	o := s.Observe(c.name, behind)
	o.Tip = o.Head
	o.Fee = c.fee(s, behind)
	if behind == 0 {
		o.Descendants = c.descendants(ctx, v, s.Spends)
	}
	o.Spends, err = s.Match(v, c.payload, c.conclude, coin)
	if err != nil {
		return chains.Observations{}, nil, err
	}
	return o, s.Cursor(), nil
}

// Rescan implements chains.Chain.
func (c *Chain) Rescan(cur chains.Cursor, height uint64) (chains.Cursor, error) {
	return follow.Again(cur, c.param.CAIP2, c.param.Start, height)
}

// fits: a target follows from its parent's. How far it may move at a retarget
// is bounded; how far it did is the node's business. The testnet lets easy
// blocks in by their clock, which says nothing here.
func (c *Chain) fits(parent, child follow.Block) error {
	switch {
	case c.network == address.Testnet:
		return nil
	case c.network == address.Regtest || child.Height%retargetBlocks != 0:
		if child.Bits != parent.Bits {
			return fmt.Errorf("target %08x after %08x", child.Bits, parent.Bits)
		}
		return nil
	}
	was, is := blockchain.CompactToBig(parent.Bits), blockchain.CompactToBig(child.Bits)
	factor := big.NewInt(c.params.RetargetAdjustmentFactor)
	if easiest := new(big.Int).Mul(was, factor); is.Cmp(easiest) > 0 {
		return fmt.Errorf("retarget from %08x to %08x, more than %d times easier", parent.Bits, child.Bits, factor)
	}
	return nil
}

// payload: the transaction id, which no signature changes (spec: outflows B4).
func (c *Chain) payload(a ledger.Attempt) (string, error) {
	u, err := c.Build(a)
	return u.TxID, err
}

func (c *Chain) conclude(seen *chains.SeenSpend, _ follow.Spend, by *ledger.Attempt) error {
	seen.Final = seen.Depth >= c.param.Final
	if by == nil || !seen.Final {
		return nil
	}
	seen.Fee = fixed.New(by.Bitcoin.Fee) // Build checked it against inputs and outputs
	seen.Outcome = ledger.OutcomeSelf
	if slices.ContainsFunc(by.Bitcoin.Outputs, func(o ledger.BitcoinOut) bool { return o.Outflow != 0 }) {
		seen.Outcome = ledger.OutcomePaid
	}
	return nil
}

// fee is the upper middle of the last blocks' average rates, where a block less
// than half full counts as the floor. Averages come from the coinbase, the only
// trace of fees that a block carries itself; they lie above what was needed to
// get in, which is the right side for a target of three blocks.
func (c *Chain) fee(s *follow.State, behind uint64) *ledger.FeeReport {
	if behind > 0 || len(s.Blocks) < feeBlocks {
		return nil
	}
	var rates []uint64
	for _, b := range s.Blocks[len(s.Blocks)-feeBlocks:] {
		rate := c.param.MinRate
		if b.Full {
			rate = max(rate, b.Rate)
		}
		rates = append(rates, rate)
	}
	slices.Sort(rates)
	return &ledger.FeeReport{Chain: c.name, Rate: rates[feeBlocks/2]}
}

// checkNetwork asks once per process that the node is of our network.
func (c *Chain) checkNetwork(ctx context.Context) error {
	if c.known.Load() {
		return nil
	}
	genesis, err := c.HashAt(ctx, 0)
	if err != nil {
		return err
	}
	if genesis != c.params.GenesisHash.String() {
		return fmt.Errorf("%w: its genesis block is %s, not that of %s", chains.ErrEndpoint, genesis, c.network)
	}
	c.known.Store(true)
	return nil
}

// Best implements follow.Source.
func (c *Chain) Best(ctx context.Context) (uint64, error) {
	var hash string
	if err := c.rpc.call(ctx, &hash, "getbestblockhash"); err != nil {
		return 0, err
	}
	var header struct {
		Height int64 `json:"height"`
	}
	if err := c.rpc.call(ctx, &header, "getblockheader", hash, true); err != nil {
		return 0, err
	}
	if header.Height < 0 {
		return 0, fmt.Errorf("%w: best block at height %d", chains.ErrEndpoint, header.Height)
	}
	return uint64(header.Height), nil
}

// HashAt implements follow.Source.
func (c *Chain) HashAt(ctx context.Context, height uint64) (string, error) {
	var hash string
	if err := c.rpc.call(ctx, &hash, "getblockhash", height); err != nil {
		return "", err
	}
	// Nothing at all would pass for another branch.
	if _, err := chainhash.NewHashFromStr(hash); err != nil || len(hash) != chainhash.MaxHashStringSize {
		return "", fmt.Errorf("%w: block hash %.20q", chains.ErrEndpoint, hash)
	}
	return hash, nil
}

// Read implements follow.Source.
func (c *Chain) Read(ctx context.Context, from, to uint64, w follow.Want) ([]follow.Found, error) {
	var out []follow.Found
	for h := from; h <= to; h++ {
		hash, err := c.HashAt(ctx, h)
		if err != nil {
			return nil, err
		}
		block, err := c.block(ctx, hash)
		if err != nil {
			return nil, fmt.Errorf("block %s: %w", hash, err)
		}
		if err := c.checkHeight(block, h); err != nil {
			return nil, fmt.Errorf("%w: block %s: %w", chains.ErrEndpoint, hash, err)
		}
		out = append(out, c.scan(block, h, w))
	}
	return out, nil
}

// block fetches a block and checks that it is what its hash promises, whatever
// the node says (spec: outflows §8.1).
func (c *Chain) block(ctx context.Context, hash string) (*btcutil.Block, error) {
	var text string
	if err := c.rpc.call(ctx, &text, "getblock", hash, 0); err != nil {
		return nil, err
	}
	b, err := hex.DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", chains.ErrEndpoint, err)
	}
	block, err := checkBlock(b, hash, c.params.PowLimit)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", chains.ErrEndpoint, err)
	}
	return block, nil
}

// checkHeight: a coinbase names its height from BIP-34 on, and no node but an
// old one mines without.
func (c *Chain) checkHeight(block *btcutil.Block, height uint64) error {
	if height == 0 || c.network != address.Regtest && height < uint64(c.params.BIP0034Height) {
		return nil
	}
	coinbase := block.Transactions()[0]
	if !blockchain.IsCoinBase(coinbase) {
		return fmt.Errorf("no coinbase")
	}
	got, err := blockchain.ExtractCoinbaseHeight(coinbase)
	if err != nil {
		return fmt.Errorf("height: %w", err)
	}
	if int64(got) != int64(height) {
		return fmt.Errorf("it is of height %d, not %d", got, height)
	}
	return nil
}

func checkBlock(b []byte, hash string, powLimit *big.Int) (*btcutil.Block, error) {
	msg := new(wire.MsgBlock)
	r := bytes.NewReader(b)
	if err := msg.Deserialize(r); err != nil {
		return nil, fmt.Errorf("decode: %w", err)
	}
	if r.Len() != 0 || len(msg.Transactions) == 0 {
		return nil, fmt.Errorf("%d transactions and %d bytes behind them", len(msg.Transactions), r.Len())
	}
	block := btcutil.NewBlock(msg)
	if block.Hash().String() != hash {
		return nil, fmt.Errorf("hash is %s", block.Hash())
	}
	if err := blockchain.CheckProofOfWork(block, powLimit); err != nil {
		return nil, fmt.Errorf("proof of work: %w", err)
	}
	if blockchain.CalcMerkleRoot(block.Transactions(), false) != msg.Header.MerkleRoot {
		return nil, fmt.Errorf("merkle root does not fit")
	}
	// The tree has the same root with its last transactions doubled
	// (CVE-2012-2459): then the hash promises less than was sent.
	seen := map[string]bool{}
	for _, tx := range block.Transactions() {
		id := string(tx.Hash()[:])
		if seen[id] {
			return nil, fmt.Errorf("transaction %s twice", tx.Hash())
		}
		seen[id] = true
	}
	if err := blockchain.ValidateWitnessCommitment(block); err != nil {
		return nil, fmt.Errorf("witness commitment: %w", err)
	}
	return block, nil
}

// scan looks for outputs to us and for inputs that spend what is ours.
func (c *Chain) scan(block *btcutil.Block, height uint64, w follow.Want) follow.Found {
	msg := block.MsgBlock()
	f := follow.Found{
		Block:  follow.Block{Height: height, Hash: block.Hash().String(), Bits: msg.Header.Bits},
		Parent: msg.Header.PrevBlock.String(),
	}
	f.Rate, f.Full = c.rate(block, height)
	fresh, anchors := map[string]bool{}, map[wire.OutPoint]bool{}
	for _, name := range w.Anchors() {
		if op, err := parseOutpoint(name); err == nil {
			anchors[op] = true
		}
	}
	for i, tx := range block.Transactions() {
		if i > 0 {
			for _, in := range tx.MsgTx().TxIn {
				ours := c.ours.spends(in)
				if ours {
					f.Gone = append(f.Gone, follow.Gone{TxID: in.PreviousOutPoint.Hash, Output: in.PreviousOutPoint.Index})
				}
				if !ours && !anchors[in.PreviousOutPoint] {
					continue
				}
				if name := outpointName(in.PreviousOutPoint); fresh[name] || w.Resource(name) {
					txid := tx.Hash().String()
					f.Spends = append(f.Spends, follow.Spend{
						Resource: name, TxID: txid, Payload: txid, Height: height, Block: f.Hash,
					})
				}
			}
		}
		for n, o := range tx.MsgTx().TxOut {
			program, native, ok := program(o.PkScript)
			if !ok || o.Value <= 0 || !c.ours.has(program) {
				continue
			}
			// The same key's address, whichever form was paid.
			addr, err := address.AddressOf(c.network, append([]byte{txscript.OP_0, txscript.OP_DATA_20}, program[:]...))
			if err != nil || !w.Address(addr, height) {
				continue
			}
			txid := tx.Hash().String()
			if !native {
				f.Ignored = append(f.Ignored, follow.Ignored{Height: height, TxID: txid, Address: addr, Reason: "legacy form of our address"})
				continue
			}
			if i == 0 {
				// Not spendable for a hundred blocks, longer than any depth at
				// which the ledger counts a coin as money.
				f.Ignored = append(f.Ignored, follow.Ignored{Height: height, TxID: txid, Address: addr, Reason: "coinbase output"})
				continue
			}
			name := outpointName(wire.OutPoint{Hash: *tx.Hash(), Index: uint32(n)})
			fresh[name] = true
			f.Coins = append(f.Coins, follow.Coin{TxID: *tx.Hash(), Output: uint32(n), Height: height, Sats: uint64(o.Value), Program: program})
			f.Inflows = append(f.Inflows, ledger.InflowFact{
				Chain: c.name, ID: name, Address: addr, Asset: asset, Amount: fixed.New(uint64(o.Value)),
				Height: height, Block: f.Hash,
			})
		}
	}
	return f
}

// rate is the average fee of a block in sat/kvB, and whether the block is at
// least half full.
func (c *Chain) rate(block *btcutil.Block, height uint64) (uint64, bool) {
	var claimed int64
	for _, o := range block.MsgBlock().Transactions[0].TxOut {
		claimed += o.Value
	}
	fees := claimed - blockchain.CalcBlockSubsidy(int32(height), c.params)
	var weight, size int64 // without header and count, which nobody pays for
	for i, tx := range block.Transactions() {
		w := blockchain.GetTransactionWeight(tx)
		weight += w
		if i > 0 {
			size += w
		}
	}
	size /= blockchain.WitnessScaleFactor
	if fees <= 0 || size <= 0 {
		return 0, weight >= blockchain.MaxBlockWeight/2
	}
	return uint64(fees) * 1000 / uint64(size), weight >= blockchain.MaxBlockWeight/2
}
