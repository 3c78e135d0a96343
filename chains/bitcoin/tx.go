package bitcoin

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcec/v2/ecdsa"
	"github.com/btcsuite/btcd/btcutil"
	"github.com/btcsuite/btcd/chaincfg/chainhash"
	"github.com/btcsuite/btcd/txscript"
	"github.com/btcsuite/btcd/wire"

	"github.com/coffer-network/coffer/chains"
	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/ledger/fixed"
)

const (
	asset = "btc"

	txVersion = 2                           // spec: outflows B6
	sequence  = wire.MaxTxInSequenceNum - 2 // 0xfffffffd: replaceable, lock time in force (B6)

	// spec: outflows W5; change of the pool is split in up to four (U5).
	maxInputs  = 100
	maxOutputs = 100 + 4

	// maxLockHeight: from here on a lock time is a date (BIP-65).
	maxLockHeight = 500_000_000
)

// Build implements chains.Chain: version, sequences, lock time and order are
// the plan's (spec: outflows B6), digests are BIP-143 with SIGHASH_ALL (B8).
func (c *Chain) Build(a ledger.Attempt) (chains.Unsigned, error) {
	u, err := c.build(a.Bitcoin)
	if err != nil {
		return chains.Unsigned{}, fmt.Errorf("%w: %w", chains.ErrAttempt, err)
	}
	return u, nil
}

func (c *Chain) build(p *ledger.BitcoinTx) (chains.Unsigned, error) {
	switch {
	case p == nil:
		return chains.Unsigned{}, errors.New("no Bitcoin transaction planned")
	case len(p.Inputs) == 0 || len(p.Inputs) > maxInputs:
		return chains.Unsigned{}, fmt.Errorf("%d inputs, want 1 to %d", len(p.Inputs), maxInputs)
	case len(p.Outputs) == 0 || len(p.Outputs) > maxOutputs:
		return chains.Unsigned{}, fmt.Errorf("%d outputs, want 1 to %d", len(p.Outputs), maxOutputs)
	case p.LockTime >= maxLockHeight:
		return chains.Unsigned{}, fmt.Errorf("lock time %d is not a height", p.LockTime)
	}
	tx := wire.NewMsgTx(txVersion)
	tx.LockTime = uint32(p.LockTime)
	prev := txscript.NewMultiPrevOutFetcher(nil)
	scripts := make([][]byte, len(p.Inputs))
	var in, out uint64
	for i, coin := range p.Inputs {
		op, err := parseOutpoint(coin.Outpoint)
		if err != nil {
			return chains.Unsigned{}, fmt.Errorf("input %d: %w", i, err)
		}
		if scripts[i], err = address.P2WPKHScript(coin.Pub); err != nil {
			return chains.Unsigned{}, fmt.Errorf("input %d: %w", i, err)
		}
		if coin.Sats == 0 || coin.Sats > btcutil.MaxSatoshi {
			return chains.Unsigned{}, fmt.Errorf("input %d of %d sat", i, coin.Sats)
		}
		in += coin.Sats
		tx.AddTxIn(&wire.TxIn{PreviousOutPoint: op, Sequence: sequence})
		prev.AddPrevOut(op, wire.NewTxOut(int64(coin.Sats), scripts[i]))
	}
	for i, o := range p.Outputs {
		script, err := address.ScriptOf(c.network, o.Address)
		if err != nil {
			return chains.Unsigned{}, fmt.Errorf("output %d: %w", i, err)
		}
		if o.Sats == 0 || o.Sats > btcutil.MaxSatoshi {
			return chains.Unsigned{}, fmt.Errorf("output %d of %d sat", i, o.Sats)
		}
		out += o.Sats
		tx.AddTxOut(wire.NewTxOut(int64(o.Sats), script))
	}
	if in != out+p.Fee { // spec: outflows I6; at most 104 × 2⁵¹, no overflow but by Fee
		return chains.Unsigned{}, fmt.Errorf("inputs %d are not outputs %d and fee %d", in, out, p.Fee)
	}
	u := chains.Unsigned{Chain: c.name, Bytes: noWitness(tx), TxID: tx.TxHash().String()}
	hashes := txscript.NewTxSigHashes(tx, prev)
	for i, coin := range p.Inputs {
		d, err := txscript.CalcWitnessSigHash(scripts[i], hashes, txscript.SigHashAll, tx, i, int64(coin.Sats))
		if err != nil {
			return chains.Unsigned{}, fmt.Errorf("digest of input %d: %w", i, err)
		}
		u.Inputs = append(u.Inputs, chains.ToSign{Digest: [32]byte(d), Pub: coin.Pub, Path: coin.Path, Sats: coin.Sats})
	}
	return u, nil
}

// Reads implements chains.Chain. It shares no line with Build on purpose: what
// it says is what the network would make of the bytes (spec: outflows §1.1).
func (c *Chain) Reads(u chains.Unsigned) (spends []string, pays []ledger.Payment, err error) {
	tx, err := c.parse(u)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", chains.ErrUnsigned, err)
	}
	for _, in := range tx.TxIn {
		spends = append(spends, outpointName(in.PreviousOutPoint))
	}
	for i, o := range tx.TxOut {
		addr, err := address.AddressOf(c.network, o.PkScript)
		if err != nil {
			return nil, nil, fmt.Errorf("%w: output %d: %w", chains.ErrUnsigned, i, err)
		}
		pays = append(pays, ledger.Payment{Asset: asset, To: addr, Amount: fixed.New(uint64(o.Value))})
	}
	return spends, pays, nil
}

func (c *Chain) parse(u chains.Unsigned) (*wire.MsgTx, error) {
	if u.Chain != c.name {
		return nil, fmt.Errorf("of chain %q, want %q", u.Chain, c.name)
	}
	tx := new(wire.MsgTx)
	if err := tx.DeserializeNoWitness(bytes.NewReader(u.Bytes)); err != nil {
		return nil, fmt.Errorf("decode: %w", err)
	}
	switch {
	case !bytes.Equal(noWitness(tx), u.Bytes):
		return nil, errors.New("bytes are not the one encoding")
	case tx.Version != txVersion:
		return nil, fmt.Errorf("version %d", tx.Version)
	case tx.LockTime >= maxLockHeight:
		return nil, fmt.Errorf("lock time %d is not a height", tx.LockTime)
	case tx.TxHash().String() != u.TxID:
		return nil, errors.New("transaction id is not that of the bytes")
	case len(tx.TxIn) == 0 || len(tx.TxIn) > maxInputs || len(tx.TxOut) == 0 || len(tx.TxOut) > maxOutputs:
		return nil, fmt.Errorf("%d inputs and %d outputs", len(tx.TxIn), len(tx.TxOut))
	case len(u.Inputs) != len(tx.TxIn):
		return nil, fmt.Errorf("%d digests for %d inputs", len(u.Inputs), len(tx.TxIn))
	}
	seen := map[wire.OutPoint]bool{}
	for i, in := range tx.TxIn {
		switch {
		case seen[in.PreviousOutPoint]:
			return nil, fmt.Errorf("input %d twice", i)
		case in.Sequence != sequence || len(in.SignatureScript) != 0:
			return nil, fmt.Errorf("input %d: sequence %#x, script of %d bytes", i, in.Sequence, len(in.SignatureScript))
		case u.Inputs[i].Sats == 0 || u.Inputs[i].Sats > btcutil.MaxSatoshi:
			return nil, fmt.Errorf("input %d of %d sat", i, u.Inputs[i].Sats)
		}
		seen[in.PreviousOutPoint] = true
		d, err := bip143(tx, i, u.Inputs[i].Pub, u.Inputs[i].Sats)
		if err != nil {
			return nil, fmt.Errorf("input %d: %w", i, err)
		}
		// What is signed is the digest, so a digest of other bytes is the one
		// thing that must never pass.
		if d != u.Inputs[i].Digest {
			return nil, fmt.Errorf("input %d: digest is not that of the bytes", i)
		}
	}
	for i, o := range tx.TxOut {
		if o.Value <= 0 || o.Value > btcutil.MaxSatoshi {
			return nil, fmt.Errorf("output %d of %d sat", i, o.Value)
		}
	}
	return tx, nil
}

// bip143 is the SIGHASH_ALL digest of a P2WPKH input, written from the BIP and
// not with the library that Build uses.
func bip143(tx *wire.MsgTx, index int, pub []byte, sats uint64) ([32]byte, error) {
	script, err := address.P2WPKHScript(pub)
	if err != nil {
		return [32]byte{}, err
	}
	le := binary.LittleEndian
	outpoint := func(b []byte, op wire.OutPoint) []byte {
		return le.AppendUint32(append(b, op.Hash[:]...), op.Index)
	}
	var prevouts, sequences, outputs []byte
	for _, in := range tx.TxIn {
		prevouts = outpoint(prevouts, in.PreviousOutPoint)
		sequences = le.AppendUint32(sequences, in.Sequence)
	}
	for _, o := range tx.TxOut {
		// Every script we pay to is shorter than 253 bytes: one length byte.
		if len(o.PkScript) >= 0xfd {
			return [32]byte{}, fmt.Errorf("output script of %d bytes", len(o.PkScript))
		}
		outputs = le.AppendUint64(outputs, uint64(o.Value))
		outputs = append(append(outputs, byte(len(o.PkScript))), o.PkScript...)
	}
	b := le.AppendUint32(nil, uint32(tx.Version))
	for _, part := range [][]byte{prevouts, sequences} {
		h := chainhash.DoubleHashB(part)
		b = append(b, h...)
	}
	b = outpoint(b, tx.TxIn[index].PreviousOutPoint)
	b = append(b, 25, txscript.OP_DUP, txscript.OP_HASH160)
	b = append(append(b, 20), script[2:]...)
	b = append(b, txscript.OP_EQUALVERIFY, txscript.OP_CHECKSIG)
	b = le.AppendUint64(b, sats)
	b = le.AppendUint32(b, tx.TxIn[index].Sequence)
	b = append(b, chainhash.DoubleHashB(outputs)...)
	b = le.AppendUint32(b, tx.LockTime)
	b = le.AppendUint32(b, uint32(txscript.SigHashAll))
	h := sha256.Sum256(b)
	return sha256.Sum256(h[:]), nil
}

// Finish implements chains.Chain.
func (c *Chain) Finish(u chains.Unsigned, sigs []chains.Signature) (chains.Raw, error) {
	tx, err := c.parse(u)
	if err != nil {
		return chains.Raw{}, fmt.Errorf("%w: %w", chains.ErrUnsigned, err)
	}
	if len(sigs) != len(u.Inputs) {
		return chains.Raw{}, fmt.Errorf("%w: %d for %d inputs", chains.ErrSignature, len(sigs), len(u.Inputs))
	}
	for i, in := range u.Inputs {
		der, err := verify(in, sigs[i])
		if err != nil {
			return chains.Raw{}, fmt.Errorf("%w: input %d: %w", chains.ErrSignature, i, err)
		}
		tx.TxIn[i].Witness = wire.TxWitness{append(der, byte(txscript.SigHashAll)), in.Pub}
	}
	var b bytes.Buffer
	if err := tx.Serialize(&b); err != nil {
		return chains.Raw{}, fmt.Errorf("encode transaction: %w", err)
	}
	return chains.Raw{Bytes: b.Bytes(), TxID: u.TxID}, nil
}

// verify returns the DER form of a signature that is good and has low S
// (BIP-146: relayed no other way).
func verify(in chains.ToSign, sig chains.Signature) ([]byte, error) {
	var r, s btcec.ModNScalar
	switch {
	case r.SetBytes(&sig.R) != 0 || s.SetBytes(&sig.S) != 0 || r.IsZero() || s.IsZero():
		return nil, errors.New("out of range")
	case s.IsOverHalfOrder():
		return nil, errors.New("high S")
	}
	pub, err := btcec.ParsePubKey(in.Pub)
	if err != nil {
		return nil, fmt.Errorf("public key: %w", err)
	}
	parsed := ecdsa.NewSignature(&r, &s)
	if !parsed.Verify(in.Digest[:], pub) {
		return nil, errors.New("does not verify")
	}
	return parsed.Serialize(), nil
}

func noWitness(tx *wire.MsgTx) []byte {
	var b bytes.Buffer
	_ = tx.SerializeNoWitness(&b) // a bytes.Buffer does not fail
	return b.Bytes()
}

func outpointName(op wire.OutPoint) string {
	return op.Hash.String() + ":" + strconv.FormatUint(uint64(op.Index), 10)
}

// parseOutpoint reads exactly what outpointName writes: two spellings of one
// coin would be two anchors.
func parseOutpoint(s string) (wire.OutPoint, error) {
	hash, index, _ := strings.Cut(s, ":")
	n, err := strconv.ParseUint(index, 10, 32)
	if err != nil {
		return wire.OutPoint{}, fmt.Errorf("outpoint %.80q", s)
	}
	h, err := chainhash.NewHashFromStr(hash)
	if err != nil {
		return wire.OutPoint{}, fmt.Errorf("outpoint %.80q", s)
	}
	op := wire.OutPoint{Hash: *h, Index: uint32(n)}
	if outpointName(op) != s {
		return wire.OutPoint{}, fmt.Errorf("outpoint %.80q", s)
	}
	return op, nil
}
