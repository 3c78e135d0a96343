package ethereum

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"

	"github.com/coffer-network/coffer/chains"
	"github.com/coffer-network/coffer/ledger"
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

// Consumed implements chains.Chain.
func (c *Chain) Consumed(ctx context.Context, resources []string) (gone []string, err error) {
	next := map[string]uint64{}
	for _, name := range resources {
		sender, number, _ := strings.Cut(name, ":")
		sequence, err := strconv.ParseUint(number, 10, 64)
		if err != nil || !common.IsHexAddress(sender) || ledger.EthereumAnchor(sender, sequence) != name {
			return nil, fmt.Errorf("look for sequences on %s: resource %.80q", c.name, name)
		}
		used, asked := next[sender]
		if !asked {
			var n hexutil.Uint64
			if err := c.rpc.CallContext(ctx, &n, "eth_getTransactionCount", sender, "latest"); err != nil {
				return nil, fmt.Errorf("look for %s on %s: %w", name, c.name, transport(err))
			}
			used = uint64(n)
			next[sender] = used
		}
		if sequence < used {
			gone = append(gone, name)
		}
	}
	return gone, nil
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
