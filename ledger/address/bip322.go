package address

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"strings"

	"github.com/btcsuite/btcd/chaincfg/chainhash"
	"github.com/btcsuite/btcd/txscript"
	"github.com/btcsuite/btcd/wire"
)

// BIP322ToSpend is the transaction that carries the message; it can never
// confirm. Its only output is locked by the signer's script.
func BIP322ToSpend(scriptPubKey, message []byte) *wire.MsgTx {
	h := chainhash.TaggedHash([]byte("BIP0322-signed-message"), message)
	tx := wire.NewMsgTx(0)
	tx.AddTxIn(&wire.TxIn{
		PreviousOutPoint: wire.OutPoint{Index: wire.MaxPrevOutIndex},
		SignatureScript:  append([]byte{txscript.OP_0, 32}, h[:]...),
	})
	tx.AddTxOut(wire.NewTxOut(0, scriptPubKey))
	return tx
}

// BIP322ToSign is the transaction a wallet signs to prove the message.
func BIP322ToSign(scriptPubKey, message []byte) *wire.MsgTx {
	toSpend := BIP322ToSpend(scriptPubKey, message)
	tx := wire.NewMsgTx(0)
	tx.AddTxIn(&wire.TxIn{PreviousOutPoint: wire.OutPoint{Hash: toSpend.TxHash()}})
	tx.AddTxOut(wire.NewTxOut(0, []byte{txscript.OP_RETURN}))
	return tx
}

// The two prefixes of BIP-322 1.0 that we take; "pof" needs a UTXO set.
const (
	prefixSimple = "smp"
	prefixFull   = "ful"
)

// maxMultisigKeys bounds the work of one verdict (spec: requests §3).
const maxMultisigKeys = 5

func verifyBIP322(r request) bool {
	n, err := bitcoinParams(r.network)
	if err != nil {
		return false
	}
	p, ok := n.decodeSigner(r.address)
	if !ok {
		return false
	}
	tx := BIP322ToSign(p.script(), r.message)
	// Padded base64 has a length that is a multiple of four; three letters
	// before it cannot be mistaken for part of it.
	prefix, body := "", r.signature
	if len(r.signature)%4 == len(prefixSimple) {
		prefix, body = r.signature[:3], r.signature[3:]
	}
	raw, ok := strictBase64(body)
	if !ok {
		return false
	}
	in := tx.TxIn[0]
	switch {
	case prefix == prefixFull:
		if !readToSign(raw, tx) {
			return false
		}
	case prefix == "" || prefix == prefixSimple && p.kind != kindP2SH:
		c := cursor{raw}
		if in.Witness, ok = c.witness(); !ok || len(c.rest) != 0 {
			return false
		}
		if p.kind == kindP2SH {
			// A simple signature has no room for the redeem script; wallets
			// from before 1.0 mean the one of P2SH-P2WPKH.
			in.SignatureScript = nestedScriptSig(in.Witness)
		}
	default:
		return false
	}
	if !p.matches(in) {
		return false
	}
	fetcher := txscript.NewCannedPrevOutputFetcher(p.script(), 0)
	engine, err := txscript.NewEngine(p.script(), tx, 0, txscript.StandardVerifyFlags, nil,
		txscript.NewTxSigHashes(tx, fetcher), 0, fetcher)
	return err == nil && engine.Execute() == nil
}

// decodeSigner is decode, which also takes the all-upper-case bech32 that
// BIP-173 allows. Only the signature verifier does (spec: requests §1.1).
func (n bitcoinNetwork) decodeSigner(addr string) (program, bool) {
	if strings.HasPrefix(addr, strings.ToUpper(n.hrpSeparator)) && strings.ToUpper(addr) == addr {
		addr = strings.ToLower(addr)
	}
	p, err := n.decode(addr)
	return p, err == nil
}

// matches reports whether an input unlocks p in one of the few known forms.
// What the script engine would take besides (another hash type, an annex, a
// script path, OP_TRUE) is no proof that a person signed (traps 2 and 4).
func (p program) matches(in *wire.TxIn) bool {
	w := in.Witness
	switch p.kind {
	case kindP2PKH:
		sig, key, ok := twoPushes(in.SignatureScript)
		return ok && len(w) == 0 && ecdsaAll(sig) && compressed(key)
	case kindP2SH:
		return len(w) == 2 && ecdsaAll(w[0]) && compressed(w[1]) &&
			bytes.Equal(in.SignatureScript, nestedScriptSig(w))
	case kindP2WPKH:
		return len(in.SignatureScript) == 0 && len(w) == 2 && ecdsaAll(w[0]) && compressed(w[1])
	case kindP2WSH:
		return len(in.SignatureScript) == 0 && multisigAll(w)
	case kindP2TR:
		return len(in.SignatureScript) == 0 && len(w) == 1 &&
			(len(w[0]) == 64 || len(w[0]) == 65 && w[0][64] == byte(txscript.SigHashAll))
	}
	return false
}

// ecdsaAll: a signature with hash type ALL. DER and low S are the engine's.
func ecdsaAll(sig []byte) bool {
	return len(sig) > 0 && sig[len(sig)-1] == byte(txscript.SigHashAll)
}

func compressed(key []byte) bool {
	return len(key) == 33 && (key[0] == 2 || key[0] == 3)
}

// nestedScriptSig is the one push of P2SH-P2WPKH for the key of a witness.
func nestedScriptSig(w wire.TxWitness) []byte {
	if len(w) != 2 || !compressed(w[1]) {
		return nil
	}
	script, err := P2WPKHScript(w[1])
	if err != nil {
		return nil
	}
	return append([]byte{byte(len(script))}, script...)
}

// twoPushes takes a P2PKH scriptSig apart: two direct pushes and nothing else.
func twoPushes(script []byte) (sig, key []byte, ok bool) {
	push := func() []byte {
		if len(script) == 0 || script[0] > 75 || len(script) < 1+int(script[0]) {
			return nil
		}
		item := script[1 : 1+script[0]]
		script = script[1+script[0]:]
		return item
	}
	sig, key = push(), push()
	return sig, key, len(sig) > 0 && len(key) > 0 && len(script) == 0
}

// multisigAll: [empty, m signatures, bare m-of-n script], n ≤ 5.
func multisigAll(w wire.TxWitness) bool {
	if len(w) < 3 || len(w[0]) != 0 {
		return false
	}
	m, ok := bareMultisig(w[len(w)-1])
	if !ok || len(w) != m+2 {
		return false
	}
	for _, sig := range w[1 : 1+m] {
		if !ecdsaAll(sig) {
			return false
		}
	}
	return true
}

// bareMultisig reads OP_m <33-byte keys> OP_n OP_CHECKMULTISIG.
func bareMultisig(script []byte) (m int, ok bool) {
	n := (len(script) - 3) / 34
	if n < 1 || n > maxMultisigKeys || len(script) != 3+34*n {
		return 0, false
	}
	m = int(script[0]) - txscript.OP_1 + 1
	if m < 1 || m > n || script[len(script)-2] != byte(txscript.OP_1+n-1) ||
		script[len(script)-1] != txscript.OP_CHECKMULTISIG {
		return 0, false
	}
	for i := range n {
		key := script[1+34*i:]
		if key[0] != 33 || !compressed(key[1:34]) {
			return 0, false
		}
	}
	return m, true
}

// readToSign reads the full form into tx, which is the to_sign of our own
// message. Everything but version 2, scriptSig and witness must be equal to
// it, the input above all (trap 1).
//
// Why not wire.MsgTx.Deserialize: it allocates by the counts it reads, 80 MB
// for an eight-byte lie, and both counts have to be one anyway.
func readToSign(raw []byte, tx *wire.MsgTx) bool {
	c := cursor{raw}
	version, ok := c.take(4)
	if !ok {
		return false
	}
	tx.Version = int32(binary.LittleEndian.Uint32(version))
	if tx.Version != 0 && tx.Version != 2 {
		return false
	}
	segwit := bytes.HasPrefix(c.rest, []byte{0, 1})
	if segwit {
		c.rest = c.rest[2:]
	}
	in := tx.TxIn[0]
	input := append([]byte{1}, in.PreviousOutPoint.Hash[:]...) // one input, to_spend:0
	if !c.literal(append(input, 0, 0, 0, 0)) {
		return false
	}
	if in.SignatureScript, ok = c.item(); !ok {
		return false
	}
	// nSequence 0; one output of value 0, OP_RETURN.
	if !c.literal([]byte{0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, txscript.OP_RETURN}) {
		return false
	}
	if segwit {
		if in.Witness, ok = c.witness(); !ok || len(in.Witness) == 0 {
			return false // an empty witness has no marker
		}
	}
	return c.literal([]byte{0, 0, 0, 0}) && len(c.rest) == 0 // nLockTime 0
}

// cursor reads Bitcoin's wire format without trusting a single length.
type cursor struct{ rest []byte }

func (c *cursor) take(n uint64) ([]byte, bool) {
	if n > uint64(len(c.rest)) {
		return nil, false
	}
	b := c.rest[:n:n]
	c.rest = c.rest[n:]
	return b, true
}

func (c *cursor) literal(want []byte) bool {
	got, ok := c.take(uint64(len(want)))
	return ok && bytes.Equal(got, want)
}

// size reads a CompactSize in its shortest form. Nothing in a signature needs
// more than three bytes of it.
func (c *cursor) size() (uint64, bool) {
	first, ok := c.take(1)
	if !ok || first[0] > 0xfd {
		return 0, false
	}
	if first[0] < 0xfd {
		return uint64(first[0]), true
	}
	b, ok := c.take(2)
	if !ok {
		return 0, false
	}
	n := uint64(binary.LittleEndian.Uint16(b))
	return n, n >= 0xfd
}

func (c *cursor) item() ([]byte, bool) {
	n, ok := c.size()
	if !ok {
		return nil, false
	}
	return c.take(n)
}

// maxWitnessItems: a multisig of five has seven.
const maxWitnessItems = maxMultisigKeys + 2

func (c *cursor) witness() (wire.TxWitness, bool) {
	n, ok := c.size()
	if !ok || n > maxWitnessItems {
		return nil, false
	}
	w := make(wire.TxWitness, 0, n)
	for range n {
		item, ok := c.item()
		if !ok {
			return nil, false
		}
		w = append(w, item)
	}
	return w, true
}

// strictBase64 reads standard, padded base64 in its one spelling. The library
// skips CR and LF even when strict (trap 5), so encode again and compare.
func strictBase64(s string) ([]byte, bool) {
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	return b, err == nil && base64.StdEncoding.EncodeToString(b) == s
}
