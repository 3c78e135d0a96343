// Package erc20 owns the two calls and the one event of ERC-20 that the cluster
// uses, as bytes. It links no Ethereum library, so that the in-memory chain can
// read what the ledger plans.
package erc20

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/ledger/fixed"
)

// CallSize is the size of transfer(address,uint256): selector and two words.
const CallSize = 4 + 32 + 32

// Transfer is keccak256("Transfer(address,address,uint256)").
const Transfer = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"

// BalanceOf is the selector of balanceOf(address); the owner's AddressWord follows.
const BalanceOf = "0x70a08231"

var selector = []byte{0xa9, 0x05, 0x9c, 0xbb}

// ErrCall says that data is not a transfer as we would plan it.
var ErrCall = errors.New("not a call of transfer(address,uint256)")

// ParseCall reads the data of transfer(to, amount), and nothing else: no bytes
// behind, no dirt in the padding, no amount beyond what the ledger counts.
func ParseCall(data []byte) (to string, amount fixed.Int, err error) {
	if len(data) != CallSize || !bytes.Equal(data[:4], selector) {
		return "", fixed.Int{}, fmt.Errorf("%w: %d bytes", ErrCall, len(data))
	}
	to, ok := ParseAddress(data[4:36])
	if !ok {
		return "", fixed.Int{}, fmt.Errorf("%w: address not padded with zeros", ErrCall)
	}
	amount, ok = ParseAmount(data[36:])
	if !ok {
		return "", fixed.Int{}, fmt.Errorf("%w: amount beyond 2^128", ErrCall)
	}
	return to, amount, nil
}

// ParseAddress reads a word that holds an address; EIP-55.
func ParseAddress(word []byte) (string, bool) {
	if len(word) != 32 || !zeros(word[:12]) {
		return "", false
	}
	return address.EthereumAddress([20]byte(word[12:])), true
}

// AddressWord is the topic of an address; the caller's addresses are canonical.
func AddressWord(addr string) (string, error) {
	a, err := address.ParseEthereum(addr)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("0x%024x%s", 0, hex.EncodeToString(a[:])), nil
}

// ParseAmount reads a word that holds an amount below 2¹²⁸.
func ParseAmount(word []byte) (fixed.Int, bool) {
	if len(word) != 32 || !zeros(word[:16]) {
		return fixed.Int{}, false
	}
	v, err := fixed.FromBytes(bytes.TrimLeft(word, "\x00"))
	return v, err == nil
}

func zeros(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }
