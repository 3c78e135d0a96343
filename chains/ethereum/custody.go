package ethereum

import (
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/rpc"

	"github.com/coffer-network/coffer/chains"
	"github.com/coffer-network/coffer/chains/internal/erc20"
	"github.com/coffer-network/coffer/chains/internal/follow"
	"github.com/coffer-network/coffer/ledger/fixed"
)

// custodyBatch bounds the questions of one request: nodes refuse more than a
// thousand, some more than a hundred.
const custodyBatch = 100

// Custody implements chains.Chain: balances of the vaults and of the deposit
// addresses that the question lists, at the block's hash, which is one of the
// follower's own. A node without that block in its best chain refuses.
func (c *Chain) Custody(ctx context.Context, v chains.View, cur chains.Cursor, ask chains.Ask) (chains.Held, error) {
	h, err := c.custody(ctx, v, cur, ask)
	if err != nil {
		return chains.Held{}, fmt.Errorf("custody of %s on %s at %d: %w", ask.Asset, c.name, ask.Height, err)
	}
	return h, nil
}

func (c *Chain) custody(ctx context.Context, v chains.View, cur chains.Cursor, ask chains.Ask) (h chains.Held, err error) {
	token, listed := "", ask.Asset == c.native
	for contract, id := range c.tokens {
		if id == ask.Asset {
			token, listed = contract, true
		}
	}
	if !listed {
		return h, fmt.Errorf("%w: unknown asset", chains.ErrNoBalance)
	}
	s, err := follow.Load(cur, c.param.CAIP2, c.param.Start)
	if err != nil {
		return h, err
	}
	if h.Block, err = s.Asked(ask.Height); err != nil {
		return h, err
	}
	at := map[string]any{"blockHash": h.Block, "requireCanonical": true}
	owners := append(slices.Clone(v.Vaults), ask.At...)
	slices.Sort(owners)
	var sum fixed.Calc
	for group := range slices.Chunk(slices.Compact(owners), custodyBatch) {
		answers := make([]hexutil.Bytes, len(group))
		wei := make([]hexutil.Big, len(group))
		batch := make([]rpc.BatchElem, len(group))
		for i, owner := range group {
			batch[i] = rpc.BatchElem{Method: "eth_getBalance", Args: []any{owner, at}, Result: &wei[i]}
			if token != "" {
				word, err := erc20.AddressWord(owner)
				if err != nil {
					return h, fmt.Errorf("owner: %w", err)
				}
				data := erc20.BalanceOf + strings.TrimPrefix(word, "0x")
				batch[i] = rpc.BatchElem{Method: "eth_call", Args: []any{map[string]string{"to": token, "data": data}, at}, Result: &answers[i]}
			}
		}
		if err := c.rpc.BatchCallContext(ctx, batch); err != nil {
			return h, transport(err)
		}
		for i, owner := range group {
			if err := batch[i].Error; asRPC(err) {
				return h, fmt.Errorf("%w: the node says of %s: %.200s", chains.ErrNoBalance, owner, err)
			} else if err != nil {
				return h, transport(err)
			}
			amount, fits := fixed.Int{}, true
			if token == "" {
				amount, err = fixed.FromBytes(wei[i].ToInt().Bytes())
				fits = err == nil
			} else if amount, fits = erc20.ParseAmount(answers[i]); len(answers[i]) != 32 {
				fits = false
			}
			if !fits {
				return h, fmt.Errorf("%w: balance of %s is 0x%s", chains.ErrEndpoint, owner, hex.EncodeToString(answers[i][:min(len(answers[i]), 32)]))
			}
			h.Amount = sum.Add(h.Amount, amount)
			if !slices.Contains(v.Vaults, owner) {
				h.Waiting = sum.Add(h.Waiting, amount)
			} else if owner == ask.Apart {
				h.Apart = sum.Add(h.Apart, amount)
			}
		}
	}
	if err := sum.Err(); err != nil {
		return h, fmt.Errorf("%w: %w", chains.ErrEndpoint, err)
	}
	return h, nil
}
