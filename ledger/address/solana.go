package address

import (
	"encoding/binary"
	"fmt"
	"unicode/utf8"

	"github.com/btcsuite/btcd/btcutil/base58"
)

// ParseSolana reads a 32-byte address in base58.
func ParseSolana(s string) (out [32]byte, err error) {
	b, ok := parseBase58(s, 32)
	if !ok {
		return out, fmt.Errorf("%w: Solana", ErrAddress)
	}
	return [32]byte(b), nil
}

// parseBase58 reads exactly n bytes in the one spelling that encoding them
// gives. Lengths are bounded before decoding, which is quadratic.
func parseBase58(s string, n int) ([]byte, bool) {
	if len(s) < n || len(s) > 2*n {
		return nil, false
	}
	b := base58.Decode(s)
	return b, len(b) == n && base58.Encode(b) == s
}

// offchainDomain begins every envelope; no transaction begins with 0xff.
const offchainDomain = "\xffsolana offchain"

// Formats of an off-chain message (spec: requests §2).
const (
	formatASCII = 0
	formatUTF8  = 1
	formatLong  = 2

	maxShortEnvelope = 1232 // formats 0 and 1: what fits a packet, with the header
	maxLongMessage   = 1<<16 - 1
)

func verifySolana(r request) bool { return verifySolanaBytes(r, r.message) }

// verifySolanaV0: version, application domain, format, one signer, length, text.
func verifySolanaV0(r request) bool {
	domain, ok := parseBase58(r.extras.ApplicationDomain, 32)
	if !ok {
		return false
	}
	key, err := ParseSolana(r.address)
	if err != nil {
		return false
	}
	const header = len(offchainDomain) + 1 + 32 + 1 + 1 + 32 + 2
	format, ok := r.format(header)
	if !ok {
		return false
	}
	b := append([]byte(offchainDomain), 0)
	b = append(b, domain...)
	b = append(b, format, 1)
	b = append(b, key[:]...)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(r.message)))
	return verifySolanaBytes(r, append(b, r.message...))
}

// verifySolanaV1: version, one signer, text.
func verifySolanaV1(r request) bool {
	key, err := ParseSolana(r.address)
	if err != nil || !utf8.Valid(r.message) {
		return false
	}
	b := append([]byte(offchainDomain), 1, 1)
	b = append(b, key[:]...)
	return verifySolanaBytes(r, append(b, r.message...))
}

// verifySolanaLedger: version, format, length, text, as devices and the older
// command line sign.
func verifySolanaLedger(r request) bool {
	const header = len(offchainDomain) + 1 + 1 + 2
	format, ok := r.format(header)
	if !ok {
		return false
	}
	b := append([]byte(offchainDomain), 0, format)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(r.message)))
	return verifySolanaBytes(r, append(b, r.message...))
}

// format is the envelope's format byte: as the client declared it, since
// devices differ, else by the rule of spec requests §2.
func (r request) format(header int) (uint8, bool) {
	if len(r.message) > maxLongMessage || !utf8.Valid(r.message) {
		return 0, false
	}
	switch {
	case r.extras.Format != nil:
		return *r.extras.Format, *r.extras.Format <= formatLong
	case header+len(r.message) > maxShortEnvelope:
		return formatLong, true
	case printable(string(r.message)):
		return formatASCII, true
	}
	return formatUTF8, true
}

func verifySolanaBytes(r request, signed []byte) bool {
	if r.network != NetworkSolana {
		return false
	}
	key, err := ParseSolana(r.address)
	if err != nil {
		return false
	}
	sig, ok := parseBase58(r.signature, 64)
	return ok && verifyEd25519(key, signed, sig)
}
