package rpcproxy

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/btcsuite/btcd/wire"
)

// The ways in which a Bitcoin node can lie about a block it is asked for by
// hash, for calls of getblock with verbosity 0 (spec: outflows §10, fault 47).

// WrongRoot changes the merkle root in the header.
func WrongRoot() Act {
	return tampered(func(b *wire.MsgBlock) { b.Header.MerkleRoot[7] ^= 1 })
}

// ChangedTransaction pays somebody a satoshi more, under the old header.
func ChangedTransaction() Act {
	return tampered(func(b *wire.MsgBlock) { b.Transactions[len(b.Transactions)-1].TxOut[0].Value++ })
}

// ChangedCoinbase is ChangedTransaction for the one that no witness commitment
// covers.
func ChangedCoinbase() Act {
	return tampered(func(b *wire.MsgBlock) { b.Transactions[0].TxOut[0].Value++ })
}

// RemovedTransaction leaves out the last transaction, under the old header.
func RemovedTransaction() Act {
	return tampered(func(b *wire.MsgBlock) { b.Transactions = b.Transactions[:len(b.Transactions)-1] })
}

// DoubledTransaction repeats the last transaction: for an odd count of them the
// merkle root stays the same (CVE-2012-2459).
func DoubledTransaction() Act {
	return tampered(func(b *wire.MsgBlock) {
		b.Transactions = append(b.Transactions, b.Transactions[len(b.Transactions)-1])
	})
}

// ChangedWitness changes a witness, which no transaction id covers.
func ChangedWitness() Act {
	return tampered(func(b *wire.MsgBlock) {
		for _, tx := range b.Transactions[1:] {
			for _, in := range tx.TxIn {
				for _, item := range in.Witness {
					if len(item) > 0 {
						item[len(item)/2] ^= 1
						return
					}
				}
			}
		}
	})
}

func tampered(change func(*wire.MsgBlock)) Act {
	return Change(func(result json.RawMessage) json.RawMessage {
		out, err := rewrite(result, change)
		if err != nil {
			panic(fmt.Sprintf("rpcproxy: tamper: %v", err)) // scripted for a call that has no raw block
		}
		return out
	})
}

func rewrite(result json.RawMessage, change func(*wire.MsgBlock)) (json.RawMessage, error) {
	var text string
	if err := json.Unmarshal(result, &text); err != nil {
		return nil, err
	}
	raw, err := hex.DecodeString(text)
	if err != nil {
		return nil, err
	}
	var block wire.MsgBlock
	if err := block.Deserialize(bytes.NewReader(raw)); err != nil {
		return nil, err
	}
	change(&block)
	var b bytes.Buffer
	if err := block.Serialize(&b); err != nil {
		return nil, err
	}
	return json.Marshal(hex.EncodeToString(b.Bytes()))
}
