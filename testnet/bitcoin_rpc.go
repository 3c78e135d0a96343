package testnet

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/btcsuite/btcd/chaincfg/chainhash"
	"github.com/btcsuite/btcd/wire"
)

const (
	// bitcoinRPCTimeout bounds one call; the longest, mining the first 110 blocks, takes about a second.
	bitcoinRPCTimeout = 60 * time.Second
	// bitcoinRPCAnswer: the largest answer is one block in hex, 8 MB at most.
	bitcoinRPCAnswer = 16 << 20
)

// BitcoinRPC is where a Bitcoin node listens for JSON-RPC, and a small client of it. It speaks the calls that btcd
// and bitcoind share, and btcd's generate (spec: chains, "Bitcoin").
type BitcoinRPC struct {
	URL      string
	User     string
	Password string
}

// String leaves the password out.
func (r BitcoinRPC) String() string { return r.URL }

// GoString leaves the password out.
func (r BitcoinRPC) GoString() string { return r.URL }

// BitcoinError is a refusal by the node. Its text differs between btcd and bitcoind.
type BitcoinError struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

func (e *BitcoinError) Error() string { return fmt.Sprintf("%s (%d)", e.Message, e.Code) }

// Call asks the node and decodes the answer into result, unless that is nil.
func (r BitcoinRPC) Call(ctx context.Context, result any, method string, params ...any) error {
	if err := r.call(ctx, result, method, params); err != nil {
		return fmt.Errorf("bitcoin node: %s: %w", method, err)
	}
	return nil
}

func (r BitcoinRPC) call(ctx context.Context, result any, method string, params []any) error {
	if params == nil {
		params = []any{}
	}
	body, err := json.Marshal(map[string]any{"jsonrpc": "1.0", "id": 1, "method": method, "params": params})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, bitcoinRPCTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.URL, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.SetBasicAuth(r.User, r.Password)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, bitcoinRPCAnswer))
	if err != nil {
		return err
	}
	var answer struct {
		Result json.RawMessage
		Error  *BitcoinError
	}
	if err := json.Unmarshal(text, &answer); err != nil {
		return fmt.Errorf("HTTP status %s: %w", resp.Status, err)
	}
	if answer.Error != nil {
		return answer.Error
	}
	if result == nil {
		return nil
	}
	return json.Unmarshal(answer.Result, result)
}

// Height is the number of blocks after genesis.
func (r BitcoinRPC) Height(ctx context.Context) (height int64, err error) {
	err = r.Call(ctx, &height, "getblockcount")
	return height, err
}

// Block reads the block at a height.
func (r BitcoinRPC) Block(ctx context.Context, height int64) (*wire.MsgBlock, error) {
	var hash, text string
	if err := r.Call(ctx, &hash, "getblockhash", height); err != nil {
		return nil, err
	}
	if err := r.Call(ctx, &text, "getblock", hash, 0); err != nil {
		return nil, err
	}
	var block wire.MsgBlock
	return &block, decodeHex("block "+hash, text, block.Deserialize)
}

// Transaction reads a transaction of the mempool, or of any block where the node has an index of them.
func (r BitcoinRPC) Transaction(ctx context.Context, txid string) (*wire.MsgTx, error) {
	var text string
	if err := r.Call(ctx, &text, "getrawtransaction", txid, 0); err != nil {
		return nil, err
	}
	var tx wire.MsgTx
	return &tx, decodeHex("transaction "+txid, text, tx.Deserialize)
}

// Mempool reads the transactions that wait for a block.
func (r BitcoinRPC) Mempool(ctx context.Context) ([]*wire.MsgTx, error) {
	var ids []string
	if err := r.Call(ctx, &ids, "getrawmempool"); err != nil {
		return nil, err
	}
	var pending []*wire.MsgTx
	for _, id := range ids {
		tx, err := r.Transaction(ctx, id)
		var refused *BitcoinError
		if errors.As(err, &refused) {
			continue // mined or replaced since it was listed
		}
		if err != nil {
			return nil, err
		}
		pending = append(pending, tx)
	}
	return pending, nil
}

func decodeHex(what, text string, decode func(io.Reader) error) error {
	raw, err := hex.DecodeString(text)
	if err == nil {
		err = decode(bytes.NewReader(raw))
	}
	if err != nil {
		return fmt.Errorf("decode %s: %w", what, err)
	}
	return nil
}

// Send broadcasts a transaction.
func (r BitcoinRPC) Send(ctx context.Context, tx *wire.MsgTx) (chainhash.Hash, error) {
	var raw bytes.Buffer
	if err := tx.Serialize(&raw); err != nil {
		return chainhash.Hash{}, fmt.Errorf("encode transaction: %w", err)
	}
	return tx.TxHash(), r.Call(ctx, nil, "sendrawtransaction", hex.EncodeToString(raw.Bytes()))
}
