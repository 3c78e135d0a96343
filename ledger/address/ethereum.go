package address

import (
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"golang.org/x/crypto/sha3"
)

func keccak256(parts ...[]byte) (out [32]byte) {
	h := sha3.NewLegacyKeccak256()
	for _, p := range parts {
		h.Write(p)
	}
	h.Sum(out[:0])
	return out
}

// EthereumAddress is the EIP-55 spelling of a 20-byte address.
func EthereumAddress(a [20]byte) string {
	out := []byte("0x" + hex.EncodeToString(a[:]))
	sum := keccak256(out[2:])
	for i, c := range out[2:] {
		nibble := sum[i/2] >> (4 - 4*(i%2)) & 0x0f
		if c >= 'a' && nibble >= 8 {
			out[2+i] = c - 'a' + 'A'
		}
	}
	return string(out)
}

// ParseEthereum reads an address in its exact EIP-55 spelling.
func ParseEthereum(s string) ([20]byte, error) {
	a, ok := parseEthereumHex(s)
	if !ok || EthereumAddress(a) != s {
		return [20]byte{}, fmt.Errorf("%w: Ethereum, EIP-55", ErrAddress)
	}
	return a, nil
}

// parseEthereumLoose also takes an all-lower or all-upper spelling, which carry
// no checksum. Only the signature verifier does (spec: requests §1.1).
func parseEthereumLoose(s string) ([20]byte, bool) {
	a, ok := parseEthereumHex(s)
	if !ok {
		return [20]byte{}, false
	}
	digits := s[2:]
	return a, digits == strings.ToLower(digits) || digits == strings.ToUpper(digits) || s == EthereumAddress(a)
}

func parseEthereumHex(s string) (a [20]byte, ok bool) {
	if len(s) != 42 || s[:2] != "0x" {
		return a, false
	}
	_, err := hex.Decode(a[:], []byte(s[2:]))
	return a, err == nil
}

// EthereumOf is the address of a public key, compressed or not.
func EthereumOf(pub []byte) ([20]byte, error) {
	key, err := secp256k1.ParsePubKey(pub)
	if err != nil {
		return [20]byte{}, fmt.Errorf("Ethereum address: %w", err)
	}
	return ethereumOf(key), nil
}

func ethereumOf(key *secp256k1.PublicKey) [20]byte {
	h := keccak256(key.SerializeUncompressed()[1:])
	return [20]byte(h[12:])
}
