package address

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/btcsuite/btcd/btcutil"
	"github.com/btcsuite/btcd/btcutil/base58"
	"github.com/btcsuite/btcd/btcutil/bech32"
	"github.com/btcsuite/btcd/txscript"
	"github.com/decred/dcrd/dcrec/secp256k1/v4"
)

// BitcoinDust is the smallest output we make, in satoshi (spec: outflows W11).
const BitcoinDust = 546

// Bitcoin networks, by the names the signature vectors use.
const (
	Mainnet = "mainnet"
	Testnet = "testnet"
	Regtest = "regtest"
)

// bitcoinNetwork is what tells the addresses of two networks apart. Why not
// chaincfg: it carries genesis blocks, seeds and a clock, and its registry is a
// global that anyone may add to.
type bitcoinNetwork struct {
	name         string
	reference    string // CAIP-2: first 16 bytes of the genesis hash
	hrp          string
	p2pkh, p2sh  byte
	hrpSeparator string // hrp and "1", as addresses begin
}

var bitcoinNetworks = [...]bitcoinNetwork{
	{Mainnet, "000000000019d6689c085ae165831e93", "bc", 0x00, 0x05, "bc1"},
	{Testnet, "000000000933ea01ad0ee984209779ba", "tb", 0x6f, 0xc4, "tb1"},
	{Regtest, "0f9188f13cb7b2c71f2a335e3a4fc328", "bcrt", 0x6f, 0xc4, "bcrt1"},
}

// BitcoinNetwork is the network of a bip122 reference.
func BitcoinNetwork(reference string) (string, error) {
	for _, n := range bitcoinNetworks {
		if n.reference == reference {
			return n.name, nil
		}
	}
	return "", fmt.Errorf("%w: bip122:%s", ErrChain, reference)
}

// BitcoinChain is the CAIP-2 id of a network.
func BitcoinChain(network string) (string, error) {
	n, err := bitcoinParams(network)
	if err != nil {
		return "", err
	}
	return NamespaceBitcoin + ":" + n.reference, nil
}

func bitcoinParams(network string) (bitcoinNetwork, error) {
	for _, n := range bitcoinNetworks {
		if n.name == network {
			return n, nil
		}
	}
	return bitcoinNetwork{}, fmt.Errorf("%w: Bitcoin network %q", ErrChain, network)
}

var (
	// ErrChain: no such chain or network.
	ErrChain = errors.New("unknown chain")
	// ErrAddress: not the one canonical spelling of an address on this chain.
	ErrAddress = errors.New("not a canonical address of this chain")
)

// scriptKind is what an output script asks for.
type scriptKind uint8

const (
	kindP2PKH scriptKind = iota + 1
	kindP2SH
	kindP2WPKH
	kindP2WSH
	kindP2TR
)

// program is an output script taken apart.
type program struct {
	kind scriptKind
	hash []byte // 20 bytes, or 32 for P2WSH and P2TR
}

// script is the output script of p.
func (p program) script() []byte {
	switch p.kind {
	case kindP2PKH:
		return append(append([]byte{txscript.OP_DUP, txscript.OP_HASH160, 20}, p.hash...),
			txscript.OP_EQUALVERIFY, txscript.OP_CHECKSIG)
	case kindP2SH:
		return append(append([]byte{txscript.OP_HASH160, 20}, p.hash...), txscript.OP_EQUAL)
	case kindP2TR:
		return append([]byte{txscript.OP_1, 32}, p.hash...)
	}
	return append([]byte{txscript.OP_0, byte(len(p.hash))}, p.hash...)
}

// programOf takes an output script apart; false for every form we do not pay
// to, P2A and future witness versions among them (spec: requests §3.1 trap 2).
func programOf(script []byte) (program, bool) {
	p := program{}
	switch n := len(script); {
	case n == 25:
		p = program{kindP2PKH, script[3:23]}
	case n == 23:
		p = program{kindP2SH, script[2:22]}
	case n == 22:
		p = program{kindP2WPKH, script[2:]}
	case n == 34 && script[0] == txscript.OP_0:
		p = program{kindP2WSH, script[2:]}
	case n == 34:
		p = program{kindP2TR, script[2:]}
	default:
		return program{}, false
	}
	return p, bytes.Equal(p.script(), script)
}

// unspendable: an output key that is no point of the curve. Nobody can sign for
// it, and BIP 341 makes every spend of it fail; wallets pay to it all the same.
func (p program) unspendable() bool {
	if p.kind != kindP2TR {
		return false
	}
	_, err := secp256k1.ParsePubKey(append([]byte{secp256k1.PubKeyFormatCompressedEven}, p.hash...))
	return err != nil
}

func (n bitcoinNetwork) encode(p program) (string, error) {
	switch p.kind {
	case kindP2PKH:
		return base58.CheckEncode(p.hash, n.p2pkh), nil
	case kindP2SH:
		return base58.CheckEncode(p.hash, n.p2sh), nil
	}
	five, err := bech32.ConvertBits(p.hash, 8, 5, true)
	if err != nil {
		return "", err
	}
	if p.kind == kindP2TR {
		return bech32.EncodeM(n.hrp, append([]byte{1}, five...))
	}
	return bech32.Encode(n.hrp, append([]byte{0}, five...))
}

// maxBitcoinAddress is BIP-173's limit; base58 forms are shorter. It also keeps
// the quadratic base58 decoder from long input.
const maxBitcoinAddress = 90

// decode reads an address of exactly this network in its canonical spelling.
// Why not btcutil.DecodeAddress: it takes other networks' bech32, hex public
// keys, and reads a version 1 program of 20 bytes as P2WPKH (trap 3).
func (n bitcoinNetwork) decode(addr string) (program, error) {
	refused := fmt.Errorf("%w: Bitcoin %s", ErrAddress, n.name)
	if len(addr) > maxBitcoinAddress {
		return program{}, refused
	}
	p, ok := program{}, false
	if strings.HasPrefix(addr, n.hrpSeparator) {
		p, ok = decodeWitness(addr)
	} else {
		p, ok = n.decodeBase58(addr)
	}
	if !ok {
		return program{}, refused
	}
	if again, err := n.encode(p); err != nil || again != addr {
		return program{}, refused
	}
	return p, nil
}

func decodeWitness(addr string) (program, bool) {
	_, data, _, err := bech32.DecodeGeneric(addr)
	if err != nil || len(data) == 0 {
		return program{}, false
	}
	hash, err := bech32.ConvertBits(data[1:], 5, 8, false)
	if err != nil {
		return program{}, false
	}
	switch { // which checksum goes with which version, encoding again shows
	case data[0] == 0 && len(hash) == 20:
		return program{kindP2WPKH, hash}, true
	case data[0] == 0 && len(hash) == 32:
		return program{kindP2WSH, hash}, true
	case data[0] == 1 && len(hash) == 32:
		return program{kindP2TR, hash}, true
	}
	return program{}, false
}

func (n bitcoinNetwork) decodeBase58(addr string) (program, bool) {
	hash, version, err := base58.CheckDecode(addr)
	if err != nil || len(hash) != 20 {
		return program{}, false
	}
	switch version {
	case n.p2pkh:
		return program{kindP2PKH, hash}, true
	case n.p2sh:
		return program{kindP2SH, hash}, true
	}
	return program{}, false
}

// ScriptOf is the output script of an address on a network. It refuses another
// network's address, another spelling, and every form we do not pay to.
func ScriptOf(network, addr string) ([]byte, error) {
	n, err := bitcoinParams(network)
	if err != nil {
		return nil, err
	}
	p, err := n.decode(addr)
	if err != nil {
		return nil, err
	}
	return p.script(), nil
}

// AddressOf is the address of an output script on a network.
func AddressOf(network string, script []byte) (string, error) {
	n, err := bitcoinParams(network)
	if err != nil {
		return "", err
	}
	p, ok := programOf(script)
	if !ok {
		return "", fmt.Errorf("%w: script of %d bytes", ErrAddress, len(script))
	}
	return n.encode(p)
}

// P2WPKH is the address of a compressed public key on a network.
func P2WPKH(network string, pub []byte) (string, error) {
	script, err := P2WPKHScript(pub)
	if err != nil {
		return "", err
	}
	return AddressOf(network, script)
}

// P2WPKHScript is the output script of a compressed public key.
func P2WPKHScript(pub []byte) ([]byte, error) {
	if len(pub) != secp256k1.PubKeyBytesLenCompressed {
		return nil, fmt.Errorf("P2WPKH of a key of %d bytes, want 33", len(pub))
	}
	if _, err := secp256k1.ParsePubKey(pub); err != nil {
		return nil, fmt.Errorf("P2WPKH: %w", err)
	}
	return program{kindP2WPKH, btcutil.Hash160(pub)}.script(), nil
}
