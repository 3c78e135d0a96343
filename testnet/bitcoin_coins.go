package testnet

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/btcsuite/btcd/blockchain"
	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcutil"
	"github.com/btcsuite/btcd/chaincfg"
	"github.com/btcsuite/btcd/chaincfg/chainhash"
	"github.com/btcsuite/btcd/txscript"
	"github.com/btcsuite/btcd/wire"
)

const (
	coinbaseMaturity = 100
	// faucetFeeRate in sats per vbyte: above every floor, so that funding never waits for a fee.
	faucetFeeRate = 5
	// smallestFaucetCoin in sats: the subsidies after 20 halvings are not worth their input's fee.
	smallestFaucetCoin = 10_000
	// faucetInputs bounds one transaction at about 14 kvB, far below the standard 100.
	faucetInputs = 200
	// p2wpkhDust in sats is the relay minimum of a P2WPKH output at 3 sat/vB.
	p2wpkhDust = 294

	// vsizes of a transaction with P2WPKH inputs: overhead, each input, and the change output.
	baseVBytes, inputVBytes, changeVBytes = 11, 68, 31
)

var errFaucetEmpty = errors.New("the faucet has too few mature coins: mine more blocks or ask for less")

type coin struct {
	out      wire.OutPoint
	sats     int64
	spendAt  int64 // first height of a block that may spend it
	mempool  bool  // change of our own that is not in a block yet
	reserved bool  // spent by a transaction of ours that is not in a block yet
}

// coins are the faucet's unspent outputs, kept by reading blocks: btcd has no wallet. It is not safe for
// concurrent use.
type coins struct {
	key    *btcec.PrivateKey
	script []byte

	height  int64 // of the last block read, whose hash is tip; -1: none
	tip     chainhash.Hash
	unspent map[wire.OutPoint]*coin
}

func newCoins(key []byte, params *chaincfg.Params) (*coins, btcutil.Address, error) {
	private, public := btcec.PrivKeyFromBytes(key)
	address, err := btcutil.NewAddressWitnessPubKeyHash(btcutil.Hash160(public.SerializeCompressed()), params)
	if err != nil {
		return nil, nil, fmt.Errorf("faucet address: %w", err)
	}
	script, err := txscript.PayToAddrScript(address)
	if err != nil {
		return nil, nil, fmt.Errorf("faucet script: %w", err)
	}
	c := &coins{key: private, script: script}
	c.forget(*params.GenesisHash)
	return c, address, nil
}

func (c *coins) forget(genesis chainhash.Hash) {
	c.height, c.tip, c.unspent = 0, genesis, map[wire.OutPoint]*coin{}
}

// sync reads the blocks that are new. After a reorganization it reads all of them again: the testnet's chain is
// short, and the faucet has nothing to lose.
func (c *coins) sync(blocks *blockFile) error {
	if c.height > blocks.height() || blocks.hash(c.height) != c.tip {
		c.forget(blocks.genesis)
	}
	for c.height < blocks.height() {
		block, _, err := blocks.read(c.height + 1)
		if err != nil {
			return fmt.Errorf("read block %d: %w", c.height+1, err)
		}
		c.height++
		c.tip = block.BlockHash()
		for _, tx := range block.Transactions {
			c.add(tx, c.height)
		}
	}
	return nil
}

// rescan reads everything again, blocks and mempool: what we built on may be gone after a reorganization or a
// restart of the node.
func (c *coins) rescan(ctx context.Context, blocks *blockFile, rpc BitcoinRPC) error {
	c.forget(blocks.genesis)
	if err := c.sync(blocks); err != nil {
		return err
	}
	pending, err := rpc.Mempool(ctx)
	if err != nil {
		return err
	}
	for _, tx := range pending {
		c.sent(tx)
	}
	return nil
}

// add counts a transaction of the block at the height.
func (c *coins) add(tx *wire.MsgTx, height int64) {
	for _, in := range tx.TxIn {
		delete(c.unspent, in.PreviousOutPoint)
	}
	txid := tx.TxHash()
	spendAt := height
	if blockchain.IsCoinBaseTx(tx) {
		spendAt += coinbaseMaturity
	}
	for i, out := range tx.TxOut {
		if out.Value < smallestFaucetCoin || !bytes.Equal(out.PkScript, c.script) {
			continue
		}
		point := wire.OutPoint{Hash: txid, Index: uint32(i)}
		known := c.unspent[point]
		c.unspent[point] = &coin{
			out: point, sats: out.Value, spendAt: spendAt,
			reserved: known != nil && known.reserved,
		}
	}
}

// pay builds and signs a payment from mature coins: those in blocks first, then the largest.
func (c *coins) pay(script []byte, sats int64) (*wire.MsgTx, error) {
	tx := wire.NewMsgTx(2)
	tx.AddTxOut(wire.NewTxOut(sats, script))
	vbytes := int64(baseVBytes + tx.TxOut[0].SerializeSize())
	var spent []*coin
	var total int64
	for _, in := range c.spendable() {
		if total >= sats+faucetFeeRate*(vbytes+changeVBytes) || len(spent) == faucetInputs {
			break
		}
		spent = append(spent, in)
		total += in.sats
		vbytes += inputVBytes
		tx.AddTxIn(wire.NewTxIn(&in.out, nil, nil))
	}
	change := total - sats - faucetFeeRate*(vbytes+changeVBytes)
	if change < 0 {
		return nil, errFaucetEmpty
	}
	if change >= p2wpkhDust { // less goes to the miner, which is the faucet
		tx.AddTxOut(wire.NewTxOut(change, c.script))
	}
	return tx, c.sign(tx, spent)
}

func (c *coins) spendable() []*coin {
	list := slices.DeleteFunc(slices.Collect(maps.Values(c.unspent)), func(u *coin) bool {
		return u.reserved || u.spendAt > c.height+1
	})
	slices.SortFunc(list, func(a, b *coin) int {
		if a.mempool != b.mempool {
			if a.mempool {
				return 1
			}
			return -1
		}
		return cmp.Or(cmp.Compare(b.sats, a.sats), bytes.Compare(a.out.Hash[:], b.out.Hash[:]), cmp.Compare(a.out.Index, b.out.Index))
	})
	return list
}

func (c *coins) sign(tx *wire.MsgTx, spent []*coin) error {
	outputs := txscript.NewMultiPrevOutFetcher(nil)
	for _, in := range spent {
		outputs.AddPrevOut(in.out, wire.NewTxOut(in.sats, c.script))
	}
	hashes := txscript.NewTxSigHashes(tx, outputs)
	for i, in := range spent {
		witness, err := txscript.WitnessSignature(tx, hashes, i, in.sats, c.script, txscript.SigHashAll, c.key, true)
		if err != nil {
			return fmt.Errorf("sign input %d of a faucet payment: %w", i, err)
		}
		tx.TxIn[i].Witness = witness
	}
	return nil
}

// sent records a transaction in the mempool: its inputs are taken and its change to us may be spent on.
func (c *coins) sent(tx *wire.MsgTx) {
	for _, in := range tx.TxIn {
		if u := c.unspent[in.PreviousOutPoint]; u != nil {
			u.reserved = true
			continue
		}
		// A child listed before its parent: the parent's change is taken before it is known.
		c.unspent[in.PreviousOutPoint] = &coin{out: in.PreviousOutPoint, mempool: true, reserved: true}
	}
	for i, out := range tx.TxOut {
		if out.Value >= smallestFaucetCoin && bytes.Equal(out.PkScript, c.script) {
			point := wire.OutPoint{Hash: tx.TxHash(), Index: uint32(i)}
			if c.unspent[point] == nil {
				c.unspent[point] = &coin{out: point, sats: out.Value, mempool: true}
			}
		}
	}
}
