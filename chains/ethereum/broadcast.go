package ethereum

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"

	"github.com/coffer-network/coffer/chains"
)

// Broadcast implements chains.Chain. A refusal is classed by looking at the
// transaction and at the sender's sequence, since nodes word them freely
// (spec: outflows §4.4). What it reads of the sequence goes into the class of
// an error, never into a transaction.
func (c *Chain) Broadcast(ctx context.Context, raw []byte) error {
	tx := new(types.Transaction)
	if err := tx.UnmarshalBinary(raw); err != nil {
		return fmt.Errorf("broadcast on %s: %w: decode: %w", c.name, chains.ErrRefused, err)
	}
	err := c.rpc.CallContext(ctx, nil, "eth_sendRawTransaction", hexutil.Encode(raw))
	if err == nil {
		return nil
	}
	if asRPC(err) {
		class, look := c.classify(ctx, tx)
		if look != nil {
			return fmt.Errorf("broadcast %s on %s: %w", tx.Hash(), c.name, transport(look))
		}
		if class == nil {
			return nil
		}
		err = fmt.Errorf("%w: %w", class, err)
	}
	return fmt.Errorf("broadcast %s on %s: %w", tx.Hash(), c.name, transport(err))
}

// classify says why a node refused tx; nil: it has it.
func (c *Chain) classify(ctx context.Context, tx *types.Transaction) (class, err error) {
	var known json.RawMessage
	if err := c.rpc.CallContext(ctx, &known, "eth_getTransactionByHash", tx.Hash()); err != nil {
		return nil, err
	}
	if len(known) > 0 && string(known) != "null" {
		return nil, nil
	}
	sender, err := types.Sender(c.signer, tx)
	if err != nil {
		return chains.ErrRefused, nil // of another chain or type: never one of ours
	}
	for _, at := range []struct {
		block string
		class error
	}{{"latest", chains.ErrAnchorSpent}, {"pending", chains.ErrTooCheap}} {
		var next hexutil.Uint64
		if err := c.rpc.CallContext(ctx, &next, "eth_getTransactionCount", sender, at.block); err != nil {
			return nil, err
		}
		if uint64(next) > tx.Nonce() {
			return at.class, nil
		}
	}
	var head *struct {
		BaseFee *hexutil.Big `json:"baseFeePerGas"`
	}
	if err := c.rpc.CallContext(ctx, &head, "eth_getBlockByNumber", "latest", false); err != nil {
		return nil, err
	}
	if head != nil && head.BaseFee != nil && tx.GasFeeCapIntCmp(head.BaseFee.ToInt()) < 0 {
		return chains.ErrTooCheap, nil
	}
	return chains.ErrRefused, nil
}
