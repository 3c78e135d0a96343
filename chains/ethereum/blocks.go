package ethereum

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/rpc"
	"github.com/ethereum/go-ethereum/trie"

	"github.com/coffer-network/coffer/chains"
	"github.com/coffer-network/coffer/chains/internal/erc20"
	"github.com/coffer-network/coffer/chains/internal/follow"
	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/ledger/fixed"
)

// logAddresses bounds the recipients of one eth_getLogs (spec: outflows §8.4);
// its blocks are bounded by chunkBlocks.
const logAddresses = 500

// Best implements follow.Source.
func (c *Chain) Best(ctx context.Context) (uint64, error) {
	var n hexutil.Uint64
	err := c.rpc.CallContext(ctx, &n, "eth_blockNumber")
	return uint64(n), transport(err)
}

// HashAt implements follow.Source.
func (c *Chain) HashAt(ctx context.Context, height uint64) (string, error) {
	var b *struct {
		Hash common.Hash `json:"hash"`
	}
	if err := c.rpc.CallContext(ctx, &b, "eth_getBlockByNumber", hexutil.EncodeUint64(height), false); err != nil {
		return "", transport(err)
	}
	if b == nil {
		return "", fmt.Errorf("%w: no block at its own height", chains.ErrEndpoint)
	}
	return b.Hash.Hex(), nil
}

// Read implements follow.Source.
func (c *Chain) Read(ctx context.Context, from, to uint64, w follow.Want) ([]follow.Found, error) {
	n := to - from + 1
	raw := make([]json.RawMessage, n)
	batch := make([]rpc.BatchElem, n)
	for i := range batch {
		batch[i] = rpc.BatchElem{
			Method: "eth_getBlockByNumber",
			Args:   []any{hexutil.EncodeUint64(from + uint64(i)), true}, Result: &raw[i],
		}
	}
	if err := c.rpc.BatchCallContext(ctx, batch); err != nil {
		return nil, transport(err)
	}
	found := make([]follow.Found, n)
	for i := range found {
		if err := batch[i].Error; err != nil {
			return nil, transport(err)
		}
		var err error
		if found[i], err = c.scan(raw[i], from+uint64(i), w); err != nil {
			return nil, fmt.Errorf("block %d: %w", from+uint64(i), err)
		}
	}
	if err := c.arrivals(ctx, found, w); err != nil {
		return nil, err
	}
	return found, nil
}

// scan checks a block's hash against its header and finds the transactions
// that our accounts sent, by signature: the sender that a node names is hearsay.
func (c *Chain) scan(raw json.RawMessage, height uint64, w follow.Want) (follow.Found, error) {
	var header *types.Header
	var body struct {
		Hash         common.Hash        `json:"hash"`
		Transactions types.Transactions `json:"transactions"`
	}
	if err := json.Unmarshal(raw, &header); err != nil {
		return follow.Found{}, fmt.Errorf("%w: header: %w", chains.ErrEndpoint, err)
	}
	if header == nil {
		return follow.Found{}, fmt.Errorf("%w: it is gone", chains.ErrEndpoint)
	}
	if err := json.Unmarshal(raw, &body); err != nil {
		return follow.Found{}, fmt.Errorf("%w: body: %w", chains.ErrEndpoint, err)
	}
	if header.Hash() != body.Hash {
		return follow.Found{}, fmt.Errorf("%w: hash %s is not its header's %s", chains.ErrEndpoint, body.Hash, header.Hash())
	}
	// The header vouches for the transactions: none was left out.
	if root := types.DeriveSha(body.Transactions, trie.NewStackTrie(nil)); root != header.TxHash {
		return follow.Found{}, fmt.Errorf("%w: transactions have root %s, the header %s", chains.ErrEndpoint, root, header.TxHash)
	}
	if header.BaseFee == nil || !header.BaseFee.IsUint64() || !header.Number.IsUint64() || header.Number.Uint64() != height {
		return follow.Found{}, fmt.Errorf("%w: number %s, base fee %s", chains.ErrEndpoint, header.Number, header.BaseFee)
	}
	f := follow.Found{
		Block:  follow.Block{Height: height, Hash: body.Hash.Hex(), Rate: header.BaseFee.Uint64()},
		Parent: header.ParentHash.Hex(),
	}
	for _, tx := range body.Transactions {
		sender, err := types.Sender(c.signer, tx)
		if err != nil {
			return follow.Found{}, fmt.Errorf("%w: sender of %s: %w", chains.ErrEndpoint, tx.Hash(), err)
		}
		addr := address.EthereumAddress(sender)
		if !w.Address(addr, height) {
			continue
		}
		f.Spends = append(f.Spends, follow.Spend{
			Resource: resource(addr, tx.Nonce()), TxID: tx.Hash().Hex(), Payload: c.signer.Hash(tx).Hex(),
			Height: height, Block: f.Hash,
		})
	}
	return f, nil
}

// transfer is an ERC-20 Transfer event.
type transfer struct {
	token, from, to string
	amount          fixed.Int
	fits            bool // the amount is below 2¹²⁸
}

func parseTransfer(l *types.Log) (t transfer, ok bool) {
	if len(l.Topics) != 3 || l.Topics[0] != common.HexToHash(erc20.Transfer) || len(l.Data) != 32 {
		return t, false // ERC-721 has the same first topic, and four of them
	}
	var okFrom, okTo bool
	t.token = address.EthereumAddress(l.Address)
	t.from, okFrom = erc20.ParseAddress(l.Topics[1][:])
	t.to, okTo = erc20.ParseAddress(l.Topics[2][:])
	t.amount, t.fits = erc20.ParseAmount(l.Data)
	return t, okFrom && okTo
}

// arrivals finds Transfer events to addresses of ours in the blocks found.
//
// Listed tokens are asked for by contract, so that nobody can drown them in
// events of a token he made up; those are asked for apart, and given up when
// there are too many, as nothing depends on them.
func (c *Chain) arrivals(ctx context.Context, found []follow.Found, w follow.Want) error {
	last := found[len(found)-1].Height
	var words []string
	for _, a := range w.Addresses(last) {
		word, err := erc20.AddressWord(a)
		if err != nil {
			return fmt.Errorf("watched address: %w", err)
		}
		words = append(words, word)
	}
	var contracts []string
	for token := range c.tokens {
		contracts = append(contracts, token)
	}
	slices.Sort(contracts)
	for group := range slices.Chunk(words, logAddresses) {
		if len(contracts) > 0 {
			logs, err := c.logs(ctx, contracts, found[0].Height, last, group)
			if err != nil {
				return fmt.Errorf("logs: %w", err)
			}
			if err := c.enter(ctx, logs, found, w); err != nil {
				return fmt.Errorf("logs: %w", err)
			}
		}
		logs, err := c.logs(ctx, nil, found[0].Height, last, group)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil:
			c.ignore(logs, found, w)
		}
	}
	return nil
}

// logs asks for Transfer events to the recipients; where a node refuses the
// range, half of it, and then half the recipients (spec: outflows §8.4).
func (c *Chain) logs(ctx context.Context, contracts []string, from, to uint64, recipients []string) ([]types.Log, error) {
	filter := map[string]any{
		"fromBlock": hexutil.EncodeUint64(from), "toBlock": hexutil.EncodeUint64(to),
		"topics": []any{erc20.Transfer, nil, recipients},
	}
	if contracts != nil {
		filter["address"] = contracts
	}
	var logs []types.Log
	err := c.rpc.CallContext(ctx, &logs, "eth_getLogs", filter)
	if err == nil || !asRPC(err) || contracts == nil || from == to && len(recipients) == 1 {
		return logs, transport(err)
	}
	var first, second []types.Log
	var err2 error
	if from < to {
		middle := from + (to-from)/2
		if first, err2 = c.logs(ctx, contracts, from, middle, recipients); err2 == nil {
			second, err2 = c.logs(ctx, contracts, middle+1, to, recipients)
		}
	} else {
		half := len(recipients) / 2
		if first, err2 = c.logs(ctx, contracts, from, to, recipients[:half]); err2 == nil {
			second, err2 = c.logs(ctx, contracts, from, to, recipients[half:])
		}
	}
	return append(first, second...), err2
}

// enter takes the logs of listed tokens as inflows. An id is the transaction
// and the log's place in its receipt: the place in the block, which nodes call
// logIndex, changes when a fork mines the same transaction elsewhere.
func (c *Chain) enter(ctx context.Context, logs []types.Log, found []follow.Found, w follow.Want) error {
	for i := range logs {
		l := &logs[i]
		t, ok := parseTransfer(l)
		if !ok || l.BlockNumber < found[0].Height || l.BlockNumber > found[len(found)-1].Height {
			return fmt.Errorf("%w: a log that was not asked for", chains.ErrEndpoint)
		}
		f := &found[l.BlockNumber-found[0].Height]
		if l.Removed || l.BlockHash.Hex() != f.Hash {
			return fmt.Errorf("block %d: best chain moved while reading", l.BlockNumber)
		}
		token, listed := c.tokens[t.token]
		if !listed || !w.Address(t.to, f.Height) || t.fits && t.amount.IsZero() {
			continue // anybody can make a token report a transfer of nothing
		}
		if !t.fits {
			f.Ignored = append(f.Ignored, follow.Ignored{
				Height: f.Height, TxID: l.TxHash.Hex(), Address: t.to, Reason: "amount beyond 2^128",
			})
			continue
		}
		r, err := c.receipt(ctx, l.TxHash.Hex(), f.Hash)
		if err != nil {
			return err
		}
		place := slices.IndexFunc(r.Logs, func(o *types.Log) bool { return o.Index == l.Index })
		if place < 0 {
			return fmt.Errorf("%w: receipt of %s lacks its log", chains.ErrEndpoint, l.TxHash)
		}
		f.Inflows = append(f.Inflows, ledger.InflowFact{
			Chain: c.name, ID: fmt.Sprintf("%s:%d", l.TxHash.Hex(), place), Address: t.to, Asset: token,
			Amount: t.amount, Height: f.Height, Block: f.Hash,
		})
	}
	return nil
}

// ignore notes events of tokens that are not listed.
func (c *Chain) ignore(logs []types.Log, found []follow.Found, w follow.Want) {
	for i := range logs {
		l := &logs[i]
		if l.BlockNumber < found[0].Height || l.BlockNumber > found[len(found)-1].Height {
			continue
		}
		f := &found[l.BlockNumber-found[0].Height]
		t, ok := parseTransfer(l)
		if _, listed := c.tokens[t.token]; !ok || listed || l.BlockHash.Hex() != f.Hash || !w.Address(t.to, f.Height) {
			continue
		}
		f.Ignored = append(f.Ignored, follow.Ignored{
			Height: f.Height, TxID: l.TxHash.Hex(), Address: t.to, Reason: "unlisted token " + t.token,
		})
	}
}

func (c *Chain) receipt(ctx context.Context, txid, block string) (*types.Receipt, error) {
	var r *types.Receipt
	if err := c.rpc.CallContext(ctx, &r, "eth_getTransactionReceipt", txid); err != nil {
		return nil, fmt.Errorf("receipt of %s: %w", txid, transport(err))
	}
	if r == nil || r.BlockHash.Hex() != block || r.TxHash.Hex() != txid {
		return nil, fmt.Errorf("receipt of %s: best chain moved while reading", txid)
	}
	return r, nil
}
