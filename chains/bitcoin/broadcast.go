package bitcoin

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/btcsuite/btcd/blockchain"
	"github.com/btcsuite/btcd/btcutil"
	"github.com/btcsuite/btcd/wire"

	"github.com/coffer-network/coffer/chains"
)

// codeInChain is RPC_VERIFY_ALREADY_IN_CHAIN of both backends.
const codeInChain = -27

// Broadcast implements chains.Chain. Refusals are classed by looking at the
// transaction and at its inputs: the texts of the backends differ and their
// codes say little (spec: chains, Bitcoin).
func (c *Chain) Broadcast(ctx context.Context, raw []byte) error {
	tx := new(wire.MsgTx)
	if err := tx.Deserialize(bytes.NewReader(raw)); err != nil {
		return fmt.Errorf("broadcast on %s: %w: decode: %w", c.name, chains.ErrRefused, err)
	}
	var txid string
	err := c.rpc.call(ctx, &txid, "sendrawtransaction", hex.EncodeToString(raw))
	if err == nil {
		return nil
	}
	if refused, ok := asRPC(err); ok {
		if refused.Code == codeInChain {
			return nil
		}
		class, look := c.classify(ctx, tx)
		if look != nil {
			return fmt.Errorf("broadcast %s on %s: %w", tx.TxHash(), c.name, look)
		}
		if class == nil {
			return nil
		}
		err = fmt.Errorf("%w: %w", class, err)
	}
	return fmt.Errorf("broadcast %s on %s: %w", tx.TxHash(), c.name, err)
}

// classify says why a node refused tx; nil: it has it.
func (c *Chain) classify(ctx context.Context, tx *wire.MsgTx) (class, err error) {
	id := tx.TxHash().String()
	var text string
	switch err := c.rpc.call(ctx, &text, "getrawtransaction", id, 0); {
	case err == nil:
		return nil, nil
	case errors.Is(err, chains.ErrTransport):
		return nil, err
	}
	for n := range tx.TxOut {
		if out, err := c.txOut(ctx, id, uint32(n)); err != nil || out != nil {
			return nil, err // confirmed, or not to be found out now
		}
	}
	type outpoint struct {
		TxID string `json:"txid"`
		Vout uint32 `json:"vout"`
	}
	var in, out btcutil.Amount
	var ops []outpoint
	for _, i := range tx.TxIn {
		op := outpoint{i.PreviousOutPoint.Hash.String(), i.PreviousOutPoint.Index}
		coin, err := c.txOut(ctx, op.TxID, op.Vout)
		if err != nil {
			return nil, err
		}
		if coin == nil {
			return chains.ErrAnchorSpent, nil
		}
		in += coin.value
		ops = append(ops, op)
	}
	var spenders []struct {
		By string `json:"spendingtxid"`
	}
	if err := c.rpc.call(ctx, &spenders, "gettxspendingprevout", ops); err != nil {
		return nil, err
	}
	conflict := false
	for _, s := range spenders {
		conflict = conflict || s.By != ""
	}
	if conflict {
		return chains.ErrTooCheap, nil // a replacement that does not outbid
	}
	for _, o := range tx.TxOut {
		out += btcutil.Amount(o.Value)
	}
	least, err := c.leastRate(ctx)
	if err != nil {
		return nil, err
	}
	const factor = blockchain.WitnessScaleFactor
	size := (blockchain.GetTransactionWeight(btcutil.NewTx(tx)) + factor - 1) / factor
	if int64(in-out)*1000 < int64(least)*size {
		return chains.ErrTooCheap, nil
	}
	return chains.ErrRefused, nil
}

// Consumed implements chains.Chain.
func (c *Chain) Consumed(ctx context.Context, resources []string) (gone []string, err error) {
	if err := c.checkNetwork(ctx); err != nil {
		return nil, fmt.Errorf("look for coins on %s: %w", c.name, err)
	}
	for _, name := range resources {
		op, err := parseOutpoint(name)
		if err != nil {
			return nil, fmt.Errorf("look for coins on %s: %w", c.name, err)
		}
		out, err := c.txOut(ctx, op.Hash.String(), op.Index)
		if err != nil {
			return nil, fmt.Errorf("look for %s on %s: %w", name, c.name, err)
		}
		if out == nil {
			gone = append(gone, name)
		}
	}
	return gone, nil
}

type txOut struct{ value btcutil.Amount }

// txOut is an output that no block spends, nil if there is none.
func (c *Chain) txOut(ctx context.Context, txid string, n uint32) (*txOut, error) {
	var out *struct {
		Value json.Number `json:"value"`
	}
	if err := c.rpc.call(ctx, &out, "gettxout", txid, n, false); err != nil {
		return nil, err
	}
	if out == nil {
		return nil, nil
	}
	v, err := amount(out.Value)
	return &txOut{v}, err
}

// leastRate is what the node's mempool asks now, sat/kvB; 0 where it does not
// say (btcd).
func (c *Chain) leastRate(ctx context.Context) (btcutil.Amount, error) {
	var info struct {
		Minimum json.Number `json:"mempoolminfee"`
	}
	if err := c.rpc.call(ctx, &info, "getmempoolinfo"); err != nil {
		return 0, err
	}
	if info.Minimum == "" {
		return 0, nil
	}
	return amount(info.Minimum)
}

// amount reads whole coins as both backends print them.
func amount(n json.Number) (btcutil.Amount, error) {
	f, err := n.Float64()
	if err != nil {
		return 0, fmt.Errorf("%w: amount %.20q", chains.ErrEndpoint, n)
	}
	a, err := btcutil.NewAmount(f)
	if err != nil {
		return 0, fmt.Errorf("%w: amount %.20q", chains.ErrEndpoint, n)
	}
	return a, nil
}
